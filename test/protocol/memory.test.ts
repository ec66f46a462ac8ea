import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { PageLog } from '../../protocol/dma.ts'
import { DmaSpace } from '../../protocol/dma.ts'
import type { Region } from '../../protocol/memory.ts'
import { GuestMemory, gpa, PAGE_BYTES, regionsInvalid } from '../../protocol/memory.ts'
import type { FieldAt } from '../../protocol/window.ts'
import { Cursor } from '../../protocol/window.ts'

const FIRST = 0 as FieldAt<'u8'>

/** Every page that exists, by number: what the region table must be indistinguishable from. */
class Model {
  readonly pages = new Map<number, Uint8Array>()

  readonly regions: readonly Region[]

  constructor(regions: readonly Region[]) {
    this.regions = regions
    for (const { base, bytes } of regions) {
      for (let at = 0; at < bytes.length; at += PAGE_BYTES) {
        this.pages.set((base + at) / PAGE_BYTES, bytes.slice(at, at + PAGE_BYTES))
      }
    }
  }

  /** The bytes of a range, or null when one of them does not exist. */
  range(at: number, lengthBytes: number): Uint8Array | null {
    if (!(lengthBytes >= 0)) return null
    if (lengthBytes === 0) return new Uint8Array(0)
    if (!(at >= 0 && lengthBytes <= 2 ** 20 && Number.isSafeInteger(at + lengthBytes))) return null
    const out = new Uint8Array(lengthBytes)
    for (let done = 0; done < lengthBytes; done++) {
      const page = this.pages.get(Math.floor((at + done) / PAGE_BYTES))
      if (page === undefined) return null
      out[done] = page[(at + done) % PAGE_BYTES] ?? 0
    }
    return out
  }

  /** Regions a range touches. */
  touched(at: number, lengthBytes: number): number {
    if (lengthBytes === 0) return 0
    return this.regions.filter(({ base, bytes }) => at < base + bytes.length && at + lengthBytes > base)
      .length
  }
}

const ORIGINS = [
  0,
  PAGE_BYTES,
  2 ** 31 - PAGE_BYTES,
  2 ** 32 - 2 * PAGE_BYTES,
  2 ** 32,
  2 ** 40,
  2 ** 53 - 2 ** 16,
]
const HOSTILE = [
  -1,
  -PAGE_BYTES,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  2 ** 32 - 1,
  2 ** 32,
  2 ** 53 - 1,
  2 ** 53,
  2 ** 63,
  2 ** 64 - 1,
]

interface Bench {
  readonly memory: GuestMemory
  readonly model: Model
}

const bench: fc.Arbitrary<Bench> = fc
  .record({
    origin: fc.constantFrom(...ORIGINS),
    shape: fc.array(fc.record({ gap: fc.nat(1), pages: fc.integer({ min: 1, max: 2 }) }), {
      minLength: 1,
      maxLength: 4,
    }),
    turned: fc.boolean(),
    salt: fc.nat(250),
  })
  .map(({ origin, shape, turned, salt }) => {
    let base = origin
    const regions = shape.map(({ gap, pages }) => {
      base += gap * PAGE_BYTES
      const room = new Uint8Array(pages * PAGE_BYTES + 8)
      const bytes = room.subarray(8)
      for (let at = 0; at < bytes.length; at++)
        bytes[at] = (base / PAGE_BYTES + salt + at * 7 + (at >> 8)) % 251
      const region: Region = { base: gpa(base), bytes }
      base += bytes.length
      return region
    })
    if (turned) regions.reverse()
    return { memory: new GuestMemory(regions), model: new Model(regions) }
  })

/** A range mostly around a region's edge, sometimes anywhere a peer could point. */
const pointed = bench.chain(({ memory, model }) => {
  const edges = model.regions.flatMap(({ base, bytes }) => [base, base + bytes.length])
  const near = fc
    .tuple(fc.constantFrom(...edges), fc.integer({ min: -PAGE_BYTES - 9, max: PAGE_BYTES + 9 }))
    .map(([edge, by]) => edge + by)
  const close = fc
    .tuple(fc.constantFrom(...edges), fc.integer({ min: -3, max: 3 }))
    .map(([edge, by]) => edge + by)
  return fc.record({
    memory: fc.constant(memory),
    model: fc.constant(model),
    at: fc.oneof(near, close, fc.constantFrom(...HOSTILE)),
    lengthBytes: fc.oneof(
      fc.nat(9),
      fc.nat(3 * PAGE_BYTES),
      fc.constantFrom(PAGE_BYTES, 2 * PAGE_BYTES),
      fc.constantFrom(...HOSTILE),
    ),
  })
})

describe('GuestMemory', () => {
  it('says a range is backed exactly when every byte of it exists', () => {
    fc.assert(
      fc.property(pointed, ({ memory, model, at, lengthBytes }) => {
        expect(memory.backed(gpa(at), lengthBytes)).toBe(model.range(at, lengthBytes) !== null)
        // Asked again, from wherever the first answer left its memory of the last region.
        expect(memory.backed(gpa(at), lengthBytes)).toBe(model.range(at, lengthBytes) !== null)
      }),
      { numRuns: 1000 },
    )
  })

  it('lends the bytes of a range piece by piece, or appends nothing', () => {
    fc.assert(
      fc.property(pointed, ({ memory, model, at, lengthBytes }) => {
        const before = new Uint8Array(1)
        const pieces = [before]
        const expected = model.range(at, lengthBytes)
        expect(memory.lend(gpa(at), lengthBytes, pieces)).toBe(expected !== null)
        expect(pieces[0]).toBe(before)
        expect(pieces.length - 1).toBe(expected === null ? 0 : model.touched(at, lengthBytes))
        const lent = Buffer.concat(pieces.slice(1))
        expect(lent.equals(expected ?? new Uint8Array(0))).toBe(true)
      }),
      { numRuns: 1000 },
    )
  })

  it('lends the right bytes however often and in whatever order, views that are kept included', () => {
    // Pages 4 MiB apart share a place among the views kept, and ranges of one page differ in start and length.
    const memory = new GuestMemory([
      { base: gpa(0), bytes: new Uint8Array(2 ** 23 + 8 * PAGE_BYTES) },
      { base: gpa(2 ** 32), bytes: new Uint8Array(2 ** 23).subarray(2 ** 22) },
    ])
    const page = fc.tuple(fc.constantFrom(0, 1024, 2048, 2 ** 20, 2 ** 20 + 1), fc.nat(2))
    const range = fc.record({
      page: page.map(([far, near]) => far + near),
      skip: fc.constantFrom(0, 1, 8, PAGE_BYTES - 1),
      lengthBytes: fc.constantFrom(1, 512, PAGE_BYTES, 3 * PAGE_BYTES),
    })
    fc.assert(
      fc.property(fc.array(range, { minLength: 1, maxLength: 20 }), (ranges) => {
        for (const { page, skip, lengthBytes } of ranges) {
          const at = page * PAGE_BYTES + skip
          const pieces: Uint8Array<ArrayBuffer>[] = []
          expect(memory.lend(gpa(at), lengthBytes, pieces)).toBe(true)
          const region = memory.regions[at < 2 ** 32 ? 0 : 1]
          const bytes = region?.bytes ?? new Uint8Array(0)
          expect(pieces.map(({ buffer, byteOffset, length }) => ({ buffer, byteOffset, length }))).toEqual([
            {
              buffer: bytes.buffer,
              byteOffset: bytes.byteOffset + at - (region?.base ?? 0),
              length: lengthBytes,
            },
          ])
        }
      }),
    )
  })

  it('lends memory itself, not a copy of it', () => {
    fc.assert(
      fc.property(pointed, ({ memory, model, at, lengthBytes }) => {
        const pieces: Uint8Array<ArrayBuffer>[] = []
        if (!memory.lend(gpa(at), lengthBytes, pieces) || lengthBytes === 0) return
        for (const piece of pieces) for (let i = 0; i < piece.length; i++) piece[i] = 255
        for (const { base, bytes } of memory.regions) {
          for (let i = 0; i < bytes.length; i++) {
            const inside = base + i >= at && base + i < at + lengthBytes
            const was = model.pages.get(Math.floor((base + i) / PAGE_BYTES))?.[i % PAGE_BYTES]
            if (bytes[i] !== (inside ? 255 : was)) throw new Error(`byte ${base + i}`)
          }
        }
      }),
      { numRuns: 200 },
    )
  })

  it('makes a window over exactly the range, in its alignment, or none', () => {
    const aligned = fc.constantFrom(1, 2, 4, 16, PAGE_BYTES)
    fc.assert(
      fc.property(pointed, aligned, ({ memory, model, at, lengthBytes }, alignment) => {
        const expected = at % alignment === 0 ? model.range(at, lengthBytes) : null
        const window = memory.window(gpa(at), lengthBytes, alignment)
        expect(window === null).toBe(expected === null)
        if (window === null || expected === null) return
        expect(window.lengthBytes).toBe(lengthBytes)
        const read = new Uint8Array(lengthBytes)
        window.copyOut(0, read)
        expect(Buffer.compare(read, expected)).toBe(0)
        expect(() => window.u8(FIRST, lengthBytes)).toThrow(RangeError)
      }),
      { numRuns: 1000 },
    )
  })

  it('points a cursor at a range, or leaves it where it was', () => {
    fc.assert(
      fc.property(pointed, ({ memory, model, at, lengthBytes }) => {
        const cursor = new Cursor()
        memory.point(cursor, memory.regions.at(-1)?.base ?? gpa(0), 1)
        const { window, base } = cursor
        const expected = model.range(at, lengthBytes)
        expect(memory.point(cursor, gpa(at), lengthBytes)).toBe(expected !== null)
        if (expected === null) {
          expect(cursor.window).toBe(window)
          expect(cursor.base).toBe(base)
          return
        }
        for (let i = 0; i < lengthBytes; i++) {
          if (cursor.window.u8(FIRST, cursor.base + i) !== expected[i]) throw new Error(`byte ${i}`)
        }
      }),
      { numRuns: 1000 },
    )
  })

  it('reads integers across the seam of two regions, and of three', () => {
    const bytes = Uint8Array.from({ length: 3 * PAGE_BYTES }, (_, at) => (at * 13 + (at >> 8)) % 256)
    const regions = [0, 1, 2].map((page) => ({
      base: gpa(2 ** 32 + page * PAGE_BYTES),
      bytes: bytes.slice(page * PAGE_BYTES, (page + 1) * PAGE_BYTES),
    }))
    const memory = new GuestMemory(regions)
    const whole = new DataView(bytes.buffer)
    for (const seam of [PAGE_BYTES, 2 * PAGE_BYTES]) {
      for (let at = seam - 9; at <= seam + 1; at++) {
        for (const lengthBytes of [8, PAGE_BYTES + 10]) {
          const window = memory.window(gpa(2 ** 32 + at), Math.min(lengthBytes, bytes.length - at), 1)
          expect(window?.le64(0 as FieldAt<'le64'>)).toBe(Number(whole.getBigUint64(at, true)))
          expect(window?.be32(4 as FieldAt<'be32'>)).toBe(whole.getUint32(at + 4))
        }
      }
    }
    const all = memory.window(gpa(2 ** 32), bytes.length, PAGE_BYTES)
    expect(all?.le16((2 * PAGE_BYTES - 1) as FieldAt<'le16'>)).toBe(whole.getUint16(2 * PAGE_BYTES - 1, true))
    expect(all?.loadIndex((2 * PAGE_BYTES) as FieldAt<'le16'>)).toBe(whole.getUint16(2 * PAGE_BYTES, true))
  })

  it('ends after its last region', () => {
    expect(GuestMemory.ofBytes(PAGE_BYTES, gpa(2 ** 33)).end).toBe(2 ** 33 + PAGE_BYTES)
    expect(GuestMemory.ofBytes(3 * PAGE_BYTES).end).toBe(3 * PAGE_BYTES)
  })
})

describe('regionsInvalid', () => {
  const pages = (count: number) => new Uint8Array(count * PAGE_BYTES)
  const region = (base: number, bytes: Uint8Array<ArrayBuffer> = pages(1)): Region => ({
    base: gpa(base),
    bytes,
  })

  it.each<[string, readonly Region[], string]>([
    ['nothing', [], 'no region'],
    ['a negative base', [region(-PAGE_BYTES)], 'a region wraps the address space'],
    ['a base that is NaN', [region(Number.NaN)], 'a region wraps the address space'],
    ['one good and one NaN', [region(0), region(Number.NaN)], 'a region wraps the address space'],
    ['an end past 2^53', [region(2 ** 53 - PAGE_BYTES)], 'a region wraps the address space'],
    ['a base of 2^64', [region(2 ** 64)], 'a region wraps the address space'],
    ['a base inside a page', [region(8)], 'a region does not begin on a page'],
    ['an empty region', [region(0, pages(0))], 'a region is not whole pages'],
    ['half a page', [region(0, new Uint8Array(2048))], 'a region is not whole pages'],
    [
      'misaligned bytes',
      [region(0, new Uint8Array(8192).subarray(4, 4100))],
      'a region is not 8-aligned in its buffer',
    ],
    ['overlap', [region(0, pages(2)), region(PAGE_BYTES)], 'two regions overlap'],
    ['overlap, out of order', [region(PAGE_BYTES), region(0, pages(2))], 'two regions overlap'],
    ['the same twice', [region(0), region(0)], 'two regions overlap'],
    ['one inside another', [region(0, pages(4)), region(PAGE_BYTES)], 'two regions overlap'],
  ])('refuses %s', (_what, regions, reason) => {
    expect(regionsInvalid(regions)).toBe(reason)
    expect(() => new GuestMemory(regions)).toThrow(reason)
  })

  it('accepts adjacent regions in any order, up to the last whole page below 2^53', () => {
    expect(regionsInvalid([region(PAGE_BYTES), region(0)])).toBeNull()
    expect(regionsInvalid([region(2 ** 53 - 2 * PAGE_BYTES)])).toBeNull()
  })
})

describe('DmaSpace', () => {
  class Pages implements PageLog {
    readonly marked: [number, number][] = []
    mark(firstPage: number, lastPage: number): void {
      this.marked.push([firstPage, lastPage])
    }
  }

  it.each<[string, number, number, readonly [number, number][]]>([
    ['nothing', 100, 0, []],
    ['one byte', 0, 1, [[0, 0]]],
    ['the last byte of a page', 4095, 1, [[0, 0]]],
    ['two bytes over a seam', 4095, 2, [[0, 1]]],
    ['a page', 4096, 4096, [[1, 1]]],
    ['a page and a byte', 4096, 4097, [[1, 2]]],
    ['above 4 GiB', 2 ** 32 + 1, 2 * 4096, [[2 ** 20, 2 ** 20 + 2]]],
    ['far up', 2 ** 52, 1, [[2 ** 40, 2 ** 40]]],
  ])('logs the pages of %s', (_what, at, lengthBytes, pages) => {
    const log = new Pages()
    new DmaSpace(GuestMemory.ofBytes(PAGE_BYTES), log).wrote(gpa(at), lengthBytes)
    expect(log.marked).toEqual(pages)
  })

  it('needs no log', () => {
    const dma = new DmaSpace(GuestMemory.ofBytes(PAGE_BYTES))
    expect(() => dma.wrote(gpa(0), 1)).not.toThrow()
    dma.log = new Pages()
    dma.wrote(gpa(0), 1)
    expect((dma.log as Pages).marked).toEqual([[0, 0]])
  })

  it('reaches what memory has, and answers as memory does', () => {
    fc.assert(
      fc.property(pointed, ({ memory, at, lengthBytes }) => {
        const dma = new DmaSpace(memory)
        const lent: Uint8Array<ArrayBuffer>[] = []
        const backed = memory.backed(gpa(at), lengthBytes)
        expect(dma.reaches(gpa(at), lengthBytes)).toBe(backed)
        expect(dma.lend(gpa(at), lengthBytes, lent)).toBe(backed)
        expect(dma.point(new Cursor(), gpa(at), lengthBytes)).toBe(backed)
        expect(dma.window(gpa(at), lengthBytes, 1) !== null).toBe(backed && at % 1 === 0)
      }),
      { numRuns: 200 },
    )
  })
})
