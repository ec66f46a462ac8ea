import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import type { EdgeLoop, Watch } from '../../native/edge-loop.ts'
import { EventDescriptor } from '../../native/event-descriptor.ts'
import { PollLoop } from '../../native/poll-loop.ts'
import { UnixSocket } from '../../native/unix-socket.ts'
import { UvLoop } from '../../native/uv-loop.ts'
import { DUE } from './idle-loop.ts'
import { nativeOrSkip } from './native-or-skip.ts'

const LOOPS: readonly (readonly [name: string, make: () => EdgeLoop])[] = [
  ["Node's loop", () => new UvLoop()],
  ['the loop that sleeps in poll', () => new PollLoop()],
]

describe.each(LOOPS)('%s', (_name, make) => {
  nativeOrSkip()

  it('runs a turn first, and one after each descriptor that is ready', async () => {
    using loop = make()
    using event = EventDescriptor.create()
    const log: string[] = []
    using _watch = loop.watch(event.descriptor, () => {
      event.drain()
      log.push('ready')
    })
    await loop.run({
      turn() {
        log.push('turn')
        if (log.length >= 5) loop.stop()
        else event.signal()
        return null
      },
    })
    expect(log).toEqual(['turn', 'ready', 'turn', 'ready', 'turn'])
  })

  it('tells again and again of what nobody takes, and of a peer that has closed', async () => {
    using loop = make()
    const [left, right] = UnixSocket.pair()
    left.close()
    let told = 0
    const watch = loop.watch(right.descriptor, () => {
      told++
      if (told === 3) loop.stop()
    })
    await loop.run({ turn: () => null })
    expect(told).toBe(3)
    watch.close()
    right.close()
  })

  it('tells nothing to a watch that is closed, not even by its neighbour in the same round', async () => {
    using loop = make()
    using one = EventDescriptor.create()
    using two = EventDescriptor.create()
    one.signal()
    two.signal()
    const told: string[] = []
    const watches: Watch[] = []
    const tell = (name: string) => () => {
      told.push(name)
      for (const watch of watches) watch.close()
      loop.wakeUp()
    }
    watches.push(loop.watch(one.descriptor, tell('one')), loop.watch(two.descriptor, tell('two')))
    await loop.run({
      turn() {
        if (told.length > 0) loop.stop()
        return null
      },
    })
    expect(told.length).toBe(1)
    expect(() => watches[0]?.close()).toThrow('twice')
  })

  it('runs again when it is due or woken, though nothing happens', async () => {
    using loop = make()
    const answers = [0, 500, null]
    let turns = 0
    await loop.run({
      turn() {
        const answer = answers[turns++]
        if (answer === null) loop.wakeUp()
        if (answer === undefined) loop.stop()
        return answer ?? null
      },
    })
    expect(turns).toBe(4)
  })

  it('lets promises, timers and immediates of others go on', async () => {
    using loop = make()
    let timers = 0
    const timer = setInterval(() => {
      timers++
      if (timers === 2) void Promise.resolve().then(() => loop.stop())
      // Whoever stops it from outside of a turn also wakes it.
      if (timers === 2) setImmediate(() => loop.wakeUp())
    }, 1)
    await loop.run({ turn: () => null })
    clearInterval(timer)
    expect(timers).toBeGreaterThanOrEqual(2)
  })

  it('ends with what is thrown in a turn or in a callback, and can be run again', async () => {
    using loop = make()
    using event = EventDescriptor.create()
    const failing = loop.run({
      turn() {
        throw new Error('in a turn')
      },
    })
    await expect(failing).rejects.toThrow('in a turn')
    event.signal()
    const watch = loop.watch(event.descriptor, () => {
      throw new Error('in a callback')
    })
    await expect(loop.run({ turn: () => null })).rejects.toThrow('in a callback')
    watch.close()
    await loop.run({
      turn() {
        loop.stop()
        return null
      },
    })
  })
})

describe('the loop that sleeps in poll', () => {
  nativeOrSkip()

  it('sleeps until it is due, in a process that has nothing else to do', () => {
    const file = fileURLToPath(new URL('idle-loop.ts', import.meta.url))
    const asked = execFileSync(process.execPath, ['--import', 'tsx', file], { encoding: 'utf8' })
    const [, ...later] = JSON.parse(asked) as unknown[]
    expect(later).toEqual(DUE.slice(1))
  })
})
