import { constants } from 'node:buffer'
import { type Descriptor, lengthOf } from './descriptor.ts'
import {
  libc,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_NORESERVE,
  MAP_PRIVATE,
  MAP_SHARED,
  PROT_READ_WRITE,
} from './libc.ts'
import { NativeError } from './native-error.ts'
import { ffi } from './platform.ts'

const PAGE_BYTES = 4096

export interface MapOptions {
  /** False: what is written stays here (a copy of the page), instead of killing the process. */
  readonly write: boolean
}

interface AddressRange {
  readonly address: number
  readonly lengthBytes: number
}

let mapped = 0
let reserved = 0

/** Bytes of files and shared memory that are mapped in this thread and not revoked. */
export function mappedBytes(): number {
  return mapped
}

/** Bytes of address space that views may still reach, revoked or not. */
export function reservedBytes(): number {
  return reserved
}

/** Only when no view can be left does the address range go: the next mapping may get it. */
const unreachable = new FinalizationRegistry(({ address, lengthBytes }: AddressRange) => {
  libc().munmap(address, lengthBytes)
  reserved -= lengthBytes
})

/**
 * Bytes of a file or of shared memory, as an ordinary buffer: windows, atomics and Node's own reads and writes
 * work on it without a copy.
 *
 * Whoever was lent a view may keep it longer than the mapping lives. So a mapping is never unmapped under its
 * views: it is revoked, by mapping empty pages of our own over it, and its addresses are given back when the
 * collector has found every view gone.
 *
 * A file that gets shorter under its mapping kills the process by SIGBUS at the next access: see `seals`.
 */
export class Mapping implements Disposable {
  readonly bytes: Uint8Array<ArrayBuffer>
  /** Where `bytes` begins in this process. */
  readonly address: number
  readonly #range: AddressRange
  #revoked: boolean

  constructor(range: AddressRange, skipBytes: number, lengthBytes: number) {
    this.#range = range
    this.#revoked = false
    this.address = range.address + skipBytes
    const buffer = ffi().view(BigInt(range.address), range.lengthBytes)
    this.bytes = new Uint8Array(buffer, skipBytes, lengthBytes)
    unreachable.register(buffer, range)
    mapped += range.lengthBytes
    reserved += range.lengthBytes
  }

  get revoked(): boolean {
    return this.#revoked
  }

  /**
   * From now on every view reads zeros, and what is written through one goes nowhere. Twice is once.
   *
   * @throws NativeError when the kernel has no room for another mapping
   */
  revoke(): void {
    if (this.#revoked) return
    const { address, lengthBytes } = this.#range
    const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE
    if (libc().mmap(address, lengthBytes, PROT_READ_WRITE, flags, -1, 0) < 0) throw NativeError.last('mmap')
    this.#revoked = true
    mapped -= lengthBytes
  }

  /** The same: what a view may still reach is never unmapped. */
  close(): void {
    this.revoke()
  }

  [Symbol.dispose](): void {
    this.revoke()
  }
}

/**
 * Maps `lengthBytes` from `offset` on. An error when the file is shorter: an access past its end is a signal,
 * not a result. The descriptor may be closed afterwards.
 */
export function map(
  descriptor: Descriptor,
  offset: number,
  lengthBytes: number,
  { write }: MapOptions,
): Mapping | NativeError {
  const available = lengthOf(descriptor)
  if (available instanceof NativeError) return new NativeError('mmap', 'ENODEV')
  const sound = Number.isSafeInteger(offset) && Number.isSafeInteger(lengthBytes) && offset >= 0
  if (!(sound && lengthBytes > 0)) return new NativeError('mmap', 'EINVAL')
  if (!(lengthBytes <= available - offset)) return new NativeError('mmap', 'ENXIO')
  // Files are mapped by whole pages; what a peer calls its offset may lie inside of one.
  const skipBytes = offset % PAGE_BYTES
  const wholeBytes = Math.ceil((skipBytes + lengthBytes) / PAGE_BYTES) * PAGE_BYTES
  // No buffer is longer, and asking for one ends the process: 4 GiB in Node 20.
  if (!(wholeBytes <= constants.MAX_LENGTH)) return new NativeError('mmap', 'EFBIG')
  const flags = write ? MAP_SHARED : MAP_PRIVATE
  const from = offset - skipBytes
  const address = libc().mmap(0, wholeBytes, PROT_READ_WRITE, flags, descriptor.number, from)
  if (address < 0) return NativeError.last('mmap')
  return new Mapping({ address, lengthBytes: wholeBytes }, skipBytes, lengthBytes)
}
