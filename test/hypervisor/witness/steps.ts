/** Short spellings of the plain data that cases are made of. */
import type { Change, Register, Step, WitnessCase } from './cases.ts'
import type { FieldName } from './fields.ts'
import type { ProgramName } from './programs.ts'

export const bit = (...positions: number[]): bigint =>
  positions.reduce((mask, position) => mask + 2n ** BigInt(position), 0n)

export const write = (field: FieldName, value: bigint): Change => ({ kind: 'field', field, value })

export const set = (field: FieldName, bits: bigint): Change => ({ kind: 'bits', field, set: bits, clear: 0n })

export const clear = (field: FieldName, bits: bigint): Change => ({
  kind: 'bits',
  field,
  set: 0n,
  clear: bits,
})

/** A case of one VMLAUNCH. */
export function once(
  sdm: string,
  name: string,
  program: ProgramName,
  changes: readonly Change[],
  registers: Readonly<Partial<Record<Register, bigint>>> = {},
): WitnessCase {
  return { name, sdm, program, steps: [{ changes, registers }] }
}

/** A case of several steps. */
export function several(sdm: string, name: string, program: ProgramName, ...steps: Step[]): WitnessCase {
  return { name, sdm, program, steps }
}

/** An entry-check case: the guest would only halt. */
export const check = (sdm: string, name: string, ...changes: Change[]): WitnessCase =>
  once(sdm, name, 'hlt', changes)
