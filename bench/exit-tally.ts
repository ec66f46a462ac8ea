import type { ExitCounters } from '../hypervisor/exit-counters.ts'
import { exitName } from '../hypervisor/exit-name.ts'
import { ExitReason } from '../hypervisor/vtx/control.ts'

/** Exits for one reason. */
export interface ExitReport {
  /** Basic exit reason (SDM vol. 3, appendix C). */
  readonly reason: number
  readonly name: string
  readonly count: number
}

/** What crossed between guest and hypervisor in a stretch of time. */
export interface Crossings {
  /** Reasons that occurred, by number. */
  readonly exits: readonly ExitReport[]
  readonly exitCount: number
  /** Of them, those that end an interrupt. */
  readonly endsOfInterrupt: number
  readonly halts: number
  /** Events injected at an entry; interrupts delivered without an exit. */
  readonly injections: number
  readonly deliveries: number
}

/** Counts from when it is made. */
export class ExitTally {
  readonly #counters: ExitCounters
  readonly #byReason: Float64Array
  readonly #endsOfInterrupt: number
  readonly #injections: number
  readonly #deliveries: number

  constructor(counters: ExitCounters) {
    this.#counters = counters
    this.#byReason = counters.byReason.slice()
    this.#endsOfInterrupt = counters.endOfInterrupts
    this.#injections = counters.injections
    this.#deliveries = counters.deliveries
  }

  get sinceThen(): Crossings {
    const { byReason, endOfInterrupts, injections, deliveries } = this.#counters
    const exits: ExitReport[] = []
    let exitCount = 0
    for (const [reason, now] of byReason.entries()) {
      const count = now - (this.#byReason[reason] ?? 0)
      if (count > 0) exits.push({ reason, name: exitName(reason), count })
      exitCount += count
    }
    return {
      exits,
      exitCount,
      endsOfInterrupt: endOfInterrupts - this.#endsOfInterrupt,
      halts: exits.find(({ reason }) => reason === ExitReason.HLT)?.count ?? 0,
      injections: injections - this.#injections,
      deliveries: deliveries - this.#deliveries,
    }
  }
}
