/**
 * What every performance measurement is: named candidates that do the same work. The runner gives each a
 * process of its own and interleaves them, so that one candidate's warm-up never helps another and the
 * machine's noise meets all alike.
 */
export interface Measurement {
  readonly name: string
  /** What is compared, for people. */
  readonly what: string
  /** First is the yardstick: ratios are against it. */
  readonly candidates: readonly string[]
  /** Least or greatest acceptable ratio, printed beside the result and never asserted in a test. */
  readonly goals: { readonly [candidate: string]: { readonly atLeast?: number; readonly atMost?: number } }
  /** Nanoseconds an operation (less is better) or operations a second (more is better). */
  readonly unit: 'ns' | 'per second'
  /** Runs one candidate for about `ms` milliseconds and returns its figure. */
  run(candidate: string, ms: number): Promise<number> | number
}

/** Repeats `batch` (which does `count` operations) for about `ms` and returns the median cost of one, in ns. */
export function nsPerOperation(count: number, ms: number, batch: () => void): number {
  const deadline = performance.now() + ms
  const samples: number[] = []
  batch()
  do {
    const from = process.hrtime.bigint()
    batch()
    samples.push(Number(process.hrtime.bigint() - from) / count)
  } while (performance.now() < deadline || samples.length < 3)
  samples.sort((a, b) => a - b)
  return samples[Math.floor(samples.length / 2)] ?? Number.NaN
}
