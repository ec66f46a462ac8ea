import { allows } from './capability.ts'
import {
  type CheckGroup,
  Cr0,
  Cr4,
  DEBUGCTL_BITS,
  EFER_BITS,
  Efer,
  type EntryCheck,
  type EntryState,
  isPat,
  PERF_HIGH,
  PERF_LOW,
} from './check-group.ts'
import {
  Activity,
  Blocking,
  EntryControl,
  Flag,
  INFO_VALID,
  Interruption,
  Pin,
  Secondary,
} from './control.ts'
import { Field, fieldName } from './field.ts'

const QUALIFICATION_PDPTE = 2
const QUALIFICATION_LINK_POINTER = 4

const ia32e = (s: EntryState): boolean => s.has(Field.entryControls, EntryControl.IA32E_GUEST)
const loads = (s: EntryState, control: number): boolean => s.has(Field.entryControls, control)
const unrestricted = (s: EntryState): boolean => s.secondary(Secondary.UNRESTRICTED_GUEST)

/** An unrestricted guest chooses PE and PG itself. */
function cr0Allowed(s: EntryState): boolean {
  const { required, possible } = s.capability.cr0
  const free = unrestricted(s) ? Cr0.PE | Cr0.PG : 0
  return (
    allows({ required: (required & ~free) >>> 0, possible }, s.low(Field.guestCr0)) &&
    s.high(Field.guestCr0) === 0
  )
}

function eferAgrees(s: EntryState): boolean {
  const efer = s.low(Field.guestEfer)
  const lma = (efer & Efer.LMA) !== 0
  const lme = (efer & Efer.LME) !== 0
  return lma === ia32e(s) && (!s.has(Field.guestCr0, Cr0.PG) || lma === lme)
}

export const GUEST_REGISTERS: CheckGroup = {
  name: 'guest control registers, debug registers and MSRs',
  sdm: '27.3.1.1',
  failure: 'guest',
  readsMemory: false,
  reads: [
    Field.entryControls,
    Field.primaryControls,
    Field.secondaryControls,
    Field.guestCr0,
    Field.guestCr3,
    Field.guestCr4,
    Field.guestDebugctl,
    Field.guestDr7,
    Field.guestSysenterEsp,
    Field.guestSysenterEip,
    Field.guestPerfGlobalCtrl,
    Field.guestPat,
    Field.guestEfer,
  ],
  checks: [
    { name: 'guest CR0 is allowed', holds: cr0Allowed },
    {
      name: 'guest paging has protection',
      holds: (s) => !s.has(Field.guestCr0, Cr0.PG) || s.has(Field.guestCr0, Cr0.PE),
    },
    {
      name: 'guest CR4 is allowed',
      holds: (s) => allows(s.capability.cr4, s.low(Field.guestCr4)) && s.high(Field.guestCr4) === 0,
    },
    {
      name: 'a loaded DEBUGCTL has no reserved bits',
      holds: (s) =>
        !loads(s, EntryControl.LOAD_DEBUG) ||
        ((s.low(Field.guestDebugctl) & ~DEBUGCTL_BITS) === 0 && s.high(Field.guestDebugctl) === 0),
    },
    { name: 'an IA-32e guest has paging', holds: (s) => !ia32e(s) || s.has(Field.guestCr0, Cr0.PG) },
    { name: 'an IA-32e guest has PAE', holds: (s) => !ia32e(s) || s.has(Field.guestCr4, Cr4.PAE) },
    {
      name: 'a guest outside IA-32e mode has no PCIDs',
      holds: (s) => ia32e(s) || !s.has(Field.guestCr4, Cr4.PCIDE),
    },
    {
      name: 'guest CR3 is within the physical-address width',
      holds: (s) => s.get(Field.guestCr3) < s.capability.physicalEnd,
    },
    {
      name: 'a loaded DR7 has 32 bits',
      holds: (s) => !loads(s, EntryControl.LOAD_DEBUG) || s.high(Field.guestDr7) === 0,
    },
    { name: 'guest SYSENTER_ESP is canonical', holds: (s) => s.canonical(Field.guestSysenterEsp) },
    { name: 'guest SYSENTER_EIP is canonical', holds: (s) => s.canonical(Field.guestSysenterEip) },
    {
      name: 'a loaded guest PERF_GLOBAL_CTRL has no reserved bits',
      holds: (s) =>
        !loads(s, EntryControl.LOAD_PERF) ||
        ((s.low(Field.guestPerfGlobalCtrl) & ~PERF_LOW) === 0 &&
          (s.high(Field.guestPerfGlobalCtrl) & ~PERF_HIGH) === 0),
    },
    {
      name: 'a loaded guest PAT has known memory types',
      holds: (s) => !loads(s, EntryControl.LOAD_PAT) || isPat(s.low(Field.guestPat), s.high(Field.guestPat)),
    },
    {
      name: 'a loaded guest EFER has no reserved bits',
      holds: (s) =>
        !loads(s, EntryControl.LOAD_EFER) ||
        ((s.low(Field.guestEfer) & ~EFER_BITS) === 0 && s.high(Field.guestEfer) === 0),
    },
    {
      name: 'a loaded guest EFER agrees with IA-32e mode',
      holds: (s) => !loads(s, EntryControl.LOAD_EFER) || eferAgrees(s),
    },
  ],
}

const injects = (s: EntryState, type: number): boolean => {
  const info = s.low(Field.entryInterruptionInfo)
  return info >= INFO_VALID && ((info >> 8) & 7) === type
}

const CS_LONG = 1 << 13

/** RFLAGS: bit 1 is one; bits 3, 5, 15 and all from 22 on are zero. */
const FLAGS_ZERO = (1 << 3) | (1 << 5) | (1 << 15) | 0xffc0_0000

/** Kept small: root software writes RIP at almost every exit. */
export const RIP_AND_RFLAGS: CheckGroup = {
  name: 'guest RIP and RFLAGS',
  sdm: '27.3.1.4',
  failure: 'guest',
  readsMemory: false,
  reads: [
    Field.guestRip,
    Field.guestRflags,
    Field.guestCsRights,
    Field.guestCr0,
    Field.entryControls,
    Field.entryInterruptionInfo,
  ],
  checks: [
    {
      name: 'guest RIP outside 64-bit mode has 32 bits',
      holds: (s) => (ia32e(s) && s.has(Field.guestCsRights, CS_LONG)) || s.high(Field.guestRip) === 0,
    },
    {
      name: 'guest RIP bits 63 to 48 are alike',
      holds: (s) => {
        const top = s.high(Field.guestRip) >>> 16
        return !(ia32e(s) && s.has(Field.guestCsRights, CS_LONG)) || top === 0 || top === 0xffff
      },
    },
    {
      name: 'reserved bits of guest RFLAGS are zero',
      holds: (s) => (s.low(Field.guestRflags) & FLAGS_ZERO) === 0 && s.high(Field.guestRflags) === 0,
    },
    { name: 'guest RFLAGS bit 1 is one', holds: (s) => s.has(Field.guestRflags, 2) },
    {
      name: 'virtual-8086 mode is outside IA-32e mode and has protection',
      holds: (s) => !s.has(Field.guestRflags, Flag.VM) || (!ia32e(s) && s.has(Field.guestCr0, Cr0.PE)),
    },
    {
      name: 'an injected external interrupt finds IF set',
      holds: (s) => !injects(s, Interruption.EXTERNAL) || s.has(Field.guestRflags, Flag.IF),
    },
  ],
}

const blocks = (s: EntryState, bits: number): boolean => s.has(Field.guestInterruptibility, bits)
const activity = (s: EntryState): number => s.low(Field.guestActivity)

/** What may be injected into an inactive processor (27.3.1.5). */
function injectable(s: EntryState): boolean {
  const info = s.low(Field.entryInterruptionInfo)
  if (info < INFO_VALID || activity(s) === Activity.ACTIVE) return true
  const type = (info >> 8) & 7
  const vector = info & 0xff
  const machineCheck = type === Interruption.HARDWARE_EXCEPTION && vector === 18
  if (activity(s) === Activity.SHUTDOWN) return type === Interruption.NMI || machineCheck
  if (activity(s) !== Activity.HLT) return false
  const debug = type === Interruption.HARDWARE_EXCEPTION && vector === 1
  return (
    type === Interruption.EXTERNAL ||
    type === Interruption.NMI ||
    type === Interruption.OTHER ||
    machineCheck ||
    debug
  )
}

const PENDING_SINGLE_STEP = 1 << 14
/** Pending debug exceptions: bits 3:0, 12 and 14; bit 16 belongs to RTM, which the profile lacks. */
const PENDING_BITS = 0xf | (1 << 12) | PENDING_SINGLE_STEP
const DEBUGCTL_BTF = 2

function singleStepPends(s: EntryState): boolean {
  if (!blocks(s, Blocking.STI | Blocking.MOV_SS) && activity(s) !== Activity.HLT) return true
  const steps = s.has(Field.guestRflags, Flag.TF) && !s.has(Field.guestDebugctl, DEBUGCTL_BTF)
  return s.has(Field.guestPendingDebug, PENDING_SINGLE_STEP) === steps
}

export const NON_REGISTER_STATE: CheckGroup = {
  name: 'guest non-register state',
  sdm: '27.3.1.5',
  failure: 'guest',
  readsMemory: false,
  reads: [
    Field.guestActivity,
    Field.guestInterruptibility,
    Field.guestPendingDebug,
    Field.guestSsRights,
    Field.guestRflags,
    Field.guestDebugctl,
    Field.entryInterruptionInfo,
    Field.pinControls,
  ],
  checks: [
    {
      name: 'the activity state is supported',
      holds: (s) =>
        activity(s) === Activity.ACTIVE ||
        (activity(s) <= 3 && ((s.capability.activityStates >> (activity(s) - 1)) & 1) === 1),
    },
    {
      name: 'a halted guest has privilege level 0',
      holds: (s) => activity(s) !== Activity.HLT || (s.low(Field.guestSsRights) & 0x60) === 0,
    },
    {
      name: 'a processor under STI or MOV SS blocking is active',
      holds: (s) => activity(s) === Activity.ACTIVE || !blocks(s, Blocking.STI | Blocking.MOV_SS),
    },
    { name: 'the injected event is possible in the activity state', holds: injectable },
    { name: 'reserved interruptibility bits are zero', holds: (s) => !blocks(s, ~0xf) },
    {
      name: 'STI and MOV SS do not block at once',
      holds: (s) => !(blocks(s, Blocking.STI) && blocks(s, Blocking.MOV_SS)),
    },
    {
      name: 'STI blocking comes with IF set',
      holds: (s) => !blocks(s, Blocking.STI) || s.has(Field.guestRflags, Flag.IF),
    },
    {
      name: 'an injected external interrupt is not blocked by STI',
      holds: (s) => !injects(s, Interruption.EXTERNAL) || !blocks(s, Blocking.STI),
    },
    {
      name: 'an injected external interrupt is not blocked by MOV SS',
      holds: (s) => !injects(s, Interruption.EXTERNAL) || !blocks(s, Blocking.MOV_SS),
    },
    {
      name: 'an injected NMI is not blocked by MOV SS',
      holds: (s) => !injects(s, Interruption.NMI) || !blocks(s, Blocking.MOV_SS),
    },
    { name: 'SMIs are not blocked outside SMM', holds: (s) => !blocks(s, Blocking.SMI) },
    {
      name: 'an injected virtual NMI is not blocked by NMI',
      holds: (s) =>
        !injects(s, Interruption.NMI) ||
        !s.has(Field.pinControls, Pin.VIRTUAL_NMIS) ||
        !blocks(s, Blocking.NMI),
    },
    {
      name: 'reserved bits of the pending debug exceptions are zero',
      holds: (s) => !s.has(Field.guestPendingDebug, ~PENDING_BITS) && s.high(Field.guestPendingDebug) === 0,
    },
    { name: 'a single step pends exactly when TF is set', holds: singleStepPends },
  ],
}

const NO_LINK = 0xffff_ffff
const linked = (s: EntryState): boolean =>
  s.low(Field.vmcsLinkPointer) !== NO_LINK || s.high(Field.vmcsLinkPointer) !== NO_LINK

/** The revision is read from memory, at every entry. */
export const LINK_POINTER: CheckGroup = {
  name: 'VMCS link pointer',
  sdm: '27.3.1.5',
  failure: 'guest',
  readsMemory: true,
  reads: [Field.vmcsLinkPointer, Field.primaryControls, Field.secondaryControls],
  checks: [
    {
      name: 'the VMCS link pointer is a page',
      qualification: QUALIFICATION_LINK_POINTER,
      holds: (s) => !linked(s) || s.addresses(Field.vmcsLinkPointer, 4096),
    },
    {
      name: 'the linked VMCS has our revision, and is a shadow exactly under VMCS shadowing',
      qualification: QUALIFICATION_LINK_POINTER,
      holds: (s) =>
        !linked(s) ||
        !s.addresses(Field.vmcsLinkPointer, 4096) ||
        s.memory32(s.get(Field.vmcsLinkPointer)) ===
          s.capability.revision + (s.secondary(Secondary.VMCS_SHADOWING) ? 0x8000_0000 : 0),
    },
  ],
}

const PDPTES = [Field.guestPdpte0, Field.guestPdpte1, Field.guestPdpte2, Field.guestPdpte3] as const
/** Bits 2:1 and 8:5 of a PDPTE are reserved. */
const PDPTE_RESERVED = 0x1e6

const paePaging = (s: EntryState): boolean =>
  s.has(Field.guestCr0, Cr0.PG) && s.has(Field.guestCr4, Cr4.PAE) && !ia32e(s) && s.secondary(Secondary.EPT)

export const PAGE_DIRECTORY_POINTERS: CheckGroup = {
  name: 'guest page-directory-pointer-table entries',
  sdm: '27.3.1.6',
  failure: 'guest',
  readsMemory: false,
  reads: [
    Field.guestCr0,
    Field.guestCr4,
    Field.entryControls,
    Field.primaryControls,
    Field.secondaryControls,
    ...PDPTES,
  ],
  checks: PDPTES.map(
    (pdpte): EntryCheck => ({
      name: `a present ${fieldName(pdpte)} has no reserved bits`,
      qualification: QUALIFICATION_PDPTE,
      holds: (s) =>
        !paePaging(s) ||
        !s.has(pdpte, 1) ||
        ((s.low(pdpte) & PDPTE_RESERVED) === 0 && s.get(pdpte) < s.capability.physicalEnd),
    }),
  ),
}
