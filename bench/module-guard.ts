import type { DiskBackend, DiskFacts, DiskIo, DiskListener, DiskOutcome } from '../host/disk/backend.ts'
import { DiskRelay } from '../host/disk/relay.ts'

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
    try {
      guarded.submitTo(this.#disk)
    } catch (error) {
      if (error === this.ours) throw error
      this.#threw(error)
      if (!guarded.answered) guarded.answer('medium-error')
    }
  }

  watch(listener: DiskListener): () => void {
    return this.#disk.watch(listener)
  }

  close(finished: () => void): void {
    this.#disk.close(finished)
  }
}

class GuardedIo extends DiskRelay {
  readonly #guard: ModuleGuard

  constructor(io: DiskIo, guard: ModuleGuard) {
    super(io)
    this.#guard = guard
  }

  protected override finished(outcome: DiskOutcome, bytesDone: number, badOffset: number | null): void {
    try {
      super.finished(outcome, bytesDone, badOffset)
    } catch (error) {
      this.#guard.ours = error
      throw error
    }
  }
}
