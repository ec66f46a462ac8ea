import type { ApcQueue } from './apc.ts'
import { BugCode, keBugCheckEx } from './bug-check.ts'
import { DispatcherObject, KMutant } from './dispatcher-object.ts'
import type { DpcQueue } from './dpc.ts'
import type { Hal } from './hal.ts'
import { Irql } from './irql.ts'
import type { KernelMemory } from './kernel-memory.ts'
import { DispatcherType, ETHREAD, KWAIT_BLOCK } from './layout.ts'
import { firstEntry, insertTail, nextEntry, removeEntry } from './list.ts'
import { NtStatus, ntStatus } from './nt-status.ts'
import { type Pool, PoolType, poolTag } from './pool.ts'
import type { Scheduler } from './scheduler.ts'
import { Mode, type Thread, type Waiting } from './thread.ts'
import type { Timers } from './timer.ts'
import type { TimerOwner } from './timer-queue.ts'

const WAIT_TAG = poolTag('Wait')
/** Wait blocks inside the thread (THREAD_WAIT_OBJECTS and one more). */
const BUILT_IN_BLOCKS = 4
/** MAXIMUM_WAIT_OBJECTS. */
export const WAIT_OBJECTS_MAX = 64

export interface WaitOptions {
  readonly mode?: Mode
  readonly alertable?: boolean
  /** From now; 0 only looks; null waits for ever. */
  readonly timeoutUs?: number | null
}

/** Ends a wait that took too long. */
class Timeout implements TimerOwner {
  readonly #scheduler: Scheduler
  readonly #thread: Thread

  constructor(scheduler: Scheduler, thread: Thread) {
    this.#scheduler = scheduler
    this.#thread = thread
  }

  due(): void {
    if (this.#thread.state === 'waiting') this.#scheduler.unwait(this.#thread, NtStatus.TIMEOUT)
  }
}

/** Waiting for dispatcher objects, and waking those who wait. */
export class Waits {
  readonly #memory: KernelMemory
  readonly #hal: Hal
  readonly #pool: Pool
  readonly #scheduler: Scheduler
  readonly #dpcs: DpcQueue
  readonly #apcs: ApcQueue
  readonly #timers: Timers

  constructor(
    memory: KernelMemory,
    hal: Hal,
    pool: Pool,
    scheduler: Scheduler,
    dpcs: DpcQueue,
    apcs: ApcQueue,
    timers: Timers,
  ) {
    this.#memory = memory
    this.#hal = hal
    this.#pool = pool
    this.#scheduler = scheduler
    this.#dpcs = dpcs
    this.#apcs = apcs
    this.#timers = timers
  }

  /**
   * KeWaitForSingleObject and KeWaitForMultipleObjects (`any` or all). Answers WAIT_0 plus the object's index,
   * ABANDONED_WAIT_0 plus it, TIMEOUT, USER_APC or ALERTED.
   */
  *wait(objects: readonly number[], any: boolean, options: WaitOptions = {}): Waiting {
    const timeoutUs = options.timeoutUs ?? null
    this.#admit(objects, timeoutUs)
    const thread = this.#scheduler.current
    if (thread === null) return this.#scheduler.waitedTooHigh(objects[0] ?? 0, this.#dpcs.active)
    const deadlineUs = timeoutUs === null ? null : this.#hal.now() + timeoutUs
    this.#hal.point()
    for (;;) {
      // A preemption point may have let time pass or others run: every look is a fresh one.
      const ready = this.#trySatisfy(thread, objects, any)
      if (ready !== null) return ready
      const interrupted = interruption(thread, options)
      if (interrupted !== null) return interrupted
      if (deadlineUs !== null && (timeoutUs === 0 || this.#hal.now() >= deadlineUs)) return NtStatus.TIMEOUT
      const status = yield* this.#block(thread, objects, any, options, deadlineUs)
      if (status !== NtStatus.KERNEL_APC) return status
    }
  }

  /** KeDelayExecutionThread. */
  *delay(us: number, options: WaitOptions = {}): Waiting {
    const status = yield* this.wait([], true, { ...options, timeoutUs: us })
    return status === NtStatus.TIMEOUT ? NtStatus.SUCCESS : status
  }

  #admit(objects: readonly number[], timeoutUs: number | null): void {
    if (objects.length > WAIT_OBJECTS_MAX) keBugCheckEx(0x0c, objects.length)
    // A look (timeout 0) is allowed at DISPATCH level, a wait is not.
    const limit = timeoutUs === 0 ? Irql.DISPATCH : Irql.APC
    if (this.#hal.irql > limit) this.#scheduler.waitedTooHigh(objects[0] ?? 0, this.#dpcs.active)
  }

  *#block(
    thread: Thread,
    objects: readonly number[],
    any: boolean,
    options: WaitOptions,
    deadlineUs: number | null,
  ): Waiting {
    const pooled = objects.length > BUILT_IN_BLOCKS ? this.#allocateBlocks(objects.length) : 0
    thread.waitBlocks = pooled === 0 ? thread.at + ETHREAD.waitBlocks : pooled
    thread.waitCount = objects.length
    thread.alertable = options.alertable ?? false
    thread.waitMode = options.mode ?? Mode.KERNEL
    for (const [index, object] of objects.entries()) this.#link(thread, object, index, any)
    // Before the timer is armed, which may already deliver the interrupt that ends this wait.
    thread.state = 'waiting'
    const timeout =
      deadlineUs === null ? null : this.#timers.insert(deadlineUs, new Timeout(this.#scheduler, thread))
    yield
    if (timeout !== null) this.#timers.cancel(timeout)
    if (pooled !== 0) this.#pool.free(pooled, this.#hal.irql)
    return thread.waitStatus
  }

  #allocateBlocks(count: number): number {
    const at = this.#pool.allocate(PoolType.NON_PAGED, count * KWAIT_BLOCK.$size, WAIT_TAG, this.#hal.irql)
    return at === 0 ? keBugCheckEx(0x0c, count) : at
  }

  #link(thread: Thread, object: number, index: number, any: boolean): void {
    const { window } = this.#memory
    const block = thread.waitBlocks + index * KWAIT_BLOCK.$size
    window.putLe64(KWAIT_BLOCK.thread, thread.at, block)
    window.putLe64(KWAIT_BLOCK.object, object, block)
    window.putLe64(KWAIT_BLOCK.nextWaitBlock, block + KWAIT_BLOCK.$size, block)
    window.putLe16(KWAIT_BLOCK.waitKey, index, block)
    window.putLe16(KWAIT_BLOCK.waitType, any ? 1 : 0, block)
    insertTail(
      this.#memory,
      new DispatcherObject(this.#memory, object).waitListHead,
      block + KWAIT_BLOCK.waitListEntry,
    )
  }

  #trySatisfy(thread: Thread, objects: readonly number[], any: boolean): NtStatus | null {
    if (!any)
      return objects.every((object) => this.#signalled(object, thread))
        ? this.#takeAll(objects, thread)
        : null
    for (let index = 0; index < objects.length; index++) {
      const object = objects[index] as number
      if (this.#signalled(object, thread)) return ntStatus(index + this.#take(object, thread))
    }
    return null
  }

  /** A wait for all ends with ABANDONED_WAIT_0 if any of them was. */
  #takeAll(objects: readonly number[], thread: Thread): NtStatus {
    let abandoned = 0
    for (const object of objects) abandoned |= this.#take(object, thread)
    return ntStatus(abandoned)
  }

  #signalled(at: number, thread: Thread): boolean {
    const object = new DispatcherObject(this.#memory, at)
    if (object.signalState > 0) return true
    return object.type === DispatcherType.MUTANT && new KMutant(this.#memory, at).ownerThread === thread.at
  }

  /** What a satisfied wait does to its object. Answers ABANDONED or 0, to be added to the index. */
  #take(at: number, thread: Thread): number {
    const object = new DispatcherObject(this.#memory, at)
    switch (object.type) {
      case DispatcherType.SYNCHRONIZATION_EVENT:
      case DispatcherType.SYNCHRONIZATION_TIMER:
        object.signalState = 0
        return 0
      case DispatcherType.SEMAPHORE:
        object.signalState -= 1
        return 0
      case DispatcherType.MUTANT:
        return this.#takeMutant(new KMutant(this.#memory, at), thread)
      default:
        return 0
    }
  }

  #takeMutant(mutant: KMutant, thread: Thread): number {
    mutant.signalState -= 1
    if (mutant.signalState !== 0) return 0
    mutant.ownerThread = thread.at
    thread.kernelApcDisable += mutant.apcDisable
    insertTail(this.#memory, thread.mutantList, mutant.listEntry)
    if (!mutant.abandoned) return 0
    mutant.abandoned = false
    return NtStatus.ABANDONED
  }

  /** The object has become signalled: wakes whom that satisfies, in the order they came. */
  wake(at: number): void {
    const { window } = this.#memory
    const object = new DispatcherObject(this.#memory, at)
    const head = object.waitListHead
    for (let entry = firstEntry(this.#memory, head); entry !== 0 && object.signalState > 0; ) {
      const block = entry - KWAIT_BLOCK.waitListEntry
      const thread = this.#scheduler.threadAt(window.le64(KWAIT_BLOCK.thread, block))
      if (thread === null) keBugCheckEx(BugCode.PAGE_FAULT_IN_NONPAGED_AREA, block, 0, at)
      const status = this.#satisfy(thread, block, at)
      // A thread may wait for one object twice: after a wake the list is another one.
      if (status === null) entry = nextEntry(this.#memory, head, entry)
      else {
        this.#scheduler.unwait(thread, status)
        entry = firstEntry(this.#memory, head)
      }
    }
  }

  #satisfy(thread: Thread, block: number, at: number): NtStatus | null {
    const { window } = this.#memory
    if (window.le16(KWAIT_BLOCK.waitType, block) === 1) {
      return ntStatus(window.le16(KWAIT_BLOCK.waitKey, block) + this.#take(at, thread))
    }
    const objects: number[] = []
    for (let index = 0; index < thread.waitCount; index++) {
      objects.push(window.le64(KWAIT_BLOCK.object, thread.waitBlocks + index * KWAIT_BLOCK.$size))
    }
    return objects.every((object) => this.#signalled(object, thread)) ? this.#takeAll(objects, thread) : null
  }

  /** KeAlertThread: ends an alertable wait, or makes the next one return at once. */
  alert(thread: Thread): void {
    if (thread.state === 'waiting' && thread.alertable) this.#scheduler.unwait(thread, NtStatus.ALERTED)
    else thread.alerted = true
  }

  /** Lets go of the mutexes a thread held when it ended. */
  abandon(thread: Thread): void {
    for (;;) {
      const entry = firstEntry(this.#memory, thread.mutantList)
      if (entry === 0) return
      const mutant = new KMutant(this.#memory, entry - new KMutant(this.#memory, 0).listEntry)
      mutant.abandoned = true
      this.release(mutant)
    }
  }

  /** The owner has no more claim on it. */
  release(mutant: KMutant): void {
    const owner = this.#scheduler.threadAt(mutant.ownerThread)
    removeEntry(this.#memory, mutant.listEntry)
    mutant.signalState = 1
    mutant.ownerThread = 0
    this.wake(mutant.at)
    if (owner !== null && mutant.apcDisable > 0) {
      owner.kernelApcDisable -= mutant.apcDisable
      if (owner === this.#scheduler.current && this.#apcs.deliverable(owner)) this.#hal.request(Irql.APC)
    }
  }
}

/** Why an alertable wait ends before it began. */
function interruption(thread: Thread, options: WaitOptions): NtStatus | null {
  if (options.alertable !== true) return null
  if (thread.alerted) {
    thread.alerted = false
    return NtStatus.ALERTED
  }
  return options.mode === Mode.USER && thread.hasUserApc ? NtStatus.USER_APC : null
}
