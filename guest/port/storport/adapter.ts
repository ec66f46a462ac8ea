import { gpa } from '../../../protocol/memory.ts'
import { ScsiStatus } from '../../../protocol/scsi.ts'
import { ViolationLog } from '../../../protocol/violation.ts'
import type { KTimer } from '../../kernel/dispatcher-object.ts'
import type { KDpc } from '../../kernel/dpc.ts'
import type { Irp } from '../../kernel/irp.ts'
import { Irql } from '../../kernel/irql.ts'
import type { Kernel } from '../../kernel/kernel.ts'
import { KDPC, KTIMER } from '../../kernel/layout.ts'
import { NtStatus } from '../../kernel/nt-status.ts'
import { PoolType, poolTag } from '../../kernel/pool.ts'
import { NO_ROUTINE } from '../../kernel/routine.ts'
import type { Miniport } from '../miniport.ts'
import { Srb, SrbFlag, SrbStatus, SrbStatusBit } from '../srb.ts'
import type { LogicalUnit } from './logical-unit.ts'
import { freshCounts, type PortCounts } from './port-counts.ts'
import type { PortRequest } from './port-request.ts'
import { portStatus } from './port-status.ts'
import { RequestBuffer } from './request-buffer.ts'
import { RequestPool } from './request-pool.ts'
import { WATCHDOG_BYTES, Watchdog } from './watchdog.ts'

const TAG = poolTag('Stor')
/** One block: the StartIo lock, the adapter's two DPCs and its timer, and what the watchdog waits with. */
const DPC_AT = 16
const TIMER_AT = DPC_AT + 2 * KDPC.$size
const WATCHDOG_AT = TIMER_AT + KTIMER.$size
const RECORD_BYTES = WATCHDOG_AT + WATCHDOG_BYTES
/** A busy unit is tried again after this. */
const BUSY_RETRY_US = 10_000
const DEFAULT_TIMEOUT_SECONDS = 10

/**
 * The port's half of an adapter: takes SRBs from units' queues to the miniport and back. StartIo, completions
 * and timers run at DISPATCH level under the adapter's StartIo lock or its DPC; the miniport's service routine
 * at the interrupt's.
 */
export class Adapter {
  readonly kernel: Kernel
  readonly units: LogicalUnit[]
  readonly counts: PortCounts
  /** Rules that the device broke. */
  readonly violations: ViolationLog
  readonly log: string[]
  readonly buffers: RequestBuffer
  readonly requests: RequestPool
  readonly #watchdog: Watchdog
  readonly #lock: number
  readonly #dpc: KDpc
  readonly #retryTimer: KTimer
  readonly #retryDpc: KDpc
  readonly #cancelQueued
  readonly #completed: PortRequest[]
  readonly #records: number
  /** For SRBs that no request could be made for. */
  readonly #shortSrb: Srb
  miniport: Miniport | null
  /** Requests are turned away: the device is gone, or was given up. */
  gone: boolean
  /** PAUSE: nothing goes out until then. */
  pausedUntilUs: number
  #draining: boolean
  #serving: boolean

  /** Null when memory is short. */
  static create(kernel: Kernel): Adapter | null {
    const records = kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, RECORD_BYTES, TAG)
    return records === 0 ? null : new Adapter(kernel, records)
  }

  private constructor(kernel: Kernel, records: number) {
    this.kernel = kernel
    this.units = []
    this.counts = freshCounts()
    this.violations = new ViolationLog()
    this.log = []
    this.buffers = new RequestBuffer(kernel, this.counts)
    this.requests = new RequestPool(kernel)
    this.#completed = []
    this.#shortSrb = new Srb()
    this.miniport = null
    this.gone = false
    this.pausedUntilUs = 0
    this.#draining = false
    this.#serving = false
    this.#records = records
    this.#lock = records
    kernel.keInitializeSpinLock(this.#lock)
    const dpcs = records + DPC_AT
    const deferred = kernel.routine(() => this.#deferred())
    const retry = kernel.routine(() => this.pump())
    this.#dpc = kernel.keInitializeDpc(dpcs, deferred)
    this.#retryDpc = kernel.keInitializeDpc(dpcs + KDPC.$size, retry)
    this.#retryTimer = kernel.keInitializeTimer(records + TIMER_AT)
    this.#cancelQueued = kernel.routine((_device: unknown, irp: Irp) => this.#cancelled(irp))
    this.#watchdog = new Watchdog(this, records + WATCHDOG_AT)
  }

  /** Gives the adapter's memory back; nothing may be out. */
  release(): void {
    const { kernel } = this
    this.#watchdog.release()
    kernel.keCancelTimer(this.#retryTimer)
    this.requests.release()
    kernel.exFreePool(this.#records)
  }

  /** Requests the miniport has, of every unit. */
  get outCount(): number {
    return this.units.reduce((count, unit) => count + unit.out.size, 0)
  }

  unitAt(path: number, target: number, lun: number): LogicalUnit | undefined {
    return this.units.find((unit) => unit.path === path && unit.target === target && unit.lun === lun)
  }

  // From above.

  /** Takes a request whose IRP is marked pending already. At DISPATCH level or below. */
  submit(unit: LogicalUnit, irp: Irp): void {
    const request = this.requests.take(unit, irp)
    const { guest } = this.kernel.parts.memory
    if (request === null) {
      if (this.#shortSrb.point(guest, gpa(irp.current.srb))) this.#shortSrb.failShort()
      this.#refuse(irp, NtStatus.INSUFFICIENT_RESOURCES)
    } else if (!request.point(guest, gpa(irp.current.srb))) {
      this.requests.give(request)
      this.#refuse(irp, NtStatus.INVALID_PARAMETER)
    } else this.#enqueue(request)
  }

  #refuse(irp: Irp, status: NtStatus): void {
    irp.status = status
    irp.information = 0
    this.kernel.ioCompleteRequest(irp)
  }

  /** Takes a request of the port's own. False when memory is short: `ended` will not hear of it. */
  submitOwn(unit: LogicalUnit, srbAt: number, ended: (request: PortRequest) => void): boolean {
    const request = this.requests.take(unit, null)
    if (request === null) return false
    request.ended = ended
    if (!request.point(this.kernel.parts.memory.guest, gpa(srbAt))) throw new Error('an SRB outside memory')
    this.#enqueue(request)
    return true
  }

  #enqueue(request: PortRequest): void {
    const { unit, irp } = request
    if (unit === null) throw new Error('a request without a unit')
    request.askedBytes = request.dataTransferLength
    request.srbStatus = SrbStatus.PENDING
    if (this.gone || !unit.present) {
      this.#turnAway(request, SrbStatus.NO_DEVICE)
      return
    }
    if (unit.waitingCount === 0 && this.#mayStart(unit, request) && !this.#serving) {
      this.#startOne(unit, request)
      this.#drain()
      return
    }
    request.state = 'queued'
    unit.append(request)
    if (irp !== null) this.#makeCancellable(request, irp)
    this.pump()
  }

  #makeCancellable(request: PortRequest, irp: Irp): void {
    const { kernel } = this
    kernel.ioSetCancelRoutine(irp, this.#cancelQueued)
    if (irp.cancel && kernel.ioSetCancelRoutine(irp, NO_ROUTINE) !== 0) {
      request.unit?.remove(request)
      this.#turnAway(request, SrbStatus.ABORTED)
    }
  }

  /** The cancel routine of a request that waits; entered with the cancel lock held. */
  #cancelled(irp: Irp): void {
    const { kernel } = this
    const request = this.requests.queuedOf(irp)
    const waiting = request?.unit?.remove(request) === true
    kernel.ioReleaseCancelSpinLock(irp.cancelIrql)
    if (request === undefined || !waiting) return
    request.srbStatus = SrbStatus.ABORTED
    this.requests.give(request)
    irp.status = NtStatus.CANCELLED
    irp.information = 0
    kernel.ioCompleteRequest(irp)
  }

  // To the miniport.

  #mayStart(unit: LogicalUnit, request: PortRequest): boolean {
    // Stopped: requests wait for the next start.
    if (this.miniport === null) return false
    const now = this.kernel.keQueryTimeUs()
    const { srbFlags } = request
    if (unit.frozen && (srbFlags & SrbFlag.BYPASS_FROZEN_QUEUE) === 0) return false
    if (unit.locked && (srbFlags & SrbFlag.BYPASS_LOCKED_QUEUE) === 0) return false
    if (!request.isReset && unit.out.size >= unit.depth) return false
    return now >= unit.heldUntilUs && now >= this.pausedUntilUs
  }

  /** Lets out what may go, and ends what came back. At DISPATCH level or below. */
  pump(): void {
    const { kernel } = this
    if (this.#serving) return
    const before = kernel.keGetCurrentIrql()
    if (before < Irql.DISPATCH) kernel.keRaiseIrql(Irql.DISPATCH)
    this.#startAll()
    this.#drain()
    if (before < Irql.DISPATCH) kernel.keLowerIrql(before)
  }

  #startAll(): void {
    for (const unit of this.units) {
      for (;;) {
        const request = unit.next((one) => this.#mayStart(unit, one))
        if (request === null) break
        const { irp } = request
        // A request whose cancel routine is gone already is being cancelled: it is that routine's.
        if (irp !== null && this.kernel.ioSetCancelRoutine(irp, NO_ROUTINE) === 0) continue
        this.#startOne(unit, request)
      }
    }
    this.#armRetry()
  }

  #startOne(unit: LogicalUnit, request: PortRequest): void {
    const { kernel, miniport } = this
    if (miniport === null) throw new Error('an adapter without its miniport')
    const seconds = request.timeOutValue === 0 ? DEFAULT_TIMEOUT_SECONDS : request.timeOutValue
    request.state = 'out'
    request.deadlineUs = kernel.keQueryTimeUs() + seconds * 1_000_000
    if (request.busyUntilUs === 0) request.busyUntilUs = request.deadlineUs
    request.srbExtension = request.extension
    unit.out.add(request)
    this.#watchdog.watch()
    if (request.dataTransferLength > 0 && !this.buffers.pieces(request)) {
      request.srbStatus = SrbStatus.INVALID_REQUEST
      this.requestComplete(request)
      return
    }
    const serving = this.#serving
    this.#serving = true
    const before = kernel.keAcquireSpinLock(this.#lock)
    const started = !miniport.buildIo(request) || miniport.startIo(request)
    kernel.keReleaseSpinLock(this.#lock, before)
    this.#serving = serving
    if (!started && request.state === 'out') this.#tryLater(unit, request)
  }

  /** Not taken, or busy: the same request again, as it was, while its time lasts. */
  #tryLater(unit: LogicalUnit, request: PortRequest): void {
    unit.out.delete(request)
    this.counts.busyRetries++
    if (this.gone) {
      this.#turnAway(request, SrbStatus.NO_DEVICE)
      return
    }
    const now = this.kernel.keQueryTimeUs()
    if (!(now < request.busyUntilUs)) {
      // A device that never has room would keep it for ever: whoever sent it hears how things are.
      this.#turnAway(request, SrbStatus.BUSY)
      return
    }
    request.state = 'queued'
    request.dataTransferLength = request.askedBytes
    request.srbStatus = SrbStatus.PENDING
    unit.heldUntilUs = now + BUSY_RETRY_US
    unit.prepend(request)
    if (request.irp !== null) this.#makeCancellable(request, request.irp)
    this.#armRetry()
  }

  /** The next time at which something that is held back may go. */
  #armRetry(): void {
    const now = this.kernel.keQueryTimeUs()
    let due = Number.POSITIVE_INFINITY
    for (const unit of this.units) {
      if (unit.waitingCount === 0) continue
      const at = Math.max(unit.heldUntilUs, this.pausedUntilUs)
      if (at > now) due = Math.min(due, at)
    }
    if (due < Number.POSITIVE_INFINITY) this.kernel.keSetTimer(this.#retryTimer, due - now, 0, this.#retryDpc)
  }

  // From the miniport.

  /** The one end of a request; in the middle of anything the miniport does. */
  requestComplete(request: PortRequest): void {
    if (request.state === 'orphaned') {
      // Its IRP ended long ago: nothing is left to tell, and its memory stays where it is.
      request.state = 'free'
      return
    }
    if (request.state !== 'out') {
      this.counts.strayCompletions++
      this.log.push(`the miniport ended a request that was ${request.state}`)
      return
    }
    request.state = 'returned'
    this.#completed.push(request)
    if (!this.#serving && !this.#draining) this.kernel.keInsertQueueDpc(this.#dpc)
  }

  issueDpc(): void {
    this.kernel.keInsertQueueDpc(this.#dpc)
  }

  /** The adapter's DPC: the miniport's first, then what came back of it. */
  #deferred(): void {
    const serving = this.#serving
    this.#serving = true
    this.miniport?.dpc()
    this.#serving = serving
    this.#drain()
  }

  /** Runs something of the miniport's at DISPATCH level, and ends what comes back of it. */
  atDispatch(work: () => void): void {
    const { kernel } = this
    const before = kernel.keGetCurrentIrql()
    if (before < Irql.DISPATCH) kernel.keRaiseIrql(Irql.DISPATCH)
    const serving = this.#serving
    this.#serving = true
    work()
    this.#serving = serving
    this.#drain()
    if (before < Irql.DISPATCH) kernel.keLowerIrql(before)
  }

  #drain(): void {
    if (this.#draining || this.#serving) return
    this.#draining = true
    for (;;) {
      const request = this.#completed.shift()
      if (request !== undefined) this.#finish(request)
      else {
        this.#startAll()
        if (this.#completed.length === 0) break
      }
    }
    this.#draining = false
  }

  #finish(request: PortRequest): void {
    const { unit } = request
    if (unit === null) return
    if (request.status === SrbStatus.BUSY || request.scsiStatus === ScsiStatus.TASK_SET_FULL) {
      request.scsiStatus = 0
      this.#tryLater(unit, request)
      return
    }
    unit.out.delete(request)
    if (request.memoryShort) request.failShort()
    if (this.gone) request.srbStatus = SrbStatus.NO_DEVICE
    this.#freeze(unit, request)
    this.#end(request)
  }

  #freeze(unit: LogicalUnit, request: PortRequest): void {
    const { status, srbFlags } = request
    const failed = status !== SrbStatus.SUCCESS && status !== SrbStatus.DATA_OVERRUN
    if (!failed || this.gone || (srbFlags & SrbFlag.NO_QUEUE_FREEZE) !== 0 || request.irp === null) return
    unit.frozen = true
    request.srbStatus |= SrbStatusBit.QUEUE_FROZEN
  }

  /** Ends a request that never went out, or not any more. */
  #turnAway(request: PortRequest, srbStatus: number): void {
    request.srbStatus = srbStatus
    request.dataTransferLength = 0
    this.#end(request)
  }

  #end(request: PortRequest): void {
    const { irp, ended } = request
    this.counts.completed++
    this.buffers.release(request)
    const status = request.status === SrbStatus.ABORTED ? NtStatus.CANCELLED : portStatus(request.srbStatus)
    const information = request.dataTransferLength
    if (irp === null) {
      request.state = 'free'
      ended?.(request)
      this.requests.give(request)
      return
    }
    this.requests.give(request)
    irp.status = status
    irp.information = information
    this.kernel.ioCompleteRequest(irp)
  }

  // Trouble.

  /** Ends what waits at a unit, or at all of them. */
  flush(srbStatus: number, only: LogicalUnit | null = null): void {
    for (const unit of this.units) {
      if (only !== null && unit !== only) continue
      for (const request of unit.drain()) {
        const { irp } = request
        if (irp !== null && this.kernel.ioSetCancelRoutine(irp, NO_ROUTINE) === 0) continue
        this.#turnAway(request, srbStatus)
      }
    }
  }

  /** Gives up a request that the miniport has: its IRP ends, its memory stays on loan for ever. */
  orphan(request: PortRequest, srbStatus: number): void {
    const { irp, unit, ended } = request
    unit?.out.delete(request)
    this.counts.orphans++
    this.leaveOnLoan(request)
    request.srbStatus = srbStatus
    request.dataTransferLength = 0
    request.state = 'orphaned'
    request.irp = null
    request.unit = null
    request.ended = null
    if (irp === null) {
      ended?.(request)
      return
    }
    irp.status = portStatus(srbStatus)
    irp.information = 0
    this.kernel.ioCompleteRequest(irp)
  }

  /** Gives up everything the miniport still has: it is not coming back. */
  giveUp(): void {
    for (const unit of this.units)
      for (const request of [...unit.out]) this.orphan(request, SrbStatus.NO_DEVICE)
  }

  leaveOnLoan(request: PortRequest): void {
    if (request.onLoan) return
    this.counts.pagesOnLoan += this.buffers.leave(request)
  }

  /** The device is gone: nothing goes out any more, and what waits ends. */
  setGone(): void {
    if (this.gone) return
    this.gone = true
    this.flush(SrbStatus.NO_DEVICE)
  }
}
