import type { KTimer } from '../../kernel/dispatcher-object.ts'
import type { KDpc } from '../../kernel/dpc.ts'
import { KDPC, KTIMER } from '../../kernel/layout.ts'
import { PoolType, poolTag } from '../../kernel/pool.ts'
import { ScsiRequestBlock, SrbFlag, SrbFunction, SrbStatus } from '../srb.ts'
import type { Adapter } from './adapter.ts'
import type { LogicalUnit } from './logical-unit.ts'
import type { PortRequest } from './port-request.ts'

const TAG = poolTag('StWd')
/** What a watchdog waits with. */
export const WATCHDOG_BYTES = KDPC.$size + KTIMER.$size
const TICK_US = 1_000_000
/** What each step of an escalation is given before the next. */
const STEP_SECONDS = 10

/** How far a unit's trouble has gone: each step does more than the one before. */
const STEPS = ['logical-unit', 'device', 'bus', 'give-up'] as const
type Step = (typeof STEPS)[number]

interface Escalation {
  step: number
  /** The next step is due then, if anything that was out of time still is out. */
  dueUs: number
  /**
   * What was out of time when it began, with the deadline it had: requests that went out since have time of
   * their own, also where the port's record of an earlier one serves again.
   */
  readonly late: Map<PortRequest, number>
}

/**
 * Looks once a second at what is out. A request that is out of time has its unit reset, then its target, then
 * its bus; what is out even then is given up, and its memory left to the device.
 */
export class Watchdog {
  readonly #adapter: Adapter
  readonly #timer: KTimer
  readonly #dpc: KDpc
  readonly #escalations: Map<LogicalUnit, Escalation>
  #armed: boolean

  /** @param at room for `WATCHDOG_BYTES`. */
  constructor(adapter: Adapter, at: number) {
    const { kernel } = adapter
    this.#adapter = adapter
    this.#escalations = new Map()
    this.#armed = false
    this.#dpc = kernel.keInitializeDpc(
      at,
      kernel.routine(() => this.#tick()),
    )
    this.#timer = kernel.keInitializeTimer(at + KDPC.$size)
  }

  release(): void {
    const { kernel } = this.#adapter
    kernel.keCancelTimer(this.#timer)
    kernel.keRemoveQueueDpc(this.#dpc)
  }

  /** Something went out. */
  watch(): void {
    if (this.#armed) return
    this.#armed = true
    this.#adapter.kernel.keSetTimer(this.#timer, TICK_US, 0, this.#dpc)
  }

  #tick(): void {
    this.#armed = false
    for (const unit of this.#adapter.units) this.#look(unit)
    if (this.#adapter.outCount > 0) this.watch()
  }

  #look(unit: LogicalUnit): void {
    const now = this.#adapter.kernel.keQueryTimeUs()
    const running = this.#escalations.get(unit)
    if (running !== undefined) {
      for (const [request, deadlineUs] of running.late) {
        if (!unit.out.has(request) || request.deadlineUs !== deadlineUs) running.late.delete(request)
      }
      if (running.late.size === 0) this.#escalations.delete(unit)
      else if (now >= running.dueUs) this.#escalate(unit, running, now)
      return
    }
    const late = [...unit.out].filter((request) => now >= request.deadlineUs)
    if (late.length === 0) return
    this.#adapter.counts.timeouts += late.length
    const escalation: Escalation = {
      step: -1,
      dueUs: 0,
      late: new Map(late.map((one) => [one, one.deadlineUs])),
    }
    this.#escalations.set(unit, escalation)
    this.#escalate(unit, escalation, now)
  }

  #escalate(unit: LogicalUnit, escalation: Escalation, now: number): void {
    escalation.step++
    escalation.dueUs = now + STEP_SECONDS * 1_000_000
    const step: Step = STEPS[escalation.step] ?? 'give-up'
    this.#adapter.log.push(`${escalation.late.size} requests are out of time: reset of the ${step}`)
    this.#adapter.counts.resets++
    switch (step) {
      case 'logical-unit':
        this.#send(unit, SrbFunction.RESET_LOGICAL_UNIT)
        break
      case 'device':
        this.#send(unit, SrbFunction.RESET_DEVICE)
        break
      case 'bus':
        this.#adapter.atDispatch(() => this.#adapter.miniport?.resetBus(unit.path))
        break
      case 'give-up':
        this.#escalations.delete(unit)
        for (const request of [...unit.out]) this.#adapter.orphan(request, SrbStatus.TIMEOUT)
        break
      default:
        step satisfies never
    }
  }

  /** A reset of the port's own; when it ends, what was late has ended too, or the next step comes. */
  #send(unit: LogicalUnit, what: number): void {
    const { kernel } = this.#adapter
    const at = kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, ScsiRequestBlock.$size, TAG)
    if (at === 0) return
    kernel.parts.memory.zero(at, ScsiRequestBlock.$size)
    const { window } = kernel.parts.memory
    window.putLe16(ScsiRequestBlock.Length, ScsiRequestBlock.$size, at)
    window.putU8(ScsiRequestBlock.Function, what, at)
    window.putU8(ScsiRequestBlock.PathId, unit.path, at)
    window.putU8(ScsiRequestBlock.TargetId, unit.target, at)
    window.putU8(ScsiRequestBlock.Lun, unit.lun, at)
    window.putLe32(ScsiRequestBlock.TimeOutValue, STEP_SECONDS * 8, at)
    window.putLe32(
      ScsiRequestBlock.SrbFlags,
      SrbFlag.NO_QUEUE_FREEZE | SrbFlag.BYPASS_FROZEN_QUEUE | SrbFlag.BYPASS_LOCKED_QUEUE,
      at,
    )
    // Without memory for it the next step comes all the same.
    if (!this.#adapter.submitOwn(unit, at, () => kernel.exFreePool(at))) kernel.exFreePool(at)
  }
}
