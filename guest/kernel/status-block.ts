import type { AddressSpace } from './address-space.ts'
import { pointer, putPointer } from './kernel-memory.ts'
import { IO_STATUS_BLOCK } from './layout.ts'
import { type NtStatus, ntStatus } from './nt-status.ts'

const STATUS = IO_STATUS_BLOCK.status / 4
const INFORMATION = IO_STATUS_BLOCK.information / 4

/**
 * An IO_STATUS_BLOCK, which may be an application's: where it is missing, writing does nothing and reading answers
 * null. One in a single page, as nearly all are, is reached as the kernel's own memory is; a window made for it costs
 * more than the rest of a request's end.
 */

export function putStatusBlock(space: AddressSpace, at: number, status: NtStatus, information: number): void {
  const here = aligned(space, at)
  if (here >= 0) {
    const { words } = space.memory
    words[(here >>> 2) + STATUS] = status
    putPointer(words, (here >>> 2) + INFORMATION, information)
    return
  }
  const window = space.window(at, IO_STATUS_BLOCK.$size)
  window?.putLe32(IO_STATUS_BLOCK.status, status)
  window?.putLe64(IO_STATUS_BLOCK.information, information)
}

/** The status alone, as PENDING is written before a request begins. */
export function putBlockStatus(space: AddressSpace, at: number, status: NtStatus): void {
  const here = aligned(space, at)
  if (here >= 0) space.memory.words[(here >>> 2) + STATUS] = status
  else space.window(at, IO_STATUS_BLOCK.$size)?.putLe32(IO_STATUS_BLOCK.status, status)
}

export function blockStatus(space: AddressSpace, at: number): NtStatus | null {
  const here = aligned(space, at)
  if (here >= 0) return ntStatus(space.memory.words[(here >>> 2) + STATUS] as number)
  const window = space.window(at, IO_STATUS_BLOCK.$size)
  return window === null ? null : ntStatus(window.le32(IO_STATUS_BLOCK.status))
}

export function blockInformation(space: AddressSpace, at: number): number | null {
  const here = aligned(space, at)
  if (here >= 0) return pointer(space.memory.words, (here >>> 2) + INFORMATION)
  return space.window(at, IO_STATUS_BLOCK.$size)?.le64(IO_STATUS_BLOCK.information) ?? null
}

/** Its address in the kernel, when words reach it; else -1. */
function aligned(space: AddressSpace, at: number): number {
  return at % 4 === 0 ? space.inPage(at, IO_STATUS_BLOCK.$size, true) : -1
}
