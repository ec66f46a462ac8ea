import { Window } from '../../../protocol/window.ts'
import { sendControl } from '../../kernel/control-request.ts'
import { NtStatus, ntSuccess } from '../../kernel/nt-status.ts'
import type { Waiting } from '../../kernel/thread.ts'
import { SrbFunction } from '../../port/srb.ts'
import {
  QUERY_PROPERTY,
  STORAGE_ADAPTER_DESCRIPTOR,
  STORAGE_PROPERTY_QUERY,
  StorageProperty,
} from '../../port/storage-property.ts'
import type { Disk } from './disk.ts'
import { inquire, readModes, readProvisioning } from './disk-identity.ts'
import { readPartitions } from './medium.ts'

const SHORT = NtStatus.INSUFFICIENT_RESOURCES

/**
 * IRP_MN_START_DEVICE once the drivers below have started: claims the unit, learns the adapter's limits and what
 * the disk is, and finds its partitions. A disk that is not ready starts all the same, without a capacity; one
 * of which something is not known because memory was short does not: what is missing would be taken for a no.
 */
export function startDisk(disk: Disk): Waiting {
  return disk.inTurn(() => learn(disk))
}

function* learn(disk: Disk): Waiting {
  if (!disk.packets.reserve()) return NtStatus.INSUFFICIENT_RESOURCES
  if (!disk.claimed) {
    const { status } = yield* disk.command({ function: SrbFunction.CLAIM_DEVICE, once: true })
    if (!ntSuccess(status)) return status
    disk.claimed = true
  }
  if ((yield* readLimits(disk)) === SHORT) return SHORT
  const identity = yield* inquire(disk)
  if (typeof identity === 'number') return identity
  const modes = yield* readModes(disk)
  if (typeof modes === 'number') return modes
  disk.facts = { ...disk.facts, ...identity, ...modes }
  const capacity = yield* disk.readCapacity()
  if (capacity === SHORT) return SHORT
  if (disk.kernel.version.trimIoctl && ntSuccess(capacity)) {
    const provisioning = yield* readProvisioning(disk)
    if (typeof provisioning === 'number') return provisioning
    disk.facts = { ...disk.facts, ...provisioning }
  }
  disk.state = 'started'
  return (yield* readPartitions(disk)) === SHORT ? SHORT : NtStatus.SUCCESS
}

/** Gives the unit back to who asks for it next. */
export function* releaseDisk(disk: Disk): Waiting<void> {
  if (!disk.claimed) return
  disk.claimed = false
  yield* disk.command({ function: SrbFunction.RELEASE_DEVICE, once: true })
}

/** The adapter's limits, by IOCTL_STORAGE_QUERY_PROPERTY. Without an answer classpnp's defaults hold. */
function* readLimits(disk: Disk): Waiting {
  const { kernel, lower } = disk
  const query = new Uint8Array(STORAGE_PROPERTY_QUERY.$size)
  new Window(query).putLe32(STORAGE_PROPERTY_QUERY.propertyId, StorageProperty.ADAPTER)
  const fields = STORAGE_ADAPTER_DESCRIPTOR
  const { status, bytes } = yield* sendControl(kernel, lower, QUERY_PROPERTY, query, fields.$size)
  if (!ntSuccess(status) || bytes.length < fields.$size) return status
  const told = new Window(bytes)
  disk.maximumTransferLength = Math.max(512, told.le32(fields.maximumTransferLength))
  // One page cannot hold a sector that lies across two.
  disk.maximumPhysicalPages = Math.max(2, told.le32(fields.maximumPhysicalPages))
  disk.fdo.alignmentRequirement |= told.le32(fields.alignmentMask)
  return NtStatus.SUCCESS
}
