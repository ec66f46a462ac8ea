import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ProblemList } from '../../bench/problem.ts'

const KEPT = 16

describe('the problems of a disk', () => {
  it('are all counted and the first sixteen kept, behind those that explain them', () => {
    fc.assert(
      fc.property(fc.array(fc.boolean(), { maxLength: 40, size: 'max' }), (steps) => {
        const problems = new ProblemList('disk0')
        let model: string[] = []
        for (const [index, explains] of steps.entries()) {
          const text = `problem ${index}`
          if (explains) {
            problems.addFirst('daemon', text)
            model = [text, ...model].slice(0, KEPT)
          } else {
            problems.add('daemon', null, text)
            if (model.length < KEPT) model.push(text)
          }
        }
        expect(problems.total).toBe(steps.length)
        expect(problems.first.map((one) => one.text)).toEqual(model)
      }),
    )
  })
})
