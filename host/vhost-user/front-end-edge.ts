import type { PeerConnection, PeerDescriptor, PeerEvent } from './edge.ts'

/** An eventfd of our own. Its descriptor is for sending, and goes with the event. */
export interface OwnEvent {
  readonly event: PeerEvent
  readonly descriptor: PeerDescriptor
}

/** Guest memory as the daemon gets it: a range of guest-physical addresses, and what to map for it. */
export interface SharedRegion {
  readonly base: number
  readonly lengthBytes: number
  /** Stays its owner's. */
  readonly descriptor: PeerDescriptor
  /** Where the region begins in what the descriptor names. */
  readonly offset: number
}

/**
 * What a front-end asks of the operating system. Callbacks come outside of the machine's turns, and whoever gets
 * one goes through the clock's door. Nothing here waits.
 */
export interface FrontEndEdge {
  /** One line that says why not, when nobody listens there. */
  connect(path: string): PeerConnection | string
  /** A new socket pair: an end for us, and one to send, which the caller closes. Null when there is none. */
  pair(): { readonly ours: PeerConnection; readonly theirs: PeerDescriptor } | null
  /** Null when this process may have no more descriptors. */
  event(): OwnEvent | null
  /** Calls `tick` each time so much real time has passed, until the answer is called. */
  every(ms: number, tick: () => void): () => void
}
