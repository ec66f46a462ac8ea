import { describe, expect, it } from 'vitest'
import { DeviceFlag, IrpFlag, Major } from '../../guest/kernel/io-layout.ts'
import type { Irp } from '../../guest/kernel/irp.ts'
import { KEVENT } from '../../guest/kernel/layout.ts'
import { LockOperation } from '../../guest/kernel/mdl.ts'
import { NtStatus } from '../../guest/kernel/nt-status.ts'
import { PoolType } from '../../guest/kernel/pool.ts'
import { settled } from '../../guest/kernel/thread.ts'
import { finish, Rig, STATUS_CLASSES, TAG, UNTOUCHED } from './kernel-rig.ts'

describe('a request of IoBuild…Fsd', () => {
  it('tells its maker by IOSB and event, unless it fails without PENDING', () => {
    for (const status of Object.values(STATUS_CLASSES)) {
      for (const pended of [false, true]) {
        const rig = new Rig()
        const { kernel } = rig
        const device = rig.layer({
          flags: DeviceFlag.DIRECT_IO,
          dispatch: {
            [Major.WRITE]: (_self, irp) => {
              expect(irp.current).toMatchObject({ lengthBytes: 100, byteOffset: 7 })
              expect(kernel.mdlAt(irp.mdlAddress).byteCount).toBe(100)
              if (pended) kernel.ioMarkIrpPending(irp)
              finish(kernel, irp, status, 3)
              return pended ? NtStatus.PENDING : status
            },
          },
        })
        const iosb = rig.iosb()
        const buffer = rig.room(100)
        rig.machine.run(function* () {
          const event = kernel.keInitializeEvent(rig.room(KEVENT.$size), true, false)
          const irp = kernel.ioBuildSynchronousFsdRequest(
            { major: Major.WRITE, device, buffer, lengthBytes: 100, byteOffset: 7, iosb },
            event,
          ) as Irp
          expect(irp.isThreaded).toBe(true)
          const answer = yield* settled(kernel.ioCallDriver(device, irp))
          expect(answer).toBe(pended ? NtStatus.PENDING : status)
          const told = status < 0xc0000000 || pended
          expect(event.signalState).toBe(told ? 1 : 0)
          expect(rig.answer(iosb)).toEqual(
            told ? { status, information: 3 } : { status: UNTOUCHED, information: UNTOUCHED },
          )
        })
        rig.end()
      }
    }
  })

  it('of a flush, shutdown, PnP or power request carries no buffer', () => {
    const rig = new Rig()
    const { kernel } = rig
    const device = rig.layer({ flags: DeviceFlag.BUFFERED_IO })
    for (const major of [Major.FLUSH_BUFFERS, Major.SHUTDOWN, Major.PNP, Major.POWER]) {
      const irp = kernel.ioBuildAsynchronousFsdRequest({
        major,
        device,
        buffer: 0x20000,
        lengthBytes: 9,
      }) as Irp
      expect([irp.systemBuffer, irp.mdlAddress, irp.flags, irp.next.lengthBytes]).toEqual([0, 0, 0, 0])
      expect(irp.isThreaded).toBe(false)
      kernel.ioFreeIrp(irp)
    }
    rig.end()
  })

  it('is not made for a buffer that is not there, and nothing stays behind', () => {
    const rig = new Rig()
    const { kernel } = rig
    for (const flags of [DeviceFlag.BUFFERED_IO, DeviceFlag.DIRECT_IO]) {
      const device = rig.layer({ flags })
      expect(
        kernel.ioBuildAsynchronousFsdRequest({ major: Major.WRITE, device, buffer: 2 ** 42, lengthBytes: 9 }),
      ).toBeNull()
      kernel.parts.pool.refuse = () => true
      expect(
        kernel.ioBuildAsynchronousFsdRequest({ major: Major.READ, device, buffer: 0x20000, lengthBytes: 9 }),
      ).toBeNull()
      kernel.parts.pool.refuse = null
    }
    rig.end()
  })
})

describe('associated requests', () => {
  it('complete their master when the last of them is done, in any order', () => {
    for (const order of [
      [0, 1, 2],
      [2, 0, 1],
      [1, 2, 0],
    ]) {
      const rig = new Rig()
      const { kernel } = rig
      const held: Irp[] = []
      const lower = rig.layer({
        dispatch: {
          [Major.READ]: (_self, irp) => {
            kernel.ioMarkIrpPending(irp)
            held.push(irp)
            return NtStatus.PENDING
          },
        },
      })
      const upper = rig.layer({
        dispatch: {
          [Major.READ]: (_self, irp) => {
            kernel.ioMarkIrpPending(irp)
            irp.status = NtStatus.SUCCESS
            irp.information = 30
            irp.irpCount = 3
            for (let part = 0; part < 3; part++) {
              const associated = kernel.ioMakeAssociatedIrp(irp, 1) as Irp
              expect(associated.flags & IrpFlag.ASSOCIATED_IRP).not.toBe(0)
              associated.next.major = Major.READ
              kernel.ioAllocateMdl(0x20000, 8, associated)
              kernel.ioCallDriver(lower, associated)
            }
            return NtStatus.PENDING
          },
        },
      })
      const iosb = rig.iosb()
      rig.machine.run(function* () {
        const event = kernel.keInitializeEvent(rig.room(KEVENT.$size), true, false)
        const irp = kernel.ioBuildSynchronousFsdRequest(
          { major: Major.READ, device: upper, iosb },
          event,
        ) as Irp
        expect(yield* settled(kernel.ioCallDriver(upper, irp))).toBe(NtStatus.PENDING)
        for (const part of order) {
          expect(event.signalState).toBe(0)
          finish(kernel, held[part] as Irp, NtStatus.SUCCESS)
        }
        expect(event.signalState).toBe(1)
      })
      expect(rig.answer(iosb)).toEqual({ status: NtStatus.SUCCESS, information: 30 })
      rig.end()
    }
  })
})

describe('paging I/O', () => {
  it('is told by IOSB and event from any thread, and freed, with no APC', () => {
    const rig = new Rig()
    const { kernel } = rig
    const device = rig.layer({
      dispatch: { [Major.READ]: (_self, irp) => finish(kernel, irp, NtStatus.IO_DEVICE_ERROR, 1) },
    })
    const iosb = rig.iosb()
    const event = kernel.keInitializeEvent(rig.room(KEVENT.$size), true, false)
    const irp = kernel.ioAllocateIrp(1) as Irp
    irp.flags = IrpFlag.PAGING_IO | IrpFlag.SYNCHRONOUS_PAGING_IO | IrpFlag.NOCACHE
    irp.userIosb = iosb
    irp.userEvent = event.at
    irp.next.major = Major.READ
    const before = kernel.keRaiseIrql(1)
    kernel.ioCallDriver(device, irp)
    expect(event.signalState).toBe(1)
    expect(rig.answer(iosb)).toEqual({ status: NtStatus.IO_DEVICE_ERROR, information: 1 })
    kernel.keLowerIrql(before)
    rig.end()
  })
})

describe('a locked buffer', () => {
  it('is unlocked and freed with the request that carries it', () => {
    const rig = new Rig()
    const { kernel } = rig
    const device = rig.layer({
      dispatch: { [Major.READ]: (_self, irp) => finish(kernel, irp, NtStatus.SUCCESS) },
    })
    rig.machine.run(function* () {
      const at = kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, 10_000, TAG)
      const event = kernel.keInitializeEvent(rig.room(KEVENT.$size), true, false)
      const irp = kernel.ioBuildSynchronousFsdRequest({ major: Major.READ, device }, event) as Irp
      for (let part = 0; part < 3; part++) {
        const mdl = kernel.ioAllocateMdl(at + part * 100, 5000, irp, true)
        if (mdl !== null) kernel.mmProbeAndLockPages(mdl, LockOperation.WRITE)
      }
      yield* settled(kernel.ioCallDriver(device, irp))
      expect(kernel.parts.frames.lockedCount).toBe(0)
      kernel.exFreePool(at)
    })
    rig.end()
  })
})
