import { seededRandom } from '../../bench/random.ts'
import type { DiskBackend } from '../../host/disk/backend.ts'
import { BlkDevice } from '../../host/virtio/blk.ts'
import { QUEUE_START } from '../../host/virtio/device.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import { DmaSpace } from '../../protocol/dma.ts'
import { GuestMemory } from '../../protocol/memory.ts'
import { NO_TRACE } from '../../protocol/trace.ts'
import { BlkRequest, BlkStatus, BlkType, SECTOR_BYTES } from '../../protocol/virtio/blk.ts'
import {
  availEventBase,
  DescFlag,
  usedEventBase,
  VirtqAvail,
  VirtqDesc,
  VirtqUsed,
} from '../../protocol/virtio/ring.ts'
import { PAGE_BYTES } from './numbered-file.ts'

/** A chain may have as many buffers as the queue has entries: 256 pages, a header and a status fit. */
const QUEUE_SIZE = 512
const PAGE_SECTORS = PAGE_BYTES / SECTOR_BYTES
/** What no status is: the device has to write it. */
const UNWRITTEN = 0xff
const DESCRIPTORS_AT = 0
const AVAILABLE_AT = 0x4000
const USED_AT = 0x6000
/** Header, status and indirect table of one request. */
const REQUESTS_AT = 0x1_0000
const LINE_BYTES = 64
const TABLE_AT = 64
const STATUS_AT = 32
/** Data pages come after. */
const DATA_AT = 4 << 20

/**
 * The cheapest driver there is, so that what is measured is the device: no transport, no operating system, and
 * requests that were built beforehand. Descriptors, indirect tables and the available ring never change; a
 * batch writes sectors and one index. It checks every status, used length and first page's number.
 */
export class DiskDriver {
  readonly #clock: VirtualClock
  readonly #device: BlkDevice
  readonly #view: DataView
  readonly #indices: Uint16Array
  /** By request: where its first page lies, and how long it is with the status. */
  readonly #dataAt: Float64Array
  readonly #writtenBytes: number
  /** From one request's header to the next: close together, as a driver's pool has them, and not sharing lines. */
  readonly #strideBytes: number
  /** Requests of a batch, a power of two: so the available ring is the same in every batch. */
  readonly #depth: number
  #index: number

  /** @param layout for each request of the depth, which pages of data memory it has; a descriptor each. */
  constructor(backend: DiskBackend, layout: readonly (readonly number[])[]) {
    this.#depth = layout.length
    if (QUEUE_SIZE % this.#depth !== 0) throw new Error('the depth does not divide the queue')
    const pages = 1 + Math.max(...layout.flat())
    const memory = GuestMemory.ofBytes(DATA_AT + pages * PAGE_BYTES)
    const [region] = memory.regions
    if (region === undefined) throw new Error('memory of our own cannot be had')
    this.#view = new DataView(region.bytes.buffer)
    this.#indices = new Uint16Array(region.bytes.buffer)
    this.#dataAt = Float64Array.from(layout, (own) => DATA_AT + (own[0] ?? 0) * PAGE_BYTES)
    this.#writtenBytes = (layout[0]?.length ?? 0) * PAGE_BYTES + 1
    const tableBytes = ((layout[0]?.length ?? 0) + 2) * VirtqDesc.$size
    this.#strideBytes = TABLE_AT + Math.ceil(tableBytes / LINE_BYTES) * LINE_BYTES
    this.#index = 0
    for (const [request, own] of layout.entries()) this.#build(request, own)
    for (let i = 0; i < QUEUE_SIZE; i++) {
      this.#view.setUint16(AVAILABLE_AT + VirtqAvail.ring + 2 * i, i % this.#depth, true)
    }
    this.#clock = new VirtualClock()
    this.#device = new BlkDevice({
      platform: { clock: this.#clock, random: seededRandom(1), trace: NO_TRACE, path: 'disk0' },
      dma: new DmaSpace(memory),
      backend,
      version: '1.3',
      limits: { queueSize: QUEUE_SIZE },
    })
    this.#device.attach({ signal() {}, configChanged() {}, needsReset() {}, violated: fail })
    this.#device.accept(this.#device.offered)
    const place = { size: QUEUE_SIZE, descriptors: DESCRIPTORS_AT, driver: AVAILABLE_AT, device: USED_AT }
    const refused = this.#device.start(0, place, QUEUE_START)
    if (refused !== null) fail(refused)
  }

  /** One read for each request of the depth, all in the ring at once; `pages[from + i]` is where the i-th begins. */
  readTogether(pages: readonly number[], from: number): void {
    const depth = this.#depth
    const view = this.#view
    const stride = this.#strideBytes
    for (let i = 0; i < depth; i++) {
      const at = REQUESTS_AT + i * stride
      view.setUint32(at + BlkRequest.sector, (pages[from + i] as number) * PAGE_SECTORS, true)
      view.setUint8(at + STATUS_AT, UNWRITTEN)
    }
    const before = this.#index
    this.#index = (before + depth) & 0xffff
    Atomics.store(this.#indices, (AVAILABLE_AT + VirtqAvail.idx) / 2, this.#index)
    if (Atomics.load(this.#indices, (USED_AT + availEventBase(QUEUE_SIZE)) / 2) !== before) {
      throw new Error('the device asked for no doorbell')
    }
    this.#device.kick(0)
    this.#clock.drain()
    if (Atomics.load(this.#indices, (USED_AT + VirtqUsed.idx) / 2) !== this.#index) {
      throw new Error('not every request came back')
    }
    for (let i = 0; i < depth; i++) this.#check(i, (before + i) & (QUEUE_SIZE - 1), pages[from + i] as number)
    Atomics.store(this.#indices, (AVAILABLE_AT + usedEventBase(QUEUE_SIZE)) / 2, this.#index)
  }

  #check(request: number, slot: number, page: number): void {
    const view = this.#view
    const element = USED_AT + VirtqUsed.ring + 8 * slot
    if (view.getUint32(element, true) !== request) throw new Error('requests came back in another order')
    if (view.getUint32(element + 4, true) !== this.#writtenBytes) throw new Error('a used length is wrong')
    if (view.getUint8(REQUESTS_AT + request * this.#strideBytes + STATUS_AT) !== BlkStatus.OK) {
      throw new Error('a request failed')
    }
    if (view.getUint32(this.#dataAt[request] as number, true) !== page) {
      throw new Error('the wrong page was read')
    }
  }

  /** Descriptor `request` names an indirect table of header, pages and status. */
  #build(request: number, pages: readonly number[]): void {
    const at = REQUESTS_AT + request * this.#strideBytes
    const { NEXT, WRITE, INDIRECT } = DescFlag
    this.#view.setUint32(at + BlkRequest.type, BlkType.IN, true)
    const count = pages.length + 2
    const describe = (i: number, address: number, lengthBytes: number, flags: number) =>
      this.#describe(at + TABLE_AT + i * VirtqDesc.$size, address, lengthBytes, flags, i + 1)
    describe(0, at, BlkRequest.$size, NEXT)
    for (const [i, page] of pages.entries()) {
      describe(i + 1, DATA_AT + page * PAGE_BYTES, PAGE_BYTES, NEXT | WRITE)
    }
    describe(count - 1, at + STATUS_AT, 1, WRITE)
    const own = DESCRIPTORS_AT + request * VirtqDesc.$size
    this.#describe(own, at + TABLE_AT, count * VirtqDesc.$size, INDIRECT, 0)
  }

  #describe(at: number, address: number, lengthBytes: number, flags: number, next: number): void {
    this.#view.setUint32(at + VirtqDesc.addr, address, true)
    this.#view.setUint32(at + VirtqDesc.len, lengthBytes, true)
    this.#view.setUint16(at + VirtqDesc.flags, flags, true)
    this.#view.setUint16(at + VirtqDesc.next, (flags & DescFlag.NEXT) === 0 ? 0 : next, true)
  }
}

function fail(violation: unknown): never {
  throw new Error(`unexpected violation: ${JSON.stringify(violation)}`)
}
