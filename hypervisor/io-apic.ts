import type { AccessWidth, Plain, RegisterDevice } from '../protocol/platform.ts'
import { type InterruptController, LINES } from './interrupt.ts'

export const IO_APIC_BYTES = 0x1000

/** Registers of the window, and those behind it by index (82093AA, 3.1 and 3.2). */
export const IoApicRegister = { SELECT: 0x00, WINDOW: 0x10, EOI: 0x40 } as const
export const IoApicIndex = { ID: 0, VERSION: 1, ARBITRATION: 2, REDIRECTION: 0x10 } as const

/** Version 11H without, 20H with the EOI register; bits 23:16 the highest entry. */
const VERSION = 0x20 + (LINES - 1) * 0x1_0000

/** How guest code reaches the lines of the interrupt controller: an I/O APIC's registers. */
export class IoApic implements RegisterDevice {
  readonly #controller: InterruptController
  readonly #changed: () => void
  #select: number
  #id: number

  /** `changed`: a line's routing is not what it was. */
  constructor(controller: InterruptController, changed: () => void) {
    this.#controller = controller
    this.#changed = changed
    this.#select = 0
    this.#id = 0
  }

  read(offset: number, _width: AccessWidth): number {
    if (offset === IoApicRegister.SELECT) return this.#select
    return offset === IoApicRegister.WINDOW ? this.#get(this.#select) : 0
  }

  write(offset: number, _width: AccessWidth, value: number): void {
    if (offset === IoApicRegister.SELECT) this.#select = value & 0xff
    else if (offset === IoApicRegister.WINDOW) this.#put(this.#select, value)
    else if (offset === IoApicRegister.EOI) this.#controller.endOfInterrupt(value & 0xff)
  }

  save(): Plain {
    return { select: this.#select, id: this.#id }
  }

  load(saved: Plain): string | null {
    if (typeof saved !== 'object' || saved === null) return 'I/O APIC state is not an object'
    const { select, id } = saved as Record<string, Plain | undefined>
    const isByte = (value: Plain | undefined): value is number =>
      typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 0xff
    if (!isByte(select) || !isByte(id)) return 'I/O APIC state: a register is no byte'
    this.#select = select
    this.#id = id
    return null
  }

  #get(index: number): number {
    if (index === IoApicIndex.ID || index === IoApicIndex.ARBITRATION) return this.#id * 0x100_0000
    if (index === IoApicIndex.VERSION) return VERSION
    const line = (index - IoApicIndex.REDIRECTION) >> 1
    if (!(line >= 0 && line < LINES)) return 0
    return index % 2 === 0 ? this.#controller.entry(line) : this.#controller.destination(line) * 0x100_0000
  }

  #put(index: number, value: number): void {
    if (index === IoApicIndex.ID) this.#id = (value >>> 24) & 15
    const line = (index - IoApicIndex.REDIRECTION) >> 1
    if (!(line >= 0 && line < LINES)) return
    if (index % 2 === 0) this.#controller.setEntry(line, value)
    else this.#controller.setDestination(line, value >>> 24)
    this.#changed()
  }
}
