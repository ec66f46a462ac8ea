import fc from 'fast-check'
import type { ApicProfile } from '../../hypervisor/apic-profile.ts'
import { LOCAL_APIC_BASE } from '../../hypervisor/guest-apic.ts'
import { Machine } from '../../hypervisor/machine.ts'
import type { NamedTimer } from '../../hypervisor/named-work.ts'
import { GuestMemory, gpa } from '../../protocol/memory.ts'
import type { Plain } from '../../protocol/platform.ts'
import type { GuestProcessor, GuestProgram, Trigger } from '../../protocol/processor.ts'
import type { Trace } from '../../protocol/trace.ts'

/** Few of each, so that they meet. */
export const SCRIPT_LINES = [1, 9]
export const VECTORS = [0x31, 0x32, 0x51, 0x58, 0xd1]
const ICR_SELF = 0x4_0000

/** One thing that guest or host does. What only the host can do, a halted guest may be woken by. */
export type Step =
  | { readonly kind: 'raise' | 'lower'; readonly line: number }
  | { readonly kind: 'message'; readonly vector: number }
  | { readonly kind: 'nmi' }
  | {
      readonly kind: 'route'
      readonly line: number
      readonly vector: number | null
      readonly trigger: Trigger
    }
  | { readonly kind: 'priority'; readonly priority: number }
  | { readonly kind: 'self'; readonly vector: number }
  | { readonly kind: 'sti' | 'cli' | 'eoi' | 'access' | 'yield' }
  | { readonly kind: 'halt'; readonly wake: Step }

const line = fc.constantFrom(...SCRIPT_LINES)
const vector = fc.constantFrom(...VECTORS)
const outside: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ kind: fc.constantFrom('raise' as const, 'lower' as const), line }),
  fc.record({ kind: fc.constant('message' as const), vector }),
  fc.constant<Step>({ kind: 'nmi' }),
)
const trigger = fc.constantFrom<Trigger>('level', 'edge')
export const steps: fc.Arbitrary<readonly Step[]> = fc.array(
  fc.oneof(
    { weight: 6, arbitrary: outside },
    {
      weight: 3,
      arbitrary: fc.record({
        kind: fc.constant('route' as const),
        line,
        vector: fc.option(vector, { freq: 4 }),
        trigger,
      }),
    },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('priority' as const), priority: fc.nat(15) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('self' as const), vector }) },
    {
      weight: 6,
      arbitrary: fc
        .constantFrom(
          'sti' as const,
          'sti' as const,
          'cli' as const,
          'eoi' as const,
          'access' as const,
          'yield' as const,
        )
        .map((kind) => ({ kind })),
    },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('halt' as const), wake: outside }) },
  ),
  { minLength: 5, maxLength: 40 },
)

/** What a handler does besides noting that it ran: by its vector, so that model and guest agree. */
export const ends = (vector: number): boolean => vector !== 0x32
export const nests = (vector: number): boolean => vector === 0x31 || vector === 0x58
/** A device lowers its line at every second service, and so interrupts twice. */
export const lowers = (served: number): boolean => served % 2 === 0

/** The script as guest code: a state machine that can be saved wherever it yields or halts. */
export class ScriptProgram implements GuestProgram {
  readonly machine: Machine
  readonly #steps: readonly Step[]
  readonly #wake: NamedTimer
  /** What was served, and which steps lay before. */
  log: string[]
  next: number
  #set: boolean
  #served: number
  #routes: Map<number, number>

  constructor(machine: Machine, steps: readonly Step[]) {
    this.machine = machine
    this.#steps = steps
    this.log = []
    this.next = 0
    this.#set = false
    this.#served = 0
    this.#routes = new Map()
    this.#wake = machine.clock.timer('script/wake', () => this.#outside(this.#pending))
  }

  get done(): boolean {
    return this.next >= this.#steps.length
  }

  get #pending(): Step | undefined {
    const step = this.#steps[this.next - 1]
    return step?.kind === 'halt' ? step.wake : undefined
  }

  run(guest: GuestProcessor): void {
    if (!this.#set) {
      this.#set = true
      for (const one of [2, ...VECTORS]) guest.setVector(one, this.handlerOf(one))
    }
    while (!this.done) {
      const step = this.#steps[this.next++] as Step
      if (step.kind === 'yield') return
      if (step.kind === 'halt') {
        this.#wake.arm(this.machine.clock.now() + 1)
        break
      }
      this.#do(guest, step)
      settle(guest)
      this.log.push(`${this.next}`)
    }
    guest.halt()
  }

  handlerOf(vector: number): (() => void) | null {
    const { guest } = this.machine.processor
    if (vector === 2) {
      return () => {
        this.log.push('nmi')
        settle(guest)
      }
    }
    return VECTORS.includes(vector) ? () => this.#serve(guest, vector) : null
  }

  save(): Plain {
    const { next, log } = this
    return {
      next,
      log: [...log],
      set: this.#set,
      served: this.#served,
      routes: [...this.#routes].map((one) => [...one]),
    }
  }

  load(saved: Plain): string | null {
    const state = saved as {
      next: number
      log: string[]
      set: boolean
      served: number
      routes: [number, number][]
    }
    this.next = state.next
    this.log = [...state.log]
    this.#set = state.set
    this.#served = state.served
    this.#routes = new Map(state.routes)
    return null
  }

  #serve(guest: GuestProcessor, vector: number): void {
    this.log.push(`serve ${vector.toString(16)}`)
    this.#served++
    if (lowers(this.#served)) {
      for (const [one, to] of this.#routes) if (to === vector) this.machine.line(one).lower()
    }
    if (nests(vector)) {
      guest.sti()
      settle(guest)
      guest.cli()
    }
    if (ends(vector)) guest.endOfInterrupt()
    this.log.push(`end ${vector.toString(16)}`)
  }

  #do(guest: GuestProcessor, step: Step): void {
    if (step.kind === 'route') {
      if (step.vector === null) this.#routes.delete(step.line)
      else this.#routes.set(step.line, step.vector)
      guest.routeLine(step.line, step.vector, step.trigger)
    } else if (step.kind === 'priority') guest.setTaskPriority(step.priority)
    else if (step.kind === 'self') guest.write(gpa(LOCAL_APIC_BASE + 0x300), 4, ICR_SELF + step.vector)
    else if (step.kind === 'sti') guest.sti()
    else if (step.kind === 'cli') guest.cli()
    else if (step.kind === 'eoi') guest.endOfInterrupt()
    else if (step.kind === 'access') guest.read(gpa(0xd000_0000), 4)
    else this.#outside(step)
  }

  #outside(step: Step | undefined): void {
    const { machine } = this
    if (step?.kind === 'raise') machine.line(step.line).raise()
    else if (step?.kind === 'lower') machine.line(step.line).lower()
    else if (step?.kind === 'message') machine.interrupts.message(0xfee0_0000, step.vector)
    else if (step?.kind === 'nmi') machine.raiseNmi()
  }
}

/** Two boundaries: STI holds back what comes at the first. */
function settle(guest: GuestProcessor): void {
  guest.boundary()
  guest.boundary()
}

export function scriptMachine(profile: ApicProfile, steps: readonly Step[], trace?: Trace): ScriptProgram {
  const machine = new Machine({
    profile,
    ram: GuestMemory.ofBytes(2 ** 18),
    ...(trace === undefined ? {} : { trace }),
  })
  const program = new ScriptProgram(machine, steps)
  machine.start(program)
  return program
}

/** Runs to the end; a guest that sleeps for good is woken by an NMI, and the log says so. */
export function finish(program: ScriptProgram): readonly string[] {
  program.machine.drain()
  while (!program.done) {
    program.log.push('asleep')
    program.machine.raiseNmi()
    program.machine.drain()
  }
  return program.log
}
