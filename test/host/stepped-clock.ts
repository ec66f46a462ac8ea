import type { ArrivalSource, Clock, Plain, Release, Timer, Work } from '../../protocol/platform.ts'

interface Due {
  readonly at: number
  readonly order: number
  work: Work | null
}

/** A clock that runs one turn when told, so that a test can look between any two. Holds nothing outside. */
export class SteppedClock implements Clock {
  #now = 0
  #made = 0
  readonly #queue: Work[] = []
  readonly #due: Due[] = []

  now(): number {
    return this.#now
  }

  defer(work: Work): void {
    this.#queue.push(work)
  }

  after(us: number, work: Work): Timer {
    const due: Due = { at: this.#now + us, order: this.#made++, work }
    this.#due.push(due)
    this.#due.sort((a, b) => a.at - b.at || a.order - b.order)
    return {
      cancel() {
        due.work = null
      },
    }
  }

  external(_why: string): Release {
    return () => {}
  }

  arrive(source: ArrivalSource, value: Plain): void {
    this.defer(() => source.arrived(value))
  }

  /** Runs the next turn; false when there is none. */
  step(): boolean {
    const work = this.#queue.shift()
    if (work !== undefined) {
      work()
      return true
    }
    for (let due = this.#due.shift(); due !== undefined; due = this.#due.shift()) {
      if (due.work === null) continue
      this.#now = due.at
      due.work()
      return true
    }
    return false
  }

  drain(): void {
    for (let left = 100_000; this.step(); left--) if (left === 0) throw new Error('a run that does not end')
  }
}
