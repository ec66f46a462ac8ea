import type { Gpa, GuestMemory } from './memory.ts'
import { PAGE_BYTES } from './memory.ts'
import type { Cursor, Window } from './window.ts'

/** Learns which pages a device wrote (live migration; a fuzzer that wants only what changed). */
export interface PageLog {
  /** Pages by number (address / 4096), first and last included. */
  mark(firstPage: number, lastPage: number): void
}

/**
 * The only way a device reaches guest memory.
 *
 * Today the identity: a device address is a guest-physical address. Tables of an IOMMU, grants, GPADLs and
 * vhost-user regions are other mappings behind the same calls. It sees RAM only, so a device cannot be made
 * to write to registers, its own or another's.
 */
export class DmaSpace {
  memory: GuestMemory
  /**
   * Addresses from `plainBase` to below `plainEnd` are reachable as they are: a shortcut for `reaches`, and
   * empty where an address has to be looked up.
   */
  plainBase = 0
  plainEnd = 0
  /** Null costs one comparison per request. */
  log: PageLog | null = null

  constructor(memory: GuestMemory, log: PageLog | null = null) {
    this.memory = memory
    this.plainBase = memory.mainBase
    this.plainEnd = memory.mainEnd
    this.log = log
  }

  /**
   * Other memory from now on, for whoever changes a table. Windows that were made and views that were lent stay
   * where they are: who takes memory away lets the device give it back first.
   */
  remap(memory: GuestMemory): void {
    this.memory = memory
    this.plainBase = memory.mainBase
    this.plainEnd = memory.mainEnd
  }

  /** @see GuestMemory.backed */
  reaches(at: Gpa, lengthBytes: number): boolean {
    return this.memory.backed(at, lengthBytes)
  }

  /** @see GuestMemory.window */
  window(at: Gpa, lengthBytes: number, alignment: number): Window | null {
    return this.memory.window(at, lengthBytes, alignment)
  }

  /** @see GuestMemory.point */
  point(cursor: Cursor, at: Gpa, lengthBytes: number): boolean {
    return this.memory.point(cursor, at, lengthBytes)
  }

  /** @see GuestMemory.lend */
  lend(at: Gpa, lengthBytes: number, into: Uint8Array<ArrayBuffer>[]): boolean {
    return this.memory.lend(at, lengthBytes, into)
  }

  /** Says that the device wrote the range. Called by whoever wrote, after the bytes are there. */
  wrote(at: Gpa, lengthBytes: number): void {
    if (this.log === null || lengthBytes === 0) return
    this.log.mark(Math.floor(at / PAGE_BYTES), Math.floor((at + lengthBytes - 1) / PAGE_BYTES))
  }
}
