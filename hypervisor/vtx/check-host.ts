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
import { ExitControl } from './control.ts'
import { Field, fieldName } from './field.ts'

const SELECTORS = [
  Field.hostEsSelector,
  Field.hostCsSelector,
  Field.hostSsSelector,
  Field.hostDsSelector,
  Field.hostFsSelector,
  Field.hostGsSelector,
  Field.hostTrSelector,
] as const

const BASES = [
  Field.hostFsBase,
  Field.hostGsBase,
  Field.hostTrBase,
  Field.hostGdtrBase,
  Field.hostIdtrBase,
] as const

const host64 = (s: EntryState): boolean => s.has(Field.exitControls, ExitControl.HOST_64_BIT)

const registers: readonly EntryCheck[] = [
  {
    name: 'host CR0 is allowed',
    holds: (s) => allows(s.capability.cr0, s.low(Field.hostCr0)) && s.high(Field.hostCr0) === 0,
  },
  {
    name: 'host CR4 is allowed',
    holds: (s) => allows(s.capability.cr4, s.low(Field.hostCr4)) && s.high(Field.hostCr4) === 0,
  },
  {
    name: 'host CR3 is within the physical-address width',
    holds: (s) => s.get(Field.hostCr3) < s.capability.physicalEnd,
  },
  { name: 'host SYSENTER_ESP is canonical', holds: (s) => s.canonical(Field.hostSysenterEsp) },
  { name: 'host SYSENTER_EIP is canonical', holds: (s) => s.canonical(Field.hostSysenterEip) },
  {
    name: 'a loaded host PERF_GLOBAL_CTRL has no reserved bits',
    holds: (s) =>
      !s.has(Field.exitControls, ExitControl.LOAD_PERF) ||
      ((s.low(Field.hostPerfGlobalCtrl) & ~PERF_LOW) === 0 &&
        (s.high(Field.hostPerfGlobalCtrl) & ~PERF_HIGH) === 0),
  },
  {
    name: 'a loaded host PAT has known memory types',
    holds: (s) =>
      !s.has(Field.exitControls, ExitControl.LOAD_PAT) || isPat(s.low(Field.hostPat), s.high(Field.hostPat)),
  },
  {
    name: 'a loaded host EFER has no reserved bits',
    holds: (s) =>
      !s.has(Field.exitControls, ExitControl.LOAD_EFER) ||
      ((s.low(Field.hostEfer) & ~EFER_BITS) === 0 && s.high(Field.hostEfer) === 0),
  },
  {
    name: 'a loaded host EFER agrees with the host address-space size',
    holds: (s) => !s.has(Field.exitControls, ExitControl.LOAD_EFER) || eferAgrees(s),
  },
]

function eferAgrees(s: EntryState): boolean {
  const efer = s.low(Field.hostEfer)
  return ((efer & Efer.LMA) !== 0) === host64(s) && ((efer & Efer.LME) !== 0) === host64(s)
}

const segments: readonly EntryCheck[] = [
  ...SELECTORS.map(
    (selector): EntryCheck => ({
      name: `${fieldName(selector)} has RPL 0 and is of the GDT`,
      holds: (s) => (s.low(selector) & 7) === 0,
    }),
  ),
  { name: 'host CS selector is not zero', holds: (s) => s.low(Field.hostCsSelector) !== 0 },
  { name: 'host TR selector is not zero', holds: (s) => s.low(Field.hostTrSelector) !== 0 },
  ...BASES.map(
    (base): EntryCheck => ({ name: `${fieldName(base)} is canonical`, holds: (s) => s.canonical(base) }),
  ),
]

/**
 * The processor is in IA-32e mode in root operation, so the first of these refuses every 32-bit host; what
 * 27.2.4 requires of one besides cannot be met.
 */
const addressSpace: readonly EntryCheck[] = [
  { name: 'the host of a processor in IA-32e mode is 64-bit', holds: host64 },
  { name: 'a 64-bit host has PAE', holds: (s) => !host64(s) || s.has(Field.hostCr4, Cr4.PAE) },
  {
    name: 'host RIP of a 64-bit host is canonical',
    holds: (s) => !host64(s) || s.canonical(Field.hostRip),
  },
]

export const HOST_STATE: CheckGroup = {
  name: 'host state',
  sdm: '27.2.2 to 27.2.4',
  failure: 'host',
  readsMemory: false,
  reads: [
    Field.exitControls,
    Field.hostCr0,
    Field.hostCr3,
    Field.hostCr4,
    Field.hostSysenterEsp,
    Field.hostSysenterEip,
    Field.hostPerfGlobalCtrl,
    Field.hostPat,
    Field.hostEfer,
    Field.hostRip,
    ...SELECTORS,
    ...BASES,
  ],
  checks: [...registers, ...segments, ...addressSpace],
}
