import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Capability, type CapabilityProfile } from '../../../hypervisor/vtx/capability.ts'
import { EntryState } from '../../../hypervisor/vtx/check-group.ts'
import { Primary, VmError } from '../../../hypervisor/vtx/control.ts'
import { CHECK_READERS, ENTRY_CHECKS, failedCheck } from '../../../hypervisor/vtx/entry-checks.ts'
import { FIELD_NAMES, Field, fieldName } from '../../../hypervisor/vtx/field.ts'
import { Vmcs } from '../../../hypervisor/vtx/vmcs.ts'
import { LAYOUT, SmallMachine } from '../small-machine.ts'
import { applyEdits, BROKEN, VIRTUAL_8086_GUEST } from './broken-entries.ts'

const CHECKS = ENTRY_CHECKS.flatMap((group) =>
  group.checks.map((check) => ({ name: check.name, group, check })),
)

function stateOf(machine: SmallMachine): EntryState {
  const { vmx, core } = machine.processor
  if (vmx.current === null) throw new Error('no current VMCS')
  return new EntryState(vmx.current, core.capability, machine.physical.memory)
}

function failing(state: EntryState): string[] {
  return CHECKS.filter(({ check }) => !check.holds(state)).map(({ name }) => name)
}

function machineWith(name: string): SmallMachine {
  const one = BROKEN[name]
  if (one === undefined) throw new Error(`no state breaks the check "${name}"`)
  const profile: { profile?: CapabilityProfile } = one.profile === undefined ? {} : { profile: one.profile }
  const machine = new SmallMachine(profile)
  applyEdits(machine.processor.vmx, one.edits)
  return machine
}

class Halted extends Error {}

describe('VM entry', () => {
  it('passes in the start state, and for a guest in virtual-8086 mode', () => {
    expect(failing(stateOf(new SmallMachine()))).toEqual([])
    const machine = new SmallMachine()
    applyEdits(machine.processor.vmx, VIRTUAL_8086_GUEST)
    expect(failing(stateOf(machine))).toEqual([])
  })

  it('passes with RIP in the upper half of the address space', () => {
    const machine = new SmallMachine()
    applyEdits(machine.processor.vmx, [['guestRip', { value: 0xffff_8000_0000_0000n }]])
    expect(failing(stateOf(machine))).toEqual([])
  })

  it('has a state that breaks each of its checks, each check with a name of its own', () => {
    expect(Object.keys(BROKEN).sort()).toEqual(CHECKS.map(({ name }) => name).sort())
    expect(new Set(CHECKS.map(({ name }) => name)).size).toBe(CHECKS.length)
  })

  it.each(CHECKS)('fails when it is not so that $name, and for no other reason', ({ name, group, check }) => {
    const machine = machineWith(name)
    expect(failing(stateOf(machine))).toEqual([name])
    const { vmx, core } = machine.processor
    machine.exited = () => {
      throw new Halted()
    }
    if (group.failure !== 'guest') {
      const error = group.failure === 'controls' ? VmError.ENTRY_CONTROLS : VmError.ENTRY_HOST_STATE
      expect(core.enter('vmlaunch', false)).toBe(error)
      expect(vmx.vmread(Field.instructionError)).toBe(BigInt(error))
      expect(machine.reasons).toEqual([])
    } else {
      expect(() => core.enter('vmlaunch', false)).toThrow(Halted)
      expect(machine.reasons).toEqual([0x8000_0021])
      expect(vmx.vmread(Field.exitReason)).toBe(0x8000_0021n)
      expect(vmx.vmread(Field.exitQualification)).toBe(BigInt(check.qualification ?? 0))
    }
    expect(vmx.current?.launched).toBe(false)
  })

  it('names the check in the error when root software resumes into it', () => {
    const machine = machineWith('a VPID is not zero')
    expect(() => machine.guest.portRead(0, 1)).toThrow(
      /VM-instruction error 7: not so that a VPID is not zero/,
    )
  })
})

/** Notes every field that is asked for. */
class Recorder extends Vmcs {
  readonly asked = new Set<number>()
  override low(encoding: number): number {
    this.asked.add(encoding)
    return super.low(encoding)
  }
  override high(encoding: number): number {
    this.asked.add(encoding)
    return super.high(encoding)
  }
  override get(encoding: number): number {
    this.asked.add(encoding)
    return super.get(encoding)
  }
}

/** Any change of a few fields: whole values that occur in practice, and single bits. */
const value = fc.oneof(
  fc.constantFrom(0n, 1n, 0x8000_0000n, 2n ** 64n - 1n),
  fc.nat(63).map((position) => 1n << BigInt(position)),
  fc.bigInt(0n, 2n ** 64n - 1n),
)
const edits = fc.array(fc.tuple(fc.constantFrom(...FIELD_NAMES), value, fc.boolean()), { maxLength: 6 })

describe('a check that passed is not made again', () => {
  it('but reads no field that its group does not declare', () => {
    const machine = new SmallMachine()
    const start = machine.processor.vmx.current as Vmcs
    const capability = new Capability()
    fc.assert(
      fc.property(edits, (changes) => {
        const vmcs = new Recorder(CHECK_READERS)
        vmcs.words.set(start.words)
        for (const [name, bits, flip] of changes) {
          vmcs.putWide(Field[name], flip ? vmcs.getWide(Field[name]) ^ bits : bits)
        }
        const state = new EntryState(vmcs, capability, machine.physical.memory)
        for (const group of ENTRY_CHECKS) {
          vmcs.asked.clear()
          for (const check of group.checks) check.holds(state)
          const undeclared = [...vmcs.asked].filter((encoding) => !group.reads.includes(encoding))
          expect(undeclared.map(fieldName), group.name).toEqual([])
        }
      }),
      { numRuns: 300 },
    )
  })

  it('unless it reads memory, which changes without a VMWRITE', () => {
    const machine = new SmallMachine()
    const state = stateOf(machine)
    applyEdits(machine.processor.vmx, [
      ['primaryControls', BigInt(Primary.TPR_SHADOW)],
      ['virtualApicAddress', { value: BigInt(LAYOUT.virtualApic) }],
      ['tprThreshold', { value: 5n }],
      ['vmcsLinkPointer', { value: 0x9000n }],
    ])
    machine.physical.putLe32(LAYOUT.virtualApic + 0x80, 0x50)
    machine.physical.putLe32(0x9000, machine.processor.core.capability.revision)
    expect(failedCheck(state)).toBeNull()
    machine.physical.putLe32(LAYOUT.virtualApic + 0x80, 0x40)
    expect(failedCheck(state)?.check.name).toBe('the TPR threshold is not above the task priority')
    machine.physical.putLe32(LAYOUT.virtualApic + 0x80, 0x50)
    machine.physical.putLe32(0x9000, 1)
    expect(failedCheck(state)?.group.name).toBe('VMCS link pointer')
  })

  it('and the verdict is the same as if every check were made, after any sequence of writes', () => {
    const machine = new SmallMachine()
    const start = machine.processor.vmx.current as Vmcs
    const capability = new Capability()
    fc.assert(
      fc.property(fc.array(edits, { maxLength: 5 }), (rounds) => {
        const vmcs = new Vmcs(CHECK_READERS)
        vmcs.words.set(start.words)
        const state = new EntryState(vmcs, capability, machine.physical.memory)
        expect(failedCheck(state)).toBeNull()
        for (const changes of rounds) {
          const before = vmcs.words.slice()
          for (const [name, bits, flip] of changes) {
            vmcs.putWide(Field[name], flip ? vmcs.getWide(Field[name]) ^ bits : bits)
          }
          const wanted = failing(state)[0] ?? null
          expect(failedCheck(state)?.check.name ?? null).toBe(wanted)
          /** Half of the time, put back what was there. */
          if (changes.length % 2 === 0) {
            for (const name of FIELD_NAMES) {
              const slot = FIELD_NAMES.indexOf(name)
              vmcs.putHalf(Field[name], before[slot * 2] as number, false)
              vmcs.putHalf(Field[name], before[slot * 2 + 1] as number, true)
            }
          }
        }
      }),
      { numRuns: 100 },
    )
  })
})
