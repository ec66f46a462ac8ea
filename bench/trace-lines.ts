import type { Trace, TraceEvent } from '../protocol/trace.ts'
import type { BenchDescription } from './description.ts'
import { VERSION } from './version.ts'

/** The first line of a trace: all that is needed to run it again. */
export interface TraceHeader {
  readonly schema: 1
  readonly paravane: string
  readonly seed: number
  /** Whole and checked: nothing in it is left to a default. */
  readonly description: BenchDescription
}

/** The last line of a trace whose run came to its end: without it, something is missing. */
export interface TraceEnd {
  readonly us: number
  readonly name: 'end'
  /** Lines before this one, the first included. */
  readonly lines: number
}

/**
 * A trace as JSON lines, one event a line with its virtual time in microseconds (`us`). Where the lines go is
 * the user's to say: an array in a test, a file under the command line.
 */
export class TraceLines implements Trace {
  readonly on = true
  readonly #write: (line: string) => void
  #now: () => number
  #lines: number

  /** @param write takes each line, without its end of line. */
  constructor(write: (line: string) => void) {
    this.#write = write
    this.#now = () => 0
    this.#lines = 0
  }

  /** Writes the first line; called once by the bench, before any event. */
  begin(description: BenchDescription & { readonly seed: number }, now: () => number): void {
    this.#now = now
    const header: TraceHeader = { schema: 1, paravane: VERSION, seed: description.seed, description }
    this.#line(JSON.stringify(header))
  }

  /** Goes on with a trace whose first line an earlier process wrote; times begin again. */
  goOn(now: () => number): void {
    this.#now = now
  }

  emit(event: TraceEvent): void {
    this.#line(JSON.stringify({ us: this.#now(), ...event }))
  }

  /** Writes the last line, once the bench is closed: only such a trace is whole, and can be replayed. */
  end(): void {
    const end: TraceEnd = { us: this.#now(), name: 'end', lines: this.#lines }
    this.#write(JSON.stringify(end))
  }

  #line(text: string): void {
    this.#lines++
    this.#write(text)
  }
}
