import { describe, expect, it } from 'vitest'
import type { DeviceObject } from '../../guest/kernel/device-object.ts'
import type { Irp } from '../../guest/kernel/irp.ts'
import type { Kernel } from '../../guest/kernel/kernel.ts'
import { NtStatus } from '../../guest/kernel/nt-status.ts'
import { CapabilityFlag } from '../../guest/kernel/pnp/pnp-layout.ts'
import { DeviceRelation, PnpDeviceState, PnpMinor } from '../../guest/kernel/pnp/pnp-minor.ts'
import type { Waiting } from '../../guest/kernel/thread.ts'
import { booted, invalidateState, relating, stateful } from './pnp-layers.ts'
import { PnpRig } from './pnp-rig.ts'
import { PnpRules } from './pnp-rules.ts'
import type { LayerSpec } from './scripted-drivers.ts'

describe('a device that says how it is', () => {
  it('is taken down with a problem when it does not work', () => {
    for (const [bits, problem] of [
      [PnpDeviceState.FAILED, 43],
      [PnpDeviceState.REMOVED, 24],
      [PnpDeviceState.DISABLED, 29],
    ] as const) {
      for (const late of [false, true]) {
        const state = stateful()
        if (!late) state.bits = bits
        const rig = booted([{ id: 'a', upper: [state.spec], children: [{ id: 'x' }] }])
        if (late) {
          expect(rig.shown()).toEqual(['r working', '  a working', '    x working'])
          rig.sequence()
          state.bits = bits
          invalidateState(rig, 'a')
          expect(rig.sequence().filter((one) => one.includes('function'))).toEqual([
            'x function SURPRISE_REMOVAL',
            'a function SURPRISE_REMOVAL',
            'x function REMOVE_DEVICE',
            'a function REMOVE_DEVICE',
          ])
        }
        expect(rig.shown()).toEqual(['r working', `  a problem ${problem}`])
        rig.end()
      }
    }
  })

  it('is hidden, or cannot be disabled, when it says so', () => {
    const state = stateful()
    const rig = booted([{ id: 'a', children: [{ id: 'x', upper: [state.spec] }] }])
    state.bits = PnpDeviceState.DONT_DISPLAY_IN_UI | PnpDeviceState.NOT_DISABLEABLE
    invalidateState(rig, 'x')
    expect(rig.kernel.pnp.tree()?.children[0]?.children[0]?.children[0]).toMatchObject({
      hidden: true,
      status: 'working',
    })
    rig.sequence()
    for (const id of ['a', 'x']) {
      expect(rig.machine.run(() => rig.kernel.pnp.disableDevice(rig.path(id)))).toMatchObject({
        instancePath: rig.path('x'),
        reason: 'not-disableable',
      })
    }
    expect(rig.sequence()).toEqual([])
    rig.end()
  })
})

describe('removal', () => {
  it('refused in the middle of a stack is cancelled for all who had agreed, parents first', () => {
    const rig = booted([{ id: 'a', lower: [{ refuses: ['remove'] }], children: [{ id: 'x' }, { id: 'y' }] }])
    rig.sequence()
    expect(rig.machine.run(() => rig.kernel.pnp.removeDevice(rig.path('a')))).toEqual({
      instancePath: rig.path('a'),
      reason: 'driver',
      status: NtStatus.UNSUCCESSFUL,
    })
    expect(rig.sequence().filter((one) => !one.includes('pdo'))).toEqual([
      'x function QUERY_REMOVE_DEVICE',
      'y function QUERY_REMOVE_DEVICE',
      'a function QUERY_REMOVE_DEVICE',
      'a lower0 QUERY_REMOVE_DEVICE',
      'a function CANCEL_REMOVE_DEVICE',
      'a lower0 CANCEL_REMOVE_DEVICE',
      'y function CANCEL_REMOVE_DEVICE',
      'x function CANCEL_REMOVE_DEVICE',
    ])
    expect(rig.openDevice('x')).toBe(NtStatus.SUCCESS)
    rig.end()
  })

  it('is refused by an open handle after everybody was asked, and waits for none when it comes by surprise', () => {
    const rig = booted([{ id: 'a', children: [{ id: 'x' }] }])
    expect(rig.openDevice('x')).toBe(NtStatus.SUCCESS)
    rig.sequence()
    expect(rig.machine.run(() => rig.kernel.pnp.disableDevice(rig.path('a')))).toMatchObject({
      reason: 'open-handles',
    })
    expect(rig.sequence().filter((one) => one.startsWith('x function'))).toEqual([
      'x function QUERY_REMOVE_DEVICE',
      'x function CANCEL_REMOVE_DEVICE',
    ])
    rig.plug('a', false)
    expect(rig.sequence().filter((one) => one.includes('function'))).toEqual([
      'x function SURPRISE_REMOVAL',
      'a function SURPRISE_REMOVAL',
    ])
    expect(rig.shown()).toEqual(['r working', '  a being removed', '    x being removed'])
    expect(rig.openDevice('x')).toBe(NtStatus.NO_SUCH_DEVICE)
    // Its successor starts beside it.
    rig.plug('a', true)
    expect(rig.shown().filter((one) => one.endsWith('working'))).toEqual([
      'r working',
      '  a working',
      '    x working',
    ])
    rig.sequence()
    rig.closeOne(0)
    expect(rig.sequence().filter((one) => one.includes('function'))).toEqual([
      'x function REMOVE_DEVICE',
      'a function REMOVE_DEVICE',
    ])
    expect(rig.shown()).toEqual(['r working', '  a working', '    x working'])
    rig.end()
  })

  it('takes along what a device names in its removal relations, children first', () => {
    const related = relating(DeviceRelation.REMOVAL, () => rig.drivers.buses.get('b')?.pdo)
    const rig = booted([{ id: 'a', upper: [related] }, { id: 'b', children: [{ id: 'x' }] }, { id: 'c' }])
    rig.sequence()
    const references = rig.drivers.buses.get('b')?.pdo.referenceCount
    expect(rig.machine.run(() => rig.kernel.pnp.disableDevice(rig.path('a')))).toBeNull()
    const removed = rig.sequence().filter((one) => one.endsWith('function REMOVE_DEVICE'))
    expect([...removed].sort()).toEqual([
      'a function REMOVE_DEVICE',
      'b function REMOVE_DEVICE',
      'x function REMOVE_DEVICE',
    ])
    expect(removed[0]).toBe('x function REMOVE_DEVICE')
    // What went along comes back: its bus still lists it.
    expect(rig.shown()).toEqual([
      'r working',
      '  a problem 22',
      '  b working',
      '    x working',
      '  c working',
    ])
    expect(rig.drivers.buses.get('b')?.pdo.referenceCount).toBe(references)
    rig.end()
  })

  it('by ejection takes along what leaves with it, and nothing else does', () => {
    const flags = CapabilityFlag.UNIQUE_ID | CapabilityFlag.EJECT_SUPPORTED
    const leaving = relating(DeviceRelation.EJECTION, () => rig.drivers.buses.get('b')?.pdo)
    const rig = booted([{ id: 'a', description: { capabilities: { flags } }, upper: [leaving] }, { id: 'b' }])
    const removed = (): string[] =>
      rig
        .sequence()
        .filter((one) => one.endsWith('function REMOVE_DEVICE'))
        .sort()
    rig.sequence()
    expect(rig.machine.run(() => rig.kernel.pnp.removeDevice(rig.path('a')))).toBeNull()
    expect(removed()).toEqual(['a function REMOVE_DEVICE'])
    rig.machine.run(() => rig.kernel.pnp.rescan())
    expect(rig.machine.run(() => rig.kernel.pnp.ejectDevice(rig.path('a')))).toBeNull()
    expect(removed()).toEqual(['a function REMOVE_DEVICE', 'b function REMOVE_DEVICE'])
    rig.end()
  })

  it('by ejection sends EJECT to the PDO once its stack is gone, and only where it can be put out', () => {
    const flags = CapabilityFlag.UNIQUE_ID | CapabilityFlag.EJECT_SUPPORTED
    const rig = booted([{ id: 'a', description: { capabilities: { flags } } }, { id: 'b' }])
    rig.sequence()
    expect(rig.machine.run(() => rig.kernel.pnp.ejectDevice(rig.path('b')))).toBe('not-ejectable')
    expect(rig.machine.run(() => rig.kernel.pnp.ejectDevice(rig.path('a')))).toBeNull()
    expect(rig.sequence()).toEqual([
      'a function QUERY_REMOVE_DEVICE',
      'a pdo QUERY_REMOVE_DEVICE',
      'a function REMOVE_DEVICE',
      'a pdo REMOVE_DEVICE',
      'a pdo EJECT',
      'a pdo REMOVE_DEVICE',
    ])
    expect(rig.shown()).toEqual(['r working', '  b working'])
    rig.end()
  })

  it('of a stack that a driver does not leave ends in problem 38, for good', () => {
    const stuck: LayerSpec = {
      handle: (kernel, _device, irp, lower) => {
        if (irp.current.minor !== PnpMinor.REMOVE_DEVICE) return null
        irp.status = NtStatus.SUCCESS
        kernel.ioSkipCurrentIrpStackLocation(irp)
        return kernel.ioCallDriver(lower, irp)
      },
    }
    const rig = booted([{ id: 'a', ...stuck }])
    expect(rig.machine.run(() => rig.kernel.pnp.disableDevice(rig.path('a')))).toBeNull()
    expect(rig.shown()).toEqual(['r working', '  a problem 38'])
    expect(rig.machine.run(() => rig.kernel.pnp.enableDevice(rig.path('a')))).toBe('not-started')
    expect(rig.machine.run(() => rig.kernel.pnp.disableDevice(rig.path('a')))).toBeNull()
    expect(rig.shown()).toEqual(['r working', '  a problem 38'])
    expect(rig.kernel.bugCheck).toBeNull()
  })

  it('unloads a driver with its last device and not before', () => {
    const rig = booted([
      { id: 'a', className: 'filtered' },
      { id: 'b', className: 'filtered' },
    ])
    const loaded = (name: string): boolean => rig.kernel.parts.drivers.find(name) !== null
    rig.machine.run(() => rig.kernel.pnp.disableDevice(rig.path('a')))
    expect([loaded('classUp'), loaded('a.function')]).toEqual([true, false])
    rig.machine.run(() => rig.kernel.pnp.disableDevice(rig.path('b')))
    expect([loaded('classUp'), loaded('b.function')]).toEqual([false, false])
    rig.machine.run(() => rig.kernel.pnp.enableDevice(rig.path('b')))
    expect([loaded('classUp'), loaded('b.function')]).toEqual([true, true])
    rig.end()
  })

  it('by surprise in two steps waits for all files of both, and then goes children first', () => {
    for (const first of [0, 1]) {
      const rig = booted([{ id: 'a', children: [{ id: 'x' }] }])
      expect([rig.openDevice('x'), rig.openDevice('a')]).toEqual([0, 0])
      rig.plug('x', false)
      rig.plug('a', false)
      rig.sequence()
      rig.closeOne(first)
      expect(rig.sequence().filter((one) => one.includes('REMOVE_DEVICE'))).toEqual([])
      rig.closeOne(0)
      expect(rig.sequence().filter((one) => one.endsWith('function REMOVE_DEVICE'))).toEqual([
        'x function REMOVE_DEVICE',
        'a function REMOVE_DEVICE',
      ])
      expect(rig.shown()).toEqual(['r working'])
      rig.end()
    }
  })

  it('of a bus takes what waited below it along, when its last file is closed just then', () => {
    const closing: LayerSpec = {
      handle: (kernel, _device, irp, lower) =>
        irp.current.minor === PnpMinor.QUERY_REMOVE_DEVICE ? closeFirst(kernel, irp, lower) : null,
    }
    function* closeFirst(kernel: Kernel, irp: Irp, lower: DeviceObject): Waiting {
      const [file] = rig.open.splice(0, 1)
      if (file !== undefined) yield* kernel.nt.close(file.handle)
      irp.status = NtStatus.SUCCESS
      kernel.ioSkipCurrentIrpStackLocation(irp)
      return yield* kernel.ioCallDriverSettled(lower, irp)
    }
    const rig = booted([{ id: 'a', upper: [closing], children: [{ id: 'x' }] }])
    rig.openDevice('x')
    rig.plug('x', false)
    rig.sequence()
    expect(rig.machine.run(() => rig.kernel.pnp.disableDevice(rig.path('a')))).toBeNull()
    rig.machine.run(() => rig.kernel.pnp.settle())
    expect(rig.sequence().filter((one) => one.endsWith('function REMOVE_DEVICE'))).toEqual([
      'x function REMOVE_DEVICE',
      'a function REMOVE_DEVICE',
    ])
    expect(rig.shown()).toEqual(['r working', '  a problem 22'])
    rig.end()
  })

  it('leaves the path to the successor, also of what did not work below', () => {
    const rig = booted([{ id: 'a', children: [{ id: 'x' }, { id: 'y', add: 'fail' }] }])
    rig.openDevice('a')
    rig.plug('a', false)
    rig.plug('a', true)
    expect(rig.shown()).toEqual([
      'r working',
      '  a being removed',
      '    x being removed',
      '    y problem 31',
      '  a working',
      '    x working',
      '    y problem 31',
    ])
    for (const id of ['x', 'a']) {
      expect(rig.machine.run(() => rig.kernel.pnp.disableDevice(rig.path(id)))).toBeNull()
    }
    expect(rig.shown().slice(4)).toEqual(['  a problem 22'])
    rig.end()
  })

  it('of a bus takes its devices out of the tree even if they wait and their PDOs stay', () => {
    const state = stateful()
    const keeping: LayerSpec = {
      handle: (kernel, device, irp, lower) =>
        irp.current.minor === PnpMinor.REMOVE_DEVICE ? leave(kernel, device, irp, lower) : null,
    }
    // Goes without deleting the PDOs of its children.
    function* leave(kernel: Kernel, device: DeviceObject, irp: Irp, lower: DeviceObject): Waiting {
      irp.status = NtStatus.SUCCESS
      kernel.ioSkipCurrentIrpStackLocation(irp)
      const status = yield* kernel.ioCallDriverSettled(lower, irp)
      kernel.ioDetachDevice(lower)
      kernel.ioDeleteDevice(device)
      return status
    }
    const rig = booted([{ id: 'a', ...keeping, children: [{ id: 'x', upper: [state.spec] }] }])
    rig.openDevice('x')
    state.bits = PnpDeviceState.FAILED
    invalidateState(rig, 'x')
    rig.plug('a', false)
    rig.closeOne(0)
    expect(rig.shown()).toEqual(['r working'])
    // The nodes of the root and of the one device on it.
    expect(rig.kernel.parts.contexts.count).toBe(2)
    expect(rig.kernel.bugCheck).toBeNull()
  })

  it('leaves a PDO that stays as it was before', () => {
    const rig = booted([{ id: 'a' }])
    for (const act of ['disableDevice', 'enableDevice'] as const) {
      expect(rig.machine.run(() => rig.kernel.pnp[act](rig.path('a')))).toBeNull()
      const pdo = rig.drivers.buses.get('a')?.pdo
      expect([pdo?.extensionFlags, pdo?.refusesOpens]).toEqual([0, false])
    }
    rig.end()
  })
})

describe('a START that is pending', () => {
  const ways = {
    unplug: function* (rig: PnpRig): Waiting<unknown> {
      rig.drivers.plugged.delete('a')
      const bus = rig.drivers.buses.get('r')
      if (bus !== undefined) rig.kernel.pnp.ioInvalidateDeviceRelations(bus.pdo)
      return yield* rig.kernel.pnp.settle()
    },
    disable: (rig: PnpRig) => rig.kernel.pnp.disableDevice(rig.path('a')),
    'disable its bus': (rig: PnpRig) => rig.kernel.pnp.disableDevice(rig.path('r')),
    rebalance: (rig: PnpRig) => rig.kernel.pnp.rebalance(rig.path('a')),
    'rebalance its bus': (rig: PnpRig) => rig.kernel.pnp.rebalance(rig.path('r')),
    'ask for its state': function* (rig: PnpRig): Waiting<unknown> {
      const pdo = rig.drivers.buses.get('a')?.pdo
      if (pdo !== undefined) rig.kernel.pnp.ioInvalidateDeviceState(pdo)
      return yield* rig.kernel.pnp.settle()
    },
  }
  const shown: { readonly [way in keyof typeof ways]: readonly [string[], string[]] } = {
    unplug: [['r working'], ['r working']],
    disable: [
      ['r working', '  a problem 22'],
      ['r working', '  a problem 22'],
    ],
    'disable its bus': [['r problem 22'], ['r problem 22']],
    rebalance: [
      ['r working', '  a working', '    x working'],
      ['r working', '  a problem 10'],
    ],
    'rebalance its bus': [
      ['r working', '  a working', '    x working'],
      ['r working', '  a problem 10'],
    ],
    'ask for its state': [
      ['r working', '  a working', '    x working'],
      ['r working', '  a problem 10'],
    ],
  }
  for (const way of Object.keys(ways) as (keyof typeof ways)[]) {
    it(`is over before anything else happens to its device: ${way}`, () => {
      for (const [fails, start] of (['pend', 'pend-fail'] as const).entries()) {
        for (const seed of [1, 2, 3, 4]) {
          const root = {
            id: 'r',
            children: [{ id: 'a', start, children: [{ id: 'x', start: 'pend' as const }] }],
          }
          const rig = new PnpRig(root, { seed })
          const rules = new PnpRules(root, { overlapping: true, containerId: true }, () => false)
          let starting = false
          rig.machine.run(function* () {
            yield* rig.booting()
            starting = rig.shown().includes('  a starting')
            yield* ways[way](rig)
          })
          rig.machine.drain()
          expect(starting).toBe(true)
          rules.see(rig.events.slice())
          rules.settled()
          expect(rules.broken).toEqual([])
          expect(rig.shown()).toEqual(shown[way][fails as 0 | 1])
          rig.end()
        }
      }
    })
  }
})
