import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { SrbFunction, SrbStatus } from '../../guest/port/srb.ts'
import { VIRTIO_VERSIONS } from '../../protocol/virtio/features.ts'
import { BlkRig, type BlkRigSetup } from '../host/blk-rig.ts'
import { opened } from '../host/disk-subjects.ts'
import { HeldDisk } from '../host/held-disk.ts'
import type { Asked } from './thin-port.ts'
import { ThinPort } from './thin-port.ts'

const SECTORS = 256
const DATA = 0x20_0000
const MEMORY_BYTES = 0x40_0000

function read10(lba: number, blocks: number): number[] {
  return [0x28, 0, 0, 0, lba >>> 8, lba & 0xff, 0, blocks >>> 8, blocks & 0xff, 0]
}
function write10(lba: number, blocks: number, fua = false): number[] {
  return [0x2a, fua ? 8 : 0, 0, 0, lba >>> 8, lba & 0xff, 0, blocks >>> 8, blocks & 0xff, 0]
}
const FLUSH = [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]
const INQUIRY = [0x12, 0, 0, 0, 36, 0]

function rigged(setup: BlkRigSetup, version?: (typeof VIRTIO_VERSIONS)[number]) {
  const rig = new BlkRig({ memoryBytes: MEMORY_BYTES, ...setup })
  const port = new ThinPort(rig, version)
  expect(port.bringUp()).toBe('found')
  rig.drain()
  return { rig, port }
}

const memoryDisk = () => opened(`memory:size=${SECTORS * 512}`)

function fill(rig: BlkRig, at: number, lengthBytes: number, value: number): void {
  rig.bytes.fill(value, at, at + lengthBytes)
}

function statusOf(asked: Asked): number {
  expect(asked.completions).toBe(1)
  return asked.answer?.srbStatus ?? -1
}

/** Cuts a range into pieces at arbitrary places that keep whole words. */
const cutsOf = (most: number) => fc.array(fc.integer({ min: 1, max: 8 }), { minLength: 1, maxLength: most })

function scattered(shape: readonly number[], lengthBytes: number, base: number) {
  const pieces: { at: number; lengthBytes: number }[] = []
  let left = lengthBytes
  let at = base
  for (const [index, units] of shape.entries()) {
    const here = index === shape.length - 1 ? left : Math.min(left, units * 128)
    if (here > 0) pieces.push({ at, lengthBytes: here })
    left -= here
    at += here + 4096
  }
  return pieces
}

describe('the miniport', () => {
  it.each(VIRTIO_VERSIONS.flatMap((driver) => VIRTIO_VERSIONS.map((device) => ({ driver, device }))))(
    'of VIRTIO $driver finds a device of $device and tells of it',
    async ({ driver, device }) => {
      const { rig, port } = rigged({ backend: await memoryDisk(), version: device }, driver)
      expect(port.configuration.numberOfPhysicalBreaks).toBe(254)
      // At the unit's first INQUIRY, and not before.
      expect(port.depth).toBe(0)
      const inquiry = port.send({ cdb: INQUIRY, pieces: [{ at: DATA, lengthBytes: 36 }] })
      expect(statusOf(inquiry)).toBe(SrbStatus.SUCCESS)
      expect(port.depth).toBe(256)
      expect(String.fromCharCode(...rig.bytes.subarray(DATA + 8, DATA + 27))).toBe('ParavaneVirtIO Disk')
      const capacity = port.send({
        cdb: [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        pieces: [{ at: DATA, lengthBytes: 8 }],
      })
      expect(statusOf(capacity)).toBe(SrbStatus.SUCCESS)
      expect([...rig.bytes.subarray(DATA, DATA + 8)]).toEqual([0, 0, 0, 255, 0, 0, 2, 0])
      expect([...rig.rules, ...port.violations]).toEqual([])
    },
  )

  it('reads and writes what was asked, however memory is scattered, against an array', async () => {
    const operation = fc.record({
      lba: fc.integer({ min: 0, max: SECTORS + 4 }),
      blocks: fc.integer({ min: 1, max: 20 }),
      write: fc.boolean(),
      fua: fc.boolean(),
      shape: cutsOf(12),
      value: fc.integer({ min: 1, max: 255 }),
    })
    await fc.assert(
      fc.asyncProperty(fc.array(operation, { maxLength: 12 }), async (operations) => {
        const { rig, port } = rigged({ backend: await memoryDisk() })
        const model = new Uint8Array(SECTORS * 512)
        for (const { lba, blocks, write, fua, shape, value } of operations) {
          const bytes = blocks * 512
          const pieces = scattered(shape, bytes, DATA)
          for (const { at, lengthBytes } of pieces) fill(rig, at, lengthBytes, write ? value : 0xee)
          const cdb = write ? write10(lba, blocks, fua) : read10(lba, blocks)
          const asked = port.send({ cdb, pieces, write })
          rig.drain()
          if (lba + blocks > SECTORS) {
            expect(statusOf(asked)).toBe(SrbStatus.ERROR | 0x80)
            expect([asked.answer?.sense[2], asked.answer?.sense[12]]).toEqual([5, 0x21])
            continue
          }
          expect(statusOf(asked)).toBe(SrbStatus.SUCCESS)
          expect(asked.answer?.movedBytes).toBe(bytes)
          if (write) model.fill(value, lba * 512, lba * 512 + bytes)
          let from = lba * 512
          for (const { at, lengthBytes } of pieces) {
            expect(rig.bytes.subarray(at, at + lengthBytes)).toEqual(model.subarray(from, from + lengthBytes))
            from += lengthBytes
          }
        }
        expect([...rig.rules, ...port.violations]).toEqual([])
      }),
      { numRuns: 40 },
    )
  })

  it('makes a write with FUA durable before it is answered, and others when asked to', () => {
    const backend = new HeldDisk()
    const { rig, port } = rigged({ backend })
    backend.log.length = 0
    const pieces = [{ at: DATA, lengthBytes: 512 }]
    const fua = port.send({ cdb: write10(0, 1, true), pieces, write: true })
    rig.drain()
    backend.end()
    rig.drain()
    expect(fua.answer).toBe(null)
    expect(backend.log).toEqual(['write', 'write ok', 'flush'])
    backend.end()
    rig.drain()
    expect(statusOf(fua)).toBe(SrbStatus.SUCCESS)
    const plain = port.send({ cdb: write10(0, 1), pieces, write: true })
    rig.drain()
    backend.end()
    rig.drain()
    expect(statusOf(plain)).toBe(SrbStatus.SUCCESS)
    for (const ask of [{ cdb: FLUSH }, { cdb: [], function: SrbFunction.FLUSH }]) {
      const flush = port.send(ask)
      rig.drain()
      expect(backend.log.at(-1)).toBe('flush')
      backend.end()
      rig.drain()
      expect(statusOf(flush)).toBe(SrbStatus.SUCCESS)
    }
  })

  it('refuses a command longer than its buffer, before the device sees it', async () => {
    const { rig, port } = rigged({ backend: await memoryDisk() })
    const cases = [
      { cdb: read10(0, 9), pieces: [{ at: DATA, lengthBytes: 4096 }] },
      { cdb: read10(0, 8), pieces: [{ at: DATA, lengthBytes: 2048 }], lengthBytes: 4096 },
      { cdb: read10(0, 8), pieces: [{ at: DATA, lengthBytes: 4096 }], write: true },
      { cdb: write10(0, 8), pieces: [{ at: DATA, lengthBytes: 4096 }] },
      { cdb: read10(0, 8) },
    ]
    for (const ask of cases) expect(statusOf(port.send(ask))).toBe(SrbStatus.INVALID_REQUEST)
    rig.drain()
    expect([...rig.device.counts.keys()]).toEqual([8])
  })

  it('refuses more pieces than the device takes, before it sees them', async () => {
    const { rig, port } = rigged({ backend: await memoryDisk() })
    const most = port.configuration.numberOfPhysicalBreaks
    const ask = (count: number) => {
      const pieces = Array.from({ length: count }, (_, i) => ({ at: DATA + i * 1024, lengthBytes: 512 }))
      return { cdb: read10(0, count), pieces }
    }
    const [refused, taken] = [port.send(ask(most + 1)), port.send(ask(most))]
    rig.drain()
    expect([statusOf(refused), statusOf(taken)]).toEqual([SrbStatus.INVALID_REQUEST, SrbStatus.SUCCESS])
  })

  it('says how much it unmaps at once in its own blocks', async () => {
    const told = []
    for (const block of [512, 4096]) {
      const { rig, port } = rigged({ backend: await opened(`memory:size=1M,block=${block}`) })
      const asked = port.send({
        cdb: [0x12, 1, 0xb0, 0, 64, 0],
        pieces: [{ at: DATA, lengthBytes: 64 }],
      })
      rig.drain()
      expect(statusOf(asked)).toBe(SrbStatus.SUCCESS)
      told.push(new DataView(rig.bytes.buffer, rig.bytes.byteOffset + DATA).getUint32(20) * block)
    }
    // The device's limit is in sectors of 512, whatever its blocks.
    expect(told[0]).toBeGreaterThan(0)
    expect(told[1]).toBe((told[0] ?? 0) - ((told[0] ?? 0) % 4096))
  })

  it('has one bus, one target, one unit', async () => {
    const { port } = rigged({ backend: await memoryDisk() })
    expect(statusOf(port.send({ cdb: INQUIRY, path: 1 }))).toBe(SrbStatus.INVALID_PATH_ID)
    expect(statusOf(port.send({ cdb: INQUIRY, target: 1 }))).toBe(SrbStatus.INVALID_TARGET_ID)
    expect(statusOf(port.send({ cdb: INQUIRY, lun: 1 }))).toBe(SrbStatus.INVALID_LUN)
    expect(statusOf(port.send({ cdb: [], function: SrbFunction.WMI }))).toBe(SrbStatus.INVALID_REQUEST)
  })

  it('tells of less data than there was room for as an overrun with the true length', async () => {
    const { port } = rigged({ backend: await memoryDisk() })
    const asked = port.send({
      cdb: [0x12, 0, 0, 0, 255, 0],
      pieces: [{ at: DATA, lengthBytes: 255 }],
    })
    expect(statusOf(asked)).toBe(SrbStatus.DATA_OVERRUN)
    expect(asked.answer?.movedBytes).toBe(36)
  })

  it('unmaps the ranges of a list, and they read as zero', async () => {
    const { rig, port } = rigged({ backend: await memoryDisk() })
    fill(rig, DATA, 4096, 0xaa)
    port.send({ cdb: write10(8, 8), pieces: [{ at: DATA, lengthBytes: 4096 }], write: true })
    rig.drain()
    const list = [0, 22, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0, 0]
    rig.bytes.set(list, DATA)
    const unmap = port.send({
      cdb: [0x42, 0, 0, 0, 0, 0, 0, 0, list.length, 0],
      pieces: [{ at: DATA, lengthBytes: list.length }],
      write: true,
    })
    rig.drain()
    expect(statusOf(unmap)).toBe(SrbStatus.SUCCESS)
    port.send({ cdb: read10(8, 8), pieces: [{ at: DATA, lengthBytes: 4096 }] })
    rig.drain()
    expect(rig.bytes.subarray(DATA, DATA + 4096).every((byte) => byte === 0)).toBe(true)
  })

  it('says that the disk has another size, and goes by it', () => {
    const backend = new HeldDisk()
    const { rig, port } = rigged({ backend })
    backend.change({ lengthBytes: 32 * 512 })
    rig.drain()
    expect(port.capacityChanges).toBe(1)
    const beyond = port.send({ cdb: read10(32, 1), pieces: [{ at: DATA, lengthBytes: 512 }] })
    expect(statusOf(beyond)).toBe(SrbStatus.ERROR | 0x80)
  })
})

describe('a reset', () => {
  it('ends what is out once the device has let go of it, and the unit works again', () => {
    const backend = new HeldDisk()
    backend.obedient = false
    const { rig, port } = rigged({ backend })
    const pieces = [{ at: DATA, lengthBytes: 512 }]
    const out = [0, 1, 2].map((lba) => port.send({ cdb: read10(lba, 1), pieces }))
    rig.drain()
    const reset = port.send({ cdb: [], function: SrbFunction.RESET_LOGICAL_UNIT })
    expect([...out, reset].map((one) => one.answer)).toEqual([null, null, null, null])
    const meanwhile = port.send({ cdb: read10(3, 1), pieces })
    expect(statusOf(meanwhile)).toBe(SrbStatus.BUSY)
    for (let left = 3; left > 0; left--) backend.end()
    rig.drain()
    expect(out.map(statusOf)).toEqual([SrbStatus.BUS_RESET, SrbStatus.BUS_RESET, SrbStatus.BUS_RESET])
    expect(statusOf(reset)).toBe(SrbStatus.SUCCESS)
    expect(out.some((one) => one.leftOnLoan)).toBe(false)
    const after = port.send({ cdb: read10(3, 1), pieces })
    rig.drain()
    backend.end()
    rig.drain()
    expect(statusOf(after)).toBe(SrbStatus.SUCCESS)
  })

  it('that never ends leaves the memory on loan, ends every request once, and serves no more', () => {
    const backend = new HeldDisk()
    backend.obedient = false
    const { rig, port } = rigged({ backend })
    const pieces = [{ at: DATA, lengthBytes: 512 }]
    const out = port.send({ cdb: read10(0, 1), pieces })
    rig.drain()
    const reset = port.send({ cdb: [], function: SrbFunction.RESET_DEVICE })
    rig.drain()
    expect(statusOf(out)).toBe(SrbStatus.NO_HBA)
    expect(out.leftOnLoan).toBe(true)
    expect(statusOf(reset)).toBe(SrbStatus.NO_HBA)
    expect(statusOf(port.send({ cdb: read10(0, 1), pieces }))).toBe(SrbStatus.NO_HBA)
    expect(statusOf(port.send({ cdb: [], function: SrbFunction.RESET_DEVICE }))).toBe(SrbStatus.NO_HBA)
    expect(port.violations.some(({ rule }) => rule === 'device.reset-answer')).toBe(true)
    backend.end()
    rig.drain()
    expect(out.completions).toBe(1)
  })

  it('comes by itself when the device says that it needs one', () => {
    const backend = new HeldDisk()
    const { rig, port } = rigged({ backend })
    const pieces = [{ at: DATA, lengthBytes: 512 }]
    const out = port.send({ cdb: read10(0, 1), pieces })
    rig.drain()
    for (let times = 3; times > 0; times--) {
      rig.transport.needsReset()
      rig.drain()
    }
    expect(statusOf(out)).toBe(SrbStatus.BUS_RESET)
    const after = port.send({ cdb: read10(0, 1), pieces })
    rig.drain()
    backend.end()
    rig.drain()
    expect(statusOf(after)).toBe(SrbStatus.SUCCESS)
  })
})

describe('an outcome', () => {
  it('of fewer bytes than were asked for shows those alone, in whole blocks', () => {
    const backend = new HeldDisk()
    const { rig, port } = rigged({ backend })
    const asked = port.send({ cdb: read10(0, 4), pieces: [{ at: DATA, lengthBytes: 2048 }] })
    rig.drain()
    backend.end(0, 'ok', 1100)
    rig.drain()
    expect(statusOf(asked)).toBe(SrbStatus.DATA_OVERRUN)
    expect(asked.answer?.movedBytes).toBe(1024)
  })

  it.each([
    ['medium-error', 3, 0x11],
    ['unsupported', 5, 0x20],
    ['no-space', 3, 0x11],
  ] as const)('%s of a read is sense key %i', (outcome, key, asc) => {
    const backend = new HeldDisk()
    const { rig, port } = rigged({ backend })
    const asked = port.send({ cdb: read10(0, 1), pieces: [{ at: DATA, lengthBytes: 512 }] })
    rig.drain()
    backend.end(0, outcome)
    rig.drain()
    expect(statusOf(asked)).toBe(SrbStatus.ERROR | 0x80)
    expect([asked.answer?.scsiStatus, asked.answer?.sense[2], asked.answer?.sense[12]]).toEqual([2, key, asc])
    expect(asked.answer?.movedBytes).toBe(0)
  })
})
