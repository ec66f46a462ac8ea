import type { ApcQueue } from './apc.ts'
import type { Cancellation } from './cancellation.ts'
import type { DispatcherObject } from './dispatcher-object.ts'
import { KEvent } from './dispatcher-object.ts'
import type { Hal } from './hal.ts'
import { IRP } from './io-layout.ts'
import type { IrpPool } from './irp-pool.ts'
import { Irql } from './irql.ts'
import { firstEntry, nextEntry, removeEntry } from './list.ts'
import type { ThreadWatcher } from './scheduler.ts'
import type { Thread, Waiting } from './thread.ts'
import type { Waits } from './wait.ts'

/** A thread that ends with requests outstanding looks again this often, and so many times: 5 minutes. */
const POLL_US = 100_000
const POLLS = 3000

interface ThreadExitParts {
  readonly hal: Hal
  readonly irps: IrpPool
  readonly apcs: ApcQueue
  readonly waits: Waits
  readonly cancellation: Cancellation
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
    thread.ending = true
    const { waits } = this.#parts
    this.#cancelAll(thread)
    for (let polls = 0; thread.hasIrps && polls < POLLS; polls++) {
      yield* waits.delay(POLL_US)
    }
    this.#disassociate(thread)
    waits.abandon(thread)
  }

  #cancelAll(thread: Thread): void {
    const { irps, cancellation } = this.#parts
    const pending: number[] = []
    for (
      let entry = firstEntry(thread.window, thread.irpList);
      entry !== 0;
      entry = nextEntry(thread.window, thread.irpList, entry)
    ) {
      pending.push(entry - IRP.threadListEntry)
    }
    // Cancelling one may finish others: each is looked up again.
    for (const at of pending) if (this.#isListed(thread, at)) cancellation.cancel(irps.irpAt(at))
  }

  #isListed(thread: Thread, irp: number): boolean {
    for (
      let entry = firstEntry(thread.window, thread.irpList);
      entry !== 0;
      entry = nextEntry(thread.window, thread.irpList, entry)
    ) {
      if (entry - IRP.threadListEntry === irp) return true
    }
    return false
  }

  /** A driver that does not give a request back keeps it; when it does, nobody is told. */
  #disassociate(thread: Thread): void {
    const { irps } = this.#parts
    for (;;) {
      const entry = firstEntry(thread.window, thread.irpList)
      if (entry === 0) return
      removeEntry(thread.window, entry)
      irps.irpAt(entry - IRP.threadListEntry).thread = 0
    }
  }

  ended(thread: Thread): void {
    this.#parts.apcs.rundown(thread)
    const object: DispatcherObject = new KEvent(thread.memory, thread.at)
    object.signalState = 1
    this.#parts.waits.wake(thread.at)
  }
}
