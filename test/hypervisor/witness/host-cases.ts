/** Host-state fields that VM entry refuses: VMfail with error 8. */
import type { WitnessCase } from './cases.ts'
import { bit, check, clear, set, write } from './steps.ts'

const REGISTERS = '27.2.2'
const SEGMENTS = '27.2.3'
const ADDRESS_SPACE = '27.2.4'
const NON_CANONICAL = 0x0000800000000000n

export const HOST_CASES: readonly WitnessCase[] = [
  check(REGISTERS, 'host CR0.NE is clear', clear('hostCr0', bit(5))),
  check(REGISTERS, 'host CR0.PG is clear', clear('hostCr0', bit(31))),
  check(REGISTERS, 'host CR4.VMXE is clear', clear('hostCr4', bit(13))),
  check(REGISTERS, 'a reserved bit of host CR4', set('hostCr4', bit(30))),
  check(REGISTERS, 'host CR3 beyond the physical-address width', set('hostCr3', bit(50))),
  check(REGISTERS, 'host SYSENTER_ESP is not canonical', write('hostSysenterEsp', NON_CANONICAL)),
  check(REGISTERS, 'host SYSENTER_EIP is not canonical', write('hostSysenterEip', NON_CANONICAL)),
  check(
    REGISTERS,
    'a loaded host PAT of type 2',
    set('exitControls', bit(19)),
    write('hostPat', 0x0007040600070402n),
  ),
  check(REGISTERS, 'a host PAT of type 2 that is not loaded', write('hostPat', 0x0007040600070402n)),
  check(REGISTERS, 'a loaded host EFER without LMA', set('exitControls', bit(21)), write('hostEfer', 0x100n)),
  check(
    REGISTERS,
    'a loaded host EFER with a reserved bit',
    set('exitControls', bit(21)),
    write('hostEfer', 0x502n),
  ),
  check(SEGMENTS, 'host CS selector is zero', write('hostCsSelector', 0n)),
  check(SEGMENTS, 'host TR selector is zero', write('hostTrSelector', 0n)),
  check(SEGMENTS, 'host SS selector is zero under a 64-bit host', write('hostSsSelector', 0n)),
  check(SEGMENTS, 'host CS selector has an RPL', set('hostCsSelector', bit(0))),
  check(SEGMENTS, 'host DS selector has an RPL', set('hostDsSelector', bit(1))),
  check(SEGMENTS, 'host TR selector is of the LDT', set('hostTrSelector', bit(2))),
  check(SEGMENTS, 'host GS selector is of the LDT', set('hostGsSelector', bit(2))),
  check(SEGMENTS, 'host FS base is not canonical', write('hostFsBase', NON_CANONICAL)),
  check(SEGMENTS, 'host GS base is not canonical', write('hostGsBase', NON_CANONICAL)),
  check(SEGMENTS, 'host TR base is not canonical', write('hostTrBase', NON_CANONICAL)),
  check(SEGMENTS, 'host GDTR base is not canonical', write('hostGdtrBase', NON_CANONICAL)),
  check(SEGMENTS, 'host IDTR base is not canonical', write('hostIdtrBase', NON_CANONICAL)),
  check(ADDRESS_SPACE, 'a 32-bit host for a processor in IA-32e mode', clear('exitControls', bit(9))),
  check(ADDRESS_SPACE, 'a 64-bit host without PAE', clear('hostCr4', bit(5))),
  check(ADDRESS_SPACE, 'host RIP is not canonical', write('hostRip', NON_CANONICAL)),
  check(
    '27.2',
    'bad controls and a bad host state',
    set('pinControls', bit(31)),
    write('hostCsSelector', 0n),
  ),
  check(
    '27.2',
    'a bad host state and a bad guest state',
    write('hostCsSelector', 0n),
    clear('guestRflags', bit(1)),
  ),
]
