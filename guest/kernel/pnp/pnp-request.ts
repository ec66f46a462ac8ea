import { BugCode, keBugCheckEx } from '../bug-check.ts'
import type { DeviceObject } from '../device-object.ts'
import type { KEvent } from '../dispatcher-object.ts'
import { Major } from '../io-layout.ts'
import type { Irp } from '../irp.ts'
import type { KernelParts } from '../kernel-parts.ts'
import { KEVENT } from '../layout.ts'
import { NtStatus } from '../nt-status.ts'
import { PoolType, poolTag } from '../pool.ts'
import type { Routine } from '../routine.ts'
import type { CompletionRoutine } from '../stack-location.ts'
import { settled, type Waiting } from '../thread.ts'
import { PnpMinor } from './pnp-minor.ts'

const CALL_TAG = poolTag('PpCa')
/** Tries, and the pause between them, for memory that a request which cannot fail needs. */
const MEMORY_TRIES = 1000
const MEMORY_PAUSE_US = 10_000

/** Minors a driver cannot refuse, and which therefore have to be sent. */
const CERTAIN: ReadonlySet<number> = new Set([
  PnpMinor.REMOVE_DEVICE,
  PnpMinor.CANCEL_REMOVE_DEVICE,
  PnpMinor.STOP_DEVICE,
  PnpMinor.CANCEL_STOP_DEVICE,
  PnpMinor.SURPRISE_REMOVAL,
])

export interface PnpAnswer {
  readonly status: NtStatus
  readonly information: number
}

/** A request to a stack, under way or done. */
export class PnpCall {
  readonly irp: Irp
  readonly event: KEvent
  done: boolean
  /** Told once, at DISPATCH level or below, when it is done after it was answered PENDING. */
  whenDone: (() => void) | null

  constructor(irp: Irp, event: KEvent) {
    this.irp = irp
    this.event = event
    this.done = false
    this.whenDone = null
  }
}

/** IRP_MJ_PNP as the PnP manager sends it: to the top of a stack, in a system thread at PASSIVE level. */
export class PnpRequests {
  readonly #parts: KernelParts
  readonly #completed: Routine<CompletionRoutine>

  constructor(parts: KernelParts) {
    this.#parts = parts
    this.#completed = parts.routines.register((_device: DeviceObject | null, _irp: Irp, context: number) => {
      const call = parts.contexts.release<PnpCall>(context)
      call.done = true
      parts.synchronization.setEvent(call.event)
      call.whenDone?.()
      return NtStatus.MORE_PROCESSING_REQUIRED
    })
  }

  /** Sends and waits. A request that cannot be made for want of memory has not been sent. */
  *send(pdo: DeviceObject, minor: PnpMinor, argument1 = 0, argument2 = 0): Waiting<PnpAnswer> {
    const call = yield* this.begin(pdo, minor, argument1, argument2)
    return call === null
      ? { status: NtStatus.INSUFFICIENT_RESOURCES, information: 0 }
      : yield* this.finish(call)
  }

  /** Sends; the call may not be done. Null when memory is short. */
  *begin(pdo: DeviceObject, minor: PnpMinor, argument1 = 0, argument2 = 0): Waiting<PnpCall | null> {
    const { contexts, devices, flow, waits } = this.#parts
    const top = devices.attached(pdo)
    let call = this.#make(top)
    for (let tries = 1; call === null && CERTAIN.has(minor); tries++) {
      if (tries === MEMORY_TRIES) keBugCheckEx(BugCode.BAD_POOL_CALLER, 0, pdo.at, minor)
      yield* waits.delay(MEMORY_PAUSE_US)
      call = this.#make(top)
    }
    if (call === null) return null
    const { irp } = call
    irp.status = NtStatus.NOT_SUPPORTED
    const { next } = irp
    next.major = Major.PNP
    next.minor = minor
    next.argument1 = argument1
    next.argument2 = argument2
    flow.setCompletionRoutine(irp, this.#completed, contexts.hold(call))
    yield* settled(flow.call(top, irp))
    return call
  }

  #make(top: DeviceObject): PnpCall | null {
    const { hal, pool, irps, synchronization } = this.#parts
    const room = pool.allocate(PoolType.NON_PAGED, KEVENT.$size, CALL_TAG, hal.irql)
    const irp = room === 0 ? null : irps.allocate(top.stackSize)
    if (irp !== null) return new PnpCall(irp, synchronization.initializeEvent(room, true, false))
    if (room !== 0) pool.free(room, hal.irql)
    return null
  }

  /** Waits for a call and takes its answer, once. */
  *finish(call: PnpCall): Waiting<PnpAnswer> {
    const { hal, pool, irps, waits } = this.#parts
    if (!call.done) yield* waits.wait([call.event.at], true)
    const { irp } = call
    const { status, information } = irp
    irps.free(irp)
    pool.free(call.event.at, hal.irql)
    return { status, information }
  }
}
