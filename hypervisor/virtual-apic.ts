import type { AccessWidth } from '../protocol/platform.ts'
import { type ApicPage, ApicRegister } from './apic-page.ts'
import type { Processor } from './processor.ts'
import { NO_VECTOR } from './vector-bits.ts'
import { ExitReason, Primary, Secondary } from './vtx/control.ts'
import { Field } from './vtx/field.ts'

const EXITS = -1
const EOI_BITMAPS = [
  Field.eoiExitBitmap0,
  Field.eoiExitBitmap1,
  Field.eoiExitBitmap2,
  Field.eoiExitBitmap3,
] as const

/** Registers whose reads and writes APIC-register virtualization takes (30.4.2, 30.4.3). */
const READABLE = new Set<number>()
const WRITABLE = new Set<number>()
for (const offset of [ApicRegister.TPR, ApicRegister.EOI, ApicRegister.LDR, ApicRegister.DFR]) both(offset)
for (const offset of [ApicRegister.ID, ApicRegister.SPURIOUS, ApicRegister.ESR, ApicRegister.DIVIDE])
  both(offset)
for (let offset: number = ApicRegister.ICR_LOW; offset <= ApicRegister.INITIAL_COUNT; offset += 16)
  both(offset)
READABLE.add(ApicRegister.VERSION)
for (let offset: number = ApicRegister.ISR; offset < ApicRegister.ESR; offset += 16) READABLE.add(offset)

function both(offset: number): void {
  READABLE.add(offset)
  WRITABLE.add(offset)
}

/**
 * The APIC virtualization of the processor (SDM vol. 3, chapter 30): accesses to the APIC-access page that
 * become accesses to the virtual-APIC page, TPR, PPR, EOI and self-IPI virtualization, and delivery of virtual
 * interrupts. What the controls leave out exits.
 */
export class VirtualApic {
  readonly #page: ApicPage
  readonly #processor: () => Processor
  readonly #deliveredTo: (vector: number) => void

  /** `processor` is asked late: it is made with this. `delivered` hears each vector delivered without an exit. */
  constructor(page: ApicPage, processor: () => Processor, delivered: (vector: number) => void) {
    this.#page = page
    this.#processor = processor
    this.#deliveredTo = delivered
  }

  /** The value read, 0 for a write that was taken, or -1: the access exits. */
  virtualize(offset: number, width: AccessWidth, write: boolean, value: number): number {
    const processor = this.#processor()
    const primary = processor.vmread(Field.primaryControls)
    if ((primary & Primary.TPR_SHADOW) === 0) return EXITS
    const secondary = processor.vmread(Field.secondaryControls)
    if ((secondary & Secondary.X2APIC) !== 0) return this.#virtualizeMsr(secondary, offset, write, value)
    // Within the low four bytes of an aligned sixteen, else it exits.
    if (width > 4 || (offset & 15) + width > 4) return EXITS
    const register = offset & ~15
    if (write) {
      if (!writes(secondary, register)) return EXITS
      this.#page.write(offset, width, value)
      this.#written(secondary, register)
      return 0
    }
    return reads(secondary, register) ? this.#page.read(offset, width) : EXITS
  }

  /** RDMSR and WRMSR of x2APIC registers (30.5). */
  #virtualizeMsr(secondary: number, offset: number, write: boolean, value: number): number {
    const delivers = (secondary & Secondary.VIRTUAL_INTERRUPTS) !== 0
    if (!write) {
      const taken = offset === ApicRegister.TPR || (secondary & Secondary.APIC_REGISTERS) !== 0
      return taken ? this.#page.get(offset) : EXITS
    }
    if (offset === ApicRegister.TPR) {
      this.#page.put(offset, value)
      this.#written(secondary, offset)
    } else if (offset === ApicRegister.EOI && delivers) this.#endOfInterrupt()
    else if (offset === ApicRegister.SELF_IPI && delivers) this.#selfIpi(value & 0xff)
    else return EXITS
    return 0
  }

  /** APIC-write emulation (30.4.3.3). */
  #written(secondary: number, register: number): void {
    const page = this.#page
    const delivers = (secondary & Secondary.VIRTUAL_INTERRUPTS) !== 0
    if (register === ApicRegister.TPR) {
      page.put(register, page.get(register) & 0xff)
      this.#taskPriorityWritten(delivers)
    } else if (register === ApicRegister.EOI && delivers) {
      page.put(register, 0)
      this.#endOfInterrupt()
    } else if (register === ApicRegister.ICR_LOW && delivers && isSelfIpi(page.get(register))) {
      this.#selfIpi(page.get(register) & 0xff)
    } else if (register === ApicRegister.ICR_HIGH) page.put(register, page.get(register) & 0xff00_0000)
    else this.#processor().requestExit(ExitReason.APIC_WRITE, register)
  }

  /** TPR virtualization (30.1.2). */
  #taskPriorityWritten(delivers: boolean): void {
    if (delivers) {
      this.taskPriorityChanged()
      return
    }
    const processor = this.#processor()
    const threshold = processor.vmread(Field.tprThreshold) & 15
    if (this.#page.get(ApicRegister.TPR) >> 4 < threshold) {
      processor.requestExit(ExitReason.TPR_BELOW_THRESHOLD, 0)
    }
  }

  /** PPR virtualization, and evaluation of pending virtual interrupts (30.1.3, 30.2.1). */
  taskPriorityChanged(): void {
    // With nothing above the priority the evaluation would recognize nothing, at every change of an IRQL.
    if (this.pending) this.#processor().recognizeVirtualInterrupts()
  }

  /** Virtual-interrupt delivery (30.2.2): RVI moves to service when its class is above VPPR's. */
  deliverVirtual(): number {
    const status = this.#status
    const vector = status & 0xff
    const page = this.#page
    if (!(vector >> 4 > (page.get(ApicRegister.PPR) & 0xff) >> 4)) return NO_VECTOR
    page.inService.set(vector)
    page.requested.clear(vector)
    page.put(ApicRegister.PPR, vector & 0xf0)
    this.#setStatus(vector, Math.max(page.requested.highest(), 0))
    this.#deliveredTo(vector)
    return vector
  }

  /** Whether virtual-interrupt delivery would deliver, RFLAGS and blocking apart. */
  get pending(): boolean {
    const priority = this.#page.updatePpr(this.#status >> 8)
    return (this.#status & 0xff) >> 4 > priority >> 4
  }

  /** Root software or a notification has changed VIRR: RVI is its highest. */
  requestsChanged(): void {
    this.#setStatus(this.#status >> 8, Math.max(this.#page.requested.highest(), 0))
    this.#page.updatePpr(this.#status >> 8)
  }

  /** EOI virtualization (30.1.4). */
  #endOfInterrupt(): void {
    const page = this.#page
    const vector = this.#status >> 8
    page.inService.clear(vector)
    const next = Math.max(page.inService.highest(), 0)
    this.#setStatus(next, this.#status & 0xff)
    page.updatePpr(next)
    const processor = this.#processor()
    const bitmap = EOI_BITMAPS[vector >> 6] ?? Field.eoiExitBitmap0
    const half = vector & 32 ? processor.vmreadWide(bitmap) >> 32n : processor.vmreadWide(bitmap)
    if (((Number(half & 0xffff_ffffn) >>> (vector & 31)) & 1) === 1) {
      processor.requestExit(ExitReason.VIRTUALIZED_EOI, vector)
    } else processor.recognizeVirtualInterrupts()
  }

  /** Self-IPI virtualization (30.1.5). */
  #selfIpi(vector: number): void {
    this.#page.requested.set(vector)
    this.#setStatus(this.#status >> 8, Math.max(this.#status & 0xff, vector))
    this.#processor().recognizeVirtualInterrupts()
  }

  /** Guest interrupt status: SVI in bits 15:8, RVI in 7:0. */
  get #status(): number {
    return this.#processor().vmread(Field.guestInterruptStatus)
  }

  #setStatus(serving: number, requesting: number): void {
    this.#processor().vmwrite(Field.guestInterruptStatus, serving * 0x100 + requesting)
  }
}

function reads(secondary: number, register: number): boolean {
  if ((secondary & Secondary.APIC_REGISTERS) === 0) return register === ApicRegister.TPR
  return READABLE.has(register)
}

function writes(secondary: number, register: number): boolean {
  if ((secondary & Secondary.APIC_REGISTERS) !== 0) return WRITABLE.has(register)
  if (register === ApicRegister.TPR) return true
  if ((secondary & Secondary.VIRTUAL_INTERRUPTS) === 0) return false
  return register === ApicRegister.EOI || register === ApicRegister.ICR_LOW
}

/** Fixed, edge, to itself, no reserved bit, a vector that exists (30.4.3.3). */
function isSelfIpi(command: number): boolean {
  return (command & 0xfff7_ff00) === 0x4_0000 && (command & 0xff) >= 16
}
