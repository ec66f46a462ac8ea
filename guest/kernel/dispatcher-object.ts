import { type KernelMemory, KernelRecord } from './kernel-memory.ts'
import { DISPATCHER_HEADER, DispatcherType, KMUTANT, KSEMAPHORE, KTIMER } from './layout.ts'
import { initializeList, listIsEmpty } from './list.ts'

/** Where the fields lie that every wait and wake touches, in words of the record; the type is its first byte. */
const SIGNAL_STATE = DISPATCHER_HEADER.signalState / 4
const LIMIT = KSEMAPHORE.limit / 4
const WAIT_LIST_HEAD = DISPATCHER_HEADER.waitListHead as number

/** Fills in the header of a dispatcher object at `at`. */
export function initializeHeader(
  memory: KernelMemory,
  at: number,
  type: number,
  size: number,
  state: number,
): void {
  const { window } = memory
  window.putU8(DISPATCHER_HEADER.type, type, at)
  window.putU8(DISPATCHER_HEADER.absolute, 0, at)
  window.putU8(DISPATCHER_HEADER.size, size / 4, at)
  window.putU8(DISPATCHER_HEADER.inserted, 0, at)
  window.putLe32(DISPATCHER_HEADER.signalState, state, at)
  initializeList(memory, at + DISPATCHER_HEADER.waitListHead)
}

/** An object threads can wait for, by the header all of them begin with. */
export class DispatcherObject extends KernelRecord {
  get type(): number {
    return (this.words[this.word] as number) & 0xff
  }
  /** Signed: a mutex acquired twice is below zero. */
  get signalState(): number {
    return (this.words[this.word + SIGNAL_STATE] as number) | 0
  }
  set signalState(value: number) {
    this.words[this.word + SIGNAL_STATE] = value
  }
  get inserted(): boolean {
    return this.window.u8(DISPATCHER_HEADER.inserted, this.at) !== 0
  }
  set inserted(value: boolean) {
    this.window.putU8(DISPATCHER_HEADER.inserted, value ? 1 : 0, this.at)
  }
  get waitListHead(): number {
    return this.at + WAIT_LIST_HEAD
  }
  /** Somebody waits. */
  get awaited(): boolean {
    return !listIsEmpty(this.memory, this.waitListHead)
  }
}

export class KEvent extends DispatcherObject {
  get isNotification(): boolean {
    return this.type === DispatcherType.NOTIFICATION_EVENT
  }
}

export class KSemaphore extends DispatcherObject {
  get limit(): number {
    return (this.words[this.word + LIMIT] as number) | 0
  }
  set limit(value: number) {
    this.words[this.word + LIMIT] = value
  }
}

export class KMutant extends DispatcherObject {
  /** ETHREAD, or 0. */
  get ownerThread(): number {
    return this.window.le64(KMUTANT.ownerThread, this.at)
  }
  set ownerThread(value: number) {
    this.window.putLe64(KMUTANT.ownerThread, value, this.at)
  }
  get abandoned(): boolean {
    return this.window.u8(KMUTANT.abandoned, this.at) !== 0
  }
  set abandoned(value: boolean) {
    this.window.putU8(KMUTANT.abandoned, value ? 1 : 0, this.at)
  }
  get apcDisable(): number {
    return this.window.u8(KMUTANT.apcDisable, this.at)
  }
  set apcDisable(value: number) {
    this.window.putU8(KMUTANT.apcDisable, value, this.at)
  }
  get listEntry(): number {
    return this.at + KMUTANT.mutantListEntry
  }
}

export class KTimer extends DispatcherObject {
  /** Microseconds since power-on. */
  get dueTimeUs(): number {
    return this.window.le64(KTIMER.dueTime, this.at)
  }
  set dueTimeUs(value: number) {
    this.window.putLe64(KTIMER.dueTime, value, this.at)
  }
  /** KDPC, or 0. */
  get dpc(): number {
    return this.window.le64(KTIMER.dpc, this.at)
  }
  set dpc(value: number) {
    this.window.putLe64(KTIMER.dpc, value, this.at)
  }
  get periodMs(): number {
    return this.window.le32(KTIMER.periodMs, this.at)
  }
  set periodMs(value: number) {
    this.window.putLe32(KTIMER.periodMs, value, this.at)
  }
}
