import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { DeviceObject } from '../../guest/kernel/device-object.ts'
import {
  deviceQueueIsBusy,
  keInitializeDeviceQueue,
  keInsertByKeyDeviceQueue,
  keInsertDeviceQueue,
  keRemoveByKeyDeviceQueue,
  keRemoveDeviceQueue,
  keRemoveEntryDeviceQueue,
} from '../../guest/kernel/device-queue.ts'
import { Major } from '../../guest/kernel/io-layout.ts'
import type { Irp } from '../../guest/kernel/irp.ts'
import { Irql } from '../../guest/kernel/irql.ts'
import { IO_REMOVE_LOCK, KDEVICE_QUEUE, KDEVICE_QUEUE_ENTRY } from '../../guest/kernel/layout.ts'
import { NtStatus } from '../../guest/kernel/nt-status.ts'
import { NO_ROUTINE } from '../../guest/kernel/routine.ts'
import { finish, Rig } from './kernel-rig.ts'

describe('a device queue', () => {
  it('is busy or idle, first in first out or by key, as a model of it', () => {
    const step = fc.record({
      do: fc.constantFrom('insert', 'insert by key', 'remove', 'remove by key', 'take out'),
      entry: fc.nat(7),
      key: fc.nat(5),
    })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const rig = new Rig()
        const { memory } = rig.kernel.parts
        const queue = rig.room(KDEVICE_QUEUE.$size)
        const room = rig.room(8 * KDEVICE_QUEUE_ENTRY.$size)
        const at = (entry: number): number => room + entry * KDEVICE_QUEUE_ENTRY.$size
        keInitializeDeviceQueue(memory, queue)
        let busy = false
        let queued: { entry: number; key: number }[] = []
        const keys = new Map<number, number>()
        for (const { do: what, entry, key } of steps) {
          const inside = queued.some((one) => one.entry === entry)
          if (what === 'insert' && !inside) {
            expect(keInsertDeviceQueue(memory, queue, at(entry))).toBe(busy)
            if (busy) queued.push({ entry, key: keys.get(entry) ?? 0 })
            busy = true
          } else if (what === 'insert by key' && !inside) {
            keys.set(entry, key)
            expect(keInsertByKeyDeviceQueue(memory, queue, at(entry), key)).toBe(busy)
            if (busy) {
              const place = queued.findIndex((one) => one.key > key)
              queued.splice(place < 0 ? queued.length : place, 0, { entry, key })
            }
            busy = true
          } else if (what === 'remove' || what === 'remove by key') {
            const found = what === 'remove' ? 0 : queued.findIndex((one) => one.key >= key)
            const [next] = queued.splice(Math.max(0, found), 1)
            if (next === undefined) busy = false
            const got =
              what === 'remove'
                ? keRemoveDeviceQueue(memory, queue)
                : keRemoveByKeyDeviceQueue(memory, queue, key)
            expect(got).toBe(next === undefined ? 0 : at(next.entry))
          } else if (what === 'take out') {
            expect(keRemoveEntryDeviceQueue(memory, at(entry))).toBe(inside)
            queued = queued.filter((one) => one.entry !== entry)
          }
          expect(deviceQueueIsBusy(memory, queue)).toBe(busy)
        }
        rig.end()
      }),
    )
  })
})

describe('StartIo', () => {
  /** A device whose StartIo completes at once and asks for the next packet from inside. */
  function eager(deferred: boolean, cancelable: boolean) {
    const rig = new Rig()
    const { kernel } = rig
    const depths: number[] = []
    const order: number[] = []
    let depth = 0
    const device = rig.layer({
      dispatch: {
        [Major.READ]: (self, irp) => {
          kernel.ioMarkIrpPending(irp)
          kernel.ioStartPacket(self, irp, irp.current.key, cancelable ? cancelled : NO_ROUTINE)
          return NtStatus.PENDING
        },
      },
      startIo: (self, irp) => {
        depth++
        depths.push(depth)
        expect(kernel.keGetCurrentIrql()).toBe(Irql.DISPATCH)
        expect(self.currentIrp).toBe(irp.at)
        if (cancelable) expect(kernel.ioSetCancelRoutine(irp, NO_ROUTINE)).not.toBe(0)
        order.push(irp.current.key)
        // More work arrives while the first is served.
        if (order.length === 1) for (const key of [5, 1, 3]) send(key)
        finish(kernel, irp, NtStatus.SUCCESS)
        kernel.ioStartNextPacket(self, cancelable)
        depth--
      },
    })
    const cancelled = kernel.routine((_self: DeviceObject | null, irp: Irp) =>
      kernel.ioReleaseCancelSpinLock(irp.cancelIrql),
    )
    const ended = kernel.routine((_self: DeviceObject | null, irp: Irp) => {
      kernel.ioFreeIrp(irp)
      return NtStatus.MORE_PROCESSING_REQUIRED
    })
    const send = (key: number): void => {
      const irp = kernel.ioAllocateIrp(1) as Irp
      irp.next.major = Major.READ
      irp.next.key = key
      kernel.ioSetCompletionRoutine(irp, ended)
      kernel.ioCallDriver(device, irp)
    }
    kernel.ioSetStartIoAttributes(device, deferred, false)
    rig.machine.run(function* () {
      send(9)
      yield
    })
    expect(device.currentIrp).toBe(0)
    rig.end()
    return { order, deepest: Math.max(...depths) }
  }

  it.each([false, true])(
    'serves by key, one inside the other unless it is deferred (cancelable: %s)',
    (cancelable) => {
      expect(eager(false, cancelable)).toEqual({ order: [9, 1, 3, 5], deepest: 4 })
      expect(eager(true, cancelable)).toEqual({ order: [9, 1, 3, 5], deepest: 1 })
    },
  )

  it('that is not cancelable loses the cancel routine before it begins', () => {
    const rig = new Rig()
    const { kernel } = rig
    const routines: number[] = []
    const device = rig.layer({
      startIo: (_self, irp) => {
        routines.push(irp.cancelRoutine)
      },
    })
    kernel.ioSetStartIoAttributes(device, false, true)
    const irp = kernel.ioAllocateIrp(1) as Irp
    kernel.ioStartPacket(
      device,
      irp,
      null,
      kernel.routine(() => undefined),
    )
    expect(routines).toEqual([0])
    kernel.ioFreeIrp(irp)
    rig.end()
  })

  it('asks for the device’s own DPC from a service routine', () => {
    const rig = new Rig()
    const { kernel } = rig
    const device = rig.layer()
    const seen: number[][] = []
    kernel.ioInitializeDpcRequest(
      device,
      kernel.routine((_dpc: unknown, at: number, irp: number, context: number) => {
        seen.push([at, irp, context])
      }),
    )
    const irp = kernel.ioAllocateIrp(1) as Irp
    kernel.keRaiseIrql(5)
    kernel.ioRequestDpc(device, irp, 42)
    expect(seen).toEqual([])
    kernel.keLowerIrql(0)
    expect(seen).toEqual([[device.at, irp.at, 42]])
    kernel.ioFreeIrp(irp)
    rig.end()
  })
})

describe('a remove lock', () => {
  it('lets removal go on when the last holder lets go, and nobody in from its start', () => {
    for (let seed = 0; seed < 60; seed++) {
      const rig = new Rig({ seed })
      const { kernel } = rig
      const lock = kernel.ioInitializeRemoveLock(rig.room(IO_REMOVE_LOCK.$size))
      const random = rig.machine.random
      let inside = 0
      let removed = false
      const refused: NtStatus[] = []
      rig.machine.start(() => {
        for (let id = 0; id < 4; id++) {
          kernel.psCreateSystemThread(function* () {
            for (let turn = 0; turn < 6; turn++) {
              const status = kernel.ioAcquireRemoveLock(lock)
              if (status !== NtStatus.SUCCESS) {
                refused.push(status)
                continue
              }
              inside++
              expect(removed).toBe(false)
              yield* kernel.keDelayExecutionThread(random.below(20))
              inside--
              kernel.ioReleaseRemoveLock(lock)
            }
          })
        }
        kernel.psCreateSystemThread(function* () {
          yield* kernel.keDelayExecutionThread(random.below(60))
          expect(kernel.ioAcquireRemoveLock(lock)).toBe(NtStatus.SUCCESS)
          yield* kernel.ioReleaseRemoveLockAndWait(lock)
          removed = true
          expect(inside).toBe(0)
        })
      })
      expect(removed).toBe(true)
      expect(lock.ioCount).toBe(0)
      for (const status of refused) expect(status).toBe(NtStatus.DELETE_PENDING)
      rig.end()
    }
  })

  it('released once too often stops the system', () => {
    const rig = new Rig()
    const { kernel } = rig
    expect(
      rig.machine.crash(function* () {
        const lock = kernel.ioInitializeRemoveLock(rig.room(IO_REMOVE_LOCK.$size))
        kernel.ioReleaseRemoveLock(lock)
        kernel.ioReleaseRemoveLock(lock)
        yield
      }),
    ).toEqual([0xc4, 0xd6])
  })
})
