import type { Kernel } from '../../guest/kernel/kernel.ts'
import { NtStatus, ntStatusName } from '../../guest/kernel/nt-status.ts'
import { type AcpiDevice, AcpiNamespace, acpiVirtioDevice } from '../../guest/kernel/pnp/acpi-bus.ts'
import type { DeviceView } from '../../guest/kernel/pnp/device-view.ts'
import type { Waiting } from '../../guest/kernel/thread.ts'
import { User } from '../../guest/user.ts'
import { bootWindows } from '../../guest/windows.ts'
import type { DiskBackend } from '../../host/disk/backend.ts'
import type { MmioTransport } from '../../host/virtio/mmio.ts'
import type { Violation } from '../../protocol/violation.ts'
import { Mmio } from '../../protocol/virtio/mmio.ts'
import { blkOn } from './blk-on-machine.ts'
import { Machine, type MachineOptions } from './machine.ts'
import { LINE, REGISTERS } from './storport-rig.ts'

/** A Windows guest with one disk, found, started and taken away by Plug and Play, on the plain processor. */
export class BootedGuest {
  readonly machine: Machine
  readonly kernel: Kernel
  readonly user: User
  readonly namespace: AcpiNamespace
  #acpi: AcpiDevice
  /** What either end of the ring accuses the other of. */
  violations: readonly Violation[]
  #transport: MmioTransport | null
  readonly #poolCount: number
  readonly #deviceCount: number
  readonly #linkCount: number

  constructor(options: MachineOptions = {}) {
    this.machine = new Machine(options)
    this.kernel = this.machine.kernel
    this.user = new User(this.kernel)
    this.namespace = new AcpiNamespace()
    this.#acpi = firmwareDevice()
    this.violations = []
    this.#transport = null
    // Worker threads are the kernel's own.
    this.machine.drain()
    this.#poolCount = this.kernel.parts.pool.count
    this.#deviceCount = this.kernel.parts.devices.deviceCount
    this.#linkCount = this.kernel.parts.names.links.size
  }

  /** What the disk stands on, once; it may need the machine's clock. */
  attach(backend: DiskBackend): void {
    const { violations, transport } = blkOn(this.machine, backend)
    this.violations = violations
    this.#transport = transport
  }

  /** The device's status register, read past the guest. */
  get deviceStatus(): number {
    return this.#transport?.read(Mmio.Status, 4) ?? 0
  }

  /** Boots with the disk plugged in, or without it. */
  *boot(plugged = true): Waiting<void> {
    if (plugged) this.plug()
    const status = yield* bootWindows(this.kernel, this.namespace)
    if (status !== NtStatus.SUCCESS) throw new Error(`no boot: ${ntStatusName(status)}`)
  }

  /** Another device in the same place, as far as the guest can know. */
  plug(): void {
    this.#acpi = firmwareDevice()
    this.namespace.add(this.#acpi)
  }
  unplug(): void {
    this.namespace.remove(this.#acpi)
  }

  run<T>(body: () => Waiting<T>): T {
    return this.machine.run(body)
  }

  /** Every device below the root, as `service-or-ID status problem`. */
  shown(): string[] {
    const lines: string[] = []
    const walk = ({ instancePath, status, problem, children }: DeviceView): void => {
      lines.push(`${instancePath} ${status}${problem === null ? '' : ` ${problem.code}`}`)
      for (const child of children) walk(child)
    }
    for (const child of this.kernel.pnp.tree()?.children ?? []) walk(child)
    return lines
  }

  /** The path of the first device whose path begins so. */
  path(beginning: string): string | null {
    const line = this.shown().find((one) => one.startsWith(beginning))
    return line?.slice(0, line.indexOf(' ')) ?? null
  }

  /** Everything is removed. Answers what is left of what came since the kernel was made: all of it must be 0. */
  finish(): Record<string, number> {
    this.run(() => this.kernel.pnp.shutDown())
    this.user.release()
    const { parts, nt } = this.kernel
    parts.irps.trim()
    parts.pool.check()
    return {
      pool: parts.pool.count - this.#poolCount,
      devices: parts.devices.deviceCount - this.#deviceCount,
      links: parts.names.links.size - this.#linkCount,
      irps: parts.irps.liveCount,
      locked: parts.frames.lockedCount,
      contexts: parts.contexts.count,
      files: parts.files.count,
      handles: nt.handles.count,
      buffers: parts.space.userBufferCount,
      interrupts: parts.interrupts.connectedCount,
      deviceStatus: this.deviceStatus,
    }
  }
}

function firmwareDevice(): AcpiDevice {
  return acpiVirtioDevice('00', REGISTERS, 0x200, LINE)
}

export const NOTHING_LEFT = {
  pool: 0,
  devices: 0,
  links: 0,
  irps: 0,
  locked: 0,
  contexts: 0,
  files: 0,
  handles: 0,
  buffers: 0,
  interrupts: 0,
  deviceStatus: 0,
}
