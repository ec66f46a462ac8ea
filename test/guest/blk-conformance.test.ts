import { describe, expect, it } from 'vitest'
import { driverCases } from '../conformance/driver-cases.ts'
import { resultLine, runRequirement } from '../conformance/requirement-case.ts'
import { ourBareDriver, ourMiniport } from './blk-driver-subjects.ts'

describe.each([ourBareDriver, ourMiniport])('$name, clause by clause', (subject) => {
  it.each(driverCases.map((one) => ({ one, title: `${one.clause}: ${one.text}` })))(
    '$title',
    async ({ one }) => {
      const result = await runRequirement(one, subject)
      expect(result.verdict.kind, resultLine(result)).toBe('pass')
    },
  )
})
