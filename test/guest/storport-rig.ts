import type { DeviceObject } from '../../guest/kernel/device-object.ts'
import type { DriverObject } from '../../guest/kernel/driver-object.ts'
import { DeviceFlag, Major } from '../../guest/kernel/io-layout.ts'
import type { Irp } from '../../guest/kernel/irp.ts'
import type { Kernel } from '../../guest/kernel/kernel.ts'
import { NtStatus, ntStatusName } from '../../guest/kernel/nt-status.ts'
import { PoolType, poolTag } from '../../guest/kernel/pool.ts'
import type { Waiting } from '../../guest/kernel/thread.ts'
import type { MakeMiniport, PortResource } from '../../guest/port/miniport.ts'
import { ScsiRequestBlock, SrbFlag, SrbFunction } from '../../guest/port/srb.ts'
import { Adapter } from '../../guest/port/storport/adapter.ts'
import { type StartedAdapter, startAdapter } from '../../guest/port/storport/adapter-start.ts'
import { LogicalUnit } from '../../guest/port/storport/logical-unit.ts'
import { controlUnit } from '../../guest/port/storport/unit-properties.ts'
import { UnitRequests } from '../../guest/port/storport/unit-requests.ts'
import { gpa } from '../../protocol/memory.ts'
import type { HostileDevice } from './hostile-device.ts'
import { Machine, type MachineOptions } from './machine.ts'

export const TAG = poolTag('Test')
export const LINE = 5
export const REGISTERS = gpa(0xfeb0_0000)

/** A request as a class driver sends one. */
export interface Request {
  readonly cdb?: readonly number[]
  readonly function?: number
  readonly flags?: number
  /** A user's buffer: its address and its length. */
  readonly buffer?: number
  readonly lengthBytes?: number
  readonly write?: boolean
  readonly timeoutSeconds?: number
  /** Bytes the MDL describes, where that differs from what the SRB says. */
  readonly mdlBytes?: number
  /** Cancelled by its originator before it is sent. */
  readonly cancelled?: boolean
}

/** What became of one. */
export class Sent {
  readonly request: Request
  irp: Irp | null = null
  ends = 0
  status = ''
  srbStatus = -1
  moved = -1

  constructor(request: Request) {
    this.request = request
  }
}

/** A kernel with one adapter and one unit behind a plain PDO, no PnP: requests go in as class drivers send them. */
export class StorportRig {
  readonly machine: Machine
  readonly kernel: Kernel
  adapter: Adapter
  readonly sent: Sent[] = []
  unit: LogicalUnit
  started: StartedAdapter | null = null
  #pdo: DeviceObject | null = null

  constructor(options: MachineOptions = {}) {
    this.machine = new Machine(options)
    this.kernel = this.machine.kernel
    this.adapter = null as never
    this.unit = new LogicalUnit(0, 0, 0)
  }

  /** Puts a device of a test's own behind the registers and the line. */
  plug(device: HostileDevice): void {
    const { processor } = this.machine
    const line = processor.line(LINE)
    device.onInterrupt = () => line.raise()
    processor.map(REGISTERS, 0x200, {
      read: (offset, width) => device.read(offset, width),
      write: (offset, width, value) => {
        device.write(offset, width, value)
        if (!device.level) line.lower()
      },
    })
  }

  /** START with a miniport, and a unit to send to. */
  *start(make: MakeMiniport): Waiting<NtStatus> {
    const { kernel } = this
    const adapter = Adapter.create(kernel)
    if (adapter === null) return NtStatus.INSUFFICIENT_RESOURCES
    this.adapter = adapter
    const resources: readonly PortResource[] = [
      { kind: 'memory', start: REGISTERS, lengthBytes: 0x200 },
      { kind: 'interrupt', line: LINE, vector: 0 },
    ]
    const started = yield* startAdapter(this.adapter, make, resources)
    if (typeof started === 'number') return started
    this.started = started
    const requests = new UnitRequests(this.adapter)
    yield* kernel.ioLoadDriver('lun', (driver: DriverObject) => {
      const device = kernel.ioCreateDevice(driver)
      if (typeof device === 'number') return device
      device.flags |= DeviceFlag.DIRECT_IO
      this.#pdo = device
      driver.setMajorFunction(
        Major.INTERNAL_DEVICE_CONTROL,
        kernel.routine((_device: DeviceObject, irp: Irp) => requests.dispatch(this.unit, irp)),
      )
      driver.setMajorFunction(
        Major.DEVICE_CONTROL,
        kernel.routine((_device: DeviceObject, irp: Irp) =>
          controlUnit(kernel, started.configuration, this.unit, irp),
        ),
      )
      driver.setMajorFunction(
        Major.PNP,
        kernel.routine((_device: DeviceObject, irp: Irp) => {
          irp.status = NtStatus.SUCCESS
          kernel.ioCompleteRequest(irp)
          return NtStatus.SUCCESS
        }),
      )
      return NtStatus.SUCCESS
    })
    this.unit.device = this.#pdo
    this.adapter.units.push(this.unit)
    return NtStatus.SUCCESS
  }

  /** The unit's PDO, for a class driver to stand on. */
  get pdo(): DeviceObject {
    if (this.#pdo === null) throw new Error('not started')
    return this.#pdo
  }

  /** Sends one and returns at once; `Sent` tells when it has ended. */
  send(request: Request): Sent {
    const { kernel } = this
    const pdo = this.#pdo
    if (pdo === null) throw new Error('not started')
    const { window, bytes } = kernel.parts.memory
    const srbBytes = ScsiRequestBlock.$size
    const at = kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, srbBytes + 32, TAG)
    kernel.parts.memory.zero(at, srbBytes + 32)
    const length = request.lengthBytes ?? 0
    const direction = length === 0 ? 0 : request.write === true ? SrbFlag.DATA_OUT : SrbFlag.DATA_IN
    window.putLe16(ScsiRequestBlock.Length, srbBytes, at)
    window.putU8(ScsiRequestBlock.Function, request.function ?? SrbFunction.EXECUTE_SCSI, at)
    window.putU8(ScsiRequestBlock.CdbLength, request.cdb?.length ?? 0, at)
    window.putU8(ScsiRequestBlock.SenseInfoBufferLength, 18, at)
    window.putLe64(ScsiRequestBlock.SenseInfoBuffer, at + srbBytes, at)
    window.putLe32(ScsiRequestBlock.SrbFlags, direction | (request.flags ?? SrbFlag.NO_QUEUE_FREEZE), at)
    window.putLe32(ScsiRequestBlock.DataTransferLength, length, at)
    window.putLe32(ScsiRequestBlock.TimeOutValue, request.timeoutSeconds ?? 10, at)
    window.putLe64(ScsiRequestBlock.DataBuffer, request.buffer ?? 0, at)
    bytes.set(request.cdb ?? [], at + ScsiRequestBlock.Cdb)
    const irp = kernel.ioAllocateIrp(1)
    if (irp === null) throw new Error('no request')
    const sent = new Sent(request)
    sent.irp = irp
    this.sent.push(sent)
    if (length > 0 && request.buffer !== undefined) {
      const mdl = kernel.ioAllocateMdl(request.buffer, request.mdlBytes ?? length, irp)
      if (mdl === null) throw new Error('no MDL')
      kernel.mmProbeAndLockPages(mdl, request.write === true ? 0 : 1)
    }
    irp.next.major = Major.INTERNAL_DEVICE_CONTROL
    irp.next.argument1 = at
    const ended = kernel.routine((_device: DeviceObject | null, done: Irp) => {
      sent.ends++
      sent.status = ntStatusName(done.status)
      sent.srbStatus = window.u8(ScsiRequestBlock.SrbStatus, at)
      sent.moved = window.le32(ScsiRequestBlock.DataTransferLength, at)
      if (done.mdlAddress !== 0) {
        const mdl = kernel.mdlAt(done.mdlAddress)
        kernel.mmUnlockPages(mdl)
        kernel.ioFreeMdl(mdl)
        done.mdlAddress = 0
      }
      kernel.exFreePool(at)
      sent.irp = null
      kernel.ioFreeIrp(done)
      return NtStatus.MORE_PROCESSING_REQUIRED
    })
    kernel.ioSetCompletionRoutine(irp, ended)
    if (request.cancelled === true) kernel.ioCancelIrp(irp)
    kernel.ioCallDriver(pdo, irp)
    return sent
  }

  /** Everything given back, as a driver's unload would. */
  release(): void {
    const { kernel, started } = this
    if (started === null) return
    kernel.ioDisconnectInterrupt(started.interrupt)
    started.services.release(this.adapter.counts.pagesOnLoan > 0)
    this.adapter.release()
  }
}
