/** `npm run perf`: every measurement, its candidates in turn, as tables or as one JSON document. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { SingleBar } from 'cli-progress'
import { Command, CommanderError } from 'commander'
import { coloursFor } from '../../bin/colour.ts'
import { BadInput, cleanUpAll, Exit, mistake, onExit, oneLine, print } from '../../bin/exit.ts'
import { nativeAbsent } from '../../native/platform.ts'
import { MEASUREMENTS } from './catalogue.ts'
import type { Measurement, Place } from './measure.ts'
import { writeNumberedFile } from './numbered-file.ts'
import { largeRequestsText, PEER_MEASUREMENTS, peersMissing } from './peers.ts'
import { measurementText } from './result-text.ts'
import {
  CandidateFailed,
  processesOf,
  type RoundsSetup,
  runProfile,
  runRounds,
  stopCandidate,
} from './rounds.ts'
import type { MeasurementSummary } from './summary.ts'
import { summarise } from './summary.ts'

/** How long a run takes, and how much it can see. */
interface Effort {
  readonly rounds: number
  readonly ms: number
  readonly fileBytes: number
}

const WHOLE: Effort = { rounds: 5, ms: 1000, fileBytes: 256 << 20 }
/** Shows that everything runs; its figures mean nothing. */
const QUICK: Effort = { rounds: 1, ms: 20, fileBytes: 16 << 20 }

interface Arguments {
  readonly only?: readonly string[]
  readonly peers?: boolean
  readonly quick?: boolean
  readonly json?: boolean
}

const CANDIDATE_FAILED = 1

function chosen({ only, peers }: Arguments): readonly Measurement[] {
  const measurements = peers === true ? PEER_MEASUREMENTS : MEASUREMENTS
  const missing = peers === true ? (nativeAbsent() ?? peersMissing()) : null
  if (missing !== null) throw new BadInput(`nothing to compare with: ${missing} is missing`)
  if (only === undefined) return measurements
  const known = measurements.map(({ name }) => name)
  const unknown = only.find((name) => !known.includes(name))
  if (unknown !== undefined) {
    throw new BadInput(`no measurement ${JSON.stringify(unknown)}: there are ${known.join(', ')}`)
  }
  return measurements.filter(({ name }) => only.includes(name))
}

/** A folder of our own with the file in it, gone however this process ends. */
function makePlace(fileBytes: number): Place {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'paravane-perf-'))
  onExit(() => {
    stopCandidate()
    fs.rmSync(folder, { recursive: true, force: true })
  })
  const file = path.join(folder, 'disk.img')
  writeNumberedFile(file, fileBytes)
  return { file }
}

/** @returns an exit code. */
async function run(given: Arguments): Promise<number> {
  const measurements = chosen(given)
  const json = given.json === true
  const quick = given.quick === true
  const effort = quick ? QUICK : WHOLE
  const colours = coloursFor('stdout')
  const total = measurements.reduce((sum, one) => sum + processesOf(one, effort.rounds), 0)
  const bar = new SingleBar({
    format: ' {bar} {value}/{total}  {now}',
    clearOnComplete: true,
    noTTYOutput: false,
  })
  const place = makePlace(effort.fileBytes)
  onExit(() => bar.stop())
  if (!json) await print(colours.dim(`${machineText()}\n\n`))
  const summaries: MeasurementSummary[] = []
  let begun = 0
  for (const measurement of measurements) {
    bar.start(total, begun, { now: measurement.name })
    const setup: RoundsSetup = {
      ...effort,
      place,
      started: (one, candidate) => bar.update(begun++, { now: `${one.name}: ${candidate}` }),
    }
    const rounds = await runRounds(measurement, setup)
    const rooms = await runProfile(measurement, setup)
    bar.stop()
    const summary = summarise(measurement, rounds, !quick, rooms)
    summaries.push(summary)
    if (!json) await print(`${measurementText(summary, colours)}\n`)
  }
  if (json) await print(`${jsonText(summaries, effort, quick)}\n`)
  else await print(`${largeRequestsText(summaries) ?? ''}${closingText(summaries, quick)}`)
  return Exit.VERIFIED
}

function machineText(): string {
  const [cpu] = os.cpus()
  const load = os.loadavg()[0] ?? 0
  return `Node ${process.versions.node}, ${os.cpus().length} × ${cpu?.model.trim() ?? 'unknown processor'}, load ${load.toFixed(1)}`
}

function closingText(summaries: readonly MeasurementSummary[], quick: boolean): string {
  if (quick) return 'a quick run: everything ran, and nothing was judged\n'
  const judged = summaries.flatMap(({ candidates }) => candidates.filter(({ met }) => met !== null))
  const met = judged.filter((candidate) => candidate.met === true).length
  return `goals met: ${met} of ${judged.length}. Ratios are medians over rounds; where "noise" is wide, run again.\n`
}

function jsonText(summaries: readonly MeasurementSummary[], effort: Effort, quick: boolean): string {
  const [cpu] = os.cpus()
  const document = {
    schema: 1,
    quick,
    effort,
    machine: {
      node: process.versions.node,
      platform: `${process.platform} ${process.arch}`,
      processor: cpu?.model.trim() ?? null,
      processors: os.cpus().length,
      load: os.loadavg()[0] ?? null,
    },
    measurements: summaries,
  }
  return JSON.stringify(document, null, 2)
}

function end(code: number): never {
  cleanUpAll()
  process.exit(code)
}

function fail(error: unknown): never {
  if (error instanceof CommanderError) end(error.exitCode === 0 ? Exit.VERIFIED : Exit.BAD_INPUT)
  if (!(error instanceof BadInput || error instanceof CandidateFailed)) mistake(error)
  process.stderr.write(`perf: ${oneLine(error.message)}\n`)
  end(error instanceof BadInput ? Exit.BAD_INPUT : CANDIDATE_FAILED)
}

const program = new Command('perf')
  .description('measure speed as ratios to plain code that does the same, in the same run')
  .option(
    '--only <name>',
    `one measurement, any number of times: ${MEASUREMENTS.map(({ name }) => name).join(', ')}`,
    collect,
  )
  .option('--peers', "instead: disks served to another process, beside QEMU's storage daemon")
  .option('--quick', 'see in seconds that everything runs; judges nothing')
  .option('--json', 'print one JSON document and nothing else')
  .addHelpText('after', '\nExit codes: 0 measured, whatever the figures; 1 a candidate failed; 2 bad input.')
  .allowExcessArguments(false)
  .configureOutput({
    outputError: (text, write) => write(`perf: ${oneLine(text.replace(/^error: /, ''))}\n`),
  })
  .exitOverride()

function collect(value: string, before: readonly string[] | undefined): string[] {
  return [...(before ?? []), value]
}

process.once('SIGINT', () => end(130))
process.once('SIGTERM', () => end(143))
process.once('SIGHUP', () => end(129))
process.on('uncaughtException', mistake)
process.on('unhandledRejection', mistake)
process.stdout.on('error', (error: NodeJS.ErrnoException) =>
  error.code === 'EPIPE' ? end(0) : mistake(error),
)

try {
  end(await run(program.parse().opts<Arguments>()))
} catch (error) {
  fail(error)
}
