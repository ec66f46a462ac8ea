/**
 * Memory that can be reached one access at a time only: a page was unmapped, is write-protected, or lies apart
 * from its neighbour. Offsets are from the start of the window. An access may run other code before it ends.
 */
export interface AbsentMemory {
  readonly lengthBytes: number
  load(at: number, into: Uint8Array): void
  store(at: number, bytes: Uint8Array): void
}

/**
 * Stands in for a window's bytes while they are absent. Its own buffer is empty, so an access that is not
 * overridden here throws instead of reading something else.
 *
 * The window's accessors stay as they are and pay nothing: it is the view they meet that differs.
 */
export class AbsentView extends DataView<ArrayBuffer> {
  readonly memory: AbsentMemory

  constructor(memory: AbsentMemory) {
    super(new ArrayBuffer(0))
    this.memory = memory
  }

  override getUint8(at: number): number {
    return this.#load(at, 1).getUint8(0)
  }

  override getUint16(at: number, littleEndian?: boolean): number {
    return this.#load(at, 2).getUint16(0, littleEndian)
  }

  override getUint32(at: number, littleEndian?: boolean): number {
    return this.#load(at, 4).getUint32(0, littleEndian)
  }

  override setUint8(at: number, value: number): void {
    const scratch = new DataView(new ArrayBuffer(1))
    scratch.setUint8(0, value)
    this.#store(at, scratch)
  }

  override setUint16(at: number, value: number, littleEndian?: boolean): void {
    const scratch = new DataView(new ArrayBuffer(2))
    scratch.setUint16(0, value, littleEndian)
    this.#store(at, scratch)
  }

  override setUint32(at: number, value: number, littleEndian?: boolean): void {
    const scratch = new DataView(new ArrayBuffer(4))
    scratch.setUint32(0, value, littleEndian)
    this.#store(at, scratch)
  }

  copyOut(at: number, into: Uint8Array): void {
    this.#check(at, into.length)
    this.memory.load(at, into)
  }

  copyIn(at: number, bytes: Uint8Array): void {
    this.#check(at, bytes.length)
    this.memory.store(at, bytes)
  }

  #load(at: number, width: number): DataView<ArrayBuffer> {
    this.#check(at, width)
    const bytes = new Uint8Array(width)
    this.memory.load(at, bytes)
    return new DataView(bytes.buffer)
  }

  #store(at: number, value: DataView<ArrayBuffer>): void {
    this.#check(at, value.byteLength)
    this.memory.store(at, new Uint8Array(value.buffer))
  }

  #check(at: number, lengthBytes: number): void {
    if (!(at >= 0 && lengthBytes >= 0 && lengthBytes <= this.memory.lengthBytes - at)) {
      throw new RangeError(`window of ${this.memory.lengthBytes} bytes: ${lengthBytes} at ${at}`)
    }
  }
}
