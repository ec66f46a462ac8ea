import type { Gpa, GuestMemory } from './memory.ts'
import type { AccessWidth, Plain } from './platform.ts'

/** What CPUID leaves in EAX, EBX, ECX and EDX. */
export interface CpuidAnswer {
  readonly eax: number
  readonly ebx: number
  readonly ecx: number
  readonly edx: number
}

export type PortWidth = 1 | 2 | 4

/** How a device's line asserts: level until lowered, or once at each rise. */
export type Trigger = 'level' | 'edge'

/**
 * What guest code may do: a small set of operations shaped like instructions, and nothing besides. On a
 * processor with VT-x each of them may exit; RAM is reached through `memory`, whose windows come from the
 * processor's own translation.
 *
 * Interrupts are delivered between two operations: every call below, and `boundary`, may first run the
 * handler of a pending vector, nested on the interrupted code as on real hardware. A handler is entered with
 * RFLAGS.IF clear and returns with it restored.
 */
export interface GuestProcessor {
  readonly memory: GuestMemory
  /** Virtual time in microseconds, as a time-stamp counter would tell it. */
  now(): number

  /** A load or store that does not go to RAM: device registers. */
  read(at: Gpa, width: AccessWidth): number
  write(at: Gpa, width: AccessWidth, value: number): void
  portRead(port: number, width: PortWidth): number
  portWrite(port: number, width: PortWidth, value: number): void
  /** REP INS and REP OUTS between a port and RAM, `count` items of `width` bytes. */
  portReadString(port: number, width: PortWidth, to: Gpa, count: number): void
  portWriteString(port: number, width: PortWidth, from: Gpa, count: number): void

  cpuid(leaf: number, subleaf: number): CpuidAnswer
  readMsr(index: number): bigint
  writeMsr(index: number, value: bigint): void
  /** A hypercall; arguments and answer are the general registers' 64 bits, as the caller agreed with its host. */
  vmcall(number: bigint, first: bigint, second: bigint): bigint

  /** RFLAGS.IF. `sti` takes effect after the operation that follows it. */
  readonly interruptsEnabled: boolean
  sti(): void
  cli(): void
  /** CR8: vectors whose upper four bits are not above it wait. 0 … 15. */
  readonly taskPriority: number
  setTaskPriority(priority: number): void
  /** The interrupt table: a plain function that runs on the interrupted stack; null takes it out. */
  setVector(vector: number, handler: (() => void) | null): void
  /** Sends a line of the interrupt controller to a vector; null masks it. */
  routeLine(line: number, vector: number | null, trigger: Trigger): void
  /** End of interrupt for the highest vector in service. */
  endOfInterrupt(): void
  /** The processor's one-shot timer: raises `vector` once `now()` is `dueUs`; null disarms it. */
  armTimer(dueUs: number | null, vector: number): void

  /** Between two instructions of code that makes no other call: pending interrupts are delivered here. */
  boundary(): void
  /**
   * HLT: the last thing a program's `run` does. The processor sleeps, and calls `run` again once an interrupt
   * has been delivered. With interrupts disabled only an NMI wakes it.
   */
  halt(): void
}

/**
 * Guest code: called when the processor starts and again after each wake-up from `halt`. A `run` that returns
 * without having halted is called again as the next turn.
 */
export interface GuestProgram {
  run(processor: GuestProcessor): void
  /** State as plain data, for programs that can be moved to another machine. */
  save?(): Plain
  /** Takes saved state; returns what is wrong with it. */
  load?(state: Plain): string | null
  /** After `load`: the function of a vector, since the interrupt table that was loaded holds none. */
  handlerOf?(vector: number): (() => void) | null
}
