import type { DiskBackend, DiskOutcome } from '../host/disk/backend.ts'
import { DiskIo } from '../host/disk/backend.ts'

/** Who compares what the guest read with what the backend holds. */
export interface DirectReadOwner<T> {
  /** `expected` is null where there is no other witness. */
  directRead(what: T, expected: Uint8Array<ArrayBuffer> | null, outcome: DiskOutcome): void
}

class DirectIo<T> extends DiskIo {
  readonly #reader: DirectReader<T>
  readonly #what: T
  readonly #into: Uint8Array<ArrayBuffer>

  constructor(
    reader: DirectReader<T>,
    what: T,
    offset: number,
    into: Uint8Array<ArrayBuffer>,
    view: Uint8Array,
  ) {
    super('read', offset, view.length, [view])
    this.#reader = reader
    this.#what = what
    this.#into = into
  }

  protected finished(outcome: DiskOutcome): void {
    this.#reader.answered(this.#what, this.#into, this.lengthBytes, outcome)
  }
}

/**
 * Reads a backend past ring and device model: the other witness of what a disk holds. Scratch memory is kept
 * and reused; a backend that answers at once needs one piece.
 */
export class DirectReader<T> {
  readonly #backend: DiskBackend | null
  readonly #owner: DirectReadOwner<T>
  readonly #pieceBytes: number
  readonly #free: Uint8Array<ArrayBuffer>[]

  constructor(backend: DiskBackend | null, owner: DirectReadOwner<T>, pieceBytes: number) {
    this.#backend = backend
    this.#owner = owner
    this.#pieceBytes = pieceBytes
    this.#free = []
  }

  /** @param lengthBytes at most a piece. */
  read(what: T, offset: number, lengthBytes: number): void {
    if (this.#backend === null) {
      this.#owner.directRead(what, null, 'ok')
      return
    }
    const into = this.#free.pop() ?? new Uint8Array(this.#pieceBytes)
    this.#backend.submit(new DirectIo(this, what, offset, into, into.subarray(0, lengthBytes)))
  }

  /** The owner looks at the bytes before it returns; then they are overwritten. */
  answered(what: T, into: Uint8Array<ArrayBuffer>, lengthBytes: number, outcome: DiskOutcome): void {
    this.#owner.directRead(what, into.subarray(0, lengthBytes), outcome)
    this.#free.push(into)
  }
}
