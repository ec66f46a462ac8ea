import type { Elements } from '../../protocol/layout.ts'
import type { Gpa, Region } from '../../protocol/memory.ts'
import { GuestMemory } from '../../protocol/memory.ts'
import type { Cursor, FieldAt } from '../../protocol/window.ts'
import { Window } from '../../protocol/window.ts'

/** `load` and `store` are published indices; a `lend` is a payload view, of which nothing more is seen. */
export type AccessKind = 'read' | 'write' | 'load' | 'store' | 'lend'

export interface Access {
  readonly kind: AccessKind
  /** Guest-physical address of the first byte. */
  readonly at: number
  readonly lengthBytes: number
}

/**
 * What one party did to guest memory, in order.
 *
 * `after` is where a hostile peer lives: it runs when a value has been read and before it is used, so a peer
 * that changes those very bytes there shows every second read of them, without threads and without luck.
 */
export class Journal {
  readonly accesses: Access[]
  after: ((access: Access) => void) | null
  readonly #reads: Map<number, number>
  readonly #written: Set<number>

  constructor() {
    this.accesses = []
    this.after = null
    this.#reads = new Map()
    this.#written = new Set()
  }

  clear(): void {
    this.accesses.length = 0
    this.#reads.clear()
    this.#written.clear()
  }

  note(kind: AccessKind, at: number, lengthBytes: number): void {
    const access = { kind, at, lengthBytes }
    this.accesses.push(access)
    if (kind === 'read' || kind === 'load') {
      for (let i = 0; i < lengthBytes; i++) this.#reads.set(at + i, (this.#reads.get(at + i) ?? 0) + 1)
    } else if (kind !== 'lend') {
      for (let i = 0; i < lengthBytes; i++) this.#written.add(at + i)
    }
    this.after?.(access)
  }

  /** Most reads of any byte of the range since the last `clear`. */
  reads(at: number, lengthBytes: number): number {
    let most = 0
    for (let i = 0; i < lengthBytes; i++) most = Math.max(most, this.#reads.get(at + i) ?? 0)
    return most
  }

  /** Bytes of the range that were read since the last `clear`. */
  bytesRead(at: number, lengthBytes: number): number {
    let bytes = 0
    for (let i = 0; i < lengthBytes; i++) if (this.#reads.has(at + i)) bytes++
    return bytes
  }

  /** Addresses of all bytes read or written through windows since the last `clear`. */
  touched(): number[] {
    return [...new Set([...this.#reads.keys(), ...this.#written])]
  }

  written(): number[] {
    return [...this.#written]
  }
}

/** A window that notes every access with its guest-physical address, and reads through another. */
export class JournalWindow extends Window {
  readonly #inner: Window
  readonly #at: number
  readonly #journal: Journal

  /** `inner` starts at address `at`. */
  constructor(inner: Window, at: number, journal: Journal) {
    super()
    this.#inner = inner
    this.#at = at
    this.#journal = journal
  }

  override get lengthBytes(): number {
    return this.#inner.lengthBytes
  }

  override u8(field: FieldAt<'u8'>, base = 0): number {
    return this.#read(1, field + base, this.#inner.u8(field, base))
  }

  override le16(field: FieldAt<'le16'>, base = 0): number {
    return this.#read(2, field + base, this.#inner.le16(field, base))
  }

  override le32(field: FieldAt<'le32'>, base = 0): number {
    return this.#read(4, field + base, this.#inner.le32(field, base))
  }

  override le64(field: FieldAt<'le64'>, base = 0): number {
    return this.#read(8, field + base, this.#inner.le64(field, base))
  }

  override be16(field: FieldAt<'be16'>, base = 0): number {
    return this.#read(2, field + base, this.#inner.be16(field, base))
  }

  override be32(field: FieldAt<'be32'>, base = 0): number {
    return this.#read(4, field + base, this.#inner.be32(field, base))
  }

  override be64(field: FieldAt<'be64'>, base = 0): number {
    return this.#read(8, field + base, this.#inner.be64(field, base))
  }

  override putU8(field: FieldAt<'u8'>, value: number, base = 0): void {
    this.#inner.putU8(field, value, base)
    this.#wrote(1, field + base)
  }

  override putLe16(field: FieldAt<'le16'>, value: number, base = 0): void {
    this.#inner.putLe16(field, value, base)
    this.#wrote(2, field + base)
  }

  override putLe32(field: FieldAt<'le32'>, value: number, base = 0): void {
    this.#inner.putLe32(field, value, base)
    this.#wrote(4, field + base)
  }

  override putLe64(field: FieldAt<'le64'>, value: number, base = 0): void {
    this.#inner.putLe64(field, value, base)
    this.#wrote(8, field + base)
  }

  override putBe16(field: FieldAt<'be16'>, value: number, base = 0): void {
    this.#inner.putBe16(field, value, base)
    this.#wrote(2, field + base)
  }

  override putBe32(field: FieldAt<'be32'>, value: number, base = 0): void {
    this.#inner.putBe32(field, value, base)
    this.#wrote(4, field + base)
  }

  override putBe64(field: FieldAt<'be64'>, value: number, base = 0): void {
    this.#inner.putBe64(field, value, base)
    this.#wrote(8, field + base)
  }

  override loadIndex(field: FieldAt<'le16'>, base = 0): number {
    const value = this.#inner.loadIndex(field, base)
    this.#journal.note('load', this.#at + field + base, 2)
    return value
  }

  override storeIndex(field: FieldAt<'le16'>, value: number, base = 0): void {
    this.#inner.storeIndex(field, value, base)
    this.#journal.note('store', this.#at + field + base, 2)
  }

  override copyOut(from: number | Elements<'u8'>, into: Uint8Array): void {
    this.#inner.copyOut(from, into)
    this.#journal.note('read', this.#at + from, into.length)
  }

  override copyIn(to: number | Elements<'u8'>, bytes: Uint8Array): void {
    this.#inner.copyIn(to, bytes)
    this.#wrote(bytes.length, to)
  }

  override fill(value: number, at: number, lengthBytes: number): void {
    this.#inner.fill(value, at, lengthBytes)
    this.#wrote(lengthBytes, at)
  }

  #read(lengthBytes: number, at: number, value: number): number {
    this.#journal.note('read', this.#at + at, lengthBytes)
    return value
  }

  #wrote(lengthBytes: number, at: number): void {
    this.#journal.note('write', this.#at + at, lengthBytes)
  }
}

/**
 * Guest memory as one party sees it, with a journal of what that party does. Over the same bytes as the
 * memory it is made from: give the device one, the driver another, and the hostile peer the plain one.
 *
 * ```ts
 * const memory = GuestMemory.ofBytes(1 << 20)
 * const journal = new Journal()
 * const dma = new DmaSpace(new JournalMemory(memory, journal))
 * ```
 */
export class JournalMemory extends GuestMemory {
  readonly journal: Journal
  readonly #plain: GuestMemory

  constructor(memory: GuestMemory, journal: Journal = new Journal()) {
    super(memory.regions)
    this.journal = journal
    this.#plain = new GuestMemory(memory.regions)
  }

  override window(at: Gpa, lengthBytes: number, alignment: number): Window | null {
    const inner = this.#plain.window(at, lengthBytes, alignment)
    return inner === null ? null : new JournalWindow(inner, at, this.journal)
  }

  /** The window covers exactly the range that was pointed at: one byte further throws. */
  override point(cursor: Cursor, at: Gpa, lengthBytes: number): boolean {
    const inner = this.#plain.window(at, lengthBytes, 1)
    if (inner === null) return false
    cursor.window = new JournalWindow(inner, at, this.journal)
    cursor.base = 0
    return true
  }

  override lend(at: Gpa, lengthBytes: number, into: Uint8Array<ArrayBuffer>[]): boolean {
    if (!this.#plain.lend(at, lengthBytes, into)) return false
    if (lengthBytes > 0) this.journal.note('lend', at, lengthBytes)
    return true
  }
}

/** The bytes of every region, for comparing what changed. */
export function snapshot(memory: GuestMemory): readonly Region[] {
  return memory.regions.map(({ base, bytes }) => ({ base, bytes: bytes.slice() }))
}

/** Addresses of the bytes that differ from a snapshot. */
export function changedSince(before: readonly Region[], memory: GuestMemory): number[] {
  const changed: number[] = []
  for (const [index, { base, bytes }] of memory.regions.entries()) {
    const old = before[index]?.bytes
    for (let i = 0; i < bytes.length; i++) if (bytes[i] !== old?.[i]) changed.push(base + i)
  }
  return changed
}
