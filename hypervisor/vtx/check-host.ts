import { allows } from './capability.ts'
import {
  type CheckGroup,
  Cr4,
  EFER_BITS,
  Efer,
  type EntryCheck,
  type EntryState,
  isPat,
  PERF_HIGH,
  PERF_LOW,
} from './check-group.ts'
import { EntryControl, ExitControl } from './control.ts'
import type { FieldName } from './field.ts'

const SELECTORS = [
  'hostEsSelector',
  'hostCsSelector',
  'hostSsSelector',
  'hostDsSelector',
  'hostFsSelector',
  'hostGsSelector',
  'hostTrSelector',
] as const satisfies readonly FieldName[]

const BASES = [
  'hostFsBase',
  'hostGsBase',
  'hostTrBase',
  'hostGdtrBase',
  'hostIdtrBase',
] as const satisfies readonly FieldName[]

const host64 = (s: EntryState): boolean => s.has('exitControls', ExitControl.HOST_64_BIT)

const registers: readonly EntryCheck[] = [
  {
    name: 'host CR0 is allowed',
    holds: (s) => allows(s.capability.cr0, s.low('hostCr0')) && s.high('hostCr0') === 0,
  },
  {
    name: 'host CR4 is allowed',
    holds: (s) => allows(s.capability.cr4, s.low('hostCr4')) && s.high('hostCr4') === 0,
  },
  {
    name: 'host CR3 is within the physical-address width',
    holds: (s) => s.get('hostCr3') < s.capability.physicalEnd,
  },
  { name: 'host SYSENTER_ESP is canonical', holds: (s) => s.canonical('hostSysenterEsp') },
  { name: 'host SYSENTER_EIP is canonical', holds: (s) => s.canonical('hostSysenterEip') },
  {
    name: 'a loaded host PERF_GLOBAL_CTRL has no reserved bits',
    holds: (s) =>
      !s.has('exitControls', ExitControl.LOAD_PERF) ||
      ((s.low('hostPerfGlobalCtrl') & ~PERF_LOW) === 0 && (s.high('hostPerfGlobalCtrl') & ~PERF_HIGH) === 0),
  },
  {
    name: 'a loaded host PAT has known memory types',
    holds: (s) => !s.has('exitControls', ExitControl.LOAD_PAT) || isPat(s.low('hostPat'), s.high('hostPat')),
  },
  {
    name: 'a loaded host EFER has no reserved bits',
    holds: (s) =>
      !s.has('exitControls', ExitControl.LOAD_EFER) ||
      ((s.low('hostEfer') & ~EFER_BITS) === 0 && s.high('hostEfer') === 0),
  },
  {
    name: 'a loaded host EFER agrees with the host address-space size',
    holds: (s) => !s.has('exitControls', ExitControl.LOAD_EFER) || eferAgrees(s),
  },
]

function eferAgrees(s: EntryState): boolean {
  const efer = s.low('hostEfer')
  return ((efer & Efer.LMA) !== 0) === host64(s) && ((efer & Efer.LME) !== 0) === host64(s)
}

const segments: readonly EntryCheck[] = [
  ...SELECTORS.map(
    (selector): EntryCheck => ({
      name: `${selector} has RPL 0 and is of the GDT`,
      holds: (s) => (s.low(selector) & 7) === 0,
    }),
  ),
  { name: 'host CS selector is not zero', holds: (s) => s.low('hostCsSelector') !== 0 },
  { name: 'host TR selector is not zero', holds: (s) => s.low('hostTrSelector') !== 0 },
  {
    name: 'host SS selector of a 32-bit host is not zero',
    holds: (s) => host64(s) || s.low('hostSsSelector') !== 0,
  },
  ...BASES.map((base): EntryCheck => ({ name: `${base} is canonical`, holds: (s) => s.canonical(base) })),
]

/** The processor is in IA-32e mode in root operation: 27.2.4 requires a 64-bit host. */
const addressSpace: readonly EntryCheck[] = [
  { name: 'the host of a processor in IA-32e mode is 64-bit', holds: host64 },
  {
    name: 'an IA-32e guest has a 64-bit host',
    holds: (s) => host64(s) || !s.has('entryControls', EntryControl.IA32E_GUEST),
  },
  { name: 'a 64-bit host has PAE', holds: (s) => !host64(s) || s.has('hostCr4', Cr4.PAE) },
  { name: 'a 32-bit host has no PCIDs', holds: (s) => host64(s) || !s.has('hostCr4', Cr4.PCIDE) },
  { name: 'host RIP of a 64-bit host is canonical', holds: (s) => !host64(s) || s.canonical('hostRip') },
  { name: 'host RIP of a 32-bit host has 32 bits', holds: (s) => host64(s) || s.high('hostRip') === 0 },
]

export const HOST_STATE: CheckGroup = {
  name: 'host state',
  sdm: '27.2.2 to 27.2.4',
  failure: 'host',
  readsMemory: false,
  reads: [
    'exitControls',
    'entryControls',
    'hostCr0',
    'hostCr3',
    'hostCr4',
    'hostSysenterEsp',
    'hostSysenterEip',
    'hostPerfGlobalCtrl',
    'hostPat',
    'hostEfer',
    'hostRip',
    ...SELECTORS,
    ...BASES,
  ],
  checks: [...registers, ...segments, ...addressSpace],
}
