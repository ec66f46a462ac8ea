import { BlkStatus } from '../../protocol/virtio/blk.ts'
import type { DiskBackend, DiskOp, DiskOutcome } from '../disk/backend.ts'
import { DiskIo } from '../disk/backend.ts'
import type { Chain } from './chain.ts'
import type { DeviceQueue } from './queue.ts'

/** Who turns a finished disk request into a status byte and a used buffer. */
export interface BlkAnswers {
  /** The disk request was taken and not answered yet. */
  keep(io: BlkIo): void
  /** The disk request came back. */
  answered(io: BlkIo, status: number, writtenBytes: number): void
}

/** What an outcome at the waist is on the wire. */
export function blkStatus(outcome: DiskOutcome): number {
  if (outcome === 'ok') return BlkStatus.OK
  return outcome === 'unsupported' ? BlkStatus.UNSUPP : BlkStatus.IOERR
}

/** Where the status byte of a chain goes: its last byte, which has to be writable. */
export function statusAddress(chain: Chain): number {
  const last = chain.count - 1
  return (chain.addresses[last] as number) + (chain.lengths[last] as number) - 1
}

/**
 * A block request at the disk waist: the backend's answer is the only thing that spends the chain, and a second
 * answer is told from the first. An object serves one request after another only where the backend keeps none:
 * elsewhere a late second answer would meet another request.
 */
export class BlkIo extends DiskIo {
  queue: DeviceQueue
  chain: Chain
  statusAt: number
  /** Bytes of the writable side before the status byte. */
  dataInBytes: number
  readonly #answers: BlkAnswers
  /** A write-through device flushes after the write, before it answers. */
  #flushAfter: DiskBackend | null
  /** Nothing more will come: neither the answer nor a flush behind it. */
  settled: boolean
  /** In the device's list of requests it waits for. */
  kept: boolean
  /** Given up at reset: the token is spent already, and a late answer meets nothing. */
  abandoned: boolean

  constructor(
    answers: BlkAnswers,
    queue: DeviceQueue,
    chain: Chain,
    op: DiskOp,
    offset: number,
    lengthBytes: number,
    lent: readonly Uint8Array[],
    flushAfter: DiskBackend | null,
  ) {
    super(op, offset, lengthBytes, lent, { id: chain.id })
    this.queue = queue
    this.chain = chain
    this.statusAt = statusAddress(chain)
    this.dataInBytes = chain.writableBytes - 1
    this.#answers = answers
    this.#flushAfter = flushAfter
    this.settled = false
    this.kept = false
    this.abandoned = false
  }

  /** The same object for another transfer, once the one before is settled. */
  again(
    queue: DeviceQueue,
    chain: Chain,
    op: 'read' | 'write',
    offset: number,
    lengthBytes: number,
    lent: readonly Uint8Array[],
    flushAfter: DiskBackend | null,
  ): void {
    this.renew(op, offset, lengthBytes, lent, chain.id)
    this.queue = queue
    this.chain = chain
    this.statusAt = statusAddress(chain)
    this.dataInBytes = chain.writableBytes - 1
    this.#flushAfter = flushAfter
    this.settled = false
  }

  /** Submits, and has the device keep the request when it is not settled yet. */
  send(backend: DiskBackend): void {
    backend.submit(this)
    if (!this.settled) this.#answers.keep(this)
  }

  protected finished(outcome: DiskOutcome, bytesDone: number): void {
    if (this.#flushAfter !== null && outcome === 'ok' && !this.abandoned) {
      new FlushAfter(this).send(this.#flushAfter)
      return
    }
    this.settle(outcome, bytesDone)
  }

  /**
   * The status byte comes last, so a used length counts it only when all data before it was written: the
   * length promises that many bytes from the start, VIRTIO 1.2 section 2.7.8.2.
   */
  settle(outcome: DiskOutcome, bytesDone: number): void {
    this.settled = true
    const inBytes = this.op === 'read' ? Math.min(bytesDone, this.dataInBytes) : 0
    const written = inBytes === this.dataInBytes ? inBytes + 1 : inBytes
    this.#answers.answered(this, blkStatus(outcome), written)
  }
}

/** The flush a write-through device puts behind a write. */
class FlushAfter extends DiskIo {
  readonly #write: BlkIo

  constructor(write: BlkIo) {
    super('flush', 0, 0, [], { id: write.id })
    this.#write = write
  }

  send(backend: DiskBackend): void {
    backend.submit(this)
  }

  protected finished(outcome: DiskOutcome): void {
    this.#write.settle(outcome, 0)
  }
}

/** Several ranges of one request: answered when all are, with the first thing that went wrong. */
export class RangeBatch {
  readonly #whole: BlkIo
  #left: number
  #outcome: DiskOutcome

  constructor(whole: BlkIo, count: number) {
    this.#whole = whole
    this.#left = count
    this.#outcome = 'ok'
  }

  send(
    backend: DiskBackend,
    ranges: readonly { readonly offset: number; readonly lengthBytes: number; readonly mayUnmap: boolean }[],
  ): RangeIo[] {
    const parts = ranges.map(
      ({ offset, lengthBytes, mayUnmap }) => new RangeIo(this, this.#whole, offset, lengthBytes, mayUnmap),
    )
    for (const part of parts) backend.submit(part)
    return parts
  }

  part(outcome: DiskOutcome): void {
    if (outcome !== 'ok' && this.#outcome === 'ok') this.#outcome = outcome
    this.#left--
    if (this.#left === 0) this.#whole.answer(this.#outcome)
  }
}

class RangeIo extends DiskIo {
  readonly #batch: RangeBatch

  constructor(batch: RangeBatch, whole: BlkIo, offset: number, lengthBytes: number, mayUnmap: boolean) {
    super(whole.op, offset, lengthBytes, [], { mayUnmap, id: whole.id })
    this.#batch = batch
  }

  protected finished(outcome: DiskOutcome): void {
    this.#batch.part(outcome)
  }
}
