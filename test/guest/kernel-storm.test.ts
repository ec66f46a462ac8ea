import { describe, expect, it } from 'vitest'
import type { Csq } from '../../guest/kernel/cancel-queue.ts'
import type { DeviceObject } from '../../guest/kernel/device-object.ts'
import { controlCode, Method } from '../../guest/kernel/io-control.ts'
import { DeviceFlag, Major } from '../../guest/kernel/io-layout.ts'
import type { Irp } from '../../guest/kernel/irp.ts'
import { IO_CSQ, IO_REMOVE_LOCK, KTIMER } from '../../guest/kernel/layout.ts'
import { firstEntry, initializeList, insertTail, nextEntry, removeEntry } from '../../guest/kernel/list.ts'
import { type NtStatus, NtStatus as Status } from '../../guest/kernel/nt-status.ts'
import type { Routine } from '../../guest/kernel/routine.ts'
import type { CompletionRoutine } from '../../guest/kernel/stack-location.ts'
import type { Waiting } from '../../guest/kernel/thread.ts'
import type { Random } from '../../protocol/platform.ts'
import { finish, Rig } from './kernel-rig.ts'

const LIST_ENTRY_OF_IRP = 0xa8
const SPIN_US = 200
const CONTROL = controlCode(0x22, 5, Method.BUFFERED, 0)
const STATUSES = [Status.SUCCESS, Status.SUCCESS, Status.BUFFER_OVERFLOW, Status.IO_DEVICE_ERROR]

/**
 * The bottom of the stack: keeps requests in a cancel-safe queue and answers them from an interrupt's DPC, some
 * at once, some with an error, some never (until they are cancelled).
 */
class Bottom {
  readonly rig: Rig
  readonly device: DeviceObject
  readonly csq: Csq
  readonly #random: Random
  readonly #head: number
  answered = 0
  cancelled = 0

  constructor(rig: Rig, random: Random) {
    this.rig = rig
    this.#random = random
    const { kernel } = rig
    const { memory } = kernel.parts
    const room = rig.room(IO_CSQ.$size + 16 + 8)
    this.#head = room + IO_CSQ.$size
    const lock = this.#head + 16
    initializeList(memory, this.#head)
    this.csq = kernel.ioCsqInitialize(room, {
      insertIrp: kernel.routine((_csq: Csq, irp: Irp) => {
        insertTail(memory, this.#head, irp.listEntry)
        return Status.SUCCESS
      }),
      removeIrp: kernel.routine((_csq: Csq, irp: Irp) => removeEntry(memory, irp.listEntry)),
      peekNextIrp: kernel.routine((_csq: Csq, irp: Irp | null) => {
        const entry =
          irp === null ? firstEntry(memory, this.#head) : nextEntry(memory, this.#head, irp.listEntry)
        return entry === 0 ? null : kernel.irpAt(entry - LIST_ENTRY_OF_IRP)
      }),
      acquireLock: kernel.routine(() => kernel.keAcquireSpinLock(lock)),
      releaseLock: kernel.routine((_csq: Csq, irql: number) => kernel.keReleaseSpinLock(lock, irql)),
      completeCanceledIrp: kernel.routine((_csq: Csq, irp: Irp) => {
        this.cancelled++
        finish(kernel, irp, Status.CANCELLED)
      }),
    })
    const serve = (_self: DeviceObject, irp: Irp): NtStatus => this.serve(irp)
    this.device = rig.layer({
      name: '\\Device\\Storm',
      flags: DeviceFlag.DIRECT_IO,
      dispatch: {
        [Major.READ]: serve,
        [Major.WRITE]: serve,
        [Major.DEVICE_CONTROL]: serve,
        [Major.FLUSH_BUFFERS]: serve,
        [Major.CLEANUP]: (_self, irp) => {
          this.flushQueue()
          return finish(kernel, irp, Status.SUCCESS)
        },
      },
    })
  }

  serve(irp: Irp): NtStatus {
    const draw = this.#random.below(8)
    if (draw === 0) return this.answer(irp)
    if (draw === 1) {
      this.rig.kernel.ioMarkIrpPending(irp)
      this.answer(irp)
      return Status.PENDING
    }
    this.rig.kernel.ioCsqInsertIrp(this.csq, irp)
    return Status.PENDING
  }

  answer(irp: Irp): NtStatus {
    const { kernel } = this.rig
    const status = STATUSES[this.#random.below(STATUSES.length)] as NtStatus
    if (irp.mdlAddress !== 0 && this.#random.below(2) === 0) {
      const mdl = kernel.mdlAt(irp.mdlAddress)
      kernel.mmWindow(kernel.mmGetSystemAddressForMdlSafe(mdl), mdl.byteCount)?.fill(7, 0, mdl.byteCount)
    }
    this.answered++
    return finish(kernel, irp, status, 8)
  }

  /** The interrupt's DPC: answers a few. */
  tick(): void {
    for (let count = this.#random.below(4); count > 0; count--) {
      const irp = this.rig.kernel.ioCsqRemoveNextIrp(this.csq)
      if (irp === null) return
      this.answer(irp)
    }
  }

  flushQueue(): void {
    for (;;) {
      const irp = this.rig.kernel.ioCsqRemoveNextIrp(this.csq)
      if (irp === null) return
      this.cancelled++
      finish(this.rig.kernel, irp, Status.CANCELLED)
    }
  }
}

/** A filter that skips, or copies with a completion routine that sometimes takes the request for a work item. */
function filter(rig: Rig, below: DeviceObject, random: Random): DeviceObject {
  const { kernel } = rig
  const lock = kernel.ioInitializeRemoveLock(rig.room(IO_REMOVE_LOCK.$size))
  const again = function* (irp: Irp): Waiting<void> {
    yield* kernel.keDelayExecutionThread(random.below(SPIN_US))
    kernel.ioCompleteRequest(irp)
    kernel.ioReleaseRemoveLock(lock)
  }
  const plain: Routine<CompletionRoutine> = kernel.routine((_device: DeviceObject | null, irp: Irp) => {
    if (irp.pendingReturned) kernel.ioMarkIrpPending(irp)
    kernel.ioReleaseRemoveLock(lock)
    return Status.SUCCESS
  })
  const taking: Routine<CompletionRoutine> = kernel.routine((_device: DeviceObject | null, irp: Irp) => {
    kernel.spawn(again(irp))
    return Status.MORE_PROCESSING_REQUIRED
  })
  const pass = (device: DeviceObject, irp: Irp): NtStatus | Waiting => {
    const lower = device.extension as DeviceObject
    const draw = random.below(3)
    if (draw === 0 || kernel.ioAcquireRemoveLock(lock) !== Status.SUCCESS) {
      kernel.ioSkipCurrentIrpStackLocation(irp)
      return kernel.ioCallDriver(lower, irp)
    }
    kernel.ioCopyCurrentIrpStackLocationToNext(irp)
    if (draw === 1) {
      kernel.ioSetCompletionRoutine(irp, plain)
      return kernel.ioCallDriver(lower, irp)
    }
    kernel.ioMarkIrpPending(irp)
    kernel.ioSetCompletionRoutine(irp, taking)
    kernel.ioCallDriver(lower, irp)
    return Status.PENDING
  }
  const own: { [major: number]: typeof pass } = {}
  for (const major of [Major.READ, Major.WRITE, Major.DEVICE_CONTROL, Major.FLUSH_BUFFERS]) own[major] = pass
  for (const major of [Major.CREATE, Major.CLEANUP, Major.CLOSE]) {
    own[major] = (device, irp) => {
      kernel.ioSkipCurrentIrpStackLocation(irp)
      return kernel.ioCallDriver(device.extension as DeviceObject, irp)
    }
  }
  return rig.layer({ flags: DeviceFlag.DIRECT_IO, dispatch: own }, below)
}

interface Tally {
  sent: number
  apcs: number
  packets: number
}

/** An application: reads, writes, controls, flushes and cancels through a handle, by event, APC or port. */
function* application(rig: Rig, random: Random, tally: Tally): Waiting<void> {
  const { kernel } = rig
  const { nt } = kernel
  const { space } = kernel.parts
  const kind = random.below(4)
  const { status, handle } = yield* nt.createFile('\\Device\\Storm', { synchronous: kind === 0 })
  expect(status).toBe(Status.SUCCESS)
  const port = nt.createIoCompletion().handle
  if (kind === 1) nt.associatePort(handle, port, 5)
  const event = nt.createEvent(false, false).handle
  const buffer = space.allocateUser(9000, { offsetBytes: random.below(4096) })
  const iosbs: number[] = []
  let packets = 0
  let apcs = 0
  const apcRoutine = kernel.routine(() => {
    apcs++
  })
  const told: boolean[] = []
  for (let turn = 0; turn < 12; turn++) {
    const iosb = rig.iosb()
    iosbs.push(iosb)
    const answering =
      kind === 1
        ? { iosb, apcContext: 1 }
        : kind === 2
          ? { iosb, apcRoutine, apcContext: 1 }
          : { iosb, event }
    const transfer = { ...answering, buffer, lengthBytes: random.below(8000), byteOffset: 512 * turn }
    const draw = random.below(8)
    const result =
      draw < 3
        ? yield* nt.readFile(handle, transfer)
        : draw < 6
          ? yield* nt.writeFile(handle, transfer)
          : draw === 6
            ? yield* nt.deviceIoControlFile(handle, {
                ...answering,
                code: CONTROL,
                output: buffer,
                outputBytes: 64,
              })
            : yield* nt.flushBuffersFile(handle, iosb)
    tally.sent++
    // Answered by event, APC or packet, unless the call itself said that it failed; flushes tell by their answer.
    told.push(draw !== 7 && kind !== 0 && (result === Status.PENDING || result < 0xc0000000))
    if (random.below(3) === 0) yield* nt.delayExecution(random.below(SPIN_US), kind === 2)
    if (random.below(10) === 0) yield* nt.cancelIoFile(handle)
    if (random.below(10) === 0) nt.cancelIoFileEx(handle, random.below(2) === 0 ? 0 : (iosbs[0] as number))
  }
  yield* nt.cancelIoFile(handle)
  while (kind === 2 && apcs < told.filter(Boolean).length) yield* nt.delayExecution(SPIN_US, true)
  while (kind === 1 && packets < told.filter(Boolean).length) {
    const packet = yield* nt.removeIoCompletion(port)
    expect(typeof packet).toBe('object')
    packets++
  }
  // Exactly as many as were promised: nothing comes later.
  yield* nt.delayExecution(1000, true)
  if (kind === 1) expect(yield* nt.removeIoCompletion(port, 0)).toBe(Status.TIMEOUT)
  if (kind === 2) expect(apcs).toBe(told.filter(Boolean).length)
  for (const [index, iosb] of iosbs.entries())
    if (told[index]) expect(rig.answer(iosb).status).not.toBe(0xfeed)
  tally.apcs += apcs
  tally.packets += packets
  yield* nt.close(handle)
  yield* nt.close(port)
  yield* nt.close(event)
  space.freeUser(buffer)
}

/** A driver's own requests, cancelled or not, by IoAllocateIrp. */
function* originator(rig: Rig, top: DeviceObject, random: Random, tally: Tally): Waiting<void> {
  const { kernel } = rig
  const done = kernel.keInitializeSemaphore(rig.room(32), 0, 1000)
  const alive = new Set<Irp>()
  let ended = 0
  const routine = kernel.routine((_device: DeviceObject | null, irp: Irp) => {
    expect(alive.delete(irp)).toBe(true)
    ended++
    kernel.keReleaseSemaphore(done, 1)
    return Status.MORE_PROCESSING_REQUIRED
  })
  for (let turn = 0; turn < 10; turn++) {
    const irp = kernel.ioAllocateIrp(top.stackSize)
    if (irp === null) throw new Error('no memory')
    irp.next.major = Major.READ
    kernel.ioSetCompletionRoutine(irp, routine)
    alive.add(irp)
    tally.sent++
    const answer = kernel.ioCallDriver(top, irp)
    expect(typeof answer).toBe('number')
    if (random.below(2) === 0) yield* kernel.keDelayExecutionThread(random.below(SPIN_US))
    while (alive.has(irp)) {
      // Held by our completion routine's answer: it is ours to look at until it is freed below.
      kernel.ioCancelIrp(irp)
      yield* kernel.keWaitForSingleObject(done, { timeoutUs: 50 })
    }
    kernel.ioFreeIrp(irp)
  }
  expect(ended).toBe(10)
}

function storm(seed: number, rounds: number): Tally {
  const rig = new Rig({ seed, ramBytes: 4 * 1024 * 1024 })
  const { kernel, machine } = rig
  const random = machine.random.stream('storm')
  const bottom = new Bottom(rig, random.stream('bottom'))
  const middle = filter(rig, bottom.device, random.stream('middle'))
  const top = filter(rig, middle, random.stream('top'))
  const line = machine.processor.line(7)
  const tally: Tally = { sent: 0, apcs: 0, packets: 0 }
  let running = 0
  machine.run(function* () {
    const room = rig.room(64 + KTIMER.$size)
    const dpc = kernel.keInitializeDpc(
      room,
      kernel.routine(() => bottom.tick()),
    )
    const interrupt = kernel.ioConnectInterrupt(
      () => {
        line.lower()
        kernel.keInsertQueueDpc(dpc)
        return true
      },
      { line: 7, trigger: 'level', irql: 6 },
    )
    if (typeof interrupt === 'number') throw new Error('no interrupt')
    // It also asks in the middle of anything.
    const meanwhile = random.stream('meanwhile')
    machine.processor.meanwhile = () => {
      if (meanwhile.below(40) === 0) line.raise()
    }
    const device = (): void => {
      if (running === 0) return
      line.raise()
      machine.clock.after(random.below(100) + 20, device)
    }
    for (let round = 0; round < rounds; round++) {
      for (let id = 0; id < 4; id++) {
        running++
        const path = random.stream(`${round}/${id}`)
        kernel.psCreateSystemThread(function* () {
          if (id === 3) yield* originator(rig, top, path, tally)
          else yield* application(rig, path, tally)
          running--
        })
      }
      device()
      while (running > 0) yield* kernel.keDelayExecutionThread(500)
    }
    machine.processor.meanwhile = null
    kernel.ioDisconnectInterrupt(interrupt)
    bottom.flushQueue()
    // Work that filters gave to system threads ends before the stack is taken down.
    while (kernel.parts.work.outstanding > 0) yield* kernel.keDelayExecutionThread(500)
  })
  rig.end()
  return tally
}

describe('a storm of requests, cancellations and interrupts, with preemption everywhere', () => {
  it('loses nothing, completes nothing twice and leaves the pools empty, from any seed', () => {
    const total: Tally = { sent: 0, apcs: 0, packets: 0 }
    for (let seed = 0; seed < 40; seed++) {
      const tally = storm(seed, 2)
      total.sent += tally.sent
      total.apcs += tally.apcs
      total.packets += tally.packets
    }
    expect(total.sent).toBe(40 * 2 * (3 * 12 + 10))
    expect(total.apcs).toBeGreaterThan(200)
    expect(total.packets).toBeGreaterThan(200)
  })

  it('goes the same way again from the same seed', () => {
    expect(storm(5, 1)).toEqual(storm(5, 1))
  })
})
