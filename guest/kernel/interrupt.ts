import type { Trigger } from '../../protocol/processor.ts'
import type { Hal } from './hal.ts'
import { Irql } from './irql.ts'
import { NtStatus } from './nt-status.ts'

/** KSERVICE_ROUTINE: at the device's level. True when its device asked. */
export type ServiceRoutine = (context: number) => boolean

/** Named by its line (raw resource) or by its vector (translated resource, which START's list assigned). */
export type InterruptOptions = (
  | { readonly line: number; readonly vector?: number }
  | { readonly vector: number; readonly line?: never }
) & {
  readonly trigger: Trigger
  /** Device level, 3 … 11; without it, the one assigned. */
  readonly irql?: Irql
  readonly context?: number
}

/** Vectors of one level: its number is their upper four bits. */
const VECTORS_PER_LEVEL = 16

/** KINTERRUPT: a service routine on a line. */
export class Interrupt {
  readonly line: number
  readonly irql: Irql
  readonly vector: number
  readonly routine: ServiceRoutine
  readonly context: number
  connected: boolean

  constructor(line: number, irql: Irql, vector: number, routine: ServiceRoutine, context: number) {
    this.line = line
    this.irql = irql
    this.vector = vector
    this.routine = routine
    this.context = context
    this.connected = true
  }
}

/** Where a line interrupts the processor. */
export interface AssignedVector {
  readonly irql: Irql
  readonly vector: number
}

interface SharedLine extends AssignedVector {
  /** A resource list names the vector: it stays while no routine is connected. */
  assigned: boolean
  readonly trigger: Trigger
  /** In the order they connected. */
  readonly chain: Interrupt[]
}

/** Service routines on interrupt lines. Several may share a level-triggered one. */
export class Interrupts {
  readonly #hal: Hal
  readonly #lines: Map<number, SharedLine>
  readonly #vectors: Set<number>

  constructor(hal: Hal) {
    this.#hal = hal
    this.#lines = new Map()
    this.#vectors = new Set()
  }

  get connectedCount(): number {
    return [...this.#lines.values()].reduce((count, line) => count + line.chain.length, 0)
  }

  /** Vector and level of a line (HalGetInterruptVector); null when the level has no vector left. */
  assign(line: number, trigger: Trigger): AssignedVector | null {
    const shared = this.#lines.get(line) ?? this.#make(line, Irql.DEVICE, trigger)
    if (shared === null || shared.trigger !== trigger) return null
    shared.assigned = true
    return shared
  }

  /** No resource list names the line any more. */
  unassign(line: number): void {
    const shared = this.#lines.get(line)
    if (shared === undefined) return
    shared.assigned = false
    this.#forget(line, shared)
  }

  /** IoConnectInterrupt. A line that is taken by an edge-triggered device cannot be shared. */
  connect(routine: ServiceRoutine, options: InterruptOptions): Interrupt | NtStatus {
    const { trigger } = options
    const line = options.line ?? this.#lineOf(options.vector)
    if (line === null) return NtStatus.INVALID_PARAMETER
    const known = this.#lines.get(line)
    const irql = options.irql ?? known?.irql ?? Irql.DEVICE
    if (!(irql >= Irql.DEVICE && irql <= Irql.DEVICE_MAX)) return NtStatus.INVALID_PARAMETER
    if (known !== undefined && !canJoin(known, trigger, irql)) return NtStatus.INVALID_PARAMETER
    const shared = known ?? this.#make(line, irql, trigger)
    if (shared === null) return NtStatus.INSUFFICIENT_RESOURCES
    const { chain, vector } = shared
    const interrupt = new Interrupt(line, irql, vector, routine, options.context ?? 0)
    chain.push(interrupt)
    if (chain.length === 1) {
      this.#hal.setVector(vector, irql, () => serve(chain))
      this.#hal.routeLine(line, vector, trigger)
    }
    return interrupt
  }

  /** IoDisconnectInterrupt: the routine is never called again. */
  disconnect(interrupt: Interrupt): void {
    const shared = this.#lines.get(interrupt.line)
    const at = shared?.chain.indexOf(interrupt) ?? -1
    if (shared === undefined || at < 0) return
    interrupt.connected = false
    shared.chain.splice(at, 1)
    if (shared.chain.length > 0) return
    this.#hal.routeLine(interrupt.line, null, shared.trigger)
    this.#hal.setVector(interrupt.vector, interrupt.irql, null)
    this.#forget(interrupt.line, shared)
  }

  #make(line: number, irql: Irql, trigger: Trigger): SharedLine | null {
    const vector = this.#freeVector(irql)
    if (vector < 0) return null
    const shared: SharedLine = { vector, irql, trigger, assigned: false, chain: [] }
    this.#lines.set(line, shared)
    this.#vectors.add(vector)
    return shared
  }

  #forget(line: number, shared: SharedLine): void {
    if (shared.assigned || shared.chain.length > 0) return
    this.#lines.delete(line)
    this.#vectors.delete(shared.vector)
  }

  #lineOf(vector: number): number | null {
    for (const [line, shared] of this.#lines) if (shared.vector === vector) return line
    return null
  }

  /** KeSynchronizeExecution: runs `work` while the service routine cannot run. */
  synchronize<T>(interrupt: Interrupt, work: () => T): T {
    const before = this.#hal.raise(interrupt.irql)
    const result = work()
    this.#hal.lower(before)
    return result
  }

  #freeVector(irql: Irql): number {
    for (let vector = irql * VECTORS_PER_LEVEL; vector < (irql + 1) * VECTORS_PER_LEVEL; vector++) {
      // Below 32 are the processor's exceptions; level 3 begins at 48.
      if (!this.#vectors.has(vector)) return vector
    }
    return -1
  }
}

function canJoin(shared: SharedLine, trigger: Trigger, irql: Irql): boolean {
  if (shared.irql !== irql || shared.trigger !== trigger) return false
  return trigger === 'level' || shared.chain.length === 0
}

/** A level line stays up until every device on it was served; the first that owns it is enough for now. */
function serve(chain: readonly Interrupt[]): void {
  for (const interrupt of chain) if (interrupt.routine(interrupt.context)) return
}
