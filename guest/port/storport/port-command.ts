import { KEVENT } from '../../kernel/layout.ts'
import { PoolType, poolTag } from '../../kernel/pool.ts'
import type { Waiting } from '../../kernel/thread.ts'
import { ScsiRequestBlock, SrbFlag, SrbFunction } from '../srb.ts'
import type { Adapter } from './adapter.ts'
import type { LogicalUnit } from './logical-unit.ts'

const TAG = poolTag('StCm')
const SENSE_BYTES = 18
const TIMEOUT_SECONDS = 10

export interface PortCommand {
  readonly cdb: readonly number[]
  /** Room for what the unit answers. */
  readonly dataBytes: number
  readonly function?: number
}

export interface PortCommandResult {
  /** Without its two flags. */
  readonly srbStatus: number
  readonly data: Uint8Array<ArrayBuffer>
}

/** Sends a command of the port's own to a unit and waits for its end; null when memory is short. */
export function* portCommand(
  adapter: Adapter,
  unit: LogicalUnit,
  command: PortCommand,
): Waiting<PortCommandResult | null> {
  const { kernel } = adapter
  const { window, bytes } = kernel.parts.memory
  const srbBytes = ScsiRequestBlock.$size
  const total = srbBytes + 32 + KEVENT.$size + command.dataBytes
  const at = kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, total, TAG)
  if (at === 0) return null
  kernel.parts.memory.zero(at, total)
  const sense = at + srbBytes
  const event = kernel.keInitializeEvent(sense + 32, true, false)
  const data = event.at + KEVENT.$size
  window.putLe16(ScsiRequestBlock.Length, srbBytes, at)
  window.putU8(ScsiRequestBlock.Function, command.function ?? SrbFunction.EXECUTE_SCSI, at)
  window.putU8(ScsiRequestBlock.PathId, unit.path, at)
  window.putU8(ScsiRequestBlock.TargetId, unit.target, at)
  window.putU8(ScsiRequestBlock.Lun, unit.lun, at)
  window.putU8(ScsiRequestBlock.CdbLength, command.cdb.length, at)
  window.putU8(ScsiRequestBlock.SenseInfoBufferLength, SENSE_BYTES, at)
  window.putLe64(ScsiRequestBlock.SenseInfoBuffer, sense, at)
  const direction = command.dataBytes > 0 ? SrbFlag.DATA_IN : 0
  window.putLe32(ScsiRequestBlock.SrbFlags, direction | SrbFlag.NO_QUEUE_FREEZE, at)
  window.putLe32(ScsiRequestBlock.DataTransferLength, command.dataBytes, at)
  window.putLe32(ScsiRequestBlock.TimeOutValue, TIMEOUT_SECONDS, at)
  if (command.dataBytes > 0) window.putLe64(ScsiRequestBlock.DataBuffer, data, at)
  bytes.set(command.cdb, at + ScsiRequestBlock.Cdb)
  if (!adapter.submitOwn(unit, at, () => kernel.keSetEvent(event))) {
    kernel.exFreePool(at)
    return null
  }
  yield* kernel.keWaitForSingleObject(event)
  const srbStatus = window.u8(ScsiRequestBlock.SrbStatus, at) & 0x3f
  const moved = Math.min(window.le32(ScsiRequestBlock.DataTransferLength, at), command.dataBytes)
  const answer = bytes.slice(data, data + moved)
  kernel.exFreePool(at)
  return { srbStatus, data: answer }
}
