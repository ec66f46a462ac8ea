/** Carries out the witness's cases on our own processor model, from the same tables as Bochs. */
import { Register as RegisterNumber, type RootSoftware } from '../../../hypervisor/processor.ts'
import { MemoryAccess } from '../../../hypervisor/vtx/access.ts'
import { type CapabilityProfile, HASWELL } from '../../../hypervisor/vtx/capability.ts'
import { VM_SUCCEED } from '../../../hypervisor/vtx/control.ts'
import { Core } from '../../../hypervisor/vtx/core.ts'
import { IdtDelivery } from '../../../hypervisor/vtx/delivery.ts'
import { Physical } from '../../../hypervisor/vtx/physical.ts'
import { GuestMemory } from '../../../protocol/memory.ts'
import type { CaseOutcomes } from './bochs.ts'
import type { Change, Execute, Step, WitnessCase } from './cases.ts'
import { defaultFields, defaultGuestMemory, MEMORY } from './defaults.ts'
import { FIELD } from './fields.ts'
import { Interpreter, LongModePaging } from './interpreter.ts'
import { type Answer, type Outcome, REPORTED_FIELDS, type ReportedField, reduce } from './records.ts'

const PHYSICAL_BYTES = 8 * 2 ** 20
const REVISION = 0x2bn
const ALL_ONES = 0xffff_ffff_ffff_ffffn
const EPT_TABLE = 7n
const EPT_LEAF = 0x37n
const EPT_LARGE_LEAF = 0xb7n

/** Stops the guest at its first exit: the witness enters again by an instruction of its own. */
class Exited extends Error {}

class Stopper implements RootSoftware {
  exited(): void {
    throw new Exited()
  }
}

const BYTES = new Uint8Array(PHYSICAL_BYTES)
const PHYSICAL = new GuestMemory([{ base: 0 as never, bytes: BYTES }])
const VIEW = new DataView(BYTES.buffer)

/** One processor with the default state of defaults.ts, for one case. */
class Bench {
  readonly core: Core
  readonly interpreter: Interpreter
  readonly #vectors: number[]
  #nowUs: number

  constructor(one: WitnessCase, profile: CapabilityProfile) {
    this.#vectors = []
    this.#nowUs = 0
    const core = new Core({
      physical: new Physical(PHYSICAL),
      root: new Stopper(),
      pin: { acknowledge: () => this.#acknowledge() },
      apic: NO_APIC,
      clock: { now: () => this.#nowUs++ },
      ticksPerUs: 1,
      profile,
    })
    const access = new MemoryAccess(core)
    const delivery = new IdtDelivery(core, access)
    core.delivery = delivery
    core.paging = new LongModePaging(core, access)
    this.core = core
    this.interpreter = new Interpreter(core, access, delivery, one.program)
    this.#layOut()
  }

  step(step: Step, first: boolean): Answer {
    const { core } = this
    if (step.advance === true) {
      const length = this.#read('exitInstructionLength')
      core.vmx.vmwrite(FIELD.guestRip, BigInt(this.#read('guestRip') + length))
    }
    for (const [name, value] of Object.entries(step.registers ?? {})) {
      const number = RegisterNumber[name.toUpperCase() as keyof typeof RegisterNumber]
      core.registers.setWide(number, value)
    }
    for (const change of step.changes ?? []) this.#change(change)
    if (step.execute !== undefined) return { kind: 'vmfail', error: this.#execute(step.execute) }
    const enter = step.enter ?? (first ? 'vmlaunch' : 'vmresume')
    core.invalidate()
    try {
      const error = core.enter(enter === 'vmresume' ? enter : 'vmlaunch', enter === 'vmlaunch-after-mov-ss')
      if (error !== VM_SUCCEED) return { kind: 'vmfail', error }
      this.interpreter.run()
    } catch (thrown) {
      if (!(thrown instanceof Exited)) throw thrown
      core.handling = false
      return this.#report()
    }
  }

  #report(): Answer {
    const { registers } = this.core
    const fields = REPORTED_FIELDS.map((name) => [name, this.#read(name)])
    return {
      kind: 'exit',
      fields: Object.fromEntries(fields) as Record<ReportedField, number>,
      registers: {
        rcx: registers.get(RegisterNumber.RCX),
        rsi: registers.get(RegisterNumber.RSI),
        rdi: registers.get(RegisterNumber.RDI),
      },
    }
  }

  #read(name: ReportedField): number {
    const value = this.core.vmx.vmread(FIELD[name])
    return typeof value === 'bigint' ? Number(value) : Number.NaN
  }

  #layOut(): void {
    BYTES.fill(0, MEMORY.hypervisorRam, MEMORY.hypervisorRam + MEMORY.hypervisorRamBytes)
    BYTES.fill(0, MEMORY.guestRam, MEMORY.guestRam + MEMORY.guestRamBytes)
    for (const region of [MEMORY.vmxonRegion, MEMORY.vmcsRegion, MEMORY.linkVmcs]) put(region, REVISION)
    put(MEMORY.eptPml4, BigInt(MEMORY.eptPdpt) + EPT_TABLE)
    put(MEMORY.eptPdpt, BigInt(MEMORY.eptDirectory) + EPT_TABLE)
    put(MEMORY.eptPdpt + 8, EPT_LARGE_LEAF)
    put(MEMORY.eptDirectory, BigInt(MEMORY.eptTable) + EPT_TABLE)
    put(MEMORY.eptDirectory + 8, BigInt(MEMORY.largeLeaf) + EPT_LARGE_LEAF)
    for (let page = 0; page < 512; page++) {
      put(MEMORY.eptTable + 8 * page, BigInt(MEMORY.guestRam + 4096 * page) + EPT_LEAF)
    }
    for (const { address, value } of defaultGuestMemory()) put(MEMORY.guestRam + address, value)
    const { vmx } = this.core
    for (const error of [
      vmx.vmxon(MEMORY.vmxonRegion),
      vmx.vmclear(MEMORY.vmcsRegion),
      vmx.vmptrld(MEMORY.vmcsRegion),
      ...defaultFields().map(({ encoding, value }) => vmx.vmwrite(encoding, value)),
    ]) {
      if (error !== VM_SUCCEED) throw new Error(`the default state is refused with error ${error}`)
    }
  }

  #change(change: Change): void {
    const { core } = this
    switch (change.kind) {
      case 'field':
        core.vmx.vmwrite(FIELD[change.field], change.value)
        return
      case 'bits': {
        const old = core.vmx.vmread(FIELD[change.field])
        if (typeof old !== 'bigint') throw new Error(`${change.field} cannot be read`)
        core.vmx.vmwrite(FIELD[change.field], (old & (ALL_ONES ^ change.clear)) | change.set)
        return
      }
      case 'ept':
        modify(eptEntry(change.level, change.address), change.set, change.clear)
        return
      case 'ioBitmap':
        for (let port = change.port; port < change.port + change.count; port++) setBit(MEMORY.ioBitmapA, port)
        return
      case 'msrBitmap': {
        const high = change.msr >= 0xc000_0000
        const quarter = (change.access === 'read' ? 0 : 2) + (high ? 1 : 0)
        setBit(MEMORY.msrBitmap + 1024 * quarter, high ? change.msr - 0xc000_0000 : change.msr)
        return
      }
      case 'entryMsr':
        put(MEMORY.entryMsrLoad + 16 * change.index, BigInt(change.reserved * 2 ** 32 + change.msr))
        put(MEMORY.entryMsrLoad + 16 * change.index + 8, change.value)
        return
      case 'guestMemory':
        put(MEMORY.guestRam + change.address, change.value)
        return
      case 'virtualApic':
        VIEW.setUint32(MEMORY.virtualApic + change.offset, Number(change.value), true)
        return
      case 'linkVmcs':
        VIEW.setUint32(MEMORY.linkVmcs, Number(change.revision), true)
        return
      case 'raise':
        this.#vectors.push(change.vector)
        core.setPin(true)
    }
  }

  #execute(execute: Execute): number {
    const { vmx } = this.core
    switch (execute.instruction) {
      case 'vmptrld':
        return vmx.vmptrld(execute.address)
      case 'vmclear':
        return vmx.vmclear(execute.address)
      case 'vmxon':
        return vmx.vmxon(execute.address)
      case 'vmread': {
        const value = vmx.vmread(execute.encoding)
        if (typeof value === 'bigint') return VM_SUCCEED
        return value === -1 ? value : -value
      }
      case 'vmwrite':
        return vmx.vmwrite(execute.encoding, execute.value)
      case 'invept':
        return vmx.invept(execute.type, execute.descriptor)
      case 'invvpid':
        return vmx.invvpid(execute.type, execute.descriptor)
    }
  }

  #acknowledge(): number {
    const vector = this.#vectors.pop()
    if (vector === undefined) throw new Error('no vector is pending')
    this.core.setPin(this.#vectors.length > 0)
    return vector
  }
}

const NO_APIC = {
  endOfInterrupt() {},
  routeLine() {},
  armTimer() {},
  virtualize: () => -1,
  taskPriorityChanged() {},
  deliverVirtual: () => -1,
}

function put(at: number, value: bigint): void {
  VIEW.setBigUint64(at, value, true)
}

function modify(at: number, set: bigint, clear: bigint): void {
  put(at, (VIEW.getBigUint64(at, true) & (ALL_ONES ^ clear)) | set)
}

function setBit(base: number, index: number): void {
  const at = base + Math.floor(index / 8)
  BYTES[at] = (BYTES[at] as number) | (1 << (index % 8))
}

function eptEntry(level: 1 | 2 | 3 | 4, address: number): number {
  const table = { 1: MEMORY.eptTable, 2: MEMORY.eptDirectory, 3: MEMORY.eptPdpt, 4: MEMORY.eptPml4 }[level]
  return table + 8 * (Math.floor(address / (4096 * 512 ** (level - 1))) % 512)
}

export function runModel(one: WitnessCase, profile: CapabilityProfile = HASWELL): CaseOutcomes {
  const bench = new Bench(one, profile)
  const outcomes: Outcome[] = one.steps.map((step: Step, index: number) =>
    reduce(bench.step(step, index === 0)),
  )
  return { name: one.name, outcomes }
}
