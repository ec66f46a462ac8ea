import type { Clock, InterruptLine } from '../protocol/platform.ts'

/** Service routines in a row that leave the line high: by then nothing will ever lower it. */
const STORM = 10_000

/**
 * A level-triggered line with one service routine behind it. Raising it makes a turn of the run queue, in
 * which the routine runs if the line is still high; a line that stays high asks again.
 */
export class LevelLine implements InterruptLine {
  readonly #clock: Clock
  readonly #turn: () => void
  #isr: (() => void) | null
  #high: boolean
  #pending: boolean
  #unserved: number
  #delivered: number

  constructor(clock: Clock) {
    this.#clock = clock
    this.#turn = () => this.#deliver()
    this.#isr = null
    this.#high = false
    this.#pending = false
    this.#unserved = 0
    this.#delivered = 0
  }

  /** Times the service routine ran. */
  get delivered(): number {
    return this.#delivered
  }

  connect(isr: () => void): void {
    if (this.#isr !== null) throw new Error('the interrupt line has a service routine already')
    this.#isr = isr
    if (this.#high) this.#ask()
  }

  raise(): void {
    this.#high = true
    this.#ask()
  }

  lower(): void {
    this.#high = false
  }

  #ask(): void {
    if (this.#pending || this.#isr === null) return
    this.#pending = true
    this.#clock.defer(this.#turn)
  }

  #deliver(): void {
    this.#pending = false
    // Lowered meanwhile: a level that is gone interrupts nobody.
    if (!this.#high) return
    this.#delivered++
    this.#isr?.()
    this.#unserved = this.#high ? this.#unserved + 1 : 0
    if (this.#unserved >= STORM) throw new Error(`an interrupt line is high after ${STORM} service routines`)
    if (this.#high) this.#ask()
  }
}
