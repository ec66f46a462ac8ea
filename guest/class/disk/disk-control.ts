import type { Window } from '../../../protocol/window.ts'
import { DeviceFlag, DeviceType } from '../../kernel/io-layout.ts'
import type { Irp } from '../../kernel/irp.ts'
import { NtStatus, ntSuccess } from '../../kernel/nt-status.ts'
import { settled, type Waiting } from '../../kernel/thread.ts'
import { EVENT_NOTIFICATION, STORAGE_EVENT_NOTIFICATION } from '../../port/storage-property.ts'
import { Cdb } from './cdb.ts'
import type { Disk } from './disk.ts'
import { geometry, geometryEx, layoutEx, partitionInfo, partitionInfoEx } from './disk-description.ts'
import { queryProperty } from './disk-property.ts'
import { trim } from './disk-trim.ts'
import {
  DISK_GEOMETRY,
  GEOMETRY_EX_FIXED_BYTES,
  GET_LENGTH_INFORMATION,
  Ioctl,
  PARTITION_INFORMATION,
  PARTITION_INFORMATION_EX,
  STORAGE_DEVICE_NUMBER,
  VERIFY_INFORMATION,
} from './ioctl.ts'
import type { PartitionDevice } from './partition-device.ts'
import { passThrough } from './pass-through.ts'

/** What a control answers: a status, and bytes of the output buffer. */
export interface ControlAnswer {
  readonly status: NtStatus
  readonly information: number
}

export function answered(status: NtStatus, information = 0): ControlAnswer {
  return { status, information }
}

/** One device control under way: its buffer in kernel memory and its two lengths, checked as it is read. */
export interface Control {
  readonly disk: Disk
  readonly irp: Irp
  readonly window: Window
  /** SystemBuffer. */
  readonly at: number
  readonly inputBytes: number
  readonly outputBytes: number
}

/** IRP_MJ_DEVICE_CONTROL at the disk. What it does not know goes down. */
export function* controlDisk(disk: Disk, irp: Irp): Waiting {
  const refused = disk.enter()
  if (refused !== null) return disk.complete(irp, refused)
  const answer = yield* serve(disk, irp)
  disk.lock.release()
  if (answer !== null) return disk.complete(irp, answer.status, answer.information)
  disk.kernel.ioSkipCurrentIrpStackLocation(irp)
  return yield* settled(disk.kernel.ioCallDriver(disk.lower, irp))
}

/** The same at a partition: what is different there; the rest is the disk's. */
export function* controlPartition(device: PartitionDevice, irp: Irp): Waiting {
  const { disk, partition } = device
  const refused = device.gone ? NtStatus.NO_SUCH_DEVICE : disk.enter()
  if (refused !== null) return disk.complete(irp, refused)
  const control = controlOf(disk, irp)
  const answer = yield* servePartition(control, device)
  disk.lock.release()
  if (answer !== null) return disk.complete(irp, answer.status, answer.information)
  if (irp.current.ioControlCode !== Ioctl.DISK_VERIFY) return yield* settled(device.pass(irp))
  // The offset is the partition's: the disk below counts from its own start.
  const { window, at } = control
  const offset = window.le64(VERIFY_INFORMATION.startingOffset, at)
  window.putLe64(VERIFY_INFORMATION.startingOffset, offset + partition.startBytes, at)
  return yield* settled(device.pass(irp))
}

function controlOf(disk: Disk, irp: Irp): Control {
  const { current, systemBuffer } = irp
  return {
    disk,
    irp,
    window: disk.kernel.parts.memory.window,
    at: systemBuffer,
    inputBytes: current.inputBufferLengthBytes,
    outputBytes: current.outputBufferLengthBytes,
  }
}

function* serve(disk: Disk, irp: Irp): Waiting<ControlAnswer | null> {
  const control = controlOf(disk, irp)
  switch (irp.current.ioControlCode) {
    case Ioctl.DISK_GET_DRIVE_GEOMETRY:
      return yield* measured(control, DISK_GEOMETRY.$size, geometry)
    case Ioctl.DISK_GET_DRIVE_GEOMETRY_EX:
      return yield* measured(control, GEOMETRY_EX_FIXED_BYTES, geometryEx)
    case Ioctl.DISK_GET_LENGTH_INFO:
      return yield* measured(control, GET_LENGTH_INFORMATION.$size, lengthInfo)
    case Ioctl.DISK_GET_DRIVE_LAYOUT_EX:
      return layoutEx(control)
    case Ioctl.DISK_GET_PARTITION_INFO:
      return described(control, PARTITION_INFORMATION.$size, () => partitionInfo(control, null))
    case Ioctl.DISK_GET_PARTITION_INFO_EX:
      return described(control, PARTITION_INFORMATION_EX.$size, () => partitionInfoEx(control, null))
    case Ioctl.DISK_IS_WRITABLE:
      return answered(disk.facts.readOnly ? NtStatus.MEDIA_WRITE_PROTECTED : NtStatus.SUCCESS)
    case Ioctl.DISK_VERIFY:
      return yield* verify(control)
    case Ioctl.DISK_UPDATE_PROPERTIES:
      return answered(yield* disk.look(true))
    case Ioctl.DISK_CHECK_VERIFY:
    case Ioctl.STORAGE_CHECK_VERIFY:
    case Ioctl.STORAGE_CHECK_VERIFY2:
      return yield* checkVerify(control)
    case EVENT_NOTIFICATION:
      return eventNotified(control)
    case Ioctl.STORAGE_GET_DEVICE_NUMBER:
      return described(control, STORAGE_DEVICE_NUMBER.$size, () => deviceNumber(control, 0))
    case Ioctl.STORAGE_QUERY_PROPERTY:
      return queryProperty(control)
    case Ioctl.STORAGE_MANAGE_DATA_SET_ATTRIBUTES:
      return yield* trim(control)
    case Ioctl.SCSI_PASS_THROUGH:
      return yield* passThrough(control, false)
    case Ioctl.SCSI_PASS_THROUGH_DIRECT:
      return yield* passThrough(control, true)
    default:
      return null
  }
}

function* servePartition(control: Control, device: PartitionDevice): Waiting<ControlAnswer | null> {
  const { partition } = device
  const { window, at, inputBytes } = control
  switch (control.irp.current.ioControlCode) {
    case Ioctl.DISK_GET_LENGTH_INFO:
      return described(control, GET_LENGTH_INFORMATION.$size, () => {
        window.putLe64(GET_LENGTH_INFORMATION.length, partition.lengthBytes, at)
        return GET_LENGTH_INFORMATION.$size
      })
    case Ioctl.DISK_GET_PARTITION_INFO:
      return described(control, PARTITION_INFORMATION.$size, () => partitionInfo(control, partition))
    case Ioctl.DISK_GET_PARTITION_INFO_EX:
      return described(control, PARTITION_INFORMATION_EX.$size, () => partitionInfoEx(control, partition))
    case Ioctl.STORAGE_GET_DEVICE_NUMBER:
      return described(control, STORAGE_DEVICE_NUMBER.$size, () => deviceNumber(control, partition.number))
    case Ioctl.DISK_VERIFY: {
      if (inputBytes < VERIFY_INFORMATION.$size) return answered(NtStatus.INFO_LENGTH_MISMATCH)
      const offset = window.le64(VERIFY_INFORMATION.startingOffset, at)
      const length = window.le32(VERIFY_INFORMATION.length, at)
      return offset <= partition.lengthBytes && length <= partition.lengthBytes - offset
        ? null
        : answered(NtStatus.INVALID_PARAMETER)
    }
    // Ranges and commands are the disk's: through a partition nobody gets past its ends.
    case Ioctl.STORAGE_MANAGE_DATA_SET_ATTRIBUTES:
    case Ioctl.SCSI_PASS_THROUGH:
    case Ioctl.SCSI_PASS_THROUGH_DIRECT:
      return answered(NtStatus.INVALID_DEVICE_REQUEST)
    default:
      return null
  }
}

/** An answer of fixed size: BUFFER_TOO_SMALL without room for all of it. */
function described(control: Control, needed: number, fill: () => number | NtStatus): ControlAnswer {
  if (control.outputBytes < needed) return answered(NtStatus.BUFFER_TOO_SMALL)
  const filled = fill()
  return filled > control.outputBytes ? answered(filled as NtStatus) : answered(NtStatus.SUCCESS, filled)
}

/** An answer about the size, which is read again first: the disk may have grown. */
function* measured(
  control: Control,
  needed: number,
  fill: (control: Control) => number,
): Waiting<ControlAnswer> {
  if (control.outputBytes < needed) return answered(NtStatus.BUFFER_TOO_SMALL)
  const status = yield* control.disk.look(false)
  return ntSuccess(status) ? answered(status, fill(control)) : answered(status)
}

function lengthInfo({ disk, window, at }: Control): number {
  window.putLe64(GET_LENGTH_INFORMATION.length, disk.lengthBytes, at)
  return GET_LENGTH_INFORMATION.$size
}

function deviceNumber({ disk, window, at }: Control, partition: number): number {
  window.putLe32(STORAGE_DEVICE_NUMBER.deviceType, DeviceType.DISK, at)
  window.putLe32(STORAGE_DEVICE_NUMBER.deviceNumber, disk.number, at)
  window.putLe32(STORAGE_DEVICE_NUMBER.partitionNumber, partition, at)
  return STORAGE_DEVICE_NUMBER.$size
}

/** The target looks at the medium; nothing is compared. */
function* verify({ disk, window, at, inputBytes }: Control): Waiting<ControlAnswer> {
  if (inputBytes < VERIFY_INFORMATION.$size) return answered(NtStatus.INFO_LENGTH_MISMATCH)
  const offset = window.le64(VERIFY_INFORMATION.startingOffset, at)
  const length = window.le32(VERIFY_INFORMATION.length, at)
  const { sectorBytes } = disk.facts
  const inside = offset <= disk.lengthBytes && length <= disk.lengthBytes - offset
  if (!inside || offset % sectorBytes !== 0 || length % sectorBytes !== 0) {
    return answered(NtStatus.INVALID_PARAMETER)
  }
  if (length === 0) return answered(NtStatus.SUCCESS)
  const lba = offset / sectorBytes
  const { status } = yield* disk.command({
    cdb: (cdb, base) => Cdb.verify(cdb, base, lba, length / sectorBytes),
  })
  return answered(status)
}

/** The port says that something happened to the medium or the unit: a fixed disk may have another size. */
function eventNotified({ disk, irp, window, at, inputBytes }: Control): ControlAnswer {
  // From below only: what an application says of the device is no news of it.
  if (irp.requestorMode !== 0) return answered(NtStatus.ACCESS_DENIED)
  if (inputBytes < STORAGE_EVENT_NOTIFICATION.$size) return answered(NtStatus.INVALID_PARAMETER)
  const events = window.le64(STORAGE_EVENT_NOTIFICATION.events, at)
  if (events % 4 !== 0 && !disk.removable) disk.capacityChanged()
  return answered(NtStatus.SUCCESS)
}

/** TEST UNIT READY; a medium that answers is looked at anew. With room, how often it was changed. */
function* checkVerify({ disk, window, at, outputBytes }: Control): Waiting<ControlAnswer> {
  if (outputBytes > 0 && outputBytes < 4) return answered(NtStatus.BUFFER_TOO_SMALL)
  const { status } = yield* disk.command({ cdb: Cdb.testUnitReady })
  if (!ntSuccess(status)) return answered(status)
  if (disk.verifying) {
    disk.fdo.flags &= ~DeviceFlag.VERIFY_VOLUME
    const medium = yield* disk.look(true)
    if (!ntSuccess(medium)) return answered(medium)
  }
  if (outputBytes >= 4) window.putLe32(0 as never, disk.mediaChanges, at)
  return answered(status, outputBytes >= 4 ? 4 : 0)
}
