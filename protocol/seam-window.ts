import type { Elements } from './layout.ts'
import type { FieldAt } from './window.ts'
import { Window } from './window.ts'

const START = 0 as unknown

/**
 * A window over a range that crosses adjacent regions. Legal and rare: guests in one piece never make one, so
 * the accessors everybody else uses stay free of the question.
 *
 * Every access but a published index goes byte by byte. Regions begin on pages, so an aligned index is whole.
 */
export class SeamWindow extends Window {
  readonly #pieces: readonly Window[]

  constructor(pieces: readonly Uint8Array<ArrayBuffer>[], shared = false) {
    super(undefined, shared)
    this.#pieces = pieces.map((piece) => new Window(piece, shared))
  }

  override get lengthBytes(): number {
    return this.#pieces.reduce((total, piece) => total + piece.lengthBytes, 0)
  }

  override u8(field: FieldAt<'u8'>, base = 0): number {
    return this.#read(base + field, 1).u8(START as FieldAt<'u8'>)
  }

  override le16(field: FieldAt<'le16'>, base = 0): number {
    return this.#read(base + field, 2).le16(START as FieldAt<'le16'>)
  }

  override le32(field: FieldAt<'le32'>, base = 0): number {
    return this.#read(base + field, 4).le32(START as FieldAt<'le32'>)
  }

  override le64(field: FieldAt<'le64'>, base = 0): number {
    return this.#read(base + field, 8).le64(START as FieldAt<'le64'>)
  }

  override be16(field: FieldAt<'be16'>, base = 0): number {
    return this.#read(base + field, 2).be16(START as FieldAt<'be16'>)
  }

  override be32(field: FieldAt<'be32'>, base = 0): number {
    return this.#read(base + field, 4).be32(START as FieldAt<'be32'>)
  }

  override be64(field: FieldAt<'be64'>, base = 0): number {
    return this.#read(base + field, 8).be64(START as FieldAt<'be64'>)
  }

  override putU8(field: FieldAt<'u8'>, value: number, base = 0): void {
    this.#write(base + field, 1, (whole) => whole.putU8(START as FieldAt<'u8'>, value))
  }

  override putLe16(field: FieldAt<'le16'>, value: number, base = 0): void {
    this.#write(base + field, 2, (whole) => whole.putLe16(START as FieldAt<'le16'>, value))
  }

  override putLe32(field: FieldAt<'le32'>, value: number, base = 0): void {
    this.#write(base + field, 4, (whole) => whole.putLe32(START as FieldAt<'le32'>, value))
  }

  override putLe64(field: FieldAt<'le64'>, value: number, base = 0): void {
    this.#write(base + field, 8, (whole) => whole.putLe64(START as FieldAt<'le64'>, value))
  }

  override putBe16(field: FieldAt<'be16'>, value: number, base = 0): void {
    this.#write(base + field, 2, (whole) => whole.putBe16(START as FieldAt<'be16'>, value))
  }

  override putBe32(field: FieldAt<'be32'>, value: number, base = 0): void {
    this.#write(base + field, 4, (whole) => whole.putBe32(START as FieldAt<'be32'>, value))
  }

  override putBe64(field: FieldAt<'be64'>, value: number, base = 0): void {
    this.#write(base + field, 8, (whole) => whole.putBe64(START as FieldAt<'be64'>, value))
  }

  override loadIndex(field: FieldAt<'le16'>, base = 0): number {
    const { piece, at } = this.#locate(base + field)
    return piece.loadIndex(at as FieldAt<'le16'>)
  }

  override storeIndex(field: FieldAt<'le16'>, value: number, base = 0): void {
    const { piece, at } = this.#locate(base + field)
    piece.storeIndex(at as FieldAt<'le16'>, value)
  }

  override copyOut(from: number | Elements<'u8'>, into: Uint8Array): void {
    this.#visit(from, into.length, (piece, at, done, count) =>
      piece.copyOut(at, into.subarray(done, done + count)),
    )
  }

  override copyIn(to: number | Elements<'u8'>, bytes: Uint8Array): void {
    this.#visit(to, bytes.length, (piece, at, done, count) =>
      piece.copyIn(at, bytes.subarray(done, done + count)),
    )
  }

  override fill(value: number, at: number, lengthBytes: number): void {
    this.#visit(at, lengthBytes, (piece, from, _done, count) => piece.fill(value, from, count))
  }

  #locate(at: number): { piece: Window; at: number } {
    let left = at
    for (const piece of this.#pieces) {
      if (left < piece.lengthBytes) return { piece, at: left }
      left -= piece.lengthBytes
    }
    throw new RangeError(`window of ${this.lengthBytes} bytes: access at ${at}`)
  }

  #visit(
    from: number,
    lengthBytes: number,
    each: (piece: Window, at: number, done: number, count: number) => void,
  ): void {
    const total = this.lengthBytes
    if (!(from >= 0 && lengthBytes >= 0 && lengthBytes <= total - from)) {
      throw new RangeError(`window of ${total} bytes: ${lengthBytes} at ${from}`)
    }
    for (let done = 0; done < lengthBytes; ) {
      const { piece, at } = this.#locate(from + done)
      const count = Math.min(piece.lengthBytes - at, lengthBytes - done)
      each(piece, at, done, count)
      done += count
    }
  }

  /** The bytes in one piece: a 64-bit value has to be rounded once, as a whole, like anywhere else. */
  #read(at: number, width: number): Window {
    const bytes = new Uint8Array(width)
    this.copyOut(at, bytes)
    return new Window(bytes)
  }

  #write(at: number, width: number, put: (whole: Window) => void): void {
    const bytes = new Uint8Array(width)
    put(new Window(bytes))
    this.copyIn(at, bytes)
  }
}
