import { IO_STATUS_BLOCK, KEVENT } from '../../kernel/layout.ts'
import { NtStatus, ntStatus, ntSuccess } from '../../kernel/nt-status.ts'
import { PoolType, poolTag } from '../../kernel/pool.ts'
import { settled, type Waiting } from '../../kernel/thread.ts'
import { SrbFunction } from '../../port/srb.ts'
import {
  QUERY_PROPERTY,
  STORAGE_ADAPTER_DESCRIPTOR,
  STORAGE_PROPERTY_QUERY,
  StorageProperty,
} from '../../port/storage-property.ts'
import { Cdb } from './cdb.ts'
import type { Disk } from './disk.ts'
import { inquire, readModes, readProvisioning } from './disk-identity.ts'
import { publishPartitions } from './partition-device.ts'
import { readPartitionTable } from './partition-table.ts'

const TAG = poolTag('ScSt')
const PAGE_BYTES = 4096

/**
 * IRP_MN_START_DEVICE once the drivers below have started: claims the unit, learns the adapter's limits and what
 * the disk is, and finds its partitions. A disk that is not ready starts all the same, without a capacity.
 */
export function* startDisk(disk: Disk): Waiting {
  if (!disk.packets.reserve()) return NtStatus.INSUFFICIENT_RESOURCES
  if (!disk.claimed) {
    const { status } = yield* disk.command({ function: SrbFunction.CLAIM_DEVICE, once: true })
    if (!ntSuccess(status)) return status
    disk.claimed = true
  }
  yield* readLimits(disk)
  const identity = yield* inquire(disk)
  if (typeof identity === 'number') return identity
  const modes = yield* readModes(disk)
  disk.facts = { ...disk.facts, ...identity, ...modes }
  const capacity = yield* disk.readCapacity()
  if (disk.kernel.version.trimIoctl && ntSuccess(capacity)) {
    disk.facts = { ...disk.facts, ...(yield* readProvisioning(disk)) }
  }
  disk.state = 'started'
  yield* readPartitions(disk)
  return NtStatus.SUCCESS
}

/** Gives the unit back to who asks for it next. */
export function* releaseDisk(disk: Disk): Waiting<void> {
  if (!disk.claimed) return
  disk.claimed = false
  yield* disk.command({ function: SrbFunction.RELEASE_DEVICE, once: true })
}

/** Reads the partition table, and makes and deletes partition devices until they are what it says. */
export function* readPartitions(disk: Disk): Waiting<void> {
  const { sectors, sectorBytes } = disk.facts
  const reader = readPartitionTable({ blockBytes: sectorBytes, blocks: sectors })
  let step = reader.next()
  while (step.done !== true) {
    const { lba, count } = step.value
    step = reader.next(yield* readBlocks(disk, lba, count))
  }
  disk.table = step.value
  publishPartitions(disk)
}

/** Blocks of the disk in as many commands as the adapter needs; null when one cannot be read. */
function* readBlocks(disk: Disk, lba: number, count: number): Waiting<Uint8Array<ArrayBuffer> | null> {
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
    if (!ntSuccess(status) || data.length !== blocks * sectorBytes) return null
    bytes.set(data, done * sectorBytes)
    done += blocks
  }
  return bytes
}

/** The adapter's limits, by IOCTL_STORAGE_QUERY_PROPERTY. Without an answer classpnp's defaults hold. */
function* readLimits(disk: Disk): Waiting<void> {
  const { kernel, lower } = disk
  const { window } = kernel.parts.memory
  const outputBytes = STORAGE_ADAPTER_DESCRIPTOR.$size
  const room = kernel.exAllocatePoolWithTag(
    PoolType.NON_PAGED,
    KEVENT.$size + IO_STATUS_BLOCK.$size + STORAGE_PROPERTY_QUERY.$size + 4 + outputBytes,
    TAG,
  )
  if (room === 0) return
  const event = kernel.keInitializeEvent(room, true, false)
  const iosb = room + KEVENT.$size
  const input = iosb + IO_STATUS_BLOCK.$size
  const output = input + STORAGE_PROPERTY_QUERY.$size + 4
  kernel.parts.memory.zero(iosb, output + outputBytes - iosb)
  window.putLe32(STORAGE_PROPERTY_QUERY.propertyId, StorageProperty.ADAPTER, input)
  const irp = kernel.ioBuildDeviceIoControlRequest({
    code: QUERY_PROPERTY,
    device: lower,
    input,
    inputBytes: STORAGE_PROPERTY_QUERY.$size,
    output,
    outputBytes,
    event: event.at,
    iosb,
  })
  if (irp !== null) {
    let status = yield* settled(kernel.ioCallDriver(lower, irp))
    if (status === NtStatus.PENDING) {
      yield* kernel.keWaitForSingleObject(event)
      status = ntStatus(window.le32(IO_STATUS_BLOCK.status, iosb))
    }
    const told = window.le64(IO_STATUS_BLOCK.information, iosb) >= outputBytes
    if (ntSuccess(status) && told) {
      const length = window.le32(STORAGE_ADAPTER_DESCRIPTOR.maximumTransferLength, output)
      const pages = window.le32(STORAGE_ADAPTER_DESCRIPTOR.maximumPhysicalPages, output)
      disk.maximumTransferLength = Math.max(512, length)
      // One page cannot hold a sector that lies across two.
      disk.maximumPhysicalPages = Math.max(2, pages)
      disk.fdo.alignmentRequirement |= window.le32(STORAGE_ADAPTER_DESCRIPTOR.alignmentMask, output)
    }
  }
  kernel.exFreePool(room)
}
