/**
 * A checked chain of buffers: all readable ones, then all writable ones, each wholly in reachable memory.
 *
 * Chains are pooled by their ring, so that taking one allocates nothing; the arrays are overwritten, never
 * shortened. Segments are (address, bytes) pairs in the order of the chain.
 */
export class Chain {
  /** First descriptor: what the used ring names. */
  head: number
  /** The request's id in the trace, unique in its ring since the ring started. */
  id: number
  /** Taken and not yet completed or abandoned. */
  live: boolean
  readonly addresses: number[]
  readonly lengths: number[]
  /** Segments in use; the first `readableCount` are readable. */
  count: number
  readableCount: number
  readableBytes: number
  writableBytes: number

  constructor() {
    this.head = 0
    this.id = 0
    this.live = false
    this.addresses = []
    this.lengths = []
    this.count = 0
    this.readableCount = 0
    this.readableBytes = 0
    this.writableBytes = 0
  }
}
