import type { RequirementId } from '../../protocol/requirement.ts'

/** Features the suites ask for, by their bits, VIRTIO 1.2 sections 5.2.3 and 6. */
export const FEATURE_BITS = {
  SEG_MAX: 2,
  RO: 5,
  BLK_SIZE: 6,
  FLUSH: 9,
  CONFIG_WCE: 11,
  DISCARD: 13,
  WRITE_ZEROES: 14,
  ZONED: 17,
  INDIRECT_DESC: 28,
  EVENT_IDX: 29,
  VERSION_1: 32,
  RING_RESET: 40,
} as const

export type FeatureName = keyof typeof FEATURE_BITS
/** A feature that has to be negotiated for a clause to bind, or, with `!`, that must not be. */
export type Gate = FeatureName | `!${FeatureName}`

/** One normative clause of the specification, and how it is put to the test. */
export interface Requirement {
  /** Names the clause: party, place, number in that place. Stable; a section number is not. */
  readonly clause: string
  readonly section: string
  readonly party: 'driver' | 'device'
  readonly level: 'must' | 'should'
  /** The clause in our words. */
  readonly text: string
  /** Empty: it binds whatever is negotiated. */
  readonly gate: readonly Gate[]
  /** What the literal opposite does, and what it looks at. */
  readonly observed: string
  /** The rule of `protocol/` by which this party's opposite reports the same thing at run time. */
  readonly rule?: RequirementId
  /** Implementations known to break it, by what their subject says it is, each with where that is written. */
  readonly deviations?: { readonly [implementation: string]: string }
}

export interface RequirementCase<Subject> extends Requirement {
  /** Never throws: what is thrown inside is a verdict. */
  run(subject: Subject): Promise<Verdict>
}

export type Verdict =
  | { readonly kind: 'pass' }
  /** `seen` says what was seen and what should have been. */
  | { readonly kind: 'fail'; readonly seen: string }
  | { readonly kind: 'inapplicable'; readonly because: string }
  /** Nothing can be said: the subject threw, or could not be had. */
  | { readonly kind: 'error'; readonly error: unknown }

/** Thrown by a case that saw the clause broken. */
export class Broken extends Error {}

/** Thrown by a case that finds it does not apply to this subject. */
export class Inapplicable extends Error {}

/** @throws Broken unless `held`. */
export function hold(held: boolean, seen: string): asserts held {
  if (!held) throw new Broken(seen)
}

/** @throws Broken unless the two are the same. */
export function holdSame(seen: number | string, expected: number | string, what: string): void {
  if (seen !== expected) throw new Broken(`${what}: saw ${seen}, expected ${expected}`)
}

/** What became of `body`. */
export async function verdictOf(body: () => Promise<void>): Promise<Verdict> {
  try {
    await body()
    return { kind: 'pass' }
  } catch (error) {
    if (error instanceof Broken) return { kind: 'fail', seen: error.message }
    if (error instanceof Inapplicable) return { kind: 'inapplicable', because: error.message }
    return { kind: 'error', error }
  }
}

/** A case's result over one subject, with what was known before. */
export interface RequirementResult {
  readonly requirement: Requirement
  readonly verdict: Verdict
  /** Where the deviation of this implementation is written down; null when none is known. */
  readonly known: string | null
  /** Nothing to look into: passed, did not apply, or failed as is known. A known deviation that passes is not. */
  readonly expected: boolean
}

/**
 * Runs cases over one subject, one after the other.
 *
 * @param implementation the key into `deviations`, for an implementation whose deviations are known.
 */
export async function runRequirements<Subject>(
  cases: readonly RequirementCase<Subject>[],
  subject: Subject,
  implementation?: string,
): Promise<RequirementResult[]> {
  const results: RequirementResult[] = []
  for (const one of cases) results.push(await runRequirement(one, subject, implementation))
  return results
}

export async function runRequirement<Subject>(
  one: RequirementCase<Subject>,
  subject: Subject,
  implementation?: string,
): Promise<RequirementResult> {
  const verdict = await one.run(subject)
  const known = implementation === undefined ? null : (one.deviations?.[implementation] ?? null)
  const expected =
    known === null ? verdict.kind === 'pass' || verdict.kind === 'inapplicable' : verdict.kind === 'fail'
  return { requirement: one, verdict, known, expected }
}

/** One line for a person. */
export function resultLine({ requirement, verdict, known, expected }: RequirementResult): string {
  const { clause, level, text, section } = requirement
  const seen = {
    pass: () => '',
    fail: () => `: ${(verdict as { seen: string }).seen}`,
    inapplicable: () => `: ${(verdict as { because: string }).because}`,
    error: () => `: ${String((verdict as { error: unknown }).error)}`,
  }[verdict.kind]()
  const mark = known === null ? '' : expected ? `, as is known (${known})` : `, against ${known}`
  return `${verdict.kind}${mark} ${clause} (${level}, ${section}): ${text}${seen}`
}

/** The clauses and what is asked of each, as a table of Markdown. */
export function coverageTable(requirements: readonly Requirement[]): string {
  const rows = requirements.map(({ clause, level, gate, text, observed }) => {
    const binds = gate.length === 0 ? 'always' : gate.join(', ')
    return `| \`${clause}\` | ${level} | ${binds} | ${text} | ${observed} |`
  })
  return [
    '| clause | level | binds with | what it asks | how it is seen |',
    '|---|---|---|---|---|',
    ...rows,
  ].join('\n')
}
