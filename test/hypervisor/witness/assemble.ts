/** Writes the nasm includes of the witness from its tables: constants, guest programs, orders. */
import type { WitnessCase } from './cases.ts'
import { DEFAULT_FIELDS, MEMORY } from './defaults.ts'
import { FIELD } from './fields.ts'
import { orders } from './orders.ts'
import { HANDLER, type Instruction, PROGRAMS, type ProgramName, programLabel } from './programs.ts'
import { REPORTED_FIELDS } from './records.ts'

/** Linear address in the host: boot.asm maps it to the local APIC at physical 0xfee00000. */
const LOCAL_APIC = 0x7ee00000

/** File names and texts that lie beside boot.asm and harness.asm when they are assembled. */
export function includes(cases: readonly WitnessCase[]): Readonly<Record<string, string>> {
  return {
    'layout.inc': layout(),
    'reported.inc': REPORTED_FIELDS.map((name) => `  dd ${FIELD[name]} ; ${name}\n`).join(''),
    'programs.inc': programs(),
    'orders.inc': orders(cases),
  }
}

function layout(): string {
  const names: Readonly<Record<string, number | bigint>> = {
    IMAGE: MEMORY.image,
    IMAGE_START: MEMORY.image + 16,
    IMAGE_SECTORS: MEMORY.imageSectors,
    HOST_PML4: MEMORY.hostPml4,
    HOST_PDPT: MEMORY.hostPdpt,
    HOST_GDT: MEMORY.hostGdt,
    HOST_IDT: MEMORY.hostIdt,
    HOST_TSS: MEMORY.hostTss,
    HOST_RSP: MEMORY.hostStackTop,
    HOST_CR0: DEFAULT_FIELDS.hostCr0 ?? 0n,
    HOST_CR4: DEFAULT_FIELDS.hostCr4 ?? 0n,
    APIC: LOCAL_APIC,
    VMXON_REGION: MEMORY.vmxonRegion,
    VMCS_REGION: MEMORY.vmcsRegion,
    LINK_VMCS: MEMORY.linkVmcs,
    HYPERVISOR_RAM: MEMORY.hypervisorRam,
    HYPERVISOR_RAM_BYTES: MEMORY.hypervisorRamBytes,
    GUEST_RAM: MEMORY.guestRam,
    GUEST_RAM_BYTES: MEMORY.guestRamBytes,
    FIELD_INSTRUCTION_ERROR: FIELD.instructionError,
    FIELD_INSTRUCTION_LENGTH: FIELD.exitInstructionLength,
    FIELD_GUEST_RIP: FIELD.guestRip,
  }
  return Object.entries(names)
    .map(([name, value]) => `%define ${name} ${value}\n`)
    .join('')
}

/** The second argument of `sized` must assemble to as many bytes as the first says, or assembly stops. */
const SIZED = `
%macro sized 2+
%%start:
  %2
%%end:
  times %1 - (%%end - %%start) db 0
  times (%%end - %%start) - %1 db 0
%endmacro
`

function programs(): string {
  const names = Object.keys(PROGRAMS) as ProgramName[]
  return [
    SIZED,
    ...names.flatMap((name) => [
      `${programLabel(name)}:`,
      ...code(PROGRAMS[name]),
      `${programLabel(name)}_end:`,
    ]),
    'align 16, db 0xf4',
    'handlers:',
    '%rep 256',
    ...code(HANDLER),
    'align 16, db 0xf4',
    '%endrep',
    'handlers_end:',
    '',
  ].join('\n')
}

const code = (instructions: readonly Instruction[]): string[] =>
  instructions.map((instruction) => `  sized ${instruction.length}, ${source(instruction)}`)

const ACCUMULATOR = { 1: 'al', 2: 'ax', 4: 'eax' } as const
const SUFFIX = { 1: 'b', 2: 'w', 4: 'd' } as const

function source(instruction: Instruction): string {
  switch (instruction.do) {
    case 'in':
      return `in ${ACCUMULATOR[instruction.widthBytes]}, ${instruction.port}`
    case 'out':
      return `out ${instruction.port}, ${ACCUMULATOR[instruction.widthBytes]}`
    case 'ins':
    case 'outs':
      return `${instruction.repeat ? 'rep ' : ''}${instruction.do}${SUFFIX[instruction.widthBytes]}`
    case 'load':
      return 'mov eax, [rbx]'
    case 'store':
      return 'mov [rbx], eax'
    case 'add':
      return 'add [rbx], eax'
    case 'jump':
      return 'jmp rbx'
    case 'movSs':
      return 'mov ss, ax'
    case 'movToCr':
      return `mov cr${instruction.register}, rax`
    case 'movFromCr':
      return `mov rax, cr${instruction.register}`
    case 'movToDr':
      return `mov dr${instruction.register}, rax`
    case 'movFromDr':
      return `mov rax, dr${instruction.register}`
    case 'int':
      return `int ${instruction.vector}`
    case 'invlpg':
      return 'invlpg [rbx]'
    case 'spin':
      return 'jmp short $'
    default:
      return instruction.do
  }
}
