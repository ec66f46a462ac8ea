import { Disk } from '../../guest/class/disk/disk.ts'
import { diskDriver } from '../../guest/class/disk/disk-driver.ts'
import type { DeviceObject } from '../../guest/kernel/device-object.ts'
import type { DriverObject } from '../../guest/kernel/driver-object.ts'
import { IrpFlag, Major } from '../../guest/kernel/io-layout.ts'
import type { Irp } from '../../guest/kernel/irp.ts'
import type { Kernel } from '../../guest/kernel/kernel.ts'
import { IO_STATUS_BLOCK, KEVENT } from '../../guest/kernel/layout.ts'
import { NtStatus, ntStatus, ntStatusName } from '../../guest/kernel/nt-status.ts'
import { PoolType, poolTag } from '../../guest/kernel/pool.ts'
import { settled, type Waiting } from '../../guest/kernel/thread.ts'
import { ArrayUnit, type UnitOptions } from './array-unit.ts'
import { Machine, type MachineOptions } from './machine.ts'

const TAG = poolTag('Test')

/** What became of one transfer. */
export class Transfer {
  ends = 0
  status = ''
  information = -1
  irp: Irp | null
  constructor(irp: Irp) {
    this.irp = irp
  }
}

/** The disk driver over an array's PDO, without a PnP manager: its requests are sent by hand. */
export class DiskRig {
  readonly machine: Machine
  readonly kernel: Kernel
  readonly unit: ArrayUnit
  driver: DriverObject | null = null
  readonly transfers: Transfer[] = []
  readonly #before: { readonly pool: number; readonly devices: number }

  constructor(unit: UnitOptions = {}, machine: MachineOptions = {}) {
    this.machine = new Machine(machine)
    this.kernel = this.machine.kernel
    this.#before = {
      pool: this.kernel.parts.pool.count,
      devices: this.kernel.parts.devices.deviceCount,
    }
    this.unit = new ArrayUnit(this.kernel, unit)
  }

  get disk(): Disk {
    const extension = this.fdo.extension
    if (!(extension instanceof Disk)) throw new Error('no disk')
    return extension
  }
  get fdo(): DeviceObject {
    const { pdo } = this.unit
    if (pdo === null) throw new Error('not loaded')
    return this.kernel.ioGetAttachedDevice(pdo)
  }

  /** Loads both drivers, AddDevice, START. */
  *start(): Waiting {
    const { kernel } = this
    yield* this.unit.load()
    const loaded = yield* kernel.ioLoadDriver('disk', diskDriver(kernel))
    if (typeof loaded === 'number') return loaded
    this.driver = loaded
    const added = yield* settled(kernel.call(loaded.addDevice)(loaded, this.unit.pdo as DeviceObject))
    if (added !== NtStatus.SUCCESS) return added
    return yield* this.pnp(0)
  }

  *pnp(minor: number): Waiting {
    return yield* this.send(this.fdo, Major.PNP, (irp) => {
      irp.next.minor = minor
      irp.status = NtStatus.NOT_SUPPORTED
    })
  }

  /** A request sent in this thread and waited for; what it was asked for is filled in by `fill`. */
  *send(device: DeviceObject, major: Major, fill: (irp: Irp) => void = () => undefined): Waiting {
    const { kernel } = this
    const top = kernel.ioGetAttachedDevice(device)
    const irp = kernel.ioAllocateIrp(top.stackSize)
    if (irp === null) throw new Error('no request')
    const room = kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, KEVENT.$size, TAG)
    const event = kernel.keInitializeEvent(room, true, false)
    irp.next.major = major
    irp.status = NtStatus.SUCCESS
    fill(irp)
    kernel.ioSetCompletionRoutine(
      irp,
      kernel.routine(() => {
        kernel.keSetEvent(event)
        return NtStatus.MORE_PROCESSING_REQUIRED
      }),
    )
    yield* settled(kernel.ioCallDriver(top, irp))
    yield* kernel.keWaitForSingleObject(event)
    const { status } = irp
    kernel.ioFreeIrp(irp)
    kernel.exFreePool(room)
    return status
  }

  /** The device behind a name, as an open would find it. */
  named(name: string): DeviceObject {
    const found = this.kernel.parts.names.find(name)
    if (found === null) throw new Error(`no ${name}`)
    return found.device
  }

  /** Sends a read or write and returns at once. At PASSIVE level, with a user's buffer. */
  transfer(
    device: DeviceObject,
    write: boolean,
    buffer: number,
    lengthBytes: number,
    byteOffset: number,
    flags = 0,
    cancelled = false,
  ): Transfer {
    const { kernel } = this
    const top = kernel.ioGetAttachedDevice(device)
    const irp = kernel.ioAllocateIrp(top.stackSize)
    if (irp === null) throw new Error('no request')
    const sent = new Transfer(irp)
    this.transfers.push(sent)
    const { next } = irp
    next.major = write ? Major.WRITE : Major.READ
    next.lengthBytes = lengthBytes
    next.byteOffset = byteOffset
    next.flags = flags
    irp.flags |= write ? IrpFlag.WRITE_OPERATION : IrpFlag.READ_OPERATION
    if (lengthBytes > 0) {
      const mdl = kernel.ioAllocateMdl(buffer, lengthBytes, irp)
      if (mdl === null) throw new Error('no MDL')
      kernel.mmProbeAndLockPages(mdl, write ? 0 : 1)
    }
    kernel.ioSetCompletionRoutine(
      irp,
      kernel.routine((_device: DeviceObject | null, done: Irp) => {
        sent.ends++
        sent.status = ntStatusName(done.status)
        // Whoever completes a request has taken its cancel routine away before.
        if (done.cancelRoutine !== 0) sent.status += ' with a cancel routine'
        sent.information = done.information
        if (done.mdlAddress !== 0) {
          const mdl = kernel.mdlAt(done.mdlAddress)
          kernel.mmUnlockPages(mdl)
          kernel.ioFreeMdl(mdl)
          done.mdlAddress = 0
        }
        sent.irp = null
        kernel.ioFreeIrp(done)
        return NtStatus.MORE_PROCESSING_REQUIRED
      }),
    )
    if (cancelled) kernel.ioCancelIrp(irp)
    const answer = kernel.ioCallDriver(top, irp)
    if (typeof answer !== 'number') kernel.spawn(answer)
    return sent
  }

  /** Waits in virtual time until it has ended. */
  *ended(sent: Transfer): Waiting<Transfer> {
    while (sent.ends === 0) yield* this.kernel.keDelayExecutionThread(1000)
    return sent
  }

  /** A device control: what came back, and the bytes of the output buffer. */
  *control(
    device: DeviceObject,
    code: number,
    input: readonly number[] | Uint8Array,
    outputBytes: number,
  ): Waiting<{ status: string; information: number; bytes: Uint8Array }> {
    const { kernel } = this
    const { window, bytes } = kernel.parts.memory
    const top = kernel.ioGetAttachedDevice(device)
    const total = KEVENT.$size + IO_STATUS_BLOCK.$size + input.length + outputBytes
    const room = kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, total, TAG)
    const event = kernel.keInitializeEvent(room, true, false)
    const iosb = room + KEVENT.$size
    const inputAt = iosb + IO_STATUS_BLOCK.$size
    const outputAt = inputAt + input.length
    bytes.fill(0, iosb, outputAt)
    bytes.fill(0xee, outputAt, outputAt + outputBytes)
    bytes.set(input, inputAt)
    const irp = kernel.ioBuildDeviceIoControlRequest({
      code,
      device: top,
      input: inputAt,
      inputBytes: input.length,
      output: outputAt,
      outputBytes,
      event: event.at,
      iosb,
    })
    if (irp === null) throw new Error('no request')
    let status = yield* settled(kernel.ioCallDriver(top, irp))
    if (status === NtStatus.PENDING) {
      yield* kernel.keWaitForSingleObject(event)
      status = ntStatus(window.le32(IO_STATUS_BLOCK.status, iosb))
    }
    const information = window.le64(IO_STATUS_BLOCK.information, iosb)
    const result = {
      status: ntStatusName(status),
      information,
      bytes: bytes.slice(outputAt, outputAt + outputBytes),
    }
    kernel.exFreePool(room)
    return result
  }

  /** REMOVE, and both drivers unloaded. */
  *remove(): Waiting<void> {
    const { kernel } = this
    yield* this.pnp(2)
    if (this.driver !== null) yield* kernel.ioUnloadDriver(this.driver)
    yield* this.unit.unload()
  }

  /** What is left of what was there at first: all of it must be 0. */
  leaks(): Record<string, number> {
    const { parts } = this.kernel
    parts.irps.trim()
    return {
      pool: parts.pool.count - this.#before.pool,
      devices: parts.devices.deviceCount - this.#before.devices,
      irps: parts.irps.liveCount,
      locked: parts.frames.lockedCount,
      contexts: parts.contexts.count,
    }
  }
}

export const NO_LEAKS = { pool: 0, devices: 0, irps: 0, locked: 0, contexts: 0 }
