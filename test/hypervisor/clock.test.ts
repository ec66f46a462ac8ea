import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { VirtualClock } from '../../hypervisor/clock.ts'
import type { Pace } from '../../hypervisor/pace.ts'
import { Replay, ReplayDiverged } from '../../hypervisor/replay.ts'
import type { ArrivalSource, Plain, Release, Timer } from '../../protocol/platform.ts'
import type { TraceEvent } from '../../protocol/trace.ts'

/** What one turn does, nested as deep as it was drawn. */
interface Node {
  readonly kind: 'defer' | 'after' | 'cancel'
  readonly us: number
  readonly children: readonly Node[]
}

const { node } = fc.letrec<{ node: Node }>((tie) => ({
  node: fc.record({
    kind: fc.constantFrom('defer' as const, 'after' as const, 'after' as const, 'cancel' as const),
    us: fc.constantFrom(0, 1, 1, 2, 5),
    children: fc.oneof({ depthSize: 'small' }, fc.constant([]), fc.array(tie('node'), { maxLength: 3 })),
  }),
}))

/** The order rule itself: turns in the order they were asked for, then deadlines by time and by age. */
function expectedOrder(roots: readonly Node[]): readonly string[] {
  const log: string[] = []
  const queue: (() => void)[] = []
  let timers: { due: number; order: number; work: () => void }[] = []
  let now = 0
  let made = 0
  let names = 0
  const ask = (nodes: readonly Node[]): void => {
    for (const one of nodes) {
      const name = names++
      const work = () => {
        log.push(`${name} at ${now}`)
        ask(one.children)
      }
      if (one.kind === 'defer') queue.push(work)
      else if (one.kind === 'after') timers.push({ due: now + one.us, order: made++, work })
      else timers.pop()
    }
  }
  ask(roots)
  for (;;) {
    const work = queue.shift()
    if (work !== undefined) work()
    else {
      const [first] = [...timers].sort((a, b) => a.due - b.due || a.order - b.order)
      if (first === undefined) return log
      timers = timers.filter((one) => one !== first)
      now = first.due
      first.work()
    }
  }
}

function actualOrder(roots: readonly Node[]): readonly string[] {
  const clock = new VirtualClock()
  const log: string[] = []
  let live: { timer: Timer }[] = []
  let names = 0
  const ask = (nodes: readonly Node[]): void => {
    for (const one of nodes) {
      const name = names++
      const work = () => {
        log.push(`${name} at ${clock.now()}`)
        ask(one.children)
      }
      if (one.kind === 'defer') clock.defer(work)
      else if (one.kind === 'after') {
        const entry = {
          timer: clock.after(one.us, () => {
            live = live.filter((other) => other !== entry)
            work()
          }),
        }
        live.push(entry)
      } else live.pop()?.timer.cancel()
    }
  }
  ask(roots)
  clock.drain()
  return log
}

/** Someone outside who answers when the test says so. */
class Outside implements ArrivalSource {
  readonly path: string
  readonly heard: Plain[] = []
  readonly onHeard: (value: Plain) => void
  constructor(path: string, onHeard: (value: Plain) => void = () => {}) {
    this.path = path
    this.onHeard = onHeard
  }
  arrived(value: Plain): void {
    this.heard.push(value)
    this.onHeard(value)
  }
}

describe('virtual time', () => {
  it('runs turns in order, deadlines by time, ties by age, through any nesting and cancelling', () => {
    fc.assert(
      fc.property(fc.array(node, { maxLength: 6 }), (roots) => {
        expect(actualOrder(roots)).toEqual(expectedOrder(roots))
      }),
      { numRuns: 1000 },
    )
  })

  it('stands still while something outside is held: a read under a 1 ms timeout never times out', async () => {
    const waits = fc.array(fc.nat(20), { minLength: 1, maxLength: 8 })
    await fc.assert(
      fc.asyncProperty(waits, fc.infiniteStream(fc.nat(100)), async (times, choices) => {
        const clock = new VirtualClock()
        const answers: (() => void)[] = []
        const done: number[] = []
        let timedOut = 0
        times.forEach((us, index) => {
          clock.after(us % 2 === 0 ? 0 : us, () => {
            const timeout = clock.after(1000, () => {
              timedOut++
            })
            const release = clock.external(`read ${index}`)
            const source = new Outside(`file${index}`, () => {
              timeout.cancel()
              done.push(index)
            })
            answers.push(() => {
              clock.arrive(source, index)
              release()
            })
          })
        })
        let over = false
        const ran = clock.run().then(() => {
          over = true
        })
        for (let round = 0; !over && round < 1000; round++) {
          for (let turn = 0; turn < 5; turn++) await Promise.resolve()
          const [answer] = answers.splice((choices.next().value as number) % Math.max(answers.length, 1), 1)
          answer?.()
        }
        expect(over).toBe(true)
        await ran
        expect(timedOut).toBe(0)
        expect(done).toHaveLength(times.length)
        expect(clock.now()).toBeLessThan(1000)
      }),
      { numRuns: 200 },
    )
  })

  it('gives a result from outside a turn of its own, never inside the call that brought it', () => {
    const clock = new VirtualClock()
    const order: string[] = []
    const source = new Outside('file', () => order.push('arrived'))
    clock.defer(() => {
      clock.arrive(source, 1)
      order.push('brought')
      clock.defer(() => order.push('deferred'))
    })
    clock.drain()
    expect(order).toEqual(['brought', 'deferred', 'arrived'])
  })

  it('refuses what is our own mistake: a negative timer, a second release, a start from inside, a runaway', () => {
    const clock = new VirtualClock({ turnsMax: 100 })
    expect(() => clock.after(-1, () => {})).toThrow(RangeError)
    expect(() => clock.after(Number.NaN, () => {})).toThrow(RangeError)
    const release = clock.external('a read')
    expect(clock.held).toEqual(['a read'])
    release()
    expect(() => release()).toThrow(/released twice/)
    clock.defer(() => clock.drain())
    expect(() => clock.drain()).toThrow(/inside a turn/)
    const forever = (): void => clock.defer(forever)
    forever()
    expect(() => clock.drain()).toThrow(/still busy after 100 turns/)
  })

  it('loses no turn when one throws', () => {
    const clock = new VirtualClock()
    const order: number[] = []
    clock.defer(() => {
      throw new Error('a turn of ours')
    })
    clock.defer(() => order.push(1))
    expect(() => clock.drain()).toThrow('a turn of ours')
    clock.drain()
    expect(order).toEqual([1])
  })

  it('runs one queued turn at a preemption point, nested, each turn once, and moves no time', () => {
    const clock = new VirtualClock()
    const order: string[] = []
    clock.after(1, () => order.push('timer'))
    clock.defer(() => {
      order.push('in')
      expect(clock.preempt()).toBe(true)
      expect(clock.preempt()).toBe(true)
      expect(clock.preempt()).toBe(false)
      order.push('out')
    })
    clock.defer(() => {
      order.push('next')
      clock.defer(() => order.push('its child'))
    })
    clock.drain()
    expect(order).toEqual(['in', 'next', 'its child', 'out', 'timer'])
    expect(clock.turns).toBe(4)
  })
})

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

describe('a hold that only its owner can see', () => {
  it('counts while it is under way, as asked when time is about to move', () => {
    const clock = new VirtualClock()
    let underWay = false
    const ran: number[] = []
    const release = clock.external('a daemon', () => underWay)
    clock.after(1, () => {
      ran.push(clock.now())
      // Begun in memory, and nobody was told.
      clock.defer(() => {
        underWay = true
      })
    })
    clock.after(2, () => ran.push(clock.now()))
    clock.drain()
    expect(ran).toEqual([1])
    expect(clock.held).toEqual(['a daemon'])
    underWay = false
    clock.drain()
    expect(ran).toEqual([1, 2])
    expect(clock.held).toEqual([])
    release()
    expect(release).toThrow(/twice/)
  })

  it('is waited for, and ends with an arrival', async () => {
    const clock = new VirtualClock()
    let underWay = true
    const release = clock.external('a daemon', () => underWay)
    const order: string[] = []
    clock.after(5, () => order.push('timer'))
    const source = new Outside('daemon', () => order.push('answered'))
    const ran = clock.run()
    expect(order).toEqual([])
    underWay = false
    clock.arrive(source, null)
    await ran
    expect(order).toEqual(['answered', 'timer'])
    expect(clock.unsaved).toMatch(/a daemon/)
    release()
    expect(clock.unsaved).toBe(null)
  })
})

/** Real time in the test's own hands. */
class TestPace implements Pace {
  us = 1_000_000
  sleeping: { until: number; wake: () => void } | null = null
  nowUs(): number {
    return this.us
  }
  sleep(us: number, wake: () => void): () => void {
    this.sleeping = { until: this.us + us, wake }
    return () => {
      this.sleeping = null
    }
  }
  async pass(us: number): Promise<void> {
    this.us += us
    if (this.sleeping !== null && this.sleeping.until <= this.us) this.sleeping.wake()
    // The outermost loop wakes in a microtask or two.
    for (let turn = 0; turn < 4; turn++) await Promise.resolve()
  }
}

describe('a paced clock', () => {
  it('runs a deadline when it is really due, held or not', async () => {
    const pace = new TestPace()
    const clock = new VirtualClock({ pace })
    const times: number[] = []
    const release = clock.external('a client')
    clock.after(100, () => times.push(clock.now()))
    clock.after(250, () => times.push(clock.now()))
    const ran = clock.run()
    expect(times).toEqual([])
    await pace.pass(99)
    expect(times).toEqual([])
    await pace.pass(1)
    expect(times).toEqual([100])
    await pace.pass(300)
    expect(times).toEqual([100, 400])
    release()
    await ran
    expect(clock.now()).toBe(400)
  })

  it('lets the outside in at the time it comes', async () => {
    const pace = new TestPace()
    const clock = new VirtualClock({ pace })
    const times: number[] = []
    const release = clock.external('a client')
    const source = new Outside('client', () => {
      times.push(clock.now())
      release()
    })
    const ran = clock.run()
    await pace.pass(30)
    clock.arrive(source, null)
    await ran
    expect(times).toEqual([30])
  })
})

describe('named work', () => {
  it('is asked for once at a time, and survives save and load with its place among ties', () => {
    const make = (log: string[]) => {
      const clock = new VirtualClock()
      const turn = clock.turn('turn', () => log.push(`turn at ${clock.now()}`))
      const timers = ['a', 'b', 'c'].map((name) =>
        clock.timer(name, () => {
          log.push(`${name} at ${clock.now()}`)
        }),
      )
      return { clock, turn, timers }
    }
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(2), fc.option(fc.constantFrom(0, 3, 3, 7), { freq: 4 })), { maxLength: 12 }),
        fc.boolean(),
        fc.nat(4),
        (arms, asks, turns) => {
          const log: string[] = []
          const { clock, turn, timers } = make(log)
          for (const [which, us] of arms) {
            if (us === null) timers[which]?.withdraw()
            else timers[which]?.arm(us)
          }
          if (asks) {
            turn.ask()
            turn.ask()
          }
          for (let done = 0; done < turns && clock.step(); done++);
          const state = JSON.parse(JSON.stringify(clock.save())) as Plain
          const otherLog = [...log]
          const other = make(otherLog)
          other.timers[1]?.arm(1)
          other.turn.ask()
          expect(other.clock.load(state)).toBeNull()
          expect(other.timers.map(({ dueUs }) => dueUs)).toEqual(timers.map(({ dueUs }) => dueUs))
          clock.drain()
          other.clock.drain()
          expect(otherLog).toEqual(log)
          expect(other.clock.save()).toEqual(clock.save())
        },
      ),
    )
  })

  it('has one owner a name, and a state that names nobody is refused', () => {
    const clock = new VirtualClock()
    clock.timer('a', () => {})
    expect(() => clock.turn('a', () => {})).toThrow(/"a"/)
    const state = new VirtualClock().save() as Record<string, Plain>
    const refused: [Plain, RegExp][] = [
      [{ ...state, queue: ['b'] }, /nobody here is called "b"/],
      [{ ...state, queue: ['a'] }, /nobody here is called "a"/],
      [{ ...state, made: 1, timers: [{ name: 'b', dueUs: 1, order: 0 }] }, /nobody here is called "b"/],
      [{ ...state, nowUs: 5, made: 1, timers: [{ name: 'a', dueUs: 1, order: 0 }] }, /a time to come/],
      [{ ...state, nowUs: -1 }, /no time/],
      [{ ...state, version: 2 }, /version 2/],
    ]
    for (const [bad, why] of refused) expect(clock.load(bad)).toMatch(why)
    expect(clock.load(state)).toBeNull()
  })
})
