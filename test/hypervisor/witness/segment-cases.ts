/** Guest segment and descriptor-table registers that VM entry refuses: exit reason 33. */
import type { WitnessCase } from './cases.ts'
import { bit, check, clear, set, write } from './steps.ts'

const SEGMENTS = '27.3.1.2'
const TABLES = '27.3.1.3'
const NON_CANONICAL = 0x0000800000000000n

const code: readonly WitnessCase[] = [
  check(SEGMENTS, 'CS is data', write('guestCsRights', 0xa093n)),
  check(SEGMENTS, 'CS is code but not accessed', write('guestCsRights', 0xa09an)),
  check(SEGMENTS, 'CS is a system segment', clear('guestCsRights', bit(4))),
  check(SEGMENTS, 'CS is not present', clear('guestCsRights', bit(7))),
  check(SEGMENTS, 'CS is both 64-bit and 32-bit', set('guestCsRights', bit(14))),
  check(SEGMENTS, 'CS rights bit 8 is set', set('guestCsRights', bit(8))),
  check(SEGMENTS, 'CS rights bit 17 is set', set('guestCsRights', bit(17))),
  check(SEGMENTS, 'CS base above 32 bits', write('guestCsBase', bit(32))),
  check(SEGMENTS, 'CS limit has clear low bits under page granularity', write('guestCsLimit', 0xffff0000n)),
  check(SEGMENTS, 'CS limit has high bits under byte granularity', clear('guestCsRights', bit(15))),
  check(SEGMENTS, 'CS privilege differs from SS privilege', write('guestCsRights', 0xa0fbn)),
]

const data: readonly WitnessCase[] = [
  check(SEGMENTS, 'SS selector RPL differs from CS selector RPL', set('guestSsSelector', bit(0))),
  check(SEGMENTS, 'SS privilege differs from its RPL', write('guestSsRights', 0xc0b3n)),
  check(SEGMENTS, 'SS is read-only', write('guestSsRights', 0xc091n)),
  check(SEGMENTS, 'SS is code', write('guestSsRights', 0xc09bn)),
  check(SEGMENTS, 'SS is unusable', write('guestSsRights', bit(16)), write('guestSsSelector', 0n)),
  check(SEGMENTS, 'SS base above 32 bits', write('guestSsBase', bit(32))),
  check(SEGMENTS, 'DS is not accessed', write('guestDsRights', 0xc092n)),
  check(SEGMENTS, 'DS is execute-only code', write('guestDsRights', 0xc099n)),
  check(SEGMENTS, 'DS is readable code', write('guestDsRights', 0xc09bn)),
  check(SEGMENTS, 'DS privilege is below its RPL', set('guestDsSelector', 3n)),
  check(SEGMENTS, 'DS base above 32 bits', write('guestDsBase', bit(32))),
  check(SEGMENTS, 'ES is a system segment', clear('guestEsRights', bit(4))),
  check(SEGMENTS, 'ES is not present', clear('guestEsRights', bit(7))),
  check(
    SEGMENTS,
    'ES is unusable and bad in every way',
    write('guestEsRights', bit(16)),
    write('guestEsLimit', 1n),
  ),
  check(SEGMENTS, 'FS base is not canonical', write('guestFsBase', NON_CANONICAL)),
  check(SEGMENTS, 'GS base is not canonical', write('guestGsBase', NON_CANONICAL)),
]

const system: readonly WitnessCase[] = [
  check(SEGMENTS, 'TR is unusable', set('guestTrRights', bit(16))),
  check(SEGMENTS, 'TR is not busy', write('guestTrRights', 0x89n)),
  check(SEGMENTS, 'TR is a busy 16-bit TSS in IA-32e mode', write('guestTrRights', 0x83n)),
  check(SEGMENTS, 'TR is not a system segment', set('guestTrRights', bit(4))),
  check(SEGMENTS, 'TR is not present', clear('guestTrRights', bit(7))),
  check(SEGMENTS, 'TR selector is of the LDT', set('guestTrSelector', bit(2))),
  check(SEGMENTS, 'TR base is not canonical', write('guestTrBase', NON_CANONICAL)),
  check(SEGMENTS, 'TR limit has high bits under byte granularity', write('guestTrLimit', 0xfff00067n)),
  check(
    SEGMENTS,
    'LDTR is usable and an LDT',
    write('guestLdtrRights', 0x82n),
    write('guestLdtrSelector', 0x20n),
  ),
  check(
    SEGMENTS,
    'LDTR is usable and a TSS',
    write('guestLdtrRights', 0x8bn),
    write('guestLdtrSelector', 0x20n),
  ),
  check(
    SEGMENTS,
    'LDTR is usable and of the LDT',
    write('guestLdtrRights', 0x82n),
    write('guestLdtrSelector', 0x24n),
  ),
  check(
    SEGMENTS,
    'LDTR is usable and its base is not canonical',
    write('guestLdtrRights', 0x82n),
    write('guestLdtrBase', NON_CANONICAL),
  ),
]

const tables: readonly WitnessCase[] = [
  check(TABLES, 'GDTR base is not canonical', write('guestGdtrBase', NON_CANONICAL)),
  check(TABLES, 'IDTR base is not canonical', write('guestIdtrBase', NON_CANONICAL)),
  check(TABLES, 'GDTR limit above 16 bits', write('guestGdtrLimit', 0x10000n)),
  check(TABLES, 'IDTR limit above 16 bits', write('guestIdtrLimit', 0x10fffn)),
]

export const SEGMENT_CASES: readonly WitnessCase[] = [...code, ...data, ...system, ...tables]
