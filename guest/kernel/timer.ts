import { BugCode, keBugCheckEx } from './bug-check.ts'
import { KTimer } from './dispatcher-object.ts'
import type { DpcQueue } from './dpc.ts'
import type { Hal } from './hal.ts'
import { Irql } from './irql.ts'
import type { KernelMemory } from './kernel-memory.ts'
import { DispatcherType, KDPC } from './layout.ts'
import type { RoutineTable } from './routine.ts'
import { type TimerEntry, type TimerOwner, TimerQueue } from './timer-queue.ts'

/** Interrupt vector of the processor's timer; its upper four bits are CLOCK_LEVEL. */
const CLOCK_VECTOR = Irql.CLOCK * 16 + 1

/** A KTIMER in the queue. */
class SetTimer implements TimerOwner {
  readonly #timers: Timers
  readonly #at: number

  constructor(timers: Timers, at: number) {
    this.#timers = timers
    this.#at = at
  }

  due(): void {
    this.#timers.expired(this.#at)
  }
}

/**
 * Everything that waits for a time: timer objects and waits. The processor's one-shot timer is armed for the
 * earliest; its interrupt asks for a DPC in which they expire.
 */
export class Timers {
  readonly #memory: KernelMemory
  readonly #hal: Hal
  readonly #dpcs: DpcQueue
  readonly #queue: TimerQueue
  /** KTIMERs in the queue, by address. */
  readonly #set: Map<number, TimerEntry>
  readonly #dpc: number
  #armedUs: number | null
  /** Wakes who waits for a timer object. */
  #wake: (object: number) => void

  /** @param dpc room for a KDPC. */
  constructor(memory: KernelMemory, hal: Hal, dpcs: DpcQueue, routines: RoutineTable, dpc: number) {
    this.#memory = memory
    this.#hal = hal
    this.#dpcs = dpcs
    this.#queue = new TimerQueue()
    this.#set = new Map()
    this.#dpc = dpc
    this.#armedUs = null
    this.#wake = () => undefined
    dpcs.initialize(
      dpc,
      routines.register(() => this.#expire()),
      0,
    )
    hal.setVector(CLOCK_VECTOR, Irql.CLOCK, () => {
      this.#armedUs = null
      dpcs.insert(this.#dpc, 0, 0)
    })
  }

  attach(wake: (object: number) => void): void {
    this.#wake = wake
  }

  /** What is not due yet. */
  get count(): number {
    return this.#queue.count
  }

  /** `owner.due()` runs at DISPATCH level once it is `dueUs`. */
  insert(dueUs: number, owner: TimerOwner): TimerEntry {
    const entry = this.#queue.insert(dueUs, owner)
    this.#arm()
    return entry
  }

  cancel(entry: TimerEntry): void {
    this.#queue.cancel(entry)
    this.#arm()
  }

  /** KeSetTimerEx: whether it was set already. */
  set(timer: KTimer, afterUs: number, periodMs: number, dpc: number): boolean {
    const was = this.cancelTimer(timer)
    timer.signalState = 0
    timer.periodMs = periodMs
    timer.dpc = dpc
    this.#enqueue(timer, this.#hal.now() + afterUs)
    return was
  }

  /** KeCancelTimer: whether it was set. Its DPC may be queued already. */
  cancelTimer(timer: KTimer): boolean {
    const entry = this.#set.get(timer.at)
    if (entry === undefined) return false
    this.#set.delete(timer.at)
    timer.inserted = false
    this.cancel(entry)
    return true
  }

  #enqueue(timer: KTimer, dueUs: number): void {
    timer.dueTimeUs = dueUs
    timer.inserted = true
    // Known before the processor's timer is armed: arming may deliver the interrupt that expires it.
    this.#set.set(timer.at, this.#queue.insert(dueUs, new SetTimer(this, timer.at)))
    this.#arm()
  }

  /** A timer object's time has come. */
  expired(at: number): void {
    const timer = new KTimer(this.#memory, at)
    const { type } = timer
    if (type !== DispatcherType.NOTIFICATION_TIMER && type !== DispatcherType.SYNCHRONIZATION_TIMER) {
      keBugCheckEx(BugCode.TIMER_OR_DPC_INVALID, 0, at)
    }
    this.#set.delete(at)
    timer.inserted = false
    timer.signalState = 1
    if (timer.periodMs > 0) this.#enqueue(timer, timer.dueTimeUs + timer.periodMs * 1000)
    this.#wake(at)
    if (timer.dpc !== 0) this.#dpcs.insert(timer.dpc, 0, 0)
  }

  #expire(): void {
    for (;;) {
      const owner = this.#queue.take(this.#hal.now())
      if (owner === null) break
      owner.due()
    }
    this.#arm()
  }

  #arm(): void {
    const next = this.#queue.nextUs()
    if (next === this.#armedUs) return
    this.#armedUs = next
    this.#hal.processor.armTimer(next, CLOCK_VECTOR)
  }
}

/** Room the timers need at boot. */
export const TIMERS_ROOM_BYTES = KDPC.$size
