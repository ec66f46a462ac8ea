import { APIC_ENABLED, type ApicPage, ApicRegister, LVT_MASKED } from './apic-page.ts'
import type { NamedTimer } from './named-work.ts'
import { NO_VECTOR } from './vector-bits.ts'

/** Delivery modes of ICR and messages (SDM vol. 3, 11.6.1 and 11.11.2). */
export const DeliveryMode = { FIXED: 0, LOWEST: 1, SMI: 2, NMI: 4, INIT: 5, STARTUP: 6, EXTINT: 7 } as const

const TSC_DEADLINE_MODE = 2 << 17
const TIMER_MODE = 3 << 17
const SELF = 1
const ALL_WITH_SELF = 2
/** ESR bits: a vector below 16 received, sent, or programmed. */
const RECEIVED_ILLEGAL = 1 << 6
const SENT_ILLEGAL = 1 << 5
/** Writable bits of an LVT entry: vector, delivery mode, polarity, trigger, mask, timer mode. */
const LVT_BITS = 0x7a7ff

/** What a local APIC tells the rest of the machine. */
export interface ApicListener {
  /** A vector was accepted and is to be requested: in IRR, or on the way there. */
  request(vector: number): void
  /** The vector ended, and was level-triggered. */
  ended(vector: number): void
  nmi(): void
}

export interface LocalApicParts {
  readonly page: ApicPage
  readonly timer: NamedTimer
  readonly ticksPerUs: number
  readonly listener: ApicListener
}

/**
 * The local APIC as root software emulates it, on the page that the processor virtualizes where it can. It is
 * whole without any virtualization: accept, prioritize, acknowledge, EOI, self-IPI, timer.
 *
 * The timer has TSC-deadline mode; in the other modes it does not count. There is one processor, number 0.
 */
export class LocalApic {
  readonly page: ApicPage
  readonly #timer: NamedTimer
  readonly #ticksPerUs: number
  readonly #listener: ApicListener

  constructor(parts: LocalApicParts) {
    this.page = parts.page
    this.#timer = parts.timer
    this.#ticksPerUs = parts.ticksPerUs
    this.#listener = parts.listener
  }

  get enabled(): boolean {
    return (this.page.get(ApicRegister.SPURIOUS) & APIC_ENABLED) !== 0
  }

  /** An interrupt message for this processor. One that is pending already is not pending twice. */
  accept(vector: number, level: boolean): void {
    if (!this.enabled) return
    if (vector < 16) {
      this.#error(RECEIVED_ILLEGAL)
      return
    }
    if (level) this.page.level.set(vector)
    else this.page.level.clear(vector)
    this.#listener.request(vector)
  }

  /** The pending vector whose class is above the processor priority, or `NO_VECTOR`. */
  deliverable(): number {
    const vector = this.page.requested.highest()
    return vector >> 4 > this.updatePriority() >> 4 ? vector : NO_VECTOR
  }

  /** Interrupt acknowledge: the vector, now in service. With nothing to deliver the spurious vector, which is not. */
  acknowledge(): number {
    const vector = this.deliverable()
    if (vector === NO_VECTOR) return this.page.get(ApicRegister.SPURIOUS) & 0xff
    this.page.requested.clear(vector)
    this.page.inService.set(vector)
    this.updatePriority()
    return vector
  }

  /** PPR, brought up to date. */
  updatePriority(): number {
    return this.page.updatePpr(this.page.inService.highest())
  }

  /** Ends the highest vector in service; with none in service nothing happens. */
  endOfInterrupt(): void {
    const vector = this.page.inService.highest()
    if (vector === NO_VECTOR) return
    this.page.inService.clear(vector)
    this.updatePriority()
    this.ended(vector)
  }

  /** A vector ended: a level-triggered one is told to the I/O APIC. */
  ended(vector: number): void {
    if (this.page.level.has(vector)) this.#listener.ended(vector)
  }

  /** A load of the guest's that the processor does not virtualize. */
  read(offset: number): number {
    const register = offset & ~15
    if (register === ApicRegister.PPR) return this.updatePriority()
    if (register === ApicRegister.EOI) return 0
    return (offset & 15) === 0 ? this.page.get(register) : 0
  }

  write(offset: number, value: number): void {
    if ((offset & 15) !== 0 || isReadOnly(offset)) return
    if (offset === ApicRegister.TPR) this.page.put(offset, value & 0xff)
    else if (offset !== ApicRegister.EOI) this.page.put(offset, value)
    this.written(offset)
  }

  /** What a write has brought about, the page holding it: also after an APIC-write exit (SDM vol. 3, 30.4.3.3). */
  written(offset: number): void {
    const { page } = this
    const value = page.get(offset)
    if (offset === ApicRegister.EOI) this.endOfInterrupt()
    else if (offset === ApicRegister.TPR) this.updatePriority()
    else if (offset === ApicRegister.ICR_LOW) this.#send(value)
    else if (offset === ApicRegister.ESR) page.put(offset, 0)
    else if (offset === ApicRegister.LVT_TIMER) this.#timerWritten(value)
    else if (isLvt(offset))
      page.put(offset, this.enabled ? value & LVT_BITS : (value & LVT_BITS) | LVT_MASKED)
  }

  /** IA32_TSC_DEADLINE: 0 disarms. Outside TSC-deadline mode the register reads 0 and writes are ignored. */
  setDeadline(ticks: number): void {
    if (!this.#countsDeadline) return
    if (ticks === 0) this.#timer.withdraw()
    else this.#timer.arm(ticks / this.#ticksPerUs)
  }

  get deadline(): number {
    const { dueUs } = this.#timer
    return this.#countsDeadline && dueUs !== null ? Math.round(dueUs * this.#ticksPerUs) : 0
  }

  /** The timer ran out. */
  expired(): void {
    const entry = this.page.get(ApicRegister.LVT_TIMER)
    if ((entry & LVT_MASKED) === 0) this.accept(entry & 0xff, false)
  }

  get #countsDeadline(): boolean {
    return (this.page.get(ApicRegister.LVT_TIMER) & TIMER_MODE) === TSC_DEADLINE_MODE
  }

  #timerWritten(value: number): void {
    this.page.put(ApicRegister.LVT_TIMER, this.enabled ? value & LVT_BITS : (value & LVT_BITS) | LVT_MASKED)
    // SDM vol. 3, 11.5.4.1: a change of mode disarms.
    if (!this.#countsDeadline) this.#timer.withdraw()
  }

  /** An interprocessor interrupt: to itself, which is everybody, or to nobody. */
  #send(command: number): void {
    const shorthand = (command >>> 18) & 3
    const destination = this.page.get(ApicRegister.ICR_HIGH) >>> 24
    const here = shorthand === 0 ? isHere(destination) : shorthand === SELF || shorthand === ALL_WITH_SELF
    if (!here) return
    const vector = command & 0xff
    if (((command >> 8) & 7) === DeliveryMode.NMI) this.#listener.nmi()
    else if (((command >> 8) & 7) > DeliveryMode.LOWEST) return
    else if (vector < 16) this.#error(SENT_ILLEGAL)
    else this.accept(vector, false)
  }

  #error(bit: number): void {
    this.page.put(ApicRegister.ESR, this.page.get(ApicRegister.ESR) | bit)
  }
}

/** Whether a destination names the one processor there is. */
export function isHere(destination: number): boolean {
  return destination === 0 || destination === 0xff
}

function isLvt(offset: number): boolean {
  return offset >= ApicRegister.LVT_TIMER && offset <= ApicRegister.LVT_ERROR
}

function isReadOnly(offset: number): boolean {
  if (offset === ApicRegister.VERSION || offset === ApicRegister.PPR) return true
  return offset >= ApicRegister.ISR && offset < ApicRegister.ESR
}
