import type { Descriptor } from '../../native/descriptor.ts'
import { EventDescriptor } from '../../native/event-descriptor.ts'
import { libc } from '../../native/libc.ts'
import { NativeError } from '../../native/native-error.ts'
import { waitFor } from '../../native/poll-set.ts'
import { type Mapping, SharedMemory } from '../../native/shared-memory.ts'
import { UnixSocket } from '../../native/unix-socket.ts'
import { GuestMemory, gpa } from '../../protocol/memory.ts'
import { RawQueue } from '../host/raw-queue.ts'

const PATIENCE_MS = 10_000
const USER = 0x5555_0000_0000
const MEMORY_BYTES = 0x10_0000
const NEED_REPLY = 9
const HEADER_BYTES = 12

/** Message numbers, as the documents give them. */
const GET_FEATURES = 1
const SET_FEATURES = 2
const SET_OWNER = 3
const SET_MEM_TABLE = 5
const SET_VRING_NUM = 8
const SET_VRING_ADDR = 9
const SET_VRING_BASE = 10
const GET_VRING_BASE = 11
const SET_VRING_KICK = 12
const SET_VRING_CALL = 13
const GET_PROTOCOL_FEATURES = 15
const SET_PROTOCOL_FEATURES = 16
const SET_VRING_ENABLE = 18

const HEADER = 0x8000
const STATUS = 0x8100
const DATA = 0x9000

function u64(...values: readonly bigint[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(8 * values.length)
  const view = new DataView(bytes.buffer)
  for (const [index, value] of values.entries()) view.setBigUint64(8 * index, value, true)
  return bytes
}

function pair(index: number, num: number): Uint8Array<ArrayBuffer> {
  return u64(BigInt(index) + BigInt(num) * 2n ** 32n)
}

/** Somebody else's front-end, as plain as can be: one ring, one request at a time, bytes at literal offsets. */
export class PlainFrontEnd {
  readonly socket: UnixSocket
  readonly #memory: SharedMemory
  readonly #mapping: Mapping
  readonly #kick: EventDescriptor
  readonly #call: EventDescriptor
  readonly #queue: RawQueue
  features = 0n

  /** @throws when nobody listens there. */
  constructor(at: string | UnixSocket, { sealed = true }: { readonly sealed?: boolean } = {}) {
    const socket = typeof at === 'string' ? UnixSocket.connect(at) : at
    if (socket instanceof NativeError) throw socket
    this.socket = socket
    this.#memory = SharedMemory.create('guest', MEMORY_BYTES, { sealed })
    this.#mapping = this.#memory.map()
    this.#kick = EventDescriptor.create()
    this.#call = EventDescriptor.create()
    const memory = new GuestMemory([{ base: gpa(0), bytes: this.#mapping.bytes, shared: true }])
    this.#queue = new RawQueue(memory, { size: 16, descriptors: 0x1000, driver: 0x2000, device: 0x3000 })
  }

  /** From the first message to a ring that runs. False when memory was refused. */
  start(): boolean {
    this.features = this.#ask(GET_FEATURES)
    this.#ask(GET_PROTOCOL_FEATURES)
    this.#tell(SET_PROTOCOL_FEATURES, u64(8n))
    this.#tell(SET_OWNER)
    this.#tell(SET_FEATURES, u64(this.features & ~(1n << 26n)))
    const table = u64(1n, 0n, BigInt(MEMORY_BYTES), BigInt(USER), 0n)
    if (this.#ask(SET_MEM_TABLE, table, [this.#memory.descriptor], NEED_REPLY) !== 0n) return false
    this.#tell(SET_VRING_NUM, pair(0, 16))
    this.#tell(SET_VRING_BASE, pair(0, 0))
    const at = (offset: number) => BigInt(USER + offset)
    this.#tell(SET_VRING_ADDR, u64(0n, at(0x1000), at(0x3000), at(0x2000), 0n))
    this.#tell(SET_VRING_CALL, u64(0n), [this.#call.descriptor])
    this.#tell(SET_VRING_KICK, u64(0n), [this.#kick.descriptor])
    return this.#ask(SET_VRING_ENABLE, pair(0, 1), [], NEED_REPLY) === 0n
  }

  write(sector: number, bytes: Uint8Array): number {
    this.#mapping.bytes.set(bytes, DATA)
    return this.#request(1, sector, bytes.length)
  }

  read(sector: number, lengthBytes: number): Uint8Array {
    this.#mapping.bytes.fill(0x5a, DATA, DATA + lengthBytes)
    const status = this.#request(0, sector, lengthBytes)
    if (status !== 0) throw new Error(`a read is answered with status ${status}`)
    return this.#mapping.bytes.slice(DATA, DATA + lengthBytes)
  }

  /** Where the ring stands, from the answer of its stop. */
  stop(): number {
    return Number(this.#ask(GET_VRING_BASE, pair(0, 0)) >> 32n)
  }

  /** Makes the memory it shared shorter, and rings: whoever looks finds nothing there. */
  shrink(): void {
    libc().ftruncate(this.#memory.descriptor.number, 0)
    this.#kick.signal()
  }

  /** Sends any bytes as they are. */
  raw(bytes: Uint8Array): void {
    this.socket.send(bytes)
  }

  /** True once the other end has closed the connection. */
  closedByPeer(): boolean {
    if (!waitFor(this.socket.descriptor, 'readable', PATIENCE_MS)) return false
    const received = this.socket.receive(new Uint8Array(64), [])
    return received === 0 || received instanceof NativeError
  }

  close(): void {
    this.socket.close()
    this.#kick.close()
    this.#call.close()
    this.#mapping.close()
    this.#memory.close()
  }

  #request(type: number, sector: number, lengthBytes: number): number {
    const view = new DataView(this.#mapping.bytes.buffer, this.#mapping.bytes.byteOffset)
    view.setUint32(HEADER, type, true)
    view.setBigUint64(HEADER + 8, BigInt(sector), true)
    view.setUint8(STATUS, 0xff)
    this.#queue.offer([
      { at: HEADER, lengthBytes: 16, write: false },
      { at: DATA, lengthBytes, write: type === 0 },
      { at: STATUS, lengthBytes: 1, write: true },
    ])
    this.#queue.wantEvent(this.#queue.usedIndex)
    this.#queue.publish()
    this.#kick.signal()
    while (this.#queue.reap() === null) {
      if (!waitFor(this.#call.descriptor, 'readable', PATIENCE_MS))
        throw new Error('a request is not answered')
      this.#call.drain()
    }
    return view.getUint8(STATUS)
  }

  #tell(
    code: number,
    payload: Uint8Array = new Uint8Array(0),
    descriptors: readonly Descriptor[] = [],
    flags = 1,
  ): void {
    const bytes = new Uint8Array(HEADER_BYTES + payload.length)
    const view = new DataView(bytes.buffer)
    view.setUint32(0, code, true)
    view.setUint32(4, flags, true)
    view.setUint32(8, payload.length, true)
    bytes.set(payload, HEADER_BYTES)
    if (this.socket.send(bytes, descriptors) !== bytes.length) throw new Error('a message is not sent')
  }

  /** The integer that comes back. */
  #ask(code: number, payload?: Uint8Array, descriptors?: readonly Descriptor[], flags?: number): bigint {
    this.#tell(code, payload, descriptors, flags)
    const answer = new Uint8Array(HEADER_BYTES + 8)
    for (let at = 0; at < answer.length; ) {
      if (!waitFor(this.socket.descriptor, 'readable', PATIENCE_MS)) throw new Error('no answer')
      const received = this.socket.receive(answer.subarray(at), [])
      if (received instanceof NativeError || received === 0) throw new Error('the connection is closed')
      at += Math.max(0, received)
    }
    const view = new DataView(answer.buffer)
    if (view.getUint32(0, true) !== code || view.getUint32(4, true) !== 5) throw new Error('a strange answer')
    return view.getBigUint64(HEADER_BYTES, true)
  }
}
