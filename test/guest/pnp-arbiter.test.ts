import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Arbiter } from '../../guest/kernel/pnp/arbiter.ts'
import type { Resource } from '../../guest/kernel/pnp/resource-list.ts'
import type { Requirement } from '../../guest/kernel/pnp/resource-requirements.ts'

/** Small enough to try everything: 12 ports, 4 lines. */
const PORTS = 12
const LINES = 4

const small = (max: number) => fc.integer({ min: 0, max })
const trigger = fc.constantFrom('level' as const, 'edge' as const)
const range = fc
  .record({
    lengthBytes: fc.integer({ min: 1, max: 5 }),
    alignment: fc.constantFrom(0, 1, 2, 4),
    a: small(PORTS - 1),
    b: small(PORTS - 1),
  })
  .map(({ a, b, ...rest }) => ({
    kind: 'port' as const,
    minimum: Math.min(a, b),
    maximum: Math.max(a, b),
    ...rest,
  }))
const line = fc
  .record({ trigger, shared: fc.boolean(), a: small(LINES - 1), b: small(LINES - 1) })
  .map(({ a, b, ...rest }) => ({
    kind: 'interrupt' as const,
    minimum: Math.min(a, b),
    maximum: Math.max(a, b),
    ...rest,
  }))
const requirement: fc.Arbitrary<Requirement> = fc
  .tuple(fc.oneof(range, line), fc.boolean(), fc.boolean())
  .map(([one, alternative, preferred]) => ({ ...one, alternative, preferred }))
const list = fc.array(requirement, { minLength: 1, maxLength: 4 })

type Held = { owner: number; resource: Resource }

function conflicts(a: Resource, b: Resource): boolean {
  if (a.kind === 'interrupt' && b.kind === 'interrupt') {
    return a.level === b.level && !(a.shared && b.shared && a.trigger === b.trigger)
  }
  if (a.kind === 'interrupt' || b.kind === 'interrupt' || a.kind !== b.kind) return false
  return a.start < b.start + b.lengthBytes && b.start < a.start + a.lengthBytes
}

/** Every resource that meets a requirement. */
function candidates(one: Requirement): Resource[] {
  const found: Resource[] = []
  if (one.kind === 'interrupt') {
    for (let at = one.minimum; at <= one.maximum; at++) {
      found.push({ kind: 'interrupt', level: at, vector: at, trigger: one.trigger, shared: one.shared })
    }
    return found
  }
  for (let start = one.minimum; start + one.lengthBytes - 1 <= one.maximum; start++) {
    if (start % Math.max(1, one.alignment) === 0)
      found.push({ kind: one.kind, start, lengthBytes: one.lengthBytes })
  }
  return found
}

function groups(requirements: readonly Requirement[]): Requirement[][] {
  const made: Requirement[][] = []
  for (const one of requirements) {
    if (one.alternative === true && made.length > 0) made.at(-1)?.push(one)
    else made.push([one])
  }
  return made
}

describe('the arbiter', () => {
  it('gives nobody what another has, only what was asked for, and what it gave back is free', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(small(3), fc.boolean(), fc.array(list, { minLength: 1, maxLength: 2 })), {
          maxLength: 12,
        }),
        (steps) => {
          const arbiter = new Arbiter()
          let held: Held[] = []
          for (const [owner, release, lists] of steps) {
            if (release || held.some((one) => one.owner === owner)) {
              arbiter.release(owner)
              held = held.filter((one) => one.owner !== owner)
              continue
            }
            const assigned = arbiter.assign(owner, lists)
            if (assigned === null) continue
            for (const resource of assigned) {
              expect(held.some((one) => conflicts(one.resource, resource))).toBe(false)
              held.push({ owner, resource })
            }
            const met = lists.some((one) => {
              const each = groups(one)
              return (
                each.length === assigned.length &&
                each.every((group, index) =>
                  group.some((option) =>
                    candidates(option).some(
                      (resource) => JSON.stringify(resource) === JSON.stringify(assigned[index]),
                    ),
                  ),
                )
              )
            })
            expect(met).toBe(true)
          }
          // What is held now is refused to others, and free once it is released.
          for (const { owner, resource } of held) {
            const exclusive = resource.kind === 'interrupt' ? { ...resource, shared: false } : resource
            expect(arbiter.reserve('other', [exclusive])).toBe(false)
            if (resource.kind === 'interrupt') expect(arbiter.holdsLine(resource.level)).toBe(true)
            expect(owner).not.toBe('other')
          }
          for (let owner = 0; owner <= 3; owner++) arbiter.release(owner)
          expect(arbiter.reserve('all', [{ kind: 'port', start: 0, lengthBytes: PORTS }])).toBe(true)
          for (let at = 0; at < LINES; at++) expect(arbiter.holdsLine(at)).toBe(false)
        },
      ),
    )
  })

  it('finds a window wherever there is one, for one requirement', () => {
    fc.assert(
      fc.property(fc.array(range, { maxLength: 3 }), requirement, (before, wanted) => {
        const arbiter = new Arbiter()
        const held: Resource[] = []
        for (const [owner, one] of before.entries()) held.push(...(arbiter.assign(owner, [[one]]) ?? []))
        const free = candidates(wanted).filter(
          (resource) => !held.some((other) => conflicts(other, resource)),
        )
        const assigned = arbiter.assign('new', [[wanted]])
        // Addresses from below, a line nobody has before one that is shared.
        expect(assigned).toEqual(free.length === 0 ? null : [free[0]])
      }),
    )
  })

  it('goes back when a later requirement cannot be met with the first choice', () => {
    const arbiter = new Arbiter()
    const at = (start: number, rest: object = {}): Requirement => ({
      kind: 'port',
      lengthBytes: 4,
      alignment: 1,
      minimum: start,
      maximum: start + 3,
      ...rest,
    })
    // The preferred alternative of the first stands where the second has to be.
    const lists = [[at(0), at(4, { alternative: true, preferred: true }), at(4)]]
    expect(arbiter.assign('a', lists)).toEqual([
      { kind: 'port', start: 0, lengthBytes: 4 },
      { kind: 'port', start: 4, lengthBytes: 4 },
    ])
    arbiter.release('a')
    expect(arbiter.assign('a', [[at(0), at(4, { alternative: true, preferred: true })]])).toEqual([
      { kind: 'port', start: 4, lengthBytes: 4 },
    ])
    // The second list, when the first cannot be met; and nothing is kept of the first.
    expect(arbiter.assign('b', [[at(0), at(4)], [at(8)]])).toEqual([
      { kind: 'port', start: 8, lengthBytes: 4 },
    ])
    expect(arbiter.reserve('c', [{ kind: 'port', start: 0, lengthBytes: 4 }])).toBe(true)
  })

  it('takes all of a boot configuration or nothing, and nothing that makes no sense', () => {
    const arbiter = new Arbiter()
    arbiter.reserve('a', [{ kind: 'memory', start: 0x1000, lengthBytes: 0x1000 }])
    const window = { kind: 'memory' as const, start: 0x4000, lengthBytes: 0x1000 }
    expect(arbiter.reserve('b', [window, { kind: 'memory', start: 0x1fff, lengthBytes: 1 }])).toBe(false)
    expect(arbiter.reserve('c', [window])).toBe(true)
    const nonsense: readonly Resource[] = [
      { kind: 'memory', start: 0x9000, lengthBytes: 0 },
      { kind: 'memory', start: -1, lengthBytes: 4 },
      { kind: 'memory', start: Number.NaN, lengthBytes: 4 },
      { kind: 'port', start: 0xffff, lengthBytes: 2 },
      { kind: 'memory', start: 2 ** 52, lengthBytes: 1 },
    ]
    for (const resource of nonsense) expect(arbiter.reserve('d', [resource])).toBe(false)
  })

  it('gives up on a search that would not end', () => {
    const arbiter = new Arbiter()
    const wide: Requirement[] = []
    for (let group = 0; group < 12; group++) {
      for (let each = 0; each < 6; each++) {
        wide.push({
          kind: 'port',
          lengthBytes: 1,
          alignment: 1,
          minimum: 0,
          maximum: 0xffff,
          alternative: each > 0,
        })
      }
    }
    wide.push({ kind: 'port', lengthBytes: 1, alignment: 1, minimum: 1, maximum: 0 })
    expect(arbiter.assign('a', [wide])).toBeNull()
    const everyLine: Requirement = {
      kind: 'interrupt',
      minimum: 0,
      maximum: 0xffff_ffff,
      trigger: 'edge',
      shared: false,
    }
    expect(arbiter.assign('a', [[everyLine]])).toHaveLength(1)
  })
})
