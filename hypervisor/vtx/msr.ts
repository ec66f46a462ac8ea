import type { Capability } from './capability.ts'
import { DEBUGCTL_BITS, EFER_BITS, isCanonical, isPat } from './check-group.ts'

/** Model-specific registers that guest code may name. */
export const Msr = {
  TSC: 0x10,
  APIC_BASE: 0x1b,
  FEATURE_CONTROL: 0x3a,
  SYSENTER_CS: 0x174,
  SYSENTER_ESP: 0x175,
  SYSENTER_EIP: 0x176,
  DEBUGCTL: 0x1d9,
  PAT: 0x277,
  TSC_DEADLINE: 0x6e0,
  EFER: 0xc000_0080,
  STAR: 0xc000_0081,
  LSTAR: 0xc000_0082,
  CSTAR: 0xc000_0083,
  FMASK: 0xc000_0084,
  FS_BASE: 0xc000_0100,
  GS_BASE: 0xc000_0101,
  KERNEL_GS_BASE: 0xc000_0102,
  TSC_AUX: 0xc000_0103,
} as const

const FIRST_CAPABILITY = 0x480
const LAST_CAPABILITY = 0x491

type Accepts = (low: number, high: number) => boolean

const anything: Accepts = () => true
const nothing: Accepts = () => false
const low32: Accepts = (_low, high) => high === 0
const bits =
  (mask: number): Accepts =>
  (low, high) =>
    (low & ~mask) === 0 && high === 0

/** What WRMSR takes; anything else is #GP. */
const WRITABLE: ReadonlyMap<number, Accepts> = new Map<number, Accepts>([
  [Msr.TSC, anything],
  [Msr.APIC_BASE, bits(0xffff_f900)],
  [Msr.FEATURE_CONTROL, nothing],
  [Msr.SYSENTER_CS, anything],
  [Msr.SYSENTER_ESP, isCanonical],
  [Msr.SYSENTER_EIP, isCanonical],
  [Msr.DEBUGCTL, bits(DEBUGCTL_BITS)],
  [Msr.PAT, isPat],
  [Msr.TSC_DEADLINE, anything],
  [Msr.EFER, bits(EFER_BITS)],
  [Msr.STAR, anything],
  [Msr.LSTAR, isCanonical],
  [Msr.CSTAR, isCanonical],
  [Msr.FMASK, low32],
  [Msr.FS_BASE, isCanonical],
  [Msr.GS_BASE, isCanonical],
  [Msr.KERNEL_GS_BASE, isCanonical],
  [Msr.TSC_AUX, low32],
])

/** Values after reset that are not zero. */
const INITIAL: ReadonlyMap<number, bigint> = new Map([
  [Msr.APIC_BASE, 0xfee0_0900n],
  [Msr.FEATURE_CONTROL, 5n],
  [Msr.PAT, 0x0007_0406_0007_0406n],
  [Msr.EFER, 0x500n],
])

/** The registers of one processor. Values are 64 bits exactly. */
export class MsrFile {
  readonly #capability: Capability
  #values: Map<number, bigint>

  constructor(capability: Capability) {
    this.#capability = capability
    this.#values = new Map(INITIAL)
  }

  exists(index: number): boolean {
    return WRITABLE.has(index) || (index >= FIRST_CAPABILITY && index <= LAST_CAPABILITY)
  }

  /** Null: RDMSR is #GP. */
  read(index: number): bigint | null {
    if (!this.exists(index)) return null
    return this.#values.get(index) ?? this.#capability.profile.msrs[index] ?? 0n
  }

  /** Whether WRMSR takes the value; false is #GP. */
  accepts(index: number, value: bigint): boolean {
    const accepts = WRITABLE.get(index)
    return accepts?.(Number(value & 0xffff_ffffn), Number(value >> 32n)) ?? false
  }

  /** After `accepts`. */
  write(index: number, value: bigint): void {
    this.#values.set(index, value)
  }

  /** Every register that differs from its value after reset. */
  save(): { readonly [index: string]: string } {
    const entries = [...this.#values].filter(([index, value]) => value !== (INITIAL.get(index) ?? 0n))
    return Object.fromEntries(entries.map(([index, value]) => [index.toString(16), value.toString(16)]))
  }

  load(saved: { readonly [index: string]: unknown }): string | null {
    const values = new Map(INITIAL)
    for (const [name, text] of Object.entries(saved)) {
      if (!/^[0-9a-f]{1,8}$/.test(name) || typeof text !== 'string' || !/^[0-9a-f]{1,16}$/.test(text)) {
        return `MSR ${name} is not a hexadecimal number`
      }
      const index = Number.parseInt(name, 16)
      const value = BigInt(`0x${text}`)
      if (!this.accepts(index, value)) return `MSR ${name} does not take ${text}`
      values.set(index, value)
    }
    this.#values = values
    return null
  }
}

/**
 * Whether the entry MSR-load list may name a register (SDM vol. 3, 27.4): not FS.base or GS.base, not x2APIC,
 * not the BIOS-update trigger, not what only SMM reaches.
 */
export function isLoadable(index: number): boolean {
  if (index === Msr.FS_BASE || index === Msr.GS_BASE) return false
  return index >>> 8 !== 8 && index !== 0x79 && index !== 0x9e && index !== 0x9b
}
