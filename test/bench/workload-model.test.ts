import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { ContentModel } from '../../bench/content-model.ts'
import { OperationSource } from '../../bench/operation.ts'
import { seededRandom } from '../../bench/random.ts'
import type { BlkGeometry } from '../../guest/virtio/blk-geometry.ts'
import { featureSet } from '../../protocol/version.ts'
import { BlkFeature, BlkType } from '../../protocol/virtio/blk.ts'

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

const geometry = fc
  .record({
    blocks: fc.oneof(fc.integer({ min: 1, max: 70 }), fc.integer({ min: 1, max: 2 ** 35 })),
    blockBytes: fc.constantFrom(512, 4096, 65_536),
    rangeSectors: fc.constantFrom(0, 8, 0x40_0000),
  })
  .map(({ blocks, blockBytes, rangeSectors }): BlkGeometry => {
    const own = rangeSectors === 0 ? 0 : Math.max(rangeSectors, blockBytes / 512)
    return {
      capacitySectors: blocks * (blockBytes / 512),
      blockBytes,
      segmentsMax: 254,
      physicalExponent: 0,
      discardSectorsMax: own,
      discardSegmentsMax: 1,
      zeroSectorsMax: 0,
      zeroSegmentsMax: 0,
      eraseSectorsMax: own,
      eraseSegmentsMax: 1,
    }
  })

describe('the source of operations', () => {
  test('asks for nothing past the end, over a limit, or not offered', () => {
    fc.assert(
      fc.property(geometry, fc.nat(), fc.boolean(), fc.boolean(), (disk, seed, readOnly, flush) => {
        const bits = [readOnly ? [BlkFeature.RO.bit] : [], flush ? [BlkFeature.FLUSH.bit] : []].flat()
        const source = new OperationSource(seededRandom(seed), featureSet(bits), disk, 65_536)
        const blockSectors = disk.blockBytes / 512
        for (let i = 0; i < 200; i++) {
          const { type, block, count } = source.next()
          const sectors = count * blockSectors
          expect(block * blockSectors + sectors).toBeLessThanOrEqual(disk.capacitySectors)
          if (type === BlkType.FLUSH) expect([flush, count]).toEqual([true, 0])
          else expect(count).toBeGreaterThan(0)
          if (type === BlkType.IN || type === BlkType.OUT) expect(sectors * 512).toBeLessThanOrEqual(65_536)
          if (readOnly) expect([BlkType.IN, BlkType.FLUSH]).toContain(type)
          if (type === BlkType.DISCARD) expect(sectors).toBeLessThanOrEqual(disk.discardSectorsMax)
          if (type === BlkType.SECURE_ERASE) expect(sectors).toBeLessThanOrEqual(disk.eraseSectorsMax)
          expect(type).not.toBe(BlkType.WRITE_ZEROES)
        }
      }),
    )
  })

  test('reaches every kind that is offered, the first block and the last', () => {
    const disk = {
      capacitySectors: 40,
      blockBytes: 512,
      physicalExponent: 0,
      segmentsMax: 1,
      discardSectorsMax: 40,
    }
    const rest = { discardSegmentsMax: 1, zeroSectorsMax: 40, zeroSegmentsMax: 1, eraseSectorsMax: 40 }
    const whole = { ...disk, ...rest, eraseSegmentsMax: 1 }
    const source = new OperationSource(seededRandom(1), featureSet([BlkFeature.FLUSH.bit]), whole, 65_536)
    const drawn = Array.from({ length: 2000 }, () => source.next())
    const types = [...new Set(drawn.map(({ type }) => type))].sort((a, b) => a - b)
    expect(types).toEqual([0, 1, 4, 11, 13, 14])
    expect(drawn.some(({ type, block }) => type === BlkType.OUT && block === 0)).toBe(true)
    expect(drawn.some(({ type, block, count }) => type === BlkType.OUT && block + count === 40)).toBe(true)
  })
})
