import type { DmaSpace } from '../../protocol/dma.ts'
import { gpa } from '../../protocol/memory.ts'
import type { ArrivalSource, HostPlatform } from '../../protocol/platform.ts'
import type { Violation } from '../../protocol/violation.ts'
import type { QueuePlace } from '../../protocol/virtio/ring.ts'
import {
  AVAIL_ALIGN,
  availRingBytes,
  USED_ALIGN,
  usedRingBytes,
  VirtqAvail,
  VirtqUsed,
} from '../../protocol/virtio/ring.ts'
import type { Window } from '../../protocol/window.ts'
import type { QueueState } from '../virtio/device.ts'
import { placeInvalid } from '../virtio/queue-place.ts'
import type { FrontEndEdge, OwnEvent } from './front-end-edge.ts'

/** A queue while it is ready: where it lies, and where it stands as the memory that everybody shares has it. */
interface Live {
  readonly place: QueuePlace
  readonly from: QueueState
  readonly available: Window
  readonly used: Window
}

/**
 * A queue whose ring a daemon serves. Nothing of a request is known here; how many are out is in the two indices,
 * which are read when time is about to move.
 */
export class FrontEndQueue implements ArrivalSource {
  readonly index: number
  readonly path: string
  readonly sizeMax: number
  readonly #platform: HostPlatform
  readonly #signal: (queue: FrontEndQueue) => void
  readonly #turn: () => void
  #live: Live | null
  #kick: OwnEvent | null
  #call: OwnEvent | null
  /** A kick is due, a call has come and not been admitted: one of each at a time is enough. */
  #kickDue: boolean
  #callDue: boolean
  /** Used index the guest was told last. */
  #told: number
  /** The driver has kicked: the daemon may serve. */
  serving: boolean
  /** Whoever waits for it to stop. */
  stopped: ((state: QueueState) => void) | null
  kicks: number
  calls: number
  /** Requests that came back. */
  served: number

  constructor(
    index: number,
    sizeMax: number,
    platform: HostPlatform,
    signal: (queue: FrontEndQueue) => void,
  ) {
    this.index = index
    this.path = `${platform.path}/queue${index}`
    this.sizeMax = sizeMax
    this.#platform = platform
    this.#signal = signal
    this.#live = null
    this.#kick = null
    this.#call = null
    this.#kickDue = false
    this.#callDue = false
    this.#told = 0
    this.serving = false
    this.stopped = null
    this.kicks = 0
    this.calls = 0
    this.served = 0
    this.#turn = () => {
      this.#kickDue = false
      this.ring()
    }
  }

  get ready(): boolean {
    return this.#live !== null
  }

  /** The daemon that is there now has it, and may serve it. */
  get taken(): boolean {
    return this.serving && this.#kick !== null
  }

  get place(): QueuePlace | null {
    return this.#live?.place ?? null
  }

  get events(): { readonly kick: OwnEvent; readonly call: OwnEvent } | null {
    return this.#kick === null || this.#call === null ? null : { kick: this.#kick, call: this.#call }
  }

  /** Requests are out that no daemon has answered. */
  get out(): boolean {
    if (this.#live === null || !this.serving) return false
    return this.#live.available.loadIndex(VirtqAvail.idx) !== this.usedIndex
  }

  /**
   * Whether requests are out, or have come back and the guest does not know: then it is told at once, since the
   * daemon's call comes a while after the index it is about.
   */
  waits(): boolean {
    if (this.#live === null || !this.serving) return false
    // Looked at first, and compared with what the guest was told: the daemon may move the index in between, and
    // who asks it twice can find nothing new and then nothing out.
    return this.look() || this.#live.available.loadIndex(VirtqAvail.idx) !== this.#told
  }

  /** Has the guest told of what it does not know; false when there is nothing. */
  look(): boolean {
    if (this.usedIndex === this.#told) return false
    this.#arrive()
    return true
  }

  /** Where the used ring stands: what moves here is progress. */
  get usedIndex(): number {
    return this.#live?.used.loadIndex(VirtqUsed.idx) ?? 0
  }

  /** Where a daemon that has not served it yet begins. */
  get from(): number {
    return this.#live?.from.position.available ?? 0
  }

  start(dma: DmaSpace, place: QueuePlace, from: QueueState): Violation | null {
    const invalid = placeInvalid({ dma, queue: this.index, place, sizeMax: this.sizeMax })
    if (invalid !== null) return invalid
    const available = dma.window(gpa(place.driver), availRingBytes(place.size), AVAIL_ALIGN)
    const used = dma.window(gpa(place.device), usedRingBytes(place.size), USED_ALIGN)
    if (available === null || used === null) throw new Error('checked ring areas cannot be had')
    this.#live = { place, from, available, used }
    this.#told = this.usedIndex
    return null
  }

  /** New events for a daemon that has none of this queue's yet; false when there are none to be had. */
  wire(edge: FrontEndEdge): boolean {
    this.unwire()
    this.#kick = edge.event()
    this.#call = edge.event()
    if (this.#kick === null || this.#call === null) {
      this.unwire()
      return false
    }
    this.#call.event.watch(() => this.#arrive())
    return true
  }

  unwire(): void {
    this.#kick?.event.close()
    this.#call?.event.close()
    this.#kick = null
    this.#call = null
  }

  kick(): void {
    if (this.#kickDue) return
    this.#kickDue = true
    this.#platform.clock.defer(this.#turn)
  }

  /** Wakes the daemon at once. */
  ring(): void {
    if (this.#kick === null) return
    this.kicks++
    this.#kick.event.signal()
  }

  /** The daemon used buffers, or says so. */
  arrived(): void {
    this.#callDue = false
    const used = this.usedIndex
    if (this.#live === null || used === this.#told) return
    this.served += (used - this.#told) & 0xffff
    this.#told = used
    this.calls++
    this.#signal(this)
  }

  /** Forgets the ring, and tells whoever waited for that. */
  end(state: QueueState): void {
    const { stopped } = this
    this.unwire()
    this.#live = null
    this.serving = false
    this.stopped = null
    stopped?.(state)
  }

  #arrive(): void {
    if (this.#callDue) return
    this.#callDue = true
    this.#platform.clock.arrive(this, null)
  }
}
