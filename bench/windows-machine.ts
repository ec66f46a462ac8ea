import { Kernel } from '../guest/kernel/kernel.ts'
import { NtStatus, ntStatusName } from '../guest/kernel/nt-status.ts'
import { type AcpiDevice, AcpiNamespace, acpiVirtioDevice } from '../guest/kernel/pnp/acpi-bus.ts'
import type { Waiting } from '../guest/kernel/thread.ts'
import type { WindowsVersion } from '../guest/kernel/version.ts'
import type { Adapter } from '../guest/port/storport/adapter.ts'
import { User } from '../guest/user.ts'
import { bootWindows, driveNumber } from '../guest/windows.ts'
import type { DiskBackend } from '../host/disk/backend.ts'
import { type BlkCounts, BlkDevice } from '../host/virtio/blk.ts'
import type { VirtioDevice } from '../host/virtio/device.ts'
import { MmioTransport } from '../host/virtio/mmio.ts'
import type { ApicProfile } from '../hypervisor/apic-profile.ts'
import type { VirtualClock } from '../hypervisor/clock.ts'
import { Machine } from '../hypervisor/machine.ts'
import { DmaSpace } from '../protocol/dma.ts'
import { GuestMemory, gpa } from '../protocol/memory.ts'
import type { HostPlatform, Random } from '../protocol/platform.ts'
import type { Trace } from '../protocol/trace.ts'
import { ViolationLog } from '../protocol/violation.ts'
import type { VirtioVersion } from '../protocol/virtio/features.ts'
import { MMIO_RANGE_BYTES } from '../protocol/virtio/mmio.ts'
import { MACHINE_DISKS_MAX } from './description.ts'
import { RegisterCounter } from './register-counter.ts'

/** Registers of the first disk; the others follow, a page each. */
const REGISTERS = 0xfeb0_0000
const PAGE_BYTES = 4096
/** Interrupt line of the first disk. */
const LINE = 5

export interface WindowsMachineOptions {
  readonly clock: VirtualClock
  readonly trace: Trace
  readonly random: Random
  readonly windows: WindowsVersion
  readonly profile: ApicProfile
  readonly virtio: VirtioVersion
  readonly memoryBytes: number
  /** The guest's memory, where somebody else has to have it too; its own by default. */
  readonly memory?: GuestMemory
  /** Largest queue of a disk; the device model's own by default. */
  readonly queueSize?: number
  /** Preemption points do what the seed says; off, nothing happens there. */
  readonly preemption: boolean
}

/** A disk's device, which may say what it was asked: one that is elsewhere does not know. */
export type DiskDevice = VirtioDevice & { readonly counts?: BlkCounts }
/** Makes the device behind a disk's registers. */
export type MakeDevice = (platform: HostPlatform, dma: DmaSpace) => DiskDevice

/** A disk of the machine: its device model, its registers, and what the firmware says of it. */
export interface MachineDisk {
  readonly name: string
  readonly device: DiskDevice
  readonly transport: MmioTransport
  /** Stands before the transport on the bus, and counts. */
  readonly registers: RegisterCounter
  readonly acpi: AcpiDevice
  /** Rules that the guest's driver broke. What the driver saw the device break is the adapter's. */
  readonly violations: ViolationLog
  /** The port's half in the guest; null before Plug and Play found the device, and when it has no driver. */
  adapter: Adapter | null
}

/**
 * A machine with every room in it: the Windows-shaped guest on the hypervisor's processor, and disks behind
 * VIRTIO devices that its firmware lists.
 */
export class WindowsMachine {
  readonly machine: Machine
  readonly memory: GuestMemory
  readonly kernel: Kernel
  readonly user: User
  readonly namespace: AcpiNamespace
  readonly disks: MachineDisk[]
  readonly #options: WindowsMachineOptions

  constructor(options: WindowsMachineOptions) {
    const { clock, trace, profile, random, preemption } = options
    this.#options = options
    this.memory = options.memory ?? GuestMemory.ofBytes(options.memoryBytes)
    this.machine = new Machine({
      clock,
      trace,
      profile,
      ram: this.memory,
      preemption: preemption ? random.stream('exits') : null,
    })
    this.kernel = new Kernel({
      processor: this.machine.processor.guest,
      version: options.windows,
      preemption: preemption ? random.stream('kernel') : null,
    })
    this.user = new User(this.kernel)
    this.namespace = new AcpiNamespace()
    this.disks = []
  }

  /** Plugs a disk in; before `boot`, or while the guest runs. @throws RangeError when there is no room for it. */
  addDisk(backend: DiskBackend): MachineDisk {
    const { virtio: version, queueSize } = this.#options
    const limits = queueSize === undefined ? {} : { queueSize }
    return this.addDevice((platform, dma) => new BlkDevice({ platform, dma, backend, version, limits }))
  }

  /** The same with a device of one's own making. @throws RangeError when there is no room for it. */
  addDevice(make: MakeDevice): MachineDisk {
    const index = this.disks.length
    if (!(index < MACHINE_DISKS_MAX)) throw new RangeError(`a machine has ${MACHINE_DISKS_MAX} disks at most`)
    const { clock, trace, random } = this.#options
    const name = `disk${index}`
    const platform = { clock, trace, random: random.stream(name), path: name }
    const violations = new ViolationLog()
    const device = make(platform, new DmaSpace(this.memory))
    const transport = new MmioTransport({
      platform,
      device,
      line: this.machine.line(LINE + index),
      violated: (violation) => violations.record(violation),
    })
    const registers = new RegisterCounter(transport)
    const base = REGISTERS + index * PAGE_BYTES
    this.machine.map(name, gpa(base), PAGE_BYTES, registers)
    const acpi = acpiVirtioDevice(index.toString(16).padStart(2, '0'), base, MMIO_RANGE_BYTES, LINE + index)
    const disk: MachineDisk = { name, device, transport, registers, acpi, violations, adapter: null }
    this.disks.push(disk)
    this.namespace.add(acpi)
    return disk
  }

  /** Plug and Play finds the devices and starts them: `\\.\PhysicalDrive0` is there then. */
  *boot(): Waiting<void> {
    const status = yield* bootWindows(this.kernel, this.namespace, this.#options.virtio, (adapter, pdo) => {
      const path = this.kernel.pnp.pathOf(pdo)
      const disk = this.disks.find((one) => pathOf(one) === path)
      if (disk !== undefined) disk.adapter = adapter
    })
    if (status !== NtStatus.SUCCESS) throw new Error(`the guest does not boot: ${ntStatusName(status)}`)
  }

  /** N of the disk's `\\.\PhysicalDriveN`; null while the guest has none. */
  driveOf({ adapter }: MachineDisk): number | null {
    return adapter === null ? null : driveNumber(this.kernel, adapter)
  }

  /** Runs a body in a thread of the guest, with everything else, until nothing can go on without the outside. */
  start<T>(body: () => Waiting<T>): { value: T | null } {
    const result: { value: T | null } = { value: null }
    this.kernel.psCreateSystemThread(function* () {
      result.value = yield* body()
    })
    this.machine.start(this.kernel)
    return result
  }

  /**
   * Runs a body to its end, waiting for the outside where it has to.
   *
   * @throws the guest's bug check, or what stopped the processor.
   */
  async run<T>(body: () => Waiting<T>): Promise<T> {
    const result = this.start(body)
    await this.machine.run()
    return this.#ended(result)
  }

  /** The same, where nothing comes from outside. */
  runNow<T>(body: () => Waiting<T>): T {
    const result = this.start(body)
    this.machine.drain()
    return this.#ended(result)
  }

  #ended<T>(result: { readonly value: T | null }): T {
    if (this.kernel.bugCheck !== null) throw this.kernel.bugCheck
    if (this.machine.stopped !== null) throw new Error(this.machine.stopped)
    if (result.value === null) throw new Error('a thread of the guest never ended')
    return result.value
  }
}

/** Where Plug and Play finds a disk: device ID and instance, as its bus has them. */
export function pathOf({ acpi }: MachineDisk): string {
  return `ACPI\\${acpi.hid}\\${acpi.uid}`
}
