/** A front-end device with a scripted daemon behind it and a driver that is a few lines in front. */

import { seededRandom } from '../../bench/random.ts'
import { FrontEndDevice } from '../../host/vhost-user/front-end.ts'
import type { DaemonFacts } from '../../host/vhost-user/front-end-handshake.ts'
import { DaemonLink } from '../../host/vhost-user/front-end-link.ts'
import { QUEUE_START } from '../../host/virtio/device.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import { DmaSpace } from '../../protocol/dma.ts'
import { GuestMemory, gpa } from '../../protocol/memory.ts'
import { NO_TRACE } from '../../protocol/trace.ts'
import { featureSet } from '../../protocol/version.ts'
import { VhostUserVirtioFeature, vhostUserFeatures } from '../../protocol/vhost-user/feature.ts'
import { BlkFeature } from '../../protocol/virtio/blk.ts'
import { CommonFeature } from '../../protocol/virtio/features.ts'
import { VirtqAvail, VirtqUsed, VirtqUsedElem } from '../../protocol/virtio/ring.ts'
import type { Window } from '../../protocol/window.ts'
import { CountedDescriptor, type ScriptedDaemon } from './scripted-daemon.ts'

export const SIZE = 8
export const PLACE = { size: SIZE, descriptors: 0x1000, driver: 0x2000, device: 0x3000 }
export const OFFERED = featureSet([
  CommonFeature.VERSION_1.bit,
  CommonFeature.EVENT_IDX.bit,
  BlkFeature.FLUSH.bit,
  BlkFeature.BLK_SIZE.bit,
  BlkFeature.CONFIG_WCE.bit,
  VhostUserVirtioFeature.PROTOCOL_FEATURES.bit,
])
export const ACCEPTED = featureSet([CommonFeature.VERSION_1.bit, BlkFeature.FLUSH.bit])
export const PLAIN = vhostUserFeatures('CONFIG', 'REPLY_ACK')
export const EVERYTHING = vhostUserFeatures(
  'CONFIG',
  'REPLY_ACK',
  'MQ',
  'BACKEND_REQ',
  'INFLIGHT_SHMFD',
  'STATUS',
  'RESET_DEVICE',
)

export interface FrontEndRigOptions {
  readonly patienceMs?: number
  readonly reconnectMs?: number
  readonly write?: boolean
}

export class FrontEndRig {
  readonly clock = new VirtualClock({ turnsMax: 100_000 })
  readonly daemon: ScriptedDaemon
  readonly link: DaemonLink
  readonly memory = GuestMemory.ofBytes(0x10000)
  readonly troubles: string[] = []
  readonly rules: string[] = []
  readonly available: Window
  readonly used: Window
  device: FrontEndDevice | null = null
  opened: DaemonFacts | string | null = null
  needsReset = 0
  signals = 0
  configChanges = 0
  readonly #write: boolean
  readonly #ram: CountedDescriptor

  constructor(daemon: ScriptedDaemon, options: FrontEndRigOptions = {}) {
    const { patienceMs = 1000, reconnectMs = 0, write = true } = options
    this.daemon = daemon
    this.#write = write
    this.#ram = new CountedDescriptor(daemon.open, 'file', 0x10000)
    this.available = this.memory.window(gpa(PLACE.driver), 64, 2) as Window
    this.used = this.memory.window(gpa(PLACE.device), 128, 4) as Window
    daemon.usedIndexOf = () => this.used.le16(VirtqUsed.idx)
    const platform = { clock: this.clock, random: seededRandom(1), trace: NO_TRACE, path: 'disk0' }
    const troubled = (line: string) => this.troubles.push(line)
    this.link = new DaemonLink({ platform, edge: daemon, path: 's.sock', patienceMs, reconnectMs, troubled })
    this.link.open((facts) => {
      this.opened = facts
    })
    this.settle()
    if (this.opened === null || typeof this.opened === 'string') return
    this.device = new FrontEndDevice({
      platform,
      dma: new DmaSpace(this.memory),
      regions: [{ base: 0, lengthBytes: 0x10000, descriptor: this.#ram, offset: 0 }],
      link: this.link,
      facts: this.opened,
      version: '1.3',
      queueSize: SIZE,
      write: this.#write,
    })
    this.device.attach({
      signal: () => this.signals++,
      configChanged: () => this.configChanges++,
      needsReset: () => this.needsReset++,
      violated: ({ rule }) => this.rules.push(rule),
    })
  }

  /** Runs what can run; where something is owed for ever, real time passes until nobody waits any more. */
  settle(ticksMax = 40): void {
    this.clock.drain()
    for (let left = ticksMax; left > 0 && this.clock.held.length > 0; left--) {
      this.daemon.pass(1)
      this.clock.drain()
    }
  }

  begin(): void {
    const { device } = this
    if (device === null) return
    device.accept(ACCEPTED)
    device.start(0, PLACE, QUEUE_START)
    device.kick(0)
    this.settle()
  }

  /** The driver makes a request available, and rings. */
  submit(): void {
    this.available.putLe16(VirtqAvail.idx, (this.available.le16(VirtqAvail.idx) + 1) & 0xffff)
    this.device?.kick(0)
  }

  /** The daemon uses one. */
  use(): void {
    const at = this.used.le16(VirtqUsed.idx)
    const base = VirtqUsed.ring + (at % SIZE) * VirtqUsedElem.$size
    this.used.putLe32(VirtqUsedElem.id, 0, base)
    this.used.putLe16(VirtqUsed.idx, (at + 1) & 0xffff)
  }

  reset(): boolean {
    let done = this.device === null
    this.device?.reset(() => {
      done = true
    })
    this.settle()
    this.available.putLe16(VirtqAvail.idx, 0)
    this.used.putLe16(VirtqUsed.idx, 0)
    return done
  }

  /** Descriptors that are left when everything is closed. */
  close(): number {
    let closed = this.device === null
    this.device?.close(() => {
      closed = true
    })
    this.settle()
    this.link.close()
    if (!closed) throw new Error('the device never closes')
    this.#ram.close()
    return this.daemon.open.size
  }
}
