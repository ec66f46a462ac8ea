import { randomInt } from 'node:crypto'
import { createBench } from '../bench/bench.ts'
import {
  BadDescription,
  type BenchDescription,
  type ProfileName,
  type VerifyMode,
  type WindowsName,
} from '../bench/description.ts'
import { fileIdentity, imageFileOf } from '../bench/image-file.ts'
import type { BenchReport } from '../bench/report.ts'
import { TraceLines } from '../bench/trace-lines.ts'
import { parseWhole } from '../host/disk/option.ts'
import type { VirtioVersion } from '../protocol/virtio/features.ts'
import { coloursFor } from './colour.ts'
import { BadInput, conclude, Exit, onExit, print, reproducibleBy } from './exit.ts'
import { ProgressDisplay } from './progress-display.ts'
import { reportText } from './report-text.ts'
import { TraceFile } from './trace-file.ts'

/** Options of `paravane run` as commander gives them: texts, unchecked. */
export interface RunArguments {
  readonly disk?: readonly string[]
  readonly seed?: string
  readonly windows?: string
  readonly profile?: string
  readonly preemption?: boolean
  readonly virtio?: string
  readonly verify?: string
  readonly operations?: string
  readonly write?: boolean
  readonly json?: boolean
  readonly trace?: string
}

/** Builds a bench, runs it and prints what it found. Returns the exit code. */
export async function run(given: RunArguments): Promise<number> {
  const description = descriptionOf(given)
  const again = commandOf(given, description.seed)
  reproducibleBy(again)
  const trace = given.trace === undefined ? null : new TraceFile(checkTrace(given.trace, description))
  const progress = new ProgressDisplay()
  const stop = onExit(() => {
    progress.stop()
    trace?.close()
  })
  const report = await runBench(description, trace, progress)
  stop()
  progress.stop()
  trace?.close()
  const text = given.json === true ? jsonText(report) : reportText(report, again, coloursFor('stdout'))
  const untraced = trace?.error ?? null
  const code = await conclude(text, report.verified && untraced === null ? Exit.VERIFIED : Exit.NOT_VERIFIED)
  if (untraced !== null) await print(`paravane: ${untraced}\n`, process.stderr)
  return code
}

async function runBench(
  description: BenchDescription,
  trace: TraceFile | null,
  progress: ProgressDisplay,
): Promise<BenchReport> {
  const lines = trace === null ? null : new TraceLines(trace.write)
  const options = trace === null || lines === null ? {} : { trace: lines, opened: () => trace.open() }
  const bench = await createBench(description, options).catch((error: unknown) => {
    throw error instanceof BadDescription ? new BadInput(error.message) : error
  })
  let report: BenchReport
  try {
    report = await bench.run({ progress: progress.show })
  } finally {
    await bench.close()
  }
  lines?.end()
  return report
}

function descriptionOf(given: RunArguments): BenchDescription & { readonly seed: number } {
  const write = given.write === true
  const operations =
    given.operations === undefined ? {} : { operations: whole('operations', given.operations) }
  return {
    seed: given.seed === undefined ? randomInt(2 ** 32) : whole('seed', given.seed),
    disks: (given.disk ?? ['memory']).map((spec) => ({ spec, write })),
    ...operations,
    ...(given.preemption === true ? { preemption: true } : {}),
    // What they may be is the description's to say.
    ...(given.windows === undefined ? {} : { windows: given.windows as WindowsName }),
    ...(given.profile === undefined ? {} : { profile: given.profile as ProfileName }),
    ...(given.virtio === undefined ? {} : { virtio: given.virtio as VirtioVersion }),
    ...(given.verify === undefined ? {} : { verify: given.verify as VerifyMode }),
  }
}

function whole(option: string, text: string): number {
  const value = parseWhole(text)
  if (value !== null) return value
  throw new BadInput(`--${option} is ${JSON.stringify(text)}; it takes a whole number from 0 to 2^53 - 1`)
}

/** A trace over one of the images would destroy what the run is about. */
function checkTrace(path: string, description: BenchDescription): string {
  const identity = fileIdentity(path)
  if (identity === null) return path
  for (const disk of description.disks ?? []) {
    const spec = typeof disk === 'object' && 'spec' in disk ? disk.spec : disk
    if (typeof spec === 'string' && imageFileOf(spec)?.identity === identity) {
      throw new BadInput(`--trace: ${JSON.stringify(path)} is the image of a disk`)
    }
  }
  return path
}

/** The command that gives the same run again, for a shell. */
function commandOf(given: RunArguments, seed: number): string {
  const words = ['paravane', 'run']
  for (const spec of given.disk ?? []) words.push('--disk', spec)
  for (const option of ['windows', 'profile', 'virtio', 'verify', 'operations'] as const) {
    const value = given[option]
    if (value !== undefined) words.push(`--${option}`, value)
  }
  if (given.preemption === true) words.push('--preemption')
  if (given.write === true) words.push('--write')
  words.push('--seed', String(seed))
  return words.map(shellWord).join(' ')
}

function shellWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`
}

function jsonText(report: BenchReport): string {
  return `${JSON.stringify(report, null, 2)}\n`
}
