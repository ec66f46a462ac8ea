import type { Clock, HostPlatform, Random, Timer, Work } from '../../protocol/platform.ts'
import type {
  DiskBackend,
  DiskChange,
  DiskFacts,
  DiskHolder,
  DiskIo,
  DiskListener,
  DiskOp,
  DiskOptions,
  DiskWrapperKind,
  Opened,
} from './backend.ts'
import { OptionReader } from './option.ts'
import { Watchers } from './watchers.ts'

const OPS: readonly DiskOp[] = ['read', 'write', 'flush', 'discard', 'zero', 'erase', 'extents', 'resize']
/** A day of virtual time. */
const LONGEST_MS = 86_400_000

/** How long, in microseconds of virtual time, and what. */
export interface DelayPlan {
  readonly delayUs: number
  /** Up to so much more, drawn for each request. */
  readonly jitterUs: number
  readonly ops: readonly DiskOp[]
}

/** Keeps one request until its time has come. Kept for the next one: its closure is made once. */
class Held {
  io: DiskIo | null
  timer: Timer | null
  readonly due: Work

  constructor(disk: DelayDisk) {
    this.io = null
    this.timer = null
    this.due = () => disk.due(this)
  }
}

/**
 * A slower disk: each request waits in virtual time before it goes below as it is. With jitter, requests
 * overtake each other. One that is given up while it waits is answered at once.
 */
export class DelayDisk implements DiskBackend, DiskHolder {
  readonly #below: DiskBackend
  readonly #unwatch: () => void
  readonly #clock: Clock
  readonly #random: Random
  readonly #plan: DelayPlan
  readonly #watchers: Watchers
  readonly #held: Map<DiskIo, Held>
  readonly #spare: Held[]
  #facts: DiskFacts
  #closed: boolean

  constructor(below: DiskBackend, plan: DelayPlan, clock: Clock, random: Random) {
    this.#below = below
    this.#clock = clock
    this.#random = random
    this.#plan = plan
    this.#watchers = new Watchers()
    this.#held = new Map()
    this.#spare = []
    this.#facts = factsOver(below.facts)
    this.#closed = false
    this.#unwatch = below.watch((change) => this.#belowChanged(change))
  }

  get facts(): DiskFacts {
    return this.#facts
  }

  submit(io: DiskIo): void {
    if (this.#closed) {
      io.answer('gone')
      return
    }
    if (!this.#plan.ops.includes(io.op)) {
      this.#below.submit(io)
      return
    }
    const held = this.#spare.pop() ?? new Held(this)
    const { delayUs, jitterUs } = this.#plan
    held.io = io
    io.holder = this
    this.#held.set(io, held)
    const extraUs = jitterUs === 0 ? 0 : this.#random.below(jitterUs + 1)
    held.timer = this.#clock.after(delayUs + extraUs, held.due)
  }

  watch(listener: DiskListener): () => void {
    return this.#watchers.add(listener)
  }

  cancel(io: DiskIo): void {
    const held = this.#held.get(io)
    if (held === undefined) return
    held.timer?.cancel()
    this.#release(held)
    io.answer('cancelled')
  }

  close(finished: () => void): void {
    this.#closed = true
    this.#watchers.clear()
    this.#unwatch()
    for (const io of [...this.#held.keys()]) this.cancel(io)
    this.#below.close(finished)
  }

  /** The time of a request has come. */
  due(held: Held): void {
    const io = held.io
    if (io === null) throw new Error('delay: a timer without a request')
    this.#release(held)
    io.holder = null
    this.#below.submit(io)
  }

  #release(held: Held): void {
    if (held.io !== null) this.#held.delete(held.io)
    held.io = null
    held.timer = null
    this.#spare.push(held)
  }

  #belowChanged(change: DiskChange): void {
    this.#facts = factsOver(this.#below.facts)
    this.#watchers.tell(change)
  }
}

/** Loans wait with their request and end only with its answer, whatever the disk below promises. */
function factsOver(below: DiskFacts): DiskFacts {
  return { ...below, synchronous: false, privateLoans: false }
}

export const DELAY: DiskWrapperKind = {
  role: 'wrapper',
  kind: 'delay',
  summary: 'makes every request wait in virtual time',
  example: 'memory | delay:ms=5',
  options: {
    ms: 'milliseconds; this or us',
    us: 'microseconds; this or ms',
    jitter: 'up to so much more, drawn for each request, in the unit of the delay; none by default',
    op: `what waits: some of ${OPS.join(', ')} joined by +; everything by default`,
  },
  open(options: DiskOptions, platform: HostPlatform, over: DiskBackend): Promise<Opened<DiskBackend>> {
    const reader = new OptionReader('delay', options)
    const inMs = options.values.has('ms')
    if (inMs === options.values.has('us')) reader.wrong('needs one of its options ms and us, such as ms=5')
    const unitUs = inMs ? 1000 : 1
    const most = (LONGEST_MS * 1000) / unitUs
    const delayUs = reader.whole(inMs ? 'ms' : 'us', 0, 0, most) * unitUs
    // A draw is at most 2^32.
    const jitterUs = reader.whole('jitter', 0, 0, Math.min(most, Math.floor(4_000_000_000 / unitUs))) * unitUs
    const ops = reader.several('op', OPS, OPS)
    if (reader.error !== null) return Promise.resolve({ ok: false, error: reader.error })
    const plan = { delayUs, jitterUs, ops }
    return Promise.resolve({ ok: true, value: new DelayDisk(over, plan, platform.clock, platform.random) })
  },
}
