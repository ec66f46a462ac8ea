import type { HostPlatform } from '../../protocol/platform.ts'
import type {
  DiskBackend,
  DiskFacts,
  DiskIo,
  DiskListener,
  DiskOptions,
  DiskSourceKind,
  Opened,
} from './backend.ts'
import { pushExtent } from './extent.ts'
import { GEOMETRY_OPTIONS, type Geometry, readGeometry } from './geometry.ts'
import { judge, refuse } from './judge.ts'
import { OptionReader } from './option.ts'
import { SparseBytes } from './sparse.ts'
import { Watchers } from './watchers.ts'

const PAGE_BYTES = 65_536
const DEFAULT_BYTES = 64 * 1024 * 1024

/**
 * A disk in this process's memory. Only pages that were written take room, so it may be as long as a disk can
 * be. Every request is answered before `submit` returns, by copying.
 */
export class MemoryDisk implements DiskBackend {
  readonly keepsNoRequest = true
  readonly #bytes: SparseBytes
  readonly #watchers: Watchers
  #facts: DiskFacts
  #gone: boolean

  /** @param limitBytes most bytes to hold; a write past it is answered 'no-space'. */
  constructor(lengthBytes: number, geometry: Geometry, limitBytes = Number.POSITIVE_INFINITY) {
    this.#bytes = new SparseBytes(PAGE_BYTES, limitBytes)
    this.#watchers = new Watchers()
    this.#gone = false
    this.#facts = {
      lengthBytes,
      ...geometry,
      medium: true,
      // None of it outlives this process: it promises nothing.
      volatileCache: true,
      can: { fua: true, zero: true, discard: true, erase: true, resize: true, extents: true },
      synchronous: true,
      privateLoans: true,
    }
  }

  get facts(): DiskFacts {
    return this.#facts
  }

  /** Bytes of memory that its content takes. */
  get heldBytes(): number {
    return this.#bytes.heldBytes
  }

  submit(io: DiskIo): void {
    const outcome = judge(io, this.#facts, this.#gone)
    if (outcome !== 'ok') refuse(io, outcome, this.#facts)
    else if (io.op === 'read') this.#read(io)
    else if (io.op === 'write') this.#write(io)
    else if (io.op === 'extents') this.#extents(io)
    else if (io.op === 'resize') this.#resize(io)
    else {
      if (io.op !== 'flush') this.#bytes.zero(io.offset, io.lengthBytes)
      io.answer('ok')
    }
  }

  watch(listener: DiskListener): () => void {
    return this.#watchers.add(listener)
  }

  close(finished: () => void): void {
    this.#gone = true
    this.#bytes.clear()
    this.#watchers.clear()
    finished()
  }

  #read(io: DiskIo): void {
    let at = io.offset
    for (const view of io.lent) {
      this.#bytes.read(at, view)
      at += view.length
    }
    io.answer('ok')
  }

  #write(io: DiskIo): void {
    let at = io.offset
    for (const view of io.lent) {
      const written = this.#bytes.write(at, view)
      at += written
      if (written < view.length) {
        io.answer('no-space', at - io.offset, at)
        return
      }
    }
    io.answer('ok')
  }

  #extents(io: DiskIo): void {
    let at = io.offset
    const end = io.offset + io.lengthBytes
    this.#bytes.eachHeld(io.offset, io.lengthBytes, (offset, lengthBytes) => {
      pushExtent(io.extents, at, offset - at, 'hole')
      pushExtent(io.extents, offset, lengthBytes, 'data')
      at = offset + lengthBytes
    })
    pushExtent(io.extents, at, end - at, 'hole')
    io.answer('ok')
  }

  #resize(io: DiskIo): void {
    const lengthBytes = io.lengthBytes
    const before = this.#facts.lengthBytes
    if (lengthBytes < before) this.#bytes.zero(lengthBytes, before - lengthBytes)
    this.#facts = { ...this.#facts, lengthBytes }
    if (lengthBytes !== before) this.#watchers.tell('size')
    io.answer('ok')
  }
}

export const MEMORY: DiskSourceKind = {
  role: 'source',
  kind: 'memory',
  summary: 'a sparse disk in memory, zero at first, lost at the end',
  example: 'memory:size=64M',
  options: {
    size: 'bytes, such as 64M (default) or 5G; up to 8P, since only what is written takes room',
    limit: 'bytes of content to hold before writes are answered no-space; none by default',
    ...GEOMETRY_OPTIONS,
  },
  open(options: DiskOptions, _platform: HostPlatform): Promise<Opened<DiskBackend>> {
    const reader = new OptionReader('memory', options)
    const lengthBytes = reader.size('size', DEFAULT_BYTES)
    const limitBytes = reader.size('limit', Number.POSITIVE_INFINITY)
    const geometry = readGeometry(reader)
    if (lengthBytes % geometry.blockBytes !== 0) {
      reader.wrong(`option size is ${lengthBytes}, not a multiple of the block (${geometry.blockBytes})`)
    }
    if (reader.error !== null) return Promise.resolve({ ok: false, error: reader.error })
    return Promise.resolve({ ok: true, value: new MemoryDisk(lengthBytes, geometry, limitBytes) })
  },
}
