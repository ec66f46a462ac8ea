import { BlkDriver, type BlkDriverState } from '../guest/virtio/blk.ts'
import { MmioDriverTransport } from '../guest/virtio/mmio.ts'
import type { DiskBackend } from '../host/disk/backend.ts'
import { OverlayDisk } from '../host/disk/overlay.ts'
import { openDisk, readDiskSpec } from '../host/disk/registry.ts'
import { BlkDevice } from '../host/virtio/blk.ts'
import { BLK_LIMITS } from '../host/virtio/blk-config.ts'
import { MmioTransport } from '../host/virtio/mmio.ts'
import { DmaSpace } from '../protocol/dma.ts'
import { gpa } from '../protocol/memory.ts'
import type { HostPlatform } from '../protocol/platform.ts'
import { ViolationLog } from '../protocol/violation.ts'
import { BlkFeature } from '../protocol/virtio/blk.ts'
import { featuresOfVersion, type VirtioVersion } from '../protocol/virtio/features.ts'
import type { RegisterBus } from './bus.ts'
import { ContentModel } from './content-model.ts'
import { BadDescription, type CheckedDescription, type CheckedDisk } from './description.ts'
import type { BareGuest } from './guest.ts'
import { imageFileOf } from './image-file.ts'
import { LevelLine } from './interrupt-line.ts'
import { ModuleGuard } from './module-guard.ts'
import { ProblemList, typeName } from './problem.ts'
import { RegisterCounter } from './register-counter.ts'

/** Registers of disk N begin here plus N pages: above any memory a description can ask for. */
const REGISTERS = 0xd000_0000
const REGISTERS_APART = 0x1000

export interface BenchDiskSetup {
  readonly guest: BareGuest
  readonly bus: RegisterBus
  readonly platform: HostPlatform
  readonly index: number
  readonly disk: CheckedDisk
  readonly description: CheckedDescription
}

/** One disk of a bench, all the way: backend, device model, transport, line, driver. */
export class BenchDisk {
  readonly name: string
  readonly spec: string
  readonly write: boolean
  readonly driver: BlkDriver
  readonly device: BlkDevice
  /** What the spec names. */
  readonly source: DiskBackend
  /** What the device stands on: the source, or an overlay over it. */
  readonly backend: DiskBackend
  readonly registers: RegisterCounter
  readonly line: LevelLine
  readonly violations: ViolationLog
  readonly problems: ProblemList
  /** What was written to the disk since the bench was made, by whomever. */
  readonly model: ContentModel
  /** Bytes of the disk that its image file does not have. */
  readonly paddedBytes: number

  constructor(setup: BenchDiskSetup, source: DiskBackend, problems: ProblemList) {
    const { guest, bus, platform, index, disk, description } = setup
    const violated = this.#record.bind(this)
    this.name = platform.path
    this.spec = disk.spec
    this.write = disk.write
    this.source = source
    this.backend = disk.write ? source : new OverlayDisk(source)
    const ownBytes = imageFileOf(disk.spec)?.lengthBytes ?? null
    this.paddedBytes = ownBytes === null ? 0 : Math.max(0, source.facts.lengthBytes - ownBytes)
    this.violations = new ViolationLog()
    this.problems = problems
    this.model = new ContentModel(source.facts.blockBytes)
    this.line = new LevelLine(guest.clock)
    this.device = new BlkDevice({
      platform,
      dma: new DmaSpace(guest.memory),
      backend: this.backend,
      version: description.virtio,
      limits: { ...BLK_LIMITS, queueSize: description.queueSize },
    })
    const mmio = new MmioTransport({ platform, device: this.device, line: this.line, violated })
    this.registers = new RegisterCounter(mmio)
    const at = gpa(REGISTERS + index * REGISTERS_APART)
    bus.claim(at, mmio.rangeBytes, this.registers)
    this.driver = new BlkDriver({
      platform: guest,
      transport: new MmioDriverTransport(guest, at),
      line: guest.addLine(this.line),
      features: knownFeatures(description.virtio),
      queueSize: description.queueSize,
      violated,
    })
  }

  /** Requests that reached the device, by the specification's name of their type. */
  get requests(): { readonly [type: string]: number } {
    const counts = [...this.device.counts].sort(([a], [b]) => a - b)
    return Object.fromEntries(counts.map(([type, count]) => [typeName(type), count]))
  }

  start(started: (state: BlkDriverState) => void): void {
    this.driver.start(started)
  }

  /** Resets the device, so that nothing of guest memory is on loan any more, and closes what stands behind. */
  close(closed: () => void): void {
    if (this.driver.state.kind === 'stopped') this.backend.close(closed)
    else this.driver.stop(() => this.backend.close(closed))
  }

  #record(violation: Parameters<ViolationLog['record']>[0]): void {
    this.violations.record(violation)
  }
}

/**
 * Opens what stands behind a disk and builds the rest of it.
 *
 * @throws BadDescription when it cannot be opened, in the backend's own line.
 */
export async function openBenchDisk(setup: BenchDiskSetup): Promise<BenchDisk> {
  const { disk, platform } = setup
  const problems = new ProblemList(platform.path)
  const opened = await openDisk(disk.spec, platform)
  if (!opened.ok) throw new BadDescription(`${platform.path}: ${opened.error}`)
  let source = opened.value
  if (source.facts.lengthBytes === 0 || !source.facts.medium) {
    const empty = source
    await new Promise<void>((resolve) => empty.close(resolve))
    throw new BadDescription(
      `${platform.path}: ${JSON.stringify(disk.spec)} is empty: there is nothing to read`,
    )
  }
  if (hasModule(disk.spec)) {
    source = new ModuleGuard(source, (error) => {
      problems.add('module-threw', null, `the module threw ${lineOf(error)}`)
    })
  }
  return new BenchDisk(setup, source, problems)
}

function hasModule(spec: string): boolean {
  const read = readDiskSpec(spec)
  return read.ok && read.value.layers.some((layer) => layer.kind === 'module')
}

function lineOf(error: unknown): string {
  return String(error).replace(/\s+/g, ' ').trim()
}

/** What the driver knows: everything its version defines, but for queues it does not use. */
function knownFeatures(version: VirtioVersion): bigint {
  return featuresOfVersion(version, BlkFeature) & ~(1n << BigInt(BlkFeature.MQ.bit))
}
