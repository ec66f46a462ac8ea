import type { Gpa, Region } from '../../protocol/memory.ts'
import { GuestMemory, gpa, PAGE_BYTES } from '../../protocol/memory.ts'
import type { RequirementId } from '../../protocol/requirement.ts'
import { VhostUserRegion } from '../../protocol/vhost-user/payload.ts'
import type { Window } from '../../protocol/window.ts'
import type { PeerDescriptor, PeerEdge, PeerMemory } from './edge.ts'

/** Slots of ADD_MEM_REG. A walk over the table is short, and mappings are not ours to pay for without end. */
export const MEMORY_SLOTS = 32

/** A longer region is more views: an array has fewer bytes than a guest may have in one region. */
const PIECE_BYTES = 0x4000_0000

/**
 * 256 GiB in all. Mapping a piece takes milliseconds in which nobody is answered, and a file without data can be of any
 * length: without an end a front-end stops its back-end with one message.
 */
export const MEMORY_PIECES = 256

/** One region as the front-end describes it: numbers of a peer, checked by `askBroken` before anything else. */
export interface AskedRegion {
  readonly guest: number
  readonly user: number
  readonly sizeBytes: number
  readonly offset: number
}

/** What is wrong with a request, in the numbers of a violation. */
export interface Broken {
  readonly rule: RequirementId
  readonly seen: number
  readonly expected: number
}

interface Slot extends AskedRegion {
  readonly pieces: readonly PeerMemory[]
}

export function readRegion(window: Window, base: number): AskedRegion {
  return {
    guest: window.le64(VhostUserRegion.guest, base),
    user: window.le64(VhostUserRegion.user, base),
    sizeBytes: window.le64(VhostUserRegion.size, base),
    offset: window.le64(VhostUserRegion.offset, base),
  }
}

/**
 * The memory a front-end has shown: where each region lies for the guest and for the front-end itself, mapped.
 *
 * A table is a value: adding, removing and replacing make another one, whose mappings are shared where regions
 * stay. Who drops a table says which mappings to revoke, once nobody uses them any more.
 */
export class MemoryTable {
  static readonly EMPTY = new MemoryTable([])
  readonly #slots: readonly Slot[]

  private constructor(slots: readonly Slot[]) {
    this.#slots = slots
  }

  get count(): number {
    return this.#slots.length
  }

  /** First guest address behind all of it. */
  get guestEnd(): number {
    return this.#slots.reduce((end, slot) => Math.max(end, slot.guest + slot.sizeBytes), 0)
  }

  /** Maps all regions, or none. `descriptors` are in their order and stay the caller's. */
  static of(
    asked: readonly AskedRegion[],
    descriptors: readonly PeerDescriptor[],
    edge: PeerEdge,
  ): MemoryTable | Broken {
    let table: MemoryTable = MemoryTable.EMPTY
    for (const [index, region] of asked.entries()) {
      const descriptor = descriptors[index]
      if (descriptor === undefined) throw new Error('a region without its descriptor passed the syntax check')
      const next = table.with(region, descriptor, edge)
      if (!(next instanceof MemoryTable)) {
        table.revokeAll()
        return next
      }
      table = next
    }
    return table
  }

  /** The table with one region more. */
  with(region: AskedRegion, descriptor: PeerDescriptor, edge: PeerEdge): MemoryTable | Broken {
    const broken =
      askBroken(region) ??
      this.#overlap(region) ??
      this.#tooLong(region) ??
      descriptorBroken(region, descriptor)
    if (broken !== null) return broken
    if (!(this.#slots.length < MEMORY_SLOTS)) {
      return { rule: 'vhost.region-slots', seen: this.#slots.length + 1, expected: MEMORY_SLOTS }
    }
    const pieces = mapped(region, descriptor, edge)
    if (pieces === null) return { rule: 'vhost.region-backed', seen: region.sizeBytes, expected: 0 }
    return new MemoryTable([...this.#slots, { ...region, pieces }])
  }

  #tooLong({ sizeBytes }: AskedRegion): Broken | null {
    const mapped = this.#slots.reduce((count, { pieces }) => count + pieces.length, 0)
    const count = mapped + Math.ceil(sizeBytes / PIECE_BYTES)
    if (count <= MEMORY_PIECES) return null
    return { rule: 'vhost.memory-size', seen: count * PIECE_BYTES, expected: MEMORY_PIECES * PIECE_BYTES }
  }

  /** The table without a region, and what to revoke afterwards; null when there is no such region. */
  without(region: AskedRegion): { readonly table: MemoryTable; readonly revoke: () => void } | null {
    // The offset is not compared: front-ends leave it out of a removal.
    const gone = this.#slots.find(
      ({ guest, user, sizeBytes }) =>
        guest === region.guest && user === region.user && sizeBytes === region.sizeBytes,
    )
    if (gone === undefined) return null
    return {
      table: new MemoryTable(this.#slots.filter((slot) => slot !== gone)),
      revoke: () => {
        for (const piece of gone.pieces) piece.revoke()
      },
    }
  }

  /** Gives every mapping back. The table is of no use afterwards. */
  revokeAll(): void {
    for (const { pieces } of this.#slots) for (const piece of pieces) piece.revoke()
  }

  /** Gives back what another table does not share with it. */
  revokeAllBut(kept: MemoryTable): void {
    for (const slot of this.#slots) {
      if (kept.#slots.includes(slot)) continue
      for (const piece of slot.pieces) piece.revoke()
    }
  }

  /** As the guest sees it. */
  memory(): GuestMemory {
    if (this.#slots.length === 0) return GuestMemory.nothing()
    const regions = this.#slots.flatMap(({ guest, pieces }): Region[] =>
      pieces.map(({ bytes }, index) => ({ base: gpa(guest + index * PIECE_BYTES), bytes, shared: true })),
    )
    return new GuestMemory(regions)
  }

  /**
   * Where a range of the front-end's own addresses lies for the guest; null when not all of it is in one region.
   * The whole range, not only its start: what lies behind a region is somebody else's.
   */
  guestAddress(user: number, lengthBytes: number): Gpa | null {
    for (const slot of this.#slots) {
      const into = user - slot.user
      if (into >= 0 && lengthBytes <= slot.sizeBytes - into) return gpa(slot.guest + into)
    }
    return null
  }

  #overlap({ guest, user, sizeBytes }: AskedRegion): Broken | null {
    for (const slot of this.#slots) {
      if (guest < slot.guest + slot.sizeBytes && slot.guest < guest + sizeBytes) {
        return { rule: 'vhost.region-overlap', seen: guest, expected: slot.guest + slot.sizeBytes }
      }
      if (user < slot.user + slot.sizeBytes && slot.user < user + sizeBytes) {
        return { rule: 'vhost.region-overlap', seen: user, expected: slot.user + slot.sizeBytes }
      }
    }
    return null
  }
}

/** Numbers of 64 bits were read as Numbers: what is above 2^53 is no safe integer, and refused as such. */
function askBroken({ guest, user, sizeBytes, offset }: AskedRegion): Broken | null {
  const refuse = (seen: number, expected: number): Broken => ({ rule: 'vhost.region-range', seen, expected })
  if (!(sizeBytes > 0 && sizeBytes % PAGE_BYTES === 0)) return refuse(sizeBytes, PAGE_BYTES)
  for (const start of [guest, user, offset]) {
    if (!Number.isSafeInteger(start + sizeBytes)) return refuse(start, Number.MAX_SAFE_INTEGER)
  }
  // Pages of the guest are pages of the mapping: no field that is aligned there lies across two of them here.
  if (guest % PAGE_BYTES !== 0) return refuse(guest, PAGE_BYTES)
  if (offset % PAGE_BYTES !== 0) return refuse(offset, PAGE_BYTES)
  return null
}

function descriptorBroken(region: AskedRegion, { kind, lengthBytes }: PeerDescriptor): Broken | null {
  if (kind !== 'file') return { rule: 'vhost.descriptor-kind', seen: 0, expected: 0 }
  const neededBytes = region.offset + region.sizeBytes
  if (neededBytes <= lengthBytes) return null
  return { rule: 'vhost.region-backed', seen: neededBytes, expected: lengthBytes }
}

function mapped(region: AskedRegion, descriptor: PeerDescriptor, edge: PeerEdge): PeerMemory[] | null {
  const pieces: PeerMemory[] = []
  for (let at = 0; at < region.sizeBytes; at += PIECE_BYTES) {
    const piece = edge.map(descriptor, region.offset + at, Math.min(PIECE_BYTES, region.sizeBytes - at))
    if (piece === null) {
      for (const one of pieces) one.revoke()
      return null
    }
    pieces.push(piece)
  }
  return pieces
}
