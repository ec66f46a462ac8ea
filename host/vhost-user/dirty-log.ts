import type { PageLog } from '../../protocol/dma.ts'
import type { PeerMemory } from './edge.ts'

/**
 * The dirty log of a migration, vhost-user, Migration: a bit a page of 4 KiB, set after the page was written.
 * The front-end takes bits out while we put them in, so each goes in atomically.
 */
export class DirtyLog implements PageLog {
  readonly #memory: PeerMemory
  readonly #bits: Uint8Array<ArrayBuffer>
  readonly pages: number
  /** A page behind its end was written: it shows once. */
  #overrun: boolean
  readonly #overran: (page: number) => void

  constructor(memory: PeerMemory, overran: (page: number) => void) {
    this.#memory = memory
    this.#bits = memory.bytes
    this.pages = memory.bytes.length * 8
    this.#overrun = false
    this.#overran = overran
  }

  mark(firstPage: number, lastPage: number): void {
    const last = Math.min(lastPage, this.pages - 1)
    for (let page = firstPage; page <= last; page++) {
      Atomics.or(this.#bits, page >>> 3, 1 << (page & 7))
    }
    if (lastPage < this.pages || this.#overrun) return
    this.#overrun = true
    this.#overran(lastPage)
  }

  close(): void {
    this.#memory.revoke()
  }
}
