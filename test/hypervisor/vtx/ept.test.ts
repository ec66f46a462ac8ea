import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Capability } from '../../../hypervisor/vtx/capability.ts'
import { EptTables, PagePool } from '../../../hypervisor/vtx/ept.ts'
import { Access, EptEntry, EptWalk, PAGE_1G, PAGE_2M, PAGE_4K } from '../../../hypervisor/vtx/ept-walk.ts'
import { Physical } from '../../../hypervisor/vtx/physical.ts'
import { GuestMemory } from '../../../protocol/memory.ts'

const TABLES_BYTES = 4 * 2 ** 20
const capability = new Capability()

function tables(leafLevelMax: 1 | 2 | 3 = 3) {
  const physical = new Physical(GuestMemory.ofBytes(TABLES_BYTES))
  const ept = new EptTables(physical, new PagePool(0x1000, TABLES_BYTES - 0x1000), leafLevelMax)
  return { physical, ept, walk: new EptWalk(physical, capability) }
}

/** What is mapped, page by page: the model. */
type Pages = Map<number, { readonly to: number; readonly permissions: number }>

type Operation =
  | {
      readonly do: 'map'
      readonly page: number
      readonly count: number
      readonly to: number
      readonly permissions: number
    }
  | { readonly do: 'unmap'; readonly page: number; readonly count: number }
  | { readonly do: 'protect'; readonly page: number; readonly count: number; readonly permissions: number }

/** R, RW, RX, RWX: permissions that are no misconfiguration. */
const permissions = fc.constantFrom(1, 3, 5, 7)
/** Pages around the edges of 2 MiB leaves, and of a 1 GiB one. */
const pages = fc.oneof(
  fc.nat(1100),
  fc.nat(40).map((page) => page + 2 ** 18 - 20),
  fc.nat(3).map((index) => index * 512),
)
const counts = fc.oneof(fc.integer({ min: 1, max: 20 }), fc.constantFrom(511, 512, 513, 1024, 1030))

const operation: fc.Arbitrary<Operation> = fc.oneof(
  fc.record({
    do: fc.constant('map' as const),
    page: pages,
    count: counts,
    to: fc.oneof(
      fc.nat(5000),
      fc.nat(5).map((index) => index * 512),
      fc.constant(2 ** 20),
    ),
    permissions,
  }),
  fc.record({ do: fc.constant('unmap' as const), page: pages, count: counts }),
  fc.record({ do: fc.constant('protect' as const), page: pages, count: counts, permissions }),
)

function apply(model: Pages, one: Operation): void {
  for (let index = 0; index < one.count; index++) {
    const page = one.page + index
    const known = model.get(page)
    if (one.do === 'map') model.set(page, { to: one.to + index, permissions: one.permissions })
    else if (one.do === 'unmap') model.delete(page)
    else if (known !== undefined) model.set(page, { ...known, permissions: one.permissions })
  }
}

function change(ept: EptTables, one: Operation): void {
  const at = one.page * PAGE_4K
  const lengthBytes = one.count * PAGE_4K
  if (one.do === 'map') ept.map(at, lengthBytes, { to: one.to * PAGE_4K, permissions: one.permissions })
  else if (one.do === 'unmap') ept.unmap(at, lengthBytes)
  else ept.protect(at, lengthBytes, one.permissions)
}

const INTERESTING = [
  0,
  1,
  19,
  20,
  510,
  511,
  512,
  513,
  1023,
  1024,
  1025,
  1029,
  1500,
  1540,
  2 ** 18 - 1,
  2 ** 18,
  2 ** 18 + 600,
]

describe('an EPT walk finds what was mapped', () => {
  it.each([1, 2, 3] as const)(
    'whatever is mapped, unmapped and protected, with leaves up to level %i',
    (level) => {
      fc.assert(
        fc.property(
          fc.array(operation, { minLength: 1, maxLength: 8 }),
          fc.nat(4095),
          (operations, offset) => {
            const { ept, walk } = tables(level)
            const model: Pages = new Map()
            for (const one of operations) {
              change(ept, one)
              apply(model, one)
            }
            const asked = new Set(INTERESTING)
            for (const one of operations) {
              for (const page of [one.page - 1, one.page, one.page + one.count - 1, one.page + one.count])
                asked.add(page)
            }
            for (const page of asked) {
              if (page < 0) continue
              const wanted = model.get(page)
              for (const access of [Access.READ, Access.WRITE, Access.FETCH, Access.READ | Access.WRITE]) {
                const allowed = wanted !== undefined && (wanted.permissions & access) === access
                expect(walk.walk(ept.pointer(), page * PAGE_4K + offset, access)).toBe(
                  allowed ? 'mapped' : 'violation',
                )
                expect(walk.permissions & 7).toBe(wanted?.permissions ?? 0)
                if (allowed) expect(walk.address).toBe(wanted.to * PAGE_4K + offset)
              }
            }
          },
        ),
        { numRuns: 60 },
      )
    },
  )

  it('with the largest leaf that alignment permits, split only where a part changes', () => {
    const { ept, walk } = tables()
    ept.map(0, 2 * PAGE_1G, { to: PAGE_1G, permissions: 7 })
    const leafAt = (at: number): number => {
      expect(walk.walk(ept.pointer(), at, Access.READ)).toBe('mapped')
      return walk.leafBytes
    }
    expect([leafAt(0), leafAt(PAGE_1G)]).toEqual([PAGE_1G, PAGE_1G])
    ept.protect(PAGE_1G + 5 * PAGE_2M + 7 * PAGE_4K, PAGE_4K, EptEntry.READ)
    expect(leafAt(0)).toBe(PAGE_1G)
    expect(leafAt(PAGE_1G)).toBe(PAGE_2M)
    expect(leafAt(PAGE_1G + 5 * PAGE_2M)).toBe(PAGE_4K)
    expect(leafAt(PAGE_1G + 6 * PAGE_2M)).toBe(PAGE_2M)
    ept.map(PAGE_1G, PAGE_1G, { to: 0, permissions: 7 })
    expect(leafAt(PAGE_1G + 5 * PAGE_2M)).toBe(PAGE_1G)
  })

  it('keeps flags and memory type through a split', () => {
    const { physical, ept, walk } = tables()
    ept.map(0, PAGE_2M, { to: 0x4000_0000, permissions: 7, memoryType: 0 })
    const pointer = ept.pointer(true)
    walk.walk(pointer, 5 * PAGE_4K, Access.WRITE)
    ept.unmap(0, PAGE_4K)
    const pdpt = physical.le32(pointer - (pointer % PAGE_4K)) & ~0xfff
    const directory = physical.le32(pdpt) & ~0xfff
    const table = physical.le32(directory) & ~0xfff
    expect(physical.le32(table + 8 * 5)).toBe(0x4000_5000 + 7 + EptEntry.ACCESSED + EptEntry.DIRTY)
    expect(physical.le32(table)).toBe(0)
  })

  it('gives its tables back when a large leaf replaces them', () => {
    const { ept } = tables()
    for (let round = 0; round < 2000; round++) {
      ept.map(PAGE_4K, PAGE_4K, { to: 0, permissions: 7 })
      ept.map(0, PAGE_1G, { to: 0, permissions: 7 })
    }
    expect(() => ept.map(3, PAGE_4K, { to: 0, permissions: 7 })).toThrow(/whole pages/)
    expect(() => ept.map(2 ** 48 - PAGE_4K, 2 * PAGE_4K, { to: 0, permissions: 7 })).toThrow(/2\^48/)
  })
})

/** The entry that translates an address at a level, found by the definition of the format. */
function entryAt(physical: Physical, pointer: number, address: number, level: number): number {
  let table = pointer - (pointer % PAGE_4K)
  for (let at = 4; at > level; at--) {
    const entry = table + 8 * (Math.floor(address / (PAGE_4K * 512 ** (at - 1))) % 512)
    table = (physical.le32(entry) & ~0xfff) >>> 0
  }
  return table + 8 * (Math.floor(address / (PAGE_4K * 512 ** (level - 1))) % 512)
}

describe('accessed and dirty flags', () => {
  const at = 3 * PAGE_2M + 9 * PAGE_4K

  function flagsAfter(access: number, accessedDirty: boolean): number[] {
    const { physical, ept, walk } = tables(1)
    ept.map(at, PAGE_4K, { to: 0, permissions: 7 })
    const pointer = ept.pointer(accessedDirty)
    expect(walk.walk(pointer, at, access)).toBe('mapped')
    return [4, 3, 2, 1].map((level) => physical.le32(entryAt(physical, pointer, at, level)) & 0x300)
  }

  it('are set on the way down by a read, and dirty in the leaf alone by a write', () => {
    const A = EptEntry.ACCESSED
    expect(flagsAfter(Access.READ, true)).toEqual([A, A, A, A])
    expect(flagsAfter(Access.FETCH, true)).toEqual([A, A, A, A])
    expect(flagsAfter(Access.WRITE, true)).toEqual([A, A, A, A | EptEntry.DIRTY])
  })

  it('are not touched where the EPT pointer does not ask for them', () => {
    expect(flagsAfter(Access.WRITE, false)).toEqual([0, 0, 0, 0])
  })

  it('are not set by an access that is refused', () => {
    const { physical, ept, walk } = tables(1)
    ept.map(at, PAGE_4K, { to: 0, permissions: EptEntry.READ })
    const pointer = ept.pointer(true)
    expect(walk.walk(pointer, at, Access.WRITE)).toBe('violation')
    expect(physical.le32(entryAt(physical, pointer, at, 1)) & 0x300).toBe(0)
  })
})

/** SDM vol. 3, 29.3.3.1, in the words of the table: what makes an entry a misconfiguration. */
function misconfigured(low: number, high: number, level: number): boolean {
  const rwx = low & 7
  if (rwx === 0) return false
  if (rwx === 2 || rwx === 6) return true
  const address = BigInt(high & 0xf_ffff) * 2n ** 32n + BigInt(low >>> 0)
  if (address >= 2n ** 40n) return true
  const leaf = level === 1 || (level < 4 && (low & 0x80) !== 0)
  if (!leaf) return level === 4 ? (low & 0xf8) !== 0 : (low & 0x78) !== 0
  const type = (low >> 3) & 7
  if (![0, 1, 4, 5, 6].includes(type)) return true
  const reservedFrom = level === 3 ? 30n : level === 2 ? 21n : 12n
  return (address & (2n ** reservedFrom - 1n) & ~0xfffn) !== 0n
}

describe('misconfiguration', () => {
  const sparse = fc.oneof(fc.constantFrom(0, 0x30, 0x80, 0xb0, 0x1000, 0x20_0000, 0x4000_0000), fc.nat(0xfff))
  it.each([1, 2, 3, 4])(
    'is recognized in an entry of level %i by the rules of 29.3.3.1, and nothing else is',
    (level) => {
      fc.assert(
        fc.property(
          sparse,
          sparse,
          fc.constantFrom(0, 1, 0xff, 0x100, 0x8000_0000),
          fc.nat(7),
          (a, b, high, rwx) => {
            const { physical, ept, walk } = tables(1)
            const at = 5 * PAGE_4K
            ept.map(at, PAGE_4K, { to: 0x7000, permissions: 7 })
            const entry = entryAt(physical, ept.pointer(), at, level)
            const low = ((a | b) & ~7) | rwx
            physical.putLe32(entry, low)
            physical.putLe32(entry + 4, high)
            const outcome = walk.walk(ept.pointer(), at, Access.READ)
            if (rwx === 0) expect(outcome).toBe('violation')
            else if (misconfigured(low, high, level)) expect(outcome).toBe('misconfiguration')
            else if (level === 1 || (level < 4 && (low & 0x80) !== 0)) {
              expect(outcome).toBe((rwx & 1) === 1 ? 'mapped' : 'violation')
            }
          },
        ),
        { numRuns: 300 },
      )
    },
  )
})
