import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Measurement } from './measure.ts'
import { largeRequestsText } from './peers.ts'
import type { Round } from './summary.ts'
import { meets, spreadOf, summarise } from './summary.ts'

const figure = fc.double({ min: 1, max: 1e9, noNaN: true })
const round: fc.Arbitrary<Round> = fc.record({ first: figure, others: fc.tuple(figure), last: figure })
const rounds = fc.array(round, { minLength: 1, maxLength: 9 })

function measurement(goal: Measurement['goals'][string]): Measurement {
  return {
    name: 'm',
    what: 'this beside that',
    candidates: ['yardstick', 'ours'],
    goals: { ours: goal },
    unit: 'ns',
    run: () => 1,
  }
}

describe('what rounds of a measurement come to', () => {
  it('has a median with as many figures above as below, between the extremes', () => {
    fc.assert(
      fc.property(fc.array(figure, { minLength: 1, maxLength: 20 }), (figures) => {
        const { median, low, high } = spreadOf(figures)
        const below = figures.filter((one) => one < median).length
        const above = figures.filter((one) => one > median).length
        expect(below).toBeLessThanOrEqual(figures.length / 2)
        expect(above).toBeLessThanOrEqual(figures.length / 2)
        expect(low).toBe(Math.min(...figures))
        expect(high).toBe(Math.max(...figures))
      }),
    )
  })

  it('is the same however fast the machine is in each round', () => {
    fc.assert(
      fc.property(rounds, fc.array(fc.integer({ min: -6, max: 6 }), { minLength: 9 }), (all, speeds) => {
        // Powers of two, so that scaling loses nothing.
        const scaled = all.map(({ first, others, last }, i) => {
          const speed = 2 ** (speeds[i] ?? 0)
          return { first: first * speed, others: others.map((one) => one * speed), last: last * speed }
        })
        const ratios = (of: readonly Round[]) => {
          const { candidates, noise } = summarise(measurement({ atMost: 1 }), of, true)
          return [noise, ...candidates.map(({ ratio, met }) => ({ ratio, met }))]
        }
        expect(ratios(scaled)).toEqual(ratios(all))
      }),
    )
  })

  it('compares a candidate with the yardstick before and after it', () => {
    const summary = summarise(measurement({ atMost: 1.5 }), [{ first: 8, others: [15], last: 12 }], true)
    expect(summary.candidates[0]).toMatchObject({ ratio: { median: 1 }, goal: null, met: null })
    expect(summary.candidates[1]).toMatchObject({ figures: [15], ratio: { median: 1.5 }, met: true })
    expect(summary.noise.median).toBe(1.5)
  })

  it('meets a goal up to the goal itself, and never with a figure that is none', () => {
    expect([meets(1.3, { atMost: 1.3 }), meets(1.31, { atMost: 1.3 })]).toEqual([true, false])
    expect([meets(0.7, { atLeast: 0.7 }), meets(0.69, { atLeast: 0.7 })]).toEqual([true, false])
    expect(meets(Number.NaN, { atMost: 1.3 })).toBe(false)
  })

  it('judges nothing in a quick run', () => {
    const summary = summarise(measurement({ atMost: 0.1 }), [{ first: 1, others: [9], last: 1 }], false)
    expect(summary.candidates.map(({ met }) => met)).toEqual([null, null])
  })
})

describe('how large requests stand together', () => {
  const row = (name: string, candidates: readonly string[]) =>
    summarise(
      { ...measurement({ atLeast: 1 }), name, candidates, unit: 'per second', operationBytes: 1 << 18 },
      [{ first: 100, others: candidates.slice(1).map(() => 200), last: 100 }],
      true,
    )

  it('is the mean of their ratios, and nothing of measurements that have none of ours', () => {
    expect(largeRequestsText([row('a', ['yardstick', 'ours']), row('b', ['yardstick', 'ours'])])).toContain(
      'geometric mean 2.00 of 2 rows',
    )
    expect(largeRequestsText([row('a', ['readSync', 'paravane']), row('b', ['readSync', 'paravane'])])).toBe(
      null,
    )
  })
})
