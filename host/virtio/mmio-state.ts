import type { Plain } from '../../protocol/platform.ts'
import type { QueuePlace } from '../../protocol/virtio/ring.ts'
import { Status } from '../../protocol/virtio/status.ts'
import type { QueueState } from './device.ts'
import { statusStep } from './negotiate.ts'

/** Registers of one queue. Addresses are kept as the halves the driver writes. */
export interface MmioQueueState {
  size: number
  descLow: number
  descHigh: number
  driverLow: number
  driverHigh: number
  deviceLow: number
  deviceHigh: number
  ready: boolean
  /** QueueReset or QueueReady = 0 was written, and buffers are still out. */
  stopping: boolean
  /** It was QueueReset, which reads 1 until then. */
  resetting: boolean
}

/** Everything a reset forgets: replaced, never cleared field by field. */
export interface MmioState {
  status: number
  deviceFeaturesSel: number
  driverFeaturesSel: number
  driverFeatures: bigint
  queueSel: number
  shmSel: number
  interruptStatus: number
  resetting: boolean
  queues: MmioQueueState[]
}

function freshQueue(): MmioQueueState {
  return {
    size: 0,
    descLow: 0,
    descHigh: 0,
    driverLow: 0,
    driverHigh: 0,
    deviceLow: 0,
    deviceHigh: 0,
    ready: false,
    stopping: false,
    resetting: false,
  }
}

/** State after power-on and after every reset. */
export function fresh(queueCount: number): MmioState {
  return {
    status: 0,
    deviceFeaturesSel: 0,
    driverFeaturesSel: 0,
    driverFeatures: 0n,
    queueSel: 0,
    shmSel: 0,
    interruptStatus: 0,
    resetting: false,
    queues: Array.from({ length: queueCount }, freshQueue),
  }
}

export { freshQueue as freshMmioQueue }

const TWO_32 = 0x1_0000_0000

export function placeOf(queue: MmioQueueState): QueuePlace {
  return {
    size: queue.size,
    descriptors: queue.descLow + queue.descHigh * TWO_32,
    driver: queue.driverLow + queue.driverHigh * TWO_32,
    device: queue.deviceLow + queue.deviceHigh * TWO_32,
  }
}

/** A saved transport: plain data with a version that decides its meaning. */
export interface SavedMmio {
  readonly version: 1
  readonly status: number
  readonly deviceFeaturesSel: number
  readonly driverFeaturesSel: number
  readonly driverFeatures: string
  readonly queueSel: number
  readonly shmSel: number
  readonly interruptStatus: number
  readonly queues: readonly {
    readonly registers: Omit<MmioQueueState, 'ready' | 'stopping' | 'resetting'>
    readonly running: QueueState | null
  }[]
  readonly device: Plain
}

type Loaded =
  | { readonly ok: true; readonly saved: SavedMmio }
  | { readonly ok: false; readonly error: string }

function record(value: unknown): { readonly [name: string]: unknown } | null {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as { readonly [name: string]: unknown })
    : null
}

/** JSON has a negative zero, registers have none. */
function isWord(value: unknown, limit: number): value is number {
  return Number.isInteger(value) && Number(value) >= 0 && Number(value) < limit && !Object.is(value, -0)
}

/** What is out is what was taken and not given back, so the heads have to account for the two indices. */
function parseRunning(value: unknown, size: number): QueueState | null | string {
  if (value === null) return null
  const running = record(value)
  const position = record(running?.['position'])
  const heads = running?.['heads']
  const broken = running?.['broken']
  if (position === null || !Array.isArray(heads)) return 'a queue has no position'
  if (broken !== undefined && broken !== true) return 'a queue is neither broken nor sound'
  const { available, used } = position
  if (!isWord(available, 0x1_0000) || !isWord(used, 0x1_0000)) return 'a position is not 16 bits'
  if (!heads.every((head): head is number => isWord(head, size))) return 'a head is out of range'
  if (new Set(heads).size !== heads.length) return 'a head is out twice'
  const state = { position: { available, used }, heads }
  if (broken === true) return { ...state, broken }
  return ((available - used) & 0xffff) === heads.length ? state : 'the heads do not account for the position'
}

function parseQueue(value: unknown): SavedMmio['queues'][number] | string {
  const queue = record(value)
  const registers = record(queue?.['registers'])
  if (queue === null || registers === null) return 'a queue has no registers'
  const { size, descLow, descHigh, driverLow, driverHigh, deviceLow, deviceHigh } = registers
  const words = [size, descLow, descHigh, driverLow, driverHigh, deviceLow, deviceHigh]
  if (!words.every((word) => isWord(word, TWO_32))) return 'a queue register is not 32 bits'
  const running = parseRunning(queue['running'], size as number)
  if (typeof running === 'string') return running
  return {
    registers: {
      size,
      descLow,
      descHigh,
      driverLow,
      driverHigh,
      deviceLow,
      deviceHigh,
    } as SavedMmio['queues'][number]['registers'],
    running,
  }
}

/** Why no sequence of writes leads here, or null. */
function statusImpossible(status: number, interruptStatus: number): string | null {
  const own = status & Status.DEVICE_NEEDS_RESET
  const { added, refusals } = statusStep(own, status)
  if (refusals.length > 0 || (own | added) !== status) return 'status cannot be reached step by step'
  const told = interruptStatus === 0 || (status & Status.DRIVER_OK) !== 0
  return told ? null : 'an interrupt before DRIVER_OK'
}

/** Reads a snapshot, which anybody may have written, into a checked value. */
export function parseSavedMmio(value: unknown, queueCount: number): Loaded {
  const fail = (error: string): Loaded => ({ ok: false, error })
  const saved = record(value)
  if (saved === null || saved['version'] !== 1) return fail('not a virtio-mmio state of version 1')
  const {
    status,
    deviceFeaturesSel,
    driverFeaturesSel,
    driverFeatures,
    queueSel,
    shmSel,
    interruptStatus,
    queues,
  } = saved
  if (!isWord(status, 0x100)) return fail('status is not 8 bits')
  for (const word of [deviceFeaturesSel, driverFeaturesSel, queueSel, shmSel]) {
    if (!isWord(word, TWO_32)) return fail('a selector is not 32 bits')
  }
  if (!isWord(interruptStatus, 4)) return fail('interrupt status has unknown bits')
  const impossible = statusImpossible(status, interruptStatus)
  if (impossible !== null) return fail(impossible)
  if (typeof driverFeatures !== 'string' || !/^[0-9a-f]{1,32}$/.test(driverFeatures)) {
    return fail('driver features are not 128 bits in hexadecimal')
  }
  if (!Array.isArray(queues) || queues.length !== queueCount) return fail(`not ${queueCount} queues`)
  const parsed: SavedMmio['queues'][number][] = []
  for (const queue of queues) {
    const one = parseQueue(queue)
    if (typeof one === 'string') return fail(one)
    if (one.running !== null && (status & Status.FEATURES_OK) === 0)
      return fail('a queue ran before FEATURES_OK')
    parsed.push(one)
  }
  return {
    ok: true,
    saved: {
      version: 1,
      status,
      deviceFeaturesSel: deviceFeaturesSel as number,
      driverFeaturesSel: driverFeaturesSel as number,
      driverFeatures,
      queueSel: queueSel as number,
      shmSel: shmSel as number,
      interruptStatus,
      queues: parsed,
      device: (saved['device'] ?? null) as Plain,
    },
  }
}
