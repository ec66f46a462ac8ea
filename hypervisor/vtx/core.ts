import type { Clock } from '../../protocol/platform.ts'
import {
  GeneralRegisters,
  type GuestApic,
  type PinSource,
  ProcessorStopped,
  type RootSoftware,
} from '../processor.ts'
import { Capability, type CapabilityProfile } from './capability.ts'
import { VTPR } from './check-controls.ts'
import { EntryState } from './check-group.ts'
import {
  Activity,
  Blocking,
  ENTRY_FAILURE,
  ExitControl,
  ExitReason,
  Flag,
  INFO_VALID,
  Pin,
  Primary,
  Secondary,
  VmError,
} from './control.ts'
import type { Decoded } from './decoded.ts'
import { type FailedCheck, failedCheck } from './entry-checks.ts'
import { EptWalk } from './ept-walk.ts'
import { FIELD_COUNT, Field } from './field.ts'
import { MsrFile } from './msr.ts'
import { failedMsrLoad, storeMsrs } from './msr-area.ts'
import type { Physical } from './physical.ts'
import { Progress } from './progress.ts'
import { NO_EPT, Translation } from './translation.ts'
import { Vmcs } from './vmcs.ts'
import { Vmx } from './vmx.ts'

/** Why the next boundary between two operations is not passed unseen. */
export const Attention = {
  TRAP: 1,
  TIMER: 2,
  NMI_WINDOW: 4,
  NMI: 8,
  INTERRUPT_WINDOW: 16,
  PIN: 32,
  VIRTUAL: 64,
} as const

const NO_TRAP = -1

export interface CoreParts {
  readonly physical: Physical
  readonly root: RootSoftware
  readonly pin: PinSource
  readonly apic: GuestApic
  readonly clock: Pick<Clock, 'now'>
  readonly ticksPerUs: number
  readonly profile: CapabilityProfile
}

/** What goes on at an interrupt: code of guest operations nests the handler, an interpreter jumps to it. */
export interface GuestCode {
  /** `returnRip` is what the frame holds; `hasErrorCode`: an error code lies on top of it. */
  interrupt(vector: number, returnRip: number, hasErrorCode: boolean): void
}

/** Delivers what VM entry injects. Apart from the core because delivery itself reads memory and exits. */
export interface EventDelivery {
  inject(info: number, errorCode: number, instructionLength: number): void
}

/** Linear addresses of guests that have paging of their own. Negative: an exit took place instead. */
export interface GuestPaging {
  translate(linear: number, access: number): number
}

/**
 * The architectural state of one processor and its two transitions: VM exit (SDM vol. 3, chapter 28) and VM
 * entry (chapter 27). Everything the guest does is in other files and ends here.
 *
 * RIP, RSP and RFLAGS of a running guest are Numbers: guests live below 2^53.
 */
export class Core {
  readonly capability: Capability
  readonly physical: Physical
  readonly registers: GeneralRegisters
  readonly msrs: MsrFile
  readonly vmx: Vmx
  readonly translation: Translation
  readonly root: RootSoftware
  readonly pin: PinSource
  readonly apic: GuestApic
  readonly #clock: Pick<Clock, 'now'>
  readonly ticksPerUs: number
  readonly state: EntryState
  code: GuestCode
  delivery: EventDelivery
  paging: GuestPaging | null
  /** What has to happen when the translations are dropped, besides dropping them. */
  invalidated: () => void
  decoded: Decoded | null

  inGuest: boolean
  /** Root software is at work on an exit. */
  handling: boolean
  rip: number
  rsp: number
  rflags: number
  /** Interruptibility state. */
  blocking: number
  activity: number
  cr8: number

  vmcs: Vmcs
  pinControls: number
  primary: number
  /** 0 unless activated. */
  secondary: number
  attention: number
  nmiPending: boolean
  pinAsserted: boolean
  trapReason: number
  trapQualification: number
  /** IDT-vectoring information of the event under delivery, and its error code and instruction length. */
  vectoring: number
  vectoringError: number
  vectoringLength: number
  /** Bit 12 of an EPT violation: IRET has ended NMI blocking, and is not complete. */
  nmiUnblocked: boolean
  lastFailure: FailedCheck | null
  /** Timer counts at which the VMX-preemption timer runs out. */
  preemptionAt: number
  readonly progress: Progress

  /** `code` and `delivery` belong to who makes the core, and are set before the first entry. */
  constructor(parts: CoreParts) {
    this.capability = new Capability(parts.profile)
    this.physical = parts.physical
    this.registers = new GeneralRegisters()
    this.msrs = new MsrFile(this.capability)
    this.translation = new Translation(new EptWalk(parts.physical, this.capability))
    this.vmx = new Vmx(this.capability, parts.physical, { invalidate: () => this.invalidate() })
    this.root = parts.root
    this.pin = parts.pin
    this.apic = parts.apic
    this.#clock = parts.clock
    this.ticksPerUs = parts.ticksPerUs
    this.code = { interrupt() {} }
    this.delivery = { inject() {} }
    this.paging = null
    this.invalidated = () => {}
    this.decoded = null
    this.inGuest = false
    this.handling = false
    this.rip = 0
    this.rsp = 0
    this.rflags = 2
    this.blocking = 0
    this.activity = Activity.ACTIVE
    this.cr8 = 0
    this.vmcs = NO_VMCS
    this.state = new EntryState(NO_VMCS, this.capability, parts.physical.memory)
    this.pinControls = 0
    this.primary = 0
    this.secondary = 0
    this.attention = 0
    this.nmiPending = false
    this.pinAsserted = false
    this.trapReason = NO_TRAP
    this.trapQualification = 0
    this.vectoring = 0
    this.vectoringError = 0
    this.vectoringLength = 0
    this.nmiUnblocked = false
    this.lastFailure = null
    this.preemptionAt = Number.POSITIVE_INFINITY
    this.progress = new Progress()
  }

  now(): number {
    return this.#clock.now()
  }

  /** The time-stamp counter. */
  ticks(): number {
    return Math.floor(this.#clock.now() * this.ticksPerUs)
  }

  invalidate(): void {
    this.translation.invalidate()
    this.invalidated()
  }

  /** A VM exit, root software, and the entry after it. */
  exit(reason: number, qualification: number, instructionLength: number): void {
    this.record(reason, qualification, instructionLength)
    this.handle(reason)
    this.resume()
  }

  /** Runs root software; it throws to stop the run. */
  handle(reason: number): void {
    this.handling = true
    this.root.exited(reason)
    this.handling = false
  }

  /** Guest code that runs before the first `run`, or after HLT, enters the guest by what it does. */
  ensureGuest(): void {
    if (this.inGuest) return
    if (this.handling)
      throw new ProcessorStopped('a guest operation was executed by root software inside an exit')
    this.resume()
  }

  /** The EPT context of the current VMCS, for memory that is reached before the first entry. */
  useContext(): void {
    const vmcs = this.vmx.current
    if (vmcs === null) return
    const secondary = (vmcs.low(Field.primaryControls) & Primary.SECONDARY) !== 0
    const ept = secondary && (vmcs.low(Field.secondaryControls) & Secondary.EPT) !== 0
    if (this.translation.use(ept ? vmcs.get(Field.eptPointer) : NO_EPT)) this.invalidated()
  }

  /** Stores what an exit leaves in the VMCS (SDM vol. 3, 28.2 and 28.3). The processor is in root operation. */
  record(reason: number, qualification: number, instructionLength: number): void {
    const { vmcs } = this
    this.progress.note(this, reason)
    this.inGuest = false
    vmcs.store(Field.exitReason, reason)
    vmcs.store(Field.exitQualification, qualification)
    vmcs.store(Field.exitInstructionLength, instructionLength)
    if (reason !== ExitReason.EXCEPTION_OR_NMI && reason !== ExitReason.EXTERNAL_INTERRUPT) {
      vmcs.store(Field.exitInterruptionInfo, 0)
    }
    vmcs.store(Field.idtVectoringInfo, this.vectoring)
    if (this.vectoring !== 0) {
      vmcs.store(Field.idtVectoringErrorCode, this.vectoringError)
      if (((this.vectoring >> 8) & 7) >= 4) vmcs.store(Field.exitInstructionLength, this.vectoringLength)
      this.vectoring = 0
    }
    const event = vmcs.low(Field.entryInterruptionInfo)
    if (event >= INFO_VALID) vmcs.store(Field.entryInterruptionInfo, event - INFO_VALID)
    vmcs.store(Field.guestRip, this.rip)
    vmcs.store(Field.guestRsp, this.rsp)
    vmcs.store(Field.guestRflags, this.rflags)
    vmcs.store(Field.guestInterruptibility, this.blocking)
    vmcs.store(Field.guestActivity, this.activity)
    this.nmiUnblocked = false
    const exitControls = vmcs.low(Field.exitControls)
    if ((exitControls & ExitControl.SAVE_PREEMPTION_TIMER) !== 0) {
      vmcs.store(Field.preemptionTimer, Math.max(0, this.preemptionAt - this.#preemptionCount()))
    }
    if (vmcs.low(Field.exitMsrStoreCount) + vmcs.low(Field.exitMsrLoadCount) !== 0) storeMsrs(this)
  }

  /** VMRESUME, or VMLAUNCH of a VMCS that was not launched, as the return of root software. */
  resume(): void {
    const error = this.enter(this.vmx.current?.launched === true ? 'vmresume' : 'vmlaunch', false)
    if (error === 0) return
    const check = this.lastFailure === null ? '' : `: not so that ${this.lastFailure.check.name}`
    throw new ProcessorStopped(`VM entry failed with VM-instruction error ${error}${check}`)
  }

  /**
   * VMLAUNCH or VMRESUME (SDM vol. 3, 27.1). Answers as the instructions of `vmx.ts` do; 0 when the guest runs,
   * its injected event delivered. Entries that fail by an exit (reasons 33 and 34) go to root software, and its
   * return is another entry.
   */
  enter(instruction: 'vmlaunch' | 'vmresume', afterMovSs: boolean): number {
    this.lastFailure = null
    for (let launching = instruction === 'vmlaunch'; ; ) {
      const vmcs = this.vmx.current
      if (vmcs === null) return this.vmx.fail(0)
      if (afterMovSs) return this.vmx.fail(VmError.ENTRY_AFTER_MOV_SS)
      if (launching && vmcs.launched) return this.vmx.fail(VmError.VMLAUNCH_NOT_CLEAR)
      if (!launching && !vmcs.launched) return this.vmx.fail(VmError.VMRESUME_NOT_LAUNCHED)
      this.vmcs = vmcs
      this.state.vmcs = vmcs
      const failed = failedCheck(this.state)
      let reason: number = ExitReason.INVALID_GUEST_STATE
      let qualification = failed?.check.qualification ?? 0
      if (failed !== null) {
        this.lastFailure = failed
        if (failed.group.failure === 'controls') return this.vmx.fail(VmError.ENTRY_CONTROLS)
        if (failed.group.failure === 'host') return this.vmx.fail(VmError.ENTRY_HOST_STATE)
      } else {
        const entry = vmcs.low(Field.entryMsrLoadCount) === 0 ? 0 : failedMsrLoad(this)
        if (entry === 0) break
        reason = ExitReason.MSR_LOADING
        qualification = entry
      }
      this.progress.note(this, reason)
      vmcs.store(Field.exitReason, ENTRY_FAILURE + reason)
      vmcs.store(Field.exitQualification, qualification)
      this.handle(ENTRY_FAILURE + reason)
      launching = this.vmx.current?.launched !== true
    }
    this.vmcs.launched = true
    this.#load()
    const event = this.vmcs.low(Field.entryInterruptionInfo)
    if (event >= INFO_VALID) {
      const error = this.vmcs.low(Field.entryExceptionErrorCode)
      this.delivery.inject(event, error, this.vmcs.low(Field.entryInstructionLength))
    }
    return 0
  }

  /** The operation is complete: RIP moves behind it, STI and MOV SS block no more, trap-like exits take place. */
  retire(lengthBytes: number): void {
    this.rip += lengthBytes
    if ((this.blocking & (Blocking.STI | Blocking.MOV_SS)) !== 0) {
      this.blocking &= ~(Blocking.STI | Blocking.MOV_SS)
    }
    if ((this.attention & Attention.TRAP) !== 0) this.trap()
  }

  /** Takes a requested trap-like exit. */
  trap(): void {
    const reason = this.trapReason
    this.trapReason = NO_TRAP
    this.attention &= ~Attention.TRAP
    this.exit(reason, this.trapQualification, 0)
  }

  requestTrap(reason: number, qualification: number): void {
    this.trapReason = reason
    this.trapQualification = qualification
    this.attention |= Attention.TRAP
  }

  /** RFLAGS.IF, and neither STI nor MOV SS blocks. */
  get interruptible(): boolean {
    return (this.rflags & Flag.IF) !== 0 && (this.blocking & (Blocking.STI | Blocking.MOV_SS)) === 0
  }

  get preemptionExpired(): boolean {
    return !(this.#preemptionCount() < this.preemptionAt)
  }

  /** Virtual time in microseconds at which the VMX-preemption timer runs out, null when it is not active. */
  get preemptionDueUs(): number | null {
    if ((this.attention & Attention.TIMER) === 0) return null
    return (this.preemptionAt * 2 ** this.capability.preemptionShift) / this.ticksPerUs
  }

  setPin(asserted: boolean): void {
    this.pinAsserted = asserted
    this.#attend(Attention.PIN, asserted)
  }

  setNmi(pending: boolean): void {
    this.nmiPending = pending
    this.#attend(Attention.NMI, pending)
  }

  #attend(why: number, on: boolean): void {
    this.attention = on ? this.attention | why : this.attention & ~why
  }

  /** Timer counts since power-on: the timer steps whenever the time-stamp counter's bit `preemptionShift` does. */
  #preemptionCount(): number {
    return Math.floor(this.ticks() / 2 ** this.capability.preemptionShift)
  }

  /** After `load` of a saved state: what entry would have derived from the VMCS. */
  restore(attention: number, preemptionAt: number): void {
    this.decoded = null
    this.vectoring = 0
    if (this.vmx.current !== null) {
      this.vmcs = this.vmx.current
      this.state.vmcs = this.vmcs
      this.#loadControls()
    }
    this.attention = attention
    this.preemptionAt = preemptionAt
    this.invalidate()
  }

  #loadControls(): void {
    const { vmcs } = this
    this.pinControls = vmcs.low(Field.pinControls)
    this.primary = vmcs.low(Field.primaryControls)
    this.secondary = (this.primary & Primary.SECONDARY) !== 0 ? vmcs.low(Field.secondaryControls) : 0
    this.useContext()
  }

  #load(): void {
    const { vmcs } = this
    this.rip = vmcs.get(Field.guestRip)
    this.rsp = vmcs.get(Field.guestRsp)
    this.rflags = vmcs.low(Field.guestRflags)
    this.blocking = vmcs.low(Field.guestInterruptibility)
    this.activity = vmcs.low(Field.guestActivity)
    this.#loadControls()
    this.decoded = null
    this.inGuest = true
    const timer = (this.pinControls & Pin.PREEMPTION_TIMER) !== 0
    if (timer) this.preemptionAt = this.#preemptionCount() + vmcs.low(Field.preemptionTimer)
    this.#attend(Attention.TIMER, timer)
    this.#attend(Attention.NMI_WINDOW, (this.primary & Primary.NMI_WINDOW) !== 0)
    this.#attend(Attention.INTERRUPT_WINDOW, (this.primary & Primary.INTERRUPT_WINDOW) !== 0)
    if ((this.secondary & Secondary.VIRTUAL_INTERRUPTS) !== 0) this.attention |= Attention.VIRTUAL
    this.attention &= ~Attention.TRAP
    if ((this.primary & Primary.TPR_SHADOW) !== 0) this.#judgeTaskPriority()
  }

  /** A task priority below its threshold exits right after entry (27.7.7), where entry did not refuse it. */
  #judgeTaskPriority(): void {
    if ((this.secondary & Secondary.VIRTUAL_INTERRUPTS) !== 0) return
    const shadow = this.physical.u8(this.vmcs.get(Field.virtualApicAddress) + VTPR) >> 4
    if (shadow < (this.vmcs.low(Field.tprThreshold) & 15)) this.requestTrap(ExitReason.TPR_BELOW_THRESHOLD, 0)
  }
}

/** Stands where no VMCS was entered yet. */
const NO_VMCS = new Vmcs(new Uint32Array(FIELD_COUNT))
