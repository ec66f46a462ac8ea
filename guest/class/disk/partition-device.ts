import type { DeviceObject } from '../../kernel/device-object.ts'
import { DeviceFlag, DeviceType } from '../../kernel/io-layout.ts'
import type { Irp } from '../../kernel/irp.ts'
import { NtStatus } from '../../kernel/nt-status.ts'
import type { Waiting } from '../../kernel/thread.ts'
import type { Disk } from './disk.ts'
import type { Partition } from './partition-table.ts'

/** A partition as a device of its own: the extension of `\Device\Harddisk0\Partition1`. */
export class PartitionDevice {
  readonly kind = 'partition'
  readonly disk: Disk
  readonly device: DeviceObject
  readonly link: string
  partition: Partition
  /** The table does not name it any more. */
  gone: boolean

  constructor(disk: Disk, device: DeviceObject, link: string, partition: Partition) {
    this.disk = disk
    this.device = device
    this.link = link
    this.partition = partition
    this.gone = false
  }

  /** READ, WRITE: inside the partition, and so many bytes further on the disk. */
  transfer(irp: Irp): NtStatus | Waiting {
    const { disk, partition } = this
    if (this.gone || disk.gone) return disk.complete(irp, NtStatus.NO_SUCH_DEVICE)
    const { lengthBytes, byteOffset } = irp.current
    if (!(byteOffset >= 0 && lengthBytes <= partition.lengthBytes - byteOffset)) {
      return disk.complete(irp, NtStatus.INVALID_PARAMETER)
    }
    disk.kernel.ioCopyCurrentIrpStackLocationToNext(irp)
    irp.next.byteOffset = partition.startBytes + byteOffset
    return disk.kernel.ioCallDriver(this.target, irp)
  }

  /** Everything that is the same for the whole disk. */
  pass(irp: Irp): NtStatus | Waiting {
    const { disk } = this
    if (this.gone || disk.gone) return disk.complete(irp, NtStatus.NO_SUCH_DEVICE)
    disk.kernel.ioSkipCurrentIrpStackLocation(irp)
    return disk.kernel.ioCallDriver(this.target, irp)
  }

  /** The disk, with the filters that stand on it. */
  get target(): DeviceObject {
    return this.disk.kernel.ioGetAttachedDevice(this.disk.fdo)
  }
}

/**
 * Makes a device for each partition of the disk's table. One that is still where it was stays what it is, with
 * its open handles; one that changed or went is deleted once nobody has it open. False: one is not offered for
 * want of memory.
 */
export function publishPartitions(disk: Disk): boolean {
  const wanted = disk.gone ? [] : disk.table.partitions
  const kept: PartitionDevice[] = []
  for (const one of disk.partitions) {
    const same = wanted.find((partition) => samePlace(partition, one.partition))
    if (same === undefined) retire(one)
    else {
      one.partition = same
      one.device.sectorSize = disk.facts.sectorBytes
      kept.push(one)
    }
  }
  let complete = true
  for (const partition of wanted) {
    if (kept.some((one) => one.partition === partition)) continue
    const made = publish(disk, partition)
    if (made instanceof PartitionDevice) kept.push(made)
    else complete &&= made !== NtStatus.INSUFFICIENT_RESOURCES
  }
  disk.partitions = kept.sort((a, b) => a.partition.number - b.partition.number)
  return complete
}

function samePlace(a: Partition, b: Partition): boolean {
  return a.number === b.number && a.startBytes === b.startBytes && a.lengthBytes === b.lengthBytes
}

function publish(disk: Disk, partition: Partition): PartitionDevice | NtStatus {
  const { kernel, fdo } = disk
  const name = `\\Device\\Harddisk${disk.number}\\Partition${partition.number}`
  const device = kernel.ioCreateDevice(fdo.driver, { name, type: DeviceType.DISK })
  // Without memory, or with the name taken, the partition is not offered.
  if (typeof device === 'number') return device
  const link = `\\??\\Harddisk${disk.number}Partition${partition.number}`
  const made = new PartitionDevice(disk, device, link, partition)
  const top = kernel.ioGetAttachedDevice(fdo)
  device.extension = made
  device.flags |= DeviceFlag.DIRECT_IO
  device.stackSize = top.stackSize + 1
  device.alignmentRequirement = top.alignmentRequirement
  device.sectorSize = disk.facts.sectorBytes
  device.characteristics = fdo.characteristics
  kernel.ioCreateSymbolicLink(link, name)
  device.flags &= ~DeviceFlag.DEVICE_INITIALIZING
  return made
}

function retire(one: PartitionDevice): void {
  const { kernel } = one.disk
  one.gone = true
  kernel.ioDeleteSymbolicLink(one.link)
  kernel.ioDeleteDevice(one.device)
}

/** Takes all of a disk's partitions away. */
export function retirePartitions(disk: Disk): void {
  for (const one of disk.partitions) retire(one)
  disk.partitions = []
}
