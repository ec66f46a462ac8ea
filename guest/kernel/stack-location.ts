import type { DeviceObject } from './device-object.ts'
import { IO_STACK_LOCATION, type Major } from './io-layout.ts'
import type { Irp } from './irp.ts'
import {
  LOCATION_ARGUMENT_1,
  LOCATION_ARGUMENT_2,
  LOCATION_ARGUMENT_3,
  LOCATION_ARGUMENT_4,
  LOCATION_CONTEXT,
  LOCATION_DEVICE,
  LOCATION_FILE,
  LOCATION_ROUTINE,
} from './irp-words.ts'
import { KernelRecord, pointer, putPointer } from './kernel-memory.ts'
import type { NtStatus } from './nt-status.ts'
import type { Routine } from './routine.ts'

const MINOR: number = IO_STACK_LOCATION.minor
const FLAGS: number = IO_STACK_LOCATION.flags
const CONTROL: number = IO_STACK_LOCATION.control

/**
 * IO_COMPLETION_ROUTINE: at DISPATCH level or below, in any thread. `device` is the device of the driver that
 * set the routine, null for an originator without a location of its own. MORE_PROCESSING_REQUIRED stops the
 * unwinding and makes the request the driver's again; any other answer lets it go on.
 */
export type CompletionRoutine = (device: DeviceObject | null, irp: Irp, context: number) => NtStatus

/**
 * One driver's turn: what it is asked. The completion routine and Control stored here belong to the driver
 * above.
 */
export class IoStackLocation extends KernelRecord {
  get major(): Major {
    return ((this.words[this.word] as number) & 0xff) as Major
  }
  set major(value: Major) {
    this.memory.bytes[this.at] = value
  }
  get minor(): number {
    return this.memory.bytes[this.at + MINOR] as number
  }
  set minor(value: number) {
    this.memory.bytes[this.at + MINOR] = value
  }
  get flags(): number {
    return this.memory.bytes[this.at + FLAGS] as number
  }
  set flags(value: number) {
    this.memory.bytes[this.at + FLAGS] = value
  }
  get control(): number {
    return (this.words[this.word] as number) >>> 24
  }
  set control(value: number) {
    this.memory.bytes[this.at + CONTROL] = value
  }
  get deviceObject(): number {
    return this.words[this.word + LOCATION_DEVICE] as number
  }
  set deviceObject(value: number) {
    putPointer(this.words, this.word + LOCATION_DEVICE, value)
  }
  get fileObject(): number {
    return pointer(this.words, this.word + LOCATION_FILE)
  }
  set fileObject(value: number) {
    putPointer(this.words, this.word + LOCATION_FILE, value)
  }
  get completionRoutine(): Routine<CompletionRoutine> {
    return this.words[this.word + LOCATION_ROUTINE] as Routine<CompletionRoutine>
  }
  set completionRoutine(value: Routine<CompletionRoutine>) {
    putPointer(this.words, this.word + LOCATION_ROUTINE, value)
  }
  get context(): number {
    return pointer(this.words, this.word + LOCATION_CONTEXT)
  }
  set context(value: number) {
    putPointer(this.words, this.word + LOCATION_CONTEXT, value)
  }

  /** The four pointer-sized arguments that every typed view overlays. */
  get argument1(): number {
    return pointer(this.words, this.word + LOCATION_ARGUMENT_1)
  }
  set argument1(value: number) {
    putPointer(this.words, this.word + LOCATION_ARGUMENT_1, value)
  }
  get argument2(): number {
    return pointer(this.words, this.word + LOCATION_ARGUMENT_2)
  }
  set argument2(value: number) {
    putPointer(this.words, this.word + LOCATION_ARGUMENT_2, value)
  }
  get argument3(): number {
    return pointer(this.words, this.word + LOCATION_ARGUMENT_3)
  }
  set argument3(value: number) {
    putPointer(this.words, this.word + LOCATION_ARGUMENT_3, value)
  }
  get argument4(): number {
    return pointer(this.words, this.word + LOCATION_ARGUMENT_4)
  }
  set argument4(value: number) {
    putPointer(this.words, this.word + LOCATION_ARGUMENT_4, value)
  }

  /** Parameters.Read and Parameters.Write: bytes, a ULONG in a pointer's place; its upper half is padding. */
  get lengthBytes(): number {
    return this.words[this.word + LOCATION_ARGUMENT_1] as number
  }
  set lengthBytes(value: number) {
    this.argument1 = value
  }
  /** Orders a keyed device queue. */
  get key(): number {
    return this.words[this.word + LOCATION_ARGUMENT_2] as number
  }
  set key(value: number) {
    this.argument2 = value
  }
  get byteOffset(): number {
    return this.argument3
  }
  set byteOffset(value: number) {
    this.argument3 = value
  }

  /** Parameters.DeviceIoControl: bytes of the caller's output buffer, a 32-bit field. */
  get outputBufferLengthBytes(): number {
    return this.words[this.word + LOCATION_ARGUMENT_1] as number
  }
  set outputBufferLengthBytes(value: number) {
    this.argument1 = value
  }
  get inputBufferLengthBytes(): number {
    return this.words[this.word + LOCATION_ARGUMENT_2] as number
  }
  set inputBufferLengthBytes(value: number) {
    this.argument2 = value
  }
  get ioControlCode(): number {
    return this.words[this.word + LOCATION_ARGUMENT_3] as number
  }
  set ioControlCode(value: number) {
    this.argument3 = value
  }
  /** METHOD_NEITHER: the caller's input pointer as it came. */
  get type3InputBuffer(): number {
    return this.argument4
  }
  set type3InputBuffer(value: number) {
    this.argument4 = value
  }

  /** Parameters.Scsi: SCSI_REQUEST_BLOCK. */
  get srb(): number {
    return this.argument1
  }
  set srb(value: number) {
    this.argument1 = value
  }
}
