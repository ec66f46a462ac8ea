import { Asc, FixedSense, SenseKey } from '../../../protocol/scsi.ts'
import type { DeviceObject } from '../../kernel/device-object.ts'
import type { KEvent } from '../../kernel/dispatcher-object.ts'
import { DeviceFlag, Major, StackFlag } from '../../kernel/io-layout.ts'
import type { Irp } from '../../kernel/irp.ts'
import type { Kernel } from '../../kernel/kernel.ts'
import { KEVENT, LIST_ENTRY } from '../../kernel/layout.ts'
import { NtStatus, ntSuccess } from '../../kernel/nt-status.ts'
import { PoolType, poolTag } from '../../kernel/pool.ts'
import type { Waiting } from '../../kernel/thread.ts'
import { SrbStatusBit } from '../../port/srb.ts'
import type { DiskCommand, DiskCommandResult } from './disk-command.ts'
import { sendCommand } from './disk-command.ts'
import type { DiskFacts } from './disk-identity.ts'
import { readCapacity, UNKNOWN_DISK } from './disk-identity.ts'
import { readPartitions } from './medium.ts'
import type { PartitionDevice } from './partition-device.ts'
import type { PartitionTable } from './partition-table.ts'
import { NO_TABLE } from './partition-table.ts'
import { ClassRemoveLock } from './remove-lock.ts'
import type { TransferPacket } from './transfer-packet.ts'
import { type PacketOwner, TransferPackets } from './transfer-packets.ts'
import { type TransferLimits, Transfers } from './transfers.ts'

/** Seconds, where the registry's TimeOutValue says nothing. */
const TIMEOUT_SECONDS = 10
const TAG = poolTag('ScDk')
/** One block: the remove lock's event, the event by which looks at the medium take turns, the queue's head. */
const TURN_AT = KEVENT.$size
const HEAD_AT = TURN_AT + KEVENT.$size
const RECORD_BYTES = HEAD_AT + LIST_ENTRY.$size

/** `gone`: the device was pulled out; `removed`: its REMOVE came. */
export type DiskState = 'added' | 'started' | 'gone' | 'removed'

/** The functional device of one logical unit: its FDO's extension. */
export class Disk implements PacketOwner, TransferLimits {
  readonly kind = 'disk'
  readonly kernel: Kernel
  readonly number: number
  readonly fdo: DeviceObject
  /** Where requests go: the top of the stack when this one was attached. */
  readonly lower: DeviceObject
  readonly lock: ClassRemoveLock
  readonly transfers: Transfers
  readonly packets: TransferPackets
  state: DiskState
  facts: DiskFacts
  /** Why the capacity is not known. */
  readyStatus: NtStatus
  maximumTransferLength: number
  maximumPhysicalPages: number
  claimed: boolean
  mediaChanges: number
  table: PartitionTable
  partitions: readonly PartitionDevice[]
  /** Of its device interface; null where no bus reported the PDO. */
  interfaceLink: string | null
  /** Symbolic links that lead here. */
  links: readonly string[]
  readonly timeoutSeconds: number
  readonly #records: number
  readonly #turn: KEvent
  #refreshing: boolean

  /** Null when memory is short. */
  static create(kernel: Kernel, number: number, fdo: DeviceObject, lower: DeviceObject): Disk | null {
    const records = kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, RECORD_BYTES, TAG)
    return records === 0 ? null : new Disk(kernel, records, number, fdo, lower)
  }

  private constructor(
    kernel: Kernel,
    records: number,
    number: number,
    fdo: DeviceObject,
    lower: DeviceObject,
  ) {
    this.kernel = kernel
    this.number = number
    this.fdo = fdo
    this.lower = lower
    this.#records = records
    this.#turn = kernel.keInitializeEvent(records + TURN_AT, false, true)
    this.lock = new ClassRemoveLock(kernel, records)
    this.transfers = new Transfers(kernel, records + HEAD_AT, this, () => this.lock.release())
    this.packets = new TransferPackets(kernel, lower, this)
    this.transfers.attach(this.packets)
    this.state = 'added'
    this.facts = UNKNOWN_DISK
    this.readyStatus = NtStatus.DEVICE_NOT_READY
    this.maximumTransferLength = 0x1_0000
    this.maximumPhysicalPages = 17
    this.claimed = false
    this.mediaChanges = 0
    this.table = NO_TABLE
    this.partitions = []
    this.interfaceLink = null
    this.links = []
    this.timeoutSeconds = TIMEOUT_SECONDS
    this.#refreshing = false
  }

  get removable(): boolean {
    return this.facts.removable
  }
  get verifying(): boolean {
    return (this.fdo.flags & DeviceFlag.VERIFY_VOLUME) !== 0
  }
  get gone(): boolean {
    return this.state === 'gone' || this.state === 'removed'
  }
  get sectorBytes(): number {
    return this.facts.sectorBytes
  }
  get writeCache(): boolean {
    return this.facts.writeCache
  }
  get forcesUnitAccess(): boolean {
    return this.facts.forcesUnitAccess
  }
  get lengthBytes(): number {
    return this.facts.sectors * this.facts.sectorBytes
  }

  /** READ, WRITE and FLUSH_BUFFERS. At DISPATCH level or below. */
  transfer(irp: Irp): NtStatus {
    const refused = this.enter()
    if (refused !== null) return this.complete(irp, refused)
    const { current } = irp
    if (current.major !== Major.FLUSH_BUFFERS) {
      const { lengthBytes, byteOffset } = current
      const invalid = this.#check(irp, lengthBytes, byteOffset, current.flags)
      if (invalid !== null || lengthBytes === 0) {
        this.lock.release()
        return this.complete(irp, invalid ?? NtStatus.SUCCESS)
      }
    } else if (!this.facts.writeCache) {
      this.lock.release()
      return this.complete(irp, NtStatus.SUCCESS)
    }
    return this.transfers.submit(irp)
  }

  /** Takes the remove lock for one request, or says why it is turned away. */
  enter(): NtStatus | null {
    if (this.gone) return NtStatus.NO_SUCH_DEVICE
    if (this.state === 'added') return NtStatus.DEVICE_NOT_READY
    return this.lock.acquire() ? null : NtStatus.NO_SUCH_DEVICE
  }

  /** What disk.sys refuses of a transfer: what lies outside, and what is no whole sector. */
  #check(irp: Irp, lengthBytes: number, byteOffset: number, flags: number): NtStatus | null {
    if (this.verifying && (flags & StackFlag.OVERRIDE_VERIFY_VOLUME) === 0) return NtStatus.VERIFY_REQUIRED
    const { sectorBytes } = this.facts
    const aligned = lengthBytes % sectorBytes === 0 && byteOffset % sectorBytes === 0
    if (!(aligned && byteOffset >= 0 && lengthBytes <= this.lengthBytes - byteOffset)) {
      return this.readyStatus === NtStatus.SUCCESS ? NtStatus.INVALID_PARAMETER : this.readyStatus
    }
    if (lengthBytes === 0) return null
    const described = irp.mdlAddress === 0 ? 0 : this.kernel.mdlAt(irp.mdlAddress).byteCount
    return lengthBytes <= described ? null : NtStatus.INVALID_PARAMETER
  }

  complete(irp: Irp, status: NtStatus, information = 0): NtStatus {
    irp.status = status
    irp.information = information
    this.kernel.ioCompleteRequest(irp)
    return status
  }

  /** Sends a command and waits for it; the caller holds the remove lock. */
  command(
    command: Omit<DiskCommand, 'timeoutSeconds'> & { timeoutSeconds?: number },
  ): Waiting<DiskCommandResult> {
    return sendCommand(this.kernel, this.packets, { timeoutSeconds: this.timeoutSeconds, ...command })
  }

  pieceEnded(packet: TransferPacket): void {
    this.transfers.pieceEnded(packet)
  }

  /** Sense data that says more than how the request went. At DISPATCH level. */
  sensed(packet: TransferPacket): void {
    if ((packet.srbStatus & SrbStatusBit.AUTOSENSE_VALID) === 0) return
    const { sense, senseBase } = packet
    if ((sense.u8(FixedSense.key, senseBase) & 0xf) !== SenseKey.UNIT_ATTENTION) return
    if (this.removable) {
      this.fdo.flags |= DeviceFlag.VERIFY_VOLUME
      this.mediaChanges++
      return
    }
    const asc = sense.u8(FixedSense.asc, senseBase) * 256 + sense.u8(FixedSense.ascq, senseBase)
    if (asc === Asc.CAPACITY_CHANGED) this.capacityChanged()
  }

  /** What is known of the size is old: it is read again in a thread that may wait. */
  capacityChanged(): void {
    if (this.#refreshing || this.state !== 'started' || !this.lock.acquire()) return
    this.#refreshing = true
    this.kernel.spawn(this.#refresh())
  }

  *#refresh(): Waiting<void> {
    // From here on, a change that comes while we read makes us read once more.
    this.#refreshing = false
    yield* this.look(true)
    this.lock.release()
  }

  /** One look at the medium is over before the next begins, or an old answer could come behind a newer one. */
  *inTurn<T>(look: () => Waiting<T>): Waiting<T> {
    yield* this.kernel.keWaitForSingleObject(this.#turn)
    const seen = yield* look()
    this.kernel.keSetEvent(this.#turn)
    return seen
  }

  /** What the medium says now: its size and, with `whole`, its partitions. The caller holds the remove lock. */
  look(whole: boolean): Waiting {
    return this.inTurn(() => this.#look(whole))
  }
  *#look(whole: boolean): Waiting {
    const status = yield* this.readCapacity()
    if (!whole || !ntSuccess(status)) return status
    const partitions = yield* readPartitions(this)
    return partitions === NtStatus.INSUFFICIENT_RESOURCES ? partitions : status
  }

  /** READ CAPACITY, and what it says is remembered. Within a turn. */
  *readCapacity(): Waiting {
    const answer = yield* readCapacity(this)
    if (typeof answer === 'number') {
      this.readyStatus = answer
      return answer
    }
    this.readyStatus = NtStatus.SUCCESS
    this.facts = { ...this.facts, ...answer }
    this.fdo.sectorSize = answer.sectorBytes
    return NtStatus.SUCCESS
  }

  /** Whether applications find it by what it is. */
  show(shown: boolean): void {
    if (this.interfaceLink !== null) this.kernel.pnp.interfaces.setState(this.interfaceLink, shown)
  }

  /** The device is gone: nobody is let in any more, and nothing waits for another try. */
  vanish(): void {
    if (this.gone) return
    this.state = 'gone'
    this.show(false)
    const before = this.kernel.keRaiseIrql(2)
    this.packets.abandonDelayed()
    this.kernel.keLowerIrql(before)
  }

  free(): void {
    this.packets.trim()
    this.kernel.exFreePool(this.#records)
  }
}
