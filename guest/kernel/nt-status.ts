declare const STATUS: unique symbol
/** An NTSTATUS as an unsigned 32-bit number; branded so that a length or an SRB status is not taken for one. */
export type NtStatus = number & { readonly [STATUS]: true }

function status<const T extends { readonly [name: string]: number }>(
  values: T,
): { readonly [K in keyof T]: NtStatus } {
  return values as unknown as { readonly [K in keyof T]: NtStatus }
}

/** The values drivers use (ntstatus.h), without the STATUS_ prefix. */
export const NtStatus = status({
  SUCCESS: 0x00000000,
  WAIT_0: 0x00000000,
  WAIT_1: 0x00000001,
  WAIT_63: 0x0000003f,
  ABANDONED: 0x00000080,
  ABANDONED_WAIT_0: 0x00000080,
  USER_APC: 0x000000c0,
  KERNEL_APC: 0x00000100,
  ALERTED: 0x00000101,
  TIMEOUT: 0x00000102,
  PENDING: 0x00000103,
  REPARSE: 0x00000104,
  BUFFER_OVERFLOW: 0x80000005,
  NO_MORE_ENTRIES: 0x8000001a,
  DEVICE_POWERED_OFF: 0x8000000f,
  DEVICE_OFF_LINE: 0x80000010,
  DEVICE_BUSY: 0x80000011,
  VERIFY_REQUIRED: 0x80000016,
  BUS_RESET: 0x8000001d,
  MEDIA_CHECK: 0x80000020,
  NO_DATA_DETECTED: 0x80000022,
  UNSUCCESSFUL: 0xc0000001,
  NOT_IMPLEMENTED: 0xc0000002,
  INVALID_INFO_CLASS: 0xc0000003,
  INFO_LENGTH_MISMATCH: 0xc0000004,
  ACCESS_VIOLATION: 0xc0000005,
  INVALID_HANDLE: 0xc0000008,
  INVALID_CID: 0xc000000b,
  INVALID_PARAMETER: 0xc000000d,
  NO_SUCH_DEVICE: 0xc000000e,
  NO_SUCH_FILE: 0xc000000f,
  INVALID_DEVICE_REQUEST: 0xc0000010,
  END_OF_FILE: 0xc0000011,
  NO_MEDIA_IN_DEVICE: 0xc0000013,
  UNRECOGNIZED_MEDIA: 0xc0000014,
  NONEXISTENT_SECTOR: 0xc0000015,
  MORE_PROCESSING_REQUIRED: 0xc0000016,
  NO_MEMORY: 0xc0000017,
  ACCESS_DENIED: 0xc0000022,
  BUFFER_TOO_SMALL: 0xc0000023,
  OBJECT_TYPE_MISMATCH: 0xc0000024,
  OBJECT_NAME_EXISTS: 0x40000000,
  OBJECT_NAME_INVALID: 0xc0000033,
  OBJECT_NAME_NOT_FOUND: 0xc0000034,
  OBJECT_NAME_COLLISION: 0xc0000035,
  OBJECT_PATH_NOT_FOUND: 0xc000003a,
  DATA_OVERRUN: 0xc000003c,
  CRC_ERROR: 0xc000003f,
  SHARING_VIOLATION: 0xc0000043,
  MUTANT_NOT_OWNED: 0xc0000046,
  SEMAPHORE_LIMIT_EXCEEDED: 0xc0000047,
  THREAD_IS_TERMINATING: 0xc000004b,
  DELETE_PENDING: 0xc0000056,
  REVISION_MISMATCH: 0xc0000059,
  INSUFFICIENT_RESOURCES: 0xc000009a,
  DEVICE_DATA_ERROR: 0xc000009c,
  DEVICE_NOT_CONNECTED: 0xc000009d,
  DEVICE_POWER_FAILURE: 0xc000009e,
  MEDIA_WRITE_PROTECTED: 0xc00000a2,
  DEVICE_NOT_READY: 0xc00000a3,
  IO_TIMEOUT: 0xc00000b5,
  FILE_FORCED_CLOSED: 0xc00000b6,
  NOT_SUPPORTED: 0xc00000bb,
  DEVICE_DOES_NOT_EXIST: 0xc00000c0,
  ADAPTER_HARDWARE_ERROR: 0xc00000c2,
  INTERNAL_ERROR: 0xc00000e5,
  IMAGE_ALREADY_LOADED: 0xc000010e,
  CANCELLED: 0xc0000120,
  FILE_CLOSED: 0xc0000128,
  DEVICE_CONFIGURATION_ERROR: 0xc0000182,
  INVALID_DEVICE_STATE: 0xc0000184,
  IO_DEVICE_ERROR: 0xc0000185,
  TOO_LATE: 0xc0000189,
  INVALID_BUFFER_SIZE: 0xc0000206,
  NOT_FOUND: 0xc0000225,
  REQUEST_ABORTED: 0xc0000240,
  PLUGPLAY_NO_DEVICE: 0xc000025e,
  DRIVER_UNABLE_TO_LOAD: 0xc000026c,
  DEVICE_REMOVED: 0xc00002b6,
  POWER_STATE_INVALID: 0xc00002d3,
})

const NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(NtStatus)
    .reverse()
    .map(([name, value]) => [value, name]),
)

/** Any 32-bit value may be called a status: drivers invent their own. */
export function ntStatus(value: number): NtStatus {
  return (value >>> 0) as NtStatus
}

/** NT_SUCCESS: success or information. Warnings are not. */
export function ntSuccess(status: NtStatus): boolean {
  return status < 0x8000_0000
}

/** NT_INFORMATION, 0x4....... */
export function ntInformation(status: NtStatus): boolean {
  return status >>> 30 === 1
}

/** NT_WARNING, 0x8....... */
export function ntWarning(status: NtStatus): boolean {
  return status >>> 30 === 2
}

/** NT_ERROR, 0xC....... */
export function ntError(status: NtStatus): boolean {
  return status >= 0xc000_0000
}

/** The name, or the number in hexadecimal. */
export function ntStatusName(status: NtStatus): string {
  return NAMES.get(status) ?? `0x${status.toString(16).padStart(8, '0').toUpperCase()}`
}
