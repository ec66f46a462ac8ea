/**
 * Guest programs as lists of instructions. The assembler checks every stated length, so that a model which
 * executes the list has the same RIP after each instruction as the machine code has.
 *
 * Memory operands are always [rbx] and indirect jumps always go to rbx; a case sets the registers before entry.
 */
import { GUEST } from './defaults.ts'

export type Width = 1 | 2 | 4

export type Instruction =
  | {
      readonly do: 'in' | 'out'
      readonly widthBytes: Width
      readonly port: 'dx' | number
      readonly length: number
    }
  /** INS to [rdi], OUTS from [rsi]; RCX counts when `repeat`. */
  | {
      readonly do: 'ins' | 'outs'
      readonly widthBytes: Width
      readonly repeat: boolean
      readonly length: number
    }
  /** Load eax from [rbx], store eax to [rbx], add eax to [rbx] (reads, then writes). */
  | { readonly do: 'load' | 'store' | 'add'; readonly length: number }
  /** JMP rbx: the next instruction is fetched from the linear address in RBX. */
  | { readonly do: 'jump'; readonly length: number }
  /** MOV SS, AX: blocks interrupts for one instruction. */
  | { readonly do: 'movSs'; readonly length: number }
  /** MOV CRn, RAX and MOV RAX, CRn. */
  | { readonly do: 'movToCr' | 'movFromCr'; readonly register: 0 | 3 | 4 | 8; readonly length: number }
  /** MOV DR7, RAX and MOV RAX, DR7. */
  | { readonly do: 'movToDr' | 'movFromDr'; readonly register: 7; readonly length: number }
  | { readonly do: 'int'; readonly vector: number; readonly length: number }
  | { readonly do: Plain; readonly length: number }

/** Instructions without operands; INVLPG addresses [rbx]. */
export type Plain =
  | 'nop'
  | 'hlt'
  | 'cpuid'
  | 'vmcall'
  | 'rdmsr'
  | 'wrmsr'
  | 'rdtsc'
  | 'rdtscp'
  | 'rdpmc'
  | 'sti'
  | 'cli'
  | 'popfq'
  | 'pause'
  | 'monitor'
  | 'mwait'
  | 'invlpg'
  | 'invd'
  | 'wbinvd'
  | 'xsetbv'
  | 'ud2'
  | 'int3'
  | 'clts'
  | 'iretq'
  | 'vmxoff'
  /** JMP to itself: the guest never leaves by its own doing. */
  | 'spin'

const plain = (name: Plain, length: number): Instruction => ({ do: name, length })

const NOP = plain('nop', 1)
const HLT = plain('hlt', 1)
const STI = plain('sti', 1)
const VMCALL = plain('vmcall', 3)

const port = (what: 'in' | 'out', widthBytes: Width, at: 'dx' | number): Instruction => ({
  do: what,
  widthBytes,
  port: at,
  length: (at === 'dx' ? 1 : 2) + (widthBytes === 2 ? 1 : 0),
})

const text = (what: 'ins' | 'outs', widthBytes: Width, repeat: boolean): Instruction => ({
  do: what,
  widthBytes,
  repeat,
  length: 1 + (widthBytes === 2 ? 1 : 0) + (repeat ? 1 : 0),
})

/** Programs start at `GUEST.code`; each ends in HLT, so that what does not exit is seen by its RIP. */
export const PROGRAMS = {
  hlt: [HLT],
  nops: [NOP, NOP, NOP, NOP, HLT],
  spin: [plain('spin', 2)],
  vmcall: [VMCALL, HLT],
  cpuid: [plain('cpuid', 2), HLT],
  'in-al-dx': [port('in', 1, 'dx'), HLT],
  'in-ax-dx': [port('in', 2, 'dx'), HLT],
  'in-eax-dx': [port('in', 4, 'dx'), HLT],
  'out-dx-al': [port('out', 1, 'dx'), HLT],
  'out-dx-ax': [port('out', 2, 'dx'), HLT],
  'out-dx-eax': [port('out', 4, 'dx'), HLT],
  'in-al-imm': [port('in', 1, 0x71), HLT],
  'in-eax-imm': [port('in', 4, 0xff), HLT],
  'out-imm-al': [port('out', 1, 0x80), HLT],
  'out-imm-ax': [port('out', 2, 0x80), HLT],
  insb: [text('ins', 1, false), HLT],
  outsw: [text('outs', 2, false), HLT],
  'rep-insd': [text('ins', 4, true), HLT],
  'rep-insw': [text('ins', 2, true), HLT],
  'rep-outsb': [text('outs', 1, true), HLT],
  'rep-outsd': [text('outs', 4, true), HLT],
  load: [{ do: 'load', length: 2 }, HLT],
  store: [{ do: 'store', length: 2 }, HLT],
  add: [{ do: 'add', length: 2 }, HLT],
  jump: [{ do: 'jump', length: 2 }],
  rdmsr: [plain('rdmsr', 2), HLT],
  wrmsr: [plain('wrmsr', 2), HLT],
  rdtsc: [plain('rdtsc', 2), HLT],
  rdtscp: [plain('rdtscp', 3), HLT],
  rdpmc: [plain('rdpmc', 2), HLT],
  pause: [plain('pause', 2), HLT],
  monitor: [plain('monitor', 3), HLT],
  mwait: [plain('mwait', 3), HLT],
  invlpg: [plain('invlpg', 3), HLT],
  invd: [plain('invd', 2), HLT],
  wbinvd: [plain('wbinvd', 2), HLT],
  xsetbv: [plain('xsetbv', 3), HLT],
  ud2: [plain('ud2', 2), HLT],
  int3: [plain('int3', 1), HLT],
  'int-80': [{ do: 'int', vector: 0x80, length: 2 }, HLT],
  vmxoff: [plain('vmxoff', 3), HLT],
  'mov-to-cr0': [{ do: 'movToCr', register: 0, length: 3 }, HLT],
  'mov-to-cr3': [{ do: 'movToCr', register: 3, length: 3 }, HLT],
  'mov-from-cr3': [{ do: 'movFromCr', register: 3, length: 3 }, HLT],
  'mov-to-cr4': [{ do: 'movToCr', register: 4, length: 3 }, HLT],
  'mov-to-cr8': [{ do: 'movToCr', register: 8, length: 4 }, HLT],
  'mov-from-cr8': [{ do: 'movFromCr', register: 8, length: 4 }, HLT],
  clts: [plain('clts', 2), HLT],
  'mov-to-dr7': [{ do: 'movToDr', register: 7, length: 3 }, HLT],
  'mov-from-dr7': [{ do: 'movFromDr', register: 7, length: 3 }, HLT],
  'sti-nops': [STI, NOP, NOP, HLT],
  'sti-vmcall': [STI, VMCALL, HLT],
  'sti-hlt': [STI, HLT],
  'sti-cli': [STI, plain('cli', 1), NOP, HLT],
  'nop-sti-hlt': [NOP, STI, HLT],
  'mov-ss': [{ do: 'movSs', length: 2 }, NOP, NOP, HLT],
  'mov-ss-vmcall': [{ do: 'movSs', length: 2 }, VMCALL, HLT],
  popfq: [plain('popfq', 1), NOP, NOP, HLT],
} as const satisfies Record<string, readonly Instruction[]>

export type ProgramName = keyof typeof PROGRAMS

/** The program's name as an assembler label. */
export const programLabel = (program: ProgramName): string => `program_${program.replaceAll('-', '_')}`

/** What lies at each interrupt vector's handler, `GUEST.handlers + 16 * vector`. */
export const HANDLER: readonly Instruction[] = [VMCALL, plain('iretq', 2), HLT]

/** The linear address of instruction `index` of a program. */
export function instructionAddress(program: ProgramName, index: number): number {
  let address: number = GUEST.code
  for (const instruction of PROGRAMS[program].slice(0, index)) address += instruction.length
  return address
}
