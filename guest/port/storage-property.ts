import { bytes, le16, le32, le64, struct, u8 } from '../../protocol/layout.ts'
import { Access, controlCode, Method } from '../kernel/io-control.ts'
import { DeviceType } from '../kernel/io-layout.ts'

/** IOCTL_STORAGE_QUERY_PROPERTY. */
export const QUERY_PROPERTY = controlCode(DeviceType.MASS_STORAGE, 0x500, Method.BUFFERED, Access.ANY)

/** IOCTL_STORAGE_EVENT_NOTIFICATION: a port driver tells who stands on a unit that something happened to it. */
export const EVENT_NOTIFICATION = controlCode(DeviceType.MASS_STORAGE, 0x305, Method.BUFFERED, Access.ANY)

/** Bits of STORAGE_EVENT_NOTIFICATION.Events. */
export const StorageEvent = { MEDIA_STATUS: 1, DEVICE_STATUS: 2, DEVICE_OPERATION: 4 } as const

export const STORAGE_EVENT_NOTIFICATION = struct('STORAGE_EVENT_NOTIFICATION', 'ntddstor.h (6.2)', 16, {
  version: le32('1'),
  size: le32('16'),
  events: le64('what happened', { bits: StorageEvent }),
})

/** STORAGE_PROPERTY_ID. */
export const StorageProperty = {
  DEVICE: 0,
  ADAPTER: 1,
  ACCESS_ALIGNMENT: 6,
  SEEK_PENALTY: 7,
  TRIM: 8,
} as const

/** STORAGE_QUERY_TYPE: the descriptor, or only whether there is one. */
export const StorageQuery = { STANDARD: 0, EXISTS: 1 } as const

/** STORAGE_BUS_TYPE. */
export const BusType = { SCSI: 1, ATA: 3, SAS: 10, SATA: 11, VIRTUAL: 14 } as const

export const STORAGE_PROPERTY_QUERY = struct('STORAGE_PROPERTY_QUERY', 'ntddstor.h', 12, {
  propertyId: le32('which property', { names: StorageProperty }),
  queryType: le32('what of it', { names: StorageQuery }),
  additional: bytes(4, 'parameters of some properties'),
})

/** STORAGE_DESCRIPTOR_HEADER: every descriptor begins with it. */
export const STORAGE_DESCRIPTOR_HEADER = struct('STORAGE_DESCRIPTOR_HEADER', 'ntddstor.h', 8, {
  version: le32('bytes of the fixed part'),
  size: le32('bytes of all of it'),
})

export const STORAGE_DEVICE_DESCRIPTOR = struct('STORAGE_DEVICE_DESCRIPTOR', 'ntddstor.h', 40, {
  version: le32('40'),
  size: le32('bytes with the strings'),
  deviceType: u8('SCSI peripheral device type'),
  deviceTypeModifier: u8('modifier'),
  removableMedia: u8('boolean'),
  commandQueueing: u8('boolean'),
  vendorIdOffset: le32('offset of a string, or 0'),
  productIdOffset: le32('offset of a string, or 0'),
  productRevisionOffset: le32('offset of a string, or 0'),
  serialNumberOffset: le32('offset of a string, or 0'),
  busType: le32('bus', { names: BusType }),
  rawPropertiesLength: le32('bytes behind the fixed part'),
  rawDeviceProperties: bytes(4, 'first of them, and padding'),
})

export const STORAGE_ADAPTER_DESCRIPTOR = struct('STORAGE_ADAPTER_DESCRIPTOR', 'ntddstor.h (6.1)', 32, {
  version: le32('32'),
  size: le32('32'),
  maximumTransferLength: le32('bytes of one request'),
  maximumPhysicalPages: le32('discontiguous pages of one request'),
  alignmentMask: le32('of buffers'),
  adapterUsesPio: u8('boolean'),
  adapterScansDown: u8('boolean'),
  commandQueueing: u8('boolean'),
  acceleratedTransfer: u8('boolean'),
  busType: u8('bus', { names: BusType }),
  gap: bytes(1, 'padding'),
  busMajorVersion: le16('of the bus'),
  busMinorVersion: le16('of the bus'),
  tail: bytes(2, 'padding'),
})

export const STORAGE_ACCESS_ALIGNMENT_DESCRIPTOR = struct(
  'STORAGE_ACCESS_ALIGNMENT_DESCRIPTOR',
  'ntddstor.h (6.0)',
  28,
  {
    version: le32('28'),
    size: le32('28'),
    bytesPerCacheLine: le32('bytes'),
    bytesOffsetForCacheAlignment: le32('bytes'),
    bytesPerLogicalSector: le32('bytes'),
    bytesPerPhysicalSector: le32('bytes'),
    bytesOffsetForSectorAlignment: le32('bytes from block 0 to the first aligned one'),
  },
)

/** DEVICE_SEEK_PENALTY_DESCRIPTOR and DEVICE_TRIM_DESCRIPTOR: one boolean each. */
export const DEVICE_BOOLEAN_DESCRIPTOR = struct('DEVICE_TRIM_DESCRIPTOR', 'ntddstor.h (6.1)', 12, {
  version: le32('12'),
  size: le32('12'),
  value: u8('boolean'),
  tail: bytes(3, 'padding'),
})
