import type { DeviceObject } from './device-object.ts'
import { KEvent } from './dispatcher-object.ts'
import { FILE_OBJECT, FileFlag } from './io-layout.ts'
import { type KernelMemory, KernelRecord } from './kernel-memory.ts'
import type { NtStatus } from './nt-status.ts'

const FLAGS = FILE_OBJECT.flags / 4
const FINAL_STATUS = FILE_OBJECT.finalStatus / 4
const READ_ACCESS: number = FILE_OBJECT.readAccess
const WRITE_ACCESS: number = FILE_OBJECT.writeAccess
const EVENT = FILE_OBJECT.event as number

/** An open of a device. */
export class FileObject extends KernelRecord {
  /** The device that was opened; requests go to the top of its stack. */
  readonly device: DeviceObject
  /** Rest of the name behind the device's. */
  readonly fileName: string
  /** References: the handles together, and each request under way. */
  references: number
  handles: number
  /** Set at completion when the request brought no event. */
  readonly ended: KEvent
  /** Completion port and key, once associated. */
  completion: { readonly port: CompletionPortLike; readonly key: number } | null

  constructor(memory: KernelMemory, at: number, device: DeviceObject, fileName: string) {
    super(memory, at)
    this.device = device
    this.fileName = fileName
    this.references = 1
    this.ended = new KEvent(memory, this.event)
    this.handles = 0
    this.completion = null
  }

  get flags(): number {
    return this.words[this.word + FLAGS] as number
  }
  set flags(value: number) {
    this.words[this.word + FLAGS] = value
  }
  get isSynchronous(): boolean {
    return (this.flags & FileFlag.SYNCHRONOUS_IO) !== 0
  }
  get finalStatus(): NtStatus {
    return this.words[this.word + FINAL_STATUS] as NtStatus
  }
  set finalStatus(value: NtStatus) {
    this.words[this.word + FINAL_STATUS] = value
  }
  get readAccess(): boolean {
    return this.memory.bytes[this.at + READ_ACCESS] !== 0
  }
  set readAccess(value: boolean) {
    this.window.putU8(FILE_OBJECT.readAccess, value ? 1 : 0, this.at)
  }
  get writeAccess(): boolean {
    return this.memory.bytes[this.at + WRITE_ACCESS] !== 0
  }
  set writeAccess(value: boolean) {
    this.window.putU8(FILE_OBJECT.writeAccess, value ? 1 : 0, this.at)
  }
  /** The driver's pointers. */
  get fsContext(): number {
    return this.window.le64(FILE_OBJECT.fsContext, this.at)
  }
  set fsContext(value: number) {
    this.window.putLe64(FILE_OBJECT.fsContext, value, this.at)
  }
  get fsContext2(): number {
    return this.window.le64(FILE_OBJECT.fsContext2, this.at)
  }
  set fsContext2(value: number) {
    this.window.putLe64(FILE_OBJECT.fsContext2, value, this.at)
  }
  get currentByteOffset(): number {
    return this.window.le64(FILE_OBJECT.currentByteOffset, this.at)
  }
  set currentByteOffset(value: number) {
    this.window.putLe64(FILE_OBJECT.currentByteOffset, value, this.at)
  }
  /** The lock of a synchronous handle, and who waits for it. */
  get busy(): boolean {
    return this.window.le32(FILE_OBJECT.busy, this.at) !== 0
  }
  set busy(value: boolean) {
    this.window.putLe32(FILE_OBJECT.busy, value ? 1 : 0, this.at)
  }
  get waiters(): number {
    return this.window.le32(FILE_OBJECT.waiters, this.at)
  }
  set waiters(value: number) {
    this.window.putLe32(FILE_OBJECT.waiters, value, this.at)
  }
  /** KEVENT set when the lock is let go, as an address. */
  get lock(): number {
    return this.at + (FILE_OBJECT.lock as number)
  }
  /** KEVENT set at completion when the request brought none, as an address. */
  get event(): number {
    return this.at + EVENT
  }
}

/** Where completion packets go. */
export interface CompletionPortLike {
  /** The file that was associated is gone. */
  release(): void
  post(key: number, apcContext: number, status: NtStatus, information: number): void
}
