import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { NtStatus } from '../../guest/kernel/nt-status.ts'
import { allocateRelations, RELATIONS_MAX, readRelations } from '../../guest/kernel/pnp/device-relations.ts'
import { allocateText, allocateTextList, readText, readTextList } from '../../guest/kernel/pnp/pool-text.ts'
import {
  allocateResourceList,
  type Resource,
  readResourceList,
} from '../../guest/kernel/pnp/resource-list.ts'
import {
  allocateRequirements,
  type Requirement,
  readRequirements,
} from '../../guest/kernel/pnp/resource-requirements.ts'
import { findStackPlan } from '../../guest/kernel/pnp/service-registry.ts'
import type { Field } from '../../protocol/layout.ts'
import { Machine } from './machine.ts'

const trigger = fc.constantFrom('level' as const, 'edge' as const)
const word = fc.integer({ min: 0, max: 0xffff_ffff })
const address = fc.integer({ min: 0, max: 2 ** 52 })
const range = fc.record({
  kind: fc.constantFrom('memory' as const, 'port' as const),
  start: address,
  lengthBytes: word,
})
const interrupt = fc.record({
  kind: fc.constant('interrupt' as const),
  level: word,
  vector: word,
  trigger,
  shared: fc.boolean(),
})
const resources: fc.Arbitrary<Resource[]> = fc.array(fc.oneof(range, interrupt), { maxLength: 8 })
const option = { alternative: fc.boolean(), preferred: fc.boolean() }
const requirement: fc.Arbitrary<Requirement> = fc.oneof(
  fc.record({
    kind: fc.constantFrom('memory' as const, 'port' as const),
    ...option,
    lengthBytes: word,
    alignment: word,
    minimum: address,
    maximum: address,
  }),
  fc.record({
    kind: fc.constant('interrupt' as const),
    ...option,
    minimum: word,
    maximum: word,
    trigger,
    shared: fc.boolean(),
  }),
)
const text = fc.string({ unit: fc.constantFrom('a', 'B', '\\', '&', '\u20ac'), minLength: 1, maxLength: 40 })

describe('the records of Plug and Play', () => {
  const { kernel } = new Machine()
  const { parts } = kernel
  const word32 = (at: number, value: number) => parts.memory.window.putLe32(0 as Field<'le32'>, value, at)

  it('hold a resource list as it was given, and no list that lies past its block', () => {
    fc.assert(
      fc.property(resources, fc.integer({ min: 1, max: 0xffff_ffff }), (given, more) => {
        const at = allocateResourceList(parts, given)
        expect(readResourceList(parts, at)).toEqual(given)
        word32(at + 16, Math.min(0xffff_ffff, given.length + more))
        expect(readResourceList(parts, at)).toBeNull()
        kernel.exFreePool(at)
      }),
    )
    expect(readResourceList(parts, 0)).toEqual([])
  })

  it('put START’s list where wdm.h has it', () => {
    const at = allocateResourceList(parts, [
      { kind: 'memory', start: 0x1_2345_6000, lengthBytes: 0x200 },
      { kind: 'interrupt', level: 5, vector: 0x51, trigger: 'edge', shared: true },
    ])
    const { view } = parts.memory.window
    // Count, interface type, bus, version and revision, count; then 20 bytes each.
    expect([0, 4, 8, 12, 16].map((offset) => view.getUint32(at + offset, true))).toEqual([
      1, 0, 0, 0x10001, 2,
    ])
    expect([20, 24, 28, 32].map((offset) => view.getUint32(at + offset, true))).toEqual([
      0x0103, 0x2345_6000, 1, 0x200,
    ])
    expect([40, 44, 48, 52].map((offset) => view.getUint32(at + offset, true))).toEqual([
      0x1_0302, 5, 0x51, 1,
    ])
    kernel.exFreePool(at)
  })

  it('hold requirements as they were given, and no list that lies past its block', () => {
    fc.assert(
      fc.property(fc.array(fc.array(requirement, { maxLength: 4 }), { maxLength: 3 }), (given) => {
        const at = allocateRequirements(parts, given)
        expect(readRequirements(parts, at)).toEqual(given)
        word32(at + 28, given.length + 1)
        expect(readRequirements(parts, at)).toBeNull()
        kernel.exFreePool(at)
      }),
    )
    expect(readRequirements(parts, 0)).toEqual([])
  })

  it('hold texts and lists of texts, and none that does not end', () => {
    fc.assert(
      fc.property(text, fc.array(text, { maxLength: 5 }), (one, many) => {
        const at = allocateText(parts, one)
        expect(readText(parts, at)).toBe(one)
        parts.memory.bytes.fill(0x41, at, at + parts.pool.lengthOf(at))
        expect(readText(parts, at)).toBeNull()
        kernel.exFreePool(at)
        const list = allocateTextList(parts, many)
        expect(readTextList(parts, list)).toEqual(many)
        // The last null gone, the list runs on.
        parts.memory.bytes.fill(0x41, list + parts.pool.lengthOf(list) - 2, list + parts.pool.lengthOf(list))
        expect(readTextList(parts, list)).toBeNull()
        kernel.exFreePool(list)
      }),
    )
  })

  it('merge relations, take one reference for each device, and refuse a list longer than its block', () => {
    const machine = new Machine()
    const { parts: own } = machine.kernel
    machine.run(function* () {
      yield* machine.kernel.ioLoadDriver('bus', (driver) => {
        const devices = [0, 1, 2].map(() => machine.kernel.ioCreateDevice(driver))
        const [a, b, c] = devices
        if (typeof a !== 'object' || typeof b !== 'object' || typeof c !== 'object')
          return NtStatus.UNSUCCESSFUL
        const first = allocateRelations(own, [a])
        const merged = allocateRelations(own, [b, c], first)
        expect(own.pool.owns(first)).toBe(false)
        expect(readRelations(own, merged)).toEqual([a.at, b.at, c.at])
        expect([a, b, c].map((device) => device.referenceCount)).toEqual([1, 1, 1])
        for (const count of [4, RELATIONS_MAX + 1, 0xffff_ffff]) {
          own.memory.window.putLe32(0 as Field<'le32'>, count, merged)
          expect(readRelations(own, merged)).toBeNull()
        }
        machine.kernel.exFreePool(merged)
        return NtStatus.SUCCESS
      })
    })
  })
})

describe('a driver', () => {
  it('is chosen by the most specific ID, whatever the order of drivers, without regard to case', () => {
    const services = [{ name: 'a', entry: () => NtStatus.SUCCESS }]
    const registry = {
      services,
      drivers: [
        { hardwareIds: ['GENERIC'], service: 'generic' },
        { hardwareIds: ['acpi\\lnro0005'], service: 'first', className: 'scsi', upperFilters: ['up'] },
        { hardwareIds: ['ACPI\\LNRO0005'], service: 'second' },
      ],
      classes: [{ name: 'scsi', lowerFilters: ['classLow'], upperFilters: ['classUp'] }],
    }
    const plan = findStackPlan(registry, ['ACPI\\LNRO0005'], ['GENERIC'])
    expect(plan?.match.service).toBe('first')
    expect(plan?.lowerFilters).toEqual(['classLow'])
    expect(plan?.upperFilters).toEqual(['up', 'classUp'])
    expect(findStackPlan(registry, ['ACPI\\X'], ['generic'])?.match.service).toBe('generic')
    expect(findStackPlan(registry, ['ACPI\\X'], [])).toBeNull()
  })
})
