import { describe, expect, it } from 'vitest'
import { deviceCases } from '../conformance/device-cases.ts'
import { resultLine, runRequirement } from '../conformance/requirement-case.ts'
import { ourDevice } from './blk-device-subject.ts'

/** Clauses that cannot bind our device; everything else has to pass. */
const UNBOUND: readonly string[] = []

describe('our block device, clause by clause', () => {
  it.each(deviceCases.map((one) => ({ one, title: `${one.clause}: ${one.text}` })))(
    '$title',
    async ({ one }) => {
      const result = await runRequirement(one, ourDevice)
      const expected = UNBOUND.includes(one.clause) ? 'inapplicable' : 'pass'
      expect(result.verdict.kind, resultLine(result)).toBe(expected)
    },
  )
})
