import { BugCode, keBugCheckEx } from './bug-check.ts'
import type { DeviceObject } from './device-object.ts'
import type { DeviceTable } from './device-table.ts'
import type { KSemaphore } from './dispatcher-object.ts'
import type { Hal } from './hal.ts'
import { Irql } from './irql.ts'
import type { KernelMemory } from './kernel-memory.ts'
import { IO_WORKITEM, WORK_QUEUE_ITEM } from './layout.ts'
import { initializeList, insertTail, listIsEmpty, removeEntry, removeHead } from './list.ts'
import { type Pool, PoolType, poolTag } from './pool.ts'
import type { Routine, RoutineTable } from './routine.ts'
import type { Scheduler } from './scheduler.ts'
import type { Synchronization } from './synchronization.ts'
import { isWaiting, type Waiting } from './thread.ts'
import type { Waits } from './wait.ts'

/** Runs at PASSIVE level in a system thread; a generator function may wait. */
export type WorkRoutine = (parameter: number) => unknown
/** IO_WORKITEM_ROUTINE. */
export type IoWorkRoutine = (device: DeviceObject, context: number) => unknown

const WORK_TAG = poolTag('Work')
/** System threads that serve the queue: one that waits must not keep the others' work waiting. */
const WORKERS = 3
const WORKER_PRIORITY = 13

/** Work for PASSIVE level, asked for at DISPATCH level or below. */
export class WorkQueue {
  readonly #memory: KernelMemory
  readonly #hal: Hal
  readonly #pool: Pool
  readonly #routines: RoutineTable
  readonly #devices: DeviceTable
  readonly #scheduler: Scheduler
  readonly #synchronization: Synchronization
  readonly #waits: Waits
  readonly #head: number
  readonly #filled: KSemaphore
  readonly #runIoWork: Routine<WorkRoutine>
  #outstanding: number
  /** Work given as a generator (`spawn`). */
  readonly #spawned: Waiting<unknown>[]

  /** @param room 64 bytes. */
  constructor(
    memory: KernelMemory,
    hal: Hal,
    pool: Pool,
    routines: RoutineTable,
    devices: DeviceTable,
    scheduler: Scheduler,
    synchronization: Synchronization,
    waits: Waits,
    room: number,
  ) {
    this.#memory = memory
    this.#hal = hal
    this.#pool = pool
    this.#routines = routines
    this.#devices = devices
    this.#scheduler = scheduler
    this.#synchronization = synchronization
    this.#waits = waits
    this.#head = room
    this.#filled = synchronization.initializeSemaphore(room + 16, 0, 0x7fff_ffff)
    this.#outstanding = 0
    this.#spawned = []
    initializeList(memory, room)
    this.#runIoWork = routines.register((item: number) => this.#ioWork(item))
    for (let index = 0; index < WORKERS; index++) {
      scheduler.create(() => this.#work(), { name: `worker ${index}`, priority: WORKER_PRIORITY })
    }
  }

  /** Items queued or running. */
  get outstanding(): number {
    return this.#outstanding
  }

  /** ExQueueWorkItem. An item may be queued again from its routine on, not before. */
  queue(item: number, routine: Routine<WorkRoutine>, parameter: number): void {
    const { window } = this.#memory
    window.putLe64(WORK_QUEUE_ITEM.workerRoutine, routine, item)
    window.putLe64(WORK_QUEUE_ITEM.parameter, parameter, item)
    insertTail(this.#memory, this.#head, item)
    this.#outstanding++
    this.#synchronization.releaseSemaphore(this.#filled, 1)
  }

  /** Runs a routine that may wait in a system thread: for callers that cannot. */
  spawn(work: Waiting<unknown>): void {
    this.#spawned.push(work)
    this.#outstanding++
    this.#synchronization.releaseSemaphore(this.#filled, 1)
  }

  *#work(): Waiting<void> {
    for (;;) {
      yield* this.#waits.wait([this.#filled.at], true)
      const spawned = this.#spawned.shift()
      if (spawned !== undefined) yield* spawned
      else yield* this.#runItem()
      if (this.#hal.irql !== Irql.PASSIVE) {
        keBugCheckEx(
          BugCode.IRQL_UNEXPECTED_VALUE,
          this.#hal.irql,
          Irql.PASSIVE,
          this.#scheduler.current?.at ?? 0,
        )
      }
      this.#outstanding--
    }
  }

  *#runItem(): Waiting<void> {
    const item = removeHead(this.#memory, this.#head)
    if (item === 0) return
    const { window } = this.#memory
    const routine = window.le64(WORK_QUEUE_ITEM.workerRoutine, item) as Routine<WorkRoutine>
    const result = this.#routines.resolve(routine)(window.le64(WORK_QUEUE_ITEM.parameter, item))
    if (isWaiting(result)) yield* result
  }

  /** IoAllocateWorkItem: an address, or 0. */
  allocateIoItem(device: DeviceObject): number {
    const at = this.#pool.allocate(PoolType.NON_PAGED, IO_WORKITEM.$size, WORK_TAG, this.#hal.irql)
    if (at === 0) return 0
    this.#memory.zero(at, IO_WORKITEM.$size)
    initializeList(this.#memory, at)
    this.#memory.window.putLe64(IO_WORKITEM.ioObject, device.at, at)
    return at
  }

  /** IoQueueWorkItem: the device stays until the routine has returned. */
  queueIoItem(item: number, routine: Routine<IoWorkRoutine>, context: number): void {
    const { window } = this.#memory
    window.putLe64(IO_WORKITEM.routine, routine, item)
    window.putLe64(IO_WORKITEM.context, context, item)
    this.#devices.reference(this.#devices.deviceAt(window.le64(IO_WORKITEM.ioObject, item)))
    this.queue(item, this.#runIoWork, item)
  }

  *#ioWork(item: number): Waiting<void> {
    const { window } = this.#memory
    const device = this.#devices.deviceAt(window.le64(IO_WORKITEM.ioObject, item))
    const routine = window.le64(IO_WORKITEM.routine, item) as Routine<IoWorkRoutine>
    const result = this.#routines.resolve(routine)(device, window.le64(IO_WORKITEM.context, item))
    if (isWaiting(result)) yield* result
    this.#devices.dereference(device)
  }

  /** IoFreeWorkItem. One that is queued is a bug check. */
  freeIoItem(item: number): void {
    if (!listIsEmpty(this.#memory, item)) {
      removeEntry(this.#memory, item)
      keBugCheckEx(BugCode.DRIVER_VERIFIER_DETECTED_VIOLATION, 0xd2, item)
    }
    this.#pool.free(item, this.#hal.irql)
  }
}
