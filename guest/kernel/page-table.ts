/** Pages of one table, as x64 has them. */
const TABLE_PAGES = 512
const TABLE_SHIFT = 9

interface Table {
  /** 0: not mapped; frame + 1; the same below zero: read-only. */
  readonly entries: Int32Array
  mapped: number
}

const NO_TABLE: Table = { entries: new Int32Array(TABLE_PAGES), mapped: 0 }

/**
 * Virtual pages to page frames, in tables that come and go with what is mapped in them. A buffer's pages lie in one
 * table as a rule: it is looked up once, and a request of a megabyte asks for 256 of them several times over.
 */
export class PageTable {
  readonly #tables: Map<number, Table>
  /** The table asked for last. */
  #number: number
  #last: Table

  constructor() {
    this.#tables = new Map()
    this.#number = -1
    this.#last = NO_TABLE
  }

  map(page: number, frame: number, writable: boolean): void {
    const number = page >>> TABLE_SHIFT
    let table = this.#tables.get(number)
    if (table === undefined) {
      table = { entries: new Int32Array(TABLE_PAGES), mapped: 0 }
      this.#tables.set(number, table)
      this.#number = -1
    }
    const index = page & (TABLE_PAGES - 1)
    if (table.entries[index] === 0) table.mapped++
    table.entries[index] = writable ? frame + 1 : -frame - 1
  }

  /** Whether it was mapped. */
  unmap(page: number): boolean {
    const number = page >>> TABLE_SHIFT
    const table = this.#tables.get(number)
    const index = page & (TABLE_PAGES - 1)
    if (table === undefined || table.entries[index] === 0) return false
    table.entries[index] = 0
    // Where it was asked for last it is still asked, and maps nothing.
    if (--table.mapped === 0) this.#tables.delete(number)
    return true
  }

  /** -1 when it is not mapped, or read-only and to be written. */
  frameOf(page: number, write: boolean): number {
    const number = page >>> TABLE_SHIFT
    if (number !== this.#number) {
      this.#last = this.#tables.get(number) ?? NO_TABLE
      this.#number = number
    }
    const entry = this.#last.entries[page & (TABLE_PAGES - 1)] as number
    if (entry > 0) return entry - 1
    return entry < 0 && !write ? -entry - 1 : -1
  }
}
