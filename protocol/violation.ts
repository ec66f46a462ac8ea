import type { Party, RequirementId } from './requirement.ts'
import { REQUIREMENTS } from './requirement.ts'

/**
 * A peer broke a rule. Its values are numbers, so that recording one costs next to nothing; the text is made
 * by `explain` when a person reads it.
 */
export interface Violation {
  readonly rule: RequirementId
  /** Who broke it. */
  readonly side: Party
  readonly queue: number | null
  /**
   * Guest-physical address or register offset of the offending value, for a message its code; null when it has
   * none.
   */
  readonly at: number | null
  readonly seen: number
  /** The limit or value the rule asks for. */
  readonly expected: number
}

/** One line for a person. */
export function explain(violation: Violation): string {
  const { text, ref } = REQUIREMENTS[violation.rule]
  const where = [
    violation.queue === null ? null : `queue ${violation.queue}`,
    violation.at === null ? null : placeOf(violation.rule, violation.at),
  ].filter((part) => part !== null)
  const place = where.length === 0 ? '' : ` (${where.join(', ')})`
  return `${violation.side} broke ${violation.rule}${place}: ${text}; saw ${violation.seen}, limit ${violation.expected} [${ref}]`
}

function placeOf(rule: RequirementId, at: number): string {
  return rule.startsWith('vhost.') ? `message ${at}` : `at 0x${at.toString(16)}`
}

const KEPT_PER_RULE = 16

/** A run keeps a count per rule and its first sixteen: a flood of errors costs no memory. */
export class ViolationLog {
  readonly #byRule = new Map<RequirementId, { count: number; first: Violation[] }>()

  record(violation: Violation): void {
    let entry = this.#byRule.get(violation.rule)
    if (entry === undefined) {
      entry = { count: 0, first: [] }
      this.#byRule.set(violation.rule, entry)
    }
    entry.count++
    if (entry.first.length < KEPT_PER_RULE) entry.first.push(violation)
  }

  get total(): number {
    let total = 0
    for (const { count } of this.#byRule.values()) total += count
    return total
  }

  count(rule: RequirementId): number {
    return this.#byRule.get(rule)?.count ?? 0
  }

  /** Rules broken, in the order first seen. */
  entries(): readonly {
    readonly rule: RequirementId
    readonly count: number
    readonly first: readonly Violation[]
  }[] {
    return [...this.#byRule].map(([rule, { count, first }]) => ({ rule, count, first }))
  }
}
