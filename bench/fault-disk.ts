import type {
  DiskBackend,
  DiskFacts,
  DiskIo,
  DiskListener,
  DiskOp,
  DiskOutcome,
} from '../host/disk/backend.ts'
import { DiskRelay } from '../host/disk/relay.ts'
import type { Trace } from '../protocol/trace.ts'

/**
 * What a fault does to a request: an outcome it is answered with; `corrupt`: the first bit of what is read is
 * the other one; `lose`: it is answered 'ok' and not done; `silent`: it is not answered, until it is called back.
 */
export type FaultEffect = Exclude<DiskOutcome, 'ok'> | 'corrupt' | 'lose' | 'silent'

/** A fault of a disk, in wait for requests. */
export interface DiskFault {
  readonly effect: FaultEffect
  /** The one kind of request that meets it; any kind by default. `corrupt` only ever meets reads. */
  readonly op?: DiskOp
  /** A byte that the request covers: anywhere by default. */
  readonly at?: number
  /** Requests that meet it, one after the other, before it is over. Default 1. */
  readonly times?: number
}

interface Waiting extends DiskFault {
  left: number
}

/** A disk with faults on demand. Without any it passes requests on as they are. */
export class FaultDisk implements DiskBackend {
  readonly #disk: DiskBackend
  readonly #trace: Trace
  readonly #path: string
  readonly #faults: Waiting[]
  readonly #silent: Set<DiskIo>

  constructor(disk: DiskBackend, trace: Trace, path: string) {
    this.#disk = disk
    this.#trace = trace
    this.#path = path
    this.#faults = []
    this.#silent = new Set()
  }

  get facts(): DiskFacts {
    return this.#disk.facts
  }

  /** Lies in wait; the first of several that fit is met first. */
  inject(fault: DiskFault): void {
    this.#faults.push({ ...fault, left: fault.times ?? 1 })
  }

  submit(io: DiskIo): void {
    const fault = this.#faults.length === 0 ? undefined : this.#faults.find((one) => meets(io, one))
    if (fault === undefined) {
      this.#disk.submit(io)
      return
    }
    fault.left--
    if (fault.left <= 0) this.#faults.splice(this.#faults.indexOf(fault), 1)
    const { effect } = fault
    if (this.#trace.on) {
      const { id, op, offset } = io
      this.#trace.emit({ name: 'fault', path: this.#path, id, op, offset, effect })
    }
    if (effect === 'corrupt') new CorruptIo(io).submitTo(this.#disk)
    else if (effect === 'lose') io.answer('ok')
    else if (effect === 'silent') {
      this.#silent.add(io)
      io.holder = this
      if (io.cancelling) this.cancel(io)
    } else io.answer(effect)
  }

  cancel(io: DiskIo): void {
    if (this.#silent.delete(io)) io.answer('cancelled')
  }

  watch(listener: DiskListener): () => void {
    return this.#disk.watch(listener)
  }

  close(finished: () => void): void {
    for (const io of this.#silent) io.answer('cancelled')
    this.#silent.clear()
    this.#disk.close(finished)
  }
}

function meets(io: DiskIo, { op, at, effect }: Waiting): boolean {
  if (effect === 'corrupt' && io.op !== 'read') return false
  if (op !== undefined && op !== io.op) return false
  return at === undefined || (at >= io.offset && at < io.offset + io.lengthBytes)
}

class CorruptIo extends DiskRelay {
  protected override finished(outcome: DiskOutcome, bytesDone: number, badOffset: number | null): void {
    const [first] = this.lent
    if (outcome === 'ok' && first !== undefined) first[0] = (first[0] ?? 0) ^ 1
    super.finished(outcome, bytesDone, badOffset)
  }
}
