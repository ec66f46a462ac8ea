import { describe, expect, it } from 'vitest'
import { MemoryDisk } from '../../host/disk/memory.ts'
import { GuestMemory, gpa, PAGE_BYTES } from '../../protocol/memory.ts'
import { featureNames, featureWord, hasFeature, withFeatureWord } from '../../protocol/version.ts'
import { BlkConfig, BlkFeature, BlkRequest, BlkType, SECTOR_BYTES } from '../../protocol/virtio/blk.ts'
import { CommonFeature } from '../../protocol/virtio/features.ts'
import { MMIO_CONFIG, Mmio } from '../../protocol/virtio/mmio.ts'
import { availRingBytes, descTableBytes, usedRingBytes, VirtqUsed } from '../../protocol/virtio/ring.ts'
import { Status } from '../../protocol/virtio/status.ts'
import type { Window } from '../../protocol/window.ts'
import { BlkRig } from '../host/blk-rig.ts'
import {
  type Access,
  type Notification,
  type QueueStart,
  recordedTranscript,
  type TranscriptEvent,
} from './linux-driver.ts'

/** What the specification leaves to the device. Every other register has to read as it did on QEMU. */
const OPEN: ReadonlyMap<number, string> = new Map([
  [Mmio.VendorID, 'whoever made the device'],
  [Mmio.DeviceFeatures, 'what it can; VERSION_1 is held apart'],
  [Mmio.QueueSizeMax, 'at least the size the driver takes, held apart'],
  [Mmio.ConfigGeneration, 'any start value; no change without a change, held apart'],
  [MMIO_CONFIG + BlkConfig.seg_max, 'how much it takes at once'],
  [MMIO_CONFIG + BlkConfig.physical_block_exp, 'a hint'],
  [MMIO_CONFIG + BlkConfig.alignment_offset, 'a hint'],
  [MMIO_CONFIG + BlkConfig.min_io_size, 'a hint'],
  [MMIO_CONFIG + BlkConfig.opt_io_size, 'a hint'],
  [MMIO_CONFIG + BlkConfig.max_discard_sectors, 'how much it takes at once'],
  [MMIO_CONFIG + BlkConfig.max_discard_seg, 'how much it takes at once'],
  [MMIO_CONFIG + BlkConfig.discard_sector_alignment, 'a hint'],
  [MMIO_CONFIG + BlkConfig.max_write_zeroes_sectors, 'how much it takes at once'],
])

/** Accepted from QEMU and not offered here: Linux reads no field that depends on it but for its ioctl. */
const NOT_OFFERED = ['GEOMETRY']
const POISON = 0xa5
const transcript = recordedTranscript()

type Place = readonly [at: number, lengthBytes: number]

function areas({ size, descriptors, driver, device }: QueueStart): Place[] {
  return [
    [descriptors, descTableBytes(size)],
    [driver, availRingBytes(size)],
    [device, usedRingBytes(size)],
  ]
}

/** The pages that the transcript is about and no others, so that a device that strays is seen. */
function pagesOf(events: readonly TranscriptEvent[]): GuestMemory {
  const pages = new Set<number>()
  const add = ([at, lengthBytes]: Place) => {
    for (let page = Math.floor(at / PAGE_BYTES); page * PAGE_BYTES < at + lengthBytes; page++) pages.add(page)
  }
  for (const event of events) {
    if (event.kind === 'queue') areas(event).forEach(add)
    if (event.kind !== 'notify') continue
    for (const [at, bytes] of event.memory) add([Number.parseInt(at, 16), bytes.length / 2])
    event.writable.forEach(add)
  }
  const runs: { base: number; count: number }[] = []
  for (const page of [...pages].sort((a, b) => a - b)) {
    const last = runs.at(-1)
    if (last !== undefined && last.base + last.count === page) last.count++
    else runs.push({ base: page, count: 1 })
  }
  return new GuestMemory(
    runs.map(({ base, count }) => ({
      base: gpa(base * PAGE_BYTES),
      bytes: new Uint8Array(count * PAGE_BYTES),
    })),
  )
}

/** Linux' side of the transcript on our device, and what is held of our side. */
class Replay {
  readonly rig: BlkRig
  /** The disk as Linux wrote it. */
  readonly model: Uint8Array
  /** Register reads that differ from QEMU's where they may not. */
  readonly differences: string[]
  readonly opened: { readonly access: Access; readonly seen: number }[]
  readonly types: number[]
  droppedFeatures: bigint
  interruptsRead: number
  /** Reads that found what Linux had written. */
  readBack: number
  #features: bigint
  #selector: number
  #queue: QueueStart | null
  #used: number

  constructor() {
    this.rig = new BlkRig({
      backend: new MemoryDisk(transcript.diskBytes, {
        blockBytes: SECTOR_BYTES,
        physicalBlockBytes: SECTOR_BYTES,
        readOnly: false,
        serial: 'REPLAY',
      }),
      memory: pagesOf(transcript.events),
      limits: { queueSize: 1024 },
    })
    this.model = new Uint8Array(transcript.diskBytes)
    this.differences = []
    this.opened = []
    this.types = []
    this.droppedFeatures = 0n
    this.interruptsRead = 0
    this.readBack = 0
    this.#features = 0n
    this.#selector = 0
    this.#queue = null
    this.#used = 0
  }

  run(): this {
    transcript.events.forEach((event, index) => {
      if (event.kind === 'queue') this.#start(event)
      else if (event.kind === 'notify') this.#notify(event)
      else if (event.kind === 'read') this.#read(event, index)
      else this.#write(event)
    })
    return this
  }

  #read(access: Access, index: number): void {
    const { offset, width, value } = access
    const seen = this.rig.read(offset, width)
    if (offset === Mmio.InterruptStatus) this.interruptsRead++
    if (OPEN.has(offset)) this.opened.push({ access, seen })
    else if (seen !== value)
      this.differences.push(`event ${index}: 0x${offset.toString(16)} reads ${seen}, not ${value}`)
  }

  /** A driver accepts what is offered: what QEMU offered and we do not, Linux would not have accepted. */
  #write({ offset, width, value }: Access): void {
    if (offset === Mmio.DriverFeaturesSel) this.#selector = value
    if (offset !== Mmio.DriverFeatures) {
      this.rig.write(offset, value, width)
      if (offset === Mmio.Status && value === 0) this.rig.drain()
      return
    }
    const accepted = (value & featureWord(this.rig.device.offered, this.#selector)) >>> 0
    this.#features = withFeatureWord(this.#features, this.#selector, (value ^ accepted) >>> 0)
    this.droppedFeatures |= this.#features
    this.rig.write(offset, accepted, width)
  }

  #start(queue: QueueStart): void {
    this.#queue = queue
    this.#used = 0
    for (const [at, lengthBytes] of areas(queue)) this.#window(at, lengthBytes).fill(0, 0, lengthBytes)
  }

  #notify(event: Notification): void {
    for (const [at, hex] of event.memory) {
      const bytes = Buffer.from(hex, 'hex')
      this.#window(Number.parseInt(at, 16), bytes.length).copyIn(0, bytes)
    }
    for (const [at, lengthBytes] of event.writable) this.#window(at, lengthBytes).fill(POISON, 0, lengthBytes)
    expect(this.rig.line.level).toBe(false)
    this.rig.kick(event.queue)
    this.rig.drain()
    expect(this.rig.line.level).toBe(true)
    this.#answered(event)
  }

  #answered(event: Notification): void {
    const queue = this.#queue
    if (queue === null) throw new Error('a notification before there is a queue')
    const device = this.#window(queue.device, usedRingBytes(queue.size))
    const entry = VirtqUsed.ring + 8 * (this.#used % queue.size)
    expect(device.le16(VirtqUsed.idx)).toBe(++this.#used)
    expect([device.view.getUint32(entry, true), device.view.getUint32(entry + 4, true)]).toEqual(event.used)
    const status = event.writable.at(-1)
    expect(status === undefined ? null : this.#bytes([status])[0]).toBe(event.status)
    const header = this.#window(event.readable[0]?.[0] ?? 0, BlkRequest.$size)
    const type = header.le32(BlkRequest.type)
    const from = header.le64(BlkRequest.sector) * SECTOR_BYTES
    this.types.push(type)
    if (type === BlkType.OUT) this.model.set(this.#bytes(event.readable.slice(1)), from)
    if (type !== BlkType.IN) return
    const data = this.#bytes(event.writable.slice(0, -1))
    expect(Buffer.compare(data, this.model.subarray(from, from + data.length))).toBe(0)
    if (data.some((byte) => byte !== 0)) this.readBack++
  }

  #bytes(places: readonly Place[]): Uint8Array {
    return Buffer.concat(
      places.map(([at, lengthBytes]) => {
        const bytes = new Uint8Array(lengthBytes)
        this.#window(at, lengthBytes).copyOut(0, bytes)
        return bytes
      }),
    )
  }

  #window(at: number, lengthBytes: number): Window {
    const window = this.rig.memory.window(gpa(at), lengthBytes, 1)
    return window ?? expect.fail(`no memory at 0x${at.toString(16)}`)
  }
}

describe(`${transcript.kernel}'s driver, as recorded on QEMU, replayed on our device`, () => {
  const replay = new Replay().run()
  const opened = (offset: number) => replay.opened.filter(({ access }) => access.offset === offset)

  it('is a whole life: twice initialized, reads, writes and a flush, reset in between and at the end', () => {
    const statuses = transcript.events.flatMap((event) =>
      event.kind === 'write' && event.offset === Mmio.Status ? [event.value] : [],
    )
    const up = [1, 3, 3 | Status.FEATURES_OK, 3 | Status.FEATURES_OK | Status.DRIVER_OK]
    expect(statuses).toEqual([0, ...up, 0, ...up, 0])
    expect(new Set(replay.types)).toEqual(new Set([BlkType.IN, BlkType.OUT, BlkType.FLUSH]))
    expect(replay.types.length).toBeGreaterThanOrEqual(10)
    expect(replay.readBack).toBeGreaterThan(0)
  })

  it('reads from every register what it read there, where the specification fixes it', () => {
    expect(replay.differences).toEqual([])
    const fixed = transcript.events.filter(({ kind }) => kind === 'read').length - replay.opened.length
    expect(fixed).toBeGreaterThan(30)
  })

  it('finds what it depends on in the registers that are open', () => {
    const words = opened(Mmio.DeviceFeatures).map(({ seen }) => seen)
    expect(words.slice(0, 2)).toEqual(words.slice(2, 4))
    expect(hasFeature(replay.rig.device.offered, CommonFeature.VERSION_1.bit)).toBe(true)
    for (const { seen } of opened(Mmio.QueueSizeMax)) expect(seen).toBeGreaterThanOrEqual(1024)
    expect(new Set(opened(Mmio.ConfigGeneration).map(({ seen }) => seen)).size).toBe(1)
  })

  it('reads every open register that is listed, so that none is excused for nothing', () => {
    const read = new Set(replay.opened.map(({ access }) => access.offset))
    expect([...OPEN.keys()].filter((offset) => !read.has(offset))).toEqual([])
  })

  it('accepts on our device what it accepted there, but for what is listed', () => {
    expect(featureNames(replay.droppedFeatures, BlkFeature, CommonFeature)).toEqual(NOT_OFFERED)
  })

  it('is told of every answer by one interrupt, and breaks no rule of ours', () => {
    expect(replay.rig.rules).toEqual([])
    expect(replay.rig.line.rises).toBe(replay.types.length)
    expect(replay.interruptsRead).toBe(replay.types.length)
    expect(replay.rig.line.level).toBe(false)
    expect(replay.rig.status).toBe(0)
  })
})
