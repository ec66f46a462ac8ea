import { VirtualClock } from '../hypervisor/clock.ts'
import { GuestMemory } from '../protocol/memory.ts'
import type { Random } from '../protocol/platform.ts'
import { NO_TRACE } from '../protocol/trace.ts'
import { type BenchDisk, openBenchDisk } from './bench-disk.ts'
import { type GuestBuffer, makeBuffer, makeBuffers } from './buffers.ts'
import { RegisterBus } from './bus.ts'
import {
  BadDescription,
  type BenchDescription,
  type CheckedDescription,
  checkDescription,
} from './description.ts'
import { DiskAccess } from './disk-access.ts'
import { DiskRun, type Progress } from './disk-run.ts'
import { BareGuest, GuestMemoryExhausted } from './guest.ts'
import { imageFileOf } from './image-file.ts'
import { seededRandom } from './random.ts'
import { type BenchReport, violationsOf } from './report.ts'
import type { TraceLines } from './trace-lines.ts'

/** What goes with a description and is not plain data. */
export interface BenchOptions {
  /** Where the run tells what it does; nowhere by default, which costs nothing. */
  readonly trace?: TraceLines
}

export interface RunOptions {
  /** Hears how far the run is, a few times a second at most. */
  readonly progress?: (progress: Progress) => void
}

/** What one call of a test's own moves at a time. */
const ACCESS_BYTES = 64 * 1024

interface Parts {
  readonly description: CheckedDescription
  readonly clock: VirtualClock
  readonly bus: RegisterBus
  readonly disks: readonly BenchDisk[]
  readonly guest: BareGuest
  readonly buffers: readonly GuestBuffer[]
  readonly random: Random
}

/**
 * Both ends of the wire, ready to run: drivers that have negotiated with their devices, and backends behind
 * them. Whoever creates one closes it.
 */
export class Bench implements AsyncDisposable {
  readonly description: CheckedDescription
  /** The disks as their drivers reach them. */
  readonly disks: readonly DiskAccess[]
  readonly #parts: Parts
  #last: Promise<unknown>
  #closed: boolean

  constructor(parts: Parts) {
    this.#parts = parts
    this.#last = Promise.resolve()
    this.#closed = false
    this.description = parts.description
    const { clock } = parts
    const exclusively = <T>(work: () => Promise<T>) => this.#exclusively(work)
    this.disks = parts.disks.map((disk) => {
      // Its own: what an unanswered request of one disk has on loan is nothing another may use.
      return new DiskAccess({ disk, clock, buffer: makeBuffer(parts.guest, ACCESS_BYTES), exclusively })
    })
  }

  /** Reads every disk whole, verifies reads and writes on it, and says what it found. */
  run(options: RunOptions = {}): Promise<BenchReport> {
    return this.#exclusively(() => this.#run(options.progress ?? (() => {})))
  }

  /** Resets the devices and closes the backends. Closing twice does nothing. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    await this.#last.catch(() => {})
    await closeDisks(this.#parts.clock, this.#parts.disks)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #run(progress: (progress: Progress) => void): Promise<BenchReport> {
    const { description, clock, bus, guest, disks, random } = this.#parts
    const startedMs = performance.now()
    const runs = []
    let { buffers } = this.#parts
    for (const disk of disks) {
      const own = random.stream(disk.name)
      runs.push(await new DiskRun({ disk, clock, buffers, random: own, description, progress }).run())
      // What an unanswered request has on loan may be written any time: the next disk gets memory of its own.
      if (disk.driver.outstanding > 0 || disk.problems.loansLost) buffers = makeBuffers(guest)
    }
    const violations = disks.flatMap(violationsOf)
    const problems = disks.reduce((sum, disk) => sum + disk.problems.total, 0)
    return {
      schema: 1,
      verified: violations.length === 0 && problems === 0 && bus.unclaimed === 0,
      seed: description.seed,
      virtio: description.virtio,
      disks: runs.map(({ report }) => report),
      violations,
      problems: disks.flatMap((disk) => disk.problems.first),
      unclaimedAccesses: bus.unclaimed,
      virtualUs: clock.now(),
      timing: { seconds: (performance.now() - startedMs) / 1000, disks: runs.map(({ timing }) => timing) },
    }
  }

  /** One user of the machine at a time: its outermost loop is not entered twice. */
  #exclusively<T>(work: () => Promise<T>): Promise<T> {
    if (this.#closed) return Promise.reject(new Error('the bench is closed'))
    const next = this.#last.catch(() => {}).then(work)
    this.#last = next
    return next
  }
}

/**
 * Builds a bench from plain data: opens its disks and has the drivers negotiate with the devices. A disk that
 * cannot be opened leaves nothing open.
 *
 * @throws BadDescription one line that says what cannot be.
 */
export async function createBench(
  written: BenchDescription = {},
  options: BenchOptions = {},
): Promise<Bench> {
  const description = checkDescription(written)
  refuseSharedImages(description)
  const { trace } = options
  const clock = new VirtualClock({ trace: trace ?? NO_TRACE })
  trace?.begin(description, () => clock.now())
  const random = seededRandom(description.seed)
  const bus = new RegisterBus()
  const guest = new BareGuest(GuestMemory.ofBytes(description.memoryBytes), clock, bus)
  const disks: BenchDisk[] = []
  try {
    const buffers = makeBuffers(guest)
    for (const [index, disk] of description.disks.entries()) {
      const path = `disk${index}`
      const platform = { clock, random: random.stream(path), trace: trace ?? NO_TRACE, path }
      disks.push(await openBenchDisk({ guest, bus, platform, index, disk, description }))
    }
    for (const disk of disks) {
      disk.start((state) => {
        if (state.kind === 'failed')
          disk.problems.add('not-started', null, `the driver does not start: ${state.why}`)
      })
      await clock.run()
    }
    return new Bench({ description, clock, bus, guest, disks, buffers, random })
  } catch (error) {
    await closeDisks(clock, disks)
    if (!(error instanceof GuestMemoryExhausted)) throw error
    throw new BadDescription(
      `memoryBytes is ${description.memoryBytes}, too little for these disks: ${error.message}`,
    )
  }
}

async function closeDisks(clock: VirtualClock, disks: readonly BenchDisk[]): Promise<void> {
  const closing = disks.map((disk) => new Promise<void>((resolve) => disk.close(resolve)))
  await clock.run()
  await Promise.all(closing)
}

/** Two disks may read one image, but nobody else may hold one that a disk writes. */
function refuseSharedImages(description: CheckedDescription): void {
  const seen = new Map<string, { readonly name: string; readonly write: boolean }>()
  for (const [index, { spec, write }] of description.disks.entries()) {
    const image = imageFileOf(spec)
    if (image === null) continue
    const other = seen.get(image.identity)
    const name = `disk${index}`
    if (other !== undefined && (write || other.write)) {
      throw new BadDescription(
        `${name}: ${JSON.stringify(image.path)} is ${other.name}'s image too, and is to be written`,
      )
    }
    seen.set(image.identity, { name, write })
  }
}
