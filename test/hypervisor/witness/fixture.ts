/** The recorded answers of Bochs 2.7, so that a comparison needs no Bochs. `record.ts` writes them. */
import { readFileSync } from 'node:fs'
import type { CaseOutcomes, WitnessRun } from './bochs.ts'

export const FIXTURE = new URL('./fixtures/bochs-2.7.json', import.meta.url)

interface Recorded {
  readonly processor: string
  readonly capabilities: Readonly<Record<string, string>>
  readonly cases: readonly CaseOutcomes[]
}

export function recordedRun(): WitnessRun {
  const recorded = JSON.parse(readFileSync(FIXTURE, 'utf8')) as Recorded
  const capabilities = Object.entries(recorded.capabilities).map(([msr, value]) => [
    Number(msr),
    BigInt(value),
  ])
  return { capabilities: Object.fromEntries(capabilities), cases: recorded.cases }
}

/** One case a line, so that a change of one answer is a change of one line. */
export function fixtureText(run: WitnessRun): string {
  const capabilities = Object.entries(run.capabilities).map(
    ([msr, value]) => `    "0x${Number(msr).toString(16)}": "0x${value.toString(16)}"`,
  )
  const cases = run.cases.map((one) => `    ${JSON.stringify(one)}`)
  return `{
  "processor": "Bochs 2.7, corei7_haswell_4770",
  "capabilities": {
${capabilities.join(',\n')}
  },
  "cases": [
${cases.join(',\n')}
  ]
}
`
}
