/** EPT: violations by access type and permission, misconfigurations, large leaves. SDM 29.3. */
import type { Change, WitnessCase } from './cases.ts'
import { GUEST, MEMORY } from './defaults.ts'
import { bit, once, set, several } from './steps.ts'

const VIOLATION = '29.3.3.2'
const MISCONFIGURATION = '29.3.3.1'
const RWX = 7n
const R = 1n
const W = 2n
const X = 4n

type Level = 1 | 2 | 3 | 4

const entry = (level: Level, address: number, setBits: bigint, clearBits: bigint): Change => ({
  kind: 'ept',
  level,
  address,
  set: setBits,
  clear: clearBits,
})

/** The leaf of the data page gets these permissions and no others. */
const data = (permissions: bigint): Change => entry(1, GUEST.data, permissions, RWX)

const at = (rbx: number, rax = 0n) => ({ rbx: BigInt(rbx), rax })

const AD = set('eptPointer', bit(6))
const LARGE = 0x200000
const HUGE = 0x40000000

const LARGE_AND_PARTIAL: readonly WitnessCase[] = [
  once('29.3.2', 'a load through a leaf of 2 MiB', 'load', [], at(LARGE + 0x1234)),
  once('29.3.2', 'a load through a leaf of 1 GiB', 'load', [], at(HUGE + MEMORY.guestRam)),
  once('29.3.2', 'a load from beyond what is mapped', 'load', [], at(0x80000000)),
  once(VIOLATION, 'a store to a read-only leaf of 2 MiB', 'store', [entry(2, LARGE, R, RWX)], at(LARGE + 8)),
  once(
    VIOLATION,
    'a load through a directory entry that is absent',
    'load',
    [entry(2, LARGE, 0n, RWX)],
    at(LARGE),
  ),
  once(VIOLATION, 'a store where the PDPT entry is read-only', 'store', [entry(3, HUGE, R, RWX)], at(HUGE)),
  once(
    VIOLATION,
    'the permissions of all levels count',
    'store',
    [entry(2, 0, 0n, W), data(RWX)],
    at(GUEST.data),
  ),
  once(VIOLATION, 'an add to a read-only page', 'add', [data(R)], at(GUEST.data)),
  once(VIOLATION, 'an add to a page without a leaf', 'add', [data(0n)], at(GUEST.data)),
  once(VIOLATION, 'the page of the guest PML4 is absent', 'nops', [entry(1, GUEST.pml4, 0n, RWX)]),
  once(
    VIOLATION,
    'the page of the guest PDPT is absent',
    'load',
    [entry(1, GUEST.pdpt, 0n, RWX)],
    at(GUEST.data),
  ),
  once('29.3.5', 'the page of the guest PML4 is read-only, with accessed and dirty flags', 'nops', [
    AD,
    entry(1, GUEST.pml4, 0n, W),
  ]),
  once('29.3.5', 'a load with accessed and dirty flags', 'load', [AD], at(GUEST.data)),
  once(
    '29.3.5',
    'a store to a read-only page with accessed and dirty flags',
    'store',
    [AD, data(R)],
    at(GUEST.data),
  ),
  once(
    MISCONFIGURATION,
    'a leaf of 2 MiB with address bit 12',
    'load',
    [entry(2, LARGE, bit(12), 0n)],
    at(LARGE),
  ),
  once(
    MISCONFIGURATION,
    'a leaf of 1 GiB with address bit 21',
    'load',
    [entry(3, HUGE, bit(21), 0n)],
    at(HUGE),
  ),
  once(
    MISCONFIGURATION,
    'a table entry with memory-type bits',
    'load',
    [entry(2, 0, bit(4), 0n)],
    at(GUEST.data),
  ),
  once(
    MISCONFIGURATION,
    'a leaf beyond the physical-address width',
    'load',
    [entry(1, GUEST.data, bit(41), 0n)],
    at(GUEST.data),
  ),
  once(
    MISCONFIGURATION,
    'a leaf of memory type 7',
    'load',
    [entry(1, GUEST.data, 0x38n, 0n)],
    at(GUEST.data),
  ),
  once('29.3.2', 'a leaf of memory type 5', 'load', [entry(1, GUEST.data, 0x28n, 0x10n)], at(GUEST.data)),
  once(
    VIOLATION,
    'reserved bits of an absent leaf',
    'load',
    [entry(1, GUEST.data, bit(41), RWX)],
    at(GUEST.data),
  ),
  several(
    VIOLATION,
    'a repaired page completes the load',
    'load',
    { changes: [data(0n)], registers: { rbx: BigInt(GUEST.data) } },
    { changes: [data(RWX)] },
  ),
]

export const EPT_CASES: readonly WitnessCase[] = [
  once(VIOLATION, 'a load from a page without a leaf', 'load', [data(0n)], at(GUEST.data)),
  once(VIOLATION, 'a store to a page without a leaf', 'store', [data(0n)], at(GUEST.data + 0x123)),
  once(VIOLATION, 'a fetch from a page without a leaf', 'jump', [data(0n)], at(GUEST.data + 0x10)),
  once(VIOLATION, 'a store to a read-only page', 'store', [data(R)], at(GUEST.data)),
  once(VIOLATION, 'a fetch from a read-write page', 'jump', [data(R + W)], at(GUEST.data)),
  once(VIOLATION, 'a load from an execute-only page', 'load', [data(X)], at(GUEST.data)),
  once(MISCONFIGURATION, 'a leaf with W and X but not R', 'load', [data(W + X)], at(GUEST.data)),
  once(MISCONFIGURATION, 'a leaf with W alone', 'store', [data(W)], at(GUEST.data)),
  once(
    MISCONFIGURATION,
    'a leaf of memory type 2',
    'load',
    [entry(1, GUEST.data, 0x10n, 0x38n)],
    at(GUEST.data),
  ),
  once(MISCONFIGURATION, 'a PML4 entry with bit 7', 'load', [entry(4, 0, bit(7), 0n)], at(GUEST.data)),
  ...LARGE_AND_PARTIAL,
]
