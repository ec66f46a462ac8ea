import type { Field } from '../protocol/layout.ts'
import type { Window } from '../protocol/window.ts'
import { VectorBits } from './vector-bits.ts'

/** Registers of a local APIC by their offset in its page (SDM vol. 3, table 11-1). */
export const ApicRegister = {
  ID: 0x020,
  VERSION: 0x030,
  TPR: 0x080,
  PPR: 0x0a0,
  EOI: 0x0b0,
  LDR: 0x0d0,
  DFR: 0x0e0,
  SPURIOUS: 0x0f0,
  ISR: 0x100,
  TMR: 0x180,
  IRR: 0x200,
  ESR: 0x280,
  ICR_LOW: 0x300,
  ICR_HIGH: 0x310,
  LVT_TIMER: 0x320,
  LVT_THERMAL: 0x330,
  LVT_PERFORMANCE: 0x340,
  LVT_LINT0: 0x350,
  LVT_LINT1: 0x360,
  LVT_ERROR: 0x370,
  INITIAL_COUNT: 0x380,
  DIVIDE: 0x3e0,
  /** Only in x2APIC mode, MSR 83FH. */
  SELF_IPI: 0x3f0,
} as const

export const LVT_MASKED = 1 << 16
export const APIC_ENABLED = 1 << 8

const REGISTER_BYTES = 16
/** Version 14H, six LVT entries. */
const VERSION = 0x5_0014

/**
 * The 4 KiB of a local APIC: registers 16 bytes apart, state as plain memory. Under the APIC-virtualization
 * controls this is the virtual-APIC page, which processor and root software share (SDM vol. 3, 30.1).
 */
export class ApicPage {
  readonly #window: Window
  readonly requested: VectorBits
  readonly inService: VectorBits
  /** Trigger mode: 1 for vectors whose EOI goes on to the I/O APIC. */
  readonly level: VectorBits

  constructor(window: Window) {
    this.#window = window
    this.requested = new VectorBits(window, ApicRegister.IRR, REGISTER_BYTES)
    this.inService = new VectorBits(window, ApicRegister.ISR, REGISTER_BYTES)
    this.level = new VectorBits(window, ApicRegister.TMR, REGISTER_BYTES)
  }

  /** Reset, and what firmware leaves: the APIC enabled, everything else masked. */
  reset(): void {
    this.#window.fill(0, 0, this.#window.lengthBytes)
    this.put(ApicRegister.VERSION, VERSION)
    this.put(ApicRegister.DFR, 0xffff_ffff)
    this.put(ApicRegister.SPURIOUS, APIC_ENABLED | 0xff)
    for (let at = ApicRegister.LVT_TIMER; at <= ApicRegister.LVT_ERROR; at += REGISTER_BYTES) {
      this.put(at, LVT_MASKED)
    }
  }

  get(register: number): number {
    return this.#window.le32(register as Field<'le32'>)
  }

  put(register: number, value: number): void {
    this.#window.putLe32(register as Field<'le32'>, value)
  }

  /** Any byte of the page, for accesses the processor virtualizes. */
  read(offset: number, width: number): number {
    if (width === 4) return this.get(offset)
    if (width === 2) return this.#window.le16(offset as Field<'le16'>)
    return this.#window.u8(offset as Field<'u8'>)
  }

  write(offset: number, width: number, value: number): void {
    if (width === 4) this.put(offset, value)
    else if (width === 2) this.#window.putLe16(offset as Field<'le16'>, value)
    else this.#window.putU8(offset as Field<'u8'>, value)
  }

  /**
   * PPR from TPR and the vector in service (SDM vol. 3, 11.8.3.1; 30.1.3 with SVI): the task priority when its
   * class is not below the vector's, else the vector's class.
   */
  updatePpr(inService: number): number {
    const tpr = this.get(ApicRegister.TPR) & 0xff
    const serving = Math.max(inService, 0)
    const ppr = tpr >> 4 >= serving >> 4 ? tpr : serving & 0xf0
    this.put(ApicRegister.PPR, ppr)
    return ppr
  }
}
