import type { DmaSpace } from '../../protocol/dma.ts'
import type { HostPlatform } from '../../protocol/platform.ts'
import type { FeatureSet } from '../../protocol/version.ts'
import { missingPrerequisite } from '../../protocol/version.ts'
import {
  hasVhostUserFeature,
  VhostUserFeature,
  VhostUserVirtioFeature,
  vhostUserFeatures,
} from '../../protocol/vhost-user/feature.ts'
import { frameBytes } from '../../protocol/vhost-user/frame.ts'
import type { VhostUserNegotiated } from '../../protocol/vhost-user/message.ts'
import { BackEndMessage } from '../../protocol/vhost-user/message.ts'
import type { Violation } from '../../protocol/violation.ts'
import { CommonFeature } from '../../protocol/virtio/features.ts'
import { Status } from '../../protocol/virtio/status.ts'
import type { DeviceSignals, VirtioDevice } from '../virtio/device.ts'
import { featuresRefused } from '../virtio/negotiate.ts'
import { DirtyLog } from './dirty-log.ts'
import type { PeerChannel, PeerEdge, PeerMemory } from './edge.ts'
import type { InflightBuffer } from './inflight-buffer.ts'
import { MemoryTable } from './memory-table.ts'
import type { Outcome } from './outcome.ts'
import { DONE, refused } from './outcome.ts'
import { VhostRing } from './ring.ts'

export interface BackEndSetup {
  readonly platform: HostPlatform
  readonly device: VirtioDevice
  /** The device's own, remapped here. */
  readonly dma: DmaSpace
  readonly edge: PeerEdge
  /** Memory that the front-end could make shorter is refused, instead of being named once. */
  readonly requireSeals: boolean
  /** Somebody calls `look` all the time: rings are not waited for. */
  readonly polling?: boolean
  readonly violated: (violation: Violation) => void
  /** Requests of a ring that whoever served before took and never answered: they are done again. */
  readonly recovered?: (queue: number, requests: number) => void
}

/** What this back-end can do. */
export const OFFERED_PROTOCOL = vhostUserFeatures(
  'MQ',
  'LOG_SHMFD',
  'REPLY_ACK',
  'BACKEND_REQ',
  'CONFIG',
  'INFLIGHT_SHMFD',
  'RESET_DEVICE',
  'CONFIGURE_MEM_SLOTS',
  'STATUS',
)

const LOG_ALL = 1n << BigInt(VhostUserVirtioFeature.LOG_ALL.bit)
const PROTOCOL_FEATURES = 1n << BigInt(VhostUserVirtioFeature.PROTOCOL_FEATURES.bit)
const VERSION_1 = 1n << BigInt(CommonFeature.VERSION_1.bit)
/** GET_FEATURES is one integer. */
const FEATURES_MASK = (1n << 64n) - 1n

/**
 * A VIRTIO device behind a vhost-user connection: memory, rings, features and what else one front-end has
 * settled. Messages are carried out by the functions of `requests.ts` and `ring-requests.ts`; the connection is
 * `session.ts`.
 *
 * Whatever takes memory away from the device (another table, a removed region, a reset, the end) first lets it
 * give back what it has on loan.
 */
export class VhostBackEnd implements DeviceSignals {
  readonly device: VirtioDevice
  readonly edge: PeerEdge
  readonly rings: readonly VhostRing[]
  readonly requireSeals: boolean
  readonly #polling: boolean
  readonly #platform: HostPlatform
  readonly #dma: DmaSpace
  readonly #report: (violation: Violation) => void
  #accepted: FeatureSet
  #protocol: FeatureSet
  #table: MemoryTable
  /** The one that takes its place once loans have ended. */
  #coming: MemoryTable | null
  #log: DirtyLog | null
  #inflight: InflightBuffer | null
  #channel: PeerChannel | null
  /** Configuration changed, and the front-end could not be told yet. */
  #untold: boolean
  #unsealed: boolean
  /** Who waits for the reset under way. */
  #resets: (() => void)[]
  status: number

  constructor(setup: BackEndSetup) {
    this.device = setup.device
    this.edge = setup.edge
    this.requireSeals = setup.requireSeals
    this.#polling = setup.polling ?? false
    this.#platform = setup.platform
    this.#dma = setup.dma
    this.#report = setup.violated
    this.#accepted = 0n
    this.#protocol = 0n
    this.#table = MemoryTable.EMPTY
    this.#coming = null
    this.#log = null
    this.#inflight = null
    this.#channel = null
    this.#untold = false
    this.#unsealed = false
    this.#resets = []
    this.status = 0
    const ringPlatform = {
      device: setup.device,
      dma: setup.dma,
      table: () => this.#table,
      journal: (ring: VhostRing) => this.#inflight?.journal(ring.index, ring.size) ?? null,
      polling: this.#polling,
      violated: (violation: Violation) => this.violated(violation),
      recovered: (queue: number, requests: number) => setup.recovered?.(queue, requests),
    }
    this.rings = setup.device.queueSizes.map((_, index) => new VhostRing(index, ringPlatform))
    setup.dma.remap(this.#table.memory())
    setup.dma.log = null
    setup.device.attach(this)
  }

  // Features.

  get offered(): FeatureSet {
    return (this.device.offered | LOG_ALL | PROTOCOL_FEATURES) & FEATURES_MASK
  }

  get negotiated(): VhostUserNegotiated {
    return { offered: this.offered, accepted: this.#accepted, protocol: this.#protocol }
  }

  setFeatures(features: FeatureSet): Outcome {
    const transport = LOG_ALL | PROTOCOL_FEATURES
    const own = features & ~transport
    // A guest of before VERSION_1 has the same rings and, on a little-endian host, the same bytes in them.
    const refusal = featuresRefused(own | VERSION_1, this.device.offered, this.device.featureTable)
    if (refusal !== null) return refused('vhost.feature-not-offered', refusal.seen, refusal.expected)
    if (own !== (this.#accepted & ~transport)) {
      const live = this.rings.find((ring) => ring.live)
      if (live !== undefined) return refused('features.frozen', live.index, 0, live.index)
      this.device.accept(own)
    }
    this.#accepted = features
    this.#switchLog()
    // Without protocol features there is no message that enables a ring.
    if ((features & PROTOCOL_FEATURES) === 0n) return this.enableAll()
    return DONE
  }

  setProtocolFeatures(features: FeatureSet): Outcome {
    const extra = features & ~OFFERED_PROTOCOL
    if (extra !== 0n) return refused('vhost.feature-not-offered', extra.toString(2).length - 1, 0)
    const missing = missingPrerequisite(features, VhostUserFeature)
    if (missing !== null) return refused('vhost.feature-prerequisite', 0, 0)
    this.#protocol = features
    return DONE
  }

  enableAll(): Outcome {
    for (const ring of this.rings) {
      ring.enabled = true
      const broken = ring.goLive()
      if (broken !== null) return { kind: 'refused', queue: ring.index, ...broken }
      ring.ring()
    }
    return DONE
  }

  // Memory.

  get table(): MemoryTable {
    return this.#table
  }

  /** One more region: what is on loan and what was resolved stays where it is. */
  grow(table: MemoryTable): void {
    this.#table = table
    this.#dma.remap(table.memory())
  }

  /** Another table: every ring gives back what it has, and goes on in the new one where it finds itself there. */
  replace(table: MemoryTable, revoke: () => void, done: () => void): void {
    this.#coming = table
    this.quiesce(() => {
      this.#coming = null
      revoke()
      this.grow(table)
      for (const ring of this.rings) {
        const broken = ring.goLive()
        if (broken === null) ring.ring()
        else {
          this.violated({ ...broken, side: 'front-end', queue: ring.index, at: null })
          ring.stop(() => ring.error?.signal())
        }
      }
      done()
    })
  }

  /** Takes all queues from the device; `quiet` hears when nothing is on loan. */
  quiesce(quiet: () => void): void {
    let left = this.rings.length
    for (const ring of this.rings) {
      ring.quiesce(() => {
        left--
        if (left === 0) quiet()
      })
    }
  }

  /** Judges that memory may become shorter: true when it is refused for that. Named once, tolerated else. */
  unsealed(): boolean {
    if (this.requireSeals) return true
    if (!this.#unsealed) {
      this.violated({
        rule: 'vhost.memory-unsealed',
        side: 'front-end',
        queue: null,
        at: null,
        seen: 0,
        expected: 1,
      })
    }
    this.#unsealed = true
    return false
  }

  // What the front-end keeps for us.

  setLog(memory: PeerMemory | null): void {
    const before = this.#log
    this.#log = memory === null ? null : new DirtyLog(memory, (page) => this.#overran(page))
    this.#switchLog()
    before?.close()
  }

  setInflight(buffer: InflightBuffer): void {
    this.#inflight?.close()
    this.#inflight = buffer
  }

  setChannel(channel: PeerChannel): void {
    this.#channel?.close()
    this.#channel = channel
    this.tellConfig()
  }

  /**
   * Tells of a changed configuration, if there is something to tell. While all rings are stopped nothing is
   * sent; it waits for the first that starts.
   */
  tellConfig(): void {
    if (!this.#untold || this.#channel === null) return
    if (!hasVhostUserFeature(this.#protocol, 'CONFIG')) return
    if (!this.rings.some((ring) => ring.live)) return
    this.#untold = !this.#channel.send(frameBytes(BackEndMessage.CONFIG_CHANGE_MSG.code, 0), [])
  }

  /** Looks at rings that nobody rings for; null when there is none of them. True when there was work. */
  look(): boolean | null {
    let watched = false
    let worked = false
    for (const ring of this.rings) {
      if (!ring.live || !(this.#polling || ring.polled)) continue
      watched = true
      if (ring.look()) worked = true
    }
    return watched ? worked : null
  }

  // Signals from the device.

  signal(queue: number): void {
    const ring = this.rings[queue]
    if (ring?.live === true) ring.call?.signal()
  }

  configChanged(): void {
    this.#untold = true
    this.tellConfig()
  }

  needsReset(): void {
    if ((this.status & Status.DEVICE_NEEDS_RESET) !== 0) return
    this.status |= Status.DEVICE_NEEDS_RESET
    for (const ring of this.rings) if (ring.live) ring.error?.signal()
    this.configChanged()
  }

  violated(violation: Violation): void {
    if (this.#platform.trace.on) {
      const { rule, queue } = violation
      this.#platform.trace.emit({ name: 'violation', device: this.#platform.path, rule, queue })
    }
    this.#report(violation)
  }

  // Reset and end.

  /** The device as it was when it was made; `done` hears when nothing is on loan. Rings are stopped and disabled. */
  reset(done: () => void): void {
    this.#resets.push(done)
    if (this.#resets.length > 1) return
    this.device.reset(() => {
      for (const ring of this.rings) ring.forget()
      // What was negotiated stays: a reset of the device is none of the connection.
      const own = this.#accepted & ~(LOG_ALL | PROTOCOL_FEATURES)
      if (own !== 0n) this.device.accept(own)
      this.status = 0
      const waiting = this.#resets
      this.#resets = []
      for (const one of waiting) one()
    })
  }

  /** Gives everything back that the front-end shared; `done` hears when it is. */
  close(done: () => void): void {
    this.#accepted = 0n
    this.reset(() => {
      for (const ring of this.rings) ring.close()
      this.setLog(null)
      this.#inflight?.close()
      this.#inflight = null
      this.#channel?.close()
      this.#channel = null
      this.#dma.remap(MemoryTable.EMPTY.memory())
      this.#coming?.revokeAllBut(this.#table)
      this.#coming = null
      this.#table.revokeAll()
      this.#table = MemoryTable.EMPTY
      done()
    })
  }

  #switchLog(): void {
    this.#dma.log = (this.#accepted & LOG_ALL) === 0n ? null : this.#log
  }

  #overran(page: number): void {
    this.violated({
      rule: 'vhost.log-range',
      side: 'front-end',
      queue: null,
      at: null,
      seen: page,
      expected: this.#log?.pages ?? 0,
    })
  }
}
