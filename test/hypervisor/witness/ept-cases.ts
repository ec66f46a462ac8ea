/** EPT: violations by access type and permission, misconfigurations, large leaves. SDM 29.3. */
import type { Change, WitnessCase } from './cases.ts'
import { GUEST } from './defaults.ts'
import { bit, once } from './steps.ts'

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
]
