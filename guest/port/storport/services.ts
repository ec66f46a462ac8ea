import type { Gpa } from '../../../protocol/memory.ts'
import { gpa } from '../../../protocol/memory.ts'
import type { AccessWidth } from '../../../protocol/platform.ts'
import type { Violation } from '../../../protocol/violation.ts'
import { BugCode, keBugCheckEx } from '../../kernel/bug-check.ts'
import type { KTimer } from '../../kernel/dispatcher-object.ts'
import type { KDpc } from '../../kernel/dpc.ts'
import { Irql } from '../../kernel/irql.ts'
import { KDPC, KTIMER } from '../../kernel/layout.ts'
import { PoolType, poolTag } from '../../kernel/pool.ts'
import type { PortResource, PortServices, ScatterGatherList } from '../miniport.ts'
import type { Srb } from '../srb.ts'
import type { Adapter } from './adapter.ts'
import { PortRequest } from './port-request.ts'

const TAG = poolTag('StSv')
const PAGE_BYTES = 4096

/** What a miniport may call: the port's routines, for one adapter. */
export class StorPortServices implements PortServices {
  readonly memory
  readonly #adapter: Adapter
  readonly #resources: readonly PortResource[]
  readonly #records: number
  readonly #timer: KTimer
  readonly #timerDpc: KDpc
  #timerWork: (() => void) | null
  #uncached: { readonly at: number; readonly lengthBytes: number } | null
  /** Registers and memory may be asked for in FindAdapter only. */
  finding: boolean
  /** Called when the miniport says that devices came or went, or that one changed its size. */
  busChanged: () => void
  unitChanged: (path: number, target: number, lun: number) => void

  /** The miniport asked for memory that there was none of. */
  memoryShort: boolean

  /** Null when memory is short. */
  static create(adapter: Adapter, resources: readonly PortResource[]): StorPortServices | null {
    const at = adapter.kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, KDPC.$size + KTIMER.$size, TAG)
    return at === 0 ? null : new StorPortServices(adapter, at, resources)
  }

  private constructor(adapter: Adapter, records: number, resources: readonly PortResource[]) {
    const { kernel } = adapter
    this.memoryShort = false
    this.#adapter = adapter
    this.#resources = resources
    this.memory = kernel.parts.memory.guest
    this.#timerWork = null
    this.#uncached = null
    this.finding = false
    this.busChanged = () => undefined
    this.unitChanged = () => undefined
    this.#records = records
    this.#timerDpc = kernel.keInitializeDpc(
      this.#records,
      kernel.routine(() => this.#timerDue()),
    )
    this.#timer = kernel.keInitializeTimer(this.#records + KDPC.$size)
  }

  /** Gives back what the miniport had; with requests left on loan its rings stay as well. */
  release(keepMemory: boolean): void {
    const { kernel } = this.#adapter
    kernel.keCancelTimer(this.#timer)
    kernel.keRemoveQueueDpc(this.#timerDpc)
    kernel.exFreePool(this.#records)
    if (this.#uncached !== null && !keepMemory) {
      kernel.mmFreeContiguousMemory(this.#uncached.at, this.#uncached.lengthBytes)
    }
    this.#uncached = null
  }

  now(): number {
    return this.#adapter.kernel.keQueryTimeUs()
  }

  getDeviceBase(start: Gpa, lengthBytes: number): Gpa | null {
    this.#onlyFinding('StorPortGetDeviceBase')
    const held = this.#resources.some(
      (one) =>
        one.kind === 'memory' &&
        start >= one.start &&
        lengthBytes <= one.lengthBytes &&
        start - one.start <= one.lengthBytes - lengthBytes,
    )
    return held ? start : null
  }

  getUncachedExtension(lengthBytes: number, alignment: number): Gpa | null {
    this.#onlyFinding('StorPortGetUncachedExtension')
    if (this.#uncached !== null) return null
    const at = this.#adapter.kernel.mmAllocateContiguousMemory(lengthBytes, Math.max(alignment, PAGE_BYTES))
    if (at === 0) {
      this.memoryShort = true
      return null
    }
    this.#uncached = { at, lengthBytes }
    return gpa(at)
  }

  readRegister(at: Gpa, width: AccessWidth): number {
    return this.#adapter.kernel.readRegister(at, width)
  }

  writeRegister(at: Gpa, width: AccessWidth, value: number): void {
    this.#adapter.kernel.writeRegister(at, width, value)
  }

  getScatterGatherList(srb: Srb): ScatterGatherList | null {
    const request = owned(srb)
    return request.listMade ? request.list : null
  }

  getSystemAddress(srb: Srb): Gpa | null {
    const request = owned(srb)
    return request.dataTransferLength === 0 ? null : this.#adapter.buffers.inRow(request)
  }

  requestComplete(srb: Srb): void {
    this.#adapter.requestComplete(owned(srb))
  }

  leaveOnLoan(srb: Srb): void {
    this.#adapter.leaveOnLoan(owned(srb))
  }

  requestTimer(us: number, work: () => void): void {
    const { kernel } = this.#adapter
    if (us === 0) {
      this.#timerWork = null
      kernel.keCancelTimer(this.#timer)
      return
    }
    this.#timerWork = work
    kernel.keSetTimer(this.#timer, us, 0, this.#timerDpc)
  }

  #timerDue(): void {
    const work = this.#timerWork
    this.#timerWork = null
    if (work !== null) this.#adapter.atDispatch(work)
  }

  issueDpc(): void {
    this.#adapter.issueDpc()
  }

  setDeviceQueueDepth(path: number, target: number, lun: number, depth: number): void {
    const unit = this.#adapter.unitAt(path, target, lun)
    if (unit !== undefined && depth >= 1) unit.depth = Math.min(depth, QUEUE_DEPTH_MAX)
  }

  pause(seconds: number): void {
    this.#adapter.pausedUntilUs = this.now() + seconds * 1_000_000
  }

  resume(): void {
    this.#adapter.pausedUntilUs = 0
    this.#adapter.issueDpc()
  }

  busChangeDetected(): void {
    this.busChanged()
  }

  capacityChanged(path: number, target: number, lun: number): void {
    this.unitChanged(path, target, lun)
  }

  logError(what: string): void {
    this.#adapter.log.push(what)
  }

  violated(violation: Violation): void {
    this.#adapter.violations.record(violation)
  }

  /** Windows stops a miniport that asks elsewhere (0xF1, parameter 0x2002). */
  #onlyFinding(routine: string): void {
    if (this.finding && this.#adapter.kernel.keGetCurrentIrql() === Irql.PASSIVE) return
    this.#adapter.log.push(`${routine} outside of FindAdapter`)
    keBugCheckEx(BugCode.SCSI_VERIFIER_DETECTED_VIOLATION, 0x2002)
  }
}

/** Requests a unit may have out at once without extended SRBs. */
const QUEUE_DEPTH_MAX = 255

function owned(srb: Srb): PortRequest {
  if (srb instanceof PortRequest) return srb
  throw new Error('an SRB of somebody else')
}
