import { uniformInt } from 'pure-rand/distribution/uniformInt'
import { xoroshiro128plusFromState } from 'pure-rand/generator/xoroshiro128plus'
import type { Random } from '../protocol/platform.ts'

type Generator = ReturnType<typeof xoroshiro128plusFromState>

const FNV_PRIME = 0x01000193

/**
 * A seeded stream. Its numbers follow from the seed and the path alone, so that a part added beside another
 * one, or one that draws more, shifts nobody else's.
 */
export class SeededRandom implements Random {
  readonly #path: string
  readonly #generator: Generator

  /** @param path the seed, then the parts that lead here: `42/disk0/delay`. */
  constructor(path: string) {
    this.#path = path
    this.#generator = xoroshiro128plusFromState(stateOf(path))
  }

  next32(): number {
    return this.#generator.next() >>> 0
  }

  /** @throws RangeError when `limit` is not a whole number from 1 to 2^32: our own mistake. */
  below(limit: number): number {
    if (!(Number.isInteger(limit) && limit >= 1 && limit <= 2 ** 32)) {
      throw new RangeError(`random: a limit of ${limit}`)
    }
    return uniformInt(this.#generator, 0, limit - 1)
  }

  stream(path: string): SeededRandom {
    return new SeededRandom(`${this.#path}/${path}`)
  }
}

/** The root of a run's streams. */
export function seededRandom(seed: number | string): SeededRandom {
  return new SeededRandom(String(seed))
}

/** 128 bits from a text: FNV-1a from four starting points, each spread by MurmurHash3's finaliser. */
function stateOf(text: string): number[] {
  const state = [0x811c9dc5, 0x9e3779b9, 0x85ebca6b, 0xc2b2ae35].map((start) => {
    let hash = start
    for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), FNV_PRIME)
    return spread(hash)
  })
  // All zero is the one state from which the generator never leaves.
  return state.every((word) => word === 0) ? [1, 2, 3, 4] : state
}

function spread(hash: number): number {
  let mixed = hash ^ (hash >>> 16)
  mixed = Math.imul(mixed, 0x85ebca6b)
  mixed ^= mixed >>> 13
  mixed = Math.imul(mixed, 0xc2b2ae35)
  return (mixed ^ (mixed >>> 16)) | 0
}
