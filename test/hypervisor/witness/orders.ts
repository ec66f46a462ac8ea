/** Turns cases into the 32-byte orders that harness.asm obeys. */
import type { Change, Execute, Step, WitnessCase } from './cases.ts'
import { defaultFields, defaultGuestMemory, GUEST, MEMORY } from './defaults.ts'
import { FIELD } from './fields.ts'
import { programLabel } from './programs.ts'

/** What harness.asm calls its orders, in the order of its table. */
const ORDER = {
  end: 0,
  reset: 1,
  return: 2,
  field: 3,
  memory: 4,
  fill: 5,
  copy: 6,
  register: 7,
  advance: 8,
  external: 9,
  enter: 10,
  execute: 11,
} as const

const ENTER = { vmlaunch: 0, vmresume: 1, 'vmlaunch-after-mov-ss': 2 } as const

const EXECUTE = {
  vmptrld: 0,
  vmclear: 1,
  vmxon: 2,
  vmread: 3,
  vmwrite: 4,
  invept: 5,
  invvpid: 6,
} as const

/** The general registers as the instruction set numbers them. */
const REGISTER = {
  rax: 0,
  rcx: 1,
  rdx: 2,
  rbx: 3,
  rbp: 5,
  rsi: 6,
  rdi: 7,
  r8: 8,
  r9: 9,
  r10: 10,
  r11: 11,
  r12: 12,
  r13: 13,
  r14: 14,
  r15: 15,
} as const

const ALL_ONES = 0xffffffffffffffffn
const EPT_TABLE = 0x7n
const EPT_LEAF = 0x37n
const EPT_LARGE_LEAF = 0xb7n

/** A number, or an expression for the assembler. */
type Operand = bigint | number | string

const literal = (operand: Operand): string =>
  typeof operand === 'string' ? operand : `0x${BigInt.asUintN(64, BigInt(operand)).toString(16)}`

function order(name: keyof typeof ORDER, ...operands: Operand[]): string {
  const [a = 0, b = 0, c = 0] = operands
  return `  dq ${ORDER[name]}, ${literal(a)}, ${literal(b)}, ${literal(c)}`
}

const memory = (address: number, setBits: bigint, clearBits: bigint): string =>
  order('memory', address, ALL_ONES ^ clearBits, setBits)

const bitmap = (base: number, index: number): string =>
  memory(base + 8 * Math.floor(index / 64), 2n ** BigInt(index % 64), 0n)

/** The orders of all cases, as nasm source. */
export function orders(cases: readonly WitnessCase[]): string {
  return [
    'orders:',
    ...cases.flatMap(caseOrders),
    order('end'),
    'default_orders:',
    ...defaultOrders(),
    order('return'),
    '',
  ].join('\n')
}

function caseOrders(one: WitnessCase): string[] {
  return [
    `; ${one.name}`,
    order('reset', 'default_orders'),
    copy(programLabel(one.program), MEMORY.guestRam + GUEST.code),
    ...one.steps.flatMap((step, index) => stepOrders(step, index === 0 ? 'vmlaunch' : 'vmresume')),
  ]
}

const copy = (label: string, to: number): string => order('copy', label, to, `${label}_end - ${label}`)

function stepOrders(step: Step, defaultEnter: 'vmlaunch' | 'vmresume'): string[] {
  const lines = step.advance ? [order('advance')] : []
  for (const [name, value] of Object.entries(step.registers ?? {})) {
    lines.push(order('register', REGISTER[name as keyof typeof REGISTER], value))
  }
  lines.push(...(step.changes ?? []).flatMap(changeOrders))
  lines.push(step.execute ? executeOrder(step.execute) : order('enter', ENTER[step.enter ?? defaultEnter]))
  return lines
}

function changeOrders(change: Change): string[] {
  switch (change.kind) {
    case 'field':
      return [order('field', FIELD[change.field], 0, change.value)]
    case 'bits':
      return [order('field', FIELD[change.field], ALL_ONES ^ change.clear, change.set)]
    case 'ept':
      return [memory(eptEntry(change.level, change.address), change.set, change.clear)]
    case 'ioBitmap':
      return Array.from({ length: change.count }, (_, offset) => ioBit(change.port + offset))
    case 'msrBitmap':
      return [msrBit(change.access, change.msr)]
    case 'entryMsr':
      return [
        memory(
          MEMORY.entryMsrLoad + 16 * change.index,
          BigInt(change.reserved * 2 ** 32 + change.msr),
          ALL_ONES,
        ),
        memory(MEMORY.entryMsrLoad + 16 * change.index + 8, change.value, ALL_ONES),
      ]
    case 'guestMemory':
      return [memory(MEMORY.guestRam + change.address, change.value, ALL_ONES)]
    case 'virtualApic':
      return [memory(MEMORY.virtualApic + change.offset, change.value, 0xffffffffn)]
    case 'linkVmcs':
      return [memory(MEMORY.linkVmcs, change.revision, 0xffffffffn)]
    case 'raise':
      return [order('external', change.vector)]
  }
}

const ioBit = (port: number): string =>
  port < 0x8000 ? bitmap(MEMORY.ioBitmapA, port) : bitmap(MEMORY.ioBitmapB, port - 0x8000)

function msrBit(access: 'read' | 'write', msr: number): string {
  const high = msr >= 0xc0000000
  const quarter = (access === 'read' ? 0 : 2) + (high ? 1 : 0)
  return bitmap(MEMORY.msrBitmap + 1024 * quarter, high ? msr - 0xc0000000 : msr)
}

function eptEntry(level: 1 | 2 | 3 | 4, address: number): number {
  const table = { 1: MEMORY.eptTable, 2: MEMORY.eptDirectory, 3: MEMORY.eptPdpt, 4: MEMORY.eptPml4 }[level]
  return table + 8 * (Math.floor(address / (4096 * 512 ** (level - 1))) % 512)
}

function executeOrder(execute: Execute): string {
  const number = EXECUTE[execute.instruction]
  switch (execute.instruction) {
    case 'vmptrld':
    case 'vmclear':
    case 'vmxon':
      return order('execute', number, execute.address)
    case 'vmread':
      return order('execute', number, execute.encoding)
    case 'vmwrite':
      return order('execute', number, execute.encoding, execute.value)
    case 'invept':
    case 'invvpid':
      return order('execute', number, execute.type, execute.descriptor)
  }
}

function defaultOrders(): string[] {
  return [
    memory(MEMORY.eptPml4, BigInt(MEMORY.eptPdpt) + EPT_TABLE, 0n),
    memory(MEMORY.eptPdpt, BigInt(MEMORY.eptDirectory) + EPT_TABLE, 0n),
    memory(MEMORY.eptPdpt + 8, EPT_LARGE_LEAF, 0n),
    memory(MEMORY.eptDirectory, BigInt(MEMORY.eptTable) + EPT_TABLE, 0n),
    memory(MEMORY.eptDirectory + 8, BigInt(MEMORY.largeLeaf) + EPT_LARGE_LEAF, 0n),
    order('fill', MEMORY.eptTable, BigInt(MEMORY.guestRam) + EPT_LEAF, 512),
    ...defaultGuestMemory().map((quad) => memory(MEMORY.guestRam + quad.address, quad.value, 0n)),
    copy('handlers', MEMORY.guestRam + GUEST.handlers),
    ...defaultFields().map((field) => order('field', field.encoding, 0, field.value)),
  ]
}
