import { seededRandom } from '../../bench/random.ts'
import { Kernel } from '../../guest/kernel/kernel.ts'
import type { Waiting } from '../../guest/kernel/thread.ts'
import { WINDOWS_VERSIONS, type WindowsVersion } from '../../guest/kernel/version.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import type { Random } from '../../protocol/platform.ts'
import { PlainProcessor } from './plain-processor.ts'

export interface MachineOptions {
  readonly version?: WindowsVersion
  /** Seed of the preemption points; none: nothing happens there. */
  readonly seed?: number | string
  readonly ramBytes?: number
  /** Turns of one run before it is called a runaway. */
  readonly turnsMax?: number
}

/** A kernel on a plain processor, in virtual time. */
export class Machine {
  readonly clock: VirtualClock
  readonly processor: PlainProcessor
  readonly kernel: Kernel
  /** For what a test chooses; its own streams, beside those of the preemption points. */
  readonly random: Random

  constructor(options: MachineOptions = {}) {
    this.clock = new VirtualClock({ turnsMax: options.turnsMax ?? 5_000_000 })
    this.processor = new PlainProcessor(this.clock, options.ramBytes ?? 8 * 1024 * 1024)
    this.random = seededRandom(`test/${options.seed ?? ''}`)
    this.kernel = new Kernel({
      processor: this.processor,
      version: options.version ?? WINDOWS_VERSIONS[7],
      preemption: options.seed === undefined ? null : seededRandom(options.seed),
    })
    this.processor.start(this.kernel)
  }

  /** Runs everything that can run. */
  drain(): void {
    try {
      this.clock.drain()
    } catch (thrown) {
      // A device that goes on asking a machine that has stopped is not the news.
      throw this.kernel.bugCheck ?? thrown
    }
  }

  /** Runs a body in a thread to its end, with everything else; throws the bug check if there was one. */
  run<T>(body: () => Waiting<T>): T {
    let result: { readonly value: T } | null = null
    this.kernel.psCreateSystemThread(function* () {
      result = { value: yield* body() }
    })
    this.wake()
    this.drain()
    if (this.kernel.bugCheck !== null) throw this.kernel.bugCheck
    if (result === null) throw new Error('the thread never ended')
    return (result as { readonly value: T }).value
  }

  /** Starts threads by `create`, and runs them and everything else. */
  start(create: () => void): void {
    create()
    this.wake()
    this.drain()
    if (this.kernel.bugCheck !== null) throw this.kernel.bugCheck
  }

  /** The same, when the body is expected to stop the machine: the bug check's code and first parameter. */
  crash(body: () => Waiting<unknown>): readonly [number, number] {
    this.kernel.psCreateSystemThread(body)
    this.wake()
    this.drain()
    const stopped = this.kernel.bugCheck
    if (stopped === null) throw new Error('the machine did not stop')
    return [stopped.code, stopped.parameters[0]]
  }

  /** A thread was made from outside: an idle processor is woken as by an interrupt nobody handles. */
  wake(): void {
    this.processor.start(this.kernel)
  }
}
