import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Scalar } from '../../protocol/layout.ts'
import { SCALAR_BYTES } from '../../protocol/layout.ts'
import { GuestMemory, gpa } from '../../protocol/memory.ts'
import type { FieldAt, Window } from '../../protocol/window.ts'
import { Cursor } from '../../protocol/window.ts'
import { changedSince, Journal, JournalMemory, snapshot } from '../fuzz/journal.ts'

/** Two adjacent regions, filled so that no two neighbours are alike. */
function memory(): GuestMemory {
  const region = (base: number) => ({
    base: gpa(base),
    bytes: Uint8Array.from({ length: 4096 }, (_, i) => (base + i * 7 + (i >> 8)) & 0xff),
  })
  return new GuestMemory([region(0x1000), region(0x2000)])
}

const READ: { readonly [W in Scalar]: (window: Window, field: number, base: number) => number } = {
  u8: (w, f, b) => w.u8(f as FieldAt<'u8'>, b),
  le16: (w, f, b) => w.le16(f as FieldAt<'le16'>, b),
  le32: (w, f, b) => w.le32(f as FieldAt<'le32'>, b),
  le64: (w, f, b) => w.le64(f as FieldAt<'le64'>, b),
  be16: (w, f, b) => w.be16(f as FieldAt<'be16'>, b),
  be32: (w, f, b) => w.be32(f as FieldAt<'be32'>, b),
  be64: (w, f, b) => w.be64(f as FieldAt<'be64'>, b),
}
const WRITE: {
  readonly [W in Scalar]: (window: Window, field: number, value: number, base: number) => void
} = {
  u8: (w, f, v, b) => w.putU8(f as FieldAt<'u8'>, v, b),
  le16: (w, f, v, b) => w.putLe16(f as FieldAt<'le16'>, v, b),
  le32: (w, f, v, b) => w.putLe32(f as FieldAt<'le32'>, v, b),
  le64: (w, f, v, b) => w.putLe64(f as FieldAt<'le64'>, v, b),
  be16: (w, f, v, b) => w.putBe16(f as FieldAt<'be16'>, v, b),
  be32: (w, f, v, b) => w.putBe32(f as FieldAt<'be32'>, v, b),
  be64: (w, f, v, b) => w.putBe64(f as FieldAt<'be64'>, v, b),
}
const WIDTHS = Object.keys(READ) as Scalar[]

describe('a journaling memory', () => {
  it('reads and writes what plain memory does, across a seam too, and notes where', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...WIDTHS),
        fc.integer({ min: 0xf00, max: 0x1ff0 }),
        fc.nat(7),
        fc.nat(0xff),
        fc.boolean(),
        (width, at, base, value, pointed) => {
          const [plain, watched] = [memory(), memory()]
          const journal = new Journal()
          const spied = new JournalMemory(watched, journal)
          const cursor = new Cursor()
          const range = [gpa(0x1000 + at - 0xf00), 0xf0] as const
          const left = plain.window(...range, 1) as Window
          if (pointed) spied.point(cursor, ...range)
          const right = pointed ? cursor.window : (spied.window(...range, 1) as Window)
          expect(READ[width](right, 8, base)).toBe(READ[width](left, 8, base))
          WRITE[width](left, 32, value, base)
          WRITE[width](right, 32, value, base)
          expect(watched.regions).toEqual(plain.regions)
          const lengthBytes = SCALAR_BYTES[width]
          expect(journal.accesses).toEqual([
            { kind: 'read', at: range[0] + 8 + base, lengthBytes },
            { kind: 'write', at: range[0] + 32 + base, lengthBytes },
          ])
          expect(journal.bytesRead(0, 0x4000)).toBe(lengthBytes)
          expect(journal.written().length).toBe(lengthBytes)
        },
      ),
    )
  })

  it('notes indices, copies, fills and loans, and refuses what plain memory refuses', () => {
    const journal = new Journal()
    const spied = new JournalMemory(memory(), journal)
    const window = spied.window(gpa(0x1ffe), 16, 2) as Window
    window.storeIndex(0 as FieldAt<'le16'>, 0xbeef)
    expect(window.loadIndex(0 as FieldAt<'le16'>)).toBe(0xbeef)
    window.copyOut(2, new Uint8Array(3))
    window.copyIn(4, new Uint8Array(2))
    window.fill(1, 6, 5)
    const lent: Uint8Array<ArrayBuffer>[] = []
    expect(spied.lend(gpa(0x1ff0), 32, lent)).toBe(true)
    expect(lent.map(({ length }) => length)).toEqual([16, 16])
    expect(journal.accesses.map(({ kind, at, lengthBytes }) => [kind, at, lengthBytes])).toEqual([
      ['store', 0x1ffe, 2],
      ['load', 0x1ffe, 2],
      ['read', 0x2000, 3],
      ['write', 0x2002, 2],
      ['write', 0x2004, 5],
      ['lend', 0x1ff0, 32],
    ])
    expect(window.lengthBytes).toBe(16)
    expect(spied.window(gpa(0x1001), 4, 2)).toBeNull()
    expect(spied.window(gpa(0x2ffe), 4, 2)).toBeNull()
    expect(spied.point(new Cursor(), gpa(0x3000), 1)).toBe(false)
    expect(spied.lend(gpa(0x2fff), 2, lent)).toBe(false)
    expect(lent).toHaveLength(2)
    journal.clear()
    expect([journal.touched(), journal.reads(0, 0x4000), journal.accesses]).toEqual([[], 0, []])
  })

  it('counts every read of a byte, and lets a peer change it before the next', () => {
    const journal = new Journal()
    const plain = memory()
    const window = new JournalMemory(plain, journal).window(gpa(0x1000), 8, 8) as Window
    const before = snapshot(plain)
    journal.after = ({ kind, at }) => {
      if (kind === 'read') plain.regions[0]?.bytes.fill(journal.reads(at, 1), 0, 8)
    }
    const first = window.le32(0 as FieldAt<'le32'>)
    expect(first).not.toBe(0x01010101)
    expect(window.le32(0 as FieldAt<'le32'>)).toBe(0x01010101)
    expect(window.u8(3 as FieldAt<'u8'>)).toBe(2)
    expect([journal.reads(0x1000, 1), journal.reads(0x1003, 1), journal.reads(0x1004, 4)]).toEqual([2, 3, 0])
    expect(changedSince(before, plain)).toEqual([0, 1, 2, 3, 4, 5, 6, 7].map((i) => 0x1000 + i))
  })
})
