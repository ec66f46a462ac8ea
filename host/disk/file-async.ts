import fs from 'node:fs'
import type { ArrivalSource, Clock, HostPlatform, Plain, Release } from '../../protocol/platform.ts'
import type {
  DiskBackend,
  DiskFacts,
  DiskHolder,
  DiskIo,
  DiskListener,
  DiskOptions,
  DiskSourceKind,
  Opened,
} from './backend.ts'
import { errnoOf } from './errno.ts'
import { ZEROES } from './file.ts'
import { CALL_BYTES, IMAGE_ARGUMENT, IMAGE_OPTIONS, type Image, openImage, remaining } from './image.ts'
import { judge, refuse } from './judge.ts'
import { OptionReader } from './option.ts'

const DEFAULT_DEPTH = 16
const DEEPEST = 1024

/** One operation of the operating system at a time, for one request. Used again: its callbacks are made once. */
class Slot {
  readonly transferred: (error: NodeJS.ErrnoException | null, bytes: number) => void
  readonly performed: (error: NodeJS.ErrnoException | null) => void
  io: DiskIo | null
  /** Names the request in arrivals. */
  request: number
  done: number
  /** Bytes to move: for a zero fewer than asked, since padding is zero already. */
  wanted: number
  syncing: boolean
  release: Release | null

  constructor(disk: AsyncFileDisk) {
    this.transferred = (error, bytes) => disk.ended(this, error, bytes)
    this.performed = (error) => disk.ended(this, error, 0)
    this.io = null
    this.request = 0
    this.done = 0
    this.wanted = 0
    this.syncing = false
    this.release = null
  }
}

/**
 * A disk in a file through the thread pool: requests overlap and finish in any order. At most `depth` are with
 * the operating system, the others wait here in order and can be given up.
 *
 * Every result comes in through the clock, as the number of the request with the bytes moved or the error's
 * name. A resize waits until nothing is under way and lets nothing overtake it: a write that was under way
 * could otherwise make the file long again.
 */
export class AsyncFileDisk implements DiskBackend, DiskHolder, ArrivalSource {
  readonly path: string
  readonly #image: Image
  readonly #clock: Clock
  readonly #idle: Slot[]
  readonly #busy: Map<number, Slot>
  readonly #queue: DiskIo[]
  #requests: number
  #resizing: boolean
  #closed: (() => void) | null

  /** @param depth most operations with the operating system at a time, 1 or more. */
  constructor(image: Image, depth: number, clock: Clock, path: string) {
    this.path = path
    this.#image = image
    this.#clock = clock
    this.#idle = Array.from({ length: depth }, () => new Slot(this))
    this.#busy = new Map()
    this.#queue = []
    this.#requests = 0
    this.#resizing = false
    this.#closed = null
  }

  get facts(): DiskFacts {
    return this.#image.facts
  }

  submit(io: DiskIo): void {
    const image = this.#image
    const outcome = judge(io, image.facts, image.gone)
    if (outcome !== 'ok') {
      refuse(io, outcome, image.facts)
      return
    }
    if (this.#isNothing(io)) {
      io.answer('ok')
      return
    }
    io.holder = this
    this.#queue.push(io)
    this.#pump()
  }

  watch(listener: DiskListener): () => void {
    return this.#image.watchers.add(listener)
  }

  cancel(io: DiskIo): void {
    const index = this.#queue.indexOf(io)
    if (index < 0) return
    this.#queue.splice(index, 1)
    io.answer('cancelled')
    // A resize that held the others up may have been the one.
    this.#pump()
  }

  close(finished: () => void): void {
    this.#image.gone = true
    this.#image.watchers.clear()
    const earlier = this.#closed
    this.#closed = () => {
      earlier?.()
      finished()
    }
    for (const io of this.#queue.splice(0)) io.answer('cancelled')
    this.#closeWhenIdle()
  }

  arrived(value: Plain): void {
    const arrival = readArrival(value)
    const slot = this.#busy.get(arrival.request)
    const io = slot?.io ?? null
    if (slot === undefined || io === null) {
      throw new Error(`${this.path}: no request ${arrival.request} is under way`)
    }
    // The system always takes something of a write or says why not.
    const stuck = arrival.errno === '' && arrival.bytes === 0 && movesOut(io) && !slot.syncing
    const errno = stuck ? 'EIO' : arrival.errno
    if (errno === '' && this.#goOn(slot, io, arrival.bytes)) return
    const { done, syncing } = slot
    this.#busy.delete(arrival.request)
    slot.io = null
    this.#idle.push(slot)
    if (io.op === 'resize') {
      this.#resizing = false
      if (errno === '') this.#image.adopt(io.lengthBytes)
    }
    if (io.op === 'write') this.#image.reached(io.offset + done)
    if (io.op === 'read') this.#image.answerRead(io, done, errno)
    else if (io.op === 'zero' && errno === '' && done < slot.wanted && !syncing) io.answer('cancelled', done)
    else this.#image.answer(io, done, errno)
    this.#pump()
    this.#closeWhenIdle()
  }

  /** The operating system has ended what a slot asked for; what it means is decided in a turn of its own. */
  ended(slot: Slot, error: NodeJS.ErrnoException | null, bytes: number): void {
    const { request, release } = slot
    slot.release = null
    this.#clock.arrive(this, error === null ? { request, bytes } : { request, errno: errnoOf(error) })
    release?.()
  }

  /** Whether there is nothing to ask the operating system for. */
  #isNothing(io: DiskIo): boolean {
    if (io.op === 'flush') return this.#image.facts.readOnly
    if (io.op === 'zero') return this.#image.within(io.offset, io.lengthBytes) === 0
    return io.op !== 'resize' && io.lengthBytes === 0
  }

  #pump(): void {
    while (this.#queue.length > 0 && !this.#resizing) {
      const io = this.#queue[0]
      if (io === undefined || (io.op === 'resize' && this.#busy.size > 0)) return
      const slot = this.#idle.pop()
      if (slot === undefined) return
      this.#queue.shift()
      const outcome = judge(io, this.#image.facts, this.#image.gone)
      if (outcome === 'ok') {
        this.#start(slot, io)
      } else {
        this.#idle.push(slot)
        refuse(io, outcome, this.#image.facts)
      }
    }
  }

  #start(slot: Slot, io: DiskIo): void {
    io.holder = null
    this.#requests += 1
    slot.io = io
    slot.request = this.#requests
    slot.done = 0
    slot.wanted = io.op === 'zero' ? this.#image.within(io.offset, io.lengthBytes) : io.lengthBytes
    slot.syncing = io.op === 'flush'
    this.#resizing = io.op === 'resize'
    this.#busy.set(slot.request, slot)
    this.#call(slot, io)
  }

  /** After `bytes` more: whether there is more to do for this request, and it has been asked for. */
  #goOn(slot: Slot, io: DiskIo, bytes: number): boolean {
    if (slot.syncing || io.op === 'resize') return false
    slot.done += bytes
    if (slot.done < slot.wanted) {
      // The end of the file; or a long zero that nobody waits for any more.
      if (bytes === 0 || (io.op === 'zero' && (io.cancelling || this.#image.gone))) return false
    } else {
      if (!io.fua || io.op === 'read') return false
      slot.syncing = true
    }
    this.#call(slot, io)
    return true
  }

  #call(slot: Slot, io: DiskIo): void {
    const { fd } = this.#image
    const at = io.offset + slot.done
    slot.release = this.#clock.external(`${this.path}: ${io.op} at ${io.offset}`)
    try {
      if (slot.syncing) {
        fs.fdatasync(fd, slot.performed)
      } else if (io.op === 'resize') {
        fs.ftruncate(fd, io.lengthBytes, slot.performed)
      } else if (io.op === 'zero') {
        fs.write(fd, ZEROES, 0, Math.min(ZEROES.length, slot.wanted - slot.done), at, slot.transferred)
      } else {
        this.#transfer(slot, io, at)
      }
    } catch (error) {
      const failure = error instanceof Error ? error : new Error(String(error))
      this.ended(slot, failure, 0)
    }
  }

  #transfer(slot: Slot, io: DiskIo, at: number): void {
    const { fd } = this.#image
    const only = io.lent[0]
    if (slot.done === 0 && only !== undefined && only.length === slot.wanted && slot.wanted <= CALL_BYTES) {
      if (io.op === 'read') fs.read(fd, only, 0, slot.wanted, at, slot.transferred)
      else fs.write(fd, only, 0, slot.wanted, at, slot.transferred)
      return
    }
    const lent = remaining(io.lent, slot.done)
    if (io.op === 'read') fs.readv(fd, lent, at, slot.transferred)
    else fs.writev(fd, lent, at, slot.transferred)
  }

  #closeWhenIdle(): void {
    const finished = this.#closed
    if (finished === null || this.#busy.size > 0) return
    this.#closed = null
    this.#image.close()
    finished()
  }
}

function movesOut(io: DiskIo): boolean {
  return io.op === 'write' || io.op === 'zero'
}

/** @throws when it is none of what `ended` sends: our own mistake, or a damaged trace. */
function readArrival(value: Plain): { request: number; bytes: number; errno: string } {
  if (typeof value === 'object' && value !== null && 'request' in value) {
    const { request, bytes, errno } = value
    if (typeof request === 'number') {
      if (typeof bytes === 'number') return { request, bytes, errno: '' }
      if (typeof errno === 'string' && errno !== '') return { request, bytes: 0, errno }
    }
  }
  throw new Error(`file-async: an arrival that is not ours: ${JSON.stringify(value)}`)
}

export const FILE_ASYNC: DiskSourceKind = {
  role: 'source',
  kind: 'file-async',
  summary: 'an image file or a block device through the thread pool, so that requests overlap',
  example: 'file-async:disk.img',
  argument: IMAGE_ARGUMENT,
  options: {
    depth: `most requests with the operating system at a time, 1 to ${DEEPEST}; ${DEFAULT_DEPTH} by default`,
    ...IMAGE_OPTIONS,
  },
  async open(options: DiskOptions, platform: HostPlatform): Promise<Opened<DiskBackend>> {
    const reader = new OptionReader('file-async', options)
    const depth = reader.whole('depth', DEFAULT_DEPTH, 1, DEEPEST)
    if (reader.error !== null) return { ok: false, error: reader.error }
    const opened = openImage('file-async', options, false)
    if (!opened.ok) return opened
    return { ok: true, value: new AsyncFileDisk(opened.value, depth, platform.clock, platform.path) }
  },
}
