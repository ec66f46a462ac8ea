import type { ArrivalSource, Plain } from '../protocol/platform.ts'
import type { TraceEvent } from '../protocol/trace.ts'

/** What came through the door. */
export interface Arrival {
  readonly source: ArrivalSource
  readonly value: Plain
}

/** An arrival as a trace tells it: let in once `turn` turns had run. */
export interface ArrivalRecord {
  readonly number: number
  readonly turn: number
  readonly source: string
  readonly value: Plain
}

/** A run does not do what its trace says: another seed, version or image, or a source of chance of ours. */
export class ReplayDiverged extends Error {
  constructor(why: string) {
    super(`the run leaves its trace: ${why}`)
    this.name = 'ReplayDiverged'
  }
}

/**
 * The arrivals of an earlier run, to be let in again at the same points of the same turns.
 *
 * A source that still asks the outside (a file) is waited for, and must bring the recorded value: only the order
 * is taken from the trace. A source that is `feed` is not asked at all: what it brought then it brings again,
 * so a network need not be there.
 */
export class Replay {
  readonly #records: readonly ArrivalRecord[]
  readonly #fed: Map<string, ArrivalSource>
  #next: number

  /** @throws RangeError when the records are not numbered 0, 1, 2 … in ascending turns. */
  constructor(records: readonly ArrivalRecord[]) {
    let turn = 0
    for (const [index, record] of records.entries()) {
      if (record.number !== index || !(record.turn >= turn)) {
        throw new RangeError(`arrival ${index} of the trace is out of order`)
      }
      turn = record.turn
    }
    this.#records = records
    this.#fed = new Map()
    this.#next = 0
  }

  /** From the events of a trace; those that are not arrivals are passed over. */
  static ofTrace(events: Iterable<TraceEvent>): Replay {
    const records: ArrivalRecord[] = []
    for (const event of events) if (event.name === 'arrival') records.push(event)
    return new Replay(records)
  }

  /** Plays the source's arrivals from the trace, without the outside. */
  feed(source: ArrivalSource): void {
    this.#fed.set(source.path, source)
  }

  /** The arrival that comes next, or null when all came. */
  get next(): ArrivalRecord | null {
    return this.#records[this.#next] ?? null
  }

  /**
   * Takes the next arrival out of those that came from outside, or from the trace. Null: it is not there yet; a
   * source with several requests under way may bring another of its answers first.
   */
  take(arrived: Arrival[]): Arrival | null {
    const { next } = this
    if (next === null) return null
    const fed = this.#fed.get(next.source)
    if (fed !== undefined) {
      this.#next++
      return { source: fed, value: next.value }
    }
    const value = JSON.stringify(next.value)
    const at = arrived.findIndex(
      (one) => one.source.path === next.source && JSON.stringify(one.value) === value,
    )
    const [found] = at < 0 ? [] : arrived.splice(at, 1)
    if (found === undefined) return null
    this.#next++
    return found
  }

  /** Why the next arrival will never come, when nothing outside is under way any more. */
  missing(arrived: readonly Arrival[]): ReplayDiverged {
    const { next } = this
    const other = arrived.find(({ source }) => source.path === next?.source)
    if (other === undefined)
      return new ReplayDiverged(`nobody asks for arrival ${next?.number} of ${next?.source}`)
    const [now, then] = [JSON.stringify(other.value), JSON.stringify(next?.value)]
    return new ReplayDiverged(`arrival ${next?.number} of ${next?.source} is ${now} and was ${then}`)
  }
}
