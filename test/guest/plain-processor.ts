import type { VirtualClock } from '../../hypervisor/clock.ts'
import { type Gpa, GuestMemory } from '../../protocol/memory.ts'
import type { AccessWidth, InterruptLine, RegisterDevice, Timer } from '../../protocol/platform.ts'
import type {
  CpuidAnswer,
  GuestProcessor,
  GuestProgram,
  PortWidth,
  Trigger,
} from '../../protocol/processor.ts'

interface Mapped {
  readonly base: number
  readonly lengthBytes: number
  readonly device: RegisterDevice
}

interface Line {
  up: boolean
  vector: number | null
  trigger: Trigger
}

const VECTORS = 256

/**
 * A processor without a hypervisor: RAM, register devices, an interrupt controller with priorities and one
 * timer, over a virtual clock. Guest code is tested on it before, and beside, the real one.
 */
export class PlainProcessor implements GuestProcessor {
  readonly clock: VirtualClock
  readonly memory: GuestMemory
  /** Operations done: each is a place where an interrupt may come. */
  operations: number
  /** Called at each operation, before interrupts are looked at: a device that asks in the middle of code. */
  meanwhile: (() => void) | null
  readonly #handlers: ((() => void) | null)[]
  readonly #pending: Uint8Array
  #pendingCount: number
  /** Vectors in service, highest last. */
  readonly #inService: number[]
  readonly #lines: Map<number, Line>
  readonly #mapped: Mapped[]
  #enabled: boolean
  /** `sti` was the last operation: one more runs before an interrupt may come. */
  #shadow: boolean
  #priority: number
  #timer: Timer | null
  #program: GuestProgram | null
  #halted: boolean
  #delivered: boolean

  constructor(clock: VirtualClock, ramBytes = 16 * 1024 * 1024) {
    this.clock = clock
    this.memory = GuestMemory.ofBytes(ramBytes)
    this.operations = 0
    this.meanwhile = null
    this.#handlers = new Array(VECTORS).fill(null)
    this.#pending = new Uint8Array(VECTORS)
    this.#pendingCount = 0
    this.#inService = []
    this.#lines = new Map()
    this.#mapped = []
    this.#enabled = false
    this.#shadow = false
    this.#priority = 0
    this.#timer = null
    this.#program = null
    this.#halted = false
    this.#delivered = false
  }

  /** Puts a device's registers at an address. */
  map(base: Gpa, lengthBytes: number, device: RegisterDevice): void {
    this.#mapped.push({ base, lengthBytes, device })
  }

  /** The line a device raises. */
  line(number: number): InterruptLine {
    return {
      raise: () => {
        const line = this.#line(number)
        const rose = !line.up
        line.up = true
        if (line.vector !== null && (line.trigger === 'level' || rose)) this.raise(line.vector)
      },
      lower: () => {
        this.#line(number).up = false
      },
    }
  }

  /** Starts a program; `clock.drain()` then runs it. */
  start(program: GuestProgram): void {
    this.#program = program
    this.clock.defer(() => this.#turn())
  }

  /** Makes a vector pending, as a device outside would. */
  raise(vector: number): void {
    if (this.#pending[vector] === 0) {
      this.#pending[vector] = 1
      this.#pendingCount++
    }
    if (this.#halted) {
      this.#halted = false
      this.clock.defer(() => this.#wake())
    }
  }

  #wake(): void {
    this.#delivered = false
    this.#deliver()
    // Masked: the processor sleeps on.
    if (this.#delivered) this.#turn()
    else this.#halted = true
  }

  #turn(): void {
    this.#halted = false
    this.#program?.run(this)
    if (!this.#halted) this.clock.defer(() => this.#turn())
    else if (this.#highest() >= 0) {
      this.#halted = false
      this.clock.defer(() => this.#wake())
    }
  }

  now(): number {
    return this.clock.now()
  }

  read(at: Gpa, width: AccessWidth): number {
    this.boundary()
    const found = this.#at(at)
    return found.device.read(at - found.base, width)
  }

  write(at: Gpa, width: AccessWidth, value: number): void {
    this.boundary()
    const found = this.#at(at)
    found.device.write(at - found.base, width, value)
  }

  #at(at: number): Mapped {
    const found = this.#mapped.find((one) => at >= one.base && at < one.base + one.lengthBytes)
    if (found === undefined) throw new Error(`no device at ${at}`)
    return found
  }

  portRead(port: number, _width: PortWidth): number {
    return this.#absent(`port ${port}`)
  }
  portWrite(port: number, _width: PortWidth, _value: number): void {
    this.#absent(`port ${port}`)
  }
  portReadString(port: number): void {
    this.#absent(`port ${port}`)
  }
  portWriteString(port: number): void {
    this.#absent(`port ${port}`)
  }
  cpuid(leaf: number): CpuidAnswer {
    return this.#absent(`CPUID ${leaf}`)
  }
  readMsr(index: number): bigint {
    return this.#absent(`MSR ${index}`)
  }
  writeMsr(index: number): void {
    this.#absent(`MSR ${index}`)
  }
  vmcall(): bigint {
    return this.#absent('a hypervisor')
  }
  #absent(what: string): never {
    throw new Error(`the plain processor has no ${what}`)
  }

  get interruptsEnabled(): boolean {
    return this.#enabled
  }
  sti(): void {
    this.operations++
    if (!this.#enabled) this.#shadow = true
    this.#enabled = true
  }
  cli(): void {
    this.boundary()
    this.#enabled = false
  }
  get taskPriority(): number {
    return this.#priority
  }
  setTaskPriority(priority: number): void {
    this.boundary()
    this.#priority = priority
    this.boundary()
  }

  setVector(vector: number, handler: (() => void) | null): void {
    this.#handlers[vector] = handler
  }
  routeLine(line: number, vector: number | null, trigger: Trigger): void {
    const state = this.#line(line)
    state.vector = vector
    state.trigger = trigger
    if (vector !== null && state.up && trigger === 'level') this.raise(vector)
  }
  endOfInterrupt(): void {
    this.operations++
    const vector = this.#inService.pop()
    if (vector === undefined) throw new Error('an end of interrupt with none in service')
    // A level line that is still up interrupts again.
    for (const line of this.#lines.values()) {
      if (line.vector === vector && line.trigger === 'level' && line.up) this.raise(vector)
    }
  }
  armTimer(dueUs: number | null, vector: number): void {
    this.boundary()
    this.#timer?.cancel()
    this.#timer =
      dueUs === null ? null : this.clock.after(Math.max(0, dueUs - this.now()), () => this.raise(vector))
  }

  boundary(): void {
    this.operations++
    this.meanwhile?.()
    if (this.#shadow) {
      this.#shadow = false
      return
    }
    if (this.#pendingCount > 0) this.#deliver()
  }

  halt(): void {
    this.#halted = true
  }

  #line(number: number): Line {
    let line = this.#lines.get(number)
    if (line === undefined) {
      line = { up: false, vector: null, trigger: 'level' }
      this.#lines.set(number, line)
    }
    return line
  }

  /** The pending vector that may interrupt now, or -1. */
  #highest(): number {
    if (!this.#enabled || this.#pendingCount === 0) return -1
    const floor = Math.max(this.#priority, (this.#inService.at(-1) ?? 0) >> 4)
    for (let vector = VECTORS - 1; vector >> 4 > floor; vector--)
      if (this.#pending[vector] === 1) return vector
    return -1
  }

  #deliver(): void {
    for (;;) {
      const vector = this.#highest()
      if (vector < 0) return
      this.#pending[vector] = 0
      this.#pendingCount--
      const handler = this.#handlers[vector]
      if (handler === null || handler === undefined) continue
      this.#inService.push(vector)
      this.#enabled = false
      this.#delivered = true
      handler()
      this.#enabled = true
    }
  }
}
