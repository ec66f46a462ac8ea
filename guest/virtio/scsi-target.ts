import {
  Asc,
  Cdb6,
  Cdb10,
  Cdb16,
  FixedSense,
  InquiryCdb,
  ModeCdb10,
  ModePage,
  ReportLunsCdb,
  RwFlag,
  ScsiOp,
  SenseKey,
  ServiceAction,
  UnmapDescriptor,
  UnmapHeader,
} from '../../protocol/scsi.ts'
import type { FieldAt } from '../../protocol/window.ts'
import { Window } from '../../protocol/window.ts'
import {
  inquiryData,
  modeData,
  readCapacity10,
  readCapacity16,
  reportLuns,
  vitalProductData,
} from './scsi-data.ts'

/** A disk as a SCSI target tells of it. */
export interface TargetFacts {
  /** Logical blocks. */
  readonly blocks: number
  readonly blockBytes: number
  /** Logical blocks a physical one, as a power of two. */
  readonly physicalExponent: number
  readonly readOnly: boolean
  /** A volatile write cache that SYNCHRONIZE CACHE empties. */
  readonly writeCache: boolean
  readonly serial: string
  /** Blocks and ranges of one UNMAP; 0 when the disk cannot. */
  readonly unmapBlocksMax: number
  readonly unmapRangesMax: number
}

export interface BlockRangeWanted {
  readonly lba: number
  readonly blocks: number
}

/**
 * What a command asks of the disk once its bytes were read and checked. `ready` and `data` are answered from
 * what is known; `sense` is a CHECK CONDITION.
 */
export type TargetPlan =
  | { readonly kind: 'ready' }
  | { readonly kind: 'data'; readonly bytes: Uint8Array }
  | {
      readonly kind: 'transfer'
      readonly write: boolean
      readonly lba: number
      readonly blocks: number
      readonly fua: boolean
    }
  | { readonly kind: 'flush' }
  | { readonly kind: 'unmap' }
  | { readonly kind: 'sense'; readonly key: number; readonly asc: number }

const READY: TargetPlan = { kind: 'ready' }
const FLUSH: TargetPlan = { kind: 'flush' }
const UNMAP: TargetPlan = { kind: 'unmap' }
const INVALID_OPCODE: TargetPlan = {
  kind: 'sense',
  key: SenseKey.ILLEGAL_REQUEST,
  asc: Asc.INVALID_OPERATION_CODE,
}
const INVALID_FIELD: TargetPlan = {
  kind: 'sense',
  key: SenseKey.ILLEGAL_REQUEST,
  asc: Asc.INVALID_FIELD_IN_CDB,
}
const OUT_OF_RANGE: TargetPlan = { kind: 'sense', key: SenseKey.ILLEGAL_REQUEST, asc: Asc.LBA_OUT_OF_RANGE }
const WRITE_PROTECTED: TargetPlan = { kind: 'sense', key: SenseKey.DATA_PROTECT, asc: Asc.WRITE_PROTECTED }

/** Commands that are carried out while an attention waits, and leave it waiting, SPC-4 section 5.14. */
const IN_SPITE_OF_ATTENTION: ReadonlySet<number> = new Set([
  ScsiOp.INQUIRY,
  ScsiOp.REPORT_LUNS,
  ScsiOp.REQUEST_SENSE,
])
const EVPD = 1
const PAGE = 0x3f
const SERVICE_ACTION = 0x1f

/** A transfer, refilled at every read and write: one command is planned at a time. */
interface Transfer {
  kind: 'transfer'
  write: boolean
  lba: number
  blocks: number
  fua: boolean
}

/**
 * The target behind a paravirtual disk: commands a class driver sends, answered without a SCSI device, SPC-4
 * and SBC-3. It holds no data; whoever asks carries the plan out.
 */
export class ScsiTarget {
  facts: TargetFacts
  /** What the initiator has to be told before anything else, once (UNIT ATTENTION); `Asc.NONE`: nothing. */
  #attention: number
  readonly #transfer: Transfer

  constructor(facts: TargetFacts) {
    this.facts = facts
    this.#attention = Asc.NONE
    this.#transfer = { kind: 'transfer', write: false, lba: 0, blocks: 0, fua: false }
  }

  /** The disk has another size: the next command is told so. */
  capacityChanged(): void {
    this.#attention = Asc.CAPACITY_CHANGED
  }

  /** Reads one command. `cdbBytes` is what the initiator says it has; the window reaches 16 bytes. */
  plan(cdb: Window, base: number, cdbBytes: number): TargetPlan {
    const opcode = cdb.u8(Cdb6.opcode, base)
    if (this.#attention !== Asc.NONE && !IN_SPITE_OF_ATTENTION.has(opcode)) return this.#attend()
    if (!(cdbBytes >= lengthOf(opcode))) return INVALID_FIELD
    switch (opcode) {
      case ScsiOp.READ_10:
      case ScsiOp.WRITE_10:
        return this.#transferOf(
          opcode === ScsiOp.WRITE_10,
          cdb.u8(Cdb10.flags, base),
          cdb.be32(Cdb10.lba, base),
          cdb.be16(Cdb10.length, base),
        )
      case ScsiOp.READ_16:
      case ScsiOp.WRITE_16:
        return this.#transferOf(
          opcode === ScsiOp.WRITE_16,
          cdb.u8(Cdb16.flags, base),
          cdb.be64(Cdb16.lba, base),
          cdb.be32(Cdb16.length, base),
        )
      case ScsiOp.SYNCHRONIZE_CACHE_10:
      case ScsiOp.SYNCHRONIZE_CACHE_16:
        // A flush covers the whole disk, so a range asked for is covered.
        return this.facts.writeCache ? FLUSH : READY
      case ScsiOp.VERIFY_10:
        return this.#verify(cdb.be32(Cdb10.lba, base), cdb.be16(Cdb10.length, base))
      case ScsiOp.VERIFY_16:
        return this.#verify(cdb.be64(Cdb16.lba, base), cdb.be32(Cdb16.length, base))
      case ScsiOp.UNMAP:
        return this.#unmap(cdb.u8(Cdb10.flags, base))
      case ScsiOp.TEST_UNIT_READY:
      case ScsiOp.START_STOP_UNIT:
      case ScsiOp.PREVENT_ALLOW_MEDIUM_REMOVAL:
      case ScsiOp.RESERVE_6:
      case ScsiOp.RELEASE_6:
      case ScsiOp.RESERVE_10:
      case ScsiOp.RELEASE_10:
      case ScsiOp.MODE_SELECT_6:
      case ScsiOp.MODE_SELECT_10:
        return READY
      default:
        return this.#inform(opcode, cdb, base)
    }
  }

  #attend(): TargetPlan {
    const asc = this.#attention
    this.#attention = Asc.NONE
    return { kind: 'sense', key: SenseKey.UNIT_ATTENTION, asc }
  }

  /** REQUEST SENSE: an attention is told as its data, and is told then. */
  #requestSense(allocation: number): TargetPlan {
    const key = this.#attention === Asc.NONE ? SenseKey.NO_SENSE : SenseKey.UNIT_ATTENTION
    const bytes = senseBytes(key, this.#attention)
    this.#attention = Asc.NONE
    return cut(bytes, allocation)
  }

  /** Commands about the disk, cut to what the initiator has room for. */
  #inform(opcode: number, cdb: Window, base: number): TargetPlan {
    switch (opcode) {
      case ScsiOp.INQUIRY:
        return this.#inquiry(cdb, base)
      case ScsiOp.REQUEST_SENSE:
        return this.#requestSense(cdb.u8(Cdb6.allocation, base))
      case ScsiOp.READ_CAPACITY_10:
        return cut(readCapacity10(this.facts), 8)
      case ScsiOp.SERVICE_ACTION_IN_16: {
        const action = cdb.u8(Cdb16.flags, base) & SERVICE_ACTION
        if (action !== ServiceAction.READ_CAPACITY_16) return INVALID_FIELD
        return cut(readCapacity16(this.facts), cdb.be32(Cdb16.length, base))
      }
      case ScsiOp.MODE_SENSE_6:
        return this.#modeSense(cdb.u8(Cdb6.page, base), cdb.u8(Cdb6.allocation, base), true)
      case ScsiOp.MODE_SENSE_10:
        return this.#modeSense(cdb.u8(ModeCdb10.page, base), cdb.be16(ModeCdb10.allocation, base), false)
      case ScsiOp.REPORT_LUNS:
        return cut(reportLuns(), cdb.be32(ReportLunsCdb.allocation, base))
      default:
        return INVALID_OPCODE
    }
  }

  /**
   * Ranges of an UNMAP's parameter list, or why it is refused: the list is the initiator's, so every length
   * in it is checked against what there is.
   */
  unmapRanges(list: Window): readonly BlockRangeWanted[] | TargetPlan {
    const { blocks, unmapBlocksMax, unmapRangesMax } = this.facts
    if (list.lengthBytes < UnmapHeader.$size) return []
    const bytes = Math.min(list.be16(UnmapHeader.descriptorBytes), list.lengthBytes - UnmapHeader.$size)
    const count = Math.floor(bytes / UnmapDescriptor.$size)
    if (!(count <= unmapRangesMax)) return INVALID_FIELD
    const ranges: BlockRangeWanted[] = []
    for (let index = 0; index < count; index++) {
      const at = UnmapHeader.$size + index * UnmapDescriptor.$size
      const lba = list.be64(UnmapDescriptor.lba, at)
      const length = list.be32(UnmapDescriptor.blocks, at)
      if (!(lba <= blocks && length <= blocks - lba)) return OUT_OF_RANGE
      if (!(length <= unmapBlocksMax)) return INVALID_FIELD
      if (length > 0) ranges.push({ lba, blocks: length })
    }
    return ranges
  }

  #transferOf(write: boolean, flags: number, lba: number, blocks: number): TargetPlan {
    if (write && this.facts.readOnly) return WRITE_PROTECTED
    if (!(lba <= this.facts.blocks && blocks <= this.facts.blocks - lba)) return OUT_OF_RANGE
    if (blocks === 0) return READY
    const transfer = this.#transfer
    transfer.write = write
    transfer.lba = lba
    transfer.blocks = blocks
    transfer.fua = (flags & RwFlag.FUA) !== 0
    return transfer
  }

  #verify(lba: number, blocks: number): TargetPlan {
    return lba <= this.facts.blocks && blocks <= this.facts.blocks - lba ? READY : OUT_OF_RANGE
  }

  #unmap(flags: number): TargetPlan {
    if (this.facts.unmapRangesMax === 0) return INVALID_OPCODE
    if (this.facts.readOnly) return WRITE_PROTECTED
    return flags === 0 ? UNMAP : INVALID_FIELD
  }

  #inquiry(cdb: Window, base: number): TargetPlan {
    const page = cdb.u8(InquiryCdb.page, base)
    const allocation = cdb.be16(InquiryCdb.allocation, base)
    if ((cdb.u8(InquiryCdb.flags, base) & EVPD) === 0) {
      return page === 0 ? cut(inquiryData(), allocation) : INVALID_FIELD
    }
    const bytes = vitalProductData(page, this.facts)
    return bytes === null ? INVALID_FIELD : cut(bytes, allocation)
  }

  #modeSense(page: number, allocation: number, six: boolean): TargetPlan {
    const wanted = page & PAGE
    const known = [ModePage.CACHING, ModePage.EXCEPTIONS, ModePage.ALL].some((one) => one === wanted)
    return known ? cut(modeData(wanted, this.facts, six), allocation) : INVALID_FIELD
  }
}

/** Bytes of a command, by its group code, SPC-4 section 4.2.5. */
export function lengthOf(opcode: number): number {
  const group = opcode >>> 5
  if (group === 0) return 6
  if (group === 4) return 16
  return group === 5 ? 12 : 10
}

/** Fixed format sense data. */
export function senseBytes(key: number, asc: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(FixedSense.$size)
  const sense = new Window(bytes)
  const put = (field: FieldAt<'u8'>, value: number) => sense.putU8(field, value)
  put(FixedSense.response, 0x70)
  put(FixedSense.key, key)
  put(FixedSense.additionalLength, FixedSense.$size - 8)
  put(FixedSense.asc, asc >>> 8)
  put(FixedSense.ascq, asc & 0xff)
  return bytes
}

function cut(bytes: Uint8Array, allocation: number): TargetPlan {
  return { kind: 'data', bytes: bytes.subarray(0, allocation) }
}
