import { seededRandom } from '../../bench/random.ts'
import type { DiskBackend } from '../../host/disk/backend.ts'
import { BlkDevice } from '../../host/virtio/blk.ts'
import type { BlkLimits } from '../../host/virtio/blk-config.ts'
import { MmioTransport } from '../../host/virtio/mmio.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import { DmaSpace } from '../../protocol/dma.ts'
import { GuestMemory } from '../../protocol/memory.ts'
import type { AccessWidth, Clock } from '../../protocol/platform.ts'
import type { Trace } from '../../protocol/trace.ts'
import { NO_TRACE } from '../../protocol/trace.ts'
import type { FeatureSet } from '../../protocol/version.ts'
import { featureWord } from '../../protocol/version.ts'
import type { Violation } from '../../protocol/violation.ts'
import type { VirtioVersion } from '../../protocol/virtio/features.ts'
import { Mmio } from '../../protocol/virtio/mmio.ts'
import { Status } from '../../protocol/virtio/status.ts'
import type { RawPlace } from './raw-queue.ts'
import { RawQueue } from './raw-queue.ts'

export interface BlkRigSetup {
  readonly backend: DiskBackend
  /** A clock whose turns are run with `drain`, unless another is given. */
  readonly clock?: Clock
  readonly memory?: GuestMemory
  readonly memoryBytes?: number
  readonly version?: VirtioVersion
  readonly limits?: Partial<BlkLimits>
  readonly trace?: Trace
}

/** An interrupt line that remembers its level and how often it rose. */
export class TestLine {
  level = false
  rises = 0
  onRise: (() => void) | null = null

  raise(): void {
    if (this.level) return
    this.level = true
    this.rises++
    this.onRise?.()
  }

  lower(): void {
    this.level = false
  }
}

const TURNS_MAX = 1_000_000
const STEPS = Status.ACKNOWLEDGE | Status.DRIVER

/** A block device behind its MMIO registers, in guest memory nobody else uses. Nothing below the registers. */
export class BlkRig {
  readonly memory: GuestMemory
  readonly bytes: Uint8Array<ArrayBuffer>
  readonly clock: Clock
  readonly backend: DiskBackend
  readonly device: BlkDevice
  readonly transport: MmioTransport
  readonly line: TestLine
  readonly violations: Violation[]
  readonly #virtual: VirtualClock | null

  constructor(setup: BlkRigSetup) {
    this.memory = setup.memory ?? GuestMemory.ofBytes(setup.memoryBytes ?? 0x4_0000)
    this.bytes = this.memory.regions[0]?.bytes ?? new Uint8Array(0)
    const virtual = setup.clock === undefined ? new VirtualClock({ turnsMax: TURNS_MAX }) : setup.clock
    this.#virtual = virtual instanceof VirtualClock ? virtual : null
    this.clock = virtual
    this.backend = setup.backend
    this.line = new TestLine()
    this.violations = []
    const platform = {
      clock: this.clock,
      random: seededRandom(1).stream('blk0'),
      trace: setup.trace ?? NO_TRACE,
      path: 'blk0',
    }
    this.device = new BlkDevice({
      platform,
      dma: new DmaSpace(this.memory),
      backend: setup.backend,
      version: setup.version ?? '1.3',
      limits: setup.limits ?? {},
    })
    this.transport = new MmioTransport({
      platform,
      device: this.device,
      line: this.line,
      violated: (violation) => this.violations.push(violation),
    })
  }

  get rules(): string[] {
    return this.violations.map(({ rule }) => rule)
  }

  get status(): number {
    return this.read(Mmio.Status)
  }

  read(offset: number, width: AccessWidth = 4): number {
    return this.transport.read(offset, width)
  }

  write(offset: number, value: number, width: AccessWidth = 4): void {
    this.transport.write(offset, width, value)
  }

  /** Runs every turn that can be run; only with a virtual clock. */
  drain(): void {
    if (this.#virtual === null) throw new Error('this rig has a clock of its own')
    this.#virtual.drain()
  }

  async run(): Promise<void> {
    if (this.#virtual === null) throw new Error('this rig has a clock of its own')
    await this.#virtual.run()
  }

  /** Up to FEATURES_OK. */
  negotiate(features: FeatureSet = this.device.offered): void {
    this.write(Mmio.Status, Status.ACKNOWLEDGE)
    this.write(Mmio.Status, STEPS)
    for (let word = 0; word < 4; word++) {
      this.write(Mmio.DriverFeaturesSel, word)
      this.write(Mmio.DriverFeatures, featureWord(features, word))
    }
    this.write(Mmio.Status, STEPS | Status.FEATURES_OK)
  }

  /** Writes a queue's registers and makes it ready. */
  startQueue(index: number, place: RawPlace): void {
    this.write(Mmio.QueueSel, index)
    this.write(Mmio.QueueSize, place.size)
    const registers = [
      [Mmio.QueueDescLow, Mmio.QueueDescHigh, place.descriptors],
      [Mmio.QueueDriverLow, Mmio.QueueDriverHigh, place.driver],
      [Mmio.QueueDeviceLow, Mmio.QueueDeviceHigh, place.device],
    ] as const
    for (const [low, high, address] of registers) {
      this.write(low, address % 2 ** 32)
      this.write(high, Math.floor(address / 2 ** 32))
    }
    this.write(Mmio.QueueReady, 1)
  }

  driverOk(): void {
    this.write(Mmio.Status, STEPS | Status.FEATURES_OK | Status.DRIVER_OK)
  }

  /** The whole way: negotiation, queue 0, DRIVER_OK. */
  bringUp(features: FeatureSet = this.device.offered, size = 64): RawQueue {
    this.negotiate(features)
    const queue = new RawQueue(this.memory, placeAt(0, size))
    this.startQueue(0, queue.place)
    this.driverOk()
    return queue
  }

  kick(queue = 0): void {
    this.write(Mmio.QueueNotify, queue)
  }
}

/** The three areas of a queue one behind the other from `at` on, each on 16 bytes. */
export function placeAt(at: number, size: number): RawPlace {
  const round = (address: number) => Math.ceil(address / 16) * 16
  const driver = round(at + 16 * size)
  const device = round(driver + 6 + 2 * size)
  return { size, descriptors: at, driver, device }
}

/** First address behind the areas of `place`. */
export function placeEnd(place: RawPlace): number {
  return Math.ceil((place.device + 6 + 8 * place.size) / 16) * 16
}
