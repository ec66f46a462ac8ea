/** Executes the witness's guest programs on the core of our model, one instruction at a time, by RIP. */

import { Register } from '../../../hypervisor/processor.ts'
import type { MemoryAccess } from '../../../hypervisor/vtx/access.ts'
import { boundary } from '../../../hypervisor/vtx/boundary.ts'
import {
  Activity,
  Blocking,
  ExitReason,
  Flag,
  INFO_VALID,
  Interruption,
  Primary,
} from '../../../hypervisor/vtx/control.ts'
import type { Core, GuestPaging } from '../../../hypervisor/vtx/core.ts'
import {
  GENERAL_PROTECTION,
  type IdtDelivery,
  INVALID_OPCODE,
  raise,
} from '../../../hypervisor/vtx/delivery.ts'
import { Access } from '../../../hypervisor/vtx/ept-walk.ts'
import { Field } from '../../../hypervisor/vtx/field.ts'
import { rdmsr, wrmsr } from '../../../hypervisor/vtx/msr-access.ts'
import { portAccess, portString } from '../../../hypervisor/vtx/port-io.ts'
import { movFromCr8, movToCr8 } from '../../../hypervisor/vtx/task-priority.ts'
import type { PortWidth } from '../../../protocol/processor.ts'
import { GUEST } from './defaults.ts'
import { HANDLER, type Instruction, PROGRAMS, type ProgramName } from './programs.ts'

const CANONICAL_END = 2 ** 47
const TWO_32 = 2 ** 32
/** Of the ways a wrong model could run for ever, this ends the rest. */
const INSTRUCTIONS_MAX = 10_000

/** The guest's own paging: IA-32e with four levels, of which the cases use PML4 and 1 GiB pages. */
export class LongModePaging implements GuestPaging {
  readonly #core: Core
  readonly #access: MemoryAccess

  constructor(core: Core, access: MemoryAccess) {
    this.#core = core
    this.#access = access
  }

  translate(linear: number, _access: number): number {
    const { vmcs } = this.#core
    /** Outside IA-32e mode the cases' only paging is PAE with an identity-mapped first page directory. */
    let table = vmcs.get(Field.guestCr3)
    for (const span of [2 ** 39, 2 ** 30]) {
      const entry = table + 8 * (Math.floor(linear / span) % 512)
      if (!this.#access.attemptPhysical(entry, Access.READ, linear, false)) return -1
      const low = this.#core.physical.le32(this.#core.translation.address)
      const high = this.#core.physical.le32(this.#core.translation.address + 4)
      table = low - (low % 4096) + (high % 2 ** 20) * TWO_32
      if ((low & 0x80) !== 0) return table - (table % span) + (linear % span)
    }
    throw new Error('the witness guest has no pages smaller than 1 GiB')
  }
}

export class Interpreter {
  readonly #core: Core
  readonly #access: MemoryAccess
  readonly #delivery: IdtDelivery
  readonly #code: Map<number, Instruction>

  constructor(core: Core, access: MemoryAccess, delivery: IdtDelivery, program: ProgramName) {
    this.#core = core
    this.#access = access
    this.#delivery = delivery
    this.#code = new Map()
    this.#place(GUEST.code, PROGRAMS[program])
    for (let vector = 0; vector < 256; vector++) this.#place(GUEST.handlers + 16 * vector, HANDLER)
  }

  #place(from: number, instructions: readonly Instruction[]): void {
    let at = from
    for (const instruction of instructions) {
      this.#code.set(at, instruction)
      at += instruction.length
    }
  }

  /** Runs until root software throws. */
  run(): never {
    const core = this.#core
    for (let count = 0; count < INSTRUCTIONS_MAX; count++) {
      boundary(core)
      if (core.activity !== Activity.ACTIVE) throw new Error('the guest sleeps, and nothing wakes it')
      if (core.rip >= CANONICAL_END) {
        raise(core, GENERAL_PROTECTION, 0)
        continue
      }
      if (!this.#access.attempt(core.rip, Access.FETCH)) continue
      const instruction = this.#code.get(core.rip)
      if (instruction === undefined) throw new Error(`no instruction lies at ${core.rip}`)
      this.#execute(instruction)
    }
    throw new Error(`the guest still runs after ${INSTRUCTIONS_MAX} instructions`)
  }

  #execute(instruction: Instruction): void {
    const core = this.#core
    const { length } = instruction
    switch (instruction.do) {
      case 'in':
      case 'out': {
        const { port } = instruction
        const at = port === 'dx' ? core.registers.low(Register.RDX) % 0x10000 : port
        const width: PortWidth = instruction.widthBytes
        portAccess(core, instruction.do === 'in', at, width, port !== 'dx', length)
        return
      }
      case 'ins':
      case 'outs': {
        const { repeat, widthBytes } = instruction
        portString(core, this.#access, instruction.do === 'ins', widthBytes, repeat, length)
        return
      }
      case 'load':
      case 'store':
      case 'add':
        this.#memory(instruction.do, length)
        return
      case 'jump':
        core.retire(0)
        core.rip = core.registers.get(Register.RBX)
        return
      case 'movSs':
        core.retire(length)
        core.blocking |= Blocking.MOV_SS
        return
      case 'movToCr':
      case 'movFromCr':
        if (instruction.register !== 8) throw new Error(`the model has no MOV of CR${instruction.register}`)
        if (instruction.do === 'movToCr') movToCr8(core)
        else movFromCr8(core)
        return
      case 'int':
        this.#software(Interruption.SOFTWARE_INTERRUPT, instruction.vector, length)
        return
      default:
        this.#plain(instruction.do, length)
    }
  }

  #plain(name: string, length: number): void {
    const core = this.#core
    switch (name) {
      case 'nop':
        core.retire(length)
        return
      case 'spin':
        core.retire(0)
        return
      case 'hlt':
        if ((core.primary & Primary.HLT) !== 0) core.exit(ExitReason.HLT, 0, length)
        else {
          core.retire(length)
          core.activity = Activity.HLT
        }
        return
      case 'cpuid':
        core.exit(ExitReason.CPUID, 0, length)
        return
      case 'vmcall':
        core.exit(ExitReason.VMCALL, 0, length)
        return
      case 'rdmsr':
        rdmsr(core)
        return
      case 'wrmsr':
        wrmsr(core)
        return
      case 'sti': {
        const enabled = (core.rflags & Flag.IF) !== 0
        core.retire(length)
        core.rflags |= Flag.IF
        if (!enabled) core.blocking |= Blocking.STI
        return
      }
      case 'cli':
        core.rflags &= ~Flag.IF
        core.retire(length)
        return
      case 'ud2':
        raise(core, INVALID_OPCODE, 0)
        return
      case 'int3':
        this.#software(Interruption.SOFTWARE_EXCEPTION, 3, length)
        return
      case 'iretq':
        this.#delivery.iret()
        return
      default:
        throw new Error(`the model has no instruction ${name}`)
    }
  }

  #memory(what: 'load' | 'store' | 'add', length: number): void {
    const core = this.#core
    const at = core.registers.get(Register.RBX)
    /** Whether a read-modify-write sets the bit for reads besides is the processor's choice (table 28-7). */
    const access = what === 'load' ? Access.READ : Access.WRITE
    if (!this.#access.attempt(at, access)) return
    const { address } = core.translation
    const eax = core.registers.low(Register.RAX)
    const old = core.physical.read(address, 4)
    if (what === 'load') core.registers.setLow(Register.RAX, old)
    else core.physical.write(address, 4, what === 'store' ? eax : (old + eax) % TWO_32)
    core.retire(length)
  }

  /** INT n and INT3: the exception bitmap rules over the second. */
  #software(type: number, vector: number, length: number): void {
    const core = this.#core
    const info = INFO_VALID + (type << 8) + vector
    const exits = type === Interruption.SOFTWARE_EXCEPTION
    if (exits && ((core.vmcs.low(Field.exceptionBitmap) >>> vector) & 1) === 1) {
      core.vmcs.store(Field.exitInterruptionInfo, info)
      core.exit(ExitReason.EXCEPTION_OR_NMI, 0, length)
    } else this.#delivery.inject(info, 0, length)
  }
}
