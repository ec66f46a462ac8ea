/**
 * A checked chain of buffers: all readable ones, then all writable ones, each wholly in reachable memory.
 *
 * A ring keeps one for each head, so that taking it allocates nothing; the arrays are overwritten, never
 * shortened. Segments are (address, bytes) pairs in the order of the chain.
 */
export class Chain {
  /** First descriptor: what the used ring names. */
  readonly head: number = 0
  /** The request's id in the trace, unique in its ring since the ring started. */
  id = 0
  /** Taken and not yet completed or abandoned. */
  live = false
  readonly addresses: number[] = []
  readonly lengths: number[] = []
  /** Segments in use; the first `readableCount` are readable. */
  count = 0
  readableCount = 0
  readableBytes = 0
  writableBytes = 0

  constructor(head: number) {
    this.head = head
  }
}
