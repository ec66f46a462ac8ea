import { type DiskBackend, type DiskHolder, DiskIo, type DiskOp, type DiskOutcome } from './backend.ts'

/**
 * One request that is answered once all the parts it was split into are: by the failure nearest to its start,
 * or else with 'ok'.
 */
export class Merge implements DiskHolder {
  readonly #io: DiskIo
  readonly #complete: (() => void) | null
  readonly #parts: Part[]
  #waiting: number
  #outcome: DiskOutcome
  #doneBytes: number
  #badOffset: number | null

  /** @param complete runs before an 'ok' answer, once every part is in. */
  constructor(io: DiskIo, complete: (() => void) | null = null) {
    this.#io = io
    this.#complete = complete
    this.#parts = []
    // One for whoever is still splitting, so that parts answered at once do not answer the whole.
    this.#waiting = 1
    this.#outcome = 'ok'
    this.#doneBytes = io.lengthBytes
    this.#badOffset = null
  }

  /** Sends a part of the request to `below`. */
  send(below: DiskBackend, op: DiskOp, offset: number, lengthBytes: number, lent: Uint8Array[]): Part {
    const part = new Part(this, op, offset, lengthBytes, lent, this.#io.id)
    this.#waiting += 1
    this.#parts.push(part)
    below.submit(part)
    return part
  }

  /** Every part has been sent. */
  sealed(): void {
    if (this.#waiting > 1) {
      this.#io.holder = this
      if (this.#io.cancelling) this.cancel()
    }
    this.#arrived()
  }

  cancel(): void {
    for (const part of this.#parts) part.cancel()
  }

  partFinished(part: Part, outcome: DiskOutcome, bytesDone: number, badOffset: number | null): void {
    const done = part.offset - this.#io.offset + bytesDone
    if (outcome !== 'ok' && (this.#outcome === 'ok' || done < this.#doneBytes)) {
      this.#outcome = outcome
      this.#doneBytes = done
      this.#badOffset = badOffset
    }
    this.#arrived()
  }

  #arrived(): void {
    this.#waiting -= 1
    if (this.#waiting > 0) return
    if (this.#outcome === 'ok') this.#complete?.()
    this.#io.answer(this.#outcome, this.#doneBytes, this.#badOffset)
  }
}

class Part extends DiskIo {
  readonly #merge: Merge

  constructor(
    merge: Merge,
    op: DiskOp,
    offset: number,
    lengthBytes: number,
    lent: readonly Uint8Array[],
    id: number,
  ) {
    super(op, offset, lengthBytes, lent, { id })
    this.#merge = merge
  }

  protected finished(outcome: DiskOutcome, bytesDone: number, badOffset: number | null): void {
    this.#merge.partFinished(this, outcome, bytesDone, badOffset)
  }
}
