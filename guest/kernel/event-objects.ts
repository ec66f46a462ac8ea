import type { KEvent } from './dispatcher-object.ts'
import type { Hal } from './hal.ts'
import { KEVENT } from './layout.ts'
import { type Pool, PoolType, poolTag } from './pool.ts'
import type { Synchronization } from './synchronization.ts'

const EVENT_TAG = poolTag('Even')

/** Event objects of applications: a handle and every request that will set one keep it. */
export class EventObjects {
  readonly #hal: Hal
  readonly #pool: Pool
  readonly #synchronization: Synchronization
  readonly #references: Map<number, number>

  constructor(hal: Hal, pool: Pool, synchronization: Synchronization) {
    this.#hal = hal
    this.#pool = pool
    this.#synchronization = synchronization
    this.#references = new Map()
  }

  get count(): number {
    return this.#references.size
  }

  /** Referenced once; null when memory is short. */
  create(notification: boolean, signalled: boolean): KEvent | null {
    const at = this.#pool.allocate(PoolType.NON_PAGED, KEVENT.$size, EVENT_TAG, this.#hal.irql)
    if (at === 0) return null
    this.#references.set(at, 1)
    return this.#synchronization.initializeEvent(at, notification, signalled)
  }

  reference(event: KEvent): void {
    this.#references.set(event.at, (this.#references.get(event.at) ?? 0) + 1)
  }

  /** Of an address that may also be a driver's own event, which nobody counts. */
  dereference(at: number): void {
    const references = this.#references.get(at)
    if (references === undefined) return
    if (references > 1) this.#references.set(at, references - 1)
    else {
      this.#references.delete(at)
      this.#pool.free(at, this.#hal.irql)
    }
  }
}
