import {
  type DiskBackend,
  type DiskFacts,
  DiskIo,
  type DiskListener,
  type DiskOutcome,
} from '../host/disk/backend.ts'

/**
 * Stands over a disk that a user's module has part in: an exception out of `submit` becomes a failed request
 * and a line that names the module, instead of an end of the run that looks like our own mistake.
 */
export class ModuleGuard implements DiskBackend {
  readonly #disk: DiskBackend
  readonly #threw: (error: unknown) => void
  /** An exception from above the module, on its way through it: not the module's. */
  ours: unknown

  constructor(disk: DiskBackend, threw: (error: unknown) => void) {
    this.#disk = disk
    this.#threw = threw
    this.ours = null
  }

  get facts(): DiskFacts {
    return this.#disk.facts
  }

  submit(io: DiskIo): void {
    const guarded = new GuardedIo(io, this)
    io.holder = guarded
    try {
      this.#disk.submit(guarded)
    } catch (error) {
      if (error === this.ours) throw error
      this.#threw(error)
      if (!guarded.answered) guarded.answer('medium-error')
    }
    if (io.cancelling) guarded.cancel()
  }

  watch(listener: DiskListener): () => void {
    return this.#disk.watch(listener)
  }

  close(finished: () => void): void {
    this.#disk.close(finished)
  }
}

class GuardedIo extends DiskIo {
  readonly #io: DiskIo
  readonly #guard: ModuleGuard

  constructor(io: DiskIo, guard: ModuleGuard) {
    super(io.op, io.offset, io.lengthBytes, io.lent, io)
    this.#io = io
    this.#guard = guard
  }

  protected finished(outcome: DiskOutcome, bytesDone: number, badOffset: number | null): void {
    for (const extent of this.extents) this.#io.extents.push(extent)
    try {
      this.#io.answer(outcome, bytesDone, badOffset)
    } catch (error) {
      this.#guard.ours = error
      throw error
    }
  }
}
