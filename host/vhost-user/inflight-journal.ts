import {
  INFLIGHT_VERSION,
  InflightSplitRegion,
  InflightSplitState,
  inflightSplitBytes,
} from '../../protocol/vhost-user/inflight.ts'
import type { RingPosition } from '../../protocol/virtio/ring.ts'
import { Window } from '../../protocol/window.ts'
import type { RingJournal } from '../virtio/ring.ts'

const STATES = InflightSplitRegion.states
const STATE_BYTES = InflightSplitState.$size

/** Where a ring goes on after the back-end that served it was lost. */
export interface Recovered {
  readonly position: RingPosition
  /** Heads that were out, in the order they were taken. */
  readonly heads: readonly number[]
}

/**
 * One ring's part of the tracking buffer, vhost-user, Inflight I/O tracking: what is out, in memory that the
 * front-end keeps while back-ends come and go.
 *
 * Each field is written in the order the document gives, so that whatever instant ends this process leaves a
 * state that `recover` understands: nothing answered is done again, and nothing taken is forgotten. The buffer
 * is the front-end's to change: it is read once, at recovery, and nothing in it is believed beyond a check.
 */
export class InflightJournal implements RingJournal {
  readonly #window: Window
  readonly #size: number
  #counter: number
  /** Head that was used last: the batch is a list from there. */
  #lastUsed: number
  /** Heads of the batch that is being filled. */
  readonly #batch: Uint16Array
  #batchCount: number

  /** @param bytes this ring's part, `inflightSplitBytes(size)` of them. */
  constructor(bytes: Uint8Array<ArrayBuffer>, size: number) {
    if (!(bytes.length >= inflightSplitBytes(size)))
      throw new RangeError(`a journal of ${bytes.length} bytes`)
    this.#window = new Window(bytes, true)
    this.#size = size
    this.#counter = 0
    this.#lastUsed = 0
    this.#batch = new Uint16Array(size)
    this.#batchCount = 0
  }

  /**
   * What was out when the last writer stopped, wherever it stopped. A buffer that nobody used yet tells nothing,
   * and is made ready.
   *
   * @param usedIndex the used index that the driver sees.
   * @param available where the front-end says the ring stands; what counts in a fresh buffer.
   */
  recover(usedIndex: number, available: number): Recovered {
    const fresh = this.#window.le16(InflightSplitRegion.version) !== INFLIGHT_VERSION
    if (fresh) this.#prepare()
    else this.#finishBatch(usedIndex)
    this.#window.storeIndex(InflightSplitRegion.usedIndex, usedIndex)
    const heads = this.#headsOut()
    this.#lastUsed = 0
    this.#batchCount = 0
    // Taken is what was used and what is out: no index of ours outlived the process.
    const position = fresh
      ? { available, used: usedIndex }
      : { available: (usedIndex + heads.length) & 0xffff, used: usedIndex }
    return { position, heads }
  }

  took(head: number): void {
    const at = head * STATE_BYTES + STATES
    this.#window.putLe64(InflightSplitState.counter, this.#counter++, at)
    this.#window.putU8(InflightSplitState.inflight, 1, at)
  }

  used(head: number): void {
    const last = this.#lastUsed
    this.#window.putLe16(InflightSplitState.next, last, head * STATE_BYTES + STATES)
    this.#lastUsed = head
    // More than a ring holds are the same heads again, offered by a driver that did not wait for them.
    if (this.#batchCount < this.#size) this.#batch[this.#batchCount++] = head
  }

  publishing(): void {
    this.#window.storeIndex(InflightSplitRegion.lastBatchHead, this.#lastUsed)
  }

  published(usedIndex: number): void {
    for (let i = 0; i < this.#batchCount; i++) {
      const head = this.#batch[i] as number
      this.#window.putU8(InflightSplitState.inflight, 0, head * STATE_BYTES + STATES)
    }
    this.#batchCount = 0
    this.#window.storeIndex(InflightSplitRegion.usedIndex, usedIndex)
  }

  #prepare(): void {
    for (let head = 0; head < this.#size; head++) {
      this.#window.putU8(InflightSplitState.inflight, 0, head * STATE_BYTES + STATES)
    }
    this.#window.putLe16(InflightSplitRegion.descriptors, this.#size)
    this.#window.storeIndex(InflightSplitRegion.version, INFLIGHT_VERSION)
  }

  /**
   * The driver saw a batch that was not struck off yet: its writer stopped between the two. As many heads as
   * the index moved are struck off now.
   */
  #finishBatch(usedIndex: number): void {
    const before = this.#window.le16(InflightSplitRegion.usedIndex)
    let left = (usedIndex - before) & 0xffff
    let head = this.#window.le16(InflightSplitRegion.lastBatchHead)
    // The list is the peer's to change: it has no more entries than the ring, and each is one of the ring's.
    for (let budget = this.#size; left > 0 && budget > 0 && head < this.#size; left--, budget--) {
      const at = head * STATE_BYTES + STATES
      this.#window.putU8(InflightSplitState.inflight, 0, at)
      head = this.#window.le16(InflightSplitState.next, at)
    }
  }

  #headsOut(): number[] {
    const out: { readonly head: number; readonly counter: number }[] = []
    for (let head = 0; head < this.#size; head++) {
      const at = head * STATE_BYTES + STATES
      if (this.#window.u8(InflightSplitState.inflight, at) !== 1) continue
      out.push({ head, counter: this.#window.le64(InflightSplitState.counter, at) })
    }
    out.sort((a, b) => a.counter - b.counter || a.head - b.head)
    // Only the order of the counters matters, and a peer's own could be too large to count on from.
    out.forEach(({ head }, order) => {
      this.#window.putLe64(InflightSplitState.counter, order, head * STATE_BYTES + STATES)
    })
    this.#counter = out.length
    return out.map(({ head }) => head)
  }
}
