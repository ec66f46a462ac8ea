import { closeSync, openSync, readSync } from 'node:fs'
import { BlkRequest } from '../../protocol/virtio/blk.ts'
import { MMIO_RANGE_BYTES, Mmio } from '../../protocol/virtio/mmio.ts'
import {
  availRingBytes,
  DescFlag,
  usedEventBase,
  VirtqAvail,
  VirtqDesc,
  VirtqUsed,
  VirtqUsedElem,
} from '../../protocol/virtio/ring.ts'
import { Window } from '../../protocol/window.ts'
import type { Access, Notification, Patch, QueueStart, TranscriptEvent } from './linux-driver.ts'

const ACCESS =
  /^memory_region_ops_(read|write) cpu \d+ mr \S+ addr 0x([0-9a-f]+) value 0x([0-9a-f]+) size (\d) name 'virtio-mmio'$/
const COMPLETE = /^virtio_blk_req_complete vdev \S+ req \S+ status (\d+)$/

interface Piece {
  readonly at: number
  readonly lengthBytes: number
  readonly write: boolean
}

/**
 * Turns QEMU's trace into a transcript, and reads guest memory at the moments when it is the device's: between
 * a notification and its answer, which the disk behind QEMU delays. That nothing was answered in the meantime
 * is checked after every reading.
 */
export class LinuxRecorder {
  readonly events: TranscriptEvent[]
  readonly #fd: number
  readonly #registersAt: number
  readonly #registers: Map<number, number>
  #queue: QueueStart | null
  /** Entries of the available ring already recorded. */
  #taken: number
  #pending: Omit<Notification, 'used' | 'status'> | null
  readonly #late: (() => void)[]

  /** @param memoryFile guest memory, from address 0. */
  constructor(memoryFile: string, registersAt: number) {
    this.events = []
    this.#fd = openSync(memoryFile, 'r')
    this.#registersAt = registersAt
    this.#registers = new Map()
    this.#queue = null
    this.#taken = 0
    this.#pending = null
    this.#late = []
  }

  close(): void {
    closeSync(this.#fd)
  }

  line(text: string): void {
    const access = ACCESS.exec(text)
    const complete = COMPLETE.exec(text)
    if (complete !== null) this.#completed(Number(complete[1]))
    if (access === null) return
    const offset = Number.parseInt(access[2] ?? '', 16) - this.#registersAt
    if (!(offset >= 0 && offset < MMIO_RANGE_BYTES)) return
    const width = Number(access[4]) as Access['width']
    // Its event is written with its answer: nothing may come between the two.
    if (this.#pending !== null) throw new Error('a register is accessed while a request is out')
    // QEMU traces 64 bits, whatever the width: only those the driver saw count.
    const value = Number(BigInt(`0x${access[3]}`) & ((1n << BigInt(8 * width)) - 1n))
    // The driver has been told, so the used entry of what was completed is there.
    if (offset === Mmio.InterruptStatus) this.#settle()
    if (access[1] === 'read') this.events.push({ kind: 'read', offset, width, value })
    else this.#write(offset, width, value)
  }

  #write(offset: number, width: Access['width'], value: number): void {
    this.#registers.set(offset, value)
    if (offset === Mmio.QueueReady && value === 1) this.#started()
    if (offset === Mmio.QueueNotify) this.#notified(value)
    else this.events.push({ kind: 'write', offset, width, value })
  }

  #started(): void {
    const address = (low: number, high: number) =>
      (this.#registers.get(low) ?? 0) + (this.#registers.get(high) ?? 0) * 2 ** 32
    this.#queue = {
      kind: 'queue',
      size: this.#registers.get(Mmio.QueueSize) ?? 0,
      descriptors: address(Mmio.QueueDescLow, Mmio.QueueDescHigh),
      driver: address(Mmio.QueueDriverLow, Mmio.QueueDriverHigh),
      device: address(Mmio.QueueDeviceLow, Mmio.QueueDeviceHigh),
    }
    this.#taken = 0
    this.events.push(this.#queue)
  }

  #notified(queue: number): void {
    const place = this.#queue
    if (place === null) throw new Error('a notification without a queue')
    const driver = this.#window(place.driver, availRingBytes(place.size))
    const index = driver.le16(VirtqAvail.idx)
    if (((index - this.#taken) & 0xffff) !== 1 || this.#pending !== null) {
      throw new Error('one request at a time was to be recorded')
    }
    const entry = VirtqAvail.ring + 2 * (this.#taken & (place.size - 1))
    const head = driver.le16(VirtqAvail.ring, entry - VirtqAvail.ring)
    const memory: Patch[] = []
    for (const [from, bytes] of [
      [0, 4],
      [entry, 2],
      [usedEventBase(place.size), 2],
    ] as const) {
      memory.push(this.#patch(place.driver + from, bytes))
    }
    const buffers: Piece[] = []
    this.#chain(place.descriptors, head, memory, buffers)
    for (const { at, lengthBytes, write } of buffers) if (!write) memory.push(this.#patch(at, lengthBytes))
    if (buffers[0]?.lengthBytes !== BlkRequest.$size) throw new Error('a request begins with its header')
    const pieces = (side: boolean) =>
      buffers.filter(({ write }) => write === side).map(({ at, lengthBytes }) => [at, lengthBytes] as const)
    if (this.#usedIndex() !== this.#taken) throw new Error('answered while it was read: record again')
    this.#pending = { kind: 'notify', queue, memory, readable: pieces(false), writable: pieces(true) }
    this.#taken = index
  }

  /** Descriptors from `first` on, those of an indirect table included. */
  #chain(table: number, first: number, memory: Patch[], buffers: Piece[]): void {
    for (let index: number | null = first; index !== null; ) {
      const at: number = table + index * VirtqDesc.$size
      const descriptor = this.#window(at, VirtqDesc.$size)
      memory.push(this.#patch(at, VirtqDesc.$size))
      const flags = descriptor.le16(VirtqDesc.flags)
      const address = descriptor.le64(VirtqDesc.addr)
      const lengthBytes = descriptor.le32(VirtqDesc.len)
      if ((flags & DescFlag.INDIRECT) !== 0) this.#chain(address, 0, memory, buffers)
      else buffers.push({ at: address, lengthBytes, write: (flags & DescFlag.WRITE) !== 0 })
      index = (flags & DescFlag.NEXT) !== 0 ? descriptor.le16(VirtqDesc.next) : null
    }
  }

  /** The used entry follows this line of the trace; it stays in the ring for a round, and is read later. */
  #completed(status: number): void {
    if (this.#pending === null) throw new Error('an answer to no request')
    const place = this.#queue
    if (place === null) throw new Error('an answer without a queue')
    const entry = (this.#taken - 1) & (place.size - 1)
    const pending = this.#pending
    this.#pending = null
    const used: [number, number] = [0, 0]
    this.events.push({ ...pending, used, status })
    this.#late.push(() => {
      const element = this.#window(
        place.device + VirtqUsed.ring + entry * VirtqUsedElem.$size,
        VirtqUsedElem.$size,
      )
      used[0] = element.le32(VirtqUsedElem.id)
      used[1] = element.le32(VirtqUsedElem.len)
    })
  }

  #settle(): void {
    for (const read of this.#late.splice(0)) read()
  }

  #usedIndex(): number {
    return this.#window(this.#queue?.device ?? 0, VirtqUsed.$size).le16(VirtqUsed.idx)
  }

  #patch(at: number, lengthBytes: number): Patch {
    return [at.toString(16), Buffer.from(this.#bytes(at, lengthBytes)).toString('hex')]
  }

  #window(at: number, lengthBytes: number): Window {
    return new Window(this.#bytes(at, lengthBytes))
  }

  #bytes(at: number, lengthBytes: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(lengthBytes)
    if (readSync(this.#fd, bytes, 0, lengthBytes, at) !== lengthBytes) {
      throw new Error(`guest memory ends before 0x${(at + lengthBytes).toString(16)}`)
    }
    return bytes
  }
}
