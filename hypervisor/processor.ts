import type { Gpa, GuestMemory } from '../protocol/memory.ts'
import type { AccessWidth, Clock, Plain } from '../protocol/platform.ts'
import type { GuestProcessor, GuestProgram } from '../protocol/processor.ts'

/**
 * The seam between a processor with VT-x and the software in root operation that drives it (the machine).
 *
 * Root software prepares the VMCS and calls `run`, which performs VMLAUNCH or VMRESUME. Each guest operation
 * that exits does so synchronously, on the stack of the guest's call:
 *
 *     guest operation → exit information and guest state stored in the VMCS → `RootSoftware.exited`
 *       → its return is VMRESUME → entry checks, event injection (the handler of the vector runs, nested)
 *       → the operation ends in the guest
 *
 * How an operation ends is told by guest RIP alone, as on hardware. Root software that emulated it has added
 * the instruction length to RIP (`advance`): the operation returns what the registers hold. RIP unchanged: the
 * operation is executed again (a repaired EPT mapping). The same exit again and again without progress, an
 * entry that fails, or a RIP that is neither stop the run with `ProcessorStopped`: that is our own mistake.
 */
export interface Processor {
  /** The operations guest code is written against. */
  readonly guest: GuestProcessor
  /** General registers of the guest. RSP, RIP and RFLAGS are VMCS fields while in root operation. */
  readonly registers: GeneralRegisters
  /** The instruction behind the present EPT violation, EPT misconfiguration or APIC access; null for others. */
  readonly decoded: DecodedAccess | null
  /** In non-root operation: entered, and not exited since. */
  readonly inGuest: boolean

  /** VMREAD of a field that exists, exact below 2^53. @throws on an encoding that does not: our own mistake. */
  vmread(encoding: number): number
  vmreadWide(encoding: number): bigint
  /** VMWRITE, bits 63:0 of `value`; an integer from 0 to 2^53 - 1. */
  vmwrite(encoding: number, value: number): void
  vmwriteWide(encoding: number, value: bigint): void
  /** Adds the instruction length (of the VMCS, or of `decoded`) to guest RIP and ends STI and MOV SS blocking. */
  advance(): void

  /** INVEPT of all contexts: translations are dropped, and with them every window that guest code holds. */
  invalidate(): void

  /** What guest code runs, from the next `run` on. */
  setProgram(program: GuestProgram): void
  /**
   * Enters the guest when in root operation, goes on when not, until the guest has nothing to do.
   *
   * `halted`: it executed HLT. With HLT exiting `exited` was called with reason 12 and the processor stays in
   * root operation (the handler advances RIP; the next `run` enters, normally with an event to inject).
   * Without, the activity state is HLT, and `run` answers `halted` again until an event wakes it.
   * `yielded`: the program returned without halting; call `run` again as a turn of its own.
   *
   * @throws ProcessorStopped
   */
  run(): 'halted' | 'yielded'

  /** The INTR pin: asserted as long as the controller behind `PinSource` has something to deliver. */
  setExternalPin(asserted: boolean): void
  /** One edge of the NMI pin. */
  raiseNmi(): void
  /** Virtual-APIC state changed (posted interrupts, RVI): evaluate pending virtual interrupts at the next boundary. */
  recognizeVirtualInterrupts(): void
  /**
   * A trap-like exit once the present operation is complete, RIP behind it: APIC write 56, virtualized EOI 45,
   * TPR below threshold 43.
   */
  requestExit(reason: number, qualification: number): void
  /** When the active VMX-preemption timer runs out, in microseconds of virtual time; null when it is not active. */
  readonly preemptionDueUs: number | null

  save(): Plain
  /** Returns what is wrong with the state, or null. */
  load(state: Plain): string | null
}

/** What a processor is made with. `ModelProcessor` (model-processor.ts) takes exactly these. */
export interface ProcessorParts {
  /**
   * Host-physical memory as a table of regions: the hypervisor's own (VMCS-referenced pages, EPT tables) and
   * the guest's RAM, at whatever host-physical address it lies. The EPT maps guest-physical addresses to it.
   */
  readonly physical: GuestMemory
  /** Guest-physical ranges that guest code may treat as RAM (its memory map); `GuestProcessor.memory` ends there. */
  readonly ram: readonly GuestRange[]
  readonly root: RootSoftware
  readonly pin: PinSource
  readonly apic: GuestApic
  /** Virtual time, for the time-stamp counter and the VMX-preemption timer. */
  readonly clock: Pick<Clock, 'now'>
  readonly ticksPerUs?: number
}

export interface GuestRange {
  readonly base: Gpa
  readonly lengthBytes: number
  /** Somebody outside of this thread has the bytes too: indices are exchanged atomically. */
  readonly shared?: boolean
}

/** Software in root operation. */
export interface RootSoftware {
  /** A VM exit; `reason` is the whole 32-bit exit reason. Returning performs VMRESUME (but see `run` for HLT). */
  exited(reason: number): void
}

/** The interrupt controller in front of the INTR pin. */
export interface PinSource {
  /** Interrupt acknowledge: the vector, now in service. Called with acknowledge-on-exit, or when the guest takes it itself. */
  acknowledge(): number
}

/**
 * The local APIC as guest code sees it: the file of the interrupt controller supplies it.
 *
 * The first group turns guest operations into what a kernel executes for them (a store to the APIC page, WRMSR,
 * MOV CR8, a store to an I/O APIC), through the processor it is handed. The second answers for hardware that
 * virtualizes the APIC without exits; processors ask it only while the controls named are 1.
 */
export interface GuestApic {
  endOfInterrupt(guest: GuestProcessor): void
  routeLine(guest: GuestProcessor, line: number, vector: number | null, trigger: 'level' | 'edge'): void
  armTimer(guest: GuestProcessor, dueUs: number | null, vector: number): void

  /**
   * An access to the APIC-access page ("virtualize APIC accesses", SDM 30.4) or, by `offset` = (MSR - 0x800) × 16,
   * to an x2APIC MSR ("virtualize x2APIC mode", 30.5). The value read or -1: the access exits (reason 44, or the
   * MSR exit). A write it takes answers 0. It calls `requestExit` for exits after completion (45, 56, 43).
   */
  virtualize(offset: number, width: AccessWidth, write: boolean, value: number): number
  /** CR8 was written under TPR shadow with virtual-interrupt delivery (30.1.3): VPTR and PPR virtualization. */
  taskPriorityChanged(): void
  /** The vector to deliver without exit under virtual-interrupt delivery, moved to service (30.2.2); -1 for none. */
  deliverVirtual(): number
}

/** A load or store, as a decoder that fetched the instruction would tell it. Hardware gives no operand. */
export interface DecodedAccess {
  readonly kind: 'load' | 'store'
  readonly at: Gpa
  readonly width: AccessWidth
  /** What a store writes. A load is answered by `answer`. */
  readonly value: number
  readonly lengthBytes: number
  /** The value a load yields; an integer from 0 to 2^53 - 1, cut to `width`. */
  answer(value: number): void
}

/** Register numbers of the instruction set. */
export const Register = {
  RAX: 0,
  RCX: 1,
  RDX: 2,
  RBX: 3,
  RBP: 5,
  RSI: 6,
  RDI: 7,
  R8: 8,
  R9: 9,
  R10: 10,
  R11: 11,
  R12: 12,
  R13: 13,
  R14: 14,
  R15: 15,
} as const

/** Sixteen 64-bit registers as 32-bit halves, so that neither BigInt nor rounding is on the hot path. */
export class GeneralRegisters {
  /** Low half of register n at 2n, high half at 2n + 1. */
  readonly halves: Uint32Array<ArrayBuffer>

  constructor() {
    this.halves = new Uint32Array(32)
  }

  low(register: number): number {
    return this.halves[register * 2] as number
  }

  /** MOV of a 32-bit register: the high half becomes zero. */
  setLow(register: number, value: number): void {
    this.halves[register * 2] = value
    this.halves[register * 2 + 1] = 0
  }

  /** Exact below 2^53. */
  get(register: number): number {
    return (this.halves[register * 2] as number) + (this.halves[register * 2 + 1] as number) * 0x1_0000_0000
  }

  /** `value` is an integer from 0 to 2^53 - 1. */
  set(register: number, value: number): void {
    this.halves[register * 2] = value
    this.halves[register * 2 + 1] = value / 0x1_0000_0000
  }

  getWide(register: number): bigint {
    const low = this.halves[register * 2] as number
    return (BigInt(this.halves[register * 2 + 1] as number) << 32n) | BigInt(low)
  }

  setWide(register: number, value: bigint): void {
    this.halves[register * 2] = Number(value & 0xffff_ffffn)
    this.halves[register * 2 + 1] = Number((value >> 32n) & 0xffff_ffffn)
  }
}

/** Root software drove the processor into a corner. Never a guest's doing alone. */
export class ProcessorStopped extends Error {
  constructor(why: string) {
    super(`processor stopped: ${why}`)
    this.name = 'ProcessorStopped'
  }
}
