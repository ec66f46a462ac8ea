import { SeamWindow } from './seam-window.ts'
import type { Cursor } from './window.ts'
import { Window } from './window.ts'

declare const ADDRESS: unique symbol
/** A guest-physical address, in bytes. Branded so that a file offset or a sector cannot be passed as one. */
export type Gpa = number & { readonly [ADDRESS]: true }

/** The one cast. Any number may be called an address; `GuestMemory` decides what is behind it. */
export function gpa(address: number): Gpa {
  return address as Gpa
}

/** Regions begin and end on pages, so that no naturally aligned field straddles two of them. */
export const PAGE_BYTES = 4096

export interface Region {
  readonly base: Gpa
  readonly bytes: Uint8Array<ArrayBuffer>
  /** Another thread or process has the bytes too (a mapped file, vhost-user). */
  readonly shared?: boolean
}

/** Views of a region that are kept: a guest uses its pages again, and a view costs more than a comparison. */
const VIEWS_KEPT = 1024

class Placed {
  readonly base: number = 0
  readonly end: number = 0
  readonly bytes: Uint8Array<ArrayBuffer>
  readonly shared: boolean
  /** The whole region: what cursors point into. */
  readonly window: Window
  /** The view made last for each page, by the page's number modulo their count. */
  readonly #views: (Uint8Array<ArrayBuffer> | undefined)[]

  constructor(region: Region) {
    this.base = region.base
    this.end = region.base + region.bytes.length
    this.bytes = region.bytes
    this.shared = region.shared ?? false
    this.window = new Window(region.bytes, this.shared)
    this.#views = new Array<Uint8Array<ArrayBuffer> | undefined>(VIEWS_KEPT).fill(undefined)
  }

  /** The bytes from `at` on, both within the region: one view for everybody who asks for the same. */
  view(at: number, lengthBytes: number): Uint8Array<ArrayBuffer> {
    const from = this.bytes.byteOffset + (at - this.base)
    const slot = (at / PAGE_BYTES) & (VIEWS_KEPT - 1)
    const kept = this.#views[slot]
    if (kept !== undefined && kept.byteOffset === from && kept.length === lengthBytes) return kept
    const view = new Uint8Array(this.bytes.buffer, from, lengthBytes)
    this.#views[slot] = view
    return view
  }
}

/**
 * Why a region table is refused, or null.
 *
 * A peer can send one (vhost-user), so this is a result; `GuestMemory` throws on what was not asked first.
 */
export function regionsInvalid(regions: readonly Region[]): string | null {
  if (regions.length === 0) return 'no region'
  const sorted = [...regions].sort((a, b) => a.base - b.base)
  let end = 0
  for (const { base, bytes } of sorted) {
    if (!(base >= 0 && Number.isSafeInteger(base + bytes.length))) return 'a region wraps the address space'
    if (base % PAGE_BYTES !== 0) return 'a region does not begin on a page'
    if (bytes.length === 0 || bytes.length % PAGE_BYTES !== 0) return 'a region is not whole pages'
    if (bytes.byteOffset % 8 !== 0) return 'a region is not 8-aligned in its buffer'
    if (base < end) return 'two regions overlap'
    end = base + bytes.length
  }
  return null
}

/** The one table without a region that is meant. */
const NO_REGIONS: readonly Region[] = []

/**
 * Guest memory: a table of regions. Hands out windows and lends payload views, piecewise over adjacent
 * regions. Nobody holds all of it.
 *
 * Addresses and lengths here come from the other side: no value throws, none can wrap. A range that is not
 * wholly backed is refused and nothing of it is handed out.
 */
export class GuestMemory {
  readonly #placed: readonly Placed[]
  /** The region of the last hit: most guests have one, and neighbours come together. */
  #last: Placed
  /** The largest region: most addresses lie in it, and comparing with two numbers is cheaper than a call. */
  readonly mainBase: number = 0
  readonly mainEnd: number = 0

  /** @throws when `regionsInvalid`. */
  constructor(regions: readonly Region[]) {
    const invalid = regions === NO_REGIONS ? null : regionsInvalid(regions)
    if (invalid !== null) throw new RangeError(`guest memory: ${invalid}`)
    this.#placed = regions.map((region) => new Placed(region)).sort((a, b) => a.base - b.base)
    const nowhere = new Placed({ base: gpa(0), bytes: new Uint8Array(0) })
    const main = this.#placed.reduce(
      (most, one) => (one.bytes.length > most.bytes.length ? one : most),
      nowhere,
    )
    this.#last = main
    this.mainBase = main.base
    this.mainEnd = main.end
  }

  /** One region of zeroed memory from address 0 (or `base`). */
  static ofBytes(lengthBytes: number, base: Gpa = gpa(0)): GuestMemory {
    return new GuestMemory([{ base, bytes: new Uint8Array(lengthBytes) }])
  }

  /** No memory at all: a device whose peer has not shown any yet. */
  static nothing(): GuestMemory {
    return new GuestMemory(NO_REGIONS)
  }

  get regions(): readonly Region[] {
    return this.#placed.map(({ base, bytes, shared }) => ({ base: gpa(base), bytes, shared }))
  }

  /** First address after the last region. */
  get end(): Gpa {
    return gpa(this.#placed.at(-1)?.end ?? 0)
  }

  /** Whether every byte of the range is backed. A length of zero is backed anywhere. */
  backed(at: Gpa, lengthBytes: number): boolean {
    const last = this.#last
    if (at >= last.base && lengthBytes >= 0 && lengthBytes <= last.end - at) return true
    let address: number = at
    let left = lengthBytes
    if (!(left >= 0)) return false
    while (left > 0) {
      const region = this.#find(address)
      if (region === null) return false
      const here = Math.min(left, region.end - address)
      address += here
      left -= here
    }
    return true
  }

  /**
   * A window of its own over the range, for a structure that stays (ring areas). Null when the range is not
   * backed or `at` is not a multiple of `alignment` (a power of two).
   */
  window(at: Gpa, lengthBytes: number, alignment: number): Window | null {
    if (at % alignment !== 0) return null
    const pieces: Uint8Array<ArrayBuffer>[] = []
    if (!this.lend(at, lengthBytes, pieces)) return null
    const shared = this.#placed.some((placed) => placed.shared)
    return pieces.length > 1 ? new SeamWindow(pieces, shared) : new Window(pieces[0], shared)
  }

  /**
   * Points a cursor at a range, without allocating unless the range crosses regions. False, and the cursor
   * unchanged, when the range is not backed.
   */
  point(cursor: Cursor, at: Gpa, lengthBytes: number): boolean {
    const last = this.#last
    if (at >= last.base && lengthBytes >= 0 && lengthBytes <= last.end - at) {
      // A store of an object is dearer than a comparison, and it is the same one nearly always.
      if (cursor.window !== last.window) cursor.window = last.window
      cursor.base = at - last.base
      return true
    }
    return this.#pointElsewhere(cursor, at, lengthBytes)
  }

  /**
   * Appends views of the range to `into`, one per region touched. False, and nothing appended, when the
   * range is not wholly backed. Views are kept and lent again.
   */
  lend(at: Gpa, lengthBytes: number, into: Uint8Array<ArrayBuffer>[]): boolean {
    const last = this.#last
    if (at >= last.base && lengthBytes > 0 && lengthBytes <= last.end - at) {
      into.push(last.view(at, lengthBytes))
      return true
    }
    if (!this.backed(at, lengthBytes)) return false
    let address: number = at
    let left = lengthBytes
    while (left > 0) {
      const region = this.#find(address) as Placed
      const here = Math.min(left, region.end - address)
      into.push(region.view(address, here))
      address += here
      left -= here
    }
    return true
  }

  #find(address: number): Placed | null {
    const last = this.#last
    if (address >= last.base && address < last.end) return last
    for (const region of this.#placed) {
      if (address >= region.base && address < region.end) {
        this.#last = region
        return region
      }
    }
    return null
  }

  #pointElsewhere(cursor: Cursor, at: Gpa, lengthBytes: number): boolean {
    const found = this.#find(at)
    if (found !== null && lengthBytes >= 0 && lengthBytes <= found.end - at) {
      cursor.window = found.window
      cursor.base = at - found.base
      return true
    }
    const pieces: Uint8Array<ArrayBuffer>[] = []
    if (!this.lend(at, lengthBytes, pieces)) return false
    if (pieces.length > 1) {
      cursor.window = new SeamWindow(
        pieces,
        this.#placed.some((placed) => placed.shared),
      )
      cursor.base = 0
      return true
    }
    // Only a range of no bytes gets here.
    cursor.window = this.#last.window
    cursor.base = 0
    return true
  }
}
