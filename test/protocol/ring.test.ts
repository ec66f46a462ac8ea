import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  availEventBase,
  availRingBytes,
  descTableBytes,
  isQueueSize,
  needEvent,
  usedEventBase,
  usedRingBytes,
} from '../../protocol/virtio/ring.ts'

const EDGES = [0, 1, 2, 255, 256, 0x7ffe, 0x7fff, 0x8000, 0x8001, 0xfffd, 0xfffe, 0xffff]

/** The specification's own expression in 16-bit arithmetic. */
function needEventExactly(event: number, now: number, before: number): boolean {
  const wrap = (value: bigint) => BigInt.asUintN(16, value)
  return wrap(BigInt(now) - BigInt(event) - 1n) < wrap(BigInt(now) - BigInt(before))
}

describe('needEvent', () => {
  it('is the 16-bit comparison of the specification for every boundary value', () => {
    for (const event of EDGES) {
      for (const now of EDGES) {
        for (const before of EDGES) {
          expect([event, now, before, needEvent(event, now, before)]).toEqual([
            event,
            now,
            before,
            needEventExactly(event, now, before),
          ])
        }
      }
    }
  })

  it('is the 16-bit comparison of the specification for any values', () => {
    const index = fc.nat(0xffff)
    fc.assert(
      fc.property(index, index, index, (event, now, before) => {
        expect(needEvent(event, now, before)).toBe(needEventExactly(event, now, before))
      }),
      { numRuns: 2000 },
    )
  })

  it('is true exactly when one of the entries just published is the one asked for', () => {
    const index = fc.oneof(fc.constantFrom(...EDGES), fc.nat(0xffff))
    fc.assert(
      fc.property(index, fc.nat(300), fc.integer({ min: -3, max: 303 }), (before, count, ahead) => {
        const event = (before + ahead) & 0xffff
        const published = Array.from({ length: count }, (_, entry) => (before + entry) % 65536)
        expect(needEvent(event, (before + count) % 65536, before)).toBe(published.includes(event))
      }),
      { numRuns: 1000 },
    )
  })
})

describe('split ring areas', () => {
  it.each([1, 2, 256, 32768])('have the specification’s sizes for %i entries', (size) => {
    expect(descTableBytes(size)).toBe(16 * size)
    expect(availRingBytes(size)).toBe(6 + 2 * size)
    expect(usedRingBytes(size)).toBe(6 + 8 * size)
    expect(usedEventBase(size)).toBe(availRingBytes(size) - 2)
    expect(availEventBase(size)).toBe(usedRingBytes(size) - 2)
  })

  it('are of a power of two up to 32768', () => {
    for (let power = 1; power <= 32768; power *= 2) expect(isQueueSize(power)).toBe(true)
    for (const size of [0, 3, 6, 32767, 32769, 65536, 2 ** 32, -1, 1.5, Number.NaN]) {
      expect(isQueueSize(size)).toBe(false)
    }
  })
})
