import { closeSync, openSync, readSync, writeSync } from 'node:fs'
import { type Gpa, GuestMemory, gpa, PAGE_BYTES } from '../../protocol/memory.ts'
import { SeamWindow } from '../../protocol/seam-window.ts'
import type { FieldAt, Window } from '../../protocol/window.ts'

/**
 * A window over a file that another process has mapped. Every field is one read or write of the file, so it
 * is the other side's current value that is seen and nothing is held back: no copy, no moment to synchronise.
 */
class FileWindow extends SeamWindow {
  readonly #fd: number
  readonly #at: number
  readonly #lengthBytes: number
  readonly #index: Uint8Array

  constructor(fd: number, at: number, lengthBytes: number) {
    super([])
    this.#fd = fd
    this.#at = at
    this.#lengthBytes = lengthBytes
    this.#index = new Uint8Array(2)
  }

  override get lengthBytes(): number {
    return this.#lengthBytes
  }

  override loadIndex(field: FieldAt<'le16'>, base = 0): number {
    this.copyOut(base + field, this.#index)
    return (this.#index[0] ?? 0) + (this.#index[1] ?? 0) * 256
  }

  override storeIndex(field: FieldAt<'le16'>, value: number, base = 0): void {
    this.#index[0] = value & 0xff
    this.#index[1] = value >>> 8
    this.copyIn(base + field, this.#index)
  }

  override copyOut(from: number, into: Uint8Array): void {
    this.#check(from, into.length)
    const count = readSync(this.#fd, into, 0, into.length, this.#at + from)
    if (count !== into.length) throw new Error(`guest memory: ${count} of ${into.length} bytes read`)
  }

  override copyIn(to: number, bytes: Uint8Array): void {
    this.#check(to, bytes.length)
    const count = writeSync(this.#fd, bytes, 0, bytes.length, this.#at + to)
    if (count !== bytes.length) throw new Error(`guest memory: ${count} of ${bytes.length} bytes written`)
  }

  override fill(value: number, at: number, lengthBytes: number): void {
    this.copyIn(at, new Uint8Array(lengthBytes).fill(value))
  }

  #check(at: number, lengthBytes: number): void {
    if (at >= 0 && lengthBytes >= 0 && lengthBytes <= this.#lengthBytes - at) return
    throw new RangeError(`window of ${this.#lengthBytes} bytes: ${lengthBytes} at ${at}`)
  }
}

/** Guest memory that is a file, mapped by whoever holds the device. Only windows of it can be had. */
export class FileMemory extends GuestMemory {
  readonly #fd: number
  readonly #lengthBytes: number

  constructor(file: string, lengthBytes: number) {
    // A table of regions has to have one; nothing here reaches it.
    super([{ base: gpa(0), bytes: new Uint8Array(PAGE_BYTES) }])
    this.#fd = openSync(file, 'r+')
    this.#lengthBytes = lengthBytes
  }

  override get end(): Gpa {
    return gpa(this.#lengthBytes)
  }

  override backed(at: Gpa, lengthBytes: number): boolean {
    return at >= 0 && lengthBytes >= 0 && lengthBytes <= this.#lengthBytes - at
  }

  override window(at: Gpa, lengthBytes: number, alignment: number): Window | null {
    if (at % alignment !== 0 || !this.backed(at, lengthBytes)) return null
    return new FileWindow(this.#fd, at, lengthBytes)
  }

  override point(): boolean {
    throw new Error('memory that is a file has no cursors')
  }

  override lend(): boolean {
    throw new Error('memory that is a file cannot be lent')
  }

  close(): void {
    closeSync(this.#fd)
  }
}
