import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { BlkRequest, VirtqDesc, VirtqUsed } from '../../protocol/index.ts'
import type { Elements, Field, Scalar } from '../../protocol/layout.ts'
import { GuestMemory, gpa, PAGE_BYTES } from '../../protocol/memory.ts'
import { SeamWindow } from '../../protocol/seam-window.ts'
import type { FieldAt } from '../../protocol/window.ts'
import { Window } from '../../protocol/window.ts'
import { TestMap, TestShape } from './declarations.ts'

interface Accessor {
  readonly name: string
  readonly width: number
  readonly get: (window: Window, at: number, base: number) => number
  readonly put: (window: Window, at: number, base: number, value: number) => void
  readonly model: (view: DataView, at: number) => number
  readonly store: (view: DataView, at: number, value: number) => void
}

const field = <W extends Scalar>(at: number) => at as FieldAt<W>

const ACCESSORS: readonly Accessor[] = [
  {
    name: 'u8',
    width: 1,
    get: (w, at, base) => w.u8(field(at), base),
    put: (w, at, base, value) => w.putU8(field(at), value, base),
    model: (v, at) => v.getUint8(at),
    store: (v, at, value) => v.setUint8(at, value),
  },
  {
    name: 'le16',
    width: 2,
    get: (w, at, base) => w.le16(field(at), base),
    put: (w, at, base, value) => w.putLe16(field(at), value, base),
    model: (v, at) => v.getUint16(at, true),
    store: (v, at, value) => v.setUint16(at, value, true),
  },
  {
    name: 'le32',
    width: 4,
    get: (w, at, base) => w.le32(field(at), base),
    put: (w, at, base, value) => w.putLe32(field(at), value, base),
    model: (v, at) => v.getUint32(at, true),
    store: (v, at, value) => v.setUint32(at, value, true),
  },
  {
    name: 'le64',
    width: 8,
    get: (w, at, base) => w.le64(field(at), base),
    put: (w, at, base, value) => w.putLe64(field(at), value, base),
    model: (v, at) => Number(v.getBigUint64(at, true)),
    store: (v, at, value) => v.setBigUint64(at, BigInt(value), true),
  },
  {
    name: 'be16',
    width: 2,
    get: (w, at, base) => w.be16(field(at), base),
    put: (w, at, base, value) => w.putBe16(field(at), value, base),
    model: (v, at) => v.getUint16(at),
    store: (v, at, value) => v.setUint16(at, value),
  },
  {
    name: 'be32',
    width: 4,
    get: (w, at, base) => w.be32(field(at), base),
    put: (w, at, base, value) => w.putBe32(field(at), value, base),
    model: (v, at) => v.getUint32(at),
    store: (v, at, value) => v.setUint32(at, value),
  },
  {
    name: 'be64',
    width: 8,
    get: (w, at, base) => w.be64(field(at), base),
    put: (w, at, base, value) => w.putBe64(field(at), value, base),
    model: (v, at) => Number(v.getBigUint64(at)),
    store: (v, at, value) => v.setBigUint64(at, BigInt(value)),
  },
]

/** A window and the same bytes in one piece: what it must agree with. */
interface Subject {
  readonly window: Window
  readonly model: Uint8Array<ArrayBuffer>
  /** The window's bytes as they are now. */
  readonly now: () => Uint8Array
}

function flat(content: Uint8Array): Subject {
  const room = new Uint8Array(content.length + 8)
  room.set(content, 4)
  const bytes = room.subarray(4, 4 + content.length)
  return { window: new Window(bytes), model: Uint8Array.from(content), now: () => bytes }
}

/** Cut at the given places, each piece in a buffer of its own. */
function seamed(content: Uint8Array, cuts: readonly number[]): Subject {
  const edges = [0, ...cuts, content.length]
  const pieces = edges.slice(1).map((end, at) => Uint8Array.from(content.subarray(edges[at], end)))
  const now = () => Uint8Array.from(pieces.flatMap((piece) => [...piece]))
  return { window: new SeamWindow(pieces), model: Uint8Array.from(content), now }
}

const LENGTH = 24
const content = fc.uint8Array({ minLength: LENGTH, maxLength: LENGTH })
const subject: fc.Arbitrary<Subject> = fc.oneof(
  content.map(flat),
  fc.tuple(content, fc.integer({ min: 1, max: LENGTH - 1 })).map(([all, cut]) => seamed(all, [cut])),
  fc
    .tuple(content, fc.integer({ min: 1, max: LENGTH - 2 }), fc.integer({ min: 1, max: LENGTH }))
    .filter(([, first, second]) => first < second && second < LENGTH)
    .map(([all, first, second]) => seamed(all, [first, second])),
)

describe.each(ACCESSORS)('Window $name', ({ width, get, put, model, store }) => {
  it('reads what a DataView reads, at every offset and across every seam', () => {
    fc.assert(
      fc.property(subject, fc.nat(3), (tried, base) => {
        const view = new DataView(tried.model.buffer)
        expect(tried.window.lengthBytes).toBe(LENGTH)
        for (let at = base; at + width <= LENGTH; at++) {
          expect(get(tried.window, at - base, base)).toBe(model(view, at))
        }
      }),
      { numRuns: 300 },
    )
  })

  it('writes what a DataView writes and nothing beside it', () => {
    const most = width === 8 ? Number.MAX_SAFE_INTEGER : 256 ** width - 1
    const value = fc.oneof(
      fc.maxSafeNat().map((n) => n % (most + 1)),
      fc.constantFrom(0, 1, most),
    )
    fc.assert(
      fc.property(subject, fc.nat(LENGTH - width), fc.nat(3), value, (tried, at, offset, stored) => {
        const base = Math.min(offset, at)
        put(tried.window, at - base, base, stored)
        store(new DataView(tried.model.buffer), at, stored)
        expect(tried.now()).toEqual(tried.model)
      }),
      { numRuns: 300 },
    )
  })

  it('throws past either end', () => {
    const all = new Uint8Array(LENGTH)
    for (const { window } of [flat(all), seamed(all, [7]), seamed(all, [8, 16])]) {
      for (const at of [LENGTH - width + 1, LENGTH, LENGTH + 1, 2 ** 32, 2 ** 53, -1]) {
        expect(() => get(window, at, 0)).toThrow(RangeError)
        expect(() => put(window, at, 0, 1)).toThrow(RangeError)
      }
    }
  })
})

describe('Window', () => {
  it('copies and fills ranges, across seams too', () => {
    const range = fc.tuple(fc.nat(LENGTH), fc.nat(LENGTH)).filter(([at, length]) => at + length <= LENGTH)
    fc.assert(
      fc.property(subject, range, fc.nat(255), ({ window, model, now }, [at, length], value) => {
        const out = new Uint8Array(length)
        window.copyOut(at, out)
        expect(out).toEqual(model.slice(at, at + length))
        const fresh = out.map((byte, index) => byte ^ (index + 1))
        window.copyIn(at, fresh)
        model.set(fresh, at)
        expect(now()).toEqual(model)
        window.fill(value, at, length)
        model.fill(value, at, at + length)
        expect(now()).toEqual(model)
      }),
      { numRuns: 300 },
    )
  })

  it('refuses a range past its end and changes nothing', () => {
    const ranges = [
      [0, LENGTH + 1],
      [LENGTH, 1],
      [LENGTH + 1, 0],
      [1, LENGTH],
      [-1, 2],
      [Number.NaN, 1],
      [2 ** 53, 1],
    ] as const
    const all = Uint8Array.from({ length: LENGTH }, (_, at) => at)
    for (const { window, model, now } of [flat(all), seamed(all, [7]), seamed(all, [8, 16])]) {
      for (const [at, length] of ranges) {
        expect(() => window.copyOut(at, new Uint8Array(length))).toThrow(RangeError)
        expect(() => window.copyIn(at, new Uint8Array(length).fill(9))).toThrow(RangeError)
        expect(() => window.fill(9, at, length)).toThrow(RangeError)
      }
      expect(() => window.fill(9, 0, -1)).toThrow(RangeError)
      expect(() => window.fill(9, 0, Number.NaN)).toThrow(RangeError)
      expect(now()).toEqual(model)
    }
  })

  it('loads and stores a published index at every even offset of every piece', () => {
    const even = fc.nat(LENGTH / 2 - 1).map((half) => 2 * half)
    const cuts = fc.constantFrom<readonly number[]>([], [2], [12], [22], [8, 16], [2, 4])
    fc.assert(
      fc.property(content, cuts, even, fc.nat(0xffff), (all, at, offset, value) => {
        const { window, model, now } = at.length === 0 ? flat(all) : seamed(all, at)
        const view = new DataView(model.buffer)
        expect(window.loadIndex(field(offset))).toBe(view.getUint16(offset, true))
        expect(window.loadIndex(field(0), offset)).toBe(view.getUint16(offset, true))
        window.storeIndex(field(0), value, offset)
        view.setUint16(offset, value, true)
        expect(now()).toEqual(model)
      }),
    )
  })

  it('throws for an index past the end, or in a window that is not 2-aligned', () => {
    const all = new Uint8Array(LENGTH + 1)
    for (const { window } of [flat(all.subarray(1)), seamed(all.subarray(1), [8]), flat(all)]) {
      for (const at of [LENGTH, LENGTH + 2, -2]) {
        expect(() => window.loadIndex(field(at))).toThrow(RangeError)
        expect(() => window.storeIndex(field(at), 1)).toThrow(RangeError)
      }
    }
    const odd = new Window(all.subarray(1))
    expect(() => odd.loadIndex(field(0))).toThrow(RangeError)
    expect(odd.u8(field(LENGTH - 1))).toBe(0)
  })

  it('is empty without bytes', () => {
    expect(new Window().lengthBytes).toBe(0)
    expect(() => new Window().u8(field(0))).toThrow(RangeError)
  })

  it('publishes the right index in a region whose base is above 4 GiB', () => {
    for (const base of [2 ** 32, 2 ** 33, 2 ** 40, 2 ** 52]) {
      const memory = GuestMemory.ofBytes(2 * PAGE_BYTES, gpa(base))
      const window = memory.window(gpa(base + PAGE_BYTES + 6), 16, 2)
      window?.storeIndex(field(2), 0xbeef)
      expect(memory.regions[0]?.bytes[PAGE_BYTES + 8]).toBe(0xef)
      expect(memory.regions[0]?.bytes.reduce((sum, byte) => sum + byte, 0)).toBe(0xbe + 0xef)
      expect(window?.loadIndex(field(2))).toBe(0xbeef)
    }
  })

  it('does not compile with a field of another width', () => {
    const window = new Window(new Uint8Array(64))
    expect(window.le32(BlkRequest.type) + window.le64(BlkRequest.sector)).toBe(0)
    expect(window.be32(TestShape.weights, 4) + window.u8(TestShape.gap)).toBe(0)
    // @ts-expect-error le32 read as le16
    window.le16(BlkRequest.type)
    // @ts-expect-error le64 read as le32
    window.le32(BlkRequest.sector)
    // @ts-expect-error le16 read as be16
    window.be16(VirtqDesc.flags)
    // @ts-expect-error le32 written as u8
    window.putU8(VirtqDesc.len, 0)
    // @ts-expect-error an index is 16 bits
    window.loadIndex(VirtqDesc.len)
    // @ts-expect-error a bare number is no field
    window.le32(4)
    // @ts-expect-error an array of structures has no width
    window.le32(VirtqUsed.ring)
    // @ts-expect-error a big-endian array read as little-endian
    window.le32(TestShape.weights)
    // @ts-expect-error no such field
    expect(TestMap.middle).toBeUndefined()
    const offset: Field<'le32'> = VirtqDesc.len
    const first: Elements<'be32'> = TestShape.weights
    expect([offset, first]).toEqual([8, 20])
    // @ts-expect-error a file offset is no guest address
    expect(GuestMemory.ofBytes(PAGE_BYTES).backed(0, 1)).toBe(true)
  })
})
