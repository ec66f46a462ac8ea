import type { DmaSpace } from '../../protocol/dma.ts'
import { gpa } from '../../protocol/memory.ts'
import type { AccessWidth, HostPlatform, Plain } from '../../protocol/platform.ts'
import type { FeatureSet } from '../../protocol/version.ts'
import { hasFeature } from '../../protocol/version.ts'
import type { Violation } from '../../protocol/violation.ts'
import { BlkConfig, BlkFeature, BlkStatusByte, BlkType } from '../../protocol/virtio/blk.ts'
import type { VirtioVersion } from '../../protocol/virtio/features.ts'
import { CommonFeature } from '../../protocol/virtio/features.ts'
import type { QueuePlace } from '../../protocol/virtio/ring.ts'
import { DeviceId } from '../../protocol/virtio/status.ts'
import { Cursor } from '../../protocol/window.ts'
import type { DiskBackend } from '../disk/backend.ts'
import type { BlkLimits } from './blk-config.ts'
import { BLK_LIMITS, blkConfigBytes, blkOffer } from './blk-config.ts'
import type { BlkAnswers } from './blk-io.ts'
import { BlkIo, blkStatus, RangeBatch, statusAddress } from './blk-io.ts'
import type { BlkPlan, BlkRules } from './blk-request.ts'
import { BlkParser } from './blk-request.ts'
import type { Chain } from './chain.ts'
import type { DeviceSignals, QueueState, VirtioDevice } from './device.ts'
import { fillPayload } from './payload.ts'
import type { ChainServer } from './queue.ts'
import { DeviceQueue } from './queue.ts'
import type { RingCare } from './ring.ts'

export interface BlkDeviceSetup {
  readonly platform: HostPlatform
  readonly dma: DmaSpace
  readonly backend: DiskBackend
  readonly version: VirtioVersion
  readonly limits?: Partial<BlkLimits>
}

/** Counts of what was asked, by request type, for reports; -1 counts what is no type this device knows. */
export type BlkCounts = ReadonlyMap<number, number>

/** A driver has 2^32 types to choose from, and a count each would be memory it decides on. By type: where counted. */
const TALLIES = Uint8Array.from({ length: Math.max(...Object.values(BlkType)) + 1 }, (_, type) =>
  (Object.values(BlkType) as number[]).includes(type) ? type + 1 : 0,
)

/**
 * The block device model, VIRTIO 1.3 section 5.2: chains in, disk requests out.
 *
 * Its transport is behind `DeviceSignals`, its disk behind `DiskBackend`; neither is known here by name.
 */
export class BlkDevice implements VirtioDevice, ChainServer, BlkAnswers {
  readonly deviceId = DeviceId.BLOCK
  readonly featureTable = BlkFeature
  readonly queueSizes: readonly number[]
  readonly offered: FeatureSet
  readonly #platform: HostPlatform
  readonly #dma: DmaSpace
  readonly #backend: DiskBackend
  readonly #limits: BlkLimits
  readonly #rules: BlkRules
  readonly #queues: readonly DeviceQueue[]
  readonly #parser: BlkParser
  readonly #status: Cursor
  /** By request type plus one; the first counts what is no type. */
  readonly #tally: Float64Array
  /** Disk requests that were not answered at once. */
  readonly #kept: Set<BlkIo>
  readonly #renews: boolean
  /** A transfer whose backend keeps no request, for the next one: they are most of what is allocated. */
  #idle: BlkIo | null
  #signals: DeviceSignals | null
  #config: Uint8Array<ArrayBuffer>
  #writeback: boolean
  #resetDone: (() => void) | null
  configGeneration: number

  constructor(setup: BlkDeviceSetup) {
    this.#platform = setup.platform
    this.#dma = setup.dma
    this.#backend = setup.backend
    this.#limits = { ...BLK_LIMITS, ...setup.limits }
    this.#rules = { facts: setup.backend.facts, limits: this.#limits, features: 0n }
    this.offered = blkOffer(setup.backend.facts, this.#limits, setup.version)
    this.queueSizes = Array.from({ length: this.#limits.queues }, () => this.#limits.queueSize)
    this.#queues = this.queueSizes.map(
      (size, index) => new DeviceQueue(index, size, setup.platform, setup.dma, this),
    )
    this.#parser = new BlkParser(setup.dma)
    this.#status = new Cursor()
    this.#tally = new Float64Array(TALLIES.length + 1)
    this.#kept = new Set()
    this.#renews = setup.backend.keepsNoRequest === true
    this.#idle = null
    this.#signals = null
    this.#writeback = true
    this.#resetDone = null
    this.configGeneration = 0
    this.#config = this.#makeConfig()
    setup.backend.watch(() => this.#factsChanged())
  }

  /** Requests seen since the device was made, by type. */
  get counts(): BlkCounts {
    const counts = new Map<number, number>()
    for (const [index, count] of this.#tally.entries()) if (count > 0) counts.set(index - 1, count)
    return counts
  }

  attach(signals: DeviceSignals): void {
    this.#signals = signals
    for (const queue of this.#queues) queue.attach(signals)
  }

  accept(features: FeatureSet): void {
    this.#rules.features = features
    // A driver that cannot flush begins with write-through, VIRTIO 1.3 section 5.2.5.2.
    this.#writeback = hasFeature(features, BlkFeature.FLUSH.bit)
    this.#config = this.#makeConfig()
  }

  readConfig(offset: number, width: AccessWidth): number {
    let value = 0
    for (let i = width - 1; i >= 0; i--) value = value * 256 + (this.#config[offset + i] ?? 0)
    return value
  }

  writeConfig(offset: number, width: AccessWidth, value: number): void {
    const writable = hasFeature(this.#rules.features, BlkFeature.CONFIG_WCE.bit)
    if (!writable || offset !== BlkConfig.writeback || width !== 1 || !(value <= 1)) {
      this.#violated('mmio.config-read-only', null, offset, value, 0)
      return
    }
    this.#writeback = value === 1
    this.#config = this.#makeConfig()
  }

  start(queue: number, place: QueuePlace, from: QueueState, care?: RingCare): Violation | null {
    const features = {
      indirect: hasFeature(this.#rules.features, CommonFeature.INDIRECT_DESC.bit),
      eventIdx: hasFeature(this.#rules.features, CommonFeature.EVENT_IDX.bit),
    }
    return this.#queue(queue).start(place, from, features, care)
  }

  kick(queue: number): void {
    this.#queue(queue).kick()
  }

  stop(queue: number, stopped: (state: QueueState) => void): void {
    this.#queue(queue).stop(stopped)
  }

  reset(done: () => void): void {
    if (this.#resetDone !== null) throw new Error('a reset is under way')
    this.#resetDone = done
    for (const queue of this.#queues) queue.halt()
    const privately = this.#backend.facts.privateLoans
    for (const io of [...this.#kept]) {
      if (privately) this.#abandon(io)
      else io.cancel()
    }
    this.#settleReset()
  }

  queueState(queue: number): QueueState | null {
    return this.#queue(queue).state()
  }

  save(): Plain {
    return { writeback: this.#writeback, generation: this.configGeneration }
  }

  load(state: Plain): string | null {
    if (typeof state !== 'object' || state === null || Array.isArray(state)) return 'not an object'
    const { writeback, generation } = state as { [name: string]: Plain | undefined }
    if (typeof writeback !== 'boolean') return 'writeback is not a boolean'
    if (typeof generation !== 'number' || generation >>> 0 !== generation) return 'generation is not 32 bits'
    if (writeback !== this.#writeback && !hasFeature(this.#rules.features, BlkFeature.CONFIG_WCE.bit)) {
      return 'writeback was switched without CONFIG_WCE'
    }
    this.#writeback = writeback
    this.configGeneration = generation >>> 0
    this.#config = this.#makeConfig()
    return null
  }

  serve(queue: DeviceQueue, chain: Chain): void {
    if (chain.writableBytes === 0) {
      // Nowhere to put a status: the buffer goes back unused.
      this.#violated('block.status-absent', queue, firstOf(chain), 0, 1)
      queue.complete(chain, 0)
      return
    }
    this.#rules.facts = this.#backend.facts
    const plan = this.#parser.parse(chain, this.#rules)
    const { type, oddity } = this.#parser
    const counted = TALLIES[type] ?? 0
    this.#tally[counted] = (this.#tally[counted] as number) + 1
    if (oddity !== null) this.#violated(oddity.rule, queue, firstOf(chain), oddity.seen, oddity.expected)
    if (this.#platform.trace.on) this.#traceRequest(chain)
    this.#carryOut(plan, queue, chain)
  }

  keep(io: BlkIo): void {
    io.kept = true
    this.#kept.add(io)
  }

  answered(io: BlkIo, status: number, writtenBytes: number): void {
    if (io.kept) this.#kept.delete(io)
    if (io.abandoned) return
    if (this.#dma.log !== null && io.op === 'read') this.#logLent(io.chain)
    if (this.#resetDone !== null) {
      // The loan ended; the driver was told to expect no answer, and gets none.
      io.queue.abandon(io.chain)
      this.#settleReset()
      return
    }
    this.#give(io.queue, io.chain, io.statusAt, status, writtenBytes)
  }

  #carryOut(plan: BlkPlan, queue: DeviceQueue, chain: Chain): void {
    switch (plan.kind) {
      case 'transfer': {
        const { offset, lengthBytes, lent } = this.#parser
        const flushAfter = plan.op === 'write' && this.#writesThrough() ? this.#backend : null
        let io = this.#idle
        this.#idle = null
        if (io === null) io = new BlkIo(this, queue, chain, plan.op, offset, lengthBytes, lent, flushAfter)
        else io.again(queue, chain, plan.op, offset, lengthBytes, lent, flushAfter)
        io.send(this.#backend)
        if (io.settled && this.#renews) this.#idle = io
        return
      }
      case 'flush':
        new BlkIo(this, queue, chain, 'flush', 0, 0, [], null).send(this.#backend)
        return
      case 'ranges': {
        const flushAfter = this.#writesThrough() ? this.#backend : null
        const whole = new BlkIo(this, queue, chain, plan.op, 0, 0, [], flushAfter)
        const parts = new RangeBatch(whole, plan.ranges.length).send(this.#backend, plan.ranges)
        if (!whole.settled) {
          whole.holder = {
            cancel() {
              for (const part of parts) part.cancel()
            },
          }
          this.keep(whole)
        }
        return
      }
      case 'reply':
        this.#reply(queue, chain, plan.bytes)
        return
      case 'refused': {
        if (plan.rule !== null) this.#violated(plan.rule, queue, firstOf(chain), plan.seen, plan.expected)
        const status = blkStatus(plan.outcome === 'unsupported' ? 'unsupported' : 'medium-error')
        this.#give(queue, chain, statusAddress(chain), status, chain.writableBytes === 1 ? 1 : 0)
        return
      }
      default:
        plan satisfies never
    }
  }

  #reply(queue: DeviceQueue, chain: Chain, bytes: Uint8Array): void {
    fillPayload(this.#dma, chain, bytes)
    const written = bytes.length === chain.writableBytes - 1 ? bytes.length + 1 : bytes.length
    this.#give(queue, chain, statusAddress(chain), blkStatus('ok'), written)
  }

  #give(queue: DeviceQueue, chain: Chain, statusAt: number, status: number, writtenBytes: number): void {
    const at = gpa(statusAt)
    if (!this.#dma.point(this.#status, at, 1)) throw new Error('a checked buffer cannot be had')
    this.#status.window.putU8(BlkStatusByte.status, status, this.#status.base)
    if (this.#dma.log !== null) this.#dma.wrote(at, 1)
    queue.complete(chain, writtenBytes)
  }

  /** Without a write-back cache the driver can control, an answered write is durable. */
  #writesThrough(): boolean {
    if (!this.#backend.facts.volatileCache) return false
    return !hasFeature(this.#rules.features, BlkFeature.FLUSH.bit) || !this.#writeback
  }

  #abandon(io: BlkIo): void {
    io.abandoned = true
    this.#kept.delete(io)
    io.queue.abandon(io.chain)
    io.cancel()
  }

  /** A read that fails may have written any part of what it was lent, whatever its used length says. */
  #logLent(chain: Chain): void {
    for (let i = chain.readableCount; i < chain.count; i++) {
      this.#dma.wrote(gpa(chain.addresses[i] as number), chain.lengths[i] as number)
    }
  }

  #settleReset(): void {
    if (this.#resetDone === null || this.#kept.size > 0) return
    for (const queue of this.#queues) queue.discard()
    this.#rules.features = 0n
    this.#writeback = true
    this.#config = this.#makeConfig()
    const done = this.#resetDone
    this.#resetDone = null
    done()
  }

  /** A generation stands for one content: what changes nothing a driver can read is not announced. */
  #factsChanged(): void {
    const config = this.#makeConfig()
    if (config.every((byte, at) => byte === this.#config[at])) return
    this.#config = config
    this.configGeneration = (this.configGeneration + 1) % 0x1_0000_0000
    if (this.#platform.trace.on) {
      this.#platform.trace.emit({
        name: 'config',
        device: this.#platform.path,
        generation: this.configGeneration,
      })
    }
    this.#signals?.configChanged()
  }

  #makeConfig(): Uint8Array<ArrayBuffer> {
    return blkConfigBytes(this.#backend.facts, this.#limits, this.offered, this.#writeback)
  }

  #queue(index: number): DeviceQueue {
    const queue = this.#queues[index]
    if (queue === undefined) throw new Error(`block device has no queue ${index}`)
    return queue
  }

  #violated(
    rule: Violation['rule'],
    queue: DeviceQueue | null,
    at: number | null,
    seen: number,
    expected: number,
  ): void {
    this.#signals?.violated({ rule, side: 'driver', queue: queue?.index ?? null, at, seen, expected })
  }

  #traceRequest(chain: Chain): void {
    const { type, sector } = this.#parser
    const bytes = chain.readableBytes + chain.writableBytes
    this.#platform.trace.emit({
      name: 'block',
      device: this.#platform.path,
      id: chain.id,
      type,
      sector,
      bytes,
    })
  }
}

/** Where a request begins, for a report. Pooled chains keep the addresses of earlier ones. */
function firstOf(chain: Chain): number | null {
  return chain.count > 0 ? (chain.addresses[0] ?? null) : null
}
