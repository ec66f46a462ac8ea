import * as fc from 'fast-check'
import type { KEvent, KMutant, KSemaphore } from '../../guest/kernel/dispatcher-object.ts'
import type { Kernel, Waitable } from '../../guest/kernel/index.ts'
import { KEVENT, KMUTANT, KSEMAPHORE } from '../../guest/kernel/layout.ts'
import { NtStatus as Status } from '../../guest/kernel/nt-status.ts'
import type { Waiting } from '../../guest/kernel/thread.ts'
import type { Rig } from './kernel-rig.ts'

/** Two events of each kind, a semaphore (limit 3), two mutexes. */
const OBJECTS = [
  'notification',
  'synchronization',
  'semaphore',
  'mutex',
  'mutex 2',
  'notification 2',
] as const
type Name = (typeof OBJECTS)[number]

type Step =
  | {
      readonly do: 'set' | 'reset' | 'pulse'
      readonly name: 'notification' | 'synchronization' | 'notification 2'
    }
  | { readonly do: 'release semaphore'; readonly by: number }
  | { readonly do: 'release mutex'; readonly name: 'mutex' | 'mutex 2' }
  | {
      readonly do: 'wait'
      readonly names: readonly Name[]
      readonly any: boolean
      readonly timeoutUs: number | null
    }
  | { readonly do: 'delay'; readonly us: number }

type Entry = readonly [thread: number, step: number, result: number, us: number]

interface ModelThread {
  readonly id: number
  readonly steps: readonly Step[]
  at: number
  wait: { names: readonly Name[]; any: boolean; dueUs: number; order: number } | null
  /** How its wait ended, until it runs again. */
  ended: number | null
}

/**
 * The dispatcher on plain objects: a queue of ready threads, objects with a count, and waiters in the order
 * they came. It knows nothing of records, wait blocks or interrupts.
 */
export class Model {
  readonly threads: ModelThread[]
  readonly log: Entry[] = []
  readonly ready: ModelThread[]
  readonly state: Map<Name, number> = new Map()
  readonly owner: Map<Name, number> = new Map()
  readonly abandoned: Set<Name> = new Set()
  nowUs = 0
  #order = 0

  constructor(scripts: readonly (readonly Step[])[]) {
    this.threads = scripts.map((steps, id) => ({ id, steps, at: 0, wait: null, ended: null }))
    this.ready = [...this.threads]
    for (const name of OBJECTS) this.state.set(name, name.startsWith('mutex') ? 1 : 0)
  }

  run(): void {
    for (;;) {
      const next = this.ready.shift()
      if (next !== undefined) this.#go(next)
      else if (!this.#advance()) return
    }
  }

  #advance(): boolean {
    const due = this.threads.filter((one) => one.wait !== null && one.wait.dueUs !== Number.POSITIVE_INFINITY)
    if (due.length === 0) return false
    this.nowUs = Math.max(this.nowUs, Math.min(...due.map((one) => one.wait?.dueUs ?? 0)))
    for (const one of due.sort(
      (a, b) => (a.wait?.dueUs ?? 0) - (b.wait?.dueUs ?? 0) || (a.wait?.order ?? 0) - (b.wait?.order ?? 0),
    )) {
      if (one.wait !== null && one.wait.dueUs <= this.nowUs) this.#end(one, Status.TIMEOUT)
    }
    return true
  }

  #go(thread: ModelThread): void {
    if (thread.ended !== null) this.#note(thread, thread.ended)
    thread.ended = null
    while (thread.at < thread.steps.length) {
      const result = this.#step(thread, thread.steps[thread.at] as Step)
      if (result === null) return
      this.#note(thread, result)
    }
    for (const [name, owner] of this.owner) {
      if (owner !== thread.id) continue
      this.abandoned.add(name)
      this.#free(name)
    }
  }

  #note(thread: ModelThread, result: number): void {
    this.log.push([thread.id, thread.at, result, this.nowUs])
    thread.at++
  }

  #end(thread: ModelThread, status: number): void {
    thread.wait = null
    const step = thread.steps[thread.at]
    thread.ended = step?.do === 'delay' ? Status.SUCCESS : status
    this.ready.push(thread)
  }

  #step(thread: ModelThread, step: Step): number | null {
    switch (step.do) {
      case 'set':
      case 'pulse': {
        const before = this.state.get(step.name) ?? 0
        this.state.set(step.name, 1)
        this.#wake()
        if (step.do === 'pulse') this.state.set(step.name, 0)
        return before
      }
      case 'reset': {
        const before = this.state.get(step.name) ?? 0
        this.state.set(step.name, 0)
        return before
      }
      case 'release semaphore': {
        const before = this.state.get('semaphore') ?? 0
        if (before + step.by > 3) return -1
        this.state.set('semaphore', before + step.by)
        this.#wake()
        return before
      }
      case 'release mutex': {
        if (this.owner.get(step.name) !== thread.id) return -2
        const before = this.state.get(step.name) ?? 0
        if (before < 0) this.state.set(step.name, before + 1)
        else this.#free(step.name)
        return before
      }
      case 'delay':
        thread.wait = { names: [], any: true, dueUs: this.nowUs + step.us, order: this.#order++ }
        return step.us === 0 ? this.#noWait(thread) : null
      case 'wait': {
        const status = this.#satisfy(thread, step.names, step.any)
        if (status !== null) return status
        if (step.timeoutUs === 0) return Status.TIMEOUT
        const dueUs = step.timeoutUs === null ? Number.POSITIVE_INFINITY : this.nowUs + step.timeoutUs
        thread.wait = { names: step.names, any: step.any, dueUs, order: this.#order++ }
        return null
      }
      default:
        return step satisfies never
    }
  }

  #noWait(thread: ModelThread): number {
    thread.wait = null
    return Status.SUCCESS
  }

  #free(name: Name): void {
    this.owner.delete(name)
    this.state.set(name, 1)
    this.#wake()
  }

  #wake(): void {
    const waiting = this.threads.filter((one) => one.wait !== null && one.wait.names.length > 0)
    for (const one of waiting.sort((a, b) => (a.wait?.order ?? 0) - (b.wait?.order ?? 0))) {
      if (one.wait === null) continue
      const status = this.#satisfy(one, one.wait.names, one.wait.any)
      if (status !== null) this.#end(one, status)
    }
  }

  #signalled(thread: ModelThread, name: Name): boolean {
    return (this.state.get(name) ?? 0) > 0 || this.owner.get(name) === thread.id
  }

  #satisfy(thread: ModelThread, names: readonly Name[], any: boolean): number | null {
    if (!any) {
      if (!names.every((name) => this.#signalled(thread, name))) return null
      return names.reduce((status, name) => status | this.#take(thread, name), 0)
    }
    const index = names.findIndex((name) => this.#signalled(thread, name))
    return index < 0 ? null : index + this.#take(thread, names[index] as Name)
  }

  #take(thread: ModelThread, name: Name): number {
    if (name.startsWith('notification')) return 0
    const state = (this.state.get(name) ?? 0) - 1
    this.state.set(name, state)
    if (!name.startsWith('mutex') || state !== 0) return 0
    this.owner.set(name, thread.id)
    return this.abandoned.delete(name) ? 0x80 : 0
  }
}

/** The same scripts on the kernel. */
export function play(scripts: readonly (readonly Step[])[], rig: Rig): Entry[] {
  const { kernel } = rig
  const objects = make(rig)
  const log: Entry[] = []
  rig.machine.start(() => {
    for (const [id, steps] of scripts.entries()) {
      kernel.psCreateSystemThread(function* () {
        for (const [at, step] of steps.entries()) {
          const result = yield* act(kernel, objects, step)
          log.push([id, at, result, kernel.keQueryTimeUs()])
        }
      })
    }
  })
  return log
}

function make(rig: Rig): ReadonlyMap<Name, Waitable> {
  const { kernel } = rig
  return new Map<Name, Waitable>([
    ['notification', kernel.keInitializeEvent(rig.room(KEVENT.$size), true, false)],
    ['notification 2', kernel.keInitializeEvent(rig.room(KEVENT.$size), true, false)],
    ['synchronization', kernel.keInitializeEvent(rig.room(KEVENT.$size), false, false)],
    ['semaphore', kernel.keInitializeSemaphore(rig.room(KSEMAPHORE.$size), 0, 3)],
    ['mutex', kernel.keInitializeMutex(rig.room(KMUTANT.$size))],
    ['mutex 2', kernel.keInitializeMutex(rig.room(KMUTANT.$size))],
  ])
}

function* act(kernel: Kernel, objects: ReadonlyMap<Name, Waitable>, step: Step): Waiting<number> {
  const get = (name: Name): Waitable => objects.get(name) as Waitable
  switch (step.do) {
    case 'set':
      return kernel.keSetEvent(get(step.name) as KEvent)
    case 'pulse':
      return kernel.kePulseEvent(get(step.name) as KEvent)
    case 'reset':
      return kernel.keResetEvent(get(step.name) as KEvent)
    case 'release semaphore':
      return kernel.keReleaseSemaphore(get('semaphore') as KSemaphore, step.by)
    case 'release mutex': {
      const mutex = get(step.name) as KMutant
      return mutex.ownerThread === kernel.keGetCurrentThread()?.at ? kernel.keReleaseMutex(mutex) : -2
    }
    case 'delay':
      return yield* kernel.keDelayExecutionThread(step.us)
    case 'wait': {
      const { any, timeoutUs } = step
      return yield* kernel.keWaitForMultipleObjects(step.names.map(get), any, { timeoutUs })
    }
    default:
      return step satisfies never
  }
}

const eventName = fc.constantFrom(
  'notification' as const,
  'synchronization' as const,
  'notification 2' as const,
)
const arbitraryStep: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constantFrom('set' as const, 'set' as const, 'reset' as const, 'pulse' as const),
      name: eventName,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('release semaphore' as const),
      by: fc.integer({ min: 1, max: 2 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('release mutex' as const),
      name: fc.constantFrom('mutex' as const, 'mutex 2' as const),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('delay' as const), us: fc.nat(30) }) },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('wait' as const),
      names: fc.uniqueArray(fc.constantFrom(...OBJECTS), { minLength: 1, maxLength: 6 }),
      any: fc.boolean(),
      timeoutUs: fc.oneof(fc.constant(0), fc.constant(null), fc.integer({ min: 1, max: 40 })),
    }),
  },
)
export const arbitraryScripts = fc.array(fc.array(arbitraryStep, { maxLength: 8 }), {
  minLength: 1,
  maxLength: 5,
})

/** Ends every wait that a script may hang in: alerts do not reach it, so the objects are signalled for good. */
export function unhang(scripts: readonly (readonly Step[])[]): (readonly Step[])[] {
  return scripts.map((steps) =>
    steps.map((step) => (step.do === 'wait' && step.timeoutUs === null ? { ...step, timeoutUs: 500 } : step)),
  )
}
