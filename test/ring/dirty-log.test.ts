import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Chain } from '../../host/virtio/chain.ts'
import { SplitRing } from '../../host/virtio/split-ring.ts'
import type { PageLog } from '../../protocol/dma.ts'
import { DmaSpace } from '../../protocol/dma.ts'
import { GuestMemory, gpa, PAGE_BYTES } from '../../protocol/memory.ts'
import { Journal, JournalMemory } from '../fuzz/journal.ts'
import { LiteralDriver } from '../fuzz/literal-driver.ts'
import { LiteralRing } from '../fuzz/literal-ring.ts'
import { unexpected } from './ends.ts'

/** The used ring of this size covers three pages, its event word the last. */
const SIZE = 1024
const DATA_AT = 0x10_0000

class Pages implements PageLog {
  readonly marked = new Set<number>()

  mark(firstPage: number, lastPage: number): void {
    for (let page = firstPage; page <= lastPage; page++) this.marked.add(page)
  }
}

const pageOf = (at: number) => Math.floor(at / PAGE_BYTES)

const shapes = fc.record({
  eventIdx: fc.boolean(),
  indirect: fc.boolean(),
  start: fc.oneof(fc.nat(0xffff), fc.integer({ min: 0xfff0, max: 0xffff })),
  /** Where the used ring lies in its page. */
  skew: fc.constantFrom(0, 4, 2048, 4092, 4088),
  steps: fc.array(
    fc.oneof(
      fc.record({
        kind: fc.constant('post' as const),
        at: fc.integer({ min: 0, max: 0x4000 }),
        lengths: fc.array(fc.integer({ min: 1, max: 9000 }), { minLength: 1, maxLength: 3 }),
        readable: fc.boolean(),
      }),
      fc.record({ kind: fc.constant('complete' as const), which: fc.nat(9), written: fc.nat(30_000) }),
      fc.record({
        kind: fc.constantFrom('take' as const, 'malformed' as const, 'use' as const, 'rest' as const),
      }),
    ),
    { maxLength: 60, size: 'max' },
  ),
})

describe('the log of pages written', () => {
  it('holds exactly the pages the device wrote, ring and buffers, after every step', () => {
    fc.assert(
      fc.property(shapes, ({ eventIdx, indirect, start, skew, steps }) => {
        const memory = GuestMemory.ofBytes(1 << 24)
        const place = { size: SIZE, descriptors: 0x1000, driver: 0x6000, device: 0x8000 + skew }
        const literal = new LiteralRing(memory, place)
        literal.usedIndex(start)
        const driver = new LiteralDriver(literal, {
          eventIdx,
          start,
          tablesAt: indirect ? 0x20_0000 - 0x4000 : null,
        })
        const log = new Pages()
        const journal = new Journal()
        let dropped = 0
        const ring = SplitRing.start({
          dma: new DmaSpace(new JournalMemory(memory, journal), log),
          queue: 0,
          place,
          sizeMax: SIZE,
          indirect,
          eventIdx,
          position: { available: start, used: start },
          retake: [],
          listener: { violated: () => dropped++ },
        })
        if (!(ring instanceof SplitRing)) unexpected(ring)
        const device = ring as SplitRing
        const out: Chain[] = []
        let malformed = 0
        for (const step of steps) {
          const written = new Set<number>()
          log.marked.clear()
          journal.clear()
          if (step.kind === 'post' || step.kind === 'malformed') {
            const lengths = step.kind === 'post' ? step.lengths : [8]
            let at = step.kind === 'post' ? DATA_AT + step.at : memory.end - 4
            if (step.kind === 'malformed') malformed++
            const buffers = lengths.map((lengthBytes, i) => {
              const buffer = { at, lengthBytes, write: !(step.kind === 'post' && step.readable && i === 0) }
              at += lengthBytes + 5000
              return buffer
            })
            driver.post(buffers)
            driver.publish()
          } else if (step.kind === 'take') {
            const chain = device.next()
            if (chain !== null) out.push(chain)
          } else if (step.kind === 'complete') {
            const [chain] = out.splice(step.which % Math.max(1, out.length), 1)
            if (chain === undefined) continue
            const bytes = Math.min(step.written, chain.writableBytes)
            let left = bytes
            for (let i = chain.readableCount; i < chain.count; i++) {
              for (let b = 0; b < Math.min(left, chain.lengths[i] as number); b++) {
                written.add(pageOf((chain.addresses[i] as number) + b))
              }
              left = Math.max(0, left - (chain.lengths[i] as number))
            }
            device.complete(chain, bytes)
          } else if (step.kind === 'use') device.publish()
          else device.rearm()
          for (const at of journal.written()) written.add(pageOf(at))
          const sorted = (pages: Set<number>) => [...pages].sort((a, b) => a - b)
          expect(sorted(log.marked)).toEqual(sorted(written))
        }
        expect(dropped).toBeLessThanOrEqual(malformed)
      }),
      { numRuns: 200 },
    )
  })

  it('logs nothing beyond what was written of a buffer, to the byte', () => {
    const memory = GuestMemory.ofBytes(1 << 20)
    const place = { size: 8, descriptors: 0x1000, driver: 0x2000, device: 0x3000 }
    const literal = new LiteralRing(memory, place)
    const driver = new LiteralDriver(literal, { eventIdx: false, tablesAt: null })
    const log = new Pages()
    const ring = SplitRing.start({
      dma: new DmaSpace(memory, log),
      queue: 0,
      place,
      sizeMax: 8,
      indirect: false,
      eventIdx: false,
      position: { available: 0, used: 0 },
      retake: [],
      listener: { violated: unexpected },
    }) as SplitRing
    const cases = [
      [0, []],
      [1, [16]],
      [4096, [16]],
      [4097, [16, 18]],
      [8192, [16, 18]],
      [8193, [16, 18, 32]],
    ] as const
    for (const [bytes, pages] of cases) {
      driver.post([
        { at: 0xf000, lengthBytes: 64, write: false },
        { at: 0x1_0000, lengthBytes: 4096, write: true },
        { at: 0x1_2000, lengthBytes: 4096, write: true },
        { at: 0x2_0000, lengthBytes: 1, write: true },
      ])
      driver.publish()
      const chain = ring.next() as Chain
      log.marked.clear()
      ring.complete(chain, bytes)
      expect(
        [...log.marked].filter((page) => page !== pageOf(gpa(place.device))).sort((a, b) => a - b),
      ).toEqual(pages)
      ring.publish()
      driver.reap()
    }
  })
})
