import { array, bytes, le16, le32, le64, struct, u8 } from './layout.ts'

export const MBR_SIGNATURE = 0xaa55
export const GPT_REVISION = 0x0001_0000
/** Least bytes of a GPT header, and of one of its entries. */
export const GPT_HEADER_BYTES = 92
export const GPT_ENTRY_BYTES = 128

/** Partition types of a master boot record that change how it is read. */
export const MbrType = {
  EMPTY: 0x00,
  EXTENDED_CHS: 0x05,
  EXTENDED_LBA: 0x0f,
  EXTENDED_LINUX: 0x85,
  PROTECTIVE: 0xee,
} as const

export const MbrEntry = struct(
  'mbr_partition',
  'UEFI 2.10 section 5.2.1',
  16,
  {
    status: u8('0x80 for the active partition'),
    firstChs: bytes(3, 'first sector as cylinder, head, sector'),
    type: u8('operating system type'),
    lastChs: bytes(3, 'last sector as cylinder, head, sector'),
    firstLba: le32('first block'),
    blocks: le32('blocks'),
  },
  { packed: true },
)

export const Mbr = struct(
  'mbr',
  'UEFI 2.10 section 5.2.1',
  512,
  {
    code: bytes(440, 'boot code'),
    diskSignature: le32('identifies the disk'),
    unknown: le16('zero'),
    entries: array(MbrEntry, 4, 'primary partitions'),
    signature: le16('0xaa55'),
  },
  { packed: true },
)

export const GptHeader = struct(
  'gpt_header',
  'UEFI 2.10 section 5.3.2',
  GPT_HEADER_BYTES,
  {
    signature: bytes(8, '"EFI PART"'),
    revision: le32('0x00010000'),
    headerBytes: le32('92 up to a block'),
    headerCrc: le32('CRC-32 of the header with this field zero'),
    reserved: le32('zero', { reserved: true }),
    myLba: le64('where this header lies'),
    alternateLba: le64('where the other one lies'),
    firstUsableLba: le64('first block for partitions'),
    lastUsableLba: le64('last block for partitions'),
    diskGuid: bytes(16, 'identifies the disk'),
    entriesLba: le64('first block of the entries'),
    entryCount: le32('entries'),
    entryBytes: le32('128 times a power of two'),
    entriesCrc: le32('CRC-32 of all entries'),
  },
  { packed: true },
)

export const GptEntry = struct(
  'gpt_entry',
  'UEFI 2.10 section 5.3.3',
  GPT_ENTRY_BYTES,
  {
    typeGuid: bytes(16, 'all zero for an unused entry'),
    uniqueGuid: bytes(16, 'identifies the partition'),
    firstLba: le64('first block'),
    lastLba: le64('last block, included'),
    attributes: le64('bits'),
    name: bytes(72, 'UTF-16LE, padded with NUL'),
  },
  { packed: true },
)
