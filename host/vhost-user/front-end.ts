import { encode } from '../../protocol/derive/codec.ts'
import type { DmaSpace } from '../../protocol/dma.ts'
import type { AccessWidth, HostPlatform, Plain } from '../../protocol/platform.ts'
import type { FeatureSet } from '../../protocol/version.ts'
import { hasFeature } from '../../protocol/version.ts'
import { hasVhostUserFeature } from '../../protocol/vhost-user/feature.ts'
import { VhostUserConfig } from '../../protocol/vhost-user/payload.ts'
import type { Violation } from '../../protocol/violation.ts'
import { BlkConfig, BlkFeature } from '../../protocol/virtio/blk.ts'
import type { VirtioVersion } from '../../protocol/virtio/features.ts'
import type { QueuePlace } from '../../protocol/virtio/ring.ts'
import { DeviceId } from '../../protocol/virtio/status.ts'
import { Window } from '../../protocol/window.ts'
import type { DeviceSignals, QueueState, VirtioDevice } from '../virtio/device.ts'
import type { SharedRegion } from './front-end-edge.ts'
import type { Exchange, Procedure } from './front-end-exchange.ts'
import { configOf, type DaemonFacts, guestFeatures } from './front-end-handshake.ts'
import type { DaemonLink, LinkListener } from './front-end-link.ts'
import { FrontEndQueue } from './front-end-queue.ts'
import {
  askInflight,
  giveInflight,
  type InflightBuffer,
  placeQueue,
  resetDaemon,
  serveQueue,
  settleFeatures,
  shareMemory,
  stopQueue,
  tellDriverOk,
} from './front-end-setup.ts'

export interface FrontEndSetup {
  readonly platform: HostPlatform
  readonly dma: DmaSpace
  /** The same memory, as the daemon gets it. */
  readonly regions: readonly SharedRegion[]
  /** Opened: it has said what the daemon is. The device closes it. */
  readonly link: DaemonLink
  readonly facts: DaemonFacts
  readonly version: VirtioVersion
  readonly queueSize: number
  /** Without leave to write, the guest is offered a read-only disk. */
  readonly write: boolean
}

/**
 * A block device whose queues a vhost-user daemon serves out of the guest's own memory.
 *
 * What the driver does to registers is state here and messages to the daemon, in that order; whoever comes back in
 * its place gets the same messages from the same state. A connection that is closed ends every loan: nothing can
 * take memory from a process, and one that died has none.
 */
export class FrontEndDevice implements VirtioDevice, LinkListener {
  readonly deviceId = DeviceId.BLOCK
  readonly featureTable = BlkFeature
  readonly queueSizes: readonly number[]
  readonly offered: FeatureSet
  readonly #setup: FrontEndSetup
  readonly #link: DaemonLink
  readonly #queues: readonly FrontEndQueue[]
  #signals: DeviceSignals | null
  #accepted: FeatureSet | null
  #config: Uint8Array<ArrayBuffer>
  #configDue: boolean
  /** This daemon has the guest's memory. */
  #shared: boolean
  /** This daemon knows that the driver is ready. */
  #driverOk: boolean
  #inflight: InflightBuffer | null
  #resetDone: (() => void) | null
  #closed: (() => void) | null
  configGeneration: number

  constructor(setup: FrontEndSetup) {
    const { platform, link, facts, version, queueSize, write } = setup
    this.#setup = setup
    this.#link = link
    this.offered = guestFeatures(facts.offered, version, write)
    const asked = new Window(facts.config).le16(BlkConfig.num_queues)
    const many = hasFeature(this.offered, BlkFeature.MQ.bit) ? Math.max(1, Math.min(facts.queues, asked)) : 1
    this.queueSizes = Array.from({ length: many }, () => queueSize)
    this.#queues = this.queueSizes.map((size, index) => {
      return new FrontEndQueue(index, size, platform, (queue) => this.#signals?.signal(queue.index))
    })
    this.#signals = null
    this.#accepted = null
    this.#config = this.#shown(facts.config)
    this.#configDue = false
    this.#shared = false
    this.#driverOk = false
    this.#inflight = null
    this.#resetDone = null
    this.#closed = null
    this.configGeneration = 0
    link.listen(this)
  }

  /** Doorbells passed on, and notifications that came. */
  get notifications(): { readonly kicks: number; readonly calls: number } {
    const sum = (of: (queue: FrontEndQueue) => number) => this.#queues.reduce((all, one) => all + of(one), 0)
    return { kicks: sum(({ kicks }) => kicks), calls: sum(({ calls }) => calls) }
  }

  /** Requests that came back to the guest. */
  get served(): number {
    return this.#queues.reduce((sum, { served }) => sum + served, 0)
  }

  // What the transport asks.

  attach(signals: DeviceSignals): void {
    this.#signals = signals
  }

  accept(features: FeatureSet): void {
    this.#accepted = features
    const { exchange } = this.#link
    if (exchange !== null) exchange.run(settleFeatures(exchange, features & exchange.offered))
  }

  readConfig(offset: number, width: AccessWidth): number {
    let value = 0
    for (let i = width - 1; i >= 0; i--) value = value * 256 + (this.#config[offset + i] ?? 0)
    return value
  }

  writeConfig(offset: number, width: AccessWidth, value: number): void {
    const writable = hasFeature(this.#accepted ?? 0n, BlkFeature.CONFIG_WCE.bit)
    if (!writable || offset !== BlkConfig.writeback || width !== 1 || !(value <= 1)) {
      this.#signals?.violated({
        rule: 'mmio.config-read-only',
        side: 'driver',
        queue: null,
        at: offset,
        seen: value,
        expected: 0,
      })
      return
    }
    this.#config[offset] = value
    this.#link.exchange?.run(this.#writingConfig(offset, value))
  }

  start(index: number, place: QueuePlace, from: QueueState): Violation | null {
    const queue = this.#queue(index)
    const violation = queue.start(this.#setup.dma, place, from)
    if (violation !== null) return violation
    if (this.#link.dead) this.#signals?.needsReset()
    const { exchange } = this.#link
    if (exchange !== null) this.#place(exchange, queue, queue.from)
    return null
  }

  kick(index: number): void {
    const queue = this.#queue(index)
    if (!queue.ready) return
    if (queue.serving) {
      queue.kick()
      return
    }
    queue.serving = true
    const { exchange } = this.#link
    if (exchange !== null) exchange.run(this.#serving(exchange, queue))
  }

  stop(index: number, stopped: (state: QueueState) => void): void {
    const queue = this.#queue(index)
    queue.stopped = stopped
    const { exchange } = this.#link
    if (exchange === null || !queue.taken) queue.end(stateOf(queue))
    else {
      this.#link.bearWith()
      exchange.run(this.#stopping(exchange, queue))
    }
  }

  reset(done: () => void): void {
    if (this.#resetDone !== null) throw new Error('a reset is under way')
    this.#resetDone = done
    for (const queue of this.#queues) queue.stopped = null
    const { exchange } = this.#link
    if (exchange === null || this.#accepted === null) this.#finishReset()
    else {
      this.#link.bearWith()
      exchange.run(this.#resetting(exchange))
    }
  }

  queueState(index: number): QueueState | null {
    const queue = this.#queue(index)
    return queue.ready ? stateOf(queue) : null
  }

  /** Nothing: what a daemon holds cannot be saved, and the clock says so while there is one. */
  save(): Plain {
    return null
  }

  load(state: Plain): string | null {
    return state === null ? null : 'a device behind a daemon takes no state'
  }

  /** Stops the daemon's rings where it answers, and lets go of everything. Once. */
  close(closed: () => void): void {
    this.#closed = closed
    const { exchange } = this.#link
    if (exchange === null || this.#link.stalled) this.#finishClose()
    else {
      this.#link.bearWith()
      exchange.run(this.#closing(exchange))
    }
  }

  // What the link tells.

  get waits(): boolean {
    for (const queue of this.#queues) if (queue.waits()) return true
    return false
  }

  get progress(): number {
    return this.#queues.reduce((sum, { usedIndex, calls }) => sum + usedIndex + calls, 0)
  }

  returned(facts: DaemonFacts): void {
    const wanted = (this.#accepted ?? 0n) & ~(1n << BigInt(BlkFeature.RO.bit))
    const ready = this.#queues.filter((queue) => queue.ready)
    if ((wanted & ~facts.offered) !== 0n || !(ready.length <= facts.queues)) {
      this.#link.giveUp('came back with less than it offered before')
      return
    }
    this.#takeConfig(facts.config)
    const { exchange } = this.#link
    if (exchange === null || this.#accepted === null) return
    const tracks = this.#inflight !== null && hasVhostUserFeature(facts.protocol, 'INFLIGHT_SHMFD')
    if (!tracks && this.#out) {
      this.#signals?.needsReset()
      return
    }
    exchange.run(settleFeatures(exchange, this.#accepted & facts.offered))
    for (const queue of ready) this.#place(exchange, queue, queue.serving ? queue.usedIndex : queue.from)
    for (const queue of ready) if (queue.serving) exchange.run(this.#serving(exchange, queue))
  }

  lost(final: boolean): void {
    this.#shared = false
    this.#driverOk = false
    this.#configDue = false
    for (const queue of this.#queues) {
      queue.unwire()
      if (queue.stopped !== null) queue.end(stateOf(queue))
      // What it used last it may have had no time to tell.
      else queue.look()
    }
    if (this.#closed !== null) this.#finishClose()
    else if (this.#resetDone !== null) this.#finishReset()
    else if (final && this.#accepted !== null) this.#signals?.needsReset()
    // Nobody knows which requests a daemon without a tracking buffer had taken: the driver begins again, and sends
    // to the next one what was not answered.
    else if (!final && this.#inflight === null && this.#out) this.#signals?.needsReset()
  }

  configChanged(): void {
    const { exchange } = this.#link
    if (this.#configDue || exchange === null) return
    this.#configDue = true
    exchange.run(this.#readingConfig(exchange))
  }

  violated(violation: Violation): void {
    this.#signals?.violated(violation)
  }

  stalled(): void {
    if (this.#closed !== null) this.#finishClose()
  }

  #place(exchange: Exchange, queue: FrontEndQueue, base: number): void {
    if (!queue.wire(this.#link.edge)) {
      this.#link.giveUp('cannot be wired: this process may have no more descriptors')
      return
    }
    exchange.run(this.#placing(exchange, queue, base))
  }

  // Procedures.

  *#placing(exchange: Exchange, queue: FrontEndQueue, base: number): Procedure {
    if (!this.#shared) {
      this.#shared = true
      yield* shareMemory(this.#setup.regions)
      if (hasVhostUserFeature(exchange.protocol, 'INFLIGHT_SHMFD')) yield* this.#tracking(exchange)
    }
    yield* placeQueue(queue, base)
  }

  *#tracking(exchange: Exchange): Procedure {
    const { length } = this.queueSizes
    this.#inflight ??= yield* askInflight(exchange, length, this.#setup.queueSize)
    if (this.#inflight !== null) yield* giveInflight(this.#inflight)
  }

  *#serving(exchange: Exchange, queue: FrontEndQueue): Procedure {
    yield* serveQueue(exchange, queue)
    if (this.#driverOk) return
    this.#driverOk = true
    yield* tellDriverOk(exchange)
  }

  *#stopping(exchange: Exchange, queue: FrontEndQueue): Procedure {
    const state = yield* stopQueue(exchange, queue)
    queue.end(state)
  }

  *#stopAll(exchange: Exchange): Procedure {
    for (const queue of this.#queues) if (queue.taken) yield* stopQueue(exchange, queue)
    yield* resetDaemon(exchange)
  }

  *#resetting(exchange: Exchange): Procedure {
    yield* this.#stopAll(exchange)
    this.#finishReset()
  }

  *#closing(exchange: Exchange): Procedure {
    yield* this.#stopAll(exchange)
    this.#finishClose()
  }

  *#readingConfig(exchange: Exchange): Procedure {
    this.#configDue = false
    const config = yield* configOf(exchange)
    if (config !== null) this.#takeConfig(config)
  }

  *#writingConfig(offset: number, value: number): Procedure {
    const payload = new Uint8Array(VhostUserConfig.$size + 1)
    payload.set(encode(VhostUserConfig, { offset, size: 1 }))
    payload[VhostUserConfig.$size] = value
    yield { name: 'SET_CONFIG', payload, mayRefuse: true }
  }

  // State.

  /** What the daemon that was lost may have taken: answers that the guest has not seen are no loss. */
  get #out(): boolean {
    return this.#queues.some(({ out }) => out)
  }

  #finishReset(): void {
    const done = this.#resetDone
    this.#resetDone = null
    this.#forget()
    done?.()
  }

  #finishClose(): void {
    const closed = this.#closed
    this.#closed = null
    this.#forget()
    this.#link.close()
    closed?.()
  }

  #forget(): void {
    for (const queue of this.#queues) queue.end(stateOf(queue))
    this.#accepted = null
    this.#shared = false
    this.#driverOk = false
    // A driver that begins again has nothing out: what a daemon kept of it must not be done again.
    this.#inflight?.descriptor.close()
    this.#inflight = null
  }

  /** A generation stands for one content: what changes nothing a driver can read is not announced. */
  #takeConfig(config: Uint8Array<ArrayBuffer>): void {
    const shown = this.#shown(config)
    if (shown.every((byte, at) => byte === this.#config[at])) return
    this.#config = shown
    this.configGeneration = (this.configGeneration + 1) % 0x1_0000_0000
    this.#signals?.configChanged()
  }

  /** Configuration space as the guest sees it: with the queues that it can have. */
  #shown(config: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
    const shown = new Uint8Array(config)
    new Window(shown).putLe16(BlkConfig.num_queues, this.queueSizes.length)
    return shown
  }

  #queue(index: number): FrontEndQueue {
    const queue = this.#queues[index]
    if (queue === undefined) throw new Error(`the device has no queue ${index}`)
    return queue
  }
}

/** Nothing of it is known to be out: what is, is in the daemon's hands. */
function stateOf(queue: FrontEndQueue): QueueState {
  return { position: { available: queue.usedIndex, used: queue.usedIndex }, heads: [] }
}
