import { ProcessorStopped, Register } from '../processor.ts'
import type { Core } from './core.ts'
import { Field } from './field.ts'

/** The same exit this often with nothing changed between: root software does not resolve it. */
const REPEATS_MAX = 16

/** Notices a run that gets nowhere: the same exit, at the same place, at the same time, again and again. */
export class Progress {
  #reason: number
  #rip: number
  #rcx: number
  #address: number
  #nowUs: number
  #repeats: number

  constructor() {
    this.#reason = -1
    this.#rip = -1
    this.#rcx = -1
    this.#address = -1
    this.#nowUs = -1
    this.#repeats = 0
  }

  /** An exit, or a fault as a number above all reasons. @throws ProcessorStopped */
  note(core: Core, reason: number): void {
    const rcx = core.registers.get(Register.RCX)
    const address = core.vmcs.get(Field.guestPhysicalAddress)
    const nowUs = core.now()
    const same = reason === this.#reason && core.rip === this.#rip && nowUs === this.#nowUs
    if (same && rcx === this.#rcx && address === this.#address) {
      this.#repeats++
      if (this.#repeats >= REPEATS_MAX) this.#stop(core, reason)
      return
    }
    this.#reason = reason
    this.#rip = core.rip
    this.#rcx = rcx
    this.#address = address
    this.#nowUs = nowUs
    this.#repeats = 0
  }

  #stop(core: Core, reason: number): never {
    const at = `guest RIP ${core.rip.toString(16)}h, guest-physical address ${this.#address.toString(16)}h`
    const qualification = core.vmcs.get(Field.exitQualification).toString(16)
    throw new ProcessorStopped(
      `exit reason ${reason} was not resolved in ${REPEATS_MAX} exits: ${at}, qualification ${qualification}h`,
    )
  }
}
