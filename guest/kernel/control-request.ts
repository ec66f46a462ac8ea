import type { DeviceObject } from './device-object.ts'
import type { Kernel } from './kernel.ts'
import { IO_STATUS_BLOCK, KEVENT } from './layout.ts'
import { NtStatus, ntStatus } from './nt-status.ts'
import { PoolType, poolTag } from './pool.ts'
import { settled, type Waiting } from './thread.ts'

const TAG = poolTag('Ctrl')

export interface ControlResult {
  readonly status: NtStatus
  /** What came back. */
  readonly bytes: Uint8Array<ArrayBuffer>
}

/**
 * A device control of a driver's own, sent to `device` and waited for, in the way drivers do it:
 * IoBuildDeviceIoControlRequest with an event on buffers of the pool. At PASSIVE level.
 */
export function* sendControl(
  kernel: Kernel,
  device: DeviceObject,
  code: number,
  input: Uint8Array,
  outputBytes: number,
): Waiting<ControlResult> {
  const { window, bytes } = kernel.parts.memory
  const short = { status: NtStatus.INSUFFICIENT_RESOURCES, bytes: new Uint8Array(0) }
  const fixed = KEVENT.$size + IO_STATUS_BLOCK.$size
  const room = kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, fixed + input.length + outputBytes, TAG)
  if (room === 0) return short
  const event = kernel.keInitializeEvent(room, true, false)
  const iosb = room + KEVENT.$size
  const inputAt = room + fixed
  const outputAt = inputAt + input.length
  bytes.fill(0, iosb, outputAt + outputBytes)
  bytes.set(input, inputAt)
  const irp = kernel.ioBuildDeviceIoControlRequest({
    code,
    device,
    input: inputAt,
    inputBytes: input.length,
    output: outputAt,
    outputBytes,
    event: event.at,
    iosb,
  })
  if (irp === null) {
    kernel.exFreePool(room)
    return short
  }
  let status = yield* settled(kernel.ioCallDriver(device, irp))
  if (status === NtStatus.PENDING) {
    yield* kernel.keWaitForSingleObject(event)
    status = ntStatus(window.le32(IO_STATUS_BLOCK.status, iosb))
  }
  const came = Math.min(outputBytes, window.le64(IO_STATUS_BLOCK.information, iosb))
  const result = { status, bytes: bytes.slice(outputAt, outputAt + came) }
  kernel.exFreePool(room)
  return result
}
