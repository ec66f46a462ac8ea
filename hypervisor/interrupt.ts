import type { InterruptLine, Plain } from '../protocol/platform.ts'
import { DeliveryMode, isHere } from './local-apic.ts'

/** Lines of the controller, as in the 82093AA. */
export const LINES = 24

/** Bits of a redirection entry's low half (82093AA, 3.2.4). */
export const Redirection = {
  VECTOR: 0xff,
  MODE: 7 << 8,
  LOGICAL: 1 << 11,
  ACTIVE_LOW: 1 << 13,
  REMOTE_IRR: 1 << 14,
  LEVEL: 1 << 15,
  MASKED: 1 << 16,
} as const

/** Delivery status and remote IRR are the controller's own. */
const WRITABLE =
  Redirection.VECTOR | Redirection.MODE | 0x800 | 0x2000 | Redirection.LEVEL | Redirection.MASKED
const MESSAGE_PAGE = 0xfee

/** The local APIC behind the controller. */
export interface VectorSink {
  accept(vector: number, level: boolean): void
  nmi(): void
}

/** Everything there is to save. */
export interface InterruptState {
  readonly high: boolean[]
  readonly low: number[]
  readonly destination: number[]
}

/** What the controller holds after reset: every line low and masked. */
export function freshInterrupts(): InterruptState {
  return {
    high: new Array<boolean>(LINES).fill(false),
    low: new Array<number>(LINES).fill(Redirection.MASKED),
    destination: new Array<number>(LINES).fill(0),
  }
}

/**
 * The interrupt controller: lines of devices, routed to vectors of the local APIC, and messages.
 *
 * An edge-triggered line interrupts once at each rise, and a rise while it is masked is lost. A level-triggered
 * one interrupts as long as it is high, but not again before the EOI of its vector (remote IRR).
 */
export class InterruptController {
  readonly #sink: VectorSink
  readonly #lines: readonly InterruptLine[]
  #state: InterruptState

  constructor(sink: VectorSink) {
    this.#sink = sink
    this.#state = freshInterrupts()
    this.#lines = Array.from({ length: LINES }, (_, line) => ({
      raise: () => this.raise(line),
      lower: () => this.lower(line),
    }))
  }

  /** A line as a device holds it. @throws RangeError when there is no such line. */
  line(number: number): InterruptLine {
    const line = this.#lines[number]
    if (line === undefined) throw new RangeError(`there is no interrupt line ${number}`)
    return line
  }

  isHigh(line: number): boolean {
    return this.#state.high[line] === true
  }

  raise(line: number): void {
    const state = this.#state
    if (state.high[line] === true) return
    state.high[line] = true
    const entry = this.entry(line)
    if ((entry & Redirection.LEVEL) !== 0) this.#assertLevel(line)
    else if ((entry & Redirection.MASKED) === 0) this.#deliver(line, entry)
  }

  lower(line: number): void {
    this.#state.high[line] = false
  }

  /** The low half of a line's redirection entry. */
  entry(line: number): number {
    return this.#state.low[line] ?? Redirection.MASKED
  }

  setEntry(line: number, value: number): void {
    const before = this.entry(line)
    let entry = (value & WRITABLE) | (before & Redirection.REMOTE_IRR)
    // A line that is not level-triggered waits for no EOI.
    if ((entry & Redirection.LEVEL) === 0) entry &= ~Redirection.REMOTE_IRR
    this.#state.low[line] = entry
    if ((entry & Redirection.LEVEL) !== 0) this.#assertLevel(line)
  }

  /** Bits 63:56 of the entry. */
  destination(line: number): number {
    return this.#state.destination[line] ?? 0
  }

  setDestination(line: number, apic: number): void {
    this.#state.destination[line] = apic
  }

  /** A vector ended: level-triggered lines of it that are still high interrupt again. */
  endOfInterrupt(vector: number): void {
    for (let line = 0; line < LINES; line++) {
      const entry = this.entry(line)
      if ((entry & Redirection.REMOTE_IRR) === 0 || (entry & Redirection.VECTOR) !== vector) continue
      this.#state.low[line] = entry & ~Redirection.REMOTE_IRR
      this.#assertLevel(line)
    }
  }

  /** Whether an EOI of the vector matters to a line: it is routed there level-triggered. */
  listens(vector: number): boolean {
    return this.#state.low.some(
      (entry) => (entry & Redirection.LEVEL) !== 0 && (entry & Redirection.VECTOR) === vector,
    )
  }

  /**
   * A message-signalled interrupt: a 32-bit write of `data` to `address` (SDM vol. 3, 11.11). False when the
   * address is no message address or names a processor that is not there.
   */
  message(address: number, data: number): boolean {
    if (Math.floor(address / 0x10_0000) !== MESSAGE_PAGE) return false
    if (!isHere((address >>> 12) & 0xff)) return false
    this.#dispatch((data >> 8) & 7, data & 0xff, (data & 0x8000) !== 0)
    return true
  }

  save(): Plain {
    const { high, low, destination } = this.#state
    return { version: 1, high: [...high], low: [...low], destination: [...destination] }
  }

  load(saved: Plain): string | null {
    const state = parseInterrupts(saved)
    if (typeof state === 'string') return state
    this.#state = state
    return null
  }

  #assertLevel(line: number): void {
    const entry = this.entry(line)
    const waits = (entry & (Redirection.MASKED | Redirection.REMOTE_IRR)) !== 0
    if (waits || !this.isHigh(line)) return
    if (!isHere(this.destination(line))) return
    this.#state.low[line] = entry | Redirection.REMOTE_IRR
    this.#deliver(line, entry)
  }

  #deliver(line: number, entry: number): void {
    if (!isHere(this.destination(line))) return
    this.#dispatch((entry >> 8) & 7, entry & Redirection.VECTOR, (entry & Redirection.LEVEL) !== 0)
  }

  /** SMI, INIT and the 8259's vectors are for nobody here. */
  #dispatch(mode: number, vector: number, level: boolean): void {
    if (mode === DeliveryMode.NMI) this.#sink.nmi()
    else if (mode === DeliveryMode.FIXED || mode === DeliveryMode.LOWEST) this.#sink.accept(vector, level)
  }
}

function parseInterrupts(saved: Plain): InterruptState | string {
  if (typeof saved !== 'object' || saved === null) return 'interrupt state is not an object'
  const { version, high, low, destination } = saved as Record<string, Plain | undefined>
  if (version !== 1) return `interrupt state has version ${String(version)}, not 1`
  const state = freshInterrupts()
  for (let line = 0; line < LINES; line++) {
    const [up, entry, apic] = [high, low, destination].map((list) =>
      Array.isArray(list) ? list[line] : null,
    )
    if (typeof up !== 'boolean') return `interrupt state: the level of line ${line} is no boolean`
    const bits = WRITABLE | Redirection.REMOTE_IRR
    if (
      typeof entry !== 'number' ||
      !Number.isInteger(entry) ||
      entry < 0 ||
      entry > bits ||
      (entry & ~bits) !== 0
    ) {
      return `interrupt state: the entry of line ${line} has reserved bits`
    }
    if (typeof apic !== 'number' || !(Number.isInteger(apic) && apic >= 0 && apic <= 0xff)) {
      return `interrupt state: the destination of line ${line} is no APIC id`
    }
    state.high[line] = up
    state.low[line] = entry
    state.destination[line] = apic
  }
  return state
}
