import { type DiskBackend, DiskIo, type DiskOutcome } from './backend.ts'

/**
 * Stands in below for a request from above, for a layer that has to see the answer: giving the request up gives
 * this one up, and its answer is the request's, with what goes with it.
 */
export class DiskRelay extends DiskIo {
  readonly #above: DiskIo

  constructor(above: DiskIo) {
    super(above.op, above.offset, above.lengthBytes, above.lent, above)
    this.#above = above
  }

  /** Submits this one in place of the request, which may have been given up already. */
  submitTo(disk: DiskBackend): void {
    this.#above.holder = this
    disk.submit(this)
    if (this.#above.cancelling) this.cancel()
  }

  /** A layer does what it is there for, and then has this done. */
  protected finished(outcome: DiskOutcome, bytesDone: number, badOffset: number | null): void {
    for (const extent of this.extents) this.#above.extents.push(extent)
    this.#above.answer(outcome, bytesDone, badOffset)
  }
}
