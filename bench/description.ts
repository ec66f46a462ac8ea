import { QUEUE_SIZE as DRIVER_QUEUE_SIZE } from '../guest/virtio/blk-hardware.ts'
import { readDiskSpec } from '../host/disk/registry.ts'
import type { DiskJson } from '../host/disk/spec.ts'
import { formatSpec } from '../host/disk/spec.ts'
import { PAGE_BYTES } from '../protocol/memory.ts'
import { VIRTIO_VERSIONS, type VirtioVersion } from '../protocol/virtio/features.ts'
import { descTableBytes } from '../protocol/virtio/ring.ts'

/** Lines of the controller that disks may have. */
export const MACHINE_DISKS_MAX = 16

/** What the guest can be, and what the processor. */
export const WINDOWS_NAMES = ['xp', 'vista', '7'] as const
export type WindowsName = (typeof WINDOWS_NAMES)[number]
export const PROFILE_NAMES = ['2006', '2010', 'apicv'] as const
export type ProfileName = (typeof PROFILE_NAMES)[number]

/** How a disk's content is checked: by its size, all of it, pieces that the seed chooses, or not. */
export const VERIFY_MODES = ['auto', 'full', 'sample', 'none'] as const
export type VerifyMode = (typeof VERIFY_MODES)[number]

/** One disk of a bench. */
export interface DiskDescription {
  /** What stands behind it: `file:disk.img | delay:ms=2`, or the same as plain data. */
  readonly spec: string | DiskJson
  /**
   * Lets the driver change the disk itself. Left out or false: changes go to an overlay in memory, and what
   * the spec names is only read.
   */
  readonly write?: boolean
}

/** A bench as plain data. Everything left out has a default; the checked form has none left out. */
export interface BenchDescription {
  /** Every choice of the run follows from it: a whole number from 0 to 2^53 - 1. Default 1. */
  readonly seed?: number
  /** Disks, each a spec or with its options; one disk `memory` by default, at most 16. */
  readonly disks?: readonly (string | DiskJson | DiskDescription)[]
  /** The guest's operating system. Default Windows 7. */
  readonly windows?: WindowsName
  /** The processor's: how much of interrupts it virtualizes, and so what exits. Default: the newest. */
  readonly profile?: ProfileName
  /** At every kernel routine and every exit the seed may let something else go first. Default: it does not. */
  readonly preemption?: boolean
  /** Version of VIRTIO that device and driver speak. Default: the newest. */
  readonly virtio?: VirtioVersion
  /** Guest memory: whole pages, 4 MiB to 2 GiB, the more the more disks. Default 64 MiB. */
  readonly memoryBytes?: number
  /** Largest queue of each disk: a power of two from 4 to 1024, of which the driver uses 256. Default 256. */
  readonly queueSize?: number
  /** How the content is checked. Default `auto`: `full` for disks up to 16 GiB, `sample` beyond. */
  readonly verify?: VerifyMode
  /** Requests of the verifying workload on each disk, 0 to 2^31. Default 2000. */
  readonly operations?: number
  /** Requests of it in flight, 1 to 64. Default 32. */
  readonly depth?: number
}

/** A description after its one check. */
export interface CheckedDescription extends BenchDescription {
  readonly seed: number
  readonly disks: readonly CheckedDisk[]
  readonly windows: WindowsName
  readonly profile: ProfileName
  readonly preemption: boolean
  readonly virtio: VirtioVersion
  readonly memoryBytes: number
  readonly queueSize: number
  readonly verify: VerifyMode
  readonly operations: number
  readonly depth: number
}

export interface CheckedDisk extends DiskDescription {
  /** As its user wrote it, or the canonical text of plain data. */
  readonly spec: string
  readonly write: boolean
}

/** A description that cannot be: one line that says which part and what it takes. */
export class BadDescription extends Error {
  override readonly name = 'BadDescription'
}

const KEYS = [
  ...['seed', 'disks', 'windows', 'profile', 'preemption', 'virtio', 'memoryBytes'],
  ...['queueSize', 'verify', 'operations', 'depth'],
]
const MIB = 1024 * 1024
/** What the guest's kernel and an application take. */
const KERNEL_BYTES = 2.5 * MIB
const DRIVERS_BYTES = 128 * 1024

/**
 * Checks a description, which may come from anywhere, without opening anything.
 *
 * @throws BadDescription
 */
export function checkDescription(written: BenchDescription): CheckedDescription {
  const given = record(written, 'a bench description')
  const unknown = Object.keys(given).find((key) => !KEYS.includes(key))
  if (unknown !== undefined)
    throw new BadDescription(`no part ${show(unknown)}; parts are ${KEYS.join(', ')}`)
  const queueSize = whole(given, 'queueSize', 256, 4, 1024)
  if (!Number.isInteger(Math.log2(queueSize))) {
    throw new BadDescription(`queueSize is ${queueSize}; it takes a power of two from 4 to 1024`)
  }
  const memoryBytes = whole(given, 'memoryBytes', 64 * MIB, 4 * MIB, 2048 * MIB)
  if (memoryBytes % PAGE_BYTES !== 0) {
    throw new BadDescription(`memoryBytes is ${memoryBytes}, not whole pages of ${PAGE_BYTES}`)
  }
  const disks = checkDisks(given['disks'] ?? ['memory'])
  const needed = KERNEL_BYTES + disks.length * (DRIVERS_BYTES + ringBytes(queueSize))
  if (memoryBytes < needed) {
    throw new BadDescription(`memoryBytes is ${memoryBytes}, too little for these disks: they take ${needed}`)
  }
  return {
    seed: whole(given, 'seed', 1, 0, Number.MAX_SAFE_INTEGER),
    disks,
    windows: choice(given, 'windows', '7', WINDOWS_NAMES),
    profile: choice(given, 'profile', 'apicv', PROFILE_NAMES),
    preemption: flag(given, 'preemption'),
    virtio: choice(given, 'virtio', '1.3', VIRTIO_VERSIONS),
    memoryBytes,
    queueSize,
    verify: choice(given, 'verify', 'auto', VERIFY_MODES),
    operations: whole(given, 'operations', 2000, 0, 2 ** 31),
    depth: whole(given, 'depth', 32, 1, 64),
  }
}

/** Rings and indirect tables, of which each of a ring's requests has one. */
function ringBytes(queueSize: number): number {
  const size = Math.min(queueSize, DRIVER_QUEUE_SIZE)
  return size * descTableBytes(size)
}

function checkDisks(written: unknown): CheckedDisk[] {
  if (!Array.isArray(written)) throw new BadDescription(`disks is ${show(written)}; it takes a list`)
  if (written.length > MACHINE_DISKS_MAX)
    throw new BadDescription(`${written.length} disks; a bench has at most ${MACHINE_DISKS_MAX}`)
  return written.map((one: unknown, index) => checkDisk(one, `disk${index}`))
}

function checkDisk(written: unknown, name: string): CheckedDisk {
  if (typeof written === 'string') return { spec: checkSpec(written, name), write: false }
  const given = record(written, name)
  // A spec as plain data has a kind; a disk with options has a spec.
  if ('kind' in given) return { spec: checkSpec(given as DiskJson, name), write: false }
  const unknown = Object.keys(given).find((key) => key !== 'spec' && key !== 'write')
  if (unknown !== undefined)
    throw new BadDescription(`${name}: no part ${show(unknown)}; parts are spec, write`)
  const { spec, write = false } = given
  if (typeof write !== 'boolean')
    throw new BadDescription(`${name}: write is ${show(write)}; it takes true or false`)
  if (typeof spec === 'string') return { spec: checkSpec(spec, name), write }
  return { spec: checkSpec(record(spec, `${name}: spec`) as DiskJson, name), write }
}

function checkSpec(spec: string | DiskJson, name: string): string {
  const read = readDiskSpec(spec)
  if (!read.ok) throw new BadDescription(`${name}: ${read.error}`)
  return typeof spec === 'string' ? spec : formatSpec(read.value)
}

type Given = { readonly [key: string]: unknown }

function record(value: unknown, what: string): Given {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Given
  throw new BadDescription(`${what} is ${show(value)}; it takes an object`)
}

function whole(given: Given, key: string, absent: number, least: number, most: number): number {
  const value = given[key] ?? absent
  if (typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most) return value
  throw new BadDescription(`${key} is ${show(value)}; it takes a whole number from ${least} to ${most}`)
}

function flag(given: Given, key: string): boolean {
  const value = given[key] ?? false
  if (typeof value === 'boolean') return value
  throw new BadDescription(`${key} is ${show(value)}; it takes true or false`)
}

function choice<T extends string>(given: Given, key: string, absent: T, accepted: readonly T[]): T {
  const value = given[key] ?? absent
  const found = accepted.find((name) => name === value)
  if (found !== undefined) return found
  throw new BadDescription(`${key} is ${show(value)}; it takes one of ${accepted.join(', ')}`)
}

function show(value: unknown): string {
  const text = typeof value === 'string' || typeof value === 'object' ? JSON.stringify(value) : String(value)
  return text.length > 80 ? `${text.slice(0, 80)}…` : text
}
