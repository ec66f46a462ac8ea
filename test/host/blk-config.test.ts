import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { DiskFacts } from '../../host/disk/backend.ts'
import { BLK_LIMITS } from '../../host/virtio/blk-config.ts'
import { featureNames } from '../../protocol/version.ts'
import { BlkFeature } from '../../protocol/virtio/blk.ts'
import type { VirtioVersion } from '../../protocol/virtio/features.ts'
import { CommonFeature, VIRTIO_VERSIONS } from '../../protocol/virtio/features.ts'
import { Mmio } from '../../protocol/virtio/mmio.ts'
import { Status } from '../../protocol/virtio/status.ts'
import { DISCARD, FLUSH, GET_LIFETIME, OUT, SECURE_ERASE, WRITE_ZEROES } from './blk-model.ts'
import { BlkRig, placeAt, placeEnd } from './blk-rig.ts'
import { HELD_BYTES, HeldDisk } from './held-disk.ts'
import type { RawQueue } from './raw-queue.ts'

const CONFIG = 0x100
const WRITEBACK = CONFIG + 32
const QUEUE_SIZE = 16
const AT = placeEnd(placeAt(0, QUEUE_SIZE))
const ALL = { fua: true, zero: true, discard: true, erase: true, resize: true, extents: true }
const NONE = { fua: false, zero: false, discard: false, erase: false, resize: false, extents: false }

function rigOf(facts: Partial<DiskFacts> = {}, version: VirtioVersion = '1.3', limits = {}): BlkRig {
  return new BlkRig({ backend: new HeldDisk(facts), version, limits })
}

const offeredNames = (rig: BlkRig) => featureNames(rig.device.offered, CommonFeature, BlkFeature)

/** One request with as much data as its type wants, answered or not. */
function offer(rig: BlkRig, queue: RawQueue, type: number, sector = 0): void {
  rig.bytes.fill(0, AT, AT + 1024)
  const view = new DataView(rig.bytes.buffer, AT, 1024)
  view.setUint32(0, type, true)
  view.setBigUint64(8, BigInt(sector), true)
  view.setUint32(24, 1, true)
  view.setUint8(1000, 0xff)
  const outBytes = type === OUT ? 512 : [DISCARD, WRITE_ZEROES, SECURE_ERASE].includes(type) ? 16 : 0
  queue.offer([
    { at: AT, lengthBytes: 16 + outBytes, write: false },
    {
      at: type === GET_LIFETIME ? AT + 994 : AT + 1000,
      lengthBytes: type === GET_LIFETIME ? 7 : 1,
      write: true,
    },
  ])
  queue.publish()
  rig.kick()
  rig.drain()
}

const statusByte = (rig: BlkRig) => rig.bytes[AT + 1000]

describe('what is offered', () => {
  test('is what the disk can do, and what the version defines', () => {
    const common = ['SEG_MAX', 'BLK_SIZE', 'FLUSH', 'TOPOLOGY', 'INDIRECT_DESC', 'EVENT_IDX', 'VERSION_1']
    const capable = { can: ALL, lifetime: { preEndOfLife: 1, usedTenthsA: 1, usedTenthsB: 1 } }
    const of = (version: VirtioVersion, facts: Partial<DiskFacts>, limits = {}) =>
      offeredNames(rigOf(facts, version, limits)).sort()
    expect(of('1.0', { ...capable })).toEqual([...common, 'CONFIG_WCE'].sort())
    expect(of('1.1', { ...capable })).toEqual([...common, 'CONFIG_WCE', 'DISCARD', 'WRITE_ZEROES'].sort())
    const newest = [
      ...common,
      'CONFIG_WCE',
      'DISCARD',
      'WRITE_ZEROES',
      'SECURE_ERASE',
      'LIFETIME',
      'RING_RESET',
    ]
    expect(of('1.2', { ...capable })).toEqual([...newest].sort())
    expect(of('1.3', { ...capable }, { queues: 3 })).toEqual([...newest, 'MQ'].sort())
    expect(of('1.3', { can: NONE, volatileCache: false })).toEqual([...common, 'RING_RESET'].sort())
    expect(of('1.3', { can: NONE, readOnly: true })).toContain('RO')
  })

  test('a request whose feature was not accepted is unsupported, and the disk hears nothing of it', () => {
    const lifetime = { preEndOfLife: 1, usedTenthsA: 1, usedTenthsB: 1 }
    const cases = [
      [FLUSH, BlkFeature.FLUSH],
      [DISCARD, BlkFeature.DISCARD],
      [WRITE_ZEROES, BlkFeature.WRITE_ZEROES],
      [SECURE_ERASE, BlkFeature.SECURE_ERASE],
      [GET_LIFETIME, BlkFeature.LIFETIME],
    ] as const
    for (const [type, { bit }] of cases) {
      const disk = new HeldDisk({ lifetime })
      const rig = new BlkRig({ backend: disk })
      const without = rig.bringUp(rig.device.offered & ~(1n << BigInt(bit)), QUEUE_SIZE)
      offer(rig, without, type)
      expect([statusByte(rig), disk.log, rig.rules]).toEqual([2, [], ['block.not-negotiated']])
      rig.write(Mmio.Status, 0)
      const queue = rig.bringUp(rig.device.offered, QUEUE_SIZE)
      offer(rig, queue, type)
      disk.end()
      expect([statusByte(rig), rig.rules.length]).toEqual([0, 1])
    }
  })
})

describe('configuration space', () => {
  test('says what the facts and limits are, and zero where a feature is not offered', () => {
    const limits = { queues: 3, rangeSectors: 4096, rangeSegments: 5, queueSize: 32 }
    const rig = rigOf({ blockBytes: 1024, physicalBlockBytes: 8192, lengthBytes: HELD_BYTES }, '1.3', limits)
    const le32 = (at: number) => rig.read(CONFIG + at)
    expect([le32(0), le32(4)]).toEqual([64, 0])
    expect([le32(8), le32(12), le32(16), le32(20)]).toEqual([0, 30, 0, 1024])
    expect([rig.read(CONFIG + 24, 1), rig.read(CONFIG + 25, 1), rig.read(CONFIG + 26, 2)]).toEqual([3, 0, 8])
    expect([le32(28), rig.read(WRITEBACK, 1), rig.read(CONFIG + 33, 1)]).toEqual([0, 1, 0])
    expect(rig.read(CONFIG + 34, 2)).toBe(3)
    expect([le32(36), le32(40), le32(44)]).toEqual([4096, 5, 2])
    expect([le32(48), le32(52), rig.read(CONFIG + 56, 1)]).toEqual([4096, 5, 1])
    expect([le32(60), le32(64), le32(68)]).toEqual([4096, 5, 2])
    for (let at = 72; at < 256; at += 4) expect(le32(at)).toBe(0)
    const plain = rigOf({ can: NONE, volatileCache: false })
    for (let at = 32; at < 256; at += 4) expect(plain.read(CONFIG + at)).toBe(0)
    expect(plain.violations).toEqual([])
  })

  test('a disk of single bytes is one of sectors, and an empty drive has no capacity', () => {
    const rig = rigOf({ blockBytes: 1, physicalBlockBytes: 1, lengthBytes: 1000 })
    expect([rig.read(CONFIG), rig.read(CONFIG + 20), rig.read(CONFIG + 24, 1)]).toEqual([1, 512, 0])
    expect(rig.read(CONFIG + 44)).toBe(1)
    expect(rigOf({ medium: false }).read(CONFIG)).toBe(0)
  })

  test('a capacity past 2^32 sectors is read whole', () => {
    const rig = rigOf({ lengthBytes: 2 ** 53 })
    expect([rig.read(CONFIG), rig.read(CONFIG + 4)]).toEqual([0, 4096])
    expect(rig.read(CONFIG, 8)).toBe(2 ** 44)
    expect(rig.rules).toEqual(['mmio.config-width'])
  })

  test('its generation changes exactly when it does, and a driver in operation is told', () => {
    const disk = new HeldDisk()
    const rig = new BlkRig({ backend: disk })
    const generation = () => rig.read(Mmio.ConfigGeneration)
    const first = generation()
    disk.change({ lengthBytes: 512 * 10 })
    expect([generation(), rig.read(CONFIG), rig.line.level]).toEqual([first + 1, 10, false])
    rig.bringUp(rig.device.offered, QUEUE_SIZE)
    rig.write(WRITEBACK, 0, 1)
    expect([generation(), rig.line.level]).toEqual([first + 1, false])
    disk.change({ lengthBytes: 512 * 11 })
    expect([generation(), rig.read(Mmio.InterruptStatus)]).toEqual([first + 2, 2])
    expect([rig.read(CONFIG), rig.read(WRITEBACK, 1)]).toEqual([11, 0])
    rig.write(Mmio.InterruptACK, 2)
    disk.change({})
    disk.change({ lengthBytes: 512 * 11 + 7, serial: 'OTHER' })
    expect([generation(), rig.line.level]).toEqual([first + 2, false])
    rig.write(Mmio.Status, 0)
    expect(generation()).toBe(first + 2)
  })

  test('only writeback is writable: one byte, 0 or 1, once CONFIG_WCE is negotiated', () => {
    fc.assert(
      fc.property(
        fc.oneof(fc.constant(32), fc.nat(255)),
        fc.constantFrom(1 as const, 2 as const, 4 as const),
        fc.oneof(fc.nat(3), fc.nat(0xffff_ffff)),
        fc.boolean(),
        (at, width, value, negotiated) => {
          const rig = rigOf()
          if (negotiated) rig.negotiate()
          const before = Array.from({ length: 96 }, (_, i) => rig.read(CONFIG + i, 1))
          rig.write(CONFIG + at, value, width)
          const taken = negotiated && at === 32 && width === 1 && value <= 1
          if (taken) before[32] = value
          expect(Array.from({ length: 96 }, (_, i) => rig.read(CONFIG + i, 1))).toEqual(before)
          const rules = rig.rules.filter((rule) => rule !== 'mmio.config-width')
          expect(rules).toEqual(taken ? [] : ['mmio.config-read-only'])
        },
      ),
    )
  })
})

describe('the write cache', () => {
  /** What the disk is asked for one request, each answered with 'ok' before the next is asked for. */
  function asked(rig: BlkRig, disk: HeldDisk, queue: RawQueue, type: number): string[] {
    disk.log.length = 0
    offer(rig, queue, type)
    while (disk.held.length > 0) {
      expect(statusByte(rig)).toBe(0xff)
      disk.end()
      rig.drain()
    }
    expect(statusByte(rig)).toBe(0)
    return [...disk.log]
  }

  const THROUGH = (op: string) => [op, `${op} ok`, 'flush', 'flush ok']
  const BACK = (op: string) => [op, `${op} ok`]

  test('with FLUSH begins as write-back, and writeback switches it for what comes after', () => {
    const disk = new HeldDisk()
    const rig = new BlkRig({ backend: disk })
    const queue = rig.bringUp(rig.device.offered, QUEUE_SIZE)
    expect(rig.read(WRITEBACK, 1)).toBe(1)
    expect(asked(rig, disk, queue, OUT)).toEqual(BACK('write'))
    expect(asked(rig, disk, queue, FLUSH)).toEqual(BACK('flush'))
    rig.write(WRITEBACK, 0, 1)
    expect(asked(rig, disk, queue, OUT)).toEqual(THROUGH('write'))
    expect(asked(rig, disk, queue, DISCARD)).toEqual(THROUGH('discard'))
    expect(asked(rig, disk, queue, WRITE_ZEROES)).toEqual(THROUGH('zero'))
    expect(asked(rig, disk, queue, SECURE_ERASE)).toEqual(THROUGH('erase'))
    rig.write(WRITEBACK, 1, 1)
    expect(asked(rig, disk, queue, OUT)).toEqual(BACK('write'))
    rig.write(WRITEBACK, 0, 1)
    rig.write(Mmio.Status, 0)
    const again = rig.bringUp(rig.device.offered, QUEUE_SIZE)
    expect(rig.read(WRITEBACK, 1)).toBe(1)
    expect(asked(rig, disk, again, OUT)).toEqual(BACK('write'))
  })

  test('without FLUSH is write-through and says so', () => {
    const disk = new HeldDisk()
    const rig = new BlkRig({ backend: disk })
    const queue = rig.bringUp(rig.device.offered & ~(1n << 9n), QUEUE_SIZE)
    expect(rig.read(WRITEBACK, 1)).toBe(0)
    expect(asked(rig, disk, queue, OUT)).toEqual(THROUGH('write'))
  })

  test('without FLUSH stays write-through, whatever the driver writes: it could not ask for durability', () => {
    const disk = new HeldDisk()
    const rig = new BlkRig({ backend: disk })
    const queue = rig.bringUp(rig.device.offered & ~(1n << 9n), QUEUE_SIZE)
    rig.write(WRITEBACK, 1, 1)
    expect(rig.read(WRITEBACK, 1)).toBe(1)
    expect(asked(rig, disk, queue, OUT)).toEqual(THROUGH('write'))
  })

  test('cannot be switched between a reset and the next negotiation', () => {
    const rig = rigOf()
    rig.bringUp(rig.device.offered, QUEUE_SIZE)
    rig.write(Mmio.Status, 0)
    rig.write(WRITEBACK, 0, 1)
    expect([rig.read(WRITEBACK, 1), rig.rules]).toEqual([1, ['mmio.config-read-only']])
  })

  test('without CONFIG_WCE follows FLUSH', () => {
    for (const [bits, expected] of [
      [1n << 11n, BACK('write')],
      [(1n << 11n) | (1n << 9n), THROUGH('write')],
    ] as const) {
      const disk = new HeldDisk()
      const rig = new BlkRig({ backend: disk })
      const queue = rig.bringUp(rig.device.offered & ~bits, QUEUE_SIZE)
      expect(asked(rig, disk, queue, OUT)).toEqual(expected)
    }
  })

  test('of a disk without one, nothing is flushed that the driver did not ask for', () => {
    const disk = new HeldDisk({ volatileCache: false })
    const rig = new BlkRig({ backend: disk })
    const queue = rig.bringUp(rig.device.offered & ~(1n << 9n), QUEUE_SIZE)
    expect(asked(rig, disk, queue, OUT)).toEqual(BACK('write'))
  })

  test('a write that failed is not flushed, and a flush that failed fails the write', () => {
    const disk = new HeldDisk()
    const rig = new BlkRig({ backend: disk })
    const queue = rig.bringUp(rig.device.offered, QUEUE_SIZE)
    rig.write(WRITEBACK, 0, 1)
    offer(rig, queue, OUT)
    disk.end(0, 'medium-error')
    expect([statusByte(rig), disk.held.length]).toEqual([1, 0])
    queue.reap()
    offer(rig, queue, OUT)
    disk.end(0)
    disk.end(0, 'medium-error')
    expect(statusByte(rig)).toBe(1)
  })
})

describe('outcomes of the disk', () => {
  test('are status bytes, and a short read says how much of it is good', () => {
    for (const [outcome, status] of [
      ['ok', 0],
      ['out-of-range', 1],
      ['misaligned', 1],
      ['read-only', 1],
      ['unsupported', 2],
      ['no-space', 1],
      ['medium-error', 1],
      ['cancelled', 1],
      ['gone', 1],
    ] as const) {
      for (const done of [0, 100, 512]) {
        const disk = new HeldDisk()
        const rig = new BlkRig({ backend: disk })
        const queue = rig.bringUp(rig.device.offered, QUEUE_SIZE)
        rig.bytes.fill(0, AT, AT + 16)
        queue.offer([
          { at: AT, lengthBytes: 16, write: false },
          { at: AT + 16, lengthBytes: 513, write: true },
        ])
        queue.publish()
        rig.kick()
        rig.drain()
        disk.end(0, outcome, outcome === 'ok' ? 512 : done)
        const full = outcome === 'ok' || done === 512
        expect(queue.reap()?.lengthBytes).toBe(full ? 513 : done)
        expect(rig.bytes[AT + 528]).toBe(status)
      }
    }
  })

  test('of several ranges, the first that failed, once all are answered', () => {
    const disk = new HeldDisk()
    const rig = new BlkRig({ backend: disk })
    const queue = rig.bringUp(rig.device.offered, QUEUE_SIZE)
    rig.bytes.fill(0, AT, AT + 128)
    const view = new DataView(rig.bytes.buffer, AT)
    view.setUint32(0, WRITE_ZEROES, true)
    for (const i of [0, 1, 2]) {
      view.setBigUint64(16 + 16 * i, BigInt(10 * i), true)
      view.setUint32(24 + 16 * i, 1 + i, true)
      view.setUint32(28 + 16 * i, i & 1, true)
    }
    queue.offer([
      { at: AT, lengthBytes: 64, write: false },
      { at: AT + 1000, lengthBytes: 1, write: true },
    ])
    queue.publish()
    rig.kick()
    rig.drain()
    expect(
      disk.held.map(({ op, offset, lengthBytes, mayUnmap }) => [op, offset, lengthBytes, mayUnmap]),
    ).toEqual([
      ['zero', 0, 512, false],
      ['zero', 5120, 1024, true],
      ['zero', 10240, 1536, false],
    ])
    disk.end(2, 'unsupported')
    disk.end(0, 'medium-error')
    expect(queue.reap()).toBe(null)
    disk.end(0, 'ok')
    expect([queue.reap()?.lengthBytes, statusByte(rig)]).toEqual([1, 2])
  })

  test('a disk that shrinks under a request answers for itself', () => {
    const disk = new HeldDisk()
    const rig = new BlkRig({ backend: disk })
    const queue = rig.bringUp(rig.device.offered, QUEUE_SIZE)
    offer(rig, queue, OUT, 63)
    disk.change({ lengthBytes: 512 })
    expect(rig.read(Mmio.InterruptStatus)).toBe(2)
    disk.end(0, 'out-of-range')
    expect([statusByte(rig), rig.rules]).toEqual([1, []])
    queue.reap()
    offer(rig, queue, OUT, 63)
    expect([disk.held.length, rig.rules]).toEqual([0, ['block.range']])
  })
})

describe('negotiation', () => {
  test('any valid choice is accepted again after a reset, whatever was refused before', () => {
    const rig = rigOf()
    const { offered } = rig.device
    for (const features of [0n, offered | (1n << 1n), offered & ~(1n << 32n), 1n << 127n]) {
      rig.negotiate(features)
      expect(rig.status & Status.FEATURES_OK).toBe(0)
      rig.write(Mmio.Status, 0)
    }
    rig.negotiate(offered)
    expect(rig.status & Status.FEATURES_OK).not.toBe(0)
    expect(rig.rules).toEqual([
      'features.version-1',
      'features.not-offered',
      'features.version-1',
      'features.not-offered',
    ])
  })

  test('every version offers what it needs of itself', () => {
    for (const version of VIRTIO_VERSIONS) {
      const rig = rigOf({}, version)
      rig.negotiate(rig.device.offered)
      expect([rig.status, rig.rules]).toEqual([11, []])
      expect(rig.read(Mmio.QueueSizeMax)).toBe(BLK_LIMITS.queueSize)
    }
  })
})
