import type { DeviceObject } from './device-object.ts'
import type { Irp } from './irp.ts'
import type { NtStatus } from './nt-status.ts'
import type { IoStackLocation } from './stack-location.ts'

/**
 * Sees every step of every request: what Driver Verifier is built on. One at a time; none costs a comparison.
 * An observer changes nothing; it may stop the system.
 */
export interface IrpObserver {
  allocated(irp: Irp): void
  freeing(irp: Irp): void
  /** Before the dispatch routine of `device` is called; the location is its own already. */
  sent(irp: Irp, device: DeviceObject): void
  /** The dispatch routine answered. The request may be gone. */
  answered(irp: Irp, device: DeviceObject, status: NtStatus): void
  marked(irp: Irp, location: IoStackLocation): void
  /** IoCompleteRequest was called. */
  completing(irp: Irp): void
  /** A completion routine was called and answered `status`. The request may be gone if it took it. */
  unwound(irp: Irp, device: DeviceObject | null, status: NtStatus): void
  /** All locations are unwound; what the originator sees is next. */
  completed(irp: Irp): void
  cancelling(irp: Irp): void
}
