import type { DeviceObject } from '../../guest/kernel/device-object.ts'
import type { DriverEntry, DriverObject } from '../../guest/kernel/driver-object.ts'
import { DeviceFlag, Major } from '../../guest/kernel/io-layout.ts'
import type { Irp } from '../../guest/kernel/irp.ts'
import type { Kernel } from '../../guest/kernel/kernel.ts'
import { NtStatus, ntSuccess } from '../../guest/kernel/nt-status.ts'
import { allocateRelations } from '../../guest/kernel/pnp/device-relations.ts'
import { answerPdoQuery, type PdoDescription } from '../../guest/kernel/pnp/pdo-description.ts'
import { CapabilityFlag } from '../../guest/kernel/pnp/pnp-layout.ts'
import { DeviceRelation, PnpMinor } from '../../guest/kernel/pnp/pnp-minor.ts'
import type {
  DriverMatch,
  DriverService,
  ServiceRegistry,
  SetupClass,
} from '../../guest/kernel/pnp/service-registry.ts'
import { settled, type Waiting } from '../../guest/kernel/thread.ts'

/** How one driver of a stack behaves. */
export interface LayerSpec {
  readonly add?: 'fail'
  /** `pend`: marked pending and finished later by a work item; `wait`: finished later in the same thread. */
  readonly start?: 'fail' | 'pend' | 'pend-fail' | 'wait'
  readonly refuses?: readonly ('stop' | 'remove')[]
  /** Information of QUERY_PNP_DEVICE_STATE. */
  readonly state?: number
  /** Looked at first: completes the request or passes it on, or answers null to leave it to the rest. */
  readonly handle?: (
    kernel: Kernel,
    device: DeviceObject,
    irp: Irp,
    lower: DeviceObject,
  ) => NtStatus | Waiting | null
}

/** A device of a made-up bus, and what is on the bus behind it. */
export interface DeviceSpec extends LayerSpec {
  readonly id: string
  readonly lower?: readonly LayerSpec[]
  readonly upper?: readonly LayerSpec[]
  readonly className?: string
  readonly children?: readonly DeviceSpec[]
  readonly description?: Partial<PdoDescription>
  /** The same for its PDO. */
  readonly pdoHandle?: (kernel: Kernel, pdo: DeviceObject, irp: Irp) => NtStatus | null
}

export const CLASS: SetupClass = { name: 'filtered', lowerFilters: ['classLow'], upperFilters: ['classUp'] }

/** One PDO of a device: a device that comes back has another. */
export class Child {
  readonly spec: DeviceSpec
  readonly bus: Bus
  readonly serial: number
  pdo: DeviceObject | null = null
  /** Layers above the PDO, bottom first. */
  readonly stack: string[] = []
  gone = false

  constructor(spec: DeviceSpec, bus: Bus, serial: number) {
    this.spec = spec
    this.bus = bus
    this.serial = serial
  }
  get key(): string {
    return `${this.spec.id}#${this.serial}`
  }
}

/** Function driver state: the bus behind a device. */
export class Bus {
  readonly pdo: DeviceObject
  readonly children: Child[] = []
  constructor(pdo: DeviceObject) {
    this.pdo = pdo
  }
}

export interface LayerExtension {
  readonly kind: 'layer'
  readonly spec: LayerSpec
  readonly name: string
  readonly child: Child | null
  readonly id: string
  readonly lower: DeviceObject
  /** Of the function driver only. */
  readonly bus: Bus | null
  readonly device: DeviceSpec
}
export interface PdoExtension {
  readonly kind: 'pdo'
  readonly child: Child
  readonly description: PdoDescription
}

/** A driver did something the I/O manager does not see. */
export type DriverLog = (kind: 'add' | 'acted', key: string, layer: string) => void

/** Drivers of a tree of made-up devices, which do what its data says. */
export class ScriptedDrivers {
  readonly kernel: Kernel
  readonly root: DeviceSpec
  /** Ids that are on their bus now. */
  readonly plugged: Set<string>
  /** Buses of devices whose function driver was added, by id: the newest. */
  readonly buses = new Map<string, Bus>()
  /** Nobody refuses any more. */
  obedient = false
  readonly #log: DriverLog
  readonly #specs = new Map<string, DeviceSpec>()
  #serial = 0

  constructor(kernel: Kernel, root: DeviceSpec, log: DriverLog) {
    this.kernel = kernel
    this.root = root
    this.#log = log
    this.#collect(root)
    this.plugged = new Set(this.#specs.keys())
  }

  #collect(spec: DeviceSpec): void {
    this.#specs.set(spec.id, spec)
    for (const child of spec.children ?? []) this.#collect(child)
  }
  spec(id: string): DeviceSpec {
    return this.#specs.get(id) as DeviceSpec
  }
  get specs(): readonly DeviceSpec[] {
    return [...this.#specs.values()]
  }
  get registry(): ServiceRegistry {
    const drivers: DriverMatch[] = []
    const services: DriverService[] = [this.#service('classLow', {}), this.#service('classUp', {})]
    for (const spec of this.#specs.values()) {
      const names = (side: string, layers: readonly LayerSpec[] = []): string[] =>
        layers.map((layer, index) => {
          services.push(this.#service(`${spec.id}.${side}${index}`, layer))
          return `${spec.id}.${side}${index}`
        })
      services.push(this.#service(`${spec.id}.function`, spec))
      drivers.push({
        hardwareIds: [`TEST\\${spec.id}`],
        service: `${spec.id}.function`,
        lowerFilters: names('lower', spec.lower),
        upperFilters: names('upper', spec.upper),
        ...(spec.className === undefined ? {} : { className: spec.className }),
      })
    }
    return { services, drivers, classes: [CLASS] }
  }

  #service(name: string, spec: LayerSpec): DriverService {
    return { name, entry: this.#entry(name.split('.').at(-1) as string, spec) }
  }

  #entry(layer: string, spec: LayerSpec): DriverEntry {
    const { kernel } = this
    return (driver: DriverObject) => {
      driver.unload = kernel.routine((object: DriverObject) => {
        if (object.deviceObject !== 0) throw new Error(`${layer} was unloaded while it has a device`)
      })
      driver.addDevice = kernel.routine((object: DriverObject, pdo: DeviceObject) =>
        this.#add(object, pdo, layer, spec),
      )
      driver.setMajorFunction(
        Major.PNP,
        kernel.routine((device: DeviceObject, irp: Irp) => this.#pnp(device, irp)),
      )
      const succeed = kernel.routine((_device: DeviceObject, irp: Irp) =>
        complete(kernel, irp, NtStatus.SUCCESS),
      )
      const pass = kernel.routine((device: DeviceObject, irp: Irp) => {
        const extension = device.extension as LayerExtension
        if (extension.name === 'function') return complete(kernel, irp, NtStatus.SUCCESS)
        kernel.ioSkipCurrentIrpStackLocation(irp)
        return kernel.ioCallDriver(extension.lower, irp)
      })
      for (const major of [Major.CREATE, Major.CLEANUP, Major.CLOSE]) driver.setMajorFunction(major, pass)
      driver.setMajorFunction(Major.POWER, succeed)
      return NtStatus.SUCCESS
    }
  }

  #add(driver: DriverObject, pdo: DeviceObject, layer: string, spec: LayerSpec): NtStatus {
    const { kernel } = this
    const child =
      (pdo.extension as PdoExtension | { kind?: undefined }).kind === 'pdo'
        ? (pdo.extension as PdoExtension).child
        : null
    const key = child?.key ?? `${this.root.id}#0`
    const device = child?.spec ?? this.root
    this.#log('add', key, layer)
    if (spec.add === 'fail') return NtStatus.NO_SUCH_DEVICE
    const name = layer === 'function' ? { name: `\\Device\\${key.replace('#', '_')}_${this.#serial++}` } : {}
    const made = kernel.ioCreateDevice(driver, name)
    if (typeof made === 'number') return made
    const lower = kernel.ioAttachDeviceToDeviceStack(made, pdo)
    if (lower === null) {
      kernel.ioDeleteDevice(made)
      return NtStatus.NO_SUCH_DEVICE
    }
    const bus = layer === 'function' ? new Bus(pdo) : null
    if (bus !== null) this.buses.set(device.id, bus)
    child?.stack.push(layer)
    const extension: LayerExtension = { kind: 'layer', spec, name: layer, child, id: key, lower, bus, device }
    made.extension = extension
    made.flags &= ~DeviceFlag.DEVICE_INITIALIZING
    return NtStatus.SUCCESS
  }

  #pnp(device: DeviceObject, irp: Irp): NtStatus | Waiting {
    const extension = device.extension as LayerExtension | PdoExtension
    return extension.kind === 'pdo'
      ? this.#pdoRequest(device, extension, irp)
      : this.#layer(device, extension, irp)
  }

  #layer(device: DeviceObject, layer: LayerExtension, irp: Irp): NtStatus | Waiting {
    const { kernel } = this
    const { spec } = layer
    const { minor } = irp.current
    const handled = this.obedient ? null : (spec.handle?.(kernel, device, irp, layer.lower) ?? null)
    if (handled !== null) return handled
    switch (minor) {
      case PnpMinor.START_DEVICE:
        return this.#start(layer, irp)
      case PnpMinor.REMOVE_DEVICE:
        return this.#remove(device, layer, irp)
      case PnpMinor.QUERY_STOP_DEVICE:
      case PnpMinor.QUERY_REMOVE_DEVICE: {
        const kind = minor === PnpMinor.QUERY_STOP_DEVICE ? 'stop' : 'remove'
        if (!this.obedient && spec.refuses?.includes(kind))
          return complete(kernel, irp, NtStatus.UNSUCCESSFUL)
        return this.#agree(layer, irp)
      }
      case PnpMinor.QUERY_PNP_DEVICE_STATE:
        if (this.obedient || spec.state === undefined) break
        irp.information |= spec.state
        return this.#agree(layer, irp)
      case PnpMinor.QUERY_DEVICE_RELATIONS:
        if (irp.current.argument1 === DeviceRelation.BUS && layer.bus !== null)
          return this.#list(device, layer, layer.bus, irp)
        break
      case PnpMinor.CANCEL_REMOVE_DEVICE:
      case PnpMinor.CANCEL_STOP_DEVICE:
      case PnpMinor.STOP_DEVICE:
      case PnpMinor.SURPRISE_REMOVAL:
        return this.#agree(layer, irp)
    }
    kernel.ioSkipCurrentIrpStackLocation(irp)
    return kernel.ioCallDriver(layer.lower, irp)
  }

  #agree(layer: LayerExtension, irp: Irp): NtStatus | Waiting {
    irp.status = NtStatus.SUCCESS
    this.kernel.ioSkipCurrentIrpStackLocation(irp)
    return this.kernel.ioCallDriver(layer.lower, irp)
  }

  *#start(layer: LayerExtension, irp: Irp): Waiting {
    const { kernel } = this
    const { start } = layer.spec
    const below = yield* kernel.ioForwardIrpSynchronously(layer.lower, irp)
    const fails = start === 'fail' || start === 'pend-fail'
    const status = ntSuccess(below) && fails ? NtStatus.DEVICE_CONFIGURATION_ERROR : below
    if (start === 'wait') yield* kernel.keDelayExecutionThread(50)
    this.#log('acted', layer.id, layer.name)
    if (start !== 'pend' && start !== 'pend-fail') return complete(kernel, irp, status)
    kernel.ioMarkIrpPending(irp)
    kernel.spawn(
      (function* () {
        yield* kernel.keDelayExecutionThread(200)
        complete(kernel, irp, status)
      })(),
    )
    return NtStatus.PENDING
  }

  *#remove(device: DeviceObject, layer: LayerExtension, irp: Irp): Waiting {
    const { kernel } = this
    const status = yield* settled(this.#agree(layer, irp))
    for (const child of layer.bus?.children ?? []) this.#drop(child)
    kernel.ioDetachDevice(layer.lower)
    kernel.ioDeleteDevice(device)
    return status
  }

  #drop(child: Child): void {
    const { pdo } = child
    child.pdo = null
    if (pdo !== null) this.kernel.ioDeleteDevice(pdo)
  }

  #list(device: DeviceObject, layer: LayerExtension, bus: Bus, irp: Irp): NtStatus | Waiting {
    const { kernel } = this
    const listed: DeviceObject[] = []
    for (const spec of layer.device.children ?? []) {
      if (!this.plugged.has(spec.id)) continue
      let child = bus.children.find((one) => one.spec === spec && !one.gone)
      if (child === undefined) {
        child = new Child(spec, bus, ++this.#serial)
        child.pdo = this.#makePdo(device.driver, child)
        bus.children.push(child)
      }
      if (child.pdo !== null) listed.push(child.pdo)
    }
    for (const child of bus.children) if (!this.plugged.has(child.spec.id)) child.gone = true
    const at = allocateRelations(kernel.parts, listed, irp.information)
    if (at === 0) return complete(kernel, irp, NtStatus.INSUFFICIENT_RESOURCES)
    irp.information = at
    return this.#agree(layer, irp)
  }

  #makePdo(driver: DriverObject, child: Child): DeviceObject | null {
    const pdo = this.kernel.ioCreateDevice(driver)
    if (typeof pdo === 'number') return null
    const { id, description } = child.spec
    const extension: PdoExtension = {
      kind: 'pdo',
      child,
      description: {
        deviceId: `TEST\\${id}`,
        instanceId: '0',
        hardwareIds: [`TEST\\${id}`],
        capabilities: { flags: CapabilityFlag.UNIQUE_ID },
        ...description,
      },
    }
    pdo.extension = extension
    pdo.flags &= ~DeviceFlag.DEVICE_INITIALIZING
    return pdo
  }

  #pdoRequest(pdo: DeviceObject, { child, description }: PdoExtension, irp: Irp): NtStatus {
    const { kernel } = this
    const handled = this.obedient ? null : (child.spec.pdoHandle?.(kernel, pdo, irp) ?? null)
    if (handled !== null) return handled
    if (!answerPdoQuery(kernel.parts, pdo, description, irp)) {
      const { minor } = irp.current
      const known = minor <= PnpMinor.CANCEL_STOP_DEVICE || minor === PnpMinor.EJECT
      if (known || minor === PnpMinor.SURPRISE_REMOVAL || minor === PnpMinor.DEVICE_ENUMERATED) {
        irp.status = NtStatus.SUCCESS
      }
      if (minor === PnpMinor.REMOVE_DEVICE) {
        child.stack.length = 0
        if (child.gone) {
          child.bus.children.splice(child.bus.children.indexOf(child), 1)
          this.#drop(child)
        }
      }
      if (minor === PnpMinor.EJECT) this.plugged.delete(child.spec.id)
    }
    return complete(kernel, irp, irp.status, irp.information)
  }
}

export function complete(
  kernel: Kernel,
  irp: Irp,
  status: NtStatus,
  information = irp.information,
): NtStatus {
  irp.status = status
  irp.information = information
  kernel.ioCompleteRequest(irp)
  return status
}
