import type { ArrivalSource, Clock, Plain, Release, Timer, Work } from '../protocol/platform.ts'
import type { Trace } from '../protocol/trace.ts'
import { NO_TRACE } from '../protocol/trace.ts'
import { type ClockState, parseClockState } from './clock-state.ts'
import { Deadline, DeadlineHeap } from './deadline.ts'
import { NamedTimer, NamedTurn } from './named-work.ts'
import type { Pace } from './pace.ts'
import { type Arrival, type Replay, ReplayDiverged } from './replay.ts'

export interface ClockOptions {
  readonly trace?: Trace
  /** Turns one `drain` may take before the run is called a runaway; a mistake of ours, so it throws. */
  readonly turnsMax?: number
  /** Arrivals of an earlier run, let in where they came then. */
  readonly replay?: Replay | null
  /** Ties virtual to real time, for serving. */
  readonly pace?: Pace | null
  /** Hears of each arrival, for a loop that is driven by turns instead of `run`. */
  readonly woken?: (() => void) | null
}

/** Something outside; with `underWay`, only while that says so. */
interface Hold {
  readonly why: string
  readonly underWay: (() => boolean) | null
}

/**
 * The only scheduler: one run queue, virtual time, and one door for the outside.
 *
 * Time moves when the queue is empty and nothing outside is held, so a read under way never meets a timeout.
 * Everything runs synchronously in `drain`; only `run` returns to the event loop, and only while something is
 * held.
 *
 * Paced, virtual time is real time: a deadline runs when it is really due, held or not, since whoever is
 * served holds something outside all the time. Such a run repeats nothing; its arrivals are traced all the same.
 */
export class VirtualClock implements Clock {
  readonly #trace: Trace
  readonly #turnsMax: number
  readonly #replay: Replay | null
  readonly #pace: Pace | null
  readonly #woken: (() => void) | null
  /** Real time at virtual time 0; null until the first turn. */
  #originUs: number | null
  #nowUs: number
  /** The generation that runs, from `#at`; what it adds runs next time, after what arrived meanwhile. */
  #running: Work[]
  #at: number
  #queue: Work[]
  readonly #deadlines: DeadlineHeap
  #made: number
  readonly #held: Map<number, Hold>
  #holds: number
  readonly #arrivals: Arrival[]
  /** Of those, how many a replay found come before their turn: only another one wakes `run`. */
  #early: number
  #arrived: number
  #turns: number
  #busy: boolean
  #wake: (() => void) | null
  readonly #named: Map<string, NamedTurn | NamedTimer>
  readonly #names: Map<Work, string>

  constructor(options: ClockOptions = {}) {
    this.#trace = options.trace ?? NO_TRACE
    this.#turnsMax = options.turnsMax ?? Number.POSITIVE_INFINITY
    this.#replay = options.replay ?? null
    this.#pace = options.pace ?? null
    this.#woken = options.woken ?? null
    this.#originUs = null
    this.#nowUs = 0
    this.#running = []
    this.#at = 0
    this.#queue = []
    this.#deadlines = new DeadlineHeap()
    this.#made = 0
    this.#held = new Map()
    this.#holds = 0
    this.#arrivals = []
    this.#early = 0
    this.#arrived = 0
    this.#turns = 0
    this.#busy = false
    this.#wake = null
    this.#named = new Map()
    this.#names = new Map()
  }

  now(): number {
    // Between turns somebody from outside may ask, after a long sleep.
    if (!this.#busy) this.#keepPace()
    return this.#nowUs
  }

  /** Turns run so far. */
  get turns(): number {
    return this.#turns
  }

  defer(work: Work): void {
    this.#queue.push(work)
  }

  after(us: number, work: Work): Timer {
    if (!(us >= 0)) throw new RangeError(`a timer of ${us} microseconds`)
    return this.#deadline(this.#nowUs + us, null, work)
  }

  external(why: string, underWay: (() => boolean) | null = null): Release {
    const hold = this.#holds++
    this.#held.set(hold, { why, underWay })
    return () => {
      if (!this.#held.delete(hold)) throw new Error(`the hold "${why}" was released twice`)
      this.#wake?.()
    }
  }

  arrive(source: ArrivalSource, value: Plain): void {
    this.#arrivals.push({ source, value })
    this.#wake?.()
    this.#woken?.()
  }

  /** A turn that survives `save` and `load`: whoever owns it makes it anew, under the same name, before `load`. */
  turn(name: string, work: Work): NamedTurn {
    const turn = new NamedTurn(work, (run) => this.#queue.push(run))
    this.#names.set(turn.run, name)
    return this.#register(name, turn)
  }

  /** A timer that survives `save` and `load`, in the same way. */
  timer(name: string, work: Work): NamedTimer {
    const arm = (dueUs: number, run: Work): Deadline =>
      this.#deadline(Math.max(dueUs, this.#nowUs), name, run)
    return this.#register(name, new NamedTimer(work, arm))
  }

  /** What is held outside, for a report on a run that does not end. */
  get held(): readonly string[] {
    return [...this.#held.values()].filter(holds).map(({ why }) => why)
  }

  /** Microseconds until the next deadline is due, for whoever sleeps in place of `run`; null without one. */
  get untilDueUs(): number | null {
    const first = this.#deadlines.first()
    if (first === null) return null
    this.#keepPace()
    return Math.max(0, first.dueUs - this.#nowUs)
  }

  /** Runs everything that can run without the outside. */
  drain(): void {
    for (let turns = 0; this.step(); turns++) {
      if (!(turns < this.#turnsMax)) throw new Error(`still busy after ${turns} turns`)
    }
  }

  /** Runs one turn. False when none can run without the outside. */
  step(): boolean {
    if (this.#busy) throw new Error('the clock was started from inside a turn')
    this.#busy = true
    try {
      return this.#step()
    } finally {
      this.#busy = false
    }
  }

  /**
   * A preemption point: runs the next turn that is queued already, nested on the one that runs. Time does not
   * move. False when nothing is queued.
   */
  preempt(): boolean {
    const work = this.#running[this.#at] ?? this.#queue.shift()
    if (work === undefined) return false
    if (this.#at < this.#running.length) this.#at++
    this.#turns++
    work()
    return true
  }

  /** Drains, and waits for the outside while anything there is held, or while a paced deadline is to come. */
  async run(): Promise<void> {
    for (;;) {
      this.drain()
      const dueUs = this.#pace === null ? null : (this.#deadlines.first()?.dueUs ?? null)
      if (dueUs === null && !this.#isHeld()) return
      await this.#outside(dueUs)
    }
  }

  /** Why the clock cannot be saved now: closures and the outside are no data. Null when it can. */
  get unsaved(): string | null {
    const [held] = this.#held.values()
    if (held !== undefined) return `"${held.why}" is under way outside`
    if (this.#arrivals.length > 0) return `"${this.#arrivals[0]?.source.path}" brought something from outside`
    const turns = this.#pending().filter((work) => !this.#names.has(work)).length
    if (turns > 0) return `${turns} turns without a name are queued`
    const timers = this.#deadlines.list().filter(({ name }) => name === null).length
    return timers > 0 ? `${timers} timers without a name are armed` : null
  }

  /** @throws when `unsaved` says why not. */
  save(): Plain {
    const { unsaved } = this
    if (unsaved !== null) throw new Error(`the clock cannot be saved: ${unsaved}`)
    const state: ClockState = {
      version: 1,
      nowUs: this.#nowUs,
      made: this.#made,
      turns: this.#turns,
      arrived: this.#arrived,
      queue: this.#pending().map((work) => this.#names.get(work) ?? ''),
      timers: this.#deadlines.list().map(({ name, dueUs, order }) => ({ name: name ?? '', dueUs, order })),
    }
    return { ...state }
  }

  /** Takes a saved state; returns what is wrong with it, and then nothing has changed. */
  load(saved: Plain): string | null {
    const state = parseClockState(saved)
    if (typeof state === 'string') return state
    const strange =
      state.queue.find((name) => !(this.#named.get(name) instanceof NamedTurn)) ??
      state.timers.map(({ name }) => name).find((name) => !(this.#named.get(name) instanceof NamedTimer))
    if (strange !== undefined) return `clock state: nobody here is called "${strange}"`
    if (this.unsaved !== null) return `the clock is in use: ${this.unsaved}`
    for (const one of this.#named.values()) one.withdraw()
    this.#running = []
    this.#queue = []
    this.#at = 0
    this.#nowUs = state.nowUs
    this.#turns = state.turns
    this.#arrived = state.arrived
    this.#originUs = null
    for (const name of state.queue) (this.#named.get(name) as NamedTurn).ask()
    for (const { name, dueUs, order } of state.timers) {
      this.#made = order
      ;(this.#named.get(name) as NamedTimer).arm(dueUs)
    }
    this.#made = state.made
    return null
  }

  #isHeld(): boolean {
    if (this.#held.size === 0) return false
    for (const hold of this.#held.values()) if (holds(hold)) return true
    return false
  }

  #register<T extends NamedTurn | NamedTimer>(name: string, one: T): T {
    if (this.#named.has(name)) throw new Error(`two parts of the machine call their work "${name}"`)
    this.#named.set(name, one)
    return one
  }

  #pending(): readonly Work[] {
    return [...this.#running.slice(this.#at), ...this.#queue]
  }

  #deadline(dueUs: number, name: string | null, work: Work): Deadline {
    const deadline = new Deadline(dueUs, this.#made++, name, work)
    this.#deadlines.push(deadline)
    return deadline
  }

  #step(): boolean {
    if (this.#at === this.#running.length && !this.#nextGeneration()) return false
    const work = this.#running[this.#at]
    if (work === undefined) return this.#runDeadline()
    this.#at++
    this.#turns++
    work()
    return true
  }

  /** False: a replay waits for the outside, and nothing runs before what it waits for. */
  #nextGeneration(): boolean {
    this.#keepPace()
    if (!this.#letIn()) return false
    const done = this.#running
    // Cutting an array's length gives its room back, and the next turn would have to ask for it again.
    for (let left = done.length; left > 0; left--) done.pop()
    this.#running = this.#queue
    this.#queue = done
    this.#at = 0
    return true
  }

  #keepPace(): void {
    if (this.#pace === null) return
    this.#originUs ??= this.#pace.nowUs() - this.#nowUs
    this.#nowUs = Math.max(this.#nowUs, this.#pace.nowUs() - this.#originUs)
  }

  /** Makes a turn of each arrival. False: the trace lets one in here that has not come yet. */
  #letIn(): boolean {
    if (this.#replay !== null) return this.#letInAsTraced(this.#replay)
    if (this.#arrivals.length > 0) for (const arrival of this.#arrivals.splice(0)) this.#admit(arrival)
    return true
  }

  #letInAsTraced(replay: Replay): boolean {
    for (let next = replay.next; next !== null; next = replay.next) {
      if (next.turn > this.#turns) {
        const stuck = this.#arrivals.length > 0 && this.#queue.length === 0
        if (!stuck) return true
        throw new ReplayDiverged(
          `arrival ${next.number} came after turn ${next.turn}, and ${this.#turns} is the last`,
        )
      }
      if (next.turn < this.#turns)
        throw new ReplayDiverged(`turn ${this.#turns} ran before arrival ${next.number}`)
      const arrival = replay.take(this.#arrivals)
      if (arrival === null) {
        this.#early = this.#arrivals.length
        if (this.#isHeld()) return false
        throw replay.missing(this.#arrivals)
      }
      this.#early = 0
      this.#admit(arrival)
    }
    const [late] = this.#arrivals
    if (late !== undefined) throw new ReplayDiverged(`${late.source.path} brings more than it did`)
    return true
  }

  /** Numbers it, and makes a turn of it. */
  #admit({ source, value }: Arrival): void {
    const number = this.#arrived++
    if (this.#trace.on) {
      this.#trace.emit({ name: 'arrival', number, turn: this.#turns, source: source.path, value })
    }
    this.#queue.push(() => source.arrived(value))
  }

  /** Moves time to the next deadline. False when there is none that may run. */
  #runDeadline(): boolean {
    const deadline = this.#deadlines.first()
    if (deadline === null || this.#arrivals.length > 0) return false
    // Whoever was asked whether it holds may have brought something.
    if (this.#pace !== null ? deadline.dueUs > this.#nowUs : this.#isHeld()) return this.#arrivals.length > 0
    this.#deadlines.pop()
    this.#nowUs = Math.max(this.#nowUs, deadline.dueUs)
    const { work } = deadline
    deadline.work = null
    this.#turns++
    work?.()
    return true
  }

  async #outside(dueUs: number | null): Promise<void> {
    let cancel = (): void => {}
    await new Promise<void>((resolve) => {
      this.#wake = resolve
      if (this.#arrivals.length > this.#early) resolve()
      else if (dueUs !== null && this.#pace !== null) cancel = this.#pace.sleep(dueUs - this.#nowUs, resolve)
    })
    this.#wake = null
    cancel()
  }
}

function holds({ underWay }: Hold): boolean {
  return underWay === null || underWay()
}
