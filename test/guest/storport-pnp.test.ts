import { describe, expect, it } from 'vitest'
import { diskDriver } from '../../guest/class/disk/disk-driver.ts'
import type { DeviceObject } from '../../guest/kernel/device-object.ts'
import type { DriverObject } from '../../guest/kernel/driver-object.ts'
import { DeviceFlag, Major } from '../../guest/kernel/io-layout.ts'
import type { Irp } from '../../guest/kernel/irp.ts'
import type { Kernel } from '../../guest/kernel/kernel.ts'
import { KEVENT } from '../../guest/kernel/layout.ts'
import { NtStatus, ntStatusName } from '../../guest/kernel/nt-status.ts'
import { readRelations } from '../../guest/kernel/pnp/device-relations.ts'
import { BusQueryId, DeviceRelation, PnpMinor } from '../../guest/kernel/pnp/pnp-minor.ts'
import { readText, readTextList } from '../../guest/kernel/pnp/pool-text.ts'
import { allocateResourceList, type Resource } from '../../guest/kernel/pnp/resource-list.ts'
import { PoolType, poolTag } from '../../guest/kernel/pool.ts'
import type { Waiting } from '../../guest/kernel/thread.ts'
import { storPortDriver } from '../../guest/port/storport/storport-driver.ts'
import { blkMiniport } from '../../guest/virtio/blk-miniport.ts'
import type { DiskBackend } from '../../host/disk/backend.ts'
import { opened } from '../host/disk-subjects.ts'
import { HeldDisk } from '../host/held-disk.ts'
import { blkOn } from './blk-on-machine.ts'
import { Machine } from './machine.ts'
import { LINE, REGISTERS } from './storport-rig.ts'

const TAG = poolTag('Test')

interface Answer {
  readonly status: string
  readonly information: number
}

/** A machine with a block device, a bus that agrees to everything, and Plug and Play requests sent by hand. */
class ByHand {
  readonly machine: Machine
  readonly kernel: Kernel
  pdo: DeviceObject | null = null
  readonly below: number[] = []
  readonly #known = new Set<DeviceObject>()

  constructor(backend: DiskBackend, seed?: number) {
    this.machine = new Machine(seed === undefined ? {} : { seed })
    this.kernel = this.machine.kernel
    blkOn(this.machine, backend)
  }

  *load(): Waiting<void> {
    const { kernel } = this
    yield* kernel.ioLoadDriver('bus', (driver: DriverObject) => {
      const device = kernel.ioCreateDevice(driver)
      if (typeof device === 'number') return device
      this.pdo = device
      driver.setMajorFunction(
        Major.PNP,
        kernel.routine((_device: DeviceObject, irp: Irp) => {
          this.below.push(irp.current.minor)
          if (irp.current.minor !== PnpMinor.QUERY_DEVICE_RELATIONS) irp.status = NtStatus.SUCCESS
          const { status } = irp
          kernel.ioCompleteRequest(irp)
          return status
        }),
      )
      return NtStatus.SUCCESS
    })
    const port = yield* kernel.ioLoadDriver('pvblk', storPortDriver(kernel, blkMiniport('1.3')))
    if (typeof port === 'number' || this.pdo === null) throw new Error('not loaded')
    expect(kernel.call(port.addDevice)(port, this.pdo)).toBe(NtStatus.SUCCESS)
  }

  /** Sends one to the top of the device's stack and waits for it. */
  *send(device: DeviceObject, minor: number, argument1 = 0, argument2 = 0): Waiting<Answer> {
    const { kernel } = this
    const top = kernel.ioGetAttachedDevice(device)
    const irp = kernel.ioAllocateIrp(top.stackSize)
    const room = kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, KEVENT.$size, TAG)
    if (irp === null || room === 0) throw new Error('no memory')
    const event = kernel.keInitializeEvent(room, true, false)
    irp.status = NtStatus.NOT_SUPPORTED
    irp.next.major = Major.PNP
    irp.next.minor = minor as never
    irp.next.argument1 = argument1
    irp.next.argument2 = argument2
    const ended = kernel.routine(() => {
      kernel.keSetEvent(event)
      return NtStatus.MORE_PROCESSING_REQUIRED
    })
    kernel.ioSetCompletionRoutine(irp, ended)
    yield* kernel.ioCallDriverSettled(top, irp)
    yield* kernel.keWaitForSingleObject(event)
    const answer = { status: ntStatusName(irp.status), information: irp.information }
    kernel.ioFreeIrp(irp)
    kernel.exFreePool(room)
    return answer
  }

  /** The nodes are gone. */
  forget(): void {
    for (const device of this.#known) this.kernel.parts.devices.dereference(device)
    this.#known.clear()
  }

  *start(resources?: readonly Resource[]): Waiting<string> {
    const { kernel } = this
    if (this.pdo === null) throw new Error('not loaded')
    const list = allocateResourceList(
      kernel.parts,
      resources ?? [
        { kind: 'memory', start: REGISTERS, lengthBytes: 0x200 },
        { kind: 'interrupt', level: LINE, vector: LINE, trigger: 'level', shared: false },
      ],
    )
    const { status } = yield* this.send(this.pdo, PnpMinor.START_DEVICE, list, list)
    kernel.exFreePool(list)
    return status
  }

  *children(): Waiting<DeviceObject[]> {
    const { kernel } = this
    if (this.pdo === null) throw new Error('not loaded')
    const answer = yield* this.send(this.pdo, PnpMinor.QUERY_DEVICE_RELATIONS, DeviceRelation.BUS)
    expect(answer.status).toBe('SUCCESS')
    const addresses = readRelations(kernel.parts, answer.information) ?? []
    kernel.exFreePool(answer.information)
    const devices = addresses.map((at) => kernel.parts.devices.deviceAt(at))
    // One reference a device is kept, as the PnP manager does for as long as there is a node for it.
    for (const device of devices) {
      if (this.#known.has(device)) kernel.parts.devices.dereference(device)
      this.#known.add(device)
    }
    return devices
  }
}

const memory = () => opened('memory:size=1M')

describe('a port driver under Plug and Play', () => {
  it('starts from the resources it is given, reports its unit with its names, and goes without a trace', async () => {
    for (const seed of [undefined, 1, 2, 3, 4]) {
      const hand = new ByHand(await memory(), seed)
      const { machine, kernel } = hand
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
    const hand = new ByHand(await memory())
    hand.machine.run(function* () {
      yield* hand.load()
      const pools = hand.kernel.parts.pool.count
      expect(yield* hand.start(resources as readonly Resource[])).toBe(status)
      expect(hand.kernel.parts.interrupts.connectedCount).toBe(0)
      hand.kernel.parts.irps.trim()
      expect(hand.kernel.parts.pool.count - pools).toBeLessThanOrEqual(1)
    })
  })

  it('stops and starts again, and what came meanwhile is served then', async () => {
    const hand = new ByHand(await memory())
    const { machine } = hand
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
      const hand = new ByHand(backend)
      const { machine, kernel } = hand
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
  const hand = new ByHand(await memory())
  hand.machine.run(function* () {
    yield* hand.load()
    yield* hand.start()
    const [unit] = yield* hand.children()
    expect(unit?.flags ?? 0).toBe(DeviceFlag.DIRECT_IO | DeviceFlag.BUS_ENUMERATED_DEVICE)
  })
})
