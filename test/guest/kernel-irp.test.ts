import { describe, expect, it } from 'vitest'
import type { DeviceObject } from '../../guest/kernel/device-object.ts'
import type { DriverObject } from '../../guest/kernel/driver-object.ts'
import { DeviceFlag, Major } from '../../guest/kernel/io-layout.ts'
import type { Irp } from '../../guest/kernel/irp.ts'
import { IO_STATUS_BLOCK } from '../../guest/kernel/layout.ts'
import { NtStatus } from '../../guest/kernel/nt-status.ts'
import { PoolType, poolTag } from '../../guest/kernel/pool.ts'
import { settled } from '../../guest/kernel/thread.ts'
import { Machine } from './machine.ts'

const TAG = poolTag('Test')

describe('a request', () => {
  it('goes down a stack, is finished by a DPC, and wakes the thread that asked', () => {
    for (const seed of [undefined, 1, 2, 3]) {
      const machine = new Machine(seed === undefined ? {} : { seed })
      const { kernel } = machine
      const before = kernel.parts.pool.count
      machine.run(function* () {
        const room = kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, 256, TAG)
        const timer = kernel.keInitializeTimer(room)
        let held: Irp | null = null
        const dpc = kernel.keInitializeDpc(
          room + 64,
          kernel.routine(() => {
            if (held === null) throw new Error('nothing held')
            held.status = NtStatus.SUCCESS
            held.information = 512
            kernel.ioCompleteRequest(held)
          }),
        )
        const devices: DeviceObject[] = []
        const loaded = yield* kernel.ioLoadDriver('bottom', (driver: DriverObject) => {
          const device = kernel.ioCreateDevice(driver, { name: '\\Device\\Bottom' })
          if (typeof device === 'number') return device
          device.flags |= DeviceFlag.DIRECT_IO
          devices.push(device)
          driver.setMajorFunction(
            Major.READ,
            kernel.routine((_device: DeviceObject, irp: Irp) => {
              expect(irp.current.lengthBytes).toBe(512)
              expect(irp.mdlAddress).not.toBe(0)
              kernel.ioMarkIrpPending(irp)
              held = irp
              kernel.keSetTimer(timer, 100, 0, dpc)
              return NtStatus.PENDING
            }),
          )
          return NtStatus.SUCCESS
        })
        expect(typeof loaded).toBe('object')
        const upper = yield* kernel.ioLoadDriver('upper', (driver: DriverObject) => {
          const device = kernel.ioCreateDevice(driver)
          if (typeof device === 'number') return device
          device.flags |= DeviceFlag.DIRECT_IO
          device.extension = kernel.ioAttachDeviceToDeviceStack(device, devices[0] as DeviceObject)
          devices.push(device)
          driver.setMajorFunction(
            Major.READ,
            kernel.routine((self: DeviceObject, irp: Irp) => {
              kernel.ioSkipCurrentIrpStackLocation(irp)
              return kernel.ioCallDriver(self.extension as DeviceObject, irp)
            }),
          )
          return NtStatus.SUCCESS
        })
        expect(typeof upper).toBe('object')
        const top = devices[1] as DeviceObject
        expect(top.stackSize).toBe(2)
        const event = kernel.keInitializeEvent(room + 128, true, false)
        const buffer = kernel.parts.space.allocateUser(512, { offsetBytes: 4000 })
        const iosb = room + 160
        const irp = kernel.ioBuildSynchronousFsdRequest(
          { major: Major.READ, device: top, buffer, lengthBytes: 512, byteOffset: 1024, iosb },
          event,
        )
        if (irp === null) throw new Error('no irp')
        const status = yield* settled(kernel.ioCallDriver(top, irp))
        expect(status).toBe(NtStatus.PENDING)
        yield* kernel.keWaitForSingleObject(event)
        const { window } = kernel.parts.memory
        expect(window.le32(IO_STATUS_BLOCK.status, iosb)).toBe(NtStatus.SUCCESS)
        expect(window.le64(IO_STATUS_BLOCK.information, iosb)).toBe(512)
        expect(kernel.keQueryTimeUs()).toBe(100)
        kernel.parts.space.freeUser(buffer)
        kernel.ioDetachDevice(devices[0] as DeviceObject)
        kernel.ioDeleteDevice(top)
        kernel.ioDeleteDevice(devices[0] as DeviceObject)
        kernel.parts.devices.deleteDriver(loaded as DriverObject)
        kernel.parts.devices.deleteDriver(upper as DriverObject)
        kernel.exFreePool(room)
      })
      kernel.parts.irps.trim()
      expect(kernel.parts.pool.count).toBe(before)
      expect(kernel.parts.frames.lockedCount).toBe(0)
    }
  })
})
