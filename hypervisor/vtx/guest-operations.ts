import { type Gpa, gpa } from '../../protocol/memory.ts'
import type { AccessWidth } from '../../protocol/platform.ts'
import type { CpuidAnswer, GuestProcessor, PortWidth, Trigger } from '../../protocol/processor.ts'
import { Register } from '../processor.ts'
import { isDone, type MemoryAccess } from './access.ts'
import { boundary } from './boundary.ts'
import { Activity, Blocking, ExitReason, Flag, Primary } from './control.ts'
import type { Core, GuestCode } from './core.ts'
import type { IdtDelivery } from './delivery.ts'
import { Field } from './field.ts'
import { rdmsr, wrmsr } from './msr-access.ts'
import { portAccess, portString } from './port-io.ts'
import { MOV_CR8_LENGTH, movFromCr8, movToCr8 } from './task-priority.ts'
import type { TranslatedMemory } from './translated-memory.ts'

const CPUID_LENGTH = 2
const MSR_LENGTH = 2
const VMCALL_LENGTH = 3
const VECTORS = 256
const GATE_BYTES = 16
/** Where handlers lie for whoever looks at a gate or at RIP: the functions themselves have no address. */
const HANDLERS = 0xffff_0000

/**
 * The operations of guest code on the model: each is one instruction (SDM vol. 3, 26.1), executed again until
 * it is complete. Operands pass through the registers the instruction has: port in DX, data in EAX, counts in
 * RCX, a hypercall's number in RAX with its arguments in RBX and RCX.
 */
export class GuestOperations implements GuestProcessor, GuestCode {
  readonly memory: TranslatedMemory
  readonly #core: Core
  readonly #access: MemoryAccess
  readonly #delivery: IdtDelivery
  readonly #handlers: ((() => void) | null)[]
  /** `halt` was called: HLT is the next instruction, once the program's `run` has returned. */
  halting: boolean

  constructor(core: Core, access: MemoryAccess, delivery: IdtDelivery, memory: TranslatedMemory) {
    this.memory = memory
    this.#core = core
    this.#access = access
    this.#delivery = delivery
    this.#handlers = new Array<null>(VECTORS).fill(null)
    this.halting = false
  }

  now(): number {
    return this.#core.now()
  }

  read(at: Gpa, width: AccessWidth): number {
    this.#begin()
    return this.#access.read(at, width)
  }

  write(at: Gpa, width: AccessWidth, value: number): void {
    this.#begin()
    this.#access.write(at, width, value)
  }

  portRead(port: number, width: PortWidth): number {
    const core = this.#core
    this.#begin()
    const { rip } = core
    const length = width === 2 ? 2 : 1
    core.registers.setLow(Register.RDX, port)
    while (!portAccess(core, true, port, width, false, length) && !isDone(core, rip, length)) {}
    const value = core.registers.low(Register.RAX)
    return width === 4 ? value : value & (width === 1 ? 0xff : 0xffff)
  }

  portWrite(port: number, width: PortWidth, value: number): void {
    const core = this.#core
    this.#begin()
    const { rip } = core
    const length = width === 2 ? 2 : 1
    core.registers.setLow(Register.RDX, port)
    core.registers.setLow(Register.RAX, value)
    while (!portAccess(core, false, port, width, false, length) && !isDone(core, rip, length)) {}
  }

  portReadString(port: number, width: PortWidth, to: Gpa, count: number): void {
    this.#core.registers.set(Register.RDI, to)
    this.#string(true, port, width, count)
  }

  portWriteString(port: number, width: PortWidth, from: Gpa, count: number): void {
    this.#core.registers.set(Register.RSI, from)
    this.#string(false, port, width, count)
  }

  cpuid(leaf: number, subleaf: number): CpuidAnswer {
    const core = this.#core
    this.#begin()
    const { rip } = core
    do {
      core.registers.setLow(Register.RAX, leaf)
      core.registers.setLow(Register.RCX, subleaf)
      core.exit(ExitReason.CPUID, 0, CPUID_LENGTH)
    } while (!isDone(core, rip, CPUID_LENGTH))
    const { registers } = core
    return {
      eax: registers.low(Register.RAX),
      ebx: registers.low(Register.RBX),
      ecx: registers.low(Register.RCX),
      edx: registers.low(Register.RDX),
    }
  }

  readMsr(index: number): bigint {
    const core = this.#core
    this.#begin()
    const { rip } = core
    core.registers.setLow(Register.RCX, index)
    while (!rdmsr(core) && !isDone(core, rip, MSR_LENGTH)) {}
    const high = BigInt(core.registers.low(Register.RDX)) << 32n
    return high | BigInt(core.registers.low(Register.RAX))
  }

  writeMsr(index: number, value: bigint): void {
    const core = this.#core
    this.#begin()
    const { rip } = core
    core.registers.setLow(Register.RCX, index)
    core.registers.setLow(Register.RAX, Number(value & 0xffff_ffffn))
    core.registers.setLow(Register.RDX, Number((value >> 32n) & 0xffff_ffffn))
    while (!wrmsr(core) && !isDone(core, rip, MSR_LENGTH)) {}
  }

  vmcall(number: bigint, first: bigint, second: bigint): bigint {
    const core = this.#core
    this.#begin()
    const { rip, registers } = core
    do {
      registers.setWide(Register.RAX, number)
      registers.setWide(Register.RBX, first)
      registers.setWide(Register.RCX, second)
      core.exit(ExitReason.VMCALL, 0, VMCALL_LENGTH)
    } while (!isDone(core, rip, VMCALL_LENGTH))
    return registers.getWide(Register.RAX)
  }

  get interruptsEnabled(): boolean {
    return (this.#core.rflags & Flag.IF) !== 0
  }

  sti(): void {
    const core = this.#core
    this.#begin()
    const enabled = (core.rflags & Flag.IF) !== 0
    core.retire(1)
    core.rflags |= Flag.IF
    if (!enabled) core.blocking |= Blocking.STI
  }

  cli(): void {
    this.#begin()
    this.#core.rflags &= ~Flag.IF
    this.#core.retire(1)
  }

  get taskPriority(): number {
    const core = this.#core
    this.#begin()
    const { rip } = core
    while (!movFromCr8(core) && !isDone(core, rip, MOV_CR8_LENGTH)) {}
    return core.registers.low(Register.RAX)
  }

  setTaskPriority(priority: number): void {
    const core = this.#core
    this.#begin()
    const { rip } = core
    core.registers.set(Register.RAX, priority)
    while (!movToCr8(core) && !isDone(core, rip, MOV_CR8_LENGTH)) {}
  }

  /** The table lies in guest memory at IDTR.base; a gate that guest code overwrites there is a gate no more. */
  setVector(vector: number, handler: (() => void) | null): void {
    const core = this.#core
    core.ensureGuest()
    const at = core.vmcs.get(Field.guestIdtrBase) + vector * GATE_BYTES
    if (!(vector >= 0 && vector * GATE_BYTES + GATE_BYTES - 1 <= core.vmcs.low(Field.guestIdtrLimit))) {
      throw new RangeError(`vector ${vector} lies outside the interrupt table`)
    }
    this.#handlers[vector] = handler
    this.#access.store(at, handler === null ? new Uint8Array(GATE_BYTES) : gateOf(core, vector))
  }

  /** The functions of a table that was loaded with the rest of memory; its gates stay as they are. */
  restoreHandlers(handlerOf: (vector: number) => (() => void) | null): void {
    for (let vector = 0; vector < VECTORS; vector++) this.#handlers[vector] = handlerOf(vector)
  }

  routeLine(line: number, vector: number | null, trigger: Trigger): void {
    this.#core.apic.routeLine(this, line, vector, trigger)
  }

  endOfInterrupt(): void {
    this.#core.apic.endOfInterrupt(this)
  }

  armTimer(dueUs: number | null, vector: number): void {
    this.#core.apic.armTimer(this, dueUs, vector)
  }

  /** A NOP. */
  boundary(): void {
    this.#begin()
    this.#core.retire(1)
  }

  halt(): void {
    this.halting = true
  }

  /**
   * HLT itself. Whether the processor sleeps: in root operation after an exit, or in the HLT activity state.
   *
   * Nothing is delivered right before it, as behind STI: an interrupt that comes between a program's decision
   * to sleep and HLT would otherwise be over before it could wake anybody.
   */
  executeHlt(): boolean {
    const core = this.#core
    this.halting = false
    if (!core.inGuest) core.ensureGuest()
    if ((core.primary & Primary.HLT) !== 0) {
      core.record(ExitReason.HLT, 0, 1)
      core.handle(ExitReason.HLT)
      return true
    }
    core.activity = Activity.HLT
    core.retire(1)
    boundary(core)
    return core.activity === Activity.HLT
  }

  /** Runs a handler on the interrupted stack. It keeps the registers it uses, as every handler does. */
  interrupt(vector: number, returnRip: number, hasErrorCode: boolean): void {
    const core = this.#core
    const handler = this.#handlers[vector]
    if (handler === null || handler === undefined) this.#delivery.tripleFault()
    else {
      const kept = core.registers.halves.slice()
      const wasHalting = this.halting
      handler()
      this.halting = wasHalting
      core.registers.halves.set(kept)
      if (hasErrorCode) core.rsp += 8
      while (!this.#delivery.iret()) {}
      if (core.rip !== returnRip) this.#delivery.tripleFault()
    }
  }

  #string(isIn: boolean, port: number, width: PortWidth, count: number): void {
    const core = this.#core
    this.#begin()
    const { rip } = core
    const length = width === 2 ? 3 : 2
    core.registers.setLow(Register.RDX, port)
    core.registers.set(Register.RCX, count)
    while (!portString(core, this.#access, isIn, width, true, length) && !isDone(core, rip, length)) {}
  }

  #begin(): void {
    const core = this.#core
    if (!core.inGuest) core.ensureGuest()
    if (core.attention !== 0) boundary(core)
  }
}

/** A present 64-bit interrupt gate of privilege 0. */
function gateOf(core: Core, vector: number): Uint8Array {
  const gate = new Uint8Array(GATE_BYTES)
  const view = new DataView(gate.buffer)
  const handler = gpa(HANDLERS + vector * GATE_BYTES)
  view.setUint16(0, handler % 0x10000, true)
  view.setUint16(2, core.vmcs.low(Field.guestCsSelector), true)
  view.setUint16(4, 0x8e00, true)
  view.setUint16(6, Math.floor(handler / 0x10000) % 0x10000, true)
  return gate
}
