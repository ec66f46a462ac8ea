import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { seededRandom } from '../../bench/random.ts'
import type { Random } from '../../protocol/platform.ts'

const GOLDEN_ROOT = [3718526393, 1411254891, 3643653156, 1671368163]
const GOLDEN_DELAY = [4053936415, 2583914998, 432592463, 4244822294]

const take = (random: Random, count: number) => Array.from({ length: count }, () => random.next32())

describe('a seeded stream', () => {
  test('gives these numbers for seed 1, on every machine and in every version', () => {
    expect(take(seededRandom(1), 4)).toEqual(GOLDEN_ROOT)
    expect(take(seededRandom(1).stream('disk0').stream('delay'), 4)).toEqual(GOLDEN_DELAY)
  })

  test('follows from the seed and the path alone', () => {
    fc.assert(
      fc.property(fc.nat(), fc.string(), fc.nat(20), (seed, path, drawn) => {
        const fresh = take(seededRandom(seed).stream(path), 8)
        const root = seededRandom(seed)
        take(root, drawn)
        take(root.stream(`${path}x`), drawn)
        expect(take(root.stream(path), 8)).toEqual(fresh)
      }),
    )
  })

  test('is another one for another seed, another path, and a longer path', () => {
    const streams = [
      seededRandom(1),
      seededRandom(2),
      seededRandom(12),
      seededRandom(1).stream('a'),
      seededRandom(1).stream('b'),
      seededRandom(1).stream('a').stream('b'),
      seededRandom(1).stream('a').stream('a'),
    ]
    expect(new Set(streams.map((stream) => take(stream, 4).join())).size).toBe(streams.length)
  })

  test('reaches every number below a limit, and each about as often', () => {
    const random = seededRandom('below')
    const counts = new Array<number>(7).fill(0)
    const draws = 70_000
    for (let draw = 0; draw < draws; draw++) {
      const value = random.below(7)
      counts[value] = (counts[value] ?? Number.NaN) + 1
    }
    // Chi-squared with 6 degrees of freedom exceeds 22.5 once in a thousand seeds; this one is fixed.
    const expected = draws / 7
    const chi = counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0)
    expect(chi).toBeLessThan(22.5)
  })

  test('is not biased by a limit that does not divide 2^32', () => {
    const random = seededRandom('bias')
    const limit = 3 * 2 ** 30
    let low = 0
    for (let draw = 0; draw < 30_000; draw++) if (random.below(limit) < 2 ** 30) low += 1
    // One third of the draws; reducing modulo the limit would make it one half.
    expect(low / 30_000).toBeGreaterThan(0.32)
    expect(low / 30_000).toBeLessThan(0.347)
  })

  test('stays below its limit, and takes limits from 1 to 2^32', () => {
    fc.assert(
      fc.property(fc.nat(), fc.integer({ min: 1, max: 2 ** 32 }), (seed, limit) => {
        const value = seededRandom(seed).below(limit)
        expect(Number.isInteger(value) && value >= 0 && value < limit).toBe(true)
      }),
    )
    expect(seededRandom(1).below(1)).toBe(0)
    for (const wrong of [0, -1, 1.5, Number.NaN, 2 ** 32 + 1]) {
      expect(() => seededRandom(1).below(wrong)).toThrow(RangeError)
    }
  })
})
