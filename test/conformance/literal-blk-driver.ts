import type { DeviceUnderTest } from './device-subject.ts'
import {
  ACK,
  DRIVER_OK,
  DRV,
  FEATURES_OK,
  NEXT,
  type Piece,
  R,
  S_NONE,
  SECTOR,
  WRITE,
} from './literal-registers.ts'
import type { FeatureName, Gate } from './requirement-case.ts'
import { FEATURE_BITS, hold, Inapplicable } from './requirement-case.ts'

export interface Posted {
  readonly head: number
  readonly headerAt: number
  readonly dataAt: number
  readonly dataBytes: number
  readonly statusAt: number
}

export interface Used {
  readonly id: number
  readonly len: number
}

/** Entries of the queue; the areas lie at these offsets from the free memory. */
const SIZE = 8
const DESCRIPTORS = 0x000
const AVAILABLE = 0x400
const USED = 0x800
const TABLES = 0xc00
const SLOTS = 0x1000
const SLOT_BYTES = 0x1000
const SLOT_COUNT = 8
const RESET_LOOKS = 100

/**
 * A driver written from the clauses with no cleverness: it does what a case tells it to, lawful or not, and sees
 * every byte. It knows nothing of the drivers and rings of this repository.
 */
export class LiteralBlkDriver {
  readonly device: DeviceUnderTest
  /** Entries of the queue, until another size is set. */
  readonly size = SIZE
  readonly #gate: readonly Gate[]
  #entries: number
  #available: number
  #used: number
  #descriptor: number
  #slot: number

  constructor(device: DeviceUnderTest, gate: readonly Gate[]) {
    this.device = device
    this.#gate = gate
    this.#entries = SIZE
    this.#available = 0
    this.#used = 0
    this.#descriptor = 0
    this.#slot = 0
  }

  // Registers.

  get(offset: number): number {
    return this.device.read(offset, 4) >>> 0
  }

  put(offset: number, value: number): void {
    this.device.write(offset, 4, value)
  }

  config(offset: number, width: 1 | 2 | 4): number {
    return this.device.read(R.config + offset, width)
  }

  get capacity(): number {
    return this.config(0, 4) + this.config(4, 4) * 2 ** 32
  }

  /** Bits 0 to 63: what lies above is nobody's yet. */
  offered(): bigint {
    this.put(R.deviceFeaturesSel, 1)
    const high = this.get(R.deviceFeatures)
    this.put(R.deviceFeaturesSel, 0)
    return (BigInt(high) << 32n) | BigInt(this.get(R.deviceFeatures))
  }

  offers(feature: FeatureName): boolean {
    return ((this.offered() >> BigInt(FEATURE_BITS[feature])) & 1n) === 1n
  }

  // Initialization, VIRTIO 1.2 section 3.1.1.

  /** Writes 0 to status and waits until it reads 0. */
  reset(): void {
    this.put(R.status, 0)
    for (let left = RESET_LOOKS; left > 0 && this.get(R.status) !== 0; left--) {
      this.device.run(() => this.get(R.status) === 0)
    }
  }

  /** Resets queue 0 and waits until that is done. */
  resetQueue(): void {
    this.put(R.queueSel, 0)
    this.put(R.queueReset, 1)
    this.device.run(() => this.get(R.queueReset) === 0)
  }

  /** The features of the case's gate, and VERSION_1. @throws Inapplicable when one is not offered. */
  wanted(): bigint {
    let wanted = 1n << BigInt(FEATURE_BITS.VERSION_1)
    for (const name of Object.keys(FEATURE_BITS) as FeatureName[]) {
      if (!this.#gate.includes(name)) continue
      if (!this.offers(name)) throw new Inapplicable(`${name} is not offered`)
      wanted |= 1n << BigInt(FEATURE_BITS[name])
    }
    return wanted
  }

  writeFeatures(features: bigint): void {
    this.put(R.driverFeaturesSel, 1)
    this.put(R.driverFeatures, Number(features >> 32n))
    this.put(R.driverFeaturesSel, 0)
    this.put(R.driverFeatures, Number(features & 0xffff_ffffn))
  }

  /** Up to FEATURES_OK; whether it stays. */
  negotiate(features: bigint = this.wanted()): boolean {
    this.put(R.status, ACK)
    this.put(R.status, ACK | DRV)
    this.writeFeatures(features)
    this.put(R.status, ACK | DRV | FEATURES_OK)
    return (this.get(R.status) & FEATURES_OK) !== 0
  }

  /** Places queue 0 in zeroed memory; ready unless told otherwise. */
  setQueue(ready = true, size = SIZE): void {
    const { freeAt } = this.device
    this.device.poke(freeAt, new Uint8Array(SLOTS))
    this.#entries = size
    this.#available = 0
    this.#used = 0
    this.#descriptor = 0
    this.#slot = 0
    this.put(R.queueSel, 0)
    this.put(R.queueSize, size)
    for (const [register, offset] of [
      [R.queueDesc, DESCRIPTORS],
      [R.queueDriver, AVAILABLE],
      [R.queueDevice, USED],
    ] as const) {
      this.put(register, freeAt + offset)
      this.put(register + 4, 0)
    }
    if (ready) this.put(R.queueReady, 1)
  }

  driverOk(): void {
    this.put(R.status, ACK | DRV | FEATURES_OK | DRIVER_OK)
  }

  /** The whole way, from a reset on. */
  bringUp(features: bigint = this.wanted()): void {
    this.reset()
    hold(this.negotiate(features), `FEATURES_OK does not stay with features 0x${features.toString(16)}`)
    this.setQueue()
    this.driverOk()
  }

  // The queue, VIRTIO 1.2 section 2.7.

  describe(index: number, piece: Piece, next: number): void {
    this.device.poke(this.device.freeAt + DESCRIPTORS + 16 * index, descriptorBytes(piece, next))
  }

  /** Writes a table where nothing else lies and says where. */
  table(pieces: readonly Piece[]): number {
    const at = this.device.freeAt + TABLES
    for (const [index, piece] of pieces.entries()) {
      const last = index === pieces.length - 1
      const linked = last ? piece : { ...piece, flags: piece.flags | NEXT }
      this.device.poke(at + 16 * index, descriptorBytes(linked, last ? 0 : index + 1))
    }
    return at
  }

  /** Puts a chain into fresh descriptors and shows it; its head. */
  post(pieces: readonly Piece[]): number {
    const head = this.#descriptor
    for (const [index, piece] of pieces.entries()) {
      const last = index === pieces.length - 1
      const at = (head + index) % this.#entries
      this.describe(
        at,
        last ? piece : { ...piece, flags: piece.flags | NEXT },
        last ? 0 : (at + 1) % this.#entries,
      )
    }
    this.#descriptor = (head + pieces.length) % this.#entries
    this.#put16(AVAILABLE + 4 + 2 * (this.#available % this.#entries), head)
    this.#available++
    this.#put16(AVAILABLE + 2, this.#available % 65536)
    return head
  }

  kick(): void {
    this.put(R.queueNotify, 0)
  }

  availableFlags(value: number): void {
    this.#put16(AVAILABLE, value)
  }

  usedEvent(value: number): void {
    this.#put16(AVAILABLE + 4 + 2 * this.#entries, value % 65536)
  }

  get usedFlags(): number {
    return this.#get16(USED)
  }

  get usedIndex(): number {
    return this.#get16(USED + 2)
  }

  /** Everything the device may only read: the table and the available ring. */
  driverArea(): Uint8Array {
    return this.device.peek(this.device.freeAt, USED)
  }

  /** The next used element, waiting for it. @throws Broken when none comes. */
  reap(): Used {
    this.device.run(() => this.usedIndex !== this.#used % 65536)
    hold(this.usedIndex !== this.#used % 65536, 'the device does not use a buffer it was given')
    const at = this.device.freeAt + USED + 4 + 8 * (this.#used % this.#entries)
    const bytes = view(this.device.peek(at, 8))
    this.#used++
    return { id: bytes.getUint32(0, true), len: bytes.getUint32(4, true) }
  }

  /** Gives the device time for what it should not do. */
  idle(): void {
    this.device.idle()
  }

  // Block requests, VIRTIO 1.2 section 5.2.6.

  /** Room for a request, filled: header, data (0xcc where the device is to write), status 0xee. */
  slot(type: number, sector: number, data: Uint8Array | number): Posted {
    const headerAt = this.device.freeAt + SLOTS + SLOT_BYTES * this.#slot
    this.#slot = (this.#slot + 1) % SLOT_COUNT
    const bytes = typeof data === 'number' ? new Uint8Array(data).fill(0xcc) : data
    const posted = {
      head: -1,
      headerAt,
      dataAt: headerAt + 16,
      dataBytes: bytes.length,
      statusAt: headerAt + 16 + bytes.length,
    }
    this.device.poke(headerAt, headerBytes(type, sector))
    if (bytes.length > 0) this.device.poke(posted.dataAt, bytes)
    this.device.poke(posted.statusAt, Uint8Array.of(S_NONE))
    return posted
  }

  /** Header, data if there is any, status: each its own descriptor. `data` is bytes to give, or how many to get. */
  submit(type: number, sector: number, data: Uint8Array | number = 0): Posted {
    const slot = this.slot(type, sector, data)
    const { headerAt, dataAt, dataBytes, statusAt } = slot
    const direction = typeof data === 'number' ? WRITE : 0
    const head = this.post([
      { at: headerAt, lengthBytes: 16, flags: 0 },
      ...(dataBytes > 0 ? [{ at: dataAt, lengthBytes: dataBytes, flags: direction }] : []),
      { at: statusAt, lengthBytes: 1, flags: WRITE },
    ])
    return { ...slot, head }
  }

  /** Submits, rings, waits; what came back. */
  ask(
    type: number,
    sector: number,
    data: Uint8Array | number = 0,
  ): Used & { status: number; data: Uint8Array } {
    const posted = this.submit(type, sector, data)
    this.kick()
    const used = this.reap()
    const bytes = this.device.peek(posted.dataAt, posted.dataBytes)
    return { ...used, status: this.statusOf(posted), data: bytes }
  }

  statusOf({ statusAt }: Posted): number {
    return this.device.peek(statusAt, 1)[0] ?? -1
  }

  #put16(offset: number, value: number): void {
    this.device.poke(this.device.freeAt + offset, Uint8Array.of(value & 0xff, value >>> 8))
  }

  #get16(offset: number): number {
    return view(this.device.peek(this.device.freeAt + offset, 2)).getUint16(0, true)
  }
}

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
}

function descriptorBytes({ at, lengthBytes, flags }: Piece, next: number): Uint8Array {
  const bytes = new Uint8Array(16)
  const into = view(bytes)
  into.setBigUint64(0, BigInt(at), true)
  into.setUint32(8, lengthBytes, true)
  into.setUint16(12, flags, true)
  into.setUint16(14, next, true)
  return bytes
}

function headerBytes(type: number, sector: number): Uint8Array {
  const bytes = new Uint8Array(16)
  const into = view(bytes)
  into.setUint32(0, type, true)
  into.setBigUint64(8, BigInt(sector), true)
  return bytes
}

/** One range of a discard or write zeroes. */
export function segmentBytes(sector: number, sectors: number, flags: number): Uint8Array {
  const bytes = new Uint8Array(16)
  const into = view(bytes)
  into.setBigUint64(0, BigInt(sector), true)
  into.setUint32(8, sectors, true)
  into.setUint32(12, flags, true)
  return bytes
}

/** A sector's worth of bytes that are nowhere zero and differ from seed to seed. */
export function pattern(seed: number, lengthBytes = SECTOR): Uint8Array {
  return Uint8Array.from({ length: lengthBytes }, (_, i) => 1 + ((i * 7 + seed * 31) % 251))
}

export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i])
}
