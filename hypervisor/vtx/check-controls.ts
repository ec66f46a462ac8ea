import { allows } from './capability.ts'
import type { CheckGroup, EntryCheck, EntryState } from './check-group.ts'
import { EntryControl, ExitControl, Pin, Primary, Secondary } from './control.ts'
import type { FieldName } from './field.ts'

const PAGE = 4096
/** Offset of VTPR in the virtual-APIC page. */
export const VTPR = 0x80

const bitmaps: readonly EntryCheck[] = [
  {
    name: 'I/O bitmap A is a page',
    holds: (s) => !s.primary(Primary.IO_BITMAPS) || s.addresses('ioBitmapA', PAGE),
  },
  {
    name: 'I/O bitmap B is a page',
    holds: (s) => !s.primary(Primary.IO_BITMAPS) || s.addresses('ioBitmapB', PAGE),
  },
  {
    name: 'the MSR bitmap is a page',
    holds: (s) => !s.primary(Primary.MSR_BITMAPS) || s.addresses('msrBitmap', PAGE),
  },
]

const apic: readonly EntryCheck[] = [
  {
    name: 'the virtual-APIC page is a page',
    holds: (s) => !s.primary(Primary.TPR_SHADOW) || s.addresses('virtualApicAddress', PAGE),
  },
  {
    name: 'the TPR threshold has four bits',
    holds: (s) =>
      !s.primary(Primary.TPR_SHADOW) ||
      s.secondary(Secondary.VIRTUAL_INTERRUPTS) ||
      s.low('tprThreshold') <= 15,
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
    holds: (s) => !s.secondary(Secondary.VIRTUAL_INTERRUPTS) || s.has('pinControls', Pin.EXTERNAL_INTERRUPT),
  },
  {
    name: 'the APIC-access page is a page',
    holds: (s) => !s.secondary(Secondary.APIC_ACCESSES) || s.addresses('apicAccessAddress', PAGE),
  },
]

const posted = (s: EntryState): boolean => s.has('pinControls', Pin.POSTED_INTERRUPTS)

const postedInterrupts: readonly EntryCheck[] = [
  {
    name: 'posted interrupts have virtual-interrupt delivery',
    holds: (s) => !posted(s) || s.secondary(Secondary.VIRTUAL_INTERRUPTS),
  },
  {
    name: 'posted interrupts are acknowledged on exit',
    holds: (s) => !posted(s) || s.has('exitControls', ExitControl.ACKNOWLEDGE),
  },
  {
    name: 'the posted-interrupt vector has eight bits',
    holds: (s) => !posted(s) || s.low('postedInterruptVector') <= 0xff,
  },
  {
    name: 'the posted-interrupt descriptor is 64-byte aligned',
    holds: (s) => !posted(s) || s.addresses('postedInterruptDescriptor', 64),
  },
]

const ept = (s: EntryState): boolean => s.secondary(Secondary.EPT)

const translation: readonly EntryCheck[] = [
  { name: 'a VPID is not zero', holds: (s) => !s.secondary(Secondary.VPID) || s.low('vpid') !== 0 },
  {
    name: 'the EPT memory type is uncacheable or write-back',
    holds: (s) => !ept(s) || eptMemoryType(s.low('eptPointer')),
  },
  { name: 'the EPT walk has four levels', holds: (s) => !ept(s) || ((s.low('eptPointer') >> 3) & 7) === 3 },
  {
    name: 'EPT accessed and dirty flags are supported',
    holds: (s) => !ept(s) || s.capability.eptAccessedDirty || (s.low('eptPointer') & 0x40) === 0,
  },
  { name: 'EPT pointer bits 11:7 are zero', holds: (s) => !ept(s) || (s.low('eptPointer') & 0xf80) === 0 },
  {
    name: 'the EPT pointer is within the physical-address width',
    holds: (s) => !ept(s) || s.get('eptPointer') < s.capability.physicalEnd,
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
    'pinControls',
    'primaryControls',
    'secondaryControls',
    'exitControls',
    'cr3TargetCount',
    'ioBitmapA',
    'ioBitmapB',
    'msrBitmap',
    'virtualApicAddress',
    'tprThreshold',
    'apicAccessAddress',
    'postedInterruptVector',
    'postedInterruptDescriptor',
    'vpid',
    'eptPointer',
  ],
  checks: [
    { name: 'pin-based controls are allowed', holds: (s) => allows(s.capability.pin, s.low('pinControls')) },
    {
      name: 'primary controls are allowed',
      holds: (s) => allows(s.capability.primary, s.low('primaryControls')),
    },
    {
      name: 'secondary controls are allowed',
      holds: (s) =>
        !s.primary(Primary.SECONDARY) || allows(s.capability.secondary, s.low('secondaryControls')),
    },
    {
      name: 'CR3 targets are not too many',
      holds: (s) => s.low('cr3TargetCount') <= s.capability.cr3TargetsMax,
    },
    ...bitmaps,
    ...apic,
    {
      name: 'virtual NMIs have NMI exiting',
      holds: (s) => s.has('pinControls', Pin.NMI) || !s.has('pinControls', Pin.VIRTUAL_NMIS),
    },
    {
      name: 'NMI-window exiting has virtual NMIs',
      holds: (s) => s.has('pinControls', Pin.VIRTUAL_NMIS) || !s.primary(Primary.NMI_WINDOW),
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
  reads: ['primaryControls', 'secondaryControls', 'tprThreshold', 'virtualApicAddress'],
  checks: [
    {
      name: 'the TPR threshold is not above the task priority',
      holds: (s) =>
        !s.primary(Primary.TPR_SHADOW) ||
        s.secondary(Secondary.VIRTUAL_INTERRUPTS | Secondary.APIC_ACCESSES) ||
        (s.low('tprThreshold') & 15) <= ((s.memory32(s.get('virtualApicAddress') + VTPR) >> 4) & 15),
    },
  ],
}

/** The two checks of an MSR area: 16-byte aligned, and its last byte exists. */
function msrArea(what: string, address: FieldName, count: FieldName): readonly EntryCheck[] {
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
    'exitControls',
    'pinControls',
    'exitMsrStoreAddress',
    'exitMsrStoreCount',
    'exitMsrLoadAddress',
    'exitMsrLoadCount',
  ],
  checks: [
    { name: 'exit controls are allowed', holds: (s) => allows(s.capability.exit, s.low('exitControls')) },
    {
      name: 'a saved preemption timer is active',
      holds: (s) =>
        s.has('pinControls', Pin.PREEMPTION_TIMER) ||
        !s.has('exitControls', ExitControl.SAVE_PREEMPTION_TIMER),
    },
    ...msrArea('the exit MSR-store area', 'exitMsrStoreAddress', 'exitMsrStoreCount'),
    ...msrArea('the exit MSR-load area', 'exitMsrLoadAddress', 'exitMsrLoadCount'),
  ],
}

export const ENTRY_CONTROLS: CheckGroup = {
  name: 'VM-entry controls',
  sdm: '27.2.1.3',
  failure: 'controls',
  readsMemory: false,
  reads: ['entryControls', 'entryMsrLoadAddress', 'entryMsrLoadCount'],
  checks: [
    { name: 'entry controls are allowed', holds: (s) => allows(s.capability.entry, s.low('entryControls')) },
    {
      name: 'entry to SMM is from SMM',
      holds: (s) => !s.has('entryControls', EntryControl.TO_SMM),
    },
    {
      name: 'deactivation of dual-monitor treatment is from SMM',
      holds: (s) => !s.has('entryControls', EntryControl.DEACTIVATE_DUAL_MONITOR),
    },
    ...msrArea('the entry MSR-load area', 'entryMsrLoadAddress', 'entryMsrLoadCount'),
  ],
}
