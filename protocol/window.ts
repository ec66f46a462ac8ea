import type { Elements, Field, Scalar } from './layout.ts'

/** A field, or the first element of an array of such fields. */
export type FieldAt<W extends Scalar> = Field<W> | Elements<W>

const TWO_32 = 0x1_0000_0000
/** Exact, and several times cheaper than the division. */
const PER_TWO_32 = 1 / TWO_32
const NOTHING = new Uint8Array(0)
const LITTLE_ENDIAN = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1
/** Where there are none. */
export const NO_HALVES = new Uint16Array(0)
export const NO_WORDS = new Uint32Array(0)

/**
 * A checked range of guest memory and the only reader and writer of structures in it.
 *
 * A window is resolved once (ring areas when a queue starts) and then read by offset:
 * `table.le64(VirtqDesc.addr, index * VirtqDesc.$size)`. `base` is added to the field's offset; both are ours,
 * never a peer's number without a check. An access past the end is our own mistake and throws. Accessors are
 * this short because the optimizer inlines by size: each costs a call otherwise.
 *
 * `indices` is relative to the window's start, whose alignment is checked where a window is made: an index
 * from an absolute address would be cut to 32 bits by `>>>` from 4 GiB up and read the wrong place silently.
 */
export class Window {
  // A field that is written once, in the constructor, is a constant to the optimizer: no value before that one.
  /** Replaced only in a window that can be revoked, by whoever made it. */
  view: DataView<ArrayBuffer>
  /** 16-bit words, for published indices; empty when the window is not 2-aligned in its buffer. */
  indices: Uint16Array<ArrayBuffer>
  /**
   * The same bytes as 16-bit and as 32-bit words, for structures of aligned fields that are met a million times
   * a second: rings. An access costs a third of one through the view, because a word that is written leaves
   * everything that the optimizer knows as it was. Empty where words would be wrong: bytes that are absent, not
   * aligned, or in pieces, a host of the other byte order, and 16-bit words also where indices are atomic.
   *
   * So an element may be undefined, and then the accessor is the way: `words[at >>> 2] ?? window.le32(field)`.
   * They are replaced with the view, so nobody keeps them longer than one call.
   */
  halves: Uint16Array<ArrayBuffer>
  words: Uint32Array<ArrayBuffer>

  /**
   * Indices are exchanged atomically: somebody outside of this thread has the bytes too. Within one thread the
   * order of the program is the order of the accesses, and an atomic one costs ten times a plain one. A window
   * that is not 2-aligned has no indices, and goes the way that throws.
   */
  readonly atomic: boolean

  /** A window over `bytes`, which it aliases. */
  constructor(bytes: Uint8Array<ArrayBuffer> = NOTHING, shared = false) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    this.indices = indicesOf(bytes)
    this.atomic = shared || bytes.byteOffset % 2 !== 0
    this.halves = this.atomic ? NO_HALVES : halvesOf(bytes)
    this.words = wordsOf(bytes)
  }

  get lengthBytes(): number {
    return this.view.byteLength
  }

  u8(field: FieldAt<'u8'>, base = 0): number {
    return this.view.getUint8(base + field)
  }

  le16(field: FieldAt<'le16'>, base = 0): number {
    return this.view.getUint16(base + field, true)
  }

  le32(field: FieldAt<'le32'>, base = 0): number {
    return this.view.getUint32(base + field, true)
  }

  /** As a Number: exact below 2^53, and never rounded into a range below that. Not for opaque ids. */
  le64(field: FieldAt<'le64'>, base = 0): number {
    return this.view.getUint32(base + field, true) + this.view.getUint32(base + field + 4, true) * TWO_32
  }

  be16(field: FieldAt<'be16'>, base = 0): number {
    return this.view.getUint16(base + field)
  }

  be32(field: FieldAt<'be32'>, base = 0): number {
    return this.view.getUint32(base + field)
  }

  be64(field: FieldAt<'be64'>, base = 0): number {
    return this.view.getUint32(base + field) * TWO_32 + this.view.getUint32(base + field + 4)
  }

  putU8(field: FieldAt<'u8'>, value: number, base = 0): void {
    this.view.setUint8(base + field, value)
  }

  putLe16(field: FieldAt<'le16'>, value: number, base = 0): void {
    this.view.setUint16(base + field, value, true)
  }

  putLe32(field: FieldAt<'le32'>, value: number, base = 0): void {
    this.view.setUint32(base + field, value, true)
  }

  /** `value` is an integer from 0 to 2^53 - 1. The low half is written modulo 2^32 by the view itself. */
  putLe64(field: FieldAt<'le64'>, value: number, base = 0): void {
    this.view.setUint32(base + field, value, true)
    this.view.setUint32(base + field + 4, value * PER_TWO_32, true)
  }

  putBe16(field: FieldAt<'be16'>, value: number, base = 0): void {
    this.view.setUint16(base + field, value)
  }

  putBe32(field: FieldAt<'be32'>, value: number, base = 0): void {
    this.view.setUint32(base + field, value)
  }

  /** `value` is an integer from 0 to 2^53 - 1. */
  putBe64(field: FieldAt<'be64'>, value: number, base = 0): void {
    this.view.setUint32(base + field, value * PER_TWO_32)
    this.view.setUint32(base + field + 4, value)
  }

  /** A published index: what the other side wrote before it is visible once the index is. 2-aligned. */
  loadIndex(field: FieldAt<'le16'>, base = 0): number {
    return this.halves[(base + field) >>> 1] ?? this.loadApart(base + field)
  }

  /** Publishes an index: everything written before it is visible to whoever loads it. */
  storeIndex(field: FieldAt<'le16'>, value: number, base = 0): void {
    const at = base + field
    if (at >>> 1 < this.halves.length) this.halves[at >>> 1] = value
    else this.storeApart(at, value)
  }

  /** The way round the words: atomically, or through the view. */
  protected loadApart(at: number): number {
    return this.atomic ? Atomics.load(this.indices, at >>> 1) : this.view.getUint16(at, true)
  }

  protected storeApart(at: number, value: number): void {
    if (this.atomic) Atomics.store(this.indices, at >>> 1, value)
    else this.view.setUint16(at, value, true)
  }

  /** Copies `into.length` bytes out, starting at `from`. */
  copyOut(from: number | Elements<'u8'>, into: Uint8Array): void {
    into.set(this.#bytes(from, into.length))
  }

  /** Copies `bytes` in, starting at `to`. */
  copyIn(to: number | Elements<'u8'>, bytes: Uint8Array): void {
    this.#bytes(to, bytes.length).set(bytes)
  }

  /** Writes `value` to `lengthBytes` bytes from `at`. */
  fill(value: number, at: number, lengthBytes: number): void {
    this.#bytes(at, lengthBytes).fill(value)
  }

  #bytes(at: number, lengthBytes: number): Uint8Array {
    const { buffer, byteOffset, byteLength } = this.view
    if (!(at >= 0 && lengthBytes >= 0 && lengthBytes <= byteLength - at)) {
      throw new RangeError(`window of ${byteLength} bytes: ${lengthBytes} at ${at}`)
    }
    return new Uint8Array(buffer, byteOffset + at, lengthBytes)
  }
}

/** The bytes as 16-bit words of the host's; none when they are not 2-aligned. */
export function indicesOf({ buffer, byteOffset, length }: Uint8Array<ArrayBuffer>): Uint16Array<ArrayBuffer> {
  if (byteOffset % 2 !== 0) return NO_HALVES
  return new Uint16Array(buffer, byteOffset, Math.floor(length / 2))
}

/** The bytes as little-endian 16-bit words; none when they cannot be had so. */
export function halvesOf(bytes: Uint8Array<ArrayBuffer>): Uint16Array<ArrayBuffer> {
  return LITTLE_ENDIAN ? indicesOf(bytes) : NO_HALVES
}

/** The bytes as little-endian 32-bit words; none when they cannot be had so. */
export function wordsOf({ buffer, byteOffset, length }: Uint8Array<ArrayBuffer>): Uint32Array<ArrayBuffer> {
  if (byteOffset % 4 !== 0 || !LITTLE_ENDIAN) return NO_WORDS
  return new Uint32Array(buffer, byteOffset, Math.floor(length / 4))
}

const NOWHERE = new Window()

/**
 * Where something was found: a window and the base to add. Kept by whoever looks up a structure per request
 * (a header, an indirect table), so that looking allocates nothing: `dma.point(cursor, at, 16)` and then
 * `cursor.window.le32(BlkRequest.type, cursor.base)`.
 *
 * The window may reach past the range that was pointed at; only that range was checked.
 */
export class Cursor {
  window: Window = NOWHERE
  base = 0
}
