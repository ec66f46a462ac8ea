import { type CapabilityProfile, HASWELL, HASWELL_POSTED } from './vtx/capability.ts'

/** How much of the local APIC the processor virtualizes, and so what exits. */
export interface ApicProfile {
  readonly name: string
  readonly capability: CapabilityProfile
  /** CR8 and the TPR are in the virtual-APIC page; an access to CR8 exits without. */
  readonly tprShadow: boolean
  /** APIC-register virtualization: reads do not exit, and writes exit when they are complete. */
  readonly apicRegisters: boolean
  /** Virtual-interrupt delivery: injection, EOI and self-IPI without an exit. Needs `tprShadow`. */
  readonly virtualInterrupts: boolean
  /** Posted interrupts: delivery to a running guest without an exit. Needs `virtualInterrupts`. */
  readonly postedInterrupts: boolean
}

/** Nehalem's generation: every injection at a window, every EOI an APIC-access exit, the TPR in a shadow. */
export const APIC_2010: ApicProfile = {
  name: '2010',
  capability: HASWELL,
  tprShadow: true,
  apicRegisters: false,
  virtualInterrupts: false,
  postedInterrupts: false,
}

/** The first VT-x: not even the TPR. */
export const APIC_2006: ApicProfile = { ...APIC_2010, name: '2006', tprShadow: false }

/** Servers since Ivy Bridge: interrupts and their EOIs without exits. */
export const APICV: ApicProfile = {
  name: 'apicv',
  capability: HASWELL_POSTED,
  tprShadow: true,
  apicRegisters: true,
  virtualInterrupts: true,
  postedInterrupts: true,
}

export const APIC_PROFILES = { '2006': APIC_2006, '2010': APIC_2010, apicv: APICV } as const
