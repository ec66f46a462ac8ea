import type { ChalkInstance } from 'chalk'
import Table from 'cli-table3'
import { groupedText } from '../../bin/quantity.ts'
import type { Goal } from './measure.ts'
import type { RoomTime } from './profile.ts'
import type { CandidateSummary, MeasurementSummary, Spread } from './summary.ts'

const NS_PER_SECOND = 1e9

/** One measurement as a table, the yardstick first. */
export function measurementText(summary: MeasurementSummary, colours: ChalkInstance): string {
  const table = new Table({
    head: ['', 'ns each', 'a second', 'ratio', 'spread', 'goal', ''].map((text) => colours.dim(text)),
    style: { head: [], border: [], compact: true },
    colAligns: ['left', 'right', 'right', 'right', 'left', 'right', 'left'],
  })
  for (const [index, candidate] of summary.candidates.entries()) {
    const each = summary.unit === 'ns' ? candidate.median : NS_PER_SECOND / candidate.median
    table.push([
      index === 0 ? candidate.name : colours.bold(candidate.name),
      groupedText(each),
      rateText(NS_PER_SECOND / each, summary.operationBytes),
      index === 0 ? '1' : ratioText(candidate, colours),
      index === 0 ? colours.dim(`noise ${rangeText(summary.noise)}`) : rangeText(candidate.ratio),
      goalText(candidate.goal),
      verdictText(candidate.met, colours),
    ])
  }
  return `${colours.bold(summary.name)}  ${summary.what}\n${table.toString()}\n${roomsText(summary.rooms, colours)}`
}

/** Where the time goes, most first. */
function roomsText(rooms: readonly RoomTime[] | null, colours: ChalkInstance): string {
  if (rooms === null) return ''
  const table = new Table({
    head: ['where the time goes', 'ns each', 'share'].map((text) => colours.dim(text)),
    style: { head: [], border: [], compact: true },
    colAligns: ['left', 'right', 'right'],
  })
  for (const { room, nsEach, share } of rooms) {
    table.push([room, groupedText(nsEach), `${(100 * share).toFixed(1)} %`])
  }
  return `${table.toString()}\n`
}

function ratioText(candidate: CandidateSummary, colours: ChalkInstance): string {
  const text = candidate.ratio.median.toFixed(2)
  if (candidate.met === null) return text
  return candidate.met ? colours.green(text) : colours.red(text)
}

function rangeText({ low, high }: Spread): string {
  return `${low.toFixed(2)} – ${high.toFixed(2)}`
}

function rateText(perSecond: number, operationBytes: number | null): string {
  if (operationBytes === null) return groupedText(perSecond)
  const gigabytes = (perSecond * operationBytes) / 1e9
  return `${groupedText(perSecond)}, ${gigabytes.toFixed(2)} GB/s`
}

function goalText(goal: Goal | null): string {
  if (goal?.atLeast !== undefined) return `≥ ${goal.atLeast}`
  return goal?.atMost !== undefined ? `≤ ${goal.atMost}` : ''
}

function verdictText(met: boolean | null, colours: ChalkInstance): string {
  if (met === null) return ''
  return met ? colours.green('met') : colours.red.bold('missed')
}
