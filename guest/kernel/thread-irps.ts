import type { Cancellation } from './cancellation.ts'
import type { FileObject } from './file-object.ts'
import type { Hal } from './hal.ts'
import { IRP } from './io-layout.ts'
import type { Irp } from './irp.ts'
import type { IrpPool } from './irp-pool.ts'
import { Irql } from './irql.ts'
import { firstEntry, nextEntry, removeEntry } from './list.ts'
import type { Scheduler } from './scheduler.ts'
import type { Thread, Waiting } from './thread.ts'
import type { Waits } from './wait.ts'

/** How often a cancelled request is looked at. */
const CANCEL_POLL_US = 10_000

/** The requests that threads issued and that are not finished. */
export class ThreadIrps {
  readonly #hal: Hal
  readonly #irps: IrpPool
  readonly #scheduler: Scheduler
  readonly #waits: Waits
  readonly #cancellation: Cancellation

  constructor(hal: Hal, irps: IrpPool, scheduler: Scheduler, waits: Waits, cancellation: Cancellation) {
    this.#hal = hal
    this.#irps = irps
    this.#scheduler = scheduler
    this.#waits = waits
    this.#cancellation = cancellation
  }

  of(thread: Thread): Irp[] {
    const found: Irp[] = []
    const { memory, irpList } = thread
    for (let entry = firstEntry(memory, irpList); entry !== 0; entry = nextEntry(memory, irpList, entry)) {
      found.push(this.#irps.irpAt(entry - IRP.threadListEntry))
    }
    return found
  }

  /**
   * Cancels those that fit. At APC level, where no thread runs the last stage of a request: what is listed stays
   * allocated, though it may be finished by the time it is cancelled.
   */
  cancel(thread: Thread, fits: (irp: Irp) => boolean): boolean {
    const before = this.#hal.raise(Irql.APC)
    const chosen = this.of(thread).filter(fits)
    for (const irp of chosen) this.#cancellation.cancel(irp)
    this.#hal.lower(before)
    return chosen.length > 0
  }

  /** Cancels the current thread's requests through a file and waits until they are finished. */
  *cancelOfFile(file: FileObject): Waiting<void> {
    const thread = this.#scheduler.current
    if (thread === null) return
    const fits = (irp: Irp): boolean => irp.originalFileObject === file.at
    this.cancel(thread, fits)
    while (this.of(thread).some(fits)) yield* this.#waits.delay(CANCEL_POLL_US)
  }

  /** Cancels any thread's requests through a file, with that IOSB or (0) all; whether there were any. */
  cancelByIosb(file: FileObject, iosb: number): boolean {
    let found = false
    for (const thread of [...this.#scheduler.threads]) {
      found =
        this.cancel(
          thread,
          (irp) => irp.originalFileObject === file.at && (iosb === 0 || irp.userIosb === iosb),
        ) || found
    }
    return found
  }

  /** Cuts loose what a driver does not give back; when it does, nobody is told. */
  disassociate(thread: Thread): void {
    for (const irp of this.of(thread)) {
      removeEntry(thread.memory, irp.threadListEntry)
      irp.thread = 0
    }
  }
}
