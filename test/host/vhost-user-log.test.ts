import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { encode } from '../../protocol/derive/codec.ts'
import { u64Payload } from '../../protocol/vhost-user/frame.ts'
import { VhostUserLog } from '../../protocol/vhost-user/payload.ts'
import { HeldDisk } from './held-disk.ts'
import type { RawQueue } from './raw-queue.ts'
import { FakeObject } from './vhost-peer.ts'
import { LOG_ALL_BIT, VhostRig } from './vhost-rig.ts'

const PAGE = 4096
const PAGES = 64
/** The used ring lies on two pages. */
const PLACE = { size: 16, descriptors: 0x1000, driver: 0x2000, device: 0x3ffc - 8 }
const FIRST_BUFFER = 8
const LOG_BYTES = PAGES / 8

interface Ask {
  readonly kind: 'ask'
  readonly type: number
  readonly page: number
  readonly skew: number
  readonly lengthBytes: number
}

type Step =
  | Ask
  | { readonly kind: 'answer'; readonly which: number; readonly fails: boolean }
  | { readonly kind: 'kick' }
  | { readonly kind: 'stop' }
  | { readonly kind: 'table' }
  | { readonly kind: 'reset' }

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 5,
      arbitrary: fc.record({
        kind: fc.constant('ask' as const),
        type: fc.constantFrom(0, 0, 1, 4, 8, 99),
        page: fc.integer({ min: FIRST_BUFFER, max: PAGES - 4 }),
        skew: fc.constantFrom(0, 1, 2048, 4000),
        lengthBytes: fc.constantFrom(512, 1024, 4096, 20),
      }),
    },
    {
      weight: 4,
      arbitrary: fc.record({ kind: fc.constant('answer' as const), which: fc.nat(3), fails: fc.boolean() }),
    },
    {
      weight: 2,
      arbitrary: fc.constantFrom<Step>(
        { kind: 'kick' },
        { kind: 'stop' },
        { kind: 'table' },
        { kind: 'reset' },
      ),
    },
  ),
  { maxLength: 30, size: 'max' },
)

/** A rig whose every write to guest memory is to be found in its log. */
class LoggedRig {
  readonly disk = new HeldDisk({ privateLoans: false })
  readonly rig = new VhostRig({ backend: this.disk, memoryBytes: PAGES * PAGE })
  readonly log = new FakeObject('file', new Uint8Array(PAGE))
  #queue: RawQueue
  /** Pages the device may ever write. */
  readonly mayWrite = new Set<number>()
  /** Pages it wrote. */
  readonly #changed = new Set<number>()

  constructor() {
    const { rig } = this
    this.disk.obedient = false
    this.#queue = rig.start(PLACE)
    expect(rig.carriesOut('SET_LOG_BASE', logOf(LOG_BYTES), [this.log])).toBe(true)
    rig.send('SET_FEATURES', u64Payload(rig.session.backEnd.negotiated.accepted | LOG_ALL_BIT))
    for (const at of [PLACE.device, PLACE.device + 6 + 8 * PLACE.size])
      this.mayWrite.add(Math.floor(at / PAGE))
  }

  /** What the driver does is not in the log; what the device does is. */
  step(step: Step): void {
    if (step.kind === 'ask') {
      this.#ask(step)
      return
    }
    const before = this.rig.bytes.slice()
    this.#device(step)
    for (let page = 0; page < PAGES; page++) {
      const at = page * PAGE
      const now = this.rig.bytes.subarray(at, at + PAGE)
      if (Buffer.compare(before.subarray(at, at + PAGE), now) !== 0) this.#changed.add(page)
    }
    // What is in flight may write before it is answered, and is in the log when it is.
    if (this.disk.held.length === 0) this.#compare()
    if (step.kind === 'stop' || step.kind === 'reset') this.#again()
  }

  finish(): void {
    while (this.disk.held.length > 0) this.step({ kind: 'answer', which: 0, fails: false })
    this.#compare()
    for (let page = 0; page < PAGES; page++) {
      if (this.#marked(page)) expect(this.mayWrite).toContain(page)
    }
    expect(this.log.bytes.subarray(LOG_BYTES).every((byte) => byte === 0)).toBe(true)
  }

  #compare(): void {
    for (const page of this.#changed) expect(this.#marked(page), `page ${page} is in the log`).toBe(true)
  }

  #device(step: Exclude<Step, Ask>): void {
    const { rig, disk } = this
    if (step.kind === 'kick') rig.kick(0)
    else if (step.kind === 'stop') rig.send('GET_VRING_BASE', rig.state(0, 0))
    else if (step.kind === 'reset') rig.send('RESET_DEVICE')
    else if (step.kind === 'table') rig.shareMemory()
    else {
      // A read in flight writes whenever it likes, and what it wrote stays when it fails.
      disk.scribble()
      disk.end(step.which % Math.max(1, disk.held.length), step.fails ? 'medium-error' : 'ok')
    }
    // What waits for the disk is answered before anything else is looked at.
    while (step.kind !== 'kick' && rig.connection.paused) {
      disk.scribble()
      disk.end()
      rig.settle()
    }
    rig.settle()
  }

  #again(): void {
    this.#queue = this.rig.queue(PLACE)
    this.rig.startRing(0, PLACE)
  }

  #ask({ type, page, skew, lengthBytes }: Ask): void {
    if (this.#queue.freeCount < 3) return
    const at = page * PAGE + skew
    const view = new DataView(this.rig.bytes.buffer, this.rig.bytes.byteOffset)
    view.setUint32(0x6000, type, true)
    view.setBigUint64(0x6008, 0n, true)
    const write = type !== 1
    this.#queue.offer([
      { at: 0x6000, lengthBytes: 16, write: false },
      { at, lengthBytes, write },
      { at: 0x7000, lengthBytes: 1, write: true },
    ])
    this.#queue.publish()
    this.mayWrite.add(7)
    if (write) for (let one = at; one < at + lengthBytes; one++) this.mayWrite.add(Math.floor(one / PAGE))
  }

  #marked(page: number): boolean {
    return ((this.log.bytes[page >>> 3] ?? 0) & (1 << (page & 7))) !== 0
  }
}

function logOf(sizeBytes: number | bigint, offset: number | bigint = 0): Uint8Array {
  return encode(VhostUserLog, { size: BigInt(sizeBytes), offset: BigInt(offset) })
}

describe('the dirty log', () => {
  it('has every page that changed, buffers and used ring, and none the device had no business with', () => {
    fc.assert(
      fc.property(steps, (each) => {
        const logged = new LoggedRig()
        for (const step of each) logged.step(step)
        logged.finish()
      }),
      { numRuns: 150 },
    )
  })

  it('is written only while LOG_ALL is accepted', () => {
    const rig = new VhostRig({ backend: new HeldDisk(), memoryBytes: PAGES * PAGE })
    const queue = rig.start(PLACE)
    const log = new FakeObject('file', new Uint8Array(PAGE))
    rig.carriesOut('SET_LOG_BASE', logOf(LOG_BYTES), [log])
    queue.offer([{ at: 0x7000, lengthBytes: 1, write: true }])
    queue.publish()
    rig.kick(0)
    expect(log.bytes.every((byte) => byte === 0)).toBe(true)
  })

  it.each([
    ['too short for the memory', logOf(LOG_BYTES - 1), 'file'],
    ['of a size that wraps', logOf(2n ** 64n - 1n, 4096), 'file'],
    ['behind the end of its file', logOf(LOG_BYTES, 2 ** 40), 'file'],
    ['not of memory', logOf(LOG_BYTES), 'event'],
  ] as const)('is refused when it is %s', (_what, payload, kind) => {
    const rig = new VhostRig({ backend: new HeldDisk(), memoryBytes: PAGES * PAGE })
    rig.start(PLACE)
    expect(rig.askU64('SET_LOG_BASE', payload, [new FakeObject(kind, new Uint8Array(PAGE))])).toBe(1n)
    expect(rig.world.mappings).toBe(1)
  })

  it('is replaced by the next one, and the first is given back', () => {
    const rig = new VhostRig({ backend: new HeldDisk(), memoryBytes: PAGES * PAGE })
    rig.start(PLACE)
    for (let i = 0; i < 3; i++) {
      rig.carriesOut('SET_LOG_BASE', logOf(LOG_BYTES), [new FakeObject('file', new Uint8Array(PAGE))])
      expect(rig.world.mappings).toBe(2)
    }
  })
})
