import { BugCode, keBugCheckEx } from './bug-check.ts'
import type { Hal } from './hal.ts'
import { Irql } from './irql.ts'
import type { KernelMemory } from './kernel-memory.ts'
import { KernelRecord } from './kernel-memory.ts'
import { KDPC } from './layout.ts'
import { initializeList, insertHead, insertTail, removeEntry, removeHead } from './list.ts'
import type { Routine, RoutineTable } from './routine.ts'

/** KDEFERRED_ROUTINE: runs at DISPATCH level on whatever thread was interrupted. */
export type DeferredRoutine = (dpc: KDpc, context: number, argument1: number, argument2: number) => void

/** KDPC_IMPORTANCE. */
export const Importance = { LOW: 0, MEDIUM: 1, HIGH: 2 } as const

const DPC_OBJECT = 19

export class KDpc extends KernelRecord {
  get type(): number {
    return this.window.u8(KDPC.type, this.at)
  }
  get importance(): number {
    return this.window.u8(KDPC.importance, this.at)
  }
  set importance(value: number) {
    this.window.putU8(KDPC.importance, value, this.at)
  }
  get routine(): Routine<DeferredRoutine> {
    return this.window.le64(KDPC.deferredRoutine, this.at) as Routine<DeferredRoutine>
  }
  get context(): number {
    return this.window.le64(KDPC.deferredContext, this.at)
  }
  get queued(): boolean {
    return this.window.le64(KDPC.dpcData, this.at) !== 0
  }
}

/** The DPC queue. One object is in it at most once; it runs when IRQL falls below DISPATCH. */
export class DpcQueue {
  readonly #memory: KernelMemory
  readonly #hal: Hal
  readonly #routines: RoutineTable
  readonly #head: number
  #active: boolean

  /** @param head 16 bytes for the list's head. */
  constructor(memory: KernelMemory, hal: Hal, routines: RoutineTable, head: number) {
    this.#memory = memory
    this.#hal = hal
    this.#routines = routines
    this.#head = head
    this.#active = false
    initializeList(memory, head)
  }

  /** A DPC routine is running: whoever waits now has to be stopped. */
  get active(): boolean {
    return this.#active
  }

  /** KeInitializeDpc. */
  initialize(at: number, routine: Routine<DeferredRoutine>, context: number): KDpc {
    const { window } = this.#memory
    this.#memory.zero(at, KDPC.$size)
    window.putU8(KDPC.type, DPC_OBJECT, at)
    window.putU8(KDPC.importance, Importance.MEDIUM, at)
    initializeList(this.#memory, at + KDPC.dpcListEntry)
    window.putLe64(KDPC.deferredRoutine, routine, at)
    window.putLe64(KDPC.deferredContext, context, at)
    return new KDpc(this.#memory, at)
  }

  /** KeInsertQueueDpc: false when it is queued already; its arguments stay those of the first call. */
  insert(at: number, argument1: number, argument2: number): boolean {
    const { window } = this.#memory
    if (window.u8(KDPC.type, at) !== DPC_OBJECT) keBugCheckEx(BugCode.TIMER_OR_DPC_INVALID, 3, at)
    if (window.le64(KDPC.dpcData, at) !== 0) return false
    window.putLe64(KDPC.dpcData, this.#head, at)
    window.putLe64(KDPC.systemArgument1, argument1, at)
    window.putLe64(KDPC.systemArgument2, argument2, at)
    if (window.u8(KDPC.importance, at) === Importance.HIGH) {
      insertHead(this.#memory, this.#head, at + KDPC.dpcListEntry)
    } else insertTail(this.#memory, this.#head, at + KDPC.dpcListEntry)
    this.#hal.request(Irql.DISPATCH)
    return true
  }

  /** KeRemoveQueueDpc: whether it was queued. */
  remove(at: number): boolean {
    const { window } = this.#memory
    if (window.le64(KDPC.dpcData, at) === 0) return false
    window.putLe64(KDPC.dpcData, 0, at)
    removeEntry(this.#memory, at + KDPC.dpcListEntry)
    return true
  }

  /** The DISPATCH interrupt: runs what is queued, and what that queues. */
  drain(): void {
    const { window } = this.#memory
    for (;;) {
      const entry = removeHead(this.#memory, this.#head)
      if (entry === 0) break
      const at = entry - KDPC.dpcListEntry
      // Out of the queue before the routine runs, so that it may queue itself again or free its memory.
      window.putLe64(KDPC.dpcData, 0, at)
      const dpc = new KDpc(this.#memory, at)
      const { context } = dpc
      const argument1 = window.le64(KDPC.systemArgument1, at)
      const argument2 = window.le64(KDPC.systemArgument2, at)
      this.#active = true
      this.#routines.resolve(dpc.routine)(dpc, context, argument1, argument2)
      this.#active = false
      if (this.#hal.irql !== Irql.DISPATCH) {
        keBugCheckEx(BugCode.IRQL_UNEXPECTED_VALUE, this.#hal.irql, Irql.DISPATCH, at)
      }
    }
  }
}
