import { Replay, ReplayDiverged } from '../hypervisor/replay.ts'
import { type Bench, createBench } from './bench.ts'
import type { Progress } from './disk-run.ts'
import { LineReader, type RecordedTrace } from './recorded-trace.ts'
import type { BenchReport } from './report.ts'
import { TraceLines } from './trace-lines.ts'

/** Where a run left its trace. */
export interface Difference {
  /** Counted from 1. */
  readonly line: number
  /** What the trace says; null: it has ended. */
  readonly expected: string | null
  /** What the run says; null: nothing, or not that. */
  readonly seen: string | null
  /** What is known of the reason. */
  readonly because: string | null
}

export interface ReplayResult {
  /** Lines that were the same. */
  readonly lines: number
  /** Null: the run was identical to the last line. */
  readonly difference: Difference | null
  /** What the run found; null when it was given up at a difference. */
  readonly report: BenchReport | null
}

/** Ends a run whose outcome nobody wants to know any more. */
class GivenUp extends Error {}

/** Holds each line of a run against the trace's; the first that differs is kept. */
class Comparison {
  readonly #recorded: LineReader
  difference: Difference | null
  lines: number

  constructor(recorded: LineReader) {
    this.#recorded = recorded
    this.difference = null
    this.lines = 0
  }

  readonly line = (seen: string): void => {
    if (this.difference !== null) return
    const expected = this.#recorded.next()
    if (seen === expected) this.lines++
    else this.#differs(expected, seen, becauseOf(expected, seen))
  }

  /** The run says nothing more. */
  ended(because: string | null): void {
    if (this.difference !== null) return
    const expected = this.#recorded.next()
    if (expected !== null || because !== null) this.#differs(expected, null, because)
  }

  #differs(expected: string | null, seen: string | null, because: string | null): void {
    this.difference = { line: this.lines + 1, expected, seen, because }
  }
}

/**
 * Runs a bench again from its trace alone and compares event by event. What came from outside is let in by its
 * number where it came then: a file is read again, and only the order of its answers is the trace's, so bytes that
 * have changed since are seen where they are first read.
 *
 * @throws BadDescription when the disks cannot be opened any more.
 */
export async function replayTrace(
  recorded: RecordedTrace,
  progress: (progress: Progress) => void = () => {},
): Promise<ReplayResult> {
  const reader = new LineReader(recorded.path)
  const comparison = new Comparison(reader)
  const trace = new TraceLines(comparison.line)
  let bench: Bench | null = null
  let report: BenchReport | null = null
  try {
    bench = await createBench(recorded.description, { trace, replay: new Replay(recorded.arrivals) })
    report = await bench.run({
      progress(now) {
        if (comparison.difference !== null) throw new GivenUp()
        progress(now)
      },
    })
    await bench.close()
    trace.end()
    comparison.ended(null)
  } catch (error) {
    // What a run does that has left its trace says nothing about us any more.
    if (comparison.difference === null && !(error instanceof ReplayDiverged)) throw error
    comparison.ended(error instanceof Error ? error.message : String(error))
    await bench?.close().catch(() => {})
  } finally {
    reader.close()
  }
  const { lines, difference } = comparison
  return { lines, difference, report: difference === null ? report : null }
}

/** One reason that is known for certain: the same read brought other bytes. */
function becauseOf(expected: string | null, seen: string): string | null {
  if (expected === null) return null
  const then = contentOf(expected)
  const now = contentOf(seen)
  if (then === null || now === null || then.sha256 === now.sha256) return null
  if (then.path !== now.path || then.offset !== now.offset || then.bytes !== now.bytes) return null
  return `${now.path} has changed since: other bytes between ${now.offset} and ${now.offset + now.bytes}`
}

interface Content {
  readonly path: string
  readonly offset: number
  readonly bytes: number
  readonly sha256: string
}

function contentOf(line: string): Content | null {
  const event = JSON.parse(line) as { readonly name?: string }
  return event.name === 'content' ? (event as unknown as Content) : null
}
