import type { Trace } from '../../protocol/trace.ts'
import type { DiskBackend, DiskFacts, DiskIo, DiskListener, DiskOutcome } from './backend.ts'
import { DiskRelay } from './relay.ts'

/** A layer that tells the trace what it is asked and what it answers, whoever wrote it. */
export class TracedDisk implements DiskBackend {
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

  /** A relay lives as long as the request below it. */
  get keepsNoRequest(): boolean {
    return this.#disk.keepsNoRequest === true
  }

  submit(io: DiskIo): void {
    if (!this.#trace.on) {
      this.#disk.submit(io)
      return
    }
    const { id, op, offset, lengthBytes: bytes } = io
    this.#trace.emit({ name: 'disk', path: this.#path, id, op, offset, bytes })
    new TracedIo(io, this.#trace, this.#path).submitTo(this.#disk)
  }

  watch(listener: DiskListener): () => void {
    return this.#disk.watch(listener)
  }

  close(finished: () => void): void {
    this.#disk.close(finished)
  }
}

class TracedIo extends DiskRelay {
  readonly #trace: Trace
  readonly #path: string

  constructor(io: DiskIo, trace: Trace, path: string) {
    super(io)
    this.#trace = trace
    this.#path = path
  }

  protected override finished(outcome: DiskOutcome, bytes: number, badOffset: number | null): void {
    this.#trace.emit({ name: 'answer', path: this.#path, id: this.id, outcome, bytes })
    super.finished(outcome, bytes, badOffset)
  }
}
