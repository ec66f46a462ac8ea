import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ExitReason } from '../../../hypervisor/vtx/control.ts'
import { EptEntry, PAGE_4K } from '../../../hypervisor/vtx/ept-walk.ts'
import { Field } from '../../../hypervisor/vtx/field.ts'
import type { Elements, Field as LayoutField } from '../../../protocol/layout.ts'
import { gpa } from '../../../protocol/memory.ts'
import { Cursor, type Window } from '../../../protocol/window.ts'
import { RAM_AT, RWX, SmallMachine } from '../small-machine.ts'

const U8 = 0 as LayoutField<'u8'>
const LE16 = 0 as LayoutField<'le16'>
const LE32 = 0 as LayoutField<'le32'>
const LE64 = 0 as LayoutField<'le64'>
const BYTES = 0 as unknown as Elements<'u8'>

const READ = 0x181
const WRITE = 0x182
/** The page is readable (bit 3) and the access was a write. */
const WRITE_TO_READ_ONLY = 0x18a

interface Seen {
  readonly reason: number
  readonly at: number
  readonly qualification: number
}

/** A machine whose root software maps every page that is missed, and remembers what it was told. */
function repairing(accessedDirty = false) {
  const machine = new SmallMachine({ accessedDirty, leafLevelMax: 1 })
  const seen: Seen[] = []
  const { processor } = machine
  machine.exited = (reason) => {
    const at = processor.vmread(Field.guestPhysicalAddress)
    const page = at - (at % PAGE_4K)
    seen.push({ reason, at, qualification: processor.vmread(Field.exitQualification) })
    machine.ept.map(page, PAGE_4K, { to: RAM_AT + page, permissions: RWX })
  }
  return { machine, seen, memory: machine.guest.memory }
}

function windowAt(memory: SmallMachine['guest']['memory'], at: number, lengthBytes: number): Window {
  const window = memory.window(gpa(at), lengthBytes, 1)
  if (window === null) throw new Error('no window')
  return window
}

describe('a window that was handed out', () => {
  it('exits at the next access after its page is unmapped, and the access completes once it is repaired', () => {
    const { machine, seen, memory } = repairing()
    const window = windowAt(memory, 0x5000, 0x1000)
    window.putLe32(LE32, 0x1234_5678, 0x10)
    machine.unmap(0x5000, PAGE_4K)
    expect(window.le32(LE32, 0x10)).toBe(0x1234_5678)
    expect(seen).toEqual([{ reason: ExitReason.EPT_VIOLATION, at: 0x5010, qualification: READ }])
    window.putLe32(LE32, 7, 0x14)
    expect(seen.length).toBe(1)
    expect(machine.ram[0x5014]).toBe(7)
  })

  it('is not stopped before INVEPT: until then a translation that is remembered holds', () => {
    const { machine, seen, memory } = repairing()
    const window = windowAt(memory, 0x5000, 0x1000)
    machine.ept.unmap(0x5000, PAGE_4K)
    expect(window.u8(U8)).toBe(0)
    expect(seen).toEqual([])
    machine.processor.invalidate()
    expect(window.u8(U8)).toBe(0)
    expect(seen.length).toBe(1)
  })

  it('may be made over a page that is not mapped: its access exits, not its making', () => {
    const { machine, seen, memory } = repairing()
    machine.unmap(0x5000, PAGE_4K)
    const window = windowAt(memory, 0x4000, 0x2000)
    expect(seen).toEqual([])
    expect(window.u8(U8, 0xfff)).toBe(0)
    expect(seen).toEqual([])
    window.putU8(U8, 9, 0x1001)
    expect(seen).toEqual([{ reason: ExitReason.EPT_VIOLATION, at: 0x5001, qualification: WRITE }])
    expect(window.lengthBytes).toBe(0x2000)
  })

  it('reads a page that became read-only without an exit, and exits at a write', () => {
    const { machine, seen, memory } = repairing()
    const window = windowAt(memory, 0x5000, 0x100)
    machine.ept.protect(0x5000, PAGE_4K, EptEntry.READ)
    machine.processor.invalidate()
    expect(window.le16(LE16, 2)).toBe(0)
    expect(seen).toEqual([])
    window.putLe16(LE16, 5, 2)
    expect(seen).toEqual([
      { reason: ExitReason.EPT_VIOLATION, at: 0x5002, qualification: WRITE_TO_READ_ONLY },
    ])
  })

  it('exits with reason 49 where the entry is W and X without R', () => {
    const { machine, seen, memory } = repairing()
    const window = windowAt(memory, 0x5000, 0x100)
    machine.ept.protect(0x5000, PAGE_4K, EptEntry.WRITE | EptEntry.EXECUTE)
    machine.processor.invalidate()
    window.u8(U8)
    expect(seen.map((one) => [one.reason, one.at])).toEqual([[ExitReason.EPT_MISCONFIGURATION, 0x5000]])
  })

  it('follows its page to another frame', () => {
    const { machine, seen, memory } = repairing()
    const window = windowAt(memory, 0x5000, 0x1000)
    machine.ram[0x9123] = 42
    machine.ept.map(0x5000, PAGE_4K, { to: RAM_AT + 0x9000, permissions: RWX })
    machine.processor.invalidate()
    expect(window.u8(U8, 0x123)).toBe(42)
    window.putU8(U8, 43, 0x123)
    expect(machine.ram[0x9123]).toBe(43)
    expect(seen).toEqual([])
  })

  it('reaches pages that lie apart from each other', () => {
    const { machine, memory } = repairing()
    machine.ept.map(0x6000, PAGE_4K, { to: RAM_AT + 0x20000, permissions: RWX })
    machine.processor.invalidate()
    const window = windowAt(memory, 0x5ff0, 0x20)
    window.putLe64(LE64, 0x1_2233_4455_6677, 0xc)
    expect(window.le64(LE64, 0xc)).toBe(0x1_2233_4455_6677)
    expect([...machine.ram.subarray(0x5ffc, 0x6000)]).toEqual([0x77, 0x66, 0x55, 0x44])
    expect([...machine.ram.subarray(0x20000, 0x20004)]).toEqual([0x33, 0x22, 0x01, 0])
  })

  it('takes whatever value root software emulates for it', () => {
    const { machine, memory } = repairing()
    const window = windowAt(memory, 0x5000, 0x100)
    machine.unmap(0x5000, PAGE_4K)
    const stores: number[] = []
    machine.exited = () => {
      const { decoded } = machine.processor
      if (decoded === null) throw new Error('nothing was decoded')
      if (decoded.kind === 'load') decoded.answer(0x40 + decoded.width)
      else stores.push(decoded.at, decoded.width, decoded.value)
      machine.processor.advance()
    }
    expect([window.u8(U8, 1), window.le16(LE16, 2), window.le32(LE32, 4)]).toEqual([0x41, 0x42, 0x44])
    window.putLe32(LE32, 0xdead_beef, 8)
    expect(stores).toEqual([0x5008, 4, 0xdead_beef])
    const out = new Uint8Array(7)
    window.copyOut(BYTES, out.subarray(0, 6))
    expect([...out]).toEqual([0x44, 0, 0, 0, 0x42, 0, 0])
  })

  it('stops the run with a clear error when root software does not resolve the exit', () => {
    const { machine, memory } = repairing()
    const window = windowAt(memory, 0x5000, 0x100)
    machine.unmap(0x5000, PAGE_4K)
    machine.exited = () => {}
    expect(() => window.u8(U8, 4)).toThrow(
      /exit reason 48 was not resolved in 16 exits.*5004h, qualification 181h/,
    )
  })
})

describe('a cursor', () => {
  it('that is held over INVEPT exits like a window', () => {
    const { machine, seen, memory } = repairing()
    const cursor = new Cursor()
    expect(memory.point(cursor, gpa(0x5010), 16)).toBe(true)
    machine.unmap(0x5000, PAGE_4K)
    cursor.window.putU8(U8, 1, cursor.base)
    expect(seen).toEqual([{ reason: ExitReason.EPT_VIOLATION, at: 0x5010, qualification: WRITE }])
  })

  it('points at no range that is not all RAM, and stays as it was', () => {
    const { memory } = repairing()
    const cursor = new Cursor()
    memory.point(cursor, gpa(0x5000), 16)
    const { window, base } = cursor
    for (const [at, lengthBytes] of [
      [8 * 2 ** 20, 1],
      [8 * 2 ** 20 - 1, 2],
      [-1, 4],
      [Number.NaN, 4],
      [0, Number.NaN],
      [2 ** 52, 1],
    ] as const) {
      expect(memory.point(cursor, gpa(at), lengthBytes)).toBe(false)
      expect(memory.window(gpa(at), lengthBytes, 1)).toBeNull()
      expect(memory.lend(gpa(at), lengthBytes, [])).toBe(false)
    }
    expect([cursor.window, cursor.base]).toEqual([window, base])
  })
})

describe('lent views', () => {
  it('are made once every page may be read and written, in one piece where frames adjoin', () => {
    const { machine, seen, memory } = repairing()
    machine.unmap(0x6000, PAGE_4K)
    const own = new Uint8Array(1)
    const views = [own]
    expect(memory.lend(gpa(0x5800), 0x1800, views)).toBe(true)
    expect(seen).toEqual([{ reason: ExitReason.EPT_VIOLATION, at: 0x6000, qualification: 0x183 }])
    expect(views.map((view) => view.length)).toEqual([1, 0x1800])
    machine.ept.map(0x6000, PAGE_4K, { to: RAM_AT + 0x20000, permissions: RWX })
    machine.processor.invalidate()
    const apart: Uint8Array<ArrayBuffer>[] = []
    memory.lend(gpa(0x5800), 0x1000, apart)
    expect(apart.map((view) => [view.byteOffset, view.length])).toEqual([
      [0x5800, 0x800],
      [0x20000, 0x800],
    ])
  })
})

describe('dirty flags of windows', () => {
  it('are set for the pages of a window and for no other', () => {
    const { machine, memory } = repairing(true)
    const dirty = (at: number): boolean => {
      const { walk } = machine.processor.core.translation
      walk.walk(machine.ept.pointer(false), at, 1)
      return leafFlags(machine, at) % 0x400 >= 0x200
    }
    const cursor = new Cursor()
    memory.point(cursor, gpa(0x7010), 8)
    windowAt(memory, 0x9ff8, 0x10)
    expect([0x6000, 0x7000, 0x8000, 0x9000, 0xa000, 0xb000].map(dirty)).toEqual([
      false,
      true,
      false,
      true,
      true,
      false,
    ])
  })
})

/** The low half of the 4 KiB leaf of an address. */
function leafFlags(machine: SmallMachine, at: number): number {
  let table = machine.ept.pointer() - (machine.ept.pointer() % PAGE_4K)
  for (let level = 4; level > 1; level--) {
    table =
      machine.physical.le32(table + 8 * (Math.floor(at / (PAGE_4K * 512 ** (level - 1))) % 512)) & ~0xfff
  }
  return machine.physical.le32(table + 8 * (Math.floor(at / PAGE_4K) % 512))
}

/** Pages the property plays with. */
const FIRST = 0x10000
const PAGES = 4

type Step =
  | { readonly do: 'unmap' | 'protect'; readonly page: number }
  | { readonly do: 'window'; readonly at: number; readonly lengthBytes: number; readonly pointed: boolean }
  | {
      readonly do: 'access'
      readonly window: number
      readonly what: 'u8' | 'le16' | 'le32' | 'le64' | 'index' | 'copy'
      readonly at: number
      readonly value: number | null
    }

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ do: fc.constantFrom('unmap' as const, 'protect' as const), page: fc.nat(PAGES - 1) }),
  fc.record({
    do: fc.constant('window' as const),
    at: fc.nat(PAGES * PAGE_4K - 64).map((at) => at - (at % 2)),
    lengthBytes: fc.oneof(fc.integer({ min: 16, max: 64 }), fc.integer({ min: 16, max: PAGES * PAGE_4K })),
    pointed: fc.boolean(),
  }),
  fc.record({
    do: fc.constant('access' as const),
    window: fc.nat(20),
    what: fc.constantFrom(
      'u8' as const,
      'le16' as const,
      'le32' as const,
      'le64' as const,
      'index' as const,
      'copy' as const,
    ),
    at: fc.nat(PAGES * PAGE_4K),
    value: fc.option(fc.nat(0xff)),
  }),
)

const WIDTHS = { u8: 1, le16: 2, le32: 4, le64: 8, index: 2, copy: 13 } as const

/** Performs an access; a load answers the bytes it saw. */
function perform(window: Window, base: number, what: keyof typeof WIDTHS, value: number | null): number[] {
  const bytes = new Uint8Array(WIDTHS[what]).fill(value ?? 0)
  const view = new DataView(bytes.buffer)
  const isLoad = value === null
  if (what === 'u8') {
    if (isLoad) view.setUint8(0, window.u8(U8, base))
    else window.putU8(U8, view.getUint8(0), base)
  } else if (what === 'le16') {
    if (isLoad) view.setUint16(0, window.le16(LE16, base), true)
    else window.putLe16(LE16, view.getUint16(0, true), base)
  } else if (what === 'index') {
    if (isLoad) view.setUint16(0, window.loadIndex(LE16, base), true)
    else window.storeIndex(LE16, view.getUint16(0, true), base)
  } else if (what === 'le32') {
    if (isLoad) view.setUint32(0, window.le32(LE32, base), true)
    else window.putLe32(LE32, view.getUint32(0, true), base)
  } else if (what === 'le64') {
    /** Numbers are exact below 2^53 only. */
    if (isLoad) view.setBigUint64(0, BigInt(window.le64(LE64, base)), true)
    else {
      bytes[6] = 0
      bytes[7] = 0
      window.putLe64(LE64, Number(view.getBigUint64(0, true)), base)
    }
  } else if (isLoad) window.copyOut(base, bytes)
  else window.copyIn(base, bytes)
  return [...bytes]
}

describe('windows, whatever is unmapped and protected under them', () => {
  it('hold what was written, and exit exactly where a page does not permit the access', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 10, maxLength: 60 }), (steps) => {
        const { machine, seen, memory } = repairing()
        const model = new Uint8Array(PAGES * PAGE_4K)
        /** Permissions by page, as the EPT has them now. */
        const pages = new Array<number>(PAGES).fill(RWX)
        const windows: { window: Window; base: number; at: number; lengthBytes: number }[] = []
        for (const one of steps) {
          if (one.do === 'unmap' || one.do === 'protect') {
            const at = FIRST + one.page * PAGE_4K
            if (one.do === 'unmap') machine.ept.unmap(at, PAGE_4K)
            else machine.ept.protect(at, PAGE_4K, EptEntry.READ)
            if (one.do === 'unmap' || pages[one.page] !== 0)
              pages[one.page] = one.do === 'unmap' ? 0 : EptEntry.READ
            machine.processor.invalidate()
          } else if (one.do === 'window') {
            const lengthBytes = Math.min(one.lengthBytes, PAGES * PAGE_4K - one.at)
            const cursor = new Cursor()
            if (one.pointed) memory.point(cursor, gpa(FIRST + one.at), lengthBytes)
            else cursor.window = windowAt(memory, FIRST + one.at, lengthBytes)
            windows.push({ window: cursor.window, base: cursor.base, at: one.at, lengthBytes })
          } else if (one.do === 'access' && windows.length > 0) {
            const { window, base, at, lengthBytes } = windows[
              one.window % windows.length
            ] as (typeof windows)[0]
            const width = WIDTHS[one.what]
            if (lengthBytes < width) continue
            let offset = one.at % (lengthBytes - width + 1)
            if (one.what === 'index') offset -= offset % 2
            seen.length = 0
            const bytes = perform(window, base + offset, one.what, one.value)
            const from = at + offset
            expect(seen).toEqual(missed(pages, from, width, one.what, one.value !== null))
            if (one.value !== null) model.set(bytes, from)
            else if (one.what === 'le64')
              expect(rounded(bytes)).toBe(rounded([...model.subarray(from, from + 8)]))
            else expect(bytes).toEqual([...model.subarray(from, from + width)])
          }
        }
        const ram = machine.ram.subarray(FIRST, FIRST + PAGES * PAGE_4K)
        expect(Buffer.compare(ram, model)).toBe(0)
      }),
      { numRuns: 100 },
    )
  })
})

/** A 64-bit field is read as a Number, rounded once. */
function rounded(bytes: readonly number[]): number {
  return Number(new DataView(Uint8Array.from(bytes).buffer).getBigUint64(0, true))
}

/** The exits an access takes: one for each page that does not permit it, which root software then repairs. */
function missed(pages: number[], from: number, width: number, what: string, isWrite: boolean): Seen[] {
  const seen: Seen[] = []
  /** A 64-bit field is read and written as two halves. */
  const starts = what === 'le64' ? [from, from + 4] : [from]
  for (const start of starts) {
    const end = start + width / starts.length
    for (let at = start; at < end; at += PAGE_4K - (at % PAGE_4K)) {
      const page = Math.floor(at / PAGE_4K)
      const permissions = pages[page] as number
      if ((permissions & (isWrite ? EptEntry.WRITE : EptEntry.READ)) !== 0) continue
      const qualification = (isWrite ? WRITE : READ) + permissions * 8
      seen.push({ reason: ExitReason.EPT_VIOLATION, at: FIRST + at, qualification })
      pages[page] = RWX
    }
  }
  return seen
}
