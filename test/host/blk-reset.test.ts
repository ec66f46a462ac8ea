import fc from 'fast-check'
import { afterAll, afterEach, describe, expect, test, vi } from 'vitest'
import type { DiskOutcome } from '../../host/disk/backend.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import { Mmio } from '../../protocol/virtio/mmio.ts'
import { DISCARD, FLUSH, GET_ID, IN, OUT, WRITE_ZEROES } from './blk-model.ts'
import { BlkRig, placeAt, placeEnd } from './blk-rig.ts'
import { escapePath, imageMaker, opened, scratch } from './disk-subjects.ts'
import { HeldDisk } from './held-disk.ts'
import type { RawQueue } from './raw-queue.ts'
import { threadPool } from './thread-pool.ts'

const { directory, remove } = scratch()
afterAll(remove)
afterEach(() => vi.restoreAllMocks())

const image = imageMaker(directory, 'reset', 64 * 512)
const QUEUE_SIZE = 16
const ARENA = placeEnd(placeAt(0, QUEUE_SIZE))
const SLOT_BYTES = 2048

/** Offers a request of one sector (or one range) in a slot of memory of its own. */
function offer(rig: BlkRig, queue: RawQueue, slot: number, type: number, sector: number): number {
  const at = ARENA + slot * SLOT_BYTES
  const view = new DataView(rig.bytes.buffer, at, SLOT_BYTES)
  view.setUint32(0, type, true)
  view.setBigUint64(8, BigInt(sector), true)
  view.setUint8(1024, 0xff)
  const data = { at: at + 16, lengthBytes: 512, write: type === IN }
  const ranges = type === DISCARD || type === WRITE_ZEROES
  if (ranges) {
    for (const i of [0, 1]) {
      view.setBigUint64(16 + 16 * i, BigInt(sector + i), true)
      view.setUint32(24 + 16 * i, 1, true)
      view.setUint32(28 + 16 * i, 0, true)
    }
  }
  const body = ranges ? [{ ...data, lengthBytes: 32 }] : type === IN || type === OUT ? [data] : []
  const room = type === GET_ID ? [{ at: at + 900, lengthBytes: 20, write: true }] : []
  const head = queue.offer([
    { at, lengthBytes: 16, write: false },
    ...body,
    ...room,
    { at: at + 1024, lengthBytes: 1, write: true },
  ])
  queue.publish()
  rig.kick()
  return head
}

const statusByte = (rig: BlkRig, slot: number) => rig.bytes[ARENA + slot * SLOT_BYTES + 1024]

/** A driver that starts from nothing reads one sector: the device is alive and has forgotten everything. */
function expectAlive(rig: BlkRig, answer: () => void): void {
  const queue = rig.bringUp(rig.device.offered, QUEUE_SIZE)
  const head = offer(rig, queue, 0, IN, 1)
  rig.drain()
  answer()
  rig.drain()
  expect(queue.reap()).toEqual({ head, lengthBytes: 513 })
  expect(statusByte(rig, 0)).toBe(0)
}

type Act =
  | { readonly kind: 'offer'; readonly type: number; readonly sector: number }
  | { readonly kind: 'end'; readonly index: number; readonly outcome: DiskOutcome }
  | { readonly kind: 'turns' }
  | { readonly kind: 'scribble' }
  | { readonly kind: 'stop-queue'; readonly register: number }

const act: fc.Arbitrary<Act> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('offer' as const),
      type: fc.constantFrom(IN, IN, OUT, FLUSH, DISCARD, WRITE_ZEROES, GET_ID),
      sector: fc.nat(60),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('end' as const),
      index: fc.nat(8),
      outcome: fc.constantFrom<DiskOutcome>('ok', 'ok', 'medium-error', 'gone'),
    }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('turns' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('scribble' as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('stop-queue' as const),
      register: fc.constantFrom(Mmio.QueueReady, Mmio.QueueReset),
    }),
  },
)

interface Setting {
  readonly privateLoans: boolean
  readonly obedient: boolean
  readonly writeThrough: boolean
  readonly before: readonly Act[]
  readonly after: readonly Act[]
}

const setting: fc.Arbitrary<Setting> = fc.record({
  privateLoans: fc.boolean(),
  obedient: fc.boolean(),
  writeThrough: fc.boolean(),
  before: fc.array(act, { maxLength: 14 }),
  after: fc.array(act, { maxLength: 10 }),
})

/** Does one thing; what would need a free slot or a live queue and has none is left out. */
function perform(rig: BlkRig, disk: HeldDisk, queue: RawQueue, one: Act, slots: { next: number }): void {
  switch (one.kind) {
    case 'offer':
      if (queue.freeCount >= 4 && slots.next < 16) offer(rig, queue, slots.next++, one.type, one.sector)
      return
    case 'end':
      if (disk.held.length > 0) disk.end(one.index % disk.held.length, one.outcome)
      return
    case 'turns':
      rig.drain()
      return
    case 'scribble':
      disk.scribble()
      return
    case 'stop-queue':
      rig.write(one.register, one.register === Mmio.QueueReset ? 1 : 0)
      return
  }
}

describe('two-phase reset', () => {
  test('status reads 0 when every loan has ended, and from then on no byte of memory changes', () => {
    fc.assert(
      fc.property(setting, ({ privateLoans, obedient, writeThrough, before, after }) => {
        const disk = new HeldDisk({ privateLoans })
        disk.obedient = obedient
        const rig = new BlkRig({ backend: disk })
        const queue = rig.bringUp(rig.device.offered, QUEUE_SIZE)
        if (writeThrough) rig.write(0x120, 0, 1)
        const slots = { next: 0 }
        for (const one of before) perform(rig, disk, queue, one, slots)
        rig.write(Mmio.Status, 0)
        expect([rig.read(Mmio.InterruptStatus), rig.line.level]).toEqual([0, false])
        const rises = rig.line.rises
        for (const one of after) {
          if (rig.status === 0) break
          // A file on loan is still written to; a private loan has been taken back.
          expect(privateLoans).toBe(false)
          expect(disk.held.length).toBeGreaterThan(0)
          rig.write(Mmio.Status, 0)
          perform(rig, disk, queue, one, slots)
        }
        while (rig.status !== 0) {
          expect(disk.held.length).toBeGreaterThan(0)
          disk.end(0, 'ok')
        }
        if (!privateLoans) expect(disk.held).toEqual([])
        const memory = rig.bytes.slice()
        rig.drain()
        disk.scribble()
        while (disk.held.length > 0) disk.end(0, 'ok')
        rig.drain()
        expect(Buffer.compare(rig.bytes, memory)).toBe(0)
        expect([rig.line.level, rig.line.rises]).toEqual([false, rises])
        expect(rig.transport.save()).toEqual(new BlkRig({ backend: new HeldDisk() }).transport.save())
        expectAlive(rig, () => disk.end())
      }),
      { numRuns: 400 },
    )
  })

  test('asks for cancellation at once, and private loans are given up without waiting', () => {
    for (const privateLoans of [false, true]) {
      const disk = new HeldDisk({ privateLoans })
      disk.obedient = false
      const rig = new BlkRig({ backend: disk })
      const queue = rig.bringUp(rig.device.offered, QUEUE_SIZE)
      for (const [slot, type] of [IN, OUT, DISCARD, FLUSH].entries()) offer(rig, queue, slot, type, slot * 4)
      rig.drain()
      expect(disk.held.length).toBe(5)
      rig.write(Mmio.Status, 0)
      expect(disk.held.every(({ cancelling }) => cancelling)).toBe(true)
      expect(rig.status === 0).toBe(privateLoans)
      while (disk.held.length > 0) disk.end()
      expect(rig.status).toBe(0)
    }
  })

  test('over the asynchronous file, reads that are under way keep status from 0 and still land', async () => {
    const calls = threadPool()
    const clock = new VirtualClock({ turnsMax: 10_000 })
    const disk = await opened(`file-async:${escapePath(image())},depth=2`, clock)
    const rig = new BlkRig({ backend: disk, clock })
    const queue = rig.bringUp(rig.device.offered, QUEUE_SIZE)
    for (const slot of [0, 1, 2, 3]) offer(rig, queue, slot, slot === 1 ? OUT : IN, slot)
    rig.drain()
    expect(calls.map(({ name }) => name)).toEqual(['read', 'write'])
    rig.write(Mmio.Status, 0)
    rig.drain()
    expect(rig.status).not.toBe(0)
    calls[0]?.view.fill(0x77)
    calls[0]?.end(null, 512)
    rig.drain()
    expect(rig.status).not.toBe(0)
    calls[1]?.end(null, 512)
    expect(rig.status).not.toBe(0)
    rig.drain()
    expect(rig.status).toBe(0)
    // The two that waited were given up, and nothing else was asked of the file.
    expect(calls.length).toBe(2)
    expect([0, 1, 2, 3].map((slot) => statusByte(rig, slot))).toEqual([0xff, 0xff, 0xff, 0xff])
    expect(queue.reap()).toBe(null)
    expectAlive(rig, () => calls[2]?.end(null, 512))
  })

  test('a write that waits for its flush keeps status from 0', async () => {
    const calls = threadPool()
    const clock = new VirtualClock({ turnsMax: 10_000 })
    const disk = await opened(`file-async:${escapePath(image())}`, clock)
    const rig = new BlkRig({ backend: disk, clock })
    const queue = rig.bringUp(rig.device.offered, QUEUE_SIZE)
    rig.write(0x120, 0, 1)
    offer(rig, queue, 0, OUT, 0)
    rig.drain()
    calls[0]?.end(null, 512)
    rig.drain()
    expect(calls.map(({ name }) => name)).toEqual(['write', 'sync'])
    rig.write(Mmio.Status, 0)
    rig.drain()
    expect(rig.status).not.toBe(0)
    calls[1]?.end(null, 0)
    rig.drain()
    expect([rig.status, statusByte(rig, 0)]).toEqual([0, 0xff])
  })

  test('over a delay, requests that wait are given up at once', async () => {
    const clock = new VirtualClock({ turnsMax: 10_000 })
    const disk = await opened('memory:size=32K | delay:ms=5', clock)
    const rig = new BlkRig({ backend: disk, clock })
    const queue = rig.bringUp(rig.device.offered, QUEUE_SIZE)
    let started = false
    clock.after(1000, () => {
      started = true
      rig.write(Mmio.Status, 0)
      expect(rig.status).toBe(0)
    })
    for (const slot of [0, 1]) offer(rig, queue, slot, IN, slot)
    const memory = rig.bytes.slice()
    rig.drain()
    expect(started).toBe(true)
    // The device's own words in the ring are all that may differ: it asked not to be notified and looked again.
    const used = placeAt(0, QUEUE_SIZE).device
    memory.set(rig.bytes.subarray(used, ARENA), used)
    expect(Buffer.compare(rig.bytes, memory)).toBe(0)
    expect(queue.reap()).toBe(null)
    expectAlive(rig, () => {})
  })

  test('nothing more is taken once it has begun, not even by a turn that was due', () => {
    const disk = new HeldDisk()
    disk.obedient = false
    const rig = new BlkRig({ backend: disk })
    const queue = rig.bringUp(rig.device.offered, QUEUE_SIZE)
    offer(rig, queue, 0, IN, 0)
    rig.drain()
    offer(rig, queue, 1, IN, 1)
    rig.write(Mmio.Status, 0)
    rig.drain()
    expect([disk.held.length, disk.log]).toEqual([1, ['read']])
    disk.end()
    rig.drain()
    expect([rig.status, disk.log]).toEqual([0, ['read', 'read ok']])
  })

  test('a turn left over from before a reset takes nothing before DRIVER_OK', () => {
    const disk = new HeldDisk()
    const rig = new BlkRig({ backend: disk })
    const old = rig.bringUp(rig.device.offered, QUEUE_SIZE)
    offer(rig, old, 0, IN, 0)
    rig.write(Mmio.Status, 0)
    rig.negotiate()
    const queue = old.again(rig.memory)
    rig.startQueue(0, queue.place)
    offer(rig, queue, 0, IN, 0)
    expect(rig.rules).toEqual(['queue.before-driver-ok'])
    rig.drain()
    expect(disk.held).toEqual([])
    rig.driverOk()
    rig.drain()
    expect(disk.held.length).toBe(1)
  })

  test('a driver that resets inside its interrupt leaves a fresh device behind', () => {
    const rig = new BlkRig({ backend: new HeldDisk() })
    // Without EVENT_IDX every used buffer is told.
    const queue = rig.bringUp(rig.device.offered & ~(1n << 29n), QUEUE_SIZE)
    offer(rig, queue, 0, GET_ID, 0)
    // An available index that cannot be: the ring breaks in the turn that answers the request.
    queue.offerAnything(QUEUE_SIZE)
    queue.publish()
    rig.line.onRise = () => rig.write(Mmio.Status, 0)
    rig.drain()
    expect(rig.status).toBe(0)
    expect(rig.transport.save()).toEqual(new BlkRig({ backend: new HeldDisk() }).transport.save())
  })
})

describe('stopping a queue', () => {
  test('QueueReset reads 1 until what was taken has been given back, and QueueReady = 0 waits as long', () => {
    for (const register of [Mmio.QueueReset, Mmio.QueueReady]) {
      const disk = new HeldDisk()
      const rig = new BlkRig({ backend: disk })
      const queue = rig.bringUp(rig.device.offered, QUEUE_SIZE)
      const resets = register === Mmio.QueueReset
      const heads = [offer(rig, queue, 0, IN, 0), offer(rig, queue, 1, OUT, 1)]
      rig.drain()
      rig.write(register, resets ? 1 : 0)
      rig.write(register, resets ? 1 : 0)
      const state = () => [rig.read(Mmio.QueueReset), rig.read(Mmio.QueueReady)]
      expect(state()).toEqual([resets ? 1 : 0, 1])
      // Nothing more is taken, and a stopping queue cannot be set up anew.
      offer(rig, queue, 2, IN, 2)
      rig.drain()
      expect(disk.held.length).toBe(2)
      rig.write(Mmio.QueueReady, 1)
      rig.write(Mmio.QueueSize, 4)
      expect(rig.rules).toEqual(['mmio.queue-live', 'mmio.queue-live'])
      disk.end(1)
      expect(state()).toEqual([resets ? 1 : 0, 1])
      disk.end(0)
      expect(state()).toEqual([0, 0])
      expect([queue.reap()?.head, queue.reap()?.head, queue.reap()]).toEqual([heads[1], heads[0], null])
      expect(rig.transport.save().queues[0]).toEqual(new BlkRig({ backend: disk }).transport.save().queues[0])
      const fresh = queue.again(rig.memory)
      rig.startQueue(0, fresh.place)
      const head = offer(rig, fresh, 3, IN, 3)
      rig.drain()
      disk.end(0)
      expect(fresh.reap()).toEqual({ head, lengthBytes: 513 })
    }
  })

  test('a reset in the middle of it ends both', () => {
    const disk = new HeldDisk()
    disk.obedient = false
    const rig = new BlkRig({ backend: disk })
    const queue = rig.bringUp(rig.device.offered, QUEUE_SIZE)
    offer(rig, queue, 0, IN, 0)
    rig.drain()
    rig.write(Mmio.QueueReset, 1)
    rig.write(Mmio.Status, 0)
    rig.write(Mmio.Status, 0)
    expect(rig.status).not.toBe(0)
    disk.end(0, 'medium-error')
    expect([rig.status, queue.reap()]).toEqual([0, null])
    expectAlive(rig, () => disk.end())
  })

  test('a ring that broke gives back what is in flight, asks for a reset once, and takes nothing more', () => {
    const disk = new HeldDisk()
    const rig = new BlkRig({ backend: disk })
    const queue = rig.bringUp(rig.device.offered, QUEUE_SIZE)
    queue.wantEvent(0)
    const head = offer(rig, queue, 0, IN, 0)
    rig.drain()
    queue.offerAnything(QUEUE_SIZE + 3)
    queue.publish()
    rig.kick()
    rig.drain()
    expect(rig.rules).toEqual(['split.head-range'])
    expect([rig.status & 64, rig.read(Mmio.InterruptStatus)]).toEqual([64, 2])
    rig.write(Mmio.InterruptACK, 2)
    for (let i = 0; i < 3; i++) {
      rig.kick()
      rig.drain()
    }
    expect([rig.rules.length, rig.read(Mmio.InterruptStatus), rig.line.level]).toEqual([1, 0, false])
    disk.end()
    rig.drain()
    expect([queue.reap(), rig.read(Mmio.InterruptStatus)]).toEqual([{ head, lengthBytes: 513 }, 1])
    rig.write(Mmio.Status, 0)
    expectAlive(rig, () => disk.end())
  })
})
