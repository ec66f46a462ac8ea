import type { ApcQueue } from './apc.ts'
import { type CompletionPacket, CompletionPort } from './completion-port.ts'
import type { EventObjects } from './event-objects.ts'
import type { FileTable } from './file-table.ts'
import type { Hal } from './hal.ts'
import type { HandleTable } from './handle-table.ts'
import { FileFlag } from './io-layout.ts'
import { NtStatus } from './nt-status.ts'
import type { Pool } from './pool.ts'
import type { Synchronization } from './synchronization.ts'
import { Mode, type Waiting } from './thread.ts'
import type { WindowsVersion } from './version.ts'
import type { Waits } from './wait.ts'

export interface ObjectParts {
  readonly hal: Hal
  readonly pool: Pool
  readonly waits: Waits
  readonly synchronization: Synchronization
  readonly files: FileTable
  readonly events: EventObjects
  readonly apcs: ApcQueue
}

/** Events, completion ports and waiting for them, as an application's thread asks for them. */
export class NtObjects {
  readonly #parts: ObjectParts
  readonly #handles: HandleTable
  readonly #version: WindowsVersion

  constructor(parts: ObjectParts, handles: HandleTable, version: WindowsVersion) {
    this.#parts = parts
    this.#handles = handles
    this.#version = version
  }

  /** NtCreateIoCompletion. */
  createIoCompletion(): { status: NtStatus; handle: number } {
    const { pool, hal, synchronization, waits } = this.#parts
    const port = CompletionPort.create(pool, hal, synchronization, waits)
    if (port === null) return { status: NtStatus.INSUFFICIENT_RESOURCES, handle: 0 }
    return { status: NtStatus.SUCCESS, handle: this.#handles.insert({ kind: 'port', port }) }
  }

  /** FileCompletionInformation: once for each open, and not for a synchronous one. */
  associatePort(handle: number, portHandle: number, key: number): NtStatus {
    const file = this.#handles.file(handle)
    if (typeof file === 'number') return file
    const port = this.#handles.port(portHandle)
    if (typeof port === 'number') return port
    if (file.completion !== null || file.isSynchronous) return NtStatus.INVALID_PARAMETER
    port.reference()
    file.completion = { port, key }
    return NtStatus.SUCCESS
  }

  /** FileIoCompletionNotificationInformation (Vista): what is not told of a request that answered at once. */
  setSkipFlags(handle: number, skipPort: boolean, skipEvent: boolean): NtStatus {
    if (!this.#version.skipsOnSuccess) return NtStatus.INVALID_INFO_CLASS
    const file = this.#handles.file(handle)
    if (typeof file === 'number') return file
    if (file.isSynchronous) return NtStatus.INVALID_PARAMETER
    file.flags |= (skipPort ? FileFlag.SKIP_COMPLETION_PORT : 0) | (skipEvent ? FileFlag.SKIP_SET_EVENT : 0)
    return NtStatus.SUCCESS
  }

  /** NtRemoveIoCompletion. */
  *removeIoCompletion(handle: number, timeoutUs: number | null = null): Waiting<CompletionPacket | NtStatus> {
    const port = this.#handles.port(handle)
    if (typeof port === 'number') return port
    port.reference()
    const packet = yield* port.remove(timeoutUs)
    port.release()
    return packet
  }

  /** NtSetIoCompletion. */
  setIoCompletion(handle: number, packet: CompletionPacket): NtStatus {
    const port = this.#handles.port(handle)
    if (typeof port === 'number') return port
    port.post(packet.key, packet.apcContext, packet.status, packet.information)
    return NtStatus.SUCCESS
  }

  /** NtCreateEvent. */
  createEvent(notification: boolean, signalled: boolean): { status: NtStatus; handle: number } {
    const event = this.#parts.events.create(notification, signalled)
    if (event === null) return { status: NtStatus.INSUFFICIENT_RESOURCES, handle: 0 }
    return { status: NtStatus.SUCCESS, handle: this.#handles.insert({ kind: 'event', event }) }
  }

  setEvent(handle: number): NtStatus {
    const event = this.#handles.event(handle)
    if (typeof event === 'number') return event
    this.#parts.hal.point()
    this.#parts.synchronization.setEvent(event)
    return NtStatus.SUCCESS
  }

  resetEvent(handle: number): NtStatus {
    const event = this.#handles.event(handle)
    if (typeof event === 'number') return event
    this.#parts.synchronization.resetEvent(event)
    return NtStatus.SUCCESS
  }

  /** NtWaitForSingleObject for an event or a file; user APCs run before it answers USER_APC. */
  *waitForSingleObject(handle: number, alertable = false, timeoutUs: number | null = null): Waiting {
    const target = this.#handles.find(handle)
    if (target === null) return NtStatus.INVALID_HANDLE
    if (target.kind === 'port') return NtStatus.OBJECT_TYPE_MISMATCH
    const { files, events, waits } = this.#parts
    const at = target.kind === 'file' ? target.file.event : target.event.at
    if (target.kind === 'file') files.reference(target.file)
    else events.reference(target.event)
    const status = yield* waits.wait([at], true, { mode: Mode.USER, alertable, timeoutUs })
    if (target.kind === 'file') yield* files.release(target.file)
    else events.dereference(target.event.at)
    if (status === NtStatus.USER_APC) this.#parts.apcs.deliverCurrent()
    return status
  }

  /** NtDelayExecution: SleepEx. */
  *delayExecution(us: number, alertable = false): Waiting {
    const status = yield* this.#parts.waits.delay(us, { mode: Mode.USER, alertable })
    if (status === NtStatus.USER_APC) this.#parts.apcs.deliverCurrent()
    return status
  }
}
