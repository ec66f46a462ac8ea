import type { Hash } from 'node:crypto'
import type { BlkDriver } from '../guest/virtio/blk.ts'
import { BlkCommand, type BlkEnd } from '../guest/virtio/blk-command.ts'
import type { DiskBackend, DiskOutcome } from '../host/disk/backend.ts'
import { BlkStatus, BlkType, SECTOR_BYTES } from '../protocol/virtio/blk.ts'
import type { GuestBuffer } from './buffers.ts'
import type { ContentModel } from './content-model.ts'
import { DirectReader, type DirectReadOwner } from './direct-read.ts'
import type { ProblemList } from './problem.ts'

export interface DiskReadSetup {
  readonly driver: BlkDriver
  readonly buffers: readonly GuestBuffer[]
  /** Where the disk ends. */
  readonly lengthBytes: number
  /** First byte of piece `index` (each a buffer long, the disk's end apart), and how many there are. */
  readonly offsetOf: (index: number) => number
  readonly count: number
  /** What the driver reads is compared with this, and with what is known to have been written over it. */
  readonly model: ContentModel
  readonly reference: DiskBackend
  /** Takes what was read, piece by piece in order; null when the pieces are not the whole disk. */
  readonly hash: Hash | null
  readonly problems: ProblemList
}

class Piece extends BlkCommand {
  readonly #read: DiskRead
  readonly buffer: GuestBuffer
  offset: number
  lengthBytes: number
  /** Read, compared, and waiting for those before it to be hashed. */
  finished: boolean

  constructor(read: DiskRead, buffer: GuestBuffer) {
    super(BlkType.IN, 0)
    this.#read = read
    this.buffer = buffer
    this.offset = 0
    this.lengthBytes = 0
    this.finished = true
  }

  ended(end: BlkEnd, writtenBytes: number): void {
    this.#read.ended(this, end, writtenBytes)
  }
}

/**
 * Reads pieces of a disk through ring, device model and backend, with every buffer of the window in flight,
 * and compares each with what the backend itself holds. Answers may come in any order; the digest takes them
 * in the disk's.
 */
export class DiskRead implements DirectReadOwner<Piece> {
  readonly #setup: DiskReadSetup
  readonly #direct: DirectReader<Piece>
  /** One per buffer, taken in turn: the oldest is always the next to be hashed. */
  readonly #pieces: readonly Piece[]
  #asked: number
  #hashed: number
  #allowed: number
  #bytes: number
  #failed: boolean

  constructor(setup: DiskReadSetup) {
    this.#setup = setup
    const pieceBytes = setup.buffers[0]?.bytes.length ?? 0
    this.#direct = new DirectReader(setup.reference, this, pieceBytes)
    this.#pieces = setup.buffers.map((buffer) => new Piece(this, buffer))
    this.#asked = 0
    this.#hashed = 0
    this.#allowed = 0
    this.#bytes = 0
    this.#failed = false
  }

  /** Bytes read, compared and hashed. */
  get bytes(): number {
    return this.#bytes
  }

  /** Whether every piece was read, whatever it held. */
  get complete(): boolean {
    return !this.#failed && this.#hashed === this.#setup.count
  }

  /** Nothing more will be asked for: all is read, or something could not be. */
  get over(): boolean {
    return this.outstanding === 0 && (this.#failed || this.#hashed === this.#setup.count)
  }

  get outstanding(): number {
    return this.#asked - this.#hashed
  }

  /** Lets `count` more pieces be asked for: a long read is many short turns. */
  allow(count: number): void {
    this.#allowed = Math.min(this.#setup.count, this.#allowed + count)
    this.#fill()
  }

  ended(piece: Piece, end: BlkEnd, writtenBytes: number): void {
    const { problems } = this.#setup
    const { offset, lengthBytes } = piece
    if (end.kind !== 'status' || end.status !== BlkStatus.OK) {
      problems.failed(BlkType.IN, offset, end)
      this.#fail(piece)
    } else if (writtenBytes !== lengthBytes + 1) {
      problems.short(BlkType.IN, offset, writtenBytes, lengthBytes + 1)
      this.#fail(piece)
    } else this.#direct.read(piece, offset, lengthBytes)
  }

  directRead(piece: Piece, expected: Uint8Array<ArrayBuffer>, outcome: DiskOutcome): void {
    const { problems, model } = this.#setup
    if (outcome === 'ok') {
      const seen = piece.buffer.bytes.subarray(0, piece.lengthBytes)
      model.apply(piece.offset / model.blockBytes, expected, seen)
      problems.same(seen, expected, piece.offset, 'the backend holds')
    } else {
      const sector = piece.offset / SECTOR_BYTES
      problems.add('request-failed', sector, `the backend itself cannot read sector ${sector}: ${outcome}`)
    }
    piece.finished = true
    this.#settle()
  }

  #fail(piece: Piece): void {
    this.#failed = true
    piece.finished = true
    this.#settle()
  }

  #settle(): void {
    const { hash } = this.#setup
    while (this.#hashed < this.#asked) {
      const piece = this.#pieces[this.#hashed % this.#pieces.length]
      if (piece?.finished !== true) break
      this.#hashed++
      // A digest with a piece missing is none, and what comes after it is not verified either.
      if (this.#failed) continue
      hash?.update(piece.buffer.bytes.subarray(0, piece.lengthBytes))
      this.#bytes += piece.lengthBytes
    }
    this.#fill()
  }

  #fill(): void {
    const { driver, offsetOf, lengthBytes } = this.#setup
    let posted = false
    while (!this.#failed && this.#asked < this.#allowed && this.outstanding < this.#pieces.length) {
      const piece = this.#pieces[this.#asked % this.#pieces.length]
      if (piece === undefined) break
      const { at, bytes } = piece.buffer
      piece.offset = offsetOf(this.#asked)
      piece.lengthBytes = Math.min(bytes.length, lengthBytes - piece.offset)
      piece.sector = piece.offset / SECTOR_BYTES
      piece.data.clear()
      piece.data.writable(at, piece.lengthBytes)
      if (!driver.submit(piece)) break
      piece.finished = false
      this.#asked++
      posted = true
    }
    if (posted) driver.kick()
  }
}
