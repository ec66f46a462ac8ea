import { Segments } from '../../guest/virtio/segments.ts'
import { DriverRing } from '../../guest/virtio/split-ring.ts'
import type { Chain } from '../../host/virtio/chain.ts'
import { SplitRing } from '../../host/virtio/split-ring.ts'
import { DmaSpace } from '../../protocol/dma.ts'
import type { Gpa } from '../../protocol/memory.ts'
import { GuestMemory, gpa } from '../../protocol/memory.ts'
import type { Violation } from '../../protocol/violation.ts'
import type { QueuePlace, RingPosition } from '../../protocol/virtio/ring.ts'
import type { LiteralChain } from '../fuzz/literal-device.ts'
import { LiteralDevice } from '../fuzz/literal-device.ts'
import type { LiteralBuffer } from '../fuzz/literal-driver.ts'
import { LiteralDriver } from '../fuzz/literal-driver.ts'
import { LiteralRing } from '../fuzz/literal-ring.ts'

/** A request as both ends have to agree on it. */
export interface Request {
  readonly number: number
  readonly buffers: readonly LiteralBuffer[]
}

/** A driver's end, ours or the literal one. */
export interface DriverEnd {
  post(request: Request): boolean
  publish(): boolean
  reap(): { readonly request: number; readonly writtenBytes: number } | null
  disarm(): void
  rearm(): boolean
}

export interface Taken {
  readonly buffers: readonly LiteralBuffer[]
}

/** A device's end, ours or the literal one. */
export interface DeviceEnd {
  next(): Taken | null
  complete(taken: Taken, writtenBytes: number): void
  publish(): boolean
  rearm(): boolean
  /** Where the ring stands: tokens out are forgotten here and taken again by whoever goes on. */
  leave(): { readonly position: RingPosition; readonly heads: readonly number[] } | null
}

export function unexpected(violation: Violation): never {
  throw new Error(`unexpected violation: ${JSON.stringify(violation)}`)
}

export class OurDriver implements DriverEnd {
  readonly ring: DriverRing<Request>
  readonly #segments = new Segments()

  constructor(ring: DriverRing<Request>) {
    this.ring = ring
  }

  post(request: Request): boolean {
    this.#segments.clear()
    for (const { at, lengthBytes, write } of request.buffers) {
      if (write) this.#segments.writable(gpa(at), lengthBytes)
      else this.#segments.readable(gpa(at), lengthBytes)
    }
    return this.ring.post(this.#segments, request)
  }

  publish(): boolean {
    return this.ring.publish()
  }

  reap() {
    const back = this.ring.reap()
    return back === null ? null : { request: back.owner.number, writtenBytes: back.writtenBytes }
  }

  disarm(): void {
    this.ring.disarm()
  }

  rearm(): boolean {
    return this.ring.rearm()
  }
}

export class PlainDriver implements DriverEnd {
  readonly #driver: LiteralDriver
  readonly #out = new Map<number, Request>()

  constructor(driver: LiteralDriver) {
    this.#driver = driver
  }

  post(request: Request): boolean {
    const head = this.#driver.post(request.buffers)
    if (head === null) return false
    this.#out.set(head, request)
    return true
  }

  publish(): boolean {
    return this.#driver.publish()
  }

  reap() {
    const back = this.#driver.reap()
    if (back === null) return null
    const request = this.#out.get(back.head)
    if (request === undefined) throw new Error(`head ${back.head} came back and was not out`)
    this.#out.delete(back.head)
    return { request: request.number, writtenBytes: back.writtenBytes }
  }

  disarm(): void {
    this.#driver.disarm()
  }

  rearm(): boolean {
    return this.#driver.rearm()
  }
}

/** The buffers of a chain, as the driver would write them down. */
export function buffersOf(chain: Chain): LiteralBuffer[] {
  return Array.from({ length: chain.count }, (_, i) => ({
    at: chain.addresses[i] as number,
    lengthBytes: chain.lengths[i] as number,
    write: i >= chain.readableCount,
  }))
}

export class OurDevice implements DeviceEnd {
  readonly ring: SplitRing
  readonly #chains = new Map<Taken, Chain>()

  constructor(ring: SplitRing) {
    this.ring = ring
  }

  next(): Taken | null {
    const chain = this.ring.next()
    if (chain === null) return null
    const taken = { buffers: buffersOf(chain) }
    this.#chains.set(taken, chain)
    return taken
  }

  complete(taken: Taken, writtenBytes: number): void {
    const chain = this.#chains.get(taken)
    if (chain === undefined) throw new Error('not a chain of this ring')
    this.#chains.delete(taken)
    this.ring.complete(chain, writtenBytes)
  }

  publish(): boolean {
    return this.ring.publish()
  }

  rearm(): boolean {
    return this.ring.rearm()
  }

  leave() {
    return { position: this.ring.position(), heads: this.ring.headsOut() }
  }
}

export class PlainDevice implements DeviceEnd {
  readonly #device: LiteralDevice

  constructor(device: LiteralDevice) {
    this.#device = device
  }

  next(): LiteralChain | null {
    return this.#device.next()
  }

  complete(taken: Taken, writtenBytes: number): void {
    this.#device.complete((taken as LiteralChain).head, writtenBytes)
  }

  publish(): boolean {
    return this.#device.publish()
  }

  rearm(): boolean {
    return this.#device.rearm()
  }

  leave(): null {
    return null
  }
}

export interface PairShape {
  readonly size: number
  readonly eventIdx: boolean
  readonly indirect: boolean
  /** Where the indices begin. Our driver begins at 0 and is spun up to it. */
  readonly start: number
  readonly driver: 'ours' | 'literal'
  readonly device: 'ours' | 'literal'
}

export const DATA_AT = 0x40_0000
const MEMORY_BYTES = 0x80_0000

/** Two ends over one memory, and the memory as it is. */
export class Pair {
  readonly shape: PairShape
  readonly memory: GuestMemory
  readonly dma: DmaSpace
  readonly ring: LiteralRing
  readonly driver: DriverEnd
  device: DeviceEnd
  readonly #place: QueuePlace
  #top: number

  constructor(shape: PairShape) {
    this.shape = shape
    this.memory = GuestMemory.ofBytes(MEMORY_BYTES)
    this.dma = new DmaSpace(this.memory)
    this.#top = 4096
    const { size, eventIdx, indirect, start } = shape
    if (shape.driver === 'ours') {
      const ring = new DriverRing<Request>({
        platform: {
          memory: this.memory,
          allocate: (lengthBytes, alignment) => this.allocate(lengthBytes, alignment),
        },
        queue: 0,
        size,
        indirectSegments: indirect ? Math.min(size, 64) : 0,
        eventIdx,
        violated: unexpected,
      })
      this.#place = ring.place
      this.ring = new LiteralRing(this.memory, ring.place)
      spin(ring, this.ring, start)
      this.driver = new OurDriver(ring)
    } else {
      this.#place = {
        size,
        descriptors: this.allocate(16 * size, 16),
        driver: this.allocate(6 + 2 * size, 2),
        device: this.allocate(6 + 8 * size, 4),
      }
      const tablesAt = indirect ? this.allocate(16 * size * size, 16) : null
      this.ring = new LiteralRing(this.memory, this.#place)
      this.ring.usedIndex(start)
      this.driver = new PlainDriver(new LiteralDriver(this.ring, { eventIdx, start, tablesAt }))
    }
    if (eventIdx) this.ring.availableEvent(start)
    this.device = this.#makeDevice({ available: start, used: start }, [])
  }

  allocate(lengthBytes: number, alignment: number): Gpa {
    const at = Math.ceil(this.#top / alignment) * alignment
    this.#top = at + lengthBytes
    return gpa(at)
  }

  /** Stops the device's end where it is and goes on with a new one. */
  move(): boolean {
    const left = this.device.leave()
    if (left === null) return false
    this.device = this.#makeDevice(left.position, left.heads)
    return true
  }

  #makeDevice(position: RingPosition, retake: readonly number[]): DeviceEnd {
    const { size, eventIdx, indirect } = this.shape
    if (this.shape.device === 'literal') {
      return new PlainDevice(new LiteralDevice(this.ring, { eventIdx, start: position.available }))
    }
    const ring = SplitRing.start({
      dma: this.dma,
      queue: 0,
      place: this.#place,
      sizeMax: size,
      indirect,
      eventIdx,
      position,
      retake,
      listener: { violated: unexpected },
    })
    return ring instanceof SplitRing ? new OurDevice(ring) : unexpected(ring)
  }
}

/** Takes a driver's ring from 0 to an index by requests that are answered at once. */
export function spin(ring: DriverRing<Request>, literal: LiteralRing, to: number): void {
  const segments = new Segments()
  segments.writable(gpa(DATA_AT), 1)
  const request = { number: -1, buffers: [] }
  for (let entry = 0; entry < to; entry++) {
    ring.post(segments, request)
    ring.publish()
    literal.use(entry, literal.offered(entry), 0)
    literal.usedIndex(entry + 1)
    if (ring.reap() === null) throw new Error('nothing came back')
  }
  if (to > 0) ring.rearm()
}
