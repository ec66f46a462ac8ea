import { type CheckGroup, Cr0, type EntryCheck, type EntryState } from './check-group.ts'
import { EntryControl, Flag, Secondary } from './control.ts'
import { Field } from './field.ts'

type SegmentName = 'Es' | 'Cs' | 'Ss' | 'Ds' | 'Fs' | 'Gs' | 'Ldtr' | 'Tr'

interface Segment {
  readonly name: string
  readonly selector: number
  readonly base: number
  readonly limit: number
  readonly rights: number
}

const segment = (name: SegmentName): Segment => ({
  name: name.toUpperCase(),
  selector: Field[`guest${name}Selector`],
  base: Field[`guest${name}Base`],
  limit: Field[`guest${name}Limit`],
  rights: Field[`guest${name}Rights`],
})

const ES = segment('Es')
const CS = segment('Cs')
const SS = segment('Ss')
const DS = segment('Ds')
const FS = segment('Fs')
const GS = segment('Gs')
const LDTR = segment('Ldtr')
const TR = segment('Tr')
const CODE_AND_DATA = [CS, SS, DS, ES, FS, GS]
const DATA = [DS, ES, FS, GS]

/** Access rights (SDM vol. 3, 25.4.1): type 3:0, S 4, DPL 6:5, P 7, L 13, D/B 14, G 15, unusable 16. */
const S = 1 << 4
const P = 1 << 7
const L = 1 << 13
const DB = 1 << 14
const G = 1 << 15
const UNUSABLE = 1 << 16
/** Bits 31:17 and 11:8. */
const RESERVED = 0xfffe_0f00
const V8086_RIGHTS = 0xf3

const usable = (s: EntryState, { rights }: Segment): boolean => !s.has(rights, UNUSABLE)
const type = (s: EntryState, { rights }: Segment): number => s.low(rights) & 15
const dpl = (s: EntryState, { rights }: Segment): number => (s.low(rights) >> 5) & 3
const rpl = (s: EntryState, { selector }: Segment): number => s.low(selector) & 3
const ia32e = (s: EntryState): boolean => s.has(Field.entryControls, EntryControl.IA32E_GUEST)
const unrestricted = (s: EntryState): boolean => s.secondary(Secondary.UNRESTRICTED_GUEST)
const v8086 = (s: EntryState): boolean => s.has(Field.guestRflags, Flag.VM)

/** Outside virtual-8086 mode, a code or data register that is in use; CS always is. */
const judged = (s: EntryState, one: Segment): boolean => !v8086(s) && (one === CS || usable(s, one))

/** With any of limit bits 11:0 zero, G is 0; with any of bits 31:20 one, G is 1. */
function granularityHolds(s: EntryState, { limit, rights }: Segment): boolean {
  const value = s.low(limit)
  return s.has(rights, G) ? (value & 0xfff) === 0xfff : value >>> 20 === 0
}

const virtual8086: readonly EntryCheck[] = CODE_AND_DATA.flatMap((one): EntryCheck[] => [
  {
    name: `the base of ${one.name} in virtual-8086 mode is its selector times 16`,
    holds: (s) => !v8086(s) || s.get(one.base) === s.low(one.selector) * 16,
  },
  {
    name: `the limit of ${one.name} in virtual-8086 mode is 0xffff`,
    holds: (s) => !v8086(s) || s.low(one.limit) === 0xffff,
  },
  {
    name: `the rights of ${one.name} in virtual-8086 mode are 0xf3`,
    holds: (s) => !v8086(s) || s.low(one.rights) === V8086_RIGHTS,
  },
])

/** What holds for every code and data register that is in use. */
const common: readonly EntryCheck[] = CODE_AND_DATA.flatMap((one): EntryCheck[] => [
  { name: `${one.name} is not a system segment`, holds: (s) => !judged(s, one) || s.has(one.rights, S) },
  { name: `${one.name} is present`, holds: (s) => !judged(s, one) || s.has(one.rights, P) },
  {
    name: `reserved rights of ${one.name} are zero`,
    holds: (s) => !judged(s, one) || (s.low(one.rights) & RESERVED) === 0,
  },
  {
    name: `the granularity of ${one.name} fits its limit`,
    holds: (s) => !judged(s, one) || granularityHolds(s, one),
  },
])

const code: readonly EntryCheck[] = [
  { name: 'the base of CS has 32 bits', holds: (s) => s.high(CS.base) === 0 },
  {
    name: 'CS is accessed code',
    holds: (s) => !judged(s, CS) || (type(s, CS) & 9) === 9 || (unrestricted(s) && type(s, CS) === 3),
  },
  {
    name: 'CS as a data segment has privilege 0',
    holds: (s) => !judged(s, CS) || type(s, CS) !== 3 || dpl(s, CS) === 0,
  },
  {
    name: 'non-conforming CS has the privilege of SS',
    holds: (s) => !judged(s, CS) || (type(s, CS) & 12) !== 8 || dpl(s, CS) === dpl(s, SS),
  },
  {
    name: 'conforming CS has at most the privilege number of SS',
    holds: (s) => !judged(s, CS) || (type(s, CS) & 12) !== 12 || dpl(s, CS) <= dpl(s, SS),
  },
  {
    name: '64-bit CS has no 32-bit default',
    holds: (s) => !judged(s, CS) || !ia32e(s) || !s.has(CS.rights, L) || !s.has(CS.rights, DB),
  },
]

const stack: readonly EntryCheck[] = [
  {
    name: 'SS and CS selectors have the same RPL',
    holds: (s) => v8086(s) || unrestricted(s) || rpl(s, SS) === rpl(s, CS),
  },
  { name: 'the base of SS has 32 bits', holds: (s) => !usable(s, SS) || s.high(SS.base) === 0 },
  {
    name: 'SS is accessed writable data',
    holds: (s) => !judged(s, SS) || type(s, SS) === 3 || type(s, SS) === 7,
  },
  {
    name: 'the privilege of SS is its RPL',
    holds: (s) => v8086(s) || unrestricted(s) || dpl(s, SS) === rpl(s, SS),
  },
  {
    name: 'SS of a guest without protection, or with a data segment in CS, has privilege 0',
    holds: (s) => v8086(s) || (type(s, CS) !== 3 && s.has(Field.guestCr0, Cr0.PE)) || dpl(s, SS) === 0,
  },
]

const data: readonly EntryCheck[] = DATA.flatMap((one): EntryCheck[] => [
  { name: `${one.name} is accessed`, holds: (s) => !judged(s, one) || (type(s, one) & 1) === 1 },
  {
    name: `${one.name} as code is readable`,
    holds: (s) => !judged(s, one) || (type(s, one) & 8) === 0 || (type(s, one) & 2) !== 0,
  },
  {
    name: `the privilege of ${one.name} is not below its RPL`,
    holds: (s) => !judged(s, one) || unrestricted(s) || type(s, one) > 11 || dpl(s, one) >= rpl(s, one),
  },
])

const bases: readonly EntryCheck[] = [
  ...[DS, ES].map(
    (one): EntryCheck => ({
      name: `the base of ${one.name} has 32 bits`,
      holds: (s) => !usable(s, one) || s.high(one.base) === 0,
    }),
  ),
  ...[FS, GS].map(
    (one): EntryCheck => ({
      name: `the base of ${one.name} is canonical`,
      holds: (s) => s.canonical(one.base),
    }),
  ),
]

const GDT_ONLY = 1 << 2

const system: readonly EntryCheck[] = [
  { name: 'TR is usable', holds: (s) => usable(s, TR) },
  {
    name: 'TR is a busy TSS of the mode',
    holds: (s) => type(s, TR) === 11 || (!ia32e(s) && type(s, TR) === 3),
  },
  { name: 'TR selector is of the GDT', holds: (s) => !s.has(TR.selector, GDT_ONLY) },
  { name: 'the base of TR is canonical', holds: (s) => s.canonical(TR.base) },
  { name: 'LDTR is an LDT', holds: (s) => !usable(s, LDTR) || type(s, LDTR) === 2 },
  { name: 'LDTR selector is of the GDT', holds: (s) => !usable(s, LDTR) || !s.has(LDTR.selector, GDT_ONLY) },
  { name: 'the base of LDTR is canonical', holds: (s) => !usable(s, LDTR) || s.canonical(LDTR.base) },
  ...[TR, LDTR].flatMap((one): EntryCheck[] => [
    { name: `${one.name} is a system segment`, holds: (s) => !usableOrTr(s, one) || !s.has(one.rights, S) },
    { name: `${one.name} is present`, holds: (s) => !usableOrTr(s, one) || s.has(one.rights, P) },
    {
      name: `reserved rights of ${one.name} are zero`,
      holds: (s) => !usableOrTr(s, one) || (s.low(one.rights) & RESERVED) === 0,
    },
    {
      name: `the granularity of ${one.name} fits its limit`,
      holds: (s) => !usableOrTr(s, one) || granularityHolds(s, one),
    },
  ]),
]

const usableOrTr = (s: EntryState, one: Segment): boolean => one === TR || usable(s, one)

export const GUEST_SEGMENTS: CheckGroup = {
  name: 'guest segment registers',
  sdm: '27.3.1.2',
  failure: 'guest',
  readsMemory: false,
  reads: [
    Field.entryControls,
    Field.primaryControls,
    Field.secondaryControls,
    Field.guestRflags,
    Field.guestCr0,
    ...[...CODE_AND_DATA, LDTR, TR].flatMap((one) => [one.selector, one.base, one.limit, one.rights]),
  ],
  checks: [...virtual8086, ...common, ...code, ...stack, ...data, ...bases, ...system],
}

export const DESCRIPTOR_TABLES: CheckGroup = {
  name: 'guest descriptor-table registers',
  sdm: '27.3.1.3',
  failure: 'guest',
  readsMemory: false,
  reads: [Field.guestGdtrBase, Field.guestGdtrLimit, Field.guestIdtrBase, Field.guestIdtrLimit],
  checks: [
    { name: 'the base of GDTR is canonical', holds: (s) => s.canonical(Field.guestGdtrBase) },
    { name: 'the base of IDTR is canonical', holds: (s) => s.canonical(Field.guestIdtrBase) },
    { name: 'the limit of GDTR has 16 bits', holds: (s) => s.low(Field.guestGdtrLimit) <= 0xffff },
    { name: 'the limit of IDTR has 16 bits', holds: (s) => s.low(Field.guestIdtrLimit) <= 0xffff },
  ],
}
