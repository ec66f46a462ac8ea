import type { BlkDriver } from '../guest/virtio/blk.ts'
import { BlkCommand, type BlkEnd } from '../guest/virtio/blk-command.ts'
import type { BlkGeometry } from '../guest/virtio/blk-geometry.ts'
import type { DiskBackend, DiskOutcome } from '../host/disk/backend.ts'
import { gpa } from '../protocol/memory.ts'
import type { Random } from '../protocol/platform.ts'
import { type FeatureSet, hasFeature } from '../protocol/version.ts'
import {
  BlkFeature,
  BlkSegment,
  BlkSegmentFlag,
  BlkStatus,
  BlkType,
  SECTOR_BYTES,
} from '../protocol/virtio/blk.ts'
import { Window } from '../protocol/window.ts'
import type { GuestBuffer } from './buffers.ts'
import type { ContentModel } from './content-model.ts'
import { DirectReader, type DirectReadOwner } from './direct-read.ts'
import { IDENTIFY, IDENTIFY_BYTES, type Operation, OperationSource } from './operation.ts'
import type { ProblemList } from './problem.ts'

export interface WorkloadSetup {
  readonly driver: BlkDriver
  readonly features: FeatureSet
  readonly geometry: BlkGeometry
  /** One per request in flight. */
  readonly buffers: readonly GuestBuffer[]
  readonly random: Random
  /** What is known of the disk's content; it learns what is written. */
  readonly model: ContentModel
  /** What blocks nobody wrote hold. */
  readonly reference: DiskBackend
  readonly serial: string
  /** Requests to draw; reading back what they touched comes on top. */
  readonly operations: number
  readonly problems: ProblemList
}

/** Cuts of a request's data into segments, so that the device meets odd ones. */
const SEGMENTS_MAX = 4
const NOTHING: Operation = { type: BlkType.FLUSH, block: 0, count: 0 }

class Slot extends BlkCommand {
  readonly #workload: Workload
  readonly buffer: GuestBuffer
  readonly window: Window
  /** The data in one piece: what was written, or what was read once it is gathered. */
  readonly content: Uint8Array<ArrayBuffer>
  operation: Operation
  dataBytes: number
  busy: boolean

  constructor(workload: Workload, buffer: GuestBuffer) {
    super(BlkType.IN, 0)
    this.#workload = workload
    this.buffer = buffer
    this.window = new Window(buffer.bytes)
    this.content = new Uint8Array(buffer.bytes.length)
    this.operation = NOTHING
    this.dataBytes = 0
    this.busy = false
  }

  ended(end: BlkEnd, writtenBytes: number): void {
    this.#workload.ended(this, end, writtenBytes)
  }

  /** Moves `content` to where the segments are. */
  scatter(): void {
    this.#eachSegment((segment, at) => segment.set(this.content.subarray(at, at + segment.length)))
  }

  /** And back. */
  gather(): void {
    this.#eachSegment((segment, at) => this.content.set(segment, at))
  }

  #eachSegment(move: (segment: Uint8Array, at: number) => void): void {
    const { addresses, lengths, count } = this.data
    let done = 0
    for (let i = 0; i < count; i++) {
      const at = (addresses[i] ?? 0) - this.buffer.at
      const length = lengths[i] ?? 0
      move(this.buffer.bytes.subarray(at, at + length), done)
      done += length
    }
  }
}

/**
 * Random reads, writes, flushes, and discards, zeroes and erases where they are offered; every read is held
 * against a model of what was written, and against the backend's own content for what was not. At the end
 * everything touched is read once more.
 *
 * Requests whose ranges meet are never in flight together unless both read: nothing orders them, so nobody
 * could say what is right.
 */
export class Workload implements DirectReadOwner<Slot> {
  readonly #setup: WorkloadSetup
  readonly #source: OperationSource
  readonly #model: ContentModel
  readonly #direct: DirectReader<Slot>
  readonly #slots: readonly Slot[]
  readonly #blockBytes: number
  readonly #bufferBytes: number
  /** What is read once more at the end; null until everything drawn has ended. */
  #sweep: Operation[] | null
  #waiting: Operation | null
  #started: number
  #ended: number
  #allowed: number
  #comparedBytes: number
  #lost: boolean

  constructor(setup: WorkloadSetup) {
    const { random, features, geometry, buffers, reference } = setup
    this.#setup = setup
    this.#blockBytes = geometry.blockBytes
    this.#bufferBytes = buffers[0]?.bytes.length ?? 0
    // Half of a buffer stays free, so that segments can lie apart.
    const most = Math.max(geometry.blockBytes, this.#bufferBytes / 2)
    this.#source = new OperationSource(random, features, geometry, most)
    this.#model = setup.model
    this.#direct = new DirectReader(reference, this, this.#bufferBytes)
    this.#slots = buffers.map((buffer) => new Slot(this, buffer))
    this.#sweep = null
    this.#waiting = null
    this.#started = 0
    this.#ended = 0
    this.#allowed = 0
    this.#comparedBytes = 0
    this.#lost = false
  }

  /** Requests that came back. */
  get requests(): number {
    return this.#ended
  }

  get comparedBytes(): number {
    return this.#comparedBytes
  }

  get outstanding(): number {
    return this.#started - this.#ended
  }

  get over(): boolean {
    if (this.#lost) return this.outstanding === 0
    return (
      this.#sweep !== null && this.#sweep.length === 0 && this.#waiting === null && this.outstanding === 0
    )
  }

  /** Lets `count` more requests begin. */
  allow(count: number): void {
    this.#allowed += count
    this.#fill()
  }

  ended(slot: Slot, end: BlkEnd, writtenBytes: number): void {
    const { operation } = slot
    const offset = operation.block * this.#blockBytes
    if (end.kind !== 'status' || end.status !== BlkStatus.OK) {
      this.#setup.problems.failed(operation.type, offset, end)
      if (changes(operation.type)) this.#model.forgot(operation.block, operation.count)
      if (end.kind !== 'status') this.#lost = true
      this.#free(slot)
      return
    }
    const asked = (reads(operation.type) ? slot.dataBytes : 0) + 1
    if (writtenBytes !== asked) this.#setup.problems.short(operation.type, offset, writtenBytes, asked)
    this.#settle(slot)
  }

  directRead(slot: Slot, expected: Uint8Array<ArrayBuffer>, outcome: DiskOutcome): void {
    const { block } = slot.operation
    if (outcome === 'ok') this.#compare(slot, expected, 'the backend and the model hold')
    else {
      const sector = (block * this.#blockBytes) / SECTOR_BYTES
      const text = `the backend itself cannot read sector ${sector}: ${outcome}`
      this.#setup.problems.add('request-failed', sector, text)
    }
    this.#free(slot)
  }

  /** A request succeeded: what follows from it. */
  #settle(slot: Slot): void {
    const { type, block, count } = slot.operation
    const bytes = slot.content.subarray(0, slot.dataBytes)
    if (reads(type)) slot.gather()
    if (type === BlkType.IN) {
      if (!this.#model.covers(block, count)) {
        this.#direct.read(slot, block * this.#blockBytes, slot.dataBytes)
        return
      }
      this.#compare(slot, new Uint8Array(slot.dataBytes), 'the model holds')
    } else if (type === BlkType.OUT) this.#model.wrote(block, bytes)
    else if (type === BlkType.WRITE_ZEROES) this.#model.zeroed(block, count)
    else if (type === BlkType.DISCARD || type === BlkType.SECURE_ERASE) this.#model.forgot(block, count)
    else if (type === BlkType.GET_ID) {
      const serial = new Uint8Array(IDENTIFY_BYTES)
      new TextEncoder().encodeInto(this.#setup.serial, serial)
      this.#setup.problems.same(bytes, serial, 0, "the backend's serial has")
    }
    this.#free(slot)
  }

  #compare(slot: Slot, expected: Uint8Array, witness: string): void {
    const { block } = slot.operation
    const seen = slot.content.subarray(0, slot.dataBytes)
    this.#comparedBytes += this.#model.apply(block, expected, seen)
    this.#setup.problems.same(seen, expected, block * this.#blockBytes, witness)
  }

  #free(slot: Slot): void {
    slot.busy = false
    this.#ended++
    this.#fill()
  }

  #fill(): void {
    let posted = false
    while (!this.#lost && this.#started < this.#allowed) {
      const slot = this.#slots.find((one) => !one.busy)
      const operation = slot === undefined ? null : this.#next()
      if (slot === undefined || operation === null) break
      if (this.#meetsOneInFlight(operation)) {
        this.#waiting = operation
        break
      }
      this.#prepare(slot, operation)
      if (!this.#setup.driver.submit(slot)) {
        this.#waiting = operation
        break
      }
      slot.busy = true
      this.#started++
      posted = true
    }
    if (posted) this.#setup.driver.kick()
  }

  /** What comes next; null when it is over, or what is drawn has to end first. */
  #next(): Operation | null {
    const waiting = this.#waiting
    if (waiting !== null) {
      this.#waiting = null
      return waiting
    }
    if (this.#started === 0) return IDENTIFY
    if (this.#started <= this.#setup.operations) return this.#source.next()
    if (this.#sweep === null) {
      if (this.outstanding > 0) return null
      this.#sweep = this.#readBack()
    }
    return this.#sweep.pop() ?? null
  }

  /** Reads that cover everything touched, as long as buffers allow; last first. */
  #readBack(): Operation[] {
    const most = Math.floor(this.#bufferBytes / this.#blockBytes)
    const sweep: Operation[] = []
    for (const block of this.#model.touched) {
      const last = sweep.at(-1)
      if (last !== undefined && last.block + last.count === block && last.count < most) {
        sweep[sweep.length - 1] = { ...last, count: last.count + 1 }
      } else sweep.push({ type: BlkType.IN, block, count: 1 })
    }
    return sweep.reverse()
  }

  #meetsOneInFlight(operation: Operation): boolean {
    const { type, block, count } = operation
    return this.#slots.some(({ busy, operation: other }) => {
      if (!busy || (!changes(type) && !changes(other.type))) return false
      return block < other.block + other.count && other.block < block + count
    })
  }

  #prepare(slot: Slot, operation: Operation): void {
    const { type, block, count } = operation
    const blockSectors = this.#blockBytes / SECTOR_BYTES
    const transfer = type === BlkType.IN || type === BlkType.OUT
    slot.operation = operation
    slot.type = type
    slot.sector = transfer ? block * blockSectors : 0
    slot.data.clear()
    if (transfer) {
      slot.dataBytes = count * this.#blockBytes
      this.#cut(slot)
      if (type === BlkType.OUT) this.#fillWithNoise(slot)
    } else if (type === BlkType.GET_ID) {
      slot.dataBytes = IDENTIFY_BYTES
      slot.data.writable(slot.buffer.at, IDENTIFY_BYTES)
    } else if (type === BlkType.FLUSH) slot.dataBytes = 0
    else {
      slot.dataBytes = BlkSegment.$size
      slot.window.putLe64(BlkSegment.sector, block * blockSectors)
      slot.window.putLe32(BlkSegment.num_sectors, count * blockSectors)
      slot.window.putLe32(BlkSegment.flags, this.#segmentFlags(type))
      slot.data.readable(slot.buffer.at, BlkSegment.$size)
    }
  }

  #segmentFlags(type: number): number {
    const { features, random } = this.#setup
    const may = type === BlkType.WRITE_ZEROES && hasFeature(features, BlkFeature.DISCARD.bit)
    return may && random.below(2) === 0 ? BlkSegmentFlag.UNMAP : 0
  }

  #fillWithNoise(slot: Slot): void {
    const words = new Uint32Array(slot.content.buffer, 0, slot.dataBytes / 4)
    let state = this.#setup.random.next32() | 1
    for (let i = 0; i < words.length; i++) {
      state = (Math.imul(state, 0x915f77f5) + 0x9e3779b9) >>> 0
      words[i] = state
    }
    slot.scatter()
  }

  /**
   * Segments need not be sectors, VIRTIO 1.2 section 5.2.6: only their sum has to be. They lie apart where the
   * buffer has room, so that the device cannot take them for one.
   */
  #cut(slot: Slot): void {
    const { random, geometry } = this.#setup
    const most = Math.min(SEGMENTS_MAX, geometry.segmentsMax)
    const apart = Math.floor((this.#bufferBytes - slot.dataBytes) / SEGMENTS_MAX)
    let at = 0
    let left = slot.dataBytes
    for (let pieces = 1 + random.below(most); pieces > 0 && left > 0; pieces--) {
      const length = pieces === 1 ? left : 1 + random.below(left)
      const address = gpa(slot.buffer.at + at)
      if (slot.type === BlkType.OUT) slot.data.readable(address, length)
      else slot.data.writable(address, length)
      at += length + (apart > 0 ? random.below(apart) : 0)
      left -= length
    }
  }
}

function reads(type: number): boolean {
  return type === BlkType.IN || type === BlkType.GET_ID
}

function changes(type: number): boolean {
  return type !== BlkType.IN && type !== BlkType.GET_ID && type !== BlkType.FLUSH
}
