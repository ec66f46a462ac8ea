import type { GuestProcessor, GuestProgram } from '../../protocol/processor.ts'
import type { BugCheck } from './bug-check.ts'
import type { Csq, CsqRoutines } from './cancel-queue.ts'
import type { DeviceObject } from './device-object.ts'
import type { DeviceOptions } from './device-table.ts'
import type { KEvent } from './dispatcher-object.ts'
import type { DeferredRoutine } from './dpc.ts'
import type { DriverEntry, DriverObject } from './driver-object.ts'
import { Executive } from './executive.ts'
import { DeviceFlag } from './io-layout.ts'
import type { CancelRoutine, Irp } from './irp.ts'
import type { DeviceControlRequest, FsdRequest } from './irp-builder.ts'
import type { IrpFlow } from './irp-flow.ts'
import type { IrpPool } from './irp-pool.ts'
import type { Irql } from './irql.ts'
import type { KernelOptions } from './kernel-parts.ts'
import { NtServices } from './nt-services.ts'
import { NtStatus } from './nt-status.ts'
import { PnpManager } from './pnp/pnp-manager.ts'
import type { RemoveLock } from './remove-lock.ts'
import { NO_ROUTINE, type Routine } from './routine.ts'
import type { CompletionRoutine } from './stack-location.ts'
import { settled, type Waiting } from './thread.ts'
import type { WindowsVersion } from './version.ts'
import type { IoWorkRoutine } from './work-queue.ts'

/**
 * What drivers and ports call, by Windows' names: the I/O manager's routines here, all others in `Executive`.
 * The kernel is a program for a processor: `run` goes on until every thread waits.
 */
export class Kernel extends Executive implements GuestProgram {
  readonly version: WindowsVersion
  /** What an application's thread calls. */
  readonly nt: NtServices
  /** The device tree; drivers tell it what changed (`ioInvalidateDeviceRelations`). */
  readonly pnp: PnpManager
  /** Kept beside `parts`: every step of a request goes through them. */
  readonly #flow: IrpFlow
  readonly #irps: IrpPool
  #running: boolean

  constructor(options: KernelOptions) {
    super(options)
    this.version = options.version
    this.nt = new NtServices(this.parts, options.version)
    this.pnp = new PnpManager(this.parts, options.version)
    this.#flow = this.parts.flow
    this.#irps = this.parts.irps
    this.#running = false
  }

  /** Runs threads until none can go on, then halts. */
  run(processor: GuestProcessor): void {
    const { hal, scheduler } = this.parts
    let idle = true
    hal.enter(() => {
      if (!this.#running) {
        this.#running = true
        processor.sti()
      }
      idle = scheduler.run()
    })
    if (idle || hal.stopped !== null) processor.halt()
  }

  /** What stopped the guest, or null. */
  get bugCheck(): BugCheck | null {
    return this.parts.hal.stopped
  }

  // I/O manager: drivers and devices.

  ioLoadDriver(service: string, entry: DriverEntry): Waiting<DriverObject | NtStatus> {
    return this.parts.drivers.load(service, entry)
  }
  ioUnloadDriver(driver: DriverObject): Waiting {
    return this.parts.drivers.unload(driver)
  }
  ioCreateDevice(driver: DriverObject, options: DeviceOptions = {}): DeviceObject | NtStatus {
    this.parts.hal.point()
    const device = this.parts.devices.createDevice(driver, options)
    if (device === null) return NtStatus.INSUFFICIENT_RESOURCES
    if (options.name === undefined) return device
    const status = this.parts.names.insert(options.name, device)
    if (status === NtStatus.SUCCESS) {
      device.name = options.name
      device.flags |= DeviceFlag.DEVICE_HAS_NAME
      return device
    }
    this.parts.devices.deleteDevice(device)
    return status
  }
  ioDeleteDevice(device: DeviceObject): void {
    this.parts.hal.point()
    this.parts.devices.deleteDevice(device)
  }
  ioCreateSymbolicLink(name: string, target: string): NtStatus {
    return this.parts.names.link(name, target)
  }
  ioDeleteSymbolicLink(name: string): NtStatus {
    return this.parts.names.unlink(name)
  }
  ioAttachDeviceToDeviceStack(source: DeviceObject, target: DeviceObject): DeviceObject | null {
    this.parts.hal.point()
    return this.parts.devices.attach(source, target)
  }
  ioDetachDevice(target: DeviceObject): void {
    this.parts.hal.point()
    this.parts.devices.detach(target)
  }
  ioGetAttachedDevice(device: DeviceObject): DeviceObject {
    return this.parts.devices.attached(device)
  }

  // I/O manager: requests.

  ioAllocateIrp(stackCount: number, chargeQuota = false): Irp | null {
    this.parts.hal.point()
    return this.#irps.allocate(stackCount, chargeQuota)
  }
  ioFreeIrp(irp: Irp): void {
    this.#irps.free(irp)
  }
  ioReuseIrp(irp: Irp, status: NtStatus): void {
    this.#irps.reuse(irp, status)
  }
  /** The request at an address, as lists hold them. */
  irpAt(at: number): Irp {
    return this.#irps.irpAt(at)
  }
  ioBuildAsynchronousFsdRequest(request: FsdRequest): Irp | null {
    this.parts.hal.point()
    return this.parts.builder.asynchronous(request)
  }
  ioBuildSynchronousFsdRequest(request: FsdRequest, event: KEvent): Irp | null {
    this.parts.hal.point()
    return this.parts.builder.synchronous(request, event.at)
  }
  ioBuildDeviceIoControlRequest(request: DeviceControlRequest): Irp | null {
    this.parts.hal.point()
    return this.parts.builder.deviceControl(request)
  }
  /** @see IrpFlow.call */
  ioCallDriver(device: DeviceObject, irp: Irp): NtStatus | Waiting {
    return this.#flow.call(device, irp)
  }
  /** The same, resolved: `yield* kernel.ioCallDriverSettled(device, irp)`; PENDING stays PENDING. */
  ioCallDriverSettled(device: DeviceObject, irp: Irp): Waiting {
    return settled(this.#flow.call(device, irp))
  }
  ioMarkIrpPending(irp: Irp): void {
    this.#flow.markPending(irp)
  }
  ioCopyCurrentIrpStackLocationToNext(irp: Irp): void {
    this.#flow.copyToNext(irp)
  }
  ioSkipCurrentIrpStackLocation(irp: Irp): void {
    this.#flow.skip(irp)
  }
  ioSetNextIrpStackLocation(irp: Irp): void {
    this.#flow.setNext(irp)
  }
  /** `invoke`: StackControl.INVOKE_ON_*; all three when left out. */
  ioSetCompletionRoutine(irp: Irp, routine: Routine<CompletionRoutine>, context = 0, invoke?: number): void {
    this.#flow.setCompletionRoutine(irp, routine, context, invoke)
  }
  ioCompleteRequest(irp: Irp, boost = 0): void {
    this.#flow.complete(irp, boost)
  }
  ioAcquireCancelSpinLock(): Irql {
    return this.parts.cancellation.acquire()
  }
  ioReleaseCancelSpinLock(irql: Irql): void {
    this.parts.cancellation.release(irql)
  }
  ioSetCancelRoutine(irp: Irp, routine: Routine<CancelRoutine>): Routine<CancelRoutine> {
    return this.parts.cancellation.setRoutine(irp, routine)
  }
  ioCancelIrp(irp: Irp): boolean {
    return this.parts.cancellation.cancel(irp)
  }

  // I/O manager: work items.

  ioAllocateWorkItem(device: DeviceObject): number {
    return this.parts.work.allocateIoItem(device)
  }
  ioQueueWorkItem(item: number, routine: Routine<IoWorkRoutine>, context = 0): void {
    this.parts.work.queueIoItem(item, routine, context)
  }
  ioFreeWorkItem(item: number): void {
    this.parts.work.freeIoItem(item)
  }

  /** IoMakeAssociatedIrp; the driver sets the master's `irpCount` before it sends the first. */
  ioMakeAssociatedIrp(master: Irp, stackCount: number): Irp | null {
    this.parts.hal.point()
    return this.parts.builder.associated(master, stackCount)
  }
  /** Copies the location, sends, and waits; the request is the caller's again, its status the answer. */
  ioForwardIrpSynchronously(device: DeviceObject, irp: Irp): Waiting {
    return this.parts.forwarding.forward(device, irp)
  }
  /** The device stays, and with it the driver, until the routine has returned. */
  ioSetCompletionRoutineEx(
    device: DeviceObject,
    irp: Irp,
    routine: Routine<CompletionRoutine>,
    context = 0,
    invoke?: number,
  ): NtStatus {
    return this.parts.forwarding.setCompletionRoutineEx(device, irp, routine, context, invoke)
  }

  // I/O manager: queues and removal.

  ioCsqInitialize(at: number, routines: CsqRoutines, mayRefuse = false): Csq {
    return this.parts.cancelQueues.initialize(at, routines, mayRefuse)
  }
  /** `context`: an IO_CSQ_IRP_CONTEXT by which the request is found again, or 0. */
  ioCsqInsertIrp(csq: Csq, irp: Irp, context = 0, insertContext = 0): NtStatus {
    return this.parts.cancelQueues.insert(csq, irp, context, insertContext)
  }
  ioCsqRemoveNextIrp(csq: Csq, peekContext = 0): Irp | null {
    return this.parts.cancelQueues.removeNext(csq, peekContext)
  }
  ioCsqRemoveIrp(csq: Csq, context: number): Irp | null {
    return this.parts.cancelQueues.remove(csq, context, (at) => this.#irps.irpAt(at))
  }
  ioStartPacket(
    device: DeviceObject,
    irp: Irp,
    key: number | null = null,
    cancel: Routine<CancelRoutine> = NO_ROUTINE,
  ): void {
    this.parts.startIo.start(device, irp, key, cancel)
  }
  ioStartNextPacket(device: DeviceObject, cancelable: boolean, key: number | null = null): void {
    this.parts.startIo.next(device, cancelable, key)
  }
  ioSetStartIoAttributes(device: DeviceObject, deferred: boolean, nonCancelable: boolean): void {
    this.parts.startIo.setAttributes(device, deferred, nonCancelable)
  }
  ioInitializeDpcRequest(device: DeviceObject, routine: Routine<DeferredRoutine>): void {
    this.parts.dpcs.initialize(device.dpc, routine, device.at)
  }
  ioRequestDpc(device: DeviceObject, irp: Irp | null, context = 0): void {
    this.parts.startIo.requestDpc(device, irp?.at ?? 0, context)
  }
  ioInitializeRemoveLock(at: number): RemoveLock {
    return this.parts.removeLocks.initialize(at)
  }
  ioAcquireRemoveLock(lock: RemoveLock): NtStatus {
    return this.parts.removeLocks.acquire(lock)
  }
  ioReleaseRemoveLock(lock: RemoveLock): void {
    this.parts.removeLocks.release(lock)
  }
  ioReleaseRemoveLockAndWait(lock: RemoveLock): Waiting<void> {
    return this.parts.removeLocks.releaseAndWait(lock)
  }
}
