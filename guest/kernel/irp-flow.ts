import { BugCode, keBugCheckEx } from './bug-check.ts'
import type { DeviceObject } from './device-object.ts'
import type { DeviceTable } from './device-table.ts'
import type { Hal } from './hal.ts'
import { IO_STACK_LOCATION, IoType, StackControl } from './io-layout.ts'
import type { Irp } from './irp.ts'
import type { IrpPool } from './irp-pool.ts'
import { Irql } from './irql.ts'
import type { KernelMemory } from './kernel-memory.ts'
import { NtStatus, ntSuccess } from './nt-status.ts'
import type { Routine, RoutineTable } from './routine.ts'
import type { CompletionRoutine, IoStackLocation } from './stack-location.ts'
import { isWaiting, type Waiting } from './thread.ts'

/** What a location's copy to the next one takes over: everything before the completion routine. */
const COPIED_BYTES = IO_STACK_LOCATION.completionRoutine as number
const INVOKE_ALWAYS =
  StackControl.INVOKE_ON_SUCCESS | StackControl.INVOKE_ON_ERROR | StackControl.INVOKE_ON_CANCEL

/** What happens once every location is unwound. */
export type FinishIrp = (irp: Irp, boost: number) => void

/** A request on its way down a device stack, and back up. */
export class IrpFlow {
  readonly #memory: KernelMemory
  readonly #hal: Hal
  readonly #routines: RoutineTable
  readonly #irps: IrpPool
  readonly #devices: DeviceTable
  #finish: FinishIrp

  constructor(memory: KernelMemory, hal: Hal, routines: RoutineTable, irps: IrpPool, devices: DeviceTable) {
    this.#memory = memory
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
    const number = irp.currentLocation - 1
    const location = irp.locations[number - 1]
    if (number <= 0 || location === undefined) {
      return keBugCheckEx(BugCode.NO_MORE_IRP_STACK_LOCATIONS, irp.at)
    }
    // A device that was freed no longer knows its driver.
    if (device.driverObject !== device.driver.at) keBugCheckEx(BugCode.PAGE_FAULT_IN_NONPAGED_AREA, device.at)
    irp.currentLocation = number
    irp.holder = 'driver'
    location.device = device
    location.deviceObject = device.at
    const { observer } = this.#irps
    if (observer !== null) observer.sent(irp, device)
    const routine = this.#routines.resolve(device.driver.majorFunction(location.major))
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
    const from = irp.current.at
    const next = irp.next
    this.#memory.bytes.copyWithin(next.at, from, from + COPIED_BYTES)
    next.control = 0
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
    const { next } = irp
    next.completionRoutine = routine
    next.context = context
    next.control = invoke
  }

  /** IoCompleteRequest: unwinds location by location until a routine takes the request, or the top. */
  complete(irp: Irp, boost: number): void {
    this.#hal.point()
    const { stackCount } = irp
    let number = irp.currentLocation
    if (irp.type !== IoType.IRP || number > stackCount + 1) {
      keBugCheckEx(BugCode.MULTIPLE_IRP_COMPLETE_REQUESTS, irp.at)
    }
    if (this.#hal.irql > Irql.DISPATCH) keBugCheckEx(BugCode.IRQL_NOT_LESS_OR_EQUAL, irp.at, this.#hal.irql)
    const { observer } = this.#irps
    if (observer !== null) observer.completing(irp)
    const bottom = irp.locations[number - 1]
    let recorded: NtStatus = NtStatus.SUCCESS
    irp.holder = 'system'
    while (++number <= stackCount + 1) {
      irp.currentLocation = number
      const left = irp.locations[number - 2] as IoStackLocation
      const { status } = irp
      if (!ntSuccess(status) && status !== recorded && bottom !== undefined) {
        // For a debugger: where an error came from, and which.
        recorded = status
        left.control |= StackControl.ERROR_RETURNED
        bottom.control |= StackControl.ERROR_RETURNED
        bottom.argument4 = status
      }
      if (!this.#leave(irp, left, number, stackCount)) return
    }
    irp.currentLocation = number
    if (observer !== null) observer.completed(irp)
    this.#finish(irp, boost)
  }

  /** Leaves one location. False when its completion routine took the request, which may be gone then. */
  #leave(irp: Irp, left: IoStackLocation, number: number, stackCount: number): boolean {
    const { control } = left
    const pending = (control & StackControl.PENDING_RETURNED) !== 0
    irp.pendingReturned = pending
    const success = ntSuccess(irp.status)
    const invoked =
      (control & (success ? StackControl.INVOKE_ON_SUCCESS : StackControl.INVOKE_ON_ERROR)) !== 0 ||
      ((control & StackControl.INVOKE_ON_CANCEL) !== 0 && irp.cancel)
    if (!invoked) {
      // Nobody else would tell the driver above that its answer was PENDING.
      if (pending && number <= stackCount) {
        ;(irp.locations[number - 1] as IoStackLocation).control |= StackControl.PENDING_RETURNED
      }
      wipe(left)
      return true
    }
    const device = number > stackCount ? null : this.#deviceOf(irp.locations[number - 1] as IoStackLocation)
    const routine = this.#routines.resolve(left.completionRoutine)
    const { context } = left
    wipe(left)
    irp.holder = 'driver'
    const answer = routine(device, irp, context)
    const { observer } = this.#irps
    if (observer !== null) observer.unwound(irp, device, answer)
    if (answer === NtStatus.MORE_PROCESSING_REQUIRED) return false
    irp.holder = 'system'
    return true
  }

  #deviceOf(location: IoStackLocation): DeviceObject | null {
    const at = location.deviceObject
    const kept = location.device
    return kept !== null && kept.at === at ? kept : this.#devices.deviceOrNull(at)
  }
}

/** What a driver above may not read any more. Major, device, routine and context stay. */
function wipe(location: IoStackLocation): void {
  const { window, at } = location
  // Major stays; Minor, Flags and Control are the three bytes after it.
  location.minor = 0
  location.flags = 0
  location.control = 0
  window.putLe64(IO_STACK_LOCATION.argument1, 0, at)
  window.putLe64(IO_STACK_LOCATION.argument2, 0, at)
  window.putLe64(IO_STACK_LOCATION.argument3, 0, at)
  window.putLe64(IO_STACK_LOCATION.fileObject, 0, at)
}
