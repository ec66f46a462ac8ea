import { describe, expect, it } from 'vitest'
import { Segments } from '../../guest/virtio/segments.ts'
import { DriverRing } from '../../guest/virtio/split-ring.ts'
import type { Chain } from '../../host/virtio/chain.ts'
import { SplitRing } from '../../host/virtio/split-ring.ts'
import { DmaSpace } from '../../protocol/dma.ts'
import { GuestMemory, gpa } from '../../protocol/memory.ts'
import { RING_START } from '../../protocol/virtio/ring.ts'
import { Journal, JournalMemory } from '../fuzz/journal.ts'
import { unexpected } from './ends.ts'

const SIZE = 4
const DESCRIPTORS = 0x1000
const DRIVER = 0x2000
const DEVICE = 0x3000
const DATA = 0x8000

/** What each access was to, by the areas' layouts; `load` and `store` are the ones the other side may race. */
function named(journal: Journal): string[] {
  const place = (at: number) => {
    if (at >= DEVICE)
      return `used ${at - DEVICE === 4 + 8 * SIZE ? 'event' : (['flags', 0, 'idx'][at - DEVICE] ?? 'ring')}`
    if (at >= DRIVER)
      return `avail ${at - DRIVER === 4 + 2 * SIZE ? 'event' : (['flags', 0, 'idx'][at - DRIVER] ?? 'ring')}`
    return 'descriptor'
  }
  const names = journal.accesses.map(({ kind, at }) => `${kind} ${place(at)}`)
  return names.filter((name, i) => name !== names[i - 1])
}

function ends(eventIdx: boolean) {
  const memory = GuestMemory.ofBytes(1 << 16)
  const areas = [DESCRIPTORS, DRIVER, DEVICE]
  const driverJournal = new Journal()
  const deviceJournal = new Journal()
  const driver = new DriverRing<object>({
    platform: {
      memory: new JournalMemory(memory, driverJournal),
      allocate: () => gpa(areas.shift() as number),
    },
    queue: 0,
    size: SIZE,
    indirectSegments: 0,
    eventIdx,
    violated: unexpected,
  })
  const device = SplitRing.start({
    dma: new DmaSpace(new JournalMemory(memory, deviceJournal)),
    queue: 0,
    place: driver.place,
    sizeMax: SIZE,
    indirect: false,
    eventIdx,
    position: RING_START,
    retake: [],
    listener: { violated: unexpected },
  })
  if (!(device instanceof SplitRing)) return unexpected(device)
  return { driver, device, driverJournal, deviceJournal }
}

function steps(journal: Journal, act: () => void): string[] {
  journal.clear()
  act()
  return named(journal)
}

/**
 * One thread cannot show a missing barrier, but it can show the order: what an index stands for is written
 * before it, and whoever goes to rest says so before the last look.
 */
describe.each([true, false])('with EVENT_IDX %s', (eventIdx) => {
  it('a driver shows its index after all it stands for, and looks for suppression after that', () => {
    const { driver, driverJournal } = ends(eventIdx)
    const segments = new Segments()
    segments.writable(gpa(DATA), 8)
    expect(steps(driverJournal, () => driver.post(segments, {}))).toEqual([
      'write descriptor',
      'write avail ring',
    ])
    expect(steps(driverJournal, () => driver.publish())).toEqual([
      'store avail idx',
      eventIdx ? 'load used event' : 'load used flags',
    ])
    expect(steps(driverJournal, () => driver.publish())).toEqual([])
    expect(steps(driverJournal, () => driver.rearm())).toEqual([
      eventIdx ? 'store avail event' : 'store avail flags',
      'load used idx',
    ])
  })

  it('a device does the same, and reads an index before what it stands for', () => {
    const { driver, device, driverJournal, deviceJournal } = ends(eventIdx)
    const segments = new Segments()
    segments.writable(gpa(DATA), 8)
    driver.post(segments, {})
    driver.publish()
    let chain: Chain | null = null
    const quiet = eventIdx ? [] : ['store used flags']
    expect(
      steps(deviceJournal, () => {
        chain = device.next()
      }),
    ).toEqual(['load avail idx', ...quiet, 'read avail ring', 'read descriptor'])
    expect(steps(deviceJournal, () => device.complete(chain as unknown as Chain, 8))).toEqual([
      'write used ring',
    ])
    expect(steps(deviceJournal, () => device.publish())).toEqual([
      'store used idx',
      eventIdx ? 'load avail event' : 'load avail flags',
    ])
    expect(steps(deviceJournal, () => device.publish())).toEqual([])
    expect(steps(deviceJournal, () => device.rearm())).toEqual([
      eventIdx ? 'store used event' : 'store used flags',
      'load avail idx',
    ])
    expect(steps(driverJournal, () => driver.reap())).toEqual(['load used idx', 'read used ring'])
  })
})
