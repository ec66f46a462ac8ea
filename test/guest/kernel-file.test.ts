import { describe, expect, it } from 'vitest'
import type { DeviceObject } from '../../guest/kernel/device-object.ts'
import { DeviceFlag, Major } from '../../guest/kernel/io-layout.ts'
import type { Irp } from '../../guest/kernel/irp.ts'
import { NtStatus } from '../../guest/kernel/nt-status.ts'
import { finish, Rig, STATUS_CLASSES } from './kernel-rig.ts'

describe('a file', () => {
  it('is cleaned up when its last handle closes, and closed when its last request is done', () => {
    for (const seed of [undefined, 1, 2, 3, 4, 5, 6, 7]) {
      const rig = new Rig(seed === undefined ? {} : { seed })
      const { kernel } = rig
      const seen: string[] = []
      let held: Irp | null = null
      rig.layer({
        name: '\\Device\\Test',
        flags: DeviceFlag.BUFFERED_IO,
        dispatch: {
          [Major.CLEANUP]: (_device, irp) => {
            seen.push('cleanup')
            if (held !== null) finish(kernel, held, NtStatus.CANCELLED)
            return finish(kernel, irp, NtStatus.SUCCESS)
          },
          [Major.CLOSE]: (_device, irp) => {
            seen.push('close')
            return finish(kernel, irp, NtStatus.SUCCESS)
          },
          [Major.READ]: (_device, irp) => {
            seen.push('read')
            kernel.ioMarkIrpPending(irp)
            held = irp
            return NtStatus.PENDING
          },
        },
      })
      const iosb = rig.iosb()
      const buffer = rig.room(64)
      rig.machine.run(function* () {
        const { status, handle } = yield* kernel.nt.createFile('\\Device\\Test')
        expect(status).toBe(NtStatus.SUCCESS)
        expect(yield* kernel.nt.readFile(handle, { iosb, buffer, lengthBytes: 64, byteOffset: 0 })).toBe(
          NtStatus.PENDING,
        )
        expect(yield* kernel.nt.close(handle)).toBe(NtStatus.SUCCESS)
      })
      expect(seen).toEqual(['read', 'cleanup', 'close'])
      expect(rig.answer(iosb)).toEqual({ status: NtStatus.CANCELLED, information: 0 })
      rig.end()
    }
  })

  it('that is synchronous serves one request at a time, keeps its position, and waits for each', () => {
    for (let seed = 0; seed < 30; seed++) {
      const rig = new Rig({ seed })
      const { kernel } = rig
      const { nt } = kernel
      const served: number[] = []
      let inside = 0
      const timerRoom = rig.room(256)
      const timer = kernel.keInitializeTimer(timerRoom)
      let held: Irp | null = null
      const dpc = kernel.keInitializeDpc(
        timerRoom + 64,
        kernel.routine(() => {
          inside--
          if (held !== null) finish(kernel, held, NtStatus.SUCCESS, 10)
        }),
      )
      rig.layer({
        name: '\\Device\\Test',
        dispatch: {
          [Major.READ]: (_device, irp) => {
            expect(++inside).toBe(1)
            served.push(irp.current.byteOffset)
            kernel.ioMarkIrpPending(irp)
            held = irp
            kernel.keSetTimer(timer, 7, 0, dpc)
            return NtStatus.PENDING
          },
        },
      })
      rig.machine.run(function* () {
        const { handle } = yield* nt.createFile('\\Device\\Test', { synchronous: true })
        const threads = [0, 1, 2].map(() =>
          kernel.psCreateSystemThread(function* () {
            for (let turn = 0; turn < 3; turn++) {
              const iosb = rig.iosb()
              expect(yield* nt.readFile(handle, { iosb, buffer: iosb, lengthBytes: 10 })).toBe(
                NtStatus.SUCCESS,
              )
              expect(rig.answer(iosb)).toEqual({ status: NtStatus.SUCCESS, information: 10 })
            }
          }),
        )
        for (const thread of threads) kernel.obReferenceThread(thread)
        for (const thread of threads) yield* kernel.keWaitForSingleObject(thread)
        for (const thread of threads) kernel.obDereferenceThread(thread)
        yield* nt.close(handle)
      })
      expect(served).toEqual([0, 10, 20, 30, 40, 50, 60, 70, 80])
      rig.end()
    }
  })

  it('that is synchronous is cleaned up after the request that was under way when it was closed', () => {
    for (let seed = 0; seed < 20; seed++) {
      const rig = new Rig(seed === 0 ? {} : { seed })
      const { kernel } = rig
      const { nt } = kernel
      const seen: string[] = []
      let held: Irp | null = null
      rig.layer({
        name: '\\Device\\Test',
        dispatch: {
          [Major.READ]: (_device, irp) => {
            kernel.ioMarkIrpPending(irp)
            held = irp
            return NtStatus.PENDING
          },
          [Major.CLEANUP]: (_device, irp) => {
            seen.push('cleanup')
            return finish(kernel, irp, NtStatus.SUCCESS)
          },
        },
      })
      const iosb = rig.iosb()
      rig.machine.run(function* () {
        const { handle } = yield* nt.createFile('\\Device\\Test', { synchronous: true })
        kernel.psCreateSystemThread(function* () {
          yield* nt.readFile(handle, { iosb, buffer: iosb, lengthBytes: 8, byteOffset: 0 })
        })
        kernel.psCreateSystemThread(function* () {
          yield* kernel.keDelayExecutionThread(50)
          seen.push('answered')
          if (held !== null) finish(kernel, held, NtStatus.SUCCESS)
        })
        yield* kernel.keDelayExecutionThread(10)
        yield* nt.close(handle)
      })
      expect(seen).toEqual(['answered', 'cleanup'])
      rig.end()
    }
  })

  it('that is synchronous and alertable calls its request back when an APC comes, and runs the APC', () => {
    const rig = new Rig()
    const { kernel } = rig
    const { nt } = kernel
    const waiting = rig.layer({
      name: '\\Device\\Test',
      dispatch: {
        [Major.READ]: (_device, irp) => {
          kernel.ioMarkIrpPending(irp)
          if (irp.current.byteOffset === 0) {
            kernel.ioSetCancelRoutine(
              irp,
              kernel.routine((_self: unknown, one: Irp) => {
                kernel.ioReleaseCancelSpinLock(one.cancelIrql)
                finish(kernel, one, NtStatus.CANCELLED)
              }),
            )
          } else other = irp
          return NtStatus.PENDING
        },
      },
    })
    let other: Irp | null = null
    let called = 0
    rig.machine.run(function* () {
      const slow = (yield* nt.createFile('\\Device\\Test', { synchronous: true, alertable: true })).handle
      const fast = (yield* nt.createFile('\\Device\\Test')).handle
      const iosb = rig.iosb()
      const apcRoutine = kernel.routine(() => {
        called++
      })
      expect(
        yield* nt.readFile(fast, { iosb, buffer: iosb, lengthBytes: 8, byteOffset: 8, apcRoutine }),
      ).toBe(NtStatus.PENDING)
      kernel.psCreateSystemThread(function* () {
        yield* kernel.keDelayExecutionThread(50)
        if (other !== null) finish(kernel, other, NtStatus.SUCCESS)
      })
      const block = rig.iosb()
      expect(yield* nt.readFile(slow, { iosb: block, buffer: iosb, lengthBytes: 8, byteOffset: 0 })).toBe(
        NtStatus.CANCELLED,
      )
      expect(called).toBe(1)
      for (const handle of [slow, fast]) yield* nt.close(handle)
    })
    expect(waiting.referenceCount).toBe(0)
    rig.end()
  })

  it('whose open fails is never seen again, and the failure is the answer', () => {
    const rig = new Rig()
    const { kernel } = rig
    const seen: string[] = []
    rig.layer({
      name: '\\Device\\Test',
      dispatch: {
        [Major.CREATE]: (_device, irp) => finish(kernel, irp, NtStatus.DEVICE_NOT_READY),
        [Major.CLEANUP]: (_device, irp) => {
          seen.push('cleanup')
          return finish(kernel, irp, NtStatus.SUCCESS)
        },
        [Major.CLOSE]: (_device, irp) => {
          seen.push('close')
          return finish(kernel, irp, NtStatus.SUCCESS)
        },
      },
    })
    const young = rig.layer({ name: '\\Device\\Young' })
    young.flags |= DeviceFlag.DEVICE_INITIALIZING
    rig.layer({ name: '\\Device\\One', exclusive: true })
    rig.machine.run(function* () {
      const open = (name: string) => kernel.nt.createFile(name)
      expect(yield* open('\\Device\\Test')).toEqual({ status: NtStatus.DEVICE_NOT_READY, handle: 0 })
      expect((yield* open('\\Device\\Young')).status).toBe(NtStatus.NO_SUCH_DEVICE)
      expect((yield* open('\\Device\\None')).status).toBe(NtStatus.OBJECT_NAME_NOT_FOUND)
      const one = yield* open('\\Device\\One')
      expect(one.status).toBe(NtStatus.SUCCESS)
      expect((yield* open('\\Device\\One')).status).toBe(NtStatus.ACCESS_DENIED)
      yield* kernel.nt.close(one.handle)
      const again = yield* open('\\Device\\One')
      expect(again.status).toBe(NtStatus.SUCCESS)
      yield* kernel.nt.close(again.handle)
      expect(yield* kernel.nt.close(again.handle)).toBe(NtStatus.INVALID_HANDLE)
    })
    expect(seen).toEqual([])
    rig.end()
  })

  it('goes to the top of the stack above the device it names, and says where', () => {
    const rig = new Rig()
    const { kernel } = rig
    const names: string[] = []
    const create = (device: DeviceObject, irp: Irp): NtStatus => {
      const file = kernel.parts.files.fileAt(irp.current.fileObject)
      names.push(`${device.driver.name} ${file?.fileName} ${file?.device.name}`)
      return finish(kernel, irp, NtStatus.SUCCESS)
    }
    const bottom = rig.layer({ name: '\\Device\\Disk' })
    rig.layer({ dispatch: { [Major.CREATE]: create } }, bottom)
    expect(kernel.ioCreateSymbolicLink('\\DosDevices\\Drive', '\\Device\\Disk')).toBe(NtStatus.SUCCESS)
    expect(kernel.ioCreateSymbolicLink('\\??\\drive', '\\Device\\Disk')).toBe(NtStatus.OBJECT_NAME_COLLISION)
    expect(kernel.ioCreateSymbolicLink('bad', '\\Device\\Disk')).toBe(NtStatus.OBJECT_NAME_INVALID)
    expect(kernel.ioCreateSymbolicLink('\\??\\Loop', '\\??\\Loop')).toBe(NtStatus.SUCCESS)
    rig.machine.run(function* () {
      for (const name of ['\\??\\DRIVE', '\\DosDevices\\drive\\a\\b']) {
        const { status, handle } = yield* kernel.nt.createFile(name)
        expect(status).toBe(NtStatus.SUCCESS)
        yield* kernel.nt.close(handle)
      }
      expect((yield* kernel.nt.createFile('\\??\\Loop')).status).toBe(NtStatus.OBJECT_NAME_NOT_FOUND)
    })
    expect(names).toEqual(['\\Driver\\Test1  \\Device\\Disk', '\\Driver\\Test1 \\a\\b \\Device\\Disk'])
    expect(kernel.ioDeleteSymbolicLink('\\??\\Drive')).toBe(NtStatus.SUCCESS)
    expect(kernel.ioDeleteSymbolicLink('\\??\\Drive')).toBe(NtStatus.OBJECT_NAME_NOT_FOUND)
    rig.end()
  })

  it('flushes and waits, on any handle, whatever the answer', () => {
    for (const synchronous of [false, true]) {
      for (const status of Object.values(STATUS_CLASSES)) {
        for (const late of [false, true]) {
          const rig = new Rig()
          const { kernel } = rig
          let held: Irp | null = null
          rig.layer({
            name: '\\Device\\Test',
            dispatch: {
              [Major.FLUSH_BUFFERS]: (_device, irp) => {
                if (!late) return finish(kernel, irp, status)
                kernel.ioMarkIrpPending(irp)
                held = irp
                return NtStatus.PENDING
              },
            },
          })
          rig.machine.run(function* () {
            const { handle } = yield* kernel.nt.createFile('\\Device\\Test', { synchronous })
            kernel.psCreateSystemThread(function* () {
              yield* kernel.keDelayExecutionThread(20)
              if (held !== null) finish(kernel, held, status)
            })
            expect(yield* kernel.nt.flushBuffersFile(handle, rig.iosb())).toBe(status)
            yield* kernel.nt.close(handle)
          })
          rig.end()
        }
      }
    }
  })

  it('keeps an event until the request that will set it is done, though its handle is closed', () => {
    const rig = new Rig({ seed: 3 })
    const { kernel } = rig
    const { nt } = kernel
    let held: Irp | null = null
    rig.layer({
      name: '\\Device\\Test',
      dispatch: {
        [Major.READ]: (_device, irp) => {
          kernel.ioMarkIrpPending(irp)
          held = irp
          return NtStatus.PENDING
        },
      },
    })
    rig.machine.run(function* () {
      const { handle } = yield* nt.createFile('\\Device\\Test')
      const event = nt.createEvent(true, false).handle
      const iosb = rig.iosb()
      yield* nt.readFile(handle, { iosb, event, buffer: iosb, lengthBytes: 8, byteOffset: 0 })
      yield* nt.close(event)
      expect(kernel.parts.events.count).toBe(1)
      expect(nt.setEvent(event)).toBe(NtStatus.INVALID_HANDLE)
      if (held !== null) finish(kernel, held, NtStatus.SUCCESS)
      yield* nt.close(handle)
    })
    expect(kernel.parts.events.count).toBe(0)
    rig.end()
  })

  it('leaves nothing behind when memory runs short at any step', () => {
    for (let nth = 0; nth < 14; nth++) {
      const rig = new Rig()
      const { kernel } = rig
      rig.layer({
        name: '\\Device\\Test',
        flags: DeviceFlag.DIRECT_IO,
        dispatch: { [Major.READ]: (_device, irp) => finish(kernel, irp, NtStatus.SUCCESS) },
      })
      const iosb = rig.iosb()
      const buffer = rig.room(64)
      rig.machine.run(function* () {
        let left = nth
        // Freed requests are kept for reuse: without them, each allocation is one of the pool.
        kernel.parts.irps.trim()
        kernel.parts.pool.refuse = () => left-- === 0
        const { status, handle } = yield* kernel.nt.createFile('\\Device\\Test', { synchronous: true })
        if (status === NtStatus.SUCCESS) {
          kernel.parts.irps.trim()
          const read = yield* kernel.nt.readFile(handle, { iosb, buffer, lengthBytes: 64, byteOffset: 0 })
          expect([NtStatus.SUCCESS, NtStatus.INSUFFICIENT_RESOURCES]).toContain(read)
          kernel.parts.pool.refuse = null
          yield* kernel.nt.close(handle)
        } else expect(status).toBe(NtStatus.INSUFFICIENT_RESOURCES)
        kernel.parts.pool.refuse = null
      })
      rig.end()
    }
  })
})
