import type { Hal } from './hal.ts'
import { Irql } from './irql.ts'
import { type KernelMemory, pointer, putPointer } from './kernel-memory.ts'
import { KAPC } from './layout.ts'
import {
  firstEntry,
  insertHead,
  insertTail,
  lastEntry,
  previousEntry,
  removeEntry,
  removeHead,
} from './list.ts'
import { NtStatus } from './nt-status.ts'
import type { Routine, RoutineTable } from './routine.ts'
import type { Scheduler } from './scheduler.ts'
import { Mode, type Thread } from './thread.ts'

/** PKKERNEL_ROUTINE: runs at APC level in the thread, for every kind of APC. It may free the APC's memory. */
export type KernelApcRoutine = (apc: number, thread: Thread) => void
/** PKNORMAL_ROUTINE: runs at PASSIVE level in the thread. */
export type NormalApcRoutine = (context: number, argument1: number, argument2: number) => void
/** Runs instead of the others when the thread ends first. */
export type RundownApcRoutine = (apc: number) => void

const APC_OBJECT = 18

export interface ApcOptions {
  readonly kernel: Routine<KernelApcRoutine>
  readonly rundown?: Routine<RundownApcRoutine>
  /** None: a special kernel APC. */
  readonly normal?: Routine<NormalApcRoutine>
  readonly mode?: Mode
  readonly context?: number
}

/** Where the fields lie, in words of the record. */
const TYPE_AND_SIZE = KAPC.type / 4
const THREAD = KAPC.thread / 4
const KERNEL_ROUTINE = KAPC.kernelRoutine / 4
const RUNDOWN_ROUTINE = KAPC.rundownRoutine / 4
const NORMAL_ROUTINE = KAPC.normalRoutine / 4
const NORMAL_CONTEXT = KAPC.normalContext / 4
const ARGUMENT_1 = KAPC.systemArgument1 / 4
const ARGUMENT_2 = KAPC.systemArgument2 / 4
const MODE: number = KAPC.apcMode
const INSERTED: number = KAPC.inserted
const APC_LIST_ENTRY = KAPC.apcListEntry as number
const APC_WORDS = KAPC.$size / 4

/** Asynchronous procedure calls: work in the context of one thread. */
export class ApcQueue {
  readonly #memory: KernelMemory
  readonly #hal: Hal
  readonly #routines: RoutineTable
  readonly #scheduler: Scheduler

  constructor(memory: KernelMemory, hal: Hal, routines: RoutineTable, scheduler: Scheduler) {
    this.#memory = memory
    this.#hal = hal
    this.#routines = routines
    this.#scheduler = scheduler
  }

  /** KeInitializeApc. */
  initialize(at: number, thread: Thread, options: ApcOptions): void {
    const { words, bytes } = this.#memory
    const word = at >>> 2
    words.fill(0, word, word + APC_WORDS)
    words[word + TYPE_AND_SIZE] = APC_OBJECT + KAPC.$size * 0x1_0000
    words[word + THREAD] = thread.at
    words[word + KERNEL_ROUTINE] = options.kernel
    words[word + RUNDOWN_ROUTINE] = options.rundown ?? 0
    if (options.normal === undefined) return
    words[word + NORMAL_ROUTINE] = options.normal
    putPointer(words, word + NORMAL_CONTEXT, options.context ?? 0)
    bytes[at + MODE] = options.mode ?? Mode.KERNEL
  }

  /**
   * KeInsertQueueApc. False when it is queued already or the thread has ended. A special kernel APC goes in
   * front of normal ones, behind other special ones.
   */
  insert(at: number, thread: Thread, argument1 = 0, argument2 = 0): boolean {
    const { words, bytes } = this.#memory
    if (bytes[at + INSERTED] !== 0 || thread.state === 'ended') return false
    putPointer(words, (at >>> 2) + ARGUMENT_1, argument1)
    putPointer(words, (at >>> 2) + ARGUMENT_2, argument2)
    bytes[at + INSERTED] = 1
    const entry = at + APC_LIST_ENTRY
    if (bytes[at + MODE] === Mode.USER) {
      insertTail(this.#memory, thread.userApcs, entry)
      if (thread.state === 'waiting' && thread.alertable && thread.waitMode === Mode.USER) {
        this.#scheduler.unwait(thread, NtStatus.USER_APC)
      }
      return true
    }
    if (this.#normalRoutine(at) === 0) this.#insertSpecial(thread, entry)
    else insertTail(this.#memory, thread.kernelApcs, entry)
    this.#notify(thread)
    return true
  }

  #normalRoutine(at: number): Routine<NormalApcRoutine> {
    return this.#memory.words[(at >>> 2) + NORMAL_ROUTINE] as Routine<NormalApcRoutine>
  }

  #insertSpecial(thread: Thread, entry: number): void {
    // From behind: as a rule there are no normal ones, and a burst of requests ends with as many special ones.
    let last = lastEntry(this.#memory, thread.kernelApcs)
    while (last !== 0 && this.#normalRoutine(last - APC_LIST_ENTRY) !== 0) {
      last = previousEntry(this.#memory, thread.kernelApcs, last)
    }
    insertHead(this.#memory, last === 0 ? thread.kernelApcs : last, entry)
  }

  /** Gets a kernel APC delivered: interrupts the current thread, or wakes one that waits below APC level. */
  #notify(thread: Thread): void {
    if (thread === this.#scheduler.current) this.#hal.request(Irql.APC)
    else if (thread.state === 'waiting' && thread.irql < Irql.APC && this.deliverable(thread)) {
      this.#scheduler.unwait(thread, NtStatus.KERNEL_APC)
    }
  }

  /** Whether a kernel APC of the thread may run now, its level permitting. */
  deliverable(thread: Thread): boolean {
    const first = firstEntry(this.#memory, thread.kernelApcs)
    if (first === 0) return false
    return this.#normalRoutine(first - APC_LIST_ENTRY) === 0 || thread.kernelApcDisable === 0
  }

  /** The APC interrupt, at APC level: kernel APCs of the current thread. */
  deliverKernel(): void {
    const thread = this.#scheduler.current
    if (thread === null) return
    const { words } = this.#memory
    while (this.deliverable(thread)) {
      const at = this.#take(thread.kernelApcs)
      const word = at >>> 2
      // Read before its kernel routine runs, which may free it.
      const normal = this.#normalRoutine(at)
      const context = pointer(words, word + NORMAL_CONTEXT)
      const argument1 = pointer(words, word + ARGUMENT_1)
      const argument2 = pointer(words, word + ARGUMENT_2)
      this.#routines.resolve(words[word + KERNEL_ROUTINE] as Routine<KernelApcRoutine>)(at, thread)
      if (normal !== 0) this.#runNormal(normal, context, argument1, argument2)
    }
  }

  /** A normal kernel APC's second half, at PASSIVE level; others of its kind wait meanwhile. */
  #runNormal(routine: Routine<NormalApcRoutine>, context: number, first: number, second: number): void {
    const thread = this.#scheduler.current
    if (thread === null) return
    thread.kernelApcDisable++
    this.#hal.lower(Irql.PASSIVE)
    this.#routines.resolve(routine)(context, first, second)
    thread.kernelApcDisable--
    this.#hal.raise(Irql.APC)
  }

  /** User APCs of the current thread, on its way back to user mode. */
  deliverCurrent(): void {
    const thread = this.#scheduler.current
    if (thread === null) return
    const { words } = this.#memory
    while (thread.hasUserApc) {
      const at = this.#take(thread.userApcs)
      const word = at >>> 2
      const normal = this.#normalRoutine(at)
      const context = pointer(words, word + NORMAL_CONTEXT)
      const argument1 = pointer(words, word + ARGUMENT_1)
      const argument2 = pointer(words, word + ARGUMENT_2)
      const before = this.#hal.raise(Irql.APC)
      this.#routines.resolve(words[word + KERNEL_ROUTINE] as Routine<KernelApcRoutine>)(at, thread)
      this.#hal.lower(before)
      this.#routines.resolve(normal)(context, argument1, argument2)
    }
  }

  /** Takes an APC out of its queue; whether it was in. */
  remove(at: number): boolean {
    const { bytes } = this.#memory
    if (bytes[at + INSERTED] === 0) return false
    bytes[at + INSERTED] = 0
    removeEntry(this.#memory, at + APC_LIST_ENTRY)
    return true
  }

  /** The thread ended: what it did not run is rundown. */
  rundown(thread: Thread): void {
    const { words } = this.#memory
    for (const list of [thread.kernelApcs, thread.userApcs]) {
      for (;;) {
        if (firstEntry(this.#memory, list) === 0) break
        const at = this.#take(list)
        const routine = words[(at >>> 2) + RUNDOWN_ROUTINE] as Routine<RundownApcRoutine>
        if (routine !== 0) this.#routines.resolve(routine)(at)
        else if (list === thread.kernelApcs) {
          this.#routines.resolve(words[(at >>> 2) + KERNEL_ROUTINE] as Routine<KernelApcRoutine>)(at, thread)
        }
      }
    }
  }

  /** Out of the queue before its routines run: they may queue it again or free it. */
  #take(list: number): number {
    const at = removeHead(this.#memory, list) - APC_LIST_ENTRY
    this.#memory.bytes[at + INSERTED] = 0
    return at
  }
}
