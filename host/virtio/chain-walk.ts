import type { DmaSpace } from '../../protocol/dma.ts'
import type { Field } from '../../protocol/layout.ts'
import { gpa } from '../../protocol/memory.ts'
import type { RequirementId } from '../../protocol/requirement.ts'
import type { QueuePlace } from '../../protocol/virtio/ring.ts'
import { DescFlag, VirtqDesc } from '../../protocol/virtio/ring.ts'
import type { Window } from '../../protocol/window.ts'
import { Cursor } from '../../protocol/window.ts'
import type { Chain } from './chain.ts'
import type { RingListener } from './ring.ts'

// Constants of this module are folded into optimized code; a property of an import is loaded every time.
const DESC_BYTES = VirtqDesc.$size
const DESC_ADDR = VirtqDesc.addr
const DESC_LEN = VirtqDesc.len
/** Flags and the next index lie side by side: one read has both. */
const DESC_FLAGS_AND_NEXT = VirtqDesc.flags as number as Field<'le32'>
const NEXT = DescFlag.NEXT
const WRITE = DescFlag.WRITE
const INDIRECT = DescFlag.INDIRECT

const DESC_WORDS = DESC_BYTES / 4
const TWO_32 = 0x1_0000_0000
const WORD_MAX = 0xffff_ffff
/** The largest number that is compared and added as a machine word. */
const SMALL_MAX = 0x7fff_ffff

/** VIRTIO 1.2 section 2.7.5.2. One more than a used length can say. */
const CHAIN_BYTES_MAX = 0x1_0000_0000

/** What the chains of one ring are read with. */
export interface WalkSetup {
  readonly dma: DmaSpace
  readonly queue: number
  readonly place: QueuePlace
  readonly indirect: boolean
  readonly listener: RingListener
}

/**
 * Reads chains of descriptors, VIRTIO 1.2 section 2.7.5: each field once, each chain within one budget.
 *
 * There are two walks. `run` is the short one, for what comes a million times a second: descriptors of one table,
 * buffers in the plain part of memory. It is kept below the size up to which the optimizer inlines. The first
 * descriptor that is anything else it leaves, with what it read of it, to the whole walk, which goes on from there
 * and judges everything.
 */
export class ChainWalk {
  // Private by declaration and set once for the same reasons as in the ring.
  private readonly dma: DmaSpace
  private readonly queue: number
  private readonly size: number
  private readonly tableAt: number
  private readonly indirect: boolean
  private readonly listener: RingListener
  private readonly descriptors: Window
  /** Re-pointed at each indirect table: of so many descriptors, at that address. */
  private readonly table: Cursor
  private enteredAt = 0
  private tableLimit = 0
  /** A descriptor that was read apart from the walk that judges it. */
  private readonly fetched: Uint32Array<ArrayBuffer>

  /** @param descriptors the table, whole. */
  constructor(setup: WalkSetup, descriptors: Window) {
    this.dma = setup.dma
    this.queue = setup.queue
    this.size = setup.place.size
    this.tableAt = setup.place.descriptors
    this.indirect = setup.indirect
    this.listener = setup.listener
    this.descriptors = descriptors
    this.table = new Cursor()
    this.fetched = new Uint32Array(4)
  }

  /** Reads the chain that begins at the head of `chain` into it. False: malformed and reported. */
  read(chain: Chain): boolean {
    const { words } = this.descriptors
    return words.length > 0
      ? this.run(chain, words, 0, this.size, chain.head, false)
      : this.walkApart(chain, chain.head, false)
  }

  /**
   * The short walk, from the descriptor `first` of the table whose words begin with `from`.
   *
   * @param nested in the indirect table that was entered last.
   */
  private run(
    chain: Chain,
    words: Uint32Array,
    from: number,
    limit: number,
    first: number,
    nested: boolean,
  ): boolean {
    const { addresses, lengths } = chain
    const { plainBase, plainEnd } = this.dma
    const { size } = this
    let index = first
    let count = 0
    let readableCount = 0
    let readableBytes = 0
    let writableBytes = 0
    let isLeft = false
    for (;;) {
      const at = from + index * DESC_WORDS
      const low = words[at] as number
      const high = words[at + 1] as number
      const len = words[at + 2] as number
      const flagsAndNext = words[at + 3] as number
      const addr = high === 0 ? low : low + high * TWO_32
      const isPlain = len > 0 && addr >= plainBase && len <= plainEnd - addr && count < size
      const isReadable = (flagsAndNext & WRITE) === 0
      if (!isPlain || (flagsAndNext & INDIRECT) !== 0 || (isReadable && writableBytes > 0)) {
        this.leave(low, high, len, flagsAndNext)
        isLeft = true
        break
      }
      addresses[count] = addr
      lengths[count] = len
      count++
      if (isReadable) {
        readableBytes += len
        readableCount = count
      } else writableBytes += len
      if ((flagsAndNext & NEXT) === 0) break
      const next = flagsAndNext >>> 16
      if (!(next < limit)) return this.strays(index, next, nested)
      index = next
    }
    chain.count = count
    chain.readableCount = readableCount
    chain.readableBytes = readableBytes
    chain.writableBytes = writableBytes
    if (isLeft) return this.goOn(chain, index, nested)
    return readableBytes + writableBytes <= SMALL_MAX || this.fits(chain, nested)
  }

  /** Goes on at a descriptor that was left: in the table that stands for the whole chain, or by the whole walk. */
  private goOn(chain: Chain, index: number, nested: boolean): boolean {
    const { fetched } = this
    const flagsAndNext = fetched[3] as number
    const isWhole = (flagsAndNext & INDIRECT) !== 0 && chain.count === 0 && !nested
    if (!isWhole) return this.walk(chain, index, true, nested)
    const high = fetched[1] as number
    const at = high === 0 ? (fetched[0] as number) : (fetched[0] as number) + high * TWO_32
    if (!this.enter(false, at, fetched[2] as number, flagsAndNext & 0xffff)) return false
    const { window, base } = this.table
    const words = wordsFrom(window, base)
    return words === null
      ? this.walkApart(chain, 0, true)
      : this.run(chain, words, base / 4, this.tableLimit, 0, true)
  }

  /** The whole walk from the first descriptor on. */
  private walkApart(chain: Chain, first: number, nested: boolean): boolean {
    chain.count = 0
    chain.readableCount = 0
    chain.readableBytes = 0
    chain.writableBytes = 0
    return this.walk(chain, first, false, nested)
  }

  /** Of a link that leads out of its table. */
  private strays(index: number, next: number, nested: boolean): false {
    const at = (nested ? this.enteredAt : this.tableAt) + index * DESC_BYTES
    return this.refuse('split.next-range', at, next, (nested ? this.tableLimit : this.size) - 1)
  }

  /** Notes what was read of a descriptor. */
  private leave(low: number, high: number, len: number, flagsAndNext: number): void {
    const { fetched } = this
    fetched[0] = low
    fetched[1] = high
    fetched[2] = len
    fetched[3] = flagsAndNext
  }

  /**
   * Goes on with a chain of which `chain.count` buffers have been read, at the descriptor `first`.
   *
   * One function with locals, because an address handed to a call that is not inlined is boxed: that alone
   * costs more than the walk. What is refused leaves through small functions.
   *
   * @param left what is in that descriptor has been read, and is not read again.
   * @param nested it is one of the indirect table that was entered last.
   */
  private walk(chain: Chain, first: number, left: boolean, nested: boolean): boolean {
    const { addresses, lengths } = chain
    const { size, fetched } = this
    const { plainBase, plainEnd } = this.dma
    let table = nested ? this.table.window : this.descriptors
    let tableBase = nested ? this.table.base : 0
    let words = wordsFrom(table, tableBase) ?? fetched
    // What makes an address of a base in the table.
    let toAddress = nested ? this.enteredAt - tableBase : this.tableAt
    let limit = nested ? this.tableLimit : size
    let indirect = nested
    let index = first
    let isLeft = left
    let { count, readableCount, readableBytes, writableBytes } = chain
    // One budget for the whole request. It counts buffers, so a table of exactly a queue size fits.
    for (let budget = size - count; ; ) {
      const base = tableBase + index * DESC_BYTES
      if (budget === 0) return this.refuse('split.chain-length', base + toAddress, size + 1, size)
      let from = words
      let at = base / 4
      if (isLeft || words === fetched) {
        if (!isLeft) this.fetch(table, base)
        isLeft = false
        from = fetched
        at = 0
      }
      const high = from[at + 1] as number
      const addr = high === 0 ? (from[at] as number) : (from[at] as number) + high * TWO_32
      const len = from[at + 2] as number
      const flagsAndNext = from[at + 3] as number
      if ((flagsAndNext & INDIRECT) !== 0) {
        if (!this.enter(indirect, addr, len, flagsAndNext & 0xffff)) return false
        table = this.table.window
        tableBase = this.table.base
        words = wordsFrom(table, tableBase) ?? fetched
        toAddress = addr - tableBase
        limit = this.tableLimit
        index = 0
        indirect = true
        continue
      }
      budget--
      // An empty buffer is legal and carries nothing.
      if (len > 0) {
        if (!(addr >= plainBase && len <= plainEnd - addr) && !this.dma.reaches(gpa(addr), len)) {
          return this.refuse('split.buffer-backed', addr, len, this.dma.memory.end)
        }
        if ((flagsAndNext & WRITE) !== 0) writableBytes += len
        else if (writableBytes > 0) {
          const flags = flagsAndNext & 0xffff
          return this.refuse('split.readable-after-writable', base + toAddress, flags, WRITE)
        } else {
          readableBytes += len
          readableCount++
        }
        addresses[count] = addr
        lengths[count] = len
        count++
      }
      if ((flagsAndNext & NEXT) === 0) break
      index = flagsAndNext >>> 16
      if (!(index < limit)) return this.refuse('split.next-range', base + toAddress, index, limit - 1)
    }
    chain.count = count
    chain.readableCount = readableCount
    chain.readableBytes = readableBytes
    chain.writableBytes = writableBytes
    return this.fits(chain, indirect)
  }

  private fits({ readableBytes, writableBytes }: Chain, nested: boolean): boolean {
    const bytes = readableBytes + writableBytes
    const at = nested ? this.enteredAt : this.tableAt
    return bytes <= CHAIN_BYTES_MAX || this.refuse('split.chain-bytes', at, bytes, CHAIN_BYTES_MAX)
  }

  /** Reads a descriptor where it cannot be read by words, each field once. */
  private fetch(table: Window, base: number): void {
    const { fetched } = this
    const addr = table.le64(DESC_ADDR, base)
    // The last addresses there are have been rounded up to 2^64.
    const high = Math.min(Math.floor(addr / TWO_32), WORD_MAX)
    fetched[0] = Math.min(addr - high * TWO_32, WORD_MAX)
    fetched[1] = high
    fetched[2] = table.le32(DESC_LEN, base)
    fetched[3] = table.le32(DESC_FLAGS_AND_NEXT, base)
  }

  /** Checks an indirect descriptor and points the table window at what it names. */
  private enter(nested: boolean, at: number, len: number, flags: number): boolean {
    if (!this.indirect) return this.refuse('split.indirect-not-negotiated', at, flags, 0)
    if (nested) return this.refuse('split.indirect-nested', at, flags, 0)
    if ((flags & NEXT) !== 0) return this.refuse('split.indirect-with-next', at, flags, INDIRECT)
    if (len === 0 || len % DESC_BYTES !== 0 || !(len / DESC_BYTES <= this.size)) {
      return this.refuse('split.indirect-length', at, len, this.size * DESC_BYTES)
    }
    if (!this.dma.point(this.table, gpa(at), len)) {
      return this.refuse('split.indirect-backed', at, len, this.dma.memory.end)
    }
    this.enteredAt = at
    this.tableLimit = len / DESC_BYTES
    return true
  }

  private refuse(rule: RequirementId, at: number, seen: number, expected: number): false {
    this.listener.violated({ rule, side: 'driver', queue: this.queue, at, seen, expected })
    return false
  }
}

/** The words of a table; a table may lie anywhere, also where no word begins. */
function wordsFrom({ words }: Window, base: number): Uint32Array<ArrayBuffer> | null {
  return base % 4 === 0 && words.length > 0 ? words : null
}
