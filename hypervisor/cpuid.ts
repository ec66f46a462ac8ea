import type { CpuidAnswer } from '../protocol/processor.ts'

/** What CPUID answers in a guest, by leaf and subleaf. */
export type CpuidTable = (leaf: number, subleaf: number) => CpuidAnswer

const NOTHING: CpuidAnswer = { eax: 0, ebx: 0, ecx: 0, edx: 0 }
const LEAVES_MAX = 0x16
const HYPERVISOR = 0x4000_0000
const FREQUENCIES = 0x4000_0010
/** Family 6, model 60. */
const SIGNATURE = 0x306c3
/** Leaf 1 ECX: TSC deadline, hypervisor present. */
const TSC_DEADLINE = 1 << 24
const HYPERVISOR_PRESENT = 0x8000_0000
/** Leaf 1 EDX: FPU, TSC, MSR, APIC, PAT. */
const FEATURES = (1 << 0) | (1 << 4) | (1 << 5) | (1 << 9) | (1 << 16)
/** The APIC ticks once a nanosecond; the TSC as the machine says. */
const APIC_KHZ = 1_000_000

/** A processor with a local APIC under a hypervisor called Paravane. */
export function defaultCpuid(ticksPerUs: number): CpuidTable {
  const leaves = new Map<number, CpuidAnswer>([
    [0, signed(LEAVES_MAX, 'GenuineIntel', 'bdc')],
    [1, { eax: SIGNATURE, ebx: 0x1_0800, ecx: (TSC_DEADLINE + HYPERVISOR_PRESENT) >>> 0, edx: FEATURES }],
    [HYPERVISOR, signed(FREQUENCIES, 'ParavaneHv\0\0', 'bcd')],
    [FREQUENCIES, { eax: Math.round(ticksPerUs * 1000), ebx: APIC_KHZ, ecx: 0, edx: 0 }],
    [0x8000_0000, { eax: 0x8000_0001, ebx: 0, ecx: 0, edx: 0 }],
    // Long mode.
    [0x8000_0001, { eax: 0, ebx: 0, ecx: 0, edx: 1 << 29 }],
  ])
  return (leaf) => leaves.get(leaf) ?? NOTHING
}

/** A twelve-letter name in the registers `order` says. */
function signed(eax: number, name: string, order: 'bdc' | 'bcd'): CpuidAnswer {
  const word = (at: number): number =>
    [0, 1, 2, 3].reduce((sum, byte) => sum + name.charCodeAt(at + byte) * 2 ** (8 * byte), 0)
  const [second, third] = [word(4), word(8)]
  return order === 'bdc'
    ? { eax, ebx: word(0), edx: second, ecx: third }
    : { eax, ebx: word(0), ecx: second, edx: third }
}
