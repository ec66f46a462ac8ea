import { Kernel } from '../guest/kernel/kernel.ts'
import { NtStatus, ntStatusName } from '../guest/kernel/nt-status.ts'
import { type AcpiDevice, AcpiNamespace, acpiVirtioDevice } from '../guest/kernel/pnp/acpi-bus.ts'
import type { Waiting } from '../guest/kernel/thread.ts'
import type { WindowsVersion } from '../guest/kernel/version.ts'
import { User } from '../guest/user.ts'
import { bootWindows } from '../guest/windows.ts'
import type { DiskBackend } from '../host/disk/backend.ts'
import { BlkDevice } from '../host/virtio/blk.ts'
import { MmioTransport } from '../host/virtio/mmio.ts'
import type { ApicProfile } from '../hypervisor/apic-profile.ts'
import type { VirtualClock } from '../hypervisor/clock.ts'
import { Machine } from '../hypervisor/machine.ts'
import { DmaSpace } from '../protocol/dma.ts'
import { GuestMemory, gpa } from '../protocol/memory.ts'
import type { Random } from '../protocol/platform.ts'
import type { Trace } from '../protocol/trace.ts'
import type { Violation } from '../protocol/violation.ts'
import type { VirtioVersion } from '../protocol/virtio/features.ts'
import { MMIO_RANGE_BYTES } from '../protocol/virtio/mmio.ts'

/** Registers of the first disk; the others follow, a page each. */
const REGISTERS = 0xfeb0_0000
const PAGE_BYTES = 4096
/** Interrupt line of the first disk. */
const LINE = 5
/** Lines of the controller that devices may have. */
const DISKS_MAX = 16

export interface WindowsMachineOptions {
  readonly clock: VirtualClock
  readonly trace: Trace
  readonly random: Random
  readonly windows: WindowsVersion
  readonly profile: ApicProfile
  readonly virtio: VirtioVersion
  readonly memoryBytes: number
  /** Preemption points do what the seed says; off, nothing happens there. */
  readonly preemption: boolean
}

/** A disk of the machine: its device model, its registers, and what the firmware says of it. */
export interface MachineDisk {
  readonly name: string
  readonly device: BlkDevice
  readonly transport: MmioTransport
  readonly acpi: AcpiDevice
  readonly violations: readonly Violation[]
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
    this.memory = GuestMemory.ofBytes(options.memoryBytes)
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
    const index = this.disks.length
    if (!(index < DISKS_MAX)) throw new RangeError(`a machine has ${DISKS_MAX} disks at most`)
    const { clock, trace, random, virtio } = this.#options
    const name = `disk${index}`
    const platform = { clock, trace, random: random.stream(name), path: name }
    const violations: Violation[] = []
    const device = new BlkDevice({ platform, dma: new DmaSpace(this.memory), backend, version: virtio })
    const transport = new MmioTransport({
      platform,
      device,
      line: this.machine.line(LINE + index),
      violated: (violation) => violations.push(violation),
    })
    const base = REGISTERS + index * PAGE_BYTES
    this.machine.map(name, gpa(base), PAGE_BYTES, transport)
    const acpi = acpiVirtioDevice(index.toString(16).padStart(2, '0'), base, MMIO_RANGE_BYTES, LINE + index)
    const disk: MachineDisk = { name, device, transport, acpi, violations }
    this.disks.push(disk)
    this.namespace.add(acpi)
    return disk
  }

  /** Plug and Play finds the devices and starts them: `\\.\PhysicalDrive0` is there then. */
  *boot(): Waiting<void> {
    const status = yield* bootWindows(this.kernel, this.namespace, this.#options.virtio)
    if (status !== NtStatus.SUCCESS) throw new Error(`the guest does not boot: ${ntStatusName(status)}`)
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
