import { initializeHeader } from './dispatcher-object.ts'
import { Irql } from './irql.ts'
import { type KernelMemory, KernelRecord } from './kernel-memory.ts'
import { DispatcherType, ETHREAD, LIST_ENTRY } from './layout.ts'
import { initializeList, listIsEmpty } from './list.ts'
import { NtStatus } from './nt-status.ts'

/**
 * A routine that may wait, under way: it yields whenever its thread has to stop and returns its result. Only
 * code at PASSIVE or APC level can be one.
 */
export type Waiting<T = NtStatus> = Generator<void, T, void>

/** What a thread runs. */
export type ThreadBody = () => Waiting<unknown>

/** The result of a routine that may or may not have to wait. */
export function* settled<T>(result: T | Waiting<T>): Waiting<T> {
  return isWaiting(result) ? yield* result : result
}

/** Whether a routine has not finished and has to be resumed in a thread. */
export function isWaiting<T>(result: T | Waiting<T>): result is Waiting<T> {
  return typeof result === 'object' && result !== null && 'next' in result
}

export type ThreadState = 'ready' | 'running' | 'waiting' | 'ended'

/** PROCESSOR_MODE. */
export const Mode = { KERNEL: 0, USER: 1 } as const
export type Mode = (typeof Mode)[keyof typeof Mode]

export const PRIORITY_COUNT = 32
export const NORMAL_PRIORITY = 8

/** A thread: an ETHREAD record for those who hold its address, and what the dispatcher keeps beside it. */
export class Thread extends KernelRecord {
  readonly name: string
  readonly id: number
  readonly priority: number
  /** Null until it is created and once it has ended. */
  body: Waiting<unknown> | null
  state: ThreadState
  /** Its code is on the machine's stack: it runs, or another thread was put on top of it. */
  onStack: boolean
  /** The level at which it stopped. */
  irql: Irql
  /** How the last wait ended. */
  waitStatus: NtStatus
  /** The wait may be ended by a user APC or an alert. */
  alertable: boolean
  waitMode: Mode
  alerted: boolean
  /** Wait blocks of the wait under way: address of the first, and how many. */
  waitBlocks: number
  waitCount: number
  /** Depth of KeEnterCriticalRegion: normal kernel APCs wait. */
  kernelApcDisable: number
  /** References: its memory stays while there are any. */
  pins: number

  constructor(memory: KernelMemory, at: number, id: number, name: string, priority: number) {
    super(memory, at)
    this.id = id
    this.name = name
    this.priority = priority
    this.body = null
    this.pins = 0
    this.state = 'ready'
    this.onStack = false
    this.irql = Irql.PASSIVE
    this.waitStatus = NtStatus.SUCCESS
    this.alertable = false
    this.waitMode = Mode.KERNEL
    this.alerted = false
    this.waitBlocks = 0
    this.waitCount = 0
    this.kernelApcDisable = 0
    memory.zero(at, ETHREAD.$size)
    initializeHeader(memory, at, DispatcherType.THREAD, ETHREAD.$size, 0)
    for (const list of [this.irpList, this.mutantList, this.kernelApcs, this.userApcs]) {
      initializeList(memory, list)
    }
    memory.window.putLe64(ETHREAD.threadId, id, at)
  }

  /** Heads of its lists, as addresses. */
  get irpList(): number {
    return this.at + ETHREAD.irpList
  }
  get mutantList(): number {
    return this.at + ETHREAD.mutantListHead
  }
  get kernelApcs(): number {
    return this.at + ETHREAD.kernelApcList
  }
  get userApcs(): number {
    return this.at + ETHREAD.userApcList
  }

  get hasKernelApc(): boolean {
    return !listIsEmpty(this.memory, this.kernelApcs)
  }
  get hasUserApc(): boolean {
    return !listIsEmpty(this.memory, this.userApcs)
  }
  /** Requests it issued that are not finished. */
  get hasIrps(): boolean {
    return this.window.le64(LIST_ENTRY.flink, this.irpList) !== this.irpList
  }
}
