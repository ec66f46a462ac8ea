import type { KEvent } from '../dispatcher-object.ts'
import type { KernelParts } from '../kernel-parts.ts'
import { KEVENT } from '../layout.ts'
import { PoolType, poolTag } from '../pool.ts'
import type { Waiting } from '../thread.ts'

const ACTION_TAG = poolTag('PpAc')
const POLL_US = 1000

type Action = () => Waiting<unknown>

/** What the PnP manager has to do, one thing after the other, in a system thread at PASSIVE level. */
export class ActionQueue {
  readonly #parts: KernelParts
  readonly #actions: Action[]
  #running: boolean

  constructor(parts: KernelParts) {
    this.#parts = parts
    this.#actions = []
    this.#running = false
  }

  get idle(): boolean {
    return !this.#running
  }

  /** Returns at once; at DISPATCH level or below. */
  queue(action: Action): void {
    this.#actions.push(action)
    if (this.#running) return
    this.#running = true
    this.#parts.work.spawn(this.#drain())
  }

  *#drain(): Waiting<void> {
    for (let action = this.#actions.shift(); action !== undefined; action = this.#actions.shift()) {
      yield* action()
    }
    this.#running = false
  }

  /** Queues, waits, and answers what the action did. Not from within an action. */
  *perform<T>(action: () => Waiting<T>): Waiting<T> {
    const { hal, pool, synchronization, waits } = this.#parts
    const room = pool.allocate(PoolType.NON_PAGED, KEVENT.$size, ACTION_TAG, hal.irql)
    const event: KEvent | null = room === 0 ? null : synchronization.initializeEvent(room, true, false)
    const results: T[] = []
    this.queue(function* () {
      results.push(yield* action())
      if (event !== null) synchronization.setEvent(event)
    })
    if (event !== null) {
      yield* waits.wait([event.at], true)
      pool.free(event.at, hal.irql)
    }
    while (results.length === 0) yield* waits.delay(POLL_US)
    return results[0] as T
  }

  /** Waits until nothing is left to do. */
  *settle(): Waiting<void> {
    while (!this.idle) yield* this.perform(nothing)
  }
}

function* nothing(): Waiting<void> {}
