import type { Field } from '../protocol/layout.ts'
import type { Window } from '../protocol/window.ts'
import { VectorBits } from './vector-bits.ts'

export const POSTED_INTERRUPT_BYTES = 64

/** Byte 32 of the descriptor: outstanding notification, suppress notification. */
const CONTROL = 32 as Field<'u8'>
const OUTSTANDING = 1
const SUPPRESS = 2
/** Bits 279:272. */
const VECTOR = 34 as Field<'u8'>

/**
 * A posted-interrupt descriptor (SDM vol. 3, 30.6): vectors that anybody may request for a processor that runs
 * its guest, and whether a notification is on its way.
 */
export class PostedInterrupts {
  readonly #window: Window
  readonly requests: VectorBits

  constructor(window: Window) {
    this.#window = window
    this.requests = new VectorBits(window, 0, 4)
  }

  setNotification(vector: number): void {
    this.#window.putU8(VECTOR, vector)
  }

  get outstanding(): boolean {
    return (this.#window.u8(CONTROL) & OUTSTANDING) !== 0
  }

  /** Requests a vector. True: a notification has to be sent, as none is on its way and none is suppressed. */
  post(vector: number): boolean {
    this.requests.set(vector)
    const control = this.#window.u8(CONTROL)
    if ((control & (OUTSTANDING | SUPPRESS)) !== 0) return false
    this.#window.putU8(CONTROL, control | OUTSTANDING)
    return true
  }

  /**
   * What the processor does at a notification, and root software before an entry: the outstanding bit goes, and
   * the requests are moved to `into` (VIRR). False when there was none.
   */
  take(into: VectorBits): boolean {
    this.#window.putU8(CONTROL, this.#window.u8(CONTROL) & ~OUTSTANDING)
    return this.requests.drainTo(into)
  }
}
