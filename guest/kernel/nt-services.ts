import type { CompletionPacket } from './completion-port.ts'
import { HandleTable } from './handle-table.ts'
import { DeviceFlag, FileFlag, IrpFlag, Major } from './io-layout.ts'
import { NtObjects, type ObjectParts } from './nt-objects.ts'
import { type ControlRequest, NtRequests, type RequestParts, type TransferRequest } from './nt-requests.ts'
import { NtStatus, ntSuccess } from './nt-status.ts'
import type { ObjectNames } from './object-names.ts'
import type { Waiting } from './thread.ts'
import type { WindowsVersion } from './version.ts'

/** What an open asks for. */
export interface CreateOptions {
  readonly read?: boolean
  readonly write?: boolean
  /** FILE_SYNCHRONOUS_IO_NONALERT or, with `alertable`, _ALERT: one request at a time, and the call waits. */
  readonly synchronous?: boolean
  readonly alertable?: boolean
  /** FILE_NO_INTERMEDIATE_BUFFERING: whole sectors, aligned. */
  readonly unbuffered?: boolean
  /** FILE_WRITE_THROUGH: a write is answered once it is on the medium. */
  readonly writeThrough?: boolean
}

/** A status and, when it is a success, a handle. */
export interface Opened {
  readonly status: NtStatus
  readonly handle: number
}

interface ServiceParts extends RequestParts, ObjectParts {
  readonly names: ObjectNames
}

/**
 * The system services of files, events and ports. Those that answer `Waiting` are called with `yield*` in the
 * application's thread. Pointers and handles come from outside and are checked: what is wrong is a status.
 */
export class NtServices {
  readonly handles: HandleTable
  readonly #parts: ServiceParts
  readonly #requests: NtRequests
  readonly #objects: NtObjects

  constructor(parts: ServiceParts, version: WindowsVersion) {
    this.handles = new HandleTable()
    this.#parts = parts
    this.#requests = new NtRequests(parts, this.handles, version)
    this.#objects = new NtObjects(parts, this.handles, version)
  }

  /** NtCreateFile. */
  *createFile(name: string, options: CreateOptions = {}): Waiting<Opened> {
    const { names, devices, files, hal } = this.#parts
    hal.point()
    const found = names.find(name)
    if (found === null) return { status: NtStatus.OBJECT_NAME_NOT_FOUND, handle: 0 }
    const { device, rest } = found
    if (device.refusesOpens) return { status: NtStatus.NO_SUCH_DEVICE, handle: 0 }
    if ((device.flags & DeviceFlag.EXCLUSIVE) !== 0 && device.referenceCount > 0) {
      return { status: NtStatus.ACCESS_DENIED, handle: 0 }
    }
    const file = files.create(device, rest, {
      synchronous: options.synchronous ?? false,
      alertable: options.alertable ?? false,
      read: options.read ?? true,
      write: options.write ?? true,
    })
    if (file === null) return { status: NtStatus.INSUFFICIENT_RESOURCES, handle: 0 }
    if (options.unbuffered === true) file.flags |= FileFlag.NO_INTERMEDIATE_BUFFERING
    if (options.writeThrough === true) file.flags |= FileFlag.WRITE_THROUGH
    const status = yield* files.send(
      file,
      devices.attached(device),
      Major.CREATE,
      IrpFlag.CREATE_OPERATION | IrpFlag.SYNCHRONOUS_API,
    )
    if (!ntSuccess(status)) {
      // It never was open: the driver sees neither CLEANUP nor CLOSE.
      files.forget(file)
      return { status, handle: 0 }
    }
    file.flags |= FileFlag.FILE_OPEN | FileFlag.HANDLE_CREATED
    file.handles = 1
    return { status, handle: this.handles.insert({ kind: 'file', file }) }
  }

  /** NtClose. */
  *close(handle: number): Waiting {
    const target = this.handles.remove(handle)
    if (target === null) return NtStatus.INVALID_HANDLE
    if (target.kind === 'event') this.#parts.events.dereference(target.event.at)
    else if (target.kind === 'port') target.port.release()
    else yield* this.#parts.files.closeHandle(target.file)
    return NtStatus.SUCCESS
  }

  readFile(handle: number, request: TransferRequest): Waiting {
    return this.#requests.readFile(handle, request)
  }
  writeFile(handle: number, request: TransferRequest): Waiting {
    return this.#requests.writeFile(handle, request)
  }
  deviceIoControlFile(handle: number, request: ControlRequest): Waiting {
    return this.#requests.deviceIoControlFile(handle, request)
  }
  flushBuffersFile(handle: number, iosb: number): Waiting {
    return this.#requests.flushBuffersFile(handle, iosb)
  }
  cancelIoFile(handle: number): Waiting {
    return this.#requests.cancelIoFile(handle)
  }
  /** `iosb` 0: all requests through the handle. */
  cancelIoFileEx(handle: number, iosb: number): NtStatus {
    return this.#requests.cancelIoFileEx(handle, iosb)
  }

  createEvent(notification: boolean, signalled: boolean): Opened {
    return this.#objects.createEvent(notification, signalled)
  }
  setEvent(handle: number): NtStatus {
    return this.#objects.setEvent(handle)
  }
  resetEvent(handle: number): NtStatus {
    return this.#objects.resetEvent(handle)
  }
  createIoCompletion(): Opened {
    return this.#objects.createIoCompletion()
  }
  associatePort(handle: number, port: number, key: number): NtStatus {
    return this.#objects.associatePort(handle, port, key)
  }
  setSkipFlags(handle: number, skipPort: boolean, skipEvent: boolean): NtStatus {
    return this.#objects.setSkipFlags(handle, skipPort, skipEvent)
  }
  removeIoCompletion(handle: number, timeoutUs: number | null = null): Waiting<CompletionPacket | NtStatus> {
    return this.#objects.removeIoCompletion(handle, timeoutUs)
  }
  setIoCompletion(handle: number, packet: CompletionPacket): NtStatus {
    return this.#objects.setIoCompletion(handle, packet)
  }
  waitForSingleObject(handle: number, alertable = false, timeoutUs: number | null = null): Waiting {
    return this.#objects.waitForSingleObject(handle, alertable, timeoutUs)
  }
  delayExecution(us: number, alertable = false): Waiting {
    return this.#objects.delayExecution(us, alertable)
  }
}
