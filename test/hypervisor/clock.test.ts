import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { VirtualClock } from '../../hypervisor/clock.ts'
import type { Pace } from '../../hypervisor/pace.ts'
import type { Plain, Timer } from '../../protocol/platform.ts'
import { Outside } from './outside.ts'

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
