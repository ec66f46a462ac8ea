import type { Trace } from '../../protocol/trace.ts'
import { type DiskBackend, type DiskFacts, DiskIo, type DiskListener, type DiskOutcome } from './backend.ts'

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
    const relay = new Relay(io, this.#trace, this.#path)
    io.holder = relay
    this.#disk.submit(relay)
    if (io.cancelling) relay.cancel()
  }

  watch(listener: DiskListener): () => void {
    return this.#disk.watch(listener)
  }

  close(finished: () => void): void {
    this.#disk.close(finished)
  }
}

/** Stands in for a request, to see its answer; giving the request up gives this one up. */
class Relay extends DiskIo {
  readonly #io: DiskIo
  readonly #trace: Trace
  readonly #path: string

  constructor(io: DiskIo, trace: Trace, path: string) {
    super(io.op, io.offset, io.lengthBytes, io.lent, io)
    this.#io = io
    this.#trace = trace
    this.#path = path
  }

  protected finished(outcome: DiskOutcome, bytes: number, badOffset: number | null): void {
    this.#trace.emit({ name: 'answer', path: this.#path, id: this.id, outcome, bytes })
    for (const extent of this.extents) this.#io.extents.push(extent)
    this.#io.answer(outcome, bytes, badOffset)
  }
}
