import { describe, expect, test } from 'vitest'
import type { DiskBackend, DiskFacts, DiskIo, DiskOutcome } from '../../host/disk/backend.ts'
import { DiskIo as Io } from '../../host/disk/backend.ts'
import { MemoryDisk } from '../../host/disk/memory.ts'
import { openDisk } from '../../host/disk/registry.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import { NO_TRACE } from '../../protocol/trace.ts'
import { featureMask } from '../../protocol/version.ts'
import { BlkFeature } from '../../protocol/virtio/blk.ts'
import { TestIo } from '../conformance/disk-backend.ts'
import { IN, OUT } from './blk-model.ts'
import { BlkRig, placeAt, placeEnd } from './blk-rig.ts'
import { escapePath, imageMaker, platformAt, scratch } from './disk-subjects.ts'

const BYTES = 64 * 512
const AT = 0x8000

/** A memory disk that also remembers the objects it was given, and may hold answers back. */
class RememberingDisk implements DiskBackend {
  readonly given: DiskIo[] = []
  readonly held: DiskIo[] = []
  readonly #disk = new MemoryDisk(BYTES, {
    blockBytes: 512,
    physicalBlockBytes: 512,
    readOnly: false,
    serial: '',
  })
  readonly keepsNoRequest: boolean
  readonly #synchronous: boolean

  constructor(synchronous: boolean, keepsNoRequest = synchronous) {
    this.#synchronous = synchronous
    this.keepsNoRequest = keepsNoRequest
    for (let sector = 0; sector < 64; sector++) {
      const bytes = new Uint8Array(512).fill(sector)
      this.#disk.submit(new TestIo('write', sector * 512, 512, [bytes]))
    }
  }

  get facts(): DiskFacts {
    return { ...this.#disk.facts, synchronous: this.#synchronous, privateLoans: false }
  }

  submit(io: DiskIo): void {
    this.given.push(io)
    if (this.#synchronous || this.given.length % 2 === 0) this.#disk.submit(io)
    else this.held.push(io)
  }

  answerHeld(): void {
    for (const io of this.held.splice(0)) this.#disk.submit(io)
  }

  watch(): () => void {
    return () => {}
  }

  close(finished: () => void): void {
    finished()
  }
}

/** Reads these sectors together, and returns what came back by sector. */
function read(disk: RememberingDisk, sectors: readonly number[]): (readonly number[])[] {
  const rig = new BlkRig({ backend: disk })
  const queue = rig.bringUp()
  expect(placeEnd(placeAt(0, 64))).toBeLessThan(AT)
  for (const [i, sector] of sectors.entries()) {
    const at = AT + i * 1024
    const view = new DataView(rig.bytes.buffer, at, 16)
    view.setUint32(0, IN, true)
    view.setBigUint64(8, BigInt(sector), true)
    rig.bytes[at + 560] = 0xff
    queue.offer([
      { at, lengthBytes: 16, write: false },
      { at: at + 16, lengthBytes: 256, write: true },
      // A gap: the request is lent two views.
      { at: at + 304, lengthBytes: 257, write: true },
    ])
  }
  queue.publish()
  rig.kick()
  rig.drain()
  disk.answerHeld()
  rig.drain()
  expect(rig.rules).toEqual([])
  const lengths = sectors.map(() => queue.reap()?.lengthBytes)
  expect(lengths).toEqual(sectors.map(() => 513))
  return sectors.map((_, i) => {
    const at = AT + i * 1024
    return [...new Set([...rig.bytes.subarray(at + 16, at + 272), ...rig.bytes.subarray(at + 304, at + 561)])]
  })
}

describe('requests of the block device at the waist', () => {
  const sectors = [3, 60, 1, 17, 5]
  const expected = sectors.map((sector) => [sector, 0])

  test('are one object after another for a backend that keeps none, each read to its own place', () => {
    const disk = new RememberingDisk(true)
    expect(read(disk, sectors)).toEqual(expected)
    expect(disk.given).toHaveLength(sectors.length)
    expect(new Set(disk.given).size).toBe(1)
  })

  test('are an object each for a backend that may answer later, even where it answers at once', () => {
    const disk = new RememberingDisk(false)
    expect(read(disk, sectors)).toEqual(expected)
    expect(new Set(disk.given).size).toBe(sectors.length)
  })

  test('are an object each for a backend that promises nothing, so that its late answer meets no other', () => {
    class LateDisk extends RememberingDisk {
      readonly thrown: unknown[] = []

      constructor() {
        super(true, false)
      }

      override submit(io: DiskIo): void {
        // Between taking a request and reading it: what is answered now would be answered with old memory.
        try {
          this.given.at(-1)?.answer('medium-error')
        } catch (error) {
          this.thrown.push(error)
        }
        super.submit(io)
      }
    }
    const disk = new LateDisk()
    expect(read(disk, sectors)).toEqual(expected)
    expect(new Set(disk.given).size).toBe(sectors.length)
    expect(disk.thrown.map(String)).toEqual(
      sectors.slice(1).map(() => expect.stringContaining('answered twice')),
    )
  })

  test('are renewed for the memory and the file, also where a trace may be, and for no wrapper', async () => {
    const { directory, remove } = scratch()
    const image = escapePath(imageMaker(directory, 'renewed', 2 ** 20)())
    const platform = platformAt(new VirtualClock())
    for (const trace of [NO_TRACE, { on: false, emit() {} }]) {
      const renewed = async (spec: string) => {
        const disk = await openDisk(spec, { ...platform, trace })
        if (!disk.ok) throw new Error(disk.error)
        const answer = disk.value.keepsNoRequest === true
        await new Promise<void>((closed) => disk.value.close(closed))
        return answer
      }
      expect(await renewed('memory:size=1M')).toBe(true)
      expect(await renewed(`file:${image}`)).toBe(true)
      expect(await renewed(`file-async:${image}`)).toBe(false)
      expect(await renewed('memory:size=1M | overlay')).toBe(false)
      expect(await renewed('memory:size=1M | delay:ms=1')).toBe(false)
    }
    remove()
  })

  test('flush behind a write where the driver cannot, and behind no read before or after it', () => {
    const disk = new RememberingDisk(true)
    const rig = new BlkRig({ backend: disk })
    const queue = rig.bringUp(rig.device.offered & ~featureMask(BlkFeature.FLUSH.bit))
    const asked: string[] = []
    for (const type of [IN, OUT, IN, OUT, OUT, IN]) {
      new DataView(rig.bytes.buffer, AT, 16).setUint32(0, type, true)
      queue.offer([
        { at: AT, lengthBytes: 16, write: false },
        { at: AT + 512, lengthBytes: 512, write: type === IN },
        { at: AT + 1024, lengthBytes: 1, write: true },
      ])
      queue.publish()
      rig.kick()
      rig.drain()
      asked.push(...disk.given.splice(0).map(({ op }) => op))
    }
    expect(asked).toEqual(['read', 'write', 'flush', 'read', 'write', 'flush', 'write', 'flush', 'read'])
  })

  test('cannot be answered again while nothing else is asked', () => {
    const disk = new RememberingDisk(true)
    read(disk, [4])
    expect(() => disk.given[0]?.answer('ok')).toThrow('answered twice')
  })

  test('are not made into others while they wait', () => {
    class Renewable extends Io {
      again(): void {
        this.renew('read', 512, 512, [], 1)
      }
      protected finished(_outcome: DiskOutcome): void {}
    }
    const io = new Renewable('read', 0, 512, [])
    expect(() => io.again()).toThrow('still out')
    io.answer('ok')
    io.again()
    expect([io.offset, io.answered]).toEqual([512, false])
  })
})
