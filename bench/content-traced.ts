import { createHash } from 'node:crypto'
import type { DiskBackend, DiskFacts, DiskIo, DiskListener, DiskOutcome } from '../host/disk/backend.ts'
import { DiskRelay } from '../host/disk/relay.ts'
import type { Trace } from '../protocol/trace.ts'

/** Enough that two contents do not look the same by chance, and short in a line. */
const DIGITS = 16

/**
 * Tells a trace what reads brought, as a digest: payloads are not in a trace, so a replay reads them again, and
 * this is how it sees that they are no longer the same. Stands over a disk only while there is a trace.
 */
export class ContentTracedDisk implements DiskBackend {
  readonly #disk: DiskBackend
  readonly #trace: Trace
  readonly #path: string

  constructor(disk: DiskBackend, trace: Trace, path: string) {
    this.#disk = disk
    this.#trace = trace
    this.#path = path
  }

  get facts(): DiskFacts {
    return this.#disk.facts
  }

  submit(io: DiskIo): void {
    if (io.op === 'read') new DigestedRead(io, this).submitTo(this.#disk)
    else this.#disk.submit(io)
  }

  watch(listener: DiskListener): () => void {
    return this.#disk.watch(listener)
  }

  close(finished: () => void): void {
    this.#disk.close(finished)
  }

  read({ id, offset, lent }: DiskIo, bytes: number): void {
    const hash = createHash('sha256')
    let left = bytes
    for (const view of lent) {
      hash.update(view.length <= left ? view : view.subarray(0, left))
      left -= Math.min(left, view.length)
    }
    const sha256 = hash.digest('hex').slice(0, DIGITS)
    this.#trace.emit({ name: 'content', path: this.#path, id, offset, bytes, sha256 })
  }
}

class DigestedRead extends DiskRelay {
  readonly #owner: ContentTracedDisk

  constructor(io: DiskIo, owner: ContentTracedDisk) {
    super(io)
    this.#owner = owner
  }

  protected override finished(outcome: DiskOutcome, bytesDone: number, badOffset: number | null): void {
    if (bytesDone > 0) this.#owner.read(this, bytesDone)
    super.finished(outcome, bytesDone, badOffset)
  }
}
