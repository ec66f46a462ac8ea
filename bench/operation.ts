import type { Random } from '../protocol/platform.ts'

/** What an application asks of a drive. `write-through`: answered once it is on the medium. */
export type OperationKind = 'read' | 'write' | 'write-through' | 'flush' | 'trim'

/** One request of the workload. Ranges are counted in the drive's own blocks; 0 where there is none. */
export interface Operation {
  readonly kind: OperationKind
  readonly block: number
  readonly count: number
}

/** What the choice depends on. */
export interface OperationLimits {
  readonly blocks: number
  readonly readOnly: boolean
  readonly trims: boolean
  /** Blocks of one transfer. */
  readonly transferBlocksMax: number
}

/** How often each is drawn, where the drive offers it. */
const WEIGHTS: readonly { readonly kind: OperationKind; readonly weight: number }[] = [
  { kind: 'read', weight: 52 },
  { kind: 'write', weight: 34 },
  { kind: 'write-through', weight: 4 },
  { kind: 'flush', weight: 4 },
  { kind: 'trim', weight: 6 },
]
const BLOCKS_MAX = 64
/** A trim is no transfer: it may be longer than any. */
const TRIM_BLOCKS_MAX = 4096
/** Half of the requests fall here, so that on a drive of any size writes are read back. */
const HOT_BLOCKS = 1024

/** Draws requests that an application may make of this drive: only what it offers, only within its limits. */
export class OperationSource {
  readonly #random: Random
  readonly #limits: OperationLimits
  readonly #kinds: readonly { readonly kind: OperationKind; readonly weight: number }[]
  readonly #weight: number
  readonly #hotFrom: number

  constructor(random: Random, limits: OperationLimits) {
    this.#random = random
    this.#limits = limits
    this.#kinds = WEIGHTS.filter(({ kind }) => {
      if (kind === 'read' || kind === 'flush') return true
      return !limits.readOnly && (kind !== 'trim' || limits.trims)
    })
    this.#weight = this.#kinds.reduce((sum, { weight }) => sum + weight, 0)
    this.#hotFrom = this.#anywhere(Math.max(1, limits.blocks - HOT_BLOCKS))
  }

  next(): Operation {
    const kind = this.#kind()
    if (kind === 'flush') return { kind, block: 0, count: 0 }
    const { blocks, transferBlocksMax } = this.#limits
    const hot = this.#random.below(2) === 0
    const block = hot
      ? this.#hotFrom + this.#anywhere(Math.min(HOT_BLOCKS, blocks - this.#hotFrom))
      : this.#anywhere(blocks)
    const longest = kind === 'trim' ? TRIM_BLOCKS_MAX : Math.min(BLOCKS_MAX, transferBlocksMax)
    const most = Math.min(longest, blocks - block)
    // Short ones are the common case, long ones find the edges.
    const limit = this.#random.below(4) === 0 ? most : Math.min(most, 8)
    return { kind, block, count: 1 + this.#random.below(limit) }
  }

  #kind(): OperationKind {
    let left = this.#random.below(this.#weight)
    for (const { kind, weight } of this.#kinds) {
      if (left < weight) return kind
      left -= weight
    }
    return 'read'
  }

  /** A block below `limit`, which may be past 2^32. */
  #anywhere(limit: number): number {
    if (limit <= 2 ** 32) return this.#random.below(limit)
    return Math.floor((this.#random.next32() / 2 ** 32) * limit)
  }
}
