import type { DeviceObject } from '../../kernel/device-object.ts'
import type { Irp } from '../../kernel/irp.ts'
import type { Kernel } from '../../kernel/kernel.ts'
import { NtStatus } from '../../kernel/nt-status.ts'
import { answerPdoQuery } from '../../kernel/pnp/pdo-description.ts'
import { PnpMinor } from '../../kernel/pnp/pnp-minor.ts'
import type { Waiting } from '../../kernel/thread.ts'
import { SrbStatus } from '../srb.ts'
import type { AdapterDevice } from './adapter-device.ts'
import type { LogicalUnit } from './logical-unit.ts'
import { unitDescription } from './unit-identity.ts'
import { notifyUnit } from './unit-notification.ts'

const NOTICE_POLL_US = 1000

/** A unit's PDO: the bottom of a disk's stack. */
export class UnitDevice {
  readonly kind = 'unit'
  readonly parent: AdapterDevice
  readonly unit: LogicalUnit
  readonly device: DeviceObject
  #started: boolean
  /** Requests of the port's own on their way to the top of this stack. */
  #noticeCount: number

  constructor(parent: AdapterDevice, unit: LogicalUnit, device: DeviceObject) {
    this.parent = parent
    this.unit = unit
    this.device = device
    this.#started = false
    this.#noticeCount = 0
  }

  /** Tells whoever stands on the unit that its medium changed. At DISPATCH level or below. */
  notify(kernel: Kernel): void {
    if (!this.#started) return
    this.#noticeCount++
    kernel.spawn(this.#notice(kernel))
  }
  *#notice(kernel: Kernel): Waiting<void> {
    yield* notifyUnit(kernel, this.device)
    this.#noticeCount--
  }

  /** IRP_MJ_PNP: a PDO completes every request; what it does not handle keeps the status it came with. */
  plugAndPlay(kernel: Kernel, irp: Irp): NtStatus | Waiting {
    const { minor } = irp.current
    switch (minor) {
      case PnpMinor.START_DEVICE:
        this.#started = true
        irp.status = NtStatus.SUCCESS
        break
      case PnpMinor.QUERY_STOP_DEVICE:
      case PnpMinor.CANCEL_STOP_DEVICE:
      case PnpMinor.STOP_DEVICE:
      case PnpMinor.QUERY_REMOVE_DEVICE:
      case PnpMinor.CANCEL_REMOVE_DEVICE:
        irp.status = NtStatus.SUCCESS
        break
      case PnpMinor.SURPRISE_REMOVAL:
        this.#vanish()
        irp.status = NtStatus.SUCCESS
        break
      case PnpMinor.REMOVE_DEVICE:
        return this.#remove(kernel, irp)
      default:
        answerPdoQuery(kernel.parts, this.device, unitDescription(this.unit), irp)
    }
    return finish(kernel, irp)
  }

  #vanish(): void {
    this.#started = false
    this.unit.present = false
    this.parent.adapter.flush(SrbStatus.NO_DEVICE, this.unit)
  }

  /** A unit that is still there keeps its PDO: it may be started again. One that is not goes with it. */
  *#remove(kernel: Kernel, irp: Irp): Waiting {
    const { unit, device } = this
    this.#started = false
    // What is on its way up keeps the stack: its drivers answer it, and only then they go.
    while (this.#noticeCount > 0) yield* kernel.keDelayExecutionThread(NOTICE_POLL_US)
    unit.claimed = false
    this.parent.adapter.flush(SrbStatus.NO_DEVICE, unit)
    irp.status = NtStatus.SUCCESS
    if (unit.present && !this.parent.removed) return finish(kernel, irp)
    this.parent.forget(this)
    const status = finish(kernel, irp)
    kernel.ioDeleteDevice(device)
    return status
  }
}

function finish(kernel: Kernel, irp: Irp): NtStatus {
  const { status } = irp
  kernel.ioCompleteRequest(irp)
  return status
}
