import type { Field as LayoutField } from '../../protocol/layout.ts'
import type { GuestMemory } from '../../protocol/memory.ts'
import { gpa } from '../../protocol/memory.ts'
import { Cursor } from '../../protocol/window.ts'
import type { Capability } from './capability.ts'
import { Primary } from './control.ts'
import { Field } from './field.ts'
import type { Vmcs } from './vmcs.ts'

/**
 * One thing that VM entry requires. `holds` is given the state and says whether the requirement is met; it
 * reads only the fields its group declares, and is true wherever the requirement does not apply.
 */
export interface EntryCheck {
  readonly name: string
  /** Exit qualification when the check fails with reason 33; 0 unless the SDM gives the failure its own. */
  readonly qualification?: number
  holds(state: EntryState): boolean
}

/** Checks that read the same fields, so that they are made again together. */
export interface CheckGroup {
  readonly name: string
  /** Section of SDM vol. 3 (the editions in which chapter 27 is "VM Entries"). */
  readonly sdm: string
  /** `controls`: VMfail 7. `host`: VMfail 8. `guest`: exit reason 33. */
  readonly failure: 'controls' | 'host' | 'guest'
  /** Encodings. */
  readonly reads: readonly number[]
  /** Reads memory that changes without a VMWRITE: made at every entry. */
  readonly readsMemory: boolean
  readonly checks: readonly EntryCheck[]
}

/** What entry checks look at. */
export class EntryState {
  vmcs: Vmcs
  readonly capability: Capability
  readonly #physical: GuestMemory
  readonly #cursor: Cursor

  constructor(vmcs: Vmcs, capability: Capability, physical: GuestMemory) {
    this.vmcs = vmcs
    this.capability = capability
    this.#physical = physical
    this.#cursor = new Cursor()
  }

  low(field: number): number {
    return this.vmcs.low(field)
  }

  high(field: number): number {
    return this.vmcs.high(field)
  }

  get(field: number): number {
    return this.vmcs.get(field)
  }

  has(field: number, bits: number): boolean {
    return (this.vmcs.low(field) & bits) !== 0
  }

  primary(bits: number): boolean {
    return this.has(Field.primaryControls, bits)
  }

  /** Secondary controls count for nothing unless activated (SDM vol. 3, 25.6.2). */
  secondary(bits: number): boolean {
    return this.primary(Primary.SECONDARY) && this.has(Field.secondaryControls, bits)
  }

  /** Whether an address field is a multiple of `alignment` and within the physical-address width. */
  addresses(field: number, alignment: number): boolean {
    return this.low(field) % alignment === 0 && this.get(field) < this.capability.physicalEnd
  }

  /** Bits 63:47 are alike. */
  canonical(field: number): boolean {
    return isCanonical(this.low(field), this.high(field))
  }

  /** 32 bits of host-physical memory; all ones where nothing answers. */
  memory32(address: number): number {
    if (!this.#physical.point(this.#cursor, gpa(address), 4)) return 0xffff_ffff
    return this.#cursor.window.le32(0 as LayoutField<'le32'>, this.#cursor.base)
  }
}

export function isCanonical(_low: number, high: number): boolean {
  const top = high >>> 15
  return top === 0 || top === 0x1_ffff
}

/** Every byte is a memory type that PAT knows: UC, WC, WT, WP, WB, UC-. */
export function isPat(low: number, high: number): boolean {
  return patHalf(low) && patHalf(high)
}

function patHalf(half: number): boolean {
  for (let byte = 0; byte < 4; byte++) {
    const type = (half >>> (byte * 8)) & 0xff
    if (type > 7 || type === 2 || type === 3) return false
  }
  return true
}

export const Efer = { SCE: 1, LME: 1 << 8, LMA: 1 << 10, NXE: 1 << 11 } as const
export const EFER_BITS = Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE

/** IA32_PERF_GLOBAL_CTRL: general counters 0 to 7 and fixed counters 0 to 2. */
export const PERF_LOW = 0xff
export const PERF_HIGH = 0x7

/** IA32_DEBUGCTL: LBR, BTF and bits 14:6. */
export const DEBUGCTL_BITS = 0x7fc3

export const Cr0 = { PE: 1, PG: 1 << 31 } as const
export const Cr4 = { PAE: 1 << 5, PCIDE: 1 << 17, CET: 1 << 23 } as const
