import type { DmaSpace } from '../../protocol/dma.ts'
import { gpa } from '../../protocol/memory.ts'
import type { RequirementId } from '../../protocol/requirement.ts'
import type { Violation } from '../../protocol/violation.ts'
import type { QueuePlace, RingPosition } from '../../protocol/virtio/ring.ts'
import {
  AVAIL_ALIGN,
  AvailFlag,
  availEventBase,
  availRingBytes,
  DESC_ALIGN,
  descTableBytes,
  needEvent,
  USED_ALIGN,
  UsedFlag,
  usedEventBase,
  usedRingBytes,
  VirtqAvail,
  VirtqEvent,
  VirtqUsed,
  VirtqUsedElem,
} from '../../protocol/virtio/ring.ts'
import type { Window } from '../../protocol/window.ts'
import { Chain } from './chain.ts'
import { ChainWalk } from './chain-walk.ts'
import { placeInvalid } from './queue-place.ts'
import type { DeviceRing, RingCare, RingJournal, RingListener } from './ring.ts'

// Constants of this module are folded into optimized code; a property of an import is loaded every time.
const AVAIL_FLAGS = VirtqAvail.flags
const AVAIL_IDX = VirtqAvail.idx
const AVAIL_RING = VirtqAvail.ring
const USED_FLAGS = VirtqUsed.flags
const USED_IDX = VirtqUsed.idx
const USED_RING = VirtqUsed.ring
const ELEM_BYTES = VirtqUsedElem.$size
const ELEM_ID = VirtqUsedElem.id
const ELEM_LEN = VirtqUsedElem.len
const USED_BYTES = VirtqUsed.$size
const EVENT = VirtqEvent.event
const EVENT_BYTES = VirtqEvent.$size
const NO_INTERRUPT = AvailFlag.NO_INTERRUPT
const NO_NOTIFY = UsedFlag.NO_NOTIFY

/** Where things lie in words of the areas, for the direct way to them. */
const AVAIL_RING_HALF = AVAIL_RING / 2
const WORD_MAX = 0xffff_ffff
/** The largest number that is compared and added as a machine word. */
const SMALL_MAX = 0x7fff_ffff
/** No queue has so many entries, and none of them can say it. */
const NO_HEAD = -1

/** What a split ring is started with. */
export interface SplitRingSetup {
  readonly dma: DmaSpace
  readonly queue: number
  readonly place: QueuePlace
  /** The largest size this queue offered. */
  readonly sizeMax: number
  readonly indirect: boolean
  readonly eventIdx: boolean
  readonly position: RingPosition
  /** Heads that were out when the ring was saved, oldest first: taken again before anything new. */
  readonly retake: readonly number[]
  readonly listener: RingListener
  readonly care?: RingCare
}

/**
 * The device's end of a split virtqueue, VIRTIO 1.2 section 2.7.
 *
 * Everything the driver can write is read once into a local and then checked; indices are a private shadow.
 * All index arithmetic is modulo 65536.
 */
export class SplitRing implements DeviceRing {
  // Private by declaration, and set once, in the constructor: only that is a constant to the optimizer, and a
  // name with a # takes twice the code at every use, of which only so much is inlined.
  private readonly dma: DmaSpace
  private readonly queue: number
  readonly size: number
  private readonly place: QueuePlace
  private readonly eventIdx: boolean
  private readonly listener: RingListener
  private readonly journal: RingJournal | null
  private readonly polled: boolean
  private readonly walk: ChainWalk
  private readonly available: Window
  private readonly used: Window
  private readonly usedEvent: number
  private readonly availEvent: number
  /** By head: its chain, live while its token is out. Made when a head is first seen. */
  private readonly chains: (Chain | undefined)[]
  /** Heads to be taken again. Until they have been, `seenAvail` stays `nextAvail`: nothing new is taken before. */
  private retake: number[]
  /** Next available entry to take, and the published index as last seen. */
  private nextAvail: number
  private seenAvail: number
  /** Next used entry to write, and the index as last published. */
  private filled: number
  private published: number
  private quiet: boolean
  /** Tokens handed out, and those that came back. */
  private taken = 0
  private spent = 0
  private isBroken = false

  private constructor(setup: SplitRingSetup, descriptors: Window, available: Window, used: Window) {
    const { size } = setup.place
    this.dma = setup.dma
    this.queue = setup.queue
    this.size = size
    this.place = setup.place
    this.eventIdx = setup.eventIdx
    this.listener = setup.listener
    this.journal = setup.care?.journal ?? null
    this.polled = setup.care?.polled ?? false
    this.walk = new ChainWalk(setup, descriptors)
    this.available = available
    this.used = used
    this.usedEvent = usedEventBase(size)
    this.availEvent = availEventBase(size)
    this.chains = new Array<Chain | undefined>(size).fill(undefined)
    this.retake = [...setup.retake]
    this.nextAvail = setup.position.available
    this.seenAvail = setup.position.available
    this.filled = setup.position.used
    this.published = setup.position.used
    this.quiet = this.polled
    // Asks never to be notified: with EVENT_IDX that is an entry long past, so once in 65,536.
    if (!this.polled) return
    if (this.eventIdx) used.storeIndex(EVENT, (this.nextAvail - 1) & 0xffff, this.availEvent)
    else used.storeIndex(USED_FLAGS, NO_NOTIFY)
    this.dma.wrote(gpa(this.place.device), usedRingBytes(size))
  }

  /** Checks the areas and starts; a refusal says which rule the driver broke. */
  static start(setup: SplitRingSetup): SplitRing | Violation {
    const invalid = placeInvalid(setup)
    if (invalid !== null) return invalid
    const { dma, place } = setup
    const descriptors = dma.window(gpa(place.descriptors), descTableBytes(place.size), DESC_ALIGN)
    const available = dma.window(gpa(place.driver), availRingBytes(place.size), AVAIL_ALIGN)
    const used = dma.window(gpa(place.device), usedRingBytes(place.size), USED_ALIGN)
    if (descriptors === null || available === null || used === null) {
      throw new Error('ring areas were checked and cannot be had')
    }
    return new SplitRing(setup, descriptors, available, used)
  }

  get inFlight(): number {
    return this.taken - this.spent
  }

  get broken(): boolean {
    return this.isBroken
  }

  /** @throws when completions are not published: whoever resumes would never show them to the driver. */
  position(): RingPosition {
    if (this.filled !== this.published) throw new Error(`queue ${this.queue}: completions are unpublished`)
    return { available: this.nextAvail, used: this.filled }
  }

  /** Heads whose tokens are out, oldest first. */
  headsOut(): number[] {
    const out = this.chains.filter((chain): chain is Chain => chain?.live === true)
    // Nothing new is taken while something waits to be taken again, so what waits is the youngest.
    return [...out.sort((a, b) => a.id - b.id).map(({ head }) => head), ...this.retake]
  }

  next(): Chain | null {
    // Malformed chains are passed over, but no more of them in one call than a ring holds.
    for (let left = this.size; left > 0; left--) {
      const retaken = this.nextAvail === this.seenAvail && this.retake.length > 0
      const head = retaken ? (this.retake.shift() as number) : this.takeHead()
      if (head === NO_HEAD) return null
      if (!(head < this.size)) return this.distrust(head, retaken)
      const chain = this.chains[head] ?? this.chainOf(head)
      if (chain.live) return this.distrust(head, retaken)
      if (this.journal !== null) this.journal.took(head)
      if (this.walk.read(chain)) {
        this.taken++
        chain.id = this.taken
        chain.live = true
        return chain
      }
      this.use(head, 0)
    }
    return null
  }

  complete(chain: Chain, writtenBytes: number): void {
    if (!(writtenBytes <= chain.writableBytes) || !chain.live) this.misused(chain, writtenBytes)
    chain.live = false
    this.spent++
    this.use(chain.head, writtenBytes)
    if (this.dma.log !== null) this.logWritten(chain, writtenBytes)
  }

  abandon(chain: Chain): void {
    if (!chain.live) this.misused(chain, 0)
    chain.live = false
    this.spent++
  }

  publish(): boolean {
    const before = this.published
    const now = this.filled
    if (now === before) return false
    this.published = now
    if (this.journal !== null) this.journal.publishing()
    this.used.storeIndex(USED_IDX, now)
    if (this.journal !== null) this.journal.published(now)
    if (this.dma.log !== null) this.logUsed(0, USED_BYTES)
    if (!this.eventIdx) return (this.available.loadIndex(AVAIL_FLAGS) & NO_INTERRUPT) === 0
    return needEvent(this.available.loadIndex(EVENT, this.usedEvent), now, before)
  }

  rearm(): boolean {
    if (this.isBroken) return false
    if (this.polled) return this.retake.length > 0 || this.available.loadIndex(AVAIL_IDX) !== this.nextAvail
    this.quiet = false
    if (this.eventIdx) {
      this.used.storeIndex(EVENT, this.nextAvail, this.availEvent)
      if (this.dma.log !== null) this.logUsed(this.availEvent, EVENT_BYTES)
    } else {
      this.used.storeIndex(USED_FLAGS, 0)
      if (this.dma.log !== null) this.logUsed(0, USED_BYTES)
    }
    return this.available.loadIndex(AVAIL_IDX) !== this.nextAvail || this.retake.length > 0
  }

  /** Looks whether there is more to take. False: nothing new, or nothing that can be trusted. */
  private look(): boolean {
    if (this.isBroken) return false
    const seen = this.available.loadIndex(AVAIL_IDX)
    const ahead = (seen - this.nextAvail) & 0xffff
    if (ahead === 0) return false
    if (!(ahead <= this.size)) {
      this.isBroken = true
      return this.refuse('split.available-leap', this.place.driver + AVAIL_IDX, ahead, this.size)
    }
    this.seenAvail = seen
    if (!this.quiet && !this.eventIdx) {
      this.quiet = true
      this.used.storeIndex(USED_FLAGS, NO_NOTIFY)
      if (this.dma.log !== null) this.logUsed(0, USED_BYTES)
    }
    return true
  }

  private chainOf(head: number): Chain {
    const chain = new Chain(head)
    this.chains[head] = chain
    return chain
  }

  /** The head in the next available entry, unchecked; NO_HEAD when there is none. */
  private takeHead(): number {
    const next = this.nextAvail
    if (next === this.seenAvail && !this.look()) return NO_HEAD
    this.nextAvail = (next + 1) & 0xffff
    const slot = next & (this.size - 1)
    return this.available.halves[AVAIL_RING_HALF + slot] ?? this.available.le16(AVAIL_RING, slot * 2)
  }

  /** A head that names no chain: there is no token to give back, so the ring waits for a reset. */
  private distrust(head: number, retaken: boolean): null {
    const slot = (this.nextAvail - 1) & (this.size - 1)
    const at = retaken ? null : this.place.driver + AVAIL_RING + slot * 2
    this.isBroken = true
    this.seenAvail = this.nextAvail
    this.retake = []
    if (head < this.size) this.refuse('split.head-in-flight', at, head, 0)
    else this.refuse('split.head-range', at, head, this.size - 1)
    return null
  }

  private use(head: number, writtenBytes: number): void {
    const base = (this.filled & (this.size - 1)) * ELEM_BYTES + USED_RING
    const len = writtenBytes <= SMALL_MAX ? writtenBytes : Math.min(writtenBytes, WORD_MAX)
    const { words } = this.used
    if (words.length > 0) {
      words[(base + ELEM_ID) >>> 2] = head
      words[(base + ELEM_LEN) >>> 2] = len
    } else this.useApart(head, len, base)
    if (this.dma.log !== null) this.logUsed(base, ELEM_BYTES)
    this.filled = (this.filled + 1) & 0xffff
    if (this.journal !== null) this.journal.used(head)
  }

  private useApart(head: number, len: number, base: number): void {
    this.used.putLe32(ELEM_ID, head, base)
    this.used.putLe32(ELEM_LEN, len, base)
  }

  /** @throws what our own side did wrong with a chain. */
  private misused(chain: Chain, writtenBytes: number): never {
    const { head, live, writableBytes } = chain
    if (live) throw new Error(`queue ${this.queue}: ${writtenBytes} bytes written into ${writableBytes}`)
    throw new Error(`queue ${this.queue}: the token of head ${head} was spent before`)
  }

  private logUsed(offset: number, lengthBytes: number): void {
    this.dma.wrote(gpa(this.place.device + offset), lengthBytes)
  }

  private logWritten(chain: Chain, writtenBytes: number): void {
    let left = writtenBytes
    for (let i = chain.readableCount; i < chain.count && left > 0; i++) {
      const here = Math.min(left, chain.lengths[i] ?? 0)
      this.dma.wrote(gpa(chain.addresses[i] ?? 0), here)
      left -= here
    }
  }

  private refuse(rule: RequirementId, at: number | null, seen: number, expected: number): false {
    this.listener.violated({ rule, side: 'driver', queue: this.queue, at, seen, expected })
    return false
  }
}
