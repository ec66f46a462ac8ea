import type { Field } from '../../protocol/layout.ts'
import type { Gpa } from '../../protocol/memory.ts'
import { gpa } from '../../protocol/memory.ts'
import type { AccessWidth, GuestPlatform } from '../../protocol/platform.ts'
import type { FeatureSet } from '../../protocol/version.ts'
import { FEATURE_SET_BITS, featureWord, withFeatureWord } from '../../protocol/version.ts'
import { MMIO_CONFIG, MMIO_MAGIC, MMIO_VERSION, Mmio, MmioInterrupt } from '../../protocol/virtio/mmio.ts'
import type { QueuePlace } from '../../protocol/virtio/ring.ts'
import type { DriverTransport } from './transport.ts'

/** How registers are reached. */
export type RegisterAccess = Pick<GuestPlatform, 'read' | 'write'>

const TWO_32 = 0x1_0000_0000

/** The driver's side of virtio-mmio, VIRTIO 1.2 section 4.2. Every call is register accesses, so exits. */
export class MmioDriverTransport implements DriverTransport {
  readonly #platform: RegisterAccess
  readonly #base: Gpa

  /** @param base where the device's registers begin: from a resource list, never a constant. */
  constructor(platform: RegisterAccess, base: Gpa) {
    this.#platform = platform
    this.#base = base
  }

  identify(): number | null {
    if (this.#get(Mmio.MagicValue) !== MMIO_MAGIC || this.#get(Mmio.Version) !== MMIO_VERSION) return null
    return this.#get(Mmio.DeviceID)
  }

  status(): number {
    return this.#get(Mmio.Status)
  }

  setStatus(status: number): void {
    this.#put(Mmio.Status, status)
  }

  offered(): FeatureSet {
    let features: FeatureSet = 0n
    for (let word = 0; word < FEATURE_SET_BITS / 32; word++) {
      this.#put(Mmio.DeviceFeaturesSel, word)
      features = withFeatureWord(features, word, this.#get(Mmio.DeviceFeatures))
    }
    return features
  }

  accept(features: FeatureSet): void {
    // From the top: a device that takes every selector above 0 for 1 (QEMU 7.2) then keeps the word it means.
    for (let word = FEATURE_SET_BITS / 32 - 1; word >= 0; word--) {
      this.#put(Mmio.DriverFeaturesSel, word)
      this.#put(Mmio.DriverFeatures, featureWord(features, word))
    }
  }

  queueSizeMax(queue: number): number {
    this.#put(Mmio.QueueSel, queue)
    return this.#get(Mmio.QueueReady) === 0 ? this.#get(Mmio.QueueSizeMax) : 0
  }

  startQueue(queue: number, place: QueuePlace): void {
    this.#put(Mmio.QueueSel, queue)
    this.#put(Mmio.QueueSize, place.size)
    this.#putAddress(Mmio.QueueDescLow, Mmio.QueueDescHigh, place.descriptors)
    this.#putAddress(Mmio.QueueDriverLow, Mmio.QueueDriverHigh, place.driver)
    this.#putAddress(Mmio.QueueDeviceLow, Mmio.QueueDeviceHigh, place.device)
    this.#put(Mmio.QueueReady, 1)
  }

  notify(queue: number): void {
    this.#put(Mmio.QueueNotify, queue)
  }

  readConfig(offset: number, width: AccessWidth): number {
    return this.#platform.read(gpa(this.#base + MMIO_CONFIG + offset), width)
  }

  writeConfig(offset: number, width: AccessWidth, value: number): void {
    this.#platform.write(gpa(this.#base + MMIO_CONFIG + offset), width, value)
  }

  configGeneration(): number {
    return this.#get(Mmio.ConfigGeneration)
  }

  takeInterrupt(): { readonly used: boolean; readonly config: boolean } {
    const causes = this.#get(Mmio.InterruptStatus)
    const known = causes & (MmioInterrupt.USED_BUFFER | MmioInterrupt.CONFIGURATION)
    if (known !== 0) this.#put(Mmio.InterruptACK, known)
    return {
      used: (causes & MmioInterrupt.USED_BUFFER) !== 0,
      config: (causes & MmioInterrupt.CONFIGURATION) !== 0,
    }
  }

  #get(register: Field<'le32'>): number {
    return this.#platform.read(gpa(this.#base + register), 4)
  }

  #put(register: Field<'le32'>, value: number): void {
    this.#platform.write(gpa(this.#base + register), 4, value)
  }

  #putAddress(low: Field<'le32'>, high: Field<'le32'>, address: number): void {
    const upper = Math.floor(address / TWO_32)
    this.#put(low, address - upper * TWO_32)
    this.#put(high, upper)
  }
}
