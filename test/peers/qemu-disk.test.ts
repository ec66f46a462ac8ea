import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { seededRandom } from '../../bench/random.ts'
import type { BlkDriver, BlkDriverState } from '../../guest/virtio/blk.ts'
import { MmioDriverTransport } from '../../guest/virtio/mmio.ts'
import { featureNames, hasFeature } from '../../protocol/version.ts'
import {
  BLK_ID_BYTES,
  BlkFeature,
  BlkSegment,
  BlkSegmentFlag,
  BlkStatus,
  BlkType,
  SECTOR_BYTES,
} from '../../protocol/virtio/blk.ts'
import { CommonFeature, featuresOfVersion, VIRTIO_VERSIONS } from '../../protocol/virtio/features.ts'
import { Window } from '../../protocol/window.ts'
import { peerOrSkip } from './peer.ts'
import { Asked, QemuDisk, type QemuDiskSetup } from './qemu-disk.ts'
import { missingQemu } from './qtest.ts'

/** Odd in sectors, so that the last piece of a whole read is short. */
const IMAGE_BYTES = 8 * 2 ** 20 + 3 * SECTOR_BYTES
const PIECE_BYTES = 0x1_0000
const DEPTH = 32
const SERIAL = 'PARAVANE-OVER-QTEST'
const ALL = featuresOfVersion('1.3', BlkFeature)

const missing = missingQemu()
let folder = ''
let image = ''
let content = new Uint8Array(0)

beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'paravane-qemu-disk-'))
  image = path.join(folder, 'image')
  const random = seededRandom(7)
  content = new Uint8Array(Uint32Array.from({ length: IMAGE_BYTES / 4 }, () => random.next32()).buffer)
  writeFileSync(image, content)
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Runs `use` on a started driver, holds that nobody broke a rule, and ends QEMU whatever happens. */
async function onQemu(
  setup: Partial<QemuDiskSetup>,
  use: (qemu: QemuDisk, driver: BlkDriver, state: BlkDriverState) => void,
  features = ALL,
): Promise<void> {
  await using qemu = new QemuDisk({ image, ...setup })
  const driver = qemu.driver(features)
  use(qemu, driver, qemu.started(driver))
  expect(qemu.violations).toEqual([])
}

function negotiated(state: BlkDriverState): string[] {
  if (state.kind !== 'ready') return expect.fail(`the driver is ${JSON.stringify(state)}`)
  return featureNames(state.features, BlkFeature, CommonFeature)
}

function read(sector: number, at: number, lengthBytes: number): Asked {
  const asked = new Asked(BlkType.IN, sector)
  asked.data.writable(at as never, lengthBytes)
  return asked
}

function ask(qemu: QemuDisk, driver: BlkDriver, asked: Asked): Asked {
  expect(driver.submit(asked)).toBe(true)
  driver.kick()
  qemu.settle(driver)
  expect(asked.endings).toBe(1)
  return asked
}

/** A request of `type` whose readable data is `bytes`. */
function give(qemu: QemuDisk, driver: BlkDriver, type: number, sector: number, bytes: Uint8Array): Asked {
  const buffer = qemu.buffer(Math.max(1, bytes.length))
  buffer.window.copyIn(0, bytes)
  const asked = new Asked(type, sector)
  if (bytes.length > 0) asked.data.readable(buffer.at, bytes.length)
  return ask(qemu, driver, asked)
}

function segment(sector: number, sectors: number, flags = 0): Uint8Array {
  const bytes = new Uint8Array(BlkSegment.$size)
  const window = new Window(bytes)
  window.putLe64(BlkSegment.sector, sector)
  window.putLe32(BlkSegment.num_sectors, sectors)
  window.putLe32(BlkSegment.flags, flags)
  return bytes
}

/** The whole disk as the driver reads it, `DEPTH` requests at a time. */
function readWhole(qemu: QemuDisk, driver: BlkDriver): Uint8Array {
  const whole = new Uint8Array(IMAGE_BYTES)
  const buffers = Array.from({ length: DEPTH }, () => qemu.buffer(PIECE_BYTES))
  for (let at = 0; at < IMAGE_BYTES; ) {
    const batch: { readonly asked: Asked; readonly at: number; readonly index: number }[] = []
    for (const [index, buffer] of buffers.entries()) {
      const lengthBytes = Math.min(PIECE_BYTES, IMAGE_BYTES - at)
      if (lengthBytes === 0) break
      const asked = read(at / SECTOR_BYTES, buffer.at, lengthBytes)
      expect(driver.submit(asked)).toBe(true)
      batch.push({ asked, at, index })
      at += lengthBytes
    }
    driver.kick()
    qemu.settle(driver)
    for (const { asked, at: from, index } of batch) {
      expect(asked.status).toBe(BlkStatus.OK)
      const piece = whole.subarray(from, Math.min(IMAGE_BYTES, from + PIECE_BYTES))
      expect(asked.writtenBytes).toBe(piece.length + 1)
      buffers[index]?.window.copyOut(0, piece)
    }
  }
  return whole
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

describe("our driver on QEMU's block device", () => {
  it('is tried, or why not is said', (test) => {
    peerOrSkip(test, 'QEMU over qtest', missing)
  })

  describe.runIf(missing === null)('over qtest', () => {
    const first = ['SEG_MAX', 'GEOMETRY', 'BLK_SIZE', 'FLUSH', 'TOPOLOGY', 'CONFIG_WCE']
    const ring = ['INDIRECT_DESC', 'EVENT_IDX', 'VERSION_1']
    const ranges = ['DISCARD', 'WRITE_ZEROES']
    const expected: { readonly [version: string]: readonly string[] } = {
      '1.0': [...first, ...ring],
      '1.1': [...first, ...ranges, ...ring],
      '1.2': [...first, ...ranges, ...ring, 'RING_RESET'],
      '1.3': [...first, ...ranges, ...ring, 'RING_RESET'],
    }

    it.each(VIRTIO_VERSIONS)('negotiates as a driver of VIRTIO %s, and reads', (version) =>
      onQemu(
        {},
        (qemu, driver, state) => {
          expect(negotiated(state)).toEqual(expected[version])
          expect(qemu.negotiated()).toEqual([...(expected[version] ?? [])].sort())
          const buffer = qemu.buffer(4096)
          expect(ask(qemu, driver, read(8, buffer.at, 4096)).status).toBe(BlkStatus.OK)
          const bytes = new Uint8Array(4096)
          buffer.window.copyOut(0, bytes)
          expect(sha256(bytes)).toBe(sha256(content.subarray(4096, 8192)))
        },
        featuresOfVersion(version, BlkFeature),
      ),
    )

    it('accepts no feature it cannot drive: the packed ring, when QEMU offers it', () =>
      onQemu({ deviceOptions: ',packed=on' }, (qemu, driver, state) => {
        const transport = new MmioDriverTransport(qemu, qemu.registersAt)
        expect(hasFeature(transport.offered(), CommonFeature.RING_PACKED.bit)).toBe(true)
        expect(negotiated(state)).not.toContain('RING_PACKED')
        const buffer = qemu.buffer(512)
        expect(ask(qemu, driver, read(0, buffer.at, 512)).status).toBe(BlkStatus.OK)
      }))

    it.each([
      ['', ''],
      [' without event index', ',event_idx=off'],
      [' without indirect descriptors', ',indirect_desc=off'],
      [' with neither, on a queue of eight', ',event_idx=off,indirect_desc=off,queue-size=8'],
    ])('reads the whole disk as it is%s', (_how, deviceOptions) =>
      onQemu({ deviceOptions }, (qemu, driver) => {
        if (deviceOptions.includes('queue-size=8')) {
          const buffer = qemu.buffer(PIECE_BYTES)
          const bytes = new Uint8Array(PIECE_BYTES)
          const hash = createHash('sha256')
          for (let at = 0; at < IMAGE_BYTES; at += PIECE_BYTES) {
            const piece = bytes.subarray(0, Math.min(PIECE_BYTES, IMAGE_BYTES - at))
            ask(qemu, driver, read(at / SECTOR_BYTES, buffer.at, piece.length))
            buffer.window.copyOut(0, piece)
            hash.update(piece)
          }
          expect(hash.digest('hex')).toBe(sha256(content))
        } else {
          expect(sha256(readWhole(qemu, driver))).toBe(sha256(content))
        }
      }),
    )

    it('writes what is in the image file after a flush, and nothing else', () =>
      onQemu({}, (qemu, driver) => {
        const model = content.slice()
        const random = seededRandom(11)
        for (let i = 0; i < 40; i++) {
          const sectors = 1 + random.below(16)
          const sector = random.below(IMAGE_BYTES / SECTOR_BYTES - sectors)
          const bytes = new Uint8Array(sectors * SECTOR_BYTES).fill(i + 1)
          model.set(bytes, sector * SECTOR_BYTES)
          expect(give(qemu, driver, BlkType.OUT, sector, bytes)).toMatchObject({ status: 0, writtenBytes: 1 })
        }
        expect(give(qemu, driver, BlkType.FLUSH, 0, new Uint8Array(0)).status).toBe(BlkStatus.OK)
        expect(sha256(readFileSync(qemu.image))).toBe(sha256(model))
      }))

    it('writes zeroes, with and without leave to unmap, over the segment and not beyond', () =>
      onQemu({ driveOptions: ',discard=unmap' }, (qemu, driver) => {
        const model = content.slice()
        for (const [sector, sectors, flags] of [
          [3, 5, 0],
          [64, 128, BlkSegmentFlag.UNMAP],
        ] as const) {
          model.fill(0, sector * SECTOR_BYTES, (sector + sectors) * SECTOR_BYTES)
          const asked = give(qemu, driver, BlkType.WRITE_ZEROES, 0, segment(sector, sectors, flags))
          expect(asked.status).toBe(BlkStatus.OK)
        }
        expect(sha256(readWhole(qemu, driver))).toBe(sha256(model))
      }))

    it('discards a segment and leaves the rest', () =>
      onQemu({ driveOptions: ',discard=unmap' }, (qemu, driver) => {
        expect(give(qemu, driver, BlkType.DISCARD, 0, segment(256, 1024)).status).toBe(BlkStatus.OK)
        const whole = readWhole(qemu, driver)
        const [from, to] = [256 * SECTOR_BYTES, 1280 * SECTOR_BYTES]
        expect(sha256(whole.subarray(0, from))).toBe(sha256(content.subarray(0, from)))
        expect(sha256(whole.subarray(to))).toBe(sha256(content.subarray(to)))
      }))

    it('is refused an UNMAP flag on a discard', () =>
      onQemu({ driveOptions: ',discard=unmap' }, (qemu, driver) => {
        const asked = give(qemu, driver, BlkType.DISCARD, 0, segment(0, 8, BlkSegmentFlag.UNMAP))
        expect(asked.status).toBe(BlkStatus.UNSUPP)
      }))

    it('gets the serial, padded with NUL', () =>
      onQemu({ deviceOptions: `,serial=${SERIAL}` }, (qemu, driver) => {
        const buffer = qemu.buffer(BLK_ID_BYTES)
        const asked = new Asked(BlkType.GET_ID, 0)
        asked.data.writable(buffer.at, BLK_ID_BYTES)
        ask(qemu, driver, asked)
        const bytes = new Uint8Array(BLK_ID_BYTES)
        buffer.window.copyOut(0, bytes)
        expect(asked).toMatchObject({ status: BlkStatus.OK, writtenBytes: BLK_ID_BYTES + 1 })
        expect(new TextDecoder().decode(bytes)).toBe(SERIAL.padEnd(BLK_ID_BYTES, '\0'))
      }))

    it('is told of a request past the end, of an unknown one, and of a write to a read-only disk', async () => {
      await onQemu({}, (qemu, driver) => {
        const buffer = qemu.buffer(1024)
        const last = IMAGE_BYTES / SECTOR_BYTES - 1
        expect(ask(qemu, driver, read(last, buffer.at, 1024)).status).toBe(BlkStatus.IOERR)
        expect(give(qemu, driver, 99, 0, new Uint8Array(0)).status).toBe(BlkStatus.UNSUPP)
      })
      await onQemu({ driveOptions: ',readonly=on' }, (qemu, driver, state) => {
        expect(negotiated(state)).toContain('RO')
        expect(give(qemu, driver, BlkType.OUT, 0, new Uint8Array(512)).status).toBe(BlkStatus.IOERR)
        expect(sha256(readFileSync(qemu.image))).toBe(sha256(content))
      })
    })
  })
})

describe.runIf(missing === null)("a reset of QEMU's device with requests in flight", () => {
  it.each([
    ['as fast as it goes', ''],
    ['while every one of them is held back', ',throttling.iops-total=1'],
  ])('ends them all once, touches nothing afterwards, and leaves a device that works: %s', (_how, held) =>
    onQemu({ driveOptions: held }, (qemu, driver) => {
      const area = qemu.buffer(DEPTH * PIECE_BYTES)
      area.window.fill(0xa5, 0, area.window.lengthBytes)
      const asked = Array.from({ length: DEPTH }, (_, i) =>
        read(i * (PIECE_BYTES / SECTOR_BYTES), area.at + i * PIECE_BYTES, PIECE_BYTES),
      )
      for (const one of asked) expect(driver.submit(one)).toBe(true)
      driver.kick()
      expect(driver.outstanding).toBe(DEPTH)
      expect(qemu.stopped(driver)).toBe(true)
      expect(asked.map(({ end, endings }) => ({ end, endings }))).toEqual(
        asked.map(() => ({ end: { kind: 'gone' }, endings: 1 })),
      )
      const memory = path.join(qemu.qtest.folder, 'memory')
      // The driver's own memory goes free now: ours is filled anew, and has to stay so.
      area.window.fill(0x5a, 0, area.window.lengthBytes)
      const before = sha256(readFileSync(memory))
      for (let i = 0; i < 500; i++) expect(qemu.read(qemu.registersAt, 4)).toBe(0x7472_6976)
      expect(sha256(readFileSync(memory))).toBe(before)
      expect(qemu.started(driver).kind).toBe('ready')
      const buffer = qemu.buffer(4096)
      expect(ask(qemu, driver, read(0, buffer.at, 4096)).status).toBe(BlkStatus.OK)
      const bytes = new Uint8Array(4096)
      buffer.window.copyOut(0, bytes)
      expect(sha256(bytes)).toBe(sha256(content.subarray(0, 4096)))
    }),
  )
})
