import type { GuestMemory } from '../../protocol/memory.ts'

/** A buffer of a chain, in the driver's own words. */
export interface RawSegment {
  readonly at: number
  readonly lengthBytes: number
  readonly write: boolean
}

export interface RawUsed {
  readonly head: number
  readonly lengthBytes: number
}

export interface RawPlace {
  readonly size: number
  readonly descriptors: number
  readonly driver: number
  readonly device: number
}

/**
 * A driver's end of a split queue that does what it is told, lawful or not: plain offsets from the
 * specification (VIRTIO 1.2 section 2.7), no shadow, no check, and nothing shared with the driver it stands in
 * for.
 */
export class RawQueue {
  readonly place: RawPlace
  readonly #view: DataView
  /** Descriptors of chains that are out, by head. */
  readonly #chains: Map<number, readonly number[]>
  #free: number[]
  #available: number
  #used: number

  /** Memory is one region from address 0; the areas are as `place` says, zeroed here. */
  constructor(memory: GuestMemory, place: RawPlace) {
    const region = memory.regions[0]
    if (region === undefined) throw new Error('no memory')
    this.place = place
    this.#view = new DataView(region.bytes.buffer, region.bytes.byteOffset, region.bytes.length)
    this.#chains = new Map()
    this.#free = Array.from({ length: place.size }, (_, i) => place.size - 1 - i)
    this.#available = 0
    this.#used = 0
    region.bytes.fill(0, place.descriptors, place.descriptors + 16 * place.size)
    region.bytes.fill(0, place.driver, place.driver + 6 + 2 * place.size)
    region.bytes.fill(0, place.device, place.device + 6 + 8 * place.size)
  }

  get freeCount(): number {
    return this.#free.length
  }

  get availableIndex(): number {
    return this.#available
  }

  /** What the device has used, as far as it was reaped. */
  get usedIndex(): number {
    return this.#used
  }

  /** The same place again, empty: after a reset of the queue. */
  again(memory: GuestMemory): RawQueue {
    return new RawQueue(memory, this.place)
  }

  /** Heads that are out. */
  get out(): readonly number[] {
    return [...this.#chains.keys()]
  }

  /** One descriptor, as it stands in the table. */
  describe(index: number, addr: bigint, len: number, flags: number, next: number): void {
    this.#put(this.place.descriptors + 16 * index, addr, len, flags, next)
  }

  /** Writes a chain into the table and offers it. Visible once `publish`ed. */
  offer(segments: readonly RawSegment[]): number {
    const indices = this.#take(segments.length)
    for (const [i, index] of indices.entries()) {
      const { at, lengthBytes, write } = segments[i] as RawSegment
      const next = indices[i + 1]
      this.describe(index, BigInt(at), lengthBytes, (write ? 2 : 0) | (next === undefined ? 0 : 1), next ?? 0)
    }
    return this.#offerHead(indices)
  }

  /** The same by way of an indirect table at `tableAt`. */
  offerIndirect(segments: readonly RawSegment[], tableAt: number): number {
    for (const [i, { at, lengthBytes, write }] of segments.entries()) {
      const last = i === segments.length - 1
      this.#put(tableAt + 16 * i, BigInt(at), lengthBytes, (write ? 2 : 0) | (last ? 0 : 1), last ? 0 : i + 1)
    }
    const [head] = this.#take(1) as [number]
    this.describe(head, BigInt(tableAt), 16 * segments.length, 4, 0)
    return this.#offerHead([head])
  }

  /** Offers any head at all, without owning it. */
  offerAnything(head: number): void {
    const { driver, size } = this.place
    this.#view.setUint16(driver + 4 + 2 * (this.#available % size), head, true)
    this.#available = (this.#available + 1) & 0xffff
  }

  /** Shows the available index, `ahead` further than what was offered. */
  publish(ahead = 0): void {
    this.#view.setUint16(this.place.driver + 2, (this.#available + ahead) & 0xffff, true)
  }

  /** With EVENT_IDX: asks for a signal once the used index passes `event`. */
  wantEvent(event: number): void {
    this.#view.setUint16(this.place.driver + 4 + 2 * this.place.size, event, true)
  }

  /** The next used element, whose descriptors are free again; null when there is none. */
  reap(): RawUsed | null {
    const { device, size } = this.place
    if (this.#view.getUint16(device + 2, true) === this.#used) return null
    const at = device + 4 + 8 * (this.#used % size)
    const head = this.#view.getUint32(at, true)
    const lengthBytes = this.#view.getUint32(at + 4, true)
    this.#used = (this.#used + 1) & 0xffff
    const indices = this.#chains.get(head)
    if (indices !== undefined) this.#free.push(...indices)
    this.#chains.delete(head)
    return { head, lengthBytes }
  }

  #put(at: number, addr: bigint, len: number, flags: number, next: number): void {
    this.#view.setBigUint64(at, BigInt.asUintN(64, addr), true)
    this.#view.setUint32(at + 8, len, true)
    this.#view.setUint16(at + 12, flags, true)
    this.#view.setUint16(at + 14, next, true)
  }

  #take(count: number): readonly number[] {
    if (count > this.#free.length) throw new Error(`${count} descriptors of ${this.#free.length} free ones`)
    return this.#free.splice(this.#free.length - count).reverse()
  }

  #offerHead(indices: readonly number[]): number {
    const head = indices[0] as number
    this.#chains.set(head, indices)
    this.offerAnything(head)
    return head
  }
}

/** Bytes of an indirect table that `offerIndirect` needs. */
export function indirectBytes(segments: readonly RawSegment[]): number {
  return 16 * segments.length
}
