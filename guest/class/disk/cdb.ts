import {
  Cdb6,
  Cdb10,
  Cdb16,
  InquiryCdb,
  ModePage,
  RwFlag,
  ScsiOp,
  ServiceAction,
  UnmapDescriptor,
  UnmapHeader,
} from '../../../protocol/scsi.ts'
import type { Window } from '../../../protocol/window.ts'

/** First block that a ten-byte command cannot reach, and blocks it cannot count. */
const TEN_LBA_END = 0x1_0000_0000
const TEN_BLOCKS_END = 0x1_0000

/** Writes commands into the 16 bytes at `base`, zeroed before, and returns the command's length. */
export const Cdb = {
  /** READ or WRITE: the short form wherever it reaches, as disk.sys has it. */
  transfer(cdb: Window, base: number, write: boolean, lba: number, blocks: number, fua: boolean): number {
    const flags = fua ? RwFlag.FUA : 0
    if (lba + blocks <= TEN_LBA_END && blocks < TEN_BLOCKS_END) {
      cdb.putU8(Cdb10.opcode, write ? ScsiOp.WRITE_10 : ScsiOp.READ_10, base)
      cdb.putU8(Cdb10.flags, flags, base)
      cdb.putBe32(Cdb10.lba, lba, base)
      cdb.putBe16(Cdb10.length, blocks, base)
      return Cdb10.$size
    }
    cdb.putU8(Cdb16.opcode, write ? ScsiOp.WRITE_16 : ScsiOp.READ_16, base)
    cdb.putU8(Cdb16.flags, flags, base)
    cdb.putBe64(Cdb16.lba, lba, base)
    cdb.putBe32(Cdb16.length, blocks, base)
    return Cdb16.$size
  },

  /** VERIFY without comparing: the target alone looks at the medium. */
  verify(cdb: Window, base: number, lba: number, blocks: number): number {
    if (lba + blocks <= TEN_LBA_END && blocks < TEN_BLOCKS_END) {
      cdb.putU8(Cdb10.opcode, ScsiOp.VERIFY_10, base)
      cdb.putBe32(Cdb10.lba, lba, base)
      cdb.putBe16(Cdb10.length, blocks, base)
      return Cdb10.$size
    }
    cdb.putU8(Cdb16.opcode, ScsiOp.VERIFY_16, base)
    cdb.putBe64(Cdb16.lba, lba, base)
    cdb.putBe32(Cdb16.length, blocks, base)
    return Cdb16.$size
  },

  /** SYNCHRONIZE CACHE of the whole medium. */
  flush(cdb: Window, base: number): number {
    cdb.putU8(Cdb10.opcode, ScsiOp.SYNCHRONIZE_CACHE_10, base)
    return Cdb10.$size
  },

  testUnitReady(cdb: Window, base: number): number {
    cdb.putU8(Cdb6.opcode, ScsiOp.TEST_UNIT_READY, base)
    return Cdb6.$size
  },

  /** INQUIRY: standard data, or a vital product data page. */
  inquiry(cdb: Window, base: number, page: number | null, roomBytes: number): number {
    cdb.putU8(InquiryCdb.opcode, ScsiOp.INQUIRY, base)
    cdb.putU8(InquiryCdb.flags, page === null ? 0 : 1, base)
    cdb.putU8(InquiryCdb.page, page ?? 0, base)
    cdb.putBe16(InquiryCdb.allocation, roomBytes, base)
    return InquiryCdb.$size
  },

  readCapacity10(cdb: Window, base: number): number {
    cdb.putU8(Cdb10.opcode, ScsiOp.READ_CAPACITY_10, base)
    return Cdb10.$size
  },

  readCapacity16(cdb: Window, base: number, roomBytes: number): number {
    cdb.putU8(Cdb16.opcode, ScsiOp.SERVICE_ACTION_IN_16, base)
    cdb.putU8(Cdb16.flags, ServiceAction.READ_CAPACITY_16, base)
    cdb.putBe32(Cdb16.length, roomBytes, base)
    return Cdb16.$size
  },

  /** MODE SENSE (6) of the caching page: the cache, and write protection in its header. */
  modeSense(cdb: Window, base: number, roomBytes: number): number {
    cdb.putU8(Cdb6.opcode, ScsiOp.MODE_SENSE_6, base)
    cdb.putU8(Cdb6.page, ModePage.CACHING, base)
    cdb.putU8(Cdb6.allocation, roomBytes, base)
    return Cdb6.$size
  },

  unmap(cdb: Window, base: number, listBytes: number): number {
    cdb.putU8(Cdb10.opcode, ScsiOp.UNMAP, base)
    cdb.putBe16(Cdb10.length, listBytes, base)
    return Cdb10.$size
  },
} as const

/** Bytes of an UNMAP's list of so many ranges. */
export function unmapListBytes(ranges: number): number {
  return UnmapHeader.$size + ranges * UnmapDescriptor.$size
}
