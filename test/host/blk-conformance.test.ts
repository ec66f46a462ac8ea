import { describe, expect, it } from 'vitest'
import { deviceCases } from '../conformance/device-cases.ts'
import { resultLine, runRequirement } from '../conformance/requirement-case.ts'
import { ourDevice } from './blk-device-subject.ts'

describe('our block device, clause by clause', () => {
  it.each(deviceCases.map((one) => ({ one, title: `${one.clause}: ${one.text}` })))(
    '$title',
    async ({ one }) => {
      const result = await runRequirement(one, ourDevice)
      expect(result.verdict.kind, resultLine(result)).toBe('pass')
    },
  )
})
