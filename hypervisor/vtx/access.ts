import type { AccessWidth } from '../../protocol/platform.ts'
import { ProcessorStopped } from '../processor.ts'
import { ExitReason, Secondary } from './control.ts'
import type { Core } from './core.ts'
import { Decoded } from './decoded.ts'
import { Access, PAGE_4K, type Translated } from './ept-walk.ts'
import { Field } from './field.ts'
import type { GuestAccess } from './translated-memory.ts'

/** Bits of the qualification of an EPT violation (SDM vol. 3, table 28-7). */
const LINEAR_VALID = 1 << 7
const FINAL_TRANSLATION = 1 << 8
const NMI_UNBLOCKED = 1 << 12
const PAGE_OFFSET = PAGE_4K - 1
/** Bits 15:12 of the qualification of an APIC access: a linear read, write or fetch (table 28-6). */
const APIC_WRITE = 1 << 12
const APIC_FETCH = 2 << 12

/**
 * What the guest does to memory. Linear addresses are guest-physical ones, unless the guest has paging of its
 * own (`Core.paging`).
 */
export class MemoryAccess implements GuestAccess {
  readonly #core: Core
  readonly #decoded: Decoded

  constructor(core: Core) {
    this.#core = core
    this.#decoded = new Decoded(core.registers)
  }

  /**
   * Translates a byte for an access; the host-physical address is left in the translation. False: it exited
   * instead, root software ran and the guest was entered again. Who asked begins anew, or gives up its event.
   */
  attempt(linear: number, access: number): boolean {
    const { paging } = this.#core
    const at = paging === null ? linear : paging.translate(linear, access)
    return at >= 0 && this.attemptPhysical(at, access, linear, true)
  }

  /** `final` is false for an access to the guest's own paging structures on the way. */
  attemptPhysical(at: number, access: number, linear: number, final: boolean): boolean {
    const { translation } = this.#core
    this.#core.ensureGuest()
    /** With accessed and dirty flags on, an access to paging structures counts as a write (29.3.5). */
    const wanted = final || !translation.marksAccess ? access : access | Access.WRITE
    const outcome = translation.translate(at, wanted)
    if (outcome === 'mapped' && !this.#isApicPage()) return true
    this.#exit(outcome, at, wanted, linear, final)
    return false
  }

  load(at: number, into: Uint8Array): void {
    for (let done = 0; done < into.length; ) {
      const from = at + done
      const piece = into.subarray(done, done + Math.min(into.length - done, PAGE_4K - (from % PAGE_4K)))
      if (this.#isRam(from, Access.READ)) {
        this.#core.physical.copyOut(this.#core.translation.address, piece)
        done += piece.length
        continue
      }
      const width = widthWithin(from, piece.length)
      let value = this.read(from, width)
      for (let byte = 0; byte < width; byte++) {
        piece[byte] = value % 0x100
        value = Math.floor(value / 0x100)
      }
      done += width
    }
  }

  store(at: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      const from = at + done
      const piece = bytes.subarray(done, done + Math.min(bytes.length - done, PAGE_4K - (from % PAGE_4K)))
      if (this.#isRam(from, Access.WRITE)) {
        this.#core.physical.copyIn(this.#core.translation.address, piece)
        done += piece.length
        continue
      }
      const width = widthWithin(from, piece.length)
      let value = 0
      for (let byte = width - 1; byte >= 0; byte--) value = value * 0x100 + (piece[byte] as number)
      this.write(from, width, value)
      done += width
    }
  }

  reach(at: number): void {
    while (!this.attempt(at, Access.READ | Access.WRITE)) {}
  }

  /** A load as one MOV to AL, AX, EAX or RAX. It is complete when this returns, however many exits it took. */
  read(at: number, width: AccessWidth): number {
    const core = this.#core
    core.ensureGuest()
    const { rip } = core
    const decoded = this.#decoded
    for (;;) {
      const outcome = core.translation.translate(at, Access.READ)
      decoded.fill('load', at, width)
      if (outcome === 'mapped') {
        const value = this.#isApicPage()
          ? core.apic.virtualize(at & PAGE_OFFSET, width, false, 0)
          : core.physical.read(core.translation.address, width)
        if (value >= 0) {
          decoded.answer(value)
          core.retire(decoded.lengthBytes)
          return value
        }
      }
      core.decoded = decoded
      this.#exit(outcome, at, Access.READ, at, true)
      decoded.fill('load', at, width)
      if (isDone(core, rip, decoded.lengthBytes)) return decoded.value
    }
  }

  /** A store as one MOV from AL, AX, EAX or RAX. */
  write(at: number, width: AccessWidth, value: number): void {
    const core = this.#core
    core.ensureGuest()
    const { rip } = core
    const decoded = this.#decoded
    for (;;) {
      const outcome = core.translation.translate(at, Access.WRITE)
      decoded.fill('store', at, width).answer(value)
      if (outcome === 'mapped') {
        const isApic = this.#isApicPage()
        if (!isApic) core.physical.write(core.translation.address, width, value)
        if (!isApic || core.apic.virtualize(at & PAGE_OFFSET, width, true, value) >= 0) {
          core.retire(decoded.lengthBytes)
          return
        }
      }
      core.decoded = decoded
      this.#exit(outcome, at, Access.WRITE, at, true)
      if (isDone(core, rip, decoded.fill('store', at, width).lengthBytes)) return
    }
  }

  #exit(outcome: Translated, at: number, access: number, linear: number, final: boolean): void {
    const core = this.#core
    if (outcome === 'mapped') {
      const kind = (access & Access.FETCH) !== 0 ? APIC_FETCH : (access & Access.WRITE) !== 0 ? APIC_WRITE : 0
      core.exit(ExitReason.APIC_ACCESS, (at & PAGE_OFFSET) + kind, 0)
      return
    }
    core.vmcs.store(Field.guestPhysicalAddress, at)
    if (outcome === 'misconfiguration') {
      core.exit(ExitReason.EPT_MISCONFIGURATION, 0, 0)
      return
    }
    core.vmcs.store(Field.guestLinearAddress, linear)
    const permissions = (core.translation.walk.permissions & 7) << 3
    const kind = LINEAR_VALID | (final ? FINAL_TRANSLATION : 0) | (core.nmiUnblocked ? NMI_UNBLOCKED : 0)
    core.exit(ExitReason.EPT_VIOLATION, access | permissions | kind, 0)
  }

  #isRam(at: number, access: number): boolean {
    return this.#core.translation.translate(at, access) === 'mapped' && !this.#isApicPage()
  }

  /** Whether the last translation ended in the APIC-access page. */
  #isApicPage(): boolean {
    const core = this.#core
    if ((core.secondary & Secondary.APIC_ACCESSES) === 0) return false
    const page = core.vmcs.get(Field.apicAccessAddress)
    return core.translation.address >= page && core.translation.address < page + PAGE_4K
  }
}

/** The widest aligned access within `lengthBytes` whose value a Number holds exactly. */
function widthWithin(at: number, lengthBytes: number): AccessWidth {
  if (lengthBytes >= 4 && at % 4 === 0) return 4
  return lengthBytes >= 2 && at % 2 === 0 ? 2 : 1
}

/**
 * Whether root software emulated the instruction at `rip`: then RIP is behind it. At it: execute it again.
 * Anywhere else a program written as functions cannot go.
 */
export function isDone(core: Core, rip: number, lengthBytes: number): boolean {
  if (core.rip === rip + lengthBytes) return true
  if (core.rip === rip) return false
  throw new ProcessorStopped(
    `guest RIP went from ${rip.toString(16)}h to ${core.rip.toString(16)}h over an exit of an instruction of ${lengthBytes} bytes`,
  )
}
