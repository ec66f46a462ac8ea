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

/** Where things lie in words of the areas, for the direct way to them. */
const DESC_WORDS = DESC_BYTES / 4
const AVAIL_RING_HALF = AVAIL_RING / 2
const TWO_32 = 0x1_0000_0000
/** The largest number that is compared and added as a machine word. */
const SMALL_MAX = 0x7fff_ffff

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
  // Private by declaration, and set once, in the constructor: only that is a constant to the optimizer, and a
  // name with a # takes twice the code at every use, of which only so much is inlined.
  readonly size: number
  readonly place: QueuePlace
  private readonly queue: number
  private readonly eventIdx: boolean
  private readonly violated: (violation: Violation) => void
  private readonly descriptors: Window
  private readonly available: Window
  private readonly used: Window
  private readonly indirect: Window | null
  private readonly indirectAt: number
  private readonly indirectSegments: number
  private readonly usedEvent: number
  private readonly availEvent: number
  /** By descriptor: the next of its chain, and behind its last, or when it is free, the next free one. */
  private readonly link: Uint16Array
  private freeHead = 0
  private freeCount: number
  /** By head: the last descriptor of its chain, and how many it has. */
  private readonly tails: Uint16Array
  private readonly counts: Uint16Array
  /** By head: who posted it (undefined while it is not out), and how much it may be written. */
  private readonly owners: (T | undefined)[]
  private readonly writable: Float64Array
  /** By head: which post it was, counted from the beginning; modulo anything, an old one would look new. */
  private readonly postOf: Float64Array
  private readonly reaped: { owner: T | undefined; writtenBytes: number } = {
    owner: undefined,
    writtenBytes: 0,
  }
  /** Requests made ready and shown, counted from the beginning: what is shared is these modulo 65536. */
  private posted = 0
  private published = 0
  /** Requests that came back, or were taken back, counted so too. */
  private returned = 0
  private nextUsed = 0
  private seenUsed = 0
  private isBroken = false

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
    this.queue = setup.queue
    this.eventIdx = setup.eventIdx
    this.violated = setup.violated
    this.descriptors = owned(memory.window(descriptors, descTableBytes(size), DESC_ALIGN))
    this.available = owned(memory.window(driver, availRingBytes(size), AVAIL_ALIGN))
    this.used = owned(memory.window(device, usedRingBytes(size), USED_ALIGN))
    this.indirectSegments = indirectSegments
    const tablesBytes = size * indirectSegments * DESC_BYTES
    const tablesAt = indirectSegments > 0 ? platform.allocate(tablesBytes, DESC_ALIGN) : null
    this.indirectAt = tablesAt ?? 0
    this.indirect = tablesAt === null ? null : owned(memory.window(tablesAt, tablesBytes, DESC_ALIGN))
    this.usedEvent = usedEventBase(size)
    this.availEvent = availEventBase(size)
    this.link = Uint16Array.from({ length: size }, (_, i) => i + 1)
    this.freeCount = size
    this.tails = new Uint16Array(size)
    this.counts = new Uint16Array(size)
    this.owners = new Array<T | undefined>(size).fill(undefined)
    this.writable = new Float64Array(size)
    this.postOf = new Float64Array(size)
  }

  get outstanding(): number {
    return this.posted - this.returned
  }

  get broken(): boolean {
    return this.isBroken
  }

  /**
   * Makes buffers ready; they are the device's to see after `publish`. False when the ring has no room.
   *
   * @throws on an empty list or one no ring of this size could ever take.
   */
  post(segments: Segments, owner: T): boolean {
    const { count } = segments
    const { indirect } = this
    const needs = indirect !== null && count > 1 && count <= this.indirectSegments ? 1 : count
    if (count === 0 || needs > this.size) throw new Error(`${count} buffers cannot be one request`)
    if (needs > this.freeCount || this.isBroken) return false
    const head = this.freeHead
    if (indirect !== null && needs < count) this.fillIndirect(indirect, head, segments)
    else this.fillDirect(segments)
    this.owners[head] = owner
    this.writable[head] = segments.writableBytes
    const posted = this.posted
    const slot = posted & (this.size - 1)
    const { halves } = this.available
    if (halves.length > 0) halves[AVAIL_RING_HALF + slot] = head
    else this.available.putLe16(AVAIL_RING, head, slot * 2)
    this.postOf[head] = posted
    this.posted = posted + 1
    this.freeCount -= needs
    this.counts[head] = needs
    return true
  }

  /** Shows the device what was posted; true when it asked to be notified. */
  publish(): boolean {
    const before = this.published
    const now = this.posted
    if (now === before || this.isBroken) return false
    this.published = now
    this.available.storeIndex(AVAIL_IDX, now & 0xffff)
    if (!this.eventIdx) return (this.used.loadIndex(USED_FLAGS) & NO_NOTIFY) === 0
    return needEvent(this.used.loadIndex(EVENT, this.availEvent), now, before)
  }

  /** The next used buffer, in an object the ring keeps and refills; null when there is none. */
  reap(): Reaped<T> | null {
    if (this.isBroken) return null
    const used = this.used
    const next = this.nextUsed
    if (next === this.seenUsed && !this.look()) return null
    const base = (next & (this.size - 1)) * ELEM_BYTES + USED_RING
    const { words } = used
    const head = words[(base + ELEM_ID) >>> 2] ?? used.le32(ELEM_ID, base)
    const writtenBytes = words[(base + ELEM_LEN) >>> 2] ?? used.le32(ELEM_LEN, base)
    // One that was only posted is none of the device's yet.
    const isOut = head < this.size && (this.postOf[head] as number) < this.published
    const owner = isOut ? this.owners[head] : undefined
    if (owner === undefined) return this.break('split.used-id', base + ELEM_ID, head, this.size - 1)
    this.nextUsed = (next + 1) & 0xffff
    const writable = this.writable[head] as number
    const isWithin = writtenBytes <= writable
    if (!isWithin) this.report('split.used-length', base + ELEM_LEN, writtenBytes, writable)
    this.release(head)
    const reaped = this.reaped
    reaped.owner = owner
    reaped.writtenBytes = isWithin ? writtenBytes : writable
    return reaped as Reaped<T>
  }

  /** Asks for no interrupts until `rearm`; a wish, not a promise of the device's. */
  disarm(): void {
    if (!this.eventIdx) this.available.putLe16(AVAIL_FLAGS, NO_INTERRUPT)
  }

  /** Asks to be interrupted again; true when more came back meanwhile, and the caller goes on reaping. */
  rearm(): boolean {
    if (this.isBroken) return false
    if (this.eventIdx) this.available.storeIndex(EVENT, this.nextUsed, this.usedEvent)
    else this.available.storeIndex(AVAIL_FLAGS, 0)
    return this.used.loadIndex(USED_IDX) !== this.nextUsed
  }

  /**
   * Takes back every owner that is still out; the ring is of no use after that. Only once the device cannot
   * touch their buffers any more.
   */
  drain(): T[] {
    this.isBroken = true
    const owners: T[] = []
    for (let head = 0; head < this.size; head++) {
      const owner = this.owners[head]
      if (owner === undefined) continue
      owners.push(owner)
      this.release(head)
    }
    return owners
  }

  /** Looks whether more came back. False: nothing did, or nothing that can be believed. */
  private look(): boolean {
    const seen = this.used.loadIndex(USED_IDX)
    const ahead = (seen - this.nextUsed) & 0xffff
    if (ahead === 0) return false
    const shown = this.published - this.returned
    if (!(ahead <= shown)) return this.break('split.used-leap', USED_IDX, ahead, shown) !== null
    this.seenUsed = seen
    return true
  }

  private fillDirect(segments: Segments): void {
    const { count, readableCount, addresses, lengths } = segments
    const { descriptors, link } = this
    const { words } = descriptors
    const head = this.freeHead
    let tail = head
    let next = head
    for (let i = 0; i < count; i++) {
      tail = next
      next = link[tail] as number
      let flagsAndNext = i < readableCount ? 0 : WRITE
      if (i < count - 1) flagsAndNext |= NEXT | (next << 16)
      const at = tail * DESC_WORDS
      describe(descriptors, words, at, addresses[i] as number, lengths[i] as number, flagsAndNext)
    }
    this.tails[head] = tail
    this.freeHead = next
  }

  private fillIndirect(tables: Window, head: number, segments: Segments): void {
    const { count, readableCount, addresses, lengths } = segments
    const { words } = tables
    const first = head * this.indirectSegments
    for (let i = 0; i < count; i++) {
      let flagsAndNext = i < readableCount ? 0 : WRITE
      if (i < count - 1) flagsAndNext |= NEXT | ((i + 1) << 16)
      const at = (first + i) * DESC_WORDS
      describe(tables, words, at, addresses[i] as number, lengths[i] as number, flagsAndNext)
    }
    this.tails[head] = head
    this.freeHead = this.link[head] as number
    const table = this.descriptors
    const address = this.indirectAt + first * DESC_BYTES
    describe(table, table.words, head * DESC_WORDS, address, count * DESC_BYTES, INDIRECT)
  }

  private release(head: number): void {
    this.owners[head] = undefined
    this.returned++
    this.link[this.tails[head] as number] = this.freeHead
    this.freeHead = head
    this.freeCount += this.counts[head] as number
  }

  /** `offset` of the offending value in the used ring. */
  private report(rule: RequirementId, offset: number, seen: number, expected: number): void {
    const at = this.place.device + offset
    this.violated({ rule, side: 'device', queue: this.queue, at, seen, expected })
  }

  private break(rule: RequirementId, offset: number, seen: number, expected: number): null {
    this.isBroken = true
    this.report(rule, offset, seen, expected)
    return null
  }
}

/** Writes the descriptor that begins with word `at` of a table. */
function describe(
  table: Window,
  words: Uint32Array,
  at: number,
  addr: number,
  len: number,
  flagsAndNext: number,
): void {
  if (words.length > 0) {
    words[at] = addr
    words[at + 1] = addr > SMALL_MAX ? addr / TWO_32 : 0
    words[at + 2] = len
    words[at + 3] = flagsAndNext
  } else {
    describeApart(table, at * 4, addr, len, flagsAndNext)
  }
}

function describeApart(table: Window, base: number, addr: number, len: number, flagsAndNext: number): void {
  table.putLe64(DESC_ADDR, addr, base)
  table.putLe32(DESC_LEN, len, base)
  table.putLe32(DESC_FLAGS_AND_NEXT, flagsAndNext, base)
}
