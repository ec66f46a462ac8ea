import type { Gpa, GuestMemory } from '../protocol/memory.ts'
import { gpa, PAGE_BYTES } from '../protocol/memory.ts'
import type { AccessWidth, Clock, GuestPlatform } from '../protocol/platform.ts'
import type { RegisterBus } from './bus.ts'
import type { LevelLine } from './interrupt-line.ts'

/** Guest memory is used up: the description asked for too little. */
export class GuestMemoryExhausted extends Error {}

/**
 * A machine with no processor and no operating system: memory handed out from the bottom, registers on a bus,
 * interrupt lines. What a bare driver needs, and no more.
 */
export class BareGuest implements GuestPlatform {
  readonly memory: GuestMemory
  readonly clock: Clock
  readonly #bus: RegisterBus
  readonly #lines: LevelLine[]
  #top: number

  constructor(memory: GuestMemory, clock: Clock, bus: RegisterBus) {
    this.memory = memory
    this.clock = clock
    this.#bus = bus
    this.#lines = []
    // The first page is never handed out: an address of 0 stays wrong.
    this.#top = PAGE_BYTES
  }

  /** Bytes that can still be allocated. */
  get freeBytes(): number {
    return this.memory.end - this.#top
  }

  /** @throws GuestMemoryExhausted */
  allocate(lengthBytes: number, alignment: number): Gpa {
    const at = Math.ceil(this.#top / alignment) * alignment
    if (!(at + lengthBytes <= this.memory.end)) {
      throw new GuestMemoryExhausted(
        `${lengthBytes} bytes of guest memory are asked for, ${this.freeBytes} left`,
      )
    }
    this.#top = at + lengthBytes
    return gpa(at)
  }

  read(at: Gpa, width: AccessWidth): number {
    return this.#bus.read(at, width)
  }

  write(at: Gpa, width: AccessWidth, value: number): void {
    this.#bus.write(at, width, value)
  }

  /** Adds a line; its number is the one to `connect` to. */
  addLine(line: LevelLine): number {
    return this.#lines.push(line) - 1
  }

  connect(line: number, isr: () => void): void {
    const found = this.#lines[line]
    if (found === undefined) throw new Error(`there is no interrupt line ${line}`)
    found.connect(isr)
  }
}
