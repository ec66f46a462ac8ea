import { BugCode, keBugCheckEx } from './bug-check.ts'
import type { Cancellation } from './cancellation.ts'
import type { DeviceObject } from './device-object.ts'
import {
  keInsertByKeyDeviceQueue,
  keInsertDeviceQueue,
  keRemoveByKeyDeviceQueue,
  keRemoveDeviceQueue,
} from './device-queue.ts'
import type { DpcQueue } from './dpc.ts'
import type { Hal } from './hal.ts'
import { IRP } from './io-layout.ts'
import type { CancelRoutine, Irp } from './irp.ts'
import type { IrpPool } from './irp-pool.ts'
import { Irql } from './irql.ts'
import type { KernelMemory } from './kernel-memory.ts'
import { NO_ROUTINE, type Routine, type RoutineTable } from './routine.ts'

/** DEVOBJ_EXTENSION.StartIoFlags. */
const DEFERRED = 1
const NO_CANCEL = 2
const BY_KEY = 4
const CANCELABLE = 8

const ENTRY_OFFSET = IRP.driverContext as number

/** Serves a device's requests one at a time through its driver's StartIo routine, at DISPATCH level. */
export class StartIo {
  readonly #memory: KernelMemory
  readonly #hal: Hal
  readonly #routines: RoutineTable
  readonly #irps: IrpPool
  readonly #cancellation: Cancellation
  readonly #dpcs: DpcQueue

  constructor(
    memory: KernelMemory,
    hal: Hal,
    routines: RoutineTable,
    irps: IrpPool,
    cancellation: Cancellation,
    dpcs: DpcQueue,
  ) {
    this.#memory = memory
    this.#hal = hal
    this.#routines = routines
    this.#irps = irps
    this.#cancellation = cancellation
    this.#dpcs = dpcs
  }

  /** IoSetStartIoAttributes: `deferred` keeps StartIo from calling itself; `nonCancelable` clears cancel routines. */
  setAttributes(device: DeviceObject, deferred: boolean, nonCancelable: boolean): void {
    device.startIoFlags = (deferred ? DEFERRED : 0) | (nonCancelable ? NO_CANCEL : 0)
  }

  /** IoStartPacket: `key` orders the queue, null is first in, first out; `cancel` 0: not cancelable. */
  start(device: DeviceObject, irp: Irp, key: number | null, cancel: Routine<CancelRoutine>): void {
    this.#hal.point()
    const before = this.#hal.raise(Irql.DISPATCH)
    if (cancel !== 0) {
      this.#cancellation.acquire()
      irp.cancelRoutine = cancel
    }
    const queued =
      key === null
        ? keInsertDeviceQueue(this.#memory, device.deviceQueue, irp.deviceQueueEntry)
        : keInsertByKeyDeviceQueue(this.#memory, device.deviceQueue, irp.deviceQueueEntry, key)
    if (queued) this.#queued(device, irp, cancel)
    else this.#begin(device, irp, cancel !== 0)
    this.#hal.lower(before)
  }

  /** A request that was cancelled before it was queued is taken by its cancel routine now. */
  #queued(device: DeviceObject, irp: Irp, cancel: Routine<CancelRoutine>): void {
    if (cancel === 0) return
    if (!irp.cancel) {
      this.#cancellation.release(Irql.DISPATCH)
      return
    }
    irp.cancelIrql = Irql.DISPATCH
    irp.cancelRoutine = NO_ROUTINE
    this.#routines.resolve(cancel)(device, irp)
  }

  /** The device was idle, or has just become so: `irp` is the current one. */
  #begin(device: DeviceObject, irp: Irp, holdsCancelLock: boolean): void {
    device.currentIrp = irp.at
    if (holdsCancelLock) {
      if ((device.startIoFlags & NO_CANCEL) !== 0) irp.cancelRoutine = NO_ROUTINE
      this.#cancellation.release(Irql.DISPATCH)
    }
    const { startIo } = device.driver
    if (startIo === 0) keBugCheckEx(BugCode.PAGE_FAULT_IN_NONPAGED_AREA, 0, 8, device.at)
    if ((device.startIoFlags & DEFERRED) === 0) this.#routines.resolve(startIo)(device, irp)
    else {
      // While StartIo runs, asking for the next packet is only noted.
      device.startIoCount++
      this.#routines.resolve(startIo)(device, irp)
      this.#runDeferred(device)
    }
  }

  /** IoStartNextPacket and IoStartNextPacketByKey. */
  next(device: DeviceObject, cancelable: boolean, key: number | null = null): void {
    this.#hal.point()
    if (this.#hal.irql !== Irql.DISPATCH)
      keBugCheckEx(BugCode.IRQL_NOT_LESS_OR_EQUAL, device.at, this.#hal.irql)
    if ((device.startIoFlags & DEFERRED) === 0) {
      this.#next(device, cancelable, key)
      return
    }
    device.startIoFlags =
      (device.startIoFlags & (DEFERRED | NO_CANCEL)) |
      (key === null ? 0 : BY_KEY) |
      (cancelable ? CANCELABLE : 0)
    device.startIoKey = key ?? 0
    if (device.startIoCount++ > 0) return
    this.#next(device, cancelable, key)
    this.#runDeferred(device)
  }

  /** Starts what was asked for while StartIo ran, one after the other instead of one inside the other. */
  #runDeferred(device: DeviceObject): void {
    while (--device.startIoCount > 0) {
      const flags = device.startIoFlags
      this.#next(device, (flags & CANCELABLE) !== 0, (flags & BY_KEY) !== 0 ? device.startIoKey : null)
    }
  }

  #next(device: DeviceObject, cancelable: boolean, key: number | null): void {
    if (cancelable) this.#cancellation.acquire()
    device.currentIrp = 0
    const entry =
      key === null
        ? keRemoveDeviceQueue(this.#memory, device.deviceQueue)
        : keRemoveByKeyDeviceQueue(this.#memory, device.deviceQueue, key)
    if (entry === 0) {
      if (cancelable) this.#cancellation.release(Irql.DISPATCH)
      return
    }
    const irp = this.#irps.irpAt(entry - ENTRY_OFFSET)
    device.currentIrp = irp.at
    if (cancelable) {
      if ((device.startIoFlags & NO_CANCEL) !== 0) irp.cancelRoutine = NO_ROUTINE
      this.#cancellation.release(Irql.DISPATCH)
    }
    const { startIo } = device.driver
    this.#routines.resolve(startIo)(device, irp)
  }

  /** IoRequestDpc: from a service routine, for the device's own DPC. */
  requestDpc(device: DeviceObject, irp: number, context: number): void {
    this.#dpcs.insert(device.dpc, irp, context)
  }
}
