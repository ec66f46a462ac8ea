import { BugCode, keBugCheckEx } from './bug-check.ts'
import type { DeviceTable } from './device-table.ts'
import type { Hal } from './hal.ts'
import type { CancelRoutine, Irp } from './irp.ts'
import type { IrpPool } from './irp-pool.ts'
import { Irql } from './irql.ts'
import { NO_ROUTINE, type Routine, type RoutineTable } from './routine.ts'

/** Cancelling requests: the system's cancel lock, cancel routines, IoCancelIrp. */
export class Cancellation {
  readonly #hal: Hal
  readonly #routines: RoutineTable
  readonly #irps: IrpPool
  readonly #devices: DeviceTable
  #held: boolean

  constructor(hal: Hal, routines: RoutineTable, irps: IrpPool, devices: DeviceTable) {
    this.#hal = hal
    this.#routines = routines
    this.#irps = irps
    this.#devices = devices
    this.#held = false
  }

  /** IoAcquireCancelSpinLock: the level before. */
  acquire(): Irql {
    this.#hal.point()
    const before = this.#hal.raise(Irql.DISPATCH)
    if (this.#held) keBugCheckEx(BugCode.SPIN_LOCK_ALREADY_OWNED, 0)
    this.#held = true
    return before
  }

  /** IoReleaseCancelSpinLock. */
  release(irql: Irql): void {
    if (!this.#held) keBugCheckEx(BugCode.SPIN_LOCK_NOT_OWNED, 0)
    this.#held = false
    this.#hal.lower(irql)
  }

  /** IoSetCancelRoutine: the one before; 0 when it was called already or never set. */
  setRoutine(irp: Irp, routine: Routine<CancelRoutine>): Routine<CancelRoutine> {
    this.#hal.point()
    const before = irp.cancelRoutine
    irp.cancelRoutine = routine
    return before
  }

  /**
   * IoCancelIrp: true when a cancel routine was called. The request need not be complete then; its originator
   * still waits for it.
   */
  cancel(irp: Irp): boolean {
    const before = this.acquire()
    irp.cancel = true
    if (this.#irps.observer !== null) this.#irps.observer.cancelling(irp)
    const routine = irp.cancelRoutine
    irp.cancelRoutine = NO_ROUTINE
    if (routine === 0) {
      this.release(before)
      return false
    }
    if (irp.currentLocation > irp.stackCount + 1) {
      keBugCheckEx(BugCode.CANCEL_STATE_IN_COMPLETED_IRP, irp.at, routine)
    }
    irp.cancelIrql = before
    const location = irp.locations[irp.currentLocation - 1]
    const device = location === undefined ? null : this.#devices.deviceOrNull(location.deviceObject)
    this.#routines.resolve(routine)(device, irp)
    return true
  }
}
