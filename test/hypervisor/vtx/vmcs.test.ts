import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { HASWELL } from '../../../hypervisor/vtx/capability.ts'
import { VM_FAIL_INVALID, VM_SUCCEED, VmError } from '../../../hypervisor/vtx/control.ts'
import { FIELD_NAMES, Field, kindOf, widthOf } from '../../../hypervisor/vtx/field.ts'
import { LAYOUT, SmallMachine } from '../small-machine.ts'
import { FIELD as WITNESS_FIELD } from '../witness/fields.ts'

const ALL_ONES = 2n ** 64n - 1n
const ENCODINGS = 0x8000
/** Misc bit 29: VMWRITE reaches the exit-information fields. */
const WITHOUT_WRITES = {
  ...HASWELL,
  name: 'haswell without writes to exit information',
  msrs: { ...HASWELL.msrs, 1157: (HASWELL.msrs[0x485] ?? 0n) & ~(1n << 29n) },
}

const BITS = { 16: 16n, 32: 32n, 64: 64n, natural: 64n } as const
const maskOf = (encoding: number): bigint => 2n ** BITS[widthOf(encoding)] - 1n
const fields = FIELD_NAMES.map((name) => ({ name, encoding: Field[name] }))
const byEncoding = new Map<number, string>(fields.map(({ name, encoding }) => [encoding, name]))

/** By the SDM's rule alone: a field, or the odd encoding of a 64-bit one. */
function exists(encoding: number): boolean {
  const even = encoding - (encoding % 2)
  return byEncoding.has(even) && (encoding % 2 === 0 || widthOf(even) === 64)
}

describe('VMREAD and VMWRITE', () => {
  it('name fields as the witness does', () => {
    for (const [name, encoding] of Object.entries(WITNESS_FIELD)) expect(byEncoding.get(encoding)).toBe(name)
  })

  it('fail with error 12 for every encoding that names nothing, and for no other', () => {
    const { vmx } = new SmallMachine().processor
    for (let encoding = 0; encoding < ENCODINGS; encoding++) {
      const read = vmx.vmread(encoding)
      if (exists(encoding)) expect(typeof read).toBe('bigint')
      else {
        expect(read).toBe(-VmError.NO_SUCH_FIELD)
        expect(vmx.vmwrite(encoding, 0n)).toBe(VmError.NO_SUCH_FIELD)
        expect(vmx.vmread(Field.instructionError)).toBe(BigInt(VmError.NO_SUCH_FIELD))
      }
    }
    expect(vmx.vmread(ENCODINGS)).toBe(-VmError.NO_SUCH_FIELD)
    expect(vmx.vmread(-1)).toBe(-VmError.NO_SUCH_FIELD)
  })

  it.each(fields)('$name keeps the bits of its width and no others', ({ encoding }) => {
    const { vmx } = new SmallMachine().processor
    fc.assert(
      fc.property(fc.bigInt(0n, ALL_ONES), (value) => {
        expect(vmx.vmwrite(encoding, value)).toBe(VM_SUCCEED)
        expect(vmx.vmread(encoding)).toBe(value & maskOf(encoding))
        if (widthOf(encoding) !== 64) return
        expect(vmx.vmread(encoding + 1)).toBe(value >> 32n)
        expect(vmx.vmwrite(encoding + 1, ~value & ALL_ONES)).toBe(VM_SUCCEED)
        expect(vmx.vmread(encoding)).toBe((value & 0xffff_ffffn) | ((~value & 0xffff_ffffn) << 32n))
      }),
      { numRuns: 5 },
    )
  })

  it('leave every other field alone', () => {
    const { vmx } = new SmallMachine().processor
    for (const [index, { encoding }] of fields.entries()) vmx.vmwrite(encoding, BigInt(index + 1))
    for (const [index, { encoding }] of fields.entries()) expect(vmx.vmread(encoding)).toBe(BigInt(index + 1))
  })

  it('fail with error 13 for exit information where the processor does not permit the write', () => {
    const { vmx } = new SmallMachine({ profile: WITHOUT_WRITES }).processor
    for (const { name, encoding } of fields) {
      const wanted = kindOf(encoding) === 'exit information' ? VmError.READ_ONLY_FIELD : VM_SUCCEED
      expect(vmx.vmwrite(encoding, 1n), name).toBe(wanted)
    }
  })

  it('are VMfailInvalid without a current VMCS', () => {
    const { vmx } = new SmallMachine().processor
    vmx.vmclear(LAYOUT.vmcsRegion)
    expect(vmx.vmread(Field.vpid)).toBe(VM_FAIL_INVALID)
    expect(vmx.vmwrite(Field.vpid, 1n)).toBe(VM_FAIL_INVALID)
    expect(vmx.vmread(0x4ffe)).toBe(VM_FAIL_INVALID)
  })

  it('of Numbers agree with those of 64 bits, below 2^53', () => {
    const { processor } = new SmallMachine()
    fc.assert(
      fc.property(fc.constantFrom(...fields), fc.maxSafeNat(), ({ encoding }, value) => {
        processor.vmwrite(encoding, value)
        expect(processor.vmx.vmread(encoding)).toBe(BigInt(value) & maskOf(encoding))
        expect(BigInt(processor.vmread(encoding))).toBe(BigInt(value) & maskOf(encoding))
      }),
    )
  })
})
