import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import path from 'node:path'
import {
  type LinuxKernel,
  linuxGuestMissing,
  linuxKernel,
  makeInitramfs,
} from '../peers/linux-guest/initramfs.ts'
import { LinuxGuest } from '../peers/linux-guest/linux-guest.ts'
import { missingQemu } from '../peers/qtest.ts'
import type { Comparison, Place } from './measure.ts'
import { writeNumberedFile } from './numbered-file.ts'
import { OURS, PeerDaemon, THEIRS } from './peer-daemon.ts'
import { CandidateFailed } from './rounds.ts'
import { type MeasurementSummary, type Round, togetherText } from './summary.ts'

const KIBIBYTE = 1024
const BOOT_SECONDS = 60
/** Beyond the time that a figure is measured for: a busy machine takes seconds, where a quiet one takes tenths. */
const FIGURE_SECONDS = 5

interface GuestRow {
  readonly write: boolean
  /** Through the guest's page cache, whose read-ahead decides what the disk is asked. */
  readonly cached: boolean
  readonly lengthBytes: number
  readonly depth: number
}

const ROWS: ReadonlyMap<string, GuestRow> = new Map(
  [
    ...[1, 32].flatMap((depth) => bothWays({ lengthBytes: 4 * KIBIBYTE, depth, cached: false })),
    ...bothWays({ lengthBytes: 256 * KIBIBYTE, depth: 8, cached: false }),
    { lengthBytes: 64 * KIBIBYTE, depth: 1, cached: true, write: false },
  ].map((row) => [nameOf(row), row]),
)

function bothWays(row: Omit<GuestRow, 'write'>): GuestRow[] {
  return [false, true].map((write) => ({ ...row, write }))
}

function nameOf({ write, cached, lengthBytes, depth }: GuestRow): string {
  return `guest-${write ? 'write' : 'read'}-${lengthBytes / KIBIBYTE}k-${cached ? 'cached' : depth}`
}

function comparisonOf([name, row]: readonly [string, GuestRow]): Comparison {
  const kibibytes = row.lengthBytes / KIBIBYTE
  const kind = row.write ? 'writes' : 'reads'
  return {
    name,
    what: row.cached
      ? `a Linux in QEMU, ${kibibytes} KiB ${kind} one after the other through its page cache`
      : `a Linux in QEMU, direct ${kibibytes} KiB ${kind} all over the disk, ${row.depth} at a time`,
    candidates: [THEIRS, OURS],
    goals: { [OURS]: { atLeast: 1 } },
    unit: 'per second',
    operationBytes: row.lengthBytes,
  }
}

/** The same script in one Linux guest, on a disk of each daemon. */
export const GUEST_MEASUREMENTS: readonly Comparison[] = [...ROWS].map(comparisonOf)

/** What is missing for a guest, or null. */
export function guestScriptMissing(): string | null {
  return missingQemu() ?? linuxGuestMissing()
}

/** The script as a whole, for people; null where there are not two rows of it. */
export function guestScriptText(summaries: readonly MeasurementSummary[]): string | null {
  return togetherText('guest script', OURS, summaries)
}

export interface GuestScriptSetup {
  readonly place: Place
  readonly names: readonly string[]
  /** Guests one after the other; every other one has its disks the other way round. */
  readonly guests: number
  /** In each guest. */
  readonly rounds: number
  /** How long each candidate runs in each round. */
  readonly ms: number
  readonly fileBytes: number
  /** Told before each guest starts, and of each figure. */
  readonly progress: (now: string) => void
}

/**
 * Runs the script: the guest has both disks, and does on them in turn what a row says, so that what slows the machine
 * down meets both.
 *
 * @throws CandidateFailed with what the guest found wrong.
 */
export async function runGuestScript(setup: GuestScriptSetup): Promise<ReadonlyMap<string, Round[]>> {
  const folder = mkdtempSync(path.join(path.dirname(setup.place.file), 'guest-'))
  const rounds = new Map<string, Round[]>(setup.names.map((name) => [name, []]))
  try {
    const kernel = linuxKernel() as LinuxKernel
    const initramfs = makeInitramfs(kernel, folder)
    for (let guest = 0; guest < setup.guests; guest++) {
      setup.progress(`a Linux guest starts, ${guest + 1} of ${setup.guests}`)
      const inFolder = path.join(folder, String(guest))
      mkdirSync(inFolder)
      await runGuest({ ...setup, kernel, initramfs, folder: inFolder, turned: guest % 2 === 1 }, rounds)
      rmSync(inFolder, { recursive: true })
    }
  } catch (error) {
    throw new CandidateFailed(`guest script: ${error instanceof Error ? error.message : error}`)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  return rounds
}

interface GuestSetup extends GuestScriptSetup {
  readonly kernel: LinuxKernel
  readonly initramfs: string
  readonly folder: string
  /** Ours is its first disk then. */
  readonly turned: boolean
}

async function runGuest(setup: GuestSetup, rounds: ReadonlyMap<string, Round[]>): Promise<void> {
  const { kernel, initramfs, turned, names } = setup
  const figures = names.length * setup.rounds * 3
  const lifetimeSeconds = BOOT_SECONDS + Math.ceil(figures * (setup.ms / 1000 + FIGURE_SECONDS))
  // Longer than the guest's: it is the guest that says what went wrong.
  const servedSeconds = lifetimeSeconds + BOOT_SECONDS
  await using theirs = await serveFile(THEIRS, setup, servedSeconds)
  await using ours = await serveFile(OURS, setup, servedSeconds)
  const sockets = [theirs.socket, ours.socket]
  const disks = turned ? ['vdb', 'vda'] : ['vda', 'vdb']
  await using guest = new LinuxGuest({
    ...{ kernel, initramfs, job: 'speed', lifetimeSeconds },
    sockets: turned ? sockets.reverse() : sockets,
    arguments: [`${setup.rounds}`, `${setup.ms}`, ...disks, ...names.map(argumentOf)],
  })
  for (let round = 0; round < setup.rounds; round++) {
    for (const name of names) {
      const told: number[] = []
      for (const disk of [disks[0], disks[1], disks[0]]) {
        setup.progress(`${name}: ${disk === disks[0] ? THEIRS : OURS}`)
        told.push(perSecondOf(await guest.says('figure '), `${name} ${disk}`))
      }
      const [first = Number.NaN, other = Number.NaN, last = Number.NaN] = told
      rounds.get(name)?.push({ first, others: [other], last })
    }
  }
  await guest.says('done')
  await guest.ended()
}

/** Each daemon has a file of its own: one that locks its file is no hindrance to another. */
function serveFile(candidate: string, setup: GuestSetup, lifetimeSeconds: number): Promise<PeerDaemon> {
  const { folder } = setup
  const file = path.join(folder, `${candidate}.img`)
  writeNumberedFile(file, setup.fileBytes)
  return PeerDaemon.start({ candidate, file, folder, lifetimeSeconds })
}

function argumentOf(name: string): string {
  const { write, cached, lengthBytes, depth } = ROWS.get(name) as GuestRow
  return [name, write ? 'write' : 'read', cached ? 'cached' : 'direct', lengthBytes, depth].join(':')
}

/** @throws when the line is not the figure that comes next. */
function perSecondOf(line: string, expected: string): number {
  const [, what, requests, ns] = /^(\S+ \S+) (\d+) (\d+)$/.exec(line) ?? []
  const perSecond = (Number(requests) * 1e9) / Number(ns)
  if (what === expected && perSecond > 0 && Number.isFinite(perSecond)) return perSecond
  throw new Error(`the guest says ${JSON.stringify(line)}, which is no figure of ${expected}`)
}
