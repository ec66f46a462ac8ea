import { array, bytes, le16, le32, le64, nested, struct, tail, u8 } from '../../../protocol/layout.ts'
import { Access, controlCode, Method } from '../../kernel/io-control.ts'
import { DeviceType } from '../../kernel/io-layout.ts'

const { BUFFERED } = Method
const { DISK, MASS_STORAGE, CONTROLLER } = DeviceType
const READ_WRITE = Access.READ | Access.WRITE

/** Control codes of disks (ntdddisk.h, ntddstor.h, ntddscsi.h). */
export const Ioctl = {
  DISK_GET_DRIVE_GEOMETRY: controlCode(DISK, 0x00, BUFFERED, Access.ANY),
  DISK_GET_PARTITION_INFO: controlCode(DISK, 0x01, BUFFERED, Access.READ),
  DISK_VERIFY: controlCode(DISK, 0x05, BUFFERED, Access.ANY),
  DISK_IS_WRITABLE: controlCode(DISK, 0x09, BUFFERED, Access.ANY),
  DISK_GET_PARTITION_INFO_EX: controlCode(DISK, 0x12, BUFFERED, Access.ANY),
  DISK_GET_DRIVE_LAYOUT_EX: controlCode(DISK, 0x14, BUFFERED, Access.ANY),
  DISK_GET_LENGTH_INFO: controlCode(DISK, 0x17, BUFFERED, Access.READ),
  DISK_GET_DRIVE_GEOMETRY_EX: controlCode(DISK, 0x28, BUFFERED, Access.ANY),
  DISK_UPDATE_PROPERTIES: controlCode(DISK, 0x50, BUFFERED, Access.ANY),
  DISK_CHECK_VERIFY: controlCode(DISK, 0x200, BUFFERED, Access.READ),
  STORAGE_CHECK_VERIFY: controlCode(MASS_STORAGE, 0x200, BUFFERED, Access.READ),
  STORAGE_CHECK_VERIFY2: controlCode(MASS_STORAGE, 0x200, BUFFERED, Access.ANY),
  STORAGE_GET_DEVICE_NUMBER: controlCode(MASS_STORAGE, 0x420, BUFFERED, Access.ANY),
  STORAGE_QUERY_PROPERTY: controlCode(MASS_STORAGE, 0x500, BUFFERED, Access.ANY),
  STORAGE_MANAGE_DATA_SET_ATTRIBUTES: controlCode(MASS_STORAGE, 0x501, BUFFERED, Access.WRITE),
  SCSI_PASS_THROUGH: controlCode(CONTROLLER, 0x401, BUFFERED, READ_WRITE),
  SCSI_PASS_THROUGH_DIRECT: controlCode(CONTROLLER, 0x405, BUFFERED, READ_WRITE),
} as const

/** MEDIA_TYPE of a disk. */
export const MediaType = { REMOVABLE: 11, FIXED: 12 } as const

/** PARTITION_STYLE. */
export const PartitionStyleCode = { MBR: 0, GPT: 1, RAW: 2 } as const

export const DISK_GEOMETRY = struct('DISK_GEOMETRY', 'ntdddisk.h', 24, {
  cylinders: le64('count'),
  mediaType: le32('MEDIA_TYPE', { names: MediaType }),
  tracksPerCylinder: le32('heads'),
  sectorsPerTrack: le32('count'),
  bytesPerSector: le32('bytes'),
})

export const DISK_PARTITION_INFO = struct('DISK_PARTITION_INFO', 'ntdddisk.h', 24, {
  sizeOfPartitionInfo: le32('24'),
  partitionStyle: le32('PARTITION_STYLE', { names: PartitionStyleCode }),
  diskId: bytes(16, 'GPT: the disk’s GUID; MBR: its signature in the first four bytes'),
})

export const DISK_DETECTION_INFO = struct('DISK_DETECTION_INFO', 'ntdddisk.h', 56, {
  sizeOfDetectInfo: le32('56'),
  detectionType: le32('0: the firmware said nothing'),
  int13: bytes(48, 'what it said'),
})

export const DISK_GEOMETRY_EX = struct('DISK_GEOMETRY_EX', 'ntdddisk.h', 112, {
  geometry: nested(DISK_GEOMETRY, 'as the firmware would see it'),
  diskSize: le64('bytes'),
  partition: nested(DISK_PARTITION_INFO, 'only with room for it'),
  detection: nested(DISK_DETECTION_INFO, 'only with room for it'),
})
/** Bytes of DISK_GEOMETRY_EX before its variable part: the least an application may ask for. */
export const GEOMETRY_EX_FIXED_BYTES = 32

export const GET_LENGTH_INFORMATION = struct('GET_LENGTH_INFORMATION', 'ntdddisk.h', 8, {
  length: le64('bytes'),
})

export const PARTITION_INFORMATION = struct('PARTITION_INFORMATION', 'ntdddisk.h', 32, {
  startingOffset: le64('bytes'),
  partitionLength: le64('bytes'),
  hiddenSectors: le32('sectors in front of it'),
  partitionNumber: le32('from 1; 0 for the disk'),
  partitionType: u8('of the MBR'),
  bootIndicator: u8('boolean'),
  recognizedPartition: u8('boolean'),
  rewritePartition: u8('boolean'),
  tail: bytes(4, 'padding'),
})

export const PARTITION_INFORMATION_EX = struct('PARTITION_INFORMATION_EX', 'ntdddisk.h', 144, {
  partitionStyle: le32('PARTITION_STYLE', { names: PartitionStyleCode }),
  gap: bytes(4, 'padding'),
  startingOffset: le64('bytes'),
  partitionLength: le64('bytes'),
  partitionNumber: le32('from 1; 0 for the disk'),
  rewritePartition: u8('boolean'),
  rewriteGap: bytes(3, 'padding'),
  information: bytes(112, 'PARTITION_INFORMATION_MBR or PARTITION_INFORMATION_GPT'),
})

export const PARTITION_INFORMATION_MBR = struct('PARTITION_INFORMATION_MBR', 'ntdddisk.h (6.1)', 8, {
  partitionType: u8('of the MBR'),
  bootIndicator: u8('boolean'),
  recognizedPartition: u8('boolean'),
  gap: bytes(1, 'padding'),
  hiddenSectors: le32('sectors in front of it'),
})

export const PARTITION_INFORMATION_GPT = struct('PARTITION_INFORMATION_GPT', 'ntdddisk.h', 112, {
  partitionType: bytes(16, 'GUID'),
  partitionId: bytes(16, 'GUID'),
  attributes: le64('of the entry'),
  name: array(le16('UTF-16 unit'), 36, 'padded with zeros'),
})

export const DRIVE_LAYOUT_INFORMATION_EX = struct('DRIVE_LAYOUT_INFORMATION_EX', 'ntdddisk.h', 48, {
  partitionStyle: le32('PARTITION_STYLE', { names: PartitionStyleCode }),
  partitionCount: le32('entries'),
  diskId: bytes(16, 'GPT: the disk’s GUID; MBR: its signature in the first four bytes'),
  startingUsableOffset: le64('GPT: bytes'),
  usableLength: le64('GPT: bytes'),
  maxPartitionCount: le32('GPT: entries of the table'),
  gap: bytes(4, 'padding'),
  partitionEntry: tail(PARTITION_INFORMATION_EX, 'partitions'),
})

export const VERIFY_INFORMATION = struct('VERIFY_INFORMATION', 'ntdddisk.h', 16, {
  startingOffset: le64('bytes'),
  length: le32('bytes'),
  tail: bytes(4, 'padding'),
})

export const STORAGE_DEVICE_NUMBER = struct('STORAGE_DEVICE_NUMBER', 'ntddstor.h', 12, {
  deviceType: le32('FILE_DEVICE_*'),
  deviceNumber: le32('of the disk'),
  partitionNumber: le32('from 1; 0 for the disk'),
})

/** DEVICE_DATA_MANAGEMENT_SET_ACTION. */
export const DsmAction = { TRIM: 1 } as const

export const DEVICE_MANAGE_DATA_SET_ATTRIBUTES = struct(
  'DEVICE_MANAGE_DATA_SET_ATTRIBUTES',
  'ntddstor.h (6.1)',
  28,
  {
    size: le32('28'),
    action: le32('what to do', { names: DsmAction }),
    flags: le32('bit 0: the whole disk'),
    parameterBlockOffset: le32('bytes from here'),
    parameterBlockLength: le32('bytes'),
    dataSetRangesOffset: le32('bytes from here'),
    dataSetRangesLength: le32('bytes'),
  },
)

export const DEVICE_DATA_SET_RANGE = struct('DEVICE_DATA_SET_RANGE', 'ntddstor.h (6.1)', 16, {
  startingOffset: le64('bytes'),
  lengthInBytes: le64('bytes'),
})

/** Which way SCSI_PASS_THROUGH moves data. */
export const PassThroughData = { OUT: 0, IN: 1, UNSPECIFIED: 2 } as const

/** SCSI_PASS_THROUGH and, with a pointer instead of an offset, SCSI_PASS_THROUGH_DIRECT; 64-bit layout. */
export const SCSI_PASS_THROUGH = struct('SCSI_PASS_THROUGH', 'ntddscsi.h, x64', 56, {
  length: le16('56'),
  scsiStatus: u8('of the target'),
  pathId: u8('bus'),
  targetId: u8('target'),
  lun: u8('logical unit'),
  cdbLength: u8('bytes of the command'),
  senseInfoLength: u8('room for sense data, then bytes of it'),
  dataIn: u8('direction', { names: PassThroughData }),
  gap: bytes(3, 'padding'),
  dataTransferLength: le32('bytes asked for, then bytes moved'),
  timeOutValue: le32('seconds'),
  timeGap: bytes(4, 'padding'),
  data: le64('offset from here; DIRECT: address'),
  senseInfoOffset: le32('bytes from here'),
  cdb: bytes(16, 'the command'),
  tail: bytes(4, 'padding'),
})
