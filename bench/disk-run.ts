import { createHash } from 'node:crypto'
import type { Waiting } from '../guest/kernel/thread.ts'
import { PAGE_BYTES } from '../protocol/memory.ts'
import type { Random } from '../protocol/platform.ts'
import { SECTOR_BYTES } from '../protocol/virtio/blk.ts'
import type { BenchDisk } from './bench-disk.ts'
import type { CheckedDescription, VerifyMode } from './description.ts'
import { DiskRead } from './disk-read.ts'
import { Drive } from './drive.ts'
import type { DriveFacts } from './drive-facts.ts'
import { type Crossings, ExitTally } from './exit-tally.ts'
import type { RegisterCounts } from './register-counter.ts'
import { type DiskReport, type DiskTiming, type PriceReport, perSecond, requestCounts } from './report.ts'
import type { WindowsMachine } from './windows-machine.ts'
import { Workload } from './workload.ts'

/** Past this, reading all of a disk is asked for by name only. */
const FULL_MAX_BYTES = 16 * 1024 ** 3
const SAMPLES = 256
/** How much is done before the event loop gets its turn: signals, a terminal. */
const PIECES_A_TURN = 256
const REQUESTS_A_TURN = 512
/** Of the read: one request of the class driver each, as long as the adapter takes 128 pages and more. */
const PIECE_BYTES = 512 * 1024
const PIECES_IN_FLIGHT = 16
/** The largest block a disk may have: a buffer holds at least one. */
const LEAST_BYTES = 64 * 1024
/** Of the workload's requests. */
const TRANSFER_BYTES_MAX = 128 * 1024

/** How far a run is. */
export interface Progress {
  readonly disk: string
  readonly phase: 'read' | 'workload'
  /** Bytes of the read, requests of the workload. */
  readonly done: number
  readonly total: number
}

export interface DiskRunSetup {
  readonly disk: BenchDisk
  readonly windows: WindowsMachine
  /** The disk's own stream. */
  readonly random: Random
  readonly description: CheckedDescription
  readonly progress: (progress: Progress) => void
}

/** A stretch of an application's work that is done a part at a time, each in a thread of its own. */
interface Pass {
  readonly over: boolean
  readonly outstanding: number
  allow(count: number): void
  turn(): Waiting<void>
}

/** What was counted before the run began. */
interface Before {
  readonly tally: ExitTally
  readonly requests: number
  readonly registers: RegisterCounts
}

interface ReadResult {
  readonly bytes: number
  readonly verifyMs: number
  readonly sha256: string | null
}

/** Reads and verifies one disk, as an application of the guest. */
export class DiskRun {
  readonly #setup: DiskRunSetup

  constructor(setup: DiskRunSetup) {
    this.#setup = setup
  }

  async run(): Promise<{ readonly report: DiskReport; readonly timing: DiskTiming }> {
    const { disk, windows } = this.#setup
    const before = {
      tally: new ExitTally(windows.machine.counters),
      requests: this.#requests,
      registers: disk.machine.registers.counts,
    }
    const verify = this.#verify()
    const startedMs = performance.now()
    const { drive, facts } = await this.#open()
    const read = await this.#read(drive, facts, verify)
    const readSeconds = (performance.now() - startedMs) / 1000
    const workload = await this.#workload(drive, facts)
    const workloadSeconds = (performance.now() - startedMs) / 1000 - readSeconds
    if (drive !== null) await windows.run(ended(drive.close()))
    this.#addTimeouts()
    const requests = workload?.requests ?? 0
    return {
      report: this.#report(before, verify, read, workload),
      timing: {
        readSeconds,
        verifySeconds: read.verifyMs / 1000,
        readMegabytesPerSecond: perSecond(read.bytes / 1e6, readSeconds),
        workloadSeconds,
        iops: perSecond(requests, workloadSeconds),
      },
    }
  }

  #report(
    before: Before,
    verify: DiskReport['verify'],
    read: ReadResult,
    workload: Workload | null,
  ): DiskReport {
    const { disk } = this.#setup
    const { registers, adapter } = disk.machine
    const { lengthBytes, blockBytes } = disk.backend.facts
    const crossings = before.tally.sinceThen
    const layout = disk.facts?.layout
    return {
      name: disk.name,
      spec: disk.spec,
      path: disk.drive === null ? null : `\\\\.\\PhysicalDrive${disk.drive}`,
      serial: disk.facts?.serial ?? '',
      sectors: lengthBytes / SECTOR_BYTES,
      blockBytes,
      daemon: disk.daemon === null ? null : { connections: disk.daemon.connections },
      paddedBytes: disk.paddedBytes,
      partitionStyle: layout?.style ?? 'none',
      diskId: layout?.diskId ?? null,
      partitions: layout?.partitions ?? [],
      verify,
      sha256: read.sha256,
      readBytes: read.bytes,
      requests: requestCounts(disk),
      doorbells: registers.counts.doorbells,
      interrupts: adapter?.counts.interrupts ?? 0,
      interruptStatus: registers.counts.interruptStatus,
      exits: crossings.exits,
      price: priceOf(this.#requests - before.requests, before.registers, registers.counts, crossings),
      injections: crossings.injections,
      deliveries: crossings.deliveries,
      bytesCopied: adapter?.counts.bytesCopied ?? 0,
      workload: { requests: workload?.requests ?? 0, comparedBytes: workload?.comparedBytes ?? 0 },
      problems: disk.problems.total,
    }
  }

  get #requests(): number {
    const { disk } = this.#setup
    if (disk.daemon !== null) return disk.daemon.served
    return Object.values(requestCounts(disk)).reduce((sum, count) => sum + count, 0)
  }

  #verify(): DiskReport['verify'] {
    const { disk, description } = this.#setup
    if (description.verify !== 'auto') return description.verify
    return disk.backend.facts.lengthBytes <= FULL_MAX_BYTES ? 'full' : 'sample'
  }

  async #open(): Promise<{ readonly drive: Drive | null; readonly facts: DriveFacts | null }> {
    const { disk, windows } = this.#setup
    const { drive: number, facts, problems } = disk
    if (number === null || facts === null) return { drive: null, facts }
    const opened = await windows.run(() => Drive.open(windows.user, number))
    if (opened instanceof Drive) return { drive: opened, facts }
    problems.failed('the opening', null, opened)
    return { drive: null, facts }
  }

  async #read(
    drive: Drive | null,
    facts: DriveFacts | null,
    verify: Exclude<VerifyMode, 'auto'>,
  ): Promise<ReadResult> {
    const nothing = { bytes: 0, verifyMs: 0, sha256: null }
    if (drive === null || facts === null || verify === 'none') return nothing
    const { disk, windows, random, progress } = this.#setup
    const { lengthBytes } = facts
    const { user } = windows
    const { buffers, bufferBytes } = readBuffers(windows)
    const pieces = Math.ceil(lengthBytes / bufferBytes)
    const chosen = verify === 'full' ? null : samples(random.stream('sample'), pieces)
    const hash = verify === 'full' ? createHash('sha256') : null
    const read = new DiskRead({
      drive,
      buffers,
      bufferBytes,
      lengthBytes,
      offsetOf: (index) => (chosen === null ? index : (chosen[index] ?? 0)) * bufferBytes,
      count: chosen === null ? pieces : chosen.length,
      model: disk.model,
      reference: disk.source,
      hash,
      problems: disk.problems,
    })
    const total = chosen === null ? lengthBytes : Math.min(lengthBytes, chosen.length * bufferBytes)
    await this.#pass(read, PIECES_A_TURN, () => {
      progress({ disk: disk.name, phase: 'read', done: read.bytes, total })
    })
    for (const buffer of buffers) user.free(buffer)
    const { bytes, verifyMs } = read
    return { bytes, verifyMs, sha256: read.complete && hash !== null ? hash.digest('hex') : null }
  }

  async #workload(drive: Drive | null, facts: DriveFacts | null): Promise<Workload | null> {
    if (drive === null || facts === null) return null
    const { disk, windows, random, description, progress } = this.#setup
    const { sectorBytes, lengthBytes, readOnly, trims } = facts
    const transferBytes = Math.max(
      sectorBytes,
      Math.min(TRANSFER_BYTES_MAX, memoryFor(windows, description.depth)),
    )
    const workload = new Workload({
      drive,
      limits: {
        blocks: Math.floor(lengthBytes / sectorBytes),
        readOnly,
        trims,
        transferBlocksMax: Math.floor(transferBytes / sectorBytes),
      },
      blockBytes: sectorBytes,
      depth: description.depth,
      random: random.stream('workload'),
      model: disk.model,
      reference: disk.source,
      operations: description.operations,
      problems: disk.problems,
    })
    await this.#pass(workload, REQUESTS_A_TURN, () => {
      const total = Math.max(description.operations, workload.requests)
      progress({ disk: disk.name, phase: 'workload', done: workload.requests, total })
    })
    workload.release()
    return workload
  }

  /** Runs a pass to its end, or to where nothing moves any more: in virtual time that is certain. */
  async #pass(pass: Pass, count: number, moved: () => void): Promise<void> {
    const { windows, disk } = this.#setup
    while (!pass.over) {
      pass.allow(count)
      await windows.run(ended(pass.turn()))
      moved()
      if (pass.outstanding > 0) {
        disk.problems.add('never-answered', null, `${pass.outstanding} requests are never answered`)
        return
      }
      await new Promise<void>((resolve) => setImmediate(resolve))
    }
  }

  /** The class driver tries again what was not answered in time: the application may not have noticed. */
  #addTimeouts(): void {
    const { disk } = this.#setup
    const counts = disk.machine.adapter?.counts
    if (counts === undefined || counts.timeouts === 0) return
    const { timeouts, resets } = counts
    disk.problems.addFirst(
      'never-answered',
      `${timeouts} requests were not answered in time; the port reset the device ${resets} times`,
    )
  }
}

/** A body that says when it is done. */
function ended(body: Waiting<unknown>): () => Waiting<true> {
  return function* () {
    yield* body
    return true
  }
}

/** The window of guest memory through which whole disks are read: at most a quarter of what there is. */
function readBuffers({ user, memory }: WindowsMachine): {
  readonly buffers: readonly number[]
  readonly bufferBytes: number
} {
  const most = memory.end / 4
  const wanted = Math.min(PIECE_BYTES, Math.max(LEAST_BYTES, most / PIECES_IN_FLIGHT))
  const bufferBytes = 2 ** Math.floor(Math.log2(wanted))
  const buffers: number[] = []
  while (buffers.length < PIECES_IN_FLIGHT && (buffers.length + 1) * bufferBytes <= most) {
    const buffer = user.allocateLarge(bufferBytes)
    if (buffer === 0) break
    buffers.push(buffer)
  }
  if (buffers.length === 0) throw new Error('the guest has no memory for an application')
  return { buffers, bufferBytes }
}

/** What each of `depth` buffers may take, of a quarter of the memory. */
function memoryFor({ memory }: WindowsMachine, depth: number): number {
  return Math.floor(memory.end / 4 / depth / PAGE_BYTES) * PAGE_BYTES - PAGE_BYTES
}

function priceOf(
  requests: number,
  before: RegisterCounts,
  after: RegisterCounts,
  { exitCount, endsOfInterrupt, halts }: Crossings,
): PriceReport {
  const each = (count: number) => (requests === 0 ? 0 : count / requests)
  const doorbells = after.doorbells - before.doorbells
  const interruptStatus = after.interruptStatus - before.interruptStatus
  return {
    requests,
    doorbell: each(doorbells),
    interruptStatus: each(interruptStatus),
    endOfInterrupt: each(endsOfInterrupt),
    halt: each(halts),
    other: each(exitCount - doorbells - interruptStatus - endsOfInterrupt - halts),
    total: each(exitCount),
  }
}

/** The first piece, the last, and others that the seed chooses, in order. */
function samples(random: Random, pieces: number): number[] {
  if (pieces <= SAMPLES) return Array.from({ length: pieces }, (_, index) => index)
  const chosen = new Set([0, pieces - 1])
  while (chosen.size < SAMPLES) chosen.add(Math.floor((random.next32() / 2 ** 32) * pieces))
  return [...chosen].sort((a, b) => a - b)
}
