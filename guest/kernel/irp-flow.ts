import { BugCode, keBugCheckEx } from './bug-check.ts'
import type { DeviceObject } from './device-object.ts'
import type { DeviceTable } from './device-table.ts'
import type { Hal } from './hal.ts'
import { IoType, StackControl } from './io-layout.ts'
import type { Irp } from './irp.ts'
import type { IrpPool } from './irp-pool.ts'
import {
  BUT_CONTROL,
  CONTROL_UNIT,
  IRP_CURRENT_STACK_LOCATION,
  IRP_STATE,
  IRP_STATUS,
  IRP_WORDS,
  LOCATION_ARGUMENT_1,
  LOCATION_ARGUMENT_2,
  LOCATION_ARGUMENT_3,
  LOCATION_ARGUMENT_4,
  LOCATION_CONTEXT,
  LOCATION_DEVICE,
  LOCATION_FILE,
  LOCATION_ROUTINE,
  LOCATION_WORDS,
} from './irp-words.ts'
import { Irql } from './irql.ts'
import { type KernelMemory, pointer, putPointer } from './kernel-memory.ts'
import { NtStatus, ntSuccess } from './nt-status.ts'
import type { Routine, RoutineTable } from './routine.ts'
import type { CompletionRoutine } from './stack-location.ts'
import { isWaiting, type Waiting } from './thread.ts'

const INVOKE_ALWAYS =
  StackControl.INVOKE_ON_SUCCESS | StackControl.INVOKE_ON_ERROR | StackControl.INVOKE_ON_CANCEL

/** The state word without the current location; also without pending returned. */
const BUT_CURRENT = 0x00ff_ffff
const BUT_PENDING = 0x00ff_00ff
const CURRENT_UNIT = 0x100_0000
const PENDING_MARK = StackControl.PENDING_RETURNED * CONTROL_UNIT
const ERROR_MARK = StackControl.ERROR_RETURNED * CONTROL_UNIT

/** What happens once every location is unwound. */
export type FinishIrp = (irp: Irp, boost: number) => void

/** A request on its way down a device stack, and back up. */
export class IrpFlow {
  readonly #hal: Hal
  readonly #routines: RoutineTable
  readonly #irps: IrpPool
  readonly #devices: DeviceTable
  #finish: FinishIrp

  constructor(hal: Hal, routines: RoutineTable, irps: IrpPool, devices: DeviceTable) {
    this.#hal = hal
    this.#routines = routines
    this.#irps = irps
    this.#devices = devices
    this.#finish = () => undefined
  }

  attach(finish: FinishIrp): void {
    this.#finish = finish
  }

  /**
   * IoCallDriver. The answer is the dispatch routine's, unchanged; a `Waiting` has not run yet and must be
   * passed on or resolved, never dropped.
   */
  call(device: DeviceObject, irp: Irp): NtStatus | Waiting {
    this.#hal.point()
    const { words, word } = irp
    const state = words[word + IRP_STATE] as number
    const number = (state >>> 24) - 1
    if (number <= 0) keBugCheckEx(BugCode.NO_MORE_IRP_STACK_LOCATIONS, irp.at)
    // A device that was freed no longer knows its driver.
    if (device.driverObject !== device.driver.at) keBugCheckEx(BugCode.PAGE_FAULT_IN_NONPAGED_AREA, device.at)
    const location = word + IRP_WORDS + (number - 1) * LOCATION_WORDS
    words[word + IRP_STATE] = (state & BUT_CURRENT) + number * CURRENT_UNIT
    words[word + IRP_CURRENT_STACK_LOCATION] = location * 4
    words[location + LOCATION_DEVICE] = device.at
    words[location + LOCATION_DEVICE + 1] = 0
    irp.devices[number - 1] = device
    irp.holder = 'driver'
    const { observer } = this.#irps
    if (observer !== null) observer.sent(irp, device)
    const routine = this.#routines.resolve(device.driver.majorFunction((words[location] as number) & 0xff))
    const answer = routine(device, irp)
    if (observer === null && typeof answer === 'number') return answer
    return this.#answered(device, irp, answer)
  }

  #answered(device: DeviceObject, irp: Irp, answer: NtStatus | Waiting): NtStatus | Waiting {
    const { observer } = this.#irps
    // Above APC level nobody can wait: the routine runs to its end here, or stops the system.
    const result = isWaiting(answer) && this.#hal.irql > Irql.APC ? this.#runNow(answer) : answer
    if (observer === null) return result
    if (isWaiting(result)) return this.#observed(device, irp, result)
    observer.answered(irp, device, result)
    return result
  }

  *#observed(device: DeviceObject, irp: Irp, waiting: Waiting): Waiting {
    const status = yield* waiting
    this.#irps.observer?.answered(irp, device, status)
    return status
  }

  #runNow(waiting: Waiting): NtStatus {
    const step = waiting.next()
    if (step.done === true) return step.value
    return keBugCheckEx(BugCode.IRQL_NOT_LESS_OR_EQUAL, 0, this.#hal.irql)
  }

  /** IoMarkIrpPending: before anyone else can complete it. */
  markPending(irp: Irp): void {
    const location = irp.current
    location.control |= StackControl.PENDING_RETURNED
    if (this.#irps.observer !== null) this.#irps.observer.marked(irp, location)
  }

  /** IoCopyCurrentIrpStackLocationToNext. */
  copyToNext(irp: Irp): void {
    const { words, word } = irp
    const number = (words[word + IRP_STATE] as number) >>> 24
    if (!(number >= 2 && number <= irp.locations.length)) irp.wild()
    const from = word + IRP_WORDS + (number - 1) * LOCATION_WORDS
    const to = from - LOCATION_WORDS
    const { doubles } = irp.memory
    doubles[to >> 1] = doubles[from >> 1] as number
    doubles[(to >> 1) + 1] = doubles[(from >> 1) + 1] as number
    doubles[(to >> 1) + 2] = doubles[(from >> 1) + 2] as number
    doubles[(to >> 1) + 3] = doubles[(from >> 1) + 3] as number
    doubles[(to >> 1) + 4] = doubles[(from >> 1) + 4] as number
    doubles[(to >> 1) + 5] = doubles[(from >> 1) + 5] as number
    doubles[(to >> 1) + 6] = doubles[(from >> 1) + 6] as number
    words[to] = (words[to] as number) & BUT_CONTROL
  }

  /** IoSkipCurrentIrpStackLocation: the driver below uses this driver's location. */
  skip(irp: Irp): void {
    irp.currentLocation += 1
  }

  /** IoSetNextIrpStackLocation: a location for the originator itself. */
  setNext(irp: Irp): void {
    irp.currentLocation -= 1
  }

  /** IoSetCompletionRoutine: stored in the next location, replacing its Control. */
  setCompletionRoutine(
    irp: Irp,
    routine: Routine<CompletionRoutine>,
    context: number,
    invoke: number = INVOKE_ALWAYS,
  ): void {
    const { words, word } = irp
    const number = ((words[word + IRP_STATE] as number) >>> 24) - 1
    if (number <= 0) irp.wild()
    const next = word + IRP_WORDS + (number - 1) * LOCATION_WORDS
    words[next] = ((words[next] as number) & BUT_CONTROL) + invoke * CONTROL_UNIT
    words[next + LOCATION_ROUTINE] = routine
    words[next + LOCATION_ROUTINE + 1] = 0
    putPointer(words, next + LOCATION_CONTEXT, context)
  }

  /** IoCompleteRequest: unwinds location by location until a routine takes the request, or the top. */
  complete(irp: Irp, boost: number): void {
    this.#hal.point()
    const { words, word } = irp
    const state = words[word + IRP_STATE] as number
    const stackCount = (state >>> 16) & 0xff
    const first = state >>> 24
    if (irp.type !== IoType.IRP || first > stackCount + 1) {
      keBugCheckEx(BugCode.MULTIPLE_IRP_COMPLETE_REQUESTS, irp.at)
    }
    if (this.#hal.irql > Irql.DISPATCH) keBugCheckEx(BugCode.IRQL_NOT_LESS_OR_EQUAL, irp.at, this.#hal.irql)
    const { observer } = this.#irps
    if (observer !== null) observer.completing(irp)
    const bottom = word + IRP_WORDS + (first - 1) * LOCATION_WORDS
    let recorded: NtStatus = NtStatus.SUCCESS
    irp.holder = 'system'
    let number = first
    while (++number <= stackCount + 1) {
      const left = word + IRP_WORDS + (number - 2) * LOCATION_WORDS
      const status = words[word + IRP_STATUS] as NtStatus
      const pending = ((words[left] as number) >>> 24) & StackControl.PENDING_RETURNED
      words[word + IRP_STATE] =
        ((words[word + IRP_STATE] as number) & BUT_PENDING) + pending * 0x100 + number * CURRENT_UNIT
      words[word + IRP_CURRENT_STACK_LOCATION] = (left + LOCATION_WORDS) * 4
      if (!ntSuccess(status) && status !== recorded) {
        recorded = status
        recordError(words, left, bottom, status)
      }
      if (!this.leave(irp, left, number, stackCount)) return
    }
    irp.currentLocation = number
    if (observer !== null) observer.completed(irp)
    this.#finish(irp, boost)
  }

  /** Leaves the location at `left`. False when its routine took the request, which may be gone then. */
  private leave(irp: Irp, left: number, number: number, stackCount: number): boolean {
    const { words, word } = irp
    const control = (words[left] as number) >>> 24
    const invoke = ntSuccess(words[word + IRP_STATUS] as NtStatus)
      ? StackControl.INVOKE_ON_SUCCESS
      : StackControl.INVOKE_ON_ERROR
    const above = left + LOCATION_WORDS
    if ((control & invoke) === 0 && ((control & StackControl.INVOKE_ON_CANCEL) === 0 || !irp.cancel)) {
      // Nobody else would tell the driver above that its answer was PENDING.
      if ((control & StackControl.PENDING_RETURNED) !== 0 && number <= stackCount) {
        words[above] = (words[above] as number) | PENDING_MARK
      }
      wipe(irp.memory, left)
      return true
    }
    const device =
      number > stackCount ? null : this.deviceAt(irp, number, words[above + LOCATION_DEVICE] as number)
    const routine = this.#routines.resolve(words[left + LOCATION_ROUTINE] as Routine<CompletionRoutine>)
    const context = pointer(words, left + LOCATION_CONTEXT)
    wipe(irp.memory, left)
    irp.holder = 'driver'
    const answer = routine(device, irp, context)
    const { observer } = this.#irps
    if (observer !== null) observer.unwound(irp, device, answer)
    if (answer === NtStatus.MORE_PROCESSING_REQUIRED) return false
    irp.holder = 'system'
    return true
  }

  /** The device at `at`, which is what the location says; the one kept is right unless somebody wrote there. */
  private deviceAt(irp: Irp, number: number, at: number): DeviceObject | null {
    const kept = irp.devices[number - 1]
    return kept != null && kept.at === at && !kept.deleted ? kept : this.#devices.deviceOrNull(at)
  }
}

/** For a debugger: where an error came from, and which (the lowest location's fourth argument). */
function recordError(words: Uint32Array, left: number, bottom: number, status: NtStatus): void {
  words[left] = (words[left] as number) | ERROR_MARK
  words[bottom] = (words[bottom] as number) | ERROR_MARK
  words[bottom + LOCATION_ARGUMENT_4] = status
  words[bottom + LOCATION_ARGUMENT_4 + 1] = 0
}

/** What a driver above may not read any more goes; Major, argument 4, device, routine and context stay. */
function wipe(memory: KernelMemory, location: number): void {
  const { words, doubles } = memory
  words[location] = (words[location] as number) & 0xff
  doubles[(location + LOCATION_ARGUMENT_1) >> 1] = 0
  doubles[(location + LOCATION_ARGUMENT_2) >> 1] = 0
  doubles[(location + LOCATION_ARGUMENT_3) >> 1] = 0
  doubles[(location + LOCATION_FILE) >> 1] = 0
}
