import { type Gpa, gpa } from '../../protocol/memory.ts'
import type { AddressSpace } from './address-space.ts'
import { BugCode, keBugCheckEx } from './bug-check.ts'
import type { Hal } from './hal.ts'
import { type KernelMemory, KernelRecord, pointer, putPointer } from './kernel-memory.ts'
import { MDL } from './layout.ts'
import { NtStatus } from './nt-status.ts'
import { PAGE_BYTES, PAGE_SHIFT, type PageFrames, pageOffset } from './page-frames.ts'
import { type Pool, PoolType, poolTag } from './pool.ts'

/** MDL.MdlFlags. */
export const MdlFlag = {
  MAPPED_TO_SYSTEM_VA: 1,
  PAGES_LOCKED: 2,
  SOURCE_IS_NONPAGED_POOL: 4,
  ALLOCATED_FIXED_SIZE: 8,
  PARTIAL: 0x10,
  PARTIAL_HAS_BEEN_MAPPED: 0x20,
  IO_PAGE_READ: 0x40,
  WRITE_OPERATION: 0x80,
  PARENT_MAPPED_SYSTEM_VA: 0x100,
  IO_SPACE: 0x800,
  MAPPING_CAN_FAIL: 0x2000,
} as const

/** LOCK_OPERATION: what will be done to the pages, not to the device. */
export const LockOperation = { READ: 0, WRITE: 1, MODIFY: 2 } as const
export type LockOperation = (typeof LockOperation)[keyof typeof LockOperation]

const MDL_TAG = poolTag('Mdl ')

/** Where the fields lie, in words of the record. */
const NEXT = MDL.next / 4
/** Size in the lower half, flags in the upper. */
const SIZE_AND_FLAGS = MDL.size / 4
const MAPPED_SYSTEM_VA = MDL.mappedSystemVa / 4
const START_VA = MDL.startVa / 4
const BYTE_COUNT = MDL.byteCount / 4
const BYTE_OFFSET = MDL.byteOffset / 4
const PAGES = (MDL.pages as number) / 4
if ((MDL.mdlFlags as number) !== MDL.size + 2)
  throw new Error('the words of an MDL are not where its declaration puts them')

/** Pages that a range touches (ADDRESS_AND_SIZE_TO_SPAN_PAGES). */
export function spanPages(at: number, lengthBytes: number): number {
  return Math.ceil((pageOffset(at) + lengthBytes) / PAGE_BYTES)
}

/** A memory descriptor list: a buffer as the physical pages it lies on. */
export class Mdl extends KernelRecord {
  get next(): number {
    return pointer(this.words, this.word + NEXT)
  }
  set next(value: number) {
    putPointer(this.words, this.word + NEXT, value)
  }
  get flags(): number {
    return (this.words[this.word + SIZE_AND_FLAGS] as number) >>> 16
  }
  set flags(value: number) {
    this.words[this.word + SIZE_AND_FLAGS] =
      ((this.words[this.word + SIZE_AND_FLAGS] as number) & 0xffff) + value * 0x1_0000
  }
  get mappedSystemVa(): number {
    return pointer(this.words, this.word + MAPPED_SYSTEM_VA)
  }
  set mappedSystemVa(value: number) {
    putPointer(this.words, this.word + MAPPED_SYSTEM_VA, value)
  }
  get startVa(): number {
    return pointer(this.words, this.word + START_VA)
  }
  /** MmGetMdlByteCount. */
  get byteCount(): number {
    return this.words[this.word + BYTE_COUNT] as number
  }
  /** MmGetMdlByteOffset. */
  get byteOffset(): number {
    return this.words[this.word + BYTE_OFFSET] as number
  }
  /** MmGetMdlVirtualAddress: names the bytes, and need not be mapped. */
  get virtualAddress(): number {
    return this.startVa + this.byteOffset
  }
  get pageCount(): number {
    return spanPages(this.byteOffset, this.byteCount)
  }
  /** MmGetMdlPfnArray[index]. */
  page(index: number): number {
    return pointer(this.words, this.word + PAGES + index * 2)
  }
  setPage(index: number, frame: number): void {
    putPointer(this.words, this.word + PAGES + index * 2, frame)
  }

  /** Physical address of the byte at `offset` of the buffer. */
  physical(offset: number): Gpa {
    const from = this.byteOffset + offset
    return gpa(this.page(from >>> PAGE_SHIFT) * PAGE_BYTES + pageOffset(from))
  }

  /** How many bytes from `offset` lie side by side in physical memory, at most `limit`. */
  runBytes(offset: number, limit: number): number {
    const left = Math.min(limit, this.byteCount - offset)
    let index = (this.byteOffset + offset) >>> PAGE_SHIFT
    let run = PAGE_BYTES - pageOffset(this.byteOffset + offset)
    let next = this.page(index) + 1
    while (run < left && this.page(++index) === next) {
      run += PAGE_BYTES
      next++
    }
    return Math.min(run, left)
  }

  has(flags: number): boolean {
    return (this.flags & flags) !== 0
  }
}

/** Making, locking and mapping MDLs. */
export class Mdls {
  readonly #memory: KernelMemory
  readonly #hal: Hal
  readonly #pool: Pool
  readonly #frames: PageFrames
  readonly #space: AddressSpace

  constructor(memory: KernelMemory, hal: Hal, pool: Pool, frames: PageFrames, space: AddressSpace) {
    this.#memory = memory
    this.#hal = hal
    this.#pool = pool
    this.#frames = frames
    this.#space = space
  }

  at(address: number): Mdl {
    return new Mdl(this.#memory, address)
  }

  /** IoAllocateMdl, its page list empty yet; null when memory is short or the length does not fit. */
  allocate(va: number, lengthBytes: number): Mdl | null {
    if (!(lengthBytes >= 0 && lengthBytes < 2 ** 31)) return null
    const size = MDL.$size + spanPages(va, lengthBytes) * 8
    const at = this.#pool.allocate(PoolType.NON_PAGED, size, MDL_TAG, this.#hal.irql)
    if (at === 0) return null
    const { words } = this.#memory
    const word = at >>> 2
    words.fill(0, word, word + (size >>> 2))
    words[word + SIZE_AND_FLAGS] = Math.min(size, 0xffff)
    this.#describe(word, va, lengthBytes)
    return new Mdl(this.#memory, at)
  }

  #describe(word: number, va: number, lengthBytes: number): void {
    const { words } = this.#memory
    const offset = pageOffset(va)
    putPointer(words, word + START_VA, va - offset)
    words[word + BYTE_COUNT] = lengthBytes
    words[word + BYTE_OFFSET] = offset
  }

  /** IoFreeMdl: unmaps a partial one; its pages must have been unlocked. */
  free(mdl: Mdl): void {
    if (mdl.has(MdlFlag.PARTIAL_HAS_BEEN_MAPPED)) this.unmap(mdl)
    if (mdl.has(MdlFlag.PAGES_LOCKED) && !mdl.has(MdlFlag.PARTIAL)) {
      keBugCheckEx(BugCode.DRIVER_LEFT_LOCKED_PAGES_IN_PROCESS, 0, 0, mdl.at, mdl.pageCount)
    }
    this.#pool.free(mdl.at, this.#hal.irql)
  }

  /** MmBuildMdlForNonPagedPool. */
  buildForNonPagedPool(mdl: Mdl): void {
    const count = mdl.pageCount
    for (let index = 0; index < count; index++) {
      mdl.setPage(index, this.#frameAt(mdl.startVa + index * PAGE_BYTES))
    }
    mdl.mappedSystemVa = mdl.virtualAddress
    mdl.flags |= MdlFlag.SOURCE_IS_NONPAGED_POOL
  }

  #frameAt(va: number): number {
    const frame = this.#space.frameOf(va, false)
    return frame < 0 ? keBugCheckEx(BugCode.PAGE_FAULT_IN_NONPAGED_AREA, va) : frame
  }

  /**
   * MmProbeAndLockPages. ACCESS_VIOLATION (Windows raises it) when a page is missing, or read-only and to be
   * written; nothing stays locked then.
   */
  probeAndLock(mdl: Mdl, operation: LockOperation): NtStatus {
    if (mdl.has(MdlFlag.PAGES_LOCKED | MdlFlag.PARTIAL | MdlFlag.SOURCE_IS_NONPAGED_POOL)) {
      keBugCheckEx(BugCode.PFN_LIST_CORRUPT, 7, mdl.at, mdl.flags)
    }
    const write = operation !== LockOperation.READ
    const { words } = this.#memory
    const { startVa, pageCount } = mdl
    let word = mdl.word + PAGES
    for (let index = 0; index < pageCount; index++) {
      const frame = this.#space.frameOf(startVa + index * PAGE_BYTES, write)
      if (frame < 0) {
        while (--index >= 0) this.#frames.unlock(mdl.page(index))
        return NtStatus.ACCESS_VIOLATION
      }
      words[word] = frame
      words[word + 1] = 0
      word += 2
      this.#frames.lock(frame)
    }
    mdl.flags |= MdlFlag.PAGES_LOCKED | (write ? MdlFlag.WRITE_OPERATION : 0)
    return NtStatus.SUCCESS
  }

  /** MmUnlockPages: also takes away a system mapping. */
  unlock(mdl: Mdl): void {
    if (!mdl.has(MdlFlag.PAGES_LOCKED) || mdl.has(MdlFlag.PARTIAL | MdlFlag.SOURCE_IS_NONPAGED_POOL)) {
      keBugCheckEx(BugCode.PFN_LIST_CORRUPT, 7, mdl.at, mdl.flags)
    }
    if (mdl.has(MdlFlag.MAPPED_TO_SYSTEM_VA)) this.unmap(mdl)
    for (let index = mdl.pageCount - 1; index >= 0; index--) this.#frames.unlock(mdl.page(index))
    mdl.flags &= ~(MdlFlag.PAGES_LOCKED | MdlFlag.WRITE_OPERATION)
  }

  /** MmGetSystemAddressForMdlSafe: where the kernel sees the buffer. */
  systemAddress(mdl: Mdl): number {
    if (mdl.has(MdlFlag.MAPPED_TO_SYSTEM_VA | MdlFlag.SOURCE_IS_NONPAGED_POOL)) return mdl.mappedSystemVa
    if (!mdl.has(MdlFlag.PAGES_LOCKED | MdlFlag.PARTIAL))
      keBugCheckEx(BugCode.PFN_LIST_CORRUPT, 7, mdl.at, mdl.flags)
    const frames = Array.from({ length: mdl.pageCount }, (_, index) => mdl.page(index))
    mdl.mappedSystemVa = this.#space.mapSystem(frames) + mdl.byteOffset
    mdl.flags |=
      MdlFlag.MAPPED_TO_SYSTEM_VA | (mdl.has(MdlFlag.PARTIAL) ? MdlFlag.PARTIAL_HAS_BEEN_MAPPED : 0)
    return mdl.mappedSystemVa
  }

  /** MmUnmapLockedPages. */
  unmap(mdl: Mdl): void {
    if (!mdl.has(MdlFlag.MAPPED_TO_SYSTEM_VA)) keBugCheckEx(BugCode.PFN_LIST_CORRUPT, 7, mdl.at, mdl.flags)
    if (!mdl.has(MdlFlag.PARENT_MAPPED_SYSTEM_VA)) this.#space.unmapSystem(mdl.mappedSystemVa, mdl.pageCount)
    mdl.flags &= ~(
      MdlFlag.MAPPED_TO_SYSTEM_VA |
      MdlFlag.PARTIAL_HAS_BEEN_MAPPED |
      MdlFlag.PARENT_MAPPED_SYSTEM_VA
    )
    mdl.mappedSystemVa = 0
  }

  /** IoBuildPartialMdl: `target` describes `lengthBytes` (0: the rest) of the buffer from `va` on. */
  buildPartial(source: Mdl, target: Mdl, va: number, lengthBytes: number): void {
    const offset = va - source.virtualAddress
    const length = lengthBytes === 0 ? source.byteCount - offset : lengthBytes
    this.#describe(target.word, va, length)
    const first = (target.startVa - source.startVa) / PAGE_BYTES
    const count = target.pageCount
    for (let index = 0; index < count; index++) target.setPage(index, source.page(first + index))
    target.flags |= MdlFlag.PARTIAL | (source.flags & MdlFlag.SOURCE_IS_NONPAGED_POOL)
    if (source.has(MdlFlag.MAPPED_TO_SYSTEM_VA | MdlFlag.SOURCE_IS_NONPAGED_POOL)) {
      target.mappedSystemVa = source.mappedSystemVa + offset
      if (source.has(MdlFlag.MAPPED_TO_SYSTEM_VA)) {
        target.flags |= MdlFlag.MAPPED_TO_SYSTEM_VA | MdlFlag.PARENT_MAPPED_SYSTEM_VA
      }
    }
  }
}
