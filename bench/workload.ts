import {
  DEVICE_DATA_SET_RANGE,
  DEVICE_MANAGE_DATA_SET_ATTRIBUTES,
  DsmAction,
} from '../guest/class/disk/ioctl.ts'
import { NtStatus, ntSuccess } from '../guest/kernel/nt-status.ts'
import type { Waiting } from '../guest/kernel/thread.ts'
import type { DiskBackend, DiskOutcome } from '../host/disk/backend.ts'
import { PAGE_BYTES } from '../protocol/memory.ts'
import type { Random } from '../protocol/platform.ts'
import { SECTOR_BYTES } from '../protocol/virtio/blk.ts'
import { Window } from '../protocol/window.ts'
import type { ContentModel } from './content-model.ts'
import { DirectReader, type DirectReadOwner } from './direct-read.ts'
import type { Drive } from './drive.ts'
import { type Operation, type OperationLimits, OperationSource } from './operation.ts'
import type { ProblemList } from './problem.ts'

export interface WorkloadSetup {
  readonly drive: Drive
  readonly limits: OperationLimits
  readonly blockBytes: number
  /** Requests in flight. */
  readonly depth: number
  readonly random: Random
  /** What is known of the drive's content; it learns what is written. */
  readonly model: ContentModel
  /** What blocks nobody wrote hold; null: nobody else can tell. */
  readonly reference: DiskBackend | null
  /** Requests to draw; reading back what they touched comes on top. */
  readonly operations: number
  readonly problems: ProblemList
}

const DSM = DEVICE_MANAGE_DATA_SET_ATTRIBUTES
/** Ranges begin behind the header, aligned to eight bytes. */
const RANGES_AT = 32
const TRIM_BYTES = RANGES_AT + DEVICE_DATA_SET_RANGE.$size

const WHAT = {
  read: 'a read',
  write: 'a write',
  'write-through': 'a write-through',
  flush: 'a flush',
  trim: 'a trim',
} as const

/** Ends after which the drive will not answer any more, and may still write what it was lent. */
const GONE: readonly NtStatus[] = [NtStatus.NO_SUCH_DEVICE, NtStatus.DEVICE_NOT_CONNECTED]

interface Slot {
  readonly index: number
  /** The application's buffer, with a page of room before the end. */
  readonly buffer: number
  /** Where in it the request's data begins. */
  at: number
  operation: Operation
  lengthBytes: number
  /** What is written, or was read. */
  content: Uint8Array<ArrayBuffer>
  busy: boolean
}

/**
 * An application that reads, writes, writes through, flushes, and trims where that is offered, at random and
 * with many requests under way; every read is held against a model of what was written, and against the
 * backend's own content for what was not. At the end everything touched is read once more.
 *
 * Buffers begin at any byte of a page, so that the device meets segments of odd lengths. Requests whose ranges
 * meet are never in flight together unless both read: nothing orders them, so nobody could say what is right.
 */
export class Workload implements DirectReadOwner<Slot> {
  readonly #setup: WorkloadSetup
  readonly #source: OperationSource
  readonly #direct: DirectReader<Slot>
  readonly #slots: readonly Slot[]
  readonly #transferBytesMax: number
  /** What is read once more at the end; null until everything drawn has ended. */
  #sweep: Operation[] | null
  #waiting: Operation | null
  #started: number
  #ended: number
  #underWay: number
  #allowed: number
  #comparedBytes: number
  #lost: boolean

  constructor(setup: WorkloadSetup) {
    const { random, limits, blockBytes, reference, depth, drive } = setup
    this.#setup = setup
    this.#transferBytesMax = limits.transferBlocksMax * blockBytes
    this.#source = new OperationSource(random, limits)
    this.#direct = new DirectReader(reference, this, this.#transferBytesMax)
    this.#slots = Array.from({ length: depth }, (_, index) => ({
      index,
      buffer: drive.user.allocate(this.#transferBytesMax + PAGE_BYTES),
      at: 0,
      operation: { kind: 'flush', block: 0, count: 0 },
      lengthBytes: 0,
      content: new Uint8Array(this.#transferBytesMax),
      busy: false,
    }))
    this.#sweep = null
    this.#waiting = null
    this.#started = 0
    this.#ended = 0
    this.#underWay = 0
    this.#allowed = 0
    this.#comparedBytes = 0
    this.#lost = this.#slots.some(({ buffer }) => buffer === 0)
    // Nothing verified is not verified.
    if (this.#lost) {
      const bytes = `${depth} buffers of ${this.#transferBytesMax} bytes`
      setup.problems.add('request-failed', null, `the guest has no memory for the workload's ${bytes}`)
    }
  }

  /** Requests that came back. */
  get requests(): number {
    return this.#ended
  }

  get comparedBytes(): number {
    return this.#comparedBytes
  }

  get outstanding(): number {
    return this.#underWay
  }

  get over(): boolean {
    if (this.#started !== this.#ended) return false
    return this.#lost || (this.#sweep !== null && this.#sweep.length === 0 && this.#waiting === null)
  }

  /** Lets `count` more requests begin. */
  allow(count: number): void {
    this.#allowed += count
  }

  /** Does what is allowed, as far as slots are free. In a thread of the guest. */
  *turn(): Waiting<void> {
    const { drive } = this.#setup
    for (;;) {
      yield* this.#fill()
      if (this.#underWay === 0) return
      const { slot, status, information } = yield* drive.next()
      this.#settle(this.#slots[slot] as Slot, status, information)
    }
  }

  /** Gives the application's memory back. */
  release(): void {
    for (const { buffer } of this.#slots) if (buffer !== 0) this.#setup.drive.user.free(buffer)
  }

  directRead(slot: Slot, expected: Uint8Array<ArrayBuffer> | null, outcome: DiskOutcome): void {
    const { problems, blockBytes } = this.#setup
    // Without a witness, blocks of which some were written have nothing to be compared with as a whole.
    if (outcome === 'ok' && expected !== null) this.#compare(slot, expected, 'the backend and the model hold')
    else if (outcome !== 'ok') {
      const sector = (slot.operation.block * blockBytes) / SECTOR_BYTES
      const text = `the backend itself cannot read sector ${sector}: ${outcome}`
      problems.add('request-failed', sector, text)
    }
    this.#free(slot)
  }

  /** A request ended: what follows from it. */
  #settle(slot: Slot, status: NtStatus, movedBytes: number): void {
    const { problems, blockBytes } = this.#setup
    const { kind, block, count } = slot.operation
    const offset = block * blockBytes
    this.#underWay--
    if (!ntSuccess(status)) {
      problems.failed(WHAT[kind], kind === 'flush' ? null : offset, status)
      this.#failed(slot, status)
      return
    }
    const transfers = kind !== 'flush' && kind !== 'trim'
    if (transfers && movedBytes !== slot.lengthBytes) {
      problems.short(WHAT[kind], offset, movedBytes, slot.lengthBytes)
      this.#failed(slot, status)
      return
    }
    const { model } = this.#setup
    if (kind === 'trim') model.forgot(block, count)
    else if (kind === 'write' || kind === 'write-through') model.wrote(block, contentOf(slot))
    else if (kind === 'read') {
      this.#gather(slot)
      if (!model.covers(block, count)) {
        this.#direct.read(slot, offset, slot.lengthBytes)
        return
      }
      this.#compare(slot, new Uint8Array(slot.lengthBytes), 'the model holds')
    }
    this.#free(slot)
  }

  #failed(slot: Slot, status: NtStatus): void {
    const { model } = this.#setup
    const { kind, block, count } = slot.operation
    if (changes(kind)) model.forgot(block, count)
    if (GONE.includes(status)) this.#lost = true
    this.#free(slot)
  }

  #compare(slot: Slot, expected: Uint8Array, witness: string): void {
    const { model, problems, blockBytes } = this.#setup
    const { block } = slot.operation
    const seen = contentOf(slot)
    this.#comparedBytes += model.apply(block, expected, seen)
    problems.same(seen, expected, block * blockBytes, witness)
  }

  #free(slot: Slot): void {
    slot.busy = false
    this.#ended++
  }

  *#fill(): Waiting<void> {
    while (!this.#lost && this.#started < this.#allowed) {
      const slot = this.#slots.find((one) => !one.busy)
      const operation = slot === undefined ? null : this.#next()
      if (slot === undefined || operation === null) return
      if (this.#meetsOneUnderWay(operation)) {
        this.#waiting = operation
        return
      }
      this.#prepare(slot, operation)
      slot.busy = true
      this.#started++
      this.#underWay++
      const answer = yield* this.#begin(slot)
      if (answer !== null) this.#settle(slot, answer, 0)
    }
  }

  /** Null: its end comes by the port. */
  *#begin(slot: Slot): Waiting<NtStatus | null> {
    const { drive, blockBytes } = this.#setup
    const { kind, block } = slot.operation
    const buffer = slot.buffer + slot.at
    if (kind === 'flush') return yield* drive.flush()
    if (kind === 'trim') return yield* drive.beginTrim(slot.index, buffer, TRIM_BYTES)
    const through = kind === 'write-through'
    const write = through || kind === 'write'
    return yield* drive.begin(slot.index, write, buffer, slot.lengthBytes, block * blockBytes, through)
  }

  /** What comes next; null when it is over, or what is drawn has to end first. */
  #next(): Operation | null {
    const waiting = this.#waiting
    if (waiting !== null) {
      this.#waiting = null
      return waiting
    }
    if (this.#started < this.#setup.operations) return this.#source.next()
    if (this.#sweep === null) {
      if (this.#started !== this.#ended) return null
      this.#sweep = this.#readBack()
    }
    return this.#sweep.pop() ?? null
  }

  /** Reads that cover everything touched, as long as buffers allow; last first. */
  #readBack(): Operation[] {
    const most = this.#setup.limits.transferBlocksMax
    const sweep: Operation[] = []
    for (const block of this.#setup.model.touched) {
      const last = sweep.at(-1)
      if (last !== undefined && last.block + last.count === block && last.count < most) {
        sweep[sweep.length - 1] = { ...last, count: last.count + 1 }
      } else sweep.push({ kind: 'read', block, count: 1 })
    }
    return sweep.reverse()
  }

  #meetsOneUnderWay({ kind, block, count }: Operation): boolean {
    return this.#slots.some(({ busy, operation: other }) => {
      if (!busy || (!changes(kind) && !changes(other.kind))) return false
      return block < other.block + other.count && other.block < block + count
    })
  }

  #prepare(slot: Slot, operation: Operation): void {
    const { random, blockBytes, drive } = this.#setup
    const { kind, block, count } = operation
    slot.operation = operation
    slot.lengthBytes = kind === 'flush' || kind === 'trim' ? 0 : count * blockBytes
    slot.at = random.below(PAGE_BYTES)
    if (kind === 'trim') {
      drive.user.put(slot.buffer + slot.at, trimRequest(block * blockBytes, count * blockBytes))
    } else if (changes(kind)) {
      fillWithNoise(contentOf(slot), random.next32())
      drive.user.put(slot.buffer + slot.at, contentOf(slot))
    }
  }

  #gather(slot: Slot): void {
    const { user } = this.#setup.drive
    let done = 0
    for (const view of user.views(slot.buffer + slot.at, slot.lengthBytes) ?? []) {
      slot.content.set(view, done)
      done += view.length
    }
  }
}

function contentOf(slot: Slot): Uint8Array<ArrayBuffer> {
  return slot.content.subarray(0, slot.lengthBytes)
}

/** DEVICE_MANAGE_DATA_SET_ATTRIBUTES with one range to trim. */
export function trimRequest(offset: number, lengthBytes: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(TRIM_BYTES)
  const request = new Window(bytes)
  request.putLe32(DSM.size, DSM.$size)
  request.putLe32(DSM.action, DsmAction.TRIM)
  request.putLe32(DSM.dataSetRangesOffset, RANGES_AT)
  request.putLe32(DSM.dataSetRangesLength, DEVICE_DATA_SET_RANGE.$size)
  request.putLe64(DEVICE_DATA_SET_RANGE.startingOffset, offset, RANGES_AT)
  request.putLe64(DEVICE_DATA_SET_RANGE.lengthInBytes, lengthBytes, RANGES_AT)
  return bytes
}

/** Bytes that differ from one request to the next; whole sectors. */
function fillWithNoise(bytes: Uint8Array<ArrayBuffer>, seed: number): void {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)
  let state = seed | 1
  for (let i = 0; i < words.length; i++) {
    state = (Math.imul(state, 0x915f77f5) + 0x9e3779b9) >>> 0
    words[i] = state
  }
}

function changes(kind: Operation['kind']): boolean {
  return kind === 'write' || kind === 'write-through' || kind === 'trim'
}
