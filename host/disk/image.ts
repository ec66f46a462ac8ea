import fs from 'node:fs'
import type { DiskFacts, DiskIo, DiskOptions, Opened } from './backend.ts'
import { errnoOf, meaningOf, outcomeOf } from './errno.ts'
import { GEOMETRY_OPTIONS, readGeometry } from './geometry.ts'
import { OptionReader } from './option.ts'
import { pieces } from './pieces.ts'
import { quote } from './quote.ts'
import { Watchers } from './watchers.ts'

/** Most bytes of one call: `fs` refuses lengths of 2 GiB and more. */
export const CALL_BYTES = 1_073_741_824
/** Most pieces of one call: what Linux takes (IOV_MAX). */
export const CALL_PIECES = 1024

/** The help of what an image file takes, however it is read. */
export const IMAGE_OPTIONS = { ...GEOMETRY_OPTIONS }
export const IMAGE_ARGUMENT = {
  name: 'path',
  meaning: 'an image file or a block device; relative to the current directory',
  required: true,
} as const

/**
 * An open image: the descriptor, what is known about it, and who wants to hear of changes.
 *
 * A length that is not whole blocks is presented padded with zeroes to the next block, so that every byte of
 * the file can be read; the file grows only when that last block is written. Node cannot punch holes, so
 * discard and erase are not offered, and zero writes zeroes.
 */
export class Image {
  readonly fd: number
  readonly watchers: Watchers
  /** Bytes the file really has: the rest of the last block is padding. */
  ownBytes: number
  facts: DiskFacts
  /** Closed, or its device has left: final. */
  gone: boolean
  #closed: boolean

  constructor(fd: number, ownBytes: number, facts: DiskFacts) {
    this.fd = fd
    this.watchers = new Watchers()
    this.ownBytes = ownBytes
    this.facts = facts
    this.gone = false
    this.#closed = false
  }

  /** Bytes of a read from `offset` that are in the file; the rest is padding. */
  within(offset: number, lengthBytes: number): number {
    return Math.max(0, Math.min(lengthBytes, this.ownBytes - offset))
  }

  /** Data up to `end` was written: padding may have become real. */
  reached(end: number): void {
    if (end > this.ownBytes) this.ownBytes = end
  }

  /** The file has `ownBytes` now. */
  adopt(ownBytes: number): void {
    this.ownBytes = ownBytes
    const lengthBytes = paddedLength(ownBytes, this.facts.blockBytes)
    if (lengthBytes === this.facts.lengthBytes) return
    this.facts = { ...this.facts, lengthBytes }
    this.watchers.tell('size')
  }

  /**
   * Answers a read after `done` bytes. When it found the end of the file, what is left of the padded last block
   * is zero. An end before that means that somebody cut the file behind our back: the disk is shorter from
   * then on, and what lies beyond is out of range.
   *
   * @param errno empty when nothing failed.
   */
  answerRead(io: DiskIo, done: number, errno: string): void {
    if (errno !== '' || done === io.lengthBytes) {
      this.answer(io, done, errno)
      return
    }
    if (io.offset + done < this.ownBytes) {
      const failure = this.#remeasure()
      if (failure !== '') {
        this.answer(io, done, failure)
        return
      }
    }
    const readable = Math.max(done, Math.min(io.lengthBytes, this.facts.lengthBytes - io.offset))
    if (readable > done) for (const piece of pieces(io.lent, done, readable - done)) piece.fill(0)
    if (readable === io.lengthBytes) io.answer('ok')
    else io.answer('out-of-range', readable, io.offset + readable)
  }

  /**
   * Answers a request that did not read, after `done` bytes.
   *
   * @param errno empty when nothing failed.
   */
  answer(io: DiskIo, done: number, errno: string): void {
    if (errno === '') {
      io.answer('ok')
      return
    }
    const outcome = outcomeOf(errno)
    if (outcome === 'gone') this.#lose()
    io.answer(outcome, done, io.op === 'flush' || io.op === 'resize' ? null : io.offset + done)
  }

  #remeasure(): string {
    try {
      const stat = fs.fstatSync(this.fd)
      if (stat.isFile()) this.adopt(stat.size)
      return stat.isFile() ? '' : 'EIO'
    } catch (error) {
      return errnoOf(error)
    }
  }

  #lose(): void {
    if (this.gone) return
    this.gone = true
    this.watchers.tell('gone')
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.gone = true
    this.watchers.clear()
    try {
      fs.closeSync(this.fd)
    } catch {
      // Whatever the descriptor held was answered for already; there is nobody left to tell.
    }
  }
}

/** What one call of `fs` takes of `lent` after `done` bytes. */
export function remaining(lent: readonly Uint8Array[], done: number): Uint8Array[] {
  return pieces(lent, done, CALL_BYTES, CALL_PIECES)
}

/** Opens an image for reading and writing, or for reading where that is asked for or all that is allowed. */
export function openImage(kind: string, options: DiskOptions, synchronous: boolean): Opened<Image> {
  const reader = new OptionReader(kind, options)
  const geometry = readGeometry(reader)
  if (reader.error !== null) return { ok: false, error: reader.error }
  const path = options.argument ?? ''
  const failed = (why: string): Opened<never> => ({
    ok: false,
    error: `${kind}: cannot open ${quote(path)}: ${why}`,
  })
  let fd = -1
  try {
    // Looked at before it is opened: opening a pipe waits for its other end.
    const stat = fs.statSync(path)
    if (stat.isDirectory()) return failed('it is a directory')
    if (!stat.isFile() && !stat.isBlockDevice()) return failed('neither a file nor a block device')
    let readOnly = geometry.readOnly
    if (!readOnly) {
      fd = openWritable(path)
      readOnly = fd < 0
    }
    if (fd < 0) fd = fs.openSync(path, 'r')
    const isFile = stat.isFile()
    const ownBytes = isFile ? fs.fstatSync(fd).size : probeLength(fd)
    return {
      ok: true,
      value: new Image(fd, ownBytes, {
        ...geometry,
        lengthBytes: paddedLength(ownBytes, geometry.blockBytes),
        readOnly,
        medium: true,
        volatileCache: !readOnly,
        can: { fua: true, zero: true, discard: false, erase: false, resize: isFile, extents: false },
        synchronous,
        privateLoans: synchronous,
      }),
    }
  } catch (error) {
    if (fd >= 0) fs.closeSync(fd)
    return failed(meaningOf(error))
  }
}

/** -1 when the file may be read but not written. */
function openWritable(path: string): number {
  try {
    return fs.openSync(path, 'r+')
  } catch (error) {
    if (['EACCES', 'EPERM', 'EROFS'].includes(errnoOf(error))) return -1
    throw error
  }
}

/**
 * Bytes that can be read from a descriptor whose `stat` does not say, in whole sectors: found by halving, for
 * Node has neither an end-seek nor the ioctl.
 */
export function probeLength(fd: number): number {
  const sector = new Uint8Array(512)
  const readable = (index: number) => fs.readSync(fd, sector, 0, 512, index * 512) === 512
  if (!readable(0)) return 0
  let known = 0
  let beyond = 1
  while (readable(beyond)) {
    known = beyond
    beyond *= 2
  }
  while (beyond - known > 1) {
    const middle = Math.floor((known + beyond) / 2)
    if (readable(middle)) known = middle
    else beyond = middle
  }
  return beyond * 512
}

function paddedLength(ownBytes: number, blockBytes: number): number {
  return Math.ceil(ownBytes / blockBytes) * blockBytes
}
