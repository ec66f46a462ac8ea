import type { AccessWidth, Plain } from '../../protocol/platform.ts'
import type { FeatureSet, FeatureTable } from '../../protocol/version.ts'
import type { Violation } from '../../protocol/violation.ts'
import type { QueuePlace, RingPosition } from '../../protocol/virtio/ring.ts'
import type { RingCare } from './ring.ts'

/** What a device tells its transport, which turns it into a line, a message or an eventfd. */
export interface DeviceSignals {
  /** Buffers of `queue` were used and the driver asked to be told. */
  signal(queue: number): void
  /** Configuration space has a new generation. */
  configChanged(): void
  /** The driver broke a rule that leaves the device unable to go on until it is reset. */
  needsReset(): void
  violated(violation: Violation): void
}

/** Where a queue stands: enough to go on elsewhere. */
export interface QueueState {
  readonly position: RingPosition
  /** Heads taken and not given back, oldest first: they are done again. */
  readonly heads: readonly number[]
  /** The driver broke a rule that leaves no token to give back: nothing is taken until a reset. */
  readonly broken?: boolean
}

/**
 * A device model, which never knows its transport, VIRTIO 1.2 section 2.
 *
 * Order of calls: `attach`; then, as often as the driver likes, `accept`, `start` of some queues, `kick`s,
 * `stop`s, `reset`.
 */
export interface VirtioDevice {
  readonly deviceId: number
  /** Largest size of each queue. */
  readonly queueSizes: readonly number[]
  readonly offered: FeatureSet
  /** Prerequisites and names of the device type's own bits. */
  readonly featureTable: FeatureTable
  /** Changes whenever configuration space does. 32 bits, wraps. */
  readonly configGeneration: number
  attach(signals: DeviceSignals): void
  /** Features are settled; a valid subset of what was offered. */
  accept(features: FeatureSet): void
  /** Little-endian value of `width` bytes; 0 past the end. */
  readConfig(offset: number, width: AccessWidth): number
  writeConfig(offset: number, width: AccessWidth, value: number): void
  /**
   * Makes a queue ready. A violation says why it cannot be. Serving begins with the first kick. `care` is for
   * transports whose device may be lost while its driver goes on, or that look at rings by themselves.
   */
  start(queue: number, place: QueuePlace, from: QueueState, care?: RingCare): Violation | null
  /** The queue may have new buffers. Work happens in a turn of its own, never in here. */
  kick(queue: number): void
  /** Takes nothing more; calls `stopped` once every buffer taken has been given back. */
  stop(queue: number, stopped: (state: QueueState) => void): void
  /**
   * Two-phase reset: stops intake and asks for cancellation at once, and calls `done` when every loan of
   * guest memory has ended. Nothing is written to guest memory after that.
   */
  reset(done: () => void): void
  /** State of a queue right now, its taken buffers among `heads`; null when it is not ready. */
  queueState(queue: number): QueueState | null
  /** The device type's own state, to go with its queues'. */
  save(): Plain
  /** Takes a saved state through the same checks as registers; returns what is wrong with it. */
  load(state: Plain): string | null
}

export const QUEUE_START: QueueState = { position: { available: 0, used: 0 }, heads: [] }
