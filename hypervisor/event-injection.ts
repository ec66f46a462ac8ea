import type { Plain } from '../protocol/platform.ts'
import { ApicRegister } from './apic-page.ts'
import type { ApicProfile } from './apic-profile.ts'
import type { ExitCounters } from './exit-counters.ts'
import type { LocalApic } from './local-apic.ts'
import type { PostedInterrupts } from './posted-interrupt.ts'
import type { Processor } from './processor.ts'
import { NO_VECTOR } from './vector-bits.ts'
import type { VirtualApic } from './virtual-apic.ts'
import {
  Blocking,
  Flag,
  INFO_ERROR_CODE,
  INFO_NMI_UNBLOCKED,
  INFO_VALID,
  Interruption,
  Primary,
} from './vtx/control.ts'
import { Field } from './vtx/field.ts'

const NMI_VECTOR = 2
const WINDOWS = Primary.INTERRUPT_WINDOW | Primary.NMI_WINDOW
const SHADOWS = Blocking.STI | Blocking.MOV_SS

export interface EventInjectionParts {
  readonly processor: Processor
  readonly profile: ApicProfile
  readonly apic: LocalApic
  readonly virtual: VirtualApic
  readonly posted: PostedInterrupts
  readonly counters: ExitCounters
  /** Hears what entry will inject, when somebody listens. */
  readonly injected: (info: number, again: boolean) => void
}

/**
 * What root software does about events between an exit and the next entry (SDM vol. 3, 27.6, 26.2 and 33.7):
 * the event that the exit interrupted is injected again, an NMI or interrupt is injected if the guest can take
 * it, and if it cannot, the window exit is asked for that comes as soon as it can.
 */
export class EventInjection {
  readonly #parts: EventInjectionParts
  readonly #processor: Processor
  /** An event to inject before all others: one whose delivery exited, or an exception of an emulated instruction. */
  #first: number
  #firstError: number
  #firstLength: number
  #firstAgain: boolean
  #nmi: boolean
  /** Something was requested since IRR was last seen empty. */
  #requested: boolean
  #windows: number
  #threshold: number

  constructor(parts: EventInjectionParts) {
    this.#parts = parts
    this.#processor = parts.processor
    this.#first = 0
    this.#firstError = 0
    this.#firstLength = 0
    this.#firstAgain = false
    this.#nmi = false
    this.#requested = false
    this.#windows = 0
    this.#threshold = 0
  }

  /** A vector for the guest, wherever the processor is just now. True: a guest that runs has to be made to exit. */
  request(vector: number): boolean {
    const { profile, apic, posted, virtual } = this.#parts
    if (!profile.postedInterrupts) {
      apic.page.requested.set(vector)
      this.#requested = true
      return true
    }
    const notifies = posted.post(vector)
    if (notifies && this.#processor.inGuest) {
      // The notification arrives: posted-interrupt processing (30.6), which exits not.
      posted.take(apic.page.requested)
      virtual.requestsChanged()
      this.#processor.recognizeVirtualInterrupts()
    }
    return false
  }

  requestNmi(): void {
    this.#nmi = true
  }

  /** A fault of the instruction that is being emulated; RIP stays at it. */
  raise(vector: number, errorCode: number): void {
    this.#first = INFO_VALID + INFO_ERROR_CODE + (Interruption.HARDWARE_EXCEPTION << 8) + vector
    this.#firstError = errorCode
    this.#firstLength = 0
    this.#firstAgain = false
  }

  /** First thing after an exit: keeps the event that was being delivered. */
  collect(): void {
    const processor = this.#processor
    const info = processor.vmread(Field.idtVectoringInfo)
    if (info < INFO_VALID) return
    this.#first = info - (info & INFO_NMI_UNBLOCKED)
    this.#firstError = processor.vmread(Field.idtVectoringErrorCode)
    this.#firstLength = processor.vmread(Field.exitInstructionLength)
    this.#firstAgain = true
    if (typeOf(info) !== Interruption.NMI) return
    // Its delivery has set the blocking that would now refuse it.
    const blocking = processor.vmread(Field.guestInterruptibility)
    processor.vmwrite(Field.guestInterruptibility, blocking & ~Blocking.NMI)
  }

  /** Last thing before an entry. */
  prepare(): void {
    const { profile } = this.#parts
    let windows = 0
    let free = true
    if (this.#first !== 0) {
      free = false
      this.#injectFirst()
    }
    if (this.#nmi) {
      if (free && this.#takesNmi) {
        free = false
        this.#nmi = false
        this.#inject(INFO_VALID + (Interruption.NMI << 8) + NMI_VECTOR, false)
      } else windows |= Primary.NMI_WINDOW
    }
    if (profile.virtualInterrupts) this.#synchronize()
    else if (this.#requested && this.#interrupt(free)) windows |= Primary.INTERRUPT_WINDOW
    if (windows !== this.#windows) this.#setWindows(windows)
  }

  /** Whether a guest that executed HLT has something to wake up for. */
  get wakes(): boolean {
    const { profile, apic, virtual } = this.#parts
    if (this.#first !== 0 || (this.#nmi && this.#takesNmi)) return true
    if ((this.#processor.vmread(Field.guestRflags) & Flag.IF) === 0) return false
    if (!profile.virtualInterrupts) return this.#requested && apic.deliverable() !== NO_VECTOR
    this.#synchronize()
    return virtual.pending
  }

  save(): Plain {
    return {
      first: this.#first,
      firstError: this.#firstError,
      firstLength: this.#firstLength,
      again: this.#firstAgain,
      nmi: this.#nmi,
    }
  }

  /** After the processor was loaded: the windows and the threshold in force are those of its VMCS. */
  load(saved: Plain): string | null {
    if (typeof saved !== 'object' || saved === null) return 'injection state is not an object'
    const { first, firstError, firstLength, again, nmi } = saved as Record<string, Plain | undefined>
    const isWord = (value: Plain | undefined): value is number =>
      typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 0xffff_ffff
    if (!isWord(first) || !isWord(firstError) || !isWord(firstLength))
      return 'injection state: the event is no event'
    if (first !== 0 && first < INFO_VALID) return 'injection state: the event is not valid'
    if (typeof nmi !== 'boolean' || typeof again !== 'boolean')
      return 'injection state: nmi and again are no booleans'
    this.#first = first
    this.#firstError = firstError
    this.#firstLength = firstLength
    this.#firstAgain = again
    this.#nmi = nmi
    this.#requested = true
    this.#windows = this.#processor.vmread(Field.primaryControls) & WINDOWS
    this.#threshold = this.#processor.vmread(Field.tprThreshold)
    return null
  }

  /** Injects the interrupt that is due. True: it has to wait for a window. */
  #interrupt(free: boolean): boolean {
    const { apic, profile } = this.#parts
    const highest = apic.page.requested.highest()
    this.#requested = highest !== NO_VECTOR
    const due = this.#requested ? apic.deliverable() : NO_VECTOR
    const injects = due !== NO_VECTOR && free && this.#interruptible
    // What is left is of its class or lower, and waits for its EOI anyway: no window.
    if (injects) this.#inject(INFO_VALID + apic.acknowledge(), false)
    if (profile.tprShadow) this.#updateThreshold()
    return due !== NO_VECTOR && !injects
  }

  /** The task priority below which an interrupt that it holds back could be delivered (26.1.3, exit 43). */
  #updateThreshold(): void {
    const { page } = this.#parts.apic
    const highest = page.requested.highest() >> 4
    const threshold = highest > (page.get(ApicRegister.TPR) & 0xff) >> 4 ? 0 : Math.max(highest, 0)
    if (threshold === this.#threshold) return
    this.#threshold = threshold
    this.#processor.vmwrite(Field.tprThreshold, threshold)
  }

  /** Moves what was posted or requested to where the processor looks: VIRR and RVI. */
  #synchronize(): void {
    const { posted, apic, virtual } = this.#parts
    if (posted.outstanding && posted.take(apic.page.requested)) this.#requested = true
    if (!this.#requested) return
    this.#requested = false
    virtual.requestsChanged()
  }

  #injectFirst(): void {
    const processor = this.#processor
    const info = this.#first
    this.#first = 0
    if ((info & INFO_ERROR_CODE) !== 0) processor.vmwrite(Field.entryExceptionErrorCode, this.#firstError)
    if (typeOf(info) >= Interruption.SOFTWARE_INTERRUPT) {
      processor.vmwrite(Field.entryInstructionLength, this.#firstLength)
    }
    this.#inject(info, this.#firstAgain)
  }

  #inject(info: number, again: boolean): void {
    this.#processor.vmwrite(Field.entryInterruptionInfo, info)
    if (again) this.#parts.counters.injectionsAgain++
    else this.#parts.counters.injections++
    this.#parts.injected(info, again)
  }

  get #interruptible(): boolean {
    const processor = this.#processor
    if ((processor.vmread(Field.guestRflags) & Flag.IF) === 0) return false
    return (processor.vmread(Field.guestInterruptibility) & SHADOWS) === 0
  }

  get #takesNmi(): boolean {
    return (this.#processor.vmread(Field.guestInterruptibility) & (Blocking.NMI | Blocking.MOV_SS)) === 0
  }

  #setWindows(windows: number): void {
    const processor = this.#processor
    this.#windows = windows
    const others = processor.vmread(Field.primaryControls) & ~WINDOWS
    processor.vmwrite(Field.primaryControls, (others | windows) >>> 0)
  }
}

function typeOf(info: number): number {
  return (info >> 8) & 7
}
