import { describe, expect, it } from 'vitest'
import type { Csq } from '../../guest/kernel/cancel-queue.ts'
import type { DeviceObject } from '../../guest/kernel/device-object.ts'
import { keRemoveEntryDeviceQueue } from '../../guest/kernel/device-queue.ts'
import type { Interrupt } from '../../guest/kernel/interrupt.ts'
import { Major } from '../../guest/kernel/io-layout.ts'
import type { Irp } from '../../guest/kernel/irp.ts'
import { IO_CSQ, IO_CSQ_IRP_CONTEXT } from '../../guest/kernel/layout.ts'
import { firstEntry, initializeList, insertTail, nextEntry, removeEntry } from '../../guest/kernel/list.ts'
import { NtStatus } from '../../guest/kernel/nt-status.ts'
import { NO_ROUTINE } from '../../guest/kernel/routine.ts'
import { WINDOWS_VERSIONS } from '../../guest/kernel/version.ts'
import { finish, Rig } from './kernel-rig.ts'

const LIST_ENTRY_OF_IRP = 0xa8
const SEEDS = 150

/** A driver that keeps requests: how, is its own affair. `next` takes one out and completes it. */
interface Keeper {
  keep(device: DeviceObject, irp: Irp): NtStatus
  next(device: DeviceObject): void
}

/** With a cancel routine of its own under the system's cancel lock. */
function withCancelRoutine(rig: Rig): Keeper {
  const { kernel } = rig
  const head = rig.room(16)
  const { memory } = kernel.parts
  initializeList(memory, head)
  const cancelled = kernel.routine((_device: DeviceObject | null, irp: Irp) => {
    expect(irp.cancel).toBe(true)
    expect(irp.cancelRoutine).toBe(0)
    removeEntry(memory, irp.listEntry)
    kernel.ioReleaseCancelSpinLock(irp.cancelIrql)
    finish(kernel, irp, NtStatus.CANCELLED)
  })
  return {
    keep(_device, irp) {
      kernel.ioMarkIrpPending(irp)
      const before = kernel.ioAcquireCancelSpinLock()
      if (irp.cancel) {
        kernel.ioReleaseCancelSpinLock(before)
        finish(kernel, irp, NtStatus.CANCELLED)
        return NtStatus.PENDING
      }
      insertTail(memory, head, irp.listEntry)
      kernel.ioSetCancelRoutine(irp, cancelled)
      kernel.ioReleaseCancelSpinLock(before)
      return NtStatus.PENDING
    },
    next() {
      const before = kernel.ioAcquireCancelSpinLock()
      const entry = firstEntry(memory, head)
      const irp = entry === 0 ? null : kernel.irpAt(entry - LIST_ENTRY_OF_IRP)
      if (irp !== null) {
        kernel.ioSetCancelRoutine(irp, NO_ROUTINE)
        removeEntry(memory, irp.listEntry)
      }
      kernel.ioReleaseCancelSpinLock(before)
      if (irp !== null) finish(kernel, irp, NtStatus.SUCCESS, 1)
    },
  }
}

/** With a cancel-safe queue, by context or by order. */
function withQueue(rig: Rig, byContext: boolean): Keeper {
  const { kernel } = rig
  const { memory } = kernel.parts
  const room = rig.room(IO_CSQ.$size + 16 + 8)
  const head = room + IO_CSQ.$size
  const lock = head + 16
  initializeList(memory, head)
  kernel.keInitializeSpinLock(lock)
  const contexts: number[] = []
  const csq = kernel.ioCsqInitialize(room, {
    insertIrp: kernel.routine((_csq: Csq, irp: Irp) => {
      insertTail(memory, head, irp.listEntry)
      return NtStatus.SUCCESS
    }),
    removeIrp: kernel.routine((_csq: Csq, irp: Irp) => removeEntry(memory, irp.listEntry)),
    peekNextIrp: kernel.routine((_csq: Csq, irp: Irp | null) => {
      const entry = irp === null ? firstEntry(memory, head) : nextEntry(memory, head, irp.listEntry)
      return entry === 0 ? null : kernel.irpAt(entry - LIST_ENTRY_OF_IRP)
    }),
    acquireLock: kernel.routine(() => kernel.keAcquireSpinLock(lock)),
    releaseLock: kernel.routine((_csq: Csq, irql: number) => kernel.keReleaseSpinLock(lock, irql)),
    completeCanceledIrp: kernel.routine((_csq: Csq, irp: Irp) => {
      finish(kernel, irp, NtStatus.CANCELLED)
    }),
  })
  return {
    keep(_device, irp) {
      const context = byContext ? rig.room(IO_CSQ_IRP_CONTEXT.$size) : 0
      if (byContext) contexts.push(context)
      kernel.ioCsqInsertIrp(csq, irp, context)
      return NtStatus.PENDING
    },
    next() {
      const context = contexts.shift()
      const irp =
        byContext && context !== undefined
          ? kernel.ioCsqRemoveIrp(csq, context)
          : kernel.ioCsqRemoveNextIrp(csq)
      if (irp !== null) finish(kernel, irp, NtStatus.SUCCESS, 1)
    },
  }
}

/** With the device's own queue: IoStartPacket and StartIo. */
function withStartIo(rig: Rig): Keeper {
  const { kernel } = rig
  const { memory } = kernel.parts
  const cancelled = kernel.routine((device: DeviceObject | null, irp: Irp) => {
    const current = device !== null && device.currentIrp === irp.at
    // The current request is StartIo's, and leaves the queue's order to it.
    const removed = !current && keRemoveEntryDeviceQueue(memory, irp.deviceQueueEntry)
    kernel.ioReleaseCancelSpinLock(irp.cancelIrql)
    if (current || removed) finish(kernel, irp, NtStatus.CANCELLED)
    if (current && device !== null) {
      const before = kernel.keRaiseIrql(2)
      kernel.ioStartNextPacket(device, true)
      kernel.keLowerIrql(before)
    }
  })
  return {
    keep(device, irp) {
      kernel.ioMarkIrpPending(irp)
      kernel.ioStartPacket(device, irp, null, cancelled)
      return NtStatus.PENDING
    },
    next(device) {
      const before = kernel.ioAcquireCancelSpinLock()
      const at = device.currentIrp
      const irp = at === 0 ? null : kernel.irpAt(at)
      const ours = irp !== null && kernel.ioSetCancelRoutine(irp, NO_ROUTINE) !== 0
      if (ours) device.currentIrp = 0
      kernel.ioReleaseCancelSpinLock(before)
      if (irp === null || !ours) return
      finish(kernel, irp, NtStatus.SUCCESS, 1)
      const level = kernel.keRaiseIrql(2)
      kernel.ioStartNextPacket(device, true)
      kernel.keLowerIrql(level)
    },
  }
}

const KEEPERS: readonly (readonly [string, (rig: Rig) => Keeper])[] = [
  ['a cancel routine', withCancelRoutine],
  ['a cancel-safe queue', (rig) => withQueue(rig, false)],
  ['a cancel-safe queue by context', (rig) => withQueue(rig, true)],
  ['StartIo', withStartIo],
]

/** Some requests, a device that answers them from a DPC, and a thread that cancels: returns how each ended. */
function race(seed: number, make: (rig: Rig) => Keeper, count: number): NtStatus[] {
  const rig = new Rig({ seed })
  const { kernel } = rig
  const keeper = make(rig)
  const room = rig.room(64 + 64)
  const timer = kernel.keInitializeTimer(room)
  const device = rig.layer({
    dispatch: { [Major.READ]: (self, irp) => keeper.keep(self, irp) },
    startIo: () => undefined,
  })
  const dpc = kernel.keInitializeDpc(
    room + 64,
    kernel.routine(() => keeper.next(device)),
  )
  const ends: NtStatus[] = []
  const random = rig.machine.random.stream('race')
  const { processor } = rig.machine
  const line = processor.line(3)
  rig.machine.run(function* () {
    const interrupt = kernel.ioConnectInterrupt(
      () => {
        line.lower()
        kernel.keInsertQueueDpc(dpc)
        return true
      },
      { line: 3, trigger: 'level' },
    ) as Interrupt
    // The device also asks in the middle of anything.
    processor.meanwhile = () => {
      if (random.below(12) === 0) line.raise()
    }
    const done = kernel.keInitializeSemaphore(rig.room(32), 0, 100)
    const irps: Irp[] = []
    const ended = kernel.routine((_device: DeviceObject | null, irp: Irp) => {
      ends[irps.indexOf(irp)] = irp.status
      kernel.keReleaseSemaphore(done, 1)
      return NtStatus.MORE_PROCESSING_REQUIRED
    })
    for (let index = 0; index < count; index++) {
      const irp = kernel.ioAllocateIrp(1)
      if (irp === null) throw new Error('no memory')
      irps.push(irp)
      irp.next.major = Major.READ
      kernel.ioSetCompletionRoutine(irp, ended)
    }
    kernel.keSetTimer(timer, 3, 1, dpc)
    const canceller = kernel.psCreateSystemThread(function* () {
      for (const irp of irps) {
        if (random.below(4) === 0) yield* kernel.keDelayExecutionThread(random.below(1500))
        if (random.below(3) > 0) kernel.ioCancelIrp(irp)
      }
    })
    kernel.obReferenceThread(canceller)
    for (const irp of irps) {
      expect(kernel.ioCallDriver(device, irp)).toBe(NtStatus.PENDING)
      if (random.below(3) === 0) yield* kernel.keDelayExecutionThread(random.below(800))
    }
    for (let index = 0; index < count; index++) yield* kernel.keWaitForSingleObject(done)
    yield* kernel.keWaitForSingleObject(canceller)
    kernel.obDereferenceThread(canceller)
    kernel.keCancelTimer(timer)
    processor.meanwhile = null
    kernel.ioDisconnectInterrupt(interrupt)
    expect(done.signalState).toBe(0)
    for (const irp of irps) {
      expect(irp.cancelRoutine).toBe(0)
      kernel.ioFreeIrp(irp)
    }
  })
  rig.end()
  return ends
}

describe('a request that is cancelled while it is being answered', () => {
  it.each(KEEPERS)('ends exactly once, either way, with %s', (_name, make) => {
    const all = new Set<NtStatus>()
    for (let seed = 0; seed < SEEDS; seed++) {
      const ends = race(seed, make, 6)
      expect(ends).toHaveLength(6)
      for (const end of ends) all.add(end)
    }
    expect(all).toEqual(new Set([NtStatus.SUCCESS, NtStatus.CANCELLED]))
  })
})

describe('IoCancelIrp', () => {
  it('answers whether there was a routine, which it calls with the lock held', () => {
    const rig = new Rig()
    const { kernel } = rig
    const irp = kernel.ioAllocateIrp(1) as Irp
    expect(kernel.ioCancelIrp(irp)).toBe(false)
    expect(irp.cancel).toBe(true)
    const levels: number[] = []
    kernel.ioSetCancelRoutine(
      irp,
      kernel.routine((device: DeviceObject | null, one: Irp) => {
        expect(device).toBeNull()
        levels.push(kernel.keGetCurrentIrql(), one.cancelIrql)
        kernel.ioReleaseCancelSpinLock(one.cancelIrql)
      }),
    )
    expect(kernel.ioCancelIrp(irp)).toBe(true)
    expect(levels).toEqual([2, 0])
    expect(kernel.ioCancelIrp(irp)).toBe(false)
    kernel.ioFreeIrp(irp)
    rig.end()
  })

  it('stops the system when the request is finished and still has a cancel routine', () => {
    const rig = new Rig()
    const { kernel } = rig
    expect(
      rig.machine.crash(function* () {
        const irp = kernel.ioAllocateIrp(1) as Irp
        irp.currentLocation = 3
        kernel.ioSetCancelRoutine(
          irp,
          kernel.routine(() => undefined),
        )
        kernel.ioCancelIrp(irp)
      }),
    ).toEqual([0x48, expect.any(Number)])
  })
})

describe('a cancel-safe queue', () => {
  it('does not take a request that its insert routine refuses', () => {
    const rig = new Rig()
    const { kernel } = rig
    const irp = kernel.ioAllocateIrp(1) as Irp
    irp.currentLocation = 1
    const csq = kernel.ioCsqInitialize(
      rig.room(IO_CSQ.$size),
      {
        insertIrp: kernel.routine(() => NtStatus.DEVICE_BUSY),
        removeIrp: kernel.routine(() => undefined),
        peekNextIrp: kernel.routine(() => null),
        acquireLock: kernel.routine(() => 0),
        releaseLock: kernel.routine(() => undefined),
        completeCanceledIrp: kernel.routine(() => undefined),
      },
      true,
    )
    const context = rig.room(IO_CSQ_IRP_CONTEXT.$size)
    expect(kernel.ioCsqInsertIrp(csq, irp, context)).toBe(NtStatus.DEVICE_BUSY)
    expect(irp.current.control).toBe(0)
    expect(irp.cancelRoutine).toBe(0)
    expect(kernel.ioCsqRemoveIrp(csq, context)).toBeNull()
    kernel.ioFreeIrp(irp)
    rig.end()
  })
})

describe('a request that was cancelled before it is kept', () => {
  it.each(KEEPERS)('ends at once, with %s', (_name, make) => {
    const rig = new Rig()
    const { kernel } = rig
    const keeper = make(rig)
    const device = rig.layer({
      dispatch: { [Major.READ]: (self, irp) => keeper.keep(self, irp) },
      startIo: () => undefined,
    })
    const ends: NtStatus[] = []
    rig.machine.run(function* () {
      const irps = [0, 1].map(() => kernel.ioAllocateIrp(1) as Irp)
      for (const irp of irps) {
        irp.next.major = Major.READ
        kernel.ioSetCompletionRoutine(
          irp,
          kernel.routine((_device: DeviceObject | null, one: Irp) => {
            ends.push(one.status)
            return NtStatus.MORE_PROCESSING_REQUIRED
          }),
        )
      }
      const [first, second] = irps as [Irp, Irp]
      kernel.ioCallDriver(device, first)
      second.cancel = true
      const before = kernel.keRaiseIrql(1)
      expect(kernel.ioCallDriver(device, second)).toBe(NtStatus.PENDING)
      expect(kernel.keGetCurrentIrql()).toBe(1)
      expect(ends).toEqual([NtStatus.CANCELLED])
      kernel.keLowerIrql(before)
      keeper.next(device)
      for (const irp of irps) kernel.ioFreeIrp(irp)
      yield
    })
    expect(ends).toEqual([NtStatus.CANCELLED, NtStatus.SUCCESS])
    rig.end()
  })
})

describe('an application', () => {
  it('cancels its requests through one handle and waits until they are over; by IOSB from Vista on', () => {
    for (const version of Object.values(WINDOWS_VERSIONS)) {
      const rig = new Rig({ version, seed: version.name })
      const { kernel } = rig
      const keeper = withCancelRoutine(rig)
      rig.layer({ name: '\\Device\\C', dispatch: { [Major.READ]: (self, irp) => keeper.keep(self, irp) } })
      const iosbs = [rig.iosb(), rig.iosb(), rig.iosb()] as const
      rig.machine.run(function* () {
        const { handle } = yield* kernel.nt.createFile('\\Device\\C')
        const other = (yield* kernel.nt.createFile('\\Device\\C')).handle
        const read = (through: number, iosb: number) =>
          kernel.nt.readFile(through, { iosb, buffer: iosb, lengthBytes: 8, byteOffset: 0 })
        expect(yield* read(handle, iosbs[0])).toBe(NtStatus.PENDING)
        expect(yield* read(handle, iosbs[1])).toBe(NtStatus.PENDING)
        expect(yield* read(other, iosbs[2])).toBe(NtStatus.PENDING)
        const byIosb = kernel.nt.cancelIoFileEx(handle, iosbs[1])
        if (version.cancelsByIosb) {
          expect(byIosb).toBe(NtStatus.SUCCESS)
          expect(rig.answer(iosbs[1]).status).toBe(NtStatus.CANCELLED)
          expect(rig.answer(iosbs[0]).status).not.toBe(NtStatus.CANCELLED)
          expect(kernel.nt.cancelIoFileEx(handle, iosbs[1])).toBe(NtStatus.NOT_FOUND)
        } else expect(byIosb).toBe(NtStatus.NOT_IMPLEMENTED)
        expect(yield* kernel.nt.cancelIoFile(handle)).toBe(NtStatus.SUCCESS)
        expect(rig.answer(iosbs[0]).status).toBe(NtStatus.CANCELLED)
        expect(rig.answer(iosbs[1]).status).toBe(NtStatus.CANCELLED)
        expect(rig.answer(iosbs[2]).status).not.toBe(NtStatus.CANCELLED)
        yield* kernel.nt.cancelIoFile(other)
        for (const open of [handle, other]) yield* kernel.nt.close(open)
      })
      rig.end()
    }
  })

  it('that ends with requests outstanding has them cancelled; a stuck one is cut loose after 5 minutes', () => {
    for (const cancelable of [true, false]) {
      const rig = new Rig()
      const { kernel } = rig
      const keeper = withCancelRoutine(rig)
      let held: Irp | null = null
      rig.layer({
        name: '\\Device\\C',
        dispatch: {
          [Major.READ]: (self, irp) => {
            held = irp
            if (cancelable) return keeper.keep(self, irp)
            kernel.ioMarkIrpPending(irp)
            return NtStatus.PENDING
          },
        },
      })
      const iosb = rig.iosb()
      let handle = 0
      rig.machine.run(function* () {
        handle = (yield* kernel.nt.createFile('\\Device\\C')).handle
        const app = kernel.psCreateSystemThread(function* () {
          yield* kernel.nt.readFile(handle, { iosb, buffer: iosb, lengthBytes: 8, byteOffset: 0 })
        })
        kernel.obReferenceThread(app)
        yield* kernel.keWaitForSingleObject(app)
        kernel.obDereferenceThread(app)
        const us = kernel.keQueryTimeUs()
        if (cancelable) expect(us).toBeLessThan(200_000)
        else expect(us).toBe(300_000_000)
        const stuck = held as Irp | null
        if (!cancelable && stuck !== null) {
          expect(stuck.thread).toBe(0)
          finish(kernel, stuck, NtStatus.SUCCESS, 4)
        }
        yield* kernel.nt.close(handle)
      })
      // The thread is gone: nobody is told.
      if (!cancelable) expect(rig.answer(iosb).status).toBe(0xfeed)
      rig.end()
    }
  })
})
