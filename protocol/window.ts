import type { Elements, Field } from './layout.ts'

const TWO_32 = 0x1_0000_0000
const NOTHING = new DataView(new ArrayBuffer(0))

/**
 * A checked range of guest memory and the only reader and writer of structures in it.
 *
 * A window is resolved once (ring areas when a queue starts, a header when a chain is parsed) and then read
 * by offset: `header.le32(BlkRequest.type)`, `table.le64(VirtqDesc.addr, index * VirtqDesc.$size)`. `base` is
 * added to the field's offset; both are ours, never a peer's number without a check. An access past the end
 * is our own mistake and throws.
 *
 * A range that crosses adjacent regions is a list of pieces: `rest` is the window over what follows the first
 * `ownBytes`. Guest memory in one piece never takes that path.
 *
 * Alignment is checked where a window is made. `indices` is relative to the window's start: an index from an
 * absolute address would be cut to 32 bits by `>>>` from 4 GiB up and read the wrong place silently.
 */
export class Window {
  view: DataView
  /** Where the window starts in `view`. */
  start: number
  /** Bytes of the first piece. */
  ownBytes: number
  rest: Window | null
  /** 16-bit words of the first piece, for published indices; null on a window that was only pointed. */
  indices: Uint16Array | null

  constructor() {
    this.view = NOTHING
    this.start = 0
    this.ownBytes = 0
    this.rest = null
    this.indices = null
  }

  /** Total bytes, over all pieces. */
  get lengthBytes(): number {
    let total = this.ownBytes
    for (let piece = this.rest; piece !== null; piece = piece.rest) total += piece.ownBytes
    return total
  }

  u8(field: Field<'u8'>, base = 0): number {
    const at = base + field
    if (!(at + 1 <= this.ownBytes)) return this.#after(at, 1).u8(field, base - this.ownBytes)
    return this.view.getUint8(this.start + at)
  }

  le16(field: Field<'le16'>, base = 0): number {
    const at = base + field
    if (!(at + 2 <= this.ownBytes)) return this.#across(at, 2, true)
    return this.view.getUint16(this.start + at, true)
  }

  le32(field: Field<'le32'>, base = 0): number {
    const at = base + field
    if (!(at + 4 <= this.ownBytes)) return this.#across(at, 4, true)
    return this.view.getUint32(this.start + at, true)
  }

  /** As a Number: exact below 2^53, and never rounded into a range below that. Not for opaque ids. */
  le64(field: Field<'le64'>, base = 0): number {
    const at = base + field
    if (!(at + 8 <= this.ownBytes)) return this.#across(at, 8, true)
    const from = this.start + at
    return this.view.getUint32(from, true) + this.view.getUint32(from + 4, true) * TWO_32
  }

  be16(field: Field<'be16'>, base = 0): number {
    const at = base + field
    if (!(at + 2 <= this.ownBytes)) return this.#across(at, 2, false)
    return this.view.getUint16(this.start + at)
  }

  be32(field: Field<'be32'>, base = 0): number {
    const at = base + field
    if (!(at + 4 <= this.ownBytes)) return this.#across(at, 4, false)
    return this.view.getUint32(this.start + at)
  }

  be64(field: Field<'be64'>, base = 0): number {
    const at = base + field
    if (!(at + 8 <= this.ownBytes)) return this.#across(at, 8, false)
    const from = this.start + at
    return this.view.getUint32(from) * TWO_32 + this.view.getUint32(from + 4)
  }

  putU8(field: Field<'u8'>, value: number, base = 0): void {
    const at = base + field
    if (!(at + 1 <= this.ownBytes)) this.#after(at, 1).putU8(field, value, base - this.ownBytes)
    else this.view.setUint8(this.start + at, value)
  }

  putLe16(field: Field<'le16'>, value: number, base = 0): void {
    const at = base + field
    if (!(at + 2 <= this.ownBytes)) this.#putAcross(at, 2, true, value)
    else this.view.setUint16(this.start + at, value, true)
  }

  putLe32(field: Field<'le32'>, value: number, base = 0): void {
    const at = base + field
    if (!(at + 4 <= this.ownBytes)) this.#putAcross(at, 4, true, value)
    else this.view.setUint32(this.start + at, value, true)
  }

  /** `value` is below 2^53. */
  putLe64(field: Field<'le64'>, value: number, base = 0): void {
    const at = base + field
    if (!(at + 8 <= this.ownBytes)) {
      this.#putAcross(at, 8, true, value)
      return
    }
    const to = this.start + at
    const high = Math.floor(value / TWO_32)
    this.view.setUint32(to, value - high * TWO_32, true)
    this.view.setUint32(to + 4, high, true)
  }

  putBe16(field: Field<'be16'>, value: number, base = 0): void {
    const at = base + field
    if (!(at + 2 <= this.ownBytes)) this.#putAcross(at, 2, false, value)
    else this.view.setUint16(this.start + at, value)
  }

  putBe32(field: Field<'be32'>, value: number, base = 0): void {
    const at = base + field
    if (!(at + 4 <= this.ownBytes)) this.#putAcross(at, 4, false, value)
    else this.view.setUint32(this.start + at, value)
  }

  /** `value` is below 2^53. */
  putBe64(field: Field<'be64'>, value: number, base = 0): void {
    this.#putAcross(base + field, 8, false, value)
  }

  /**
   * A published index: what the other side has written before it is visible once the index is.
   * Only on a window from `window()`, whose start is 2-aligned.
   */
  loadIndex(field: Field<'le16'>, base = 0): number {
    const at = base + field
    if (at >= this.ownBytes) return this.#after(at, 2).loadIndex(field, base - this.ownBytes)
    if (this.indices === null) throw new RangeError('this window has no published indices')
    return Atomics.load(this.indices, at >>> 1)
  }

  /** Publishes an index: everything written before it is visible to whoever loads it. */
  storeIndex(field: Field<'le16'>, value: number, base = 0): void {
    const at = base + field
    if (at >= this.ownBytes) {
      this.#after(at, 2).storeIndex(field, value, base - this.ownBytes)
      return
    }
    if (this.indices === null) throw new RangeError('this window has no published indices')
    Atomics.store(this.indices, at >>> 1, value)
  }

  /** Copies `into.length` bytes out, starting at `from`. */
  copyOut(from: number | Elements<'u8'>, into: Uint8Array): void {
    this.#copy(from, into.length, (piece, at, done) => into.set(piece, done + at))
  }

  /** Copies `bytes` in, starting at `to`. */
  copyIn(to: number | Elements<'u8'>, bytes: Uint8Array): void {
    this.#copy(to, bytes.length, (piece, at, done) =>
      piece.set(bytes.subarray(done + at, done + at + piece.length)),
    )
  }

  /** Writes `value` to `length` bytes from `at`. */
  fill(value: number, at: number, length: number): void {
    this.#copy(at, length, (piece) => piece.fill(value))
  }

  #copy(from: number, length: number, visit: (piece: Uint8Array, at: number, done: number) => void): void {
    let done = 0
    let skip = from
    for (let piece: Window | null = this; piece !== null && done < length; piece = piece.rest) {
      if (skip >= piece.ownBytes) {
        skip -= piece.ownBytes
        continue
      }
      const here = Math.min(piece.ownBytes - skip, length - done)
      visit(new Uint8Array(piece.view.buffer, piece.view.byteOffset + piece.start + skip, here), 0, done)
      done += here
      skip = 0
    }
    if (done !== length) throw new RangeError(`window of ${this.lengthBytes} bytes: ${from} + ${length}`)
  }

  #after(at: number, width: number): Window {
    if (this.rest === null) {
      throw new RangeError(`window of ${this.lengthBytes} bytes: ${width} at ${at}`)
    }
    return this.rest
  }

  /** A scalar behind or across the seam between two pieces, byte by byte. */
  #across(at: number, width: number, little: boolean): number {
    const bytes = new Uint8Array(width)
    this.copyOut(at, bytes)
    let value = 0
    for (let i = 0; i < width; i++) value = value * 256 + (bytes[little ? width - 1 - i : i] ?? 0)
    return value
  }

  #putAcross(at: number, width: number, little: boolean, value: number): void {
    const bytes = new Uint8Array(width)
    let left = value
    for (let i = 0; i < width; i++) {
      bytes[little ? i : width - 1 - i] = left % 256
      left = Math.floor(left / 256)
    }
    this.copyIn(at, bytes)
  }
}
