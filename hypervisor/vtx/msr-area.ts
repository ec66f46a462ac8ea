import { ProcessorStopped } from '../processor.ts'
import type { Core } from './core.ts'
import { Field } from './field.ts'
import { isLoadable } from './msr.ts'
import { readMsrValue, writeMsrValue } from './msr-access.ts'

const ENTRY_BYTES = 16

function valueAt(core: Core, entry: number): bigint {
  return (BigInt(core.physical.le32(entry + 12)) << 32n) | BigInt(core.physical.le32(entry + 8))
}

/** Loads the entry MSR-load area (SDM vol. 3, 27.4). 0, or the number of the first entry that fails, from 1. */
export function failedMsrLoad(core: Core): number {
  const base = core.vmcs.get(Field.entryMsrLoadAddress)
  const count = core.vmcs.low(Field.entryMsrLoadCount)
  for (let number = 1; number <= count; number++) {
    const entry = base + (number - 1) * ENTRY_BYTES
    const index = core.physical.le32(entry)
    const value = valueAt(core, entry)
    if (core.physical.le32(entry + 4) !== 0 || !isLoadable(index) || !core.msrs.accepts(index, value))
      return number
    writeMsrValue(core, index, value)
  }
  return 0
}

/** The exit MSR-store and MSR-load areas (SDM vol. 3, 28.4 and 28.6). A failure there is a VMX abort. */
export function storeMsrs(core: Core): void {
  const stores = core.vmcs.get(Field.exitMsrStoreAddress)
  for (let at = 0; at < core.vmcs.low(Field.exitMsrStoreCount); at++) {
    const entry = stores + at * ENTRY_BYTES
    const value = readMsrValue(core, core.physical.le32(entry))
    if (value === null) throw new ProcessorStopped(`VMX abort: entry ${at + 1} of the exit MSR-store area`)
    core.physical.putLe32(entry + 8, Number(value & 0xffff_ffffn))
    core.physical.putLe32(entry + 12, Number(value >> 32n))
  }
  const loads = core.vmcs.get(Field.exitMsrLoadAddress)
  for (let at = 0; at < core.vmcs.low(Field.exitMsrLoadCount); at++) {
    const entry = loads + at * ENTRY_BYTES
    const index = core.physical.le32(entry)
    const value = valueAt(core, entry)
    if (!isLoadable(index) || !core.msrs.accepts(index, value)) {
      throw new ProcessorStopped(`VMX abort: entry ${at + 1} of the exit MSR-load area`)
    }
    core.msrs.write(index, value)
  }
}
