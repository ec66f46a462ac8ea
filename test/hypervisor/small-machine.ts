/** The least there is around a processor: memory, an EPT, and root software that a test supplies. */
import { ModelProcessor } from '../../hypervisor/model-processor.ts'
import type { GuestApic, ProcessorParts } from '../../hypervisor/processor.ts'
import type { CapabilityProfile } from '../../hypervisor/vtx/capability.ts'
import { HASWELL } from '../../hypervisor/vtx/capability.ts'
import { EptTables, PagePool } from '../../hypervisor/vtx/ept.ts'
import { EptEntry } from '../../hypervisor/vtx/ept-walk.ts'
import { Field, type FieldName } from '../../hypervisor/vtx/field.ts'
import { Physical } from '../../hypervisor/vtx/physical.ts'
import { startVmx } from '../../hypervisor/vtx/start-state.ts'
import { GuestMemory, gpa } from '../../protocol/memory.ts'
import type { GuestProcessor } from '../../protocol/processor.ts'

export const RWX = EptEntry.READ | EptEntry.WRITE | EptEntry.EXECUTE
export const RAM_BYTES = 8 * 2 ** 20
/** Host-physical: the hypervisor's own memory, and far above 4 GiB the guest's. */
export const OWN_BYTES = 2 ** 20
export const RAM_AT = 0x10_0000_0000
export const LAYOUT = {
  vmxonRegion: 0x1000,
  vmcsRegion: 0x2000,
  ioBitmapA: 0x3000,
  ioBitmapB: 0x4000,
  msrBitmap: 0x5000,
  virtualApic: 0x6000,
  tables: 0x10000,
} as const
/** Guest-physical: the interrupt table and the stack lie in the last pages of RAM. */
export const INTERRUPT_TABLE = gpa(RAM_BYTES - 0x1000)
export const STACK_TOP = gpa(RAM_BYTES - 0x1000)

export const NO_APIC: GuestApic = {
  endOfInterrupt() {},
  routeLine() {},
  armTimer() {},
  virtualize: () => -1,
  taskPriorityChanged() {},
  deliverVirtual: () => -1,
}

export type Exited = (reason: number, machine: SmallMachine) => void

export interface SmallMachineOptions {
  readonly profile?: CapabilityProfile
  readonly apic?: GuestApic
  readonly accessedDirty?: boolean
  readonly leafLevelMax?: 1 | 2 | 3
}

export class SmallMachine {
  readonly ram: Uint8Array<ArrayBuffer>
  readonly physical: Physical
  readonly ept: EptTables
  readonly processor: ModelProcessor
  /** What root software does at an exit. */
  exited: Exited
  /** Reasons of all exits so far. */
  readonly reasons: number[]
  /** Vectors behind the INTR pin, the next one last. */
  readonly vectors: number[]
  nowUs: number

  constructor(options: SmallMachineOptions = {}) {
    this.ram = new Uint8Array(RAM_BYTES)
    const memory = new GuestMemory([
      { base: gpa(0), bytes: new Uint8Array(OWN_BYTES) },
      { base: gpa(RAM_AT), bytes: this.ram },
    ])
    this.physical = new Physical(memory)
    this.ept = new EptTables(
      this.physical,
      new PagePool(LAYOUT.tables, OWN_BYTES - LAYOUT.tables),
      options.leafLevelMax ?? 2,
    )
    this.ept.map(0, RAM_BYTES, { to: RAM_AT, permissions: RWX })
    this.exited = () => {
      throw new Error('an exit that the test did not expect')
    }
    this.reasons = []
    this.vectors = []
    this.nowUs = 0
    const profile = options.profile ?? HASWELL
    const parts: ProcessorParts = {
      physical: memory,
      ram: [{ base: gpa(0), lengthBytes: RAM_BYTES }],
      root: {
        exited: (reason) => {
          this.reasons.push(reason)
          this.exited(reason, this)
        },
      },
      pin: { acknowledge: () => this.#acknowledge() },
      apic: options.apic ?? NO_APIC,
      clock: { now: () => this.nowUs },
      ticksPerUs: 1,
    }
    this.processor = new ModelProcessor(parts, profile)
    startVmx(this.processor.vmx, this.processor.core.capability, this.physical, {
      ...LAYOUT,
      eptPointer: this.ept.pointer(options.accessedDirty),
      interruptTable: INTERRUPT_TABLE,
      stackTop: STACK_TOP,
    })
    this.processor.core.useContext()
  }

  get guest(): GuestProcessor {
    return this.processor.guest
  }

  /** Takes a mapping away and drops what the processor remembers of it. */
  unmap(at: number, lengthBytes: number): void {
    this.ept.unmap(at, lengthBytes)
    this.processor.invalidate()
  }

  interrupt(vector: number): void {
    this.vectors.push(vector)
    this.processor.setExternalPin(true)
  }

  #acknowledge(): number {
    const vector = this.vectors.pop()
    if (vector === undefined) throw new Error('no vector is pending')
    this.processor.setExternalPin(this.vectors.length > 0)
    return vector
  }
}

/** Root software that emulates nothing and passes over every instruction. */
export function machineWith(
  edits: Partial<Record<FieldName, [set: number, clear: number]>> = {},
): SmallMachine {
  const machine = new SmallMachine()
  const { processor } = machine
  for (const [name, [set, clear]] of Object.entries(edits)) {
    const field = Field[name as FieldName]
    processor.vmwrite(field, (((processor.vmread(field) | set) & ~clear) >>> 0) as number)
  }
  machine.exited = () => processor.advance()
  return machine
}

export function runs(machine: SmallMachine, program: (guest: GuestProcessor) => void): 'halted' | 'yielded' {
  machine.processor.setProgram({ run: program })
  return machine.processor.run()
}
