import { allows } from './capability.ts'
import type { CheckGroup, EntryCheck, EntryState } from './check-group.ts'
import { EntryControl, ExitControl, Pin, Primary, Secondary } from './control.ts'
import { Field } from './field.ts'

const PAGE = 4096
/** Offset of VTPR in the virtual-APIC page. */
export const VTPR = 0x80

const bitmaps: readonly EntryCheck[] = [
  {
    name: 'I/O bitmap A is a page',
    holds: (s) => !s.primary(Primary.IO_BITMAPS) || s.addresses(Field.ioBitmapA, PAGE),
  },
  {
    name: 'I/O bitmap B is a page',
    holds: (s) => !s.primary(Primary.IO_BITMAPS) || s.addresses(Field.ioBitmapB, PAGE),
  },
  {
    name: 'the MSR bitmap is a page',
    holds: (s) => !s.primary(Primary.MSR_BITMAPS) || s.addresses(Field.msrBitmap, PAGE),
  },
]

const apic: readonly EntryCheck[] = [
  {
    name: 'the virtual-APIC page is a page',
    holds: (s) => !s.primary(Primary.TPR_SHADOW) || s.addresses(Field.virtualApicAddress, PAGE),
  },
  {
    name: 'the TPR threshold has four bits',
    holds: (s) =>
      !s.primary(Primary.TPR_SHADOW) ||
      s.secondary(Secondary.VIRTUAL_INTERRUPTS) ||
      s.low(Field.tprThreshold) <= 15,
  },
  {
    name: 'x2APIC mode has a TPR shadow',
    holds: (s) => s.primary(Primary.TPR_SHADOW) || !s.secondary(Secondary.X2APIC),
  },
  {
    name: 'APIC-register virtualization has a TPR shadow',
    holds: (s) => s.primary(Primary.TPR_SHADOW) || !s.secondary(Secondary.APIC_REGISTERS),
  },
  {
    name: 'virtual-interrupt delivery has a TPR shadow',
    holds: (s) => s.primary(Primary.TPR_SHADOW) || !s.secondary(Secondary.VIRTUAL_INTERRUPTS),
  },
  {
    name: 'x2APIC mode excludes APIC accesses',
    holds: (s) => !s.secondary(Secondary.X2APIC) || !s.secondary(Secondary.APIC_ACCESSES),
  },
  {
    name: 'virtual-interrupt delivery has external-interrupt exiting',
    holds: (s) =>
      !s.secondary(Secondary.VIRTUAL_INTERRUPTS) || s.has(Field.pinControls, Pin.EXTERNAL_INTERRUPT),
  },
  {
    name: 'the APIC-access page is a page',
    holds: (s) => !s.secondary(Secondary.APIC_ACCESSES) || s.addresses(Field.apicAccessAddress, PAGE),
  },
]

const posted = (s: EntryState): boolean => s.has(Field.pinControls, Pin.POSTED_INTERRUPTS)

const postedInterrupts: readonly EntryCheck[] = [
  {
    name: 'posted interrupts have virtual-interrupt delivery',
    holds: (s) => !posted(s) || s.secondary(Secondary.VIRTUAL_INTERRUPTS),
  },
  {
    name: 'posted interrupts are acknowledged on exit',
    holds: (s) => !posted(s) || s.has(Field.exitControls, ExitControl.ACKNOWLEDGE),
  },
  {
    name: 'the posted-interrupt vector has eight bits',
    holds: (s) => !posted(s) || s.low(Field.postedInterruptVector) <= 0xff,
  },
  {
    name: 'the posted-interrupt descriptor is 64-byte aligned',
    holds: (s) => !posted(s) || s.addresses(Field.postedInterruptDescriptor, 64),
  },
]

const ept = (s: EntryState): boolean => s.secondary(Secondary.EPT)

const translation: readonly EntryCheck[] = [
  { name: 'a VPID is not zero', holds: (s) => !s.secondary(Secondary.VPID) || s.low(Field.vpid) !== 0 },
  {
    name: 'the EPT memory type is uncacheable or write-back',
    holds: (s) => !ept(s) || eptMemoryType(s.low(Field.eptPointer)),
  },
  {
    name: 'the EPT walk has four levels',
    holds: (s) => !ept(s) || ((s.low(Field.eptPointer) >> 3) & 7) === 3,
  },
  {
    name: 'EPT accessed and dirty flags are supported',
    holds: (s) => !ept(s) || s.capability.eptAccessedDirty || (s.low(Field.eptPointer) & 0x40) === 0,
  },
  {
    name: 'EPT pointer bits 11:7 are zero',
    holds: (s) => !ept(s) || (s.low(Field.eptPointer) & 0xf80) === 0,
  },
  {
    name: 'the EPT pointer is within the physical-address width',
    holds: (s) => !ept(s) || s.get(Field.eptPointer) < s.capability.physicalEnd,
  },
  {
    name: 'an unrestricted guest has EPT',
    holds: (s) => ept(s) || !s.secondary(Secondary.UNRESTRICTED_GUEST),
  },
]

export function eptMemoryType(pointer: number): boolean {
  return (pointer & 7) === 0 || (pointer & 7) === 6
}

export const EXECUTION_CONTROLS: CheckGroup = {
  name: 'VM-execution controls',
  sdm: '27.2.1.1',
  failure: 'controls',
  readsMemory: false,
  reads: [
    Field.pinControls,
    Field.primaryControls,
    Field.secondaryControls,
    Field.exitControls,
    Field.cr3TargetCount,
    Field.ioBitmapA,
    Field.ioBitmapB,
    Field.msrBitmap,
    Field.virtualApicAddress,
    Field.tprThreshold,
    Field.apicAccessAddress,
    Field.postedInterruptVector,
    Field.postedInterruptDescriptor,
    Field.vpid,
    Field.eptPointer,
  ],
  checks: [
    {
      name: 'pin-based controls are allowed',
      holds: (s) => allows(s.capability.pin, s.low(Field.pinControls)),
    },
    {
      name: 'primary controls are allowed',
      holds: (s) => allows(s.capability.primary, s.low(Field.primaryControls)),
    },
    {
      name: 'secondary controls are allowed',
      holds: (s) =>
        !s.primary(Primary.SECONDARY) || allows(s.capability.secondary, s.low(Field.secondaryControls)),
    },
    {
      name: 'CR3 targets are not too many',
      holds: (s) => s.low(Field.cr3TargetCount) <= s.capability.cr3TargetsMax,
    },
    ...bitmaps,
    ...apic,
    {
      name: 'virtual NMIs have NMI exiting',
      holds: (s) => s.has(Field.pinControls, Pin.NMI) || !s.has(Field.pinControls, Pin.VIRTUAL_NMIS),
    },
    {
      name: 'NMI-window exiting has virtual NMIs',
      holds: (s) => s.has(Field.pinControls, Pin.VIRTUAL_NMIS) || !s.primary(Primary.NMI_WINDOW),
    },
    ...postedInterrupts,
    ...translation,
  ],
}

/** VTPR lies in memory that the guest writes, so this cannot be remembered. */
export const TPR_THRESHOLD: CheckGroup = {
  name: 'TPR threshold',
  sdm: '27.2.1.1',
  failure: 'controls',
  readsMemory: true,
  reads: [Field.primaryControls, Field.secondaryControls, Field.tprThreshold, Field.virtualApicAddress],
  checks: [
    {
      name: 'the TPR threshold is not above the task priority',
      holds: (s) =>
        !s.primary(Primary.TPR_SHADOW) ||
        s.secondary(Secondary.VIRTUAL_INTERRUPTS | Secondary.APIC_ACCESSES) ||
        (s.low(Field.tprThreshold) & 15) <= ((s.memory32(s.get(Field.virtualApicAddress) + VTPR) >> 4) & 15),
    },
  ],
}

/** The two checks of an MSR area: 16-byte aligned, and its last byte exists. */
function msrArea(what: string, address: number, count: number): readonly EntryCheck[] {
  return [
    {
      name: `${what} is 16-byte aligned`,
      holds: (s) => s.low(count) === 0 || s.low(address) % 16 === 0,
    },
    {
      name: `${what} is within the physical-address width`,
      holds: (s) => s.low(count) === 0 || s.get(address) + s.low(count) * 16 <= s.capability.physicalEnd,
    },
  ]
}

export const EXIT_CONTROLS: CheckGroup = {
  name: 'VM-exit controls',
  sdm: '27.2.1.2',
  failure: 'controls',
  readsMemory: false,
  reads: [
    Field.exitControls,
    Field.pinControls,
    Field.exitMsrStoreAddress,
    Field.exitMsrStoreCount,
    Field.exitMsrLoadAddress,
    Field.exitMsrLoadCount,
  ],
  checks: [
    { name: 'exit controls are allowed', holds: (s) => allows(s.capability.exit, s.low(Field.exitControls)) },
    {
      name: 'a saved preemption timer is active',
      holds: (s) =>
        s.has(Field.pinControls, Pin.PREEMPTION_TIMER) ||
        !s.has(Field.exitControls, ExitControl.SAVE_PREEMPTION_TIMER),
    },
    ...msrArea('the exit MSR-store area', Field.exitMsrStoreAddress, Field.exitMsrStoreCount),
    ...msrArea('the exit MSR-load area', Field.exitMsrLoadAddress, Field.exitMsrLoadCount),
  ],
}

export const ENTRY_CONTROLS: CheckGroup = {
  name: 'VM-entry controls',
  sdm: '27.2.1.3',
  failure: 'controls',
  readsMemory: false,
  reads: [Field.entryControls, Field.entryMsrLoadAddress, Field.entryMsrLoadCount],
  checks: [
    {
      name: 'entry controls are allowed',
      holds: (s) => allows(s.capability.entry, s.low(Field.entryControls)),
    },
    {
      name: 'entry to SMM is from SMM',
      holds: (s) => !s.has(Field.entryControls, EntryControl.TO_SMM),
    },
    {
      name: 'deactivation of dual-monitor treatment is from SMM',
      holds: (s) => !s.has(Field.entryControls, EntryControl.DEACTIVATE_DUAL_MONITOR),
    },
    ...msrArea('the entry MSR-load area', Field.entryMsrLoadAddress, Field.entryMsrLoadCount),
  ],
}
