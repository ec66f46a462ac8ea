import type { ChalkInstance } from 'chalk'
import { BadDescription } from '../bench/description.ts'
import { BadTrace, type RecordedTrace, readTrace } from '../bench/recorded-trace.ts'
import { type Difference, type ReplayResult, replayTrace } from '../bench/replay.ts'
import { coloursFor } from './colour.ts'
import { BadInput, conclude, Exit, onExit } from './exit.ts'
import { ProgressDisplay } from './progress-display.ts'
import { groupedText } from './quantity.ts'

/** Runs what a trace describes again and compares event by event. Returns the exit code. */
export async function replay(path: string, options: { readonly json?: boolean }): Promise<number> {
  const progress = new ProgressDisplay()
  const stop = onExit(() => progress.stop())
  const { recorded, result } = await replayed(path, progress)
  stop()
  progress.stop()
  return conclude(
    options.json === true ? jsonText(recorded, result) : textOf(recorded, result, coloursFor('stdout')),
    result.difference === null ? Exit.VERIFIED : Exit.NOT_VERIFIED,
  )
}

async function replayed(
  path: string,
  progress: ProgressDisplay,
): Promise<{ readonly recorded: RecordedTrace; readonly result: ReplayResult }> {
  try {
    const recorded = readTrace(path)
    return { recorded, result: await replayTrace(recorded, progress.show) }
  } catch (error) {
    if (!(error instanceof BadTrace || error instanceof BadDescription)) throw error
    throw new BadInput(`trace ${JSON.stringify(path)}: ${error.message}`)
  }
}

function textOf(
  recorded: RecordedTrace,
  { difference, report }: ReplayResult,
  colours: ChalkInstance,
): string {
  const { lines, description, arrivals } = recorded
  const disks = description.disks.map(({ spec }) => spec).join(', ')
  const what = colours.dim(`seed ${description.seed}, Windows ${description.windows}, ${disks}`)
  if (difference !== null) return `${differenceText(difference, colours)}${what}\n`
  const outside = arrivals.length === 0 ? '' : `, ${groupedText(arrivals.length)} of them from outside`
  const verdict = report?.verified === true ? 'verified' : 'not verified, as then'
  return `${colours.green('identical')}: ${groupedText(lines)} lines${outside}; the run is ${verdict}\n${what}\n`
}

function differenceText({ line, expected, seen, because }: Difference, colours: ChalkInstance): string {
  return [
    `${colours.red('different')} from line ${groupedText(line)} on`,
    `  then  ${expected ?? 'the trace has ended'}`,
    `  now   ${seen ?? 'no such event'}`,
    ...(because === null ? [] : [`  ${colours.bold(because)}`]),
    '',
  ].join('\n')
}

function jsonText({ path, lines, description, arrivals }: RecordedTrace, result: ReplayResult): string {
  const document = {
    schema: 1,
    trace: path,
    seed: description.seed,
    lines,
    arrivals: arrivals.length,
    identical: result.difference === null,
    difference: result.difference,
    verified: result.report?.verified ?? null,
  }
  return `${JSON.stringify(document, null, 2)}\n`
}
