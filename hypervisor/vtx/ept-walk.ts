import type { Capability } from './capability.ts'
import type { Physical } from './physical.ts'

/** What an access wants; the same bits permit it in an EPT entry and name it in the qualification. */
export const Access = { READ: 1, WRITE: 2, FETCH: 4 } as const

export const EptEntry = {
  READ: 1,
  WRITE: 2,
  EXECUTE: 4,
  LARGE: 1 << 7,
  ACCESSED: 1 << 8,
  DIRTY: 1 << 9,
} as const

/** EPT pointer bit 6. */
export const EPTP_ACCESSED_DIRTY = 1 << 6

export const PAGE_4K = 4096
export const PAGE_2M = 2 ** 21
export const PAGE_1G = 2 ** 30

/** By level; the walk is too hot for powers. */
const SPANS = [0, PAGE_4K, PAGE_2M, PAGE_1G, 2 ** 39]

/** Bytes that one entry of a level covers; level 1 is the table of 4 KiB leaves. */
export function spanOf(level: number): number {
  return SPANS[level] as number
}

const TWO_32 = 0x1_0000_0000
/** Address bits 51:32 in the high half. */
const ADDRESS_HIGH = 0x000f_ffff

export type Translated = 'mapped' | 'violation' | 'misconfiguration'

/**
 * The walk of the extended page tables (SDM vol. 3, 29.3.2). Its result stays in its fields until the next
 * walk, so that walking allocates nothing.
 */
export class EptWalk {
  readonly #physical: Physical
  readonly #executeOnly: boolean
  readonly #addressEndHigh: number
  /** Addresses of the entries used, from the top. */
  readonly #used: Float64Array
  /** Host-physical address of the byte asked for, when mapped. */
  address: number
  /** Bytes of the leaf, when mapped. */
  leafBytes: number
  /** Permissions, as the AND of all entries used; for the qualification also when the walk ended early. */
  permissions: number

  constructor(physical: Physical, capability: Capability) {
    this.#physical = physical
    this.#executeOnly = capability.executeOnly
    this.#addressEndHigh = capability.physicalEnd / TWO_32
    this.#used = new Float64Array(4)
    this.address = 0
    this.leafBytes = 0
    this.permissions = 0
  }

  /** Translates a guest-physical address for an access. Accessed and dirty flags are set if the pointer asks. */
  walk(pointer: number, address: number, access: number): Translated {
    let table = pointer - (pointer & (PAGE_4K - 1))
    this.permissions = 7
    if (!(address < 2 ** 48)) {
      this.permissions = 0
      return 'violation'
    }
    for (let level = 4; ; level--) {
      const span = spanOf(level)
      const index = Math.floor(address / span)
      const entry = table + 8 * (index & 511)
      const low = this.#physical.le32(entry)
      const high = this.#physical.le32(entry + 4)
      this.#used[4 - level] = entry
      this.permissions &= low
      if ((low & 7) === 0) return 'violation'
      const leaf = level === 1 || ((low & EptEntry.LARGE) !== 0 && level <= 3)
      if (this.#misconfigured(low, high, level, leaf)) return 'misconfiguration'
      const base = (low & 0xffff_f000) >>> 0
      table = base + (high & ADDRESS_HIGH) * TWO_32
      if (!leaf) continue
      if ((this.permissions & access) !== access) return 'violation'
      this.address = table + (address - index * span)
      this.leafBytes = span
      if ((pointer & EPTP_ACCESSED_DIRTY) !== 0) this.#mark(4 - level, access)
      return 'mapped'
    }
  }

  /** SDM vol. 3, 29.3.3.1. */
  #misconfigured(low: number, high: number, level: number, leaf: boolean): boolean {
    const permissions = low & 7
    if ((permissions & 3) === EptEntry.WRITE) return true
    if (permissions === EptEntry.EXECUTE && !this.#executeOnly) return true
    if (!((high & ADDRESS_HIGH) < this.#addressEndHigh)) return true
    if (!leaf) return (low & (level === 4 ? 0xf8 : 0x78)) !== 0
    const type = (low >> 3) & 7
    if (type === 2 || type === 3 || type === 7) return true
    return level > 1 && ((low & 0xffff_f000) >>> 0) % Math.min(spanOf(level), TWO_32) !== 0
  }

  /** SDM vol. 3, 29.3.5. */
  #mark(leaf: number, access: number): void {
    for (let index = 0; index <= leaf; index++) {
      const at = this.#used[index] as number
      const low = this.#physical.le32(at)
      const dirty = index === leaf && (access & Access.WRITE) !== 0 ? EptEntry.DIRTY : 0
      const marked = low | EptEntry.ACCESSED | dirty
      if (marked !== low) this.#physical.putLe32(at, marked)
    }
  }
}
