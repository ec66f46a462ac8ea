/** For each check of VM entry, changes of a good VMCS after which exactly that check does not hold. */
import { type CapabilityProfile, HASWELL, HASWELL_POSTED } from '../../../hypervisor/vtx/capability.ts'
import {
  Activity,
  Blocking,
  EntryControl,
  ExitControl,
  Flag,
  Pin,
  Primary,
  Secondary,
} from '../../../hypervisor/vtx/control.ts'
import { Field, type FieldName } from '../../../hypervisor/vtx/field.ts'

/** Bits set and cleared in a field, or a whole value. */
export type Edit =
  | readonly [field: FieldName, set: bigint, clear?: bigint]
  | readonly [FieldName, { value: bigint }]

export interface Broken {
  readonly edits: readonly Edit[]
  readonly profile?: CapabilityProfile
}

const bits = (...masks: number[]): bigint => masks.reduce((all, mask) => all | BigInt(mask >>> 0), 0n)
const bit = (position: number): bigint => 1n << BigInt(position)
const is = (field: FieldName, value: bigint): Edit => [field, { value }]
const set = (field: FieldName, mask: bigint): Edit => [field, mask]
const clear = (field: FieldName, mask: bigint): Edit => [field, 0n, mask]
const broken = (...edits: Edit[]): Broken => ({ edits })
const withProfile = (profile: CapabilityProfile, ...edits: Edit[]): Broken => ({ profile, edits })

const NON_CANONICAL = 0x0000_8000_0000_0000n
const BEYOND = bit(45)
const primary = (mask: number): Edit => set('primaryControls', bits(mask))
const secondary = (mask: number): Edit => set('secondaryControls', bits(mask))
const pin = (mask: number): Edit => set('pinControls', bits(mask))
const exit = (mask: number): Edit => set('exitControls', bits(mask))
const entry = (mask: number): Edit => set('entryControls', bits(mask))
const event = (info: bigint): Edit => is('entryInterruptionInfo', bit(31) | info)
const TPR_SHADOW = primary(Primary.TPR_SHADOW)
const UNRESTRICTED = secondary(Secondary.UNRESTRICTED_GUEST)
const EXTERNAL = pin(Pin.EXTERNAL_INTERRUPT)
const IF = set('guestRflags', bits(Flag.IF))
/** CS as a flat 32-bit segment, outside IA-32e mode. */
const GUEST_32: readonly Edit[] = [
  clear('entryControls', bits(EntryControl.IA32E_GUEST)),
  is('guestCsRights', 0xc09bn),
]

/** The default profile with capability bits changed. */
function profileWith(msr: number, setBits: bigint, clearBits = 0n): CapabilityProfile {
  const value = ((HASWELL.msrs[msr] ?? 0n) | setBits) & ~clearBits
  return { ...HASWELL, msrs: { ...HASWELL.msrs, [msr]: value } }
}

const MONITOR_TRAP = profileWith(0x48e, bit(32 + 27))
const NO_EPT_FLAGS = profileWith(0x48c, 0n, bit(21))

const POSTED: readonly Edit[] = [
  pin(Pin.POSTED_INTERRUPTS | Pin.EXTERNAL_INTERRUPT),
  TPR_SHADOW,
  secondary(Secondary.VIRTUAL_INTERRUPTS),
  exit(ExitControl.ACKNOWLEDGE),
]

const controls: Readonly<Record<string, Broken>> = {
  'pin-based controls are allowed': broken(clear('pinControls', bit(1))),
  'primary controls are allowed': broken(primary(1)),
  'secondary controls are allowed': broken(secondary(1 << 31)),
  'CR3 targets are not too many': broken(is('cr3TargetCount', 5n)),
  'I/O bitmap A is a page': broken(primary(Primary.IO_BITMAPS), is('ioBitmapA', 0x800n)),
  'I/O bitmap B is a page': broken(primary(Primary.IO_BITMAPS), is('ioBitmapB', BEYOND)),
  'the MSR bitmap is a page': broken(primary(Primary.MSR_BITMAPS), is('msrBitmap', 1n)),
  'the virtual-APIC page is a page': broken(TPR_SHADOW, is('virtualApicAddress', 0x6010n)),
  'the TPR threshold has four bits': broken(TPR_SHADOW, is('tprThreshold', 0x10n)),
  'x2APIC mode has a TPR shadow': broken(secondary(Secondary.X2APIC)),
  'APIC-register virtualization has a TPR shadow': broken(secondary(Secondary.APIC_REGISTERS)),
  'virtual-interrupt delivery has a TPR shadow': broken(EXTERNAL, secondary(Secondary.VIRTUAL_INTERRUPTS)),
  'x2APIC mode excludes APIC accesses': broken(
    TPR_SHADOW,
    secondary(Secondary.X2APIC | Secondary.APIC_ACCESSES),
  ),
  'virtual-interrupt delivery has external-interrupt exiting': broken(
    clear('pinControls', bits(Pin.EXTERNAL_INTERRUPT)),
    TPR_SHADOW,
    secondary(Secondary.VIRTUAL_INTERRUPTS),
  ),
  'the APIC-access page is a page': broken(secondary(Secondary.APIC_ACCESSES), is('apicAccessAddress', 4n)),
  'virtual NMIs have NMI exiting': broken(clear('pinControls', bits(Pin.NMI)), pin(Pin.VIRTUAL_NMIS)),
  'NMI-window exiting has virtual NMIs': broken(primary(Primary.NMI_WINDOW)),
  'posted interrupts have virtual-interrupt delivery': withProfile(
    HASWELL_POSTED,
    pin(Pin.POSTED_INTERRUPTS),
    exit(ExitControl.ACKNOWLEDGE),
  ),
  'posted interrupts are acknowledged on exit': withProfile(
    HASWELL_POSTED,
    ...POSTED,
    clear('exitControls', bits(ExitControl.ACKNOWLEDGE)),
  ),
  'the posted-interrupt vector has eight bits': withProfile(
    HASWELL_POSTED,
    ...POSTED,
    is('postedInterruptVector', 0x100n),
  ),
  'the posted-interrupt descriptor is 64-byte aligned': withProfile(
    HASWELL_POSTED,
    ...POSTED,
    is('postedInterruptDescriptor', 0x20n),
  ),
  'a VPID is not zero': broken(is('vpid', 0n)),
  'the EPT memory type is uncacheable or write-back': broken(clear('eptPointer', 7n), set('eptPointer', 5n)),
  'the EPT walk has four levels': broken(set('eptPointer', 0x20n)),
  'EPT accessed and dirty flags are supported': withProfile(NO_EPT_FLAGS, set('eptPointer', 0x40n)),
  'EPT pointer bits 11:7 are zero': broken(set('eptPointer', 0x80n)),
  'the EPT pointer is within the physical-address width': broken(set('eptPointer', BEYOND)),
  'an unrestricted guest has EPT': broken(UNRESTRICTED, clear('secondaryControls', bits(Secondary.EPT))),
  'the TPR threshold is not above the task priority': broken(TPR_SHADOW, is('tprThreshold', 5n)),
  'exit controls are allowed': broken(exit(1 << 31)),
  'a saved preemption timer is active': broken(exit(ExitControl.SAVE_PREEMPTION_TIMER)),
  'entry controls are allowed': broken(entry(1 << 31)),
  'entry to SMM is from SMM': broken(entry(EntryControl.TO_SMM)),
  'deactivation of dual-monitor treatment is from SMM': withProfile(
    profileWith(0x490, bit(32 + 11)),
    entry(EntryControl.DEACTIVATE_DUAL_MONITOR),
  ),
  ...msrArea('the exit MSR-store area', 'exitMsrStoreAddress', 'exitMsrStoreCount'),
  ...msrArea('the exit MSR-load area', 'exitMsrLoadAddress', 'exitMsrLoadCount'),
  ...msrArea('the entry MSR-load area', 'entryMsrLoadAddress', 'entryMsrLoadCount'),
}

function msrArea(what: string, address: FieldName, count: FieldName): Readonly<Record<string, Broken>> {
  return {
    [`${what} is 16-byte aligned`]: broken(is(count, 1n), is(address, 8n)),
    [`${what} is within the physical-address width`]: broken(is(count, 2n), is(address, bit(40) - 16n)),
  }
}

const events: Readonly<Record<string, Broken>> = {
  'the event type is not 1': broken(event(0x100n)),
  'an event of type 7 is a supported monitor trap': broken(event(0x700n)),
  'an NMI has vector 2': broken(event(0x203n)),
  'a hardware exception has a vector up to 31': broken(event(0x320n)),
  'an event of type 7 has vector 0': withProfile(MONITOR_TRAP, event(0x701n)),
  'an exception with an error code delivers it': broken(event(0x30en)),
  'an event without an error code delivers none': broken(event(0xb03n)),
  'reserved bits of the event are zero': broken(event(0x302n | bit(12))),
  'a delivered error code has sixteen bits': broken(event(0xb0dn), is('entryExceptionErrorCode', bit(16))),
  'a software event has an instruction length': broken(event(0x480n)),
  'an injected external interrupt finds IF set': broken(event(0x41n)),
  'the injected event is possible in the activity state': broken(
    is('guestActivity', BigInt(Activity.HLT)),
    event(0x300n),
  ),
  'an injected external interrupt is not blocked by STI': broken(
    IF,
    event(0x41n),
    is('guestInterruptibility', BigInt(Blocking.STI)),
  ),
  'an injected external interrupt is not blocked by MOV SS': broken(
    IF,
    event(0x41n),
    is('guestInterruptibility', BigInt(Blocking.MOV_SS)),
  ),
  'an injected NMI is not blocked by MOV SS': broken(
    event(0x202n),
    is('guestInterruptibility', BigInt(Blocking.MOV_SS)),
  ),
  'an injected virtual NMI is not blocked by NMI': broken(
    pin(Pin.VIRTUAL_NMIS | Pin.NMI),
    event(0x202n),
    is('guestInterruptibility', BigInt(Blocking.NMI)),
  ),
}

const SELECTORS = ['Es', 'Cs', 'Ss', 'Ds', 'Fs', 'Gs', 'Tr'] as const
const HOST_BASES = ['hostFsBase', 'hostGsBase', 'hostTrBase', 'hostGdtrBase', 'hostIdtrBase'] as const

const host: Readonly<Record<string, Broken>> = {
  'host CR0 is allowed': broken(clear('hostCr0', bit(5))),
  'host CR4 is allowed': broken(set('hostCr4', bit(30))),
  'host CR3 is within the physical-address width': broken(is('hostCr3', BEYOND)),
  'host SYSENTER_ESP is canonical': broken(is('hostSysenterEsp', NON_CANONICAL)),
  'host SYSENTER_EIP is canonical': broken(is('hostSysenterEip', NON_CANONICAL)),
  'a loaded host PERF_GLOBAL_CTRL has no reserved bits': broken(
    exit(ExitControl.LOAD_PERF),
    is('hostPerfGlobalCtrl', bit(40)),
  ),
  'a loaded host PAT has known memory types': broken(exit(ExitControl.LOAD_PAT), is('hostPat', bit(57))),
  'a loaded host EFER has no reserved bits': broken(exit(ExitControl.LOAD_EFER), is('hostEfer', 0x502n)),
  'a loaded host EFER agrees with the host address-space size': broken(
    exit(ExitControl.LOAD_EFER),
    is('hostEfer', 0x400n),
  ),
  ...Object.fromEntries(
    SELECTORS.map((name) => [
      `host${name}Selector has RPL 0 and is of the GDT`,
      broken(set(`host${name}Selector`, bit(name === 'Es' ? 2 : 0))),
    ]),
  ),
  'host CS selector is not zero': broken(is('hostCsSelector', 0n)),
  'host TR selector is not zero': broken(is('hostTrSelector', 0n)),
  ...Object.fromEntries(HOST_BASES.map((base) => [`${base} is canonical`, broken(is(base, NON_CANONICAL))])),
  'the host of a processor in IA-32e mode is 64-bit': broken(
    clear('exitControls', bits(ExitControl.HOST_64_BIT)),
  ),
  'a 64-bit host has PAE': broken(clear('hostCr4', bit(5))),
  'host RIP of a 64-bit host is canonical': broken(is('hostRip', NON_CANONICAL)),
}

const guest: Readonly<Record<string, Broken>> = {
  'guest CR0 is allowed': broken(clear('guestCr0', bit(5))),
  'guest paging has protection': broken(UNRESTRICTED, clear('guestCr0', bit(0))),
  'guest CR4 is allowed': broken(clear('guestCr4', bit(13))),
  'a loaded DEBUGCTL has no reserved bits': broken(entry(EntryControl.LOAD_DEBUG), is('guestDebugctl', 4n)),
  'an IA-32e guest has paging': broken(UNRESTRICTED, clear('guestCr0', bit(31))),
  'an IA-32e guest has PAE': broken(clear('guestCr4', bit(5))),
  'a guest outside IA-32e mode has no PCIDs': broken(...GUEST_32, set('guestCr4', bit(17))),
  'guest CR3 is within the physical-address width': broken(is('guestCr3', BEYOND)),
  'a loaded DR7 has 32 bits': broken(entry(EntryControl.LOAD_DEBUG), set('guestDr7', bit(40))),
  'guest SYSENTER_ESP is canonical': broken(is('guestSysenterEsp', NON_CANONICAL)),
  'guest SYSENTER_EIP is canonical': broken(is('guestSysenterEip', NON_CANONICAL)),
  'a loaded guest PERF_GLOBAL_CTRL has no reserved bits': broken(
    entry(EntryControl.LOAD_PERF),
    is('guestPerfGlobalCtrl', bit(12)),
  ),
  'a loaded guest PAT has known memory types': broken(entry(EntryControl.LOAD_PAT), is('guestPat', 3n)),
  'a loaded guest EFER has no reserved bits': broken(
    entry(EntryControl.LOAD_EFER),
    is('guestEfer', 0x500n | bit(32)),
  ),
  'a loaded guest EFER agrees with IA-32e mode': broken(
    entry(EntryControl.LOAD_EFER),
    is('guestEfer', 0x400n),
  ),
  'the base of GDTR is canonical': broken(is('guestGdtrBase', NON_CANONICAL)),
  'the base of IDTR is canonical': broken(is('guestIdtrBase', NON_CANONICAL)),
  'the limit of GDTR has 16 bits': broken(is('guestGdtrLimit', bit(16))),
  'the limit of IDTR has 16 bits': broken(is('guestIdtrLimit', bit(20))),
  'guest RIP outside 64-bit mode has 32 bits': broken(is('guestCsRights', 0xc09bn), is('guestRip', bit(32))),
  'guest RIP bits 63 to 48 are alike': broken(is('guestRip', bit(48))),
  'reserved bits of guest RFLAGS are zero': broken(set('guestRflags', bit(15))),
  'guest RFLAGS bit 1 is one': broken(clear('guestRflags', 2n)),
  'the activity state is supported': broken(is('guestActivity', 4n)),
  'a halted guest has privilege level 0': broken(
    is('guestActivity', BigInt(Activity.HLT)),
    is('guestCsSelector', 0x0bn),
    is('guestSsSelector', 0x13n),
    is('guestCsRights', 0xa0fbn),
    is('guestSsRights', 0xc0f3n),
  ),
  'a processor under STI or MOV SS blocking is active': broken(
    is('guestActivity', BigInt(Activity.HLT)),
    is('guestInterruptibility', BigInt(Blocking.MOV_SS)),
  ),
  'reserved interruptibility bits are zero': broken(is('guestInterruptibility', bit(5))),
  'STI and MOV SS do not block at once': broken(IF, is('guestInterruptibility', 3n)),
  'STI blocking comes with IF set': broken(is('guestInterruptibility', 1n)),
  'SMIs are not blocked outside SMM': broken(is('guestInterruptibility', BigInt(Blocking.SMI))),
  'reserved bits of the pending debug exceptions are zero': broken(is('guestPendingDebug', bit(63))),
  'a single step pends exactly when TF is set': broken(
    set('guestRflags', bits(Flag.TF)),
    is('guestInterruptibility', BigInt(Blocking.MOV_SS)),
  ),
  'the VMCS link pointer is a page': broken(is('vmcsLinkPointer', 8n)),
  'the linked VMCS has our revision, and is a shadow exactly under VMCS shadowing': broken(
    is('vmcsLinkPointer', 0n),
  ),
  ...Object.fromEntries(
    ([0, 1, 2, 3] as const).map((index) => [
      `a present guestPdpte${index} has no reserved bits`,
      broken(...GUEST_32, is(`guestPdpte${index}`, index % 2 === 0 ? 3n : 1n | BEYOND)),
    ]),
  ),
}

const V8086_SEGMENTS = ['Cs', 'Ss', 'Ds', 'Es', 'Fs', 'Gs'] as const

/** A guest in virtual-8086 mode, all six registers as that mode has them. */
const V8086: readonly Edit[] = [
  ...GUEST_32,
  set('guestRflags', bits(Flag.VM)),
  ...V8086_SEGMENTS.flatMap((name): Edit[] => [
    is(`guest${name}Selector`, 0x30n),
    is(`guest${name}Base`, 0x300n),
    is(`guest${name}Limit`, 0xffffn),
    is(`guest${name}Rights`, 0xf3n),
  ]),
]

const segments: Readonly<Record<string, Broken>> = {
  'virtual-8086 mode is outside IA-32e mode and has protection': broken(
    ...V8086,
    set('entryControls', bits(EntryControl.IA32E_GUEST)),
  ),
  ...Object.fromEntries(
    V8086_SEGMENTS.flatMap((name) => [
      [
        `the base of ${name.toUpperCase()} in virtual-8086 mode is its selector times 16`,
        broken(...V8086, is(`guest${name}Base`, 0x310n)),
      ],
      [
        `the limit of ${name.toUpperCase()} in virtual-8086 mode is 0xffff`,
        broken(...V8086, is(`guest${name}Limit`, 0xfffen)),
      ],
      [
        `the rights of ${name.toUpperCase()} in virtual-8086 mode are 0xf3`,
        broken(...V8086, is(`guest${name}Rights`, 0x93n)),
      ],
      [`${name.toUpperCase()} is not a system segment`, broken(clear(`guest${name}Rights`, bit(4)))],
      [`${name.toUpperCase()} is present`, broken(clear(`guest${name}Rights`, bit(7)))],
      [`reserved rights of ${name.toUpperCase()} are zero`, broken(set(`guest${name}Rights`, bit(8)))],
      [
        `the granularity of ${name.toUpperCase()} fits its limit`,
        broken(name === 'Cs' ? clear('guestCsRights', bit(15)) : is(`guest${name}Limit`, 0xfff0_0000n)),
      ],
    ]),
  ),
  'the base of CS has 32 bits': broken(is('guestCsBase', bit(32))),
  'CS is accessed code': broken(is('guestCsRights', 0xa09an)),
  'CS as a data segment has privilege 0': broken(UNRESTRICTED, is('guestCsRights', 0xa0f3n)),
  'non-conforming CS has the privilege of SS': broken(is('guestCsRights', 0xa0fbn)),
  'conforming CS has at most the privilege number of SS': broken(is('guestCsRights', 0xa0ffn)),
  '64-bit CS has no 32-bit default': broken(set('guestCsRights', bit(14))),
  'SS and CS selectors have the same RPL': broken(set('guestCsSelector', 1n)),
  'the base of SS has 32 bits': broken(is('guestSsBase', bit(32))),
  'SS is accessed writable data': broken(is('guestSsRights', 0xc091n)),
  'the privilege of SS is its RPL': broken(is('guestCsRights', 0xa09fn), is('guestSsRights', 0xc0b3n)),
  'SS of a guest without protection, or with a data segment in CS, has privilege 0': broken(
    UNRESTRICTED,
    is('guestCsRights', 0xa093n),
    is('guestSsRights', 0xc0b3n),
  ),
  ...Object.fromEntries(
    (['Ds', 'Es', 'Fs', 'Gs'] as const).flatMap((name) => [
      [`${name.toUpperCase()} is accessed`, broken(is(`guest${name}Rights`, 0xc092n))],
      [`${name.toUpperCase()} as code is readable`, broken(is(`guest${name}Rights`, 0xc099n))],
      [
        `the privilege of ${name.toUpperCase()} is not below its RPL`,
        broken(set(`guest${name}Selector`, 3n)),
      ],
    ]),
  ),
  'the base of DS has 32 bits': broken(is('guestDsBase', bit(32))),
  'the base of ES has 32 bits': broken(is('guestEsBase', bit(33))),
  'the base of FS is canonical': broken(is('guestFsBase', NON_CANONICAL)),
  'the base of GS is canonical': broken(is('guestGsBase', NON_CANONICAL)),
  'TR is usable': broken(set('guestTrRights', bit(16))),
  'TR is a busy TSS of the mode': broken(is('guestTrRights', 0x83n)),
  'TR selector is of the GDT': broken(set('guestTrSelector', bit(2))),
  'the base of TR is canonical': broken(is('guestTrBase', NON_CANONICAL)),
  'LDTR is an LDT': broken(is('guestLdtrRights', 0x8bn)),
  'LDTR selector is of the GDT': broken(is('guestLdtrRights', 0x82n), is('guestLdtrSelector', 0x24n)),
  'the base of LDTR is canonical': broken(is('guestLdtrRights', 0x82n), is('guestLdtrBase', NON_CANONICAL)),
  'TR is a system segment': broken(set('guestTrRights', bit(4))),
  'TR is present': broken(clear('guestTrRights', bit(7))),
  'reserved rights of TR are zero': broken(set('guestTrRights', bit(20))),
  'the granularity of TR fits its limit': broken(set('guestTrRights', bit(15))),
  'LDTR is a system segment': broken(is('guestLdtrRights', 0x92n)),
  'LDTR is present': broken(is('guestLdtrRights', 0x02n)),
  'reserved rights of LDTR are zero': broken(is('guestLdtrRights', 0x182n)),
  'the granularity of LDTR fits its limit': broken(
    is('guestLdtrRights', 0x82n),
    is('guestLdtrLimit', bit(20)),
  ),
}

export const BROKEN: Readonly<Record<string, Broken>> = {
  ...controls,
  ...events,
  ...host,
  ...guest,
  ...segments,
}

export { V8086 as VIRTUAL_8086_GUEST }

/** Makes the changes through VMWRITE. */
export function applyEdits(
  vmx: { vmread(encoding: number): bigint | number; vmwrite(encoding: number, value: bigint): number },
  edits: readonly Edit[],
): void {
  for (const [field, what, clearBits = 0n] of edits) {
    const encoding = Field[field]
    const old = vmx.vmread(encoding)
    const value = typeof what === 'bigint' ? (BigInt(old) | what) & ~clearBits : what.value
    vmx.vmwrite(encoding, value)
  }
}
