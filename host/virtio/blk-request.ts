import type { DmaSpace } from '../../protocol/dma.ts'
import { gpa } from '../../protocol/memory.ts'
import type { RequirementId } from '../../protocol/requirement.ts'
import type { FeatureSet } from '../../protocol/version.ts'
import { hasFeature } from '../../protocol/version.ts'
import {
  BLK_ID_BYTES,
  BlkFeature,
  BlkLifetime,
  BlkRequest,
  BlkSegment,
  BlkSegmentFlag,
  BlkType,
  SECTOR_BYTES,
} from '../../protocol/virtio/blk.ts'
import { Cursor, Window } from '../../protocol/window.ts'
import type { DiskFacts, DiskOp } from '../disk/backend.ts'
import type { BlkLimits } from './blk-config.ts'
import { capacitySectors } from './blk-config.ts'
import type { Chain } from './chain.ts'
import { copyPayload, lendPayload } from './payload.ts'

// Constants of this module are folded into optimized code; a property of an import is loaded every time.
const HEADER_BYTES = BlkRequest.$size
const TYPE = BlkRequest.type
const SECTOR = BlkRequest.sector
const { IN, OUT } = BlkType
const BYTES_PER_SECTOR = SECTOR_BYTES

/** One range of a discard, zeroes or erase, in bytes. */
export interface BlkRange {
  readonly offset: number
  readonly lengthBytes: number
  readonly mayUnmap: boolean
}

/**
 * A block request after its one reading: nothing in it can be malformed any more. `refused` is answered with
 * an error status, and carries the rule when the driver broke one.
 */
export type BlkPlan =
  /** Its range and its buffers are the parser's `offset`, `lengthBytes` and `lent`, until the next request. */
  | { readonly kind: 'transfer'; readonly op: 'read' | 'write' }
  | { readonly kind: 'flush' }
  | { readonly kind: 'ranges'; readonly op: DiskOp; readonly ranges: readonly BlkRange[] }
  | { readonly kind: 'reply'; readonly bytes: Uint8Array }
  | {
      readonly kind: 'refused'
      readonly outcome: 'unsupported' | 'error'
      readonly rule: RequirementId | null
      readonly seen: number
      readonly expected: number
    }

/** What a request is judged by: the disk as announced, the limits, and what was negotiated. Kept and refreshed. */
export interface BlkRules {
  facts: DiskFacts
  readonly limits: BlkLimits
  features: FeatureSet
}

/** A broken rule that leaves a request answerable. */
export interface BlkOddity {
  readonly rule: RequirementId
  readonly seen: number
  readonly expected: number
}

const UNSUPPORTED: BlkPlan = { kind: 'refused', outcome: 'unsupported', rule: null, seen: 0, expected: 0 }
const FLUSH: BlkPlan = { kind: 'flush' }
const READ: BlkPlan = { kind: 'transfer', op: 'read' }
const WRITE: BlkPlan = { kind: 'transfer', op: 'write' }
const NOTHING_LENT: readonly Uint8Array[] = []

function refused(rule: RequirementId, seen: number, expected: number): BlkPlan {
  return { kind: 'refused', outcome: 'error', rule, seen, expected }
}

/** Reads block requests out of checked chains, VIRTIO 1.3 section 5.2.6. */
export class BlkParser {
  readonly #dma: DmaSpace
  readonly #header: Cursor = new Cursor()
  /** Where a header in pieces is put together. */
  readonly #gathered: Uint8Array<ArrayBuffer>
  readonly #gatheredWindow: Window
  /** Of the request parsed last, for the trace; a type of -1 has no header to be read from. */
  type = -1
  sector = 0
  /** What the request parsed last broke without standing in its own way. */
  oddity: BlkOddity | null = null
  /** Of the transfer parsed last: its range in bytes, and views of the guest's buffers made for it alone. */
  offset = 0
  lengthBytes = 0
  lent = NOTHING_LENT

  constructor(dma: DmaSpace) {
    this.#dma = dma
    this.#gathered = new Uint8Array(HEADER_BYTES)
    this.#gatheredWindow = new Window(this.#gathered)
  }

  /** The chain has a writable byte for the status; everything else about it is still open. */
  parse(chain: Chain, rules: BlkRules): BlkPlan {
    this.type = -1
    this.sector = 0
    this.oddity = null
    if (!(chain.readableBytes >= HEADER_BYTES)) {
      return refused('block.header-short', chain.readableBytes, HEADER_BYTES)
    }
    this.#readHeader(chain)
    switch (this.type) {
      case IN:
        return this.#transfer(chain, rules, 'read')
      case OUT:
        return this.#transfer(chain, rules, 'write')
      case BlkType.FLUSH:
        return this.#flush(chain, rules)
      case BlkType.GET_ID:
        return this.#id(chain, rules)
      case BlkType.GET_LIFETIME:
        return this.#needs(rules, BlkFeature.LIFETIME.bit) ?? lifetime(chain, rules.facts)
      case BlkType.DISCARD:
        return this.#needs(rules, BlkFeature.DISCARD.bit) ?? this.#ranges(chain, rules, 'discard')
      case BlkType.WRITE_ZEROES:
        return this.#needs(rules, BlkFeature.WRITE_ZEROES.bit) ?? this.#ranges(chain, rules, 'zero')
      case BlkType.SECURE_ERASE:
        return this.#needs(rules, BlkFeature.SECURE_ERASE.bit) ?? this.#ranges(chain, rules, 'erase')
      default:
        return UNSUPPORTED
    }
  }

  #readHeader(chain: Chain): void {
    const header = this.#header
    if ((chain.lengths[0] as number) >= HEADER_BYTES) {
      if (!this.#dma.point(header, gpa(chain.addresses[0] as number), HEADER_BYTES)) {
        throw new Error('a checked buffer cannot be had')
      }
    } else {
      copyPayload(this.#dma, chain, 0, chain.readableCount, 0, this.#gathered)
      header.window = this.#gatheredWindow
      header.base = 0
    }
    this.type = header.window.le32(TYPE, header.base)
    this.sector = header.window.le64(SECTOR, header.base)
  }

  #needs(rules: BlkRules, bit: number): BlkPlan | null {
    if (hasFeature(rules.features, bit)) return null
    return {
      kind: 'refused',
      outcome: 'unsupported',
      rule: 'block.not-negotiated',
      seen: this.type,
      expected: bit,
    }
  }

  #transfer(chain: Chain, rules: BlkRules, op: 'read' | 'write'): BlkPlan {
    const reading = op === 'read'
    const lengthBytes = reading ? chain.writableBytes - 1 : chain.readableBytes - HEADER_BYTES
    const otherBytes = reading ? chain.readableBytes - HEADER_BYTES : chain.writableBytes - 1
    if (otherBytes !== 0) return refused('block.data-direction', otherBytes, 0)
    if (lengthBytes % BYTES_PER_SECTOR !== 0)
      return refused('block.data-length', lengthBytes, BYTES_PER_SECTOR)
    if (!reading && rules.facts.readOnly) return refused('block.read-only', this.type, 0)
    const capacity = capacitySectors(rules.facts)
    if (!(this.sector <= capacity && lengthBytes / BYTES_PER_SECTOR <= capacity - this.sector)) {
      return refused('block.range', this.sector, capacity)
    }
    this.offset = this.sector * BYTES_PER_SECTOR
    this.lengthBytes = lengthBytes
    this.lent = reading
      ? lendPayload(this.#dma, chain, chain.readableCount, chain.count, 0, lengthBytes)
      : lendPayload(this.#dma, chain, 0, chain.readableCount, HEADER_BYTES, lengthBytes)
    return reading ? READ : WRITE
  }

  #flush(chain: Chain, rules: BlkRules): BlkPlan {
    const unmet = this.#needs(rules, BlkFeature.FLUSH.bit)
    if (unmet !== null) return unmet
    // Neither stands in the way of a flush, and a driver that asks for one had better get it.
    const dataBytes = chain.readableBytes - HEADER_BYTES + (chain.writableBytes - 1)
    if (dataBytes !== 0) this.oddity = { rule: 'block.flush-sector', seen: dataBytes, expected: 0 }
    if (this.sector !== 0) this.oddity = { rule: 'block.flush-sector', seen: this.sector, expected: 0 }
    return FLUSH
  }

  #id(chain: Chain, rules: BlkRules): BlkPlan {
    const roomBytes = chain.writableBytes - 1
    if (roomBytes !== BLK_ID_BYTES) {
      this.oddity = { rule: 'block.id-length', seen: roomBytes, expected: BLK_ID_BYTES }
    }
    return reply(chain, idBytes(rules.facts.serial))
  }

  #ranges(chain: Chain, rules: BlkRules, op: 'discard' | 'zero' | 'erase'): BlkPlan {
    const { facts, limits } = rules
    if (chain.writableBytes !== 1) return refused('block.data-direction', chain.writableBytes - 1, 0)
    const dataBytes = chain.readableBytes - HEADER_BYTES
    const count = dataBytes / BlkSegment.$size
    if (dataBytes === 0 || !Number.isInteger(count)) {
      return refused('block.data-length', dataBytes, BlkSegment.$size)
    }
    if (!(count <= limits.rangeSegments)) return refused('block.segment-count', count, limits.rangeSegments)
    if (facts.readOnly) return refused('block.read-only', this.type, 0)
    const table = new Uint8Array(dataBytes)
    copyPayload(this.#dma, chain, 0, chain.readableCount, HEADER_BYTES, table)
    const window = new Window(table)
    const ranges: BlkRange[] = []
    for (let base = 0; base < dataBytes; base += BlkSegment.$size) {
      const range = checkRange(window, base, facts, limits, op)
      if ('kind' in range) return range
      ranges.push(range)
    }
    return { kind: 'ranges', op, ranges }
  }
}

function checkRange(
  table: Window,
  base: number,
  facts: DiskFacts,
  limits: BlkLimits,
  op: 'discard' | 'zero' | 'erase',
): BlkRange | BlkPlan {
  const sector = table.le64(BlkSegment.sector, base)
  const sectors = table.le32(BlkSegment.num_sectors, base)
  const flags = table.le32(BlkSegment.flags, base)
  // Unknown flags are UNSUPP; unmap is defined for write zeroes only, VIRTIO 1.2 section 5.2.6.2.
  const allowed = op === 'zero' ? BlkSegmentFlag.UNMAP : 0
  if (flags !== 0 && flags !== allowed) {
    return {
      kind: 'refused',
      outcome: 'unsupported',
      rule: 'block.segment-flags',
      seen: flags,
      expected: allowed,
    }
  }
  if (!(sectors <= limits.rangeSectors)) return refused('block.segment-sectors', sectors, limits.rangeSectors)
  const capacity = capacitySectors(facts)
  if (!(sector <= capacity && sectors <= capacity - sector)) return refused('block.range', sector, capacity)
  return {
    offset: sector * SECTOR_BYTES,
    lengthBytes: sectors * SECTOR_BYTES,
    mayUnmap: (flags & BlkSegmentFlag.UNMAP) !== 0,
  }
}

/** An answer of a few bytes into the writable side; shorter room takes its beginning. */
function reply(chain: Chain, bytes: Uint8Array): BlkPlan {
  return { kind: 'reply', bytes: bytes.subarray(0, Math.min(bytes.length, chain.writableBytes - 1)) }
}

function idBytes(serial: string): Uint8Array {
  const bytes = new Uint8Array(BLK_ID_BYTES)
  for (let i = 0; i < Math.min(serial.length, BLK_ID_BYTES); i++) bytes[i] = serial.charCodeAt(i)
  return bytes
}

const LIFETIME_UNDEFINED = { preEndOfLife: 0, usedTenthsA: 0, usedTenthsB: 0 }

function lifetime(chain: Chain, facts: DiskFacts): BlkPlan {
  const roomBytes = chain.writableBytes - 1
  if (roomBytes < BlkLifetime.$size) return refused('block.data-length', roomBytes, BlkLifetime.$size)
  const bytes = new Uint8Array(BlkLifetime.$size)
  const window = new Window(bytes)
  const { preEndOfLife, usedTenthsA, usedTenthsB } = facts.lifetime ?? LIFETIME_UNDEFINED
  // Reserved values are never told, VIRTIO 1.3 section 5.2.6.2: what a backend should not say is undefined.
  const upTo = (most: number, value: number) => (value >= 0 && value <= most ? value : 0)
  window.putLe16(BlkLifetime.pre_eol_info, upTo(3, preEndOfLife))
  window.putLe16(BlkLifetime.device_lifetime_est_typ_a, upTo(11, usedTenthsA))
  window.putLe16(BlkLifetime.device_lifetime_est_typ_b, upTo(11, usedTenthsB))
  return reply(chain, bytes)
}
