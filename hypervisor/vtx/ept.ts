import type { Plain } from '../../protocol/platform.ts'
import { EptEntry, PAGE_4K, spanOf } from './ept-walk.ts'
import type { Physical } from './physical.ts'

const TWO_32 = 0x1_0000_0000

export const EptMemoryType = { UNCACHEABLE: 0, WRITE_BACK: 6 } as const

export interface EptMapping {
  /** Host-physical address of the first byte. */
  readonly to: number
  /** Any of `EptEntry.READ`, `WRITE`, `EXECUTE`; combinations that are misconfigurations are written as asked. */
  readonly permissions: number
  readonly memoryType?: number
}

/** Pages of host-physical memory for tables: taken in order, given back when a table is emptied. */
export class PagePool {
  readonly #end: number
  readonly #first: number
  #free: number[]
  #next: number

  constructor(base: number, lengthBytes: number) {
    this.#next = Math.ceil(base / PAGE_4K) * PAGE_4K
    this.#first = this.#next
    this.#end = base + lengthBytes
    this.#free = []
  }

  /** @throws when no page is left: our own sizing mistake. */
  take(): number {
    const again = this.#free.pop()
    if (again !== undefined) return again
    if (!(this.#next + PAGE_4K <= this.#end)) throw new RangeError('no page is left for EPT tables')
    this.#next += PAGE_4K
    return this.#next - PAGE_4K
  }

  give(page: number): void {
    this.#free.push(page)
  }

  save(): Plain {
    return { next: this.#next, free: [...this.#free] }
  }

  load(saved: Plain): string | null {
    if (typeof saved !== 'object' || saved === null) return 'page pool state is not an object'
    const { next, free } = saved as Record<string, Plain | undefined>
    const isPage = (page: Plain | undefined): page is number =>
      typeof page === 'number' && page % PAGE_4K === 0 && page >= this.#first && page <= this.#end
    if (!isPage(next)) return 'page pool state: next is no page of the pool'
    if (!Array.isArray(free) || !free.every((page) => isPage(page) && page < next)) {
      return 'page pool state: a free page was never taken'
    }
    this.#next = next
    this.#free = [...(free as number[])]
    return null
  }
}

/** What one operation does to the entries of its range. */
interface Change {
  /** For an entry whose whole span is in the range. False: go down into it. */
  whole(entry: number, level: number, from: number): boolean
  /** Whether an empty entry that is only partly in the range becomes a table. */
  readonly fills: boolean
}

/**
 * Extended page tables as root software keeps them, in the hypervisor's own memory. Whole pages; the largest
 * leaves that alignment permits; a large leaf is split when a part of it changes.
 *
 * Nothing here drops a translation the processor remembers: that is `invalidate` (INVEPT), which root software
 * owes after `unmap`, after a mapping is replaced, and after `protect` took a right away (SDM vol. 3, 29.4.3).
 */
export class EptTables {
  readonly #physical: Physical
  readonly #pages: PagePool
  readonly #root: number
  readonly #leafLevelMax: number

  /** `leafLevelMax`: 3 permits 1 GiB leaves, 2 up to 2 MiB, 1 only 4 KiB. */
  constructor(physical: Physical, pages: PagePool, leafLevelMax: 1 | 2 | 3 = 3) {
    this.#physical = physical
    this.#pages = pages
    this.#leafLevelMax = leafLevelMax
    this.#root = this.#newTable()
  }

  /** The EPT pointer: write-back, four levels. */
  pointer(accessedDirty = false): number {
    return this.#root + EptMemoryType.WRITE_BACK + 0x18 + (accessedDirty ? 0x40 : 0)
  }

  /** @throws unless `at`, `lengthBytes` and the target are whole pages below 2^48. */
  map(at: number, lengthBytes: number, mapping: EptMapping): void {
    wholePages(at, lengthBytes)
    wholePages(mapping.to, lengthBytes)
    const attributes = mapping.permissions + (mapping.memoryType ?? EptMemoryType.WRITE_BACK) * 8
    const whole = (entry: number, level: number, from: number): boolean => {
      const to = mapping.to + (from - at)
      if (level > this.#leafLevelMax || to % spanOf(level) !== 0) return false
      this.#release(entry, level)
      this.#write(entry, to, attributes + (level > 1 ? EptEntry.LARGE : 0))
      return true
    }
    this.#change(this.#root, 4, 0, at, at + lengthBytes, { whole, fills: true })
  }

  unmap(at: number, lengthBytes: number): void {
    wholePages(at, lengthBytes)
    const whole = (entry: number, level: number): boolean => {
      this.#release(entry, level)
      this.#write(entry, 0, 0)
      return true
    }
    this.#change(this.#root, 4, 0, at, at + lengthBytes, { whole, fills: false })
  }

  /** Changes the permissions of what is mapped in the range; what is not mapped stays so. */
  protect(at: number, lengthBytes: number, permissions: number): void {
    wholePages(at, lengthBytes)
    const whole = (entry: number, level: number): boolean => {
      if (this.#isTable(entry, level)) return false
      const low = this.#physical.le32(entry)
      if ((low & 7) !== 0) this.#physical.putLe32(entry, (low & ~7) | permissions)
      return true
    }
    this.#change(this.#root, 4, 0, at, at + lengthBytes, { whole, fills: false })
  }

  #change(table: number, level: number, base: number, from: number, end: number, change: Change): void {
    const span = spanOf(level)
    for (let start = base + Math.floor((from - base) / span) * span; start < end; start += span) {
      const entry = table + 8 * Math.floor((start - base) / span)
      const lo = Math.max(from, start)
      const hi = Math.min(end, start + span)
      if (hi - lo === span && change.whole(entry, level, start)) continue
      if (!this.#isTable(entry, level)) {
        if (!this.#present(entry) && !change.fills) continue
        this.#split(entry, level)
      }
      this.#change(this.#target(entry), level - 1, start, lo, hi, change)
    }
  }

  /** Puts a table under an entry that translates the same as before: 512 smaller leaves, or nothing. */
  #split(entry: number, level: number): void {
    const table = this.#newTable()
    if (this.#present(entry)) {
      const to = this.#target(entry)
      const large = level - 1 > 1 ? 0 : EptEntry.LARGE
      const attributes = (this.#physical.le32(entry) & 0xfff) - large
      for (let index = 0; index < 512; index++) {
        this.#write(table + 8 * index, to + index * spanOf(level - 1), attributes)
      }
    }
    this.#write(entry, table, EptEntry.READ | EptEntry.WRITE | EptEntry.EXECUTE)
  }

  /** Gives back the tables below an entry. */
  #release(entry: number, level: number): void {
    if (!this.#isTable(entry, level)) return
    const table = this.#target(entry)
    for (let index = 0; index < 512; index++) this.#release(table + 8 * index, level - 1)
    this.#pages.give(table)
  }

  #newTable(): number {
    const page = this.#pages.take()
    for (let at = 0; at < PAGE_4K; at += 4) this.#physical.putLe32(page + at, 0)
    return page
  }

  #present(entry: number): boolean {
    return (this.#physical.le32(entry) & 7) !== 0
  }

  #isTable(entry: number, level: number): boolean {
    return level > 1 && this.#present(entry) && (this.#physical.le32(entry) & EptEntry.LARGE) === 0
  }

  #target(entry: number): number {
    const low = this.#physical.le32(entry)
    return low - (low % PAGE_4K) + (this.#physical.le32(entry + 4) & 0xf_ffff) * TWO_32
  }

  #write(entry: number, address: number, attributes: number): void {
    this.#physical.putLe32(entry, (address % TWO_32) + attributes)
    this.#physical.putLe32(entry + 4, Math.floor(address / TWO_32))
  }
}

function wholePages(at: number, lengthBytes: number): void {
  const whole = at % PAGE_4K === 0 && lengthBytes % PAGE_4K === 0
  if (!(whole && at >= 0 && lengthBytes > 0 && at + lengthBytes <= 2 ** 48)) {
    throw new RangeError(`EPT: ${lengthBytes} bytes at ${at} are not whole pages below 2^48`)
  }
}
