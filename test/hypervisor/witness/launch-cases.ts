/** Launch state, VMX instructions in root operation, and MSR loading at entry (reason 34). */
import type { Change, WitnessCase } from './cases.ts'
import { MEMORY } from './defaults.ts'
import { bit, check, clear, set, several, write } from './steps.ts'

const LAUNCH = '31.3 VMLAUNCH/VMRESUME'
const INSTRUCTIONS = '31.3'
const MSR_LOAD = '27.4'
const BAD_RFLAGS = clear('guestRflags', bit(1))
const KERNEL_GS_BASE = 0xc0000102
const FS_BASE = 0xc0000100

const launch: readonly WitnessCase[] = [
  several(LAUNCH, 'VMLAUNCH of a VMCS that was launched', 'hlt', {}, { enter: 'vmlaunch' }),
  several(LAUNCH, 'VMRESUME of a VMCS that was not launched', 'hlt', { enter: 'vmresume' }),
  several(LAUNCH, 'VMRESUME after a VMLAUNCH', 'nops', {}, {}),
  several(
    LAUNCH,
    'VMRESUME after an exit whose instruction was passed over',
    'vmcall',
    {},
    { advance: true },
  ),
  several(LAUNCH, 'VMLAUNCH right after MOV SS', 'hlt', { enter: 'vmlaunch-after-mov-ss' }),
  several(
    LAUNCH,
    'a VMLAUNCH that fails with error 7 does not launch',
    'hlt',
    { changes: [set('pinControls', bit(31))] },
    { changes: [clear('pinControls', bit(31))] },
    { enter: 'vmlaunch' },
  ),
  several(
    LAUNCH,
    'a VMLAUNCH that fails with reason 33 does not launch',
    'hlt',
    { changes: [BAD_RFLAGS] },
    { changes: [set('guestRflags', bit(1))] },
    { enter: 'vmlaunch' },
  ),
  several(
    LAUNCH,
    'VMCLEAR and VMPTRLD make a launched VMCS launchable',
    'hlt',
    {},
    { execute: { instruction: 'vmclear', address: MEMORY.vmcsRegion } },
    { execute: { instruction: 'vmptrld', address: MEMORY.vmcsRegion } },
    { enter: 'vmlaunch' },
  ),
  several(
    LAUNCH,
    'VMLAUNCH without a current VMCS',
    'hlt',
    { execute: { instruction: 'vmclear', address: MEMORY.vmcsRegion } },
    { enter: 'vmlaunch' },
  ),
  several(
    LAUNCH,
    'bad controls and a launched VMCS',
    'hlt',
    {},
    {
      changes: [set('pinControls', bit(31))],
      enter: 'vmlaunch',
    },
  ),
]

const instructions: readonly WitnessCase[] = [
  several(INSTRUCTIONS, 'VMXON in root operation', 'hlt', {
    execute: { instruction: 'vmxon', address: MEMORY.vmxonRegion },
  }),
  several(INSTRUCTIONS, 'VMCLEAR of an unaligned address', 'hlt', {
    execute: { instruction: 'vmclear', address: MEMORY.linkVmcs + 8 },
  }),
  several(INSTRUCTIONS, 'VMCLEAR of the VMXON region', 'hlt', {
    execute: { instruction: 'vmclear', address: MEMORY.vmxonRegion },
  }),
  several(INSTRUCTIONS, 'VMPTRLD of an unaligned address', 'hlt', {
    execute: { instruction: 'vmptrld', address: MEMORY.linkVmcs + 8 },
  }),
  several(INSTRUCTIONS, 'VMPTRLD of the VMXON region', 'hlt', {
    execute: { instruction: 'vmptrld', address: MEMORY.vmxonRegion },
  }),
  several(INSTRUCTIONS, 'VMPTRLD of a region of another revision', 'hlt', {
    changes: [{ kind: 'linkVmcs', revision: 0x7bn }],
    execute: { instruction: 'vmptrld', address: MEMORY.linkVmcs },
  }),
  several(INSTRUCTIONS, 'VMREAD of a field that does not exist', 'hlt', {
    execute: { instruction: 'vmread', encoding: 0x4ffe },
  }),
  several(INSTRUCTIONS, 'VMWRITE of a field that does not exist', 'hlt', {
    execute: { instruction: 'vmwrite', encoding: 0x4ffe, value: 0n },
  }),
  several(INSTRUCTIONS, 'VMWRITE of the exit reason', 'hlt', {
    execute: { instruction: 'vmwrite', encoding: 0x4402, value: 0n },
  }),
  several(INSTRUCTIONS, 'INVEPT of type 3', 'hlt', {
    execute: { instruction: 'invept', type: 3, descriptor: 0n },
  }),
  several(INSTRUCTIONS, 'INVEPT of a single context with a bad EPT pointer', 'hlt', {
    execute: { instruction: 'invept', type: 1, descriptor: BigInt(MEMORY.eptPml4) + 0x16n },
  }),
  several(INSTRUCTIONS, 'INVEPT of a single context', 'hlt', {
    execute: { instruction: 'invept', type: 1, descriptor: BigInt(MEMORY.eptPml4) + 0x1en },
  }),
  several(INSTRUCTIONS, 'INVVPID of VPID zero', 'hlt', {
    execute: { instruction: 'invvpid', type: 1, descriptor: 0n },
  }),
  several(INSTRUCTIONS, 'INVVPID with reserved descriptor bits', 'hlt', {
    execute: { instruction: 'invvpid', type: 1, descriptor: 0x10001n },
  }),
]

const load = (index: number, msr: number, value: bigint, reserved = 0): Change => ({
  kind: 'entryMsr',
  index,
  msr,
  reserved,
  value,
})
const count = (entries: bigint): Change => write('entryMsrLoadCount', entries)

const msrs: readonly WitnessCase[] = [
  check(MSR_LOAD, 'an MSR is loaded', count(1n), load(0, KERNEL_GS_BASE, 0x1000n)),
  check(MSR_LOAD, 'FS base is loaded from the list', count(1n), load(0, FS_BASE, 0x1000n)),
  check(
    MSR_LOAD,
    'the second MSR of the list is GS base',
    count(2n),
    load(0, KERNEL_GS_BASE, 0n),
    load(1, 0xc0000101, 0n),
  ),
  check(MSR_LOAD, 'an x2APIC MSR is loaded', count(1n), load(0, 0x80b, 0n)),
  check(MSR_LOAD, 'an entry has reserved bits', count(1n), load(0, KERNEL_GS_BASE, 0n, 1)),
  check(MSR_LOAD, 'an MSR that does not exist is loaded', count(1n), load(0, 0x4567, 0n)),
  check(MSR_LOAD, 'a value that WRMSR would refuse', count(1n), load(0, KERNEL_GS_BASE, 0x0000800000000000n)),
  check(MSR_LOAD, 'a bad guest state and a bad MSR', count(1n), load(0, FS_BASE, 0n), BAD_RFLAGS),
]

export const LAUNCH_CASES: readonly WitnessCase[] = [...launch, ...instructions, ...msrs]
