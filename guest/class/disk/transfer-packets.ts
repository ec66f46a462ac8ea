import type { DeviceObject } from '../../kernel/device-object.ts'
import { Major } from '../../kernel/io-layout.ts'
import type { Irp } from '../../kernel/irp.ts'
import { Irql } from '../../kernel/irql.ts'
import type { Kernel } from '../../kernel/kernel.ts'
import { NtStatus, ntSuccess } from '../../kernel/nt-status.ts'
import { PoolType, poolTag } from '../../kernel/pool.ts'
import { SrbStatus } from '../../port/srb.ts'
import { outcomeOf, RETRIES } from './outcome.ts'
import { PACKET_BYTES, TransferPacket } from './transfer-packet.ts'

const TAG = poolTag('ScPk')
const STATUS_MASK = 0x3f
/** Made when the device starts, so that requests go on when memory is short. */
const PACKETS_MIN = 4
/** Requests beyond these wait for a packet to come back. */
const PACKETS_MAX = 64

/** Who hears of packets that ended, and what the disk is to their outcome. */
export interface PacketOwner {
  readonly removable: boolean
  readonly verifying: boolean
  /** The device is gone: nothing is tried again. */
  readonly gone: boolean
  /** A piece of a request ended; the packet is free after this. */
  pieceEnded(packet: TransferPacket): void
  /** Sense data came back: a change of medium, capacity or protection. */
  sensed(packet: TransferPacket): void
}

/** The packets of one disk: sent down, judged when they come back, tried again when it is worth it. */
export class TransferPackets {
  readonly #kernel: Kernel
  readonly #lower: DeviceObject
  readonly #owner: PacketOwner
  readonly #all: (TransferPacket | null)[]
  readonly #idle: TransferPacket[]
  readonly #returned
  readonly #again
  #count: number
  /** Tries beyond the first. */
  retries: number

  constructor(kernel: Kernel, lower: DeviceObject, owner: PacketOwner) {
    this.#kernel = kernel
    this.#lower = lower
    this.#owner = owner
    this.#all = []
    this.#idle = []
    this.#count = 0
    this.retries = 0
    this.#returned = kernel.routine((_device: DeviceObject | null, _irp: Irp, context: number) =>
      this.#back(this.#at(context)),
    )
    this.#again = kernel.routine((_dpc: unknown, context: number) => this.#tryAgain(this.#at(context)))
  }

  /** Packets alive. */
  get count(): number {
    return this.#count
  }
  get outCount(): number {
    return this.#count - this.#idle.length
  }

  /** False when memory is short even for the least. */
  reserve(): boolean {
    while (this.#idle.length < PACKETS_MIN) {
      const packet = this.make()
      if (packet === null) return false
      this.#idle.push(packet)
    }
    return true
  }

  /** Frees what is idle. */
  trim(): void {
    for (const packet of this.#idle.splice(0)) this.discard(packet)
  }

  /** An idle packet for a piece of a request, or null: one comes back later. */
  take(): TransferPacket | null {
    return this.#idle.pop() ?? (this.#count < PACKETS_MAX ? this.make() : null)
  }

  /** A packet beside the pool's; null when memory is short. `discard` frees it. */
  make(): TransferPacket | null {
    const kernel = this.#kernel
    const at = kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, PACKET_BYTES, TAG)
    if (at === 0) return null
    const irp = kernel.ioAllocateIrp(this.#lower.stackSize)
    if (irp === null) {
      kernel.exFreePool(at)
      return null
    }
    const hole = this.#all.indexOf(null)
    const index = hole < 0 ? this.#all.length : hole
    const packet = new TransferPacket(kernel, index, at, irp, this.#again)
    this.#all[index] = packet
    this.#count++
    return packet
  }

  discard(packet: TransferPacket): void {
    this.#all[packet.index] = null
    this.#count--
    this.#kernel.ioFreeIrp(packet.irp)
    this.#kernel.exFreePool(packet.at)
  }

  /** Back to the pool. */
  give(packet: TransferPacket): void {
    packet.original = null
    this.#idle.push(packet)
  }

  #at(index: number): TransferPacket {
    const packet = this.#all[index]
    if (packet === null || packet === undefined) throw new Error('a packet that was freed came back')
    return packet
  }

  /** Sends a prepared packet. It ends exactly once: `pieceEnded`, or its own `ended`. */
  send(packet: TransferPacket): void {
    const { irp } = packet
    const kernel = this.#kernel
    packet.state = 'out'
    packet.rearm()
    kernel.ioReuseIrp(irp, NtStatus.SUCCESS)
    irp.mdlAddress = packet.mdlAddress
    const { next } = irp
    next.major = Major.SCSI
    next.srb = packet.at
    kernel.ioSetCompletionRoutine(irp, this.#returned, packet.index)
    const answer = kernel.ioCallDriver(this.#lower, irp)
    // A driver below that waits does so in a thread of its own.
    if (typeof answer !== 'number') kernel.spawn(answer)
  }

  /** At DISPATCH level, as everything that touches packets; some drivers complete below it. */
  #back(packet: TransferPacket): NtStatus {
    const kernel = this.#kernel
    const before = kernel.keGetCurrentIrql()
    if (before < Irql.DISPATCH) kernel.keRaiseIrql(Irql.DISPATCH)
    this.#take(packet)
    if (before < Irql.DISPATCH) kernel.keLowerIrql(before)
    return NtStatus.MORE_PROCESSING_REQUIRED
  }

  #take(packet: TransferPacket): void {
    const { srb, irp } = packet
    irp.mdlAddress = 0
    if (
      (srb.srbStatus & STATUS_MASK) === SrbStatus.SUCCESS &&
      srb.dataTransferLength === packet.askedBytes &&
      ntSuccess(irp.status)
    ) {
      this.#end(packet, NtStatus.SUCCESS)
    } else this.#judge(packet)
  }

  #judge(packet: TransferPacket): void {
    const owner = this.#owner
    const { srb, irp } = packet
    packet.removable = owner.removable
    packet.verifying = owner.verifying
    packet.opcode = packet.cdb.view.getUint8(packet.cdbBase)
    const srbStatus = srb.srbStatus & STATUS_MASK
    // A driver that never looked at the SRB says why in the request.
    const untouched = srbStatus === SrbStatus.PENDING || srbStatus === SrbStatus.SUCCESS
    if (untouched && !ntSuccess(irp.status)) {
      this.#end(packet, irp.status)
      return
    }
    const { status, retry, delaySeconds } = outcomeOf(packet)
    if (srbStatus !== SrbStatus.SUCCESS) owner.sensed(packet)
    // Bytes that nobody moved are no success of a read or write, whatever the target says of it.
    const short = ntSuccess(status) && packet.original !== null && packet.movedBytes !== packet.askedBytes
    if (short) this.#retryOr(packet, packet.tries < RETRIES, 0, NtStatus.IO_DEVICE_ERROR)
    else this.#retryOr(packet, retry, delaySeconds, status)
  }

  #retryOr(packet: TransferPacket, retry: boolean, delaySeconds: number, status: NtStatus): void {
    if (packet.cancelled && !ntSuccess(status)) this.#end(packet, NtStatus.CANCELLED)
    else if (!retry || packet.once || this.#owner.gone) this.#end(packet, status)
    else {
      packet.tries++
      this.retries++
      packet.status = status
      packet.state = 'delayed'
      // Never from here: what fails at once would nest as deep as there are tries.
      if (delaySeconds === 0) this.#kernel.keInsertQueueDpc(packet.dpc)
      else this.#kernel.keSetTimer(packet.timer, delaySeconds * 1_000_000, 0, packet.dpc)
    }
  }

  #tryAgain(packet: TransferPacket): void {
    if (packet.state !== 'delayed') return
    if (packet.cancelled) this.#end(packet, NtStatus.CANCELLED)
    else if (this.#owner.gone) this.#end(packet, packet.status)
    else this.send(packet)
  }

  #end(packet: TransferPacket, status: NtStatus): void {
    packet.state = 'free'
    packet.status = status
    const { ended } = packet
    if (ended === null) {
      this.#owner.pieceEnded(packet)
      return
    }
    packet.ended = null
    ended(packet)
  }

  /** Calls the pieces of a request back. At DISPATCH level; the request must not end meanwhile. */
  cancelOf(original: Irp): void {
    for (const packet of this.#all) {
      if (packet === null || packet.original !== original || packet.state === 'free') continue
      packet.cancelled = true
      if (packet.state === 'out') this.#kernel.ioCancelIrp(packet.irp)
      else this.#hurry(packet)
    }
  }

  /** The device is gone: what waits for another try ends now. At DISPATCH level. */
  abandonDelayed(): void {
    for (const packet of this.#all) if (packet !== null && packet.state === 'delayed') this.#hurry(packet)
  }

  /** A try that is waited for is due now; one whose DPC is queued already comes by itself. */
  #hurry(packet: TransferPacket): void {
    if (this.#kernel.keCancelTimer(packet.timer)) this.#tryAgain(packet)
  }
}
