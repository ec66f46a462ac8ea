import type { AbsentMemory } from '../../protocol/absent-view.ts'
import { type Gpa, GuestMemory, gpa, PAGE_BYTES, type Region } from '../../protocol/memory.ts'
import { RevocableWindow } from '../../protocol/revocable-window.ts'
import type { Cursor, Window } from '../../protocol/window.ts'
import type { GuestRange } from '../processor.ts'
import { Access } from './ept-walk.ts'
import type { Physical } from './physical.ts'
import { NO_EPT, type Translation } from './translation.ts'

const READ_WRITE = Access.READ | Access.WRITE
/** Neighbouring leaves that one extent may join, in each direction. */
const NEIGHBOURS = 512
/** Extents remembered between two INVEPTs: a guest touches few ranges at a time. */
const EXTENTS = 8

/** How an access reaches memory when no window does: with the exits it takes. */
export interface GuestAccess {
  load(at: number, into: Uint8Array): void
  store(at: number, bytes: Uint8Array): void
  /** Returns once the byte may be read and written; the host-physical address is in the translation. */
  reach(at: number): void
}

/** A window that was handed out: where it lies, and how its holder gets at absent bytes. */
class Placed implements AbsentMemory {
  readonly #memory: TranslatedMemory
  readonly at: number
  readonly lengthBytes: number
  readonly window: WeakRef<RevocableWindow>

  constructor(memory: TranslatedMemory, at: number, lengthBytes: number, window: RevocableWindow) {
    this.#memory = memory
    this.at = at
    this.lengthBytes = lengthBytes
    this.window = new WeakRef(window)
  }

  load(at: number, into: Uint8Array): void {
    this.#memory.access.load(this.at + at, into)
    this.#memory.place(this)
  }

  store(at: number, bytes: Uint8Array): void {
    this.#memory.access.store(this.at + at, bytes)
    this.#memory.place(this)
  }
}

/** A run of bytes that is contiguous in guest-physical and in host memory, readable and writable. */
class Extent {
  readonly base: number
  readonly end: number
  readonly window: Window

  constructor(base: number, end: number, window: Window) {
    this.base = base
    this.end = end
    this.window = window
  }
}

const NOWHERE = new Extent(Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, new RevocableWindow())

/**
 * Guest memory as guest code sees it: every window comes from a walk of the EPT and is what a TLB entry is.
 * It reaches its bytes directly until INVEPT drops it; then, without a change in the window's accessors, the
 * next access through it walks again, exits if it must, and takes the direct way back when there is one.
 *
 * A window over bytes that are not mapped, not writable or not contiguous can be made; it is its accesses
 * that exit. `lend` gives bare views, which nothing can revoke, so it is itself an access that reads and
 * writes; a view lent stays good until it is returned, as a pinned page does.
 *
 * With accessed and dirty flags on, handing out a window marks its pages dirty: flags then say what may have
 * been written, never less.
 */
export class TranslatedMemory extends GuestMemory {
  readonly #ram: readonly GuestRange[]
  /** Windows may follow their page from one range to another, so one that is shared makes all of them so. */
  readonly #shared: boolean
  readonly #physical: Physical
  readonly #translation: Translation
  readonly access: GuestAccess
  #extents: Extent[]
  #last: Extent
  /** Everything handed out whose holder may still live. */
  #placed: Placed[]
  #sweepAt: number

  constructor(ram: readonly GuestRange[], physical: Physical, translation: Translation, access: GuestAccess) {
    super([PLACEHOLDER])
    if (ram.length === 0) throw new RangeError('guest memory: no range')
    this.#ram = [...ram].sort((a, b) => a.base - b.base)
    this.#shared = ram.some((range) => range.shared === true)
    this.#physical = physical
    this.#translation = translation
    this.access = access
    this.#extents = []
    this.#last = NOWHERE
    this.#placed = []
    this.#sweepAt = 64
  }

  /** Guest code holds windows, never the bytes. */
  override get regions(): readonly Region[] {
    return []
  }

  override get end(): Gpa {
    const last = this.#ram.at(-1)
    return gpa(last === undefined ? 0 : last.base + last.lengthBytes)
  }

  override backed(at: Gpa, lengthBytes: number): boolean {
    let address: number = at
    let left = lengthBytes
    if (!(left >= 0)) return false
    for (const { base, lengthBytes: here } of this.#ram) {
      if (left === 0) break
      if (address >= base && address < base + here) {
        const count = Math.min(left, base + here - address)
        address += count
        left -= count
      }
    }
    return left === 0
  }

  override window(at: Gpa, lengthBytes: number, alignment: number): Window | null {
    if (at % alignment !== 0 || !this.backed(at, lengthBytes)) return null
    return this.#make(at, lengthBytes)
  }

  override point(cursor: Cursor, at: Gpa, lengthBytes: number): boolean {
    const last = this.#last
    if (at >= last.base && lengthBytes >= 0 && lengthBytes <= last.end - at) {
      cursor.window = last.window
      cursor.base = at - last.base
      return true
    }
    return this.#pointSlowly(cursor, at, lengthBytes)
  }

  override lend(at: Gpa, lengthBytes: number, into: Uint8Array<ArrayBuffer>[]): boolean {
    if (!this.backed(at, lengthBytes)) return false
    const first = into.length
    for (let done = 0; done < lengthBytes; ) {
      const from = at + done
      this.access.reach(from)
      const count = Math.min(lengthBytes - done, PAGE_BYTES - (from % PAGE_BYTES))
      this.#physical.memory.lend(gpa(this.#translation.address), count, into)
      done += count
    }
    joinViews(into, first)
    return true
  }

  /** INVEPT: no window reaches its bytes directly any more. */
  invalidate(): void {
    this.#extents = []
    this.#last = NOWHERE
    this.#sweep()
    for (const placed of this.#placed) placed.window.deref()?.detach(placed)
  }

  /** Gives a window its bytes, if it has bytes of its own to reach directly. */
  place(placed: Placed): void {
    const window = placed.window.deref()
    if (window === undefined) return
    const bytes = this.#direct(placed.at, placed.lengthBytes)
    if (bytes !== null) window.aim(bytes)
  }

  #make(at: number, lengthBytes: number): Window {
    const window = new RevocableWindow(undefined, this.#shared)
    const placed = new Placed(this, at, lengthBytes, window)
    const bytes = this.#direct(at, lengthBytes)
    if (bytes === null) window.detach(placed)
    else window.aim(bytes)
    this.#remember(placed)
    return window
  }

  #remember(placed: Placed): void {
    if (this.#placed.length >= this.#sweepAt) this.#sweep()
    this.#placed.push(placed)
  }

  /** Forgets windows that nobody holds. When they are collected changes nothing that a run can see. */
  #sweep(): void {
    this.#placed = this.#placed.filter((placed) => placed.window.deref() !== undefined)
    this.#sweepAt = Math.max(64, this.#placed.length * 2)
  }

  /** The bytes of a range when all of it is mapped, readable, writable and contiguous. */
  #direct(at: number, lengthBytes: number): Uint8Array<ArrayBuffer> | null {
    if (lengthBytes === 0) return new Uint8Array(0)
    const { walk, pointer } = this.#translation
    if (pointer === NO_EPT) return this.#physical.view(at, lengthBytes)
    let base = 0
    for (let next = at; next < at + lengthBytes; ) {
      if (walk.walk(pointer, next, READ_WRITE) !== 'mapped') return null
      if (next === at) base = walk.address
      else if (walk.address !== base + (next - at)) return null
      next += walk.leafBytes - (next % walk.leafBytes)
    }
    return this.#physical.view(base, lengthBytes)
  }

  #pointSlowly(cursor: Cursor, at: number, lengthBytes: number): boolean {
    for (const extent of this.#extents) {
      if (at >= extent.base && lengthBytes >= 0 && lengthBytes <= extent.end - at) {
        this.#last = extent
        cursor.window = extent.window
        cursor.base = at - extent.base
        return true
      }
    }
    if (!this.backed(gpa(at), lengthBytes)) return false
    const extent = this.#extentAround(at)
    if (extent === null || !(lengthBytes <= extent.end - at)) {
      cursor.window = this.#make(at, lengthBytes)
      cursor.base = 0
      return true
    }
    if (this.#extents.length >= EXTENTS) this.#extents.shift()
    this.#extents.push(extent)
    this.#last = extent
    cursor.window = extent.window
    cursor.base = at - extent.base
    return true
  }

  /**
   * The leaf around an address with the neighbours that continue it. With accessed and dirty flags on it stays
   * one leaf, so that pointing at a page does not mark the pages beside it.
   */
  #extentAround(at: number): Extent | null {
    const range = this.#ram.find(({ base, lengthBytes }) => at >= base && at < base + lengthBytes)
    if (range === undefined) return null
    const { walk, pointer, marksAccess } = this.#translation
    const start: number = range.base
    const end = range.base + range.lengthBytes
    if (pointer === NO_EPT) return this.#extent(start, end)
    if (walk.walk(pointer, at, READ_WRITE) !== 'mapped') return null
    const offset = walk.address - at
    const leaf = at - (at % walk.leafBytes)
    const leafEnd = leaf + walk.leafBytes
    let low = leaf
    let high = leafEnd
    for (let i = 0; i < NEIGHBOURS && !marksAccess && high < end; i++) {
      if (walk.walk(pointer, high, READ_WRITE) !== 'mapped' || walk.address - high !== offset) break
      high += walk.leafBytes
    }
    for (let i = 0; i < NEIGHBOURS && !marksAccess && low > start; i++) {
      if (walk.walk(pointer, low - 1, READ_WRITE) !== 'mapped' || walk.address - (low - 1) !== offset) break
      low -= walk.leafBytes
    }
    return (
      this.#extent(Math.max(low, start), Math.min(high, end)) ??
      this.#extent(Math.max(leaf, start), Math.min(leafEnd, end))
    )
  }

  #extent(low: number, high: number): Extent | null {
    if (this.#direct(low, high - low) === null) return null
    return new Extent(low, high, this.#make(low, high - low))
  }
}

/** Views from index `first` on that continue each other in one buffer become one. */
function joinViews(views: Uint8Array<ArrayBuffer>[], first: number): void {
  let kept = first
  for (const view of views.slice(first)) {
    const before = kept === first ? undefined : views[kept - 1]
    if (
      before !== undefined &&
      before.buffer === view.buffer &&
      before.byteOffset + before.length === view.byteOffset
    ) {
      views[kept - 1] = new Uint8Array(view.buffer, before.byteOffset, before.length + view.length)
    } else {
      views[kept] = view
      kept++
    }
  }
  views.length = kept
}

/** The class above keeps its own table; the one it inherits is never asked. */
const PLACEHOLDER: Region = { base: gpa(0), bytes: new Uint8Array(PAGE_BYTES) }
