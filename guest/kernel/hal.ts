import type { Gpa } from '../../protocol/memory.ts'
import type { AccessWidth, Random } from '../../protocol/platform.ts'
import type { GuestProcessor, Trigger } from '../../protocol/processor.ts'
import { type BugCheck, BugCode, bugCheckOf, keBugCheckEx } from './bug-check.ts'
import { Irql } from './irql.ts'

/** Runs a software interrupt's work: DPCs at DISPATCH, APCs at APC level. */
export type SoftwareInterrupt = () => void

/** Of `PREEMPT_SIDES` draws, those that look for interrupts and those that may switch threads. */
const PREEMPT_SIDES = 16
const PREEMPT_INTERRUPT = 4
const PREEMPT_THREAD = 7

/**
 * The processor as the kernel uses it: IRQL, interrupts, software interrupts, registers, and the stop of a
 * bug check. IRQL is the task priority: raising it keeps interrupts of that level and below waiting.
 *
 * Kernel data is changed between two processor operations only, so that an interrupt, which nests at such an
 * operation, never finds it half done.
 */
export class Hal {
  readonly processor: GuestProcessor
  /** The level now; CR8 shows the same number. */
  irql: Irql
  /** The bug check that stopped the guest. */
  stopped: BugCheck | null
  /** Requested software interrupts: bit 1 APC, bit 2 DISPATCH. */
  #requested: number
  #dispatch: SoftwareInterrupt
  #apc: SoftwareInterrupt
  /** Null in performance runs. */
  #preemption: Random | null
  #switchThread: () => void

  constructor(processor: GuestProcessor, preemption: Random | null) {
    this.processor = processor
    this.irql = Irql.PASSIVE
    this.stopped = null
    this.#requested = 0
    this.#dispatch = nothing
    this.#apc = nothing
    this.#preemption = preemption
    this.#switchThread = nothing
  }

  /** What runs at a DISPATCH and at an APC interrupt, and what may run at a preemption point at PASSIVE. */
  attach(dispatch: SoftwareInterrupt, apc: SoftwareInterrupt, switchThread: () => void): void {
    this.#dispatch = dispatch
    this.#apc = apc
    this.#switchThread = switchThread
  }

  now(): number {
    return this.processor.now()
  }

  /** The seed's stream of the preemption points, or null in performance runs. */
  get preemption(): Random | null {
    return this.#preemption
  }

  /**
   * A preemption point, at the entry of every kernel routine: the seed may deliver a pending interrupt (whose
   * DPCs then run), or, at PASSIVE level, switch threads.
   */
  point(): void {
    if (this.#preemption !== null) this.#preempt(this.#preemption)
  }

  #preempt(random: Random): void {
    const draw = random.below(PREEMPT_SIDES)
    if (draw < PREEMPT_INTERRUPT) {
      this.processor.boundary()
      this.#checkStopped()
    } else if (draw < PREEMPT_THREAD && this.irql === Irql.PASSIVE) this.#switchThread()
  }

  /** KeRaiseIrql: returns the level before. */
  raise(to: Irql): Irql {
    const before = this.irql
    if (!(to >= before && to <= Irql.HIGH)) keBugCheckEx(BugCode.IRQL_NOT_LESS_OR_EQUAL, to, before, 0, 9)
    if (to !== before) {
      // The mirror first: a handler that runs inside the operation restores what it finds here.
      this.irql = to
      this.processor.setTaskPriority(to)
      this.#checkStopped()
    }
    return before
  }

  /** KeLowerIrql: what waited for the lower level runs before this returns. */
  lower(to: Irql): void {
    const before = this.irql
    if (!(to <= before && to >= Irql.PASSIVE)) keBugCheckEx(BugCode.IRQL_NOT_LESS_OR_EQUAL, to, before, 1, 9)
    if (to !== before) {
      this.irql = to
      this.processor.setTaskPriority(to)
      this.#checkStopped()
    }
    if (this.#requested !== 0) this.#softwareInterrupts()
  }

  /** Sets the level without running what waits for it: a thread's level, when threads are switched. */
  resume(irql: Irql): void {
    if (irql === this.irql) return
    this.irql = irql
    this.processor.setTaskPriority(irql)
    this.#checkStopped()
  }

  /**
   * HalRequestSoftwareInterrupt for APC or DISPATCH level: at once when the level allows, else later. An APC
   * interrupt that meets another thread than the one it was meant for finds nothing there.
   */
  request(irql: Irql): void {
    this.#requested |= 1 << irql
    if (this.irql < irql) this.#softwareInterrupts()
  }

  #softwareInterrupts(): void {
    const level = this.irql
    for (;;) {
      if (level < Irql.DISPATCH && (this.#requested & (1 << Irql.DISPATCH)) !== 0) {
        this.#requested &= ~(1 << Irql.DISPATCH)
        this.#at(Irql.DISPATCH, level, this.#dispatch)
      } else if (level < Irql.APC && (this.#requested & (1 << Irql.APC)) !== 0) {
        this.#requested &= ~(1 << Irql.APC)
        this.#at(Irql.APC, level, this.#apc)
      } else return
    }
  }

  #at(irql: Irql, back: Irql, work: SoftwareInterrupt): void {
    this.raise(irql)
    work()
    this.irql = back
    this.processor.setTaskPriority(back)
    this.#checkStopped()
  }

  /**
   * Connects a vector: the handler runs at `irql` with interrupts enabled, and the interrupt ends when it
   * returns. A bug check inside is kept until the interrupted code goes on, since the processor is not ours.
   */
  setVector(vector: number, irql: Irql, handler: (() => void) | null): void {
    this.processor.setVector(vector, handler === null ? null : () => this.#service(irql, handler))
  }

  #service(irql: Irql, handler: () => void): void {
    if (this.stopped !== null) return
    const { processor } = this
    const before = this.irql
    try {
      this.irql = irql
      processor.setTaskPriority(irql)
      processor.sti()
      handler()
      processor.cli()
      processor.endOfInterrupt()
      this.irql = before
      processor.setTaskPriority(before)
      if (this.#requested !== 0 && before < Irql.DISPATCH) {
        processor.sti()
        this.#softwareInterrupts()
        processor.cli()
      }
    } catch (thrown) {
      this.stop(thrown)
    }
  }

  routeLine(line: number, vector: number | null, trigger: Trigger): void {
    this.processor.routeLine(line, vector, trigger)
    this.#checkStopped()
  }

  /** READ_REGISTER_*. */
  read(at: Gpa, width: AccessWidth): number {
    const value = this.processor.read(at, width)
    this.#checkStopped()
    return value
  }

  /** WRITE_REGISTER_*. */
  write(at: Gpa, width: AccessWidth, value: number): void {
    this.processor.write(at, width, value)
    this.#checkStopped()
  }

  /** Enters the kernel from the machine: nothing thrown leaves it. */
  enter(work: () => void): void {
    if (this.stopped !== null) return
    try {
      work()
    } catch (thrown) {
      this.stop(thrown)
    }
  }

  /** Keeps the first bug check; interrupts stay off from here on. */
  stop(thrown: unknown): void {
    this.stopped ??= bugCheckOf(thrown)
    this.processor.cli()
  }

  #checkStopped(): void {
    if (this.stopped !== null) throw this.stopped
  }
}

function nothing(): void {}
