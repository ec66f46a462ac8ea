import type { DeviceObject } from '../../kernel/device-object.ts'
import type { DriverEntry, DriverObject } from '../../kernel/driver-object.ts'
import { DeviceFlag, DeviceType, Major } from '../../kernel/io-layout.ts'
import type { Irp } from '../../kernel/irp.ts'
import type { Kernel } from '../../kernel/kernel.ts'
import { NtStatus } from '../../kernel/nt-status.ts'
import type { Waiting } from '../../kernel/thread.ts'
import type { MakeMiniport } from '../miniport.ts'
import { Adapter } from './adapter.ts'
import { AdapterDevice } from './adapter-device.ts'
import { UnitDevice } from './unit-device.ts'
import { controlUnit } from './unit-properties.ts'

/** Hears of each adapter whose device got this driver, started or not. */
export type AdapterAdded = (adapter: Adapter, pdo: DeviceObject) => void

/**
 * DriverEntry of a miniport's driver: what StorPortInitialize makes of it. The port's routines stand in the
 * driver's dispatch table; the miniport is called by them alone.
 */
export function storPortDriver(
  kernel: Kernel,
  make: MakeMiniport,
  added: AdapterAdded = () => {},
): DriverEntry {
  const driver = new StorPortDriver(kernel, make, added)
  return (object) => driver.entry(object)
}

class StorPortDriver {
  readonly #kernel: Kernel
  readonly #make: MakeMiniport
  readonly #added: AdapterAdded

  constructor(kernel: Kernel, make: MakeMiniport, added: AdapterAdded) {
    this.#kernel = kernel
    this.#make = make
    this.#added = added
  }

  entry(driver: DriverObject): NtStatus {
    const kernel = this.#kernel
    const set = (major: Major, routine: (device: DeviceObject, irp: Irp) => NtStatus | Waiting): void =>
      driver.setMajorFunction(major, kernel.routine(routine))
    driver.addDevice = kernel.routine((object: DriverObject, pdo: DeviceObject) => this.#add(object, pdo))
    driver.unload = kernel.routine(() => undefined)
    set(Major.INTERNAL_DEVICE_CONTROL, (device, irp) => this.#scsi(device, irp))
    set(Major.DEVICE_CONTROL, (device, irp) => this.#control(device, irp))
    set(Major.PNP, (device, irp) => this.#plugAndPlay(device, irp))
    for (const major of [Major.CREATE, Major.CLOSE, Major.CLEANUP]) {
      set(major, (_device, irp) => this.#complete(irp, NtStatus.SUCCESS))
    }
    // A unit's PDO has the last word; what it does not know keeps the status it came with.
    for (const major of [Major.POWER, Major.SYSTEM_CONTROL]) {
      set(major, (device, irp) => {
        const own = extensionOf(device)
        return own.kind === 'adapter' ? own.pass(irp) : this.#complete(irp, irp.status)
      })
    }
    return NtStatus.SUCCESS
  }

  /** AddDevice: the adapter's FDO on top of what its bus found. */
  #add(driver: DriverObject, pdo: DeviceObject): NtStatus {
    const kernel = this.#kernel
    const device = kernel.ioCreateDevice(driver, { type: DeviceType.CONTROLLER })
    if (typeof device === 'number') return device
    const lower = kernel.ioAttachDeviceToDeviceStack(device, pdo)
    if (lower === null) {
      kernel.ioDeleteDevice(device)
      return NtStatus.NO_SUCH_DEVICE
    }
    const adapter = Adapter.create(kernel)
    if (adapter === null) {
      kernel.ioDetachDevice(lower)
      kernel.ioDeleteDevice(device)
      return NtStatus.INSUFFICIENT_RESOURCES
    }
    device.extension = new AdapterDevice(adapter, this.#make, device, pdo, lower)
    device.flags |= lower.flags & DeviceFlag.POWER_PAGABLE
    device.flags &= ~DeviceFlag.DEVICE_INITIALIZING
    this.#added(adapter, pdo)
    return NtStatus.SUCCESS
  }

  #scsi(device: DeviceObject, irp: Irp): NtStatus {
    const own = extensionOf(device)
    if (own.kind !== 'unit') return this.#complete(irp, NtStatus.INVALID_DEVICE_REQUEST)
    return own.parent.requests.dispatch(own.unit, irp)
  }

  #control(device: DeviceObject, irp: Irp): NtStatus {
    const own = extensionOf(device)
    const started = own.kind === 'unit' ? own.parent.started : null
    if (own.kind !== 'unit' || started === null) return this.#complete(irp, NtStatus.INVALID_DEVICE_REQUEST)
    return controlUnit(this.#kernel, started.configuration, own.unit, irp)
  }

  #plugAndPlay(device: DeviceObject, irp: Irp): NtStatus | Waiting {
    const own = extensionOf(device)
    return own.kind === 'adapter' ? own.plugAndPlay(irp) : own.plugAndPlay(this.#kernel, irp)
  }

  #complete(irp: Irp, status: NtStatus): NtStatus {
    irp.status = status
    this.#kernel.ioCompleteRequest(irp)
    return status
  }
}

function extensionOf(device: DeviceObject): AdapterDevice | UnitDevice {
  const { extension } = device
  if (extension instanceof AdapterDevice || extension instanceof UnitDevice) return extension
  throw new Error('a device of a port driver without its extension')
}
