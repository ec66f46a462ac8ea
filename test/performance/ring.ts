import { Segments } from '../../guest/virtio/segments.ts'
import { DriverRing } from '../../guest/virtio/split-ring.ts'
import { SplitRing } from '../../host/virtio/split-ring.ts'
import { DmaSpace } from '../../protocol/dma.ts'
import type { Field } from '../../protocol/layout.ts'
import { GuestMemory, gpa } from '../../protocol/memory.ts'
import type { GuestPlatform } from '../../protocol/platform.ts'
import { BlkRequest } from '../../protocol/virtio/blk.ts'
import { availEventBase, RING_START, usedEventBase } from '../../protocol/virtio/ring.ts'
import type { Window } from '../../protocol/window.ts'
import { Cursor } from '../../protocol/window.ts'
import type { Measurement } from './measure.ts'
import { nsPerOperation } from './measure.ts'

// Constants of this module are folded into optimized code; a property of an import is loaded every time.
const TYPE = BlkRequest.type
const RESERVED = BlkRequest.reserved
const SECTOR = BlkRequest.sector
const SIZE = 128
const HEADER = 0x8_0000
const STATUS = 0x8_0100
const DATA = 0x9_0000
const BATCH = 1000

function bareMemory(shared: boolean): {
  memory: GuestMemory
  platform: Pick<GuestPlatform, 'memory' | 'allocate'>
} {
  const memory = new GuestMemory([{ base: gpa(0), bytes: new Uint8Array(1 << 20), shared }])
  let top = 4096
  return {
    memory,
    platform: {
      memory,
      allocate(lengthBytes, alignment) {
        const at = Math.ceil(top / alignment) * alignment
        top = at + lengthBytes
        return gpa(at)
      },
    },
  }
}

function fail(violation: unknown): never {
  throw new Error(`unexpected violation: ${JSON.stringify(violation)}`)
}

/**
 * Both ends of our ring: a block read without the disk.
 *
 * @param shared somebody outside this thread has the memory too: indices are published atomically.
 */
function ours(shared: boolean): () => void {
  const { memory, platform } = bareMemory(shared)
  const driver = new DriverRing<object>({
    platform: platform as GuestPlatform,
    queue: 0,
    size: SIZE,
    indirectSegments: 0,
    eventIdx: true,
    violated: fail,
  })
  const dma = new DmaSpace(memory)
  const device = SplitRing.start({
    dma,
    queue: 0,
    place: driver.place,
    sizeMax: SIZE,
    indirect: true,
    eventIdx: true,
    position: RING_START,
    retake: [],
    listener: { violated: fail },
  })
  if (!(device instanceof SplitRing)) fail(device)
  const ring = device as SplitRing
  const request = memory.window(gpa(HEADER), 16, 16) as Window
  const header = new Cursor()
  const status = new Cursor()
  const segments = new Segments()
  const owner = {}
  return () => {
    for (let i = 0; i < BATCH; i++) {
      request.putLe32(TYPE, 0)
      request.putLe32(RESERVED, 0)
      request.putLe64(SECTOR, i)
      segments.clear()
      segments.readable(gpa(HEADER), 16)
      segments.writable(gpa(DATA), 4096)
      segments.writable(gpa(STATUS), 1)
      driver.post(segments, owner)
      driver.publish()
      const chain = ring.next()
      if (chain === null) throw new Error('nothing arrived')
      dma.point(header, gpa(chain.addresses[0] as number), 16)
      const { window, base } = header
      if (window.le32(TYPE, base) !== 0 || window.le64(SECTOR, base) !== i) throw new Error('header')
      dma.point(status, gpa(chain.addresses[2] as number), 1)
      status.window.putU8(0 as Field<'u8'>, 0, status.base)
      ring.complete(chain, 4097)
      ring.publish()
      ring.rearm()
      if (driver.reap()?.writtenBytes !== 4097) throw new Error('used length')
      driver.rearm()
    }
  }
}

/**
 * The same round trip with literal offsets on one DataView, all in one function: no layouts, no roles, and the
 * one request there is written down where ours is handed over. It does what neither end may leave out: reads
 * each shared field once, believes a head, a link and a length only after a look, keeps addresses within memory
 * and buffers in order, knows what is out by notes of its own, and asks `needEvent` both ways.
 *
 * @param atomic whether indices are, as the other side's in another thread would need.
 */
function handWritten(atomic: boolean): () => void {
  const buffer = new ArrayBuffer(1 << 20)
  const v = new DataView(buffer)
  const u16 = new Uint16Array(buffer)
  const load = atomic ? (at: number) => Atomics.load(u16, at) : (at: number) => u16[at] as number
  const store = atomic
    ? (at: number, value: number) => void Atomics.store(u16, at, value)
    : (at: number, value: number) => {
        u16[at] = value
      }
  const end = buffer.byteLength
  const desc = 0x1000
  const avail = 0x2000
  const used = 0x3000
  const usedEvent = (avail + usedEventBase(SIZE)) >>> 1
  const availEvent = (used + availEventBase(SIZE)) >>> 1
  const availIdx = (avail + 2) >>> 1
  const usedIdx = (used + 2) >>> 1
  const free = Uint16Array.from({ length: SIZE }, (_, i) => SIZE - 1 - i)
  const link = new Uint16Array(SIZE).fill(0xffff)
  const isOut = new Uint8Array(SIZE)
  const taken = new Uint8Array(SIZE)
  const owners = new Array<object | null>(SIZE).fill(null)
  const writable = new Float64Array(SIZE)
  const addresses: number[] = []
  const lengths: number[] = []
  const owner = {}
  let freeCount = SIZE
  let posted = 0
  let next = 0
  let filled = 0
  let reaped = 0
  return () => {
    for (let i = 0; i < BATCH; i++) {
      v.setUint32(HEADER, 0, true)
      v.setUint32(HEADER + 4, 0, true)
      v.setUint32(HEADER + 8, i, true)
      v.setUint32(HEADER + 12, 0, true)
      const a = free[--freeCount] as number
      const b = free[--freeCount] as number
      const c = free[--freeCount] as number
      v.setUint32(desc + a * 16, HEADER, true)
      v.setUint32(desc + a * 16 + 4, 0, true)
      v.setUint32(desc + a * 16 + 8, 16, true)
      v.setUint16(desc + a * 16 + 12, 1, true)
      v.setUint16(desc + a * 16 + 14, b, true)
      v.setUint32(desc + b * 16, DATA, true)
      v.setUint32(desc + b * 16 + 4, 0, true)
      v.setUint32(desc + b * 16 + 8, 4096, true)
      v.setUint16(desc + b * 16 + 12, 3, true)
      v.setUint16(desc + b * 16 + 14, c, true)
      v.setUint32(desc + c * 16, STATUS, true)
      v.setUint32(desc + c * 16 + 4, 0, true)
      v.setUint32(desc + c * 16 + 8, 1, true)
      v.setUint16(desc + c * 16 + 12, 2, true)
      v.setUint16(desc + c * 16 + 14, 0, true)
      link[a] = b
      link[b] = c
      isOut[a] = 1
      owners[a] = owner
      writable[a] = 4097
      v.setUint16(avail + 4 + (posted & (SIZE - 1)) * 2, a, true)
      const before = posted
      posted = (posted + 1) & 0xffff
      store(availIdx, posted)
      const kick = ((posted - load(availEvent) - 1) & 0xffff) < ((posted - before) & 0xffff)
      if (!kick) throw new Error('no notification')

      const ahead = (load(availIdx) - next) & 0xffff
      if (ahead === 0 || ahead > SIZE) throw new Error('index')
      const head = v.getUint16(avail + 4 + (next & (SIZE - 1)) * 2, true)
      next = (next + 1) & 0xffff
      if (!(head < SIZE) || taken[head] === 1) throw new Error('head')
      taken[head] = 1
      let headerAt = 0
      let statusAt = 0
      let written = 0
      let count = 0
      for (let at = head, budget = SIZE; ; ) {
        if (budget-- === 0) throw new Error('budget')
        const base = desc + at * 16
        const addr = v.getUint32(base, true) + v.getUint32(base + 4, true) * 0x1_0000_0000
        const len = v.getUint32(base + 8, true)
        const flags = v.getUint16(base + 12, true)
        if ((flags & 4) !== 0) throw new Error('indirect')
        if (!(addr < end && len <= end - addr)) throw new Error('range')
        addresses[count] = addr
        lengths[count] = len
        count++
        if ((flags & 2) === 0) {
          if (written > 0) throw new Error('order')
          headerAt = addr
        } else {
          statusAt = addr
          written += len
        }
        if ((flags & 1) === 0) break
        at = v.getUint16(base + 14, true)
        if (!(at < SIZE)) throw new Error('next')
      }
      if (v.getUint32(headerAt, true) !== 0 || v.getUint32(headerAt + 8, true) !== i)
        throw new Error('header')
      v.setUint8(statusAt, 0)
      const elem = used + 4 + (filled & (SIZE - 1)) * 8
      v.setUint32(elem, head, true)
      v.setUint32(elem + 4, written, true)
      taken[head] = 0
      const was = filled
      filled = (filled + 1) & 0xffff
      store(usedIdx, filled)
      const signal = ((filled - load(usedEvent) - 1) & 0xffff) < ((filled - was) & 0xffff)
      if (!signal) throw new Error('no interrupt')
      store(availEvent, next)
      if (load(availIdx) !== next) throw new Error('more')

      if (load(usedIdx) === reaped) throw new Error('nothing used')
      const back = used + 4 + (reaped & (SIZE - 1)) * 8
      const id = v.getUint32(back, true)
      if (!(id < SIZE) || isOut[id] !== 1 || v.getUint32(back + 4, true) !== 4097) throw new Error('used')
      if (owners[id] !== owner || !((writable[id] as number) >= 4097)) throw new Error('owner')
      isOut[id] = 0
      owners[id] = null
      reaped = (reaped + 1) & 0xffff
      for (let at = id; at !== 0xffff; ) {
        const after = link[at] as number
        link[at] = 0xffff
        free[freeCount++] = at
        at = after
      }
      store(usedEvent, reaped)
      if (load(usedIdx) !== reaped) throw new Error('more used')
    }
  }
}

/** Like for like: both sides publish indices the same way. */
function ringMeasurement(name: string, what: string, shared: boolean): Measurement {
  return {
    name,
    what: `split ring round trip of a block read, without a disk; ${what}`,
    candidates: ['hand-written', 'ours'],
    goals: { ours: { atMost: 1.3 } },
    unit: 'ns',
    run(candidate, ms) {
      return nsPerOperation(BATCH, ms, candidate === 'ours' ? ours(shared) : handWritten(shared))
    },
  }
}

export const RING_MEASUREMENTS: readonly Measurement[] = [
  ringMeasurement('ring', 'within one thread, plain indices', false),
  ringMeasurement('ring-shared', 'memory that another thread has too, atomic indices', true),
]
