/** What a processor reports of a step, reduced to what the SDM defines for that exit. */
import type { FieldName } from './fields.ts'

/** The fields that a processor is asked for after each VM exit, in the order of the harness's lines. */
export const REPORTED_FIELDS = [
  'exitReason',
  'exitQualification',
  'exitInterruptionInfo',
  'exitInterruptionErrorCode',
  'idtVectoringInfo',
  'idtVectoringErrorCode',
  'exitInstructionLength',
  'exitInstructionInfo',
  'guestPhysicalAddress',
  'guestLinearAddress',
  'guestRip',
  'guestRsp',
  'guestRflags',
  'guestInterruptibility',
  'guestActivity',
  'entryInterruptionInfo',
] as const satisfies readonly FieldName[]

export type ReportedField = (typeof REPORTED_FIELDS)[number]

/** General registers at the exit. */
export interface ExitRegisters {
  readonly rcx: number
  readonly rsi: number
  readonly rdi: number
}

/** The unreduced answer to one step. */
export type Answer =
  /** The instruction failed with this VM-instruction error, -1 when there is no current VMCS; 0 is success. */
  | { readonly kind: 'vmfail'; readonly error: number }
  | {
      readonly kind: 'exit'
      readonly fields: Readonly<Record<ReportedField, number>>
      readonly registers: ExitRegisters
    }

/**
 * One step's outcome. A value that the SDM leaves undefined for this outcome is null, so outcomes of different
 * processors can be compared for equality. All values fit a Number exactly.
 */
export interface Outcome {
  /** VM-instruction error; 0 for an executed VMX instruction that succeeded; null when there was a VM exit. */
  readonly vmfail: number | null
  /** All 32 bits of the exit reason: bit 31 is a VM-entry failure. */
  readonly exitReason: number | null
  readonly qualification: number | null
  readonly instructionLength: number | null
  /** Address size (bits 9:7) and, for OUTS, segment (bits 17:15). */
  readonly instructionInfo: number | null
  /** 0 when the valid bit is clear. Bit 12 (NMI unblocking) as reported. */
  readonly interruptionInfo: number | null
  readonly interruptionErrorCode: number | null
  /** 0 when the valid bit is clear. */
  readonly idtVectoringInfo: number | null
  readonly idtVectoringErrorCode: number | null
  readonly guestPhysicalAddress: number | null
  readonly guestLinearAddress: number | null
  readonly guestRip: number | null
  readonly guestRsp: number | null
  readonly guestRflags: number | null
  readonly guestInterruptibility: number | null
  readonly guestActivity: number | null
  /** The VM-entry interruption-information field after the exit: its valid bit is cleared. */
  readonly entryInterruptionInfo: number | null
  readonly registers: ExitRegisters | null
}

const NOTHING: Outcome = {
  vmfail: null,
  exitReason: null,
  qualification: null,
  instructionLength: null,
  instructionInfo: null,
  interruptionInfo: null,
  interruptionErrorCode: null,
  idtVectoringInfo: null,
  idtVectoringErrorCode: null,
  guestPhysicalAddress: null,
  guestLinearAddress: null,
  guestRip: null,
  guestRsp: null,
  guestRflags: null,
  guestInterruptibility: null,
  guestActivity: null,
  entryInterruptionInfo: null,
  registers: null,
}

const IO = 30
const EPT_VIOLATION = 48
const EPT_MISCONFIGURATION = 49

/** Exits caused by executing an instruction, whose length is reported (SDM 28.2.5); 44 and 56 as data accesses are not. */
const INSTRUCTION_EXITS = new Set([
  9,
  10,
  11,
  12,
  13,
  14,
  15,
  16,
  18,
  19,
  20,
  21,
  22,
  23,
  24,
  25,
  26,
  27,
  28,
  29,
  IO,
  31,
  32,
  36,
  39,
  40,
  46,
  47,
  50,
  51,
  53,
  54,
  55,
  57,
  58,
  59,
  61,
  63,
  64,
])

/** RFLAGS.RF is left out: 28.3.3 rules it by event, and neither processor here follows that. */
const RF = 16

/** SDM vol. 3, 28.2: which exit-information fields hold something. */
export function reduce(answer: Answer): Outcome {
  if (answer.kind === 'vmfail') return { ...NOTHING, vmfail: answer.error }
  const { fields, registers } = answer
  const entryFailed = bitOf(fields.exitReason, 31)
  if (entryFailed) {
    return { ...NOTHING, exitReason: fields.exitReason, qualification: fields.exitQualification }
  }
  const reason = fields.exitReason % 0x10000
  const string = reason === IO && bitOf(fields.exitQualification, 4)
  const ept = reason === EPT_VIOLATION || reason === EPT_MISCONFIGURATION
  const linear = string || (reason === EPT_VIOLATION && bitOf(fields.exitQualification, 7))
  return {
    vmfail: null,
    exitReason: fields.exitReason,
    qualification: fields.exitQualification,
    instructionLength: hasInstructionLength(reason, fields) ? fields.exitInstructionLength : null,
    instructionInfo: string ? stringInfo(fields) : null,
    ...interruption(fields),
    guestPhysicalAddress: ept ? fields.guestPhysicalAddress : null,
    guestLinearAddress: linear ? fields.guestLinearAddress : null,
    guestRip: fields.guestRip,
    guestRsp: fields.guestRsp,
    guestRflags: fields.guestRflags - (bitOf(fields.guestRflags, RF) ? 2 ** RF : 0),
    guestInterruptibility: fields.guestInterruptibility,
    guestActivity: fields.guestActivity,
    entryInterruptionInfo: fields.entryInterruptionInfo,
    registers,
  }
}

/** Address size and, for OUTS, the segment; for INS bits 17:15 are undefined (table 28-8). */
function stringInfo(fields: Readonly<Record<ReportedField, number>>): number {
  return bitOf(fields.exitQualification, 3) ? fields.exitInstructionInfo % 0x8000 : fields.exitInstructionInfo
}

function interruption(fields: Readonly<Record<ReportedField, number>>) {
  const exit = bitOf(fields.exitInterruptionInfo, 31)
  const vectoring = bitOf(fields.idtVectoringInfo, 31)
  return {
    interruptionInfo: exit ? fields.exitInterruptionInfo : 0,
    interruptionErrorCode:
      exit && bitOf(fields.exitInterruptionInfo, 11) ? fields.exitInterruptionErrorCode : null,
    idtVectoringInfo: vectoring ? fields.idtVectoringInfo : 0,
    idtVectoringErrorCode:
      vectoring && bitOf(fields.idtVectoringInfo, 11) ? fields.idtVectoringErrorCode : null,
  }
}

function hasInstructionLength(reason: number, fields: Readonly<Record<ReportedField, number>>): boolean {
  if (isSoftware(fields.idtVectoringInfo)) return true
  if (reason === 0) return isSoftware(fields.exitInterruptionInfo)
  return INSTRUCTION_EXITS.has(reason)
}

/** Software interrupt, privileged software exception or software exception. */
function isSoftware(info: number): boolean {
  const type = Math.floor(info / 0x100) % 8
  return bitOf(info, 31) && type >= 4 && type <= 6
}

const bitOf = (value: number, position: number): boolean => Math.floor(value / 2 ** position) % 2 === 1
