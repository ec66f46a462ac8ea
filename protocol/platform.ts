import type { Gpa, GuestMemory } from './memory.ts'
import type { Trace } from './trace.ts'

export type Work = () => void

/** A pending `after`. Cancelling twice, or after it ran, does nothing. */
export interface Timer {
  cancel(): void
}

/** Ends one hold of virtual time. Calling it twice is our own mistake and throws. */
export type Release = () => void

/** What may cross the door from outside: plain data, so that a trace can hold it. */
export type Plain =
  | null
  | boolean
  | number
  | string
  | readonly Plain[]
  | { readonly [name: string]: Plain | undefined }

/** Someone who asked the outside for something. `path` names it in the trace (`disk0/file`). */
export interface ArrivalSource {
  readonly path: string
  /** Runs as a turn of the run queue, never inside the callback that brought the value. */
  arrived(value: Plain): void
}

/**
 * The only scheduler. Virtual time moves when the run queue is empty and no external operation is held, so
 * an asynchronous read never triggers a timeout.
 */
export interface Clock {
  /** Virtual time, in microseconds since power-on. */
  now(): number
  /** Runs `work` as a turn of its own, after everything queued so far. */
  defer(work: Work): void
  /** Runs `work` once virtual time has advanced by `us` microseconds (0 or more). */
  after(us: number, work: Work): Timer
  /**
   * Holds virtual time while something outside is under way. `why` appears when a run does not end.
   *
   * @param underWay for a part whose work begins and ends in memory that somebody else writes too: asked
   *   whenever time is about to move, and the hold counts while it answers true. Whoever makes it answer false
   *   without being asked brings an arrival.
   */
  external(why: string, underWay?: () => boolean): Release
  /** The one door for results from outside: numbered in the trace, replayable from it. */
  arrive(source: ArrivalSource, value: Plain): void
}

/** A seeded stream. Each consumer has its own, so that adding one does not shift the others. */
export interface Random {
  /** 0 … 2^32 - 1. */
  next32(): number
  /** 0 … limit - 1, `limit` a positive integer up to 2^32. */
  below(limit: number): number
  /** The stream of the part called `path` below this one: same seed and path, same numbers. */
  stream(path: string): Random
}

/** What a backend or a device model may ask of the bench. */
export interface HostPlatform {
  readonly clock: Clock
  readonly random: Random
  readonly trace: Trace
  /** This part's name in the bench: `disk0/delay`. */
  readonly path: string
}

export type AccessWidth = 1 | 2 | 4 | 8

/** Registers, as a bus reaches them. Offsets are from the start of the device's own range. */
export interface RegisterDevice {
  read(offset: number, width: AccessWidth): number
  write(offset: number, width: AccessWidth, value: number): void
}

/** An interrupt line: level-triggered, raised and lowered by its device. */
export interface InterruptLine {
  raise(): void
  lower(): void
}

/** What guest code may ask of its machine. */
export interface GuestPlatform {
  readonly memory: GuestMemory
  readonly clock: Clock
  /** Zeroed memory that never moves; `alignment` is a power of two. */
  allocate(lengthBytes: number, alignment: number): Gpa
  /** A register access; on a processor with VT-x, an exit. */
  read(at: Gpa, width: AccessWidth): number
  write(at: Gpa, width: AccessWidth, value: number): void
  /** Connects a service routine to an interrupt line. */
  connect(line: number, isr: () => void): void
}
