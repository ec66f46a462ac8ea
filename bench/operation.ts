import type { BlkGeometry } from '../guest/virtio/blk-geometry.ts'
import type { Random } from '../protocol/platform.ts'
import { type FeatureSet, hasFeature } from '../protocol/version.ts'
import { BLK_ID_BYTES, BlkFeature, BlkType, SECTOR_BYTES } from '../protocol/virtio/blk.ts'

/** One request of the workload. Ranges are counted in the disk's own blocks; 0 where there is none. */
export interface Operation {
  readonly type: number
  readonly block: number
  readonly count: number
}

export const IDENTIFY: Operation = { type: BlkType.GET_ID, block: 0, count: 0 }
export const IDENTIFY_BYTES = BLK_ID_BYTES

/** How often each is drawn, where the device offers it. */
const WEIGHTS: readonly { readonly type: number; readonly weight: number }[] = [
  { type: BlkType.IN, weight: 50 },
  { type: BlkType.OUT, weight: 34 },
  { type: BlkType.FLUSH, weight: 4 },
  { type: BlkType.DISCARD, weight: 4 },
  { type: BlkType.WRITE_ZEROES, weight: 6 },
  { type: BlkType.SECURE_ERASE, weight: 2 },
]
const BLOCKS_MAX = 64
/** Half of the requests fall here, so that on a disk of any size writes are read back. */
const HOT_BLOCKS = 1024

/** Draws requests that the driver may make of this device: only what it offers, only within its limits. */
export class OperationSource {
  readonly #random: Random
  readonly #kinds: readonly { readonly type: number; readonly weight: number }[]
  readonly #weight: number
  readonly #blocks: number
  readonly #hotFrom: number
  readonly #most: ReadonlyMap<number, number>

  constructor(random: Random, features: FeatureSet, geometry: BlkGeometry, bufferBytes: number) {
    const blockSectors = geometry.blockBytes / SECTOR_BYTES
    const inBuffer = Math.floor(bufferBytes / geometry.blockBytes)
    this.#random = random
    this.#blocks = Math.floor(geometry.capacitySectors / blockSectors)
    this.#most = new Map([
      [BlkType.IN, inBuffer],
      [BlkType.OUT, inBuffer],
      [BlkType.DISCARD, Math.floor(geometry.discardSectorsMax / blockSectors)],
      [BlkType.WRITE_ZEROES, Math.floor(geometry.zeroSectorsMax / blockSectors)],
      [BlkType.SECURE_ERASE, Math.floor(geometry.eraseSectorsMax / blockSectors)],
    ])
    const readOnly = hasFeature(features, BlkFeature.RO.bit)
    this.#kinds = WEIGHTS.filter(({ type }) => {
      if (type === BlkType.FLUSH) return hasFeature(features, BlkFeature.FLUSH.bit)
      return (type === BlkType.IN || !readOnly) && (this.#most.get(type) ?? 0) > 0
    })
    this.#weight = this.#kinds.reduce((sum, { weight }) => sum + weight, 0)
    this.#hotFrom = this.#anywhere(Math.max(1, this.#blocks - HOT_BLOCKS))
  }

  next(): Operation {
    const type = this.#kind()
    if (type === BlkType.FLUSH) return { type, block: 0, count: 0 }
    const hot = this.#random.below(2) === 0
    const block = hot
      ? this.#hotFrom + this.#anywhere(Math.min(HOT_BLOCKS, this.#blocks - this.#hotFrom))
      : this.#anywhere(this.#blocks)
    const most = Math.min(BLOCKS_MAX, this.#most.get(type) ?? 1, this.#blocks - block)
    // Short ones are the common case, long ones find the edges.
    const limit = this.#random.below(4) === 0 ? most : Math.min(most, 8)
    return { type, block, count: 1 + this.#random.below(limit) }
  }

  #kind(): number {
    let left = this.#random.below(this.#weight)
    for (const { type, weight } of this.#kinds) {
      if (left < weight) return type
      left -= weight
    }
    return BlkType.IN
  }

  /** A block below `limit`, which may be past 2^32. */
  #anywhere(limit: number): number {
    if (limit <= 2 ** 32) return this.#random.below(limit)
    return Math.floor((this.#random.next32() / 2 ** 32) * limit)
  }
}
