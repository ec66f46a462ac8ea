import { GuestMemory, gpa } from '../../protocol/memory.ts'
import type { RequirementId } from '../../protocol/requirement.ts'
import type { LiteralBuffer } from './literal-driver.ts'
import type { LiteralDescriptor, LiteralRing } from './literal-ring.ts'
import { L_NEXT } from './literal-ring.ts'

/**
 * What a device does with a chain, in the words of fault catalogues: it carries it out (`ok`), gives it back
 * unused and goes on (`drop`), or stops taking anything until it is reset (`fault`).
 */
export type ChainOutcome = 'ok' | 'drop' | 'fault'

/** A chain that breaks a rule, or looks as if it did and is legal (`rule` null): too strict is a fault too. */
export interface HostileChain {
  /** Its kind, H01 … H10. */
  readonly kind: string
  readonly what: string
  readonly rule: RequirementId | null
  readonly outcome: ChainOutcome
  /** Without INDIRECT_DESC; with it when left out. */
  readonly indirect?: false
  /** Needs a queue of this many entries; any of 8 or more when left out. */
  readonly size?: number
  /** Comes back to descriptors it has been through: a device may read those again, up to its budget. */
  readonly loops?: true
  readonly plant: (scene: HostileScene) => void
}

/** Where a chain is planted: a driver that may do anything, on memory with a seam and a gap. */
export class HostileScene {
  readonly ring: LiteralRing
  /** Writable and readable buffers that a legal chain is expected to arrive as. */
  readonly expected: LiteralBuffer[]
  /** Indirect tables planted: where a device may read besides the ring. */
  readonly tables: { readonly at: number; readonly lengthBytes: number }[]
  readonly ground: HostileGround
  #entry: number

  constructor(ring: LiteralRing, ground: HostileGround, start: number) {
    this.ring = ring
    this.expected = []
    this.tables = []
    this.ground = ground
    this.#entry = start
  }

  get size(): number {
    return this.ring.size
  }

  /** The next entry to offer, counted from the beginning of time. */
  get entry(): number {
    return this.#entry
  }

  /** Offers a head and shows it. */
  offer(head: number): void {
    this.ring.offer(this.#entry, head)
    this.#entry++
    this.ring.availableIndex(this.#entry)
  }

  /** Plants descriptors 0, 1, … and offers the first. */
  chain(descriptors: readonly LiteralDescriptor[]): void {
    for (const [index, descriptor] of descriptors.entries()) this.ring.describe(index, descriptor)
    this.offer(0)
  }

  /** Plants a table where a device can reach it and says where. */
  table(descriptors: readonly LiteralDescriptor[], at = this.ground.table): number {
    this.ring.table(at, descriptors)
    this.tables.push({ at, lengthBytes: 16 * descriptors.length })
    return at
  }

  /** Plants a table of one entry where adjacent regions meet: its first half lies below the seam. */
  tableAcross(descriptor: LiteralDescriptor): number {
    const { addr, len, flags = 0, next = 0 } = descriptor
    const at = this.ground.seam - 8
    const whole = new DataView(new ArrayBuffer(16))
    whole.setBigUint64(0, BigInt(addr), true)
    whole.setUint32(8, len, true)
    whole.setUint16(12, flags, true)
    whole.setUint16(14, next, true)
    for (const { base, bytes } of this.ground.memory.regions) {
      for (let i = 0; i < 16; i++) {
        const where = at + i - base
        if (where >= 0 && where < bytes.length) bytes[where] = whole.getUint8(i)
      }
    }
    this.tables.push({ at, lengthBytes: 16 })
    return at
  }

  /** `count` one-byte buffers in a row, the last leading on to `next` when it is given. */
  row(count: number, next?: number): LiteralDescriptor[] {
    return Array.from({ length: count }, (_, i) => {
      const last = i === count - 1
      return {
        addr: this.ground.data + i,
        len: 1,
        flags: last && next === undefined ? 0 : L_NEXT,
        next: last ? (next ?? 0) : i + 1,
      }
    })
  }

  expect(at: number, lengthBytes: number, write: boolean): void {
    this.expected.push({ at, lengthBytes, write })
  }
}

/** Addresses the chains play with. */
export interface HostileGround {
  readonly memory: GuestMemory
  /** A few pages of plain memory. */
  readonly data: number
  /** Room for a table of 256 descriptors, 16-aligned. */
  readonly table: number
  /** Where two adjacent regions meet. */
  readonly seam: number
  /** First address of a gap, and the first after it. */
  readonly gap: number
  readonly afterGap: number
  /** First address after all memory, above 4 GiB. */
  readonly end: number
  /** At least 16 MiB in one region, when the case asks for a queue of 256. */
  readonly vast: number
}

const REGION_BYTES = 0x2_0000
const HIGH = 2 ** 32

/** Two adjacent regions, a gap, one above it, and one above 4 GiB. `vastBytes` is the size of the last. */
export function hostileGround(vastBytes = REGION_BYTES): HostileGround {
  const region = (base: number, lengthBytes = REGION_BYTES) => ({
    base: gpa(base),
    bytes: new Uint8Array(lengthBytes),
  })
  const memory = new GuestMemory([
    region(0),
    region(REGION_BYTES),
    region(8 * REGION_BYTES),
    region(HIGH, vastBytes),
  ])
  return {
    memory,
    data: 0x1_0000,
    table: 0x1_8000,
    seam: REGION_BYTES,
    gap: 2 * REGION_BYTES,
    afterGap: 8 * REGION_BYTES,
    end: HIGH + vastBytes,
    vast: HIGH,
  }
}
