/**
 * What a disk holds by everything that was written to it, block by block. Blocks nobody wrote are the
 * backend's to tell; what a discard or an erase left is for nobody to say.
 */
export class ContentModel {
  readonly #blockBytes: number
  /** Null: anything may be there. */
  readonly #blocks: Map<number, Uint8Array | null>

  constructor(blockBytes: number) {
    this.#blockBytes = blockBytes
    this.#blocks = new Map()
  }

  /** Blocks that something was done to, in order. */
  get touched(): readonly number[] {
    return [...this.#blocks.keys()].sort((a, b) => a - b)
  }

  get blockBytes(): number {
    return this.#blockBytes
  }

  wrote(block: number, bytes: Uint8Array): void {
    const size = this.#blockBytes
    for (let at = 0; at < bytes.length; at += size) {
      this.#blocks.set(block + at / size, bytes.slice(at, at + size))
    }
  }

  zeroed(block: number, count: number): void {
    const zeroes = new Uint8Array(this.#blockBytes)
    for (let i = 0; i < count; i++) this.#blocks.set(block + i, zeroes)
  }

  forgot(block: number, count: number): void {
    for (let i = 0; i < count; i++) this.#blocks.set(block + i, null)
  }

  /** Whether the model alone can say what the blocks hold. */
  covers(block: number, count: number): boolean {
    for (let i = 0; i < count; i++) if (!this.#blocks.has(block + i)) return false
    return true
  }

  /**
   * Puts what is known over `expected`, which holds the backend's own content, and what cannot be known as it
   * was `seen`. Returns the bytes that are left to compare.
   */
  apply(block: number, expected: Uint8Array, seen: Uint8Array): number {
    const size = this.#blockBytes
    let compared = expected.length
    // A disk nobody wrote to is read whole without a look at each block.
    if (this.#blocks.size === 0) return compared
    for (let at = 0; at < expected.length; at += size) {
      const held = this.#blocks.get(block + at / size)
      if (held === undefined) continue
      expected.set(held ?? seen.subarray(at, at + size), at)
      if (held === null) compared -= size
    }
    return compared
  }
}
