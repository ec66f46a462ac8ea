import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { ContentModel } from '../../bench/content-model.ts'
import { OperationSource } from '../../bench/operation.ts'
import { seededRandom } from '../../bench/random.ts'

const BLOCK = 4
const BLOCKS = 16
const UNKNOWN = -1

const step = fc.record({
  kind: fc.constantFrom('wrote', 'zeroed', 'forgot', 'apply'),
  block: fc.nat(BLOCKS - 1),
  count: fc.integer({ min: 1, max: 5 }),
  byte: fc.integer({ min: 1, max: 255 }),
})

describe('the content model', () => {
  test('says of every byte what an array of all blocks would', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const model = new ContentModel(BLOCK)
        const blocks = new Array<number | null>(BLOCKS).fill(null)
        for (const { kind, block, count: wanted, byte } of steps) {
          const count = Math.min(wanted, BLOCKS - block)
          if (kind === 'apply') {
            const expected = new Uint8Array(count * BLOCK).fill(250)
            const seen = new Uint8Array(count * BLOCK).fill(251)
            const held = blocks.slice(block, block + count)
            expect(model.covers(block, count)).toBe(held.every((value) => value !== null))
            const known = held.filter((value) => value !== UNKNOWN).length
            expect(model.apply(block, expected, seen)).toBe(known * BLOCK)
            const wantedBytes = held.map((value) => (value === UNKNOWN ? 251 : (value ?? 250)))
            expect([...expected]).toEqual(wantedBytes.flatMap((value) => Array(BLOCK).fill(value)))
            continue
          }
          if (kind === 'wrote') {
            const bytes = new Uint8Array(count * BLOCK).fill(byte)
            model.wrote(block, bytes)
            bytes.fill(0)
          } else model[kind](block, count)
          blocks.fill(kind === 'wrote' ? byte : kind === 'zeroed' ? 0 : UNKNOWN, block, block + count)
        }
        expect(model.touched).toEqual([...blocks.keys()].filter((block) => blocks[block] !== null))
      }),
    )
  })
})

const limits = fc.record({
  blocks: fc.oneof(fc.integer({ min: 1, max: 70 }), fc.integer({ min: 1, max: 2 ** 35 })),
  readOnly: fc.boolean(),
  trims: fc.boolean(),
  transferBlocksMax: fc.integer({ min: 1, max: 256 }),
})

describe('the source of operations', () => {
  test('asks for nothing past the end, over a limit, or not offered', () => {
    fc.assert(
      fc.property(limits, fc.nat(), (drive, seed) => {
        const source = new OperationSource(seededRandom(seed), drive)
        for (let i = 0; i < 200; i++) {
          const { kind, block, count } = source.next()
          expect(block >= 0 && block + count <= drive.blocks).toBe(true)
          expect(count > 0).toBe(kind !== 'flush')
          if (kind !== 'trim') expect(count).toBeLessThanOrEqual(drive.transferBlocksMax)
          if (kind === 'trim') expect(drive.trims).toBe(true)
          if (drive.readOnly) expect(['read', 'flush']).toContain(kind)
        }
      }),
    )
  })

  test('reaches every kind that is offered, the first block and the last', () => {
    const drive = { blocks: 40, readOnly: false, trims: true, transferBlocksMax: 64 }
    const source = new OperationSource(seededRandom(1), drive)
    const drawn = Array.from({ length: 2000 }, () => source.next())
    const kinds = [...new Set(drawn.map(({ kind }) => kind))].sort()
    expect(kinds).toEqual(['flush', 'read', 'trim', 'write', 'write-through'])
    expect(drawn.some(({ kind, block }) => kind === 'write' && block === 0)).toBe(true)
    expect(drawn.some(({ kind, block, count }) => kind === 'write' && block + count === 40)).toBe(true)
  })
})
