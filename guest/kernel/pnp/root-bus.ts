import type { DeviceObject } from '../device-object.ts'
import type { DriverObject } from '../driver-object.ts'
import { DeviceFlag, Major } from '../io-layout.ts'
import type { Irp } from '../irp.ts'
import type { KernelParts } from '../kernel-parts.ts'
import { NtStatus } from '../nt-status.ts'
import { allocateRelations } from './device-relations.ts'
import { answerPdoQuery, type PdoDescription } from './pdo-description.ts'
import { CapabilityFlag } from './pnp-layout.ts'
import { DeviceRelation, PnpMinor } from './pnp-minor.ts'

/** A device that nobody enumerates: the PnP manager lists it because the registry says it is there. */
export interface RootDevice {
  readonly deviceId: string
  readonly instanceId: string
  readonly hardwareIds: readonly string[]
  readonly description?: string
}

/** The PnP manager's own driver: PDOs of the root and of root-enumerated devices. */
export class RootBus {
  readonly #parts: KernelParts
  readonly driver: DriverObject
  readonly rootPdo: DeviceObject
  readonly #children: DeviceObject[]

  constructor(parts: KernelParts, driver: DriverObject, rootPdo: DeviceObject) {
    this.#parts = parts
    this.driver = driver
    this.rootPdo = rootPdo
    this.#children = []
  }

  /** Null when memory is short. The root PDO comes with the reference that its node holds. */
  static create(parts: KernelParts, roots: readonly RootDevice[]): RootBus | null {
    const driver = parts.devices.createDriver('\\Driver\\PnpManager')
    if (driver === null) return null
    const rootPdo = parts.devices.createDevice(driver, { extension: ROOT })
    if (rootPdo === null) {
      parts.devices.deleteDriver(driver)
      return null
    }
    rootPdo.flags &= ~DeviceFlag.DEVICE_INITIALIZING
    parts.devices.reference(rootPdo)
    const bus = new RootBus(parts, driver, rootPdo)
    driver.setMajorFunction(
      Major.PNP,
      parts.routines.register((device: DeviceObject, irp: Irp) => bus.#dispatch(device, irp)),
    )
    for (const root of roots) bus.#add(root)
    return bus
  }

  #add(root: RootDevice): void {
    const description: PdoDescription = {
      ...root,
      capabilities: { flags: CapabilityFlag.UNIQUE_ID | CapabilityFlag.SILENT_INSTALL },
    }
    const pdo = this.#parts.devices.createDevice(this.driver, { extension: description })
    if (pdo === null) return
    pdo.flags &= ~DeviceFlag.DEVICE_INITIALIZING
    this.#children.push(pdo)
  }

  #dispatch(pdo: DeviceObject, irp: Irp): NtStatus {
    this.#answer(pdo, irp)
    const { status } = irp
    this.#parts.flow.complete(irp, 0)
    return status
  }

  #answer(pdo: DeviceObject, irp: Irp): void {
    const { minor, argument1 } = irp.current
    if (answerPdoQuery(this.#parts, pdo, pdo.extension as PdoDescription, irp)) return
    switch (minor) {
      case PnpMinor.QUERY_DEVICE_RELATIONS: {
        if (argument1 !== DeviceRelation.BUS || pdo !== this.rootPdo) return
        const at = allocateRelations(this.#parts, this.#children, irp.information)
        irp.information = at === 0 ? irp.information : at
        irp.status = at === 0 ? NtStatus.INSUFFICIENT_RESOURCES : NtStatus.SUCCESS
        return
      }
      case PnpMinor.START_DEVICE:
      case PnpMinor.QUERY_STOP_DEVICE:
      case PnpMinor.CANCEL_STOP_DEVICE:
      case PnpMinor.STOP_DEVICE:
      case PnpMinor.QUERY_REMOVE_DEVICE:
      case PnpMinor.CANCEL_REMOVE_DEVICE:
      case PnpMinor.SURPRISE_REMOVAL:
      case PnpMinor.REMOVE_DEVICE:
      case PnpMinor.DEVICE_ENUMERATED:
        // The registry goes on listing it: its PDO stays.
        irp.status = NtStatus.SUCCESS
    }
  }

  /** After everything was removed. */
  delete(): void {
    const { devices } = this.#parts
    for (const pdo of this.#children) devices.deleteDevice(pdo)
    devices.deleteDevice(this.rootPdo)
    devices.deleteDriver(this.driver)
  }
}

const ROOT: PdoDescription = { deviceId: 'HTREE\\ROOT', instanceId: '0', hardwareIds: [] }
