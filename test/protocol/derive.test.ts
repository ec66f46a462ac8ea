import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import * as protocol from '../../protocol/index.ts'
import { structArbitrary } from '../fuzz/arbitrary.ts'
import * as declarations from './declarations.ts'
import { TestGrown, TestList, TestPoint, TestShape, TestWords } from './declarations.ts'

const { BlkRequest, BlkType, DescFlag, invalid, print, table, VirtqDesc } = protocol
const LAYOUTS = [...protocol.layoutsOf(protocol), ...protocol.layoutsOf(declarations)].map(
  (layout) => [layout.$name, layout] as const,
)

describe('print', () => {
  it('says names, bits and where', () => {
    const value = { addr: 0x10000n, len: 4096, flags: 3, next: 2 }
    expect(print(VirtqDesc, value)).toBe('virtq_desc@0x0 addr=0x10000 len=4096 flags=NEXT|WRITE next=2')
    expect(print(VirtqDesc, { ...value, flags: 0 }, 0x1f0)).toBe(
      'virtq_desc@0x1f0 addr=0x10000 len=4096 flags=0 next=2',
    )
  })

  it('says unknown codes and bits as numbers', () => {
    expect(print(VirtqDesc, { flags: 0x8001 })).toBe('virtq_desc@0x0 flags=NEXT|0x8000')
    expect(print(BlkRequest, { type: 1, reserved: 0, sector: 255n })).toBe(
      'virtio_blk_req@0x0 type=OUT sector=0xff',
    )
    expect(print(BlkRequest, { type: 99, reserved: 7, sector: 2n ** 64n - 1n })).toBe(
      'virtio_blk_req@0x0 type=99 reserved=7 sector=0xffffffffffffffff',
    )
  })

  it('says arrays, nested structures and bytes, and counts a long rest', () => {
    const point = { x: 1, y: 2 }
    expect(
      print(TestShape, {
        kind: 2,
        marks: 5,
        gap: new Uint8Array([0, 255]),
        corners: [point, point, point],
        origin: point,
        weights: [1, 2, 3],
        id: 16n,
      }),
    ).toBe(
      'test_shape@0x0 kind=PLANE marks=CLOSED|FILLED gap=00ff corners=[{x=1 y=2},{x=1 y=2},{x=1 y=2}] ' +
        'origin={x=1 y=2} weights=[1,2,3] id=0x10',
    )
    expect(print(TestWords, { words: new Array(18).fill(0n) })).toBe(
      `test_words@0x0 words=[${new Array(16).fill('0').join(',')},…+2]`,
    )
  })

  it.each(LAYOUTS)('makes one line of any %s', (name, layout) => {
    fc.assert(
      fc.property(structArbitrary(layout), (value) => {
        const line = print(layout, value, 64)
        expect(line.startsWith(`${name}@0x40`)).toBe(true)
        expect(line).not.toMatch(/\n|undefined|object/)
      }),
      { numRuns: 50 },
    )
  })
})

describe('invalid', () => {
  it('is the broken condition', () => {
    expect(invalid(BlkRequest, { type: 0, reserved: 1 })).toBe('virtio_blk_req.reserved != 0')
    expect(invalid(BlkRequest, { type: 2 })).toBe(
      `virtio_blk_req.type is not one of ${Object.keys(BlkType).join(', ')}`,
    )
    expect(invalid(VirtqDesc, { flags: 8 })).toBe(
      'virtq_desc.flags has bits other than NEXT, WRITE, INDIRECT',
    )
    expect(invalid(VirtqDesc, { flags: 7 })).toBeNull()
  })

  it('finds the element and the nested field', () => {
    const shape = { kind: 1, marks: 0, gap: new Uint8Array(2) } as const
    const whole = protocol.decode(TestShape, protocol.encode(TestShape, shape))
    if (!whole.ok) throw new Error(whole.broken)
    const bad = { ...whole.value, gap: new Uint8Array([0, 1]) }
    expect(invalid(TestList, { count: 2n, shapes: [whole.value, bad] })).toBe('test_list.shapes[1].gap != 0')
    expect(invalid(TestWords, { words: [0n, 2n ** 31n, 1n] })).toBe(
      'test_words.words[2] has bits other than TOP',
    )
  })

  it.each(LAYOUTS)('accepts every well-formed %s', (_name, layout) => {
    fc.assert(
      fc.property(structArbitrary(layout, { wellFormed: true }), (value) => {
        expect(invalid(layout, value)).toBeNull()
      }),
      { numRuns: 100 },
    )
  })
})

describe('structArbitrary', () => {
  it('leaves the vocabulary in a tenth of codes and a twentieth of reserved fields', () => {
    const values = fc.sample(structArbitrary(BlkRequest), { numRuns: 4000, seed: 1 })
    const codes: readonly number[] = Object.values(BlkType)
    const unknown = values.filter(({ type }) => !codes.includes(type)).length
    const reserved = values.filter((value) => value.reserved !== 0).length
    expect(unknown / values.length).toBeGreaterThan(0.08)
    expect(unknown / values.length).toBeLessThan(0.12)
    expect(reserved / values.length).toBeGreaterThan(0.035)
    expect(reserved / values.length).toBeLessThan(0.065)
    expect(new Set(values.map(({ type }) => type).filter((type) => codes.includes(type))).size).toBe(
      codes.length,
    )
  })

  it('reaches every combination of bits and both ends of a width', () => {
    const values = fc.sample(structArbitrary(VirtqDesc), { numRuns: 2000, seed: 1 })
    const known = DescFlag.NEXT | DescFlag.WRITE | DescFlag.INDIRECT
    expect(new Set(values.map(({ flags }) => flags).filter((flags) => flags <= known)).size).toBe(8)
    expect(values.some(({ len }) => len >= 2 ** 31)).toBe(true)
    expect(values.some(({ addr }) => addr >= 2n ** 63n)).toBe(true)
  })
})

describe('table', () => {
  it('says place, width, name, condition and meaning', () => {
    const text = table(TestGrown)
    expect(text).toContain('### test_grown\n\nnone. 24 bytes. By version: 1.0: 4, 2.0: 8, 2.1: 8, 3.0: 24.')
    expect(text).toContain('| 0x6 | le16 | `third` | since 2.0 | later |')
    expect(table(TestShape)).toContain('| 0x4 | `test_point`[3] | `corners` |  | corner points |')
    expect(table(TestShape)).toContain('| 0x1 | u8 | `marks` |  | how; bits: CLOSED 0x1, FILLED 0x4 |')
    expect(table(TestList)).toContain('8 bytes and a tail')
    expect(table(declarations.TestPacked)).toContain('26 bytes, packed')
    expect(table(protocol.Mmio)).toContain('| 0xc0 | le32 | `QueueReset` | RW, with RING_RESET |')
  })

  it('keeps a bar in a meaning from ending the cell', () => {
    const barred = protocol.struct('barred', 'none', 1, { a: protocol.u8('this | that') })
    expect(table(barred)).toContain('this \\| that')
  })
})

describe('layoutsOf', () => {
  it('finds structures in tables, lists and other structures, once each', () => {
    const inner = { list: [TestShape], map: { again: TestShape } }
    expect(protocol.layoutsOf({ inner }).map(({ $name }) => $name)).toEqual(['test_point', 'test_shape'])
  })

  it('refuses two structures of one name', () => {
    const other = protocol.struct('test_point', 'none', 1, { x: protocol.u8('x') })
    expect(() => protocol.layoutsOf({ TestPoint, other })).toThrow('two structures are called test_point')
  })
})

describe('wire', () => {
  it('lists every structure, feature and requirement', () => {
    const text = protocol.wire(protocol, protocol.REQUIREMENTS)
    for (const { $name } of protocol.layoutsOf(protocol)) expect(text).toContain(`\n### ${$name}\n`)
    for (const id of Object.keys(protocol.REQUIREMENTS)) expect(text).toContain(`\n| \`${id}\` |`)
    for (const name of Object.keys(protocol.BlkFeature)) expect(text).toContain(`| \`${name}\` |`)
  })
})
