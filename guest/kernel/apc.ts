import type { Hal } from './hal.ts'
import { Irql } from './irql.ts'
import { type KernelMemory, KernelRecord } from './kernel-memory.ts'
import { KAPC } from './layout.ts'
import { firstEntry, insertHead, insertTail, nextEntry, removeEntry, removeHead } from './list.ts'
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

class Apc extends KernelRecord {
  get kernelRoutine(): Routine<KernelApcRoutine> {
    return this.window.le64(KAPC.kernelRoutine, this.at) as Routine<KernelApcRoutine>
  }
  get rundownRoutine(): Routine<RundownApcRoutine> {
    return this.window.le64(KAPC.rundownRoutine, this.at) as Routine<RundownApcRoutine>
  }
  get normalRoutine(): Routine<NormalApcRoutine> {
    return this.window.le64(KAPC.normalRoutine, this.at) as Routine<NormalApcRoutine>
  }
  get inserted(): boolean {
    return this.window.u8(KAPC.inserted, this.at) !== 0
  }
}

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
    const { window } = this.#memory
    this.#memory.zero(at, KAPC.$size)
    window.putU8(KAPC.type, APC_OBJECT, at)
    window.putU8(KAPC.size, KAPC.$size, at)
    window.putLe64(KAPC.thread, thread.at, at)
    window.putLe64(KAPC.kernelRoutine, options.kernel, at)
    window.putLe64(KAPC.rundownRoutine, options.rundown ?? 0, at)
    window.putLe64(KAPC.normalRoutine, options.normal ?? 0, at)
    window.putLe64(KAPC.normalContext, options.context ?? 0, at)
    window.putU8(KAPC.apcMode, options.normal === undefined ? Mode.KERNEL : (options.mode ?? Mode.KERNEL), at)
  }

  /**
   * KeInsertQueueApc. False when it is queued already or the thread has ended. A special kernel APC goes in
   * front of normal ones, behind other special ones.
   */
  insert(at: number, thread: Thread, argument1 = 0, argument2 = 0): boolean {
    const { window } = this.#memory
    if (window.u8(KAPC.inserted, at) !== 0 || thread.state === 'ended') return false
    window.putLe64(KAPC.systemArgument1, argument1, at)
    window.putLe64(KAPC.systemArgument2, argument2, at)
    window.putU8(KAPC.inserted, 1, at)
    const entry = at + KAPC.apcListEntry
    if (window.u8(KAPC.apcMode, at) === Mode.USER) {
      insertTail(window, thread.userApcs, entry)
      if (thread.state === 'waiting' && thread.alertable && thread.waitMode === Mode.USER) {
        this.#scheduler.unwait(thread, NtStatus.USER_APC)
      }
      return true
    }
    if (window.le64(KAPC.normalRoutine, at) === 0) this.#insertSpecial(thread, entry)
    else insertTail(window, thread.kernelApcs, entry)
    this.#notify(thread)
    return true
  }

  #insertSpecial(thread: Thread, entry: number): void {
    const { window } = this.#memory
    let last = 0
    for (
      let at = firstEntry(window, thread.kernelApcs);
      at !== 0 && window.le64(KAPC.normalRoutine, at - KAPC.apcListEntry) === 0;
      at = nextEntry(window, thread.kernelApcs, at)
    ) {
      last = at
    }
    insertHead(window, last === 0 ? thread.kernelApcs : last, entry)
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
    const { window } = this.#memory
    const first = firstEntry(window, thread.kernelApcs)
    if (first === 0) return false
    return window.le64(KAPC.normalRoutine, first - KAPC.apcListEntry) === 0 || thread.kernelApcDisable === 0
  }

  /** The APC interrupt, at APC level: kernel APCs of the current thread. */
  deliverKernel(): void {
    const thread = this.#scheduler.current
    if (thread === null) return
    const { window } = this.#memory
    while (this.deliverable(thread)) {
      const apc = this.#take(thread.kernelApcs)
      const normal = apc.normalRoutine
      const { at } = apc
      const context = window.le64(KAPC.normalContext, at)
      const argument1 = window.le64(KAPC.systemArgument1, at)
      const argument2 = window.le64(KAPC.systemArgument2, at)
      this.#routines.resolve(apc.kernelRoutine)(at, thread)
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
    const { window } = this.#memory
    while (thread.hasUserApc) {
      const apc = this.#take(thread.userApcs)
      const { at } = apc
      const normal = apc.normalRoutine
      const context = window.le64(KAPC.normalContext, at)
      const argument1 = window.le64(KAPC.systemArgument1, at)
      const argument2 = window.le64(KAPC.systemArgument2, at)
      const before = this.#hal.raise(Irql.APC)
      this.#routines.resolve(apc.kernelRoutine)(at, thread)
      this.#hal.lower(before)
      this.#routines.resolve(normal)(context, argument1, argument2)
    }
  }

  /** Takes an APC out of its queue; whether it was in. */
  remove(at: number): boolean {
    const { window } = this.#memory
    if (window.u8(KAPC.inserted, at) === 0) return false
    window.putU8(KAPC.inserted, 0, at)
    removeEntry(window, at + KAPC.apcListEntry)
    return true
  }

  /** The thread ended: what it did not run is rundown. */
  rundown(thread: Thread): void {
    for (const list of [thread.kernelApcs, thread.userApcs]) {
      for (;;) {
        const entry = removeHead(this.#memory.window, list)
        if (entry === 0) break
        const apc = new Apc(this.#memory, entry - KAPC.apcListEntry)
        this.#memory.window.putU8(KAPC.inserted, 0, apc.at)
        const routine = apc.rundownRoutine
        if (routine !== 0) this.#routines.resolve(routine)(apc.at)
        else if (list === thread.kernelApcs) this.#routines.resolve(apc.kernelRoutine)(apc.at, thread)
      }
    }
  }

  /** Out of the queue before its routines run: they may queue it again or free it. */
  #take(list: number): Apc {
    const entry = removeHead(this.#memory.window, list)
    const apc = new Apc(this.#memory, entry - KAPC.apcListEntry)
    this.#memory.window.putU8(KAPC.inserted, 0, apc.at)
    return apc
  }
}
