import { BugCode, keBugCheckEx } from './bug-check.ts'
import { KEvent } from './dispatcher-object.ts'
import type { Hal } from './hal.ts'
import { type KernelMemory, KernelRecord } from './kernel-memory.ts'
import { IO_REMOVE_LOCK } from './layout.ts'
import { NtStatus } from './nt-status.ts'
import type { Synchronization } from './synchronization.ts'
import type { Waiting } from './thread.ts'
import type { Waits } from './wait.ts'

/** IO_REMOVE_LOCK: keeps a device object while requests use it. */
export class RemoveLock extends KernelRecord {
  get removed(): boolean {
    return this.window.u8(IO_REMOVE_LOCK.removed, this.at) !== 0
  }
  set removed(value: boolean) {
    this.window.putU8(IO_REMOVE_LOCK.removed, value ? 1 : 0, this.at)
  }
  /** Holders, the lock itself counted until it is released for removal. */
  get ioCount(): number {
    return this.window.le32(IO_REMOVE_LOCK.ioCount, this.at) | 0
  }
  set ioCount(value: number) {
    this.window.putLe32(IO_REMOVE_LOCK.ioCount, value, this.at)
  }
  get event(): KEvent {
    return new KEvent(this.memory, this.at + IO_REMOVE_LOCK.removeEvent)
  }
}

/** Remove locks (Io*RemoveLock*). */
export class RemoveLocks {
  readonly #memory: KernelMemory
  readonly #hal: Hal
  readonly #synchronization: Synchronization
  readonly #waits: Waits

  constructor(memory: KernelMemory, hal: Hal, synchronization: Synchronization, waits: Waits) {
    this.#memory = memory
    this.#hal = hal
    this.#synchronization = synchronization
    this.#waits = waits
  }

  /** IoInitializeRemoveLock. */
  initialize(at: number): RemoveLock {
    this.#memory.zero(at, IO_REMOVE_LOCK.$size)
    const lock = new RemoveLock(this.#memory, at)
    lock.ioCount = 1
    this.#synchronization.initializeEvent(at + IO_REMOVE_LOCK.removeEvent, false, false)
    return lock
  }

  /** IoAcquireRemoveLock: DELETE_PENDING once removal has started; it is not held then. */
  acquire(lock: RemoveLock): NtStatus {
    this.#hal.point()
    lock.ioCount++
    if (!lock.removed) return NtStatus.SUCCESS
    this.release(lock)
    return NtStatus.DELETE_PENDING
  }

  /** IoReleaseRemoveLock. */
  release(lock: RemoveLock): void {
    this.#hal.point()
    const left = lock.ioCount - 1
    if (left < 0) keBugCheckEx(BugCode.DRIVER_VERIFIER_DETECTED_VIOLATION, 0xd6, lock.at, left)
    lock.ioCount = left
    if (left === 0) this.#synchronization.setEvent(lock.event)
  }

  /** IoReleaseRemoveLockAndWait: gives back one acquisition and waits until all others have. */
  *releaseAndWait(lock: RemoveLock): Waiting<void> {
    lock.removed = true
    this.release(lock)
    const left = lock.ioCount - 1
    lock.ioCount = left
    if (left > 0) yield* this.#waits.wait([lock.event.at], true)
  }
}
