import { Register } from '../processor.ts'
import { ExitReason, Primary, Secondary } from './control.ts'
import type { Core } from './core.ts'
import { GENERAL_PROTECTION, raise } from './delivery.ts'
import { Field } from './field.ts'
import { Msr } from './msr.ts'

const LENGTH = 2
const BITMAP_QUARTER = 1024
/** Each quarter of the bitmap covers this many registers. */
const COVERED = 0x2000
const HIGH_BASE = 0xc000_0000

/** Registers whose guest value is a VMCS field, which entry loads and exit saves. */
const IN_VMCS: ReadonlyMap<number, number> = new Map([
  [Msr.SYSENTER_CS, Field.guestSysenterCs],
  [Msr.SYSENTER_ESP, Field.guestSysenterEsp],
  [Msr.SYSENTER_EIP, Field.guestSysenterEip],
  [Msr.FS_BASE, Field.guestFsBase],
  [Msr.GS_BASE, Field.guestGsBase],
])

/** Null where RDMSR is #GP. */
export function readMsrValue(core: Core, index: number): bigint | null {
  if (index === Msr.TSC) return BigInt(core.ticks()) + tscOffset(core)
  const field = IN_VMCS.get(index)
  return field === undefined ? core.msrs.read(index) : core.vmcs.getWide(field)
}

function tscOffset(core: Core): bigint {
  return core.inGuest && (core.primary & Primary.TSC_OFFSETTING) !== 0
    ? core.vmcs.getWide(Field.tscOffset)
    : 0n
}

/** After `accepts`. */
export function writeMsrValue(core: Core, index: number, value: bigint): void {
  const field = IN_VMCS.get(index)
  if (field === undefined) core.msrs.write(index, value)
  else core.vmcs.putWide(field, value)
}

/** Whether RDMSR or WRMSR exits (SDM vol. 3, 26.1.3). */
export function msrExits(core: Core, index: number, write: boolean): boolean {
  if ((core.primary & Primary.MSR_BITMAPS) === 0) return true
  const high = index >= HIGH_BASE
  const bit = high ? index - HIGH_BASE : index
  if (!(bit < COVERED)) return true
  const quarter = (write ? 2 : 0) + (high ? 1 : 0)
  const byte = core.physical.u8(core.vmcs.get(Field.msrBitmap) + quarter * BITMAP_QUARTER + (bit >>> 3))
  return ((byte >>> (bit & 7)) & 1) === 1
}

const X2APIC_FIRST = 0x800
const X2APIC_LAST = 0x8ff

/** An x2APIC register's place in the APIC page; -1 for other registers, or when the mode is off. */
function x2apicOffset(core: Core, index: number): number {
  if ((core.secondary & Secondary.X2APIC) === 0 || index < X2APIC_FIRST || index > X2APIC_LAST) return -1
  return (index - X2APIC_FIRST) * 16
}

/** RDMSR with the index in RCX. False: it did not complete; an exit or an exception took place instead. */
export function rdmsr(core: Core): boolean {
  const { registers } = core
  const index = registers.low(Register.RCX)
  if (msrExits(core, index, false)) {
    core.exit(ExitReason.RDMSR, 0, LENGTH)
    return false
  }
  const offset = x2apicOffset(core, index)
  const virtual = offset < 0 ? -1 : core.apic.virtualize(offset, 4, false, 0)
  const value = virtual < 0 ? readMsrValue(core, index) : BigInt(virtual)
  if (value === null) {
    raise(core, GENERAL_PROTECTION, 0)
    return false
  }
  registers.setLow(Register.RAX, Number(value & 0xffff_ffffn))
  registers.setLow(Register.RDX, Number((value >> 32n) & 0xffff_ffffn))
  core.retire(LENGTH)
  return true
}

/** WRMSR of EDX:EAX with the index in RCX. */
export function wrmsr(core: Core): boolean {
  const { registers } = core
  const index = registers.low(Register.RCX)
  if (msrExits(core, index, true)) {
    core.exit(ExitReason.WRMSR, 0, LENGTH)
    return false
  }
  const low = registers.low(Register.RAX)
  const offset = x2apicOffset(core, index)
  if (offset < 0 || core.apic.virtualize(offset, 4, true, low) < 0) {
    const value = (BigInt(registers.low(Register.RDX)) << 32n) | BigInt(low)
    if (!core.msrs.accepts(index, value)) {
      raise(core, GENERAL_PROTECTION, 0)
      return false
    }
    writeMsrValue(core, index, value)
  }
  core.retire(LENGTH)
  return true
}
