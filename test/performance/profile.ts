import { Session } from 'node:inspector'
import { type MeasuredPart, watchMeasured } from './measure.ts'

/** What an operation spends in the functions of one room. */
export interface RoomTime {
  /** `guest/kernel`, `host/disk`, …; `node`: the platform's own code and the calls of the operating system. */
  readonly room: string
  /** While profiled, which costs something itself. */
  readonly nsEach: number
  /** Of the whole. */
  readonly share: number
}

interface ProfileNode {
  readonly id: number
  readonly callFrame: { readonly functionName: string; readonly url: string }
}

/** What of V8's CPU profile is used: a sample is the number of the node whose function ran. */
export interface CpuProfile {
  readonly nodes: readonly ProfileNode[]
  readonly samples?: readonly number[] | undefined
  /** Microseconds before each sample. */
  readonly timeDeltas?: readonly number[] | undefined
}

const INTERVAL_US = 200
/** These have a line for each of their parts. */
const DIVIDED = ['guest', 'host', 'hypervisor', 'test']

/** Runs a measurement and says where the time of its measured part went: self time, by the room of the file. */
export async function profiled(run: () => Promise<number> | number): Promise<readonly RoomTime[]> {
  const profiler = new Profiler()
  watchMeasured(profiler)
  await run()
  if (profiler.profile === null) throw new Error('nothing was measured')
  return roomTimes(profiler.profile, profiler.operations)
}

class Profiler implements MeasuredPart {
  readonly #session: Session
  profile: CpuProfile | null
  operations: number

  constructor() {
    this.#session = new Session()
    this.profile = null
    this.operations = 0
  }

  begin(): void {
    this.#session.connect()
    this.#session.post('Profiler.enable')
    this.#session.post('Profiler.setSamplingInterval', { interval: INTERVAL_US })
    this.#session.post('Profiler.start')
  }

  end(operations: number): void {
    this.operations = operations
    // A session of the own thread answers before `post` returns.
    this.#session.post('Profiler.stop', (error, result) => {
      if (error !== null) throw error
      this.profile = result.profile
    })
    this.#session.disconnect()
  }
}

/** Sums a profile up, most first. */
export function roomTimes(
  { nodes, samples, timeDeltas }: CpuProfile,
  operations: number,
): readonly RoomTime[] {
  const roomOf = new Map(
    nodes.map(({ id, callFrame }) => [id, roomOfUrl(callFrame.url, callFrame.functionName)]),
  )
  const spentUs = new Map<string, number>()
  let totalUs = 0
  for (const [index, id] of (samples ?? []).entries()) {
    const room = roomOf.get(id) ?? 'node'
    // A sample tells what runs until the next one.
    const us = Math.max(0, timeDeltas?.[index + 1] ?? 0)
    spentUs.set(room, (spentUs.get(room) ?? 0) + us)
    totalUs += us
  }
  return [...spentUs]
    .map(([room, us]) => ({ room, nsEach: (us * 1000) / operations, share: totalUs > 0 ? us / totalUs : 0 }))
    .sort((a, b) => b.nsEach - a.nsEach)
}

function roomOfUrl(url: string, functionName: string): string {
  if (functionName === '(garbage collector)') return 'garbage collector'
  const path = /^file:.*\/dist\/(.*)$/.exec(url)?.[1]
  if (path === undefined) return 'node'
  const [room = '', part = ''] = path.split('/')
  return DIVIDED.includes(room) && !part.endsWith('.js') ? `${room}/${part}` : room
}

/** What a process printed, or null when it is none. */
export function parseRoomTimes(text: string): readonly RoomTime[] | null {
  try {
    const value: unknown = JSON.parse(text)
    return Array.isArray(value) && value.length > 0 && value.every(isRoomTime) ? value : null
  } catch {
    return null
  }
}

function isRoomTime(value: unknown): value is RoomTime {
  if (typeof value !== 'object' || value === null) return false
  const { room, nsEach, share } = value as { readonly [name: string]: unknown }
  return typeof room === 'string' && Number.isFinite(nsEach) && Number.isFinite(share)
}
