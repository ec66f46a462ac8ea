/** Guest-state fields that VM entry refuses: exit reason 33 with bit 31. Segments have a file of their own. */
import type { Change, WitnessCase } from './cases.ts'
import { MEMORY } from './defaults.ts'
import { bit, check, clear, set, write } from './steps.ts'

const REGISTERS = '27.3.1.1'
const FLAGS = '27.3.1.4'
const OTHER = '27.3.1.5'
const PDPTES = '27.3.1.6'
const NON_CANONICAL = 0x0000800000000000n
const UNRESTRICTED = set('secondaryControls', bit(7))

const registers: readonly WitnessCase[] = [
  check(REGISTERS, 'guest CR0.NE is clear', clear('guestCr0', bit(5))),
  check(REGISTERS, 'guest CR0.PE is clear', clear('guestCr0', bit(0))),
  check(REGISTERS, 'guest CR0.PG is clear', clear('guestCr0', bit(31))),
  check(
    REGISTERS,
    'an unrestricted guest with paging but no protection',
    UNRESTRICTED,
    clear('guestCr0', bit(0)),
  ),
  check(REGISTERS, 'an unrestricted IA-32e guest without paging', UNRESTRICTED, clear('guestCr0', bit(31))),
  check(REGISTERS, 'guest CR4.VMXE is clear', clear('guestCr4', bit(13))),
  check(REGISTERS, 'a reserved bit of guest CR4', set('guestCr4', bit(30))),
  check(REGISTERS, 'an IA-32e guest without PAE', clear('guestCr4', bit(5))),
  check(REGISTERS, 'guest CR3 beyond the physical-address width', set('guestCr3', bit(50))),
  check(
    REGISTERS,
    'a loaded DEBUGCTL with a reserved bit',
    set('entryControls', bit(2)),
    write('guestDebugctl', bit(2)),
  ),
  check(REGISTERS, 'a DEBUGCTL with a reserved bit that is not loaded', write('guestDebugctl', bit(2))),
  check(REGISTERS, 'a loaded DR7 above 32 bits', set('entryControls', bit(2)), set('guestDr7', bit(32))),
  check(REGISTERS, 'guest SYSENTER_ESP is not canonical', write('guestSysenterEsp', NON_CANONICAL)),
  check(REGISTERS, 'guest SYSENTER_EIP is not canonical', write('guestSysenterEip', NON_CANONICAL)),
  check(
    REGISTERS,
    'a loaded guest PAT of type 3',
    set('entryControls', bit(14)),
    write('guestPat', 0x0007040600070403n),
  ),
  check(REGISTERS, 'a loaded guest EFER', set('entryControls', bit(15)), write('guestEfer', 0x500n)),
  check(
    REGISTERS,
    'a loaded guest EFER without LMA',
    set('entryControls', bit(15)),
    write('guestEfer', 0x100n),
  ),
  check(
    REGISTERS,
    'a loaded guest EFER without LME',
    set('entryControls', bit(15)),
    write('guestEfer', 0x400n),
  ),
  check(
    REGISTERS,
    'a loaded guest EFER with a reserved bit',
    set('entryControls', bit(15)),
    write('guestEfer', 0x502n),
  ),
]

const flags: readonly WitnessCase[] = [
  check(FLAGS, 'guest RFLAGS bit 1 is clear', clear('guestRflags', bit(1))),
  check(FLAGS, 'guest RFLAGS bit 3 is set', set('guestRflags', bit(3))),
  check(FLAGS, 'guest RFLAGS bit 15 is set', set('guestRflags', bit(15))),
  check(FLAGS, 'guest RFLAGS bit 22 is set', set('guestRflags', bit(22))),
  check(FLAGS, 'virtual-8086 mode in an IA-32e guest', set('guestRflags', bit(17))),
  check(
    FLAGS,
    'guest RIP above 32 bits outside 64-bit mode',
    write('guestCsRights', 0xc09bn),
    set('guestRip', bit(32)),
  ),
  check(FLAGS, 'guest RIP whose bits 63 to 48 differ', write('guestRip', bit(48))),
  check(FLAGS, 'guest RIP is not canonical, bits 63 to 48 alike', write('guestRip', NON_CANONICAL)),
]

const interruptibility = (bits: bigint, ...more: Change[]): Change[] => [
  write('guestInterruptibility', bits),
  ...more,
]

const IF = set('guestRflags', bit(9))

const other: readonly WitnessCase[] = [
  check(OTHER, 'activity state 4', write('guestActivity', 4n)),
  check(OTHER, 'activity state 5', write('guestActivity', 5n)),
  check(OTHER, 'HLT state with STI blocking', write('guestActivity', 1n), ...interruptibility(bit(0), IF)),
  check(OTHER, 'HLT state with MOV SS blocking', write('guestActivity', 1n), ...interruptibility(bit(1))),
  check(
    OTHER,
    'HLT state at a privilege level other than 0',
    write('guestActivity', 1n),
    write('guestCsSelector', 0x0bn),
    write('guestSsSelector', 0x13n),
    write('guestCsRights', 0xa0fbn),
    write('guestSsRights', 0xc0f3n),
  ),
  check(OTHER, 'a reserved interruptibility bit', ...interruptibility(bit(5))),
  check(OTHER, 'STI and MOV SS blocking at once', ...interruptibility(bit(0, 1), IF)),
  check(OTHER, 'STI blocking while IF is clear', ...interruptibility(bit(0))),
  check(OTHER, 'STI blocking while IF is set', ...interruptibility(bit(0), IF)),
  check(OTHER, 'MOV SS blocking while IF is clear', ...interruptibility(bit(1))),
  check(OTHER, 'SMI blocking outside SMM', ...interruptibility(bit(2))),
  check(OTHER, 'NMI blocking', ...interruptibility(bit(3))),
  check(OTHER, 'a reserved bit of the pending debug exceptions', write('guestPendingDebug', bit(4))),
  check(OTHER, 'bit 63 of the pending debug exceptions', write('guestPendingDebug', bit(63))),
  check(
    OTHER,
    'MOV SS blocking with TF but no pending single step',
    ...interruptibility(bit(1), set('guestRflags', bit(8))),
  ),
  check(
    OTHER,
    'MOV SS blocking without TF but a pending single step',
    ...interruptibility(bit(1), write('guestPendingDebug', bit(14))),
  ),
]

const LINK = BigInt(MEMORY.linkVmcs)

const link: readonly WitnessCase[] = [
  check(OTHER, 'a link pointer that is not page-aligned', write('vmcsLinkPointer', LINK + 0x10n)),
  check(OTHER, 'a link pointer beyond the physical-address width', write('vmcsLinkPointer', LINK + bit(50))),
  check(OTHER, 'a link pointer to a region of another revision', write('vmcsLinkPointer', LINK), {
    kind: 'linkVmcs',
    revision: 0x7bn,
  }),
  check(OTHER, 'a link pointer to a shadow VMCS while shadowing is off', write('vmcsLinkPointer', LINK), {
    kind: 'linkVmcs',
    revision: 0x2bn + bit(31),
  }),
  check(OTHER, 'a link pointer to a VMCS of our revision', write('vmcsLinkPointer', LINK)),
  check(OTHER, 'a link pointer of zero', write('vmcsLinkPointer', 0n), { kind: 'linkVmcs', revision: 0n }),
]

/** A 32-bit guest with PAE paging, whose four PDPTEs are VMCS fields because EPT is on. */
const PAE_GUEST: readonly Change[] = [
  clear('entryControls', bit(9)),
  write('guestCsRights', 0xc09bn),
  write('guestPdpte0', 0x6001n),
  { kind: 'guestMemory', address: 0x6000, value: 0xe3n },
]

const pdptes: readonly WitnessCase[] = [
  check(PDPTES, 'a 32-bit guest with PAE paging', ...PAE_GUEST),
  check(PDPTES, 'a present PDPTE with reserved bit 1', ...PAE_GUEST, set('guestPdpte0', bit(1))),
  check(PDPTES, 'a present PDPTE with reserved bit 8', ...PAE_GUEST, write('guestPdpte3', 0x6101n)),
  check(
    PDPTES,
    'a present PDPTE beyond the physical-address width',
    ...PAE_GUEST,
    set('guestPdpte0', bit(50)),
  ),
  check(PDPTES, 'reserved bits in a PDPTE that is not present', ...PAE_GUEST, write('guestPdpte2', 0x106n)),
  check(PDPTES, 'bad PDPTEs of a guest in IA-32e mode', write('guestPdpte0', 0x6103n)),
]

export const GUEST_CASES: readonly WitnessCase[] = [...registers, ...flags, ...other, ...link, ...pdptes]
