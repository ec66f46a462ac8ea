import type { Gpa } from '../../protocol/memory.ts'

/**
 * The buffers of one request, readable ones first. Kept and refilled by its owner, so that a request
 * allocates nothing.
 */
export class Segments {
  readonly addresses: number[] = []
  readonly lengths: number[] = []
  count = 0
  readableCount = 0
  writableBytes = 0

  clear(): void {
    this.count = 0
    this.readableCount = 0
    this.writableBytes = 0
  }

  /** @throws after a writable buffer: the order is the driver's own duty. */
  readable(at: Gpa, lengthBytes: number): void {
    if (this.count !== this.readableCount) throw new Error('readable buffers come before writable ones')
    this.addresses[this.count] = at
    this.lengths[this.count] = lengthBytes
    this.count++
    this.readableCount++
  }

  writable(at: Gpa, lengthBytes: number): void {
    this.addresses[this.count] = at
    this.lengths[this.count] = lengthBytes
    this.count++
    this.writableBytes += lengthBytes
  }
}
