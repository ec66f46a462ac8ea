import type { DiskBackend, DiskFacts, DiskHolder, DiskIo, DiskListener } from '../../host/disk/backend.ts'
import type { Clock, Random } from '../../protocol/platform.ts'

/**
 * A disk whose requests take up to so long and cannot be recalled, as with a file that is read by a thread: a
 * reset of the device waits for them, and what was being written is written.
 */
export class StubbornDisk implements DiskBackend, DiskHolder {
  readonly #below: DiskBackend
  readonly #clock: Clock
  readonly #random: Random
  readonly #mostUs: number

  constructor(below: DiskBackend, clock: Clock, random: Random, mostUs: number) {
    this.#below = below
    this.#clock = clock
    this.#random = random
    this.#mostUs = mostUs
  }

  get facts(): DiskFacts {
    return { ...this.#below.facts, synchronous: false, privateLoans: false }
  }

  submit(io: DiskIo): void {
    io.holder = this
    this.#clock.after(1 + this.#random.below(this.#mostUs), () => {
      io.holder = null
      this.#below.submit(io)
    })
  }

  cancel(): void {
    // It is on its way.
  }

  watch(listener: DiskListener): () => void {
    return this.#below.watch(listener)
  }

  close(finished: () => void): void {
    this.#below.close(finished)
  }
}
