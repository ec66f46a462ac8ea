/** Named candidates that do the same work. */
export interface Comparison {
  readonly name: string
  /** What is compared, for people. */
  readonly what: string
  /** First is the yardstick: ratios are against it. */
  readonly candidates: readonly string[]
  /** Least or greatest acceptable ratio, printed beside the result and never asserted in a test. */
  readonly goals: { readonly [candidate: string]: Goal }
  /** Nanoseconds an operation (less is better) or operations a second (more is better). */
  readonly unit: Unit
  /** Bytes that one operation moves, where throughput says something. */
  readonly operationBytes?: number
}

/**
 * What most comparisons are. The runner gives each candidate a process of its own and interleaves them, so that
 * one candidate's warm-up never helps another and the machine's noise meets all alike.
 */
export interface Measurement extends Comparison {
  /** The candidate of which a profile tells where its time goes, room by room. */
  readonly profiled?: string
  /** Runs one candidate for about `ms` milliseconds and returns its figure. */
  run(candidate: string, ms: number, place: Place): Promise<number> | number
}

export type Unit = 'ns' | 'per second'

export interface Goal {
  readonly atLeast?: number
  readonly atMost?: number
}

/** What the runner prepares once for all candidates. */
export interface Place {
  /** A file in the page cache whose pages carry their numbers, see `numbered-file.ts`. */
  readonly file: string
}

/** The part of a candidate's time after which its code counts as warm: a 1 MiB read comes 5,000 times a second. */
const WARM_UP = 0.4

/** Hears when what counts begins and ends: a profile leaves out what comes before, warming up included. */
export interface MeasuredPart {
  begin(): void
  /** @param operations done since `begin`. */
  end(operations: number): void
}

let watched: MeasuredPart | null = null

/** Lets `part` hear of the next measurement of this process. */
export function watchMeasured(part: MeasuredPart): void {
  watched = part
}

/**
 * Repeats `batch` (which does `count` operations) for about `ms` and returns the median cost of one, in ns.
 *
 * Batches should be short against a turn of the scheduler, a tenth of a millisecond or so: the median then
 * passes over those that lost the processor, and a busy machine measures the same as an idle one.
 */
export function nsPerOperation(count: number, ms: number, batch: () => void): number {
  const from = performance.now()
  do batch()
  while (performance.now() - from < ms * WARM_UP)
  watched?.begin()
  const samples: number[] = []
  do {
    const started = process.hrtime.bigint()
    batch()
    samples.push(Number(process.hrtime.bigint() - started) / count)
  } while (performance.now() - from < ms || samples.length < 3)
  watched?.end(samples.length * count)
  samples.sort((a, b) => a - b)
  return samples[Math.floor(samples.length / 2)] ?? Number.NaN
}
