import type { DeviceObject } from '../../guest/kernel/device-object.ts'
import { Major } from '../../guest/kernel/io-layout.ts'
import type { Kernel } from '../../guest/kernel/kernel.ts'
import { KEVENT } from '../../guest/kernel/layout.ts'
import { NtStatus } from '../../guest/kernel/nt-status.ts'
import { PoolType, poolTag } from '../../guest/kernel/pool.ts'
import { settled, type Waiting } from '../../guest/kernel/thread.ts'
import { ScsiRequestBlock } from '../../guest/port/srb.ts'

const TAG = poolTag('Test')

/** Sends an SRB without data to the top of a stack, as a driver above would, and waits; its SRB status. */
export function* sendSrb(kernel: Kernel, top: DeviceObject, what: number, flags = 0): Waiting<number> {
  const { window } = kernel.parts.memory
  const at = kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, ScsiRequestBlock.$size + KEVENT.$size, TAG)
  const irp = kernel.ioAllocateIrp(top.stackSize)
  if (at === 0 || irp === null) throw new Error('no memory')
  kernel.parts.memory.zero(at, ScsiRequestBlock.$size)
  window.putLe16(ScsiRequestBlock.Length, ScsiRequestBlock.$size, at)
  window.putU8(ScsiRequestBlock.Function, what, at)
  window.putLe32(ScsiRequestBlock.SrbFlags, flags, at)
  window.putLe32(ScsiRequestBlock.TimeOutValue, 30, at)
  const event = kernel.keInitializeEvent(at + ScsiRequestBlock.$size, true, false)
  irp.next.major = Major.INTERNAL_DEVICE_CONTROL
  irp.next.srb = at
  kernel.ioSetCompletionRoutine(
    irp,
    kernel.routine(() => {
      kernel.keSetEvent(event)
      return NtStatus.MORE_PROCESSING_REQUIRED
    }),
  )
  yield* settled(kernel.ioCallDriver(top, irp))
  yield* kernel.keWaitForSingleObject(event)
  const srbStatus = window.u8(ScsiRequestBlock.SrbStatus, at)
  kernel.ioFreeIrp(irp)
  kernel.exFreePool(at)
  return srbStatus
}
