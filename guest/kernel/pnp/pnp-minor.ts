/** IRP_MN_* of IRP_MJ_PNP (wdm.h). 0x0e and 0x18 are not used. */
export const PnpMinor = {
  START_DEVICE: 0x00,
  QUERY_REMOVE_DEVICE: 0x01,
  REMOVE_DEVICE: 0x02,
  CANCEL_REMOVE_DEVICE: 0x03,
  STOP_DEVICE: 0x04,
  QUERY_STOP_DEVICE: 0x05,
  CANCEL_STOP_DEVICE: 0x06,
  /** argument1: DeviceRelation. Information: DEVICE_RELATIONS in paged pool, a reference taken for each. */
  QUERY_DEVICE_RELATIONS: 0x07,
  QUERY_INTERFACE: 0x08,
  /** argument1: DEVICE_CAPABILITIES to fill in. */
  QUERY_CAPABILITIES: 0x09,
  /** Information: CM_RESOURCE_LIST in paged pool, or 0. */
  QUERY_RESOURCES: 0x0a,
  /** Information: IO_RESOURCE_REQUIREMENTS_LIST in paged pool, or 0. */
  QUERY_RESOURCE_REQUIREMENTS: 0x0b,
  /** argument1: DeviceText, argument2: language. Information: a text in paged pool. */
  QUERY_DEVICE_TEXT: 0x0c,
  /** argument1: IO_RESOURCE_REQUIREMENTS_LIST. Information: the list instead of it, in paged pool. */
  FILTER_RESOURCE_REQUIREMENTS: 0x0d,
  READ_CONFIG: 0x0f,
  WRITE_CONFIG: 0x10,
  EJECT: 0x11,
  /** argument1: whether to lock. */
  SET_LOCK: 0x12,
  /** argument1: BusQueryId. Information: a text, or a list of texts, in paged pool. */
  QUERY_ID: 0x13,
  /** Information: PnpDeviceState bits. */
  QUERY_PNP_DEVICE_STATE: 0x14,
  /** Information: PNP_BUS_INFORMATION in paged pool. */
  QUERY_BUS_INFORMATION: 0x15,
  /** argument1: whether into use, argument2: DeviceUsage. */
  DEVICE_USAGE_NOTIFICATION: 0x16,
  SURPRISE_REMOVAL: 0x17,
  DEVICE_ENUMERATED: 0x19,
} as const
export type PnpMinor = (typeof PnpMinor)[keyof typeof PnpMinor]

const NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(PnpMinor).map(([name, value]) => [value, name]),
)

/** The name without its prefix, or the number in hexadecimal. */
export function pnpMinorName(minor: number): string {
  return NAMES.get(minor) ?? `0x${minor.toString(16).padStart(2, '0')}`
}

/** DEVICE_RELATION_TYPE. */
export const DeviceRelation = {
  BUS: 0,
  EJECTION: 1,
  POWER: 2,
  REMOVAL: 3,
  TARGET_DEVICE: 4,
  SINGLE_BUS: 5,
} as const
export type DeviceRelation = (typeof DeviceRelation)[keyof typeof DeviceRelation]

/** BUS_QUERY_ID_TYPE. */
export const BusQueryId = {
  DEVICE_ID: 0,
  HARDWARE_IDS: 1,
  COMPATIBLE_IDS: 2,
  INSTANCE_ID: 3,
  DEVICE_SERIAL_NUMBER: 4,
  CONTAINER_ID: 5,
} as const
export type BusQueryId = (typeof BusQueryId)[keyof typeof BusQueryId]

/** DEVICE_TEXT_TYPE. */
export const DeviceText = { DESCRIPTION: 0, LOCATION_INFORMATION: 1 } as const
export type DeviceText = (typeof DeviceText)[keyof typeof DeviceText]

/** DEVICE_USAGE_NOTIFICATION_TYPE. */
export const DeviceUsage = { PAGING: 1, HIBERNATION: 2, DUMP_FILE: 3 } as const

/** PNP_DEVICE_STATE. */
export const PnpDeviceState = {
  DISABLED: 1,
  DONT_DISPLAY_IN_UI: 2,
  FAILED: 4,
  REMOVED: 8,
  RESOURCE_REQUIREMENTS_CHANGED: 0x10,
  NOT_DISABLEABLE: 0x20,
} as const

/** English, United States: the language of every text here. */
export const LANGUAGE = 0x409
