import fc from 'fast-check'
import type { LiteralBuffer } from '../fuzz/literal-driver.ts'
import { passed } from '../fuzz/literal-driver.ts'
import type { PairShape, Request, Taken } from './ends.ts'
import { DATA_AT, OurDevice, OurDriver, Pair } from './ends.ts'

export type Step =
  | { readonly kind: 'post'; readonly readable: readonly number[]; readonly writable: readonly number[] }
  | { readonly kind: 'complete'; readonly which: number; readonly permille: number }
  | { readonly kind: 'show' | 'take' | 'use' | 'restDevice' | 'reap' | 'disarm' | 'restDriver' | 'move' }

const lengths = (most: number) =>
  fc.array(fc.oneof({ weight: 4, arbitrary: fc.integer({ min: 1, max: 5000 }) }, fc.constant(0)), {
    maxLength: most,
  })

export function stepsArbitrary(maxLength: number): fc.Arbitrary<Step[]> {
  const plain = fc.constantFrom<Step['kind']>(
    ...(['show', 'show', 'take', 'take', 'take', 'use', 'use', 'reap', 'reap', 'reap'] as const),
    ...(['restDevice', 'restDriver', 'disarm', 'move'] as const),
  )
  return fc.array(
    fc.oneof(
      {
        weight: 4,
        arbitrary: fc.record({
          kind: fc.constant('post' as const),
          readable: lengths(3),
          writable: lengths(3),
        }),
      },
      {
        weight: 3,
        arbitrary: fc.record({
          kind: fc.constant('complete' as const),
          which: fc.nat(255),
          permille: fc.constantFrom(0, 1000, 1, 999, 500),
        }),
      },
      { weight: 10, arbitrary: plain.map((kind) => ({ kind }) as Step) },
    ),
    { maxLength, size: 'max' },
  )
}

/** One comparison: an assertion library's costs more than the step it checks. */
function hold(what: string, seen: unknown, expected: unknown): void {
  if (seen === expected) return
  const [left, right] = [JSON.stringify(seen), JSON.stringify(expected)]
  if (left !== right) throw new Error(`${what}: saw ${left}, expected ${right}`)
}

function throws(act: () => unknown): boolean {
  try {
    act()
  } catch {
    return true
  }
  return false
}

interface Out {
  readonly request: Request
  readonly taken: Taken
}

/**
 * Both ends and what they have to agree on, counted from the beginning of time: nothing here is modulo
 * anything. Every step is checked against it, and the words in memory are read literally.
 */
export class Rig {
  readonly pair: Pair
  #posted: number
  #shown: number
  #finished: number
  #used: number
  #reaped: number
  /** Available entries the device consumed. */
  #consumed: number
  #requests: number
  /** Shown and not taken, in order. */
  readonly #waiting: Request[]
  readonly #unshown: Request[]
  #out: Out[]
  /** Completed and not reaped, in order. */
  readonly #done: { readonly request: number; readonly writtenBytes: number }[]
  /** Descriptors of everything that is posted and not reaped. */
  readonly #held: Map<number, number>
  /** Taken again after a move and not yet given out. */
  #again: number
  #deviceAsleep: boolean
  #driverAsleep: boolean
  #deviceTold: number
  #driverTold: number
  /** Rested with nothing left, and took something new since: it has to be quiet. */
  #deviceBusy: boolean
  #deviceRested: boolean
  #driverDisarmed: boolean

  constructor(shape: PairShape) {
    const { start } = shape
    this.pair = new Pair(shape)
    this.#posted = start
    this.#shown = start
    this.#finished = start
    this.#used = start
    this.#reaped = start
    this.#consumed = start
    this.#requests = 0
    this.#waiting = []
    this.#unshown = []
    this.#out = []
    this.#done = []
    this.#held = new Map()
    this.#again = 0
    this.#deviceAsleep = true
    this.#driverAsleep = true
    this.#deviceTold = 0
    this.#driverTold = 0
    this.#deviceBusy = false
    this.#deviceRested = true
    this.#driverDisarmed = false
  }

  get outstanding(): number {
    return this.#held.size
  }

  step(step: Step): void {
    if (step.kind === 'post') this.post(step.readable, step.writable)
    else if (step.kind === 'complete') this.complete(step.which, step.permille)
    else this[step.kind]()
    this.#agree()
  }

  /** True when it was taken. */
  post(readable: readonly number[], writable: readonly number[]): boolean {
    const buffers: LiteralBuffer[] = []
    let at = DATA_AT + (this.#requests % 50) * 40_000
    for (const [i, lengthBytes] of [...readable, ...writable].entries()) {
      buffers.push({ at, lengthBytes, write: i >= readable.length })
      at += lengthBytes
    }
    const needs = this.#needs(buffers.length)
    if (buffers.length === 0 || needs > this.pair.shape.size) return false
    const request = { number: this.#requests, buffers }
    let held = 0
    for (const count of this.#held.values()) held += count
    const fits = needs <= this.pair.shape.size - held
    hold('a post is taken exactly when there is room', this.pair.driver.post(request), fits)
    if (!fits) return false
    this.#requests++
    this.#posted++
    this.#held.set(request.number, needs)
    this.#unshown.push(request)
    return true
  }

  /** True when the device is notified. */
  show(): boolean {
    const from = this.#shown
    const { flags, availableEvent } = this.pair.ring.used
    const asked = this.pair.shape.eventIdx ? passed(availableEvent, from, this.#posted) : flags === 0
    const told = this.pair.driver.publish()
    const more = this.#posted > from
    hold('the driver notifies by the rule', told, more && asked)
    this.#shown = this.#posted
    this.#waiting.push(...this.#unshown.splice(0))
    if (more && this.#deviceAsleep) {
      hold('a device at rest is woken', told, true)
      this.#deviceAsleep = false
    }
    if (told) {
      hold('a device at work is left alone', this.#deviceBusy, false)
      this.#deviceTold++
      if (this.pair.shape.eventIdx) hold('notifications a rest', this.#deviceTold, 1)
    }
    return told
  }

  take(): boolean {
    const expected = this.#waiting.shift()
    const taken = this.pair.device.next()
    hold('there is a chain exactly when one waits', taken !== null, expected !== undefined)
    if (taken === null || expected === undefined) return false
    const carries = ({ lengthBytes }: LiteralBuffer) => lengthBytes > 0
    hold('the buffers taken', taken.buffers.filter(carries), expected.buffers.filter(carries))
    this.#out.push({ request: expected, taken })
    if (this.#again > 0) this.#again--
    else {
      this.#consumed++
      this.#deviceBusy = this.#deviceRested
    }
    return true
  }

  complete(which: number, permille: number): boolean {
    const [one] = this.#out.splice(which % Math.max(1, this.#out.length), 1)
    if (one === undefined) return false
    const writable = one.request.buffers.reduce((sum, b) => sum + (b.write ? b.lengthBytes : 0), 0)
    const writtenBytes = Math.floor((writable * permille) / 1000)
    this.pair.device.complete(one.taken, writtenBytes)
    this.#done.push({ request: one.request.number, writtenBytes })
    this.#finished++
    return true
  }

  /** True when the driver is interrupted. */
  use(): boolean {
    const from = this.#used
    const { flags, usedEvent } = this.pair.ring.available
    const asked = this.pair.shape.eventIdx ? passed(usedEvent, from, this.#finished) : flags === 0
    const told = this.pair.device.publish()
    const more = this.#finished > from
    hold('the device interrupts by the rule', told, more && asked)
    this.#used = this.#finished
    if (more && this.#driverAsleep) {
      hold('a driver at rest is woken', told, true)
      this.#driverAsleep = false
    }
    if (told) {
      hold('a disarmed driver is interrupted', this.#driverDisarmed && !this.pair.shape.eventIdx, false)
      this.#driverTold++
      if (this.pair.shape.eventIdx) hold('interrupts a rest', this.#driverTold, 1)
    }
    return told
  }

  reap(): boolean {
    const ready = this.#used > this.#reaped
    const back = this.pair.driver.reap()
    hold('what comes back', back, ready ? this.#done[0] : null)
    if (!ready || back === null) return false
    this.#done.shift()
    this.#reaped++
    this.#held.delete(back.request)
    return true
  }

  /** True when there is more to do. */
  restDevice(): boolean {
    const more = this.pair.device.rearm()
    hold('the device is told at once of what waits', more, this.#waiting.length > 0)
    const { flags, availableEvent } = this.pair.ring.used
    if (this.pair.shape.eventIdx) hold('avail_event at rest', availableEvent, this.#consumed % 65536)
    else hold('used flags at rest', flags, 0)
    this.#deviceAsleep = !more
    this.#deviceRested = !more
    this.#deviceBusy = false
    this.#deviceTold = 0
    return more
  }

  restDriver(): boolean {
    const more = this.pair.driver.rearm()
    hold('the driver is told at once of what came back', more, this.#used > this.#reaped)
    const { flags, usedEvent } = this.pair.ring.available
    if (this.pair.shape.eventIdx) hold('used_event at rest', usedEvent, this.#reaped % 65536)
    else hold('available flags at rest', flags, 0)
    this.#driverAsleep = !more
    this.#driverDisarmed = false
    this.#driverTold = 0
    return more
  }

  disarm(): void {
    this.pair.driver.disarm()
    this.#driverDisarmed = true
    if (!this.pair.shape.eventIdx) this.#driverAsleep = false
  }

  /** Stops the device's end and goes on with a new one, when it can. */
  move(): boolean {
    if (this.pair.shape.device === 'literal') return false
    if (this.#finished !== this.#used) {
      hold(
        'no position with completions nobody was shown',
        throws(() => this.pair.device.leave()),
        true,
      )
      this.use()
    }
    const left = this.pair.device.leave()
    if (left === null) return false
    const position = { available: this.#consumed % 65536, used: this.#used % 65536 }
    hold('the position', left.position, position)
    hold('heads out', left.heads.length, this.#out.length + this.#again)
    this.pair.move()
    this.#waiting.unshift(...this.#out.map(({ request }) => request))
    this.#again += this.#out.length
    this.#out = []
    this.#deviceAsleep = false
    return true
  }

  /** Both ends go on until everything posted is back: nothing lost, nothing twice. */
  finish(): void {
    for (let rounds = 0; this.#held.size > 0; rounds++) {
      hold('work comes to an end', rounds < 3, true)
      this.show()
      while (this.take()) this.#agree()
      while (this.complete(0, 1000)) this.#agree()
      this.use()
      while (this.reap()) this.#agree()
    }
    hold('nothing waits', this.restDevice() || this.restDriver(), false)
    hold('everything came back', this.#reaped, this.#posted)
    this.#agree()
  }

  #needs(count: number): number {
    const { indirect, size, driver } = this.pair.shape
    const table = driver === 'ours' ? Math.min(size, 64) : size
    return indirect && count > 1 && count <= table ? 1 : count
  }

  #agree(): void {
    const { ring, shape, driver, device } = this.pair
    const { available, used } = ring
    hold('the available index', available.index, this.#shown % 65536)
    hold('the used index', used.index, this.#used % 65536)
    if (shape.eventIdx) hold('flags with EVENT_IDX', available.flags | used.flags, 0)
    else hold('events without EVENT_IDX', available.usedEvent | used.availableEvent, 0)
    hold('flags are 0 or 1', (available.flags | used.flags) <= 1, true)
    if (driver instanceof OurDriver) hold('outstanding', driver.ring.outstanding, this.#held.size)
    if (device instanceof OurDevice) hold('in flight', device.ring.inFlight, this.#out.length)
  }
}
