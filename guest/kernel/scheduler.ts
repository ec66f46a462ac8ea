import { BugCode, keBugCheckEx } from './bug-check.ts'
import type { Hal } from './hal.ts'
import { Irql } from './irql.ts'
import type { KernelMemory } from './kernel-memory.ts'
import { ETHREAD, KWAIT_BLOCK } from './layout.ts'
import { removeEntry } from './list.ts'
import type { NtStatus } from './nt-status.ts'
import { type Pool, PoolType, poolTag } from './pool.ts'
import { NORMAL_PRIORITY, PRIORITY_COUNT, Thread, type ThreadBody, type Waiting } from './thread.ts'

const THREAD_TAG = poolTag('Thre')
/** Threads that may be stopped in the middle, one below the other, on the machine's stack. */
const NESTING_MAX = 6
/** Resumptions before the processor is given back, so that devices have their turns while threads are busy. */
const TURN_STEPS = 64
/** With preemption everywhere: at most so many, so that devices come between any two. */
const PREEMPTED_TURN_STEPS = 8

export interface ThreadOptions {
  readonly name?: string
  /** 0 … 31, the higher runs first. */
  readonly priority?: number
}

/** What the scheduler asks of those built on it, when a thread comes and goes. */
export interface ThreadWatcher {
  /** Level permitting, runs kernel APCs of the thread that was just made current. */
  resumed(thread: Thread): void
  /** What has to happen in the thread itself after its body: requests are cancelled, mutexes abandoned. */
  ending(thread: Thread): Waiting<void>
  /** It will never run again. */
  ended(thread: Thread): void
}

/** Threads, who runs, and who is next: strict priorities, round robin among equals. */
export class Scheduler {
  readonly #memory: KernelMemory
  readonly #hal: Hal
  readonly #pool: Pool
  readonly #ready: Thread[][]
  #readyCount: number
  readonly #threads: Map<number, Thread>
  #current: Thread | null
  #nesting: number
  #made: number
  #watcher: ThreadWatcher | null

  constructor(memory: KernelMemory, hal: Hal, pool: Pool) {
    this.#memory = memory
    this.#hal = hal
    this.#pool = pool
    this.#ready = Array.from({ length: PRIORITY_COUNT }, () => [])
    this.#readyCount = 0
    this.#threads = new Map()
    this.#current = null
    this.#nesting = 0
    this.#made = 0
    this.#watcher = null
  }

  attach(watcher: ThreadWatcher): void {
    this.#watcher = watcher
  }

  /** The thread that runs, or was interrupted; null when the processor idles. */
  get current(): Thread | null {
    return this.#current
  }

  /** Threads that have not ended, and those somebody still refers to. */
  get threads(): Iterable<Thread> {
    return this.#threads.values()
  }

  /** The thread whose ETHREAD is at `at`. */
  threadAt(at: number): Thread | null {
    return this.#threads.get(at) ?? null
  }

  /** PsCreateSystemThread: it is ready at once. */
  create(body: ThreadBody, options: ThreadOptions = {}): Thread {
    const at = this.#pool.allocate(PoolType.NON_PAGED, ETHREAD.$size, THREAD_TAG, this.#hal.irql)
    if (at === 0) return keBugCheckEx(BugCode.BAD_POOL_CALLER, 0, ETHREAD.$size)
    const id = ++this.#made
    const thread = new Thread(
      this.#memory,
      at,
      id,
      options.name ?? `thread ${id}`,
      options.priority ?? NORMAL_PRIORITY,
    )
    thread.body = this.#life(thread, body)
    this.#threads.set(at, thread)
    this.#makeReady(thread)
    return thread
  }

  *#life(thread: Thread, body: ThreadBody): Waiting<void> {
    yield* body()
    if (this.#hal.irql !== Irql.PASSIVE) {
      keBugCheckEx(BugCode.IRQL_UNEXPECTED_VALUE, this.#hal.irql, Irql.PASSIVE, thread.at)
    }
    if (this.#watcher !== null) yield* this.#watcher.ending(thread)
  }

  /** Runs threads until none is ready (true) or a turn is over (false). */
  run(): boolean {
    const random = this.#hal.preemption
    const turn = random === null ? TURN_STEPS : 1 + random.below(PREEMPTED_TURN_STEPS)
    for (let steps = 0; steps < turn; steps++) {
      const next = this.#takeReady()
      if (next === null) return true
      this.#step(next)
    }
    return this.#readyCount === 0
  }

  /** A preemption point chose to switch: another ready thread runs on top of the current one. */
  preempt(): void {
    if (this.#nesting >= NESTING_MAX || this.#current === null) return
    const next = this.#takeReady()
    if (next === null) return
    if (next.onStack) {
      // Woken between its decision to wait and its yield: it cannot run on top of itself.
      this.#makeReady(next)
      return
    }
    const before = this.#current
    this.#nesting++
    this.#step(next)
    this.#nesting--
    this.#current = before
    this.#watcher?.resumed(before)
  }

  #step(thread: Thread): void {
    const before = this.#current
    const level = this.#hal.irql
    this.#current = thread
    thread.state = 'running'
    this.#hal.resume(thread.irql)
    this.#watcher?.resumed(thread)
    thread.onStack = true
    const done = thread.body === null || thread.body.next().done === true
    thread.onStack = false
    if (done) this.#finish(thread)
    else {
      thread.irql = this.#hal.irql
      if (thread.irql >= Irql.DISPATCH) this.waitedTooHigh(0)
      // Still running: it only gave the processor away.
      if (thread.state === 'running') this.#makeReady(thread)
    }
    this.#current = before
    this.#hal.resume(level)
  }

  #finish(thread: Thread): void {
    thread.state = 'ended'
    thread.body = null
    thread.pins++
    this.#watcher?.ended(thread)
    this.unpin(thread)
  }

  /** Lets go of a reference to a thread; one that has ended and that nobody refers to is forgotten. */
  unpin(thread: Thread): void {
    thread.pins--
    if (thread.pins > 0 || thread.state !== 'ended') return
    this.#threads.delete(thread.at)
    this.#pool.free(thread.at, this.#hal.irql)
  }

  /** Whoever waits at DISPATCH level stops the system. */
  waitedTooHigh(object: number, inDpc = false): never {
    return keBugCheckEx(
      inDpc ? BugCode.ATTEMPTED_SWITCH_FROM_DPC : BugCode.IRQL_NOT_LESS_OR_EQUAL,
      object,
      this.#hal.irql,
      0,
      this.#current?.at ?? 0,
    )
  }

  /** Ends a thread's wait: out of every list, ready, with `status` as the wait's result. */
  unwait(thread: Thread, status: NtStatus): void {
    let block = thread.waitBlocks
    for (let left = thread.waitCount; left > 0; left--) {
      removeEntry(this.#memory, block + KWAIT_BLOCK.waitListEntry)
      block += KWAIT_BLOCK.$size
    }
    thread.waitCount = 0
    thread.waitStatus = status
    this.#makeReady(thread)
  }

  #makeReady(thread: Thread): void {
    thread.state = 'ready'
    this.#ready[thread.priority]?.push(thread)
    this.#readyCount++
  }

  #takeReady(): Thread | null {
    if (this.#readyCount === 0) return null
    for (let priority = PRIORITY_COUNT - 1; priority >= 0; priority--) {
      const queue = this.#ready[priority] as Thread[]
      const next = queue.shift()
      if (next !== undefined) {
        this.#readyCount--
        return next
      }
    }
    return null
  }
}
