import { type Gpa, GuestMemory, gpa, PAGE_BYTES } from '../protocol/memory.ts'
import type { InterruptLine, Plain, Random, RegisterDevice } from '../protocol/platform.ts'
import type { GuestProgram } from '../protocol/processor.ts'
import { NO_TRACE, type Trace } from '../protocol/trace.ts'
import { ApicPage, ApicRegister } from './apic-page.ts'
import { APICV, type ApicProfile } from './apic-profile.ts'
import { Bus, type BusRange } from './bus.ts'
import { VirtualClock } from './clock.ts'
import { type Cost, type CostModel, costOf, DEFAULT_COST_MODEL } from './cost-model.ts'
import { type CpuidTable, defaultCpuid } from './cpuid.ts'
import { EventInjection } from './event-injection.ts'
import { ExitCounters } from './exit-counters.ts'
import { ExitDispatcher, type Hypercall, NO_HYPERCALL, type RamFault } from './exit-dispatch.ts'
import { ExitTracer } from './exit-tracer.ts'
import { GuestApicCode, IO_APIC_BASE, LOCAL_APIC_BASE } from './guest-apic.ts'
import { InterruptController } from './interrupt.ts'
import { IO_APIC_BYTES, IoApic } from './io-apic.ts'
import { LocalApic } from './local-apic.ts'
import { MachineMemory, OwnPage } from './machine-memory.ts'
import { loadMachine, saveMachine } from './machine-state.ts'
import { ModelProcessor } from './model-processor.ts'
import type { NamedTurn } from './named-work.ts'
import { PostedInterrupts } from './posted-interrupt.ts'
import { VirtualApic } from './virtual-apic.ts'
import { setEoiExits, setUpVmcs } from './vmcs-setup.ts'
import { EptEntry } from './vtx/ept-walk.ts'

const RAM_BYTES = 16 * 2 ** 20
/** Guest-physical addresses end here, ports here. */
const MEMORY_END = 2 ** 48
const PORTS_END = 0x1_0000
const TICKS_PER_US = 1000
/** The vector of `kick`, on the processor that hosts the guest. */
const KICK_VECTOR = 0xfd
/** As KVM marks registers: writable and executable but not readable is what no EPT entry may be. */
const MISCONFIGURED = EptEntry.WRITE | EptEntry.EXECUTE

export interface MachineOptions {
  readonly clock?: VirtualClock
  /** Guest RAM by guest-physical address; 16 MiB from 0 by default. Its bytes are shared, not copied. */
  readonly ram?: GuestMemory
  readonly profile?: ApicProfile
  readonly trace?: Trace
  /** Ticks of the time-stamp counter in a microsecond of virtual time. */
  readonly ticksPerUs?: number
  readonly cpuid?: CpuidTable
  readonly hypercall?: Hypercall
  /** Asked when the guest touches RAM that `unmap` took; by default it comes back. */
  readonly ramFault?: RamFault
  /** Seed of the preemption points: at every exit a queued turn may run, or the guest be made to exit soon. */
  readonly preemption?: Random | null
}

/**
 * A virtual machine: memory, one processor with VT-x, the buses, the interrupt controller and the clock, and
 * the software in root operation that connects them. It knows no device.
 */
export class Machine {
  readonly clock: VirtualClock
  readonly profile: ApicProfile
  readonly memory: MachineMemory
  readonly processor: ModelProcessor
  /** Registers by guest-physical address, and I/O ports. */
  readonly bus: Bus
  readonly ports: Bus
  readonly interrupts: InterruptController
  readonly apic: LocalApic
  readonly counters: ExitCounters
  readonly ioApic: IoApic
  readonly guestApic: GuestApicCode
  readonly injection: EventInjection
  /** What the guest runs; null before `start`. */
  program: GuestProgram | null
  /** The guest executed HLT and nothing has woken it. */
  halted: boolean
  /** Why the guest can never go on; null while it can. */
  stopped: string | null
  readonly #dispatcher: ExitDispatcher
  readonly #tracer: ExitTracer
  readonly #turn: NamedTurn
  #running: boolean

  constructor(options: MachineOptions = {}) {
    const ticksPerUs = options.ticksPerUs ?? TICKS_PER_US
    const trace = options.trace ?? NO_TRACE
    const profile = options.profile ?? APICV
    const clock = options.clock ?? new VirtualClock({ trace })
    const memory = new MachineMemory(options.ram ?? GuestMemory.ofBytes(RAM_BYTES))
    this.clock = clock
    this.profile = profile
    this.memory = memory
    this.bus = new Bus(MEMORY_END)
    this.ports = new Bus(PORTS_END)
    this.counters = new ExitCounters()
    this.program = null
    this.halted = false
    this.stopped = null
    this.#running = false
    this.#tracer = new ExitTracer(trace, () => this.processor)

    const page = new ApicPage(memory.own(OwnPage.VIRTUAL_APIC))
    page.reset()
    this.apic = new LocalApic({
      page,
      ticksPerUs,
      timer: clock.timer('machine/apic-timer', () => this.apic.expired()),
      listener: {
        request: (vector) => this.#request(vector),
        ended: (vector) => this.interrupts.endOfInterrupt(vector),
        nmi: () => this.raiseNmi(),
      },
    })
    this.interrupts = new InterruptController({
      accept: (vector, level) => this.apic.accept(vector, level),
      nmi: () => this.raiseNmi(),
    })
    this.ioApic = new IoApic(this.interrupts, () => this.#routed())
    this.bus.map('io-apic', IO_APIC_BASE, IO_APIC_BYTES, this.ioApic)

    const virtual = new VirtualApic(
      page,
      () => this.processor,
      (vector) => {
        this.counters.deliveries++
        this.#tracer.delivered(vector)
      },
    )
    this.guestApic = new GuestApicCode(virtual, ticksPerUs)
    memory.mapAll(LOCAL_APIC_BASE)
    this.processor = new ModelProcessor(
      {
        physical: memory.physical,
        ram: memory.ranges,
        root: { exited: (reason) => this.#dispatcher.exited(reason) },
        pin: { acknowledge: () => this.#acknowledgeKick() },
        apic: this.guestApic,
        clock,
        ticksPerUs,
      },
      profile.capability,
    )
    setUpVmcs(this.processor, memory, profile)
    const posted = new PostedInterrupts(memory.own(OwnPage.POSTED_INTERRUPTS))
    this.injection = new EventInjection({
      processor: this.processor,
      profile,
      apic: this.apic,
      virtual,
      posted,
      counters: this.counters,
      injected: (info, again) => this.#tracer.injected(info, again),
    })
    this.#dispatcher = new ExitDispatcher({
      processor: this.processor,
      memory,
      bus: this.bus,
      ports: this.ports,
      apic: this.apic,
      injection: this.injection,
      counters: this.counters,
      trace,
      tracer: this.#tracer,
      cpuid: options.cpuid ?? defaultCpuid(ticksPerUs),
      hypercall: options.hypercall ?? (() => NO_HYPERCALL),
      ramFault: options.ramFault ?? (() => true),
      preemption: options.preemption ?? null,
      preempt: () => this.clock.preempt(),
      stop: (why) => {
        this.stopped ??= why
      },
    })
    this.#turn = clock.turn('machine/processor', () => this.#run())
  }

  /** Puts a device's registers at a guest-physical address. @throws RangeError over RAM or another device. */
  map(name: string, base: Gpa, lengthBytes: number, device: RegisterDevice): BusRange {
    for (const range of this.memory.ranges) {
      if (base < range.base + range.lengthBytes && range.base < base + lengthBytes) {
        throw new RangeError(`${name}: registers at 0x${base.toString(16)} lie over RAM`)
      }
    }
    return this.bus.map(name, base, lengthBytes, device)
  }

  /** The line a device raises. @throws RangeError when there is no such line. */
  line(number: number): InterruptLine {
    return this.interrupts.line(number)
  }

  raiseNmi(): void {
    this.injection.requestNmi()
    this.#kick()
  }

  /** Takes memory from the guest: its next use exits, with reason 48, and `ramFault` decides. Whole pages. */
  unmap(at: Gpa, lengthBytes: number): void {
    this.memory.ept.unmap(at, lengthBytes)
    this.processor.invalidate()
  }

  /** Gives it back. */
  remap(at: Gpa, lengthBytes: number): void {
    this.memory.mapRam(at, lengthBytes)
    this.processor.invalidate()
  }

  /** Marks pages as no EPT may be marked, so that their use exits with reason 49 instead of 48. */
  misconfigure(at: Gpa, lengthBytes: number): void {
    this.memory.ept.map(at, lengthBytes, { to: 0, permissions: MISCONFIGURED })
    this.processor.invalidate()
  }

  /** Lays plain memory over the page at `at`: registers there are out of reach, and nothing exits. */
  coverWithRam(at: Gpa): void {
    this.memory.mapSpare(pageOf(at))
    this.processor.invalidate()
  }

  /** False when the page was not covered. */
  uncover(at: Gpa): boolean {
    const covered = this.memory.unmapSpare(pageOf(at))
    this.processor.invalidate()
    return covered
  }

  /** Starts a program; `run` or `drain` then runs it. */
  start(program: GuestProgram): void {
    this.program = program
    this.processor.setProgram(program)
    this.halted = false
    this.#turn.ask()
  }

  /** Runs everything that can run, and waits for the outside. */
  run(): Promise<void> {
    return this.clock.run()
  }

  /** Runs everything that can run without the outside. */
  drain(): void {
    this.clock.drain()
  }

  /** What the exits so far cost, as a model has it. */
  cost(model: CostModel = DEFAULT_COST_MODEL): Cost {
    const accesses = [...this.bus.ranges, ...this.ports.ranges]
    return costOf(
      this.counters,
      model,
      accesses.reduce((sum, { reads, writes }) => sum + reads + writes, 0),
    )
  }

  /** Why the machine cannot be saved now, or null. Between two turns of a program that can be, it can. */
  get unsaved(): string | null {
    if (this.#running) return 'the guest runs'
    if (this.program !== null && this.program.save === undefined) return 'the guest program cannot be saved'
    return this.clock.unsaved
  }

  /** All of it: memory, processor, controllers, clock, counters, program. @throws when `unsaved` says why not. */
  save(): Plain {
    const { unsaved } = this
    if (unsaved !== null) throw new Error(`the machine cannot be saved: ${unsaved}`)
    return saveMachine(this)
  }

  /**
   * Takes the state of a machine of the same make: same memory, same profile, and the same program, which has
   * been started here. Returns what is wrong with it, and then nothing has changed. Devices are not in it:
   * who made them loads them.
   */
  load(saved: Plain): string | null {
    const { unsaved } = this
    if (unsaved !== null) return `the machine is in use: ${unsaved}`
    const before = saveMachine(this)
    const wrong = loadMachine(this, saved)
    if (wrong !== null) loadMachine(this, before)
    this.guestApic.restore(this.apic.page.get(ApicRegister.LVT_TIMER))
    return wrong
  }

  #run(): void {
    if (this.stopped !== null || this.program === null) return
    // At a preemption point inside the guest's own turn.
    if (this.#running) {
      this.#turn.ask()
      return
    }
    if (this.halted) {
      if (!this.injection.wakes) return
      this.halted = false
      this.counters.wakeups++
      this.#tracer.woke()
    }
    if (!this.processor.inGuest) this.injection.prepare()
    this.#running = true
    try {
      this.halted = this.processor.run() === 'halted'
    } catch (thrown) {
      // What stops the guest for good ends its stack this way.
      if (this.stopped === null) throw thrown
    } finally {
      this.#running = false
    }
    if (this.stopped === null && (!this.halted || this.injection.wakes)) this.#turn.ask()
  }

  #request(vector: number): void {
    if (this.injection.request(vector)) this.#kick()
    else if (!this.#running) this.#turn.ask()
  }

  /** Somebody has something for the guest: it has to come out, or to go on. */
  #kick(): void {
    if (this.processor.inGuest) this.#dispatcher.kick()
    if (!this.#running && this.program !== null) this.#turn.ask()
  }

  #acknowledgeKick(): number {
    this.#dispatcher.acknowledgeKick()
    return KICK_VECTOR
  }

  #routed(): void {
    if (this.profile.virtualInterrupts)
      setEoiExits(this.processor, (vector) => this.interrupts.listens(vector))
  }
}

function pageOf(at: Gpa): Gpa {
  return gpa(at - (at % PAGE_BYTES))
}
