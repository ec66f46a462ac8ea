import { BugCode, keBugCheckEx } from './bug-check.ts'
import type { Hal } from './hal.ts'
import { Irql } from './irql.ts'
import type { KernelMemory } from './kernel-memory.ts'

/**
 * KSPIN_LOCKs. On one processor nobody spins: raising the level is what keeps others away, and a lock found
 * taken is a deadlock.
 */
export class SpinLocks {
  readonly #memory: KernelMemory
  readonly #hal: Hal

  constructor(memory: KernelMemory, hal: Hal) {
    this.#memory = memory
    this.#hal = hal
  }

  /** KeInitializeSpinLock. */
  initialize(at: number): void {
    this.#memory.putPointer(at, 0)
  }

  /** KeAcquireSpinLock: the level before. */
  acquire(at: number): Irql {
    this.#hal.point()
    if (this.#hal.irql > Irql.DISPATCH) keBugCheckEx(BugCode.IRQL_NOT_LESS_OR_EQUAL, at, this.#hal.irql)
    const before = this.#hal.raise(Irql.DISPATCH)
    this.take(at)
    return before
  }

  /** KeReleaseSpinLock. */
  release(at: number, irql: Irql): void {
    this.give(at)
    this.#hal.lower(irql)
  }

  /** Takes it at the level one is at (KeAcquireSpinLockAtDpcLevel, interrupt locks). */
  take(at: number): void {
    if (this.#memory.pointer(at) !== 0) keBugCheckEx(BugCode.SPIN_LOCK_ALREADY_OWNED, at)
    this.#memory.putPointer(at, 1)
  }

  give(at: number): void {
    if (this.#memory.pointer(at) !== 1) keBugCheckEx(BugCode.SPIN_LOCK_NOT_OWNED, at)
    this.#memory.putPointer(at, 0)
  }
}
