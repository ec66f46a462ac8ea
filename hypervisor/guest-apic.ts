import { gpa } from '../protocol/memory.ts'
import type { AccessWidth } from '../protocol/platform.ts'
import type { GuestProcessor, Trigger } from '../protocol/processor.ts'
import { ApicRegister, LVT_MASKED } from './apic-page.ts'
import { Redirection } from './interrupt.ts'
import { IoApicIndex, IoApicRegister } from './io-apic.ts'
import type { GuestApic } from './processor.ts'
import type { VirtualApic } from './virtual-apic.ts'
import { Msr } from './vtx/msr.ts'

/** Guest-physical addresses of the APICs, as on every PC. */
export const IO_APIC_BASE = gpa(0xfec0_0000)
export const LOCAL_APIC_BASE = gpa(0xfee0_0000)

const TSC_DEADLINE_MODE = 2 << 17
const UNKNOWN = -1

/**
 * What a kernel executes for the APIC operations of guest code, instruction by instruction, each of which may
 * exit; and the processor's virtualization that spares it the exits.
 */
export class GuestApicCode implements GuestApic {
  readonly #virtual: VirtualApic
  readonly #ticksPerUs: number
  /** What guest code wrote to its timer entry last, so that it writes it only when it changes. */
  #timerEntry: number

  constructor(virtual: VirtualApic, ticksPerUs: number) {
    this.#virtual = virtual
    this.#ticksPerUs = ticksPerUs
    this.#timerEntry = UNKNOWN
  }

  endOfInterrupt(guest: GuestProcessor): void {
    guest.write(gpa(LOCAL_APIC_BASE + ApicRegister.EOI), 4, 0)
  }

  routeLine(guest: GuestProcessor, line: number, vector: number | null, trigger: Trigger): void {
    const kind = trigger === 'level' ? Redirection.LEVEL : 0
    const entry = vector === null ? Redirection.MASKED : vector + kind
    guest.write(gpa(IO_APIC_BASE + IoApicRegister.SELECT), 4, IoApicIndex.REDIRECTION + line * 2)
    guest.write(gpa(IO_APIC_BASE + IoApicRegister.WINDOW), 4, entry)
  }

  armTimer(guest: GuestProcessor, dueUs: number | null, vector: number): void {
    const entry = dueUs === null ? this.#timerEntry : vector + TSC_DEADLINE_MODE
    if (entry === UNKNOWN) return
    if (entry !== this.#timerEntry) {
      guest.write(gpa(LOCAL_APIC_BASE + ApicRegister.LVT_TIMER), 4, entry)
      this.#timerEntry = entry
    }
    // Deadlines in the past are met at once, and 0 would disarm.
    const ticks = dueUs === null ? 0 : Math.max(1, Math.ceil(dueUs * this.#ticksPerUs))
    guest.writeMsr(Msr.TSC_DEADLINE, BigInt(ticks))
  }

  /** After `load`: what the timer entry holds is what guest code wrote. */
  restore(timerEntry: number): void {
    this.#timerEntry = (timerEntry & LVT_MASKED) === 0 ? timerEntry : UNKNOWN
  }

  virtualize(offset: number, width: AccessWidth, write: boolean, value: number): number {
    return this.#virtual.virtualize(offset, width, write, value)
  }

  taskPriorityChanged(): void {
    this.#virtual.taskPriorityChanged()
  }

  deliverVirtual(): number {
    return this.#virtual.deliverVirtual()
  }
}
