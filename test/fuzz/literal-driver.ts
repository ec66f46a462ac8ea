import type { LiteralRing } from './literal-ring.ts'
import { L_INDIRECT, L_NEXT, L_WRITE } from './literal-ring.ts'

/** A buffer of a request; readable ones come first. */
export interface LiteralBuffer {
  readonly at: number
  readonly lengthBytes: number
  readonly write: boolean
}

export interface LiteralPeerOptions {
  readonly eventIdx: boolean
  /** Where both indices begin; 0 unless the ring is resumed. */
  readonly start?: number
}

export interface LiteralDriverOptions extends LiteralPeerOptions {
  /** Where indirect tables lie, `size` tables of `size` descriptors; null: every chain is direct. */
  readonly tablesAt: number | null
}

/** Whether one of the entries from `from` up to and without `to` is the one asked for: the rule, counted out. */
export function passed(event: number, from: number, to: number): boolean {
  for (let entry = from; entry < to; entry++) if (entry % 65536 === event) return true
  return false
}

/**
 * An honest driver with no cleverness: counts from the beginning of time, takes descriptors in the order they
 * came back (so that chains are scattered), and asks the memory whenever it wants to know something.
 */
export class LiteralDriver {
  readonly #ring: LiteralRing
  readonly #eventIdx: boolean
  readonly #tablesAt: number | null
  readonly #free: number[]
  readonly #chains: Map<number, readonly number[]>
  #posted: number
  #published: number
  #reaped: number

  constructor(ring: LiteralRing, options: LiteralDriverOptions) {
    const start = options.start ?? 0
    this.#ring = ring
    this.#eventIdx = options.eventIdx
    this.#tablesAt = options.tablesAt
    this.#free = Array.from({ length: ring.size }, (_, index) => (index * 7 + 3) % ring.size)
    this.#chains = new Map()
    this.#posted = start
    this.#published = start
    this.#reaped = start
    ring.availableIndex(start)
    ring.usedEvent(options.eventIdx ? start : 0)
  }

  /** The head, or null when there are too few descriptors. */
  post(buffers: readonly LiteralBuffer[]): number | null {
    const table = this.#tablesAt !== null && buffers.length > 1 && buffers.length <= this.#ring.size
    const wanted = table ? 1 : buffers.length
    if (wanted > this.#free.length) return null
    const taken = this.#free.splice(0, wanted)
    const head = taken[0] as number
    if (table) this.#describeTable(head, buffers)
    else {
      for (const [i, { at, lengthBytes, write }] of buffers.entries()) {
        const next = taken[i + 1]
        const flags = (write ? L_WRITE : 0) | (next === undefined ? 0 : L_NEXT)
        this.#ring.describe(taken[i] as number, { addr: at, len: lengthBytes, flags, next: next ?? 0 })
      }
    }
    this.#chains.set(head, taken)
    this.#ring.offer(this.#posted, head)
    this.#posted++
    return head
  }

  /** True when the device has to be notified. */
  publish(): boolean {
    const from = this.#published
    this.#published = this.#posted
    this.#ring.availableIndex(this.#posted)
    if (from === this.#posted) return false
    const { flags, availableEvent } = this.#ring.used
    return this.#eventIdx ? passed(availableEvent, from, this.#posted) : flags !== 1
  }

  reap(): { readonly head: number; readonly writtenBytes: number } | null {
    if (this.#ring.used.index === this.#reaped % 65536) return null
    const { id, len } = this.#ring.usedEntry(this.#reaped)
    this.#reaped++
    this.#free.push(...(this.#chains.get(id) ?? []))
    this.#chains.delete(id)
    return { head: id, writtenBytes: len }
  }

  disarm(): void {
    if (!this.#eventIdx) this.#ring.availableFlags(1)
  }

  rearm(): boolean {
    if (this.#eventIdx) this.#ring.usedEvent(this.#reaped)
    else this.#ring.availableFlags(0)
    return this.#ring.used.index !== this.#reaped % 65536
  }

  #describeTable(head: number, buffers: readonly LiteralBuffer[]): void {
    const at = (this.#tablesAt ?? 0) + head * this.#ring.size * 16
    // The entries lie backwards in the table, so that order comes from `next` and from nothing else; the
    // first is where it has to be.
    const slots = [0, ...Array.from({ length: buffers.length - 1 }, (_, i) => buffers.length - 1 - i)]
    const entries = new Array<{ addr: number; len: number; flags: number; next: number }>(buffers.length)
    for (const [i, { at: addr, lengthBytes, write }] of buffers.entries()) {
      const next = slots[i + 1]
      const flags = (write ? L_WRITE : 0) | (next === undefined ? 0 : L_NEXT)
      entries[slots[i] as number] = { addr, len: lengthBytes, flags, next: next ?? 0 }
    }
    this.#ring.table(at, entries)
    this.#ring.describe(head, { addr: at, len: 16 * buffers.length, flags: L_INDIRECT })
  }
}
