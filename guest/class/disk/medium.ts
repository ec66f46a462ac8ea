import { NtStatus, ntSuccess } from '../../kernel/nt-status.ts'
import type { Waiting } from '../../kernel/thread.ts'
import { Cdb } from './cdb.ts'
import type { Disk } from './disk.ts'
import { publishPartitions } from './partition-device.ts'
import { readPartitionTable } from './partition-table.ts'

const PAGE_BYTES = 4096

/**
 * Reads the partition table, and makes and deletes partition devices until they are what it says. A table that
 * cannot be read says nothing: the one known before stays, as far as it still lies on the disk.
 */
export function* readPartitions(disk: Disk): Waiting {
  const { sectors, sectorBytes } = disk.facts
  const reader = readPartitionTable({ blockBytes: sectorBytes, blocks: sectors })
  let failed: NtStatus = NtStatus.SUCCESS
  let step = reader.next()
  while (step.done !== true) {
    const { lba, count } = step.value
    const read = yield* readBlocks(disk, lba, count)
    if (typeof read === 'number') failed = read
    step = reader.next(typeof read === 'number' ? null : read)
  }
  const unread = failed === NtStatus.INSUFFICIENT_RESOURCES || step.value.style === 'none'
  if (ntSuccess(failed) || !unread) {
    disk.table = step.value
    failed = NtStatus.SUCCESS
  } else {
    const partitions = disk.table.partitions.filter(
      ({ startBytes, lengthBytes }) => startBytes + lengthBytes <= disk.lengthBytes,
    )
    disk.table = { ...disk.table, partitions, troubles: step.value.troubles }
  }
  return publishPartitions(disk) ? failed : NtStatus.INSUFFICIENT_RESOURCES
}

/** Blocks of the disk in as many commands as the adapter needs; why not, when one cannot be read. */
function* readBlocks(disk: Disk, lba: number, count: number): Waiting<Uint8Array<ArrayBuffer> | NtStatus> {
  const { sectorBytes } = disk.facts
  const bytes = new Uint8Array(count * sectorBytes)
  const most = Math.min(disk.maximumTransferLength, (disk.maximumPhysicalPages - 1) * PAGE_BYTES)
  const each = Math.max(1, Math.floor(most / sectorBytes))
  for (let done = 0; done < count; ) {
    const blocks = Math.min(each, count - done)
    const first = lba + done
    const { status, data } = yield* disk.command({
      cdb: (cdb, base) => Cdb.transfer(cdb, base, false, first, blocks, false),
      data: blocks * sectorBytes,
    })
    if (!ntSuccess(status)) return status
    if (data.length !== blocks * sectorBytes) return NtStatus.IO_DEVICE_ERROR
    bytes.set(data, done * sectorBytes)
    done += blocks
  }
  return bytes
}
