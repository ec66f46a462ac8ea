import { gpa } from '../../../protocol/memory.ts'
import { FixedSense } from '../../../protocol/scsi.ts'
import type { Window } from '../../../protocol/window.ts'
import type { KTimer } from '../../kernel/dispatcher-object.ts'
import type { DeferredRoutine, KDpc } from '../../kernel/dpc.ts'
import type { Irp } from '../../kernel/irp.ts'
import type { Kernel } from '../../kernel/kernel.ts'
import { KDPC, KTIMER } from '../../kernel/layout.ts'
import { NtStatus, ntStatus } from '../../kernel/nt-status.ts'
import type { Routine } from '../../kernel/routine.ts'
import { ScsiRequestBlock, Srb, SrbFlag, SrbFunction } from '../../port/srb.ts'
import type { Returned } from './outcome.ts'

const SRB_AT = 0
const SENSE_AT = 96
const SENSE_BYTES = FixedSense.$size
const TIMER_AT = 128
const DPC_AT = TIMER_AT + KTIMER.$size
/** One block: SRB, sense data, and what a retry waits with. */
export const PACKET_BYTES = DPC_AT + KDPC.$size

/** How classpnp sends everything: no freezing of queues, no wide negotiation. */
const FLAGS = SrbFlag.NO_QUEUE_FREEZE | SrbFlag.DISABLE_SYNCH_TRANSFER

/** `delayed`: waits for its next try. */
export type PacketState = 'free' | 'out' | 'delayed'

/**
 * TRANSFER_PACKET: an SRB with its sense buffer and its own IRP, made once and used again, so that a request
 * allocates nothing. It carries one piece of a request, or one command.
 */
export class TransferPacket implements Returned {
  readonly index: number
  readonly at: number
  readonly srb: Srb
  readonly irp: Irp
  readonly timer: KTimer
  readonly dpc: KDpc
  state: PacketState
  /** The request it is a piece of; null for a command, which `ended` hears of. */
  original: Irp | null
  ended: ((packet: TransferPacket) => void) | null
  /** Its request was called back: it is not tried again. */
  cancelled: boolean
  /** Passed through for somebody else, who judges it himself. */
  once: boolean
  mdlAddress: number
  status: NtStatus
  // What came back.
  tries: number
  askedBytes: number
  opcode: number
  removable: boolean
  verifying: boolean
  readonly sense: Window
  readonly senseBase: number

  constructor(kernel: Kernel, index: number, at: number, irp: Irp, again: Routine<DeferredRoutine>) {
    const { memory } = kernel.parts
    memory.zero(at, PACKET_BYTES)
    this.index = index
    this.at = at
    this.srb = new Srb()
    if (!this.srb.point(memory.guest, gpa(at + SRB_AT))) throw new Error('a packet outside memory')
    this.irp = irp
    this.timer = kernel.keInitializeTimer(at + TIMER_AT)
    this.dpc = kernel.keInitializeDpc(at + DPC_AT, again, index)
    this.state = 'free'
    this.original = null
    this.ended = null
    this.cancelled = false
    this.once = false
    this.mdlAddress = 0
    this.status = NtStatus.SUCCESS
    this.tries = 0
    this.askedBytes = 0
    this.opcode = 0
    this.removable = false
    this.verifying = false
    this.sense = memory.window
    this.senseBase = at + SENSE_AT
  }

  get srbStatus(): number {
    return this.srb.srbStatus
  }
  get scsiStatus(): number {
    return this.srb.scsiStatus
  }
  get internalStatus(): NtStatus {
    return ntStatus(this.srb.internalStatus)
  }
  get movedBytes(): number {
    return this.srb.dataTransferLength
  }
  /** Where the command is written, zeroed by `prepare`. */
  get cdb(): Window {
    return this.srb.window
  }
  get cdbBase(): number {
    return this.srb.cdbBase
  }

  /** A fresh SRB for `lengthBytes` at `dataAt`; the caller writes the command and its length. */
  prepare(write: boolean, dataAt: number, lengthBytes: number, mdlAddress: number, seconds: number): void {
    const { srb } = this
    srb.clear()
    srb.function = SrbFunction.EXECUTE_SCSI
    srb.srbFlags = FLAGS | (lengthBytes === 0 ? 0 : write ? SrbFlag.DATA_OUT : SrbFlag.DATA_IN)
    srb.dataBuffer = gpa(dataAt)
    srb.timeOutValue = seconds
    srb.originalRequest = gpa(this.irp.at)
    this.askedBytes = lengthBytes
    this.mdlAddress = mdlAddress
    this.tries = 0
    this.cancelled = false
    this.once = false
    this.status = NtStatus.SUCCESS
  }

  /** Before every try: as it was asked for, with nothing of the try before. */
  rearm(): void {
    const { srb } = this
    srb.srbStatus = 0
    srb.scsiStatus = 0
    srb.dataTransferLength = this.askedBytes
    srb.senseInfoBuffer = gpa(this.senseBase)
    srb.senseInfoBufferLength = SENSE_BYTES
    srb.window.putLe64(ScsiRequestBlock.NextSrb, 0, srb.base)
    this.sense.fill(0, this.senseBase, SENSE_BYTES)
  }
}
