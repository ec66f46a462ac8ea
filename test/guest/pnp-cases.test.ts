import { describe, expect, it } from 'vitest'
import type { DeviceObject } from '../../guest/kernel/device-object.ts'
import type { Irp } from '../../guest/kernel/irp.ts'
import { Irql } from '../../guest/kernel/irql.ts'
import type { Kernel } from '../../guest/kernel/kernel.ts'
import { NtStatus } from '../../guest/kernel/nt-status.ts'
import { readRelations } from '../../guest/kernel/pnp/device-relations.ts'
import { CapabilityFlag } from '../../guest/kernel/pnp/pnp-layout.ts'
import { BusQueryId, DeviceRelation, DeviceUsage, PnpMinor } from '../../guest/kernel/pnp/pnp-minor.ts'
import { PnpRequests } from '../../guest/kernel/pnp/pnp-request.ts'
import type { Waiting } from '../../guest/kernel/thread.ts'
import { WINDOWS_VERSIONS } from '../../guest/kernel/version.ts'
import { booted } from './pnp-layers.ts'
import { PnpRig } from './pnp-rig.ts'
import { complete, type LayerSpec } from './scripted-drivers.ts'

describe('a new device', () => {
  it('gets its stack from the PDO upwards, and START goes through all of it', () => {
    const rig = booted([{ id: 'a', lower: [{}], upper: [{}], className: 'filtered' }])
    const all = rig.sequence()
    expect(all.filter((one) => one.startsWith('a '))).toEqual([
      'a pdo DEVICE_ENUMERATED',
      'a lower0 AddDevice',
      'a classLow AddDevice',
      'a function AddDevice',
      'a upper0 AddDevice',
      'a classUp AddDevice',
      'a classUp START_DEVICE',
      'a upper0 START_DEVICE',
      'a function START_DEVICE',
      'a classLow START_DEVICE',
      'a lower0 START_DEVICE',
      'a pdo START_DEVICE',
    ])
    expect(rig.kernel.pnp.tree()?.children[0]?.children[0]?.stack).toEqual([
      'a.lower0',
      'classLow',
      'a.function',
      'a.upper0',
      'classUp',
    ])
    rig.end()
  })

  it('is asked for a container and told of itself from Windows 7 on', () => {
    for (const [version, times] of [
      [WINDOWS_VERSIONS.xp, 0],
      [WINDOWS_VERSIONS.vista, 0],
      [WINDOWS_VERSIONS[7], 1],
    ] as const) {
      const rig = booted([{ id: 'a' }], version as (typeof WINDOWS_VERSIONS)[7])
      const sent = rig.events.filter((event) => event.kind === 'sent' && event.key.startsWith('a#'))
      expect(sent.filter((event) => event.minor === PnpMinor.DEVICE_ENUMERATED)).toHaveLength(times)
      const containers = sent.filter(
        (event) => event.minor === PnpMinor.QUERY_ID && event.argument1 === BusQueryId.CONTAINER_ID,
      )
      expect(containers).toHaveLength(times)
      rig.end()
    }
  })

  it('starts while others do, from Vista on; before, after them', () => {
    for (const [version, overlaps] of [
      [WINDOWS_VERSIONS.xp, false],
      [WINDOWS_VERSIONS.vista, true],
    ] as const) {
      const rig = booted(
        [
          { id: 'a', start: 'pend' },
          { id: 'b', start: 'pend' },
        ],
        version as never,
      )
      rig.machine.drain()
      const order = rig.events
        .filter(
          (event) =>
            event.minor === PnpMinor.START_DEVICE && (event.layer === 'top' || event.layer === 'function'),
        )
        .filter((event) => event.kind !== 'acted' && /^[ab]#/.test(event.key))
        .map((event) => `${event.key[0]} ${event.kind}`)
      expect(order).toEqual(
        overlaps
          ? ['a sent', 'b sent', 'a completed', 'b completed']
          : ['a sent', 'a completed', 'b sent', 'b completed'],
      )
      expect(rig.shown()).toEqual(['r working', '  a working', '  b working'])
      rig.end()
    }
  })

  it('gets the problem that kept it from working', () => {
    const rig = new PnpRig({
      id: 'r',
      children: [
        { id: 'a' },
        { id: 'b' },
        { id: 'c' },
        { id: 'd' },
        {
          id: 'e',
          description: { capabilities: { flags: CapabilityFlag.UNIQUE_ID | CapabilityFlag.RAW_DEVICE_OK } },
        },
        {
          id: 'f',
          description: {
            capabilities: { flags: CapabilityFlag.UNIQUE_ID | CapabilityFlag.HARDWARE_DISABLED },
          },
        },
        { id: 'g', upper: [{}] },
      ],
    })
    rig.boot(({ services, drivers, ...rest }) => ({
      ...rest,
      services: services
        .filter((one) => one.name !== 'a.function')
        .map((one) => (one.name === 'b.function' ? { ...one, disabled: true } : one))
        .map((one) =>
          one.name === 'c.function' || one.name === 'g.upper0'
            ? { ...one, entry: () => NtStatus.UNSUCCESSFUL }
            : one,
        ),
      drivers: drivers.filter((one) => !['TEST\\d', 'TEST\\e'].includes(one.hardwareIds[0] ?? '')),
    }))
    expect(rig.shown()).toEqual([
      'r working',
      '  a problem 40',
      '  b problem 32',
      '  c problem 37',
      '  d problem 28',
      '  e working',
      '  f problem 29',
      '  g problem 37',
    ])
    expect(rig.sequence().filter((one) => one.startsWith('g '))).toEqual([
      'g pdo DEVICE_ENUMERATED',
      'g function AddDevice',
      'g function REMOVE_DEVICE',
      'g pdo REMOVE_DEVICE',
    ])
    rig.end()
  })

  it('cannot be opened before it has started', () => {
    const seen: number[] = []
    const eager: LayerSpec = {
      handle: (kernel, device, irp, lower) =>
        irp.current.minor === PnpMinor.START_DEVICE ? openFirst(kernel, device.at, irp, lower) : null,
    }
    function* openFirst(kernel: Kernel, top: number, irp: Irp, lower: DeviceObject): Waiting {
      const { name } = lower
      if (name === null) throw new Error('no name')
      const opened = yield* kernel.nt.createFile(name)
      seen.push(opened.status, kernel.parts.devices.deviceAt(top).refusesOpens ? 1 : 0)
      kernel.ioSkipCurrentIrpStackLocation(irp)
      return yield* kernel.ioCallDriverSettled(lower, irp)
    }
    const rig = booted([{ id: 'a', upper: [eager] }])
    expect(seen).toEqual([NtStatus.NO_SUCH_DEVICE, 1])
    expect(rig.openDevice('a')).toBe(NtStatus.SUCCESS)
    rig.end()
  })

  it('is shown with what its bus says of it', () => {
    const bus = { guid: Uint8Array.from({ length: 16 }, (_, at) => at), legacyBusType: 5, busNumber: 3 }
    const rig = booted([
      { id: 'a', description: { description: 'A device', location: 'Slot 1', bus } },
      { id: 'b' },
    ])
    const [a, b] = rig.kernel.pnp.tree()?.children[0]?.children ?? []
    expect(a).toMatchObject({ name: 'A device', location: 'Slot 1', busType: 5, instancePath: 'TEST\\a\\0' })
    expect(b).toMatchObject({ name: 'TEST\\b', location: null, busType: null, driver: 'b.function' })
    rig.end()
  })
})

describe('a bus', () => {
  it('may speak of its children at DISPATCH level', () => {
    const rig = booted([{ id: 'a' }])
    const bus = rig.drivers.buses.get('r')
    rig.drivers.plugged.delete('a')
    rig.machine.run(function* () {
      const before = rig.kernel.keRaiseIrql(Irql.DISPATCH)
      if (bus !== undefined) rig.kernel.pnp.ioInvalidateDeviceRelations(bus.pdo)
      rig.kernel.keLowerIrql(before)
      yield* rig.kernel.pnp.settle()
    })
    expect(rig.shown()).toEqual(['r working'])
    rig.end()
  })

  it('keeps the children it had when its query fails, and loses them when its list is empty', () => {
    let answer: 'list' | 'fail' | 'empty' = 'list'
    const moody: LayerSpec = {
      handle: (kernel, _device, irp, lower) => {
        const { minor, argument1 } = irp.current
        if (
          minor !== PnpMinor.QUERY_DEVICE_RELATIONS ||
          argument1 !== DeviceRelation.BUS ||
          answer === 'list'
        )
          return null
        if (answer === 'fail') return complete(kernel, irp, NtStatus.UNSUCCESSFUL)
        irp.status = NtStatus.SUCCESS
        kernel.ioSkipCurrentIrpStackLocation(irp)
        return kernel.ioCallDriver(lower, irp)
      },
    }
    const rig = booted([{ id: 'bus', ...moody, children: [{ id: 'a' }] }])
    answer = 'fail'
    rig.machine.run(() => rig.kernel.pnp.rescan())
    expect(rig.shown()).toContain('    a working')
    answer = 'empty'
    rig.machine.run(() => rig.kernel.pnp.rescan())
    expect(rig.shown()).toEqual(['r working', '  bus working'])
    rig.end()
  })

  it('names its device when it is asked for the target, and tells its use and its lock to its stack', () => {
    const told: number[][] = []
    const paging: LayerSpec = {
      handle: (kernel, _device, irp) => {
        const { minor, argument1, argument2 } = irp.current
        if (minor !== PnpMinor.DEVICE_USAGE_NOTIFICATION && minor !== PnpMinor.SET_LOCK) return null
        told.push([minor, argument1, argument2])
        return complete(
          kernel,
          irp,
          argument2 === DeviceUsage.DUMP_FILE ? NtStatus.UNSUCCESSFUL : NtStatus.SUCCESS,
        )
      },
    }
    const rig = booted([
      { id: 'a', ...paging, upper: [{}] },
      { id: 'b', start: 'fail' },
    ])
    const { kernel, machine } = rig
    const { pnp } = kernel
    const path = rig.path('a')
    expect(machine.run(() => pnp.notifyUsage(path, DeviceUsage.PAGING, true))).toBe(NtStatus.SUCCESS)
    expect(machine.run(() => pnp.notifyUsage(path, DeviceUsage.DUMP_FILE, false))).toBe(NtStatus.UNSUCCESSFUL)
    expect(machine.run(() => pnp.lockDevice(path, true))).toBe(NtStatus.SUCCESS)
    expect(told).toEqual([
      [0x16, 1, 1],
      [0x16, 0, 3],
      [0x12, 1, 0],
    ])
    expect(machine.run(() => pnp.lockDevice(rig.path('b'), true))).toBe('not-started')
    expect(machine.run(() => pnp.lockDevice(rig.path('c'), true))).toBe('no-such-device')
    const pdo = rig.drivers.buses.get('a')?.pdo
    if (pdo === undefined) throw new Error('no a')
    const references = pdo.referenceCount
    machine.run(function* () {
      const requests = new PnpRequests(kernel.parts)
      const { status, information } = yield* requests.send(
        pdo,
        PnpMinor.QUERY_DEVICE_RELATIONS,
        DeviceRelation.TARGET_DEVICE,
      )
      expect(status).toBe(NtStatus.SUCCESS)
      expect(readRelations(kernel.parts, information)).toEqual([pdo.at])
      expect(pdo.referenceCount).toBe(references + 1)
      kernel.parts.devices.dereference(pdo)
      kernel.exFreePool(information)
    })
    rig.end()
  })
})
