import { BlkDriver } from '../../guest/virtio/blk.ts'
import type { BlkEnd } from '../../guest/virtio/blk-command.ts'
import { BlkCommand } from '../../guest/virtio/blk-command.ts'
import { MmioDriverTransport } from '../../guest/virtio/mmio.ts'
import type { VirtualClock } from '../../hypervisor/clock.ts'
import type { Gpa, GuestMemory } from '../../protocol/memory.ts'
import { gpa } from '../../protocol/memory.ts'
import type { AccessWidth, GuestPlatform, RegisterDevice } from '../../protocol/platform.ts'
import type { FeatureSet } from '../../protocol/version.ts'
import type { Violation } from '../../protocol/violation.ts'

/** Where the device's registers lie on the bus. */
export const REGISTERS_AT = 0x1000_0000
const LINE = 5

/** Memory the guest was given, as ranges. */
export interface Owned {
  readonly from: number
  readonly to: number
}

/** A guest without a processor: memory, a bus with one device, and an interrupt line delivered as a turn. */
export class TestGuest implements GuestPlatform {
  readonly memory: GuestMemory
  readonly clock: VirtualClock
  readonly owned: Owned[]
  /** Register accesses, by kind. */
  accesses: number
  writes: (readonly [offset: number, value: number])[]
  readonly #device: RegisterDevice
  #isr: (() => void) | null
  #next: number
  #pending: boolean

  /** @param from first address this guest may use: what lies below is somebody else's. */
  constructor(memory: GuestMemory, clock: VirtualClock, device: RegisterDevice, from = 0) {
    this.memory = memory
    this.clock = clock
    this.owned = []
    this.accesses = 0
    this.writes = []
    this.#device = device
    this.#isr = null
    this.#next = from
    this.#pending = false
  }

  allocate(lengthBytes: number, alignment: number): Gpa {
    const at = Math.ceil(this.#next / alignment) * alignment
    this.#next = at + lengthBytes
    if (!this.memory.backed(gpa(at), lengthBytes)) throw new Error('the guest is out of memory')
    this.owned.push({ from: at, to: at + lengthBytes })
    return gpa(at)
  }

  read(at: Gpa, width: AccessWidth): number {
    this.accesses++
    return this.#device.read(at - REGISTERS_AT, width)
  }

  write(at: Gpa, width: AccessWidth, value: number): void {
    this.accesses++
    this.writes.push([at - REGISTERS_AT, value])
    this.#device.write(at - REGISTERS_AT, width, value)
  }

  connect(_line: number, isr: () => void): void {
    this.#isr = isr
  }

  /** Delivers an interrupt as a turn of its own; again while `level` says that the line is still up. */
  interrupt(level: () => boolean = () => false): void {
    if (this.#pending) return
    this.#pending = true
    let left = 1000
    const deliver = () => {
      this.#pending = false
      this.#isr?.()
      if (!level() || left-- === 0) return
      this.#pending = true
      this.clock.defer(deliver)
    }
    this.clock.defer(deliver)
  }
}

/** A command that remembers how it ended, and insists that it does so once. */
export class TestCommand extends BlkCommand {
  end: BlkEnd | null = null
  writtenBytes = -1
  ends = 0
  onEnd: (() => void) | null = null

  override ended(end: BlkEnd, writtenBytes: number): void {
    this.end = end
    this.writtenBytes = writtenBytes
    this.ends++
    this.onEnd?.()
  }
}

/** The driver and everything around it on the guest's side. */
export interface DriverRig {
  readonly guest: TestGuest
  readonly driver: BlkDriver
  readonly violations: Violation[]
}

export function driverRig(
  memory: GuestMemory,
  clock: VirtualClock,
  device: RegisterDevice,
  options: { readonly features?: FeatureSet; readonly queueSize?: number; readonly from?: number } = {},
): DriverRig {
  const guest = new TestGuest(memory, clock, device, options.from ?? 0)
  const violations: Violation[] = []
  const driver = new BlkDriver({
    platform: guest,
    transport: new MmioDriverTransport(guest, gpa(REGISTERS_AT)),
    line: LINE,
    features: options.features ?? (1n << 128n) - 1n,
    queueSize: options.queueSize ?? 16,
    violated: (violation) => violations.push(violation),
  })
  return { guest, driver, violations }
}
