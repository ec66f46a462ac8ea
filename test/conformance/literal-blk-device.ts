import type { AccessWidth } from '../../protocol/platform.ts'
import type { DriverMachine } from './driver-subject.ts'
import {
  DRIVER_OK,
  FEATURES_OK,
  INDIRECT,
  NEXT,
  type Piece,
  R,
  S_OK,
  SECTOR,
  T_IN,
  WRITE,
} from './literal-registers.ts'
import { FEATURE_BITS, type FeatureName, hold } from './requirement-case.ts'

export interface LoggedAccess {
  readonly kind: 'read' | 'write'
  readonly offset: number
  readonly width: AccessWidth
  readonly value: number
}

/** What the device is like; an ordinary one where nothing is said. */
export interface Personality {
  /** Offered besides VERSION_1. */
  readonly features?: readonly FeatureName[]
  /** Offered besides those, by bit: what no driver may take. */
  readonly strange?: bigint
  readonly versionOne?: boolean
  readonly magic?: number
  readonly version?: number
  readonly deviceId?: number
  readonly queueMax?: number
  readonly sectors?: number
  /** FEATURES_OK never stays. */
  readonly refuses?: boolean
  /** Reads of status that find a reset still under way. */
  readonly resetLooks?: number
}

/** A chain as it lay in memory when the device came for it. */
export interface TakenChain {
  readonly head: number
  /** Descriptors of the queue's own table that it takes, in order. */
  readonly direct: readonly number[]
  readonly pieces: readonly Piece[]
  /** Flags of each descriptor that named a table. */
  readonly tables: readonly {
    readonly flags: number
    readonly nested: boolean
    readonly lengthBytes: number
  }[]
  readonly type: number
  readonly sector: number
}

/** Type, reserved, sector; the driver may put it into several pieces, ours does not. */
const HEADER_BYTES = 16
const MEMORY_BYTES = 2 ** 20
/** Longer than any chain a queue of 256 can hold, tables included. */
const WALK_MAX = 1024
const CAUSE_USED = 1
const CAUSE_CONFIG = 2

/**
 * A block device written from the clauses with no cleverness: registers remember what is written, every access
 * is logged, and it takes and uses buffers when a case says so. It knows nothing of the devices and rings of
 * this repository, and does what a case tells it to, lawful or not.
 */
export class LiteralBlkDevice implements DriverMachine {
  readonly bytes: Uint8Array<ArrayBuffer>
  readonly log: LoggedAccess[]
  /** Every chain taken, oldest first. */
  readonly taken: TakenChain[]
  /** Runs after each logged access. */
  after: ((access: LoggedAccess) => void) | null
  /** What `after` threw first: kept from the driver, which is in the middle of something. */
  trouble: unknown
  sectors: number
  generation: number
  readonly #view: DataView
  readonly #personality: Personality
  readonly #written: Map<number, number>
  readonly #accepted: [number, number, number, number]
  #status: number
  #resetLooks: number
  #causes: number
  #next: number
  #used: number

  constructor(personality: Personality) {
    this.bytes = new Uint8Array(MEMORY_BYTES)
    this.log = []
    this.taken = []
    this.after = null
    this.trouble = null
    this.sectors = personality.sectors ?? 256
    this.generation = 7
    this.#view = new DataView(this.bytes.buffer)
    this.#personality = personality
    this.#written = new Map()
    this.#accepted = [0, 0, 0, 0]
    this.#status = 0
    this.#resetLooks = 0
    this.#causes = 0
    this.#next = 0
    this.#used = 0
  }

  // What a driver reaches.

  read(offset: number, width: AccessWidth): number {
    const value = this.#value(offset, width) >>> 0
    this.#note({ kind: 'read', offset, width, value })
    return value
  }

  write(offset: number, width: AccessWidth, value: number): void {
    this.#written.set(offset, value)
    if (offset === R.driverFeatures) this.#accepted[this.#word(R.driverFeaturesSel)] = value
    if (offset === R.interruptAck) this.#causes &= ~value
    if (offset === R.status) this.#writeStatus(value)
    this.#note({ kind: 'write', offset, width, value })
  }

  level(): boolean {
    return this.#causes !== 0
  }

  // What a case sees.

  get status(): number {
    return this.#status
  }

  get running(): boolean {
    return (this.#status & DRIVER_OK) !== 0
  }

  get offered(): bigint {
    const { features = ['SEG_MAX', 'BLK_SIZE', 'FLUSH'], strange = 0n, versionOne = true } = this.#personality
    const names: FeatureName[] = versionOne ? [...features, 'VERSION_1'] : [...features]
    return names.reduce((all, name) => all | (1n << BigInt(FEATURE_BITS[name])), strange)
  }

  get accepted(): bigint {
    return this.#accepted.reduce((all, word, index) => all | (BigInt(word) << BigInt(32 * index)), 0n)
  }

  took(feature: FeatureName): boolean {
    return ((this.accepted >> BigInt(FEATURE_BITS[feature])) & 1n) === 1n
  }

  /** Values written to a register, in order. */
  writes(offset: number): number[] {
    return this.log.filter((one) => one.kind === 'write' && one.offset === offset).map(({ value }) => value)
  }

  /** Entries of queue 0. */
  get size(): number {
    return this.#written.get(R.queueSize) ?? 0
  }

  area(register: number): number {
    return (this.#written.get(register) ?? 0) + (this.#written.get(register + 4) ?? 0) * 2 ** 32
  }

  get available(): { readonly flags: number; readonly index: number; readonly usedEvent: number } {
    const at = this.area(R.queueDriver)
    return {
      flags: this.#view.getUint16(at, true),
      index: this.#view.getUint16(at + 2, true),
      usedEvent: this.#view.getUint16(at + 4 + 2 * this.size, true),
    }
  }

  get usedFlags(): number {
    return this.#view.getUint16(this.area(R.queueDevice), true)
  }

  // What a case does.

  setUsedFlags(value: number): void {
    this.#view.setUint16(this.area(R.queueDevice), value, true)
  }

  setAvailableEvent(value: number): void {
    this.#view.setUint16(this.area(R.queueDevice) + 4 + 8 * this.size, value % 65536, true)
  }

  /** Entries taken since the last reset. */
  get takenCount(): number {
    return this.#next
  }

  /** The next chain that was made available, or null. @throws Broken when it cannot be walked. */
  take(): TakenChain | null {
    if (!this.running || this.size === 0 || this.available.index === this.#next % 65536) return null
    const head = this.#view.getUint16(this.area(R.queueDriver) + 4 + 2 * (this.#next % this.size), true)
    this.#next++
    const chain = this.#walk(head)
    this.taken.push(chain)
    return chain
  }

  /** Answers a chain; data of a read is filled with 0x5a. No interrupt. */
  use(chain: TakenChain, status: number = S_OK): void {
    const writable = chain.pieces.filter(({ flags }) => (flags & WRITE) !== 0)
    const length = writable.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0)
    if (chain.type === T_IN && length <= this.bytes.length)
      for (const { at, lengthBytes } of writable) this.bytes.fill(0x5a, at, at + lengthBytes)
    const last = writable.at(-1)
    if (last !== undefined) this.bytes[last.at + last.lengthBytes - 1] = status
    const at = this.area(R.queueDevice)
    this.#view.setUint32(at + 4 + 8 * (this.#used % this.size), chain.head, true)
    this.#view.setUint32(at + 8 + 8 * (this.#used % this.size), length, true)
    this.#used++
    this.#view.setUint16(at + 2, this.#used % 65536, true)
  }

  /** Takes and answers everything there is, and raises the line; how many that were. */
  serve(): number {
    let count = 0
    for (let chain = this.take(); chain !== null; chain = this.take()) {
      this.use(chain)
      count++
    }
    if (this.running) this.setAvailableEvent(this.#next)
    if (count > 0) this.interrupt(CAUSE_USED)
    return count
  }

  interrupt(causes: number): void {
    this.#causes |= causes
  }

  /** Another capacity, told as the specification has it. */
  resize(sectors: number): void {
    this.sectors = sectors
    this.generation++
    this.interrupt(CAUSE_CONFIG)
  }

  /** The bytes of a chain's own descriptors, tables included. */
  descriptorsOf(chain: TakenChain): Uint8Array {
    const table = this.area(R.queueDesc)
    const parts: number[] = []
    for (const index of chain.direct) {
      const at = table + 16 * index
      parts.push(...this.bytes.subarray(at, at + 16))
      if ((this.#view.getUint16(at + 12, true) & INDIRECT) === 0) continue
      const from = Number(this.#view.getBigUint64(at, true))
      parts.push(...this.bytes.subarray(from, from + this.#view.getUint32(at + 8, true)))
    }
    return Uint8Array.from(parts)
  }

  #note(access: LoggedAccess): void {
    this.log.push(access)
    try {
      this.after?.(access)
    } catch (error) {
      this.trouble ??= error
    }
  }

  #word(register: number): 0 | 1 | 2 | 3 {
    return ((this.#written.get(register) ?? 0) & 3) as 0 | 1 | 2 | 3
  }

  #writeStatus(value: number): void {
    if (value !== 0) {
      this.#status = this.#personality.refuses === true ? value & ~FEATURES_OK : value
      return
    }
    this.#resetLooks = this.#status === 0 ? 0 : (this.#personality.resetLooks ?? 0)
    if (this.#resetLooks === 0) this.#status = 0
    this.#causes = 0
    this.#next = 0
    this.#used = 0
    this.#written.set(R.queueReady, 0)
    this.#accepted.fill(0)
  }

  #readStatus(): number {
    if (this.#resetLooks > 0) {
      this.#resetLooks--
      if (this.#resetLooks === 0) this.#status = 0
    }
    return this.#status
  }

  #value(offset: number, width: AccessWidth): number {
    const { magic = 0x7472_6976, version = 2, deviceId = 2, queueMax = 16 } = this.#personality
    if (offset >= R.config) return this.#config(offset - R.config, width)
    switch (offset) {
      case R.magic:
        return magic
      case R.version:
        return version
      case R.deviceId:
        return deviceId
      case R.deviceFeatures:
        return Number(
          (this.offered >> BigInt(32 * (this.#written.get(R.deviceFeaturesSel) ?? 0))) & 0xffff_ffffn,
        )
      case R.queueSizeMax:
        return (this.#written.get(R.queueSel) ?? 0) === 0 ? queueMax : 0
      case R.queueReady:
        return this.#written.get(R.queueReady) ?? 0
      case R.interruptStatus:
        return this.#causes
      case R.status:
        return this.#readStatus()
      case R.generation:
        return this.generation
      default:
        return 0
    }
  }

  /** Capacity, seg_max, blk_size, and the limits of discard and write zeroes, VIRTIO 1.2 section 5.2.4. */
  #config(offset: number, width: AccessWidth): number {
    const bytes = new DataView(new ArrayBuffer(64))
    bytes.setBigUint64(0, BigInt(this.sectors), true)
    bytes.setUint32(12, 6, true)
    bytes.setUint32(20, SECTOR, true)
    for (const at of [36, 48]) bytes.setUint32(at, 1024, true)
    for (const at of [40, 52]) bytes.setUint32(at, 4, true)
    let value = 0
    for (let i = width - 1; i >= 0; i--)
      value = value * 256 + (offset + i < 64 ? bytes.getUint8(offset + i) : 0)
    return value
  }

  #walk(head: number): TakenChain {
    const direct: number[] = []
    const pieces: Piece[] = []
    const tables: { flags: number; nested: boolean; lengthBytes: number }[] = []
    let table = this.area(R.queueDesc)
    let inside = false
    let left = WALK_MAX
    for (let index = head; left > 0; left--) {
      const at = table + 16 * index
      hold(at + 16 <= this.bytes.length, `descriptor ${index} lies outside memory`)
      if (!inside) direct.push(index)
      const piece = {
        at: Number(this.#view.getBigUint64(at, true)),
        lengthBytes: this.#view.getUint32(at + 8, true),
        flags: this.#view.getUint16(at + 12, true),
      }
      if ((piece.flags & INDIRECT) !== 0) {
        tables.push({ flags: piece.flags, nested: inside, lengthBytes: piece.lengthBytes })
        table = piece.at
        inside = true
        index = 0
        continue
      }
      pieces.push(piece)
      if ((piece.flags & NEXT) === 0) break
      index = this.#view.getUint16(at + 14, true)
    }
    hold(left > 0, `the chain at head ${head} has no end`)
    const header = pieces[0]?.at ?? 0
    const whole = (pieces[0]?.lengthBytes ?? 0) >= HEADER_BYTES && header + HEADER_BYTES <= this.bytes.length
    return {
      head,
      direct,
      pieces,
      tables,
      type: whole ? this.#view.getUint32(header, true) : -1,
      sector: whole ? Number(this.#view.getBigUint64(header + 8, true)) : -1,
    }
  }
}
