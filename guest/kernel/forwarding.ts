import type { DeviceObject } from './device-object.ts'
import type { DeviceTable } from './device-table.ts'
import { KEvent } from './dispatcher-object.ts'
import type { Hal } from './hal.ts'
import type { Irp } from './irp.ts'
import type { IrpFlow } from './irp-flow.ts'
import type { KernelMemory } from './kernel-memory.ts'
import { KEVENT } from './layout.ts'
import { NtStatus } from './nt-status.ts'
import { type Pool, PoolType, poolTag } from './pool.ts'
import type { Routine, RoutineTable } from './routine.ts'
import type { CompletionRoutine } from './stack-location.ts'
import type { Synchronization } from './synchronization.ts'
import { settled, type Waiting } from './thread.ts'
import type { Waits } from './wait.ts'

const FORWARD_TAG = poolTag('Forw')
const SAFE_TAG = poolTag('Usaf')

interface ForwardingParts {
  readonly memory: KernelMemory
  readonly hal: Hal
  readonly pool: Pool
  readonly routines: RoutineTable
  readonly devices: DeviceTable
  readonly flow: IrpFlow
  readonly synchronization: Synchronization
  readonly waits: Waits
}

/** Completion routines the system provides to drivers. */
export class Forwarding {
  readonly #parts: ForwardingParts
  readonly #wakeSender: Routine<CompletionRoutine>
  readonly #unloadSafe: Routine<CompletionRoutine>

  constructor(parts: ForwardingParts) {
    this.#parts = parts
    this.#wakeSender = parts.routines.register((_device: DeviceObject | null, irp: Irp, context: number) => {
      // An answer that was not PENDING tells the sender by itself.
      if (irp.pendingReturned) parts.synchronization.setEvent(new KEvent(parts.memory, context))
      return NtStatus.MORE_PROCESSING_REQUIRED
    })
    this.#unloadSafe = parts.routines.register((device: DeviceObject | null, irp: Irp, context: number) =>
      this.#runSafe(device, irp, context),
    )
  }

  /** IoForwardIrpSynchronously. */
  *forward(device: DeviceObject, irp: Irp): Waiting {
    const { hal, pool, flow, synchronization, waits } = this.#parts
    const room = pool.allocate(PoolType.NON_PAGED, KEVENT.$size, FORWARD_TAG, hal.irql)
    if (room === 0) return NtStatus.INSUFFICIENT_RESOURCES
    const event = synchronization.initializeEvent(room, true, false)
    flow.copyToNext(irp)
    flow.setCompletionRoutine(irp, this.#wakeSender, event.at)
    const status = yield* settled(flow.call(device, irp))
    if (status === NtStatus.PENDING) yield* waits.wait([event.at], true)
    pool.free(room, hal.irql)
    return irp.status
  }

  /** IoSetCompletionRoutineEx. */
  setCompletionRoutineEx(
    device: DeviceObject,
    irp: Irp,
    routine: Routine<CompletionRoutine>,
    context: number,
    invoke?: number,
  ): NtStatus {
    const { hal, pool, memory, devices, flow } = this.#parts
    const block = pool.allocate(PoolType.NON_PAGED, 24, SAFE_TAG, hal.irql)
    if (block === 0) return NtStatus.INSUFFICIENT_RESOURCES
    memory.putPointer(block, device.at)
    memory.putPointer(block + 8, routine)
    memory.putPointer(block + 16, context)
    devices.reference(device)
    flow.setCompletionRoutine(irp, this.#unloadSafe, block, invoke)
    return NtStatus.SUCCESS
  }

  #runSafe(device: DeviceObject | null, irp: Irp, block: number): NtStatus {
    const { hal, pool, memory, devices, routines } = this.#parts
    const owner = devices.deviceAt(memory.pointer(block))
    const routine = memory.pointer(block + 8) as Routine<CompletionRoutine>
    const context = memory.pointer(block + 16)
    pool.free(block, hal.irql)
    const answer = routines.resolve(routine)(device, irp, context)
    devices.dereference(owner)
    return answer
  }
}
