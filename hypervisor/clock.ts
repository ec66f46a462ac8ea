import type { ArrivalSource, Clock, Plain, Release, Timer, Work } from '../protocol/platform.ts'
import type { Trace } from '../protocol/trace.ts'
import { NO_TRACE } from '../protocol/trace.ts'

class Deadline implements Timer {
  readonly dueUs: number
  /** Ties run in the order they were made. */
  readonly order: number
  work: Work | null

  constructor(dueUs: number, order: number, work: Work) {
    this.dueUs = dueUs
    this.order = order
    this.work = work
  }

  cancel(): void {
    this.work = null
  }
}

interface Arrival {
  readonly source: ArrivalSource
  readonly value: Plain
}

export interface ClockOptions {
  readonly trace?: Trace
  /** Turns one `drain` may take before the run is called a runaway; a mistake of ours, so it throws. */
  readonly turnsMax?: number
}

/**
 * The only scheduler: one run queue, virtual time, and one door for the outside.
 *
 * Time moves when the queue is empty and nothing outside is held, so a read under way never meets a timeout.
 * Everything runs synchronously in `drain`; only `run` returns to the event loop, and only while something is
 * held.
 */
export class VirtualClock implements Clock {
  readonly #trace: Trace
  readonly #turnsMax: number
  #nowUs: number
  #queue: Work[]
  /** A binary heap by (due, order). */
  readonly #deadlines: Deadline[]
  #made: number
  readonly #held: Map<number, string>
  #holds: number
  #arrivals: Arrival[]
  #arrived: number
  #wake: (() => void) | null

  constructor(options: ClockOptions = {}) {
    this.#trace = options.trace ?? NO_TRACE
    this.#turnsMax = options.turnsMax ?? Number.POSITIVE_INFINITY
    this.#nowUs = 0
    this.#queue = []
    this.#deadlines = []
    this.#made = 0
    this.#held = new Map()
    this.#holds = 0
    this.#arrivals = []
    this.#arrived = 0
    this.#wake = null
  }

  now(): number {
    return this.#nowUs
  }

  defer(work: Work): void {
    this.#queue.push(work)
  }

  after(us: number, work: Work): Timer {
    if (!(us >= 0)) throw new RangeError(`a timer of ${us} microseconds`)
    const deadline = new Deadline(this.#nowUs + us, this.#made++, work)
    push(this.#deadlines, deadline)
    return deadline
  }

  external(why: string): Release {
    const hold = this.#holds++
    this.#held.set(hold, why)
    return () => {
      if (!this.#held.delete(hold)) throw new Error(`the hold "${why}" was released twice`)
      this.#wake?.()
    }
  }

  arrive(source: ArrivalSource, value: Plain): void {
    this.#arrivals.push({ source, value })
    this.#wake?.()
  }

  /** What is held outside, for a report on a run that does not end. */
  get held(): readonly string[] {
    return [...this.#held.values()]
  }

  /** Runs everything that can run without the outside. */
  drain(): void {
    for (let turns = 0; ; turns++) {
      if (!(turns < this.#turnsMax)) throw new Error(`still busy after ${turns} turns`)
      this.#letIn()
      if (this.#queue.length > 0) this.#runQueue()
      else if (!this.#runDeadline()) return
    }
  }

  /** Drains, and waits for the outside while anything there is held. */
  async run(): Promise<void> {
    for (;;) {
      this.drain()
      if (this.#held.size === 0) return
      await new Promise<void>((resolve) => {
        this.#wake = resolve
        if (this.#arrivals.length > 0) resolve()
      })
      this.#wake = null
    }
  }

  /** Numbers what came through the door, and makes a turn of each. */
  #letIn(): void {
    if (this.#arrivals.length === 0) return
    const arrivals = this.#arrivals
    this.#arrivals = []
    for (const { source, value } of arrivals) {
      const number = this.#arrived++
      if (this.#trace.on) this.#trace.emit({ name: 'arrival', number, source: source.path, value })
      this.#queue.push(() => source.arrived(value))
    }
  }

  /** One generation of the queue: what it adds runs next time, after what arrived meanwhile. */
  #runQueue(): void {
    const queue = this.#queue
    this.#queue = []
    for (const work of queue) work()
  }

  /** Moves time to the next deadline. False when there is none, or something outside is held. */
  #runDeadline(): boolean {
    while (this.#deadlines[0]?.work === null) pop(this.#deadlines)
    if (this.#held.size > 0 || this.#arrivals.length > 0) return false
    const deadline = pop(this.#deadlines)
    if (deadline === undefined) return false
    this.#nowUs = Math.max(this.#nowUs, deadline.dueUs)
    const { work } = deadline
    deadline.work = null
    work?.()
    return true
  }
}

function before(a: Deadline, b: Deadline): boolean {
  return a.dueUs < b.dueUs || (a.dueUs === b.dueUs && a.order < b.order)
}

function push(heap: Deadline[], deadline: Deadline): void {
  let at = heap.length
  while (at > 0) {
    const above = Math.floor((at - 1) / 2)
    const parent = heap[above] as Deadline
    if (!before(deadline, parent)) break
    heap[at] = parent
    at = above
  }
  heap[at] = deadline
}

function pop(heap: Deadline[]): Deadline | undefined {
  const first = heap[0]
  const last = heap.pop()
  if (last === undefined || heap.length === 0) return first
  let at = 0
  for (;;) {
    let child = 2 * at + 1
    if (child >= heap.length) break
    const right = heap[child + 1]
    if (right !== undefined && before(right, heap[child] as Deadline)) child++
    const smaller = heap[child] as Deadline
    if (!before(smaller, last)) break
    heap[at] = smaller
    at = child
  }
  heap[at] = last
  return first
}
