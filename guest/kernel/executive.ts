import { type Gpa, gpa } from '../../protocol/memory.ts'
import type { AccessWidth } from '../../protocol/platform.ts'
import type { Window } from '../../protocol/window.ts'
import { keBugCheckEx } from './bug-check.ts'
import type { KEvent, KMutant, KSemaphore, KTimer } from './dispatcher-object.ts'
import type { DeferredRoutine, KDpc } from './dpc.ts'
import type { Interrupt, InterruptOptions, ServiceRoutine } from './interrupt.ts'
import type { Irp } from './irp.ts'
import { Irql } from './irql.ts'
import { type KernelOptions, KernelParts } from './kernel-parts.ts'
import type { LockOperation, Mdl } from './mdl.ts'
import type { NtStatus } from './nt-status.ts'
import { PAGE_BYTES } from './page-frames.ts'
import type { PoolType } from './pool.ts'
import type { Routine } from './routine.ts'
import type { ThreadOptions } from './scheduler.ts'
import type { Thread, ThreadBody, Waiting } from './thread.ts'
import type { WaitOptions } from './wait.ts'
import type { WorkRoutine } from './work-queue.ts'

/** Anything with an address: an event, a timer, a thread. */
export interface Waitable {
  readonly at: number
}

/**
 * The routines below the I/O manager, by Windows' names: pools, threads, dispatcher objects, interrupts, MDLs.
 * Those that answer `Waiting` are called with `yield*` in a thread at PASSIVE or APC level; all others are plain.
 */
export class Executive {
  /** For those who build on the kernel (PnP, services, a verifier); drivers call the routines. */
  readonly parts: KernelParts

  constructor(options: KernelOptions) {
    this.parts = new KernelParts(options)
  }

  // Routines as numbers.

  /** The number of a function, for a record's pointer field. */
  routine<F extends (...given: never[]) => unknown>(routine: F): Routine<F> {
    return this.parts.routines.register(routine)
  }
  /** The function behind a number: `kernel.call(dpc.routine)(…)`. */
  call<F extends (...given: never[]) => unknown>(routine: Routine<F>): F {
    return this.parts.routines.resolve(routine)
  }

  // Executive: pools.

  exAllocatePoolWithTag(type: PoolType, lengthBytes: number, tag: number): number {
    this.parts.hal.point()
    return this.parts.pool.allocate(type, lengthBytes, tag, this.parts.hal.irql)
  }
  exFreePool(at: number): void {
    this.parts.hal.point()
    this.parts.pool.free(at, this.parts.hal.irql)
  }
  exQueueWorkItem(item: number, routine: Routine<WorkRoutine>, parameter: number): void {
    this.parts.hal.point()
    this.parts.work.queue(item, routine, parameter)
  }
  /** Runs something that may wait in a system thread, for a caller that cannot wait. */
  spawn(work: Waiting<unknown>): void {
    this.parts.work.spawn(work)
  }

  // Kernel: IRQL, threads, dispatcher objects.

  keGetCurrentIrql(): Irql {
    return this.parts.hal.irql
  }
  keRaiseIrql(irql: Irql): Irql {
    this.parts.hal.point()
    return this.parts.hal.raise(irql)
  }
  keLowerIrql(irql: Irql): void {
    this.parts.hal.lower(irql)
  }
  keBugCheckEx(code: number, first = 0, second = 0, third = 0, fourth = 0): never {
    return keBugCheckEx(code, first, second, third, fourth)
  }
  /** Microseconds since power-on. */
  keQueryTimeUs(): number {
    return this.parts.hal.now()
  }
  psCreateSystemThread(body: ThreadBody, options?: ThreadOptions): Thread {
    return this.parts.scheduler.create(body, options)
  }
  keGetCurrentThread(): Thread | null {
    return this.parts.scheduler.current
  }
  /** ObReferenceObject of a thread: its record stays until the reference is let go. */
  obReferenceThread(thread: Thread): void {
    thread.pins++
  }
  obDereferenceThread(thread: Thread): void {
    this.parts.scheduler.unpin(thread)
  }
  keEnterCriticalRegion(): void {
    const { current } = this.parts.scheduler
    if (current !== null) current.kernelApcDisable++
  }
  keLeaveCriticalRegion(): void {
    const { scheduler, apcs, hal } = this.parts
    const { current } = scheduler
    if (current === null) return
    current.kernelApcDisable--
    if (apcs.deliverable(current)) hal.request(Irql.APC)
  }
  keAlertThread(thread: Thread): void {
    this.parts.hal.point()
    this.parts.waits.alert(thread)
  }

  keInitializeEvent(at: number, notification: boolean, signalled: boolean): KEvent {
    return this.parts.synchronization.initializeEvent(at, notification, signalled)
  }
  keSetEvent(event: KEvent): number {
    this.parts.hal.point()
    return this.parts.synchronization.setEvent(event)
  }
  keResetEvent(event: KEvent): number {
    this.parts.hal.point()
    return this.parts.synchronization.resetEvent(event)
  }
  keClearEvent(event: KEvent): void {
    this.keResetEvent(event)
  }
  keReadStateEvent(event: KEvent): number {
    return event.signalState
  }
  kePulseEvent(event: KEvent): number {
    this.parts.hal.point()
    return this.parts.synchronization.pulseEvent(event)
  }
  keInitializeSemaphore(at: number, count: number, limit: number): KSemaphore {
    return this.parts.synchronization.initializeSemaphore(at, count, limit)
  }
  keReleaseSemaphore(semaphore: KSemaphore, adjustment: number): number {
    this.parts.hal.point()
    return this.parts.synchronization.releaseSemaphore(semaphore, adjustment)
  }
  keInitializeMutex(at: number): KMutant {
    return this.parts.synchronization.initializeMutex(at)
  }
  keReleaseMutex(mutant: KMutant): number {
    this.parts.hal.point()
    return this.parts.synchronization.releaseMutex(mutant)
  }
  keInitializeTimer(at: number, notification = true): KTimer {
    return this.parts.synchronization.initializeTimer(at, notification)
  }
  /** KeSetTimerEx, relative: whether it was set already. */
  keSetTimer(timer: KTimer, afterUs: number, periodMs = 0, dpc: KDpc | null = null): boolean {
    this.parts.hal.point()
    return this.parts.timers.set(timer, afterUs, periodMs, dpc?.at ?? 0)
  }
  keCancelTimer(timer: KTimer): boolean {
    this.parts.hal.point()
    return this.parts.timers.cancelTimer(timer)
  }
  keWaitForSingleObject(object: Waitable, options?: WaitOptions): Waiting {
    return this.parts.waits.wait([object.at], true, options)
  }
  keWaitForMultipleObjects(objects: readonly Waitable[], any: boolean, options?: WaitOptions): Waiting {
    return this.parts.waits.wait(
      objects.map((object) => object.at),
      any,
      options,
    )
  }
  keDelayExecutionThread(us: number, options?: WaitOptions): Waiting {
    return this.parts.waits.delay(us, options)
  }

  keInitializeDpc(at: number, routine: Routine<DeferredRoutine>, context = 0): KDpc {
    return this.parts.dpcs.initialize(at, routine, context)
  }
  keInsertQueueDpc(dpc: KDpc, argument1 = 0, argument2 = 0): boolean {
    this.parts.hal.point()
    return this.parts.dpcs.insert(dpc.at, argument1, argument2)
  }
  keRemoveQueueDpc(dpc: KDpc): boolean {
    this.parts.hal.point()
    return this.parts.dpcs.remove(dpc.at)
  }

  keInitializeSpinLock(at: number): void {
    this.parts.spinLocks.initialize(at)
  }
  keAcquireSpinLock(at: number): Irql {
    return this.parts.spinLocks.acquire(at)
  }
  keReleaseSpinLock(at: number, irql: Irql): void {
    this.parts.spinLocks.release(at, irql)
  }

  // Hardware.

  ioConnectInterrupt(routine: ServiceRoutine, options: InterruptOptions): Interrupt | NtStatus {
    return this.parts.interrupts.connect(routine, options)
  }
  ioDisconnectInterrupt(interrupt: Interrupt): void {
    this.parts.interrupts.disconnect(interrupt)
  }
  keSynchronizeExecution<T>(interrupt: Interrupt, work: () => T): T {
    return this.parts.interrupts.synchronize(interrupt, work)
  }
  /** READ_REGISTER_*: an access to a device, never RAM. */
  readRegister(at: Gpa, width: AccessWidth): number {
    this.parts.hal.point()
    return this.parts.hal.read(at, width)
  }
  /** WRITE_REGISTER_*. */
  writeRegister(at: Gpa, width: AccessWidth, value: number): void {
    this.parts.hal.point()
    this.parts.hal.write(at, width, value)
  }

  // Memory manager.

  /** Pages side by side, zeroed, that never move: rings. 0 when there are none. */
  mmAllocateContiguousMemory(lengthBytes: number, alignmentBytes = PAGE_BYTES): number {
    const { frames, memory } = this.parts
    const pages = Math.ceil(lengthBytes / PAGE_BYTES)
    const first = frames.allocateRun(pages, Math.max(1, alignmentBytes / PAGE_BYTES))
    if (first < 0) return 0
    memory.zero(first * PAGE_BYTES, pages * PAGE_BYTES)
    return first * PAGE_BYTES
  }
  mmFreeContiguousMemory(at: number, lengthBytes: number): void {
    this.parts.frames.free(at / PAGE_BYTES, Math.ceil(lengthBytes / PAGE_BYTES))
  }
  /** Physical address of a kernel, user or mapped one. */
  mmGetPhysicalAddress(at: number): Gpa {
    return this.parts.space.physical(at) ?? gpa(0)
  }
  /** A window over kernel or mapped memory; null when part of it is not there. */
  mmWindow(at: number, lengthBytes: number): Window | null {
    return this.parts.space.window(at, lengthBytes)
  }
  ioAllocateMdl(va: number, lengthBytes: number, irp: Irp | null = null, secondary = false): Mdl | null {
    this.parts.hal.point()
    const mdl = this.parts.mdls.allocate(va, lengthBytes)
    if (mdl !== null && irp !== null) this.#chain(irp, mdl, secondary)
    return mdl
  }
  #chain(irp: Irp, mdl: Mdl, secondary: boolean): void {
    if (!secondary || irp.mdlAddress === 0) {
      irp.mdlAddress = mdl.at
      return
    }
    let last = this.mdlAt(irp.mdlAddress)
    while (last.next !== 0) last = this.mdlAt(last.next)
    last.next = mdl.at
  }
  ioFreeMdl(mdl: Mdl): void {
    this.parts.mdls.free(mdl)
  }
  mdlAt(at: number): Mdl {
    return this.parts.mdls.at(at)
  }
  mmBuildMdlForNonPagedPool(mdl: Mdl): void {
    this.parts.mdls.buildForNonPagedPool(mdl)
  }
  mmProbeAndLockPages(mdl: Mdl, operation: LockOperation): NtStatus {
    return this.parts.mdls.probeAndLock(mdl, operation)
  }
  mmUnlockPages(mdl: Mdl): void {
    this.parts.mdls.unlock(mdl)
  }
  mmGetSystemAddressForMdlSafe(mdl: Mdl): number {
    return this.parts.mdls.systemAddress(mdl)
  }
  ioBuildPartialMdl(source: Mdl, target: Mdl, va: number, lengthBytes: number): void {
    this.parts.mdls.buildPartial(source, target, va, lengthBytes)
  }
}
