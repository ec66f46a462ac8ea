import { gpa } from '../../protocol/memory.ts'
import { Asc, ScsiOp, SenseKey } from '../../protocol/scsi.ts'
import type { FeatureSet } from '../../protocol/version.ts'
import { hasFeature } from '../../protocol/version.ts'
import { BLK_ID_BYTES, BlkFeature, BlkSegment, BlkStatus, BlkType } from '../../protocol/virtio/blk.ts'
import type { VirtioVersion } from '../../protocol/virtio/features.ts'
import { CommonFeature, featuresOfVersion } from '../../protocol/virtio/features.ts'
import type {
  AdapterControl,
  FindAdapterResult,
  MakeMiniport,
  Miniport,
  PortConfiguration,
  PortServices,
} from '../port/miniport.ts'
import type { Srb } from '../port/srb.ts'
import { SrbFlag, SrbFunction, SrbStatus } from '../port/srb.ts'
import type { BlkDriverState } from './blk.ts'
import type { BlkEnd } from './blk-command.ts'
import { BlkHardware } from './blk-hardware.ts'
import type { TargetFacts, TargetPlan } from './scsi-target.ts'
import { ScsiTarget } from './scsi-target.ts'
import { answerData, answerSense, complete } from './srb-answer.ts'
import type { CommandOwner, SrbPurpose } from './srb-command.ts'
import { SrbCommand } from './srb-command.ts'

const SECTOR_BYTES = 512
const NOTHING: TargetFacts = {
  blocks: 0,
  blockBytes: SECTOR_BYTES,
  physicalExponent: 0,
  readOnly: false,
  writeCache: false,
  serial: '',
  unmapBlocksMax: 0,
  unmapRangesMax: 0,
}

/** What this driver knows of a version; packed rings and the rest are not its. */
export function miniportFeatures(version: VirtioVersion): FeatureSet {
  const known = [
    CommonFeature.INDIRECT_DESC,
    CommonFeature.EVENT_IDX,
    CommonFeature.VERSION_1,
    BlkFeature.SEG_MAX,
    BlkFeature.RO,
    BlkFeature.BLK_SIZE,
    BlkFeature.FLUSH,
    BlkFeature.TOPOLOGY,
    BlkFeature.DISCARD,
  ]
  const mask = known.reduce((set, { bit }) => set | (1n << BigInt(bit)), 0n)
  return mask & featuresOfVersion(version, BlkFeature)
}

/**
 * The miniport of a VIRTIO block device: SRBs in, block requests out. One bus, one target, one unit.
 *
 * The device is not trusted: a request ends with what the ring's checks let through, a device that does not
 * answer is reset, and one that does not finish its reset keeps the memory it was lent.
 */
export class BlkMiniport implements Miniport, CommandOwner {
  readonly name = 'pvblk'
  readonly #services: PortServices
  readonly #hardware: BlkHardware
  readonly #target: ScsiTarget
  readonly #idle: SrbCommand[]
  #features: FeatureSet
  #serial: string
  #serialAt: number
  #identified: boolean
  /** SRBs that asked for the reset that is under way. */
  #resetters: Srb[]
  /** Told to stop: no start follows a reset, and nobody waits for one. */
  #halted: boolean

  constructor(services: PortServices, version: VirtioVersion) {
    this.#services = services
    this.#hardware = new BlkHardware(services, miniportFeatures(version), (state) => this.#changed(state))
    this.#target = new ScsiTarget(NOTHING)
    this.#idle = []
    this.#features = 0n
    this.#serial = ''
    this.#serialAt = 0
    this.#identified = false
    this.#resetters = []
    this.#halted = false
  }

  findAdapter(configuration: PortConfiguration): FindAdapterResult {
    const found = this.#hardware.find(configuration)
    if (found !== 'found') return found
    const at = this.#services.getUncachedExtension(this.#hardware.memoryBytes + BLK_ID_BYTES, 4096)
    if (at === null) return 'error'
    this.#hardware.useMemory(at)
    this.#serialAt = at + this.#hardware.memoryBytes
    configuration.numberOfBuses = 1
    configuration.maximumNumberOfTargets = 1
    configuration.maximumNumberOfLogicalUnits = 1
    configuration.numberOfPhysicalBreaks = this.#hardware.segmentsMax
    configuration.maximumTransferLength = Math.max(1, this.#hardware.segmentsMax - 1) * 4096
    configuration.srbExtensionBytes = this.#hardware.discardRanges * BlkSegment.$size
    configuration.cachesData = this.#hardware.writeCache
    return 'found'
  }

  initialize(): boolean {
    this.#halted = false
    this.#hardware.start()
    return this.#hardware.state.kind !== 'failed'
  }

  buildIo(srb: Srb): boolean {
    if (srb.pathId !== 0) return this.#refuse(srb, SrbStatus.INVALID_PATH_ID)
    if (srb.targetId !== 0) return this.#refuse(srb, SrbStatus.INVALID_TARGET_ID)
    if (srb.lun !== 0) return this.#refuse(srb, SrbStatus.INVALID_LUN)
    return true
  }

  startIo(srb: Srb): boolean {
    switch (srb.function) {
      case SrbFunction.EXECUTE_SCSI:
        return this.#execute(srb)
      case SrbFunction.RESET_LOGICAL_UNIT:
      case SrbFunction.RESET_DEVICE:
      case SrbFunction.RESET_BUS:
        this.#reset(srb)
        return true
      case SrbFunction.FLUSH:
      case SrbFunction.SHUTDOWN:
        if (!this.#ready(srb)) return true
        if (this.#target.facts.writeCache) return this.#submit(srb, 'flush', BlkType.FLUSH, 0)
        complete(this.#services, srb, SrbStatus.SUCCESS)
        return true
      default:
        complete(this.#services, srb, SrbStatus.INVALID_REQUEST)
        return true
    }
  }

  interrupt(): boolean {
    if (!this.#hardware.acknowledge()) return false
    this.#services.issueDpc()
    return true
  }

  dpc(): void {
    this.#hardware.serve()
  }

  resetBus(path: number): boolean {
    if (path !== 0) return false
    this.#hardware.reset()
    return true
  }

  adapterControl(control: AdapterControl): boolean {
    if (control === 'restart-adapter') return this.initialize()
    this.#halted = true
    this.#hardware.stop()
    return true
  }

  /** A block request came back, or was given up with the device. */
  ended(command: SrbCommand, end: BlkEnd, writtenBytes: number): void {
    const { srb, purpose, flushAfter } = command
    command.srb = null
    this.#idle.push(command)
    if (purpose === 'identify') {
      this.#identifiedBy(end, writtenBytes)
      return
    }
    if (srb === null) throw new Error('a request ended that no SRB asked for')
    if (end.kind !== 'status') {
      // Memory that the device may still write is nobody else's any more.
      if (end.kind === 'lost') this.#services.leaveOnLoan(srb)
      complete(this.#services, srb, end.kind === 'lost' ? SrbStatus.NO_HBA : SrbStatus.BUS_RESET)
      return
    }
    this.#hardware.worked()
    if (end.status === BlkStatus.OK) this.#succeeded(srb, purpose, flushAfter, writtenBytes)
    else this.#failed(srb, purpose, end.status)
  }

  #succeeded(srb: Srb, purpose: SrbPurpose, flushAfter: boolean, writtenBytes: number): void {
    if (flushAfter) {
      if (!this.#submit(srb, 'flush', BlkType.FLUSH, 0)) complete(this.#services, srb, SrbStatus.BUSY)
      return
    }
    const { blockBytes } = this.#target.facts
    const asked = srb.dataTransferLength
    if (purpose === 'read' && writtenBytes < asked) {
      // Bytes that the device does not say it wrote are not shown to anybody.
      srb.dataTransferLength = writtenBytes - (writtenBytes % blockBytes)
      complete(this.#services, srb, SrbStatus.DATA_OVERRUN)
      return
    }
    complete(this.#services, srb, SrbStatus.SUCCESS)
  }

  #failed(srb: Srb, purpose: SrbPurpose, status: number): void {
    if (status === BlkStatus.UNSUPP) {
      answerSense(this.#services, srb, SenseKey.ILLEGAL_REQUEST, Asc.INVALID_OPERATION_CODE)
    } else if (status === BlkStatus.IOERR) {
      const asc = purpose === 'read' ? Asc.UNRECOVERED_READ_ERROR : Asc.WRITE_ERROR
      answerSense(this.#services, srb, SenseKey.MEDIUM_ERROR, asc)
    } else {
      answerSense(this.#services, srb, SenseKey.HARDWARE_ERROR, Asc.INTERNAL_TARGET_FAILURE)
    }
  }

  /** Answered when the device is ready again, or given up. */
  #reset(srb: Srb): void {
    const { kind } = this.#hardware.state
    if (kind === 'failed' || kind === 'stopped') {
      complete(this.#services, srb, SrbStatus.NO_HBA)
      return
    }
    this.#resetters.push(srb)
    this.#hardware.reset()
  }

  #execute(srb: Srb): boolean {
    if (!this.#ready(srb)) return true
    const plan = this.#target.plan(srb.window, srb.cdbBase, srb.cdbLength)
    switch (plan.kind) {
      case 'ready':
        srb.dataTransferLength = 0
        complete(this.#services, srb, SrbStatus.SUCCESS)
        return true
      case 'data':
        // Not before: the port has no unit to remember it for.
        if (srb.window.view.getUint8(srb.cdbBase) === ScsiOp.INQUIRY) {
          this.#services.setDeviceQueueDepth(0, 0, 0, this.#hardware.depth)
        }
        answerData(this.#services, srb, plan.bytes)
        return true
      case 'sense':
        answerSense(this.#services, srb, plan.key, plan.asc)
        return true
      case 'flush':
        return this.#submit(srb, 'flush', BlkType.FLUSH, 0)
      case 'unmap':
        return this.#unmap(srb)
      case 'transfer':
        return this.#transfer(srb, plan)
      default:
        return plan satisfies never
    }
  }

  #transfer(srb: Srb, plan: TargetPlan & { kind: 'transfer' }): boolean {
    const { blockBytes, writeCache } = this.#target.facts
    const bytes = plan.blocks * blockBytes
    const direction = plan.write ? SrbFlag.DATA_OUT : SrbFlag.DATA_IN
    // The command and the buffer come from different hands: a command longer than its buffer writes beyond.
    if (srb.dataTransferLength !== bytes || (srb.srbFlags & direction) === 0) {
      complete(this.#services, srb, SrbStatus.INVALID_REQUEST)
      return true
    }
    const sector = plan.lba * (blockBytes / SECTOR_BYTES)
    const type = plan.write ? BlkType.OUT : BlkType.IN
    const command = this.#take(srb, plan.write ? 'write' : 'read', type, sector)
    command.flushAfter = plan.write && plan.fua && writeCache
    const list = this.#services.getScatterGatherList(srb)
    let total = 0
    for (let i = 0; list !== null && i < list.count; i++) {
      const at = list.addresses[i] ?? gpa(0)
      const length = list.lengths[i] ?? 0
      total += length
      if (plan.write) command.data.readable(at, length)
      else command.data.writable(at, length)
    }
    if (total !== bytes || command.data.count > this.#hardware.segmentsMax) {
      this.#giveBack(command)
      complete(this.#services, srb, SrbStatus.INVALID_REQUEST)
      return true
    }
    return this.#send(command)
  }

  #unmap(srb: Srb): boolean {
    const at = this.#services.getSystemAddress(srb)
    const list = at === null ? null : this.#services.memory.window(at, srb.dataTransferLength, 1)
    const ranges = list === null ? [] : this.#target.unmapRanges(list)
    if (!Array.isArray(ranges)) {
      const refused = ranges as TargetPlan & { kind: 'sense' }
      answerSense(this.#services, srb, refused.key, refused.asc)
      return true
    }
    if (ranges.length === 0) {
      complete(this.#services, srb, SrbStatus.SUCCESS)
      return true
    }
    const bytes = ranges.length * BlkSegment.$size
    const extension = srb.srbExtension
    const window = this.#services.memory.window(extension, bytes, 1)
    if (window === null) throw new Error('the extension of a request is not memory')
    const sectors = this.#target.facts.blockBytes / SECTOR_BYTES
    for (const [index, range] of ranges.entries()) {
      const base = index * BlkSegment.$size
      window.putLe64(BlkSegment.sector, range.lba * sectors, base)
      window.putLe32(BlkSegment.num_sectors, range.blocks * sectors, base)
      window.putLe32(BlkSegment.flags, 0, base)
    }
    const command = this.#take(srb, 'unmap', BlkType.DISCARD, 0)
    command.data.readable(extension, bytes)
    return this.#send(command)
  }

  #submit(srb: Srb, purpose: SrbPurpose, type: number, sector: number): boolean {
    return this.#send(this.#take(srb, purpose, type, sector))
  }

  #take(srb: Srb | null, purpose: SrbPurpose, type: number, sector: number): SrbCommand {
    const command = this.#idle.pop() ?? new SrbCommand(this)
    command.srb = srb
    command.purpose = purpose
    command.flushAfter = false
    command.type = type
    command.sector = sector
    command.data.clear()
    return command
  }

  #giveBack(command: SrbCommand): void {
    command.srb = null
    this.#idle.push(command)
  }

  /** False when the ring is full: the port tries again. */
  #send(command: SrbCommand): boolean {
    if (this.#hardware.submit(command)) return true
    this.#giveBack(command)
    return false
  }

  /** Answers a request that has to wait, or cannot be served any more. */
  #ready(srb: Srb): boolean {
    if (this.#identified && this.#hardware.state.kind === 'ready') return true
    const dead = this.#hardware.state.kind === 'failed'
    complete(this.#services, srb, dead ? SrbStatus.NO_HBA : SrbStatus.BUSY)
    return false
  }

  #refuse(srb: Srb, status: number): false {
    complete(this.#services, srb, status)
    return false
  }

  #changed(state: BlkDriverState): void {
    if (state.kind === 'ready') {
      this.#features = state.features
      const before = this.#target.facts
      const facts = this.#factsOf()
      this.#target.facts = facts
      const resized = before.blocks !== facts.blocks || before.blockBytes !== facts.blockBytes
      if (this.#identified && resized) {
        this.#target.capacityChanged()
        this.#services.capacityChanged(0, 0, 0)
      }
      if (!this.#identified) this.#identify()
    }
    // A device that was stopped for good has been reset as well.
    if (state.kind === 'ready' || state.kind === 'failed' || (state.kind === 'stopped' && this.#halted)) {
      const resetters = this.#resetters
      this.#resetters = []
      const status = state.kind === 'failed' ? SrbStatus.NO_HBA : SrbStatus.SUCCESS
      for (const srb of resetters) complete(this.#services, srb, status)
    }
  }

  /** Asks for the serial number, once: INQUIRY waits for it. */
  #identify(): void {
    const command = this.#take(null, 'identify', BlkType.GET_ID, 0)
    command.data.writable(gpa(this.#serialAt), BLK_ID_BYTES)
    if (!this.#hardware.submit(command)) throw new Error('an empty ring has no room')
  }

  #identifiedBy(end: BlkEnd, writtenBytes: number): void {
    if (end.kind === 'status') {
      this.#identified = true
      if (end.status === BlkStatus.OK) this.#serial = this.#readSerial(Math.min(writtenBytes, BLK_ID_BYTES))
      this.#target.facts = this.#factsOf()
    }
  }

  /** What the device says it wrote, and printable ASCII alone: what the device says goes into names that people and programs read. */
  #readSerial(writtenBytes: number): string {
    const window = this.#services.memory.window(gpa(this.#serialAt), BLK_ID_BYTES, 1)
    if (window === null) throw new Error('memory of our own cannot be had')
    const bytes = new Uint8Array(BLK_ID_BYTES)
    window.copyOut(0, bytes)
    const end = bytes.indexOf(0)
    const text = String.fromCharCode(
      ...bytes.subarray(0, end < 0 ? writtenBytes : Math.min(end, writtenBytes)),
    )
    return text.replace(/[^\x21-\x7e]/g, '').slice(0, BLK_ID_BYTES)
  }

  #factsOf(): TargetFacts {
    const { state } = this.#hardware
    if (state.kind !== 'ready') return this.#target.facts
    const { geometry } = state
    const sectors = geometry.blockBytes / SECTOR_BYTES
    const discards = hasFeature(this.#features, BlkFeature.DISCARD.bit)
    return {
      blocks: Math.floor(geometry.capacitySectors / sectors),
      blockBytes: geometry.blockBytes,
      physicalExponent: geometry.physicalExponent,
      readOnly: hasFeature(this.#features, BlkFeature.RO.bit),
      writeCache: hasFeature(this.#features, BlkFeature.FLUSH.bit),
      serial: this.#serial,
      unmapBlocksMax: discards ? Math.floor(geometry.discardSectorsMax / sectors) : 0,
      unmapRangesMax: discards ? this.#hardware.discardRanges : 0,
    }
  }
}

/** DriverEntry, for a driver that knows VIRTIO up to `version`. */
export function blkMiniport(version: VirtioVersion): MakeMiniport {
  return (services) => new BlkMiniport(services, version)
}
