import { expect } from 'vitest'
import type { DeviceObject } from '../../guest/kernel/device-object.ts'
import { Major } from '../../guest/kernel/io-layout.ts'
import type { Kernel } from '../../guest/kernel/kernel.ts'
import { NtStatus, ntSuccess } from '../../guest/kernel/nt-status.ts'
import type { DeviceView } from '../../guest/kernel/pnp/device-view.ts'
import { PnpMinor, pnpMinorName } from '../../guest/kernel/pnp/pnp-minor.ts'
import type { ServiceRegistry } from '../../guest/kernel/pnp/service-registry.ts'
import type { Waiting } from '../../guest/kernel/thread.ts'
import { Machine, type MachineOptions } from './machine.ts'
import {
  type DeviceSpec,
  type LayerExtension,
  type PdoExtension,
  ScriptedDrivers,
} from './scripted-drivers.ts'

export interface PnpEvent {
  readonly kind: 'add' | 'sent' | 'completed' | 'acted'
  /** Device and instance: `a#1`. */
  readonly key: string
  /** `pdo`, `lower0`, `classLow`, `function` … */
  readonly layer: string
  readonly minor: number
  readonly argument1: number
  readonly status: NtStatus
  readonly information: number
  readonly irql: number
  readonly irp: number
  readonly threaded: boolean
}

/** Minors that change nothing. */
const QUERIES: ReadonlySet<number> = new Set([
  PnpMinor.QUERY_ID,
  PnpMinor.QUERY_DEVICE_TEXT,
  PnpMinor.QUERY_CAPABILITIES,
  PnpMinor.QUERY_BUS_INFORMATION,
  PnpMinor.QUERY_RESOURCES,
  PnpMinor.QUERY_RESOURCE_REQUIREMENTS,
  PnpMinor.QUERY_DEVICE_RELATIONS,
  PnpMinor.QUERY_PNP_DEVICE_STATE,
  PnpMinor.FILTER_RESOURCE_REQUIREMENTS,
])

/** A tree of made-up devices under a kernel, and a record of all their drivers are sent. */
export class PnpRig {
  readonly machine: Machine
  readonly kernel: Kernel
  readonly drivers: ScriptedDrivers
  readonly events: PnpEvent[] = []
  readonly open: { readonly id: string; readonly key: string; readonly handle: number }[] = []
  readonly #blocks: number
  readonly #asked = new Map<number, { minor: number; argument1: number; key: string }>()

  constructor(root: DeviceSpec, options: MachineOptions = {}) {
    this.machine = new Machine(options)
    this.kernel = this.machine.kernel
    this.drivers = new ScriptedDrivers(this.kernel, root, (kind, key, layer) => this.#log(kind, key, layer))
    this.machine.drain()
    this.#blocks = this.kernel.parts.pool.count
    this.#observe()
  }

  /** What was sent since the last time, as `device layer MINOR`; queries of identity are left out. */
  sequence(): string[] {
    return this.events
      .splice(0)
      .filter((event) => event.kind === 'add' || (event.kind === 'sent' && !QUERIES.has(event.minor)))
      .map(({ kind, key, layer, minor }) => {
        const what = kind === 'add' ? 'AddDevice' : pnpMinorName(minor)
        return `${key.split('#')[0]} ${layer} ${what}`
      })
  }

  path(id: string): string {
    return `TEST\\${id}\\0`
  }

  boot(change?: (registry: ServiceRegistry) => ServiceRegistry): void {
    this.machine.run(() => this.booting(change))
  }

  /** The same in a thread: STARTs may be pending when it returns. */
  booting(change: (registry: ServiceRegistry) => ServiceRegistry = (registry) => registry): Waiting {
    const id = `TEST\\${this.drivers.root.id}`
    const rootDevices = [{ deviceId: id, instanceId: '0', hardwareIds: [id] }]
    return this.kernel.pnp.boot({ registry: change(this.drivers.registry), rootDevices })
  }

  /** Puts a device on its bus or takes it off, and has the bus driver tell. */
  plug(id: string, there: boolean): void {
    if (there) this.drivers.plugged.add(id)
    else this.drivers.plugged.delete(id)
    const parent = this.drivers.specs.find((spec) => spec.children?.some((child) => child.id === id))
    const bus = parent === undefined ? undefined : this.drivers.buses.get(parent.id)
    // A bus that is gone itself says nothing.
    if (bus === undefined || !this.#isThere(bus.pdo) || bus.pdo.deviceNode === 0) return
    this.machine.run(() => {
      this.kernel.pnp.ioInvalidateDeviceRelations(bus.pdo)
      return this.kernel.pnp.settle()
    })
  }

  /** Opens the function device of a device, as an application would by its name. */
  openDevice(id: string): NtStatus {
    const bus = this.drivers.buses.get(id)
    const { kernel } = this
    const device = bus === undefined || !this.#isThere(bus.pdo) ? null : this.#functionDevice(bus.pdo)
    const name = device?.name
    if (device === null || device === undefined || name === null || name === undefined)
      return NtStatus.NO_SUCH_DEVICE
    const { status, handle } = this.machine.run(() => kernel.nt.createFile(name, {}))
    if (ntSuccess(status)) this.open.push({ id, key: (device.extension as LayerExtension).id, handle })
    return status
  }

  /** The record may have been freed, and its place taken. */
  #isThere(device: DeviceObject): boolean {
    return this.kernel.parts.devices.find(device.at) === device
  }

  #functionDevice(pdo: DeviceObject): DeviceObject | null {
    const { devices } = this.kernel.parts
    for (let at = pdo.attachedDevice; at !== 0; ) {
      const device = devices.deviceAt(at)
      if ((device.extension as LayerExtension).name === 'function') return device
      at = device.attachedDevice
    }
    return null
  }

  closeOne(index: number): string | null {
    const [file] = this.open.splice(index, 1)
    if (file === undefined) return null
    this.machine.run(() => this.kernel.nt.close(file.handle))
    this.machine.run(() => this.kernel.pnp.settle())
    return file.key
  }

  /** The tree below the root as `id: status`, with the problem's number. */
  shown(): string[] {
    const lines: string[] = []
    const walk = (view: DeviceView, indent: string): void => {
      const id = view.instancePath.split('\\')[1]
      lines.push(`${indent}${id} ${view.status}${view.problem === null ? '' : ` ${view.problem.code}`}`)
      for (const child of [...view.children].sort((a, b) => (a.instancePath < b.instancePath ? -1 : 1))) {
        walk(child, `${indent}  `)
      }
    }
    for (const view of this.kernel.pnp.tree()?.children ?? []) walk(view, '')
    return lines
  }

  #observe(): void {
    const { irps, hal, scheduler } = this.kernel.parts
    const nothing = () => undefined
    irps.observer = {
      allocated: nothing,
      freeing: nothing,
      answered: nothing,
      marked: nothing,
      completing: nothing,
      unwound: nothing,
      cancelling: nothing,
      sent: (irp, device) => {
        const { major, minor, argument1 } = irp.current
        if (major !== Major.PNP) return
        const [key, layer] = this.#whose(device)
        if (!this.#asked.has(irp.at)) this.#asked.set(irp.at, { minor, argument1, key })
        const { status, information } = irp
        const threaded = scheduler.current?.name.startsWith('worker') === true
        this.events.push({
          kind: 'sent',
          key,
          layer,
          minor,
          argument1,
          status,
          information,
          irql: hal.irql,
          irp: irp.at,
          threaded,
        })
      },
      completed: nothing,
    }
    // The manager's own completion routine takes the request: what it finds is the answer.
    const { unwound } = irps.observer
    irps.observer.unwound = (irp, device, status) => {
      unwound(irp, device, status)
      const asked = this.#asked.get(irp.at)
      if (device !== null || asked === undefined) return
      this.#asked.delete(irp.at)
      this.events.push({
        kind: 'completed',
        key: asked.key,
        layer: 'top',
        minor: asked.minor,
        argument1: asked.argument1,
        status: irp.status,
        information: irp.information,
        irql: hal.irql,
        irp: irp.at,
        threaded: true,
      })
    }
  }

  #whose(device: DeviceObject): [string, string] {
    const extension = device.extension as LayerExtension | PdoExtension | { kind?: undefined }
    if (extension.kind === 'layer') return [extension.id, extension.name]
    if (extension.kind === 'pdo') return [extension.child.key, 'pdo']
    return [
      device === this.drivers.buses.get(this.drivers.root.id)?.pdo || device.attachedDevice !== 0
        ? `${this.drivers.root.id}#0`
        : 'root',
      'pdo',
    ]
  }

  #log(kind: 'add' | 'acted', key: string, layer: string): void {
    const { irql } = this.kernel.parts.hal
    const status = NtStatus.SUCCESS
    this.events.push({
      kind,
      key,
      layer,
      minor: -1,
      argument1: 0,
      status,
      information: 0,
      irql,
      irp: 0,
      threaded: true,
    })
  }

  /** Closes what is open, removes everything, and says that nothing is left. */
  end(): void {
    const { kernel, machine } = this
    while (this.open.length > 0) this.closeOne(0)
    machine.drain()
    expect(kernel.bugCheck).toBeNull()
    this.drivers.obedient = true
    expect(machine.run(() => kernel.pnp.shutDown())).toBeNull()
    expect(kernel.pnp.tree()).toBeNull()
    kernel.parts.irps.trim()
    kernel.parts.pool.check()
    expect(kernel.parts.pool.uses().filter((use) => !['Kern', 'Thre'].includes(use.tag))).toEqual([])
    expect(kernel.parts.pool.count).toBe(this.#blocks)
    expect(kernel.parts.devices.deviceCount).toBe(0)
    expect([...kernel.parts.devices.drivers]).toEqual([])
    expect(kernel.parts.contexts.count).toBe(0)
    expect(kernel.parts.irps.liveCount).toBe(0)
    expect(kernel.parts.work.outstanding).toBe(0)
  }
}
