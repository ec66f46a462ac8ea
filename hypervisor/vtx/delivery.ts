import { ProcessorStopped } from '../processor.ts'
import type { MemoryAccess } from './access.ts'
import { pushesErrorCode } from './check-events.ts'
import {
  Activity,
  Blocking,
  ExitReason,
  Flag,
  INFO_ERROR_CODE,
  INFO_VALID,
  Interruption,
  Pin,
} from './control.ts'
import type { Core, EventDelivery } from './core.ts'
import { Access } from './ept-walk.ts'
import { Field } from './field.ts'

export const INVALID_OPCODE = 6
const DOUBLE_FAULT = 8
const SEGMENT_NOT_PRESENT = 11
export const GENERAL_PROTECTION = 13
const NO_ERROR_CODE = -1

/** Above all exit reasons. */
const FAULTS = 0x10000

const TWO_32 = 0x1_0000_0000
const GATE_BYTES = 16
const INTERRUPT_GATE = 14
const TRAP_GATE = 15
/** SS, RSP, RFLAGS, CS, RIP, eight bytes each. */
const FRAME_BYTES = 40
/** RFLAGS bits that delivery clears besides IF: TF, NT, VM, RF. */
const CLEARED_FLAGS = Flag.TF | (1 << 14) | Flag.VM | (1 << 16)
/** Error-code bits: the selector index names a gate of the IDT; the event was external to the program. */
const ERROR_IDT = 2
const ERROR_EXTERNAL = 1

/** Exceptions that make a double fault of another one like them: 0, 10 to 13. */
function isContributory(vector: number): boolean {
  return vector === 0 || (vector >= 10 && vector <= 13)
}

/** Raises a fault of the present instruction: exits if the exception bitmap says so, else it is delivered. */
export function raise(core: Core, vector: number, errorCode: number): void {
  const delivers = pushesErrorCode(vector)
  const info = INFO_VALID + (Interruption.HARDWARE_EXCEPTION << 8) + (delivers ? INFO_ERROR_CODE : 0) + vector
  if (((core.vmcs.low(Field.exceptionBitmap) >>> vector) & 1) === 1) {
    core.vmcs.store(Field.exitInterruptionInfo, info)
    if (delivers) core.vmcs.store(Field.exitInterruptionErrorCode, errorCode)
    core.exit(ExitReason.EXCEPTION_OR_NMI, 0, 0)
    return
  }
  core.progress.note(core, FAULTS + vector)
  core.delivery.inject(info, errorCode, 0)
}

/**
 * Delivery of an event through the IDT of a 64-bit guest (SDM vol. 3, 6.14), as VM entry and the processor
 * itself do it: the gate is read from guest memory and the frame pushed to it, and either may exit. Then the
 * event is in the IDT-vectoring information, and lost unless root software injects it again.
 */
export class IdtDelivery implements EventDelivery {
  readonly #core: Core
  readonly #access: MemoryAccess

  constructor(core: Core, access: MemoryAccess) {
    this.#core = core
    this.#access = access
  }

  inject(info: number, errorCode: number, instructionLength: number): void {
    const core = this.#core
    const type = (info >> 8) & 7
    if (type === Interruption.OTHER) return
    const vector = info & 0xff
    core.activity = Activity.ACTIVE
    core.blocking &= ~(Blocking.STI | Blocking.MOV_SS)
    if (type === Interruption.NMI) core.blocking |= Blocking.NMI
    core.vectoring = (info & 0xfff) + INFO_VALID
    core.vectoringError = errorCode
    core.vectoringLength = instructionLength
    const isSoftware = type >= Interruption.SOFTWARE_INTERRUPT
    const error = (info & INFO_ERROR_CODE) !== 0 ? errorCode : NO_ERROR_CODE
    const returnRip = isSoftware ? core.rip + instructionLength : core.rip
    if (!this.#deliver(vector, error, returnRip, isSoftware)) return
    core.code.interrupt(vector, returnRip, error !== NO_ERROR_CODE)
  }

  /** The return from a handler. False: an exit took place instead, and IRET is to be executed again. */
  iret(): boolean {
    const core = this.#core
    const keeps = (core.pinControls & (Pin.NMI | Pin.VIRTUAL_NMIS)) === Pin.NMI
    if ((core.blocking & Blocking.NMI) !== 0 && !keeps) {
      core.blocking &= ~Blocking.NMI
      core.nmiUnblocked = true
    }
    const frame = core.rsp
    if (!this.#access.attempt(frame, Access.READ)) return false
    const rip = this.#read(frame, 0)
    const rflags = this.#read(frame, 16)
    if (!this.#access.attempt(frame + 24, Access.READ)) return false
    core.nmiUnblocked = false
    core.rsp = core.physical.read(core.translation.address, 8)
    core.rip = rip
    core.rflags = rflags % TWO_32
    core.retire(0)
    return true
  }

  /** The guest cannot go on: root software may throw a reason of its own. */
  tripleFault(): never {
    const core = this.#core
    core.vectoring = 0
    core.record(ExitReason.TRIPLE_FAULT, 0, 0)
    core.handle(ExitReason.TRIPLE_FAULT)
    throw new ProcessorStopped('the guest ended in a triple fault')
  }

  #deliver(vector: number, error: number, returnRip: number, isSoftware: boolean): boolean {
    const core = this.#core
    const { vmcs } = core
    const external = isSoftware ? 0 : ERROR_EXTERNAL
    const gate = vmcs.get(Field.guestIdtrBase) + vector * GATE_BYTES
    if (vector * GATE_BYTES + GATE_BYTES - 1 > vmcs.low(Field.guestIdtrLimit)) {
      return this.#fault(GENERAL_PROTECTION, vector * 8 + ERROR_IDT + external)
    }
    if (!this.#access.attempt(gate, Access.READ)) return false
    const low = core.physical.le32(core.translation.address)
    const middle = core.physical.le32(core.translation.address + 4)
    const high = core.physical.le32(core.translation.address + 8)
    const kind = (middle >> 8) & 0x1f
    if (kind !== INTERRUPT_GATE && kind !== TRAP_GATE) {
      return this.#fault(GENERAL_PROTECTION, vector * 8 + ERROR_IDT + external)
    }
    if ((middle & 0x8000) === 0) return this.#fault(SEGMENT_NOT_PRESENT, vector * 8 + ERROR_IDT + external)
    if (!this.#push(error, returnRip)) return false
    core.vectoring = 0
    core.rip = (low % 0x10000) + Math.floor(middle / 0x10000) * 0x10000 + high * TWO_32
    core.rflags &= ~(kind === INTERRUPT_GATE ? CLEARED_FLAGS | Flag.IF : CLEARED_FLAGS)
    return true
  }

  /** Pushes the frame from its highest address down, so that a page that is not there is met in that order. */
  #push(error: number, returnRip: number): boolean {
    const core = this.#core
    const top = core.rsp - (core.rsp % 16)
    const words = [
      core.vmcs.low(Field.guestSsSelector),
      core.rsp,
      core.rflags,
      core.vmcs.low(Field.guestCsSelector),
      returnRip,
    ]
    if (error !== NO_ERROR_CODE) words.push(error)
    let at = top
    for (const word of words) {
      at -= 8
      if (!this.#access.attempt(at, Access.WRITE)) return false
      core.physical.write(core.translation.address, 8, word)
    }
    core.rsp = top - FRAME_BYTES - (error === NO_ERROR_CODE ? 0 : 8)
    return true
  }

  /** A fault met while delivering the event of `vectoring` (SDM vol. 3, table 6-5). Always false. */
  #fault(vector: number, errorCode: number): boolean {
    const core = this.#core
    const first = core.vectoring
    const isException = ((first >> 8) & 7) === Interruption.HARDWARE_EXCEPTION
    if (((core.vmcs.low(Field.exceptionBitmap) >>> vector) & 1) === 1) raise(core, vector, errorCode)
    else if (isException && (first & 0xff) === DOUBLE_FAULT) this.tripleFault()
    else if (isException && isContributory(first & 0xff)) {
      /** An exit that a double fault causes does not count as one during delivery (28.2.4). */
      core.vectoring = 0
      raise(core, DOUBLE_FAULT, 0)
    } else raise(core, vector, errorCode)
    return false
  }

  #read(frame: number, offset: number): number {
    const core = this.#core
    return this.#access.attempt(frame + offset, Access.READ)
      ? core.physical.read(core.translation.address, 8)
      : 0
  }
}
