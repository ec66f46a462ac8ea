import type { Field } from '../../protocol/layout.ts'
import { BugCode, keBugCheckEx } from './bug-check.ts'
import { Irql } from './irql.ts'
import type { KernelMemory } from './kernel-memory.ts'
import { PAGE_BYTES, type PageFrames } from './page-frames.ts'

/** POOL_TYPE. */
export const PoolType = { NON_PAGED: 0, PAGED: 1 } as const
export type PoolType = (typeof PoolType)[keyof typeof PoolType]

/** A pool tag as its four characters. */
export function poolTag(text: string): number {
  let tag = 0
  for (let at = 3; at >= 0; at--) tag = tag * 256 + (text.charCodeAt(at) & 0xff || 0x20)
  return tag
}

export function poolTagText(tag: number): string {
  return String.fromCharCode(tag & 0xff, (tag >>> 8) & 0xff, (tag >>> 16) & 0xff, tag >>> 24)
}

/** What freed memory is filled with. As a pointer it reaches nothing. */
export const POISON = 0x6b
const POISON_WORD = POISON * 0x101_0101
/** What fresh memory is filled with, so that nobody relies on zeros that are not promised. */
const FRESH = 0xcd

/** Header in front of each block: tag, length, and a pattern that an overrun of the block before breaks. */
const HEADER_BYTES = 16
/** Pattern behind each block. */
const GUARD_BYTES = 8
const PATTERN = 0x5aa5c33c

/** Where the header's fields lie, in words. */
const LENGTH = 1
const HEAD_PATTERN = 2
const WORD = 0 as Field<'le32'>

/** Block sizes with their header and guard; larger ones are whole pages. */
const CLASS_BYTES = [32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048]
const CLASS_BYTES_MAX = 2048
/** The class of a gross length, by its 16-byte units. */
const CLASS_OF = Uint8Array.from({ length: CLASS_BYTES_MAX / 16 + 1 }, (_, units) =>
  CLASS_BYTES.findIndex((bytes) => units * 16 <= bytes),
)
/** Freed blocks of one size that stay poisoned before the first of them is used again. */
const QUARANTINE_BLOCKS = 16

/** A place that was allocated once. Used again with it, so that a request's memory costs no object. */
interface PoolBlock {
  live: boolean
  tag: number
  type: PoolType
  /** Of the allocation, or of the poison it left. */
  lengthBytes: number
  /** Counts allocations: names a block in a report. */
  serial: number
}

/** One tag's use. */
export interface PoolUse {
  readonly tag: string
  readonly blocks: number
  readonly bytes: number
}

/**
 * The pools: tagged, tracked blocks. A free poisons; taking a block again checks that the poison is whole, so
 * a write after free is found; a guard behind each block finds overruns. Every mistake is a bug check.
 */
export class Pool {
  readonly #memory: KernelMemory
  readonly #frames: PageFrames
  /** By address: what is live, and what was freed and is poisoned. */
  readonly #blocks: Map<number, PoolBlock>
  /** Freed addresses, oldest first, by class. */
  readonly #freed: number[][]
  #count: number
  #serial: number
  /** Asked before each allocation; true fails it. Low-resource simulation is built on this. */
  refuse: ((tag: number, lengthBytes: number) => boolean) | null

  constructor(memory: KernelMemory, frames: PageFrames) {
    this.#memory = memory
    this.#frames = frames
    this.#blocks = new Map()
    this.#freed = CLASS_BYTES.map(() => [])
    this.#count = 0
    this.#serial = 0
    this.refuse = null
  }

  /** Live blocks. */
  get count(): number {
    return this.#count
  }

  /** Live blocks of one tag. */
  countOf(tag: number): number {
    let count = 0
    for (const block of this.#blocks.values()) if (block.live && block.tag === tag) count++
    return count
  }

  /** What is allocated now, by tag. */
  uses(): readonly PoolUse[] {
    const byTag = new Map<number, { blocks: number; bytes: number }>()
    for (const { live, tag, lengthBytes } of this.#blocks.values()) {
      if (!live) continue
      const use = byTag.get(tag) ?? { blocks: 0, bytes: 0 }
      use.blocks++
      use.bytes += lengthBytes
      byTag.set(tag, use)
    }
    return [...byTag].map(([tag, use]) => ({ tag: poolTagText(tag), ...use }))
  }

  /** ExAllocatePoolWithTag: an address (16-aligned), or 0. Contents are unspecified. */
  allocate(type: PoolType, lengthBytes: number, tag: number, irql: Irql): number {
    if (irql > limitOf(type)) keBugCheckEx(BugCode.BAD_POOL_CALLER, 8, irql, type, lengthBytes)
    if (!(lengthBytes >= 0)) keBugCheckEx(BugCode.BAD_POOL_CALLER, 0, 0, type, tag)
    if (this.refuse?.(tag, lengthBytes) === true) return 0
    const gross = HEADER_BYTES + lengthBytes + GUARD_BYTES
    const size = classOf(gross)
    const start = size < 0 ? this.#takePages(gross) : this.#takeClass(size)
    if (start === 0) return 0
    const { words, bytes } = this.#memory
    const at = start + HEADER_BYTES
    const word = start >>> 2
    words[word] = tag
    words[word + LENGTH] = lengthBytes
    words[word + HEAD_PATTERN] = PATTERN
    bytes.fill(FRESH, at, at + lengthBytes)
    this.#putGuard(at + lengthBytes)
    const serial = this.#serial++
    const kept = this.#blocks.get(at)
    if (kept === undefined) this.#blocks.set(at, { live: true, tag, type, lengthBytes, serial })
    else {
      kept.live = true
      kept.tag = tag
      kept.type = type
      kept.lengthBytes = lengthBytes
      kept.serial = serial
    }
    this.#count++
    return at
  }

  /** ExFreePool. */
  free(at: number, irql: Irql): void {
    const block = this.#blocks.get(at)
    if (block === undefined || !block.live)
      keBugCheckEx(BugCode.BAD_POOL_CALLER, block === undefined ? 0x46 : 7, at)
    if (irql > limitOf(block.type)) keBugCheckEx(BugCode.BAD_POOL_CALLER, 9, irql, block.type, at)
    this.#checkGuards(at, block)
    block.live = false
    this.#count--
    const gross = HEADER_BYTES + block.lengthBytes + GUARD_BYTES
    const size = classOf(gross)
    this.#memory.bytes.fill(POISON, at, at + block.lengthBytes)
    if (size >= 0 && !this.#frames.isRetained(Math.floor(at / PAGE_BYTES))) {
      this.#freed[size]?.push(at)
      return
    }
    // Pages go back to where they came from; those a device may still write stay as they are.
    this.#blocks.delete(at)
    if (size < 0) this.#frames.free((at - HEADER_BYTES) / PAGE_BYTES, pagesOf(gross))
  }

  /** Whether the address is the start of a live block. */
  owns(at: number): boolean {
    return this.#blocks.get(at)?.live === true
  }

  /** Bytes of a live block. */
  lengthOf(at: number): number {
    const block = this.#blocks.get(at)
    return block?.live === true ? block.lengthBytes : 0
  }

  /** Looks for overruns of live blocks and writes into freed ones. */
  check(): void {
    for (const [at, block] of this.#blocks) {
      if (block.live) this.#checkGuards(at, block)
      else this.#checkPoison(at, block.lengthBytes)
    }
  }

  #checkGuards(at: number, block: PoolBlock): void {
    const { words } = this.#memory
    const word = (at - HEADER_BYTES) >>> 2
    const whole =
      words[word] === block.tag &&
      words[word + LENGTH] === block.lengthBytes &&
      words[word + HEAD_PATTERN] === PATTERN &&
      this.#guard(at + block.lengthBytes) === PATTERN
    if (!whole) keBugCheckEx(BugCode.BAD_POOL_HEADER, 0x20, at, block.tag, block.serial)
  }

  /** The pattern behind a block, whose length need not be a whole number of words. */
  #guard(at: number): number {
    const { words, window } = this.#memory
    return at % 4 === 0 ? (words[at >>> 2] as number) : window.le32(WORD, at)
  }

  #putGuard(at: number): void {
    const { words, window } = this.#memory
    if (at % 4 === 0) words[at >>> 2] = PATTERN
    else window.putLe32(WORD, PATTERN, at)
  }

  #checkPoison(at: number, lengthBytes: number): void {
    const { words, bytes } = this.#memory
    let offset = 0
    while (offset + 4 <= lengthBytes && words[(at + offset) >>> 2] === POISON_WORD) offset += 4
    for (; offset < lengthBytes; offset++) {
      if (bytes[at + offset] !== POISON) keBugCheckEx(BugCode.DRIVER_CORRUPTED_EXPOOL, at + offset, 2, 1, at)
    }
  }

  #takeClass(size: number): number {
    const freed = this.#freed[size] as number[]
    if (freed.length <= QUARANTINE_BLOCKS && !this.#carve(size)) {
      if (freed.length === 0) return 0
    }
    const at = freed.shift()
    if (at === undefined) return 0
    const block = this.#blocks.get(at)
    if (block !== undefined) this.#checkPoison(at, block.lengthBytes)
    return at - HEADER_BYTES
  }

  /** Cuts a page into blocks of one size, put in front of those that were freed. */
  #carve(size: number): boolean {
    const page = this.#frames.allocateRun(1)
    if (page < 0) return false
    const bytes = CLASS_BYTES[size] as number
    const fresh: number[] = []
    for (let offset = 0; offset + bytes <= PAGE_BYTES; offset += bytes) {
      fresh.push(page * PAGE_BYTES + offset + HEADER_BYTES)
    }
    this.#freed[size]?.unshift(...fresh)
    return true
  }

  #takePages(gross: number): number {
    const page = this.#frames.allocateRun(pagesOf(gross))
    return page < 0 ? 0 : page * PAGE_BYTES
  }
}

/** -1: whole pages. */
function classOf(gross: number): number {
  // Compared before it is shifted: a length of nearly 4 GiB would come out of the shift as one of a few bytes.
  return gross <= CLASS_BYTES_MAX ? (CLASS_OF[(gross + 15) >>> 4] as number) : -1
}

function limitOf(type: PoolType): Irql {
  return type === PoolType.PAGED ? Irql.APC : Irql.DISPATCH
}

function pagesOf(lengthBytes: number): number {
  return Math.ceil(lengthBytes / PAGE_BYTES)
}
