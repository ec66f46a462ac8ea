import { describe, expect, it } from 'vitest'
import { driverCases } from '../conformance/driver-cases.ts'
import { resultLine, runRequirement } from '../conformance/requirement-case.ts'
import { ourBareDriver, ourMiniport } from './blk-driver-subjects.ts'

/** Clauses that do not bind: nobody asks the bare driver for what the clause is about. */
const UNBOUND: { readonly [subject: string]: readonly string[] } = {
  [ourBareDriver.name]: ['blk.driver.operation.2', 'blk.driver.operation.8'],
}

describe.each([ourBareDriver, ourMiniport])('$name, clause by clause', (subject) => {
  it.each(driverCases.map((one) => ({ one, title: `${one.clause}: ${one.text}` })))(
    '$title',
    async ({ one }) => {
      const result = await runRequirement(one, subject)
      const unbound = UNBOUND[subject.name]?.includes(one.clause) === true
      expect(result.verdict.kind, resultLine(result)).toBe(unbound ? 'inapplicable' : 'pass')
    },
  )
})
