import {
  GPT_ENTRY_BYTES,
  GPT_HEADER_BYTES,
  GPT_REVISION,
  GptEntry,
  GptHeader,
} from '../../../protocol/partition.ts'
import { Window } from '../../../protocol/window.ts'
import { crc32 } from './crc32.ts'
import type { BlockRange, Partition, PartitionTable, TableReader } from './partition-table.ts'
import { onDisk } from './partition-table.ts'

const SIGNATURE = 'EFI PART'
const UNUSED = '00000000-0000-0000-0000-000000000000'
const EFI_NAME_CHARACTERS = 36
/** Entries are read whole, for their checksum; tables in use have 128 of 128 bytes. */
const TABLE_BYTES_MAX = 1 << 20
const LEGACY_BOOTABLE = 4

interface Header {
  readonly diskGuid: string
  readonly firstUsableLba: number
  readonly lastUsableLba: number
  readonly entriesLba: number
  readonly entryCount: number
  readonly entryBytes: number
  readonly entriesCrc: number
}

/** Reads a GUID partition table, the second one when the first is damaged, UEFI 2.10 section 5.3. */
export function* readGpt(disk: BlockRange): TableReader<PartitionTable | null> {
  const primary = yield* readCopy(disk, 1)
  if (typeof primary !== 'string') return primary
  const last = disk.blocks - 1
  if (last <= 1) return null
  const backup = yield* readCopy(disk, last)
  if (typeof backup === 'string') return null
  return { ...backup, troubles: [`the first table is not valid: ${primary}`, ...backup.troubles] }
}

/** One of the two tables, or why it is not valid. */
function* readCopy(disk: BlockRange, lba: number): TableReader<PartitionTable | string> {
  if (!(lba < disk.blocks)) return 'the disk is too small'
  const block = yield { lba, count: 1 }
  if (block === null) return `block ${lba} cannot be read`
  const header = parseHeader(block, disk, lba)
  if (typeof header === 'string') return header
  const bytes = header.entryCount * header.entryBytes
  const count = Math.ceil(bytes / disk.blockBytes)
  if (!onDisk(disk, header.entriesLba, count)) return 'its entries do not lie on the disk'
  const table = yield { lba: header.entriesLba, count }
  if (table === null) return 'its entries cannot be read'
  const entries = table.subarray(0, bytes)
  if (crc32(entries) !== header.entriesCrc) return 'the checksum of its entries is wrong'
  return tableOf(disk, header, new Window(entries))
}

function parseHeader(block: Uint8Array<ArrayBuffer>, disk: BlockRange, lba: number): Header | string {
  const header = new Window(block)
  if (text(block, GptHeader.signature, SIGNATURE.length) !== SIGNATURE) return 'it has no signature'
  if (header.le32(GptHeader.revision) !== GPT_REVISION) return 'its revision is not 1.0'
  const headerBytes = header.le32(GptHeader.headerBytes)
  if (!(headerBytes >= GPT_HEADER_BYTES && headerBytes <= disk.blockBytes)) return 'its size is out of range'
  const copy = block.slice(0, headerBytes)
  new Window(copy).putLe32(GptHeader.headerCrc, 0)
  if (crc32(copy) !== header.le32(GptHeader.headerCrc)) return 'its checksum is wrong'
  if (header.le64(GptHeader.myLba) !== lba) return 'it names another place'
  const entryCount = header.le32(GptHeader.entryCount)
  const entryBytes = header.le32(GptHeader.entryBytes)
  const multiple = entryBytes / GPT_ENTRY_BYTES
  if (!Number.isInteger(Math.log2(multiple))) return 'the size of its entries is not 128 times a power of two'
  if (!(entryCount * entryBytes <= TABLE_BYTES_MAX)) return 'it has too many entries'
  const firstUsableLba = header.le64(GptHeader.firstUsableLba)
  const lastUsableLba = header.le64(GptHeader.lastUsableLba)
  if (!(firstUsableLba <= lastUsableLba && lastUsableLba < disk.blocks)) return 'its usable range is wrong'
  return {
    diskGuid: guid(block, GptHeader.diskGuid),
    firstUsableLba,
    lastUsableLba,
    entriesLba: header.le64(GptHeader.entriesLba),
    entryCount,
    entryBytes,
    entriesCrc: header.le32(GptHeader.entriesCrc),
  }
}

function tableOf(disk: BlockRange, header: Header, entries: Window): PartitionTable {
  const bytes = new Uint8Array(entries.view.buffer, entries.view.byteOffset, entries.lengthBytes)
  const partitions: Partition[] = []
  const troubles: string[] = []
  for (let index = 0; index < header.entryCount; index++) {
    const base = index * header.entryBytes
    const type = guid(bytes, GptEntry.typeGuid + base)
    if (type === UNUSED) continue
    const firstLba = entries.le64(GptEntry.firstLba, base)
    const lastLba = entries.le64(GptEntry.lastLba, base)
    if (!(firstLba >= header.firstUsableLba && firstLba <= lastLba && lastLba <= header.lastUsableLba)) {
      troubles.push(`entry ${index + 1} does not lie in the usable range`)
      continue
    }
    partitions.push({
      number: partitions.length + 1,
      startBytes: firstLba * disk.blockBytes,
      lengthBytes: (lastLba - firstLba + 1) * disk.blockBytes,
      type,
      // The low half alone: as a Number the whole would lose its low bits to those at the top.
      active: (entries.view.getUint32(GptEntry.attributes + base, true) & LEGACY_BOOTABLE) !== 0,
      attributes: entries.view.getBigUint64(GptEntry.attributes + base, true),
      guid: guid(bytes, GptEntry.uniqueGuid + base),
      name: nameOf(entries, GptEntry.name + base),
    })
  }
  const { firstUsableLba, lastUsableLba, entryCount } = header
  const gpt = {
    firstUsableBytes: firstUsableLba * disk.blockBytes,
    usableBytes: (lastUsableLba - firstUsableLba + 1) * disk.blockBytes,
    entryCount,
  }
  return { style: 'gpt', diskId: header.diskGuid, gpt, partitions, troubles }
}

function text(bytes: Uint8Array, at: number, length: number): string {
  return String.fromCharCode(...bytes.subarray(at, at + length))
}

/** The first three groups of a GUID are little-endian, the last two are bytes in order. */
export function guid(bytes: Uint8Array, at: number): string {
  const order = [3, 2, 1, 0, -1, 5, 4, -1, 7, 6, -1, 8, 9, -1, 10, 11, 12, 13, 14, 15]
  return order
    .map((index) => (index < 0 ? '-' : (bytes[at + index] ?? 0).toString(16).padStart(2, '0')))
    .join('')
}

function nameOf(entries: Window, at: number): string {
  let name = ''
  for (let i = 0; i < EFI_NAME_CHARACTERS; i++) {
    const unit = entries.view.getUint16(at + i * 2, true)
    if (unit === 0) break
    name += String.fromCharCode(unit)
  }
  return name
}
