import type { Random } from '../../protocol/platform.ts'
import type { GuestProcessor } from '../../protocol/processor.ts'
import { AddressSpace } from './address-space.ts'
import { ApcQueue } from './apc.ts'
import { CancelQueues } from './cancel-queue.ts'
import { Cancellation } from './cancellation.ts'
import { DeviceTable } from './device-table.ts'
import { DpcQueue } from './dpc.ts'
import { DriverLoader } from './driver-loader.ts'
import type { DispatchRoutine } from './driver-object.ts'
import { EventObjects } from './event-objects.ts'
import { FileTable } from './file-table.ts'
import { FinalStage } from './final-stage.ts'
import { Forwarding } from './forwarding.ts'
import { Hal } from './hal.ts'
import { Interrupts } from './interrupt.ts'
import { IrpBuilder } from './irp-builder.ts'
import { IrpFlow } from './irp-flow.ts'
import { IrpPool } from './irp-pool.ts'
import { Irql } from './irql.ts'
import { KernelMemory } from './kernel-memory.ts'
import { KDPC, KSEMAPHORE, LIST_ENTRY } from './layout.ts'
import { Mdls } from './mdl.ts'
import { NtStatus } from './nt-status.ts'
import { ObjectNames } from './object-names.ts'
import { PageFrames } from './page-frames.ts'
import { Pool, PoolType, poolTag } from './pool.ts'
import { RemoveLocks } from './remove-lock.ts'
import { ContextTable, RoutineTable } from './routine.ts'
import { Scheduler } from './scheduler.ts'
import { SpinLocks } from './spin-lock.ts'
import { StartIo } from './start-io.ts'
import { Synchronization } from './synchronization.ts'
import { ThreadExit } from './thread-exit.ts'
import { ThreadIrps } from './thread-irps.ts'
import { Timers } from './timer.ts'
import type { WindowsVersion } from './version.ts'
import { Waits } from './wait.ts'
import { WorkQueue } from './work-queue.ts'

export interface KernelOptions {
  readonly processor: GuestProcessor
  readonly version: WindowsVersion
  /** The stream that chooses at preemption points; null (performance runs): nothing happens there. */
  readonly preemption?: Random | null
  /** Freed requests are poisoned whole (default); performance runs leave it out. */
  readonly checked?: boolean
}

/** The kernel's parts, wired. Each knows only those it is given. */
export class KernelParts {
  readonly memory: KernelMemory
  readonly hal: Hal
  readonly routines: RoutineTable
  readonly contexts: ContextTable
  readonly frames: PageFrames
  readonly pool: Pool
  readonly space: AddressSpace
  readonly mdls: Mdls
  readonly scheduler: Scheduler
  readonly dpcs: DpcQueue
  readonly apcs: ApcQueue
  readonly timers: Timers
  readonly waits: Waits
  readonly synchronization: Synchronization
  readonly spinLocks: SpinLocks
  readonly interrupts: Interrupts
  readonly irps: IrpPool
  readonly devices: DeviceTable
  readonly flow: IrpFlow
  readonly forwarding: Forwarding
  readonly builder: IrpBuilder
  readonly cancellation: Cancellation
  readonly cancelQueues: CancelQueues
  readonly startIo: StartIo
  readonly removeLocks: RemoveLocks
  readonly threadIrps: ThreadIrps
  readonly events: EventObjects
  readonly names: ObjectNames
  readonly files: FileTable
  readonly final: FinalStage
  readonly drivers: DriverLoader
  readonly work: WorkQueue

  constructor(options: KernelOptions) {
    const { processor } = options
    this.memory = new KernelMemory(processor.memory)
    this.hal = new Hal(processor, options.preemption ?? null)
    this.routines = new RoutineTable()
    this.contexts = new ContextTable()
    this.frames = new PageFrames(this.memory.lengthBytes)
    this.pool = new Pool(this.memory, this.frames)
    this.space = new AddressSpace(this.memory, this.frames)
    const { memory, hal, routines, pool, space } = this
    this.mdls = new Mdls(memory, hal, pool, this.frames, space)
    const room = this.#room()
    this.scheduler = new Scheduler(memory, hal, pool)
    this.dpcs = new DpcQueue(memory, hal, routines, room.dpcs)
    this.apcs = new ApcQueue(memory, hal, routines, this.scheduler)
    this.timers = new Timers(memory, hal, this.dpcs, routines, room.timers)
    this.waits = new Waits(memory, hal, pool, this.scheduler, this.dpcs, this.apcs, this.timers)
    this.timers.attach((object) => this.waits.wake(object))
    this.synchronization = new Synchronization(memory, hal, this.scheduler, this.waits)
    this.spinLocks = new SpinLocks(memory, hal)
    this.interrupts = new Interrupts(hal)
    this.irps = new IrpPool(memory, hal, pool, options.checked ?? true)
    this.names = new ObjectNames()
    this.devices = new DeviceTable(memory, hal, pool, this.names, routines.register(this.#invalidRequest()))
    this.flow = new IrpFlow(hal, routines, this.irps, this.devices)
    this.forwarding = new Forwarding(this)
    this.builder = new IrpBuilder(hal, pool, space, this.mdls, this.irps, this.scheduler)
    this.cancellation = new Cancellation(hal, routines, this.irps, this.devices)
    this.cancelQueues = new CancelQueues(memory, routines, this.flow, this.cancellation)
    this.startIo = new StartIo(memory, hal, routines, this.irps, this.cancellation, this.dpcs)
    this.removeLocks = new RemoveLocks(memory, hal, this.synchronization, this.waits)
    this.threadIrps = new ThreadIrps(hal, this.irps, this.scheduler, this.waits, this.cancellation)
    this.events = new EventObjects(hal, pool, this.synchronization)
    this.drivers = new DriverLoader(this.devices, routines)
    this.work = new WorkQueue(
      memory,
      hal,
      pool,
      routines,
      this.devices,
      this.scheduler,
      this.synchronization,
      this.waits,
      room.work,
    )
    this.files = new FileTable(this)
    this.final = new FinalStage(this, this.files, (irp, boost) => this.flow.complete(irp, boost))
    this.flow.attach((irp, boost) => this.final.finish(irp, boost))
    const exit = new ThreadExit(this)
    this.scheduler.attach(exit)
    hal.attach(
      () => this.dpcs.drain(),
      () => this.apcs.deliverKernel(),
      () => this.scheduler.preempt(),
    )
  }

  /** Records of the kernel's own, in one block. */
  #room(): { dpcs: number; timers: number; work: number } {
    const lengthBytes = LIST_ENTRY.$size + KDPC.$size + LIST_ENTRY.$size + KSEMAPHORE.$size
    const at = this.pool.allocate(PoolType.NON_PAGED, lengthBytes, poolTag('Kern'), Irql.PASSIVE)
    if (at === 0) throw new Error('the kernel needs more RAM')
    const timers = at + LIST_ENTRY.$size
    return { dpcs: at, timers, work: timers + KDPC.$size }
  }

  /** What every entry of a dispatch table is at first. */
  #invalidRequest(): DispatchRoutine {
    return (_device, irp) => {
      irp.status = NtStatus.INVALID_DEVICE_REQUEST
      irp.information = 0
      this.flow.complete(irp, 0)
      return NtStatus.INVALID_DEVICE_REQUEST
    }
  }
}
