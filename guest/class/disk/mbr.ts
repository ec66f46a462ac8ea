import { MBR_SIGNATURE, Mbr, MbrEntry, MbrType } from '../../../protocol/partition.ts'
import { Window } from '../../../protocol/window.ts'
import type { BlockRange, Partition, PartitionTable, TableReader } from './partition-table.ts'
import { onDisk } from './partition-table.ts'

const ENTRIES = 4
/** An extended partition is a linked list on the disk: a chain that loops has to end. */
const LOGICAL_MAX = 128

interface Entry {
  readonly status: number
  readonly type: number
  readonly firstLba: number
  readonly blocks: number
}

export type MbrReading =
  | { readonly kind: 'none'; readonly troubles: readonly string[] }
  | { readonly kind: 'protective' }
  | { readonly kind: 'table'; readonly table: PartitionTable }

/** Reads a master boot record and the logical partitions behind it, UEFI 2.10 section 5.2. */
export function* readMbr(disk: BlockRange, block: Uint8Array<ArrayBuffer>): TableReader<MbrReading> {
  const sector = new Window(block)
  if (sector.lengthBytes < Mbr.$size || sector.le16(Mbr.signature) !== MBR_SIGNATURE) {
    return { kind: 'none', troubles: [] }
  }
  const entries = entriesOf(sector)
  // A file system's boot sector has the signature too; what it holds here are no entries.
  if (!entries.every((entry) => entry.status === 0 || entry.status === 0x80)) {
    return { kind: 'none', troubles: [] }
  }
  if (entries.some((entry) => entry.type === MbrType.PROTECTIVE)) return { kind: 'protective' }
  const partitions: Partition[] = []
  const troubles: string[] = []
  let extended: Entry | null = null
  let number = 0
  for (const [index, entry] of entries.entries()) {
    if (entry.type === MbrType.EMPTY) continue
    // One that is off the disk keeps its number: the others are who they were when a disk shrinks.
    if (!isExtended(entry.type)) number++
    if (!onDisk(disk, entry.firstLba, entry.blocks)) {
      troubles.push(`entry ${index + 1} does not lie on the disk`)
    } else if (!isExtended(entry.type)) {
      partitions.push(partitionOf(disk, number, entry, 0))
    } else if (extended === null) {
      extended = entry
    } else {
      troubles.push(`entry ${index + 1} is a second extended partition`)
    }
  }
  if (extended !== null) yield* readLogical(disk, extended, number, partitions, troubles)
  const diskId = sector.le32(Mbr.diskSignature).toString(16).padStart(8, '0')
  return { kind: 'table', table: { style: 'mbr', diskId, gpt: null, partitions, troubles } }
}

/**
 * Each extended boot record describes one logical partition, relative to itself, and where the next record
 * is, relative to the extended partition.
 */
function* readLogical(
  disk: BlockRange,
  extended: Entry,
  primaryCount: number,
  partitions: Partition[],
  troubles: string[],
): TableReader<void> {
  const seen = new Set<number>()
  let number = primaryCount
  for (let at = extended.firstLba; seen.size < LOGICAL_MAX; ) {
    seen.add(at)
    const block = yield { lba: at, count: 1 }
    if (block === null) {
      troubles.push(`the boot record at block ${at} cannot be read`)
      return
    }
    const sector = new Window(block)
    if (sector.le16(Mbr.signature) !== MBR_SIGNATURE) {
      troubles.push(`no boot record at block ${at}`)
      return
    }
    const [logical, link] = entriesOf(sector)
    if (logical !== undefined && logical.type !== MbrType.EMPTY && !isExtended(logical.type)) {
      number++
      if (onDisk(disk, at + logical.firstLba, logical.blocks)) {
        partitions.push(partitionOf(disk, number, logical, at))
      } else {
        troubles.push(`the logical partition at block ${at} does not lie on the disk`)
      }
    }
    if (link === undefined || !isExtended(link.type)) return
    const next = extended.firstLba + link.firstLba
    if (!onDisk(disk, next, 1) || seen.has(next)) {
      troubles.push(`the boot record at block ${at} leads ${seen.has(next) ? 'back' : 'off the disk'}`)
      return
    }
    at = next
  }
  troubles.push(`more than ${LOGICAL_MAX} logical partitions`)
}

function isExtended(type: number): boolean {
  return type === MbrType.EXTENDED_CHS || type === MbrType.EXTENDED_LBA || type === MbrType.EXTENDED_LINUX
}

function entriesOf(sector: Window): Entry[] {
  return Array.from({ length: ENTRIES }, (_, index) => {
    const base = Mbr.entries + index * MbrEntry.$size
    return {
      status: sector.u8(MbrEntry.status, base),
      type: sector.u8(MbrEntry.type, base),
      firstLba: sector.le32(MbrEntry.firstLba, base),
      blocks: sector.le32(MbrEntry.blocks, base),
    }
  })
}

function partitionOf(disk: BlockRange, number: number, entry: Entry, origin: number): Partition {
  return {
    number,
    startBytes: (origin + entry.firstLba) * disk.blockBytes,
    lengthBytes: entry.blocks * disk.blockBytes,
    type: entry.type.toString(16).padStart(2, '0'),
    active: entry.status === 0x80,
    attributes: 0n,
    guid: null,
    name: '',
  }
}
