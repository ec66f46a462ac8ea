import { createHash } from 'node:crypto'
import type { VirtualClock } from '../hypervisor/clock.ts'
import type { Random } from '../protocol/platform.ts'
import { SECTOR_BYTES } from '../protocol/virtio/blk.ts'
import type { BenchDisk } from './bench-disk.ts'
import type { GuestBuffer } from './buffers.ts'
import type { CheckedDescription, VerifyMode } from './description.ts'
import { DiskRead } from './disk-read.ts'
import { type DiskReport, type DiskTiming, perSecond } from './report.ts'
import { Workload } from './workload.ts'

/** Past this, reading all of a disk is asked for by name only. */
const FULL_MAX_BYTES = 16 * 1024 ** 3
const SAMPLES = 256
/** How much is done before the event loop gets its turn: signals, a terminal. */
const PIECES_A_TURN = 256
const REQUESTS_A_TURN = 512

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
  readonly clock: VirtualClock
  readonly buffers: readonly GuestBuffer[]
  /** The disk's own stream. */
  readonly random: Random
  readonly description: CheckedDescription
  readonly progress: (progress: Progress) => void
}

/** A stretch of work that is done a part at a time. */
interface Pass {
  readonly over: boolean
  readonly outstanding: number
  allow(count: number): void
}

/** Reads and verifies one disk. */
export class DiskRun {
  readonly #setup: DiskRunSetup

  constructor(setup: DiskRunSetup) {
    this.#setup = setup
  }

  async run(): Promise<{ readonly report: DiskReport; readonly timing: DiskTiming }> {
    const { disk } = this.#setup
    const verify = this.#verify()
    const startedMs = performance.now()
    const read = await this.#read(verify)
    const readSeconds = (performance.now() - startedMs) / 1000
    const workload = await this.#workload()
    const workloadSeconds = (performance.now() - startedMs) / 1000 - readSeconds
    const { doorbells, interruptStatus } = disk.registers.counts
    const { lengthBytes, blockBytes } = disk.backend.facts
    const requests = workload?.requests ?? 0
    return {
      report: {
        name: disk.name,
        spec: disk.spec,
        sectors: lengthBytes / SECTOR_BYTES,
        blockBytes,
        paddedBytes: disk.paddedBytes,
        verify,
        sha256: read.sha256,
        readBytes: read.bytes,
        requests: disk.requests,
        doorbells,
        interrupts: disk.line.delivered,
        interruptStatus,
        workload: { requests, comparedBytes: workload?.comparedBytes ?? 0 },
        problems: disk.problems.total,
      },
      timing: {
        readSeconds,
        readMegabytesPerSecond: perSecond(read.bytes / 1e6, readSeconds),
        workloadSeconds,
        iops: perSecond(requests, workloadSeconds),
      },
    }
  }

  #verify(): DiskReport['verify'] {
    const { disk, description } = this.#setup
    if (description.verify !== 'auto') return description.verify
    return disk.backend.facts.lengthBytes <= FULL_MAX_BYTES ? 'full' : 'sample'
  }

  async #read(
    verify: Exclude<VerifyMode, 'auto'>,
  ): Promise<{ readonly bytes: number; readonly sha256: string | null }> {
    const { disk, buffers, random, progress } = this.#setup
    const { lengthBytes } = disk.backend.facts
    if (disk.driver.state.kind !== 'ready' || verify === 'none') return { bytes: 0, sha256: null }
    const pieceBytes = buffers[0]?.bytes.length ?? 1
    const pieces = Math.ceil(lengthBytes / pieceBytes)
    const chosen = verify === 'full' ? null : samples(random.stream('sample'), pieces)
    const hash = verify === 'full' ? createHash('sha256') : null
    const read = new DiskRead({
      driver: disk.driver,
      buffers,
      lengthBytes,
      offsetOf: (index) => (chosen === null ? index : (chosen[index] ?? 0)) * pieceBytes,
      count: chosen === null ? pieces : chosen.length,
      model: disk.model,
      reference: disk.source,
      hash,
      problems: disk.problems,
    })
    const total = chosen === null ? lengthBytes : chosen.length * pieceBytes
    await this.#pass(read, PIECES_A_TURN, () => {
      progress({ disk: disk.name, phase: 'read', done: read.bytes, total })
    })
    return { bytes: read.bytes, sha256: read.complete && hash !== null ? hash.digest('hex') : null }
  }

  async #workload(): Promise<Workload | null> {
    const { disk, buffers, random, description, progress } = this.#setup
    const { state, outstanding } = disk.driver
    if (state.kind !== 'ready' || outstanding > 0) return null
    const workload = new Workload({
      driver: disk.driver,
      features: state.features,
      geometry: state.geometry,
      buffers: buffers.slice(0, description.depth),
      random: random.stream('workload'),
      model: disk.model,
      reference: disk.source,
      serial: disk.backend.facts.serial,
      operations: description.operations,
      problems: disk.problems,
    })
    await this.#pass(workload, REQUESTS_A_TURN, () => {
      const total = Math.max(description.operations, workload.requests)
      progress({ disk: disk.name, phase: 'workload', done: workload.requests, total })
    })
    return workload
  }

  /**
   * Runs a pass to its end, or to where nothing moves any more: in virtual time that is certain, with no
   * timeout to guess.
   */
  async #pass(pass: Pass, count: number, moved: () => void): Promise<void> {
    const { disk, clock } = this.#setup
    while (!pass.over) {
      pass.allow(count)
      await clock.run()
      moved()
      if (pass.outstanding > 0) {
        disk.problems.add('never-answered', null, `${pass.outstanding} requests are never answered`)
        return
      }
      const { state } = disk.driver
      if (state.kind === 'failed') {
        disk.problems.add('request-failed', null, `the driver gives up: ${state.why}`)
        return
      }
      await new Promise<void>((resolve) => setImmediate(resolve))
    }
  }
}

/** The first piece, the last, and others that the seed chooses, in order. */
function samples(random: Random, pieces: number): number[] {
  if (pieces <= SAMPLES) return Array.from({ length: pieces }, (_, index) => index)
  const chosen = new Set([0, pieces - 1])
  while (chosen.size < SAMPLES) chosen.add(Math.floor((random.next32() / 2 ** 32) * pieces))
  return [...chosen].sort((a, b) => a - b)
}
