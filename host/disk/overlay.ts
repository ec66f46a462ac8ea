import type { HostPlatform } from '../../protocol/platform.ts'
import type {
  DiskBackend,
  DiskChange,
  DiskExtent,
  DiskFacts,
  DiskIo,
  DiskListener,
  DiskOptions,
  DiskWrapperKind,
  Opened,
} from './backend.ts'
import { Coverage } from './coverage.ts'
import { pushExtent } from './extent.ts'
import { judge, refuse } from './judge.ts'
import { Merge } from './merge.ts'
import { OptionReader } from './option.ts'
import { pieces } from './pieces.ts'
import { SparseBytes } from './sparse.ts'
import { Watchers } from './watchers.ts'

const PAGE_BYTES = 4096

/**
 * Copy-on-write over any disk: changes stay in memory, what is below is only read.
 *
 * It remembers which blocks hide those below. Requests are whole blocks, so a write never needs what was there
 * before, and writes that overlap need no order among themselves. A read of untouched blocks goes below as it
 * is, with its loans.
 *
 * A flush does not go below: nothing there has changed. An erase hides the old content from whoever uses this
 * disk; below it remains.
 */
export class OverlayDisk implements DiskBackend {
  readonly #below: DiskBackend
  readonly #unwatch: () => void
  readonly #covered: Coverage
  readonly #bytes: SparseBytes
  readonly #watchers: Watchers
  #facts: DiskFacts
  /** Bytes of the disk below that show through; from there on, what is not covered is zero. */
  #visibleBytes: number
  /** Whether our own length was ever asked for; until then it is that of the disk below. */
  #resized: boolean
  #gone: boolean

  /** @param limitBytes most bytes of changes to hold; a write past it is answered 'no-space'. */
  constructor(below: DiskBackend, limitBytes = Number.POSITIVE_INFINITY) {
    this.#below = below
    this.#covered = new Coverage()
    this.#bytes = new SparseBytes(Math.max(PAGE_BYTES, below.facts.blockBytes), limitBytes)
    this.#watchers = new Watchers()
    this.#facts = factsOver(below.facts, below.facts.lengthBytes)
    this.#visibleBytes = below.facts.lengthBytes
    this.#resized = false
    this.#gone = false
    this.#unwatch = below.watch((change) => this.#belowChanged(change))
  }

  get facts(): DiskFacts {
    return this.#facts
  }

  /** Bytes of memory that the changes take. */
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
      if (io.op !== 'flush') this.#zero(io.offset, io.lengthBytes)
      io.answer('ok')
    }
  }

  watch(listener: DiskListener): () => void {
    return this.#watchers.add(listener)
  }

  close(finished: () => void): void {
    this.#gone = true
    this.#watchers.clear()
    this.#unwatch()
    this.#below.close(() => {
      this.#bytes.clear()
      finished()
    })
  }

  #read(io: DiskIo): void {
    const end = io.offset + io.lengthBytes
    if (end <= this.#visibleBytes && this.#stretchEnd(io.offset, end, false) === end) {
      this.#below.submit(io)
      return
    }
    const merge = new Merge(io)
    this.#eachStretch(io.offset, end, (at, lengthBytes, covered) => {
      const lent = pieces(io.lent, at - io.offset, lengthBytes)
      if (covered) this.#copy(at, lent)
      else if (at < this.#visibleBytes) merge.send(this.#below, 'read', at, lengthBytes, lent)
      else for (const view of lent) view.fill(0)
    })
    merge.sealed()
  }

  #write(io: DiskIo): void {
    let at = io.offset
    let full = false
    for (const view of io.lent) {
      const written = this.#bytes.write(at, view)
      at += written
      full = written < view.length
      if (full) break
    }
    const block = this.#facts.blockBytes
    // A page holds whole blocks, so that running out of pages leaves no block half written.
    this.#covered.add(io.offset / block, Math.floor(at / block))
    if (full) io.answer('no-space', at - io.offset, at)
    else io.answer('ok')
  }

  #zero(offset: number, lengthBytes: number): void {
    const block = this.#facts.blockBytes
    this.#bytes.zero(offset, lengthBytes)
    this.#covered.add(offset / block, (offset + lengthBytes) / block)
  }

  #extents(io: DiskIo): void {
    const end = io.offset + io.lengthBytes
    /** In order; what is below is filled in when it is known. */
    const found: (readonly DiskExtent[])[] = []
    const merge = new Merge(io, () => {
      for (const extents of found) {
        for (const { offset, lengthBytes, kind } of extents) pushExtent(io.extents, offset, lengthBytes, kind)
      }
    })
    this.#eachStretch(io.offset, end, (at, lengthBytes, covered) => {
      if (covered) found.push(this.#ownExtents(at, lengthBytes))
      else if (at >= this.#visibleBytes) found.push([{ offset: at, lengthBytes, kind: 'hole' }])
      else if (!this.#below.facts.can.extents) found.push([{ offset: at, lengthBytes, kind: 'data' }])
      else found.push(merge.send(this.#below, 'extents', at, lengthBytes, []).extents)
    })
    merge.sealed()
  }

  #ownExtents(offset: number, lengthBytes: number): DiskExtent[] {
    const extents: DiskExtent[] = []
    let reached = offset
    this.#bytes.eachHeld(offset, lengthBytes, (at, heldBytes) => {
      pushExtent(extents, reached, at - reached, 'zero')
      pushExtent(extents, at, heldBytes, 'data')
      reached = at + heldBytes
    })
    pushExtent(extents, reached, offset + lengthBytes - reached, 'zero')
    return extents
  }

  #resize(io: DiskIo): void {
    const before = this.#facts.lengthBytes
    this.#resized = true
    this.#cut(io.lengthBytes)
    this.#facts = factsOver(this.#below.facts, io.lengthBytes)
    if (io.lengthBytes !== before) this.#watchers.tell('size')
    io.answer('ok')
  }

  /** Forgets what lies from `lengthBytes` on, here and below: should the disk grow again, it is zero. */
  #cut(lengthBytes: number): void {
    const before = this.#facts.lengthBytes
    if (lengthBytes < before) {
      const block = this.#facts.blockBytes
      this.#bytes.zero(lengthBytes, before - lengthBytes)
      this.#covered.remove(lengthBytes / block, before / block)
    }
    this.#visibleBytes = Math.min(this.#visibleBytes, lengthBytes)
  }

  #belowChanged(change: DiskChange): void {
    const below = this.#below.facts
    if (change === 'gone') this.#gone = true
    if (change === 'size') {
      if (this.#resized) {
        this.#visibleBytes = Math.min(this.#visibleBytes, below.lengthBytes)
        return
      }
      this.#cut(below.lengthBytes)
      this.#visibleBytes = below.lengthBytes
    }
    this.#facts = factsOver(below, this.#resized ? this.#facts.lengthBytes : below.lengthBytes)
    this.#watchers.tell(change)
  }

  #copy(offset: number, lent: readonly Uint8Array[]): void {
    let at = offset
    for (const view of lent) {
      this.#bytes.read(at, view)
      at += view.length
    }
  }

  /** Where a stretch of blocks that are covered, or are not, ends. */
  #stretchEnd(at: number, end: number, covered: boolean): number {
    const block = this.#facts.blockBytes
    return this.#covered.endOf(at / block, end / block, covered) * block
  }

  /** Calls `stretch` for what is covered, what shows from below and what is beyond it, in order. */
  #eachStretch(
    offset: number,
    end: number,
    stretch: (at: number, lengthBytes: number, covered: boolean) => void,
  ): void {
    let at = offset
    const block = this.#facts.blockBytes
    while (at < end) {
      const covered = this.#covered.has(at / block)
      let next = this.#stretchEnd(at, end, covered)
      if (!covered && at < this.#visibleBytes) next = Math.min(next, this.#visibleBytes)
      stretch(at, next - at, covered)
      at = next
    }
  }
}

function factsOver(below: DiskFacts, lengthBytes: number): DiskFacts {
  return {
    ...below,
    lengthBytes,
    readOnly: false,
    // None of it outlives this process: it promises nothing.
    volatileCache: true,
    can: { fua: true, zero: true, discard: true, erase: true, resize: true, extents: true },
  }
}

export const OVERLAY: DiskWrapperKind = {
  role: 'wrapper',
  kind: 'overlay',
  summary: 'keeps every change in memory; the disk beneath is only read',
  example: 'file:disk.img | overlay',
  options: { limit: 'bytes of changes to hold before writes are answered no-space; none by default' },
  open(options: DiskOptions, _platform: HostPlatform, over: DiskBackend): Promise<Opened<DiskBackend>> {
    const reader = new OptionReader('overlay', options)
    const limitBytes = reader.size('limit', Number.POSITIVE_INFINITY)
    if (reader.error !== null) return Promise.resolve({ ok: false, error: reader.error })
    return Promise.resolve({ ok: true, value: new OverlayDisk(over, limitBytes) })
  },
}
