import type { DiskOptions } from './backend.ts'
import { MAX_DISK_BYTES } from './judge.ts'
import { quote } from './quote.ts'

const SUFFIXES: ReadonlyMap<string, bigint> = new Map([
  ['', 1n],
  ['K', 1024n],
  ['M', 1024n ** 2n],
  ['G', 1024n ** 3n],
  ['T', 1024n ** 4n],
  ['P', 1024n ** 5n],
])

/** Bytes of `64M`, `5G`, `512`: digits and at most one of K M G T P. Null for anything else or past 2^53. */
export function parseSize(text: string): number | null {
  const match = /^([0-9]{1,16})([KMGTP]?)$/.exec(text)
  const digits = match?.[1]
  const factor = SUFFIXES.get(match?.[2] ?? '?')
  if (digits === undefined || factor === undefined) return null
  const bytes = BigInt(digits) * factor
  return bytes <= BigInt(MAX_DISK_BYTES) ? Number(bytes) : null
}

/** A whole decimal number up to 2^53, nothing before or after it; null for anything else. */
export function parseWhole(text: string): number | null {
  if (!/^[0-9]{1,16}$/.test(text)) return null
  const value = Number(text)
  return Number.isSafeInteger(value) ? value : null
}

/**
 * Reads a kind's options, each once. The first thing wrong stays in `error`, one line; after it every answer
 * is the default, so that a kind asks for all it wants and looks at `error` once.
 */
export class OptionReader {
  readonly #kind: string
  readonly #options: DiskOptions
  error: string | null

  constructor(kind: string, options: DiskOptions) {
    this.#kind = kind
    this.#options = options
    this.error = null
  }

  /** Bytes, from `least` to 2^53. */
  size<T>(key: string, absent: T, least = 0): number | T {
    const accepts = least === 0 ? 'a size such as 512, 64M or 5G' : `a size of at least ${least}, such as 64M`
    return this.#parsed(key, absent, accepts, (text) => {
      const bytes = parseSize(text)
      return bytes !== null && bytes >= least ? bytes : null
    })
  }

  /** A whole number from `least` to `most`. */
  whole<T>(key: string, absent: T, least: number, most: number): number | T {
    return this.#parsed(key, absent, `a whole number from ${least} to ${most}`, (text) => {
      const value = parseWhole(text)
      return value !== null && value >= least && value <= most ? value : null
    })
  }

  /** A bare key, `key=yes` or `key=no`. */
  flag(key: string): boolean {
    return this.#parsed(key, false, 'yes or no', (text) =>
      text === 'yes' ? true : text === 'no' ? false : null,
    )
  }

  /** A text for which `invalid` has no complaint. */
  text<T>(key: string, absent: T, invalid: (text: string) => string | null = () => null): string | T {
    const text = this.#options.values.get(key)
    if (text === undefined || this.error !== null) return absent
    const complaint = invalid(text)
    if (complaint === null) return text
    this.error = `${this.#kind}: option ${key}: ${quote(text)} ${complaint}`
    return absent
  }

  /** Several of `accepted` joined by `+`, none twice. */
  several<T extends string>(key: string, absent: readonly T[], accepted: readonly T[]): readonly T[] {
    return this.#parsed(key, absent, `some of ${accepted.join(', ')} joined by +`, (text) => {
      const chosen = text.split('+')
      const found = accepted.filter((name) => chosen.includes(name))
      return found.length === chosen.length ? found : null
    })
  }

  /** Something wrong that no single option shows; kept unless another came first. */
  wrong(complaint: string): void {
    this.error ??= `${this.#kind}: ${complaint}`
  }

  #parsed<T, U>(key: string, absent: U, accepts: string, parse: (text: string) => T | null): T | U {
    const text = this.#options.values.get(key)
    if (text === undefined || this.error !== null) return absent
    const value = parse(text)
    if (value !== null) return value
    this.error = `${this.#kind}: option ${key} is ${quote(text)}; it takes ${accepts}`
    return absent
  }
}
