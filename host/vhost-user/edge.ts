/**
 * What a vhost-user session asks of the operating system. The session is a state machine over these few calls,
 * so that it runs anywhere and any sequence of messages can be tried in a test; `native/` is behind them when a
 * peer is real.
 */

/** A descriptor a peer sent, with one owner, who closes it once. */
export interface PeerDescriptor {
  /** What is behind it: a peer may send anything as anything. */
  readonly kind: 'file' | 'event' | 'socket' | 'pipe' | 'other'
  /** Bytes of a file or of shared memory; 0 otherwise. */
  readonly lengthBytes: number
  /** Nobody can make it shorter. */
  readonly keepsLength: boolean
  close(): void
}

/** Memory shared with the peer. */
export interface PeerMemory {
  readonly bytes: Uint8Array<ArrayBuffer>
  /** The peer's bytes go, once; views that are left over see nothing of it any more. */
  revoke(): void
}

/** A counter that wakes the other side, or that the other side wakes us with. */
export interface PeerEvent {
  signal(): void
  /** Calls `rung` after each time it was signalled, until it is closed. At most once for each. */
  watch(rung: () => void): void
  /** Ends the watching, too. */
  close(): void
}

/** A socket that messages go out on. */
export interface PeerChannel {
  /** Sends all of it at once; false when the peer is gone or does not read. The descriptors stay ours. */
  send(bytes: Uint8Array, descriptors: readonly PeerDescriptor[]): boolean
  close(): void
}

/** The connection to the front-end. */
export interface PeerConnection extends PeerChannel {
  /**
   * Receives at most `into.length` bytes. Descriptors that came along are appended and the caller's to close.
   *
   * @returns how many bytes; 0 when the peer is gone, or with it any hope of the connection; null when there is
   *   nothing to read at present.
   */
  receive(into: Uint8Array, descriptors: PeerDescriptor[]): number | null
  /** Calls `ready` while there is something to read, and does not while `paused`. */
  watch(ready: () => void): void
  pause(paused: boolean): void
}

/** What is made of descriptors. Where the answer is null, the descriptor stays the caller's. */
export interface PeerEdge {
  /** Maps to be read and written; what is mapped needs no descriptor any more. Null when it cannot be. */
  map(descriptor: PeerDescriptor, offset: number, lengthBytes: number): PeerMemory | null
  /** Takes an event over. */
  event(descriptor: PeerDescriptor): PeerEvent | null
  /** Takes a socket over. */
  channel(descriptor: PeerDescriptor): PeerChannel | null
  /** Zeroed memory with a descriptor to pass on, of a length that nobody can change. Null when there is none. */
  allocate(name: string, lengthBytes: number): PeerDescriptor | null
}
