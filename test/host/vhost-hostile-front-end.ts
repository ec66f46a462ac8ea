import fc from 'fast-check'
import { u64Payload } from '../../protocol/vhost-user/frame.ts'
import { FRONT_END_MESSAGES, FrontEndMessage } from '../../protocol/vhost-user/message.ts'
import { HeldDisk } from './held-disk.ts'
import type { FakeKind } from './vhost-peer.ts'
import { FakeObject } from './vhost-peer.ts'
import { PLACE, placeOf, USER_BASE, VhostRig } from './vhost-rig.ts'

const PAGE = 4096
const MEMORY_BYTES = 0x2_0000
const QUEUES = 2

/** What a hostile front-end does, one step after the other. */
export type HostileStep =
  | {
      readonly kind: 'message'
      readonly code: number
      readonly flags: number
      readonly payload: Uint8Array
      readonly riding: readonly FakeKind[]
    }
  /** Bytes that may be anything, cut anywhere. */
  | { readonly kind: 'bytes'; readonly bytes: Uint8Array; readonly riding: readonly FakeKind[] }
  | { readonly kind: 'kick'; readonly ring: number }
  /** The disk answers one of those it holds. */
  | { readonly kind: 'disk' }
  | { readonly kind: 'look' }
  /** Guest memory, where the rings are. */
  | { readonly kind: 'scribble'; readonly at: number; readonly bytes: Uint8Array }
  /** Memory that cannot be mapped from now on. */
  | { readonly kind: 'full'; readonly full: boolean }

export interface HostileSequence {
  /** How far an honest front-end went before. */
  readonly prelude: 'none' | 'negotiated' | 'memory' | 'running'
  readonly steps: readonly HostileStep[]
  /** The back-end ends it, whatever it waits for then; else the front-end goes. */
  readonly closed: boolean
}

const kinds: fc.Arbitrary<FakeKind> = fc.oneof(
  { weight: 5, arbitrary: fc.constantFrom('file' as const, 'event' as const) },
  { weight: 2, arbitrary: fc.constantFrom('socket' as const, 'pipe' as const, 'other' as const) },
)

const EDGES64 = [
  0n,
  1n,
  2n,
  255n,
  256n,
  257n,
  BigInt(PAGE),
  0x1_0000n,
  BigInt(MEMORY_BYTES),
  BigInt(USER_BASE),
  BigInt(USER_BASE + PLACE.descriptors),
  BigInt(USER_BASE + MEMORY_BYTES - 1),
  1n << 30n,
  1n << 32n,
  1n << 53n,
  (1n << 63n) - 1n,
  (1n << 64n) - BigInt(PAGE),
  (1n << 64n) - 1n,
]

/** Words of 64 bits that are near what a back-end compares with. */
const word = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(...EDGES64) },
  { weight: 2, arbitrary: fc.bigInt({ min: 0n, max: 0xffffn }) },
  { weight: 1, arbitrary: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }) },
)

function bytesOf(words: readonly bigint[], lengthBytes: number): Uint8Array {
  const whole = new Uint8Array(8 * words.length)
  const view = new DataView(whole.buffer)
  for (const [index, value] of words.entries()) view.setBigUint64(8 * index, value, true)
  const bytes = new Uint8Array(lengthBytes)
  bytes.set(whole.subarray(0, lengthBytes))
  return bytes
}

const RULES = [...FRONT_END_MESSAGES.values()]

/** A message that is nearly right: its size, its descriptors, its values are off by chance. */
const nearlyRight: fc.Arbitrary<HostileStep> = fc
  .record({
    rule: fc.constantFrom(...RULES),
    flags: fc.oneof(
      { weight: 8, arbitrary: fc.constantFrom(1, 9, 9, 9, 9) },
      { weight: 1, arbitrary: fc.nat(0xff) },
    ),
    words: fc.array(word, { minLength: 6, maxLength: 6 }),
    size: fc.oneof(
      { weight: 6, arbitrary: fc.constant(0) },
      { weight: 1, arbitrary: fc.constantFrom(-8, -4, -1, 1, 4, 8, 32) },
    ),
    regions: fc.nat(3),
    riding: fc.array(kinds, { maxLength: 3 }),
    right: fc.boolean(),
    kind: kinds,
  })
  .map(({ rule, flags, words, size, regions, riding, right, kind }): HostileStep => {
    const table = rule.name === 'SET_MEM_TABLE'
    const lengthBytes = table ? 8 + 32 * regions : Math.min(rule.payload.bytesMax, 48)
    const cycle = Array.from({ length: Math.ceil(lengthBytes / 8) }, (_, at) => words[at % 6] as bigint)
    const payload = bytesOf(cycle, Math.max(0, lengthBytes + size))
    if (table && payload.length >= 8) payload.set([regions, 0, 0, 0], 0)
    if ((rule.name === 'GET_CONFIG' || rule.name === 'SET_CONFIG') && payload.length === 48)
      payload.set([36, 0, 0, 0], 4)
    const count = table ? regions : rule.descriptors.max
    return {
      kind: 'message',
      code: rule.code,
      flags,
      payload,
      riding: right ? Array.from({ length: count }, () => kind) : riding,
    }
  })

/** A message about a ring that a back-end takes, with another number now and then. */
const aboutRings: fc.Arbitrary<HostileStep> = fc
  .record({
    name: fc.constantFrom(
      'SET_VRING_NUM' as const,
      'SET_VRING_BASE' as const,
      'GET_VRING_BASE' as const,
      'SET_VRING_ENABLE' as const,
      'SET_VRING_KICK' as const,
      'SET_VRING_CALL' as const,
      'SET_VRING_ERR' as const,
    ),
    ring: fc.nat(QUEUES),
    num: fc.constantFrom(0, 1, 2, 16, 64, 65, 0xffff, 0x1_0000),
    without: fc.boolean(),
    ack: fc.nat(4),
  })
  .map(({ name, ring, num, without, ack }): HostileStep => {
    const event = name === 'SET_VRING_KICK' || name === 'SET_VRING_CALL' || name === 'SET_VRING_ERR'
    const payload = event
      ? u64Payload(BigInt(ring) | (without ? 0x100n : 0n))
      : bytesOf([BigInt(ring) | (BigInt(name === 'GET_VRING_BASE' ? 0 : num) << 32n)], 8)
    return {
      kind: 'message',
      code: FrontEndMessage[name].code,
      flags: ack > 0 ? 9 : 1,
      payload,
      riding: event && !without ? ['event'] : [],
    }
  })

const arbitraryStep: fc.Arbitrary<HostileStep> = fc.oneof(
  { weight: 6, arbitrary: nearlyRight },
  { weight: 5, arbitrary: aboutRings },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('kick' as const), ring: fc.nat(QUEUES - 1) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('disk' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('look' as const) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('scribble' as const),
      at: fc.integer({ min: 0x1000, max: 0x3100 }),
      bytes: fc.uint8Array({ maxLength: 24 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('full' as const), full: fc.boolean() }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('bytes' as const),
      bytes: fc.uint8Array({ minLength: 1, maxLength: 40 }),
      riding: fc.array(kinds, { maxLength: 9 }),
    }),
  },
)

export const hostileSequence: fc.Arbitrary<HostileSequence> = fc.record({
  prelude: fc.constantFrom('none' as const, 'negotiated' as const, 'memory' as const, 'running' as const),
  steps: fc.array(arbitraryStep, { minLength: 1, maxLength: 24, size: 'max' }),
  closed: fc.boolean(),
})

/** One machine for all sequences: it is the back-end that has to be as good as new after each. */
export class HostileRun {
  readonly #disk: HeldDisk
  readonly rig: VhostRig
  /** Sessions that ended, by why. */
  readonly ends = new Map<string, number>()

  constructor() {
    this.#disk = new HeldDisk({ privateLoans: false })
    this.rig = new VhostRig({ backend: this.#disk, queues: QUEUES, memoryBytes: MEMORY_BYTES })
    this.rig.connection.hangUp()
    this.rig.settle()
  }

  /** Plays a sequence. @throws when something of it is left afterwards, or anything throws. */
  play({ prelude, steps, closed }: HostileSequence): void {
    const { rig } = this
    rig.world.full = false
    rig.bytes.fill(0)
    rig.reconnect()
    if (prelude !== 'none') rig.negotiate()
    if (prelude === 'memory' || prelude === 'running') rig.shareMemory()
    if (prelude === 'running') {
      for (let ring = 0; ring < QUEUES; ring++) rig.startRing(ring, placeOf(ring))
      this.#request()
    }
    for (const step of steps) {
      if (rig.connection.closed) break
      this.#step(step)
    }
    if (closed) rig.session.close()
    this.#end()
  }

  #step(step: HostileStep): void {
    const { rig } = this
    switch (step.kind) {
      case 'message':
        this.#feed(messageBytes(step.code, step.flags, step.payload), step.riding)
        return
      case 'bytes':
        this.#feed(step.bytes, step.riding)
        return
      case 'kick':
        rig.kick(step.ring)
        return
      case 'disk':
        this.#disk.end()
        rig.settle()
        return
      case 'look':
        rig.session.backEnd.look()
        rig.settle()
        return
      case 'scribble':
        rig.bytes.set(step.bytes, step.at)
        return
      case 'full':
        rig.world.full = step.full
        return
      default:
        step satisfies never
    }
  }

  #feed(bytes: Uint8Array, riding: readonly FakeKind[]): void {
    const { rig } = this
    const descriptors = riding.map((kind) =>
      rig.world.pass(kind === 'file' ? rig.machine.file : new FakeObject(kind)),
    )
    rig.connection.feed(bytes, descriptors)
    rig.settle()
    rig.connection.sent.length = 0
  }

  /** An honest read, so that there is something in flight. */
  #request(): void {
    const { rig } = this
    const queue = rig.queue(PLACE)
    queue.offer([
      { at: 0x8000, lengthBytes: 16, write: false },
      { at: 0x9000, lengthBytes: 512, write: true },
      { at: 0xa000, lengthBytes: 1, write: true },
    ])
    queue.publish()
    rig.kick(0)
  }

  /** The front-end goes; then the disk answers whatever it still holds. */
  #end(): void {
    const { rig } = this
    const disk = this.#disk
    if (!rig.connection.closed) {
      rig.connection.hangUp()
      rig.settle()
    }
    for (let left = 1000; left > 0 && (disk.held.length > 0 || !rig.connection.closed); left--) {
      disk.end()
      rig.settle()
    }
    const { open, mappings } = rig.world
    if (open !== 0 || mappings !== 0) throw new Error(`${open} descriptors and ${mappings} mappings are left`)
    const end = rig.ends.pop()
    if (end === undefined) throw new Error('the session never ends')
    this.ends.set(end.kind, (this.ends.get(end.kind) ?? 0) + 1)
    rig.violations.length = 0
  }
}

function messageBytes(code: number, flags: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(12 + payload.length)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, code, true)
  view.setUint32(4, flags, true)
  view.setUint32(8, payload.length, true)
  bytes.set(payload, 12)
  return bytes
}
