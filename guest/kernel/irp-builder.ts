import type { AddressSpace } from './address-space.ts'
import type { DeviceObject } from './device-object.ts'
import type { Hal } from './hal.ts'
import { Method, methodOf } from './io-control.ts'
import { IrpFlag, Major } from './io-layout.ts'
import type { Irp } from './irp.ts'
import type { IrpPool } from './irp-pool.ts'
import { insertHead } from './list.ts'
import { LockOperation, type Mdls } from './mdl.ts'
import { NtStatus, ntError } from './nt-status.ts'
import { type Pool, PoolType, poolTag } from './pool.ts'
import type { Scheduler } from './scheduler.ts'

const BUFFER_TAG = poolTag('IoSB')

/** Majors whose requests carry no buffer of the caller. */
const WITHOUT_BUFFER: readonly number[] = [Major.FLUSH_BUFFERS, Major.SHUTDOWN, Major.PNP, Major.POWER]

export interface FsdRequest {
  readonly major: Major
  readonly device: DeviceObject
  /** Address, or 0. */
  readonly buffer?: number
  readonly lengthBytes?: number
  readonly byteOffset?: number
  /** IO_STATUS_BLOCK, or 0. */
  readonly iosb?: number
}

export interface DeviceControlRequest {
  readonly code: number
  readonly device: DeviceObject
  readonly input?: number
  readonly inputBytes?: number
  readonly output?: number
  readonly outputBytes?: number
  /** INTERNAL_DEVICE_CONTROL instead of DEVICE_CONTROL. */
  readonly internal?: boolean
  /** KEVENT. */
  readonly event?: number
  readonly iosb?: number
}

/** Builds requests with their buffers (IoBuild*Request). */
export class IrpBuilder {
  readonly #hal: Hal
  readonly #pool: Pool
  readonly #space: AddressSpace
  readonly #mdls: Mdls
  readonly #irps: IrpPool
  readonly #scheduler: Scheduler

  constructor(hal: Hal, pool: Pool, space: AddressSpace, mdls: Mdls, irps: IrpPool, scheduler: Scheduler) {
    this.#hal = hal
    this.#pool = pool
    this.#space = space
    this.#mdls = mdls
    this.#irps = irps
    this.#scheduler = scheduler
  }

  /**
   * IoBuildAsynchronousFsdRequest: not in the thread's list. Whoever made it frees it in its completion
   * routine and answers MORE_PROCESSING_REQUIRED. Null when memory is short or the buffer is not accessible.
   */
  asynchronous(request: FsdRequest): Irp | null {
    const { major, device } = request
    const irp = this.#irps.allocate(device.stackSize)
    if (irp === null) return null
    const { next } = irp
    next.major = major
    if (!WITHOUT_BUFFER.includes(major)) {
      const lengthBytes = request.lengthBytes ?? 0
      const status = this.attachTransfer(irp, device, request.buffer ?? 0, lengthBytes, major === Major.WRITE)
      if (ntError(status)) {
        this.#irps.free(irp)
        return null
      }
      if (major === Major.READ || major === Major.WRITE) {
        next.lengthBytes = lengthBytes
        next.byteOffset = request.byteOffset ?? 0
      }
    }
    irp.userIosb = request.iosb ?? 0
    irp.thread = this.#scheduler.current?.at ?? 0
    return irp
  }

  /** IoBuildSynchronousFsdRequest: the I/O manager frees it; its maker waits for `event` in the same thread. */
  synchronous(request: FsdRequest, event: number): Irp | null {
    const irp = this.asynchronous(request)
    if (irp === null) return null
    irp.userEvent = event
    this.queueToThread(irp)
    return irp
  }

  /** IoBuildDeviceIoControlRequest: threaded too. */
  deviceControl(request: DeviceControlRequest): Irp | null {
    const irp = this.#irps.allocate(request.device.stackSize)
    if (irp === null) return null
    const { next } = irp
    next.major = request.internal === true ? Major.INTERNAL_DEVICE_CONTROL : Major.DEVICE_CONTROL
    const status = this.attachControl(irp, {
      code: request.code,
      input: request.input ?? 0,
      inputBytes: request.inputBytes ?? 0,
      output: request.output ?? 0,
      outputBytes: request.outputBytes ?? 0,
    })
    if (ntError(status)) {
      this.#irps.free(irp)
      return null
    }
    irp.userIosb = request.iosb ?? 0
    irp.userEvent = request.event ?? 0
    this.queueToThread(irp)
    return irp
  }

  /** IoMakeAssociatedIrp: a part of the master's work; the last one to finish completes the master. */
  associated(master: Irp, stackCount: number): Irp | null {
    const irp = this.#irps.allocate(stackCount)
    if (irp === null) return null
    irp.flags |= IrpFlag.ASSOCIATED_IRP
    irp.thread = master.thread
    irp.masterIrp = master.at
    return irp
  }

  /** Makes it one of the current thread's requests: cancelled and waited for when the thread ends. */
  queueToThread(irp: Irp): void {
    const thread = this.#scheduler.current
    if (thread === null) return
    irp.thread = thread.at
    insertHead(thread.memory, thread.irpList, irp.threadListEntry)
  }

  /**
   * The buffer of a read or write by the device's flags: a system buffer, an MDL, or the pointer as it is.
   * On an error status nothing stays allocated.
   */
  attachTransfer(
    irp: Irp,
    device: DeviceObject,
    buffer: number,
    lengthBytes: number,
    write: boolean,
  ): NtStatus {
    if (device.isBuffered) return this.#attachBuffered(irp, buffer, lengthBytes, write)
    if (device.isDirect) {
      return this.attachMdl(irp, buffer, lengthBytes, write ? LockOperation.READ : LockOperation.WRITE)
    }
    irp.userBuffer = buffer
    return NtStatus.SUCCESS
  }

  #attachBuffered(irp: Irp, buffer: number, lengthBytes: number, write: boolean): NtStatus {
    if (lengthBytes > 0) {
      const status = this.#attachSystemBuffer(irp, lengthBytes, write ? buffer : 0, write ? lengthBytes : 0)
      if (ntError(status)) return status
      irp.flags |= IrpFlag.DEALLOCATE_BUFFER
    }
    irp.flags |= IrpFlag.BUFFERED_IO | (write ? 0 : IrpFlag.INPUT_OPERATION)
    if (!write) irp.userBuffer = buffer
    return NtStatus.SUCCESS
  }

  /** A pool buffer whose first bytes are copied from `input`. The rest is whatever was there before. */
  #attachSystemBuffer(irp: Irp, lengthBytes: number, input: number, inputBytes: number): NtStatus {
    const at = this.#pool.allocate(PoolType.NON_PAGED, lengthBytes, BUFFER_TAG, this.#hal.irql)
    if (at === 0) return NtStatus.INSUFFICIENT_RESOURCES
    if (
      inputBytes > 0 &&
      !this.#space.copyOut(input, this.#space.memory.bytes.subarray(at, at + inputBytes))
    ) {
      this.#pool.free(at, this.#hal.irql)
      return NtStatus.ACCESS_VIOLATION
    }
    irp.systemBuffer = at
    return NtStatus.SUCCESS
  }

  /** Describes and locks a buffer; nothing for a length of zero. */
  attachMdl(irp: Irp, buffer: number, lengthBytes: number, operation: LockOperation): NtStatus {
    if (lengthBytes === 0) return NtStatus.SUCCESS
    const mdl = this.#mdls.allocate(buffer, lengthBytes)
    if (mdl === null) return NtStatus.INSUFFICIENT_RESOURCES
    const status = this.#mdls.probeAndLock(mdl, operation)
    if (ntError(status)) {
      this.#mdls.free(mdl)
      return status
    }
    irp.mdlAddress = mdl.at
    return NtStatus.SUCCESS
  }

  /** The buffers of a device control by its method. On an error status nothing stays allocated. */
  attachControl(irp: Irp, control: ControlBuffers): NtStatus {
    const { next } = irp
    next.outputBufferLengthBytes = control.outputBytes
    next.inputBufferLengthBytes = control.inputBytes
    next.ioControlCode = control.code
    switch (methodOf(control.code)) {
      case Method.BUFFERED:
        return this.#attachControlBuffered(irp, control)
      case Method.NEITHER:
        irp.userBuffer = control.output
        next.type3InputBuffer = control.input
        return NtStatus.SUCCESS
      default:
        return this.#attachControlDirect(irp, control)
    }
  }

  #attachControlBuffered(irp: Irp, control: ControlBuffers): NtStatus {
    const { input, inputBytes, output, outputBytes } = control
    const lengthBytes = Math.max(inputBytes, outputBytes)
    if (lengthBytes === 0) return NtStatus.SUCCESS
    const status = this.#attachSystemBuffer(irp, lengthBytes, input, inputBytes)
    if (ntError(status)) return status
    irp.userBuffer = output
    irp.flags |= IrpFlag.BUFFERED_IO | IrpFlag.DEALLOCATE_BUFFER
    // The pointer decides, not its length: what the driver says it returns is copied.
    if (output !== 0) irp.flags |= IrpFlag.INPUT_OPERATION
    return NtStatus.SUCCESS
  }

  #attachControlDirect(irp: Irp, control: ControlBuffers): NtStatus {
    const { input, inputBytes, output, outputBytes } = control
    if (inputBytes > 0) {
      const status = this.#attachSystemBuffer(irp, inputBytes, input, inputBytes)
      if (ntError(status)) return status
      irp.flags |= IrpFlag.BUFFERED_IO | IrpFlag.DEALLOCATE_BUFFER
    }
    // Named for what the device does: in-direct takes the caller's data from the second buffer.
    const operation = methodOf(control.code) === Method.IN_DIRECT ? LockOperation.READ : LockOperation.WRITE
    const status = this.attachMdl(irp, output, outputBytes, operation)
    if (ntError(status)) this.releaseBuffers(irp)
    return status
  }

  /** Takes back what `attach…` attached, of a request that is not sent. */
  releaseBuffers(irp: Irp): void {
    if ((irp.flags & IrpFlag.DEALLOCATE_BUFFER) !== 0) this.#pool.free(irp.systemBuffer, this.#hal.irql)
    irp.flags &= ~(IrpFlag.DEALLOCATE_BUFFER | IrpFlag.BUFFERED_IO | IrpFlag.INPUT_OPERATION)
    if (irp.mdlAddress === 0) return
    const mdl = this.#mdls.at(irp.mdlAddress)
    irp.mdlAddress = 0
    this.#mdls.unlock(mdl)
    this.#mdls.free(mdl)
  }
}

export interface ControlBuffers {
  readonly code: number
  readonly input: number
  readonly inputBytes: number
  readonly output: number
  readonly outputBytes: number
}
