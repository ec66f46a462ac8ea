import type { Descriptor } from './descriptor.ts'

/** Ends the watching, once. No `ready` follows, not even one that was due in this round. */
export interface Watch extends Disposable {
  close(): void
}

/** What a loop drives: a machine that lives in its own time and is told when it may go on. */
export interface LoopWork {
  /**
   * Runs all that can run now. Microseconds until it has to run again though nothing happens; null when it has
   * not.
   */
  turn(): number | null
  /**
   * For a loop that polls: looks where no descriptor tells of work (a ring). True when there was some; null when
   * there is nowhere to look, so that the loop may sleep.
   */
  look?(): boolean | null
}

/**
 * Waits for descriptors, deadlines and wake-ups, and runs the work between them. Everything happens on the thread
 * that called `run`.
 *
 * A descriptor that is watched must not be closed before its watch is.
 */
export interface EdgeLoop extends Disposable {
  /** One line for whoever is told which loop was chosen. */
  readonly description: string
  /** Calls `ready` again and again while the descriptor is readable, or closed by the peer. */
  watch(descriptor: Descriptor, ready: () => void): Watch
  /** A turn soon, though nothing happened outside; from anywhere on the loop's thread. */
  wakeUp(): void
  /**
   * Runs until `stop`. A turn comes first, then one after each round of `ready`, each deadline and each wake-up.
   * What throws in there ends it.
   */
  run(work: LoopWork): Promise<void>
  /** Ends `run` after the callback that is running. */
  stop(): void
}
