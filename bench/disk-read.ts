import type { Hash } from 'node:crypto'
import { type NtStatus, ntSuccess } from '../guest/kernel/nt-status.ts'
import type { Waiting } from '../guest/kernel/thread.ts'
import type { DiskBackend, DiskOutcome } from '../host/disk/backend.ts'
import { SECTOR_BYTES } from '../protocol/virtio/blk.ts'
import type { ContentModel } from './content-model.ts'
import { DirectReader, type DirectReadOwner } from './direct-read.ts'
import type { Drive } from './drive.ts'
import type { ProblemList } from './problem.ts'

export interface DiskReadSetup {
  readonly drive: Drive
  /** Buffers of the application, one for each request in flight. */
  readonly buffers: readonly number[]
  readonly bufferBytes: number
  /** Where the drive ends. */
  readonly lengthBytes: number
  /** First byte of piece `index` (each a buffer long, the drive's end apart), and how many there are. */
  readonly offsetOf: (index: number) => number
  readonly count: number
  /** What the guest reads is compared with this, and with what is known to have been written over it. */
  readonly model: ContentModel
  /** Null: nobody else can tell what the drive holds. */
  readonly reference: DiskBackend | null
  /** Takes what was read, piece by piece in order; null when the pieces are not the whole drive. */
  readonly hash: Hash | null
  readonly problems: ProblemList
}

interface Piece {
  readonly slot: number
  readonly buffer: number
  /** The buffer's bytes, as they lie in RAM. */
  readonly views: readonly Uint8Array<ArrayBuffer>[]
  offset: number
  lengthBytes: number
  /** Read, compared, and waiting for those before it to be hashed. */
  finished: boolean
}

/**
 * An application that reads pieces of a drive, with every buffer in flight, each compared with what the backend
 * itself holds. Answers may come in any order; the digest takes them in the drive's.
 */
export class DiskRead implements DirectReadOwner<Piece> {
  readonly #setup: DiskReadSetup
  readonly #direct: DirectReader<Piece>
  /** One per buffer, taken in turn: the oldest is always the next to be hashed. */
  readonly #pieces: readonly Piece[]
  #asked: number
  #ended: number
  #hashed: number
  #allowed: number
  #bytes: number
  #failed: boolean
  #verifyMs: number

  constructor(setup: DiskReadSetup) {
    const { drive, buffers, bufferBytes, reference } = setup
    this.#setup = setup
    this.#direct = new DirectReader(reference, this, bufferBytes)
    this.#pieces = buffers.map((buffer, slot) => {
      const views = drive.user.views(buffer, bufferBytes)
      if (views === null) throw new Error('memory of our own cannot be had')
      return { slot, buffer, views, offset: 0, lengthBytes: 0, finished: true }
    })
    this.#asked = 0
    this.#ended = 0
    this.#hashed = 0
    this.#allowed = 0
    this.#bytes = 0
    this.#failed = false
    this.#verifyMs = 0
  }

  /** Bytes read, compared and hashed. */
  get bytes(): number {
    return this.#bytes
  }

  /** Of the wall clock, what comparing and hashing took: the rest is the guest's and the device's. */
  get verifyMs(): number {
    return this.#verifyMs
  }

  /** Whether every piece was read, whatever it held. */
  get complete(): boolean {
    return !this.#failed && this.#hashed === this.#setup.count
  }

  /** Nothing more will be asked for: all is read, or something could not be. */
  get over(): boolean {
    return this.#hashed === this.#asked && (this.#failed || this.#hashed === this.#setup.count)
  }

  get outstanding(): number {
    return this.#asked - this.#ended
  }

  /** Lets `count` more pieces be asked for: a long read is many short turns. */
  allow(count: number): void {
    this.#allowed = Math.min(this.#setup.count, this.#allowed + count)
  }

  /** Reads what is allowed, as far as buffers are free. In a thread of the guest. */
  *turn(): Waiting<void> {
    const { drive } = this.#setup
    for (;;) {
      yield* this.#fill()
      if (this.outstanding === 0) return
      const { slot, status, information } = yield* drive.next()
      const piece = this.#pieces[slot]
      if (piece === undefined) throw new Error(`no piece ${slot}`)
      this.#settled(piece, status, information)
    }
  }

  directRead(piece: Piece, expected: Uint8Array<ArrayBuffer> | null, outcome: DiskOutcome): void {
    const { problems } = this.#setup
    if (outcome === 'ok') this.#compare(piece, expected)
    else {
      const sector = piece.offset / SECTOR_BYTES
      problems.add('request-failed', sector, `the backend itself cannot read sector ${sector}: ${outcome}`)
    }
    piece.finished = true
    this.#hashFinished()
  }

  *#fill(): Waiting<void> {
    const { drive, offsetOf, lengthBytes, bufferBytes } = this.#setup
    while (!this.#failed && this.#asked < this.#allowed) {
      if (this.#asked - this.#hashed === this.#pieces.length) return
      const piece = this.#pieces[this.#asked % this.#pieces.length] as Piece
      piece.offset = offsetOf(this.#asked)
      piece.lengthBytes = Math.min(bufferBytes, lengthBytes - piece.offset)
      piece.finished = false
      this.#asked++
      const refused = yield* drive.begin(piece.slot, false, piece.buffer, piece.lengthBytes, piece.offset)
      if (refused !== null) this.#settled(piece, refused, 0)
    }
  }

  #settled(piece: Piece, status: NtStatus, movedBytes: number): void {
    const { problems } = this.#setup
    const { offset, lengthBytes } = piece
    this.#ended++
    if (ntSuccess(status) && movedBytes === lengthBytes) {
      const startedMs = performance.now()
      this.#direct.read(piece, offset, lengthBytes)
      this.#verifyMs += performance.now() - startedMs
      return
    }
    if (!ntSuccess(status)) problems.failed('a read', offset, status)
    else problems.short('a read', offset, movedBytes, lengthBytes)
    this.#failed = true
    piece.finished = true
    this.#hashFinished()
  }

  #compare(piece: Piece, witnessed: Uint8Array<ArrayBuffer> | null): void {
    const { problems, model } = this.#setup
    const seen = bytesOf(piece)
    const expected = witnessed ?? new Uint8Array(seen)
    model.apply(piece.offset / model.blockBytes, expected, seen)
    problems.same(seen, expected, piece.offset, 'the backend holds')
  }

  #hashFinished(): void {
    const { hash } = this.#setup
    while (this.#hashed < this.#asked) {
      const piece = this.#pieces[this.#hashed % this.#pieces.length] as Piece
      if (!piece.finished) return
      this.#hashed++
      // A digest with a piece missing is none, and what comes after it is not verified either.
      if (this.#failed) continue
      hash?.update(bytesOf(piece))
      this.#bytes += piece.lengthBytes
    }
  }
}

/** What a piece holds, in one view: without a copy where its buffer lies in one place. */
function bytesOf({ views, lengthBytes }: Piece): Uint8Array {
  const [first] = views
  if (first !== undefined && views.length === 1) return first.subarray(0, lengthBytes)
  return Buffer.concat(views, lengthBytes)
}
