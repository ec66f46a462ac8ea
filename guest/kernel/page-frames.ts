import { PAGE_BYTES } from '../../protocol/memory.ts'
import { BugCode, keBugCheckEx } from './bug-check.ts'

export { PAGE_BYTES }
export const PAGE_SHIFT = 12

/** Bytes into its page of an address, however high: bits, where a remainder of doubles is a call of the C library. */
export function pageOffset(at: number): number {
  return at & (PAGE_BYTES - 1)
}

/** The lowest RAM is left alone: address 0 stays unmapped, and the numbers of routines lie there. */
export const RESERVED_BYTES = 256 * 1024
const RESERVED_PAGES = RESERVED_BYTES / PAGE_BYTES
/** Coprime with any number of pages that is not its multiple: neighbours in one buffer lie far apart. */
const SCATTER_STRIDE = 7919

/** Which physical pages are in use, and how often each is locked for I/O. */
export class PageFrames {
  readonly #used: Uint8Array
  readonly #locks: Uint16Array
  /** Pages that a device may write for ever: never given out again. */
  readonly #retained: Set<number>
  #nextRun: number
  #nextSingle: number
  #free: number

  constructor(ramBytes: number) {
    const pages = Math.floor(ramBytes / PAGE_BYTES)
    this.#used = new Uint8Array(pages)
    this.#used.fill(1, 0, Math.min(RESERVED_PAGES, pages))
    this.#locks = new Uint16Array(pages)
    this.#retained = new Set()
    this.#nextRun = RESERVED_PAGES
    this.#nextSingle = pages - 1
    this.#free = Math.max(0, pages - RESERVED_PAGES)
  }

  get freeCount(): number {
    return this.#free
  }

  /** Pages locked by MDLs. */
  get lockedCount(): number {
    return this.#locks.reduce((count, locks) => count + (locks > 0 ? 1 : 0), 0)
  }

  /**
   * A run of pages side by side, first page number a multiple of `alignmentPages`; -1 when there is none.
   */
  allocateRun(count: number, alignmentPages = 1): number {
    const end = this.#used.length
    const from = Math.ceil(this.#nextRun / alignmentPages) * alignmentPages
    let found = this.#findRun(from, end, count, alignmentPages)
    if (found < 0) found = this.#findRun(0, end, count, alignmentPages)
    if (found < 0) return -1
    this.#used.fill(1, found, found + count)
    this.#free -= count
    this.#nextRun = found + count
    return found
  }

  /** One page, far from the one before; -1 when there is none. */
  allocateScattered(): number {
    const pages = this.#used.length
    if (this.#free === 0) return -1
    let at = (this.#nextSingle + SCATTER_STRIDE) % pages
    while (this.#used[at] !== 0) at = (at + 1) % pages
    this.#used[at] = 1
    this.#free--
    this.#nextSingle = at
    return at
  }

  free(page: number, count = 1): void {
    for (let at = page; at < page + count; at++) {
      if (this.#used[at] !== 1 || this.#locks[at] !== 0) {
        keBugCheckEx(BugCode.PFN_LIST_CORRUPT, 7, at, this.#locks[at] ?? 0)
      }
      if (this.#retained.has(at)) continue
      this.#used[at] = 0
      this.#free++
    }
  }

  /**
   * Leaves a page on loan to a device that did not let go of it: whoever frees it gets rid of it, and nobody
   * is given it again.
   */
  retain(page: number): void {
    this.#retained.add(page)
  }

  isRetained(page: number): boolean {
    return this.#retained.has(page)
  }

  /** Pages left on loan. */
  get retainedCount(): number {
    return this.#retained.size
  }

  lock(page: number): void {
    this.#locks[page] = (this.#locks[page] ?? 0) + 1
  }

  unlock(page: number): void {
    const locks = this.#locks[page] ?? 0
    if (locks === 0) keBugCheckEx(BugCode.PFN_LIST_CORRUPT, 7, page, 0)
    this.#locks[page] = locks - 1
  }

  lockCount(page: number): number {
    return this.#locks[page] ?? 0
  }

  #findRun(from: number, end: number, count: number, alignment: number): number {
    for (let at = from; at + count <= end; ) {
      const blocked = this.#used.subarray(at, at + count).lastIndexOf(1)
      if (blocked < 0) return at
      at = Math.ceil((at + blocked + 1) / alignment) * alignment
    }
    return -1
  }
}
