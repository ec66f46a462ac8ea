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

/**
 * Learns which chains are out, step by step, in memory that outlives this process: so that whoever comes next can
 * take them again. The order of the calls is the order in which memory changes.
 */
export interface RingJournal {
  /** The head was read and is out from now on. */
  took(head: number): void
  /** It stands in the used ring, where the driver does not see it yet. */
  used(head: number): void
  /** Everything used so far becomes visible next. */
  publishing(): void
  /** It is: the published index is `usedIndex`. */
  published(usedIndex: number): void
}

/** What goes with a ring and is no part of where it stands. */
export interface RingCare {
  /** Hears what is out; null where nobody comes after us. */
  readonly journal: RingJournal | null
  /** Somebody looks at the ring all the time: the driver need not notify, and is asked not to. */
  readonly polled: boolean
}

export const PLAIN_CARE: RingCare = { journal: null, polled: false }

/** Where a ring says what its peer did wrong. */
export interface RingListener {
  violated(violation: Violation): void
}
