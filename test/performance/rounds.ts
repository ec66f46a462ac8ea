import { type ChildProcess, spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { Measurement, Place } from './measure.ts'
import { parseRoomTimes, type RoomTime } from './profile.ts'
import type { Round } from './summary.ts'

const ONE = fileURLToPath(new URL('./one.js', import.meta.url))

/** A candidate did not come to an end, or not to a figure. */
export class CandidateFailed extends Error {
  override readonly name = 'CandidateFailed'
}

export interface RoundsSetup {
  readonly rounds: number
  /** About how long each candidate runs in each round. */
  readonly ms: number
  readonly place: Place
  /** Told before each process starts. */
  readonly started: (measurement: Measurement, candidate: string) => void
}

let running: ChildProcess | null = null

/** Ends the process under way, if there is one: for a runner that has to end itself. */
export function stopCandidate(): void {
  running?.kill('SIGKILL')
}

/** Processes that `runRounds` starts for a measurement. */
export function processesOf(measurement: Measurement, rounds: number): number {
  return rounds * (measurement.candidates.length + 1) + (measurement.profiled === undefined ? 0 : 1)
}

/** Runs a measurement: rounds one after the other, in each every candidate in a process of its own. */
export async function runRounds(measurement: Measurement, setup: RoundsSetup): Promise<Round[]> {
  const [yardstick = '', ...others] = measurement.candidates
  const figure = (candidate: string) => {
    setup.started(measurement, candidate)
    return runOne(measurement.name, candidate, setup.ms, setup.place)
  }
  const rounds: Round[] = []
  for (let round = 0; round < setup.rounds; round++) {
    const first = await figure(yardstick)
    const figures: number[] = []
    for (const candidate of others) figures.push(await figure(candidate))
    rounds.push({ first, others: figures, last: await figure(yardstick) })
  }
  return rounds
}

/** Where the time of the measurement's profiled candidate goes; null when it has none. */
export async function runProfile(
  measurement: Measurement,
  setup: RoundsSetup,
): Promise<readonly RoomTime[] | null> {
  const { name, profiled } = measurement
  if (profiled === undefined) return null
  setup.started(measurement, profiled)
  const ended = await spawnOne([name, profiled, String(setup.ms), setup.place.file, 'profile'])
  const rooms = ended.code === 0 ? parseRoomTimes(ended.out) : null
  if (rooms === null) throw new CandidateFailed(`${name}: profile of ${profiled}: ${whyOf(ended)}`)
  return rooms
}

async function runOne(name: string, candidate: string, ms: number, { file }: Place): Promise<number> {
  const ended = await spawnOne([name, candidate, String(ms), file])
  const figure = ended.code === 0 ? Number(ended.out) : Number.NaN
  if (figure > 0 && Number.isFinite(figure)) return figure
  throw new CandidateFailed(`${name}: ${candidate}: ${whyOf(ended)}`)
}

interface Ended {
  readonly code: number | null
  readonly signal: string | null
  readonly out: string
  readonly err: string
}

function spawnOne(args: readonly string[]): Promise<Ended> {
  const child = spawn(process.execPath, [ONE, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  running = child
  let out = ''
  let err = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    err += text
  })
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) => {
      running = null
      resolve({ code, signal, out, err })
    })
  })
}

function whyOf({ code, signal, out, err }: Ended): string {
  if (signal !== null) return `ended by ${signal}`
  if (code === 0) return `printed ${JSON.stringify(out.trim())}, which is no figure`
  const thrown = err.split('\n').find((line) => /^\w*Error\b/.test(line))
  return `ended with code ${code}: ${thrown ?? err.trim()}`
}
