import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Chain } from '../../host/virtio/chain.ts'
import { SplitRing } from '../../host/virtio/split-ring.ts'
import { DmaSpace } from '../../protocol/dma.ts'
import type { Violation } from '../../protocol/violation.ts'
import { explain } from '../../protocol/violation.ts'
import type { QueuePlace } from '../../protocol/virtio/ring.ts'
import { HOSTILE_CHAINS } from '../fuzz/hostile-chain.ts'
import type { HostileChain } from '../fuzz/hostile-scene.ts'
import { HostileScene, hostileGround } from '../fuzz/hostile-scene.ts'
import type { Access } from '../fuzz/journal.ts'
import { changedSince, Journal, JournalMemory, snapshot } from '../fuzz/journal.ts'
import { L_NEXT, L_WRITE, LiteralRing } from '../fuzz/literal-ring.ts'
import { buffersOf } from './ends.ts'

const DESCRIPTORS = 0x1000
const DRIVER = 0x3000
const DEVICE = 0x5000

function within(
  at: number,
  areas: readonly { readonly at: number; readonly lengthBytes: number }[],
): boolean {
  return areas.some((area) => at >= area.at && at < area.at + area.lengthBytes)
}

/** A device's end under a journal, on the memory a hostile driver writes to. */
class Scene {
  readonly ground
  readonly place: QueuePlace
  readonly literal: LiteralRing
  readonly journal = new Journal()
  readonly violations: Violation[] = []
  readonly dma: DmaSpace
  readonly hostile: HostileScene
  readonly ring: SplitRing

  constructor(options: {
    size?: number
    eventIdx?: boolean
    indirect?: boolean
    start?: number
    retake?: readonly number[]
  }) {
    const { size = 8, start = 0 } = options
    this.ground = hostileGround(size === 256 ? 2 ** 25 : undefined)
    this.place = { size, descriptors: DESCRIPTORS, driver: DRIVER, device: DEVICE }
    this.literal = new LiteralRing(this.ground.memory, this.place)
    this.literal.availableIndex(start)
    this.literal.usedIndex(start)
    this.dma = new DmaSpace(new JournalMemory(this.ground.memory, this.journal))
    this.hostile = new HostileScene(this.literal, this.ground, start)
    this.ring = this.#start(options)
  }

  get usedArea() {
    return { at: DEVICE, lengthBytes: 6 + 8 * this.place.size }
  }

  /** Where the device may look: its ring and the tables it was pointed at. */
  get readable() {
    return [
      { at: DESCRIPTORS, lengthBytes: 16 * this.place.size },
      { at: DRIVER, lengthBytes: 6 + 2 * this.place.size },
      this.usedArea,
      ...this.hostile.tables,
    ]
  }

  /** From now on whatever the device reads of the driver's is another value once it has been read. */
  scribble(): void {
    this.journal.after = ({ kind, at, lengthBytes }: Access) => {
      if (kind !== 'read' && kind !== 'load') return
      if (at < DRIVER + 6 + 2 * this.place.size && at >= DRIVER && kind === 'load') return
      for (const { base, bytes } of this.ground.memory.regions) {
        for (let i = 0; i < lengthBytes; i++) {
          const where = at + i - base
          if (where >= 0 && where < bytes.length) bytes[where] = (bytes[where] as number) ^ 0xff
        }
      }
    }
  }

  /** A plain request that any sound ring serves: the device lives. */
  serveGood(ring = this.ring, entry = this.hostile.entry): void {
    this.journal.after = null
    this.literal.describe(this.place.size - 1, { addr: this.ground.data, len: 8, flags: L_WRITE })
    this.literal.offer(entry, this.place.size - 1)
    this.literal.availableIndex(entry + 1)
    const chain = ring.next()
    expect(chain?.head).toBe(this.place.size - 1)
    ring.complete(chain as Chain, 8)
    ring.publish()
    const used = ring.position().used
    expect(this.literal.usedEntry(used + 65_535)).toEqual({ id: this.place.size - 1, len: 8 })
    expect(this.literal.used.index).toBe(used)
    expect(ring.inFlight).toBe(0)
  }

  #start(options: { eventIdx?: boolean; indirect?: boolean; start?: number; retake?: readonly number[] }) {
    const { eventIdx = true, indirect = true, start = 0, retake = [] } = options
    const ring = SplitRing.start({
      dma: this.dma,
      queue: 3,
      place: this.place,
      sizeMax: 256,
      indirect,
      eventIdx,
      position: { available: start, used: start },
      retake,
      listener: { violated: (violation) => this.violations.push(violation) },
    })
    if (!(ring instanceof SplitRing)) throw new Error(explain(ring))
    return ring
  }

  /** What the driver does after a reset: everything zero, from the beginning. */
  restart(): SplitRing {
    const [low] = this.ground.memory.regions
    low?.bytes.fill(0, DRIVER, DEVICE + this.usedArea.lengthBytes)
    this.journal.clear()
    return this.#start({})
  }
}

/** Descriptors the device looked at, each by the one 8-byte field it has. */
function walked(journal: Journal): number {
  return journal.accesses.filter(({ kind, lengthBytes }) => kind === 'read' && lengthBytes === 8).length
}

function run(chain: HostileChain, start: number, scribbling: boolean): void {
  const scene = new Scene({ size: chain.size ?? 8, indirect: chain.indirect ?? true, start })
  chain.plant(scene.hostile)
  const { ring, journal, literal, violations } = scene
  if (scribbling) scene.scribble()
  const before = snapshot(scene.ground.memory)
  journal.clear()
  const taken = ring.next()
  if (!scribbling) {
    const strayed = changedSince(before, scene.ground.memory).filter((at) => !within(at, [scene.usedArea]))
    expect(strayed, 'bytes changed outside the used ring').toEqual([])
  }
  expect(journal.touched().filter((at) => !within(at, scene.readable))).toEqual([])
  expect(journal.written().filter((at) => !within(at, [scene.usedArea]))).toEqual([])
  expect(journal.accesses.filter(({ kind }) => kind === 'lend')).toEqual([])
  expect(walked(journal), 'one budget').toBeLessThanOrEqual(scene.place.size + 1)
  if (chain.loops !== true) {
    for (const { at, lengthBytes } of [...scene.readable].filter(({ at }) => at !== DRIVER)) {
      expect(journal.reads(at, lengthBytes), 'each field is read once').toBeLessThanOrEqual(1)
    }
    expect(journal.reads(DRIVER + 4, 2 * scene.place.size)).toBeLessThanOrEqual(1)
  }
  if (chain.outcome === 'ok') {
    expect(violations).toEqual([])
    expect(buffersOf(taken as Chain)).toEqual(scene.hostile.expected)
    expect(ring.inFlight).toBe(1)
    ring.complete(taken as Chain, (taken as Chain).writableBytes)
    ring.publish()
    const { len } = literal.usedEntry(start)
    expect(len).toBe(Math.min((taken as Chain).writableBytes, 0xffff_ffff))
    scene.serveGood()
    return
  }
  expect(taken).toBeNull()
  expect(violations.map(({ rule, side, queue }) => ({ rule, side, queue }))).toEqual([
    { rule: chain.rule, side: 'driver', queue: 3 },
  ])
  expect(ring.inFlight).toBe(0)
  if (chain.outcome === 'drop') {
    expect(ring.broken).toBe(false)
    expect(ring.headsOut()).toEqual([])
    expect(literal.used.index, 'given back, and shown with the next publication').toBe(start % 65_536)
    ring.publish()
    expect(literal.used.index).toBe((start + 1) % 65_536)
    expect(literal.usedEntry(start)).toEqual({ id: 0, len: 0 })
    scene.serveGood()
    return
  }
  expect(ring.broken).toBe(true)
  journal.clear()
  expect([ring.next(), ring.rearm(), ring.publish()]).toEqual([null, false, false])
  expect(journal.accesses, 'a broken ring is left alone').toEqual([])
  expect(violations).toHaveLength(1)
  scene.serveGood(scene.restart(), 0)
}

describe('a hostile driver', () => {
  it.each(HOSTILE_CHAINS.map((chain) => [chain.kind, chain.what, chain] as const))(
    '%s: %s',
    (_, __, chain) => {
      for (const start of [0, 65_535, 65_530, 12_345]) {
        run(chain, start, false)
        if (chain.loops !== true) run(chain, start, true)
      }
    },
  )

  it('is told where: a violation names the address of the offending descriptor, entry or index', () => {
    const at = (kind: string, plant: (scene: HostileScene) => void) => {
      const scene = new Scene({ start: 13 })
      plant(scene.hostile)
      scene.ring.next()
      return [kind, scene.violations[0]?.rule, scene.violations[0]?.at]
    }
    expect(
      at('next', (s) => {
        s.ring.describe(5, { addr: s.ground.data, len: 1, flags: L_NEXT, next: 6 })
        s.ring.describe(6, { addr: s.ground.data, len: 1, flags: L_NEXT, next: 8 })
        s.offer(5)
      }),
    ).toEqual(['next', 'split.next-range', DESCRIPTORS + 96])
    expect(
      at('in a table', (s) => {
        const table = s.table([
          { addr: s.ground.data, len: 1, flags: L_WRITE | L_NEXT, next: 1 },
          { addr: s.ground.data, len: 1 },
        ])
        s.chain([{ addr: table, len: 32, flags: 4 }])
      }),
    ).toEqual(['in a table', 'split.readable-after-writable', 0x1_8000 + 16])
    expect(at('head', (s) => s.offer(8))).toEqual(['head', 'split.head-range', DRIVER + 4 + 2 * 5])
    expect(at('index', (s) => s.ring.availableIndex(13 + 9))).toEqual([
      'index',
      'split.available-leap',
      DRIVER + 2,
    ])
  })

  it('H04: breaks the ring by a head that is in flight, and loses no token by it', () => {
    for (const again of [0, 3]) {
      const scene = new Scene({})
      const { ring, literal } = scene
      for (const head of [0, 3]) {
        literal.describe(head, { addr: scene.ground.data, len: 8, flags: L_WRITE })
        scene.hostile.offer(head)
      }
      scene.hostile.offer(again)
      const first = ring.next() as Chain
      const second = ring.next() as Chain
      expect([first.head, second.head]).toEqual([0, 3])
      expect(ring.next()).toBeNull()
      expect(scene.violations.map(({ rule, seen }) => [rule, seen])).toEqual([
        ['split.head-in-flight', again],
      ])
      expect([ring.broken, ring.inFlight]).toEqual([true, 2])
      ring.complete(second, 8)
      expect(ring.publish()).toBe(true)
      ring.abandon(first)
      expect(ring.inFlight).toBe(0)
      expect(ring.headsOut()).toEqual([])
      expect(() => ring.complete(first, 0)).toThrow()
      expect(() => ring.abandon(second)).toThrow()
      expect(literal.used.index).toBe(1)
    }
  })

  it('H04: produces as fast as it is served, and each call ends', () => {
    const scene = new Scene({})
    const { ring, literal } = scene
    literal.describe(0, { addr: scene.ground.data, len: 8, flags: L_NEXT, next: 9 })
    for (let i = 0; i < 8; i++) literal.offer(i, 0)
    // The index moves on whenever the device has looked at an entry: there is always one more.
    scene.journal.after = ({ kind, at }) => {
      if (kind === 'read' && at >= DRIVER) literal.availableIndex(literal.available.index + 1)
    }
    literal.availableIndex(1)
    for (let call = 1; call <= 20; call++) {
      scene.journal.clear()
      expect(ring.next()).toBeNull()
      expect(walked(scene.journal)).toBe(8)
      expect(ring.broken).toBe(false)
      expect(scene.violations.length).toBe(8 * call)
      expect(ring.rearm()).toBe(true)
    }
    ring.publish()
    expect(literal.used.index).toBe(160)
  })

  it('H04: completes one token twice, or claims more than was writable, and the run stops', () => {
    const scene = new Scene({})
    scene.literal.describe(0, { addr: scene.ground.data, len: 8, flags: L_WRITE })
    scene.hostile.offer(0)
    const chain = scene.ring.next() as Chain
    for (const claim of [9, 2 ** 32, Number.NaN]) expect(() => scene.ring.complete(chain, claim)).toThrow()
    scene.ring.complete(chain, 8)
    expect(() => scene.ring.complete(chain, 8)).toThrow()
    expect(() => scene.ring.abandon(chain)).toThrow()
  })

  it('H05: shares one descriptor between two chains, and either is served as it stands', () => {
    const scene = new Scene({})
    for (const head of [0, 1]) {
      scene.literal.describe(head, { addr: scene.ground.data + head, len: 1, flags: L_NEXT, next: 2 })
    }
    scene.literal.describe(2, { addr: scene.ground.data, len: 4, flags: L_WRITE })
    scene.hostile.offer(0)
    scene.hostile.offer(1)
    const chains = [scene.ring.next() as Chain, scene.ring.next() as Chain]
    expect(chains.map((chain) => [chain.addresses[0], chain.writableBytes])).toEqual([
      [scene.ground.data, 4],
      [scene.ground.data + 1, 4],
    ])
    expect(scene.violations).toEqual([])
  })

  it('leaves a snapshot whose heads are no chains, and the ring breaks instead of the device', () => {
    for (const retake of [[8], [0xffff], [Number.NaN], [0, 0], [0, 1, 0]]) {
      const scene = new Scene({ retake, start: 7 })
      scene.literal.describe(0, { addr: scene.ground.data, len: 8, flags: L_WRITE })
      scene.literal.describe(1, { addr: scene.ground.data, len: 8, flags: L_WRITE })
      let taken = 0
      while (scene.ring.next() !== null) taken++
      expect(taken).toBe(retake.length - 1)
      expect(scene.ring.broken).toBe(true)
      expect(scene.violations).toHaveLength(1)
      expect(scene.violations[0]?.at).toBeNull()
      expect(scene.ring.headsOut()).toHaveLength(taken)
    }
  })

  it('gives an abandoned head up for good: it may be offered again, and nothing waits to be taken again', () => {
    const scene = new Scene({})
    scene.literal.describe(0, { addr: scene.ground.data, len: 8, flags: L_WRITE })
    scene.hostile.offer(0)
    scene.ring.abandon(scene.ring.next() as Chain)
    expect([scene.ring.headsOut(), scene.ring.inFlight]).toEqual([[], 0])
    scene.hostile.offer(0)
    expect(scene.ring.next()?.head).toBe(0)
    const broken = new Scene({ retake: [8, 0] })
    broken.literal.describe(0, { addr: broken.ground.data, len: 8, flags: L_WRITE })
    expect([broken.ring.next(), broken.ring.next(), broken.ring.headsOut()]).toEqual([null, null, []])
  })

  it('writes anything anywhere at any time, and finds a device that keeps every one of its promises', () => {
    fc.assert(
      fc.property(chaosArbitrary, (chaos) => runChaos(chaos)),
      { numRuns: 400 },
    )
  })
})

/** A queue's whole memory, and what is changed while the device reads it. */
const chaosArbitrary = fc.record({
  size: fc.constantFrom(1, 2, 4, 8),
  eventIdx: fc.boolean(),
  indirect: fc.boolean(),
  start: fc.oneof(fc.constant(0), fc.integer({ min: 65_520, max: 65_535 })),
  descriptors: fc.array(
    fc.record({
      addr: fc.oneof(
        { weight: 5, arbitrary: fc.constantFrom(0x1_0000, 0x1_8000, 0x1_8010, 0x1_fff0, 0x3_fff8, 0x1000) },
        { weight: 1, arbitrary: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }) },
      ),
      len: fc.oneof(fc.constantFrom(0, 1, 16, 32, 48, 64, 128, 4096), fc.nat(0xffff_ffff)),
      flags: fc.oneof({ weight: 8, arbitrary: fc.nat(7) }, fc.nat(0xffff)),
      next: fc.oneof({ weight: 8, arbitrary: fc.nat(8) }, fc.nat(0xffff)),
    }),
    { minLength: 16, maxLength: 16 },
  ),
  heads: fc.array(fc.oneof({ weight: 9, arbitrary: fc.nat(7) }, fc.nat(0xffff)), {
    minLength: 8,
    maxLength: 8,
  }),
  turns: fc.array(
    fc.record({
      ahead: fc.oneof({ weight: 9, arbitrary: fc.nat(4) }, fc.nat(0xffff)),
      event: fc.nat(0xffff),
      scribbles: fc.array(fc.tuple(fc.nat(30), fc.integer({ min: 0, max: 0x3fff }), fc.nat(255)), {
        maxLength: 6,
      }),
      complete: fc.nat(8),
    }),
    { minLength: 1, maxLength: 8 },
  ),
})

type Chaos = typeof chaosArbitrary extends fc.Arbitrary<infer T> ? T : never

function runChaos(chaos: Chaos): void {
  const { size, start } = chaos
  const scene = new Scene({ ...chaos })
  const { ring, literal, journal, ground } = scene
  const low = ground.memory.regions[0]?.bytes as Uint8Array
  literal.table(0x1_8000, chaos.descriptors.slice(size))
  for (let i = 0; i < size; i++) {
    literal.describe(i, chaos.descriptors[i] as Chaos['descriptors'][number])
    literal.offer(i, chaos.heads[i] as number)
  }
  const out: Chain[] = []
  let taken = 0
  let returned = 0
  for (const turn of chaos.turns) {
    literal.availableIndex(literal.available.index + turn.ahead)
    literal.usedEvent(turn.event)
    let reads = 0
    journal.after = ({ kind }) => {
      if (kind !== 'read') return
      reads++
      for (const [when, where, value] of turn.scribbles) {
        // Anything below the used ring, which is the device's own to write.
        if (when === reads) low[0x1000 + (where % 0x4000)] = value
      }
    }
    for (let i = 0; i < 2 * size + 2; i++) {
      journal.clear()
      const before = scene.violations.length
      const chain = ring.next()
      const dropped = scene.violations.length - before - (ring.broken && chain === null ? 1 : 0)
      // Where the indirect tables lie is the peer's say; all else the device touches is the ring.
      expect(journal.written().filter((at) => !within(at, [scene.usedArea]))).toEqual([])
      expect(walked(journal)).toBeLessThanOrEqual((size + 1) * size)
      returned += Math.max(0, dropped)
      taken += Math.max(0, dropped)
      if (chain === null) break
      taken++
      out.push(chain)
      checkChain(scene, chain)
      expect(ring.inFlight).toBe(out.length)
      expect(out.length).toBeLessThanOrEqual(size)
    }
    for (let i = 0; i < turn.complete && out.length > 0; i++) {
      const [chain] = out.splice(i % out.length, 1)
      if (chain === undefined) break
      if (i % 4 === 3) {
        ring.abandon(chain)
        taken--
        continue
      }
      ring.complete(chain, chain.writableBytes)
      returned++
    }
    ring.publish()
    if (!ring.broken) ring.rearm()
    expect(literal.used.index).toBe((start + returned) % 65_536)
    expect(taken, 'what was taken is out or was given back').toBe(returned + out.length)
  }
}

function checkChain(scene: Scene, chain: Chain): void {
  const buffers = buffersOf(chain)
  expect(chain.count).toBeLessThanOrEqual(scene.place.size)
  const sum = (write: boolean) =>
    buffers.filter((b) => b.write === write).reduce((total, b) => total + b.lengthBytes, 0)
  expect([chain.readableBytes, chain.writableBytes]).toEqual([sum(false), sum(true)])
  expect(chain.readableBytes + chain.writableBytes).toBeLessThanOrEqual(2 ** 32)
  for (const { at, lengthBytes } of buffers) {
    expect(lengthBytes).toBeGreaterThan(0)
    const inside = scene.ground.memory.regions.some(
      ({ base, bytes }) => at >= base && at < base + bytes.length,
    )
    expect(inside && scene.dma.reaches(at as never, lengthBytes)).toBe(true)
  }
}
