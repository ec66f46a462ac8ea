/**
 * What a processor's VMX can do: the capability MSRs (SDM vol. 3, appendix A) and what is derived from them.
 * The profile is the one the independent witness has (Bochs 2.7, corei7_haswell_4770).
 */
export interface CapabilityProfile {
  readonly name: string
  /** IA32_VMX_BASIC (0x480) … IA32_VMX_VMFUNC (0x491). */
  readonly msrs: Readonly<Record<number, bigint>>
  readonly physicalAddressBits: number
}

export const HASWELL: CapabilityProfile = {
  name: 'haswell',
  msrs: {
    1152: 0xd810000000002bn,
    1153: 0x7f00000016n,
    1154: 0xf7f9fffe0401e172n,
    1155: 0x7fffff00036dffn,
    1156: 0xffff000011ffn,
    1157: 0x200401e0n,
    1158: 0x80000021n,
    1159: 0xffffffffn,
    1160: 0x2000n,
    1161: 0x1727ffn,
    1162: 0x34n,
    1163: 0x47fff00000000n,
    1164: 0xf0106334141n,
    1165: 0x7f00000016n,
    1166: 0xf7f9fffe04006172n,
    1167: 0x7fffff00036dfbn,
    1168: 0xffff000011fbn,
    1169: 0x1n,
  },
  physicalAddressBits: 40,
}

const PROCESS_POSTED_INTERRUPTS = 1n << 39n

/** The same with posted interrupts, which that processor's server siblings have. */
export const HASWELL_POSTED: CapabilityProfile = {
  ...HASWELL,
  name: 'haswell-posted',
  msrs: {
    ...HASWELL.msrs,
    1153: (HASWELL.msrs[0x481] ?? 0n) | PROCESS_POSTED_INTERRUPTS,
    1165: (HASWELL.msrs[0x48d] ?? 0n) | PROCESS_POSTED_INTERRUPTS,
  },
}

/** Which settings a control field may have: `required` bits must be 1, bits outside `possible` must be 0. */
export interface Allowed {
  readonly required: number
  readonly possible: number
}

/** Whether a 32-bit control value respects both masks. */
export function allows(allowed: Allowed, value: number): boolean {
  return (value & allowed.required) >>> 0 === allowed.required && (value & ~allowed.possible) === 0
}

/** Parsed once, so that entry checks compare numbers. */
export class Capability {
  readonly profile: CapabilityProfile
  readonly revision: number
  readonly pin: Allowed
  readonly primary: Allowed
  readonly secondary: Allowed
  readonly exit: Allowed
  readonly entry: Allowed
  /** Fixed bits of CR0 and CR4 in VMX operation; both registers have no bits above 31. */
  readonly cr0: Allowed
  readonly cr4: Allowed
  readonly cr3TargetsMax: number
  /** Activity states besides active that entry accepts, bit n for state n + 1. */
  readonly activityStates: number
  readonly writesReadOnlyFields: boolean
  readonly acceptsZeroLength: boolean
  /** The preemption timer counts down once per 2^n ticks of the time-stamp counter. */
  readonly preemptionShift: number
  readonly executeOnly: boolean
  readonly eptAccessedDirty: boolean
  readonly physicalAddressBits: number
  /** First address that does not exist. */
  readonly physicalEnd: number

  constructor(profile: CapabilityProfile = HASWELL) {
    const msr = (index: number): bigint => profile.msrs[index] ?? 0n
    const low = (index: number): number => Number(msr(index) & 0xffff_ffffn)
    const high = (index: number): number => Number(msr(index) >> 32n)
    const allowed = (index: number): Allowed => ({ required: low(index), possible: high(index) })
    const basicHigh = high(0x480)
    /** Bit 55: the "true" capability MSRs say which of the default-1 controls may be 0. */
    const truth = Math.floor(basicHigh / 2 ** 23) % 2 === 1 ? 0x48d - 0x481 : 0
    this.profile = profile
    this.revision = low(0x480) % 2 ** 31
    this.pin = allowed(0x481 + truth)
    this.primary = allowed(0x482 + truth)
    this.exit = allowed(0x483 + truth)
    this.entry = allowed(0x484 + truth)
    this.secondary = allowed(0x48b)
    this.cr0 = { required: low(0x486), possible: low(0x487) }
    this.cr4 = { required: low(0x488), possible: low(0x489) }
    const misc = low(0x485)
    this.preemptionShift = misc & 31
    this.activityStates = (misc >> 6) & 7
    this.cr3TargetsMax = (misc >> 16) & 0x1ff
    this.writesReadOnlyFields = ((misc >>> 29) & 1) === 1
    this.acceptsZeroLength = ((misc >>> 30) & 1) === 1
    this.executeOnly = (low(0x48c) & 1) === 1
    this.eptAccessedDirty = ((low(0x48c) >>> 21) & 1) === 1
    this.physicalAddressBits = profile.physicalAddressBits
    this.physicalEnd = 2 ** profile.physicalAddressBits
  }
}
