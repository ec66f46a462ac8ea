import { expect } from 'vitest'
import { MemoryDisk } from '../../host/disk/memory.ts'
import { GuestMemory } from '../../protocol/memory.ts'
import type { Trace } from '../../protocol/trace.ts'
import { NO_TRACE } from '../../protocol/trace.ts'
import { Mmio } from '../../protocol/virtio/mmio.ts'
import { noise, TestIo } from '../conformance/disk-backend.ts'
import { IN } from './blk-model.ts'
import { BlkRig, placeAt, placeEnd } from './blk-rig.ts'
import type { RawSegment } from './raw-queue.ts'
import { RawQueue } from './raw-queue.ts'

export const MEMORY_BYTES = 0x4_0000
const DISK_BYTES = 64 * 512
export const SIZE = 16
export const AT = 0x8000
const WITNESS_AT = 0x6000
export const CONTENT = noise(DISK_BYTES, 5)

/** A device with two queues: one for the hostile driver, one whose good requests must go on being answered. */
export class Scene {
  readonly rig: BlkRig
  readonly disk: MemoryDisk
  queue: RawQueue
  witness: RawQueue

  constructor(memory = GuestMemory.ofBytes(MEMORY_BYTES), trace: Trace = NO_TRACE) {
    this.disk = new MemoryDisk(DISK_BYTES, {
      blockBytes: 512,
      physicalBlockBytes: 512,
      readOnly: false,
      serial: 'HOSTILE',
    })
    this.disk.submit(new TestIo('write', 0, DISK_BYTES, [CONTENT.slice()]))
    const limits = { queues: 2, queueSize: SIZE, rangeSectors: 8, rangeSegments: 2 }
    this.rig = new BlkRig({ backend: this.disk, memory, limits, trace })
    this.queue = this.rig.bringUp(this.rig.device.offered, SIZE)
    this.witness = this.#second()
  }

  header(type: number, sector: bigint, at = AT): void {
    const view = new DataView(this.rig.bytes.buffer, at, 16)
    view.setUint32(0, type, true)
    view.setUint32(4, 0, true)
    view.setBigUint64(8, sector, true)
  }

  /** Offers a chain and has it served. */
  serve(segments: readonly RawSegment[]): number {
    const head = this.queue.offer(segments)
    this.go()
    return head
  }

  go(): void {
    this.queue.publish()
    this.rig.kick()
    this.rig.drain()
  }

  /** One good read through the queue given: right status, length and bytes. */
  expectGood(queue: RawQueue, index: number): void {
    const { rig } = this
    this.header(IN, 3n, WITNESS_AT)
    rig.bytes[WITNESS_AT + 1024] = 0xff
    const head = queue.offer([
      { at: WITNESS_AT, lengthBytes: 16, write: false },
      { at: WITNESS_AT + 16, lengthBytes: 512, write: true },
      { at: WITNESS_AT + 1024, lengthBytes: 1, write: true },
    ])
    queue.publish()
    rig.kick(index)
    rig.drain()
    expect(queue.reap()).toEqual({ head, lengthBytes: 513 })
    expect(rig.bytes[WITNESS_AT + 1024]).toBe(0)
    const expected = this.content().subarray(3 * 512, 4 * 512)
    expect(Buffer.compare(rig.bytes.subarray(WITNESS_AT + 16, WITNESS_AT + 528), expected)).toBe(0)
  }

  content(): Uint8Array {
    const bytes = new Uint8Array(DISK_BYTES)
    this.disk.submit(new TestIo('read', 0, DISK_BYTES, [bytes]))
    return bytes
  }

  /** The other queue is served all the while; this one at once, or after a reset when the device asks for one. */
  expectAlive(): void {
    const { rig } = this
    this.expectGood(this.witness, 1)
    if ((rig.status & 64) !== 0) {
      rig.write(Mmio.Status, 0)
      rig.drain()
      expect(rig.status).toBe(0)
      this.queue = rig.bringUp(rig.device.offered, SIZE)
      this.witness = this.#second()
    }
    this.expectGood(this.queue, 0)
    this.expectGood(this.witness, 1)
  }

  #second(): RawQueue {
    const witness = new RawQueue(this.rig.memory, placeAt(placeEnd(this.queue.place), SIZE))
    this.rig.startQueue(1, witness.place)
    return witness
  }
}

export const readable = (at: number, lengthBytes: number): RawSegment => ({ at, lengthBytes, write: false })
export const writable = (at: number, lengthBytes: number): RawSegment => ({ at, lengthBytes, write: true })
export const STATUS_AT = AT + 0x1000
export const STATUS = writable(STATUS_AT, 1)
