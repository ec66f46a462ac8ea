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
/** What fresh memory is filled with, so that nobody relies on zeros that are not promised. */
const FRESH = 0xcd

/** Header in front of each block: tag, length, and a pattern that an overrun of the block before breaks. */
const HEADER_BYTES = 16
/** Pattern behind each block. */
const GUARD_BYTES = 8
const PATTERN = 0x5aa5c33c

const TAG = 0 as Field<'le32'>
const LENGTH = 4 as Field<'le32'>
const HEAD_PATTERN = 8 as Field<'le32'>
const WORD = 0 as Field<'le32'>

/** Block sizes with their header and guard; larger ones are whole pages. */
const CLASS_BYTES = [32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048]
/** Freed blocks of one size that stay poisoned before the first of them is used again. */
const QUARANTINE_BLOCKS = 16

interface PoolBlock {
  readonly tag: number
  readonly type: PoolType
  readonly lengthBytes: number
  /** Counts allocations: names a block in a report. */
  readonly serial: number
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
  readonly #live: Map<number, PoolBlock>
  /** Freed addresses and the length that was poisoned, oldest first, by class. */
  readonly #freed: number[][]
  readonly #poisoned: Map<number, number>
  #serial: number
  /** Asked before each allocation; true fails it. Low-resource simulation is built on this. */
  refuse: ((tag: number, lengthBytes: number) => boolean) | null

  constructor(memory: KernelMemory, frames: PageFrames) {
    this.#memory = memory
    this.#frames = frames
    this.#live = new Map()
    this.#freed = CLASS_BYTES.map(() => [])
    this.#poisoned = new Map()
    this.#serial = 0
    this.refuse = null
  }

  /** Live blocks. */
  get count(): number {
    return this.#live.size
  }

  /** Live blocks of one tag. */
  countOf(tag: number): number {
    let count = 0
    for (const block of this.#live.values()) if (block.tag === tag) count++
    return count
  }

  /** What is allocated now, by tag. */
  uses(): readonly PoolUse[] {
    const byTag = new Map<number, { blocks: number; bytes: number }>()
    for (const { tag, lengthBytes } of this.#live.values()) {
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
    const size = CLASS_BYTES.findIndex((bytes) => gross <= bytes)
    const start = size < 0 ? this.#takePages(gross) : this.#takeClass(size)
    if (start === 0) return 0
    const { window, bytes } = this.#memory
    const at = start + HEADER_BYTES
    window.putLe32(TAG, tag, start)
    window.putLe32(LENGTH, lengthBytes, start)
    window.putLe32(HEAD_PATTERN, PATTERN, start)
    bytes.fill(FRESH, at, at + lengthBytes)
    window.putLe32(WORD, PATTERN, at + lengthBytes)
    this.#live.set(at, { tag, type, lengthBytes, serial: this.#serial++ })
    return at
  }

  /** ExFreePool. */
  free(at: number, irql: Irql): void {
    const block = this.#live.get(at)
    if (block === undefined) {
      keBugCheckEx(BugCode.BAD_POOL_CALLER, this.#poisoned.has(at) ? 7 : 0x46, at)
    }
    if (irql > limitOf(block.type)) keBugCheckEx(BugCode.BAD_POOL_CALLER, 9, irql, block.type, at)
    this.#checkGuards(at, block)
    this.#live.delete(at)
    const gross = HEADER_BYTES + block.lengthBytes + GUARD_BYTES
    const size = CLASS_BYTES.findIndex((bytes) => gross <= bytes)
    this.#memory.bytes.fill(POISON, at, at + block.lengthBytes)
    if (size < 0) this.#frames.free((at - HEADER_BYTES) / PAGE_BYTES, pagesOf(gross))
    else if (!this.#frames.isRetained(Math.floor(at / PAGE_BYTES))) {
      this.#poisoned.set(at, block.lengthBytes)
      this.#freed[size]?.push(at)
    }
  }

  /** Whether the address is the start of a live block. */
  owns(at: number): boolean {
    return this.#live.has(at)
  }

  /** Bytes of a live block. */
  lengthOf(at: number): number {
    return this.#live.get(at)?.lengthBytes ?? 0
  }

  /** Looks for overruns of live blocks and writes into freed ones. */
  check(): void {
    for (const [at, block] of this.#live) this.#checkGuards(at, block)
    for (const [at, lengthBytes] of this.#poisoned) this.#checkPoison(at, lengthBytes)
  }

  #checkGuards(at: number, block: PoolBlock): void {
    const { window } = this.#memory
    const start = at - HEADER_BYTES
    const whole =
      window.le32(TAG, start) === block.tag &&
      window.le32(LENGTH, start) === block.lengthBytes &&
      window.le32(HEAD_PATTERN, start) === PATTERN &&
      window.le32(WORD, at + block.lengthBytes) === PATTERN
    if (!whole) keBugCheckEx(BugCode.BAD_POOL_HEADER, 0x20, at, block.tag, block.serial)
  }

  #checkPoison(at: number, lengthBytes: number): void {
    const { bytes } = this.#memory
    for (let offset = 0; offset < lengthBytes; offset++) {
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
    const poisoned = this.#poisoned.get(at)
    if (poisoned !== undefined) {
      this.#checkPoison(at, poisoned)
      this.#poisoned.delete(at)
    }
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

function limitOf(type: PoolType): Irql {
  return type === PoolType.PAGED ? Irql.APC : Irql.DISPATCH
}

function pagesOf(lengthBytes: number): number {
  return Math.ceil(lengthBytes / PAGE_BYTES)
}
