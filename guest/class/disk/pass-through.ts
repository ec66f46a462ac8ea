import { LockOperation, type Mdl } from '../../kernel/mdl.ts'
import { NtStatus } from '../../kernel/nt-status.ts'
import type { Waiting } from '../../kernel/thread.ts'
import { SrbStatus, SrbStatusBit } from '../../port/srb.ts'
import { answered, type Control, type ControlAnswer } from './disk-control.ts'
import { PassThroughData, SCSI_PASS_THROUGH } from './ioctl.ts'
import type { TransferPacket } from './transfer-packet.ts'

const HEADER_BYTES = SCSI_PASS_THROUGH.$size
const CDB_BYTES_MAX = 16
const TIMEOUT_SECONDS_MAX = 108_000

interface PassThrough {
  readonly cdb: Uint8Array
  readonly input: boolean
  readonly lengthBytes: number
  /** Offset in the buffer, or a user's address. */
  readonly data: number
  readonly senseBytes: number
  readonly senseAt: number
  readonly seconds: number
}

/**
 * IOCTL_SCSI_PASS_THROUGH: an application's own command. Data lies behind the structure in the same buffer, or
 * (`direct`) where a pointer says. The target's answer is the application's to judge: a CHECK CONDITION is a
 * success that carries sense data.
 */
export function* passThrough(control: Control, direct: boolean): Waiting<ControlAnswer> {
  const wanted = parse(control, direct)
  if (typeof wanted === 'number') return answered(wanted)
  return wanted.lengthBytes > 0 && direct
    ? yield* passDirect(control, wanted)
    : yield* send(control, wanted, control.at + wanted.data, null)
}

/** Reads the structure once and checks every length in it against the buffers. */
function parse(
  { disk, window, at, inputBytes, outputBytes }: Control,
  direct: boolean,
): PassThrough | NtStatus {
  if (inputBytes < HEADER_BYTES) return NtStatus.BUFFER_TOO_SMALL
  if (window.le16(SCSI_PASS_THROUGH.length, at) !== HEADER_BYTES) return NtStatus.REVISION_MISMATCH
  const cdbBytes = window.u8(SCSI_PASS_THROUGH.cdbLength, at)
  const direction = window.u8(SCSI_PASS_THROUGH.dataIn, at)
  const lengthBytes = window.le32(SCSI_PASS_THROUGH.dataTransferLength, at)
  const data = window.le64(SCSI_PASS_THROUGH.data, at)
  const senseBytes = window.u8(SCSI_PASS_THROUGH.senseInfoLength, at)
  const senseAt = window.le32(SCSI_PASS_THROUGH.senseInfoOffset, at)
  const seconds = window.le32(SCSI_PASS_THROUGH.timeOutValue, at)
  if (!(cdbBytes >= 1 && cdbBytes <= CDB_BYTES_MAX)) return NtStatus.INVALID_PARAMETER
  if (!(seconds >= 1 && seconds <= TIMEOUT_SECONDS_MAX)) return NtStatus.INVALID_PARAMETER
  if (!(lengthBytes <= disk.maximumTransferLength)) return NtStatus.INVALID_PARAMETER
  const input = direction === PassThroughData.IN
  if (!input && direction !== PassThroughData.OUT && lengthBytes > 0) return NtStatus.INVALID_PARAMETER
  // Sense data comes back behind the structure and before the data.
  const senseFits = senseAt >= HEADER_BYTES && senseAt <= outputBytes && senseBytes <= outputBytes - senseAt
  if (senseBytes > 0 && !senseFits) return NtStatus.INVALID_PARAMETER
  if (lengthBytes > 0 && !direct) {
    const room = input ? outputBytes : inputBytes
    const first = HEADER_BYTES + senseBytes
    if (!(data >= first && data <= room && lengthBytes <= room - data)) return NtStatus.INVALID_PARAMETER
    // In front of the data, or it would be written over what the target sent.
    if (senseBytes > 0 && !(senseAt + senseBytes <= data)) return NtStatus.INVALID_PARAMETER
  }
  const from = at + (SCSI_PASS_THROUGH.cdb as number)
  const cdb = disk.kernel.parts.memory.bytes.slice(from, from + cdbBytes)
  return { cdb, input, lengthBytes, data, senseBytes, senseAt, seconds }
}

/** The caller's own pages, locked while the command runs. */
function* passDirect(control: Control, wanted: PassThrough): Waiting<ControlAnswer> {
  const { kernel } = control.disk
  // Device controls arrive in the thread that asked: its addresses mean what they say.
  const mdl = kernel.ioAllocateMdl(wanted.data, wanted.lengthBytes)
  if (mdl === null) return answered(NtStatus.INSUFFICIENT_RESOURCES)
  const operation = wanted.input ? LockOperation.WRITE : LockOperation.READ
  const locked = kernel.mmProbeAndLockPages(mdl, operation)
  if (locked !== NtStatus.SUCCESS) {
    kernel.ioFreeMdl(mdl)
    return answered(locked)
  }
  const answer = yield* send(control, wanted, wanted.data, mdl)
  kernel.mmUnlockPages(mdl)
  kernel.ioFreeMdl(mdl)
  return answer
}

function* send(
  control: Control,
  wanted: PassThrough,
  dataAt: number,
  mdl: Mdl | null,
): Waiting<ControlAnswer> {
  const { disk, window, at } = control
  const { lengthBytes, input, cdb } = wanted
  const own = mdl === null && lengthBytes > 0 ? kernelMdl(control, dataAt, lengthBytes) : null
  if (mdl === null && lengthBytes > 0 && own === null) return answered(NtStatus.INSUFFICIENT_RESOURCES)
  let sense = new Uint8Array(0)
  let scsiStatus = 0
  let reached = false
  const { status, movedBytes } = yield* disk.command({
    cdb: (to, base) => {
      for (const [index, byte] of cdb.entries()) to.view.setUint8(base + index, byte)
      return cdb.length
    },
    write: !input,
    timeoutSeconds: wanted.seconds,
    once: true,
    buffer: { at: lengthBytes > 0 ? dataAt : 0, lengthBytes, mdlAddress: (mdl ?? own)?.at ?? 0 },
    inspect: (packet) => {
      scsiStatus = packet.scsiStatus
      reached = answeredByTarget(packet)
      if ((packet.srbStatus & SrbStatusBit.AUTOSENSE_VALID) !== 0) {
        const { bytes } = disk.kernel.parts.memory
        const room = Math.min(wanted.senseBytes, packet.srb.senseInfoBufferLength)
        sense = bytes.slice(packet.senseBase, packet.senseBase + room)
      }
    },
  })
  if (own !== null) disk.kernel.ioFreeMdl(own)
  if (!reached) return answered(status)
  window.putU8(SCSI_PASS_THROUGH.scsiStatus, scsiStatus, at)
  window.putU8(SCSI_PASS_THROUGH.senseInfoLength, sense.length, at)
  window.putLe32(SCSI_PASS_THROUGH.dataTransferLength, movedBytes, at)
  disk.kernel.parts.memory.bytes.set(sense, at + wanted.senseAt)
  return answered(NtStatus.SUCCESS, informationOf(control, wanted, movedBytes, mdl !== null))
}

/** The buffer up to the last byte that came: structure, sense data, and what was read into it. */
function informationOf(control: Control, wanted: PassThrough, moved: number, direct: boolean): number {
  const sense = wanted.senseBytes > 0 ? wanted.senseAt + wanted.senseBytes : HEADER_BYTES
  const data = wanted.input && !direct && moved > 0 ? wanted.data + moved : 0
  return Math.min(control.outputBytes, Math.max(sense, data))
}

/** The command reached the target, and what it said of it is the application's to read. */
function answeredByTarget(packet: TransferPacket): boolean {
  const status = packet.srbStatus & 0x3f
  return (
    status === SrbStatus.SUCCESS ||
    status === SrbStatus.DATA_OVERRUN ||
    (status === SrbStatus.ERROR && (packet.srbStatus & SrbStatusBit.AUTOSENSE_VALID) !== 0) ||
    (status === SrbStatus.ERROR && packet.scsiStatus !== 0)
  )
}

function kernelMdl({ disk }: Control, at: number, lengthBytes: number): Mdl | null {
  const mdl = disk.kernel.ioAllocateMdl(at, lengthBytes)
  if (mdl !== null) disk.kernel.mmBuildMdlForNonPagedPool(mdl)
  return mdl
}
