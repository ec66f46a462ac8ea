import type { Plain } from '../protocol/platform.ts'

/** Basic exit reasons are below this. */
const REASONS = 128

/** What crossing between guest and hypervisor has happened how often. */
export class ExitCounters {
  /** By basic exit reason. */
  readonly byReason: Float64Array<ArrayBuffer>
  /** Events injected through the entry interruption field, and those injected again after an exit in between. */
  injections: number
  injectionsAgain: number
  /** Virtual interrupts, delivered without an exit. */
  deliveries: number
  /** Returns from HLT. */
  wakeups: number
  /** Exits that end an interrupt, by whatever reason the processor's profile gives them. */
  endOfInterrupts: number

  constructor() {
    this.byReason = new Float64Array(REASONS)
    this.injections = 0
    this.injectionsAgain = 0
    this.deliveries = 0
    this.wakeups = 0
    this.endOfInterrupts = 0
  }

  of(reason: number): number {
    return this.byReason[reason] ?? 0
  }

  get total(): number {
    return this.byReason.reduce((sum, count) => sum + count, 0)
  }

  /** The reasons that occurred. */
  exits(): readonly { readonly reason: number; readonly count: number }[] {
    return [...this.byReason.entries()]
      .filter(([, count]) => count > 0)
      .map(([reason, count]) => ({ reason, count }))
  }

  save(): Plain {
    const { injections, injectionsAgain, deliveries, wakeups, endOfInterrupts } = this
    const byReason = [...this.byReason]
    return { byReason, injections, injectionsAgain, deliveries, wakeups, endOfInterrupts }
  }

  load(saved: Plain): string | null {
    if (typeof saved !== 'object' || saved === null) return 'counters are not an object'
    const fields = saved as Record<string, Plain | undefined>
    const { byReason, injections, injectionsAgain, deliveries, wakeups, endOfInterrupts } = fields
    if (!Array.isArray(byReason) || byReason.length !== REASONS || !byReason.every(isCount)) {
      return 'counters: exits are no counts by reason'
    }
    if (!isCount(injections) || !isCount(injectionsAgain)) return 'counters: injections are no counts'
    if (!isCount(deliveries) || !isCount(wakeups)) return 'counters: deliveries and wakeups are no counts'
    if (!isCount(endOfInterrupts)) return 'counters: ends of interrupts are no count'
    this.byReason.set(byReason as number[])
    this.injections = injections
    this.injectionsAgain = injectionsAgain
    this.deliveries = deliveries
    this.wakeups = wakeups
    this.endOfInterrupts = endOfInterrupts
    return null
  }
}

function isCount(value: Plain | undefined): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}
