import { describe, expect, it } from 'vitest'
import type { DeviceObject } from '../../guest/kernel/device-object.ts'
import type { DriverEntry, DriverObject } from '../../guest/kernel/driver-object.ts'
import type { Interrupt } from '../../guest/kernel/interrupt.ts'
import { DeviceFlag, Major } from '../../guest/kernel/io-layout.ts'
import type { Irp } from '../../guest/kernel/irp.ts'
import type { Kernel } from '../../guest/kernel/kernel.ts'
import { NtStatus, ntSuccess } from '../../guest/kernel/nt-status.ts'
import { ACPI_ROOT, AcpiNamespace, acpiDriver, acpiVirtioDevice } from '../../guest/kernel/pnp/acpi-bus.ts'
import type { DeviceView } from '../../guest/kernel/pnp/device-view.ts'
import { PnpMinor } from '../../guest/kernel/pnp/pnp-minor.ts'
import { type Resource, readResourceList } from '../../guest/kernel/pnp/resource-list.ts'
import type { ServiceRegistry } from '../../guest/kernel/pnp/service-registry.ts'
import { settled, type Waiting } from '../../guest/kernel/thread.ts'
import { gpa } from '../../protocol/memory.ts'
import { Machine } from './machine.ts'

const SEEDS = [undefined, 1, 2, 3, 4, 5]

/** What an adapter's driver saw. */
class Adapter {
  raw: readonly Resource[] = []
  translated: readonly Resource[] = []
  interrupt: Interrupt | null = null
  interrupts = 0
}

/** A function driver that reads its window and connects its interrupt, from START's list alone. */
function adapterDriver(kernel: Kernel, adapters: Adapter[]): DriverEntry {
  function* start(adapter: Adapter, lower: DeviceObject, irp: Irp): Waiting {
    const { argument1, argument2 } = irp.current
    let status = yield* kernel.ioForwardIrpSynchronously(lower, irp)
    if (ntSuccess(status)) {
      adapter.raw = readResourceList(kernel.parts, argument1) ?? []
      adapter.translated = readResourceList(kernel.parts, argument2) ?? []
      const line = adapter.translated.find((one) => one.kind === 'interrupt')
      if (line?.kind !== 'interrupt') throw new Error('no interrupt')
      const { vector, level, trigger } = line
      const connected = kernel.ioConnectInterrupt(
        () => {
          adapter.interrupts++
          const window = adapter.translated.find((one) => one.kind === 'memory')
          if (window?.kind === 'memory') kernel.writeRegister(gpa(window.start), 4, 0)
          return true
        },
        { vector, irql: level, trigger },
      )
      if (typeof connected === 'number') status = connected
      else adapter.interrupt = connected
    }
    irp.status = status
    kernel.ioCompleteRequest(irp)
    return status
  }
  function* remove(fdo: DeviceObject, adapter: Adapter, lower: DeviceObject, irp: Irp): Waiting {
    if (adapter.interrupt !== null) kernel.ioDisconnectInterrupt(adapter.interrupt)
    irp.status = NtStatus.SUCCESS
    kernel.ioSkipCurrentIrpStackLocation(irp)
    const status = yield* settled(kernel.ioCallDriver(lower, irp))
    kernel.ioDetachDevice(lower)
    kernel.ioDeleteDevice(fdo)
    return status
  }
  return (driver: DriverObject) => {
    driver.unload = kernel.routine(() => undefined)
    driver.addDevice = kernel.routine((object: DriverObject, pdo: DeviceObject) => {
      const fdo = kernel.ioCreateDevice(object)
      if (typeof fdo === 'number') return fdo
      const lower = kernel.ioAttachDeviceToDeviceStack(fdo, pdo)
      if (lower === null) return NtStatus.NO_SUCH_DEVICE
      const adapter = new Adapter()
      adapters.push(adapter)
      fdo.extension = { adapter, lower }
      fdo.flags &= ~DeviceFlag.DEVICE_INITIALIZING
      return NtStatus.SUCCESS
    })
    driver.setMajorFunction(
      Major.PNP,
      kernel.routine((fdo: DeviceObject, irp: Irp) => {
        const { adapter, lower } = fdo.extension as { adapter: Adapter; lower: DeviceObject }
        const { minor } = irp.current
        if (minor === PnpMinor.START_DEVICE) return start(adapter, lower, irp)
        if (minor === PnpMinor.REMOVE_DEVICE) return remove(fdo, adapter, lower, irp)
        if (minor === PnpMinor.QUERY_REMOVE_DEVICE || minor === PnpMinor.SURPRISE_REMOVAL) {
          irp.status = NtStatus.SUCCESS
        }
        kernel.ioSkipCurrentIrpStackLocation(irp)
        return kernel.ioCallDriver(lower, irp)
      }),
    )
    return NtStatus.SUCCESS
  }
}

class Computer {
  readonly machine: Machine
  readonly kernel: Kernel
  readonly namespace: AcpiNamespace
  readonly adapters: Adapter[] = []
  readonly #blocks: number

  constructor(seed: number | undefined, devices: readonly Parameters<AcpiNamespace['add']>[0][]) {
    this.machine = new Machine(seed === undefined ? {} : { seed })
    this.kernel = this.machine.kernel
    this.namespace = new AcpiNamespace(devices)
    this.#blocks = this.kernel.parts.pool.count
  }

  get registry(): ServiceRegistry {
    return {
      services: [
        { name: 'ACPI', entry: acpiDriver(this.kernel, this.namespace) },
        { name: 'viostor', entry: adapterDriver(this.kernel, this.adapters) },
      ],
      drivers: [
        { hardwareIds: ['*PNP0C08'], service: 'ACPI', className: 'System' },
        {
          hardwareIds: ['ACPI\\LNRO0005'],
          service: 'viostor',
          className: 'SCSIAdapter',
          description: 'VirtIO adapter',
        },
      ],
    }
  }

  boot(): void {
    const { kernel, registry } = this
    this.machine.run(() => kernel.pnp.boot({ registry, rootDevices: [ACPI_ROOT] }))
  }

  get adapterViews(): readonly DeviceView[] {
    return this.kernel.pnp.tree()?.children[0]?.children ?? []
  }

  end(): void {
    const { kernel } = this
    expect(this.machine.run(() => kernel.pnp.shutDown())).toBeNull()
    kernel.parts.irps.trim()
    kernel.parts.pool.check()
    expect(kernel.parts.pool.uses().filter((use) => !['Kern', 'Thre'].includes(use.tag))).toEqual([])
    expect(kernel.parts.pool.count).toBe(this.#blocks)
    expect(kernel.parts.devices.deviceCount).toBe(0)
    expect([...kernel.parts.devices.drivers]).toEqual([])
    expect(kernel.parts.contexts.count).toBe(0)
    expect(kernel.parts.interrupts.connectedCount).toBe(0)
    expect(kernel.parts.irps.liveCount).toBe(0)
  }
}

describe('an MMIO VIRTIO device on the ACPI bus', () => {
  it('appears as ACPI\\LNRO0005, and its driver takes window and interrupt from START', () => {
    for (const seed of SEEDS) {
      const computer = new Computer(seed, [acpiVirtioDevice('00', 0xfeb0_0000, 0x200, 5)])
      const { machine, adapters, kernel } = computer
      const line = machine.processor.line(5)
      machine.processor.map(gpa(0xfeb0_0000), 0x200, { read: () => 0, write: () => line.lower() })
      computer.boot()
      expect(adapters).toHaveLength(1)
      const [adapter] = adapters
      expect(adapter?.raw).toEqual([
        { kind: 'memory', start: 0xfeb0_0000, lengthBytes: 0x200 },
        { kind: 'interrupt', level: 5, vector: 5, trigger: 'level', shared: true },
      ])
      const { vector, irql } = adapter?.interrupt ?? {}
      expect(adapter?.translated[1]).toEqual({
        kind: 'interrupt',
        level: irql,
        vector,
        trigger: 'level',
        shared: true,
      })
      line.raise()
      machine.drain()
      expect(adapter?.interrupts).toBe(1)
      expect(computer.adapterViews).toMatchObject([
        {
          name: 'VirtIO adapter',
          instancePath: 'ACPI\\LNRO0005\\00',
          hardwareIds: ['ACPI\\LNRO0005', '*LNRO0005'],
          driver: 'viostor',
          status: 'working',
          problem: null,
          children: [],
        },
      ])
      expect(kernel.bugCheck).toBeNull()
      computer.end()
    }
  })

  it('goes by surprise when it is unplugged, and comes back when it is plugged in', () => {
    for (const seed of SEEDS) {
      const device = acpiVirtioDevice('00', 0xfeb0_0000, 0x200, 5)
      const computer = new Computer(seed, [device])
      computer.boot()
      computer.namespace.remove(device)
      computer.machine.run(() => computer.kernel.pnp.settle())
      expect(computer.adapterViews).toEqual([])
      expect(computer.kernel.parts.interrupts.connectedCount).toBe(0)
      computer.namespace.add(acpiVirtioDevice('00', 0xfec0_0000, 0x200, 6))
      computer.machine.run(() => computer.kernel.pnp.settle())
      expect(computer.adapterViews.map((view) => view.status)).toEqual(['working'])
      expect(computer.adapters.at(-1)?.raw[0]).toEqual({
        kind: 'memory',
        start: 0xfec0_0000,
        lengthBytes: 0x200,
      })
      computer.end()
    }
  })

  it('whose window another one has gets problem 12, and a disabled one 22 until it is enabled', () => {
    for (const seed of SEEDS) {
      const computer = new Computer(seed, [
        acpiVirtioDevice('00', 0xfeb0_0000, 0x200, 5),
        acpiVirtioDevice('01', 0xfeb0_0100, 0x200, 6),
        acpiVirtioDevice('02', 0x1000, 0x200, 7),
      ])
      const { kernel, machine } = computer
      computer.boot()
      expect(computer.adapterViews.map((view) => view.problem?.code ?? 0)).toEqual([0, 12, 12])
      const first = 'ACPI\\LNRO0005\\00'
      const second = 'ACPI\\LNRO0005\\01'
      expect(machine.run(() => kernel.pnp.disableDevice(first))).toBeNull()
      expect(machine.run(() => kernel.pnp.enableDevice(second))).toBeNull()
      expect(computer.adapterViews.map((view) => view.problem?.code ?? 0)).toEqual([22, 0, 12])
      expect(machine.run(() => kernel.pnp.removeDevice(second))).toBeNull()
      expect(machine.run(() => kernel.pnp.enableDevice(first))).toBeNull()
      expect(computer.adapterViews.map((view) => view.problem?.code ?? 0)).toEqual([0, 0, 12])
      machine.run(() => kernel.pnp.rescan())
      expect(computer.adapterViews.map((view) => view.problem?.code ?? 0)).toEqual([0, 12, 12])
      computer.end()
    }
  })

  it('that is gone before its bus says so is out of the tree once it is disabled', () => {
    for (const seed of SEEDS) {
      const device = acpiVirtioDevice('00', 0xfeb0_0000, 0x200, 5)
      const computer = new Computer(seed, [device])
      computer.boot()
      computer.namespace.notify = null
      computer.namespace.remove(device)
      expect(computer.machine.run(() => computer.kernel.pnp.disableDevice('ACPI\\LNRO0005\\00'))).toBeNull()
      expect(computer.adapterViews).toEqual([])
      computer.end()
    }
  })
})
