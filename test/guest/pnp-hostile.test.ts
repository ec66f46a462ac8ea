import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { seededRandom } from '../../bench/random.ts'
import type { Irp } from '../../guest/kernel/irp.ts'
import type { Kernel } from '../../guest/kernel/kernel.ts'
import { NtStatus } from '../../guest/kernel/nt-status.ts'
import { allocateRelations } from '../../guest/kernel/pnp/device-relations.ts'
import { DEVICE_RELATIONS } from '../../guest/kernel/pnp/pnp-layout.ts'
import { BusQueryId, DeviceRelation, PnpMinor } from '../../guest/kernel/pnp/pnp-minor.ts'
import { PoolType, poolTag } from '../../guest/kernel/pool.ts'
import type { Field } from '../../protocol/layout.ts'
import { PnpRig } from './pnp-rig.ts'
import { complete, type DeviceSpec, type LayerSpec } from './scripted-drivers.ts'

const TAG = poolTag('Test')

/** A bus with one good device and another one under test. */
function besides(bad: DeviceSpec): PnpRig {
  const rig = new PnpRig({ id: 'r', children: [{ id: 'good' }, bad] })
  rig.boot()
  expect(rig.kernel.bugCheck).toBeNull()
  expect(rig.shown()).toContain('  good working')
  return rig
}

/** UTF-16 units in paged pool, with no null but those given. */
function units(kernel: Kernel, text: string): number {
  const at = kernel.exAllocatePoolWithTag(PoolType.PAGED, Math.max(2, text.length * 2), TAG)
  for (let index = 0; index < text.length; index++) {
    kernel.parts.memory.window.putLe16(0 as Field<'le16'>, text.charCodeAt(index), at + index * 2)
  }
  return at
}

function giveId(type: number, text: string): NonNullable<DeviceSpec['pdoHandle']> {
  return (kernel, _pdo, irp) =>
    irp.current.minor === PnpMinor.QUERY_ID && irp.current.argument1 === type
      ? complete(kernel, irp, NtStatus.SUCCESS, units(kernel, text))
      : null
}

/** What the bus says its children are. */
function relations(make: (kernel: Kernel, irp: Irp, calls: number) => number | null): LayerSpec {
  let calls = 0
  return {
    handle: (kernel, _device, irp, lower) => {
      const { minor, argument1 } = irp.current
      if (minor !== PnpMinor.QUERY_DEVICE_RELATIONS || argument1 !== DeviceRelation.BUS) return null
      const list = make(kernel, irp, calls++)
      if (list === null) return null
      irp.status = NtStatus.SUCCESS
      irp.information = list
      kernel.ioSkipCurrentIrpStackLocation(irp)
      return kernel.ioCallDriver(lower, irp)
    },
  }
}

function listOf(kernel: Kernel, count: number, pointers: readonly number[]): number {
  const bytes = DEVICE_RELATIONS.$size + pointers.length * 8
  const at = kernel.exAllocatePoolWithTag(PoolType.PAGED, bytes, TAG)
  kernel.parts.memory.window.putLe32(DEVICE_RELATIONS.count, count, at)
  pointers.forEach((pointer, index) => {
    kernel.parts.memory.putPointer(at + DEVICE_RELATIONS.$size + index * 8, pointer)
  })
  return at
}

function blockOf(kernel: Kernel, bytes: Uint8Array): number {
  const at = kernel.exAllocatePoolWithTag(PoolType.PAGED, bytes.length, TAG)
  kernel.parts.memory.bytes.set(bytes, at)
  return at
}

describe('a bus driver that gives wrong identities', () => {
  const long = `TEST\\${'x'.repeat(195)}`
  const unfit: readonly [string, number, string][] = [
    ['a device ID with a space', BusQueryId.DEVICE_ID, 'TEST\\a b\0'],
    ['a device ID without a backslash', BusQueryId.DEVICE_ID, 'TEST\0'],
    ['a device ID with two', BusQueryId.DEVICE_ID, 'TEST\\a\\b\0'],
    ['an empty device ID', BusQueryId.DEVICE_ID, '\0'],
    ['an instance ID with a backslash', BusQueryId.INSTANCE_ID, '0\\1\0'],
    ['a hardware ID with a space', BusQueryId.HARDWARE_IDS, 'TEST\\x\0TEST\\x y\0\0'],
  ]
  for (const [what, type, text] of unfit) {
    it(`gets problem 9 for ${what}`, () => {
      const rig = besides({ id: 'bad', pdoHandle: giveId(type, text) })
      expect(rig.shown().filter((line) => line.includes('9'))).toHaveLength(1)
      rig.end()
    })
  }

  /** The last number says of which ID. */
  const broken: readonly [string, number, string, number][] = [
    ['a device ID with a comma', BusQueryId.DEVICE_ID, 'TEST\\a,b\0', 1],
    ['a device ID with a control character', BusQueryId.DEVICE_ID, 'TEST\\a\u0007\0', 1],
    ['a device ID beyond ASCII', BusQueryId.DEVICE_ID, 'TEST\\\u00e4\0', 1],
    ['a device ID of 200 characters', BusQueryId.DEVICE_ID, `${long}\0`, 1],
    ['a device ID that never ends', BusQueryId.DEVICE_ID, 'TEST\\endless', 1],
    ['an instance ID that never ends', BusQueryId.INSTANCE_ID, '0', 2],
    ['hardware IDs that never end', BusQueryId.HARDWARE_IDS, 'TEST\\x\0', 3],
    ['a compatible ID of 200 characters', BusQueryId.COMPATIBLE_IDS, `${long}\0\0`, 4],
    ['compatible IDs that never end', BusQueryId.COMPATIBLE_IDS, 'TEST\\x\0', 4],
  ]
  for (const [what, type, text, which] of broken) {
    it(`stops the system with 0xCA/3 for ${what}`, () => {
      const rig = new PnpRig({
        id: 'r',
        children: [{ id: 'good' }, { id: 'bad', pdoHandle: giveId(type, text) }],
      })
      expect(rig.machine.crash(() => rig.booting())).toEqual([0xca, 3])
      const [, pdo, , told] = rig.kernel.bugCheck?.parameters ?? []
      expect([pdo, told]).toEqual([rig.drivers.buses.get('r')?.children[1]?.pdo?.at, which])
    })
  }

  it('may give IDs of 199 characters, and no IDs at all but the first', () => {
    const rig = besides({ id: 'bad', pdoHandle: giveId(BusQueryId.DEVICE_ID, `${long.slice(0, 199)}\0`) })
    expect(rig.kernel.pnp.tree()?.children[0]?.children[1]).toMatchObject({
      status: 'working',
      problem: null,
    })
    rig.end()
    const bare = besides({
      id: 'bad',
      pdoHandle: (kernel, _pdo, irp) =>
        irp.current.minor === PnpMinor.QUERY_ID && irp.current.argument1 !== BusQueryId.DEVICE_ID
          ? complete(kernel, irp, irp.status)
          : null,
    })
    expect(bare.shown()).toContain('  bad problem 28')
    bare.end()
  })

  it('stops the system with 0xCA/1 for two PDOs of one bus with one identity', () => {
    for (const capabilities of [undefined, {}]) {
      const own = capabilities === undefined ? {} : { capabilities }
      const rig = new PnpRig({
        id: 'r',
        children: [
          { id: 'a', description: { ...own } },
          { id: 'b', description: { deviceId: 'TEST\\A', ...own } },
        ],
      })
      expect(rig.machine.crash(() => rig.booting())).toEqual([0xca, 1])
      const [a, b] = rig.drivers.buses.get('r')?.children.map(({ pdo }) => pdo?.at) ?? []
      // The one that was reported later first.
      expect(rig.kernel.bugCheck?.parameters.slice(1, 3)).toEqual([b, a])
    }
  })

  it('gets problem 42 for a device that another bus has already, and that one works', () => {
    const rig = new PnpRig({
      id: 'r',
      children: [
        { id: 'one', children: [{ id: 'a' }] },
        { id: 'two', children: [{ id: 'b', description: { deviceId: 'TEST\\A' } }] },
      ],
    })
    rig.boot()
    expect(rig.shown()).toEqual([
      'r working',
      '  one working',
      '    a working',
      '  two working',
      '    A problem 42',
    ])
    rig.end()
  })

  it('gets an instance of its parent’s where it only promises one on its bus', () => {
    const child = (id: string): DeviceSpec => ({
      id,
      description: { deviceId: 'TEST\\same', capabilities: {} },
    })
    const rig = new PnpRig({
      id: 'r',
      children: [
        { id: 'a', children: [child('x')] },
        { id: 'b', children: [child('y')] },
      ],
    })
    rig.boot()
    const buses = rig.kernel.pnp.tree()?.children[0]?.children ?? []
    const paths = buses.flatMap((bus) => bus.children.map((one) => one.instancePath))
    expect(new Set(paths).size).toBe(2)
    expect(paths.every((path) => path.startsWith('TEST\\same\\') && path.endsWith('&0'))).toBe(true)
    expect(rig.shown().filter((line) => line.includes('problem'))).toEqual([])
    rig.end()
  })
})

describe('a bus driver that gives wrong lists', () => {
  it('gets problem 9, and its children stay as they are, when a list is longer than its memory', () => {
    for (const count of [3, 1025, 0xffff_ffff]) {
      const own = relations((kernel, _irp, calls) => (calls === 0 ? null : listOf(kernel, count, [0, 0])))
      const rig = new PnpRig({ id: 'r', children: [{ id: 'bus', ...own, children: [{ id: 'a' }] }] })
      rig.boot()
      expect(rig.shown()).toContain('    a working')
      rig.machine.run(() => rig.kernel.pnp.rescan())
      expect(rig.shown()).toEqual(['r working', '  bus problem 9', '    a working'])
      rig.end()
    }
  })

  const fatal: readonly [string, number, (rig: () => PnpRig) => number][] = [
    ['null', 8, () => 0],
    ['a wild pointer', 2, () => 0x123450],
    ['a device that stands on another', 2, (rig) => topOf(rig())],
    ['a deleted device', 4, (rig) => deletedDevice(rig().kernel)],
  ]
  for (const [what, parameter, pointer] of fatal) {
    it(`stops the system with 0xCA/${parameter} for ${what}`, () => {
      const rig: PnpRig = new PnpRig({
        id: 'r',
        children: [
          {
            id: 'bus',
            ...relations((kernel) => listOf(kernel, 1, [pointer(() => rig)])),
            children: [{ id: 'a' }],
          },
        ],
      })
      expect(rig.machine.crash(() => rig.booting())).toEqual([0xca, parameter])
    })
  }

  function topOf(rig: PnpRig): number {
    return rig.drivers.buses.get('bus')?.pdo.attachedDevice ?? 0
  }
  function deletedDevice(kernel: Kernel): number {
    const driver = kernel.parts.devices.createDriver('\\Driver\\Other')
    if (driver === null) throw new Error('no memory')
    const device = kernel.ioCreateDevice(driver)
    if (typeof device === 'number') throw new Error('no device')
    kernel.parts.devices.reference(device)
    kernel.ioDeleteDevice(device)
    return device.at
  }

  it('stops the system with 0xCA/5 when it frees a PDO that is in the tree', () => {
    // Listed without a reference of its own, and deleted.
    const own = relations((kernel, irp, calls) => {
      const { buses } = rig.drivers
      const pdo = buses.get('bus')?.children[0]?.pdo
      if (calls === 0 || pdo === undefined || pdo === null) return null
      if (calls > 1) kernel.ioDeleteDevice(pdo)
      return calls > 1 ? irp.information : listOf(kernel, 1, [pdo.at])
    })
    const rig = new PnpRig({ id: 'r', children: [{ id: 'bus', ...own, children: [{ id: 'a' }] }] })
    rig.boot()
    rig.machine.run(() => rig.kernel.pnp.rescan())
    expect(rig.machine.crash(() => rig.kernel.pnp.rescan())).toEqual([0xca, 5])
  })

  it('stops the system with 0xCA/2 when it speaks of a device that was never reported', () => {
    const rig = new PnpRig({ id: 'r' })
    rig.boot()
    const top = rig.drivers.buses.get('r')?.pdo.attachedDevice ?? 0
    const fdo = rig.kernel.parts.devices.deviceAt(top)
    expect(
      rig.machine.crash(function* () {
        rig.kernel.pnp.ioInvalidateDeviceRelations(fdo)
        yield* rig.kernel.pnp.settle()
      }),
    ).toEqual([0xca, 2])
  })

  it('may list one device twice, and two buses may not have one', () => {
    const twice = relations((kernel, irp, calls) => {
      const pdo = rig.drivers.buses.get('one')?.children[0]?.pdo
      return calls === 0 || !pdo ? null : allocateRelations(kernel.parts, [pdo, pdo], irp.information)
    })
    const thief = relations((kernel, irp, calls) => {
      const pdo = rig.drivers.buses.get('one')?.children[0]?.pdo
      return calls === 0 || !pdo ? null : allocateRelations(kernel.parts, [pdo], irp.information)
    })
    const rig = new PnpRig({
      id: 'r',
      children: [
        { id: 'one', ...twice, children: [{ id: 'a' }] },
        { id: 'two', ...thief },
      ],
    })
    rig.boot()
    rig.machine.run(() => rig.kernel.pnp.rescan())
    expect(rig.shown()).toEqual(['r working', '  one working', '    a working', '  two problem 9'])
    rig.end()
  })

  it('is asked no deeper than 32 buses below each other, and never for ever', () => {
    let spec: DeviceSpec = { id: 'd40' }
    for (let depth = 39; depth >= 1; depth--) spec = { id: `d${depth}`, children: [spec] }
    const rig = new PnpRig({ id: 'r', children: [spec] }, { ramBytes: 16 * 1024 * 1024 })
    rig.boot()
    const shown = rig.shown()
    expect(shown.every((line) => line.endsWith('working'))).toBe(true)
    expect(shown).toHaveLength(32)
    rig.end()
  })
})

describe('a bus driver that answers anything', () => {
  it('never hangs the manager, which ends with a tree or stops', () => {
    const answer = fc.record({
      minor: fc.constantFrom(
        PnpMinor.QUERY_ID,
        PnpMinor.QUERY_RESOURCES,
        PnpMinor.QUERY_RESOURCE_REQUIREMENTS,
        PnpMinor.QUERY_DEVICE_TEXT,
        PnpMinor.QUERY_BUS_INFORMATION,
        PnpMinor.QUERY_DEVICE_RELATIONS,
        PnpMinor.QUERY_PNP_DEVICE_STATE,
        PnpMinor.FILTER_RESOURCE_REQUIREMENTS,
      ),
      bytes: fc.uint8Array({ maxLength: 120 }),
      status: fc.constantFrom(
        NtStatus.SUCCESS,
        NtStatus.SUCCESS,
        NtStatus.UNSUCCESSFUL,
        NtStatus.BUFFER_OVERFLOW,
      ),
    })
    fc.assert(
      fc.property(fc.array(answer, { minLength: 1, maxLength: 4 }), fc.integer(), (answers, seed) => {
        const pdoHandle: DeviceSpec['pdoHandle'] = (kernel, _pdo, irp) => {
          const { minor } = irp.current
          const one = answers.find((each) => each.minor === minor)
          if (one === undefined || minor === PnpMinor.QUERY_DEVICE_RELATIONS) return null
          if (minor === PnpMinor.QUERY_PNP_DEVICE_STATE) {
            return complete(kernel, irp, one.status, one.bytes[0] ?? 0)
          }
          if (one.status !== NtStatus.SUCCESS) return complete(kernel, irp, one.status, irp.information)
          return complete(kernel, irp, NtStatus.SUCCESS, blockOf(kernel, one.bytes))
        }
        const list = answers.find((each) => each.minor === PnpMinor.QUERY_DEVICE_RELATIONS)
        const own = list === undefined ? {} : relations((kernel) => blockOf(kernel, list.bytes))
        const rig = new PnpRig(
          { id: 'r', children: [{ id: 'bad', pdoHandle, ...own }, { id: 'good' }] },
          { seed },
        )
        rig.kernel.psCreateSystemThread(() => rig.booting())
        rig.machine.wake()
        rig.machine.drain()
        const { bugCheck } = rig.kernel
        if (bugCheck !== null) expect(bugCheck.code).toBe(0xca)
        else {
          expect(rig.shown()).toContain('  good working')
          rig.end()
        }
      }),
      { numRuns: 150 },
    )
  })
})

describe('memory that runs out', () => {
  it('leaves devices without a place, nothing behind, and never a hang', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 250 }),
        fc.integer({ min: 2, max: 9 }),
        fc.integer(),
        (first, oneIn, seed) => {
          const rig = new PnpRig(
            {
              id: 'r',
              children: [
                { id: 'a', upper: [{}], children: [{ id: 'b' }] },
                { id: 'c', start: 'pend' },
              ],
            },
            { seed },
          )
          let allocations = 0
          const draws = seededRandom(`${seed}/memory`)
          const own = new Set(['PpRe', 'PpTx', 'PpDR', 'PpCa', 'PpCp', 'Devi', 'Driv', 'Irp '].map(poolTag))
          rig.kernel.parts.pool.refuse = (tag) =>
            own.has(tag) && ++allocations > first && draws.below(oneIn) === 0
          rig.boot()
          rig.machine.drain()
          rig.kernel.parts.pool.refuse = null
          expect(rig.kernel.bugCheck).toBeNull()
          // REMOVE cannot be refused: it was sent, if later.
          expect(rig.shown().filter((one) => one.endsWith('problem 38'))).toEqual([])
          rig.end()
        },
      ),
      { numRuns: 100 },
    )
  })

  it('keeps REMOVE waiting, not from being sent; and stops the system when there is none for long', () => {
    for (const tries of [3, 100_000]) {
      const rig = new PnpRig({ id: 'r', children: [{ id: 'a' }] })
      rig.boot()
      let left = 0
      const call = poolTag('PpCa')
      rig.kernel.parts.pool.refuse = (tag) => tag === call && left > 0 && left-- > 0
      const sent: number[] = []
      const disable = function* () {
        const refusal = yield* rig.kernel.pnp.disableDevice(rig.path('a'))
        sent.push(refusal === null ? 1 : 0)
      }
      // From the moment the device has agreed.
      const events = rig.events
      events.push = (...more) => {
        if (more.some((one) => one.kind === 'completed' && one.minor === PnpMinor.QUERY_REMOVE_DEVICE))
          left = tries
        return Array.prototype.push.apply(events, more)
      }
      if (tries > 1000) {
        expect(rig.machine.crash(disable)[0]).toBe(0xc2)
        continue
      }
      rig.machine.run(disable)
      expect(sent).toEqual([1])
      expect(rig.shown()).toEqual(['r working', '  a problem 22'])
      rig.kernel.parts.pool.refuse = null
      rig.end()
    }
  })
})
