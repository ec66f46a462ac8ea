import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { VirtualClock } from '../../hypervisor/clock.ts'
import { Replay, ReplayDiverged } from '../../hypervisor/replay.ts'
import type { Release } from '../../protocol/platform.ts'
import type { TraceEvent } from '../../protocol/trace.ts'
import { Outside } from './outside.ts'

interface Asked {
  readonly index: number
  readonly source: Outside
  readonly release: Release
}

/**
 * A run of questions to the outside, each answered in a turn that asks more and computes; `answer` chooses which
 * of those asked comes next, or null for none before the clock has drained.
 */
function runWithOutside(
  clock: VirtualClock,
  fanOut: readonly number[],
  answer: (asked: number) => number,
): readonly string[] {
  const log: string[] = []
  let asked: Asked[] = []
  let count = 0
  const ask = (): void => {
    const index = count++
    const source = new Outside(`file${index % 3}`, (value) => {
      log.push(`${JSON.stringify(value)} after ${clock.turns} at ${clock.now()}`)
      for (let more = fanOut[index] ?? 0; more > 0; more--) clock.defer(ask)
      clock.after(index % 5, () => log.push(`timer ${index} at ${clock.now()}`))
    })
    asked.push({ index, source, release: clock.external(source.path) })
  }
  ask()
  ask()
  clock.drain()
  for (let round = 0; asked.length > 0; round++) {
    const [one] = asked.splice(answer(asked.length), 1)
    if (one === undefined) break
    const { index, source, release } = one
    clock.arrive(source, { request: index })
    release()
    if (round % 2 === 0) clock.drain()
    if (asked.length === 0) clock.drain()
  }
  asked = []
  clock.drain()
  return log
}

describe('a replay', () => {
  const fanOuts = fc.array(fc.nat(2), { maxLength: 12 })

  it('lets arrivals in where they came, in whatever order the outside brings them this time', () => {
    fc.assert(
      fc.property(fanOuts, fc.infiniteStream(fc.nat(100)), fc.infiniteStream(fc.nat(100)), (fanOut, a, b) => {
        const events: TraceEvent[] = []
        const clock = new VirtualClock({ trace: { on: true, emit: (event) => void events.push(event) } })
        const log = runWithOutside(clock, fanOut, (asked) => (a.next().value as number) % asked)
        const again: TraceEvent[] = []
        const replay = Replay.ofTrace(events)
        const other = new VirtualClock({
          replay,
          trace: { on: true, emit: (event) => void again.push(event) },
        })
        expect(runWithOutside(other, fanOut, (asked) => (b.next().value as number) % asked)).toEqual(log)
        expect(again).toEqual(events)
        expect(replay.next).toBeNull()
      }),
      { numRuns: 300 },
    )
  })

  const RECORD = { number: 0, turn: 1, source: 'tap', value: 'frame' } as const

  it('brings what a fed source brought without asking the outside', () => {
    const replay = new Replay([RECORD, { number: 1, turn: 1, source: 'tap', value: 'another' }])
    const source = new Outside('tap')
    replay.feed(source)
    const clock = new VirtualClock({ replay })
    clock.defer(() => expect(source.heard).toEqual([]))
    clock.drain()
    expect(source.heard).toEqual(['frame', 'another'])
  })

  it('says where a run leaves its trace', () => {
    const diverges = (act: (clock: VirtualClock, source: Outside) => void, why: RegExp): void => {
      const clock = new VirtualClock({ replay: new Replay([RECORD]) })
      clock.defer(() => {})
      act(clock, new Outside('tap'))
      expect(() => clock.drain()).toThrow(ReplayDiverged)
      expect(() => clock.drain()).toThrow(why)
    }
    diverges((clock, source) => clock.arrive(source, 'other'), /is "other" and was "frame"/)
    diverges(() => {}, /nobody asks for arrival 0 of tap/)
    diverges((clock) => clock.arrive(new Outside('file'), 'frame'), /nobody asks/)
    diverges((clock) => {
      clock.defer(() => {})
      clock.step()
      clock.step()
    }, /turn 2 ran before arrival 0/)
    diverges((clock, source) => {
      clock.arrive(source, 'frame')
      clock.arrive(source, 'frame')
    }, /brings more than it did/)
    const late = new VirtualClock({ replay: new Replay([{ ...RECORD, turn: 9 }]) })
    late.arrive(new Outside('tap'), 'frame')
    expect(() => late.drain()).toThrow(/came after turn 9, and 0 is the last/)
    expect(() => new Replay([{ ...RECORD, number: 1 }])).toThrow(RangeError)
    expect(() => new Replay([RECORD, { ...RECORD, number: 1, turn: 0 }])).toThrow(RangeError)
  })

  it('waits for a source that is asked again, and lets no turn pass meanwhile', async () => {
    const replay = new Replay([RECORD])
    const clock = new VirtualClock({ replay })
    const order: string[] = []
    const source = new Outside('tap', () => order.push('arrived'))
    const release = clock.external('tap')
    clock.defer(() => {
      order.push('asked')
      clock.defer(() => order.push('queued'))
      clock.after(0, () => order.push('timer'))
    })
    const ran = clock.run()
    expect(order).toEqual(['asked'])
    clock.arrive(source, 'frame')
    release()
    await ran
    expect(order).toEqual(['asked', 'queued', 'arrived', 'timer'])
  })

  it('leaves the event loop its turn while what came first has to wait for another', async () => {
    const records = [RECORD, { ...RECORD, number: 1, value: 'second' }]
    const clock = new VirtualClock({ replay: new Replay(records) })
    const source = new Outside('tap')
    let asked = 0
    const release = clock.external('tap', () => {
      // Whoever asks over and over without letting the outside speak would never end.
      if (++asked > 100) throw new Error('the event loop starves')
      return true
    })
    clock.defer(() => {
      setImmediate(() => {
        clock.arrive(source, 'second')
        setImmediate(() => {
          clock.arrive(source, 'frame')
          release()
        })
      })
    })
    await clock.run()
    expect(source.heard).toEqual(['frame', 'second'])
  })
})
