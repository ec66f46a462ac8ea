import { describe, expect, it } from 'vitest'
import { diskDriver } from '../../guest/class/disk/disk-driver.ts'
import { DeviceFlag, Major } from '../../guest/kernel/io-layout.ts'
import type { Kernel } from '../../guest/kernel/kernel.ts'
import { NtStatus, ntStatusName } from '../../guest/kernel/nt-status.ts'
import { BusQueryId, PnpMinor } from '../../guest/kernel/pnp/pnp-minor.ts'
import { readText, readTextList } from '../../guest/kernel/pnp/pool-text.ts'
import type { Resource } from '../../guest/kernel/pnp/resource-list.ts'
import type { DiskBackend } from '../../host/disk/backend.ts'
import { opened } from '../host/disk-subjects.ts'
import { HeldDisk } from '../host/held-disk.ts'
import { blkOn } from './blk-on-machine.ts'
import { ByHand } from './by-hand.ts'
import { Machine } from './machine.ts'
import { LINE, REGISTERS } from './storport-rig.ts'

/** The same on a machine with a block device. */
function onMachine(backend: DiskBackend, seed?: number): { hand: ByHand; machine: Machine; kernel: Kernel } {
  const machine = new Machine(seed === undefined ? {} : { seed })
  blkOn(machine, backend)
  return { hand: new ByHand(machine.kernel), machine, kernel: machine.kernel }
}

const memory = () => opened('memory:size=1M')

describe('a port driver under Plug and Play', () => {
  it('starts from the resources it is given, reports its unit with its names, and goes without a trace', async () => {
    for (const seed of [undefined, 1, 2, 3, 4]) {
      const { hand, machine, kernel } = onMachine(await memory(), seed)
      const pools = kernel.parts.pool.count
      const devices = kernel.parts.devices.deviceCount
      machine.run(function* () {
        yield* hand.load()
        expect(yield* hand.start()).toBe('SUCCESS')
        const [unit, ...others] = yield* hand.children()
        if (unit === undefined) throw new Error('no unit')
        expect(others).toEqual([])
        expect((yield* hand.children())[0]).toBe(unit)
        const device = yield* hand.send(unit, PnpMinor.QUERY_ID, BusQueryId.DEVICE_ID)
        expect(readText(kernel.parts, device.information)).toBe('SCSI\\Disk&Ven_Paravane&Prod_VirtIO_Disk')
        const hardware = yield* hand.send(unit, PnpMinor.QUERY_ID, BusQueryId.HARDWARE_IDS)
        expect(readTextList(kernel.parts, hardware.information)).toEqual([
          'SCSI\\DiskParavaneVirtIO_Disk_____1___',
          'SCSI\\DiskParavaneVirtIO_Disk_____',
          'SCSI\\DiskParavane',
          'SCSI\\ParavaneVirtIO_Disk_____1',
          'ParavaneVirtIO_Disk_____1',
          'GenDisk',
        ])
        for (const { information } of [device, hardware]) kernel.exFreePool(information)
        const unknown = yield* hand.send(unit, PnpMinor.QUERY_INTERFACE)
        expect(unknown.status).toBe('NOT_SUPPORTED')
        for (const minor of [PnpMinor.START_DEVICE, PnpMinor.QUERY_REMOVE_DEVICE, PnpMinor.REMOVE_DEVICE]) {
          expect((yield* hand.send(unit, minor)).status).toBe('SUCCESS')
        }
        if (hand.pdo === null) throw new Error('no device')
        expect((yield* hand.send(hand.pdo, PnpMinor.REMOVE_DEVICE)).status).toBe('SUCCESS')
      })
      hand.forget()
      expect(hand.below).toEqual([0, 7, 7, 2])
      kernel.parts.irps.trim()
      expect(kernel.parts.interrupts.connectedCount).toBe(0)
      // The two drivers and the bus' device are left.
      expect(kernel.parts.devices.deviceCount - devices).toBe(1)
      expect(kernel.parts.pool.count - pools).toBeLessThanOrEqual(4)
    }
  })

  it.each([
    [
      'no interrupt',
      [{ kind: 'memory', start: REGISTERS, lengthBytes: 0x200 }],
      'DEVICE_CONFIGURATION_ERROR',
    ],
    [
      'no memory',
      [{ kind: 'interrupt', level: LINE, vector: LINE, trigger: 'level', shared: false }],
      'DEVICE_CONFIGURATION_ERROR',
    ],
    ['nothing', [], 'DEVICE_CONFIGURATION_ERROR'],
  ] as const)('does not start with %s, and leaves nothing behind', async (_name, resources, status) => {
    const { hand, machine } = onMachine(await memory())
    machine.run(function* () {
      yield* hand.load()
      const pools = hand.kernel.parts.pool.count
      expect(yield* hand.start(resources as readonly Resource[])).toBe(status)
      expect(hand.kernel.parts.interrupts.connectedCount).toBe(0)
      hand.kernel.parts.irps.trim()
      expect(hand.kernel.parts.pool.count - pools).toBeLessThanOrEqual(1)
    })
  })

  it('stops and starts again, and what came meanwhile is served then', async () => {
    const { hand, machine } = onMachine(await memory())
    machine.run(function* () {
      yield* hand.load()
      expect(yield* hand.start()).toBe('SUCCESS')
      const [unit] = yield* hand.children()
      if (hand.pdo === null) throw new Error('no device')
      for (let round = 0; round < 3; round++) {
        expect((yield* hand.send(hand.pdo, PnpMinor.STOP_DEVICE)).status).toBe('SUCCESS')
        expect(hand.kernel.parts.interrupts.connectedCount).toBe(0)
        expect(yield* hand.start()).toBe('SUCCESS')
        expect((yield* hand.children())[0]).toBe(unit)
      }
    })
  })

  it('takes a device away under load: every request ends once, and nothing stays', () => {
    for (const obedient of [true, false]) {
      const backend = new HeldDisk()
      backend.obedient = obedient
      const { hand, machine, kernel } = onMachine(backend)
      const ends: string[] = []
      machine.run(function* () {
        yield* hand.load()
        expect(yield* hand.start()).toBe('SUCCESS')
        const [unit] = yield* hand.children()
        const disk = yield* kernel.ioLoadDriver('disk', diskDriver(kernel))
        if (typeof disk === 'number' || unit === undefined || hand.pdo === null) throw new Error('no disk')
        const add = kernel.call(disk.addDevice)(disk, unit)
        expect(typeof add === 'number' ? add : yield* add).toBe(NtStatus.SUCCESS)
        const starting = hand.send(unit, PnpMinor.START_DEVICE)
        // The disk reads its partition table while it starts, and the held disk has to answer.
        kernel.psCreateSystemThread(function* () {
          for (let i = 0; i < 40; i++) {
            yield* kernel.keDelayExecutionThread(1000)
            backend.end()
          }
        })
        expect((yield* starting).status).toBe('SUCCESS')
        yield* kernel.keDelayExecutionThread(100_000)
        const top = kernel.ioGetAttachedDevice(unit)
        for (let i = 0; i < 5; i++) {
          kernel.psCreateSystemThread(function* () {
            const buffer = kernel.parts.space.allocateUser(512)
            const irp = kernel.ioAllocateIrp(top.stackSize)
            const mdl = irp === null ? null : kernel.ioAllocateMdl(buffer, 512, irp)
            if (irp === null || mdl === null) throw new Error('no memory')
            kernel.mmProbeAndLockPages(mdl, 1)
            irp.next.major = Major.READ
            irp.next.lengthBytes = 512
            const ended = kernel.routine(() => {
              ends.push(ntStatusName(irp.status))
              kernel.mmUnlockPages(mdl)
              kernel.ioFreeMdl(mdl)
              irp.mdlAddress = 0
              kernel.ioFreeIrp(irp)
              return NtStatus.MORE_PROCESSING_REQUIRED
            })
            kernel.ioSetCompletionRoutine(irp, ended)
            yield* kernel.ioCallDriverSettled(top, irp)
          })
        }
        yield* kernel.keDelayExecutionThread(1000)
        expect(ends).toEqual([])
        expect((yield* hand.send(unit, PnpMinor.SURPRISE_REMOVAL)).status).toBe('SUCCESS')
        expect((yield* hand.send(hand.pdo, PnpMinor.SURPRISE_REMOVAL)).status).toBe('SUCCESS')
        expect((yield* hand.send(unit, PnpMinor.REMOVE_DEVICE)).status).toBe('SUCCESS')
        expect((yield* hand.send(hand.pdo, PnpMinor.REMOVE_DEVICE)).status).toBe('SUCCESS')
      })
      machine.drain()
      hand.forget()
      expect(kernel.bugCheck).toBe(null)
      expect(ends.length).toBe(5)
      expect(new Set(ends).size).toBe(1)
      expect(ends[0]).not.toBe('SUCCESS')
      expect(kernel.parts.frames.retainedCount > 0).toBe(!obedient)
      expect(kernel.parts.frames.lockedCount).toBe(0)
      expect(kernel.parts.devices.deviceCount).toBe(1)
    }
  })
})

it('a port device is what its flags say', async () => {
  const { hand, machine } = onMachine(await memory())
  machine.run(function* () {
    yield* hand.load()
    yield* hand.start()
    const [unit] = yield* hand.children()
    expect(unit?.flags ?? 0).toBe(
      DeviceFlag.DIRECT_IO | DeviceFlag.BUS_ENUMERATED_DEVICE | DeviceFlag.DEVICE_HAS_NAME,
    )
  })
})
