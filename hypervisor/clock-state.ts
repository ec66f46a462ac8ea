import type { Plain } from '../protocol/platform.ts'

/** A clock between two turns, as plain data. */
export interface ClockState {
  readonly version: 1
  readonly nowUs: number
  /** Deadlines made so far: their order breaks ties. */
  readonly made: number
  readonly turns: number
  readonly arrived: number
  /** Names of the queued turns, in order. */
  readonly queue: readonly string[]
  readonly timers: readonly NamedDeadline[]
}

export interface NamedDeadline {
  readonly [name: string]: Plain
  readonly name: string
  readonly dueUs: number
  readonly order: number
}

/** A checked state, or what is wrong with it. */
export function parseClockState(saved: Plain): ClockState | string {
  if (typeof saved !== 'object' || saved === null) return 'clock state is not an object'
  const { version, nowUs, made, turns, arrived, queue, timers } = saved as Record<string, Plain | undefined>
  if (version !== 1) return `clock state has version ${String(version)}, not 1`
  if (!(typeof nowUs === 'number' && nowUs >= 0 && Number.isFinite(nowUs)))
    return 'clock state: nowUs is no time'
  if (!isCount(made) || !isCount(turns) || !isCount(arrived)) return 'clock state: a counter is no count'
  if (!Array.isArray(queue) || !queue.every((name): name is string => typeof name === 'string')) {
    return 'clock state: the queue is no list of names'
  }
  if (new Set(queue).size !== queue.length) return 'clock state: a turn is queued twice'
  if (!Array.isArray(timers)) return 'clock state: the timers are no list'
  const deadlines: NamedDeadline[] = []
  for (const timer of timers as readonly Plain[]) {
    if (typeof timer !== 'object' || timer === null) return 'clock state: a timer is not an object'
    const { name, dueUs, order } = timer as Record<string, Plain | undefined>
    const due = typeof dueUs === 'number' && dueUs >= nowUs && Number.isFinite(dueUs)
    if (typeof name !== 'string' || !due || !isCount(order) || !(order < made)) {
      return `clock state: timer ${JSON.stringify(name)} is not armed for a time to come`
    }
    deadlines.push({ name, dueUs, order })
  }
  if (new Set(deadlines.map(({ name }) => name)).size !== deadlines.length)
    return 'clock state: a timer is armed twice'
  return { version, nowUs, made, turns, arrived, queue, timers: deadlines }
}

function isCount(value: Plain | undefined): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}
