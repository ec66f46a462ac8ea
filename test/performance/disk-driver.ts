import { seededRandom } from '../../bench/random.ts'
import { Segments } from '../../guest/virtio/segments.ts'
import { DriverRing } from '../../guest/virtio/split-ring.ts'
import type { DiskBackend } from '../../host/disk/backend.ts'
import { BlkDevice } from '../../host/virtio/blk.ts'
import { QUEUE_START } from '../../host/virtio/device.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import { DmaSpace } from '../../protocol/dma.ts'
import type { Field } from '../../protocol/layout.ts'
import { GuestMemory, gpa } from '../../protocol/memory.ts'
import { NO_TRACE } from '../../protocol/trace.ts'
import { BlkRequest, BlkStatus, BlkStatusByte, BlkType, SECTOR_BYTES } from '../../protocol/virtio/blk.ts'
import type { Window } from '../../protocol/window.ts'
import { PAGE_BYTES } from './numbered-file.ts'

const QUEUE_SIZE = 512
const HEADER_BYTES = BlkRequest.$size
const PAGE_SECTORS = PAGE_BYTES / SECTOR_BYTES
/** Ring areas, indirect tables, headers and status bytes; data pages come after. */
const CONTROL_BYTES = 4 << 20
/** What no status is: the device has to write it. */
const UNWRITTEN = 0xff
const TYPE = BlkRequest.type
const SECTOR = BlkRequest.sector
const STATUS = BlkStatusByte.status
const NUMBER = 0 as Field<'le32'>

/** A request that stays: its header and its segments are written once, and only the sector changes. */
class Slot {
  readonly segments: Segments
  readonly headerAt: number
  readonly statusAt: number
  readonly dataAt: number
  readonly writtenBytes: number
  /** First page asked for. */
  page: number

  constructor(headerAt: number, pagesAt: readonly number[]) {
    this.headerAt = headerAt
    this.statusAt = headerAt + HEADER_BYTES
    this.dataAt = pagesAt[0] ?? 0
    this.writtenBytes = pagesAt.length * PAGE_BYTES + 1
    this.page = 0
    this.segments = new Segments()
    this.segments.readable(gpa(headerAt), HEADER_BYTES)
    for (const pageAt of pagesAt) this.segments.writable(gpa(pageAt), PAGE_BYTES)
    this.segments.writable(gpa(this.statusAt), 1)
  }
}

/**
 * The cheapest driver there is, so that what is measured is the device: requests made beforehand, no
 * transport, no operating system above. It checks every status, used length and first page's number.
 */
export class DiskDriver {
  readonly #clock: VirtualClock
  readonly #device: BlkDevice
  readonly #ring: DriverRing<Slot>
  readonly #slots: readonly Slot[]
  readonly #all: Window

  /** @param layout for each request of the depth, which pages of data memory it has; a descriptor each. */
  constructor(backend: DiskBackend, layout: readonly (readonly number[])[]) {
    const pages = 1 + Math.max(...layout.flat())
    const memory = GuestMemory.ofBytes(CONTROL_BYTES + pages * PAGE_BYTES)
    const all = memory.window(gpa(0), memory.end, PAGE_BYTES)
    if (all === null) throw new Error('memory of our own cannot be had')
    this.#all = all
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
    let top = 0
    const allocate = (lengthBytes: number, alignment: number) => {
      const at = Math.ceil(top / alignment) * alignment
      top = at + lengthBytes
      if (top > CONTROL_BYTES) throw new Error('the control area is too small')
      return gpa(at)
    }
    this.#slots = layout.map((own) => {
      const headerAt = allocate(HEADER_BYTES + 1, HEADER_BYTES)
      all.putLe32(TYPE, BlkType.IN, headerAt)
      return new Slot(
        headerAt,
        own.map((page) => CONTROL_BYTES + page * PAGE_BYTES),
      )
    })
    this.#ring = new DriverRing<Slot>({
      platform: { memory, allocate },
      queue: 0,
      size: QUEUE_SIZE,
      indirectSegments: 2 + Math.max(...layout.map((own) => own.length)),
      eventIdx: true,
      violated: fail,
    })
    const refused = this.#device.start(0, this.#ring.place, QUEUE_START)
    if (refused !== null) fail(refused)
  }

  /** One read for each slot, all in the ring at once; `pages[from + i]` is where the i-th begins. */
  readTogether(pages: readonly number[], from: number): void {
    const slots = this.#slots
    const all = this.#all
    const ring = this.#ring
    for (let i = 0; i < slots.length; i++) {
      const slot = slots[i] as Slot
      slot.page = pages[from + i] as number
      all.putLe64(SECTOR, slot.page * PAGE_SECTORS, slot.headerAt)
      all.putU8(STATUS, UNWRITTEN, slot.statusAt)
      if (!ring.post(slot.segments, slot)) throw new Error('the ring is full')
    }
    if (!ring.publish()) throw new Error('the device asked for no doorbell')
    this.#device.kick(0)
    this.#clock.drain()
    for (let left = slots.length; left > 0; left--) {
      const reaped = ring.reap()
      if (reaped === null) throw new Error(`${left} requests did not come back`)
      const slot = reaped.owner
      if (all.u8(STATUS, slot.statusAt) !== BlkStatus.OK) throw new Error('a request failed')
      if (reaped.writtenBytes !== slot.writtenBytes) throw new Error('a used length is wrong')
      if (all.le32(NUMBER, slot.dataAt) !== slot.page) throw new Error('the wrong page was read')
    }
    ring.rearm()
  }
}

function fail(violation: unknown): never {
  throw new Error(`unexpected violation: ${JSON.stringify(violation)}`)
}
