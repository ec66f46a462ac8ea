import { BugCode, keBugCheckEx } from './bug-check.ts'
import { RESERVED_BYTES } from './page-frames.ts'

declare const SIGNATURE: unique symbol
/**
 * What Windows stores as a code pointer: a number that fits a record's pointer field. 0 is no routine. Today it
 * resolves to a TypeScript function; guest code will have numbers of its own.
 */
export type Routine<F> = number & { readonly [SIGNATURE]: F }

/** No routine, of any kind. */
export const NO_ROUTINE = 0 as Routine<never>

/** Routine numbers lie in the lowest RAM, which is nobody's: small integers that no address of an object equals. */
const CODE_BASE = 0x1000
/** Resolving shifts by it: 1 << 2. */
const CODE_STEP = 4
const CODE_END = RESERVED_BYTES
/** Contexts are above RAM and below users' addresses. */
const CONTEXT_BASE = 2 ** 31
const CONTEXT_STEP = 16

type Anything = (...given: never[]) => unknown

/** Registered routines by number. A function has one number, however often it is registered. */
export class RoutineTable {
  readonly #routines: Anything[]
  readonly #numbers: Map<Anything, number>

  constructor() {
    this.#routines = []
    this.#numbers = new Map()
  }

  register<F extends Anything>(routine: F): Routine<F> {
    let number = this.#numbers.get(routine)
    if (number === undefined) {
      number = CODE_BASE + this.#routines.length * CODE_STEP
      if (number >= CODE_END) throw new Error('too many routines: one is made anew for each request')
      this.#routines.push(routine)
      this.#numbers.set(routine, number)
    }
    return number as Routine<F>
  }

  /** The function to call. A number that is no routine is a jump into the void. */
  resolve<F extends Anything>(routine: Routine<F>): F {
    const found =
      routine < CODE_END && routine % CODE_STEP === 0 ? this.#routines[(routine - CODE_BASE) >> 2] : undefined
    if (found === undefined) return keBugCheckEx(BugCode.PAGE_FAULT_IN_NONPAGED_AREA, routine, 8, routine)
    return found as F
  }
}

/**
 * Numbers for objects that have no record in guest memory, for routines whose context is a pointer. What is
 * held must be released: `count` says how many are not.
 */
export class ContextTable {
  readonly #held: Map<number, unknown>
  #next: number

  constructor() {
    this.#held = new Map()
    this.#next = CONTEXT_BASE
  }

  get count(): number {
    return this.#held.size
  }

  hold(object: unknown): number {
    this.#next += CONTEXT_STEP
    this.#held.set(this.#next, object)
    return this.#next
  }

  /** The object, which stays held. */
  get<T>(context: number): T {
    if (!this.#held.has(context)) return keBugCheckEx(BugCode.PAGE_FAULT_IN_NONPAGED_AREA, context)
    return this.#held.get(context) as T
  }

  /** The object, for the last time. */
  release<T>(context: number): T {
    const object = this.get<T>(context)
    this.#held.delete(context)
    return object
  }
}
