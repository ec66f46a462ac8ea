import type { ExitCounters } from './exit-counters.ts'
import { exitName } from './exit-name.ts'

/**
 * What a crossing costs, in cycles: a stated model, never a measurement of this program. The defaults are one
 * row of published numbers; whoever knows his machine better says so.
 */
export interface CostModel {
  readonly name: string
  /** Where the numbers come from. */
  readonly source: string
  /** The hardware's exit and entry. */
  readonly roundTripCycles: number
  /** What a reason costs beyond that, in software. */
  readonly extraCycles?: { readonly [reason: number]: number }
  /** What an access that a device answers costs beyond that: its model may live in another process. */
  readonly deviceCycles: number
  readonly megahertz: number
}

const AGESEN = 'Agesen et al., USENIX ATC 2012 (as recalled; check before quoting)'

/** Hardware round trips by generation, and nothing for software: a floor. */
export const COST_MODELS = {
  penryn: generation('Penryn', 1266),
  nehalem: generation('Nehalem', 1009),
  westmere: generation('Westmere', 761),
  'sandy-bridge': generation('Sandy Bridge', 784),
} as const

export const DEFAULT_COST_MODEL: CostModel = COST_MODELS.nehalem

function generation(name: string, roundTripCycles: number): CostModel {
  return { name, source: AGESEN, roundTripCycles, deviceCycles: 0, megahertz: 3000 }
}

export interface CostLine {
  readonly reason: number
  readonly name: string
  readonly count: number
  readonly cycles: number
}

export interface Cost {
  readonly model: string
  readonly source: string
  readonly lines: readonly CostLine[]
  readonly totalCycles: number
  readonly totalUs: number
}

/** The price of what was counted, as the model has it. `deviceAccesses`: those that a device answered. */
export function costOf(counters: ExitCounters, model: CostModel, deviceAccesses: number): Cost {
  const lines = counters.exits().map(({ reason, count }) => {
    const cycles = count * (model.roundTripCycles + (model.extraCycles?.[reason] ?? 0))
    return { reason, name: exitName(reason), count, cycles }
  })
  const exits = lines.reduce((sum, line) => sum + line.cycles, 0)
  const totalCycles = exits + deviceAccesses * model.deviceCycles
  return {
    model: model.name,
    source: model.source,
    lines,
    totalCycles,
    totalUs: totalCycles / model.megahertz,
  }
}

/** As text, with the word "model" in it. */
export function printCost(cost: Cost): string {
  const rows = cost.lines.map(
    ({ reason, name, count, cycles }) =>
      `${String(count).padStart(10)}  ${String(reason).padStart(3)} ${name.padEnd(24)} ${String(cycles).padStart(14)} cycles`,
  )
  const total = `${String(cost.totalCycles)} cycles, ${cost.totalUs.toFixed(3)} µs`
  return [...rows, `model ${cost.model}, not measured: ${total} (${cost.source})`].join('\n')
}
