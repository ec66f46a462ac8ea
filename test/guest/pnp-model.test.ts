import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { WINDOWS_VERSIONS, type WindowsVersion } from '../../guest/kernel/version.ts'
import { PnpOracle } from './pnp-oracle.ts'
import { PnpRig } from './pnp-rig.ts'
import { PnpRules } from './pnp-rules.ts'
import type { DeviceSpec, LayerSpec } from './scripted-drivers.ts'

/** Nothing, but for one in so many. */
function rarely<T>(oneIn: number, arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> {
  return fc.oneof({ weight: oneIn - 1, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary })
}

const layer: fc.Arbitrary<LayerSpec> = fc
  .record({
    add: rarely(20, fc.constant('fail' as const)),
    start: rarely(3, fc.constantFrom('fail' as const, 'pend', 'pend', 'pend-fail', 'wait')),
    refuses: rarely(10, fc.subarray(['stop', 'remove'] as const, { minLength: 1 })),
  })
  .map(({ add, start, refuses }) => ({
    ...(add === undefined ? {} : { add }),
    ...(start === undefined ? {} : { start }),
    ...(refuses === undefined ? {} : { refuses }),
  }))

const tree: fc.Arbitrary<DeviceSpec> = fc
  .array(
    fc.record({
      parent: fc.nat(),
      own: layer,
      lower: fc.array(layer, { maxLength: 2 }),
      upper: fc.array(layer, { maxLength: 2 }),
      filtered: fc.boolean(),
    }),
    { minLength: 1, maxLength: 6 },
  )
  .map((nodes) => {
    const children: DeviceSpec[][] = nodes.map(() => [])
    let root: DeviceSpec = { id: 'r' }
    // From the last, so that every node's children are there before it is made.
    for (let index = nodes.length - 1; index >= 0; index--) {
      const { parent, own, lower, upper, filtered } = nodes[index] as (typeof nodes)[number]
      const made: DeviceSpec = {
        id: index === 0 ? 'r' : String.fromCharCode(96 + index),
        ...(index === 0 ? {} : own),
        // A root that does not start leaves nothing to look at.
        lower: index === 0 ? [] : lower,
        upper: index === 0 ? [] : upper,
        ...(filtered ? { className: 'filtered' } : {}),
        children: children[index] as DeviceSpec[],
      }
      if (index === 0) root = made
      else children[parent % index]?.unshift(made)
    }
    return root
  })

const operation = fc.record({
  what: fc.constantFrom(
    'unplug',
    'plug',
    'disable',
    'enable',
    'remove',
    'rescan',
    'rebalance',
    'open',
    'close',
  ),
  which: fc.nat({ max: 20 }),
})

const versions: readonly WindowsVersion[] = Object.values(WINDOWS_VERSIONS)

function play(
  root: DeviceSpec,
  operations: readonly { what: string; which: number }[],
  version: WindowsVersion,
  seed: number,
): void {
  const rig = new PnpRig(root, { seed, version })
  const oracle = new PnpOracle(root)
  const overlapping = version.asynchronousStart
  const rules = new PnpRules(root, { overlapping, containerId: version.containerId }, (key) =>
    rig.open.some((file) => file.key === key),
  )
  const check = (what: string): void => {
    rig.machine.drain()
    rig.machine.run(() => rig.kernel.pnp.settle())
    rules.see(rig.events.splice(0))
    rules.settled()
    expect(rules.broken, what).toEqual([])
    expect(rig.shown(), what).toEqual(oracle.shown())
  }
  rig.boot()
  oracle.boot()
  check('boot')
  const ids = rig.drivers.specs.map((spec) => spec.id)
  for (const { what, which } of operations) {
    const id = ids[which % ids.length] as string
    act(rig, oracle, what, id, which)
    check(`${what} ${id}`)
  }
  rig.end()
  rules.see(rig.events.splice(0))
  expect(rules.broken).toEqual([])
}

function act(rig: PnpRig, oracle: PnpOracle, what: string, id: string, which: number): void {
  const { machine, kernel } = rig
  const { pnp } = kernel
  const reason = (refusal: unknown): unknown =>
    typeof refusal === 'object' && refusal !== null && 'reason' in refusal ? refusal.reason : refusal
  switch (what) {
    case 'plug':
    case 'unplug':
      if (id === 'r') return
      rig.plug(id, what === 'plug')
      oracle.plug(id, what === 'plug')
      return
    case 'disable':
      expect(reason(machine.run(() => pnp.disableDevice(rig.path(id))))).toBe(oracle.remove(id, 22))
      return
    case 'remove':
      expect(reason(machine.run(() => pnp.removeDevice(rig.path(id))))).toBe(oracle.remove(id, 0))
      return
    case 'enable':
      expect(reason(machine.run(() => pnp.enableDevice(rig.path(id))))).toBe(oracle.enable(id))
      return
    case 'rebalance':
      expect(reason(machine.run(() => pnp.rebalance(rig.path(id))))).toBe(oracle.rebalance(id))
      return
    case 'rescan':
      machine.run(() => pnp.rescan())
      oracle.rescan()
      return
    case 'open':
      expect(rig.openDevice(id) === 0).toBe(oracle.open(id))
      return
    case 'close': {
      const index = which % Math.max(1, rig.open.length)
      rig.closeOne(index)
      oracle.close(index)
    }
  }
}

describe('the PnP manager', () => {
  it('sends every stack what the rules say, in their order, and ends with the tree they lead to', () => {
    fc.assert(
      fc.property(
        tree,
        fc.array(operation, { maxLength: 14 }),
        fc.constantFrom(...versions),
        fc.integer({ min: 0, max: 0xffff }),
        play,
      ),
      { numRuns: 250 },
    )
  })
})
