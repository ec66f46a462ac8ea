import { describe, expect, it } from 'vitest'
import type { DeviceObject } from '../../guest/kernel/device-object.ts'
import { DeviceFlag, Major } from '../../guest/kernel/io-layout.ts'
import type { Irp } from '../../guest/kernel/irp.ts'
import { KEVENT } from '../../guest/kernel/layout.ts'
import { NtStatus } from '../../guest/kernel/nt-status.ts'
import { settled } from '../../guest/kernel/thread.ts'
import { finish, Rig, STATUS_CLASSES } from './kernel-rig.ts'

describe('a driver table', () => {
  it('refuses what the driver did not set, with INVALID_DEVICE_REQUEST', () => {
    const rig = new Rig()
    const { kernel } = rig
    const device = rig.layer()
    const seen: NtStatus[] = []
    const ended = kernel.routine((_device: DeviceObject | null, irp: Irp) => {
      seen.push(irp.status)
      kernel.ioFreeIrp(irp)
      return NtStatus.MORE_PROCESSING_REQUIRED
    })
    for (const major of Object.values(Major)) {
      if (major === Major.CREATE || major === Major.CLOSE || major === Major.CLEANUP) continue
      const irp = kernel.ioAllocateIrp(1) as Irp
      irp.next.major = major
      kernel.ioSetCompletionRoutine(irp, ended)
      expect(kernel.ioCallDriver(device, irp)).toBe(NtStatus.INVALID_DEVICE_REQUEST)
    }
    expect(new Set(seen)).toEqual(new Set([NtStatus.INVALID_DEVICE_REQUEST]))
    rig.end()
  })
})

describe('a device stack', () => {
  it('grows at its top, inherits depth and alignment, and keeps its depth when it shrinks', () => {
    const rig = new Rig()
    const { kernel } = rig
    const bottom = rig.layer()
    bottom.sectorSize = 4096
    bottom.alignmentRequirement = 0x1ff
    const middle = rig.layer({}, bottom)
    const top = rig.layer()
    expect(kernel.ioAttachDeviceToDeviceStack(top, bottom)).toBe(middle)
    expect([bottom, middle, top].map((device) => device.stackSize)).toEqual([1, 2, 3])
    expect([top.sectorSize, top.alignmentRequirement]).toEqual([4096, 0x1ff])
    expect(kernel.ioGetAttachedDevice(bottom)).toBe(top)
    expect(kernel.parts.devices.bottom(top)).toBe(bottom)
    kernel.ioDetachDevice(middle)
    expect(kernel.ioGetAttachedDevice(bottom)).toBe(middle)
    expect(top.stackSize).toBe(3)
    const young = rig.layer()
    middle.flags |= DeviceFlag.DEVICE_INITIALIZING
    expect(kernel.ioAttachDeviceToDeviceStack(young, bottom)).toBeNull()
    middle.flags &= ~DeviceFlag.DEVICE_INITIALIZING
    rig.end()
  })
})

describe('a request sent on', () => {
  it('synchronously comes back to its sender, whatever and whenever the answer', () => {
    for (const status of Object.values(STATUS_CLASSES)) {
      for (const late of [false, true]) {
        const rig = new Rig({ seed: status })
        const { kernel } = rig
        let held: Irp | null = null
        const lower = rig.layer({
          dispatch: {
            [Major.PNP]: (_self, irp) => {
              if (!late) return finish(kernel, irp, status)
              kernel.ioMarkIrpPending(irp)
              held = irp
              return NtStatus.PENDING
            },
          },
        })
        const upper = rig.layer(
          {
            dispatch: {
              *[Major.PNP](self: DeviceObject, irp: Irp) {
                const answer = yield* kernel.ioForwardIrpSynchronously(self.extension as DeviceObject, irp)
                expect(answer).toBe(status)
                expect(irp.current.major).toBe(Major.PNP)
                return finish(kernel, irp, status)
              },
            } as never,
          },
          lower,
        )
        rig.machine.run(function* () {
          if (late) {
            kernel.psCreateSystemThread(function* () {
              while (held === null) yield* kernel.keDelayExecutionThread(5)
              finish(kernel, held, status)
            })
          }
          const irp = kernel.ioAllocateIrp(2) as Irp
          irp.next.major = Major.PNP
          kernel.ioSetCompletionRoutine(
            irp,
            kernel.routine(() => NtStatus.MORE_PROCESSING_REQUIRED),
          )
          expect(yield* settled(kernel.ioCallDriver(upper, irp))).toBe(status)
          kernel.ioFreeIrp(irp)
        })
        rig.end()
      }
    }
  })

  it('with IoSetCompletionRoutineEx keeps the device until the routine has returned', () => {
    const rig = new Rig()
    const { kernel } = rig
    let held: Irp | null = null
    const lower = rig.layer({
      dispatch: {
        [Major.READ]: (_self, irp) => {
          kernel.ioMarkIrpPending(irp)
          held = irp
          return NtStatus.PENDING
        },
      },
    })
    const driver = kernel.parts.devices.createDriver('\\Driver\\Gone')
    if (driver === null) throw new Error('no memory')
    const device = kernel.ioCreateDevice(driver) as DeviceObject
    const irp = kernel.ioAllocateIrp(1) as Irp
    irp.next.major = Major.READ
    let context = 0
    kernel.ioSetCompletionRoutineEx(
      device,
      irp,
      kernel.routine((_self: DeviceObject | null, _irp: Irp, given: number) => {
        context = given
        expect(device.type).toBe(3)
        return NtStatus.MORE_PROCESSING_REQUIRED
      }),
      17,
    )
    kernel.ioCallDriver(lower, irp)
    kernel.ioDeleteDevice(device)
    expect(device.type).toBe(3)
    finish(kernel, held as unknown as Irp, NtStatus.SUCCESS)
    expect(context).toBe(17)
    expect(device.type).not.toBe(3)
    kernel.ioFreeIrp(irp)
    kernel.parts.devices.deleteDriver(driver)
    rig.end()
  })

  it('to a routine that waits, from DISPATCH level, runs if it need not wait', () => {
    for (const waits of [false, true]) {
      const rig = new Rig()
      const { kernel } = rig
      const event = kernel.keInitializeEvent(rig.room(KEVENT.$size), true, true)
      const device = rig.layer({
        dispatch: {
          [Major.READ]: function* (_self: DeviceObject, irp: Irp) {
            if (waits) yield* kernel.keWaitForSingleObject(event)
            return finish(kernel, irp, NtStatus.SUCCESS)
          } as never,
        },
      })
      const send = (): unknown => {
        const irp = kernel.ioAllocateIrp(1) as Irp
        irp.next.major = Major.READ
        kernel.ioSetCompletionRoutine(
          irp,
          kernel.routine((_self: DeviceObject | null, one: Irp) => {
            kernel.ioFreeIrp(one)
            return NtStatus.MORE_PROCESSING_REQUIRED
          }),
        )
        kernel.keRaiseIrql(2)
        const answer = kernel.ioCallDriver(device, irp)
        kernel.keLowerIrql(0)
        return answer
      }
      if (waits) {
        expect(
          rig.machine.crash(function* () {
            send()
            yield
          })[0],
        ).toBe(0x0a)
      } else {
        expect(send()).toBe(NtStatus.SUCCESS)
        rig.end()
      }
    }
  })
})
