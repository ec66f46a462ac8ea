import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { VhostUserFeature } from '../../protocol/vhost-user/feature.ts'
import { u64Payload } from '../../protocol/vhost-user/frame.ts'
import type { FrontEndMessageName } from '../../protocol/vhost-user/message.ts'
import { FRONT_END_MESSAGES } from '../../protocol/vhost-user/message.ts'
import { HeldDisk } from './held-disk.ts'
import type { FakeKind } from './vhost-peer.ts'
import { FakeObject } from './vhost-peer.ts'
import { LOG_ALL_BIT, PROTOCOL_BIT, placeOf, VhostRig } from './vhost-rig.ts'
import { MODEL_PROTOCOL_BITS, type ModelMessage, VhostModel } from './vhost-user-model.ts'

const QUEUES = 3
const EVENT_MESSAGES = ['SET_VRING_KICK', 'SET_VRING_CALL', 'SET_VRING_ERR'] as const
const RING_MESSAGES = [
  'SET_VRING_NUM',
  'SET_VRING_BASE',
  'SET_VRING_ADDR',
  'SET_VRING_ENABLE',
  'GET_VRING_BASE',
] as const

const message: fc.Arbitrary<ModelMessage> = fc
  .record({
    name: fc.constantFrom<string>(...EVENT_MESSAGES, ...EVENT_MESSAGES, ...RING_MESSAGES, ...RING_MESSAGES),
    ring: fc.oneof(
      { weight: 9, arbitrary: fc.nat(QUEUES - 1) },
      { weight: 1, arbitrary: fc.constantFrom(3, 4, 200) },
    ),
    num: fc.constantFrom(0, 1, 2, 16, 16, 64, 65, 128, 0xffff, 0x1_0000, 0xffff_ffff),
    without: fc.boolean(),
    kind: fc.oneof(
      { weight: 6, arbitrary: fc.constant<FakeKind>('event') },
      { weight: 1, arbitrary: fc.constantFrom<FakeKind>('file', 'socket', 'pipe', 'other') },
    ),
    count: fc.oneof({ weight: 8, arbitrary: fc.constant(-1) }, { weight: 1, arbitrary: fc.nat(3) }),
    off: fc.oneof(
      { weight: 12, arbitrary: fc.constant(0) },
      { weight: 1, arbitrary: fc.constantFrom(-4, -1, 1, 4, 8) },
    ),
  })
  .map(({ name, ring, num, without, kind, count, off }) => {
    const events = (EVENT_MESSAGES as readonly string[]).includes(name)
    const right = events && !without ? 1 : 0
    const riding = Array.from({ length: count < 0 ? right : count }, () => kind)
    // Where it says nothing it is zero.
    return { name, ring, num: name === 'GET_VRING_BASE' ? 0 : num, without, riding, off }
  })

function payloadOf(rig: VhostRig, { name, ring, num, without, off }: ModelMessage): Uint8Array {
  const whole = (EVENT_MESSAGES as readonly string[]).includes(name)
    ? u64Payload(BigInt(ring) | (without ? 0x100n : 0n))
    : name === 'SET_VRING_ADDR'
      ? rig.addresses(ring, placeOf(Math.min(ring, QUEUES - 1)))
      : rig.state(ring, num)
  const payload = new Uint8Array(whole.length + off)
  payload.set(whole.subarray(0, payload.length))
  return payload
}

describe('messages about rings', () => {
  it('are carried out or refused as the model says, in any order, and rings stand where it says', () => {
    let refused = 0
    let carriedOut = 0
    fc.assert(
      fc.property(fc.array(message, { maxLength: 40, size: 'max' }), (messages) => {
        const rig = new VhostRig({ backend: new HeldDisk(), queues: QUEUES })
        rig.negotiate()
        rig.shareMemory()
        const model = new VhostModel(QUEUES)
        for (const one of messages) {
          const verdict = model.judge(one)
          const objects = one.riding.map((kind) => new FakeObject(kind as FakeKind))
          const name = one.name as FrontEndMessageName
          const answer = rig.ask(name, payloadOf(rig, one), objects, 9)
          if (verdict === 'refused') refused++
          else carriedOut++
          if (name === 'GET_VRING_BASE') {
            // It is answered with a position or not at all.
            if (verdict === 'refused') {
              expect(rig.connection.closed).toBe(true)
              break
            }
            const view = new DataView(answer?.payload.buffer ?? new ArrayBuffer(8))
            expect([view.getUint32(0, true), view.getUint32(4, true)]).toEqual([
              one.ring,
              model.rings[one.ring]?.base,
            ])
          } else {
            expect([name, answer?.payload[0]]).toEqual([name, verdict === 'refused' ? 1 : 0])
          }
          for (const [index, ring] of rig.session.backEnd.rings.entries()) {
            const expected = model.rings[index]
            expect([ring.started, ring.enabled, ring.size]).toEqual([
              expected?.started,
              expected?.enabled,
              expected?.size,
            ])
          }
        }
        if (!rig.connection.closed) rig.connection.hangUp()
        rig.settle()
        expect([rig.world.open, rig.world.mappings]).toEqual([0, 0])
      }),
      { numRuns: 400 },
    )
    expect(Math.min(refused, carriedOut)).toBeGreaterThan(1000)
  })
})

describe('features', () => {
  it('are accepted when they were offered, and no others', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }), fc.boolean(), (features, within) => {
        const rig = new VhostRig({ backend: new HeldDisk(), queues: QUEUES })
        const offered = rig.askU64('GET_FEATURES')
        rig.send('SET_PROTOCOL_FEATURES', u64Payload(8n))
        const asked = within ? features & offered : features
        expect(rig.carriesOut('SET_FEATURES', u64Payload(asked))).toBe((asked & ~offered) === 0n)
      }),
      { numRuns: 300 },
    )
  })

  it('of the protocol likewise; a bit above the settled ones is nothing that is offered', () => {
    const rig = new VhostRig({ backend: new HeldDisk() })
    const offered = MODEL_PROTOCOL_BITS.reduce((set, bit) => set | (1n << BigInt(bit)), 0n)
    expect(rig.askU64('GET_PROTOCOL_FEATURES')).toBe(offered)
    for (let bit = 0; bit < 64; bit++) {
      const fresh = new VhostRig({ backend: new HeldDisk() })
      fresh.send('SET_PROTOCOL_FEATURES', u64Payload(8n))
      const takes = fresh.carriesOut('SET_PROTOCOL_FEATURES', u64Payload(8n | (1n << BigInt(bit))))
      expect([bit, takes]).toEqual([bit, MODEL_PROTOCOL_BITS.includes(bit)])
    }
  })

  it('stay as they are while a ring runs, but for the log', () => {
    const rig = new VhostRig({ backend: new HeldDisk() })
    rig.start()
    const { accepted } = rig.session.backEnd.negotiated
    expect(rig.carriesOut('SET_FEATURES', u64Payload(accepted | LOG_ALL_BIT))).toBe(true)
    expect(rig.carriesOut('SET_FEATURES', u64Payload(accepted & ~(1n << 29n)))).toBe(false)
    expect(rig.rules).toEqual(['features.frozen'])
    expect(rig.carriesOut('SET_FEATURES', u64Payload(accepted & PROTOCOL_BIT ? accepted : 0n))).toBe(true)
  })

  it('gate every message that names one', () => {
    for (const rule of FRONT_END_MESSAGES.values()) {
      const [needs] = rule.gate.protocol
      if (needs === undefined) continue
      const rig = new VhostRig({ backend: new HeldDisk() })
      const all = rig.askU64('GET_PROTOCOL_FEATURES')
      const without = all & ~(1n << BigInt(VhostUserFeature[needs].bit))
      rig.send('SET_PROTOCOL_FEATURES', u64Payload(without))
      const objects = Array.from({ length: rule.descriptors.min }, () => new FakeObject('event'))
      const bytes = rule.name === 'GET_CONFIG' || rule.name === 'SET_CONFIG' ? 12 : rule.payload.bytesMax
      rig.ask(rule.name, new Uint8Array(bytes), objects, 9)
      expect([rule.name, rig.rules]).toEqual([rule.name, ['vhost.gate']])
      expect(rig.world.open).toBe(0)
    }
  })
})

describe('a refusal', () => {
  it('is answered where the message can be, and ends the connection where it cannot', () => {
    const silent = new VhostRig({ backend: new HeldDisk() })
    silent.negotiate()
    expect(silent.ask('SET_VRING_NUM', silent.state(0, 3))).toBe(null)
    expect(silent.connection.closed).toBe(true)
    const asking = new VhostRig({ backend: new HeldDisk() })
    asking.negotiate()
    expect(asking.carriesOut('SET_VRING_NUM', asking.state(0, 3))).toBe(false)
    expect(asking.connection.closed).toBe(false)
    // Without REPLY_ACK the flag asks for nothing.
    const before = new VhostRig({ backend: new HeldDisk() })
    before.negotiate(undefined, 0n)
    expect(before.ask('SET_VRING_NUM', before.state(0, 4), [], 9)).toBe(null)
    expect(before.connection.closed).toBe(false)
    expect(before.ask('SET_VRING_NUM', before.state(0, 3), [], 9)).toBe(null)
    expect(before.connection.closed).toBe(true)
  })
})
