import type { ApcQueue } from './apc.ts'
import { DispatcherObject } from './dispatcher-object.ts'
import type { Hal } from './hal.ts'
import { Irql } from './irql.ts'
import type { ThreadWatcher } from './scheduler.ts'
import type { Thread, Waiting } from './thread.ts'
import type { ThreadIrps } from './thread-irps.ts'
import type { Waits } from './wait.ts'

/** A thread that ends with requests outstanding looks again this often, and so many times: 5 minutes. */
const POLL_US = 100_000
const POLLS = 3000

interface ThreadExitParts {
  readonly hal: Hal
  readonly apcs: ApcQueue
  readonly waits: Waits
  readonly threadIrps: ThreadIrps
}

/** What the dispatcher and the I/O manager do when a thread is resumed and when it ends. */
export class ThreadExit implements ThreadWatcher {
  readonly #parts: ThreadExitParts

  constructor(parts: ThreadExitParts) {
    this.#parts = parts
  }

  resumed(thread: Thread): void {
    if (this.#parts.apcs.deliverable(thread)) this.#parts.hal.request(Irql.APC)
  }

  /** Cancels the thread's requests and waits for them; what is stuck is cut loose. */
  *ending(thread: Thread): Waiting<void> {
    const { waits, threadIrps } = this.#parts
    threadIrps.cancel(thread, () => true)
    for (let polls = 0; thread.hasIrps && polls < POLLS; polls++) yield* waits.delay(POLL_US)
    threadIrps.disassociate(thread)
    waits.abandon(thread)
  }

  ended(thread: Thread): void {
    this.#parts.apcs.rundown(thread)
    new DispatcherObject(thread.memory, thread.at).signalState = 1
    this.#parts.waits.wake(thread.at)
  }
}
