import type { Comparison, Goal, Unit } from './measure.ts'
import type { RoomTime } from './profile.ts'

/** The middle of many figures and how far they lie apart. */
export interface Spread {
  readonly median: number
  readonly low: number
  readonly high: number
}

export interface CandidateSummary {
  readonly name: string
  /** Figures in the measurement's unit, one a round, in order. */
  readonly figures: readonly number[]
  readonly median: number
  /** To the yardstick of the same round. */
  readonly ratio: Spread
  readonly goal: Goal | null
  /** Null without a goal, and in a quick run, which judges nothing. */
  readonly met: boolean | null
}

export interface MeasurementSummary {
  readonly name: string
  readonly what: string
  readonly unit: Unit
  readonly operationBytes: number | null
  readonly candidates: readonly CandidateSummary[]
  /** The yardstick at the end of a round to itself at the beginning: what a ratio of equals looks like here. */
  readonly noise: Spread
  /** Where an operation of the profiled candidate spends its time, most first; null without one. */
  readonly rooms: readonly RoomTime[] | null
}

/** One round: the yardstick first, every other candidate, the yardstick again. */
export interface Round {
  readonly first: number
  readonly others: readonly number[]
  readonly last: number
}

/** @throws on no figures: our own mistake. */
export function spreadOf(figures: readonly number[]): Spread {
  if (figures.length === 0) throw new Error('a spread of nothing')
  const sorted = [...figures].sort((a, b) => a - b)
  const middle = (sorted.length - 1) / 2
  const at = (index: number) => sorted[index] as number
  return {
    median: (at(Math.floor(middle)) + at(Math.ceil(middle))) / 2,
    low: at(0),
    high: at(sorted.length - 1),
  }
}

/** Whether a ratio is what was wanted; NaN never is. */
export function meets(ratio: number, goal: Goal): boolean {
  const { atLeast = Number.NEGATIVE_INFINITY, atMost = Number.POSITIVE_INFINITY } = goal
  return ratio >= atLeast && ratio <= atMost
}

/**
 * What rounds of a measurement come to. A candidate's ratio is taken within each round, to the mean of the
 * yardstick before and after it: a machine that grows slower meanwhile slows both.
 *
 * @param judging whether goals are compared with.
 */
export function summarise(
  measurement: Comparison,
  rounds: readonly Round[],
  judging: boolean,
  rooms: readonly RoomTime[] | null = null,
): MeasurementSummary {
  const yardstick = (round: Round) => (round.first + round.last) / 2
  const candidates = measurement.candidates.map((name, index): CandidateSummary => {
    const figureOf = (round: Round) => (index === 0 ? yardstick(round) : (round.others[index - 1] as number))
    const figures = rounds.map(figureOf)
    const ratio = spreadOf(rounds.map((round) => figureOf(round) / yardstick(round)))
    const goal = measurement.goals[name] ?? null
    const met = goal === null || !judging ? null : meets(ratio.median, goal)
    return { name, figures, median: spreadOf(figures).median, ratio, goal, met }
  })
  return {
    name: measurement.name,
    what: measurement.what,
    unit: measurement.unit,
    operationBytes: measurement.operationBytes ?? null,
    candidates,
    noise: spreadOf(rounds.map(({ first, last }) => last / first)),
    rooms,
  }
}

/** How a candidate's ratios stand together, for people, where equal is the goal; null without two of them. */
export function togetherText(
  what: string,
  candidate: string,
  summaries: readonly MeasurementSummary[],
): string | null {
  const ratios = summaries.flatMap(
    ({ candidates }) => candidates.find(({ name }) => name === candidate)?.ratio.median ?? [],
  )
  if (ratios.length < 2) return null
  const mean = Math.exp(ratios.reduce((sum, ratio) => sum + Math.log(ratio), 0) / ratios.length)
  return `${what}, ${candidate}: geometric mean ${mean.toFixed(2)} of ${ratios.length} rows, goal ≥ 1\n`
}
