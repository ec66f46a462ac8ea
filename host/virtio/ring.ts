import type { Violation } from '../../protocol/violation.ts'
import type { RingPosition } from '../../protocol/virtio/ring.ts'
import type { Chain } from './chain.ts'

/**
 * The device's end of a ring. No caller sees an index, a flag, or whether the ring is split or packed.
 *
 * A chain is a token: spent exactly once, by `complete` or (on reset) `abandon`.
 */
export interface DeviceRing {
  /**
   * The next chain, checked: buffers in reachable memory, readable before writable, within one walk budget.
   * A malformed chain is reported, given back unused (length 0) and passed over. Null when there is none, or
   * the ring is broken and waits for a reset.
   */
  next(): Chain | null
  /** Spends the token: `writtenBytes` of its writable part were written. Visible only after `publish`. */
  complete(chain: Chain, writtenBytes: number): void
  /** Spends the token without an answer; the driver has been told to expect none. */
  abandon(chain: Chain): void
  /** Makes completions visible; true when the driver asked to be told. */
  publish(): boolean
  /** Asks to be notified again; true when more arrived meanwhile, and the caller goes on with `next`. */
  rearm(): boolean
  /** Where the ring stands; meaningful for resuming once no token is out. */
  position(): RingPosition
  /** Tokens that are out. */
  readonly inFlight: number
  /** True after a violation that leaves no token to spend; only a reset helps. */
  readonly broken: boolean
}

/** Where a ring says what its peer did wrong. */
export interface RingListener {
  violated(violation: Violation): void
}
