import { describe, expect, it } from 'vitest'
import { QUEUE_START } from '../../host/virtio/device.ts'
import { hasFeature } from '../../protocol/version.ts'
import { BlkConfig, BlkFeature } from '../../protocol/virtio/blk.ts'
import { Window } from '../../protocol/window.ts'
import { ACCEPTED, EVERYTHING, FrontEndRig, OFFERED, PLACE, PLAIN } from './front-end-rig.ts'
import { ScriptedDaemon } from './scripted-daemon.ts'

describe('a front-end and an honest daemon', () => {
  it.each([
    ['nothing but configuration', PLAIN & ~8n],
    ['acknowledgements', PLAIN],
    ['everything', EVERYTHING],
  ])('take up, serve, reset and take up again: %s', (_name, protocol) => {
    const daemon = new ScriptedDaemon({ offered: OFFERED, protocol })
    const rig = new FrontEndRig(daemon)
    for (let round = 0; round < 2; round++) {
      rig.begin()
      expect(daemon.rings.get(0)).toMatchObject({ base: 0, enabled: true })
      rig.submit()
      rig.clock.drain()
      expect(rig.clock.held).toEqual(['the daemon at s.sock'])
      const before = rig.signals
      rig.use()
      daemon.call(0)
      rig.clock.drain()
      expect(rig.signals - before).toBe(1)
      expect(rig.clock.held).toEqual([])
      expect(rig.reset()).toBe(true)
    }
    expect(rig.troubles).toEqual([])
    expect(rig.rules).toEqual([])
    expect(rig.needsReset).toBe(0)
    expect(rig.close()).toBe(0)
    expect(daemon.ticking).toBe(false)
  })

  it('agree on a ring before it is started, and give the memory before the ring', () => {
    const daemon = new ScriptedDaemon({ offered: OFFERED, protocol: EVERYTHING })
    const rig = new FrontEndRig(daemon)
    expect(daemon.asked).toEqual([
      'GET_FEATURES',
      'GET_PROTOCOL_FEATURES',
      'SET_PROTOCOL_FEATURES',
      'SET_OWNER',
      'GET_QUEUE_NUM',
      'GET_CONFIG',
      'SET_BACKEND_REQ_FD',
    ])
    daemon.asked.length = 0
    // No byte beyond the last field of what is offered: a daemon may know no more.
    expect(daemon.configAsked).toBe(33)
    rig.begin()
    // A daemon may wait for a kick before it looks at all.
    expect(daemon.rings.get(0)?.kick?.signals).toBe(1)
    expect(daemon.asked).toEqual([
      ...['SET_STATUS', 'SET_FEATURES', 'SET_STATUS', 'GET_STATUS'],
      ...['SET_MEM_TABLE', 'GET_INFLIGHT_FD', 'SET_INFLIGHT_FD'],
      ...['SET_VRING_NUM', 'SET_VRING_BASE', 'SET_VRING_ADDR', 'SET_VRING_CALL'],
      ...['SET_VRING_KICK', 'SET_VRING_ENABLE', 'SET_STATUS'],
    ])
    rig.close()
  })

  it.each([
    ['SET_MEM_TABLE', false],
    ['SET_VRING_NUM', false],
    ['SET_VRING_ADDR', false],
    ['SET_VRING_NUM', true],
    ['SET_VRING_ADDR', true],
  ] as const)(
    'let a queue be stopped that was never rung, while %s is out; started again: %s',
    (name, again) => {
      const during: (() => void)[] = []
      const daemon = new ScriptedDaemon({
        offered: OFFERED,
        protocol: PLAIN,
        meddle: (answer, _step, { asked }) => {
          if (asked.at(-1) === name) during.pop()?.()
          return [answer]
        },
      })
      const rig = new FrontEndRig(daemon)
      let stops = 0
      during.push(() => {
        rig.device?.stop(0, () => stops++)
        if (again) rig.device?.start(0, PLACE, QUEUE_START)
      })
      rig.device?.accept(ACCEPTED)
      rig.device?.start(0, PLACE, QUEUE_START)
      rig.settle()
      expect(stops).toBe(1)
      expect([rig.troubles, rig.rules]).toEqual([[], []])
      expect(daemon.asked.includes('SET_VRING_CALL')).toBe(again)
      rig.begin()
      const ring = daemon.rings.get(0)
      expect(ring).toMatchObject({ base: 0, enabled: true })
      expect(ring?.call?.rung).not.toBe(null)
      expect(rig.close()).toBe(0)
    },
  )

  it('the guest is told of what came back when time is about to move, call or no call', () => {
    const rig = new FrontEndRig(new ScriptedDaemon({ offered: OFFERED, protocol: PLAIN }))
    rig.begin()
    rig.submit()
    rig.clock.drain()
    let timedOut = false
    rig.clock.after(10, () => {
      timedOut = true
    })
    rig.clock.drain()
    expect(timedOut).toBe(false)
    rig.use()
    let told = 0
    rig.clock.after(9, () => {
      told = rig.signals
    })
    rig.clock.drain()
    expect([told, timedOut]).toEqual([1, true])
    // The call that comes late is about nothing new.
    rig.daemon.call(0)
    rig.clock.drain()
    expect(rig.signals).toBe(1)
    expect(rig.close()).toBe(0)
  })

  it('show the guest a new size once for each change, however often the daemon says so', () => {
    const daemon = new ScriptedDaemon({ offered: OFFERED, protocol: EVERYTHING })
    const rig = new FrontEndRig(daemon)
    rig.begin()
    new Window(daemon.config).putLe64(BlkConfig.capacity, 4096)
    for (let i = 0; i < 5; i++) daemon.say(2, 1)
    rig.settle()
    expect(rig.configChanges).toBe(1)
    expect(rig.device?.readConfig(BlkConfig.capacity, 4)).toBe(4096)
    // A message that was not agreed upon, and one that is none.
    daemon.say(3, 1, new Uint8Array(24))
    rig.settle()
    expect(rig.rules).toEqual(['vhost.gate'])
    daemon.say(2, 2)
    rig.settle()
    expect(rig.rules).toEqual(['vhost.gate', 'vhost.version'])
    expect(rig.troubles).toEqual([])
    expect(rig.close()).toBe(0)
  })

  it.each([true, false])('a disk is written with leave to write alone: %s', (write) => {
    const daemon = new ScriptedDaemon({ offered: OFFERED, protocol: PLAIN })
    const rig = new FrontEndRig(daemon, { write })
    expect(hasFeature(rig.device?.offered ?? 0n, BlkFeature.RO.bit)).toBe(!write)
    rig.begin()
    expect(rig.troubles).toEqual([])
    rig.close()
  })
})

describe('a daemon that cannot be used', () => {
  it.each([
    ['no protocol features', { offered: OFFERED & ~(1n << 30n), protocol: PLAIN }, /no protocol features/],
    ['no VERSION_1', { offered: OFFERED & ~(1n << 32n), protocol: PLAIN }, /legacy/],
    ['no configuration', { offered: OFFERED, protocol: 8n }, /no configuration/],
    ['no queue', { offered: OFFERED, protocol: EVERYTHING, queues: 0 }, /0 queues/],
    ['2^20 queues', { offered: OFFERED, protocol: EVERYTHING, queues: 2 ** 20 }, /queues/],
  ])('is refused in one line that names it: %s', (_name, setup, line) => {
    const rig = new FrontEndRig(new ScriptedDaemon(setup))
    expect(rig.opened).toMatch(line)
    expect(rig.opened).toMatch(/^the daemon at s\.sock [^\n]*$/)
    expect(rig.close()).toBe(0)
    expect(rig.clock.unsaved).toBe(null)
  })

  it('does not answer: the opening ends', () => {
    const rig = new FrontEndRig(
      new ScriptedDaemon({ offered: OFFERED, protocol: PLAIN, meddle: () => 'stall' }),
    )
    expect(rig.opened).toMatch(/has not answered GET_FEATURES for 1000 ms/)
    expect(rig.close()).toBe(0)
  })
})

describe('a daemon that stalls', () => {
  it('holds virtual time for as long as patience lasts, and then the guest’s timeouts decide', () => {
    const rig = new FrontEndRig(new ScriptedDaemon({ offered: OFFERED, protocol: PLAIN }))
    rig.begin()
    rig.submit()
    let timedOut = false
    rig.clock.after(10_000_000, () => {
      timedOut = true
    })
    rig.clock.drain()
    rig.daemon.pass(9)
    rig.clock.drain()
    expect(timedOut).toBe(false)
    rig.daemon.pass(3)
    rig.clock.drain()
    expect(timedOut).toBe(true)
    expect(rig.troubles).toEqual([expect.stringMatching(/has not answered requests for 1000 ms/)])
    // It moves: time is held again.
    rig.use()
    rig.daemon.call(0)
    rig.clock.drain()
    rig.submit()
    rig.daemon.pass(1)
    rig.clock.drain()
    expect(rig.clock.held.length).toBe(1)
    rig.settle()
    expect(rig.close()).toBe(0)
  })
})

describe('a daemon that answers while it is looked at', () => {
  it('is waited for until the guest is told, between whichever two looks at the ring it answers', () => {
    let looked = 0
    for (let after = 0; after <= looked; after++) {
      const rig = new FrontEndRig(new ScriptedDaemon({ offered: OFFERED, protocol: PLAIN }))
      rig.begin()
      rig.submit()
      rig.clock.drain()
      const { loadIndex } = Window.prototype
      let looks = 0
      Window.prototype.loadIndex = function (this: Window, ...asked) {
        if (looks++ === after) rig.use()
        return loadIndex.apply(this, asked)
      }
      try {
        expect(rig.device?.waits, `answered before look ${after}`).toBe(true)
      } finally {
        Window.prototype.loadIndex = loadIndex
      }
      looked = Math.max(looked, looks)
      if (looks <= after) rig.use()
      rig.settle()
      expect([rig.signals, rig.clock.held]).toEqual([1, []])
      expect(rig.close()).toBe(0)
    }
    expect(looked).toBeGreaterThan(1)
  })
})

describe('a daemon that dies', () => {
  it('with requests out and nobody to come back makes the driver reset, which ends at once', () => {
    const rig = new FrontEndRig(new ScriptedDaemon({ offered: OFFERED, protocol: PLAIN }))
    rig.begin()
    rig.submit()
    rig.clock.drain()
    rig.daemon.die()
    rig.clock.drain()
    expect(rig.troubles).toEqual(['the daemon at s.sock closed the connection'])
    expect(rig.needsReset).toBe(1)
    expect(rig.clock.held).toEqual([])
    expect(rig.reset()).toBe(true)
    rig.begin()
    expect(rig.needsReset).toBe(2)
    expect(rig.close()).toBe(0)
  })

  it.each([
    ['tracks', EVERYTHING, 0],
    ['does not track', PLAIN, 1],
  ])(
    'and comes back goes on where the ring stands, when it %s what is in flight',
    (_name, protocol, resets) => {
      const daemon = new ScriptedDaemon({ offered: OFFERED, protocol })
      const rig = new FrontEndRig(daemon, { reconnectMs: 2000 })
      rig.begin()
      for (let i = 0; i < 3; i++) rig.submit()
      rig.clock.drain()
      rig.use()
      daemon.listening = false
      daemon.die()
      rig.clock.drain()
      // What it used last it had no time to tell.
      expect(rig.signals).toBe(1)
      daemon.pass(5)
      rig.clock.drain()
      expect(rig.clock.held.length).toBe(1)
      expect(rig.needsReset).toBe(resets)
      daemon.listening = true
      daemon.asked.length = 0
      daemon.pass(1)
      rig.clock.drain()
      expect(daemon.connections).toBe(2)
      if (resets === 0) {
        expect(daemon.rings.get(0)).toMatchObject({ base: 1, enabled: true })
        expect(daemon.asked).toContain('SET_INFLIGHT_FD')
        expect(daemon.asked).not.toContain('GET_INFLIGHT_FD')
      } else {
        // Nothing is served before the driver has begun again.
        expect(daemon.rings.size).toBe(0)
        expect(rig.reset()).toBe(true)
        rig.begin()
        expect(daemon.rings.get(0)).toMatchObject({ base: 0, enabled: true })
      }
      rig.settle()
      expect(rig.close()).toBe(0)
    },
  )

  it.each([
    ['everything, and had no time to say so,', 2, 0],
    ['all but one', 1, 1],
  ])(
    'and had answered %s has a guest without tracking reset only for what is lost',
    (_name, answered, resets) => {
      const daemon = new ScriptedDaemon({ offered: OFFERED, protocol: PLAIN })
      const rig = new FrontEndRig(daemon, { reconnectMs: 2000 })
      rig.begin()
      for (let i = 0; i < 2; i++) rig.submit()
      rig.clock.drain()
      for (let i = 0; i < answered; i++) rig.use()
      daemon.die()
      rig.clock.drain()
      expect([rig.signals, rig.needsReset]).toEqual([1, resets])
      daemon.pass(1)
      rig.clock.drain()
      expect(daemon.connections).toBe(2)
      expect([rig.signals, rig.needsReset > 0]).toEqual([1, resets > 0])
      if (resets === 0) expect(daemon.rings.get(0)).toMatchObject({ base: 2, enabled: true })
      rig.settle()
      expect(rig.close()).toBe(0)
    },
  )

  it('of what it is given, one after the other, is given up', () => {
    let poisoned = false
    const daemon = new ScriptedDaemon({
      offered: OFFERED,
      protocol: EVERYTHING,
      meddle: (answer, _step, { asked }) => {
        return poisoned && asked.at(-1) === 'SET_VRING_ENABLE' ? 'close' : [answer]
      },
    })
    const rig = new FrontEndRig(daemon, { reconnectMs: 1000 })
    rig.begin()
    rig.submit()
    rig.clock.drain()
    poisoned = true
    daemon.die()
    rig.settle()
    expect(daemon.connections).toBeGreaterThan(5)
    expect(rig.troubles).toEqual(['no daemon came back to s.sock within 1000 ms'])
    expect(rig.needsReset).toBe(1)
    expect(rig.reset()).toBe(true)
    expect(rig.close()).toBe(0)
  })

  it('and does not come back in time is given up', () => {
    const daemon = new ScriptedDaemon({ offered: OFFERED, protocol: EVERYTHING })
    const rig = new FrontEndRig(daemon, { reconnectMs: 500 })
    rig.begin()
    rig.submit()
    rig.clock.drain()
    daemon.listening = false
    daemon.die()
    rig.settle()
    expect(rig.troubles.at(-1)).toBe('no daemon came back to s.sock within 500 ms')
    expect(rig.needsReset).toBe(1)
    expect(rig.reset()).toBe(true)
    expect(rig.close()).toBe(0)
  })
})
