import { IRP, Major, StackFlag } from '../../kernel/io-layout.ts'
import type { Irp } from '../../kernel/irp.ts'
import { Irql } from '../../kernel/irql.ts'
import type { Kernel } from '../../kernel/kernel.ts'
import { firstEntry, initializeList, insertTail, listIsEmpty, removeEntry } from '../../kernel/list.ts'
import { NtStatus, ntSuccess } from '../../kernel/nt-status.ts'
import { NO_ROUTINE } from '../../kernel/routine.ts'
import { Cdb } from './cdb.ts'
import type { TransferPacket } from './transfer-packet.ts'
import type { TransferPackets } from './transfer-packets.ts'

const PAGE_BYTES = 4096

/** DriverContext of a request: pieces out, one more while it is not all sent; bytes sent; what comes next. */
const OUT = 0
const SENT = 1
const PHASE = 2
const Phase = { TRANSFER: 0, TRANSFER_THEN_FLUSH: 1, FLUSH: 2 } as const

/** What splitting and commands depend on. */
export interface TransferLimits {
  readonly sectorBytes: number
  /** Of one SRB. */
  maximumTransferLength: number
  maximumPhysicalPages: number
  /** A volatile cache, and whether a write can pass it by. */
  readonly writeCache: boolean
  readonly forcesUnitAccess: boolean
  /** Seconds. */
  readonly timeoutSeconds: number
}

/** A flush may take four times as long as a transfer. */
const FLUSH_FACTOR = 4

/**
 * Reads, writes and flushes on their way through packets: split as the adapter wants it, answered once, when
 * the last piece is back. State is touched at DISPATCH level only.
 */
export class Transfers {
  readonly #kernel: Kernel
  readonly #limits: TransferLimits
  /** A request ended and lets go of the device. */
  readonly #released: () => void
  readonly #cancel
  /** Requests not all sent, oldest first. */
  readonly #head: number
  #packets: TransferPackets | null
  #pumping: boolean

  /** @param head room for a LIST_ENTRY. */
  constructor(kernel: Kernel, head: number, limits: TransferLimits, released: () => void) {
    this.#kernel = kernel
    this.#limits = limits
    this.#released = released
    this.#packets = null
    this.#pumping = false
    this.#head = head
    initializeList(kernel.parts.memory, this.#head)
    this.#cancel = kernel.routine((_device: unknown, irp: Irp) => this.#cancelled(irp))
  }

  attach(packets: TransferPackets): void {
    this.#packets = packets
  }

  /** Takes a checked READ, WRITE or FLUSH_BUFFERS, and answers PENDING. At DISPATCH level or below. */
  submit(irp: Irp): NtStatus {
    const kernel = this.#kernel
    const { major, flags } = irp.current
    const limits = this.#limits
    kernel.ioMarkIrpPending(irp)
    irp.status = NtStatus.SUCCESS
    irp.information = 0
    irp.putDriverContext(OUT, 1)
    irp.putDriverContext(SENT, 0)
    const through = (flags & StackFlag.WRITE_THROUGH) !== 0 && major === Major.WRITE && limits.writeCache
    irp.putDriverContext(
      PHASE,
      major === Major.FLUSH_BUFFERS
        ? Phase.FLUSH
        : through && !limits.forcesUnitAccess
          ? Phase.TRANSFER_THEN_FLUSH
          : Phase.TRANSFER,
    )
    const before = this.#raise()
    kernel.ioSetCancelRoutine(irp, this.#cancel)
    // Cancelled before anyone could hear of it.
    if (irp.cancel && kernel.ioSetCancelRoutine(irp, NO_ROUTINE) !== 0) irp.status = NtStatus.CANCELLED
    insertTail(kernel.parts.memory, this.#head, irp.listEntry)
    this.#pump()
    this.#lower(before)
    return NtStatus.PENDING
  }

  /** A packet came back: the next piece may go. */
  pieceEnded(packet: TransferPacket): void {
    const irp = packet.original
    if (irp === null) return
    const before = this.#raise()
    if (!ntSuccess(packet.status) && ntSuccess(irp.status)) irp.status = packet.status
    this.#packets?.give(packet)
    this.#release(irp)
    this.#pump()
    this.#lower(before)
  }

  #raise(): Irql {
    const before = this.#kernel.keGetCurrentIrql()
    if (before < Irql.DISPATCH) this.#kernel.keRaiseIrql(Irql.DISPATCH)
    return before
  }

  #lower(before: Irql): void {
    if (before < Irql.DISPATCH) this.#kernel.keLowerIrql(before)
  }

  #pump(): void {
    if (this.#pumping) return
    this.#pumping = true
    for (;;) {
      const entry = firstEntry(this.#kernel.parts.memory, this.#head)
      if (entry === 0) break
      const irp = this.#kernel.irpAt(entry - (IRP.listEntry as number))
      if (ntSuccess(irp.status)) {
        const packet = this.#packets?.take() ?? null
        // It goes on when one comes back: there are always some, and each comes back.
        if (packet === null) break
        if (!this.#sendNext(irp, packet)) continue
      }
      removeEntry(this.#kernel.parts.memory, irp.listEntry)
      this.#release(irp)
    }
    this.#pumping = false
  }

  /** True: that was all of it. */
  #sendNext(irp: Irp, packet: TransferPacket): boolean {
    packet.original = irp
    irp.putDriverContext(OUT, irp.driverContext(OUT) + 1)
    const phase = irp.driverContext(PHASE)
    if (phase === Phase.FLUSH) {
      packet.prepare(false, 0, 0, 0, this.#limits.timeoutSeconds * FLUSH_FACTOR)
      packet.srb.cdbLength = Cdb.flush(packet.cdb, packet.cdbBase)
      this.#packets?.send(packet)
      return true
    }
    const { major, lengthBytes, byteOffset, flags } = irp.current
    const mdl = this.#kernel.mdlAt(irp.mdlAddress)
    const sent = irp.driverContext(SENT)
    const from = mdl.virtualAddress + sent
    const here = Math.min(lengthBytes - sent, this.#pieceBytes(from))
    const { sectorBytes, forcesUnitAccess, writeCache, timeoutSeconds } = this.#limits
    const write = major === Major.WRITE
    const force = write && (flags & StackFlag.WRITE_THROUGH) !== 0 && writeCache && forcesUnitAccess
    packet.prepare(write, from, here, irp.mdlAddress, timeoutSeconds)
    const lba = (byteOffset + sent) / sectorBytes
    packet.srb.cdbLength = Cdb.transfer(packet.cdb, packet.cdbBase, write, lba, here / sectorBytes, force)
    irp.putDriverContext(SENT, sent + here)
    this.#packets?.send(packet)
    return sent + here === lengthBytes
  }

  /** Bytes of one SRB that begins at this address: one page less than the adapter takes, unless aligned. */
  #pieceBytes(from: number): number {
    const { maximumTransferLength, maximumPhysicalPages, sectorBytes } = this.#limits
    const pages = maximumPhysicalPages - ((from & (PAGE_BYTES - 1)) === 0 ? 0 : 1)
    const most = Math.min(maximumTransferLength, pages * PAGE_BYTES)
    return Math.max(sectorBytes, most - (most % sectorBytes))
  }

  /** One reason less to keep it. At zero it is answered, once. */
  #release(irp: Irp): void {
    const out = irp.driverContext(OUT) - 1
    irp.putDriverContext(OUT, out)
    if (out > 0) return
    if (irp.driverContext(PHASE) === Phase.TRANSFER_THEN_FLUSH && ntSuccess(irp.status)) {
      irp.putDriverContext(PHASE, Phase.FLUSH)
      irp.putDriverContext(OUT, 1)
      insertTail(this.#kernel.parts.memory, this.#head, irp.listEntry)
      return
    }
    this.#kernel.ioSetCancelRoutine(irp, NO_ROUTINE)
    if (ntSuccess(irp.status)) irp.information = irp.driverContext(SENT)
    this.#released()
    this.#kernel.ioCompleteRequest(irp)
  }

  /** The cancel routine; entered with the cancel lock held. */
  #cancelled(irp: Irp): void {
    // Kept before the lock is let go: its last piece may come back at that moment.
    irp.putDriverContext(OUT, irp.driverContext(OUT) + 1)
    this.#kernel.ioReleaseCancelSpinLock(irp.cancelIrql as Irql)
    const before = this.#raise()
    const waiting = !listIsEmpty(this.#kernel.parts.memory, irp.listEntry)
    // What is all sent ends as its pieces do: they may have moved every byte.
    if (waiting && ntSuccess(irp.status)) irp.status = NtStatus.CANCELLED
    this.#packets?.cancelOf(irp)
    this.#release(irp)
    this.#pump()
    this.#lower(before)
  }
}
