import { NtStatus } from '../../kernel/nt-status.ts'
import { SrbStatus } from '../srb.ts'

/** What a port driver makes of an SRB's status; the class driver looks at the SRB itself. */
export function portStatus(srbStatus: number): NtStatus {
  switch (srbStatus & 0x3f) {
    // This port's own word for one thing only; the SRB says it in InternalStatus.
    case SrbStatus.INTERNAL_ERROR:
      return NtStatus.INSUFFICIENT_RESOURCES
    case SrbStatus.SUCCESS:
      return NtStatus.SUCCESS
    case SrbStatus.TIMEOUT:
    case SrbStatus.COMMAND_TIMEOUT:
      return NtStatus.IO_TIMEOUT
    case SrbStatus.INVALID_REQUEST:
    case SrbStatus.BAD_FUNCTION:
      return NtStatus.INVALID_DEVICE_REQUEST
    case SrbStatus.NO_DEVICE:
    case SrbStatus.INVALID_LUN:
    case SrbStatus.INVALID_TARGET_ID:
    case SrbStatus.NO_HBA:
    case SrbStatus.INVALID_PATH_ID:
      return NtStatus.DEVICE_DOES_NOT_EXIST
    case SrbStatus.DATA_OVERRUN:
      return NtStatus.BUFFER_OVERFLOW
    case SrbStatus.SELECTION_TIMEOUT:
      return NtStatus.DEVICE_NOT_CONNECTED
    default:
      return NtStatus.IO_DEVICE_ERROR
  }
}
