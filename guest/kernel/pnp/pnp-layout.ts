import { array, bytes, le16, le32, le64, struct, tail, u8 } from '../../../protocol/layout.ts'

/** DEVICE_CAPABILITIES, its bit field. */
export const CapabilityFlag = {
  DEVICE_D1: 1,
  DEVICE_D2: 2,
  LOCK_SUPPORTED: 4,
  EJECT_SUPPORTED: 8,
  REMOVABLE: 0x10,
  DOCK_DEVICE: 0x20,
  UNIQUE_ID: 0x40,
  SILENT_INSTALL: 0x80,
  RAW_DEVICE_OK: 0x100,
  SURPRISE_REMOVAL_OK: 0x200,
  WAKE_FROM_D0: 0x400,
  WAKE_FROM_D1: 0x800,
  WAKE_FROM_D2: 0x1000,
  WAKE_FROM_D3: 0x2000,
  HARDWARE_DISABLED: 0x4000,
  NON_DYNAMIC: 0x8000,
} as const

/** SYSTEM_POWER_STATE: unspecified, S0 … S5. */
export const SYSTEM_POWER_STATES = 7

export const DEVICE_CAPABILITIES = struct('DEVICE_CAPABILITIES', 'wdm.h', 64, {
  size: le16('of this'),
  version: le16('1'),
  flags: le32('what it can', { bits: CapabilityFlag }),
  address: le32('on its bus; all ones: unknown'),
  uiNumber: le32('slot as printed on the box; all ones: unknown'),
  deviceState: array(
    le32('DEVICE_POWER_STATE'),
    SYSTEM_POWER_STATES,
    'highest device state in each system state',
  ),
  systemWake: le32('SYSTEM_POWER_STATE'),
  deviceWake: le32('DEVICE_POWER_STATE'),
  d1Latency: le32('100 us'),
  d2Latency: le32('100 us'),
  d3Latency: le32('100 us'),
})

export const DEVICE_RELATIONS = struct('DEVICE_RELATIONS', 'wdm.h', 8, {
  count: le32('devices that follow'),
  gap: bytes(4, 'padding'),
  objects: tail(le64('DEVICE_OBJECT'), 'each with a reference'),
})

export const PNP_BUS_INFORMATION = struct('PNP_BUS_INFORMATION', 'wdm.h', 24, {
  busTypeGuid: bytes(16, 'GUID_BUS_TYPE_*'),
  legacyBusType: le32('INTERFACE_TYPE'),
  busNumber: le32('of that type'),
})

/** CM_RESOURCE_TYPE. */
export const ResourceType = { NULL: 0, PORT: 1, INTERRUPT: 2, MEMORY: 3, DMA: 4, BUS_NUMBER: 6 } as const
/** CM_SHARE_DISPOSITION. */
export const ShareDisposition = {
  UNDETERMINED: 0,
  DEVICE_EXCLUSIVE: 1,
  DRIVER_EXCLUSIVE: 2,
  SHARED: 3,
} as const
/** CM_RESOURCE_INTERRUPT_*. */
export const InterruptFlag = { LATCHED: 1 } as const
/** IO_RESOURCE_DESCRIPTOR.Option. */
export const ResourceOption = { PREFERRED: 1, DEFAULT: 2, ALTERNATIVE: 8 } as const
/** INTERFACE_TYPE, those in use. */
export const InterfaceType = { INTERNAL: 0, ISA: 1, PCI: 5, PNP: 15 } as const

/** Packed to 4 bytes; its 16 bytes of data are one of the two structures that follow. */
export const CM_PARTIAL_RESOURCE_DESCRIPTOR = struct('CM_PARTIAL_RESOURCE_DESCRIPTOR', 'wdm.h', 20, {
  type: u8('CM_RESOURCE_TYPE', { names: ResourceType }),
  shareDisposition: u8('CM_SHARE_DISPOSITION', { names: ShareDisposition }),
  flags: le16('by type'),
  data: bytes(16, 'by type'),
})

export const CM_RANGE_DATA = struct(
  'CM_PARTIAL_RESOURCE_DESCRIPTOR.u.Memory',
  'wdm.h',
  16,
  { start: le64('first address or port'), lengthBytes: le32('of it'), gap: bytes(4, 'unused') },
  { packed: true },
)

export const CM_INTERRUPT_DATA = struct(
  'CM_PARTIAL_RESOURCE_DESCRIPTOR.u.Interrupt',
  'wdm.h',
  16,
  {
    level: le32('line; translated: IRQL'),
    vector: le32('line; translated: vector'),
    affinity: le64('processors'),
  },
  { packed: true },
)

/** One list of one bus: what CM_RESOURCE_LIST holds when `count` is 1. */
export const CM_RESOURCE_LIST = struct('CM_RESOURCE_LIST', 'wdm.h', 20, {
  count: le32('full descriptors'),
  interfaceType: le32('INTERFACE_TYPE of the first'),
  busNumber: le32('of the first'),
  version: le16('1'),
  revision: le16('1'),
  partialCount: le32('partial descriptors of the first'),
  descriptors: tail(CM_PARTIAL_RESOURCE_DESCRIPTOR, 'of the first'),
})

export const IO_RESOURCE_DESCRIPTOR = struct('IO_RESOURCE_DESCRIPTOR', 'wdm.h', 32, {
  option: u8('preferred, alternative to the one before', { bits: ResourceOption }),
  type: u8('CM_RESOURCE_TYPE', { names: ResourceType }),
  shareDisposition: u8('CM_SHARE_DISPOSITION', { names: ShareDisposition }),
  spare1: u8('unused'),
  flags: le16('by type'),
  spare2: le16('unused'),
  data: bytes(24, 'by type'),
})

export const IO_RANGE_DATA = struct('IO_RESOURCE_DESCRIPTOR.u.Memory', 'wdm.h', 24, {
  lengthBytes: le32('wanted'),
  alignment: le32('of its start'),
  minimum: le64('lowest start'),
  maximum: le64('highest last address'),
})

export const IO_INTERRUPT_DATA = struct('IO_RESOURCE_DESCRIPTOR.u.Interrupt', 'wdm.h', 24, {
  minimum: le32('lowest line'),
  maximum: le32('highest line'),
  gap: bytes(16, 'affinity, unused'),
})

export const IO_RESOURCE_LIST = struct('IO_RESOURCE_LIST', 'wdm.h', 8, {
  version: le16('1'),
  revision: le16('1'),
  count: le32('descriptors'),
  descriptors: tail(IO_RESOURCE_DESCRIPTOR, 'requirements'),
})

export const IO_RESOURCE_REQUIREMENTS_LIST = struct('IO_RESOURCE_REQUIREMENTS_LIST', 'wdm.h', 32, {
  listSize: le32('bytes of all'),
  interfaceType: le32('INTERFACE_TYPE'),
  busNumber: le32('of that type'),
  slotNumber: le32('on the bus'),
  reserved: bytes(12, 'unused'),
  alternativeLists: le32('IO_RESOURCE_LISTs that follow, best first'),
})
