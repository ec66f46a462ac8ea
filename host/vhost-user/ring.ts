import type { DmaSpace } from '../../protocol/dma.ts'
import { gpa } from '../../protocol/memory.ts'
import type { Violation } from '../../protocol/violation.ts'
import type { QueuePlace } from '../../protocol/virtio/ring.ts'
import {
  AVAIL_ALIGN,
  availRingBytes,
  descTableBytes,
  USED_ALIGN,
  usedRingBytes,
  VirtqAvail,
  VirtqUsed,
} from '../../protocol/virtio/ring.ts'
import type { Window } from '../../protocol/window.ts'
import type { QueueState, VirtioDevice } from '../virtio/device.ts'
import type { PeerEvent } from './edge.ts'
import type { InflightJournal } from './inflight-journal.ts'
import type { Broken, MemoryTable } from './memory-table.ts'

/** Where a front-end says that a ring lies, in its own addresses. */
export interface RingAddresses {
  readonly descriptors: number
  readonly used: number
  readonly available: number
}

/** What a ring needs to run. */
export interface RingPlatform {
  readonly device: VirtioDevice
  readonly dma: DmaSpace
  /** The table of the moment. */
  table(): MemoryTable
  /** Where what is out of this ring is kept for who comes after us; null when nobody asked for it. */
  journal(ring: VhostRing): InflightJournal | Broken | null
  /** Every ring is looked at all the time. */
  readonly polling: boolean
  violated(violation: Violation): void
  /** Requests that whoever served before took and never answered are done again. */
  recovered(queue: number, requests: number): void
}

/**
 * One ring of a vhost-user back-end. Two switches, started and enabled, are independent of each other
 * (vhost-user, Ring states); the device has the queue while both are on, and the ring is live then.
 *
 * A ring that is started and disabled is left alone: what a disk would do without side effects, a driver would
 * take for an answer.
 */
export class VhostRing {
  readonly index: number
  readonly #platform: RingPlatform
  size: number
  addresses: RingAddresses | null
  call: PeerEvent | null
  error: PeerEvent | null
  enabled: boolean
  #kick: PeerEvent | null
  /** The front-end gave no descriptor to wait for. */
  polled: boolean
  #started: boolean
  #live: boolean
  /** Where it goes on; null until it ran, when `#base` and the used ring say so. */
  #resume: QueueState | null
  #base: number
  /** While live: where the driver publishes, and what was seen there. */
  #available: Window | null
  #seen: number

  constructor(index: number, platform: RingPlatform) {
    this.index = index
    this.#platform = platform
    this.size = 0
    this.addresses = null
    this.call = null
    this.error = null
    this.enabled = false
    this.#kick = null
    this.polled = false
    this.#started = false
    this.#live = false
    this.#resume = null
    this.#base = 0
    this.#available = null
    this.#seen = 0
  }

  get started(): boolean {
    return this.#started
  }

  get live(): boolean {
    return this.#live
  }

  get base(): number {
    return this.#base
  }

  set base(available: number) {
    this.#base = available
    this.#resume = null
  }

  /** Starts, with what to wait for; null when the front-end wants to be polled. Waits for another one if it runs. */
  start(kick: PeerEvent | null): Broken | null {
    this.#kick?.close()
    this.#kick = kick
    this.polled = kick === null
    this.#started = true
    kick?.watch(() => this.ring())
    const broken = this.goLive()
    if (broken !== null) this.#started = false
    // A kick may have been lost before: what is there is looked for at once.
    else this.ring()
    return broken
  }

  /** The driver may have new buffers. */
  ring(): void {
    if (this.#live) this.#platform.device.kick(this.index)
  }

  /** Looks for buffers where nobody rings. True when there were new ones. */
  look(): boolean {
    if (this.#available === null) return false
    const seen = this.#available.loadIndex(VirtqAvail.idx)
    if (seen === this.#seen) return false
    this.#seen = seen
    this.#platform.device.kick(this.index)
    return true
  }

  /** Gives the queue to the device when both switches are on; why that cannot be, or null. */
  goLive(): Broken | null {
    if (this.#live || !this.#started || !this.enabled) return null
    const place = this.#place()
    if ('rule' in place) return place
    const { device, dma } = this.#platform
    const used = dma.window(gpa(place.device), usedRingBytes(place.size), USED_ALIGN)
    const available = dma.window(gpa(place.driver), availRingBytes(place.size), AVAIL_ALIGN)
    if (used === null || available === null) {
      return { rule: 'vhost.ring-address', seen: place.device, expected: USED_ALIGN }
    }
    const journal = this.#platform.journal(this)
    if (journal !== null && 'rule' in journal) return journal
    const usedIndex = used.loadIndex(VirtqUsed.idx)
    const recovered = this.#resume === null ? journal?.recover(usedIndex, this.#base) : undefined
    const from = this.#resume ??
      recovered ?? { position: { available: this.#base, used: usedIndex }, heads: [] }
    const care = { journal, polled: this.polled || this.#platform.polling }
    const violation = device.start(this.index, place, from, care)
    if (violation !== null) {
      this.#platform.violated(violation)
      return { rule: 'vhost.ring-address', seen: violation.seen, expected: violation.expected }
    }
    this.#live = true
    if (recovered !== undefined && recovered.heads.length > 0) {
      this.#platform.recovered(this.index, recovered.heads.length)
    }
    this.#available = available
    this.#seen = from.position.available
    // Whoever served before may have made answers visible and ended before the call: the index that the driver
    // waits for is passed then, and no later answer would call. One call too many is harmless.
    this.call?.signal()
    return null
  }

  /** Takes the queue from the device; `quiet` hears when everything taken has been given back. */
  quiesce(quiet: () => void): void {
    if (!this.#live) {
      quiet()
      return
    }
    this.#platform.device.stop(this.index, (state) => {
      this.#resume = state
      this.#base = state.position.available
      this.#left()
      quiet()
    })
  }

  /** Stops for good; `quiet` hears where it stands. */
  stop(quiet: (available: number) => void): void {
    this.#started = false
    this.#kick?.close()
    this.#kick = null
    this.quiesce(() => {
      // What comes next begins with what the front-end says, or with this.
      this.base = this.#base
      quiet(this.#base)
    })
  }

  /** The device was reset: it has the queue no more. */
  forget(): void {
    this.#left()
    this.#started = false
    this.enabled = false
    this.#kick?.close()
    this.#kick = null
    this.base = 0
  }

  /** Closes every descriptor. */
  close(): void {
    this.#kick?.close()
    this.call?.close()
    this.error?.close()
    this.#kick = null
    this.call = null
    this.error = null
  }

  #left(): void {
    this.#live = false
    this.#available = null
  }

  #place(): QueuePlace | Broken {
    const { addresses, size } = this
    if (addresses === null || size === 0) return { rule: 'vhost.ring-incomplete', seen: size, expected: 1 }
    const table = this.#platform.table()
    const descriptors = table.guestAddress(addresses.descriptors, descTableBytes(size))
    const driver = table.guestAddress(addresses.available, availRingBytes(size))
    const device = table.guestAddress(addresses.used, usedRingBytes(size))
    if (descriptors === null || driver === null || device === null) {
      return { rule: 'vhost.ring-address', seen: addresses.descriptors, expected: table.guestEnd }
    }
    return { size, descriptors, driver, device }
  }
}
