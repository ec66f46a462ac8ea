import { libc, MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ_WRITE } from './libc.ts'
import { NativeError } from './native-error.ts'
import { ffi } from './platform.ts'

/**
 * Memory that system calls read and write: outside of the collector's reach, so that its address holds for ever.
 * It is never given back, so it is made once for a kind of call in a thread, or used again by its owner.
 */
export class Scratch {
  readonly address: number
  readonly bytes: Uint8Array<ArrayBuffer>
  readonly view: DataView<ArrayBuffer>

  constructor(lengthBytes: number) {
    const flags = MAP_PRIVATE | MAP_ANONYMOUS
    this.address = libc().mmap(0, lengthBytes, PROT_READ_WRITE, flags, -1, 0)
    if (this.address < 0) throw NativeError.last('mmap')
    const buffer = ffi().view(BigInt(this.address), lengthBytes)
    this.bytes = new Uint8Array(buffer)
    this.view = new DataView(buffer)
  }

  /** A pointer or a size, 64 bits. */
  putAddress(at: number, value: number): void {
    this.view.setUint32(at, value >>> 0, true)
    this.view.setUint32(at + 4, Math.floor(value / 2 ** 32), true)
  }

  getAddress(at: number): number {
    return this.view.getUint32(at, true) + this.view.getUint32(at + 4, true) * 2 ** 32
  }
}
