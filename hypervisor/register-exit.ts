import { ApicRegister } from './apic-page.ts'
import type { EventInjection } from './event-injection.ts'
import type { LocalApic } from './local-apic.ts'
import { type Processor, ProcessorStopped, Register } from './processor.ts'
import { Field } from './vtx/field.ts'
import { Msr } from './vtx/msr.ts'

const TWO_32 = 0x1_0000_0000
const GENERAL_PROTECTION = 13
const CR8 = 8
const MOV_FROM = 1
const PRIORITY_MAX = 15

export interface RegisterExitParts {
  readonly processor: Processor
  readonly apic: LocalApic
  readonly injection: EventInjection
}

/** RDMSR and WRMSR of what the MSR bitmap names. Registers that are not there fault. */
export function accessMsr({ processor, apic, injection }: RegisterExitParts, write: boolean): void {
  const { registers } = processor
  if (registers.low(Register.RCX) !== Msr.TSC_DEADLINE) {
    injection.raise(GENERAL_PROTECTION, 0)
    return
  }
  if (write) apic.setDeadline(registers.low(Register.RDX) * TWO_32 + registers.low(Register.RAX))
  else {
    registers.setLow(Register.RAX, apic.deadline % TWO_32)
    registers.setLow(Register.RDX, apic.deadline / TWO_32)
  }
  processor.advance()
}

/** MOV to and from CR8, on processors without a TPR shadow. */
export function accessControlRegister({ processor, apic, injection }: RegisterExitParts): void {
  const qualification = processor.vmread(Field.exitQualification)
  const kind = (qualification >> 4) & 3
  const register = (qualification >> 8) & 15
  if ((qualification & 15) !== CR8 || kind > MOV_FROM) {
    throw new ProcessorStopped(`nobody handles a control-register access of qualification ${qualification}`)
  }
  if (kind === MOV_FROM) processor.registers.set(register, apic.page.get(ApicRegister.TPR) >> 4)
  else {
    const priority = processor.registers.get(register)
    if (!(priority <= PRIORITY_MAX)) {
      injection.raise(GENERAL_PROTECTION, 0)
      return
    }
    apic.write(ApicRegister.TPR, priority * 16)
  }
  processor.advance()
}
