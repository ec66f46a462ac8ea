import type { AddressSpace } from './address-space.ts'
import type { ApcQueue, NormalApcRoutine } from './apc.ts'
import type { Cancellation } from './cancellation.ts'
import type { DeviceObject } from './device-object.ts'
import type { KEvent } from './dispatcher-object.ts'
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
import { isWaiting, Mode, settled, type Waiting } from './thread.ts'
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

interface Begun {
  readonly irp: Irp
  readonly top: DeviceObject
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
  readFile(handle: number, request: TransferRequest): Waiting {
    return this.#transfer(handle, request, Major.READ)
  }

  /** NtWriteFile. */
  writeFile(handle: number, request: TransferRequest): Waiting {
    return this.#transfer(handle, request, Major.WRITE)
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
    const begun = file.isSynchronous ? yield* this.#beginLocked(file, request) : this.#begin(file, request)
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
    const sent = this.#send(file, top, irp, true, position)
    return isWaiting(sent) ? yield* sent : sent
  }

  /** Rules that bind an unbuffered transfer: whole sectors, aligned. */
  #checkTransfer(file: FileObject, request: TransferRequest): NtStatus | null {
    const { sectorSize, alignmentRequirement } = file.device
    if ((file.flags & FileFlag.NO_INTERMEDIATE_BUFFERING) === 0) return null
    if (sectorSize > 0 && request.lengthBytes % sectorSize !== 0) return NtStatus.INVALID_PARAMETER
    // A mask, of some bits: they are the same in the low half of any address.
    return (request.buffer & alignmentRequirement) === 0 ? null : NtStatus.INVALID_PARAMETER
  }

  /** NtDeviceIoControlFile. */
  *deviceIoControlFile(handle: number, request: ControlRequest): Waiting {
    const file = this.#handles.file(handle)
    if (typeof file === 'number') return file
    const access = accessOf(request.code)
    if (((access & 1) !== 0 && !file.readAccess) || ((access & 2) !== 0 && !file.writeAccess)) {
      return NtStatus.ACCESS_DENIED
    }
    const begun = file.isSynchronous ? yield* this.#beginLocked(file, request) : this.#begin(file, request)
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
    return yield* settled(this.#send(file, top, irp, false, null))
  }

  /** NtFlushBuffersFile: waits, also on an asynchronous handle. */
  *flushBuffersFile(handle: number, iosb: number): Waiting {
    const file = this.#handles.file(handle)
    if (typeof file === 'number') return file
    if (!file.writeAccess) return NtStatus.ACCESS_DENIED
    const { events, waits, space } = this.#parts
    const event = file.isSynchronous ? null : events.create(false, false)
    const begun = file.isSynchronous ? yield* this.#beginLocked(file, { iosb }) : this.#begin(file, { iosb })
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
    let status = yield* settled(this.#send(file, top, irp, false, null))
    if (event !== null) {
      if (status === NtStatus.PENDING) {
        yield* waits.wait([event.at], true)
        status = blockStatus(space, iosb) ?? NtStatus.ACCESS_VIOLATION
      }
      events.dereference(event.at)
    }
    return status
  }

  /** Checks how the answer is to come, and makes the request of an asynchronous handle. */
  #begin(file: FileObject, answering: Answering): Begun | NtStatus {
    const event = this.#admit(file, answering)
    return typeof event === 'number' ? event : this.#make(file, answering, event)
  }

  /** The same for a synchronous handle, whose lock is taken in between. */
  *#beginLocked(file: FileObject, answering: Answering): Waiting<Begun | NtStatus> {
    const event = this.#admit(file, answering)
    if (typeof event === 'number') return event
    const status = yield* this.#parts.files.lock(file)
    return status === NtStatus.SUCCESS ? this.#make(file, answering, event) : status
  }

  /** The event to be set, if any, or why the answer cannot come this way. */
  #admit(file: FileObject, answering: Answering): KEvent | null | NtStatus {
    const { space, hal } = this.#parts
    hal.point()
    if (!space.accessible(answering.iosb, IO_STATUS_BLOCK.$size, true)) return NtStatus.ACCESS_VIOLATION
    // One request has one way to be answered in its thread.
    if ((answering.apcRoutine ?? 0) !== 0 && file.completion !== null) return NtStatus.INVALID_PARAMETER
    const { event } = answering
    return event === undefined || event === 0 ? null : this.#handles.event(event)
  }

  #make(file: FileObject, answering: Answering, event: KEvent | null): Begun | NtStatus {
    const { files, synchronization, devices, irps, events } = this.#parts
    if (event !== null) {
      synchronization.resetEvent(event)
      events.reference(event)
    }
    synchronization.resetEvent(file.ended)
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
    irp.userApcRoutine = answering.apcRoutine ?? 0
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
  #send(
    file: FileObject,
    top: DeviceObject,
    irp: Irp,
    deferred: boolean,
    position: number | null,
  ): NtStatus | Waiting {
    const { builder, flow, final } = this.#parts
    const { userIosb } = irp
    builder.queueToThread(irp)
    const answer = flow.call(top, irp)
    if (isWaiting(answer) || file.isSynchronous) {
      return this.#sent(file, irp, answer, deferred, position, userIosb)
    }
    if (deferred && answer !== NtStatus.PENDING) final.inline(irp)
    return answer
  }

  *#sent(
    file: FileObject,
    irp: Irp,
    answer: NtStatus | Waiting,
    deferred: boolean,
    position: number | null,
    userIosb: number,
  ): Waiting {
    const { final, files } = this.#parts
    let status = yield* settled(answer)
    if (deferred && status !== NtStatus.PENDING) final.inline(irp)
    if (!file.isSynchronous) return status
    if (status === NtStatus.PENDING) status = yield* this.#ended(file, irp)
    if (position !== null && ntSuccess(status)) {
      file.currentByteOffset = position + (blockInformation(this.#parts.space, userIosb) ?? 0)
    }
    files.unlock(file)
    return status
  }

  /** Waits until the request of a synchronous handle has ended. */
  *#ended(file: FileObject, irp: Irp): Waiting {
    const { waits, cancellation, apcs, hal } = this.#parts
    const ended = yield* waits.wait([file.event], true, {
      mode: Mode.USER,
      alertable: (file.flags & FileFlag.ALERTABLE_IO) !== 0,
    })
    if (ended !== NtStatus.SUCCESS) {
      // Alerted: the request is called back, and still waited for.
      // At APC level: until the event is set, the request is there.
      const before = hal.raise(Irql.APC)
      if (file.ended.signalState === 0) cancellation.cancel(irp)
      hal.lower(before)
      yield* waits.wait([file.event], true)
      if (ended === NtStatus.USER_APC) apcs.deliverCurrent()
    }
    return file.finalStatus
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
