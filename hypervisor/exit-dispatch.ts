import { type Gpa, gpa } from '../protocol/memory.ts'
import type { Random } from '../protocol/platform.ts'
import type { Trace } from '../protocol/trace.ts'
import { ApicRegister } from './apic-page.ts'
import type { Bus } from './bus.ts'
import type { CpuidTable } from './cpuid.ts'
import type { EventInjection } from './event-injection.ts'
import type { ExitCounters } from './exit-counters.ts'
import { exitName } from './exit-name.ts'
import type { ExitTracer } from './exit-tracer.ts'
import type { LocalApic } from './local-apic.ts'
import type { MachineMemory } from './machine-memory.ts'
import { PortExit } from './port-exit.ts'
import {
  type DecodedAccess,
  type Processor,
  ProcessorStopped,
  Register,
  type RootSoftware,
} from './processor.ts'
import { accessControlRegister, accessMsr } from './register-exit.ts'
import { ENTRY_FAILURE, ExitReason } from './vtx/control.ts'
import { Field } from './vtx/field.ts'

const BASIC = 0xffff
const APIC_OFFSET = 0xfff
const WRITE = 2
/** Hypercalls nobody serves answer this, as KVM's do: -ENOSYS of a hypervisor. */
export const NO_HYPERCALL = 2n ** 64n - 1000n

export type Hypercall = (number: bigint, first: bigint, second: bigint) => bigint

/** Whether RAM that was taken from the guest comes back at its first use; if not, nothing is there. */
export type RamFault = (at: Gpa, write: boolean) => boolean

/** Of eight draws at an exit: those at which a queued turn runs, and those at which the host ticks next. */
const PREEMPT_SIDES = 8
const PREEMPT_TURN = 3
const PREEMPT_TICK = 4

export interface ExitDispatcherParts {
  readonly processor: Processor
  readonly memory: MachineMemory
  readonly bus: Bus
  readonly ports: Bus
  readonly apic: LocalApic
  readonly injection: EventInjection
  readonly counters: ExitCounters
  readonly trace: Trace
  readonly tracer: ExitTracer
  readonly cpuid: CpuidTable
  readonly hypercall: Hypercall
  readonly ramFault: RamFault
  /** The seed's stream of preemption points; null: nothing happens there. */
  readonly preemption: Random | null
  /** Runs a turn that is queued already. */
  readonly preempt: () => void
  /** The guest brought itself down. */
  readonly stop: (why: string) => void
}

/**
 * Software in root operation: what an exit means, read from the VMCS and the guest's registers alone. For a
 * load or store the decoded instruction is part of the model; hardware gives no operand, and a hypervisor
 * fetches and decodes.
 */
export class ExitDispatcher implements RootSoftware {
  readonly #parts: ExitDispatcherParts
  readonly #processor: Processor
  readonly #portExit: PortExit
  #kicked: boolean

  constructor(parts: ExitDispatcherParts) {
    this.#parts = parts
    this.#processor = parts.processor
    this.#portExit = new PortExit(parts)
    this.#kicked = false
  }

  /** Makes a guest that runs exit at its next boundary: another processor's interrupt to the one it runs on. */
  kick(): void {
    this.#kicked = true
    this.#processor.setExternalPin(true)
  }

  /** The interrupt of `kick` is taken. */
  acknowledgeKick(): void {
    this.#kicked = false
    this.#processor.setExternalPin(false)
  }

  exited(reason: number): void {
    const parts = this.#parts
    const basic = reason & BASIC
    parts.counters.byReason[basic] = (parts.counters.byReason[basic] as number) + 1
    if (parts.trace.on) parts.tracer.exit(reason)
    if (reason >= ENTRY_FAILURE) this.#entryFailed(reason)
    // In root operation the host takes it itself.
    if (this.#kicked) this.acknowledgeKick()
    parts.injection.collect()
    this.#handle(basic)
    if (basic === ExitReason.HLT) return
    if (parts.preemption !== null) this.#preempt(parts.preemption, basic)
    parts.injection.prepare()
  }

  #handle(reason: number): void {
    const processor = this.#processor
    const { apic } = this.#parts
    switch (reason) {
      case ExitReason.EPT_MISCONFIGURATION:
      case ExitReason.EPT_VIOLATION:
        this.#memoryAccess()
        return
      case ExitReason.IO:
        this.#portExit.handle(processor.vmread(Field.exitQualification))
        return
      case ExitReason.HLT:
        processor.advance()
        return
      case ExitReason.EXTERNAL_INTERRUPT:
      case ExitReason.INTERRUPT_WINDOW:
      case ExitReason.NMI_WINDOW:
      case ExitReason.TPR_BELOW_THRESHOLD:
        // That the guest has come back is all that was wanted: `prepare` does the rest.
        return
      case ExitReason.APIC_ACCESS:
        this.#apicAccess(processor.vmread(Field.exitQualification))
        return
      case ExitReason.APIC_WRITE:
        this.#apicWritten(processor.vmread(Field.exitQualification) & APIC_OFFSET)
        return
      case ExitReason.VIRTUALIZED_EOI:
        this.#parts.counters.endOfInterrupts++
        apic.ended(processor.vmread(Field.exitQualification) & 0xff)
        return
      default:
        this.#handleInstruction(reason)
    }
  }

  #handleInstruction(reason: number): void {
    const processor = this.#processor
    const { registers } = processor
    const parts = this.#parts
    if (reason === ExitReason.CPUID) {
      const answer = parts.cpuid(registers.low(Register.RAX), registers.low(Register.RCX))
      registers.setLow(Register.RAX, answer.eax)
      registers.setLow(Register.RBX, answer.ebx)
      registers.setLow(Register.RCX, answer.ecx)
      registers.setLow(Register.RDX, answer.edx)
      processor.advance()
    } else if (reason === ExitReason.VMCALL) {
      const number = registers.getWide(Register.RAX)
      const answer = parts.hypercall(number, registers.getWide(Register.RBX), registers.getWide(Register.RCX))
      registers.setWide(Register.RAX, answer)
      processor.advance()
    } else if (reason === ExitReason.RDMSR || reason === ExitReason.WRMSR) {
      accessMsr(parts, reason === ExitReason.WRMSR)
    } else if (reason === ExitReason.CONTROL_REGISTER) accessControlRegister(parts)
    else if (reason === ExitReason.TRIPLE_FAULT) parts.stop('the guest ended in a triple fault')
    else if (reason === ExitReason.EXCEPTION_OR_NMI) parts.injection.requestNmi()
    else throw new ProcessorStopped(`nobody handles exit reason ${reason} (${exitName(reason)})`)
  }

  /** Guest memory that the EPT does not give: a device's register, RAM that was taken away, or nothing at all. */
  #memoryAccess(): void {
    const { bus, memory, trace } = this.#parts
    const processor = this.#processor
    const at = processor.vmread(Field.guestPhysicalAddress)
    const { decoded } = processor
    const range = decoded === null ? null : bus.find(at, decoded.width)
    if (range === null && memory.isBacked(gpa(at)) && this.#returnsRam(at)) return
    if (decoded === null) {
      const write = (processor.vmread(Field.exitQualification) & WRITE) !== 0
      this.#parts.stop(
        `the guest's own tables lie where no memory is, at 0x${at.toString(16)}${write ? ' (write)' : ''}`,
      )
      throw new ProcessorStopped('the guest has no memory to go on with')
    }
    // `decoded` is one object: a device that makes the guest exit again in here would change it.
    if (decoded.kind === 'store') bus.write(at, decoded.width, decoded.value)
    else decoded.answer(bus.read(at, decoded.width))
    if (trace.on) this.#parts.tracer.register(range, decoded)
    processor.advance()
  }

  #returnsRam(at: number): boolean {
    const { memory, ramFault } = this.#parts
    const write = this.#processor.vmread(Field.exitQualification) & WRITE
    if (!ramFault(gpa(at), write !== 0)) return false
    memory.mapBack(gpa(at))
    return true
  }

  #apicAccess(qualification: number): void {
    const { decoded } = this.#processor
    if (decoded === null) {
      this.#parts.stop('the guest keeps its interrupt table or stack in its APIC')
      throw new ProcessorStopped('the guest has no memory to go on with')
    }
    this.#accessApic(decoded, qualification & APIC_OFFSET)
    this.#processor.advance()
  }

  /** Registers are read and written as 32 bits, aligned to 16 bytes; anything else has no effect (11.4.1). */
  #accessApic(decoded: DecodedAccess, offset: number): void {
    const { apic } = this.#parts
    const whole = decoded.width === 4 && offset % 16 === 0
    if (decoded.kind === 'load') decoded.answer(whole ? apic.read(offset) : 0)
    else if (whole) {
      if (offset === ApicRegister.EOI) this.#parts.counters.endOfInterrupts++
      apic.write(offset, decoded.value)
    }
  }

  #apicWritten(offset: number): void {
    if (offset === ApicRegister.EOI) this.#parts.counters.endOfInterrupts++
    this.#parts.apic.written(offset)
  }

  #preempt(random: Random, reason: number): void {
    const draw = random.below(PREEMPT_SIDES)
    if (draw < PREEMPT_TURN) this.#parts.preempt()
    // Not after a tick: the guest has to get somewhere.
    else if (draw < PREEMPT_TICK && reason !== ExitReason.EXTERNAL_INTERRUPT) this.kick()
  }

  #entryFailed(reason: number): never {
    const qualification = this.#processor.vmread(Field.exitQualification)
    const name = exitName(reason & BASIC)
    throw new ProcessorStopped(`VM entry failed: ${name}, qualification ${qualification}`)
  }
}
