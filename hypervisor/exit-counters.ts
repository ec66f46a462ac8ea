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

  constructor() {
    this.byReason = new Float64Array(REASONS)
    this.injections = 0
    this.injectionsAgain = 0
    this.deliveries = 0
    this.wakeups = 0
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
    const { injections, injectionsAgain, deliveries, wakeups } = this
    return { byReason: [...this.byReason], injections, injectionsAgain, deliveries, wakeups }
  }

  load(saved: Plain): string | null {
    if (typeof saved !== 'object' || saved === null) return 'counters are not an object'
    const fields = saved as Record<string, Plain | undefined>
    const { byReason, injections, injectionsAgain, deliveries, wakeups } = fields
    if (!Array.isArray(byReason) || byReason.length !== REASONS || !byReason.every(isCount)) {
      return 'counters: exits are no counts by reason'
    }
    if (!isCount(injections) || !isCount(injectionsAgain)) return 'counters: injections are no counts'
    if (!isCount(deliveries) || !isCount(wakeups)) return 'counters: deliveries and wakeups are no counts'
    this.byReason.set(byReason as number[])
    this.injections = injections
    this.injectionsAgain = injectionsAgain
    this.deliveries = deliveries
    this.wakeups = wakeups
    return null
  }
}

function isCount(value: Plain | undefined): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}
