import type { Elements } from '../protocol/layout.ts'
import type { Window } from '../protocol/window.ts'

/** No vector: they are 0 to 255. */
export const NO_VECTOR = -1

const WORDS = 8

/**
 * 256 bits, one a vector, as an APIC keeps them: eight 32-bit registers, `stride` bytes apart (16 in an APIC
 * page, 4 in a posted-interrupt descriptor).
 */
export class VectorBits {
  readonly #window: Window
  readonly #at: Elements<'le32'>
  readonly #stride: number

  constructor(window: Window, at: number, stride: number) {
    this.#window = window
    this.#at = at as Elements<'le32'>
    this.#stride = stride
  }

  has(vector: number): boolean {
    return ((this.#word(vector >> 5) >>> (vector & 31)) & 1) === 1
  }

  set(vector: number): void {
    this.#put(vector >> 5, this.#word(vector >> 5) | (1 << (vector & 31)))
  }

  clear(vector: number): void {
    this.#put(vector >> 5, this.#word(vector >> 5) & ~(1 << (vector & 31)))
  }

  /** The highest vector whose bit is set, or `NO_VECTOR`. */
  highest(): number {
    for (let index = WORDS - 1; index >= 0; index--) {
      const word = this.#word(index)
      if (word !== 0) return index * 32 + 31 - Math.clz32(word)
    }
    return NO_VECTOR
  }

  /** Moves every bit that is set here to `into`; false when there was none. */
  drainTo(into: VectorBits): boolean {
    let any = 0
    for (let index = 0; index < WORDS; index++) {
      const word = this.#word(index)
      if (word === 0) continue
      any |= word
      into.#put(index, into.#word(index) | word)
      this.#put(index, 0)
    }
    return any !== 0
  }

  clearAll(): void {
    for (let index = 0; index < WORDS; index++) this.#put(index, 0)
  }

  #word(index: number): number {
    return this.#window.le32(this.#at, index * this.#stride)
  }

  #put(index: number, word: number): void {
    this.#window.putLe32(this.#at, word, index * this.#stride)
  }
}
