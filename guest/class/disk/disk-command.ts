import type { Window } from '../../../protocol/window.ts'
import type { Kernel } from '../../kernel/kernel.ts'
import { KEVENT } from '../../kernel/layout.ts'
import { NtStatus } from '../../kernel/nt-status.ts'
import { PoolType, poolTag } from '../../kernel/pool.ts'
import type { Waiting } from '../../kernel/thread.ts'
import { SrbFunction } from '../../port/srb.ts'
import type { TransferPacket } from './transfer-packet.ts'
import type { TransferPackets } from './transfer-packets.ts'

const TAG = poolTag('ScCm')

export interface DiskCommand {
  /** Writes the command into 16 zeroed bytes; its length. Left out for what is no SCSI command. */
  readonly cdb?: (cdb: Window, base: number) => number
  readonly function?: number
  readonly write?: boolean
  readonly timeoutSeconds: number
  /** Bytes to send, or room for what comes. */
  readonly data?: Uint8Array | number
  /** The caller's buffer in kernel memory, instead. */
  readonly buffer?: { readonly at: number; readonly lengthBytes: number; readonly mdlAddress: number }
  /** Looks at the packet while it still holds SRB and sense data. */
  readonly inspect?: (packet: TransferPacket) => void
  /** Answered as it comes back: no second try. */
  readonly once?: boolean
}

export interface DiskCommandResult {
  readonly status: NtStatus
  /** What came, as far as the target says. */
  readonly data: Uint8Array<ArrayBuffer>
  readonly movedBytes: number
}

const NOTHING = new Uint8Array(0)

/** Sends a command of the class driver's own and waits for its end (ClassSendSrbSynchronous). */
export function* sendCommand(
  kernel: Kernel,
  packets: TransferPackets,
  command: DiskCommand,
): Waiting<DiskCommandResult> {
  const failed = { status: NtStatus.INSUFFICIENT_RESOURCES, data: NOTHING, movedBytes: 0 }
  const { bytes } = kernel.parts.memory
  const own = command.data ?? 0
  const lengthBytes = typeof own === 'number' ? own : own.length
  const room = kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, KEVENT.$size + lengthBytes, TAG)
  if (room === 0) return failed
  const data = room + KEVENT.$size
  const mdl = lengthBytes > 0 ? kernel.ioAllocateMdl(data, lengthBytes) : null
  const packet = lengthBytes > 0 && mdl === null ? null : packets.make()
  let result: DiskCommandResult = failed
  if (packet !== null) {
    if (mdl !== null) kernel.mmBuildMdlForNonPagedPool(mdl)
    bytes.fill(0, data, data + lengthBytes)
    if (typeof own !== 'number') bytes.set(own, data)
    const buffer = command.buffer ?? { at: lengthBytes > 0 ? data : 0, lengthBytes, mdlAddress: mdl?.at ?? 0 }
    const event = kernel.keInitializeEvent(room, true, false)
    packet.prepare(
      command.write === true,
      buffer.at,
      buffer.lengthBytes,
      buffer.mdlAddress,
      command.timeoutSeconds,
    )
    packet.srb.function = command.function ?? SrbFunction.EXECUTE_SCSI
    packet.srb.cdbLength = command.cdb?.(packet.cdb, packet.cdbBase) ?? 0
    packet.once = command.once === true
    packet.ended = () => kernel.keSetEvent(event)
    packets.send(packet)
    yield* kernel.keWaitForSingleObject(event)
    command.inspect?.(packet)
    const movedBytes = Math.min(packet.movedBytes, buffer.lengthBytes)
    const came = command.write === true || command.buffer !== undefined ? 0 : movedBytes
    result = { status: packet.status, data: bytes.slice(data, data + came), movedBytes }
    packets.discard(packet)
  }
  if (mdl !== null) kernel.ioFreeMdl(mdl)
  kernel.exFreePool(room)
  return result
}
