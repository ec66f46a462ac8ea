import type { DeviceObject } from '../device-object.ts'
import type { DriverEntry, DriverObject } from '../driver-object.ts'
import { DeviceCharacteristic, DeviceFlag, DeviceType, Major } from '../io-layout.ts'
import type { Irp } from '../irp.ts'
import type { Kernel } from '../kernel.ts'
import { NtStatus, ntSuccess } from '../nt-status.ts'
import type { Waiting } from '../thread.ts'
import { settled } from '../thread.ts'
import { allocateRelations } from './device-relations.ts'
import { answerPdoQuery, type PdoDescription } from './pdo-description.ts'
import { CapabilityFlag } from './pnp-layout.ts'
import { DeviceRelation, PnpMinor } from './pnp-minor.ts'
import type { Resource } from './resource-list.ts'
import type { RequirementLists } from './resource-requirements.ts'

/** One device of the namespace, as the firmware describes it. */
export interface AcpiDevice {
  /** _HID: `LNRO0005`. */
  readonly hid: string
  /** _UID: tells devices with the same _HID apart. */
  readonly uid: string
  /** _CID. */
  readonly cids?: readonly string[]
  /** _STR. */
  readonly description?: string
  /** _CRS: windows and lines it decodes. An interrupt's level and vector are its line. */
  readonly current?: readonly Resource[]
  /** _PRS: what it could decode instead; without it, nothing else than _CRS. */
  readonly possible?: RequirementLists
}

/** An MMIO VIRTIO device's window and line as the firmware describes them (VIRTIO 1.2, 4.2.1). */
export function acpiVirtioDevice(uid: string, base: number, lengthBytes: number, line: number): AcpiDevice {
  return {
    hid: 'LNRO0005',
    uid,
    current: [
      { kind: 'memory', start: base, lengthBytes },
      { kind: 'interrupt', level: line, vector: line, trigger: 'level', shared: true },
    ],
  }
}

/** The devices that the firmware lists. The machine changes it; the bus driver is told. */
export class AcpiNamespace {
  readonly #devices: Map<string, AcpiDevice>
  /** Bus check: set by the bus driver while it is started. */
  notify: (() => void) | null

  constructor(devices: readonly AcpiDevice[] = []) {
    this.#devices = new Map(devices.map((device) => [keyOf(device), device]))
    this.notify = null
  }

  get devices(): Iterable<AcpiDevice> {
    return this.#devices.values()
  }
  has(device: AcpiDevice): boolean {
    return this.#devices.get(keyOf(device)) === device
  }
  /** A device appeared; it takes the place of one with the same _HID and _UID. */
  add(device: AcpiDevice): void {
    this.#devices.set(keyOf(device), device)
    this.notify?.()
  }
  /** A device is gone. */
  remove(device: AcpiDevice): void {
    if (this.has(device)) this.#devices.delete(keyOf(device))
    this.notify?.()
  }
}

function keyOf(device: AcpiDevice): string {
  return `${device.hid}\\${device.uid}`
}

/** What the root lists so that the ACPI driver is loaded, and the hardware ID it is for. */
export const ACPI_ROOT = {
  deviceId: 'ACPI_HAL\\PNP0C08',
  instanceId: '0',
  hardwareIds: ['ACPI_HAL\\PNP0C08', '*PNP0C08'],
  description: 'ACPI-compliant system',
} as const

interface BusExtension {
  readonly kind: 'bus'
  readonly pdo: DeviceObject
  readonly lower: DeviceObject
  /** Children that were reported, or are about to be. */
  readonly children: Map<AcpiDevice, DeviceObject>
}
interface ChildExtension {
  readonly kind: 'child'
  readonly bus: BusExtension
  readonly device: AcpiDevice
  readonly description: PdoDescription
}

/** DriverEntry of the bus driver whose children are the devices of a namespace. */
export function acpiDriver(kernel: Kernel, namespace: AcpiNamespace): DriverEntry {
  const driver = new AcpiDriver(kernel, namespace)
  return (object) => driver.entry(object)
}

class AcpiDriver {
  readonly #kernel: Kernel
  readonly #namespace: AcpiNamespace

  constructor(kernel: Kernel, namespace: AcpiNamespace) {
    this.#kernel = kernel
    this.#namespace = namespace
  }

  entry(driver: DriverObject): NtStatus {
    const kernel = this.#kernel
    driver.addDevice = kernel.routine((object: DriverObject, pdo: DeviceObject) => this.#add(object, pdo))
    driver.unload = kernel.routine(() => undefined)
    driver.setMajorFunction(
      Major.PNP,
      kernel.routine((device: DeviceObject, irp: Irp) => {
        const extension = device.extension as BusExtension | ChildExtension
        return extension.kind === 'bus'
          ? this.#busRequest(device, extension, irp)
          : this.#childRequest(device, extension, irp)
      }),
    )
    return NtStatus.SUCCESS
  }

  #add(driver: DriverObject, pdo: DeviceObject): NtStatus {
    const kernel = this.#kernel
    const fdo = kernel.ioCreateDevice(driver, { type: DeviceType.BUS_EXTENDER })
    if (typeof fdo === 'number') return fdo
    const lower = kernel.ioAttachDeviceToDeviceStack(fdo, pdo)
    if (lower === null) {
      kernel.ioDeleteDevice(fdo)
      return NtStatus.NO_SUCH_DEVICE
    }
    const bus: BusExtension = { kind: 'bus', pdo, lower, children: new Map() }
    fdo.extension = bus
    fdo.flags |= lower.flags & DeviceFlag.POWER_PAGABLE
    fdo.flags &= ~DeviceFlag.DEVICE_INITIALIZING
    return NtStatus.SUCCESS
  }

  #busRequest(fdo: DeviceObject, bus: BusExtension, irp: Irp): NtStatus | Waiting {
    const kernel = this.#kernel
    switch (irp.current.minor) {
      case PnpMinor.START_DEVICE:
        return this.#start(bus, irp)
      case PnpMinor.QUERY_DEVICE_RELATIONS:
        return irp.current.argument1 === DeviceRelation.BUS
          ? this.#relations(fdo, bus, irp)
          : this.#pass(bus, irp)
      case PnpMinor.SURPRISE_REMOVAL:
        this.#namespace.notify = null
        return this.#agree(bus, irp)
      case PnpMinor.REMOVE_DEVICE:
        return this.#removeBus(fdo, bus, irp)
      case PnpMinor.QUERY_STOP_DEVICE:
      case PnpMinor.CANCEL_STOP_DEVICE:
      case PnpMinor.STOP_DEVICE:
      case PnpMinor.QUERY_REMOVE_DEVICE:
      case PnpMinor.CANCEL_REMOVE_DEVICE:
        return this.#agree(bus, irp)
      default:
        kernel.ioSkipCurrentIrpStackLocation(irp)
        return kernel.ioCallDriver(bus.lower, irp)
    }
  }

  *#start(bus: BusExtension, irp: Irp): Waiting {
    const kernel = this.#kernel
    const status = yield* kernel.ioForwardIrpSynchronously(bus.lower, irp)
    if (ntSuccess(status)) this.#namespace.notify = () => kernel.pnp.ioInvalidateDeviceRelations(bus.pdo)
    irp.status = status
    kernel.ioCompleteRequest(irp)
    return status
  }

  #pass(bus: BusExtension, irp: Irp): NtStatus | Waiting {
    this.#kernel.ioSkipCurrentIrpStackLocation(irp)
    return this.#kernel.ioCallDriver(bus.lower, irp)
  }

  #agree(bus: BusExtension, irp: Irp): NtStatus | Waiting {
    irp.status = NtStatus.SUCCESS
    return this.#pass(bus, irp)
  }

  /** Every device of the namespace, each time. */
  #relations(fdo: DeviceObject, bus: BusExtension, irp: Irp): NtStatus | Waiting {
    const { parts } = this.#kernel
    const listed: DeviceObject[] = []
    for (const device of this.#namespace.devices) {
      const pdo = bus.children.get(device) ?? this.#makeChild(fdo.driver, bus, device)
      if (pdo === null) return this.#fail(irp, NtStatus.INSUFFICIENT_RESOURCES)
      listed.push(pdo)
    }
    const at = allocateRelations(parts, listed, irp.information)
    if (at === 0) return this.#fail(irp, NtStatus.INSUFFICIENT_RESOURCES)
    irp.information = at
    return this.#agree(bus, irp)
  }

  #fail(irp: Irp, status: NtStatus): NtStatus {
    irp.status = status
    this.#kernel.ioCompleteRequest(irp)
    return status
  }

  #makeChild(driver: DriverObject, bus: BusExtension, device: AcpiDevice): DeviceObject | null {
    const pdo = this.#kernel.ioCreateDevice(driver, {
      characteristics: DeviceCharacteristic.AUTOGENERATED_DEVICE_NAME,
    })
    if (typeof pdo === 'number') return null
    const extension: ChildExtension = { kind: 'child', bus, device, description: describe(device) }
    pdo.extension = extension
    pdo.flags = (pdo.flags | DeviceFlag.POWER_PAGABLE) & ~DeviceFlag.DEVICE_INITIALIZING
    bus.children.set(device, pdo)
    return pdo
  }

  *#removeBus(fdo: DeviceObject, bus: BusExtension, irp: Irp): Waiting {
    const kernel = this.#kernel
    this.#namespace.notify = null
    const status = yield* settled(this.#agree(bus, irp))
    for (const pdo of bus.children.values()) kernel.ioDeleteDevice(pdo)
    bus.children.clear()
    kernel.ioDetachDevice(bus.lower)
    kernel.ioDeleteDevice(fdo)
    return status
  }

  #childRequest(pdo: DeviceObject, child: ChildExtension, irp: Irp): NtStatus {
    const kernel = this.#kernel
    if (!answerPdoQuery(kernel.parts, pdo, child.description, irp)) {
      switch (irp.current.minor) {
        case PnpMinor.REMOVE_DEVICE:
          this.#removeChild(pdo, child)
          irp.status = NtStatus.SUCCESS
          break
        case PnpMinor.START_DEVICE:
        case PnpMinor.QUERY_STOP_DEVICE:
        case PnpMinor.CANCEL_STOP_DEVICE:
        case PnpMinor.STOP_DEVICE:
        case PnpMinor.QUERY_REMOVE_DEVICE:
        case PnpMinor.CANCEL_REMOVE_DEVICE:
        case PnpMinor.SURPRISE_REMOVAL:
        case PnpMinor.DEVICE_ENUMERATED:
          irp.status = NtStatus.SUCCESS
      }
    }
    const { status } = irp
    kernel.ioCompleteRequest(irp)
    return status
  }

  /** The PDO stays as long as the device is there. */
  #removeChild(pdo: DeviceObject, { bus, device }: ChildExtension): void {
    if (this.#namespace.has(device)) return
    bus.children.delete(device)
    this.#kernel.ioDeleteDevice(pdo)
  }
}

function describe(device: AcpiDevice): PdoDescription {
  const { hid, uid, cids, description, current, possible } = device
  return {
    deviceId: `ACPI\\${hid}`,
    instanceId: uid,
    hardwareIds: [`ACPI\\${hid}`, `*${hid}`],
    ...(cids === undefined ? {} : { compatibleIds: cids.flatMap((cid) => [`ACPI\\${cid}`, `*${cid}`]) }),
    description: description ?? hid,
    capabilities: { flags: CapabilityFlag.UNIQUE_ID },
    ...(current === undefined ? {} : { resources: current }),
    ...(possible === undefined ? {} : { requirements: possible }),
  }
}
