import type { Field } from '../../protocol/layout.ts'
import { type GuestMemory, gpa } from '../../protocol/memory.ts'
import type { AccessWidth } from '../../protocol/platform.ts'
import { Cursor } from '../../protocol/window.ts'

const U8 = 0 as Field<'u8'>
const LE16 = 0 as Field<'le16'>
const LE32 = 0 as Field<'le32'>
const LE64 = 0 as Field<'le64'>

/**
 * Host-physical memory as the processor itself reaches it: bitmaps, tables, areas named by the VMCS. Where
 * nothing answers, reads float high and writes are lost, as on a bus.
 */
export class Physical {
  readonly memory: GuestMemory
  readonly #cursor: Cursor

  constructor(memory: GuestMemory) {
    this.memory = memory
    this.#cursor = new Cursor()
  }

  u8(address: number): number {
    const cursor = this.#cursor
    return this.memory.point(cursor, gpa(address), 1) ? cursor.window.u8(U8, cursor.base) : 0xff
  }

  le32(address: number): number {
    const cursor = this.#cursor
    return this.memory.point(cursor, gpa(address), 4) ? cursor.window.le32(LE32, cursor.base) : 0xffff_ffff
  }

  putLe32(address: number, value: number): void {
    const cursor = this.#cursor
    if (this.memory.point(cursor, gpa(address), 4)) cursor.window.putLe32(LE32, value, cursor.base)
  }

  /** Exact below 2^53. */
  read(address: number, width: AccessWidth): number {
    const cursor = this.#cursor
    if (!this.memory.point(cursor, gpa(address), width)) return 2 ** (width * 8) - 1
    const { window, base } = cursor
    if (width === 1) return window.u8(U8, base)
    if (width === 2) return window.le16(LE16, base)
    return width === 4 ? window.le32(LE32, base) : window.le64(LE64, base)
  }

  write(address: number, width: AccessWidth, value: number): void {
    const cursor = this.#cursor
    if (!this.memory.point(cursor, gpa(address), width)) return
    const { window, base } = cursor
    if (width === 1) window.putU8(U8, value, base)
    else if (width === 2) window.putLe16(LE16, value, base)
    else if (width === 4) window.putLe32(LE32, value, base)
    else window.putLe64(LE64, value, base)
  }

  copyOut(address: number, into: Uint8Array): void {
    const cursor = this.#cursor
    if (this.memory.point(cursor, gpa(address), into.length)) cursor.window.copyOut(cursor.base, into)
    else into.fill(0xff)
  }

  copyIn(address: number, bytes: Uint8Array): void {
    const cursor = this.#cursor
    if (this.memory.point(cursor, gpa(address), bytes.length)) cursor.window.copyIn(cursor.base, bytes)
  }

  /** The bytes themselves when the range lies in one region, else null. */
  view(address: number, lengthBytes: number): Uint8Array<ArrayBuffer> | null {
    const pieces: Uint8Array<ArrayBuffer>[] = []
    if (!this.memory.lend(gpa(address), lengthBytes, pieces)) return null
    return pieces.length === 1 ? (pieces[0] as Uint8Array<ArrayBuffer>) : null
  }
}
