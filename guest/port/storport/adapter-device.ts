import { gpa } from '../../../protocol/memory.ts'
import type { DeviceObject } from '../../kernel/device-object.ts'
import { DeviceCharacteristic, DeviceFlag, DeviceType } from '../../kernel/io-layout.ts'
import type { Irp } from '../../kernel/irp.ts'
import type { Kernel } from '../../kernel/kernel.ts'
import { NtStatus, ntSuccess } from '../../kernel/nt-status.ts'
import { InterfaceClass } from '../../kernel/pnp/device-interface.ts'
import { allocateRelations } from '../../kernel/pnp/device-relations.ts'
import { DeviceRelation, PnpMinor } from '../../kernel/pnp/pnp-minor.ts'
import { readResourceList } from '../../kernel/pnp/resource-list.ts'
import type { Waiting } from '../../kernel/thread.ts'
import type { MakeMiniport, PortResource } from '../miniport.ts'
import type { Adapter } from './adapter.ts'
import { type StartedAdapter, startAdapter } from './adapter-start.ts'
import type { LogicalUnit } from './logical-unit.ts'
import { scanAdapter } from './scan.ts'
import { UnitDevice } from './unit-device.ts'
import { UnitRequests } from './unit-requests.ts'

/** How long a removal waits for requests the miniport still has before they are given up. */
const DRAIN_STEP_US = 100_000
const DRAIN_STEPS = 600

/** An adapter's FDO, which is the bus its units are on. */
export class AdapterDevice {
  readonly kind = 'adapter'
  readonly kernel: Kernel
  readonly adapter: Adapter
  /** IRP_MJ_SCSI at its units. */
  readonly requests: UnitRequests
  readonly device: DeviceObject
  readonly pdo: DeviceObject
  readonly lower: DeviceObject
  readonly #make: MakeMiniport
  readonly #units: UnitDevice[]
  #started: StartedAdapter | null
  /** Symbolic link of its device interface; a status where no bus reported the PDO. */
  readonly #interface: string | NtStatus
  removed: boolean

  constructor(
    adapter: Adapter,
    make: MakeMiniport,
    device: DeviceObject,
    pdo: DeviceObject,
    lower: DeviceObject,
  ) {
    this.kernel = adapter.kernel
    this.#make = make
    this.adapter = adapter
    this.requests = new UnitRequests(adapter)
    this.device = device
    this.pdo = pdo
    this.lower = lower
    this.#units = []
    this.#started = null
    this.removed = false
    // Disabled until START: nobody finds a port that does not work.
    this.#interface = this.kernel.pnp.interfaces.register(pdo, InterfaceClass.STORAGE_PORT)
  }

  /** What the miniport asked for; null while the adapter is not started. */
  get started(): StartedAdapter | null {
    return this.#started
  }

  forget(unit: UnitDevice): void {
    this.#units.splice(this.#units.indexOf(unit), 1)
    unit.unit.device = null
    const { units } = this.adapter
    const at = units.indexOf(unit.unit)
    if (at >= 0) units.splice(at, 1)
  }

  /** IRP_MJ_PNP. */
  plugAndPlay(irp: Irp): NtStatus | Waiting {
    switch (irp.current.minor) {
      case PnpMinor.START_DEVICE:
        return this.#start(irp)
      case PnpMinor.QUERY_DEVICE_RELATIONS:
        return irp.current.argument1 === DeviceRelation.BUS ? this.#relations(irp) : this.pass(irp)
      case PnpMinor.QUERY_STOP_DEVICE:
      case PnpMinor.CANCEL_STOP_DEVICE:
      case PnpMinor.QUERY_REMOVE_DEVICE:
      case PnpMinor.CANCEL_REMOVE_DEVICE:
        return this.#agree(irp)
      case PnpMinor.STOP_DEVICE:
        return this.#stop(irp)
      case PnpMinor.SURPRISE_REMOVAL:
        return this.#vanish(irp)
      case PnpMinor.REMOVE_DEVICE:
        return this.#remove(irp)
      default:
        return this.pass(irp)
    }
  }

  /** Down as it came. */
  pass(irp: Irp): NtStatus | Waiting {
    this.kernel.ioSkipCurrentIrpStackLocation(irp)
    return this.kernel.ioCallDriver(this.lower, irp)
  }

  #agree(irp: Irp): NtStatus | Waiting {
    irp.status = NtStatus.SUCCESS
    return this.pass(irp)
  }

  *#start(irp: Irp): Waiting {
    const { kernel } = this
    const below = yield* kernel.ioForwardIrpSynchronously(this.lower, irp)
    if (!ntSuccess(below)) return this.#complete(irp, below)
    const resources = this.#resources(irp)
    if (resources === null) return this.#complete(irp, NtStatus.DEVICE_CONFIGURATION_ERROR)
    const started = yield* startAdapter(this.adapter, this.#make, resources)
    if (typeof started === 'number') return this.#complete(irp, started)
    this.#started = started
    started.services.busChanged = () => kernel.pnp.ioInvalidateDeviceRelations(this.pdo)
    started.services.unitChanged = (path, target, lun) => this.#unitChanged(path, target, lun)
    // Without memory for it nothing is lost: it is done again before anybody is told of units.
    yield* scanAdapter(this.adapter, started.configuration)
    if (typeof this.#interface === 'string') kernel.pnp.interfaces.setState(this.#interface, true)
    return this.#complete(irp, NtStatus.SUCCESS)
  }

  /** Whoever stands on the unit is told, by a request of the port's own. At DISPATCH level or below. */
  #unitChanged(path: number, target: number, lun: number): void {
    const unit = this.adapter.unitAt(path, target, lun)
    this.#units.find((one) => one.unit === unit)?.notify(this.kernel)
  }

  /** From START's raw list: lines and addresses as the bus has them, which is how the kernel connects them. */
  #resources(irp: Irp): PortResource[] | null {
    const list = readResourceList(this.kernel.parts, irp.current.argument1)
    if (list === null) return null
    return list.map((one) => {
      if (one.kind === 'interrupt') return { kind: 'interrupt', line: one.vector, vector: one.vector }
      if (one.kind === 'port') return { kind: 'port', start: one.start, lengthBytes: one.lengthBytes }
      return { kind: 'memory', start: gpa(one.start), lengthBytes: one.lengthBytes }
    })
  }

  /** The units of the last scan, each with a PDO, behind what a higher driver listed already. */
  *#relations(irp: Irp): Waiting {
    const { kernel, adapter } = this
    const started = this.#started
    // Units that could not be asked are not gone: the tree stays as it is.
    if (started !== null && !adapter.gone && !(yield* scanAdapter(adapter, started.configuration))) {
      return this.#complete(irp, NtStatus.INSUFFICIENT_RESOURCES)
    }
    const present: DeviceObject[] = []
    for (const unit of adapter.units) {
      if (!unit.present || adapter.gone) continue
      const device = unit.device ?? this.#makeUnit(unit)
      if (device === null) return this.#complete(irp, NtStatus.INSUFFICIENT_RESOURCES)
      present.push(device)
    }
    const list = allocateRelations(kernel.parts, present, irp.information)
    if (list === 0) return this.#complete(irp, NtStatus.INSUFFICIENT_RESOURCES)
    irp.information = list
    irp.status = NtStatus.SUCCESS
    const answer = this.pass(irp)
    return typeof answer === 'number' ? answer : yield* answer
  }

  #makeUnit(unit: LogicalUnit): DeviceObject | null {
    const device = this.kernel.ioCreateDevice(this.device.driver, {
      type: DeviceType.MASS_STORAGE,
      characteristics: DeviceCharacteristic.AUTOGENERATED_DEVICE_NAME,
    })
    if (typeof device === 'number') return null
    device.flags |= DeviceFlag.DIRECT_IO | DeviceFlag.BUS_ENUMERATED_DEVICE
    device.flags &= ~DeviceFlag.DEVICE_INITIALIZING
    unit.device = device
    const made = new UnitDevice(this, unit, device)
    device.extension = made
    this.#units.push(made)
    return device
  }

  *#stop(irp: Irp): Waiting {
    this.#halt()
    yield* this.#drain()
    this.#release()
    const answer = this.#agree(irp)
    return typeof answer === 'number' ? answer : yield* answer
  }

  /** The registers are let go of now: by the time of REMOVE a successor may have them. */
  *#vanish(irp: Irp): Waiting {
    this.#hide()
    this.adapter.setGone()
    this.#halt()
    yield* this.#drain()
    this.#release()
    const answer = this.#agree(irp)
    return typeof answer === 'number' ? answer : yield* answer
  }

  *#remove(irp: Irp): Waiting {
    const { kernel, adapter } = this
    this.removed = true
    this.#hide()
    adapter.setGone()
    this.#halt()
    yield* this.#drain()
    this.#release()
    for (const unit of [...this.#units]) {
      this.forget(unit)
      kernel.ioDeleteDevice(unit.device)
    }
    const answer = this.#agree(irp)
    const status = typeof answer === 'number' ? answer : yield* answer
    kernel.ioDetachDevice(this.lower)
    adapter.release()
    kernel.ioDeleteDevice(this.device)
    return status
  }

  /** Once: a successor has the same link. */
  #hide(): void {
    if (!this.adapter.gone && typeof this.#interface === 'string')
      this.kernel.pnp.interfaces.setState(this.#interface, false)
  }

  /** The miniport lets go of its device: what is out comes back, or is lost to it. */
  #halt(): void {
    const started = this.#started
    if (started === null) return
    this.kernel.keSynchronizeExecution(started.interrupt, () =>
      started.miniport.adapterControl('stop-adapter'),
    )
  }

  /** Waits for what the miniport still has, and gives up what does not come back. */
  *#drain(): Waiting<void> {
    const { kernel, adapter } = this
    for (let left = DRAIN_STEPS; adapter.outCount > 0 && left > 0; left--) {
      yield* kernel.keDelayExecutionThread(DRAIN_STEP_US)
    }
    adapter.giveUp()
  }

  #release(): void {
    const started = this.#started
    if (started === null) return
    this.kernel.ioDisconnectInterrupt(started.interrupt)
    started.services.release(this.adapter.counts.pagesOnLoan > 0)
    this.adapter.miniport = null
    this.#started = null
  }

  #complete(irp: Irp, status: NtStatus): NtStatus {
    irp.status = status
    this.kernel.ioCompleteRequest(irp)
    return status
  }
}
