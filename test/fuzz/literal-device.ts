import type { LiteralBuffer, LiteralPeerOptions } from './literal-driver.ts'
import { passed } from './literal-driver.ts'
import type { LiteralRing } from './literal-ring.ts'
import { L_INDIRECT, L_NEXT, L_WRITE } from './literal-ring.ts'

export interface LiteralChain {
  readonly head: number
  readonly buffers: readonly LiteralBuffer[]
}

/** An honest device with no cleverness, for drivers that are honest too: it believes what it reads. */
export class LiteralDevice {
  readonly #ring: LiteralRing
  readonly #eventIdx: boolean
  #taken: number
  #used: number
  #published: number

  constructor(ring: LiteralRing, options: LiteralPeerOptions) {
    const start = options.start ?? 0
    this.#ring = ring
    this.#eventIdx = options.eventIdx
    this.#taken = start
    this.#used = start
    this.#published = start
  }

  next(): LiteralChain | null {
    if (this.#ring.available.index === this.#taken % 65536) return null
    const head = this.#ring.offered(this.#taken)
    this.#taken++
    if (!this.#eventIdx) this.#ring.usedFlags(1)
    const buffers: LiteralBuffer[] = []
    this.#walk(this.#ring.place.descriptors, head, buffers)
    return { head, buffers }
  }

  complete(head: number, writtenBytes: number): void {
    this.#ring.use(this.#used, head, writtenBytes)
    this.#used++
  }

  publish(): boolean {
    const from = this.#published
    this.#published = this.#used
    this.#ring.usedIndex(this.#used)
    if (from === this.#used) return false
    const { flags, usedEvent } = this.#ring.available
    return this.#eventIdx ? passed(usedEvent, from, this.#used) : flags !== 1
  }

  rearm(): boolean {
    if (this.#eventIdx) this.#ring.availableEvent(this.#taken)
    else this.#ring.usedFlags(0)
    return this.#ring.available.index !== this.#taken % 65536
  }

  #walk(table: number, from: number, into: LiteralBuffer[]): void {
    for (let index = from; ; ) {
      const { addr, len, flags, next } = this.#ring.descriptorAt(table, index)
      if ((flags & L_INDIRECT) !== 0) {
        this.#walk(addr, 0, into)
        return
      }
      into.push({ at: addr, lengthBytes: len, write: (flags & L_WRITE) !== 0 })
      if (into.length > 65536) throw new Error('a chain without end')
      if ((flags & L_NEXT) === 0) return
      index = next
    }
  }
}
