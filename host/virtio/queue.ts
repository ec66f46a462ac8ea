import type { DmaSpace } from '../../protocol/dma.ts'
import type { HostPlatform } from '../../protocol/platform.ts'
import type { Violation } from '../../protocol/violation.ts'
import type { QueuePlace } from '../../protocol/virtio/ring.ts'
import type { Chain } from './chain.ts'
import type { DeviceSignals, QueueState } from './device.ts'
import type { RingCare } from './ring.ts'
import { PLAIN_CARE } from './ring.ts'
import { SplitRing } from './split-ring.ts'

/** What a device model does with one checked chain: completes it now or later, exactly once. */
export interface ChainServer {
  serve(queue: DeviceQueue, chain: Chain): void
}

export interface QueueFeatures {
  readonly indirect: boolean
  readonly eventIdx: boolean
}

/**
 * One queue of a device: its ring, and when it is served.
 *
 * A kick marks it pending; a turn of the run queue serves at most one ring's worth, so that a driver that
 * produces as fast as it is served cannot keep the others waiting. Completions made while serving are
 * published together, others one by one.
 */
export class DeviceQueue {
  readonly index: number
  readonly sizeMax: number
  readonly #platform: HostPlatform
  readonly #dma: DmaSpace
  readonly #server: ChainServer
  #signals: DeviceSignals | null
  #ring: SplitRing | null
  /** A turn is due. A turn that finds it unset was made for a ring that is gone, and serves nobody. */
  #pending: boolean
  #serving: boolean
  /** The ring was broken when its state was saved. */
  #broken: boolean
  #stopped: ((state: QueueState) => void) | null
  /** Made once: a turn must not cost a closure. */
  readonly #turn: () => void

  constructor(index: number, sizeMax: number, platform: HostPlatform, dma: DmaSpace, server: ChainServer) {
    this.index = index
    this.sizeMax = sizeMax
    this.#platform = platform
    this.#dma = dma
    this.#server = server
    this.#signals = null
    this.#ring = null
    this.#pending = false
    this.#serving = false
    this.#broken = false
    this.#stopped = null
    this.#turn = () => this.#serve()
  }

  attach(signals: DeviceSignals): void {
    this.#signals = signals
  }

  get ready(): boolean {
    return this.#ring !== null
  }

  get inFlight(): number {
    return this.#ring?.inFlight ?? 0
  }

  start(
    place: QueuePlace,
    from: QueueState,
    features: QueueFeatures,
    care: RingCare = PLAIN_CARE,
  ): Violation | null {
    const ring = SplitRing.start({
      dma: this.#dma,
      queue: this.index,
      place,
      sizeMax: this.sizeMax,
      indirect: features.indirect,
      eventIdx: features.eventIdx,
      position: from.position,
      retake: from.heads,
      listener: this.#signals ?? NOBODY,
      care,
    })
    if (!(ring instanceof SplitRing)) return ring
    this.#ring = ring
    this.#broken = from.broken === true
    this.#stopped = null
    return null
  }

  kick(): void {
    if (this.#pending || this.#ring === null || this.#stopped !== null) return
    this.#pending = true
    this.#platform.clock.defer(this.#turn)
  }

  complete(chain: Chain, writtenBytes: number): void {
    const ring = this.#live()
    if (this.#platform.trace.on) this.#traceGive(chain, writtenBytes)
    ring.complete(chain, writtenBytes)
    if (this.#serving) return
    this.#publish(ring)
    this.#settle(ring)
  }

  /** Gives up a chain without an answer; only while the device resets. */
  abandon(chain: Chain): void {
    this.#live().abandon(chain)
  }

  /** Takes nothing more; `stopped` hears when all taken chains are back. The queue is then not ready. */
  stop(stopped: (state: QueueState) => void): void {
    const ring = this.#live()
    this.#stopped = stopped
    this.#settle(ring)
  }

  /** Stops intake at once, without waiting: the first half of a reset. */
  halt(): void {
    if (this.#ring !== null) this.#stopped = () => {}
  }

  /** Forgets the ring; nothing is in flight any more. */
  discard(): void {
    if (this.inFlight !== 0) throw new Error(`queue ${this.index} is reset with ${this.inFlight} chains out`)
    this.#ring = null
    this.#stopped = null
    this.#pending = false
  }

  state(): QueueState | null {
    const ring = this.#ring
    if (ring === null) return null
    const state = { position: ring.position(), heads: ring.headsOut() }
    return this.#broken || ring.broken ? { ...state, broken: true } : state
  }

  #live(): SplitRing {
    if (this.#ring === null) throw new Error(`queue ${this.index} is not ready`)
    return this.#ring
  }

  #serve(): void {
    if (!this.#pending) return
    this.#pending = false
    const ring = this.#ring
    if (ring === null || this.#broken || this.#stopped !== null) return
    this.#serving = true
    let left = ring.size
    while (left > 0 && this.#stopped === null) {
      const chain = ring.next()
      if (chain !== null) {
        left--
        if (this.#platform.trace.on) this.#traceTake(chain)
        this.#server.serve(this, chain)
      } else if (!ring.rearm()) break
      else left--
    }
    this.#serving = false
    this.#publish(ring)
    // Whoever heard the signal may have reset the device: nothing of this ring is to be told any more.
    if (this.#ring !== ring) return
    if (ring.broken) this.#signals?.needsReset()
    else if (left === 0) this.kick()
    this.#settle(ring)
  }

  #publish(ring: SplitRing): void {
    if (!ring.publish()) return
    if (this.#platform.trace.on) {
      this.#platform.trace.emit({ name: 'signal', device: this.#platform.path, queue: this.index })
    }
    this.#signals?.signal(this.index)
  }

  #settle(ring: SplitRing): void {
    if (this.#stopped === null || this.#serving || this.#ring !== ring || ring.inFlight > 0) return
    const stopped = this.#stopped
    const state = { position: ring.position(), heads: ring.headsOut() }
    this.#stopped = null
    this.#ring = null
    this.#pending = false
    stopped(state)
  }

  #traceTake(chain: Chain): void {
    const { id, head, readableBytes, writableBytes } = chain
    const device = this.#platform.path
    this.#platform.trace.emit({
      name: 'take',
      device,
      queue: this.index,
      id,
      head,
      readableBytes,
      writableBytes,
    })
  }

  #traceGive(chain: Chain, written: number): void {
    const { id, head } = chain
    this.#platform.trace.emit({
      name: 'give',
      device: this.#platform.path,
      queue: this.index,
      id,
      head,
      written,
    })
  }
}

const NOBODY = { violated() {} }
