import type { AddressSpace } from './address-space.ts'
import type { ApcQueue, KernelApcRoutine, NormalApcRoutine, RundownApcRoutine } from './apc.ts'
import { BugCode, keBugCheckEx } from './bug-check.ts'
import { KEvent } from './dispatcher-object.ts'
import type { EventObjects } from './event-objects.ts'
import type { FileObject } from './file-object.ts'
import type { Hal } from './hal.ts'
import { FileFlag, IoType, IRP_TAIL_APC, IrpFlag } from './io-layout.ts'
import type { Irp } from './irp.ts'
import type { IrpPool } from './irp-pool.ts'
import { Irql } from './irql.ts'
import { KAPC } from './layout.ts'
import { removeEntry } from './list.ts'
import type { Mdls } from './mdl.ts'
import { NtStatus, ntError } from './nt-status.ts'
import type { Pool } from './pool.ts'
import type { Routine, RoutineTable } from './routine.ts'
import type { Scheduler } from './scheduler.ts'
import { putStatusBlock } from './status-block.ts'
import type { Synchronization } from './synchronization.ts'
import { Mode, type Thread } from './thread.ts'

/** What the final stage needs to know of open files. */
export interface FileLookup {
  fileAt(at: number): FileObject | null
  /** A request that held the file is done. */
  dereference(file: FileObject): void
}

interface FinalStageParts {
  readonly hal: Hal
  readonly pool: Pool
  readonly space: AddressSpace
  readonly mdls: Mdls
  readonly irps: IrpPool
  readonly scheduler: Scheduler
  readonly apcs: ApcQueue
  readonly routines: RoutineTable
  readonly synchronization: Synchronization
  readonly events: EventObjects
}

/**
 * What the originator sees of a finished request, and when not: buffers copied back, the I/O status block, an
 * event, an APC or a completion packet. All of it happens in the requesting thread, by a special kernel APC.
 */
export class FinalStage {
  readonly #parts: FinalStageParts
  readonly #completionApc: Routine<KernelApcRoutine>
  readonly #abortApc: Routine<RundownApcRoutine>
  readonly #userCompletion: Routine<KernelApcRoutine>
  readonly #userRundown: Routine<RundownApcRoutine>
  readonly #files: FileLookup
  /** Completes the master of the last associated request. */
  readonly #completeMaster: (irp: Irp, boost: number) => void

  constructor(parts: FinalStageParts, files: FileLookup, completeMaster: (irp: Irp, boost: number) => void) {
    const { routines, irps } = parts
    this.#parts = parts
    this.#files = files
    this.#completeMaster = completeMaster
    // The APC overlays the request's tail, the file object with it: it travels as the APC's argument.
    const fileOf = (apc: number): number => parts.space.memory.pointer(apc + KAPC.systemArgument1)
    this.#completionApc = routines.register((apc: number, thread: Thread) =>
      this.#inThread(irps.irpAt(apc - IRP_TAIL_APC), thread, fileOf(apc)),
    )
    this.#abortApc = routines.register((apc: number) =>
      this.#drop(irps.irpAt(apc - IRP_TAIL_APC), fileOf(apc)),
    )
    this.#userCompletion = routines.register((apc: number) => irps.free(irps.irpAt(apc - IRP_TAIL_APC)))
    this.#userRundown = routines.register((apc: number) => irps.free(irps.irpAt(apc - IRP_TAIL_APC)))
  }

  /** All locations are unwound (the second half of IoCompleteRequest). */
  finish(irp: Irp, boost: number): void {
    const { flags } = irp
    if ((flags & IrpFlag.ASSOCIATED_IRP) !== 0) this.#finishAssociated(irp, boost)
    else if ((flags & (IrpFlag.PAGING_IO | IrpFlag.CLOSE_OPERATION)) !== 0) this.#finishPaging(irp)
    else this.#finishOrdinary(irp)
  }

  #finishOrdinary(irp: Irp): void {
    for (let at = irp.mdlAddress; at !== 0; ) {
      const mdl = this.#parts.mdls.at(at)
      at = mdl.next
      this.#parts.mdls.unlock(mdl)
    }
    // The caller is this thread and still on the stack: it finishes the request itself.
    if ((irp.flags & IrpFlag.DEFER_IO_COMPLETION) !== 0 && !irp.pendingReturned) return
    const thread = this.#parts.scheduler.threadAt(irp.thread)
    if (thread === null || thread.state === 'ended') {
      this.#drop(irp, irp.originalFileObject)
      return
    }
    const { apcs } = this.#parts
    const { tailApc, originalFileObject } = irp
    apcs.initialize(tailApc, thread, { kernel: this.#completionApc, rundown: this.#abortApc })
    apcs.insert(tailApc, thread, originalFileObject)
  }

  #finishAssociated(irp: Irp, boost: number): void {
    const master = this.#parts.irps.irpAt(irp.masterIrp)
    this.#freeMdls(irp)
    this.#parts.irps.free(irp)
    master.irpCount -= 1
    if (master.irpCount === 0) this.#completeMaster(master, boost)
  }

  /** Paging I/O is freed here; a CLOSE by who made it. */
  #finishPaging(irp: Irp): void {
    const paging = (irp.flags & IrpFlag.PAGING_IO) !== 0
    this.#writeIosb(irp)
    const { userEvent } = irp
    if (paging) this.#parts.irps.free(irp)
    if (userEvent !== 0) this.#parts.synchronization.setEvent(this.#event(userEvent))
  }

  /** The final stage itself (IopCompleteRequest), at APC level in the requesting thread. */
  #inThread(irp: Irp, thread: Thread, fileObject: number): void {
    const file = this.#files.fileAt(fileObject)
    // Read before the request is freed below.
    const held = this.#heldEvent(irp, file)
    const opening = (irp.flags & IrpFlag.CREATE_OPERATION) !== 0
    this.#releaseBuffers(irp)
    this.#dequeue(irp)
    const synchronous = (irp.flags & IrpFlag.SYNCHRONOUS_API) !== 0 || file?.isSynchronous === true
    if (!ntError(irp.status) || (irp.pendingReturned && !synchronous)) this.#announce(irp, thread, file)
    else this.#announceError(irp, file)
    this.#parts.events.dereference(held)
    if (file !== null && !opening) this.#files.dereference(file)
  }

  /** The application's event, which the request has kept; 0 when it is the I/O manager's own. */
  #heldEvent(irp: Irp, file: FileObject | null): number {
    return file !== null && (irp.flags & IrpFlag.SYNCHRONOUS_API) === 0 ? irp.userEvent : 0
  }

  /** Success, or an error of a request that answered PENDING to an asynchronous caller. */
  #announce(irp: Irp, thread: Thread, file: FileObject | null): void {
    const { status, information, userApcRoutine, userApcContext, userEvent } = irp
    const iosb = irp.userIosb
    const create = (irp.flags & IrpFlag.CREATE_OPERATION) !== 0
    this.#writeIosb(irp)
    const skip = file !== null && !irp.pendingReturned ? file.flags : 0
    if (userEvent !== 0) {
      this.#parts.synchronization.setEvent(this.#event(userEvent))
      if (file?.isSynchronous === true && (irp.flags & IrpFlag.OB_QUERY_NAME) === 0)
        this.#setFileEvent(irp, file)
    } else if (file !== null && (skip & FileFlag.SKIP_SET_EVENT) === 0) this.#setFileEvent(irp, file)
    if (userApcRoutine !== 0 && !create) {
      const { apcs } = this.#parts
      const { tailApc } = irp
      apcs.initialize(tailApc, thread, {
        kernel: this.#userCompletion,
        rundown: this.#userRundown,
        normal: userApcRoutine as Routine<NormalApcRoutine>,
        mode: irp.requestorMode === Mode.USER ? Mode.USER : Mode.KERNEL,
        context: userApcContext,
      })
      apcs.insert(tailApc, thread, iosb)
      return
    }
    const completion = file?.completion ?? null
    this.#parts.irps.free(irp)
    if (
      completion !== null &&
      userApcContext !== 0 &&
      !create &&
      (skip & FileFlag.SKIP_COMPLETION_PORT) === 0
    ) {
      completion.port.post(completion.key, userApcContext, status, information)
    }
  }

  /** An error that the caller learns from the answer of its call, or by waiting for its synchronous handle. */
  #announceError(irp: Irp, file: FileObject | null): void {
    if (irp.pendingReturned && file !== null) {
      if ((irp.flags & IrpFlag.SYNCHRONOUS_API) !== 0) {
        this.#writeIosb(irp)
        if (irp.userEvent !== 0) this.#parts.synchronization.setEvent(this.#event(irp.userEvent))
        else this.#setFileEvent(irp, file)
      } else this.#setFileEvent(irp, file)
    }
    this.#parts.irps.free(irp)
  }

  #setFileEvent(irp: Irp, file: FileObject): void {
    file.finalStatus = irp.status
    this.#parts.synchronization.setEvent(file.ended)
  }

  /** Copies a buffered answer back and frees what the I/O manager allocated. */
  #releaseBuffers(irp: Irp): void {
    const { flags } = irp
    if ((flags & IrpFlag.BUFFERED_IO) !== 0) {
      if (
        (flags & IrpFlag.INPUT_OPERATION) !== 0 &&
        !ntError(irp.status) &&
        irp.status !== NtStatus.VERIFY_REQUIRED &&
        irp.information > 0 &&
        !this.#copyBack(irp)
      ) {
        irp.status = NtStatus.ACCESS_VIOLATION
      }
      if ((flags & IrpFlag.DEALLOCATE_BUFFER) !== 0 && irp.systemBuffer !== 0) {
        this.#parts.pool.free(irp.systemBuffer, this.#parts.hal.irql)
      }
    }
    irp.flags = flags & ~(IrpFlag.BUFFERED_IO | IrpFlag.DEALLOCATE_BUFFER)
    this.#freeMdls(irp)
  }

  /** Information bytes as the driver says, which may be more than the caller has room for. */
  #copyBack(irp: Irp): boolean {
    const { bytes } = this.#parts.space.memory
    const from = irp.systemBuffer
    if (!(irp.information <= bytes.length - from)) return false
    return this.#parts.space.copyIn(irp.userBuffer, bytes.subarray(from, from + irp.information))
  }

  #freeMdls(irp: Irp): void {
    const { mdls } = this.#parts
    for (let at = irp.mdlAddress; at !== 0; ) {
      const mdl = mdls.at(at)
      at = mdl.next
      mdls.free(mdl)
    }
    irp.mdlAddress = 0
  }

  #writeIosb(irp: Irp): void {
    const { userIosb } = irp
    if (userIosb === 0) return
    // A user's block that is gone by now is the user's loss.
    putStatusBlock(this.#parts.space, userIosb, irp.status, irp.information)
  }

  #event(at: number): KEvent {
    return new KEvent(this.#parts.space.memory, at)
  }

  /** Out of the issuing thread's list. */
  #dequeue(irp: Irp): void {
    removeEntry(this.#parts.space.memory, irp.threadListEntry)
  }

  /** Nobody is left to tell (IopDropIrp). */
  #drop(irp: Irp, fileObject: number): void {
    const { hal, pool, irps } = this.#parts
    if ((irp.flags & IrpFlag.DEALLOCATE_BUFFER) !== 0 && irp.systemBuffer !== 0) {
      pool.free(irp.systemBuffer, hal.irql)
    }
    this.#freeMdls(irp)
    this.#dequeue(irp)
    const file = this.#files.fileAt(fileObject)
    const create = (irp.flags & IrpFlag.CREATE_OPERATION) !== 0
    const held = this.#heldEvent(irp, file)
    irps.free(irp)
    this.#parts.events.dereference(held)
    if (file !== null && !create) this.#files.dereference(file)
  }

  /** The caller's thread finishes a request that was completed before its dispatch routine answered. */
  inline(irp: Irp): void {
    const { hal, scheduler } = this.#parts
    if (irp.type !== IoType.IRP) keBugCheckEx(BugCode.MULTIPLE_IRP_COMPLETE_REQUESTS, irp.at)
    const thread = scheduler.current
    if (thread === null) {
      this.#drop(irp, irp.originalFileObject)
      return
    }
    const before = hal.raise(Irql.APC)
    this.#inThread(irp, thread, irp.originalFileObject)
    hal.lower(before)
  }
}
