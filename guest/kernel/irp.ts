import type { DeviceObject } from './device-object.ts'
import { IO_STACK_LOCATION, IoType, IRP, IRP_TAIL_APC, IrpAllocation } from './io-layout.ts'
import {
  IRP_ASSOCIATED_IRP,
  IRP_CANCEL_ROUTINE,
  IRP_CURRENT_STACK_LOCATION,
  IRP_DRIVER_CONTEXT,
  IRP_FLAGS,
  IRP_INFORMATION,
  IRP_MDL_ADDRESS,
  IRP_ORIGINAL_FILE_OBJECT,
  IRP_STATE,
  IRP_STATUS,
  IRP_THREAD,
  IRP_THREAD_LIST_ENTRY,
  IRP_TYPE,
  IRP_USER_APC_CONTEXT,
  IRP_USER_APC_ROUTINE,
  IRP_USER_BUFFER,
  IRP_USER_EVENT,
  IRP_USER_IOSB,
  IRP_WORDS,
  LOCATION_WORDS,
} from './irp-words.ts'
import { type KernelMemory, KernelRecord, pointer, putPointer } from './kernel-memory.ts'
import type { NtStatus } from './nt-status.ts'
import type { Routine } from './routine.ts'
import { IoStackLocation } from './stack-location.ts'

/**
 * DRIVER_CANCEL: called with the cancel spin lock held, at DISPATCH level; it releases the lock with
 * `irp.cancelIrql`. The request is its own to complete.
 */
export type CancelRoutine = (device: DeviceObject | null, irp: Irp) => void

const STACK_COUNT: number = IRP.stackCount
const PENDING_RETURNED: number = IRP.pendingReturned
const CURRENT_LOCATION: number = IRP.currentLocation
const LIST_ENTRY = IRP.listEntry as number
const CANCEL: number = IRP.cancel
const CANCEL_IRQL: number = IRP.cancelIrql
const ALLOCATION_FLAGS: number = IRP.allocationFlags

/** Where a request is: who may touch it. Kept beside the record for a verifier; nothing depends on it. */
export type IrpHolder = 'originator' | 'driver' | 'system' | 'freed'

/** Bytes of a request with so many locations. */
export function irpBytes(stackCount: number): number {
  return IRP.$size + stackCount * IO_STACK_LOCATION.$size
}

/** An I/O request packet. One view belongs to each block of memory and is used again with it. */
export class Irp extends KernelRecord {
  /** By index; `locations[n - 1]` is the location numbered n. Room for as many as the memory holds. */
  readonly locations: readonly IoStackLocation[]
  holder: IrpHolder
  /** Devices whose addresses the locations hold, kept so that nobody has to look them up. */
  readonly devices: (DeviceObject | null)[]

  constructor(memory: KernelMemory, at: number, stackCount: number) {
    super(memory, at)
    this.locations = Array.from(
      { length: stackCount },
      (_, index) => new IoStackLocation(memory, at + irpBytes(index)),
    )
    this.holder = 'freed'
    this.devices = new Array<DeviceObject | null>(stackCount).fill(null)
  }

  /** IoInitializeIrp, keeping the allocation flags. */
  initialize(allocationFlags: number): void {
    const { words, word, at, memory, locations } = this
    const stackCount = locations.length
    const sizeBytes = irpBytes(stackCount)
    memory.bytes.fill(0, at, at + sizeBytes)
    words[word + IRP_TYPE] = IoType.IRP + sizeBytes * 0x1_0000
    words[word + IRP_STATE] = stackCount * 0x1_0000 + (stackCount + 1) * 0x100_0000
    words[word + IRP_CURRENT_STACK_LOCATION] = at + sizeBytes
    memory.bytes[at + ALLOCATION_FLAGS] = allocationFlags
    // Self-linked: in no thread's list.
    words[word + IRP_THREAD_LIST_ENTRY] = at + IRP_THREAD_LIST_ENTRY * 4
    words[word + IRP_THREAD_LIST_ENTRY + 2] = at + IRP_THREAD_LIST_ENTRY * 4
    this.holder = 'originator'
  }

  get type(): number {
    return (this.words[this.word + IRP_TYPE] as number) & 0xffff
  }
  get sizeBytes(): number {
    return this.window.le16(IRP.size, this.at)
  }
  get mdlAddress(): number {
    return pointer(this.words, this.word + IRP_MDL_ADDRESS)
  }
  set mdlAddress(value: number) {
    putPointer(this.words, this.word + IRP_MDL_ADDRESS, value)
  }
  get flags(): number {
    return this.words[this.word + IRP_FLAGS] as number
  }
  set flags(value: number) {
    this.words[this.word + IRP_FLAGS] = value
  }
  /** AssociatedIrp.SystemBuffer. */
  get systemBuffer(): number {
    return pointer(this.words, this.word + IRP_ASSOCIATED_IRP)
  }
  set systemBuffer(value: number) {
    putPointer(this.words, this.word + IRP_ASSOCIATED_IRP, value)
  }
  /** AssociatedIrp.MasterIrp of an associated one. */
  get masterIrp(): number {
    return this.systemBuffer
  }
  set masterIrp(value: number) {
    this.systemBuffer = value
  }
  /** AssociatedIrp.IrpCount of a master: associated ones not finished. */
  get irpCount(): number {
    return this.systemBuffer
  }
  set irpCount(value: number) {
    this.systemBuffer = value
  }
  /** IoStatus.Status. */
  get status(): NtStatus {
    return this.words[this.word + IRP_STATUS] as NtStatus
  }
  set status(value: NtStatus) {
    this.words[this.word + IRP_STATUS] = value
  }
  /** IoStatus.Information. */
  get information(): number {
    return pointer(this.words, this.word + IRP_INFORMATION)
  }
  set information(value: number) {
    putPointer(this.words, this.word + IRP_INFORMATION, value)
  }
  get requestorMode(): number {
    return (this.words[this.word + IRP_STATE] as number) & 0xff
  }
  set requestorMode(value: number) {
    this.memory.bytes[this.at + IRP_STATE * 4] = value
  }
  get pendingReturned(): boolean {
    return this.memory.bytes[this.at + PENDING_RETURNED] !== 0
  }
  set pendingReturned(value: boolean) {
    this.memory.bytes[this.at + PENDING_RETURNED] = value ? 1 : 0
  }
  get stackCount(): number {
    return this.memory.bytes[this.at + STACK_COUNT] as number
  }
  /** 1-based; stackCount + 1 means "with the originator". */
  get currentLocation(): number {
    return this.memory.bytes[this.at + CURRENT_LOCATION] as number
  }
  /** Moves the current location, and with it the pointer to it. */
  set currentLocation(value: number) {
    this.memory.bytes[this.at + CURRENT_LOCATION] = value
    this.words[this.word + IRP_CURRENT_STACK_LOCATION] =
      this.at + (IRP_WORDS + (value - 1) * LOCATION_WORDS) * 4
  }
  get cancel(): boolean {
    return this.memory.bytes[this.at + CANCEL] !== 0
  }
  set cancel(value: boolean) {
    this.memory.bytes[this.at + CANCEL] = value ? 1 : 0
  }
  get cancelIrql(): number {
    return this.memory.bytes[this.at + CANCEL_IRQL] as number
  }
  set cancelIrql(value: number) {
    this.memory.bytes[this.at + CANCEL_IRQL] = value
  }
  get allocationFlags(): number {
    return this.memory.bytes[this.at + ALLOCATION_FLAGS] as number
  }
  get userIosb(): number {
    return pointer(this.words, this.word + IRP_USER_IOSB)
  }
  set userIosb(value: number) {
    putPointer(this.words, this.word + IRP_USER_IOSB, value)
  }
  get userEvent(): number {
    return pointer(this.words, this.word + IRP_USER_EVENT)
  }
  set userEvent(value: number) {
    putPointer(this.words, this.word + IRP_USER_EVENT, value)
  }
  get userApcRoutine(): number {
    return pointer(this.words, this.word + IRP_USER_APC_ROUTINE)
  }
  set userApcRoutine(value: number) {
    putPointer(this.words, this.word + IRP_USER_APC_ROUTINE, value)
  }
  get userApcContext(): number {
    return pointer(this.words, this.word + IRP_USER_APC_CONTEXT)
  }
  set userApcContext(value: number) {
    putPointer(this.words, this.word + IRP_USER_APC_CONTEXT, value)
  }
  get cancelRoutine(): Routine<CancelRoutine> {
    return pointer(this.words, this.word + IRP_CANCEL_ROUTINE) as Routine<CancelRoutine>
  }
  set cancelRoutine(value: Routine<CancelRoutine>) {
    putPointer(this.words, this.word + IRP_CANCEL_ROUTINE, value)
  }
  get userBuffer(): number {
    return pointer(this.words, this.word + IRP_USER_BUFFER)
  }
  set userBuffer(value: number) {
    putPointer(this.words, this.word + IRP_USER_BUFFER, value)
  }
  /** Tail.Overlay.Thread: ETHREAD. */
  get thread(): number {
    return pointer(this.words, this.word + IRP_THREAD)
  }
  set thread(value: number) {
    putPointer(this.words, this.word + IRP_THREAD, value)
  }
  get originalFileObject(): number {
    return pointer(this.words, this.word + IRP_ORIGINAL_FILE_OBJECT)
  }
  set originalFileObject(value: number) {
    putPointer(this.words, this.word + IRP_ORIGINAL_FILE_OBJECT, value)
  }

  /** Tail.Overlay.DriverContext[index], the owner's. */
  driverContext(index: number): number {
    return pointer(this.words, this.word + IRP_DRIVER_CONTEXT + index * 2)
  }
  putDriverContext(index: number, value: number): void {
    putPointer(this.words, this.word + IRP_DRIVER_CONTEXT + index * 2, value)
  }

  /** Tail.Overlay.ListEntry, the owner's: an address for the list functions. */
  get listEntry(): number {
    return this.at + LIST_ENTRY
  }
  /** Tail.Overlay.DeviceQueueEntry: an address; shares its place with DriverContext. */
  get deviceQueueEntry(): number {
    return this.at + (IRP.driverContext as number)
  }
  /** ThreadListEntry: an address. */
  get threadListEntry(): number {
    return this.at + IRP_THREAD_LIST_ENTRY * 4
  }
  /** Tail.Apc: an address; overlays everything the driver owned. */
  get tailApc(): number {
    return this.at + IRP_TAIL_APC
  }
  get isThreaded(): boolean {
    return this.words[this.word + IRP_THREAD_LIST_ENTRY] !== this.at + IRP_THREAD_LIST_ENTRY * 4
  }
  get isFixedSize(): boolean {
    return (this.allocationFlags & IrpAllocation.FIXED_SIZE) !== 0
  }

  /** IoGetCurrentIrpStackLocation. Without a location of one's own it is a wild pointer. */
  get current(): IoStackLocation {
    return this.locations[this.currentLocation - 1] ?? this.wild()
  }
  /** IoGetNextIrpStackLocation: the one of the driver below. */
  get next(): IoStackLocation {
    return this.locations[this.currentLocation - 2] ?? this.wild()
  }

  /** A location that is not there was used. */
  wild(): never {
    return this.fault(this.at + irpBytes(this.currentLocation - 1))
  }
}
