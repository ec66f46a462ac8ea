import type { AbsentMemory } from './absent-view.ts'
import { AbsentView } from './absent-view.ts'
import type { Elements } from './layout.ts'
import { halvesOf, indicesOf, NO_HALVES, NO_WORDS, Window, wordsOf } from './window.ts'

/**
 * A window whose bytes can be taken away from everybody who holds it, and given back: what a TLB entry is.
 *
 * Accessors are those of `Window` and pay nothing: while the bytes are absent it is the view they meet that
 * differs. Atomic indices and copies, which go past the view, are told apart here.
 */
export class RevocableWindow extends Window {
  /** Points the window at its bytes, or at other ones. */
  aim(bytes: Uint8Array<ArrayBuffer>): void {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    this.indices = indicesOf(bytes)
    this.halves = this.atomic ? NO_HALVES : halvesOf(bytes)
    this.words = wordsOf(bytes)
  }

  /** Takes the bytes away: from now on every access goes through `memory`, until `aim`. */
  detach(memory: AbsentMemory): void {
    this.view = new AbsentView(memory)
    this.indices = NO_HALVES
    this.halves = NO_HALVES
    this.words = NO_WORDS
  }

  override get lengthBytes(): number {
    return this.view instanceof AbsentView ? this.view.memory.lengthBytes : this.view.byteLength
  }

  protected override loadApart(at: number): number {
    return this.view instanceof AbsentView ? this.view.getUint16(at, true) : super.loadApart(at)
  }

  protected override storeApart(at: number, value: number): void {
    if (this.view instanceof AbsentView) this.view.setUint16(at, value, true)
    else super.storeApart(at, value)
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
