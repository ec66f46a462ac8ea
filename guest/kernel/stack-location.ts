import type { Field } from '../../protocol/layout.ts'
import type { DeviceObject } from './device-object.ts'
import { IO_STACK_LOCATION, type Major } from './io-layout.ts'
import type { Irp } from './irp.ts'
import { KernelRecord } from './kernel-memory.ts'
import type { NtStatus } from './nt-status.ts'
import type { Routine } from './routine.ts'

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
  /** The device whose address is stored, kept so that nobody has to look it up. */
  device: DeviceObject | null = null

  get major(): Major {
    return this.window.u8(IO_STACK_LOCATION.major, this.at) as Major
  }
  set major(value: Major) {
    this.window.putU8(IO_STACK_LOCATION.major, value, this.at)
  }
  get minor(): number {
    return this.window.u8(IO_STACK_LOCATION.minor, this.at)
  }
  set minor(value: number) {
    this.window.putU8(IO_STACK_LOCATION.minor, value, this.at)
  }
  get flags(): number {
    return this.window.u8(IO_STACK_LOCATION.flags, this.at)
  }
  set flags(value: number) {
    this.window.putU8(IO_STACK_LOCATION.flags, value, this.at)
  }
  get control(): number {
    return this.window.u8(IO_STACK_LOCATION.control, this.at)
  }
  set control(value: number) {
    this.window.putU8(IO_STACK_LOCATION.control, value, this.at)
  }
  get deviceObject(): number {
    return this.window.le64(IO_STACK_LOCATION.deviceObject, this.at)
  }
  set deviceObject(value: number) {
    this.window.putLe64(IO_STACK_LOCATION.deviceObject, value, this.at)
  }
  get fileObject(): number {
    return this.window.le64(IO_STACK_LOCATION.fileObject, this.at)
  }
  set fileObject(value: number) {
    this.window.putLe64(IO_STACK_LOCATION.fileObject, value, this.at)
  }
  get completionRoutine(): Routine<CompletionRoutine> {
    return this.window.le64(IO_STACK_LOCATION.completionRoutine, this.at) as Routine<CompletionRoutine>
  }
  set completionRoutine(value: Routine<CompletionRoutine>) {
    this.window.putLe64(IO_STACK_LOCATION.completionRoutine, value, this.at)
  }
  get context(): number {
    return this.window.le64(IO_STACK_LOCATION.context, this.at)
  }
  set context(value: number) {
    this.window.putLe64(IO_STACK_LOCATION.context, value, this.at)
  }

  /** The four pointer-sized arguments that every typed view overlays. */
  get argument1(): number {
    return this.window.le64(IO_STACK_LOCATION.argument1, this.at)
  }
  set argument1(value: number) {
    this.window.putLe64(IO_STACK_LOCATION.argument1, value, this.at)
  }
  get argument2(): number {
    return this.window.le64(IO_STACK_LOCATION.argument2, this.at)
  }
  set argument2(value: number) {
    this.window.putLe64(IO_STACK_LOCATION.argument2, value, this.at)
  }
  get argument3(): number {
    return this.window.le64(IO_STACK_LOCATION.argument3, this.at)
  }
  set argument3(value: number) {
    this.window.putLe64(IO_STACK_LOCATION.argument3, value, this.at)
  }
  get argument4(): number {
    return this.window.le64(IO_STACK_LOCATION.argument4, this.at)
  }
  set argument4(value: number) {
    this.window.putLe64(IO_STACK_LOCATION.argument4, value, this.at)
  }

  /** Parameters.Read and Parameters.Write: bytes, a 32-bit field. */
  get lengthBytes(): number {
    return this.#low(IO_STACK_LOCATION.argument1)
  }
  set lengthBytes(value: number) {
    this.argument1 = value
  }
  /** Orders a keyed device queue. */
  get key(): number {
    return this.#low(IO_STACK_LOCATION.argument2)
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
    return this.#low(IO_STACK_LOCATION.argument1)
  }
  set outputBufferLengthBytes(value: number) {
    this.argument1 = value
  }
  get inputBufferLengthBytes(): number {
    return this.#low(IO_STACK_LOCATION.argument2)
  }
  set inputBufferLengthBytes(value: number) {
    this.argument2 = value
  }
  get ioControlCode(): number {
    return this.#low(IO_STACK_LOCATION.argument3)
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

  /** A ULONG that takes the place of a pointer: the upper half is padding. */
  #low(field: Field<'le64'>): number {
    return this.window.le32(field as number as Field<'le32'>, this.at)
  }
}
