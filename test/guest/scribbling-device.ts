import type { GuestMemory } from '../../protocol/memory.ts'
import type { AccessWidth } from '../../protocol/platform.ts'
import { HostileDevice } from './hostile-device.ts'

const NEXT = 1
const WRITE = 2
const INDIRECT = 4
const INDIRECT_DESC = 1n << 28n
const SECTOR = 512
const DISK_BYTES = 128 * SECTOR

interface Piece {
  readonly at: number
  readonly lengthBytes: number
  readonly writable: boolean
}

/** A request as it was when it was published. */
interface Taken {
  readonly head: number
  /** Addresses of its descriptors. */
  readonly descriptors: readonly number[]
  readonly pieces: readonly Piece[]
  readonly type: number
  readonly sector: number
}

/**
 * A block device that serves every request, from a copy it takes when the request is published, and that writes
 * nonsense over all the driver published as soon as it has it, and again whenever it is asked to: descriptors,
 * their links, the available ring, headers. A driver that never reads back what it published notices nothing.
 */
export class ScribblingDevice extends HostileDevice {
  readonly content: Uint8Array
  readonly #taken: Taken[]
  readonly #view: DataView
  #next: number
  #used: number
  #noise: number
  served: number
  /** Of requests, as they came. */
  readonly types: number[] = []

  constructor(memory: GuestMemory, indirect: boolean) {
    super(memory)
    if (indirect) this.offered |= INDIRECT_DESC
    this.content = new Uint8Array(DISK_BYTES)
    this.#taken = []
    const { buffer, byteOffset, length } = this.memory
    this.#view = new DataView(buffer, byteOffset, length)
    this.#next = 0
    this.#used = 0
    this.#noise = 1
    this.served = 0
  }

  override write(offset: number, width: AccessWidth, value: number): void {
    super.write(offset, width, value)
    if (offset === 0x050) this.#takeAll()
    if (offset !== 0x070 || value !== 0) return
    this.#taken.length = 0
    this.#next = 0
    this.#used = 0
  }

  get outstanding(): number {
    return this.#taken.length
  }

  /** Over everything of the requests that are out. */
  scribble(): void {
    for (const { descriptors, pieces } of this.#taken) {
      for (const at of descriptors) this.#spoil(at, 16)
      const [header] = pieces
      if (header !== undefined) this.#spoil(header.at, header.lengthBytes)
    }
  }

  /** Serves one of those that are out. */
  serve(which: number): void {
    const { queue } = this
    const [one] = this.#taken.splice(which % Math.max(1, this.#taken.length), 1)
    if (queue === null || one === undefined) return
    const writtenBytes = this.#carryOut(one)
    const at = queue.device + 4 + 8 * (this.#used % queue.size)
    this.#view.setUint32(at, one.head, true)
    this.#view.setUint32(at + 4, writtenBytes, true)
    this.#used = (this.#used + 1) & 0xffff
    this.#view.setUint16(queue.device + 2, this.#used, true)
    this.served++
    this.interrupt(1)
  }

  #takeAll(): void {
    const { queue } = this
    if (queue === null) return
    while (this.#view.getUint16(queue.driver + 2, true) !== this.#next) {
      const slot = queue.driver + 4 + 2 * (this.#next % queue.size)
      this.#taken.push(this.#take(queue.descriptors, this.#view.getUint16(slot, true)))
      this.#spoil(slot, 2)
      this.#next = (this.#next + 1) & 0xffff
    }
    this.scribble()
  }

  #take(table: number, head: number): Taken {
    const descriptors: number[] = []
    const pieces: Piece[] = []
    let from = table
    for (let index = head, more = true; more; ) {
      const place = from + 16 * index
      const flags = this.#view.getUint16(place + 12, true)
      const at = Number(this.#view.getBigUint64(place, true))
      descriptors.push(place)
      if ((flags & INDIRECT) !== 0) {
        from = at
        index = 0
        continue
      }
      const lengthBytes = this.#view.getUint32(place + 8, true)
      pieces.push({ at, lengthBytes, writable: (flags & WRITE) !== 0 })
      more = (flags & NEXT) !== 0
      index = this.#view.getUint16(place + 14, true)
    }
    const header = pieces[0]?.at ?? 0
    const type = this.#view.getUint32(header, true)
    return { head, descriptors, pieces, type, sector: Number(this.#view.getBigUint64(header + 8, true)) }
  }

  #carryOut({ type, sector, pieces }: Taken): number {
    this.types.push(type)
    let offset = sector * SECTOR
    let writtenBytes = 0
    for (const { at, lengthBytes, writable } of pieces.slice(1, -1)) {
      const data = this.memory.subarray(at, at + lengthBytes)
      if (writable) data.set(type === 0 ? this.content.subarray(offset, offset + lengthBytes) : [])
      else this.content.set(data, offset)
      if (writable) writtenBytes += lengthBytes
      offset += lengthBytes
    }
    const status = pieces.at(-1)?.at ?? 0
    // GET_ID: a driver asks once.
    this.memory[status] = type === 8 ? 2 : 0
    return writtenBytes + 1
  }

  #spoil(at: number, lengthBytes: number): void {
    for (let index = 0; index < lengthBytes; index++) {
      this.#noise = (Math.imul(this.#noise, 1_103_515_245) + 12_345) >>> 0
      this.memory[at + index] = this.#noise >>> 16
    }
  }
}
