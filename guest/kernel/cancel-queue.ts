import type { Cancellation } from './cancellation.ts'
import type { CancelRoutine, Irp } from './irp.ts'
import type { IrpFlow } from './irp-flow.ts'
import type { Irql } from './irql.ts'
import { type KernelMemory, KernelRecord } from './kernel-memory.ts'
import { IO_CSQ, IO_CSQ_IRP_CONTEXT } from './layout.ts'
import { NtStatus, ntSuccess } from './nt-status.ts'
import { NO_ROUTINE, type Routine, type RoutineTable } from './routine.ts'

/** The driver's half of a cancel-safe queue: where the requests are kept and which lock guards them. */
export interface CsqRoutines {
  readonly insertIrp: Routine<(csq: Csq, irp: Irp, insertContext: number) => NtStatus>
  readonly removeIrp: Routine<(csq: Csq, irp: Irp) => void>
  /** The first request after `irp` (null: from the start) that fits `peekContext`. */
  readonly peekNextIrp: Routine<(csq: Csq, irp: Irp | null, peekContext: number) => Irp | null>
  readonly acquireLock: Routine<(csq: Csq) => Irql>
  readonly releaseLock: Routine<(csq: Csq, irql: Irql) => void>
  readonly completeCanceledIrp: Routine<(csq: Csq, irp: Irp) => void>
}

const CSQ = 1
const IRP_CONTEXT = 2
const CSQ_EX = 3
/** Which pointer of the driver's context the queue keeps its own in. */
const CONTEXT_SLOT = 3

/** IO_CSQ: a queue from which a cancelled request takes itself out. */
export class Csq extends KernelRecord {
  /** The driver's object, for its routines. */
  owner: unknown = null

  get type(): number {
    return this.window.le32(IO_CSQ.type, this.at)
  }
  get routines(): CsqRoutines {
    const { window, at } = this
    return {
      insertIrp: window.le64(IO_CSQ.insertIrp, at) as CsqRoutines['insertIrp'],
      removeIrp: window.le64(IO_CSQ.removeIrp, at) as CsqRoutines['removeIrp'],
      peekNextIrp: window.le64(IO_CSQ.peekNextIrp, at) as CsqRoutines['peekNextIrp'],
      acquireLock: window.le64(IO_CSQ.acquireLock, at) as CsqRoutines['acquireLock'],
      releaseLock: window.le64(IO_CSQ.releaseLock, at) as CsqRoutines['releaseLock'],
      completeCanceledIrp: window.le64(IO_CSQ.completeCanceledIrp, at) as CsqRoutines['completeCanceledIrp'],
    }
  }
}

/** The system's half of cancel-safe queues (IoCsq*). */
export class CancelQueues {
  readonly #memory: KernelMemory
  readonly #routines: RoutineTable
  readonly #flow: IrpFlow
  readonly #cancellation: Cancellation
  readonly #queues: Map<number, Csq>
  readonly #cancelRoutine: Routine<CancelRoutine>

  constructor(memory: KernelMemory, routines: RoutineTable, flow: IrpFlow, cancellation: Cancellation) {
    this.#memory = memory
    this.#routines = routines
    this.#flow = flow
    this.#cancellation = cancellation
    this.#queues = new Map()
    this.#cancelRoutine = routines.register((_device: unknown, irp: Irp) => this.#cancelled(irp))
  }

  /** IoCsqInitialize; with `mayRefuse`, IoCsqInitializeEx: the insert routine's status counts. */
  initialize(at: number, routines: CsqRoutines, mayRefuse: boolean): Csq {
    const { window } = this.#memory
    this.#memory.zero(at, IO_CSQ.$size)
    window.putLe32(IO_CSQ.type, mayRefuse ? CSQ_EX : CSQ, at)
    window.putLe64(IO_CSQ.insertIrp, routines.insertIrp, at)
    window.putLe64(IO_CSQ.removeIrp, routines.removeIrp, at)
    window.putLe64(IO_CSQ.peekNextIrp, routines.peekNextIrp, at)
    window.putLe64(IO_CSQ.acquireLock, routines.acquireLock, at)
    window.putLe64(IO_CSQ.releaseLock, routines.releaseLock, at)
    window.putLe64(IO_CSQ.completeCanceledIrp, routines.completeCanceledIrp, at)
    const csq = new Csq(this.#memory, at)
    this.#queues.set(at, csq)
    return csq
  }

  /** Its memory is about to be freed. */
  forget(csq: Csq): void {
    this.#queues.delete(csq.at)
  }

  /**
   * IoCsqInsertIrpEx: marks the request pending. `context` is an IO_CSQ_IRP_CONTEXT, or 0. Answers what the
   * insert routine did; a request it refused is neither queued nor marked.
   */
  insert(csq: Csq, irp: Irp, context: number, insertContext: number): NtStatus {
    const { insertIrp, removeIrp, acquireLock, releaseLock, completeCanceledIrp } = csq.routines
    const before = this.#routines.resolve(acquireLock)(csq)
    this.#bind(csq, irp, context)
    const status = this.#routines.resolve(insertIrp)(csq, irp, insertContext)
    if (csq.type === CSQ_EX && !ntSuccess(status)) {
      this.#unbind(irp)
      this.#routines.resolve(releaseLock)(csq, before)
      return status
    }
    this.#flow.markPending(irp)
    this.#cancellation.setRoutine(irp, this.#cancelRoutine)
    // Cancelled before the routine was there: whoever gets the routine back completes it.
    const ours = irp.cancel && this.#cancellation.setRoutine(irp, NO_ROUTINE) !== 0
    if (ours) {
      this.#routines.resolve(removeIrp)(csq, irp)
      this.#unbind(irp)
    }
    this.#routines.resolve(releaseLock)(csq, before)
    if (ours) this.#routines.resolve(completeCanceledIrp)(csq, irp)
    return NtStatus.SUCCESS
  }

  /** IoCsqRemoveNextIrp: skips those being cancelled; null when none is left. */
  removeNext(csq: Csq, peekContext: number): Irp | null {
    const { peekNextIrp, removeIrp, acquireLock, releaseLock } = csq.routines
    const before = this.#routines.resolve(acquireLock)(csq)
    const peek = this.#routines.resolve(peekNextIrp)
    let irp = peek(csq, null, peekContext)
    while (irp !== null && this.#cancellation.setRoutine(irp, NO_ROUTINE) === 0)
      irp = peek(csq, irp, peekContext)
    if (irp !== null) {
      this.#routines.resolve(removeIrp)(csq, irp)
      this.#unbind(irp)
    }
    this.#routines.resolve(releaseLock)(csq, before)
    return irp
  }

  /** IoCsqRemoveIrp: null when the context's request has left the queue or is being cancelled. */
  remove(csq: Csq, context: number, irpAt: (at: number) => Irp): Irp | null {
    const { removeIrp, acquireLock, releaseLock } = csq.routines
    const before = this.#routines.resolve(acquireLock)(csq)
    const at = this.#memory.window.le64(IO_CSQ_IRP_CONTEXT.irp, context)
    let irp = at === 0 ? null : irpAt(at)
    if (irp !== null && this.#cancellation.setRoutine(irp, NO_ROUTINE) === 0) irp = null
    if (irp !== null) {
      this.#routines.resolve(removeIrp)(csq, irp)
      this.#unbind(irp)
    }
    this.#routines.resolve(releaseLock)(csq, before)
    return irp
  }

  #bind(csq: Csq, irp: Irp, context: number): void {
    irp.putDriverContext(CONTEXT_SLOT, context === 0 ? csq.at : context)
    if (context === 0) return
    const { window } = this.#memory
    window.putLe32(IO_CSQ_IRP_CONTEXT.type, IRP_CONTEXT, context)
    window.putLe64(IO_CSQ_IRP_CONTEXT.irp, irp.at, context)
    window.putLe64(IO_CSQ_IRP_CONTEXT.csq, csq.at, context)
  }

  #unbind(irp: Irp): void {
    const context = irp.driverContext(CONTEXT_SLOT)
    if (this.#memory.window.le32(IO_CSQ_IRP_CONTEXT.type, context) === IRP_CONTEXT) {
      this.#memory.window.putLe64(IO_CSQ_IRP_CONTEXT.irp, 0, context)
    }
    irp.putDriverContext(CONTEXT_SLOT, 0)
  }

  /** The cancel routine: entered with the cancel lock, which the queue's own lock replaces. */
  #cancelled(irp: Irp): void {
    this.#cancellation.release(irp.cancelIrql)
    const { window } = this.#memory
    const context = irp.driverContext(CONTEXT_SLOT)
    const isContext = window.le32(IO_CSQ_IRP_CONTEXT.type, context) === IRP_CONTEXT
    const csq = this.#queues.get(isContext ? window.le64(IO_CSQ_IRP_CONTEXT.csq, context) : context)
    if (csq === undefined) throw new RangeError(`no cancel-safe queue at ${context}`)
    const { removeIrp, acquireLock, releaseLock, completeCanceledIrp } = csq.routines
    const before = this.#routines.resolve(acquireLock)(csq)
    this.#routines.resolve(removeIrp)(csq, irp)
    this.#unbind(irp)
    this.#routines.resolve(releaseLock)(csq, before)
    this.#routines.resolve(completeCanceledIrp)(csq, irp)
  }
}
