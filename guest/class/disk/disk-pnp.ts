import type { Irp } from '../../kernel/irp.ts'
import { NtStatus, ntSuccess } from '../../kernel/nt-status.ts'
import { PnpMinor } from '../../kernel/pnp/pnp-minor.ts'
import { settled, type Waiting } from '../../kernel/thread.ts'
import type { Disk } from './disk.ts'
import { releaseDisk, startDisk } from './disk-start.ts'
import { retirePartitions } from './partition-device.ts'

/** IRP_MJ_PNP at a disk's FDO. */
export function plugAndPlay(disk: Disk, irp: Irp): NtStatus | Waiting {
  switch (irp.current.minor) {
    case PnpMinor.START_DEVICE:
      return start(disk, irp)
    case PnpMinor.STOP_DEVICE:
      // What comes meanwhile waits at the port.
      return agree(disk, irp)
    case PnpMinor.SURPRISE_REMOVAL:
      disk.vanish()
      return agree(disk, irp)
    case PnpMinor.REMOVE_DEVICE:
      return remove(disk, irp)
    default:
      disk.kernel.ioSkipCurrentIrpStackLocation(irp)
      return disk.kernel.ioCallDriver(disk.lower, irp)
  }
}

/** Down with success: the bus driver has the last word. */
function agree(disk: Disk, irp: Irp): NtStatus | Waiting {
  irp.status = NtStatus.SUCCESS
  disk.kernel.ioSkipCurrentIrpStackLocation(irp)
  return disk.kernel.ioCallDriver(disk.lower, irp)
}

/** The drivers below start first. */
function* start(disk: Disk, irp: Irp): Waiting {
  const below = yield* disk.kernel.ioForwardIrpSynchronously(disk.lower, irp)
  if (!ntSuccess(below)) return disk.complete(irp, below)
  const status = yield* startDisk(disk)
  if (ntSuccess(status)) disk.show(true)
  return disk.complete(irp, status)
}

/** No request is let in; those under way end; then the stack goes, from the top down. */
function* remove(disk: Disk, irp: Irp): Waiting {
  const present = !disk.gone
  if (present && disk.claimed) yield* releaseDisk(disk)
  disk.vanish()
  disk.state = 'removed'
  retirePartitions(disk)
  yield* disk.lock.drain()
  const { kernel, lower } = disk
  irp.status = NtStatus.SUCCESS
  kernel.ioSkipCurrentIrpStackLocation(irp)
  const status = yield* settled(kernel.ioCallDriver(lower, irp))
  for (const link of disk.links) kernel.ioDeleteSymbolicLink(link)
  kernel.ioDetachDevice(lower)
  disk.free()
  kernel.ioDeleteDevice(disk.fdo)
  return status
}
