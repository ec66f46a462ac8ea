import type { Work } from '../protocol/platform.ts'
import type { Deadline } from './deadline.ts'

/** A turn asked for by name, at most once at a time: what is asked can be saved as data. */
export class NamedTurn {
  /** What lies in the run queue. */
  readonly run: Work
  readonly #queue: (run: Work) => void
  #asked: boolean

  constructor(work: Work, queue: (run: Work) => void) {
    this.#queue = queue
    this.#asked = false
    this.run = () => {
      // Withdrawn by `load`: another clock's turn.
      if (!this.#asked) return
      this.#asked = false
      work()
    }
  }

  get asked(): boolean {
    return this.#asked
  }

  ask(): void {
    if (this.#asked) return
    this.#asked = true
    this.#queue(this.run)
  }

  withdraw(): void {
    this.#asked = false
  }
}

/** A timer armed by name, for one time at a time. */
export class NamedTimer {
  readonly #work: Work
  readonly #arm: (dueUs: number, work: Work) => Deadline
  #deadline: Deadline | null

  constructor(work: Work, arm: (dueUs: number, work: Work) => Deadline) {
    this.#work = work
    this.#arm = arm
    this.#deadline = null
  }

  /** When it runs, in virtual microseconds; null while it is not armed. */
  get dueUs(): number | null {
    return this.#deadline === null || this.#deadline.work === null ? null : this.#deadline.dueUs
  }

  /** Runs at `dueUs` (at once when that is past) instead of any time it was armed for. */
  arm(dueUs: number): void {
    this.withdraw()
    this.#deadline = this.#arm(dueUs, this.#work)
  }

  withdraw(): void {
    this.#deadline?.cancel()
    this.#deadline = null
  }
}
