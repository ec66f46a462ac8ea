import { gpa } from '../../../protocol/memory.ts'
import type { Irp } from '../../kernel/irp.ts'
import { NtStatus } from '../../kernel/nt-status.ts'
import { Srb, SrbFunction, SrbStatus } from '../srb.ts'
import type { Adapter } from './adapter.ts'
import type { LogicalUnit } from './logical-unit.ts'
import { portStatus } from './port-status.ts'

/**
 * SRBs at a unit's PDO (IRP_MJ_SCSI). Those about the queue or the device object are answered here; the rest
 * takes its turn to the miniport.
 */
export class UnitRequests {
  readonly #adapter: Adapter
  readonly #srb: Srb

  constructor(adapter: Adapter) {
    this.#adapter = adapter
    this.#srb = new Srb()
  }

  dispatch(unit: LogicalUnit, irp: Irp): NtStatus {
    const { kernel } = this.#adapter
    const srb = this.#srb
    if (!srb.point(kernel.parts.memory.guest, gpa(irp.current.srb))) {
      return this.#complete(irp, NtStatus.INVALID_PARAMETER)
    }
    switch (srb.function) {
      case SrbFunction.CLAIM_DEVICE:
        if (unit.claimed) return this.#answer(irp, srb, SrbStatus.BUSY, NtStatus.DEVICE_BUSY)
        unit.claimed = true
        srb.dataBuffer = gpa(unit.device?.at ?? 0)
        return this.#answer(irp, srb, SrbStatus.SUCCESS)
      case SrbFunction.RELEASE_DEVICE:
        unit.claimed = false
        return this.#answer(irp, srb, SrbStatus.SUCCESS)
      case SrbFunction.RELEASE_QUEUE:
        return this.#release(unit, irp, srb)
      case SrbFunction.FLUSH_QUEUE:
        this.#adapter.flush(SrbStatus.REQUEST_FLUSHED, unit)
        return this.#release(unit, irp, srb)
      case SrbFunction.LOCK_QUEUE:
        unit.locked = true
        return this.#answer(irp, srb, SrbStatus.SUCCESS)
      case SrbFunction.UNLOCK_QUEUE:
        unit.locked = false
        return this.#released(irp, srb)
      case SrbFunction.EXECUTE_SCSI:
      case SrbFunction.FLUSH:
      case SrbFunction.SHUTDOWN:
      case SrbFunction.RESET_BUS:
      case SrbFunction.RESET_DEVICE:
      case SrbFunction.RESET_LOGICAL_UNIT:
      case SrbFunction.IO_CONTROL:
        kernel.ioMarkIrpPending(irp)
        this.#adapter.submit(unit, irp)
        return NtStatus.PENDING
      default:
        return this.#answer(irp, srb, SrbStatus.BAD_FUNCTION)
    }
  }

  #release(unit: LogicalUnit, irp: Irp, srb: Srb): NtStatus {
    unit.frozen = false
    return this.#released(irp, srb)
  }

  /** Answered first: what goes out now may end, and the caller with it. */
  #released(irp: Irp, srb: Srb): NtStatus {
    const status = this.#answer(irp, srb, SrbStatus.SUCCESS)
    this.#adapter.pump()
    return status
  }

  #answer(irp: Irp, srb: Srb, srbStatus: number, status: NtStatus = portStatus(srbStatus)): NtStatus {
    srb.srbStatus = srbStatus
    return this.#complete(irp, status)
  }

  #complete(irp: Irp, status: NtStatus): NtStatus {
    irp.status = status
    irp.information = 0
    this.#adapter.kernel.ioCompleteRequest(irp)
    return status
  }
}
