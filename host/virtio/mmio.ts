import type { AccessWidth, HostPlatform, InterruptLine, RegisterDevice } from '../../protocol/platform.ts'
import type { RequirementId } from '../../protocol/requirement.ts'
import { featureWord, hasFeature, withFeatureWord } from '../../protocol/version.ts'
import type { Violation } from '../../protocol/violation.ts'
import { CommonFeature } from '../../protocol/virtio/features.ts'
import {
  MMIO_CONFIG,
  MMIO_MAGIC,
  MMIO_RANGE_BYTES,
  MMIO_VERSION,
  Mmio,
  MmioInterrupt,
} from '../../protocol/virtio/mmio.ts'
import { Status } from '../../protocol/virtio/status.ts'
import type { DeviceSignals, QueueState, VirtioDevice } from './device.ts'
import { QUEUE_START } from './device.ts'
import { loadMmio, saveMmio } from './mmio-snapshot.ts'
import type { MmioQueueState, MmioState, SavedMmio } from './mmio-state.ts'
import { fresh, freshMmioQueue, placeOf } from './mmio-state.ts'
import type { Refusal } from './negotiate.ts'
import { featuresRefused, statusStep } from './negotiate.ts'

/** "PVNE": the bench's own vendor, in VendorID. */
const VENDOR = 0x454e_5650
const ALL_ONES = 0xffff_ffff

export interface MmioSetup {
  readonly platform: HostPlatform
  readonly device: VirtioDevice
  readonly line: InterruptLine
  readonly violated: (violation: Violation) => void
}

/** A virtio device behind memory-mapped registers, version 2, VIRTIO 1.2 section 4.2.2. */
export class MmioTransport implements RegisterDevice, DeviceSignals {
  readonly rangeBytes = MMIO_RANGE_BYTES
  readonly #platform: HostPlatform
  readonly #device: VirtioDevice
  readonly #line: InterruptLine
  readonly #report: (violation: Violation) => void
  #state: MmioState

  constructor(setup: MmioSetup) {
    this.#platform = setup.platform
    this.#device = setup.device
    this.#line = setup.line
    this.#report = setup.violated
    this.#state = fresh(setup.device.queueSizes.length)
    setup.device.attach(this)
  }

  // Registers.

  read(offset: number, width: AccessWidth): number {
    if (offset >= MMIO_CONFIG) {
      this.#judgeConfigWidth(offset, width)
      return this.#device.readConfig(offset - MMIO_CONFIG, width)
    }
    if (width !== 4 || offset % 4 !== 0) {
      this.#refuse({ rule: 'mmio.register-width', seen: width, expected: 4 }, offset)
      return 0
    }
    return this.#readRegister(offset)
  }

  write(offset: number, width: AccessWidth, value: number): void {
    if (offset >= MMIO_CONFIG) {
      this.#judgeConfigWidth(offset, width)
      if (!this.#state.resetting) this.#device.writeConfig(offset - MMIO_CONFIG, width, value)
      return
    }
    if (width !== 4 || offset % 4 !== 0) {
      this.#refuse({ rule: 'mmio.register-width', seen: width, expected: 4 }, offset)
      return
    }
    // While a reset is under way there is no state to write to.
    if (this.#state.resetting) return
    if (offset === Mmio.QueueNotify) this.#notify(value)
    else if (offset === Mmio.InterruptACK) this.#acknowledge(value)
    else if (offset === Mmio.Status) this.#writeStatus(value)
    else if (!this.#writeSelector(offset, value) && !this.#writeQueue(offset, value)) {
      this.#refuse({ rule: 'mmio.register-unknown', seen: value, expected: 0 }, offset)
    }
  }

  // Signals from the device.

  signal(_queue: number): void {
    this.#interrupt(MmioInterrupt.USED_BUFFER)
  }

  configChanged(): void {
    // Before DRIVER_OK there is no driver to tell; it will read the new values anyway.
    if ((this.#state.status & Status.DRIVER_OK) !== 0) this.#interrupt(MmioInterrupt.CONFIGURATION)
  }

  needsReset(): void {
    // Told once: a driver that goes on ringing gains no second interrupt by it.
    if (this.#state.resetting || (this.#state.status & Status.DEVICE_NEEDS_RESET) !== 0) return
    this.#state.status |= Status.DEVICE_NEEDS_RESET
    this.#traceStatus()
    this.configChanged()
  }

  violated(violation: Violation): void {
    if (this.#platform.trace.on) {
      const { rule, queue } = violation
      this.#platform.trace.emit({ name: 'violation', device: this.#platform.path, rule, queue })
    }
    this.#report(violation)
  }

  // Saving and loading.

  /** @see saveMmio */
  save(): SavedMmio {
    return saveMmio(this.#state, this.#device)
  }

  /**
   * Takes a saved state into a transport and device nobody has touched yet; a bad one changes nothing.
   *
   * @returns what is wrong with it, or null.
   */
  load(value: unknown): string | null {
    if (this.#state.resetting || this.#state.status !== 0) return 'a device in use takes no state'
    const loaded = loadMmio(value, this.#device)
    if (!loaded.ok) return loaded.error
    this.#state = loaded.state
    if (loaded.state.interruptStatus !== 0) this.#line.raise()
    if ((loaded.state.status & Status.DRIVER_OK) !== 0) this.#kickReady()
    return null
  }

  // Reading.

  #readRegister(offset: number): number {
    const state = this.#state
    const queue = state.queues[state.queueSel]
    switch (offset) {
      case Mmio.MagicValue:
        return MMIO_MAGIC
      case Mmio.Version:
        return MMIO_VERSION
      case Mmio.DeviceID:
        return this.#device.deviceId
      case Mmio.VendorID:
        return VENDOR
      case Mmio.DeviceFeatures:
        return featureWord(this.#device.offered, state.deviceFeaturesSel)
      case Mmio.QueueSizeMax:
        return this.#device.queueSizes[state.queueSel] ?? 0
      case Mmio.QueueReady:
        return queue?.ready === true ? 1 : 0
      case Mmio.InterruptStatus:
        return state.interruptStatus
      case Mmio.Status:
        return state.status
      case Mmio.SHMLenLow:
      case Mmio.SHMLenHigh:
      case Mmio.SHMBaseLow:
      case Mmio.SHMBaseHigh:
        return ALL_ONES
      case Mmio.QueueReset:
        return queue?.resetting === true ? 1 : 0
      case Mmio.ConfigGeneration:
        return this.#device.configGeneration
      default:
        this.#refuse({ rule: 'mmio.register-unknown', seen: 0, expected: 0 }, offset)
        return 0
    }
  }

  // Writing.

  #writeSelector(offset: number, value: number): boolean {
    const state = this.#state
    switch (offset) {
      case Mmio.DeviceFeaturesSel:
        state.deviceFeaturesSel = value
        return true
      case Mmio.DriverFeaturesSel:
        state.driverFeaturesSel = value
        return true
      case Mmio.DriverFeatures:
        if ((state.status & Status.FEATURES_OK) !== 0) {
          this.#refuse({ rule: 'features.frozen', seen: value, expected: 0 }, offset)
        } else {
          state.driverFeatures = withFeatureWord(state.driverFeatures, state.driverFeaturesSel, value)
        }
        return true
      case Mmio.QueueSel:
        state.queueSel = value
        return true
      case Mmio.SHMSel:
        state.shmSel = value
        return true
      default:
        return false
    }
  }

  #writeQueue(offset: number, value: number): boolean {
    const name = QUEUE_REGISTERS.get(offset)
    if (name === undefined) return false
    const queue = this.#state.queues[this.#state.queueSel]
    if (queue === undefined) {
      const expected = this.#state.queues.length - 1
      this.#refuse({ rule: 'mmio.queue-range', seen: this.#state.queueSel, expected }, offset)
    } else if (name === 'ready') {
      this.#writeReady(queue, value)
    } else if (name === 'reset') {
      this.#writeQueueReset(queue, value)
    } else if (queue.ready) {
      // The addresses of a live queue are frozen: they were checked when it started.
      this.#refuse({ rule: 'mmio.queue-live', seen: value, expected: 0 }, offset)
    } else {
      queue[name] = value
    }
    return true
  }

  #writeReady(queue: MmioQueueState, value: number): void {
    if (value === 0) {
      if (queue.ready) this.#stopQueue(queue)
      return
    }
    if (queue.ready || queue.stopping) {
      this.#refuse({ rule: 'mmio.queue-live', seen: value, expected: 0 }, Mmio.QueueReady)
      return
    }
    if ((this.#state.status & Status.FEATURES_OK) === 0) {
      this.#refuse({ rule: 'status.order', seen: value, expected: Status.FEATURES_OK }, Mmio.QueueReady)
      return
    }
    const index = this.#state.queueSel
    const violation = this.#device.start(index, placeOf(queue), QUEUE_START)
    if (violation !== null) {
      this.violated(violation)
      this.needsReset()
      return
    }
    queue.ready = true
    if ((this.#state.status & Status.DRIVER_OK) !== 0) this.#device.kick(index)
  }

  #writeQueueReset(queue: MmioQueueState, value: number): void {
    const { status, driverFeatures } = this.#state
    const negotiated =
      (status & Status.FEATURES_OK) !== 0 && hasFeature(driverFeatures, CommonFeature.RING_RESET.bit)
    if (value !== 1 || !negotiated) {
      this.#refuse({ rule: 'mmio.register-unknown', seen: value, expected: 1 }, Mmio.QueueReset)
      return
    }
    if (!queue.ready) {
      Object.assign(queue, freshMmioQueue())
      return
    }
    queue.resetting = true
    this.#stopQueue(queue)
  }

  /** Not ready any more once everything taken has been given back. */
  #stopQueue(queue: MmioQueueState): void {
    if (queue.stopping) return
    queue.stopping = true
    const state = this.#state
    this.#device.stop(state.queues.indexOf(queue), (_at: QueueState) => {
      Object.assign(queue, freshMmioQueue())
    })
  }

  #writeStatus(value: number): void {
    const state = this.#state
    if (value === 0) {
      this.#reset()
      return
    }
    const { added, refusals } = statusStep(state.status, value)
    for (const refusal of refusals) this.#refuse(refusal, Mmio.Status)
    let taken = added
    if ((taken & Status.FEATURES_OK) !== 0 && !this.#settleFeatures()) {
      // The driver reads FEATURES_OK back and finds it missing; DRIVER_OK in the same write goes with it.
      taken &= ~(Status.FEATURES_OK | Status.DRIVER_OK)
    }
    state.status |= taken
    this.#traceStatus()
    if ((taken & Status.DRIVER_OK) !== 0) this.#kickReady()
  }

  #settleFeatures(): boolean {
    const { driverFeatures } = this.#state
    const refused = featuresRefused(driverFeatures, this.#device.offered, this.#device.featureTable)
    if (refused !== null) {
      this.#refuse(refused, Mmio.Status)
      return false
    }
    this.#device.accept(driverFeatures)
    return true
  }

  /** Buffers may have been made available before DRIVER_OK, and no notification follows for them. */
  #kickReady(): void {
    for (const [index, queue] of this.#state.queues.entries()) {
      if (queue.ready && !queue.stopping) this.#device.kick(index)
    }
  }

  #reset(): void {
    const state = this.#state
    state.resetting = true
    state.interruptStatus = 0
    this.#line.lower()
    this.#device.reset(() => {
      this.#state = fresh(this.#device.queueSizes.length)
      this.#traceStatus()
    })
  }

  #notify(value: number): void {
    const { queues, status } = this.#state
    const queue = queues[value]
    if (queue === undefined) {
      this.#refuse({ rule: 'mmio.queue-range', seen: value, expected: queues.length - 1 }, Mmio.QueueNotify)
      return
    }
    if ((status & Status.DRIVER_OK) === 0 || !queue.ready) {
      this.#refuse(
        { rule: 'queue.before-driver-ok', seen: status, expected: Status.DRIVER_OK },
        Mmio.QueueNotify,
      )
      return
    }
    if (this.#platform.trace.on) {
      this.#platform.trace.emit({ name: 'doorbell', device: this.#platform.path, queue: value })
    }
    if (!queue.stopping) this.#device.kick(value)
  }

  #acknowledge(value: number): void {
    const known = MmioInterrupt.USED_BUFFER | MmioInterrupt.CONFIGURATION
    if ((value & ~known) !== 0) {
      this.#refuse({ rule: 'mmio.interrupt-ack', seen: value, expected: known }, Mmio.InterruptACK)
    }
    this.#state.interruptStatus &= ~value
    if (this.#state.interruptStatus === 0) this.#line.lower()
  }

  #interrupt(cause: number): void {
    if (this.#state.resetting) return
    this.#state.interruptStatus |= cause
    this.#line.raise()
  }

  /** Reported, and served all the same: every byte of configuration space has a value. */
  #judgeConfigWidth(offset: number, width: AccessWidth): void {
    if (width !== 8 && offset % width === 0) return
    this.#refuse({ rule: 'mmio.config-width', seen: width, expected: 4 }, offset)
  }

  #refuse(refusal: Refusal, offset: number): void {
    const { rule, seen, expected } = refusal
    this.violated({
      rule: rule satisfies RequirementId,
      side: 'driver',
      queue: null,
      at: offset,
      seen,
      expected,
    })
  }

  #traceStatus(): void {
    if (!this.#platform.trace.on) return
    this.#platform.trace.emit({ name: 'status', device: this.#platform.path, status: this.#state.status })
  }
}

type QueueRegister = Exclude<keyof MmioQueueState, 'stopping' | 'resetting' | 'ready'> | 'ready' | 'reset'

const QUEUE_REGISTERS: ReadonlyMap<number, QueueRegister> = new Map<number, QueueRegister>([
  [Mmio.QueueSize, 'size'],
  [Mmio.QueueReady, 'ready'],
  [Mmio.QueueDescLow, 'descLow'],
  [Mmio.QueueDescHigh, 'descHigh'],
  [Mmio.QueueDriverLow, 'driverLow'],
  [Mmio.QueueDriverHigh, 'driverHigh'],
  [Mmio.QueueDeviceLow, 'deviceLow'],
  [Mmio.QueueDeviceHigh, 'deviceHigh'],
  [Mmio.QueueReset, 'reset'],
])
