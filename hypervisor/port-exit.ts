import type { PortWidth } from '../protocol/processor.ts'
import type { Trace } from '../protocol/trace.ts'
import type { Bus } from './bus.ts'
import type { ExitTracer } from './exit-tracer.ts'
import type { MachineMemory } from './machine-memory.ts'
import { type Processor, Register } from './processor.ts'
import { Physical } from './vtx/physical.ts'

/** Bits of the qualification (SDM vol. 3, table 28-5). */
const IN = 1 << 3
const STRING = 1 << 4
const REP = 1 << 5
/** Items of a string instruction emulated in one exit; the rest exits again. */
const ITEMS_MAX = 4096

export interface PortExitParts {
  readonly processor: Processor
  readonly ports: Bus
  readonly memory: MachineMemory
  readonly trace: Trace
  readonly tracer: ExitTracer
}

/** IN, OUT, INS and OUTS, emulated on the port bus. */
export class PortExit {
  readonly #parts: PortExitParts
  readonly #ram: Physical

  constructor(parts: PortExitParts) {
    this.#parts = parts
    this.#ram = new Physical(parts.memory.ram)
  }

  handle(qualification: number): void {
    const port = qualification >>> 16
    const width = ((qualification & 7) + 1) as PortWidth
    const isIn = (qualification & IN) !== 0
    if ((qualification & STRING) !== 0) {
      this.#string(port, width, isIn, (qualification & REP) !== 0)
      return
    }
    const { processor } = this.#parts
    if (isIn) setAccumulator(processor, width, this.#in(port, width))
    else this.#out(port, width, truncated(processor.registers.low(Register.RAX), width))
    processor.advance()
  }

  /** A part of a string instruction: registers move on item by item, and RIP only with the last. */
  #string(port: number, width: PortWidth, isIn: boolean, repeats: boolean): void {
    const { processor } = this.#parts
    const { registers } = processor
    const index = isIn ? Register.RDI : Register.RSI
    const count = repeats ? registers.get(Register.RCX) : 1
    const items = Math.min(count, ITEMS_MAX)
    let at = registers.get(index)
    for (let item = 0; item < items; item++, at += width) {
      if (isIn) this.#ram.write(at, width, this.#in(port, width))
      else this.#out(port, width, this.#ram.read(at, width))
    }
    registers.set(index, at)
    if (repeats) registers.set(Register.RCX, count - items)
    if (items === count) processor.advance()
  }

  #in(port: number, width: PortWidth): number {
    const { ports, trace, tracer } = this.#parts
    const value = ports.read(port, width)
    if (trace.on) tracer.port(ports.find(port, width), false, port, width, value)
    return value
  }

  #out(port: number, width: PortWidth, value: number): void {
    const { ports, trace, tracer } = this.#parts
    ports.write(port, width, value)
    if (trace.on) tracer.port(ports.find(port, width), true, port, width, value)
  }
}

function truncated(value: number, width: PortWidth): number {
  return width === 4 ? value : value % 2 ** (8 * width)
}

/** What IN leaves in EAX: the low byte or word is replaced, 32 bits clear the upper half. */
function setAccumulator(processor: Processor, width: PortWidth, value: number): void {
  const { registers } = processor
  if (width === 4) registers.setLow(Register.RAX, value)
  else {
    const mask = 2 ** (8 * width) - 1
    registers.halves[0] = (registers.low(Register.RAX) & ~mask) | (value & mask)
  }
}
