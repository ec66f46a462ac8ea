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

/**
 * A trace as JSON lines, one event a line with its virtual time in microseconds (`us`). Where the lines go is
 * the user's to say: an array in a test, a file under the command line.
 */
export class TraceLines implements Trace {
  readonly on = true
  readonly #write: (line: string) => void
  #now: () => number

  /** @param write takes each line, without its end of line. */
  constructor(write: (line: string) => void) {
    this.#write = write
    this.#now = () => 0
  }

  /** Writes the first line; called once by the bench, before any event. */
  begin(description: BenchDescription & { readonly seed: number }, now: () => number): void {
    this.#now = now
    const header: TraceHeader = { schema: 1, paravane: VERSION, seed: description.seed, description }
    this.#write(JSON.stringify(header))
  }

  emit(event: TraceEvent): void {
    this.#write(JSON.stringify({ us: this.#now(), ...event }))
  }
}
