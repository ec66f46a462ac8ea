import type { KEvent } from '../../kernel/dispatcher-object.ts'
import type { Kernel } from '../../kernel/kernel.ts'
import type { Waiting } from '../../kernel/thread.ts'

/** ClassAcquireRemoveLock: requests under way keep the device; once it is removed, no more are let in. */
export class ClassRemoveLock {
  readonly #kernel: Kernel
  readonly #drained: KEvent
  #holders: number
  #removed: boolean

  /** @param at room for a KEVENT. */
  constructor(kernel: Kernel, at: number) {
    this.#kernel = kernel
    this.#drained = kernel.keInitializeEvent(at, true, false)
    this.#holders = 0
    this.#removed = false
  }

  get holders(): number {
    return this.#holders
  }

  /** False: the device is being removed, and the lock is not held. */
  acquire(): boolean {
    if (this.#removed) return false
    this.#holders++
    return true
  }

  release(): void {
    this.#holders--
    if (this.#holders === 0 && this.#removed) this.#kernel.keSetEvent(this.#drained)
  }

  /** Lets nobody in from now on. */
  close(): void {
    this.#removed = true
  }

  /** ClassReleaseRemoveLockAndWait: until the last holder has let go. */
  *drain(): Waiting<void> {
    this.#removed = true
    if (this.#holders > 0) yield* this.#kernel.keWaitForSingleObject(this.#drained)
  }
}
