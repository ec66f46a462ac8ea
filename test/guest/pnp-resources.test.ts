import { describe, expect, it } from 'vitest'
import { Irql } from '../../guest/kernel/irql.ts'
import { NtStatus } from '../../guest/kernel/nt-status.ts'
import { PnpDeviceState, PnpMinor } from '../../guest/kernel/pnp/pnp-minor.ts'
import type { Resource } from '../../guest/kernel/pnp/resource-list.ts'
import { allocateRequirements, type RequirementLists } from '../../guest/kernel/pnp/resource-requirements.ts'
import { booted, invalidateState, line, range, stateful, watching } from './pnp-layers.ts'
import { PnpRig } from './pnp-rig.ts'
import { complete, type LayerSpec } from './scripted-drivers.ts'

describe('resources', () => {
  it('come raw and translated with START, after the stack has had its say', () => {
    const seen: { raw: readonly Resource[] | null; translated: readonly Resource[] | null }[] = []
    const wanted: RequirementLists = [[range(0xf000_0000), line(9)]]
    const instead: RequirementLists = [[range(0xf100_0000), line(9)]]
    const filter: LayerSpec = {
      handle: (kernel, _device, irp, lower) => {
        if (irp.current.minor !== PnpMinor.FILTER_RESOURCE_REQUIREMENTS) return null
        irp.information = allocateRequirements(kernel.parts, instead)
        irp.status = NtStatus.SUCCESS
        kernel.ioSkipCurrentIrpStackLocation(irp)
        return kernel.ioCallDriver(lower, irp)
      },
    }
    const same: LayerSpec = {
      handle: (kernel, _device, irp, lower) => {
        if (irp.current.minor !== PnpMinor.FILTER_RESOURCE_REQUIREMENTS) return null
        irp.information = irp.current.argument1
        irp.status = NtStatus.SUCCESS
        kernel.ioSkipCurrentIrpStackLocation(irp)
        return kernel.ioCallDriver(lower, irp)
      },
    }
    const rig = booted([
      { id: 'a', description: { requirements: wanted }, upper: [filter, watching(seen)] },
      { id: 'b', description: { requirements: wanted }, upper: [same, watching(seen)] },
      { id: 'c', ...watching(seen) },
    ])
    const vector = seen[0]?.translated?.[1]
    expect(seen[0]).toEqual({
      raw: [
        { kind: 'memory', start: 0xf100_0000, lengthBytes: 0x1000 },
        { kind: 'interrupt', level: 9, vector: 9, trigger: 'level', shared: true },
      ],
      translated: [
        { kind: 'memory', start: 0xf100_0000, lengthBytes: 0x1000 },
        { kind: 'interrupt', level: Irql.DEVICE, vector: Irql.DEVICE * 16, trigger: 'level', shared: true },
      ],
    })
    // A shared line is one vector for both.
    expect(seen[1]?.translated?.[1]).toEqual(vector)
    expect(seen[1]?.raw?.[0]).toEqual({ kind: 'memory', start: 0xf000_0000, lengthBytes: 0x1000 })
    expect(seen[2]).toEqual({ raw: [], translated: [] })
    rig.end()
    expect(rig.kernel.parts.interrupts.assign(9, 'edge')).not.toBeNull()
  })

  it('are assigned anew when the device says that it needs others, with STOP and START around', () => {
    const seen: { raw: readonly Resource[] | null; translated: readonly Resource[] | null }[] = []
    const state = stateful()
    const description = { requirements: [[range(0xf000_0000)]] as RequirementLists }
    const rig = booted([
      { id: 'a', description, lower: [watching(seen)], upper: [state.spec], children: [{ id: 'x' }] },
    ])
    rig.sequence()
    description.requirements = [[range(0xf200_0000)]]
    state.bits = PnpDeviceState.RESOURCE_REQUIREMENTS_CHANGED
    // The PDO's description was copied when it was made: its bus driver has to answer anew.
    const pdo = rig.drivers.buses.get('a')?.pdo
    const extension = pdo?.extension as { description: { requirements: RequirementLists } }
    extension.description.requirements = description.requirements
    invalidateState(rig, 'a')
    expect(rig.sequence().filter((one) => one.includes('function') || one.startsWith('x'))).toEqual([
      'x function QUERY_STOP_DEVICE',
      'x pdo QUERY_STOP_DEVICE',
      'a function QUERY_STOP_DEVICE',
      'x function STOP_DEVICE',
      'x pdo STOP_DEVICE',
      'a function STOP_DEVICE',
      'a function START_DEVICE',
      'x function START_DEVICE',
      'x pdo START_DEVICE',
    ])
    expect(seen.map((one) => one.raw?.[0]).map((one) => one?.kind === 'memory' && one.start)).toEqual([
      0xf000_0000, 0xf200_0000,
    ])
    rig.end()
  })

  it('that cannot be had again after STOP lead to SURPRISE_REMOVAL and REMOVE', () => {
    const rig = booted([
      { id: 'a', description: { requirements: [[range(0xf000_0000)]] } },
      { id: 'b', description: { requirements: [[range(0xf100_0000)]] } },
    ])
    rig.sequence()
    const extension = rig.drivers.buses.get('b')?.pdo.extension as {
      description: { requirements: RequirementLists }
    }
    extension.description.requirements = [[range(0xf000_0000)]]
    expect(rig.machine.run(() => rig.kernel.pnp.rebalance(rig.path('b')))).toBeNull()
    expect(rig.sequence().filter((one) => one.includes('function'))).toEqual([
      'b function QUERY_STOP_DEVICE',
      'b function STOP_DEVICE',
      'b function SURPRISE_REMOVAL',
      'b function REMOVE_DEVICE',
    ])
    expect(rig.shown()).toEqual(['r working', '  a working', '  b problem 12'])
    rig.end()
  })

  it('of a START that fails the second time lead there too, with everything below', () => {
    let starts = 0
    const flaky: LayerSpec = {
      handle: (kernel, _device, irp) =>
        irp.current.minor === PnpMinor.START_DEVICE && ++starts === 2
          ? complete(kernel, irp, NtStatus.UNSUCCESSFUL)
          : null,
    }
    const rig = booted([{ id: 'a', ...flaky, children: [{ id: 'x' }] }])
    rig.sequence()
    expect(rig.machine.run(() => rig.kernel.pnp.rebalance(rig.path('a')))).toBeNull()
    const sequence = rig.sequence().filter((one) => one.includes('function'))
    expect(sequence.slice(4)).toEqual([
      'a function START_DEVICE',
      'x function SURPRISE_REMOVAL',
      'a function SURPRISE_REMOVAL',
      'x function REMOVE_DEVICE',
      'a function REMOVE_DEVICE',
    ])
    expect(rig.shown()).toEqual(['r working', '  a problem 10'])
    expect(rig.machine.run(() => rig.kernel.pnp.enableDevice(rig.path('a')))).toBeNull()
    expect(rig.shown()).toEqual(['r working', '  a working', '    x working'])
    rig.end()
  })

  it('of a device that stops are its own again', () => {
    const rig = booted([{ id: 'a', description: { requirements: [[range(0xf000_0000), line(9)]] } }])
    expect(rig.machine.run(() => rig.kernel.pnp.rebalance(rig.path('a')))).toBeNull()
    expect(rig.shown()).toEqual(['r working', '  a working'])
    rig.end()
  })

  it('keep a vector as long as a device has it, connected or not', () => {
    const seen: { raw: readonly Resource[] | null; translated: readonly Resource[] | null }[] = []
    const spec = { description: { requirements: [[line(9)]] as RequirementLists }, ...watching(seen) }
    const rig = booted([
      { id: 'a', ...spec },
      { id: 'b', ...spec },
    ])
    const { interrupts } = rig.kernel.parts
    rig.machine.run(() => rig.kernel.pnp.disableDevice(rig.path('a')))
    const translated = seen[1]?.translated?.[0]
    if (translated?.kind !== 'interrupt') throw new Error('no interrupt')
    const { vector, level: irql, trigger } = translated
    for (let times = 0; times < 2; times++) {
      const connected = interrupts.connect(() => false, { vector, irql, trigger })
      if (typeof connected === 'number') throw new Error('not connected')
      expect([connected.line, connected.vector]).toEqual([9, vector])
      interrupts.disconnect(connected)
    }
    rig.machine.run(() => rig.kernel.pnp.disableDevice(rig.path('b')))
    expect(interrupts.connect(() => false, { vector, irql, trigger })).toBe(NtStatus.INVALID_PARAMETER)
    rig.end()
  })

  it('that cannot be translated are problem 33', () => {
    const rig = new PnpRig({ id: 'r', children: [{ id: 'a', description: { requirements: [[line(9)]] } }] })
    const other = rig.kernel.ioConnectInterrupt(() => false, { line: 9, trigger: 'edge' })
    rig.boot()
    expect(rig.shown()).toEqual(['r working', '  a problem 33'])
    if (typeof other !== 'number') rig.kernel.ioDisconnectInterrupt(other)
    rig.machine.run(() => rig.kernel.pnp.enableDevice(rig.path('a')))
    expect(rig.shown()).toEqual(['r working', '  a working'])
    rig.end()
  })
})
