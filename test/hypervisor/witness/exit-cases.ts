/** Exits that instructions cause, with their qualifications, and the preemption timer. SDM 26.1, 26.5, 28.2.1. */
import type { Change, WitnessCase } from './cases.ts'
import { GUEST } from './defaults.ts'
import { bit, clear, once, set, several, write } from './steps.ts'

const UNCONDITIONAL_IO = set('primaryControls', bit(24))
const IO_BITMAPS = set('primaryControls', bit(25))
const MSR_BITMAPS = set('primaryControls', bit(28))
const PORTS = '26.1.3'
const MSRS = '26.1.3'
const TIMER = '26.5.1'
const TASK_PRIORITY = '26.1.3'

const bitmap = (port: number, count = 1): Change => ({ kind: 'ioBitmap', port, count })
const msr = (access: 'read' | 'write', index: number): Change => ({ kind: 'msrBitmap', access, msr: index })

const ports: readonly WitnessCase[] = [
  once(PORTS, 'IN from DX', 'in-al-dx', [UNCONDITIONAL_IO], { rdx: 0x3f8n }),
  once(PORTS, 'IN of a word from DX', 'in-ax-dx', [UNCONDITIONAL_IO], { rdx: 0x3f8n }),
  once(PORTS, 'IN of 32 bits from DX', 'in-eax-dx', [UNCONDITIONAL_IO], { rdx: 0x3f8n }),
  once(PORTS, 'OUT of a word to DX', 'out-dx-ax', [UNCONDITIONAL_IO], { rdx: 0x3f8n }),
  once(PORTS, 'OUT of 32 bits to DX', 'out-dx-eax', [UNCONDITIONAL_IO], { rdx: 0xcfcn }),
  once(PORTS, 'IN from an immediate port', 'in-al-imm', [UNCONDITIONAL_IO]),
  once(PORTS, 'IN of 32 bits from an immediate port', 'in-eax-imm', [UNCONDITIONAL_IO]),
  once(PORTS, 'OUT to an immediate port', 'out-imm-al', [UNCONDITIONAL_IO]),
  once(PORTS, 'OUT of a word to an immediate port', 'out-imm-ax', [UNCONDITIONAL_IO]),
  once(PORTS, 'I/O bitmaps take the place of unconditional exiting', 'out-imm-al', [
    UNCONDITIONAL_IO,
    IO_BITMAPS,
  ]),
  once(PORTS, 'a port whose bit is set in bitmap A', 'out-dx-al', [IO_BITMAPS, bitmap(0x3f8)], {
    rdx: 0x3f8n,
  }),
  once(PORTS, 'a port whose bit is set in bitmap B', 'out-dx-al', [IO_BITMAPS, bitmap(0xc000)], {
    rdx: 0xc000n,
  }),
  once(PORTS, 'a port beside one whose bit is set', 'out-dx-al', [IO_BITMAPS, bitmap(0x81)], { rdx: 0x80n }),
  once(PORTS, 'the last port of an access has its bit set', 'out-dx-eax', [IO_BITMAPS, bitmap(0x83)], {
    rdx: 0x80n,
  }),
  once(PORTS, 'an access across the two bitmaps', 'in-ax-dx', [IO_BITMAPS, bitmap(0x8000)], { rdx: 0x7fffn }),
  once(PORTS, 'an access that wraps past the last port', 'in-eax-dx', [IO_BITMAPS], { rdx: 0xfffdn }),
  once(PORTS, 'INS', 'insb', [UNCONDITIONAL_IO], { rdx: 0x1f0n, rdi: BigInt(GUEST.data) }),
  once(PORTS, 'OUTS of a word', 'outsw', [UNCONDITIONAL_IO], { rdx: 0x1f0n, rsi: BigInt(GUEST.data) }),
  once(PORTS, 'REP INS of words', 'rep-insw', [UNCONDITIONAL_IO], {
    rdx: 0x1f0n,
    rcx: 5n,
    rdi: BigInt(GUEST.data + 4),
  }),
  once(PORTS, 'REP INS of 32 bits', 'rep-insd', [UNCONDITIONAL_IO], {
    rdx: 0x1f0n,
    rcx: 0x100n,
    rdi: BigInt(GUEST.data),
  }),
  once(PORTS, 'REP OUTS of bytes', 'rep-outsb', [UNCONDITIONAL_IO], {
    rdx: 0x80n,
    rcx: 3n,
    rsi: BigInt(GUEST.data + 1),
  }),
  once(
    PORTS,
    'REP OUTS of 32 bits whose last port has its bit set',
    'rep-outsd',
    [IO_BITMAPS, bitmap(0x83)],
    {
      rdx: 0x80n,
      rcx: 3n,
      rsi: BigInt(GUEST.data),
    },
  ),
  once(PORTS, 'REP OUTS of nothing', 'rep-outsb', [UNCONDITIONAL_IO], { rdx: 0x80n }),
]

const msrs: readonly WitnessCase[] = [
  once(MSRS, 'RDMSR without MSR bitmaps', 'rdmsr', [], { rcx: 0xc0000102n }),
  once(MSRS, 'WRMSR without MSR bitmaps', 'wrmsr', [], { rcx: 0xc0000102n }),
  once(MSRS, 'RDMSR whose bit is clear', 'rdmsr', [MSR_BITMAPS], { rcx: 0xc0000102n }),
  once(MSRS, 'WRMSR whose bit is clear', 'wrmsr', [MSR_BITMAPS], { rcx: 0xc0000102n }),
  once(MSRS, 'RDMSR of a high register whose bit is set', 'rdmsr', [MSR_BITMAPS, msr('read', 0xc0000102)], {
    rcx: 0xc0000102n,
  }),
  once(
    MSRS,
    'RDMSR of a high register whose write bit is set',
    'rdmsr',
    [MSR_BITMAPS, msr('write', 0xc0000102)],
    {
      rcx: 0xc0000102n,
    },
  ),
  once(MSRS, 'WRMSR of a high register whose bit is set', 'wrmsr', [MSR_BITMAPS, msr('write', 0xc0000102)], {
    rcx: 0xc0000102n,
  }),
  once(MSRS, 'WRMSR of a low register whose bit is set', 'wrmsr', [MSR_BITMAPS, msr('write', 0x174)], {
    rcx: 0x174n,
  }),
  once(MSRS, 'RDMSR of a low register whose bit is set', 'rdmsr', [MSR_BITMAPS, msr('read', 0x174)], {
    rcx: 0x174n,
  }),
  once(MSRS, 'RDMSR of a register that the bitmap does not cover', 'rdmsr', [MSR_BITMAPS], { rcx: 0x2000n }),
  once(MSRS, 'WRMSR of a register that the bitmap does not cover', 'wrmsr', [MSR_BITMAPS], {
    rcx: 0xc0002000n,
  }),
  once(MSRS, 'RDMSR of a register that does not exist', 'rdmsr', [MSR_BITMAPS], { rcx: 0x1fffn }),
  once(MSRS, 'WRMSR of a value that is not canonical', 'wrmsr', [MSR_BITMAPS], {
    rcx: 0xc0000102n,
    rdx: 0x8000n,
  }),
]

const timer: readonly WitnessCase[] = [
  once(TIMER, 'a preemption timer of zero', 'nops', [set('pinControls', bit(6))]),
  once(TIMER, 'a preemption timer runs out in a guest that never leaves', 'spin', [
    set('pinControls', bit(6)),
    write('preemptionTimer', 100n),
  ]),
  once(TIMER, 'a preemption timer that does not run out', 'hlt', [
    set('pinControls', bit(6)),
    write('preemptionTimer', 0xffffffffn),
  ]),
  once(TIMER, 'a preemption timer of zero and an injected interrupt', 'nops', [
    set('pinControls', bit(6)),
    set('guestRflags', bit(9)),
    write('entryInterruptionInfo', bit(31) + 0x41n),
  ]),
  once(TIMER, 'a preemption timer of zero goes before an open interrupt window', 'nops', [
    set('pinControls', bit(6)),
    set('primaryControls', bit(2)),
    set('guestRflags', bit(9)),
  ]),
]

const taskPriority: readonly WitnessCase[] = [
  once(TASK_PRIORITY, 'MOV to CR8 that exits', 'mov-to-cr8', [set('primaryControls', bit(19))], { rax: 5n }),
  once(TASK_PRIORITY, 'MOV from CR8 that exits', 'mov-from-cr8', [set('primaryControls', bit(20))]),
  once('30.3', 'MOV to CR8 under a TPR shadow', 'mov-to-cr8', [set('primaryControls', bit(21))], { rax: 5n }),
  once(
    '30.1.2',
    'MOV to CR8 falls below the TPR threshold',
    'mov-to-cr8',
    [
      set('primaryControls', bit(21)),
      write('tprThreshold', 5n),
      { kind: 'virtualApic', offset: 0x80, value: 0x90n },
    ],
    { rax: 4n },
  ),
  once(
    '30.1.2',
    'MOV to CR8 stays at the TPR threshold',
    'mov-to-cr8',
    [
      set('primaryControls', bit(21)),
      write('tprThreshold', 5n),
      { kind: 'virtualApic', offset: 0x80, value: 0x90n },
    ],
    { rax: 5n },
  ),
  once('30.3', 'MOV to CR8 of 16', 'mov-to-cr8', [set('primaryControls', bit(21))], { rax: 16n }),
]

const others: readonly WitnessCase[] = [
  once('26.1.2', 'CPUID', 'cpuid', []),
  once('26.1.2', 'VMCALL', 'vmcall', []),
  once('26.1.2', 'VMCALL under MOV SS blocking', 'mov-ss-vmcall', [], { rax: 0x10n }),
  once('26.1.2', 'VMCALL under STI blocking', 'sti-vmcall', []),
  once('26.1.3', 'HLT under STI blocking', 'sti-hlt', []),
  several(
    '27.6',
    'the instruction after a passed-over one still has its MOV SS blocking, which a handler has to end',
    'mov-ss-vmcall',
    { registers: { rax: 0x10n } },
    { advance: true, changes: [clear('guestInterruptibility', bit(1))] },
  ),
]

export const EXIT_CASES: readonly WitnessCase[] = [...others, ...ports, ...msrs, ...timer, ...taskPriority]
