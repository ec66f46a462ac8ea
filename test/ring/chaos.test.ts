import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Chain } from '../../host/virtio/chain.ts'
import { gpa } from '../../protocol/memory.ts'
import { buffersOf } from './ends.ts'
import { Scene, walked, within } from './hostile-stage.ts'

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
    expect(inside && scene.dma.reaches(gpa(at), lengthBytes)).toBe(true)
  }
}

describe('a driver without rules', () => {
  it('writes anything anywhere at any time, and finds a device that keeps every one of its promises', () => {
    fc.assert(
      fc.property(chaosArbitrary, (chaos) => runChaos(chaos)),
      { numRuns: 400 },
    )
  })
})
