import type { Gpa } from '../protocol/memory.ts'
import type { BareGuest } from './guest.ts'

/** A piece of guest memory that one request at a time moves data through. */
export interface GuestBuffer {
  readonly at: Gpa
  readonly bytes: Uint8Array<ArrayBuffer>
}

const COUNT = 64
const LARGEST_BYTES = 256 * 1024
/** The largest block a disk may have: a buffer holds at least one. */
const LEAST_BYTES = 64 * 1024

/**
 * The fixed window of guest memory through which whole disks are read: at most a quarter of the memory there
 * is, however long the disk.
 */
export function makeBuffers(guest: BareGuest): readonly GuestBuffer[] {
  const most = guest.memory.end / 4
  const lengthBytes = 2 ** Math.floor(Math.log2(Math.min(LARGEST_BYTES, Math.max(LEAST_BYTES, most / COUNT))))
  const count = Math.min(COUNT, Math.floor(most / lengthBytes))
  return Array.from({ length: count }, () => makeBuffer(guest, lengthBytes))
}

/** @param lengthBytes a power of two. */
export function makeBuffer(guest: BareGuest, lengthBytes: number): GuestBuffer {
  const at = guest.allocate(lengthBytes, lengthBytes)
  const lent: Uint8Array<ArrayBuffer>[] = []
  guest.memory.lend(at, lengthBytes, lent)
  const [bytes] = lent
  if (bytes === undefined) throw new Error('memory just allocated cannot be had')
  return { at, bytes }
}
