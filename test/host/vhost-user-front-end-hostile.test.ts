import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { encode } from '../../protocol/derive/codec.ts'
import { frameBytes, u64Payload } from '../../protocol/vhost-user/frame.ts'
import type { FrontEndMessageName } from '../../protocol/vhost-user/message.ts'
import { VhostUserHeader, VhostUserInflight, VhostUserVringState } from '../../protocol/vhost-user/payload.ts'
import { BlkConfig } from '../../protocol/virtio/blk.ts'
import { Window } from '../../protocol/window.ts'
import { EVERYTHING, FrontEndRig, OFFERED, PLAIN } from './front-end-rig.ts'
import { CountedDescriptor, type Meddling, ScriptedDaemon, type Sent } from './scripted-daemon.ts'

describe('a hostile daemon', () => {
  const edit =
    (change: (header: Window, sent: Sent) => Sent): ((answer: Sent) => readonly Sent[]) =>
    (answer) => {
      const bytes = new Uint8Array(answer.bytes)
      return [change(new Window(bytes), { ...answer, bytes })]
    }
  /** A rig whose daemon's answer to one message is another payload. */
  const lying = (
    name: FrontEndMessageName,
    payload: Uint8Array,
    options: { readonly reconnectMs?: number } = {},
  ): FrontEndRig => {
    const daemon = new ScriptedDaemon({
      offered: OFFERED,
      protocol: EVERYTHING,
      meddle: (answer, _step, { asked }) => {
        if (asked.at(-1) !== name) return [answer]
        const code = new Window(answer.bytes).le32(VhostUserHeader.request)
        return [{ ...answer, bytes: frameBytes(code, 4, payload) }]
      },
    })
    const rig = new FrontEndRig(daemon, { reconnectMs: options.reconnectMs ?? 0 })
    rig.begin()
    return rig
  }

  it.each([
    ['SET_MEM_TABLE', u64Payload(1n), 'vhost.refused', /refuses SET_MEM_TABLE/],
    ['SET_VRING_KICK', u64Payload(2n ** 63n), 'vhost.refused', /refuses SET_VRING_KICK/],
    [
      'GET_INFLIGHT_FD',
      encode(VhostUserInflight, { size: 4097n }),
      'vhost.reply-inflight',
      /no memory behind its tracking buffer/,
    ],
    ['GET_STATUS', u64Payload(3n), 'device.features-refused', /refuses a subset/],
    ['SET_VRING_NUM', new Uint8Array(4), 'vhost.payload-size', /answers SET_VRING_NUM wrongly/],
  ] as const)(
    'that lies in its answer to %s is told apart, and not asked again',
    (name, payload, rule, line) => {
      const rig = lying(name, payload, { reconnectMs: 5000 })
      expect(rig.rules).toEqual([rule])
      expect(rig.troubles).toEqual([expect.stringMatching(line)])
      expect(rig.needsReset).toBe(1)
      rig.settle()
      expect(rig.daemon.connections).toBe(1)
      expect(rig.reset()).toBe(true)
      expect(rig.close()).toBe(0)
    },
  )

  it('that stops a ring elsewhere than it served it, or another ring, is told apart', () => {
    for (const [index, num] of [
      [0, 1],
      [1, 0],
      [0, 0x1_0000],
    ] as const) {
      const rig = lying('GET_VRING_BASE', encode(VhostUserVringState, { index, num }))
      expect(rig.reset()).toBe(true)
      expect(rig.rules).toEqual(['vhost.reply-base'])
      expect(rig.close()).toBe(0)
    }
  })

  it('that answers unasked is told apart', () => {
    let idle = false
    const daemon = new ScriptedDaemon({
      offered: OFFERED,
      protocol: PLAIN,
      meddle: (answer, _step, { asked }) => {
        const twice = idle && asked.at(-1) === 'SET_VRING_ENABLE'
        return twice ? [answer, { ...answer, descriptors: [] }] : [answer]
      },
    })
    const rig = new FrontEndRig(daemon)
    rig.begin()
    idle = true
    rig.reset()
    expect(rig.rules).toEqual(['vhost.reply-unasked'])
    expect(rig.close()).toBe(0)
  })

  it('that refuses a change of its configuration keeps its disk', () => {
    const rig = lying('SET_CONFIG', u64Payload(1n))
    rig.reset()
    rig.device?.accept(OFFERED & ~(1n << 30n))
    rig.device?.writeConfig(BlkConfig.writeback, 1, 0)
    rig.settle()
    expect(rig.daemon.asked.at(-1)).toBe('SET_CONFIG')
    expect([rig.rules, rig.troubles]).toEqual([[], []])
    expect(rig.close()).toBe(0)
  })

  it('that calls without end takes a turn for all of it', () => {
    const rig = new FrontEndRig(new ScriptedDaemon({ offered: OFFERED, protocol: PLAIN }))
    rig.begin()
    const { turns } = rig.clock
    for (let i = 0; i < 1000; i++) rig.daemon.call(0)
    rig.clock.drain()
    expect(rig.clock.turns - turns).toBe(1)
    expect(rig.signals).toBe(0)
    expect(rig.close()).toBe(0)
  })

  const HOSTILITIES: {
    readonly [name: string]: (answer: Sent, daemon: ScriptedDaemon) => ReturnType<Meddling>
  } = {
    dies: () => 'close',
    stalls: () => 'stall',
    'has another version': edit((header, sent) => {
      header.putLe32(VhostUserHeader.flags, 6)
      return sent
    }),
    'sends no reply flag': edit((header, sent) => {
      header.putLe32(VhostUserHeader.flags, 1)
      return sent
    }),
    'answers something else': edit((header, sent) => {
      header.putLe32(VhostUserHeader.request, 99)
      return sent
    }),
    'claims 4 GiB': edit((header, sent) => {
      header.putLe32(VhostUserHeader.size, 0xffff_ffff)
      return sent
    }),
    'sends a byte too many': (answer) => {
      const bytes = new Uint8Array(answer.bytes.length + 1)
      bytes.set(answer.bytes)
      const header = new Window(bytes)
      header.putLe32(VhostUserHeader.size, header.le32(VhostUserHeader.size) + 1)
      return [{ ...answer, bytes }]
    },
    'sends a stray descriptor': (answer, { open }) => [
      { ...answer, descriptors: [...answer.descriptors, new CountedDescriptor(open, 'pipe')] },
    ],
    'sends twenty': (answer, { open }) => {
      const stray = Array.from({ length: 20 }, () => new CountedDescriptor(open, 'file', 1))
      return [{ ...answer, descriptors: [...answer.descriptors, ...stray] }]
    },
    'dies in the middle': (answer, daemon) => {
      daemon.die()
      return [{ ...answer, bytes: answer.bytes.subarray(0, 13) }]
    },
    'answers twice': (answer) => [answer, { ...answer, descriptors: [] }],
    'answers in single bytes': (answer) =>
      Array.from(answer.bytes, (byte, index) => ({
        bytes: Uint8Array.of(byte),
        descriptors: index === 0 ? answer.descriptors : [],
      })),
    'answers all ones': (answer) => {
      const bytes = new Uint8Array(answer.bytes)
      bytes.fill(0xff, 12)
      return [{ ...answer, bytes }]
    },
    'answers all zeroes': (answer) => {
      const bytes = new Uint8Array(answer.bytes)
      bytes.fill(0, 12)
      return [{ ...answer, bytes }]
    },
  }

  it.each(Object.keys(HOSTILITIES))(
    'that %s, at any answer: nothing throws, nothing leaks, nobody waits for ever',
    (name) => {
      const hostility = HOSTILITIES[name] as (typeof HOSTILITIES)[string]
      fc.assert(
        fc.property(
          fc.nat(30),
          fc.constantFrom(PLAIN, EVERYTHING),
          fc.constantFrom(0, 300),
          (at, protocol, reconnectMs) => {
            let met = false
            const daemon = new ScriptedDaemon({
              offered: OFFERED,
              protocol,
              meddle: (answer, step, self) => {
                if (step !== at) return [answer]
                met = true
                return hostility(answer, self)
              },
            })
            const rig = new FrontEndRig(daemon, { patienceMs: 500, reconnectMs })
            rig.begin()
            rig.submit()
            rig.clock.drain()
            rig.use()
            daemon.call(0)
            rig.settle()
            const { needsReset, troubles } = rig
            rig.reset()
            expect(rig.clock.held).toEqual([])
            // Whoever met it knows, unless it is no harm.
            const harmless = ['answers in single bytes', 'answers all ones', 'answers all zeroes']
            if (met && !harmless.includes(name)) {
              const told =
                typeof rig.opened === 'string' ||
                troubles.length > 0 ||
                rig.rules.length > 0 ||
                daemon.connections > 1
              expect(told || needsReset > 0).toBe(true)
            }
            if (name === 'answers in single bytes')
              expect([typeof rig.opened, troubles]).toEqual(['object', []])
            expect(rig.close()).toBe(0)
            expect(daemon.ticking).toBe(false)
            expect(rig.clock.unsaved).toBe(null)
          },
        ),
        { numRuns: 60 },
      )
    },
  )

  it('whatever bytes and descriptors it answers with', () => {
    fc.assert(
      fc.property(
        fc.nat(25),
        fc.uint8Array({ maxLength: 80 }),
        fc.nat(10),
        fc.constantFrom(PLAIN, EVERYTHING),
        (at, noise, strays, protocol) => {
          const daemon = new ScriptedDaemon({
            offered: OFFERED,
            protocol,
            meddle: (answer, step, { open }) => {
              if (step !== at) return [answer]
              const stray = Array.from({ length: strays }, () => new CountedDescriptor(open, 'other'))
              return [
                { bytes: new Uint8Array(noise), descriptors: noise.length > 0 ? stray : [] },
                ...(noise.length > 0 ? [] : [{ bytes: new Uint8Array([0]), descriptors: stray }]),
              ]
            },
          })
          const rig = new FrontEndRig(daemon, { patienceMs: 300 })
          rig.begin()
          rig.reset()
          rig.begin()
          expect(rig.close()).toBe(0)
          expect(rig.clock.unsaved).toBe(null)
        },
      ),
      { numRuns: 300 },
    )
  })
})
