import { Access, EPTP_ACCESSED_DIRTY, type EptWalk, PAGE_4K, type Translated } from './ept-walk.ts'

const ENTRIES = 64
const NO_PAGE = -1
/** EPT is off: guest-physical addresses are host-physical addresses. */
export const NO_EPT = -1

/**
 * What the processor remembers of guest-physical translations: a small direct-mapped TLB in front of the EPT
 * walk. Only what is mapped is remembered (SDM vol. 3, 29.4.2), and a right that was taken away in memory
 * stays in force until INVEPT.
 */
export class Translation {
  readonly walk: EptWalk
  readonly #tags: Float64Array
  readonly #frames: Float64Array
  readonly #rights: Uint8Array
  #pointer: number
  /** Host-physical address of the byte last translated. */
  address: number

  constructor(walk: EptWalk) {
    this.walk = walk
    this.#tags = new Float64Array(ENTRIES).fill(NO_PAGE)
    this.#frames = new Float64Array(ENTRIES)
    this.#rights = new Uint8Array(ENTRIES)
    this.#pointer = NO_EPT
    this.address = 0
  }

  get pointer(): number {
    return this.#pointer
  }

  get marksAccess(): boolean {
    return this.#pointer !== NO_EPT && (this.#pointer & EPTP_ACCESSED_DIRTY) !== 0
  }

  /** The EPT pointer in force; another context has translations of its own. True when it changed. */
  use(pointer: number): boolean {
    if (pointer === this.#pointer) return false
    this.#pointer = pointer
    this.invalidate()
    return true
  }

  translate(at: number, access: number): Translated {
    if (this.#pointer === NO_EPT) {
      this.address = at
      return 'mapped'
    }
    const page = Math.floor(at / PAGE_4K)
    const entry = page % ENTRIES
    if (this.#tags[entry] === page && ((this.#rights[entry] as number) & access) === access) {
      this.address = (this.#frames[entry] as number) + (at - page * PAGE_4K)
      return 'mapped'
    }
    const outcome = this.walk.walk(this.#pointer, at, access)
    if (outcome !== 'mapped') return outcome
    this.address = this.walk.address
    this.#tags[entry] = page
    this.#frames[entry] = this.walk.address - (at - page * PAGE_4K)
    /** The first write has to set the dirty flag, so a read does not bring the right to write. */
    const clean = this.marksAccess && (access & Access.WRITE) === 0
    this.#rights[entry] = clean ? this.walk.permissions & ~Access.WRITE : this.walk.permissions
    return 'mapped'
  }

  invalidate(): void {
    this.#tags.fill(NO_PAGE)
  }
}
