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
import {
  GUEST_MEASUREMENTS,
  type GuestScriptSetup,
  guestScriptMissing,
  guestScriptText,
  runGuestScript,
} from './guest-script.ts'
import type { Comparison, Measurement, Place } from './measure.ts'
import { writeNumberedFile } from './numbered-file.ts'
import { peersMissing } from './peer-daemon.ts'
import { largeRequestsText, PEER_MEASUREMENTS } from './peers.ts'
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
  /** A guest takes seconds to start, and then runs its whole script. */
  readonly guest: Pick<GuestScriptSetup, 'guests' | 'rounds' | 'ms' | 'fileBytes'>
  /** Whether figures are held against goals. */
  readonly judging: boolean
}

const WHOLE: Effort = {
  ...{ rounds: 5, ms: 1000, fileBytes: 256 << 20, judging: true },
  guest: { guests: 2, rounds: 3, ms: 600, fileBytes: 128 << 20 },
}
/** Shows that everything runs; its figures mean nothing. */
const QUICK: Effort = {
  ...{ rounds: 1, ms: 20, fileBytes: 16 << 20, judging: false },
  guest: { guests: 1, rounds: 1, ms: 20, fileBytes: 16 << 20 },
}

interface Arguments {
  readonly only?: readonly string[]
  readonly peers?: boolean
  readonly quick?: boolean
  readonly json?: boolean
}

const CANDIDATE_FAILED = 1
/** Room for the longest name of a measurement in the help text. */
const NAME_COLUMNS = 24

/** What was asked for: comparisons by processes of their own, and by the script that a Linux guest runs. */
interface Chosen {
  readonly measurements: readonly Measurement[]
  readonly guest: readonly Comparison[]
}

function chosen({ only, peers }: Arguments): Chosen {
  const missing = peers === true ? (nativeAbsent() ?? peersMissing()) : null
  if (missing !== null) throw new BadInput(`nothing to compare with: ${missing} is missing`)
  const all: Chosen =
    peers === true
      ? { measurements: PEER_MEASUREMENTS, guest: GUEST_MEASUREMENTS }
      : { measurements: MEASUREMENTS, guest: [] }
  if (only === undefined) return all
  const known = [...all.measurements, ...all.guest].map(({ name }) => name)
  const unknown = only.find((name) => !known.includes(name))
  if (unknown !== undefined) {
    throw new BadInput(`no measurement ${JSON.stringify(unknown)}: there are ${known.join(', ')}`)
  }
  const asked = ({ name }: Comparison): boolean => only.includes(name)
  return { measurements: all.measurements.filter(asked), guest: all.guest.filter(asked) }
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
  const { measurements, guest } = chosen(given)
  const json = given.json === true
  const effort = given.quick === true ? QUICK : WHOLE
  const colours = coloursFor('stdout')
  const place = makePlace(effort.fileBytes)
  if (!json) await print(colours.dim(`${machineText()}\n\n`))
  const told = async (summary: MeasurementSummary): Promise<MeasurementSummary> => {
    if (!json) await print(`${measurementText(summary, colours)}\n`)
    return summary
  }
  const own = await runMeasurements(measurements, effort, place, told)
  const leftOut = guest.length === 0 ? null : guestScriptMissing()
  if (leftOut !== null && process.env['PARAVANE_REQUIRE_PEERS'] === '1') {
    throw new CandidateFailed(`guest script: ${leftOut} is missing and PARAVANE_REQUIRE_PEERS is 1`)
  }
  const inGuest = leftOut === null ? await runGuests(guest, effort, place, told) : []
  const summaries = [...own, ...inGuest]
  if (json) await print(`${jsonText(summaries, leftOut, effort)}\n`)
  else {
    const without = leftOut === null ? '' : `guest script: left out, ${leftOut} is missing\n`
    const together = (largeRequestsText(own) ?? '') + (guestScriptText(inGuest) ?? '')
    await print(`${without}${together}${closingText(summaries, effort)}`)
  }
  return Exit.VERIFIED
}

function progressBar(): SingleBar {
  const bar = new SingleBar({
    format: ' {bar} {value}/{total}  {now}',
    clearOnComplete: true,
    noTTYOutput: false,
  })
  onExit(() => bar.stop())
  return bar
}

type Told = (summary: MeasurementSummary) => Promise<MeasurementSummary>

async function runMeasurements(
  measurements: readonly Measurement[],
  effort: Effort,
  place: Place,
  told: Told,
): Promise<MeasurementSummary[]> {
  const total = measurements.reduce((sum, one) => sum + processesOf(one, effort.rounds), 0)
  const bar = progressBar()
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
    summaries.push(await told(summarise(measurement, rounds, effort.judging, rooms)))
  }
  return summaries
}

async function runGuests(
  comparisons: readonly Comparison[],
  effort: Effort,
  place: Place,
  told: Told,
): Promise<MeasurementSummary[]> {
  if (comparisons.length === 0) return []
  const { guests, rounds } = effort.guest
  const bar = progressBar()
  let begun = 0
  bar.start(guests * (1 + rounds * comparisons.length * 3), begun, { now: '' })
  const results = await runGuestScript({
    ...effort.guest,
    place,
    names: comparisons.map(({ name }) => name),
    progress: (now) => bar.update(begun++, { now }),
  })
  bar.stop()
  const summaries: MeasurementSummary[] = []
  for (const comparison of comparisons) {
    const figures = results.get(comparison.name) ?? []
    summaries.push(await told(summarise(comparison, figures, effort.judging)))
  }
  return summaries
}

function machineText(): string {
  const [cpu] = os.cpus()
  const load = os.loadavg()[0] ?? 0
  return `Node ${process.versions.node}, ${os.cpus().length} × ${cpu?.model.trim() ?? 'unknown processor'}, load ${load.toFixed(1)}`
}

function closingText(summaries: readonly MeasurementSummary[], { judging }: Effort): string {
  if (!judging) return 'a quick run: everything ran, and nothing was judged\n'
  const judged = summaries.flatMap(({ candidates }) => candidates.filter(({ met }) => met !== null))
  const met = judged.filter((candidate) => candidate.met === true).length
  return `goals met: ${met} of ${judged.length}. Ratios are medians over rounds; where "noise" is wide, run again.\n`
}

function jsonText(
  summaries: readonly MeasurementSummary[],
  leftOut: string | null,
  { judging, ...effort }: Effort,
): string {
  const [cpu] = os.cpus()
  const document = {
    schema: 1,
    quick: !judging,
    effort,
    machine: {
      node: process.versions.node,
      platform: `${process.platform} ${process.arch}`,
      processor: cpu?.model.trim() ?? null,
      processors: os.cpus().length,
      load: os.loadavg()[0] ?? null,
    },
    measurements: summaries,
    leftOut: leftOut === null ? [] : [{ name: 'guest script', why: `${leftOut} is missing` }],
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
  .option('--only <name>', 'one of the measurements below, any number of times', collect)
  .option('--peers', "instead: disks served to another process, beside QEMU's storage daemon")
  .option('--quick', 'see in seconds that everything runs; judges nothing')
  .option('--json', 'print one JSON document and nothing else')
  .addHelpText('after', `\nMeasurements:\n${namesText(MEASUREMENTS)}`)
  .addHelpText('after', `\nWith --peers:\n${namesText([...PEER_MEASUREMENTS, ...GUEST_MEASUREMENTS])}`)
  .addHelpText('after', '\nExit codes: 0 measured, whatever the figures; 1 a candidate failed; 2 bad input.')
  .allowExcessArguments(false)
  .configureOutput({
    outputError: (text, write) => write(`perf: ${oneLine(text.replace(/^error: /, ''))}\n`),
  })
  .exitOverride()

function namesText(measurements: readonly Comparison[]): string {
  return measurements.map(({ name, what }) => `  ${name.padEnd(NAME_COLUMNS)}${what}`).join('\n')
}

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
