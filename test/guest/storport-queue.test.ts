import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Irql } from '../../guest/kernel/irql.ts'
import { SrbFlag, SrbFunction, SrbStatus } from '../../guest/port/srb.ts'
import { type Play, ScriptedMiniport } from './scripted-miniport.ts'
import { type Request, type Sent, StorportRig } from './storport-rig.ts'

function rigged(script: Play[], seed?: number) {
  const rig = new StorportRig(seed === undefined ? {} : { seed })
  let miniport: ScriptedMiniport | null = null
  rig.machine.run(() =>
    rig.start((services) => {
      miniport = new ScriptedMiniport(rig.kernel, services, script)
      return miniport
    }),
  )
  return { rig, miniport: miniport as unknown as ScriptedMiniport }
}

/** Byte 1 of the command names the request. */
const named = (name: number) => ({ cdb: [0, name, 0, 0, 0, 0] })

function sendAll(rig: StorportRig, count: number, flags?: number): Sent[] {
  const sent: Sent[] = []
  // biome-ignore lint/correctness/useYield: a thread body is a generator, and this one does not wait
  rig.machine.run(function* () {
    for (let name = 0; name < count; name++) {
      sent.push(rig.send(flags === undefined ? named(name) : { ...named(name), flags }))
    }
  })
  rig.machine.drain()
  return sent
}

describe('a unit', () => {
  it('has its requests started in order, no more than its depth at once, and each ended once', () => {
    const play: fc.Arbitrary<Play> = fc.oneof(
      fc.record({ kind: fc.constant('at-once' as const), status: fc.constantFrom(1, 1, 4, 5) }),
      fc.record({
        kind: fc.constant('later' as const),
        us: fc.integer({ min: 1, max: 20_000 }),
        status: fc.constantFrom(1, 1, 4, 5, 0x12),
      }),
      fc.constant({ kind: 'refuse' as const }),
      fc.record({ kind: fc.constant('in-build' as const), status: fc.constantFrom(7, 1) }),
    )
    fc.assert(
      fc.property(
        fc.array(play, { maxLength: 30 }),
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 1, max: 6 }),
        fc.option(fc.nat(999), { nil: undefined }),
        (plays, count, depth, seed) => {
          const { rig, miniport } = rigged([...plays, { kind: 'later', us: 50, status: 1 }], seed)
          rig.unit.depth = depth
          const sent = sendAll(rig, count)
          expect(sent.map((one) => one.ends)).toEqual(sent.map(() => 1))
          expect(miniport.mostOut).toBeLessThanOrEqual(depth)
          // Again is another start; the first start of each comes in order.
          const first = [...new Set(miniport.started)]
          expect(first).toEqual([...first].sort((a, b) => a - b))
          expect(rig.adapter.counts.strayCompletions).toBe(0)
          expect(rig.adapter.outCount).toBe(0)
        },
      ),
      { numRuns: 150 },
    )
  })

  it('calls its miniport at the levels Storport does', () => {
    const { rig, miniport } = rigged([{ kind: 'later', us: 10, status: 1 }], 7)
    sendAll(rig, 20)
    miniport.script[0] = { kind: 'never' }
    sendAll(rig, 1)
    const levels = Object.fromEntries([...miniport.levels].map(([name, seen]) => [name, [...seen]]))
    expect(levels).toMatchObject({
      findAdapter: [Irql.PASSIVE],
      initialize: [Irql.DEVICE],
      startIo: [Irql.DISPATCH],
      dpc: [Irql.DISPATCH],
      timer: [Irql.DISPATCH],
    })
    for (const level of levels['buildIo'] ?? []) expect(level).toBeLessThanOrEqual(Irql.DISPATCH)
  })

  it('tries a busy request again while its time lasts, as it was asked', () => {
    const busy: Play = { kind: 'at-once', status: SrbStatus.BUSY }
    const { rig, miniport } = rigged([...Array<Play>(50).fill(busy), { kind: 'at-once', status: 1 }])
    const [sent] = sendAll(rig, 1)
    expect(sent?.status).toBe('SUCCESS')
    expect(miniport.started.length).toBe(51)
    expect(rig.adapter.counts.busyRetries).toBe(50)
  })

  it('hands up a request that stays busy until its time is over, and takes the next', () => {
    for (const play of [{ kind: 'at-once', status: SrbStatus.BUSY }, { kind: 'refuse' }] as const) {
      const { rig, miniport } = rigged([play])
      const sent: Sent[] = []
      rig.machine.run(function* () {
        sent.push(rig.send({ ...named(1), timeoutSeconds: 3 }))
        yield* rig.kernel.keDelayExecutionThread(2_900_000)
        expect(sent[0]?.ends).toBe(0)
        yield* rig.kernel.keDelayExecutionThread(200_000)
        expect([sent[0]?.ends, sent[0]?.status, sent[0]?.srbStatus]).toEqual([
          1,
          'IO_DEVICE_ERROR',
          SrbStatus.BUSY,
        ])
        miniport.script.splice(0, 1, { kind: 'at-once', status: SrbStatus.SUCCESS })
        sent.push(rig.send(named(2)))
      })
      expect(sent.map((one) => [one.ends, one.status])).toEqual([
        [1, 'IO_DEVICE_ERROR'],
        [1, 'SUCCESS'],
      ])
    }
  })

  it('asks for as much each time it tries, whatever the miniport left in the SRB', () => {
    const { rig, miniport } = rigged([
      { kind: 'at-once', status: SrbStatus.BUSY },
      { kind: 'at-once', status: 1 },
    ])
    const sent = sendBuffer(rig, { lengthBytes: 1024 })
    expect(miniport.asked).toEqual([1024, 1024])
    expect([sent.status, sent.moved]).toEqual(['SUCCESS', 1024])
  })

  it('starts nothing whose buffer is shorter than it says', () => {
    const { rig, miniport } = rigged([{ kind: 'at-once', status: 1 }])
    const sent = sendBuffer(rig, { lengthBytes: 8192, mdlBytes: 4096 })
    expect([sent.srbStatus, sent.status]).toEqual([SrbStatus.INVALID_REQUEST, 'INVALID_DEVICE_REQUEST'])
    expect(miniport.started).toEqual([])
  })
})

describe('a failed request', () => {
  it('freezes the queue, unless it was sent not to; what bypasses goes out, RELEASE_QUEUE lets the rest go', () => {
    const { rig, miniport } = rigged([
      { kind: 'at-once', status: SrbStatus.ERROR },
      { kind: 'at-once', status: 1 },
    ])
    const [failed, waiting] = sendAll(rig, 2, 0)
    expect(failed?.srbStatus).toBe(SrbStatus.ERROR | 0x40)
    expect(waiting?.ends).toBe(0)
    const [bypassing] = sendAll(rig, 1, SrbFlag.BYPASS_FROZEN_QUEUE)
    expect(bypassing?.ends).toBe(1)
    expect(miniport.started.length).toBe(2)
    const [release] = sendFunction(rig, SrbFunction.RELEASE_QUEUE)
    expect(release?.status).toBe('SUCCESS')
    expect(waiting?.status).toBe('SUCCESS')
    const other = rigged([
      { kind: 'at-once', status: SrbStatus.ERROR },
      { kind: 'at-once', status: 1 },
    ])
    expect(sendAll(other.rig, 2).map((one) => one.srbStatus)).toEqual([SrbStatus.ERROR, SrbStatus.SUCCESS])
  })

  it('has what waits behind it ended by FLUSH_QUEUE', () => {
    const { rig } = rigged([{ kind: 'at-once', status: SrbStatus.ERROR }])
    const [, ...waiting] = sendAll(rig, 4, 0)
    sendFunction(rig, SrbFunction.FLUSH_QUEUE)
    expect(waiting.map((one) => one.srbStatus & 0x3f)).toEqual([0x16, 0x16, 0x16])
    expect(rig.unit.frozen).toBe(false)
  })
})

/** Sends one with a buffer of a user's. */
function sendBuffer(rig: StorportRig, request: Omit<Request, 'cdb' | 'buffer'>): Sent {
  const sent: Sent[] = []
  const buffer = rig.kernel.parts.space.allocateUser(16 * 4096)
  // biome-ignore lint/correctness/useYield: a thread body is a generator, and this one does not wait
  rig.machine.run(function* () {
    sent.push(rig.send({ ...named(0), ...request, buffer }))
  })
  rig.machine.drain()
  return sent[0] as Sent
}

function sendFunction(rig: StorportRig, code: number): Sent[] {
  const sent: Sent[] = []
  // biome-ignore lint/correctness/useYield: a thread body is a generator, and this one does not wait
  rig.machine.run(function* () {
    sent.push(rig.send({ function: code }))
  })
  rig.machine.drain()
  return sent
}

describe('a locked queue', () => {
  it('lets out only what bypasses, until it is unlocked', () => {
    const { rig, miniport } = rigged([{ kind: 'at-once', status: 1 }])
    sendFunction(rig, SrbFunction.LOCK_QUEUE)
    const [waiting] = sendAll(rig, 1)
    const [bypassing] = sendAll(rig, 1, SrbFlag.BYPASS_LOCKED_QUEUE)
    expect([waiting?.ends, bypassing?.ends, miniport.started.length]).toEqual([0, 1, 1])
    sendFunction(rig, SrbFunction.UNLOCK_QUEUE)
    expect(waiting?.status).toBe('SUCCESS')
  })
})

describe('a claim', () => {
  it('is one class driver’s until it is given back', () => {
    const { rig } = rigged([])
    const answers = [
      SrbFunction.CLAIM_DEVICE,
      SrbFunction.CLAIM_DEVICE,
      SrbFunction.RELEASE_DEVICE,
      SrbFunction.CLAIM_DEVICE,
    ].map((code) => sendFunction(rig, code)[0]?.status)
    expect(answers).toEqual(['SUCCESS', 'DEVICE_BUSY', 'SUCCESS', 'SUCCESS'])
    expect(sendFunction(rig, SrbFunction.WMI)[0]?.status).toBe('INVALID_DEVICE_REQUEST')
  })
})

describe('cancelling', () => {
  it('ends what waits, at every preemption point, and leaves what is out to the miniport', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: 12 }),
        fc.nat(11),
        fc.option(fc.nat(9999), { nil: undefined }),
        fc.integer({ min: 0, max: 400 }),
        (count, which, seed, waitUs) => {
          const { rig, miniport } = rigged([{ kind: 'later', us: 100, status: 1 }], seed)
          const { kernel } = rig
          rig.unit.depth = 1
          const sent: Sent[] = []
          rig.machine.run(function* () {
            for (let name = 0; name < count; name++) sent.push(rig.send(named(name)))
            yield* kernel.keDelayExecutionThread(waitUs)
            const { irp } = sent[which % count] as Sent
            if (irp !== null) kernel.ioCancelIrp(irp)
          })
          rig.machine.drain()
          expect(sent.map((one) => one.ends)).toEqual(sent.map(() => 1))
          for (const [name, one] of sent.entries()) {
            const went = miniport.started.includes(name)
            expect(one.status).toBe(went ? 'SUCCESS' : 'CANCELLED')
            if (!went) expect(name).toBe(which % count)
          }
          expect(kernel.parts.irps.liveCount).toBe(0)
        },
      ),
      { numRuns: 200 },
    )
  })
})

describe('a request cancelled before it came', () => {
  it('ends at once where it would have to wait', () => {
    const { rig, miniport } = rigged([{ kind: 'later', us: 100, status: 1 }])
    rig.unit.depth = 1
    const sent: Sent[] = []
    // biome-ignore lint/correctness/useYield: a thread body is a generator, and this one does not wait
    rig.machine.run(function* () {
      sent.push(rig.send(named(0)), rig.send({ ...named(1), cancelled: true }))
    })
    rig.machine.drain()
    expect(sent.map((one) => [one.ends, one.status])).toEqual([
      [1, 'SUCCESS'],
      [1, 'CANCELLED'],
    ])
    expect(miniport.started).toEqual([0])
  })
})

describe('a request out of time', () => {
  const late = { ...named(1), timeoutSeconds: 3 }

  function never(onReset: 'end' | 'ignore') {
    const { rig, miniport } = rigged([{ kind: 'never' }])
    miniport.onReset = onReset
    const sent: Sent[] = []
    // biome-ignore lint/correctness/useYield: a thread body is a generator, and this one does not wait
    rig.machine.run(function* () {
      sent.push(rig.send(late), rig.send({ ...named(2), timeoutSeconds: 1000 }))
    })
    rig.machine.drain()
    return { rig, miniport, sent }
  }

  it('has the unit reset, and no more when that ended it', () => {
    const { miniport, sent, rig } = never('end')
    expect(miniport.resets).toEqual(['unit'])
    expect(sent.map((one) => [one.ends, one.srbStatus])).toEqual([
      [1, SrbStatus.BUS_RESET],
      [1, SrbStatus.BUS_RESET],
    ])
    expect(rig.adapter.counts.timeouts).toBe(1)
  })

  it('has unit, target and bus reset in turn, is given up, and its late end meets nothing', () => {
    const { rig, miniport, sent } = never('ignore')
    expect(miniport.resets).toEqual(['unit', 'device', 'bus'])
    expect(sent.map((one) => [one.ends, one.status])).toEqual([
      [1, 'IO_TIMEOUT'],
      [1, 'IO_TIMEOUT'],
    ])
    expect(rig.machine.clock.now()).toBeLessThan(50_000_000)
    miniport.endLate()
    rig.machine.drain()
    expect(rig.adapter.counts).toMatchObject({ strayCompletions: 0, orphans: 4 })
    expect(sent.map((one) => one.ends)).toEqual([1, 1])
    expect(rig.kernel.bugCheck).toBe(null)
  })
})

describe('a reset that helped', () => {
  it('is not followed by another, whatever goes out later', () => {
    const { rig, miniport } = rigged([{ kind: 'never' }, { kind: 'never' }])
    const sent: Sent[] = []
    rig.machine.run(function* () {
      sent.push(rig.send({ ...named(1), timeoutSeconds: 3 }))
      yield* rig.kernel.keDelayExecutionThread(3_500_000)
      sent.push(rig.send({ ...named(2), timeoutSeconds: 1000 }))
      yield* rig.kernel.keDelayExecutionThread(100_000_000)
      expect(miniport.resets).toEqual(['unit'])
      miniport.endLate()
    })
    expect(sent.map((one) => one.ends)).toEqual([1, 1])
  })
})

describe('requests sent again when a reset ended them', () => {
  it('have time of their own before anything more is reset', () => {
    const { rig, miniport } = rigged([{ kind: 'never' }])
    const sent: Sent[] = []
    rig.machine.run(function* () {
      sent.push(rig.send({ ...named(1), timeoutSeconds: 3 }))
      while (sent[0]?.ends === 0) yield* rig.kernel.keDelayExecutionThread(1000)
      // The port's records of the first one and of the reset serve these.
      for (let i = 2; i < 5; i++) sent.push(rig.send({ ...named(i), timeoutSeconds: 20 }))
      yield* rig.kernel.keDelayExecutionThread(15_000_000)
      expect([miniport.resets, sent.map((one) => one.ends)]).toEqual([['unit'], [1, 0, 0, 0]])
    })
    expect(miniport.resets).toEqual(['unit', 'unit'])
    expect(sent.map((one) => one.srbStatus)).toEqual(Array(4).fill(SrbStatus.BUS_RESET))
  })
})

describe('memory that a device did not let go of', () => {
  it('is never given out again, whether a user’s or the pool’s', () => {
    const { rig, miniport } = rigged([{ kind: 'never' }])
    const { kernel } = rig
    const { frames, pool, space } = kernel.parts
    miniport.onReset = 'ignore'
    const buffer = space.allocateUser(8192)
    const pages = [0, 4096].map((offset) => space.frameOf(buffer + offset, false))
    // biome-ignore lint/correctness/useYield: a thread body is a generator, and this one does not wait
    rig.machine.run(function* () {
      rig.send({ ...named(1), buffer, lengthBytes: 8192, timeoutSeconds: 3 })
    })
    rig.machine.drain()
    expect(rig.adapter.counts.pagesOnLoan).toBe(2)
    space.freeUser(buffer)
    const block = pool.allocate(0, 100, 1, 0)
    frames.retain(Math.floor(block / 4096))
    pool.free(block, 0)
    const later = new Set<number>()
    for (let page = frames.allocateScattered(); page >= 0; page = frames.allocateScattered()) later.add(page)
    for (const page of pages) expect(later.has(page)).toBe(false)
    for (let at = pool.allocate(0, 100, 1, 0); at !== 0; at = pool.allocate(0, 100, 1, 0)) {
      expect(at).not.toBe(block)
    }
  })
})

describe('a miniport’s mistake', () => {
  it('of ending a request twice is counted, and ends nothing twice', () => {
    const { rig } = rigged([{ kind: 'twice' }])
    const sent = sendAll(rig, 5)
    expect(sent.map((one) => one.ends)).toEqual([1, 1, 1, 1, 1])
    expect(rig.adapter.counts.strayCompletions).toBe(5)
  })
})

describe('an adapter that is gone', () => {
  it('ends what waits and turns new requests away; what is out ends as no device', () => {
    const { rig, miniport } = rigged([{ kind: 'never' }])
    rig.unit.depth = 2
    const sent = sendAll2(rig, 5)
    rig.adapter.setGone()
    // Not only when the miniport has let go of what it has.
    expect(sent.map(({ ends }) => ends)).toEqual([0, 0, 1, 1, 1])
    miniport.adapterControl('stop-adapter')
    rig.machine.wake()
    rig.machine.drain()
    const [after] = sendAll(rig, 1)
    for (const one of [...sent, after]) {
      expect([one?.ends, one?.srbStatus, one?.status]).toEqual([
        1,
        SrbStatus.NO_DEVICE,
        'DEVICE_DOES_NOT_EXIST',
      ])
    }
  })
})

/** Sends without letting time pass. */
function sendAll2(rig: StorportRig, count: number): Sent[] {
  const sent: Sent[] = []
  rig.kernel.psCreateSystemThread(
    // biome-ignore lint/correctness/useYield: a thread body is a generator, and this one does not wait
    function* () {
      for (let name = 0; name < count; name++) sent.push(rig.send(named(name)))
    },
  )
  rig.kernel.run(rig.machine.processor)
  return sent
}
