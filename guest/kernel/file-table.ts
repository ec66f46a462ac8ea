import { BugCode, keBugCheckEx } from './bug-check.ts'
import type { DeviceObject } from './device-object.ts'
import type { DeviceTable } from './device-table.ts'
import { KEvent } from './dispatcher-object.ts'
import { FileObject } from './file-object.ts'
import type { FileLookup } from './final-stage.ts'
import type { Hal } from './hal.ts'
import { FILE_OBJECT, FileFlag, IoType, IrpFlag, Major } from './io-layout.ts'
import type { IrpFlow } from './irp-flow.ts'
import type { IrpPool } from './irp-pool.ts'
import type { KernelMemory } from './kernel-memory.ts'
import { IO_STATUS_BLOCK, KEVENT } from './layout.ts'
import { NtStatus } from './nt-status.ts'
import { type Pool, PoolType, poolTag } from './pool.ts'
import type { Scheduler } from './scheduler.ts'
import type { Synchronization } from './synchronization.ts'
import { settled, type Waiting } from './thread.ts'
import type { Waits } from './wait.ts'
import type { WorkQueue } from './work-queue.ts'

const FILE_TAG = poolTag('File')

export interface FileParts {
  readonly memory: KernelMemory
  readonly hal: Hal
  readonly pool: Pool
  readonly irps: IrpPool
  readonly flow: IrpFlow
  readonly devices: DeviceTable
  readonly scheduler: Scheduler
  readonly synchronization: Synchronization
  readonly waits: Waits
  readonly work: WorkQueue
}

export interface FileOptions {
  readonly synchronous: boolean
  readonly alertable: boolean
  readonly read: boolean
  readonly write: boolean
}

/** File objects: one for each open. CLEANUP when the last handle closes, CLOSE when the last reference goes. */
export class FileTable implements FileLookup {
  readonly #parts: FileParts
  readonly #files: Map<number, FileObject>
  /** Told after each file object that goes: who waits for the last open of a device. */
  forgotten: (() => void) | null

  constructor(parts: FileParts) {
    this.#parts = parts
    this.#files = new Map()
    this.forgotten = null
  }

  get count(): number {
    return this.#files.size
  }
  get all(): Iterable<FileObject> {
    return this.#files.values()
  }

  /** The file object at `at`; null for 0. */
  fileAt(at: number): FileObject | null {
    if (at === 0) return null
    return this.#files.get(at) ?? keBugCheckEx(BugCode.PAGE_FAULT_IN_NONPAGED_AREA, at)
  }

  /** Null when memory is short. It holds the device until it is closed. */
  create(device: DeviceObject, fileName: string, options: FileOptions): FileObject | null {
    const { memory, hal, pool, devices, synchronization } = this.#parts
    const at = pool.allocate(PoolType.NON_PAGED, FILE_OBJECT.$size, FILE_TAG, hal.irql)
    if (at === 0) return null
    memory.zero(at, FILE_OBJECT.$size)
    const { window } = memory
    const file = new FileObject(memory, at, device, fileName)
    window.putLe16(FILE_OBJECT.type, IoType.FILE, at)
    window.putLe16(FILE_OBJECT.size, FILE_OBJECT.$size, at)
    window.putLe64(FILE_OBJECT.deviceObject, device.at, at)
    file.flags =
      (options.synchronous ? FileFlag.SYNCHRONOUS_IO : 0) | (options.alertable ? FileFlag.ALERTABLE_IO : 0)
    file.readAccess = options.read
    file.writeAccess = options.write
    synchronization.initializeEvent(file.lock, false, false)
    synchronization.initializeEvent(file.event, true, false)
    devices.reference(device)
    this.#files.set(at, file)
    return file
  }

  reference(file: FileObject): void {
    file.references++
  }

  /** A request let go of the file. The last one closes it, in a system thread, since closing may wait. */
  dereference(file: FileObject): void {
    file.references--
    if (file.references === 0) this.#parts.work.spawn(this.#close(file))
  }

  /** The same, in a thread that can wait. */
  *release(file: FileObject): Waiting<void> {
    file.references--
    if (file.references === 0) yield* this.#close(file)
  }

  /** One handle is closed: the last one sends CLEANUP. */
  *closeHandle(file: FileObject): Waiting<void> {
    file.handles--
    if (file.handles === 0) {
      // A synchronous handle's requests are over before its cleanup begins.
      if (file.isSynchronous) yield* this.lock(file)
      yield* this.send(
        file,
        this.#parts.devices.attached(file.device),
        Major.CLEANUP,
        IrpFlag.SYNCHRONOUS_API,
      )
      file.flags |= FileFlag.CLEANUP_COMPLETE
      if (file.isSynchronous) this.unlock(file)
    }
    yield* this.release(file)
  }

  *#close(file: FileObject): Waiting<void> {
    // An open that failed was never seen as one by the driver.
    if ((file.flags & FileFlag.FILE_OPEN) !== 0) {
      yield* this.send(
        file,
        this.#parts.devices.attached(file.device),
        Major.CLOSE,
        IrpFlag.CLOSE_OPERATION | IrpFlag.SYNCHRONOUS_API,
      )
    }
    this.forget(file)
  }

  /** Frees the object itself. */
  forget(file: FileObject): void {
    const { hal, pool, devices } = this.#parts
    file.completion?.port.release()
    this.#files.delete(file.at)
    pool.free(file.at, hal.irql)
    devices.dereference(file.device)
    this.forgotten?.()
  }

  /**
   * Sends CREATE, CLEANUP or CLOSE to `top` and waits for it. Only CREATE may fail: for want of memory too,
   * while the others stop the system then (Windows waits for memory; this kernel has no reserve).
   */
  *send(file: FileObject, top: DeviceObject, major: Major, flags: number): Waiting {
    const { hal, pool, irps, flow, scheduler, synchronization, waits, memory } = this.#parts
    const room = pool.allocate(PoolType.NON_PAGED, IO_STATUS_BLOCK.$size + KEVENT.$size, FILE_TAG, hal.irql)
    const irp = room === 0 ? null : irps.allocate(top.stackSize)
    if (irp === null) {
      if (room !== 0) pool.free(room, hal.irql)
      return major === Major.CREATE
        ? NtStatus.INSUFFICIENT_RESOURCES
        : keBugCheckEx(BugCode.BAD_POOL_CALLER, 0, file.at)
    }
    const event = synchronization.initializeEvent(room + IO_STATUS_BLOCK.$size, false, false)
    irp.flags = flags
    irp.userIosb = room
    irp.userEvent = event.at
    irp.thread = scheduler.current?.at ?? 0
    irp.originalFileObject = file.at
    const { next } = irp
    next.major = major
    next.fileObject = file.at
    // The final stage lets go of the file for every request but CREATE and CLOSE.
    if (major === Major.CLEANUP) file.references++
    let status = yield* settled(flow.call(top, irp))
    if (status === NtStatus.PENDING) {
      yield* waits.wait([event.at], true)
      status = memory.window.le32(IO_STATUS_BLOCK.status, room) as NtStatus
    }
    if (major === Major.CLOSE) irps.free(irp)
    pool.free(room, hal.irql)
    return status
  }

  /** The lock of a synchronous handle: one request at a time. */
  *lock(file: FileObject): Waiting {
    const { waits } = this.#parts
    while (file.busy) {
      file.waiters++
      const status = yield* waits.wait([file.lock], true, {
        alertable: (file.flags & FileFlag.ALERTABLE_IO) !== 0,
        mode: 1,
      })
      file.waiters--
      if (status !== NtStatus.WAIT_0) return status
    }
    file.busy = true
    file.references++
    return NtStatus.SUCCESS
  }

  unlock(file: FileObject): void {
    file.busy = false
    const lock = new KEvent(file.memory, file.lock)
    if (file.waiters > 0) this.#parts.synchronization.setEvent(lock)
    this.dereference(file)
  }
}
