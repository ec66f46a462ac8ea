import { BugCode, keBugCheckEx } from './bug-check.ts'
import { initializeHeader, KEvent, KMutant, KSemaphore, KTimer } from './dispatcher-object.ts'
import type { Hal } from './hal.ts'
import { Irql } from './irql.ts'
import type { KernelMemory } from './kernel-memory.ts'
import { DispatcherType, KEVENT, KMUTANT, KSEMAPHORE, KTIMER } from './layout.ts'
import { initializeList } from './list.ts'
import type { Scheduler } from './scheduler.ts'
import type { Waits } from './wait.ts'

/** Events, semaphores and mutexes: making, setting and releasing them. Setting is allowed up to DISPATCH. */
export class Synchronization {
  readonly #memory: KernelMemory
  readonly #hal: Hal
  readonly #scheduler: Scheduler
  readonly #waits: Waits

  constructor(memory: KernelMemory, hal: Hal, scheduler: Scheduler, waits: Waits) {
    this.#memory = memory
    this.#hal = hal
    this.#scheduler = scheduler
    this.#waits = waits
  }

  /** KeInitializeEvent. */
  initializeEvent(at: number, notification: boolean, signalled: boolean): KEvent {
    const type = notification ? DispatcherType.NOTIFICATION_EVENT : DispatcherType.SYNCHRONIZATION_EVENT
    initializeHeader(this.#memory, at, type, KEVENT.$size, signalled ? 1 : 0)
    return new KEvent(this.#memory, at)
  }

  /** KeSetEvent: the state before. */
  setEvent(event: KEvent): number {
    this.#limit(event.at)
    const before = event.signalState
    event.signalState = 1
    if (before <= 0 && event.awaited) this.#waits.wake(event.at)
    return before
  }

  /** KePulseEvent: wakes those who wait now and leaves it not signalled. */
  pulseEvent(event: KEvent): number {
    const before = this.setEvent(event)
    event.signalState = 0
    return before
  }

  /** KeResetEvent: the state before. */
  resetEvent(event: KEvent): number {
    const before = event.signalState
    event.signalState = 0
    return before
  }

  initializeSemaphore(at: number, count: number, limit: number): KSemaphore {
    initializeHeader(this.#memory, at, DispatcherType.SEMAPHORE, KSEMAPHORE.$size, count)
    const semaphore = new KSemaphore(this.#memory, at)
    semaphore.limit = limit
    return semaphore
  }

  /** KeReleaseSemaphore: the count before; -1 when the limit would be passed (Windows raises an exception). */
  releaseSemaphore(semaphore: KSemaphore, adjustment: number): number {
    this.#limit(semaphore.at)
    const before = semaphore.signalState
    if (!(adjustment > 0 && before + adjustment <= semaphore.limit)) return -1
    semaphore.signalState = before + adjustment
    if (semaphore.awaited) this.#waits.wake(semaphore.at)
    return before
  }

  /** KeInitializeMutex; a mutex of the kernel keeps normal kernel APCs away while it is held. */
  initializeMutex(at: number): KMutant {
    initializeHeader(this.#memory, at, DispatcherType.MUTANT, KMUTANT.$size, 1)
    const mutant = new KMutant(this.#memory, at)
    mutant.ownerThread = 0
    mutant.abandoned = false
    mutant.apcDisable = 1
    initializeList(this.#memory, mutant.listEntry)
    return mutant
  }

  /** KeReleaseMutex: the state before (0: it is free now). Releasing another's is a bug check. */
  releaseMutex(mutant: KMutant): number {
    this.#limit(mutant.at)
    const thread = this.#scheduler.current
    if (thread === null || mutant.ownerThread !== thread.at) {
      return keBugCheckEx(BugCode.THREAD_NOT_MUTEX_OWNER, thread?.at ?? 0, mutant.ownerThread, mutant.at)
    }
    const before = mutant.signalState
    if (before < 0) mutant.signalState = before + 1
    else this.#waits.release(mutant)
    return before
  }

  initializeTimer(at: number, notification: boolean): KTimer {
    const type = notification ? DispatcherType.NOTIFICATION_TIMER : DispatcherType.SYNCHRONIZATION_TIMER
    this.#memory.zero(at, KTIMER.$size)
    initializeHeader(this.#memory, at, type, KTIMER.$size, 0)
    return new KTimer(this.#memory, at)
  }

  #limit(at: number): void {
    if (this.#hal.irql > Irql.DISPATCH) keBugCheckEx(BugCode.IRQL_NOT_LESS_OR_EQUAL, at, this.#hal.irql)
  }
}
