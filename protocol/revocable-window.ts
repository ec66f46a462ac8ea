import type { AbsentMemory } from './absent-view.ts'
import { AbsentView } from './absent-view.ts'
import type { Elements } from './layout.ts'
import type { FieldAt } from './window.ts'
import { Window, wordsOf } from './window.ts'

/**
 * A window whose bytes can be taken away from everybody who holds it, and given back: what a TLB entry is.
 *
 * Accessors are those of `Window` and pay nothing: while the bytes are absent it is the view they meet that
 * differs. Indices and copies, which go past the view, are told apart here.
 */
export class RevocableWindow extends Window {
  /** Points the window at its bytes, or at other ones. */
  aim(bytes: Uint8Array<ArrayBuffer>): void {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    this.indices = wordsOf(bytes)
  }

  /** Takes the bytes away: from now on every access goes through `memory`, until `aim`. */
  detach(memory: AbsentMemory): void {
    this.view = new AbsentView(memory)
    this.indices = new Uint16Array(0)
  }

  override get lengthBytes(): number {
    return this.view instanceof AbsentView ? this.view.memory.lengthBytes : this.view.byteLength
  }

  override loadIndex(field: FieldAt<'le16'>, base = 0): number {
    if (this.view instanceof AbsentView) return this.view.getUint16(base + field, true)
    return super.loadIndex(field, base)
  }

  override storeIndex(field: FieldAt<'le16'>, value: number, base = 0): void {
    if (this.view instanceof AbsentView) this.view.setUint16(base + field, value, true)
    else super.storeIndex(field, value, base)
  }

  override copyOut(from: number | Elements<'u8'>, into: Uint8Array): void {
    if (this.view instanceof AbsentView) this.view.copyOut(from, into)
    else super.copyOut(from, into)
  }

  override copyIn(to: number | Elements<'u8'>, bytes: Uint8Array): void {
    if (this.view instanceof AbsentView) this.view.copyIn(to, bytes)
    else super.copyIn(to, bytes)
  }

  override fill(value: number, at: number, lengthBytes: number): void {
    if (this.view instanceof AbsentView) this.view.copyIn(at, new Uint8Array(lengthBytes).fill(value))
    else super.fill(value, at, lengthBytes)
  }
}
