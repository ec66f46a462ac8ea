import { describe, expect, it } from 'vitest'
import { MmioDriverTransport } from '../../guest/virtio/mmio.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import { GuestMemory, gpa } from '../../protocol/memory.ts'
import type { GuestPlatform } from '../../protocol/platform.ts'
import { featureSet } from '../../protocol/version.ts'
import { CommonFeature } from '../../protocol/virtio/features.ts'
import { Mmio } from '../../protocol/virtio/mmio.ts'

/** A device of two feature words that takes every selector above 0 for 1, as QEMU 7.2 does. */
class TwoWords implements GuestPlatform {
  readonly memory = GuestMemory.ofBytes(4096)
  readonly clock = new VirtualClock()
  readonly words: number[] = [0, 0]
  #selected = 0

  allocate(): never {
    throw new Error('a negotiation needs no memory')
  }

  read(): number {
    return 0
  }

  write(at: number, _width: number, value: number): void {
    if (at === Mmio.DriverFeaturesSel) this.#selected = value === 0 ? 0 : 1
    if (at === Mmio.DriverFeatures) this.words[this.#selected] = value
  }

  connect(): void {}
}

describe("the driver's choice of features over MMIO", () => {
  it('survives a device that has two words and folds every selector into them', () => {
    const device = new TwoWords()
    const { INDIRECT_DESC, VERSION_1, RING_RESET } = CommonFeature
    const chosen = featureSet([INDIRECT_DESC.bit, VERSION_1.bit, RING_RESET.bit])
    new MmioDriverTransport(device, gpa(0)).accept(chosen)
    expect(device.words).toEqual([2 ** 28, 2 ** 0 + 2 ** 8])
  })
})
