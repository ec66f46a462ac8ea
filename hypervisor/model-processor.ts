import type { Plain } from '../protocol/platform.ts'
import type { GuestProgram } from '../protocol/processor.ts'
import {
  type DecodedAccess,
  type GeneralRegisters,
  type Processor,
  type ProcessorParts,
  ProcessorStopped,
} from './processor.ts'
import { MemoryAccess } from './vtx/access.ts'
import { boundary, isActive } from './vtx/boundary.ts'
import { type CapabilityProfile, HASWELL } from './vtx/capability.ts'
import { Blocking } from './vtx/control.ts'
import { Attention, Core } from './vtx/core.ts'
import { loadCore, saveCore } from './vtx/core-state.ts'
import { IdtDelivery } from './vtx/delivery.ts'
import { Field } from './vtx/field.ts'
import { GuestOperations } from './vtx/guest-operations.ts'
import { Physical } from './vtx/physical.ts'
import { TranslatedMemory } from './vtx/translated-memory.ts'
import type { Vmcs } from './vtx/vmcs.ts'
import { isField } from './vtx/vmcs.ts'
import type { Vmx } from './vtx/vmx.ts'

const TICKS_PER_US = 1000

/**
 * The processor that runs guest code written in TypeScript. It executes no VMX instructions of its machine:
 * it is what the SDM says a processor does, as data and functions (`vtx/`).
 */
export class ModelProcessor implements Processor {
  readonly guest: GuestOperations
  readonly core: Core
  #program: GuestProgram | null

  constructor(parts: ProcessorParts, profile: CapabilityProfile = HASWELL) {
    const physical = new Physical(parts.physical)
    const { root, pin, apic, clock } = parts
    const ticksPerUs = parts.ticksPerUs ?? TICKS_PER_US
    const core = new Core({ physical, root, pin, apic, clock, ticksPerUs, profile })
    const access = new MemoryAccess(core)
    const delivery = new IdtDelivery(core, access)
    const memory = new TranslatedMemory(parts.ram, physical, core.translation, access)
    this.core = core
    this.guest = new GuestOperations(core, access, delivery, memory)
    core.delivery = delivery
    core.code = this.guest
    core.invalidated = () => memory.invalidate()
    this.#program = null
  }

  /** VMXON, VMCLEAR, VMPTRLD and the rest of root operation, with the SDM's failures. */
  get vmx(): Vmx {
    return this.core.vmx
  }

  get registers(): GeneralRegisters {
    return this.core.registers
  }

  get decoded(): DecodedAccess | null {
    return this.core.decoded
  }

  get inGuest(): boolean {
    return this.core.inGuest
  }

  vmread(encoding: number): number {
    return this.#current(encoding).get(encoding)
  }

  vmreadWide(encoding: number): bigint {
    return this.#current(encoding).getWide(encoding)
  }

  vmwrite(encoding: number, value: number): void {
    this.#current(encoding).put(encoding, value)
    if (CONTEXT_FIELDS.has(encoding)) this.core.useContext()
  }

  vmwriteWide(encoding: number, value: bigint): void {
    this.#current(encoding).putWide(encoding, value)
    if (CONTEXT_FIELDS.has(encoding)) this.core.useContext()
  }

  advance(): void {
    const { decoded, vmcs } = this.core
    const length = decoded === null ? vmcs.low(Field.exitInstructionLength) : decoded.lengthBytes
    vmcs.put(Field.guestRip, vmcs.get(Field.guestRip) + length)
    const blocking = vmcs.low(Field.guestInterruptibility)
    const after = blocking & ~(Blocking.STI | Blocking.MOV_SS)
    if (after !== blocking) vmcs.put(Field.guestInterruptibility, after)
  }

  invalidate(): void {
    this.core.invalidate()
  }

  setProgram(program: GuestProgram): void {
    this.#program = program
  }

  run(): 'halted' | 'yielded' {
    const { core, guest } = this
    if (this.#program === null) throw new ProcessorStopped('there is no program to run')
    core.ensureGuest()
    boundary(core)
    if (!isActive(core)) return 'halted'
    guest.halting = false
    this.#program.run(guest)
    if (!guest.halting) return 'yielded'
    return guest.executeHlt() ? 'halted' : 'yielded'
  }

  setExternalPin(asserted: boolean): void {
    this.core.setPin(asserted)
  }

  raiseNmi(): void {
    this.core.setNmi(true)
  }

  recognizeVirtualInterrupts(): void {
    this.core.attention |= Attention.VIRTUAL
  }

  requestExit(reason: number, qualification: number): void {
    this.core.requestTrap(reason, qualification)
  }

  get preemptionDueUs(): number | null {
    return this.core.preemptionDueUs
  }

  save(): Plain {
    return saveCore(this.core)
  }

  load(state: Plain): string | null {
    const wrong = loadCore(this.core, state)
    if (wrong !== null) return wrong
    const program = this.#program
    if (program?.handlerOf !== undefined)
      this.guest.restoreHandlers((vector) => program.handlerOf?.(vector) ?? null)
    return null
  }

  #current(encoding: number): Vmcs {
    const { current } = this.core.vmx
    if (current === null) throw new ProcessorStopped('there is no current VMCS')
    if (encoding % 2 !== 0 || !isField(encoding)) {
      throw new ProcessorStopped(`there is no VMCS field ${encoding.toString(16)}h`)
    }
    return current
  }
}

/** Writes that change which EPT translates, and so what memory that is reached from outside `run` means. */
const CONTEXT_FIELDS = new Set<number>([Field.eptPointer, Field.primaryControls, Field.secondaryControls])
