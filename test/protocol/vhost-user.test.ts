import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { encode } from '../../protocol/derive/codec.ts'
import {
  hasVhostUserFeature,
  SETTLED_FEATURE_BITS,
  VhostUserFeature,
  vhostUserFeatures,
} from '../../protocol/vhost-user/feature.ts'
import type { Frame } from '../../protocol/vhost-user/frame.ts'
import {
  FrameReader,
  frameBytes,
  judgeReply,
  judgeRequest,
  u64Of,
  u64Payload,
} from '../../protocol/vhost-user/frame.ts'
import type { MessageRule } from '../../protocol/vhost-user/message.ts'
import {
  BACK_END_MESSAGES,
  FRONT_END_MESSAGES,
  FrontEndMessage,
  gateClosed,
  repliesByItself,
  VHOST_USER_PAYLOAD_BYTES_MAX,
} from '../../protocol/vhost-user/message.ts'
import {
  hostByteOrderRefused,
  VhostUserConfig,
  VhostUserFlag,
  VhostUserHeader,
  VhostUserMemory,
} from '../../protocol/vhost-user/payload.ts'

/** As the documents number them, written down a second time. */
const FRONT_END_CODES = `GET_FEATURES SET_FEATURES SET_OWNER RESET_OWNER SET_MEM_TABLE SET_LOG_BASE SET_LOG_FD
SET_VRING_NUM SET_VRING_ADDR SET_VRING_BASE GET_VRING_BASE SET_VRING_KICK SET_VRING_CALL SET_VRING_ERR
GET_PROTOCOL_FEATURES SET_PROTOCOL_FEATURES GET_QUEUE_NUM SET_VRING_ENABLE SEND_RARP NET_SET_MTU
SET_BACKEND_REQ_FD IOTLB_MSG SET_VRING_ENDIAN GET_CONFIG SET_CONFIG CREATE_CRYPTO_SESSION CLOSE_CRYPTO_SESSION
POSTCOPY_ADVISE POSTCOPY_LISTEN POSTCOPY_END GET_INFLIGHT_FD SET_INFLIGHT_FD GPU_SET_SOCKET RESET_DEVICE
VRING_KICK GET_MAX_MEM_SLOTS ADD_MEM_REG REM_MEM_REG SET_STATUS GET_STATUS GET_SHARED_OBJECT
SET_DEVICE_STATE_FD CHECK_DEVICE_STATE GET_SHMEM_CONFIG GET_VRING_BASE_SKIP_DRAIN`.split(/\s+/)

const BACK_END_CODES =
  `IOTLB_MSG CONFIG_CHANGE_MSG VRING_HOST_NOTIFIER_MSG VRING_CALL VRING_ERR SHARED_OBJECT_ADD
SHARED_OBJECT_REMOVE SHARED_OBJECT_LOOKUP SHMEM_MAP SHMEM_UNMAP`.split(/\s+/)

const PROTOCOL_BITS =
  `MQ LOG_SHMFD RARP REPLY_ACK MTU BACKEND_REQ CROSS_ENDIAN CRYPTO_SESSION PAGEFAULT CONFIG
BACKEND_SEND_FD HOST_NOTIFIER INFLIGHT_SHMFD RESET_DEVICE INBAND_NOTIFICATIONS CONFIGURE_MEM_SLOTS STATUS
XEN_MMAP SHARED_OBJECT DEVICE_STATE`.split(/\s+/)

const ALL_PROTOCOL = vhostUserFeatures(
  ...(Object.keys(VhostUserFeature) as (keyof typeof VhostUserFeature)[]),
)

interface Piece {
  readonly bytes: Uint8Array
  readonly descriptors: readonly number[]
}

/** Reads a stream in pieces of any size; what came out, and whether it broke. */
function readAll(pieces: readonly Piece[]): {
  frames: Frame<number>[]
  broken: string | null
  left: readonly number[]
} {
  const reader = new FrameReader<number>('front-end')
  const frames: Frame<number>[] = []
  for (const { bytes, descriptors } of pieces) {
    let riding = descriptors
    for (let at = 0; at < bytes.length || riding.length > 0; ) {
      const { room } = reader
      const here = bytes.subarray(at, at + room.length)
      room.set(here)
      const got = reader.took(here.length, riding)
      riding = []
      at += here.length
      if (got !== null && 'rule' in got) return { frames, broken: got.rule, left: reader.abandon() }
      if (got !== null) frames.push(got)
    }
  }
  return { frames, broken: null, left: reader.abandon() }
}

const arbitraryMessage = fc.record({
  code: fc.nat({ max: 0xffff_ffff }),
  flags: fc.constantFrom(1, 5, 9, 13, 0x21),
  payload: fc.uint8Array({ maxLength: 300 }),
  descriptors: fc.array(fc.nat({ max: 99 }), { maxLength: 8 }),
})

describe('the message table', () => {
  it('numbers messages and features as the documents do', () => {
    expect([...FRONT_END_MESSAGES.values()].map(({ name, code }) => [name, code])).toEqual(
      FRONT_END_CODES.map((name, at) => [name, at + 1]),
    )
    expect([...BACK_END_MESSAGES.values()].map(({ name, code }) => [name, code])).toEqual(
      BACK_END_CODES.map((name, at) => [name, at + 1]),
    )
    expect(Object.entries(VhostUserFeature).map(([name, { bit }]) => [name, bit])).toEqual(
      PROTOCOL_BITS.map((name, bit) => [name, bit]),
    )
    expect(PROTOCOL_BITS).toHaveLength(SETTLED_FEATURE_BITS)
  })

  it('opens no gate without what it names', () => {
    const nothing = { offered: 0n, accepted: 0n, protocol: 0n }
    const everything = { offered: 2n ** 64n - 1n, accepted: 2n ** 64n - 1n, protocol: 2n ** 64n - 1n }
    for (const rule of [...FRONT_END_MESSAGES.values(), ...BACK_END_MESSAGES.values()] as MessageRule[]) {
      const { protocol, unsettled, offered, accepted } = rule.gate
      const gated = protocol.length + unsettled.length + offered.length + accepted.length > 0
      expect(gateClosed(rule.gate, nothing) !== null, rule.name).toBe(gated)
      // A bit above the settled ones is no name: even all of them open nothing that needs one.
      expect(gateClosed(rule.gate, everything) !== null, rule.name).toBe(unsettled.length > 0)
      for (const name of protocol) {
        const without = { ...everything, protocol: ALL_PROTOCOL & ~vhostUserFeatures(name) }
        expect(gateClosed(rule.gate, without), rule.name).toBe(name)
      }
      for (const bit of offered) {
        const without = { ...everything, offered: everything.offered & ~(1n << BigInt(bit)) }
        expect(gateClosed(rule.gate, without), rule.name).toContain(String(bit))
      }
      for (const bit of accepted) {
        const without = { ...everything, accepted: everything.accepted & ~(1n << BigInt(bit)) }
        expect(gateClosed(rule.gate, without), rule.name).toContain(String(bit))
      }
    }
  })

  it('says which messages are answered whatever their flags', () => {
    const answered = [...FRONT_END_MESSAGES.values()]
      .filter(({ reply }) => repliesByItself(reply, { offered: 0n, accepted: 0n, protocol: 0n }))
      .map(({ name }) => name)
    expect(answered.sort()).toEqual(
      [
        'CHECK_DEVICE_STATE',
        'CREATE_CRYPTO_SESSION',
        'GET_CONFIG',
        'GET_FEATURES',
        'GET_INFLIGHT_FD',
        'GET_MAX_MEM_SLOTS',
        'GET_PROTOCOL_FEATURES',
        'GET_QUEUE_NUM',
        'GET_SHARED_OBJECT',
        'GET_SHMEM_CONFIG',
        'GET_STATUS',
        'GET_VRING_BASE',
        'GET_VRING_BASE_SKIP_DRAIN',
        'IOTLB_MSG',
        'POSTCOPY_ADVISE',
        'POSTCOPY_END',
        'SET_DEVICE_STATE_FD',
      ].sort(),
    )
    const log = FrontEndMessage.SET_LOG_BASE.reply
    const protocol = vhostUserFeatures('LOG_SHMFD')
    expect(repliesByItself(log, { offered: 0n, accepted: 0n, protocol })).toBe(true)
  })

  it('carries bits above the settled ones without taking them for anything', () => {
    expect(hasVhostUserFeature(1n << 20n, 'DEVICE_STATE')).toBe(false)
    expect(hasVhostUserFeature(ALL_PROTOCOL | (1n << 63n), 'DEVICE_STATE')).toBe(true)
    expect(ALL_PROTOCOL).toBe((1n << 20n) - 1n)
  })

  it('runs on a host of its byte order', () => {
    expect(hostByteOrderRefused()).toBe(null)
  })
})

describe('the frame reader', () => {
  it('gives back every message, however the stream is cut', () => {
    fc.assert(
      fc.property(fc.array(arbitraryMessage, { maxLength: 6 }), fc.nat({ max: 40 }), (messages, cut) => {
        const pieces = messages.flatMap(({ code, flags, payload, descriptors }): Piece[] => {
          const bytes = frameBytes(code, flags, payload)
          // Descriptors come with the first byte of their message, the rest whenever it likes.
          return [
            { bytes: bytes.subarray(0, cut), descriptors },
            { bytes: bytes.subarray(cut), descriptors: [] },
          ]
        })
        const { frames, broken, left } = readAll(pieces)
        expect(broken).toBe(null)
        expect(left).toEqual([])
        expect(
          frames.map(({ code, flags, payload, descriptors }) => ({ code, flags, payload, descriptors })),
        ).toEqual(
          messages.map(({ code, flags, payload, descriptors }) => ({
            code,
            flags,
            payload: new Uint8Array(payload),
            descriptors,
          })),
        )
      }),
    )
  })

  it('loses no descriptor of a stream that breaks anywhere', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 60 }),
        fc.array(fc.nat(), { maxLength: 20 }),
        (bytes, descriptors) => {
          const { frames, left } = readAll([{ bytes, descriptors }])
          expect([...frames.flatMap((frame) => frame.descriptors), ...left]).toEqual(descriptors)
        },
      ),
    )
  })

  it('asks for a header, then for exactly its payload', () => {
    const reader = new FrameReader<number>('front-end')
    expect(reader.room).toHaveLength(VhostUserHeader.$size)
    expect(reader.idle).toBe(true)
    reader.room.set(frameBytes(2, 0, u64Payload(7n)).subarray(0, 12))
    expect(reader.took(12, [])).toBe(null)
    expect(reader.idle).toBe(false)
    expect(reader.room).toHaveLength(8)
    reader.room.set(u64Payload(7n))
    const frame = reader.took(8, [])
    expect(frame !== null && 'payload' in frame && u64Of(frame.payload)).toBe(7n)
    expect(reader.idle).toBe(true)
  })

  it.each([
    ['another version', { request: 1, flags: 2, size: 0 }, 'vhost.version'],
    ['no version', { request: 1, flags: 0, size: 0 }, 'vhost.version'],
    ['a payload that never ends', { request: 1, flags: 1, size: 0xffff_ffff }, 'vhost.payload-size'],
    [
      'one byte too many',
      { request: 1, flags: 1, size: VHOST_USER_PAYLOAD_BYTES_MAX + 1 },
      'vhost.payload-size',
    ],
  ])('refuses %s', (_what, header, rule) => {
    expect(readAll([{ bytes: encode(VhostUserHeader, header), descriptors: [] }]).broken).toBe(rule)
  })

  it('refuses more descriptors than any message has', () => {
    const bytes = frameBytes(5, 0)
    expect(readAll([{ bytes, descriptors: Array.from({ length: 9 }, (_, at) => at) }]).broken).toBe(
      'vhost.descriptor-count',
    )
  })
})

/** A well-formed body of a rule, with `regions` and `configBytes` where a count decides. */
function wellFormed(rule: MessageRule, regions: number, configBytes: number): Frame<number> {
  const { layout, bytesMax } = rule.payload
  const frame = (payload: Uint8Array<ArrayBuffer>, descriptors: number): Frame<number> => ({
    code: rule.code,
    flags: 1,
    payload,
    descriptors: Array.from({ length: descriptors }, (_, at) => at),
  })
  if (layout === VhostUserMemory) {
    const payload = new Uint8Array(8 + 32 * regions)
    payload[0] = regions
    return frame(payload, regions)
  }
  if (layout === VhostUserConfig) {
    return frame(
      encode(VhostUserConfig, { size: configBytes, bytes: Array.from({ length: configBytes }, () => 1) }),
      0,
    )
  }
  return frame(new Uint8Array(bytesMax), rule.descriptors.max)
}

describe('the syntax of a request', () => {
  const rules = [...FRONT_END_MESSAGES.values()]
  const arbitraryRule = fc.constantFrom(...rules)

  it('takes what is well-formed, and nothing a byte or a descriptor longer or shorter', () => {
    fc.assert(
      fc.property(
        arbitraryRule,
        fc.integer({ min: 0, max: 8 }),
        fc.integer({ min: 0, max: 256 }),
        fc.constantFrom(-1, 1),
        (rule, regions, configBytes, off) => {
          const good = wellFormed(rule, regions, configBytes)
          expect(judgeRequest(FRONT_END_MESSAGES, good, 'front-end').broken).toBe(null)
          const length = good.payload.length + off
          const fits =
            rule.payload.layout === null || /^vhost_user_(iotlb|inflight)$/.test(rule.payload.layout.$name)
          if (length >= 0 && !(fits && length >= rule.payload.bytesMin && length <= rule.payload.bytesMax)) {
            const payload = new Uint8Array(length)
            payload.set(good.payload.subarray(0, length))
            const { broken } = judgeRequest(FRONT_END_MESSAGES, { ...good, payload }, 'front-end')
            expect(broken?.rule).toBe('vhost.payload-size')
            expect(broken?.at).toBe(rule.code)
          }
          const { min, max } = rule.descriptors
          const count = good.descriptors.length + off
          if (count >= 0 && (rule.name === 'SET_MEM_TABLE' || count < min || count > max)) {
            const descriptors = Array.from({ length: count }, (_, at) => at)
            const { broken } = judgeRequest(FRONT_END_MESSAGES, { ...good, descriptors }, 'front-end')
            expect(broken?.rule).toBe('vhost.descriptor-count')
          }
        },
      ),
      { numRuns: 1000 },
    )
  })

  it('never throws, whatever the frame', () => {
    fc.assert(
      fc.property(arbitraryMessage, fc.boolean(), (message, known) => {
        const frame = {
          ...message,
          code: known ? (message.code % 46) + 1 : message.code,
          payload: new Uint8Array(message.payload),
        }
        const { rule, broken } = judgeRequest(FRONT_END_MESSAGES, frame, 'front-end')
        expect(rule === null).toBe(!FRONT_END_MESSAGES.has(frame.code))
        if (rule === null) expect(broken?.rule).toBe('vhost.request-unknown')
      }),
      { numRuns: 1000 },
    )
  })

  it('knows a reply and unknown flags from a request', () => {
    const frame = { code: 1, flags: 1 | VhostUserFlag.REPLY, payload: new Uint8Array(), descriptors: [] }
    const judged = (flags: number) =>
      judgeRequest(FRONT_END_MESSAGES, { ...frame, flags }, 'front-end').broken?.rule
    expect(judged(5)).toBe('vhost.flags')
    expect(judged(0x8000_0001)).toBe('vhost.flags')
    expect(judged(9)).toBe(undefined)
    expect(judged(1)).toBe(undefined)
  })

  it('takes a log as a number or as a description, and nothing between', () => {
    const judged = (bytes: number) =>
      judgeRequest(
        FRONT_END_MESSAGES,
        { code: 6, flags: 1, payload: new Uint8Array(bytes), descriptors: [] },
        'front-end',
      ).broken?.rule
    expect([7, 8, 9, 15, 16, 17].map(judged)).toEqual([
      'vhost.payload-size',
      undefined,
      'vhost.payload-size',
      'vhost.payload-size',
      undefined,
      'vhost.payload-size',
    ])
  })

  it('takes no more regions and no more configuration than there may be', () => {
    const regions = new Uint8Array(8 + 8 * 32)
    regions[0] = 9
    const descriptors = Array.from({ length: 8 }, (_, at) => at)
    const judged = (code: number, payload: Uint8Array<ArrayBuffer>, riding: number[]) =>
      judgeRequest(FRONT_END_MESSAGES, { code, flags: 1, payload, descriptors: riding }, 'front-end').broken
        ?.rule
    expect(judged(5, regions, descriptors)).toBe('vhost.descriptor-count')
    regions[0] = 8
    expect(judged(5, regions, descriptors)).toBe(undefined)
    const config = encode(VhostUserConfig, { size: 0xffff_ffff, bytes: [] })
    expect(judged(24, config, [])).toBe('vhost.payload-size')
  })
})

describe('the syntax of a reply', () => {
  const rule = FRONT_END_MESSAGES.get(FrontEndMessage.GET_CONFIG.code) as MessageRule
  const judged = (flags: number, code: number, bytes: number) => {
    const payload = new Uint8Array(bytes)
    if (bytes >= 12) payload[4] = bytes - 12
    return judgeReply(rule, { code, flags, payload, descriptors: [] }, 'back-end')?.rule ?? null
  }

  it('is flagged, for its request, and whole or an error', () => {
    expect(judged(5, 24, 20)).toBe(null)
    expect(judged(5, 24, 0)).toBe(null)
    expect(judged(5, 24, 5)).toBe('vhost.payload-size')
    expect(judged(1, 24, 20)).toBe('vhost.reply-flag')
    expect(judged(5, 23, 20)).toBe('vhost.reply-request')
  })

  it('is an integer where it is an acknowledgement', () => {
    const enable = FRONT_END_MESSAGES.get(FrontEndMessage.SET_VRING_ENABLE.code) as MessageRule
    const frame = { code: 18, flags: 5, payload: u64Payload(0n), descriptors: [] as number[] }
    expect(judgeReply(enable, frame, 'back-end')).toBe(null)
    expect(judgeReply(enable, { ...frame, payload: new Uint8Array(4) }, 'back-end')?.rule).toBe(
      'vhost.payload-size',
    )
    expect(judgeReply(enable, { ...frame, descriptors: [1] }, 'back-end')?.rule).toBe(
      'vhost.descriptor-count',
    )
  })
})
