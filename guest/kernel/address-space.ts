import { type Gpa, gpa } from '../../protocol/memory.ts'
import { SeamWindow } from '../../protocol/seam-window.ts'
import { Window } from '../../protocol/window.ts'
import type { KernelMemory } from './kernel-memory.ts'
import { PAGE_BYTES, PAGE_SHIFT, type PageFrames, pageOffset, RESERVED_BYTES } from './page-frames.ts'
import { PageTable } from './page-table.ts'

/** Where applications' buffers lie: 1 TiB and up. Kernel addresses, below, are physical ones. */
const USER_BASE = 2 ** 40
/** Where the kernel maps MDLs: 2 TiB and up. */
const SYSTEM_BASE = 2 ** 41
/** No address is mapped from here on: page numbers fit 31 bits. */
const END = 2 ** 43

export interface UserBufferOptions {
  /** Bytes into its first page where the buffer begins. */
  readonly offsetBytes?: number
  readonly readOnly?: boolean
  /** Pages side by side in RAM where there are so many, as large pages are; scattered ones else. */
  readonly largePages?: boolean
}

/**
 * Virtual memory: one process and the kernel. Kernel memory is identity-mapped; users' buffers are pages that
 * lie scattered in RAM, so that an MDL over one really is a list; system mappings show such pages to drivers.
 */
export class AddressSpace {
  readonly memory: KernelMemory
  readonly #frames: PageFrames
  readonly #pages: PageTable
  /** Pages of each user buffer, by its first page number. */
  readonly #buffers: Map<number, number>
  #nextUser: number
  #nextSystem: number
  #systemPages: number

  constructor(memory: KernelMemory, frames: PageFrames) {
    this.memory = memory
    this.#frames = frames
    this.#pages = new PageTable()
    this.#buffers = new Map()
    this.#nextUser = USER_BASE / PAGE_BYTES
    this.#nextSystem = SYSTEM_BASE / PAGE_BYTES
    this.#systemPages = 0
  }

  /** Pages mapped by `mapSystem` and not unmapped. */
  get systemPageCount(): number {
    return this.#systemPages
  }

  /** User buffers not freed. */
  get userBufferCount(): number {
    return this.#buffers.size
  }

  static isUser(at: number): boolean {
    return at >= USER_BASE && at < SYSTEM_BASE
  }

  /** A zeroed buffer of an application: its address, or 0 when RAM is short. */
  allocateUser(lengthBytes: number, options: UserBufferOptions = {}): number {
    const offset = options.offsetBytes ?? 0
    const count = Math.max(1, Math.ceil((offset + lengthBytes) / PAGE_BYTES))
    if (count > this.#frames.freeCount) return 0
    const first = this.#nextUser
    // One page between buffers stays unmapped: running past an end is an access violation.
    this.#nextUser += count + 1
    const run = options.largePages === true ? this.#frames.allocateRun(count) : -1
    for (let index = 0; index < count; index++) {
      const frame = run < 0 ? this.#frames.allocateScattered() : run + index
      this.memory.zero(frame * PAGE_BYTES, PAGE_BYTES)
      this.#pages.map(first + index, frame, options.readOnly !== true)
    }
    this.#buffers.set(first, count)
    return first * PAGE_BYTES + offset
  }

  /** Pages locked for I/O in it are a bug check. */
  freeUser(at: number): void {
    const first = Math.floor(at / PAGE_BYTES)
    const count = this.#buffers.get(first)
    if (count === undefined) throw new RangeError(`no user buffer at ${at}`)
    this.#buffers.delete(first)
    for (let page = first; page < first + count; page++) {
      const frame = this.#pages.frameOf(page, false)
      this.#pages.unmap(page)
      if (frame >= 0) this.#frames.free(frame)
    }
  }

  /** Shows the pages to the kernel side by side: the address of the first byte of the first one. */
  mapSystem(frames: readonly number[]): number {
    const first = this.#nextSystem
    this.#nextSystem += frames.length + 1
    for (const [index, frame] of frames.entries()) this.#pages.map(first + index, frame, true)
    this.#systemPages += frames.length
    return first * PAGE_BYTES
  }

  unmapSystem(at: number, count: number): void {
    const first = Math.floor(at / PAGE_BYTES)
    for (let page = first; page < first + count; page++) if (this.#pages.unmap(page)) this.#systemPages--
  }

  /** The page frame behind an address, or -1. */
  frameOf(at: number, write: boolean): number {
    if (at < this.memory.lengthBytes) return at >= RESERVED_BYTES ? at >>> PAGE_SHIFT : -1
    return at < END ? this.#pages.frameOf((at / PAGE_BYTES) | 0, write) : -1
  }

  /** The physical address behind a virtual one (MmGetPhysicalAddress), or null. */
  physical(at: number): Gpa | null {
    const frame = this.frameOf(at, false)
    return frame < 0 ? null : gpa(frame * PAGE_BYTES + pageOffset(at))
  }

  /** Where the kernel has a range that lies within one page; -1 when it does not, or may not be used so. */
  inPage(at: number, lengthBytes: number, write: boolean): number {
    const offset = pageOffset(at)
    if (!(offset + lengthBytes <= PAGE_BYTES)) return -1
    const frame = this.frameOf(at, write)
    return frame < 0 ? -1 : frame * PAGE_BYTES + offset
  }

  /** Whether every byte may be read, or written. */
  accessible(at: number, lengthBytes: number, write: boolean): boolean {
    if (!(at >= 0 && lengthBytes >= 0)) return false
    for (let page = at - pageOffset(at); page < at + lengthBytes; page += PAGE_BYTES) {
      if (this.frameOf(page, write) < 0) return false
    }
    return true
  }

  /** Copies out; false, and nothing copied, when a byte is not readable. */
  copyOut(at: number, into: Uint8Array): boolean {
    const pieces = this.#pieces(at, into.length, false)
    if (pieces === null) return false
    let done = 0
    for (const piece of pieces) {
      into.set(piece, done)
      done += piece.length
    }
    return true
  }

  /** Copies in; false, and nothing copied, when a byte is not writable. */
  copyIn(at: number, bytes: Uint8Array): boolean {
    const pieces = this.#pieces(at, bytes.length, true)
    if (pieces === null) return false
    let done = 0
    for (const piece of pieces) {
      piece.set(bytes.subarray(done, done + piece.length))
      done += piece.length
    }
    return true
  }

  /** The bytes of a range, in as many pieces as they lie in RAM; null when a byte is not writable. */
  views(at: number, lengthBytes: number): readonly Uint8Array<ArrayBuffer>[] | null {
    return this.#pieces(at, lengthBytes, true)
  }

  /** A window over a range, in as many pieces as it lies in RAM; null when a byte is not writable. */
  window(at: number, lengthBytes: number): Window | null {
    const pieces = this.#pieces(at, lengthBytes, true)
    if (pieces === null) return null
    return pieces.length > 1 ? new SeamWindow(pieces) : new Window(pieces[0])
  }

  #pieces(at: number, lengthBytes: number, write: boolean): Uint8Array<ArrayBuffer>[] | null {
    if (!this.accessible(at, lengthBytes, write)) return null
    const { guest } = this.memory
    const pieces: Uint8Array<ArrayBuffer>[] = []
    if (at < this.memory.lengthBytes) return guest.lend(gpa(at), lengthBytes, pieces) ? pieces : null
    for (let done = 0; done < lengthBytes; ) {
      const from = at + done
      const frame = this.frameOf(from, write)
      let run = PAGE_BYTES - pageOffset(from)
      let next = frame + 1
      while (run < lengthBytes - done && this.frameOf(from + run, write) === next) {
        run += PAGE_BYTES
        next++
      }
      const here = Math.min(lengthBytes - done, run)
      if (!guest.lend(gpa(frame * PAGE_BYTES + pageOffset(from)), here, pieces)) return null
      done += here
    }
    return pieces
  }
}
