import type { Gpa } from '../../protocol/memory.ts'
import { ProcessorStopped } from '../processor.ts'
import type { Capability } from './capability.ts'
import { EntryControl, ExitControl, Pin, Primary, Secondary } from './control.ts'
import { Field, type FieldName } from './field.ts'
import type { Physical } from './physical.ts'
import type { Vmcs } from './vmcs.ts'
import type { Vmx } from './vmx.ts'

const FLAT_CODE = 0xa09b
const FLAT_DATA = 0xc093
const BUSY_TSS = 0x8b
const UNUSABLE = 0x10000
const CODE_SELECTOR = 0x08
const DATA_SELECTOR = 0x10
const TASK_SELECTOR = 0x18
/** PE, NE and PG; PAE and VMXE. */
const CR0 = 0x8000_0031
const CR4 = 0x2020
const IDT_BYTES = 4096
/** Anything canonical: hosts and guests made of functions have no code in memory. */
const CODE_BASE = 0x10_0000

export interface StartLayout {
  /** Host-physical pages for VMXON and the VMCS. */
  readonly vmxonRegion: number
  readonly vmcsRegion: number
  readonly eptPointer: number
  /** Guest-physical: a page for the interrupt table, and the end of a page for the stack. */
  readonly interruptTable: Gpa
  readonly stackTop: Gpa
}

/**
 * Turns VMX on and makes a VMCS current whose entry passes: a flat 64-bit guest with EPT and VPID, HLT exiting,
 * everything else as free of exits as the capabilities permit. Root software changes from here what it wants.
 */
export function startVmx(vmx: Vmx, capability: Capability, physical: Physical, layout: StartLayout): void {
  for (const region of [layout.vmxonRegion, layout.vmcsRegion]) physical.putLe32(region, capability.revision)
  const error =
    vmx.vmxon(layout.vmxonRegion) || vmx.vmclear(layout.vmcsRegion) || vmx.vmptrld(layout.vmcsRegion)
  if (error !== 0 || vmx.current === null) throw new ProcessorStopped(`VMX does not start: error ${error}`)
  writeFields(vmx.current, fieldsOf(capability, layout))
  vmx.current.putWide(Field.vmcsLinkPointer, 0xffff_ffff_ffff_ffffn)
}

function writeFields(vmcs: Vmcs, fields: Readonly<Partial<Record<FieldName, number>>>): void {
  for (const [name, value] of Object.entries(fields)) vmcs.put(Field[name as FieldName], value)
}

function fieldsOf(capability: Capability, layout: StartLayout): Readonly<Partial<Record<FieldName, number>>> {
  return {
    vpid: 1,
    eptPointer: layout.eptPointer,
    pinControls: unsigned(capability.pin.required | Pin.EXTERNAL_INTERRUPT | Pin.NMI),
    primaryControls: unsigned(capability.primary.required | Primary.HLT | Primary.SECONDARY),
    secondaryControls: unsigned(capability.secondary.required | Secondary.EPT | Secondary.VPID),
    exitControls: unsigned(capability.exit.required | ExitControl.HOST_64_BIT | ExitControl.ACKNOWLEDGE),
    entryControls: unsigned(capability.entry.required | EntryControl.IA32E_GUEST),
    guestEsSelector: DATA_SELECTOR,
    guestCsSelector: CODE_SELECTOR,
    guestSsSelector: DATA_SELECTOR,
    guestDsSelector: DATA_SELECTOR,
    guestFsSelector: DATA_SELECTOR,
    guestGsSelector: DATA_SELECTOR,
    guestTrSelector: TASK_SELECTOR,
    guestEsLimit: 0xffff_ffff,
    guestCsLimit: 0xffff_ffff,
    guestSsLimit: 0xffff_ffff,
    guestDsLimit: 0xffff_ffff,
    guestFsLimit: 0xffff_ffff,
    guestGsLimit: 0xffff_ffff,
    guestTrLimit: 0x67,
    guestIdtrLimit: IDT_BYTES - 1,
    guestEsRights: FLAT_DATA,
    guestCsRights: FLAT_CODE,
    guestSsRights: FLAT_DATA,
    guestDsRights: FLAT_DATA,
    guestFsRights: FLAT_DATA,
    guestGsRights: FLAT_DATA,
    guestLdtrRights: UNUSABLE,
    guestTrRights: BUSY_TSS,
    guestIdtrBase: layout.interruptTable,
    guestDr7: 0x400,
    guestCr0: CR0,
    guestCr4: CR4,
    guestRsp: layout.stackTop,
    guestRip: CODE_BASE,
    guestRflags: 2,
    hostEsSelector: DATA_SELECTOR,
    hostCsSelector: CODE_SELECTOR,
    hostSsSelector: DATA_SELECTOR,
    hostDsSelector: DATA_SELECTOR,
    hostFsSelector: DATA_SELECTOR,
    hostGsSelector: DATA_SELECTOR,
    hostTrSelector: TASK_SELECTOR,
    hostCr0: CR0,
    hostCr4: CR4,
    hostRip: CODE_BASE,
  }
}

function unsigned(value: number): number {
  return value >>> 0
}
