import { readGpt } from './gpt.ts'
import { readMbr } from './mbr.ts'

/** What a table is read from: its size, in blocks of `blockBytes`. */
export interface BlockRange {
  readonly blockBytes: number
  readonly blocks: number
}

/** Blocks that a reader needs next. */
export interface BlocksWanted {
  readonly lba: number
  readonly count: number
}

export interface Partition {
  /** From 1, in the order of the table; logical partitions follow the primary ones. */
  readonly number: number
  readonly startBytes: number
  readonly lengthBytes: number
  /** `07` or `ebd0a0a2-b9e5-4433-87c0-68b6b72699c7`. */
  readonly type: string
  readonly active: boolean
  /** Of a GPT entry; 0 else. */
  readonly attributes: bigint
  /** GPT only. */
  readonly guid: string | null
  readonly name: string
}

export type PartitionStyle = 'none' | 'mbr' | 'gpt'

export interface PartitionTable {
  readonly style: PartitionStyle
  /** MBR: 8 hexadecimal digits; GPT: a GUID; null without a table. */
  readonly diskId: string | null
  /** What only a GUID partition table says. */
  readonly gpt: {
    readonly firstUsableBytes: number
    readonly usableBytes: number
    readonly entryCount: number
  } | null
  readonly partitions: readonly Partition[]
  /** What was wrong and passed over, for people. A table on a disk is a stranger's input. */
  readonly troubles: readonly string[]
}

/**
 * Asks for blocks and is sent their bytes, or null when they cannot be read. The caller decides how: a class
 * driver sends requests, a test slices an array.
 */
export type TableReader<T> = Generator<BlocksWanted, T, Uint8Array<ArrayBuffer> | null>

export const NO_TABLE: PartitionTable = {
  style: 'none',
  diskId: null,
  gpt: null,
  partitions: [],
  troubles: [],
}

/** Reads the partition table of a disk: GPT behind a protective MBR, or MBR with its logical partitions. */
export function* readPartitionTable(disk: BlockRange): TableReader<PartitionTable> {
  if (!(disk.blocks >= 1 && disk.blockBytes >= 512)) return NO_TABLE
  const first = yield { lba: 0, count: 1 }
  if (first === null) return { ...NO_TABLE, troubles: ['block 0 cannot be read'] }
  const mbr = yield* readMbr(disk, first)
  if (mbr.kind === 'none') return { ...NO_TABLE, troubles: mbr.troubles }
  if (mbr.kind === 'table') return mbr.table
  const gpt = yield* readGpt(disk)
  return gpt ?? { ...NO_TABLE, troubles: ['a protective MBR, but neither GPT header is valid'] }
}

/** Whether a partition lies on the disk and takes at least one block. */
export function onDisk(disk: BlockRange, firstLba: number, blocks: number): boolean {
  return firstLba >= 1 && blocks >= 1 && firstLba < disk.blocks && blocks <= disk.blocks - firstLba
}
