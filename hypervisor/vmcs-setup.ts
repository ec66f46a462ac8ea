import { gpa } from '../protocol/memory.ts'
import type { ApicProfile } from './apic-profile.ts'
import { FIRMWARE_BASE, FIRMWARE_BYTES, type MachineMemory, OwnPage } from './machine-memory.ts'
import type { ModelProcessor } from './model-processor.ts'
import type { Processor } from './processor.ts'
import { ExitControl, Pin, Primary, Secondary } from './vtx/control.ts'
import { Field } from './vtx/field.ts'
import { Msr } from './vtx/msr.ts'
import { Physical } from './vtx/physical.ts'
import { startVmx } from './vtx/start-state.ts'

/** The vector by which the processor knows a posted interrupt from others. */
export const NOTIFICATION_VECTOR = 0xf2

const EOI_BITMAPS = [
  Field.eoiExitBitmap0,
  Field.eoiExitBitmap1,
  Field.eoiExitBitmap2,
  Field.eoiExitBitmap3,
] as const
/** Quarters of the MSR bitmap: reads of low registers, writes of low registers (SDM vol. 3, 25.6.9). */
const MSR_READ_LOW = 0
const MSR_WRITE_LOW = 2048

/** Makes the VMCS of a machine: what exits, and where the pages lie that processor and root software share. */
export function setUpVmcs(processor: ModelProcessor, memory: MachineMemory, profile: ApicProfile): void {
  const { core } = processor
  startVmx(processor.vmx, core.capability, new Physical(memory.physical), {
    vmxonRegion: OwnPage.VMXON,
    vmcsRegion: OwnPage.VMCS,
    eptPointer: memory.ept.pointer(),
    interruptTable: FIRMWARE_BASE,
    stackTop: gpa(FIRMWARE_BASE + FIRMWARE_BYTES),
  })
  processor.vmwrite(Field.msrBitmap, OwnPage.MSR_BITMAP)
  processor.vmwrite(Field.virtualApicAddress, OwnPage.VIRTUAL_APIC)
  processor.vmwrite(Field.apicAccessAddress, OwnPage.APIC_ACCESS)
  const bitmap = memory.own(OwnPage.MSR_BITMAP)
  for (const quarter of [MSR_READ_LOW, MSR_WRITE_LOW]) {
    bitmap.copyIn(quarter + (Msr.TSC_DEADLINE >> 3), Uint8Array.of(1 << (Msr.TSC_DEADLINE & 7)))
  }
  add(processor, Field.pinControls, Pin.EXTERNAL_INTERRUPT | Pin.NMI | Pin.VIRTUAL_NMIS)
  add(processor, Field.exitControls, ExitControl.ACKNOWLEDGE)
  add(processor, Field.primaryControls, Primary.UNCONDITIONAL_IO | Primary.MSR_BITMAPS)
  add(processor, Field.secondaryControls, Secondary.APIC_ACCESSES)
  const shadow = profile.tprShadow ? Primary.TPR_SHADOW : Primary.CR8_LOAD | Primary.CR8_STORE
  add(processor, Field.primaryControls, shadow)
  if (profile.apicRegisters) add(processor, Field.secondaryControls, Secondary.APIC_REGISTERS)
  if (profile.virtualInterrupts) add(processor, Field.secondaryControls, Secondary.VIRTUAL_INTERRUPTS)
  if (!profile.postedInterrupts) return
  processor.vmwrite(Field.postedInterruptVector, NOTIFICATION_VECTOR)
  processor.vmwrite(Field.postedInterruptDescriptor, OwnPage.POSTED_INTERRUPTS)
  add(processor, Field.pinControls, Pin.POSTED_INTERRUPTS)
}

/** Has the EOI of a vector exit when somebody waits for it. */
export function setEoiExits(processor: Processor, exits: (vector: number) => boolean): void {
  for (const [index, field] of EOI_BITMAPS.entries()) {
    let bits = 0n
    for (let bit = 0; bit < 64; bit++) if (exits(index * 64 + bit)) bits |= 1n << BigInt(bit)
    processor.vmwriteWide(field, bits)
  }
}

function add(processor: Processor, field: number, bits: number): void {
  processor.vmwrite(field, (processor.vmread(field) | bits) >>> 0)
}
