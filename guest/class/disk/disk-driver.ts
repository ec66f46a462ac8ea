import type { DeviceObject } from '../../kernel/device-object.ts'
import type { DriverEntry, DriverObject } from '../../kernel/driver-object.ts'
import { DeviceCharacteristic, DeviceFlag, DeviceType, Major } from '../../kernel/io-layout.ts'
import type { Irp } from '../../kernel/irp.ts'
import type { Kernel } from '../../kernel/kernel.ts'
import { NtStatus } from '../../kernel/nt-status.ts'
import { InterfaceClass } from '../../kernel/pnp/device-interface.ts'
import type { Waiting } from '../../kernel/thread.ts'
import { SrbFunction } from '../../port/srb.ts'
import { Cdb } from './cdb.ts'
import { Disk } from './disk.ts'
import { controlDisk, controlPartition } from './disk-control.ts'
import { plugAndPlay } from './disk-pnp.ts'
import { PartitionDevice } from './partition-device.ts'

/** DriverEntry of disk.sys: the class driver of disks, whatever carries their SCSI commands. */
export function diskDriver(kernel: Kernel): DriverEntry {
  const driver = new DiskDriver(kernel)
  return (object) => driver.entry(object)
}

class DiskDriver {
  readonly #kernel: Kernel

  constructor(kernel: Kernel) {
    this.#kernel = kernel
  }

  entry(driver: DriverObject): NtStatus {
    const kernel = this.#kernel
    driver.addDevice = kernel.routine((object: DriverObject, pdo: DeviceObject) => this.#add(object, pdo))
    driver.unload = kernel.routine(() => undefined)
    const set = (major: Major, routine: (device: DeviceObject, irp: Irp) => NtStatus | Waiting): void =>
      driver.setMajorFunction(major, kernel.routine(routine))
    const transfer = (device: DeviceObject, irp: Irp) => extensionOf(device).transfer(irp)
    set(Major.READ, transfer)
    set(Major.WRITE, transfer)
    set(Major.FLUSH_BUFFERS, (device, irp) => passOr(device, irp, (disk) => disk.transfer(irp)))
    set(Major.DEVICE_CONTROL, (device, irp) => {
      const extension = extensionOf(device)
      return extension.kind === 'disk' ? controlDisk(extension, irp) : controlPartition(extension, irp)
    })
    set(Major.SHUTDOWN, (device, irp) => passOr(device, irp, (disk) => shutDown(disk, irp)))
    // SRBs of whoever stands above: they are the port's.
    set(Major.INTERNAL_DEVICE_CONTROL, (device, irp) => passOr(device, irp, (disk) => passDown(disk, irp)))
    for (const major of [Major.POWER, Major.SYSTEM_CONTROL]) {
      set(major, (device, irp) => {
        const extension = extensionOf(device)
        return extension.kind === 'disk' ? passDown(extension, irp) : invalid(extension, irp)
      })
    }
    set(Major.PNP, (device, irp) => {
      const extension = extensionOf(device)
      return extension.kind === 'disk' ? plugAndPlay(extension, irp) : invalid(extension, irp)
    })
    set(Major.CREATE, (device, irp) => open(device, irp))
    for (const major of [Major.CLOSE, Major.CLEANUP]) {
      set(major, (device, irp) => diskOf(device).complete(irp, NtStatus.SUCCESS))
    }
    return NtStatus.SUCCESS
  }

  /** AddDevice: an FDO on top of the unit's stack, with the name of the first free number. */
  #add(driver: DriverObject, pdo: DeviceObject): NtStatus {
    const kernel = this.#kernel
    const number = this.#freeNumber(driver)
    const directory = `\\Device\\Harddisk${number}`
    const fdo = kernel.ioCreateDevice(driver, { name: `${directory}\\DR${number}`, type: DeviceType.DISK })
    if (typeof fdo === 'number') return fdo
    const lower = kernel.ioAttachDeviceToDeviceStack(fdo, pdo)
    if (lower === null) {
      kernel.ioDeleteDevice(fdo)
      return NtStatus.NO_SUCH_DEVICE
    }
    const disk = Disk.create(kernel, number, fdo, lower)
    if (disk === null) {
      kernel.ioDetachDevice(lower)
      kernel.ioDeleteDevice(fdo)
      return NtStatus.INSUFFICIENT_RESOURCES
    }
    fdo.extension = disk
    const link = kernel.pnp.interfaces.register(pdo, InterfaceClass.DISK)
    disk.interfaceLink = typeof link === 'string' ? link : null
    fdo.characteristics |= DeviceCharacteristic.DEVICE_SECURE_OPEN
    fdo.flags |= DeviceFlag.DIRECT_IO | (lower.flags & DeviceFlag.POWER_PAGABLE)
    const links = [
      `${directory}\\Partition0`,
      `\\??\\PhysicalDrive${number}`,
      `\\??\\Harddisk${number}Partition0`,
    ]
    disk.links = links
    for (const link of links) kernel.ioCreateSymbolicLink(link, `${directory}\\DR${number}`)
    fdo.flags &= ~DeviceFlag.DEVICE_INITIALIZING
    return NtStatus.SUCCESS
  }

  #freeNumber(driver: DriverObject): number {
    const taken = new Set<number>()
    for (const device of this.#kernel.parts.devices.devicesOf(driver)) {
      if (device.extension instanceof Disk) taken.add(device.extension.number)
    }
    let number = 0
    while (taken.has(number)) number++
    return number
  }
}

function extensionOf(device: DeviceObject): Disk | PartitionDevice {
  const { extension } = device
  if (extension instanceof Disk || extension instanceof PartitionDevice) return extension
  throw new Error('a device of the disk driver without its extension')
}

function diskOf(device: DeviceObject): Disk {
  const extension = extensionOf(device)
  return extension.kind === 'disk' ? extension : extension.disk
}

/** What a partition leaves to its disk. */
function passOr(device: DeviceObject, irp: Irp, own: (disk: Disk) => NtStatus | Waiting): NtStatus | Waiting {
  const extension = extensionOf(device)
  return extension.kind === 'disk' ? own(extension) : extension.pass(irp)
}

function passDown(disk: Disk, irp: Irp): NtStatus | Waiting {
  disk.kernel.ioSkipCurrentIrpStackLocation(irp)
  return disk.kernel.ioCallDriver(disk.lower, irp)
}

function invalid(extension: PartitionDevice, irp: Irp): NtStatus {
  return extension.disk.complete(irp, NtStatus.INVALID_DEVICE_REQUEST)
}

function open(device: DeviceObject, irp: Irp): NtStatus {
  const extension = extensionOf(device)
  const disk = diskOf(device)
  const gone = disk.gone || (extension.kind === 'partition' && extension.gone)
  return disk.complete(irp, gone ? NtStatus.NO_SUCH_DEVICE : NtStatus.SUCCESS)
}

/** IRP_MJ_SHUTDOWN: the cache is emptied, and the adapter told. */
function* shutDown(disk: Disk, irp: Irp): Waiting {
  const refused = disk.enter()
  if (refused !== null) return disk.complete(irp, refused)
  const timeoutSeconds = disk.timeoutSeconds * 4
  const flushed = disk.facts.writeCache
    ? (yield* disk.command({ cdb: Cdb.flush, timeoutSeconds })).status
    : NtStatus.SUCCESS
  const { status } = yield* disk.command({ function: SrbFunction.SHUTDOWN, timeoutSeconds })
  disk.lock.release()
  return disk.complete(irp, flushed === NtStatus.SUCCESS ? status : flushed)
}
