import { describe, expect, it } from 'vitest'
import type { Chain } from '../../host/virtio/chain.ts'
import { HOSTILE_CHAINS } from '../fuzz/hostile-chain.ts'
import type { HostileChain, HostileScene } from '../fuzz/hostile-scene.ts'
import { changedSince, snapshot } from '../fuzz/journal.ts'
import { L_NEXT, L_WRITE } from '../fuzz/literal-ring.ts'
import { buffersOf } from './ends.ts'
import { DESCRIPTORS, DRIVER, Scene, walked, within } from './hostile-stage.ts'

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
})
