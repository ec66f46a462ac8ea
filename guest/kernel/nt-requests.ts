import type { AddressSpace } from './address-space.ts'
import type { ApcQueue, NormalApcRoutine } from './apc.ts'
import type { Cancellation } from './cancellation.ts'
import type { DeviceObject } from './device-object.ts'
import { KEvent } from './dispatcher-object.ts'
import type { EventObjects } from './event-objects.ts'
import type { FileObject } from './file-object.ts'
import type { FileParts, FileTable } from './file-table.ts'
import type { FinalStage } from './final-stage.ts'
import type { HandleTable } from './handle-table.ts'
import { accessOf } from './io-control.ts'
import { FileFlag, IrpFlag, Major, StackFlag } from './io-layout.ts'
import type { Irp } from './irp.ts'
import type { IrpBuilder } from './irp-builder.ts'
import { Irql } from './irql.ts'
import { IO_STATUS_BLOCK } from './layout.ts'
import { NtStatus, ntError, ntSuccess } from './nt-status.ts'
import type { Routine } from './routine.ts'
import { blockInformation, blockStatus } from './status-block.ts'
import { Mode, settled, type Waiting } from './thread.ts'
import type { ThreadIrps } from './thread-irps.ts'
import type { WindowsVersion } from './version.ts'

/** How the answer of a request reaches the application. */
export interface Answering {
  /** Event handle; 0 or none. */
  readonly event?: number
  /** Called as routine(context, iosb, 0) in the thread that asked, when it waits alertably. */
  readonly apcRoutine?: Routine<NormalApcRoutine>
  /** For the APC, or for the completion packet; 0: no packet. */
  readonly apcContext?: number
  /** IO_STATUS_BLOCK. */
  readonly iosb: number
}

export interface TransferRequest extends Answering {
  readonly buffer: number
  readonly lengthBytes: number
  /** Left out on a synchronous handle: its position. */
  readonly byteOffset?: number
  readonly key?: number
}

export interface ControlRequest extends Answering {
  readonly code: number
  readonly input?: number
  readonly inputBytes?: number
  readonly output?: number
  readonly outputBytes?: number
}

export interface RequestParts extends FileParts {
  readonly space: AddressSpace
  readonly builder: IrpBuilder
  readonly cancellation: Cancellation
  readonly final: FinalStage
  readonly files: FileTable
  readonly events: EventObjects
  readonly apcs: ApcQueue
  readonly threadIrps: ThreadIrps
}

/** Reads, writes, controls, flushes and cancellations, as an application's thread asks for them. */
export class NtRequests {
  readonly #parts: RequestParts
  readonly #handles: HandleTable
  readonly #version: WindowsVersion

  constructor(parts: RequestParts, handles: HandleTable, version: WindowsVersion) {
    this.#parts = parts
    this.#handles = handles
    this.#version = version
  }

  /** NtReadFile. */
  *readFile(handle: number, request: TransferRequest): Waiting {
    return yield* this.#transfer(handle, request, Major.READ)
  }

  /** NtWriteFile. */
  *writeFile(handle: number, request: TransferRequest): Waiting {
    return yield* this.#transfer(handle, request, Major.WRITE)
  }

  *#transfer(
    handle: number,
    request: TransferRequest,
    major: typeof Major.READ | typeof Major.WRITE,
  ): Waiting {
    const write = major === Major.WRITE
    const file = this.#handles.file(handle)
    if (typeof file === 'number') return file
    if (!(write ? file.writeAccess : file.readAccess)) return NtStatus.ACCESS_DENIED
    const { buffer, lengthBytes } = request
    const { space, builder, devices } = this.#parts
    if (!space.accessible(buffer, lengthBytes, !write)) return NtStatus.ACCESS_VIOLATION
    if (!file.isSynchronous && request.byteOffset === undefined) return NtStatus.INVALID_PARAMETER
    const invalid = this.#checkTransfer(file, request)
    if (invalid !== null) return invalid
    const begun = yield* this.#begin(file, request)
    if (typeof begun === 'number') return begun
    const { irp, top } = begun
    const position = request.byteOffset ?? file.currentByteOffset
    const { next } = irp
    next.major = major
    next.fileObject = file.at
    next.lengthBytes = lengthBytes
    next.key = request.key ?? 0
    if (write && (file.flags & FileFlag.WRITE_THROUGH) !== 0) next.flags |= StackFlag.WRITE_THROUGH
    next.byteOffset = position
    irp.flags |= (write ? IrpFlag.WRITE_OPERATION : IrpFlag.READ_OPERATION) | IrpFlag.DEFER_IO_COMPLETION
    const status = builder.attachTransfer(irp, devices.attached(file.device), buffer, lengthBytes, write)
    if (ntError(status)) return this.#abandon(file, irp, status)
    return yield* this.#send(file, top, irp, true, position)
  }

  /** Rules that bind an unbuffered transfer: whole sectors, aligned. */
  #checkTransfer(file: FileObject, request: TransferRequest): NtStatus | null {
    const { sectorSize, alignmentRequirement } = file.device
    if ((file.flags & FileFlag.NO_INTERMEDIATE_BUFFERING) === 0) return null
    if (sectorSize > 0 && request.lengthBytes % sectorSize !== 0) return NtStatus.INVALID_PARAMETER
    return request.buffer % (alignmentRequirement + 1) === 0 ? null : NtStatus.INVALID_PARAMETER
  }

  /** NtDeviceIoControlFile. */
  *deviceIoControlFile(handle: number, request: ControlRequest): Waiting {
    const file = this.#handles.file(handle)
    if (typeof file === 'number') return file
    const access = accessOf(request.code)
    if (((access & 1) !== 0 && !file.readAccess) || ((access & 2) !== 0 && !file.writeAccess)) {
      return NtStatus.ACCESS_DENIED
    }
    const begun = yield* this.#begin(file, request)
    if (typeof begun === 'number') return begun
    const { irp, top } = begun
    irp.next.major = Major.DEVICE_CONTROL
    irp.next.fileObject = file.at
    const status = this.#parts.builder.attachControl(irp, {
      code: request.code,
      input: request.input ?? 0,
      inputBytes: request.inputBytes ?? 0,
      output: request.output ?? 0,
      outputBytes: request.outputBytes ?? 0,
    })
    if (ntError(status)) return this.#abandon(file, irp, status)
    return yield* this.#send(file, top, irp, false, null)
  }

  /** NtFlushBuffersFile: waits, also on an asynchronous handle. */
  *flushBuffersFile(handle: number, iosb: number): Waiting {
    const file = this.#handles.file(handle)
    if (typeof file === 'number') return file
    if (!file.writeAccess) return NtStatus.ACCESS_DENIED
    const { events, waits, space } = this.#parts
    const event = file.isSynchronous ? null : events.create(false, false)
    const begun = yield* this.#begin(file, { iosb })
    if (typeof begun === 'number') {
      if (event !== null) events.dereference(event.at)
      return begun
    }
    const { irp, top } = begun
    irp.next.major = Major.FLUSH_BUFFERS
    irp.next.fileObject = file.at
    if (event !== null) {
      irp.userEvent = event.at
      irp.flags |= IrpFlag.SYNCHRONOUS_API
    }
    let status = yield* this.#send(file, top, irp, false, null)
    if (event !== null) {
      if (status === NtStatus.PENDING) {
        yield* waits.wait([event.at], true)
        status = blockStatus(space, iosb) ?? NtStatus.ACCESS_VIOLATION
      }
      events.dereference(event.at)
    }
    return status
  }

  /** Checks how the answer is to come, takes a synchronous handle's lock, and makes the request. */
  *#begin(file: FileObject, answering: Answering): Waiting<NtStatus | { irp: Irp; top: DeviceObject }> {
    const { files, space, synchronization, devices, irps, events, hal } = this.#parts
    hal.point()
    if (!space.accessible(answering.iosb, IO_STATUS_BLOCK.$size, true)) return NtStatus.ACCESS_VIOLATION
    const apcRoutine = answering.apcRoutine ?? 0
    // One request has one way to be answered in its thread.
    if (apcRoutine !== 0 && file.completion !== null) return NtStatus.INVALID_PARAMETER
    const event =
      answering.event === undefined || answering.event === 0 ? null : this.#handles.event(answering.event)
    if (typeof event === 'number') return event
    if (file.isSynchronous) {
      const status = yield* files.lock(file)
      if (status !== NtStatus.SUCCESS) return status
    }
    if (event !== null) {
      synchronization.resetEvent(event)
      events.reference(event)
    }
    synchronization.resetEvent(new KEvent(file.memory, file.event))
    const top = devices.attached(file.device)
    const irp = irps.allocate(top.stackSize)
    if (irp === null) {
      if (event !== null) events.dereference(event.at)
      if (file.isSynchronous) files.unlock(file)
      return NtStatus.INSUFFICIENT_RESOURCES
    }
    irp.requestorMode = Mode.USER
    irp.userIosb = answering.iosb
    irp.userEvent = event?.at ?? 0
    irp.userApcRoutine = apcRoutine
    irp.userApcContext = answering.apcContext ?? 0
    irp.originalFileObject = file.at
    files.reference(file)
    return { irp, top }
  }

  /** A request that could not be built. */
  #abandon(file: FileObject, irp: Irp, status: NtStatus): NtStatus {
    const { irps, files, events } = this.#parts
    events.dereference(irp.userEvent)
    irps.free(irp)
    files.dereference(file)
    if (file.isSynchronous) files.unlock(file)
    return status
  }

  /** Sends it and, on a synchronous handle, waits for it (IopSynchronousServiceTail). */
  *#send(file: FileObject, top: DeviceObject, irp: Irp, deferred: boolean, position: number | null): Waiting {
    const { builder, flow, final, files, waits, cancellation, memory, apcs, hal } = this.#parts
    const { userIosb } = irp
    builder.queueToThread(irp)
    let status = yield* settled(flow.call(top, irp))
    if (deferred && status !== NtStatus.PENDING) final.inline(irp)
    if (!file.isSynchronous) return status
    if (status === NtStatus.PENDING) {
      const event = new KEvent(memory, file.event)
      const ended = yield* waits.wait([event.at], true, {
        mode: Mode.USER,
        alertable: (file.flags & FileFlag.ALERTABLE_IO) !== 0,
      })
      if (ended !== NtStatus.SUCCESS) {
        // Alerted: the request is called back, and still waited for.
        // At APC level: until the event is set, the request is there.
        const before = hal.raise(Irql.APC)
        if (event.signalState === 0) cancellation.cancel(irp)
        hal.lower(before)
        yield* waits.wait([event.at], true)
        if (ended === NtStatus.USER_APC) apcs.deliverCurrent()
      }
      status = file.finalStatus
    }
    if (position !== null && ntSuccess(status)) {
      file.currentByteOffset = position + (blockInformation(this.#parts.space, userIosb) ?? 0)
    }
    files.unlock(file)
    return status
  }

  /** NtCancelIoFile: the calling thread's requests through this handle, and waits until they are finished. */
  *cancelIoFile(handle: number): Waiting {
    const file = this.#handles.file(handle)
    if (typeof file === 'number') return file
    yield* this.#parts.threadIrps.cancelOfFile(file)
    return NtStatus.SUCCESS
  }

  /**
   * NtCancelIoFileEx: asks that the requests of any thread through this handle be cancelled, all of them or, where
   * `iosb` is not 0, those with that IOSB; does not wait for their ends. NOT_FOUND when there was none;
   * NOT_IMPLEMENTED on Windows XP, which does not export it.
   */
  cancelIoFileEx(handle: number, iosb: number): NtStatus {
    if (!this.#version.cancelsByIosb) return NtStatus.NOT_IMPLEMENTED
    const file = this.#handles.file(handle)
    if (typeof file === 'number') return file
    return this.#parts.threadIrps.cancelByIosb(file, iosb) ? NtStatus.SUCCESS : NtStatus.NOT_FOUND
  }
}
