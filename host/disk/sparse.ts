/** Bytes that were never written are zero and take no room. Offsets reach 2^53. */
export class SparseBytes {
  readonly pageBytes: number
  readonly limitBytes: number
  readonly #pages: Map<number, Uint8Array>

  /**
   * @param pageBytes unit of storage.
   * @param limitBytes most bytes to hold, counted in whole pages.
   */
  constructor(pageBytes: number, limitBytes = Number.POSITIVE_INFINITY) {
    this.pageBytes = pageBytes
    this.limitBytes = limitBytes
    this.#pages = new Map()
  }

  get heldBytes(): number {
    return this.#pages.size * this.pageBytes
  }

  read(offset: number, into: Uint8Array): void {
    let done = 0
    while (done < into.length) {
      const at = offset + done
      const page = Math.floor(at / this.pageBytes)
      const start = at - page * this.pageBytes
      const count = Math.min(this.pageBytes - start, into.length - done)
      const bytes = this.#pages.get(page)
      if (bytes === undefined) into.fill(0, done, done + count)
      else into.set(bytes.subarray(start, start + count), done)
      done += count
    }
  }

  /** Bytes written: fewer than given when there is no room for more. */
  write(offset: number, from: Uint8Array): number {
    let done = 0
    while (done < from.length) {
      const at = offset + done
      const page = Math.floor(at / this.pageBytes)
      const start = at - page * this.pageBytes
      const count = Math.min(this.pageBytes - start, from.length - done)
      const bytes = this.#pages.get(page) ?? this.#grow(page)
      if (bytes === null) break
      bytes.set(count === from.length ? from : from.subarray(done, done + count), start)
      done += count
    }
    return done
  }

  /** Makes a range zero; pages wholly inside it are let go. Takes time by what is held, not by the range. */
  zero(offset: number, lengthBytes: number): void {
    if (!(lengthBytes > 0)) return
    const end = offset + lengthBytes
    const first = Math.floor(offset / this.pageBytes)
    const last = Math.ceil(end / this.pageBytes) - 1
    for (const page of this.#held(first, last)) {
      const base = page * this.pageBytes
      if (base >= offset && end - base >= this.pageBytes) this.#pages.delete(page)
      else this.#pages.get(page)?.fill(0, Math.max(0, offset - base), Math.min(this.pageBytes, end - base))
    }
  }

  /** Calls `piece` for the held pages that meet a range, in order, each clipped to it. */
  eachHeld(offset: number, lengthBytes: number, piece: (offset: number, lengthBytes: number) => void): void {
    if (!(lengthBytes > 0)) return
    const end = offset + lengthBytes
    const first = Math.floor(offset / this.pageBytes)
    const last = Math.ceil(end / this.pageBytes) - 1
    for (const page of this.#held(first, last).sort((a, b) => a - b)) {
      const from = Math.max(offset, page * this.pageBytes)
      piece(from, Math.min(end, (page + 1) * this.pageBytes) - from)
    }
  }

  clear(): void {
    this.#pages.clear()
  }

  #held(first: number, last: number): number[] {
    const found: number[] = []
    if (last - first < this.#pages.size) {
      for (let page = first; page <= last; page++) if (this.#pages.has(page)) found.push(page)
    } else {
      for (const page of this.#pages.keys()) if (page >= first && page <= last) found.push(page)
    }
    return found
  }

  #grow(page: number): Uint8Array | null {
    if (this.heldBytes + this.pageBytes > this.limitBytes) return null
    try {
      const bytes = new Uint8Array(this.pageBytes)
      this.#pages.set(page, bytes)
      return bytes
    } catch {
      // Neither the heap nor a Map is endless, and a guest can ask for more than either.
      return null
    }
  }
}
