import type { DeviceObject } from '../../kernel/device-object.ts'
import type { KEvent } from '../../kernel/dispatcher-object.ts'
import { StackControl } from '../../kernel/io-layout.ts'
import type { Irp } from '../../kernel/irp.ts'
import { KEVENT } from '../../kernel/layout.ts'
import { NtStatus, ntSuccess } from '../../kernel/nt-status.ts'
import { PoolType, poolTag } from '../../kernel/pool.ts'
import { settled, type Waiting } from '../../kernel/thread.ts'
import type { Disk } from './disk.ts'
import { releaseDisk, startDisk } from './disk-start.ts'
import { retirePartitions } from './partition-device.ts'

const TAG = poolTag('ScPn')

/** IRP_MN_* of IRP_MJ_PNP that a disk looks at. */
const Minor = { START: 0, REMOVE: 2, STOP: 4, SURPRISE_REMOVAL: 0x17 } as const

/** IRP_MJ_PNP at a disk's FDO. */
export function plugAndPlay(disk: Disk, irp: Irp): NtStatus | Waiting {
  switch (irp.current.minor) {
    case Minor.START:
      return start(disk, irp)
    case Minor.STOP:
      disk.state = 'stopped'
      return agree(disk, irp)
    case Minor.SURPRISE_REMOVAL:
      disk.vanish()
      return agree(disk, irp)
    case Minor.REMOVE:
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
  const below = yield* forwardAndWait(disk, irp)
  if (!ntSuccess(below)) return disk.complete(irp, below)
  return disk.complete(irp, yield* startDisk(disk))
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

/** Sends the request on and takes it back once the drivers below are done (IoForwardIrpSynchronously). */
function* forwardAndWait(disk: Disk, irp: Irp): Waiting {
  const { kernel, lower } = disk
  const room = kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, KEVENT.$size, TAG)
  if (room === 0) return NtStatus.INSUFFICIENT_RESOURCES
  const event: KEvent = kernel.keInitializeEvent(room, true, false)
  kernel.ioCopyCurrentIrpStackLocationToNext(irp)
  const back = kernel.routine((_device: DeviceObject | null, _irp: Irp, context: number): NtStatus => {
    kernel.keSetEvent(kernel.parts.contexts.get<KEvent>(context))
    return NtStatus.MORE_PROCESSING_REQUIRED
  })
  const context = kernel.parts.contexts.hold(event)
  const always = StackControl.INVOKE_ON_SUCCESS | StackControl.INVOKE_ON_ERROR | StackControl.INVOKE_ON_CANCEL
  kernel.ioSetCompletionRoutine(irp, back, context, always)
  yield* settled(kernel.ioCallDriver(lower, irp))
  yield* kernel.keWaitForSingleObject(event)
  kernel.parts.contexts.release(context)
  kernel.exFreePool(room)
  return irp.status
}
