import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { PartOf } from '../../protocol/derive/value.ts'
import * as protocol from '../../protocol/index.ts'
import type { AnyLayout } from '../../protocol/layout.ts'
import { structArbitrary } from '../fuzz/arbitrary.ts'
import * as declarations from './declarations.ts'
import { TestGrown, TestList, TestMap, TestPacked, TestPoint, TestShape, TestWords } from './declarations.ts'

const { decode, encode } = protocol
const LAYOUTS = [...protocol.layoutsOf(protocol), ...protocol.layoutsOf(declarations)]
const CASES = LAYOUTS.flatMap((layout): [string, AnyLayout, string | undefined][] => [
  [layout.$name, layout, undefined],
  ...Object.keys(layout.$sizes ?? {}).map((version): [string, AnyLayout, string] => [
    `${layout.$name} ${version}`,
    layout,
    version,
  ]),
])

function options(version: string | undefined, tailCount?: number) {
  return { ...(version === undefined ? {} : { version }), ...(tailCount === undefined ? {} : { tailCount }) }
}

function tailBytes(layout: AnyLayout): number {
  const last = layout.$fields.at(-1)
  return last?.spec.kind === 'tail' ? protocol.elementBytes(last.spec.element) : 0
}

describe('the codec', () => {
  it('is tried on every structure of the protocol', () => {
    expect(LAYOUTS.length).toBeGreaterThan(10)
    expect(LAYOUTS).toContain(protocol.BlkConfig)
    expect(LAYOUTS).toContain(protocol.VirtqUsed)
  })

  it.each(CASES)('gives back the value of %s', (_name, layout, version) => {
    fc.assert(
      fc.property(structArbitrary(layout, options(version)), (value) => {
        const wire = encode(layout, value, version)
        expect(decode(layout, wire, options(version))).toEqual({ ok: true, value })
      }),
      { numRuns: 200 },
    )
  })

  it.each(CASES)('gives back the bytes of %s', (_name, layout, version) => {
    const size = protocol.sizeOf(layout, version)
    const element = tailBytes(layout)
    const covered = new Set(
      protocol
        .fieldsOf(layout, version)
        .flatMap(({ offset, lengthBytes }) => Array.from({ length: lengthBytes }, (_, at) => offset + at)),
    )
    const arbitrary = fc
      .nat({ max: element === 0 ? 0 : 4 })
      .chain((count) =>
        fc.uint8Array({ minLength: size + count * element, maxLength: size + count * element }),
      )
    fc.assert(
      fc.property(arbitrary, (wire) => {
        const decoded = decode(layout, wire, options(version))
        if (!decoded.ok) throw new Error(decoded.broken)
        const expected = wire.map((byte, at) => (at < size && !covered.has(at) ? 0 : byte))
        expect(encode(layout, decoded.value as PartOf<AnyLayout>, version)).toEqual(new Uint8Array(expected))
      }),
      { numRuns: 100 },
    )
  })

  it.each(CASES)('answers input that is too short for %s with the condition', (_name, layout, version) => {
    const size = protocol.sizeOf(layout, version)
    for (let length = 0; length < size; length++) {
      expect(decode(layout, new Uint8Array(length), options(version))).toEqual({
        ok: false,
        broken: `${layout.$name}: ${length} bytes < ${size}`,
      })
    }
    expect(decode(layout, new Uint8Array(size), options(version)).ok).toBe(true)
  })
})

describe('decode', () => {
  it('reads each width in its byte order', () => {
    const wire = Uint8Array.from({ length: 40 }, (_, at) => at + 1)
    expect(decode(TestShape, wire)).toEqual({
      ok: true,
      value: {
        kind: 1,
        marks: 2,
        gap: new Uint8Array([3, 4]),
        corners: [
          { x: 0x0605, y: 0x0708 },
          { x: 0x0a09, y: 0x0b0c },
          { x: 0x0e0d, y: 0x0f10 },
        ],
        origin: { x: 0x1211, y: 0x1314 },
        weights: [0x15161718, 0x191a1b1c, 0x1d1e1f20],
        id: 0x2122232425262728n,
      },
    })
  })

  it('reads packed fields where they lie', () => {
    const wire = Uint8Array.from({ length: 26 }, (_, at) => at)
    expect(decode(TestPacked, wire)).toEqual({
      ok: true,
      value: {
        tag: 0,
        wide: 0x0807060504030201n,
        middle: 0x090a0b0c,
        short: 0x0e0d,
        where: { x: 0x100f, y: 0x1112 },
        list: [0x1413, 0x1615, 0x1817],
        end: 25,
      },
    })
  })

  it('reads registers at their own places', () => {
    const wire = Uint8Array.from({ length: 32 }, (_, at) => at)
    expect(decode(TestMap, wire)).toEqual({
      ok: true,
      value: { low: 0x07060504, high: 0x13121110, last: 0x1f1e1d1c },
    })
  })

  it('keeps 64 bits whole', () => {
    const all = new Uint8Array(8).fill(0xff)
    expect(decode(TestWords, all)).toEqual({ ok: true, value: { stamp: 2n ** 64n - 1n, words: [] } })
  })

  it('leaves out what a version does not have', () => {
    const value = { first: 1, second: 2, third: 3 }
    expect(decode(TestGrown, encode(TestGrown, value), { version: '2.0' })).toEqual({ ok: true, value })
    expect(decode(TestGrown, encode(TestGrown, value), { version: '1.0' })).toEqual({
      ok: true,
      value: { first: 1 },
    })
    expect(encode(TestGrown, { ...value, fourth: 9n }, '2.1')).toHaveLength(8)
  })

  it('refuses a version the structure never had, which is our mistake', () => {
    expect(() => decode(TestGrown, new Uint8Array(99), { version: '4.0' })).toThrow(RangeError)
    expect(() => encode(TestGrown, {}, '0.9')).toThrow(RangeError)
  })

  it('reads the tail it is asked for, or every whole element', () => {
    const wire = new Uint8Array(8 + 40 * 2 + 39)
    const counts = (count?: number) => {
      const decoded = decode(TestList, wire, options(undefined, count))
      return decoded.ok ? decoded.value.shapes?.length : decoded.broken
    }
    expect(counts()).toBe(2)
    expect(counts(0)).toBe(0)
    expect(counts(2)).toBe(2)
    expect(counts(3)).toBe('test_list.shapes: 2 elements < 3')
    expect(counts(Number.NaN)).toBe('test_list.shapes: 2 elements < NaN')
  })

  it('does not alias the bytes it read', () => {
    const wire = new Uint8Array(24)
    const decoded = decode(TestGrown, wire)
    wire.fill(1)
    expect(decoded.ok && decoded.value.fifth).toEqual(new Uint8Array(8))
  })

  it('reads from the middle of a buffer', () => {
    const wire = new Uint8Array([9, 9, 9, 1, 0, 0, 2, 9]).subarray(3, 7)
    expect(decode(TestPoint, wire)).toEqual({ ok: true, value: { x: 1, y: 2 } })
    const grown = Uint8Array.from({ length: 30 }, (_, at) => at).subarray(5)
    expect(decode(TestGrown, grown)).toMatchObject({ value: { fifth: grown.subarray(16, 24) } })
  })
})

describe('encode', () => {
  it('takes a field that is left out as zero', () => {
    expect(encode(TestShape, {})).toEqual(new Uint8Array(40))
    expect(encode(protocol.BlkRequest, { type: 1 })).toEqual(new Uint8Array([1, ...new Array(15).fill(0)]))
  })

  it.each([
    ['a number too large', () => encode(TestPoint, { x: 65536 })],
    ['a negative number', () => encode(TestPoint, { x: -1 })],
    ['a fraction', () => encode(TestPoint, { x: 0.5 })],
    ['NaN', () => encode(TestPoint, { y: Number.NaN })],
    ['a bigint too large', () => encode(TestWords, { stamp: 2n ** 64n })],
    ['too few bytes', () => encode(TestGrown, { fifth: new Uint8Array(7) })],
    ['too many elements', () => encode(TestShape, { weights: [1, 2, 3, 4] })],
    ['an element too large', () => encode(TestShape, { weights: [1, 2, 2 ** 32] })],
  ])('refuses %s', (_what, attempt) => {
    expect(attempt).toThrow(RangeError)
  })
})
