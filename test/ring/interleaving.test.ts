import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { PairShape, Taken } from './ends.ts'
import { DATA_AT, Pair } from './ends.ts'
import { Rig, stepsArbitrary } from './rig.ts'

const PAIRS = [
  ['ours', 'ours'],
  ['ours', 'literal'],
  ['literal', 'ours'],
] as const

/** Where 16 bits end, and where nothing does. */
const start = fc.oneof(
  fc.integer({ min: 65_536 - 40, max: 65_535 }),
  fc.constantFrom(0, 32_767),
  fc.nat(65_535),
)
/** Our driver is spun to its start one request at a time, so that few runs begin far out. */
const nearStart = fc.oneof(
  { weight: 6, arbitrary: fc.nat(40) },
  { weight: 1, arbitrary: fc.integer({ min: 65_536 - 40, max: 65_535 }) },
)
const size = fc.oneof(
  { weight: 8, arbitrary: fc.constantFrom(1, 2, 4, 8, 16) },
  { weight: 1, arbitrary: fc.constantFrom(32, 64, 128, 256) },
)

function shapeArbitrary(driver: 'ours' | 'literal', device: 'ours' | 'literal'): fc.Arbitrary<PairShape> {
  return fc.record({
    size,
    eventIdx: fc.boolean(),
    indirect: fc.boolean(),
    start: driver === 'ours' ? nearStart : start,
    driver: fc.constant(driver),
    device: fc.constant(device),
  })
}

describe.each(PAIRS)('a driver’s end (%s) and a device’s end (%s)', (driver, device) => {
  it('agree about every request, length, notification and descriptor, whatever the order of their steps', () => {
    fc.assert(
      fc.property(shapeArbitrary(driver, device), stepsArbitrary(120), (shape, steps) => {
        const rig = new Rig(shape)
        for (const step of steps) rig.step(step)
        rig.finish()
      }),
      { numRuns: 150 },
    )
  })

  it('fill a ring to the last entry and empty it again, at every size, over the end of 16 bits', () => {
    for (let size = 1; size <= 256; size *= 2) {
      for (const eventIdx of [false, true]) {
        const rig = new Rig({ size, eventIdx, indirect: false, start: 65_536 - (size >> 1), driver, device })
        for (let round = 0; round < 3; round++) {
          for (let i = 0; i < size; i++) expect(rig.post([], [i + 1])).toBe(true)
          expect(rig.post([], [1])).toBe(false)
          rig.step({ kind: 'show' })
          for (let i = 0; i < size; i++) rig.step({ kind: 'take' })
          expect(rig.take()).toBe(false)
          for (let i = 0; i < size; i++) rig.step({ kind: 'complete', which: i * 5, permille: 1000 })
          rig.step({ kind: 'use' })
          for (let i = 0; i < size; i++) rig.step({ kind: 'reap' })
          expect(rig.outstanding).toBe(0)
        }
        rig.finish()
      }
    }
  })

  it('carry one chain of exactly the queue size, direct and by a table', () => {
    for (const indirect of [false, true]) {
      for (const size of [1, 2, 16, 64]) {
        const rig = new Rig({ size, eventIdx: true, indirect, start: 0, driver, device })
        const readable = Array.from({ length: size >> 1 }, (_, i) => i + 1)
        const writable = Array.from({ length: size - readable.length }, (_, i) => 100 + i)
        expect(rig.post(readable, writable)).toBe(true)
        rig.step({ kind: 'show' })
        rig.step({ kind: 'take' })
        rig.step({ kind: 'complete', which: 0, permille: 1000 })
        rig.finish()
      }
    }
  })

  it('keep a request that is out while the indices go round, once and more', () => {
    const { driver: front, ...rest } = new Pair({
      size: 8,
      eventIdx: true,
      indirect: false,
      start: 0,
      driver,
      device,
    })
    let number = 0
    const take = () => {
      expect(front.post({ number, buffers: [{ at: DATA_AT, lengthBytes: 4, write: true }] })).toBe(true)
      front.publish()
      number++
      return rest.device.next() as Taken
    }
    const back = (taken: Taken) => {
      rest.device.complete(taken, 4)
      rest.device.publish()
      return front.reap()?.request
    }
    const slow = Array.from({ length: 6 }, take)
    for (const after of [32_767, 32_768, 32_769, 65_535, 65_536, 70_000]) {
      while (number < after) if (back(take()) !== number - 1) throw new Error(`request ${number - 1} is lost`)
      const old = slow.shift() as Taken
      expect(back(old), `after ${after} requests`).toBe(5 - slow.length)
    }
  })

  it('never both rest with work between them, when each acts on notifications alone', () => {
    fc.assert(
      fc.property(
        shapeArbitrary(driver, device),
        fc.array(fc.nat(3), { minLength: 1, maxLength: 60 }),
        fc.integer({ min: 1, max: 40 }),
        (shape, choices, requests) => {
          const rig = new Rig(shape)
          new Sleepers(rig, requests).run(choices)
          expect(rig.outstanding).toBe(0)
        },
      ),
      { numRuns: 120 },
    )
  })
})

/** Two parties that sleep until they are notified; `choices` decide who goes first, and how far. */
class Sleepers {
  readonly #rig: Rig
  #left: number
  #deviceAwake = false
  #driverAwake = true

  constructor(rig: Rig, requests: number) {
    this.#rig = rig
    this.#left = requests
  }

  run(choices: readonly number[]): void {
    for (let turn = 0; this.#deviceAwake || this.#driverAwake; turn++) {
      expect(turn, 'the parties come to rest').toBeLessThan(20_000)
      const choice = choices[turn % choices.length] ?? 0
      if (this.#driverAwake && (choice % 2 === 0 || !this.#deviceAwake)) this.#driverTurn(choice)
      else this.#deviceTurn(choice)
    }
    expect(this.#left).toBe(0)
  }

  #driverTurn(choice: number): void {
    const rig = this.#rig
    if (choice === 0) rig.disarm()
    while (rig.reap());
    for (let i = 0; i <= choice && this.#left > 0; i++) if (rig.post([], [choice + 1])) this.#left--
    if (rig.show()) this.#deviceAwake = true
    // One that still has requests and room for them is not at rest.
    const room = this.#left > 0 && rig.outstanding === 0
    this.#driverAwake = rig.restDriver() || room
  }

  #deviceTurn(choice: number): void {
    const rig = this.#rig
    if (choice === 3) rig.move()
    for (let i = 0; i <= choice; i++) if (!rig.take()) break
    for (let i = 0; i < choice; i++) rig.complete(i * choice, 1000)
    if (rig.use()) this.#driverAwake = true
    if (rig.restDevice()) return
    // Nothing more arrives: a backend answers what it still has, each with a publication of its own.
    while (rig.complete(1, 0)) if (rig.use()) this.#driverAwake = true
    this.#deviceAwake = false
  }
}
