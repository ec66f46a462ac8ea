import { Asc, FixedSense, ScsiOp, ScsiStatus, SenseKey } from '../../../protocol/scsi.ts'
import type { Window } from '../../../protocol/window.ts'
import { NtStatus } from '../../kernel/nt-status.ts'
import { SrbStatus, SrbStatusBit } from '../../port/srb.ts'

/** A request as it came back from the port: bytes of the SRB, and sense data where there is some. */
export interface Returned {
  /** SrbStatus whole, flags included. */
  readonly srbStatus: number
  readonly scsiStatus: number
  /** What a port driver says beside INTERNAL_ERROR. */
  readonly internalStatus: NtStatus
  readonly opcode: number
  readonly askedBytes: number
  readonly movedBytes: number
  /** At least 14 bytes of fixed format sense; null where there is none. */
  readonly sense: Window | null
  readonly senseBase: number
  readonly removable: boolean
  /** DO_VERIFY_VOLUME: the medium has to be looked at again first. */
  readonly verifying: boolean
  /** Tries of this request before this one. */
  readonly tries: number
}

/** What a class driver makes of it. */
export interface Outcome {
  readonly status: NtStatus
  readonly retry: boolean
  /** Seconds to wait before it is tried again. */
  readonly delaySeconds: number
}

/** Tries of a transfer beyond the first, as classpnp's transfer packets have it. */
export const RETRIES = 8
const PHASE_RETRIES = 2
const ADDITIONAL = 13

const done = (status: NtStatus): Outcome => ({ status, retry: false, delaySeconds: 0 })
const again = (status: NtStatus, delaySeconds = 0): Outcome => ({ status, retry: true, delaySeconds })

const OK = done(NtStatus.SUCCESS)

/**
 * SRB status and sense data as NTSTATUS, and whether it is worth another try: ClassInterpretSenseInfo. A
 * retry past the limit is the caller's request's end, with the status given.
 */
export function outcomeOf(returned: Returned): Outcome {
  const outcome = judge(returned)
  return outcome.retry && returned.tries >= RETRIES ? done(outcome.status) : outcome
}

function judge(returned: Returned): Outcome {
  const status = returned.srbStatus & 0x3f
  if (status === SrbStatus.SUCCESS) return OK
  if ((returned.srbStatus & SrbStatusBit.AUTOSENSE_VALID) !== 0 && returned.sense !== null) {
    return ofSense(returned, returned.sense)
  }
  return ofSrb(returned, status)
}

function ofSrb(returned: Returned, status: number): Outcome {
  switch (status) {
    case SrbStatus.INVALID_LUN:
    case SrbStatus.INVALID_TARGET_ID:
    case SrbStatus.INVALID_PATH_ID:
    case SrbStatus.NO_DEVICE:
    case SrbStatus.NO_HBA:
      return done(NtStatus.NO_SUCH_DEVICE)
    case SrbStatus.SELECTION_TIMEOUT:
      return done(NtStatus.DEVICE_NOT_CONNECTED)
    case SrbStatus.INVALID_REQUEST:
      return done(NtStatus.INVALID_DEVICE_REQUEST)
    case SrbStatus.ABORTED:
    case SrbStatus.TIMEOUT:
    case SrbStatus.COMMAND_TIMEOUT:
      return again(NtStatus.IO_TIMEOUT)
    case SrbStatus.INTERNAL_ERROR:
      return returned.internalStatus === NtStatus.INSUFFICIENT_RESOURCES
        ? again(NtStatus.INSUFFICIENT_RESOURCES, 1)
        : again(NtStatus.IO_DEVICE_ERROR)
    case SrbStatus.BUSY:
      return again(NtStatus.DEVICE_BUSY, 1)
    case SrbStatus.DATA_OVERRUN:
      return isUnderrun(returned) ? OK : done(NtStatus.DATA_OVERRUN)
    case SrbStatus.PARITY_ERROR:
    case SrbStatus.UNEXPECTED_BUS_FREE:
    case SrbStatus.BUS_RESET:
      return again(NtStatus.IO_DEVICE_ERROR)
    case SrbStatus.PHASE_SEQUENCE_FAILURE:
      return returned.tries < PHASE_RETRIES ? again(NtStatus.IO_DEVICE_ERROR) : done(NtStatus.IO_DEVICE_ERROR)
    case SrbStatus.REQUEST_FLUSHED:
      return returned.verifying ? done(NtStatus.VERIFY_REQUIRED) : again(NtStatus.IO_DEVICE_ERROR)
    case SrbStatus.ERROR:
      if (returned.scsiStatus === ScsiStatus.RESERVATION_CONFLICT) return done(NtStatus.DEVICE_BUSY)
      if (returned.scsiStatus === ScsiStatus.BUSY) return again(NtStatus.DEVICE_NOT_READY, 1)
      return again(NtStatus.IO_DEVICE_ERROR)
    default:
      return again(NtStatus.IO_DEVICE_ERROR)
  }
}

/** Fewer bytes than there was room for are no error of the commands that ask what a device is. */
function isUnderrun({ opcode, askedBytes, movedBytes }: Returned): boolean {
  const informs =
    opcode === ScsiOp.INQUIRY || opcode === ScsiOp.MODE_SENSE_6 || opcode === ScsiOp.MODE_SENSE_10
  return informs && movedBytes <= askedBytes
}

function ofSense(returned: Returned, sense: Window): Outcome {
  const base = returned.senseBase
  const key = sense.u8(FixedSense.key, base) & 0x0f
  const has = base + ADDITIONAL < sense.lengthBytes
  const asc = has ? sense.u8(FixedSense.asc, base) << 8 : 0
  switch (key) {
    case SenseKey.NO_SENSE:
    case SenseKey.RECOVERED_ERROR:
      return OK
    case SenseKey.NOT_READY:
      return asc === Asc.MEDIUM_NOT_PRESENT
        ? done(NtStatus.NO_MEDIA_IN_DEVICE)
        : again(NtStatus.DEVICE_NOT_READY, 1)
    case SenseKey.MEDIUM_ERROR:
      return again(NtStatus.DEVICE_DATA_ERROR)
    case SenseKey.ILLEGAL_REQUEST:
      return done(ofIllegalRequest(asc))
    case SenseKey.UNIT_ATTENTION:
      return returned.removable ? done(NtStatus.VERIFY_REQUIRED) : again(NtStatus.IO_DEVICE_ERROR)
    case SenseKey.DATA_PROTECT:
      return done(NtStatus.MEDIA_WRITE_PROTECTED)
    case SenseKey.BLANK_CHECK:
      return done(NtStatus.NO_DATA_DETECTED)
    default:
      return again(NtStatus.IO_DEVICE_ERROR)
  }
}

function ofIllegalRequest(asc: number): NtStatus {
  if (asc === Asc.LBA_OUT_OF_RANGE) return NtStatus.NONEXISTENT_SECTOR
  return asc === Asc.LOGICAL_UNIT_NOT_SUPPORTED ? NtStatus.NO_SUCH_DEVICE : NtStatus.INVALID_DEVICE_REQUEST
}
