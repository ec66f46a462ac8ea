import type { Field } from '../../protocol/layout.ts'
import type { GuestPlatform } from '../../protocol/platform.ts'
import type { RequirementId } from '../../protocol/requirement.ts'
import type { Violation } from '../../protocol/violation.ts'
import type { QueuePlace } from '../../protocol/virtio/ring.ts'
import {
  AVAIL_ALIGN,
  AvailFlag,
  availEventBase,
  availRingBytes,
  DESC_ALIGN,
  DescFlag,
  descTableBytes,
  isQueueSize,
  needEvent,
  USED_ALIGN,
  UsedFlag,
  usedEventBase,
  usedRingBytes,
  VirtqAvail,
  VirtqDesc,
  VirtqEvent,
  VirtqUsed,
  VirtqUsedElem,
} from '../../protocol/virtio/ring.ts'
import type { Window } from '../../protocol/window.ts'
import type { Segments } from './segments.ts'

// Constants of this module are folded into optimized code; a property of an import is loaded every time.
const DESC_BYTES = VirtqDesc.$size
const DESC_ADDR = VirtqDesc.addr
const DESC_LEN = VirtqDesc.len
/** Flags and the next index lie side by side: one write has both. */
const DESC_FLAGS_AND_NEXT = VirtqDesc.flags as number as Field<'le32'>
const AVAIL_FLAGS = VirtqAvail.flags
const AVAIL_IDX = VirtqAvail.idx
const AVAIL_RING = VirtqAvail.ring
const USED_FLAGS = VirtqUsed.flags
const USED_IDX = VirtqUsed.idx
const USED_RING = VirtqUsed.ring
const ELEM_ID = VirtqUsedElem.id
const ELEM_LEN = VirtqUsedElem.len
const ELEM_BYTES = VirtqUsedElem.$size
const EVENT = VirtqEvent.event
const NEXT = DescFlag.NEXT
const WRITE = DescFlag.WRITE
const INDIRECT = DescFlag.INDIRECT
const NO_INTERRUPT = AvailFlag.NO_INTERRUPT
const NO_NOTIFY = UsedFlag.NO_NOTIFY

const NOT_OUT = 0xffff

export interface DriverRingSetup {
  readonly platform: Pick<GuestPlatform, 'memory' | 'allocate'>
  readonly queue: number
  /** A power of two up to the maximum the device named. */
  readonly size: number
  /** Descriptors of one indirect table, at most `size`; 0 when INDIRECT_DESC was not negotiated. */
  readonly indirectSegments: number
  readonly eventIdx: boolean
  readonly violated: (violation: Violation) => void
}

/** A buffer that came back. */
export interface Reaped<T> {
  owner: T
  /** Bytes the device says it wrote, never more than were writable. */
  writtenBytes: number
}

function owned(window: Window | null): Window {
  if (window === null) throw new Error('memory just allocated cannot be had')
  return window
}

/**
 * The driver's end of a split virtqueue, VIRTIO 1.2 section 2.7.
 *
 * What it published is never read back: free descriptors, chain links and posted lengths live in private
 * arrays, so a device that rewrites shared memory changes nothing here. Used ids are looked up among what is
 * outstanding; anything else breaks the ring (`broken`), and the owners are for `drain`.
 */
export class DriverRing<T extends object> {
  readonly size: number
  readonly place: QueuePlace
  readonly #queue: number
  readonly #eventIdx: boolean
  readonly #violated: (violation: Violation) => void
  readonly #descriptors: Window
  readonly #available: Window
  readonly #used: Window
  readonly #indirect: Window | null
  readonly #indirectAt: number
  readonly #indirectSegments: number
  readonly #usedEvent: number
  readonly #availEvent: number
  /** A stack of free descriptors. */
  readonly #free: Uint16Array
  #freeCount: number
  /** By descriptor: the next of its chain, or NOT_OUT at the end. */
  readonly #link: Uint16Array
  /** By head: who posted it (undefined while it is not out), and how much it may be written. */
  readonly #owners: (T | undefined)[]
  readonly #writable: Float64Array
  /** By head: which post it was, counted from the beginning; modulo anything, an old one would look new. */
  readonly #postOf: Float64Array
  readonly #reaped: { owner: T | undefined; writtenBytes: number }
  #outstanding: number
  /** Requests made ready and shown, counted from the beginning: what is shared is these modulo 65536. */
  #posted: number
  #published: number
  #nextUsed: number
  #seenUsed: number
  #broken: boolean

  /** @throws when the size is none of a split queue's, or an indirect table is longer than the queue. */
  constructor(setup: DriverRingSetup) {
    const { platform, size, indirectSegments } = setup
    if (!isQueueSize(size)) throw new Error(`${size} is not a queue size`)
    if (!(indirectSegments <= size)) throw new Error(`a table of ${indirectSegments} for a queue of ${size}`)
    const { memory } = platform
    const descriptors = platform.allocate(descTableBytes(size), DESC_ALIGN)
    const driver = platform.allocate(availRingBytes(size), AVAIL_ALIGN)
    const device = platform.allocate(usedRingBytes(size), USED_ALIGN)
    this.size = size
    this.place = { size, descriptors, driver, device }
    this.#queue = setup.queue
    this.#eventIdx = setup.eventIdx
    this.#violated = setup.violated
    this.#descriptors = owned(memory.window(descriptors, descTableBytes(size), DESC_ALIGN))
    this.#available = owned(memory.window(driver, availRingBytes(size), AVAIL_ALIGN))
    this.#used = owned(memory.window(device, usedRingBytes(size), USED_ALIGN))
    this.#indirectSegments = indirectSegments
    this.#indirectAt = 0
    this.#indirect = null
    if (indirectSegments > 0) {
      const bytes = size * indirectSegments * DESC_BYTES
      const at = platform.allocate(bytes, DESC_ALIGN)
      this.#indirectAt = at
      this.#indirect = owned(memory.window(at, bytes, DESC_ALIGN))
    }
    this.#usedEvent = usedEventBase(size)
    this.#availEvent = availEventBase(size)
    this.#free = Uint16Array.from({ length: size }, (_, i) => size - 1 - i)
    this.#freeCount = size
    this.#link = new Uint16Array(size).fill(NOT_OUT)
    this.#owners = new Array<T | undefined>(size).fill(undefined)
    this.#writable = new Float64Array(size)
    this.#postOf = new Float64Array(size)
    this.#reaped = { owner: undefined, writtenBytes: 0 }
    this.#outstanding = 0
    this.#posted = 0
    this.#published = 0
    this.#nextUsed = 0
    this.#seenUsed = 0
    this.#broken = false
  }

  get outstanding(): number {
    return this.#outstanding
  }

  get broken(): boolean {
    return this.#broken
  }

  /** Descriptors `post` would take for `count` buffers. */
  #needs(count: number): number {
    return this.#indirect !== null && count > 1 && count <= this.#indirectSegments ? 1 : count
  }

  /**
   * Makes buffers ready; they are the device's to see after `publish`. False when the ring has no room.
   *
   * @throws on an empty list or one no ring of this size could ever take.
   */
  post(segments: Segments, owner: T): boolean {
    const { count } = segments
    const needs = this.#needs(count)
    if (count === 0 || needs > this.size) throw new Error(`${count} buffers cannot be one request`)
    if (needs > this.#freeCount || this.#broken) return false
    const head = this.#free[this.#freeCount - 1] as number
    if (this.#indirect !== null && needs < count) this.#fillIndirect(this.#indirect, head, segments)
    else this.#fillDirect(segments)
    this.#owners[head] = owner
    this.#writable[head] = segments.writableBytes
    this.#available.putLe16(AVAIL_RING, head, (this.#posted & (this.size - 1)) * 2)
    this.#postOf[head] = this.#posted
    this.#posted++
    this.#outstanding++
    return true
  }

  /** Shows the device what was posted; true when it asked to be notified. */
  publish(): boolean {
    const before = this.#published
    const now = this.#posted
    if (now === before || this.#broken) return false
    this.#published = now
    this.#available.storeIndex(AVAIL_IDX, now & 0xffff)
    if (!this.#eventIdx) return (this.#used.loadIndex(USED_FLAGS) & NO_NOTIFY) === 0
    return needEvent(this.#used.loadIndex(EVENT, this.#availEvent), now, before)
  }

  /** The next used buffer, in an object the ring keeps and refills; null when there is none. */
  reap(): Reaped<T> | null {
    if (this.#broken) return null
    const next = this.#nextUsed
    if (next === this.#seenUsed) {
      const seen = this.#used.loadIndex(USED_IDX)
      const ahead = (seen - next) & 0xffff
      if (ahead === 0) return null
      const shown = this.#outstanding - (this.#posted - this.#published)
      if (!(ahead <= shown)) return this.#break('split.used-leap', USED_IDX, ahead, shown)
      this.#seenUsed = seen
    }
    const base = (next & (this.size - 1)) * ELEM_BYTES + USED_RING
    const head = this.#used.le32(ELEM_ID, base)
    const writtenBytes = this.#used.le32(ELEM_LEN, base)
    // One that was only posted is none of the device's yet.
    const isOut = head < this.size && (this.#postOf[head] as number) < this.#published
    const owner = isOut ? this.#owners[head] : undefined
    if (owner === undefined) return this.#break('split.used-id', base + ELEM_ID, head, this.size - 1)
    this.#nextUsed = (next + 1) & 0xffff
    const writable = this.#writable[head] as number
    if (!(writtenBytes <= writable)) {
      this.#report('split.used-length', base + ELEM_LEN, writtenBytes, writable)
    }
    this.#release(head)
    this.#reaped.owner = owner
    this.#reaped.writtenBytes = Math.min(writtenBytes, writable)
    return this.#reaped as Reaped<T>
  }

  /** Asks for no interrupts until `rearm`; a wish, not a promise of the device's. */
  disarm(): void {
    if (!this.#eventIdx) this.#available.putLe16(AVAIL_FLAGS, NO_INTERRUPT)
  }

  /** Asks to be interrupted again; true when more came back meanwhile, and the caller goes on reaping. */
  rearm(): boolean {
    if (this.#broken) return false
    if (this.#eventIdx) this.#available.storeIndex(EVENT, this.#nextUsed, this.#usedEvent)
    else this.#available.storeIndex(AVAIL_FLAGS, 0)
    return this.#used.loadIndex(USED_IDX) !== this.#nextUsed
  }

  /**
   * Takes back every owner that is still out; the ring is of no use after that. Only once the device cannot
   * touch their buffers any more.
   */
  drain(): T[] {
    this.#broken = true
    const owners: T[] = []
    for (let head = 0; head < this.size; head++) {
      const owner = this.#owners[head]
      if (owner === undefined) continue
      owners.push(owner)
      this.#release(head)
    }
    return owners
  }

  #fillDirect(segments: Segments): void {
    const { count, readableCount, addresses, lengths } = segments
    const table = this.#descriptors
    const free = this.#free
    let top = this.#freeCount - 1
    let index = free[top] as number
    for (let i = 0; i < count; i++) {
      const base = index * DESC_BYTES
      const write = i < readableCount ? 0 : WRITE
      table.putLe64(DESC_ADDR, addresses[i] as number, base)
      table.putLe32(DESC_LEN, lengths[i] as number, base)
      if (i === count - 1) {
        table.putLe32(DESC_FLAGS_AND_NEXT, write, base)
        this.#link[index] = NOT_OUT
      } else {
        const next = free[--top] as number
        table.putLe32(DESC_FLAGS_AND_NEXT, write | NEXT | (next << 16), base)
        this.#link[index] = next
        index = next
      }
    }
    this.#freeCount = top
  }

  #fillIndirect(tables: Window, head: number, segments: Segments): void {
    const { count, readableCount, addresses, lengths } = segments
    const tableBase = head * this.#indirectSegments * DESC_BYTES
    for (let i = 0; i < count; i++) {
      const base = tableBase + i * DESC_BYTES
      const last = i === count - 1
      const write = i < readableCount ? 0 : WRITE
      tables.putLe64(DESC_ADDR, addresses[i] as number, base)
      tables.putLe32(DESC_LEN, lengths[i] as number, base)
      tables.putLe32(DESC_FLAGS_AND_NEXT, last ? write : write | NEXT | ((i + 1) << 16), base)
    }
    this.#freeCount--
    this.#link[head] = NOT_OUT
    const base = head * DESC_BYTES
    this.#descriptors.putLe64(DESC_ADDR, this.#indirectAt + tableBase, base)
    this.#descriptors.putLe32(DESC_LEN, count * DESC_BYTES, base)
    this.#descriptors.putLe32(DESC_FLAGS_AND_NEXT, INDIRECT, base)
  }

  #release(head: number): void {
    this.#owners[head] = undefined
    this.#outstanding--
    for (let index = head; index !== NOT_OUT; ) {
      const next = this.#link[index] as number
      this.#link[index] = NOT_OUT
      this.#free[this.#freeCount++] = index
      index = next
    }
  }

  /** `offset` of the offending value in the used ring. */
  #report(rule: RequirementId, offset: number, seen: number, expected: number): void {
    const at = this.place.device + offset
    this.#violated({ rule, side: 'device', queue: this.#queue, at, seen, expected })
  }

  #break(rule: RequirementId, offset: number, seen: number, expected: number): null {
    this.#broken = true
    this.#report(rule, offset, seen, expected)
    return null
  }
}
