import type { GuestMemory } from '../../protocol/memory.ts'
import { gpa } from '../../protocol/memory.ts'
import type { QueuePlace } from '../../protocol/virtio/ring.ts'

/** A descriptor as it lies in memory. `addr` takes any 64-bit value; numbers are for convenience. */
export interface LiteralDescriptor {
  readonly addr: number | bigint
  readonly len: number
  /** NEXT 1, WRITE 2, INDIRECT 4. */
  readonly flags?: number
  readonly next?: number
}

export const L_NEXT = 1
export const L_WRITE = 2
export const L_INDIRECT = 4

/**
 * A split ring's memory, byte by byte as VIRTIO 1.2 section 2.7 writes it down, with no opinion: either party
 * may be played on it, honestly or not. It shares no offset and no arithmetic with the rings under test, so
 * that one mistake cannot hide in both.
 */
export class LiteralRing {
  readonly memory: GuestMemory
  readonly place: QueuePlace
  readonly #table: DataView
  readonly #driver: DataView
  readonly #device: DataView

  /** Each area lies within one region. */
  constructor(memory: GuestMemory, place: QueuePlace) {
    const { size } = place
    this.memory = memory
    this.place = place
    this.#table = viewOf(memory, place.descriptors, 16 * size)
    this.#driver = viewOf(memory, place.driver, 6 + 2 * size)
    this.#device = viewOf(memory, place.device, 6 + 8 * size)
  }

  get size(): number {
    return this.place.size
  }

  // What the driver writes.

  describe(index: number, descriptor: LiteralDescriptor): void {
    putDescriptor(this.#table, index, descriptor)
  }

  /** Writes a table of descriptors anywhere in memory. */
  table(at: number, descriptors: readonly LiteralDescriptor[]): void {
    const view = viewOf(this.memory, at, 16 * descriptors.length)
    for (const [index, descriptor] of descriptors.entries()) putDescriptor(view, index, descriptor)
  }

  /** `entry` counts from the beginning of time; its slot is `entry` modulo the size. */
  offer(entry: number, head: number): void {
    this.#driver.setUint16(4 + 2 * (entry % this.size), head, true)
  }

  availableIndex(value: number): void {
    this.#driver.setUint16(2, value % 65536, true)
  }

  availableFlags(value: number): void {
    this.#driver.setUint16(0, value, true)
  }

  usedEvent(value: number): void {
    this.#driver.setUint16(4 + 2 * this.size, value % 65536, true)
  }

  // What the driver wrote.

  descriptor(index: number): Required<LiteralDescriptor> & { readonly addr: number } {
    return getDescriptor(this.#table, index)
  }

  descriptorAt(at: number, index: number): Required<LiteralDescriptor> & { readonly addr: number } {
    return getDescriptor(viewOf(this.memory, at + 16 * index, 16), 0)
  }

  offered(entry: number): number {
    return this.#driver.getUint16(4 + 2 * (entry % this.size), true)
  }

  get available(): { readonly flags: number; readonly index: number; readonly usedEvent: number } {
    return {
      flags: this.#driver.getUint16(0, true),
      index: this.#driver.getUint16(2, true),
      usedEvent: this.#driver.getUint16(4 + 2 * this.size, true),
    }
  }

  // What the device writes.

  use(entry: number, id: number, len: number): void {
    this.#device.setUint32(4 + 8 * (entry % this.size), id, true)
    this.#device.setUint32(8 + 8 * (entry % this.size), len, true)
  }

  usedIndex(value: number): void {
    this.#device.setUint16(2, value % 65536, true)
  }

  usedFlags(value: number): void {
    this.#device.setUint16(0, value, true)
  }

  availableEvent(value: number): void {
    this.#device.setUint16(4 + 8 * this.size, value % 65536, true)
  }

  // What the device wrote.

  usedEntry(entry: number): { readonly id: number; readonly len: number } {
    return {
      id: this.#device.getUint32(4 + 8 * (entry % this.size), true),
      len: this.#device.getUint32(8 + 8 * (entry % this.size), true),
    }
  }

  get used(): { readonly flags: number; readonly index: number; readonly availableEvent: number } {
    return {
      flags: this.#device.getUint16(0, true),
      index: this.#device.getUint16(2, true),
      availableEvent: this.#device.getUint16(4 + 8 * this.size, true),
    }
  }
}

function viewOf(memory: GuestMemory, at: number, lengthBytes: number): DataView {
  const pieces: Uint8Array<ArrayBuffer>[] = []
  const piece = memory.lend(gpa(at), lengthBytes, pieces) && pieces.length === 1 ? pieces[0] : undefined
  if (piece === undefined) throw new RangeError(`no ${lengthBytes} bytes in one piece at ${at}`)
  return new DataView(piece.buffer, piece.byteOffset, piece.length)
}

function putDescriptor(view: DataView, index: number, descriptor: LiteralDescriptor): void {
  view.setBigUint64(16 * index, BigInt.asUintN(64, BigInt(descriptor.addr)), true)
  view.setUint32(16 * index + 8, descriptor.len, true)
  view.setUint16(16 * index + 12, descriptor.flags ?? 0, true)
  view.setUint16(16 * index + 14, descriptor.next ?? 0, true)
}

function getDescriptor(view: DataView, index: number) {
  return {
    addr: Number(view.getBigUint64(16 * index, true)),
    len: view.getUint32(16 * index + 8, true),
    flags: view.getUint16(16 * index + 12, true),
    next: view.getUint16(16 * index + 14, true),
  }
}
