import { describe, expect, it } from 'vitest'
import { SplitRing } from '../../host/virtio/split-ring.ts'
import { DmaSpace } from '../../protocol/dma.ts'
import { GuestMemory, gpa } from '../../protocol/memory.ts'
import type { QueuePlace } from '../../protocol/virtio/ring.ts'
import { RING_START } from '../../protocol/virtio/ring.ts'
import { changedSince, Journal, JournalMemory, snapshot } from '../fuzz/journal.ts'
import { unexpected } from './ends.ts'

/** 64 KiB, 64 KiB adjacent, a gap, and 64 KiB above 4 GiB. */
function memory(): GuestMemory {
  const region = (base: number) => ({ base: gpa(base), bytes: new Uint8Array(0x1_0000) })
  return new GuestMemory([region(0), region(0x1_0000), region(2 ** 32)])
}

const END = 2 ** 32 + 0x1_0000
const GOOD: QueuePlace = { size: 16, descriptors: 0x1000, driver: 0x2000, device: 0x3000 }
const DESC_BYTES = 16 * 16
const AVAIL_BYTES = 6 + 2 * 16
const USED_BYTES = 6 + 8 * 16

function start(place: QueuePlace, sizeMax = 256) {
  const journal = new Journal()
  const space = memory()
  const before = snapshot(space)
  const started = SplitRing.start({
    dma: new DmaSpace(new JournalMemory(space, journal)),
    queue: 2,
    place,
    sizeMax,
    indirect: true,
    eventIdx: true,
    position: RING_START,
    retake: [],
    listener: { violated: unexpected },
  })
  expect(journal.accesses, 'starting looks at nothing').toEqual([])
  expect(changedSince(before, space)).toEqual([])
  return started
}

const HOSTILE = [-1, -16, Number.NaN, 2 ** 53, 2 ** 63, 2 ** 64, Number.POSITIVE_INFINITY]

describe('where a queue lies', () => {
  it('is any place in memory whose areas are aligned and apart, touching or not', () => {
    const places: Partial<QueuePlace>[] = [
      {},
      { descriptors: 0 },
      { driver: GOOD.descriptors + DESC_BYTES, device: GOOD.descriptors + DESC_BYTES + AVAIL_BYTES + 2 },
      { device: GOOD.descriptors - USED_BYTES - 2, driver: GOOD.descriptors - USED_BYTES - AVAIL_BYTES - 2 },
      { descriptors: END - DESC_BYTES },
      { driver: END - AVAIL_BYTES },
      { device: END - USED_BYTES - 2 },
      // Across adjacent regions.
      { descriptors: 0x1_0000 - 16 },
      { driver: 0x1_0000 - 2 },
      { device: 0x1_0000 - 4 },
      { size: 1 },
      { size: 256 },
    ]
    for (const place of places) expect(start({ ...GOOD, ...place })).toBeInstanceOf(SplitRing)
  })

  it('is refused when it is misaligned, outside memory or on itself, and the rule says which', () => {
    const refused: Partial<QueuePlace>[] = [
      ...[1, 2, 4, 8, 15].map((off) => ({ descriptors: GOOD.descriptors + off })),
      { driver: GOOD.driver + 1 },
      ...[1, 2, 3].map((off) => ({ device: GOOD.device + off })),
      { descriptors: END - DESC_BYTES + 16 },
      { driver: END - AVAIL_BYTES + 2 },
      { device: END - USED_BYTES + 2 },
      // A gap begins where the adjacent regions end.
      { descriptors: 0x2_0000 - 16 },
      { driver: 0x2_0000 - AVAIL_BYTES + 2 },
      { device: 0x2_0000 - USED_BYTES + 2 },
      { descriptors: GOOD.device },
      { driver: GOOD.descriptors },
      { driver: GOOD.descriptors + DESC_BYTES - 2 },
      { device: GOOD.descriptors + DESC_BYTES - 4 },
      // The event word counts, whether or not it is used.
      { device: GOOD.driver + AVAIL_BYTES - 2 },
      { descriptors: GOOD.device + 128 },
      ...HOSTILE.map((at) => ({ descriptors: at })),
      ...HOSTILE.map((at) => ({ driver: at })),
      ...HOSTILE.map((at) => ({ device: at })),
    ]
    for (const place of refused) {
      expect([place, start({ ...GOOD, ...place })]).toMatchObject([
        place,
        { rule: 'split.area-backed', side: 'driver', queue: 2 },
      ])
    }
  })

  it('is refused for a size that is no power of two up to what was offered', () => {
    for (const size of [0, 3, 15, 17, 512, 65_536, 2 ** 32, -16, 0.5, Number.NaN]) {
      expect(start({ ...GOOD, size })).toMatchObject({ rule: 'split.queue-size', side: 'driver' })
    }
    expect(start({ ...GOOD, size: 32 }, 16)).toMatchObject({ rule: 'split.queue-size', expected: 16 })
    expect(start({ ...GOOD, size: 16 }, 16)).toBeInstanceOf(SplitRing)
  })
})
