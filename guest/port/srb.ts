import { bytes, le16, le32, le64, struct, u8 } from '../../protocol/layout.ts'
import type { Gpa, GuestMemory } from '../../protocol/memory.ts'
import { gpa } from '../../protocol/memory.ts'
import { Cursor } from '../../protocol/window.ts'
import { NtStatus } from '../kernel/nt-status.ts'

/** What an SRB asks for: `SRB_FUNCTION_…` of srb.h. */
export const SrbFunction = {
  EXECUTE_SCSI: 0x00,
  CLAIM_DEVICE: 0x01,
  IO_CONTROL: 0x02,
  RECEIVE_EVENT: 0x03,
  RELEASE_QUEUE: 0x04,
  ATTACH_DEVICE: 0x05,
  RELEASE_DEVICE: 0x06,
  SHUTDOWN: 0x07,
  FLUSH: 0x08,
  ABORT_COMMAND: 0x10,
  RELEASE_RECOVERY: 0x11,
  RESET_BUS: 0x12,
  RESET_DEVICE: 0x13,
  TERMINATE_IO: 0x14,
  FLUSH_QUEUE: 0x15,
  REMOVE_DEVICE: 0x16,
  WMI: 0x17,
  LOCK_QUEUE: 0x18,
  UNLOCK_QUEUE: 0x19,
  RESET_LOGICAL_UNIT: 0x20,
  POWER: 0x24,
  PNP: 0x25,
  DUMP_POINTERS: 0x26,
} as const

/** How it went, in the low six bits of SrbStatus. */
export const SrbStatus = {
  PENDING: 0x00,
  SUCCESS: 0x01,
  ABORTED: 0x02,
  ABORT_FAILED: 0x03,
  ERROR: 0x04,
  BUSY: 0x05,
  INVALID_REQUEST: 0x06,
  INVALID_PATH_ID: 0x07,
  NO_DEVICE: 0x08,
  TIMEOUT: 0x09,
  SELECTION_TIMEOUT: 0x0a,
  COMMAND_TIMEOUT: 0x0b,
  MESSAGE_REJECTED: 0x0d,
  BUS_RESET: 0x0e,
  PARITY_ERROR: 0x0f,
  REQUEST_SENSE_FAILED: 0x10,
  NO_HBA: 0x11,
  DATA_OVERRUN: 0x12,
  UNEXPECTED_BUS_FREE: 0x13,
  PHASE_SEQUENCE_FAILURE: 0x14,
  BAD_SRB_BLOCK_LENGTH: 0x15,
  REQUEST_FLUSHED: 0x16,
  INVALID_LUN: 0x20,
  INVALID_TARGET_ID: 0x21,
  BAD_FUNCTION: 0x22,
  ERROR_RECOVERY: 0x23,
  NOT_POWERED: 0x24,
  LINK_DOWN: 0x25,
  INTERNAL_ERROR: 0x30,
} as const

/** Beside the status: a frozen queue is the port's to say, valid sense the miniport's. */
export const SrbStatusBit = { QUEUE_FROZEN: 0x40, AUTOSENSE_VALID: 0x80 } as const
const STATUS_MASK = 0x3f

export const SrbFlag = {
  QUEUE_ACTION_ENABLE: 0x2,
  DISABLE_DISCONNECT: 0x4,
  DISABLE_SYNCH_TRANSFER: 0x8,
  BYPASS_FROZEN_QUEUE: 0x10,
  DISABLE_AUTOSENSE: 0x20,
  DATA_IN: 0x40,
  DATA_OUT: 0x80,
  NO_QUEUE_FREEZE: 0x100,
  ADAPTER_CACHE_ENABLE: 0x200,
  FREE_SENSE_BUFFER: 0x400,
  BYPASS_LOCKED_QUEUE: 0x8_0000,
} as const

/** SCSI_REQUEST_BLOCK of srb.h, in its 64-bit layout. */
export const ScsiRequestBlock = struct('SCSI_REQUEST_BLOCK', 'Windows DDK srb.h, x64', 88, {
  Length: le16('bytes of this structure'),
  Function: u8('what is asked', { names: SrbFunction }),
  SrbStatus: u8('how it went, with two flags above'),
  ScsiStatus: u8('status of the target'),
  PathId: u8('bus'),
  TargetId: u8('target'),
  Lun: u8('logical unit'),
  QueueTag: u8('tag, where the port gives one'),
  QueueAction: u8('simple, ordered, head of queue'),
  CdbLength: u8('bytes of the command'),
  SenseInfoBufferLength: u8('bytes of the sense buffer'),
  SrbFlags: le32('direction and queueing', { bits: SrbFlag }),
  DataTransferLength: le32('bytes asked for, then bytes moved'),
  TimeOutValue: le32('seconds'),
  DataBuffer: le64('address of the data'),
  SenseInfoBuffer: le64('address of the sense buffer'),
  NextSrb: le64('link'),
  OriginalRequest: le64('the IRP'),
  SrbExtension: le64("the miniport's memory for this request"),
  InternalStatus: le32('also the sort key of the queue'),
  Reserved: le32('alignment'),
  Cdb: bytes(16, 'the command'),
})

const SRB_BYTES = ScsiRequestBlock.$size
const LENGTH = ScsiRequestBlock.Length
const FUNCTION = ScsiRequestBlock.Function
const SRB_STATUS = ScsiRequestBlock.SrbStatus
const SCSI_STATUS = ScsiRequestBlock.ScsiStatus
const PATH = ScsiRequestBlock.PathId
const TARGET = ScsiRequestBlock.TargetId
const LUN = ScsiRequestBlock.Lun
const CDB_LENGTH = ScsiRequestBlock.CdbLength
const SENSE_LENGTH = ScsiRequestBlock.SenseInfoBufferLength
const FLAGS = ScsiRequestBlock.SrbFlags
const TRANSFER = ScsiRequestBlock.DataTransferLength
const TIMEOUT = ScsiRequestBlock.TimeOutValue
const INTERNAL = ScsiRequestBlock.InternalStatus
const DATA = ScsiRequestBlock.DataBuffer
const SENSE = ScsiRequestBlock.SenseInfoBuffer
const ORIGINAL = ScsiRequestBlock.OriginalRequest
const EXTENSION = ScsiRequestBlock.SrbExtension
const CDB = ScsiRequestBlock.Cdb

/**
 * One SRB in guest memory. The object is kept and pointed at one record after another, so that a request
 * allocates nothing.
 */
export class Srb extends Cursor {
  at: Gpa

  constructor() {
    super()
    this.at = gpa(0)
  }

  /** Points at the record; false when it does not lie in memory. */
  point(memory: GuestMemory, at: Gpa): boolean {
    if (!memory.point(this, at, SRB_BYTES)) return false
    this.at = at
    return true
  }

  /** A zeroed record of its own length. */
  clear(): void {
    this.window.fill(0, this.base, SRB_BYTES)
    this.window.putLe16(LENGTH, SRB_BYTES, this.base)
  }

  get lengthBytes(): number {
    return this.window.le16(LENGTH, this.base)
  }

  get function(): number {
    return this.window.u8(FUNCTION, this.base)
  }
  set function(value: number) {
    this.window.putU8(FUNCTION, value, this.base)
  }

  /** The status byte whole, flags included. */
  get srbStatus(): number {
    return this.window.u8(SRB_STATUS, this.base)
  }
  set srbStatus(value: number) {
    this.window.putU8(SRB_STATUS, value, this.base)
  }

  /** `SRB_STATUS(…)`: without the two flags. */
  get status(): number {
    return this.window.u8(SRB_STATUS, this.base) & STATUS_MASK
  }

  get scsiStatus(): number {
    return this.window.u8(SCSI_STATUS, this.base)
  }
  set scsiStatus(value: number) {
    this.window.putU8(SCSI_STATUS, value, this.base)
  }

  get pathId(): number {
    return this.window.u8(PATH, this.base)
  }
  set pathId(value: number) {
    this.window.putU8(PATH, value, this.base)
  }

  get targetId(): number {
    return this.window.u8(TARGET, this.base)
  }
  set targetId(value: number) {
    this.window.putU8(TARGET, value, this.base)
  }

  get lun(): number {
    return this.window.u8(LUN, this.base)
  }
  set lun(value: number) {
    this.window.putU8(LUN, value, this.base)
  }

  get cdbLength(): number {
    return this.window.u8(CDB_LENGTH, this.base)
  }
  set cdbLength(value: number) {
    this.window.putU8(CDB_LENGTH, value, this.base)
  }

  get senseInfoBufferLength(): number {
    return this.window.u8(SENSE_LENGTH, this.base)
  }
  set senseInfoBufferLength(value: number) {
    this.window.putU8(SENSE_LENGTH, value, this.base)
  }

  get srbFlags(): number {
    return this.window.le32(FLAGS, this.base)
  }
  set srbFlags(value: number) {
    this.window.putLe32(FLAGS, value, this.base)
  }

  get dataTransferLength(): number {
    return this.window.le32(TRANSFER, this.base)
  }
  set dataTransferLength(value: number) {
    this.window.putLe32(TRANSFER, value, this.base)
  }

  /** Seconds. */
  get timeOutValue(): number {
    return this.window.le32(TIMEOUT, this.base)
  }
  set timeOutValue(value: number) {
    this.window.putLe32(TIMEOUT, value, this.base)
  }

  get dataBuffer(): Gpa {
    return gpa(this.window.le64(DATA, this.base))
  }
  set dataBuffer(value: Gpa) {
    this.window.putLe64(DATA, value, this.base)
  }

  get senseInfoBuffer(): Gpa {
    return gpa(this.window.le64(SENSE, this.base))
  }
  set senseInfoBuffer(value: Gpa) {
    this.window.putLe64(SENSE, value, this.base)
  }

  get originalRequest(): Gpa {
    return gpa(this.window.le64(ORIGINAL, this.base))
  }
  set originalRequest(value: Gpa) {
    this.window.putLe64(ORIGINAL, value, this.base)
  }

  get srbExtension(): Gpa {
    return gpa(this.window.le64(EXTENSION, this.base))
  }
  set srbExtension(value: Gpa) {
    this.window.putLe64(EXTENSION, value, this.base)
  }

  /** An NTSTATUS, beside INTERNAL_ERROR. */
  get internalStatus(): number {
    return this.window.le32(INTERNAL, this.base)
  }

  /** Ended by the port driver itself: memory was short. */
  failShort(): void {
    this.srbStatus = SrbStatus.INTERNAL_ERROR
    this.dataTransferLength = 0
    this.window.putLe32(INTERNAL, NtStatus.INSUFFICIENT_RESOURCES, this.base)
  }

  /** Where the command lies in `window`. */
  get cdbBase(): number {
    return this.base + CDB
  }
}

/** A name for people: `TIMEOUT`, or the number. */
export function srbStatusName(status: number): string {
  const found = Object.entries(SrbStatus).find(([, value]) => value === (status & STATUS_MASK))
  return found?.[0] ?? `0x${(status & STATUS_MASK).toString(16)}`
}
