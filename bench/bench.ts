import type { DeviceView } from '../guest/kernel/pnp/device-view.ts'
import { windowsVersion } from '../guest/kernel/version.ts'
import { APIC_PROFILES } from '../hypervisor/apic-profile.ts'
import { VirtualClock } from '../hypervisor/clock.ts'
import type { Replay } from '../hypervisor/replay.ts'
import type { GuestMemory } from '../protocol/memory.ts'
import type { Random } from '../protocol/platform.ts'
import { NO_TRACE, type Trace } from '../protocol/trace.ts'
import { type BenchDisk, type OpenedDisk, openBenchDisk } from './bench-disk.ts'
import {
  BadDescription,
  type BenchDescription,
  type CheckedDescription,
  checkDescription,
} from './description.ts'
import { problemOf, works } from './device-health.ts'
import { DiskAccess } from './disk-access.ts'
import { DiskRun, type Progress } from './disk-run.ts'
import { driveFacts } from './drive-facts.ts'
import { imageFileOf } from './image-file.ts'
import { seededRandom } from './random.ts'
import { type BenchReport, violationsOf } from './report.ts'
import type { TraceLines } from './trace-lines.ts'
import { type SharedGuestMemory, sharedGuestMemory } from './vhost-user-edge.ts'
import { type MachineDisk, pathOf, WindowsMachine } from './windows-machine.ts'

/** What goes with a description and is not plain data. */
export interface BenchOptions {
  /** Where the run tells what it does; nowhere by default, which costs nothing. */
  readonly trace?: TraceLines
  /** What came from outside in an earlier run, to be let in again at the same points. */
  readonly replay?: Replay
  /** Called when nothing of the description can be wrong any more: the disks are open, the guest boots next. */
  readonly opened?: () => void
}

export interface RunOptions {
  /** Hears how far the run is, a few times a second at most. */
  readonly progress?: (progress: Progress) => void
}

interface Parts {
  readonly description: CheckedDescription
  readonly clock: VirtualClock
  readonly windows: WindowsMachine
  readonly disks: readonly BenchDisk[]
  readonly random: Random
  readonly bootSeconds: number
  /** Guest memory that daemons have too; null where nobody does. */
  readonly shared: SharedGuestMemory | null
}

/**
 * Both ends of the wire, ready to run: a machine whose Windows-shaped guest has booted and found its disks, and
 * backends behind them. Whoever creates one closes it.
 */
export class Bench implements AsyncDisposable {
  readonly description: CheckedDescription
  /** The disks as the guest's applications reach them. */
  readonly disks: readonly DiskAccess[]
  readonly #parts: Parts
  #last: Promise<unknown>
  #closed: boolean

  constructor(parts: Parts) {
    this.#parts = parts
    this.#last = Promise.resolve()
    this.#closed = false
    this.description = parts.description
    const { windows } = parts
    const exclusively = <T>(work: () => Promise<T>) => this.#exclusively(work)
    this.disks = parts.disks.map((disk) => new DiskAccess({ disk, windows, exclusively }))
  }

  /** The machine itself, for tests that go deeper: kernel, processor, memory, exit counters. */
  get machine(): WindowsMachine {
    return this.#parts.windows
  }

  /** What hangs on the root of the device tree, as Device Manager shows it. */
  get devices(): readonly DeviceView[] {
    return this.#parts.windows.kernel.pnp.tree()?.children ?? []
  }

  /** Disk `index` of the description. @throws RangeError when there is none. */
  disk(index: number): DiskAccess {
    const disk = this.disks[index]
    if (disk === undefined)
      throw new RangeError(`there is no disk ${index}: the bench has ${this.disks.length}`)
    return disk
  }

  /** Reads every disk whole, verifies reads and writes on it, and says what it found. */
  run(options: RunOptions = {}): Promise<BenchReport> {
    return this.#exclusively(() => this.#run(options.progress ?? (() => {})))
  }

  /** Closes the backends; the guest is switched off. Closing twice does nothing. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    await this.#last.catch(() => {})
    await closeDisks(this.#parts.clock, this.#parts.disks)
    this.#parts.shared?.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #run(progress: (progress: Progress) => void): Promise<BenchReport> {
    const { description, clock, windows, disks, random, bootSeconds } = this.#parts
    const startedMs = performance.now()
    const runs = []
    for (const disk of disks) {
      const own = random.stream(disk.name)
      runs.push(await new DiskRun({ disk, windows, random: own, description, progress }).run())
    }
    const violations = disks.flatMap(violationsOf)
    const problems = disks.reduce((sum, disk) => sum + disk.problems.total, 0)
    const { devices } = this
    const { unclaimed } = windows.machine.bus
    const { windows: name, profile, memoryBytes, preemption } = description
    return {
      schema: 1,
      verified: violations.length === 0 && problems === 0 && unclaimed === 0 && devices.every(works),
      seed: description.seed,
      guest: { windows: name, profile, memoryBytes, preemption },
      virtio: description.virtio,
      devices,
      disks: runs.map(({ report }) => report),
      violations,
      problems: disks.flatMap((disk) => disk.problems.first),
      unclaimedAccesses: unclaimed,
      virtualUs: clock.now(),
      timing: {
        seconds: (performance.now() - startedMs) / 1000,
        bootSeconds,
        disks: runs.map(({ timing }) => timing),
      },
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
 * Builds a bench from plain data: opens its disks, puts them behind a machine, and boots the guest. A disk that
 * cannot be opened leaves nothing open; one that the guest cannot start is a problem of the run.
 *
 * @throws BadDescription one line that says what cannot be.
 */
export async function createBench(
  written: BenchDescription = {},
  options: BenchOptions = {},
): Promise<Bench> {
  const description = checkDescription(written)
  refuseSharedImages(description)
  const trace = options.trace ?? NO_TRACE
  const clock = new VirtualClock({ trace, replay: options.replay ?? null })
  options.trace?.begin(description, () => clock.now())
  const random = seededRandom(description.seed)
  const opened: OpenedDisk[] = []
  let shared: SharedGuestMemory | null = null
  try {
    for (const [index, disk] of description.disks.entries()) {
      const path = `disk${index}`
      const platform = { clock, random: random.stream(path), trace, path }
      opened.push(await openBenchDisk(disk, platform, clock))
    }
    options.opened?.()
    const startedMs = performance.now()
    shared = sharedMemoryFor(description, opened)
    const windows = machineOf(description, clock, random, trace, shared?.memory)
    const machines = opened.map((disk) => plugIn(windows, description, disk, shared))
    await windows.run(function* () {
      yield* windows.boot()
      return true
    })
    const disks = []
    for (const [index, machine] of machines.entries()) {
      disks.push(await foundDisk(windows, opened[index] as OpenedDisk, machine))
    }
    const bootSeconds = (performance.now() - startedMs) / 1000
    return new Bench({ description, clock, windows, disks, random, bootSeconds, shared })
  } catch (error) {
    await closeDisks(clock, opened)
    shared?.close()
    throw error
  }
}

function machineOf(
  description: CheckedDescription,
  clock: VirtualClock,
  random: Random,
  trace: Trace,
  memory: GuestMemory | undefined,
): WindowsMachine {
  const { profile, virtio, memoryBytes, queueSize, preemption } = description
  const windows = windowsVersion(description.windows)
  if (typeof windows === 'string') throw new BadDescription(windows)
  return new WindowsMachine({
    clock,
    trace,
    random,
    windows,
    profile: APIC_PROFILES[profile],
    virtio,
    memoryBytes,
    queueSize,
    preemption,
    ...(memory === undefined ? {} : { memory }),
  })
}

/** Memory that other processes can map, where a disk is in one. */
function sharedMemoryFor(
  { memoryBytes }: CheckedDescription,
  disks: readonly OpenedDisk[],
): SharedGuestMemory | null {
  return disks.some(({ daemon }) => daemon !== null) ? sharedGuestMemory(memoryBytes) : null
}

function plugIn(
  windows: WindowsMachine,
  { virtio: version, queueSize }: CheckedDescription,
  { backend, daemon, write }: OpenedDisk,
  shared: SharedGuestMemory | null,
): MachineDisk {
  if (daemon === null || shared === null) return windows.addDisk(backend)
  return windows.addDevice(daemon.device({ regions: shared.regions, version, queueSize, write }))
}

/** What became of a disk when the guest booted. */
async function foundDisk(
  windows: WindowsMachine,
  opened: OpenedDisk,
  machine: MachineDisk,
): Promise<BenchDisk> {
  const { problems, backend, daemon } = opened
  const drive = windows.driveOf(machine)
  if (drive === null) {
    const why =
      problemOf(windows.kernel.pnp.tree(), pathOf(machine)) ?? 'no disk was found behind the adapter'
    const told = machine.adapter?.log.at(-1)
    problems.add(
      'not-started',
      null,
      `the guest cannot use it: ${why}${told === undefined ? '' : ` (${told})`}`,
    )
    return { ...opened, machine, drive, facts: null }
  }
  const facts = await windows.run(() => driveFacts(windows.user, drive))
  if (typeof facts === 'string') {
    problems.add('not-started', null, facts)
    return { ...opened, machine, drive, facts: null }
  }
  const { lengthBytes, serial } = backend.facts
  if (facts.lengthBytes !== lengthBytes) {
    problems.add(
      'wrong-data',
      null,
      `the guest sees ${facts.lengthBytes} bytes, the backend has ${lengthBytes}`,
    )
  }
  // What no printable character is, drivers leave out of names.
  if (daemon === null && facts.serial !== serial.replace(/[^\x21-\x7e]/g, '')) {
    const seen = JSON.stringify(facts.serial)
    problems.add(
      'wrong-data',
      null,
      `the guest reads serial ${seen}, the backend has ${JSON.stringify(serial)}`,
    )
  }
  return { ...opened, machine, drive, facts }
}

async function closeDisks(clock: VirtualClock, disks: readonly OpenedDisk[]): Promise<void> {
  const closing = disks.map(({ backend }) => new Promise<void>((resolve) => backend.close(resolve)))
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
