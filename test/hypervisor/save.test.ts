import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { APIC_2010, APICV } from '../../hypervisor/apic-profile.ts'
import { Machine } from '../../hypervisor/machine.ts'
import { loadPages, pagesInvalid, savePages } from '../../hypervisor/page-image.ts'
import { GuestMemory } from '../../protocol/memory.ts'
import type { Plain } from '../../protocol/platform.ts'
import type { TraceEvent } from '../../protocol/trace.ts'
import { finish, type Step, scriptMachine, steps } from './event-script.ts'

/** A trace of its own for each machine. */
function recorder() {
  const events: TraceEvent[] = []
  return { events, trace: { on: true, emit: (event: TraceEvent) => void events.push(event) } }
}

/** Through text, as a file would hold it. */
function moved(state: Plain): Plain {
  return JSON.parse(JSON.stringify(state)) as Plain
}

describe.each([APIC_2010, APICV])('a machine of profile $name', (profile) => {
  it('goes on after save and load as it would have, saved after any turn', () => {
    fc.assert(
      fc.property(steps, fc.nat(30), (script, turns) => {
        const whole = recorder()
        finish(scriptMachine(profile, script, whole.trace))

        const first = recorder()
        const program = scriptMachine(profile, script, first.trace)
        for (let turn = 0; turn < turns && program.machine.clock.step(); turn++);
        const state = moved(program.machine.save())
        const second = recorder()
        const other = scriptMachine(profile, script, second.trace)
        expect(other.machine.load(state)).toBeNull()
        expect(moved(other.machine.save())).toEqual(state)
        finish(other)
        expect([...first.events, ...second.events]).toEqual(whole.events)
        expect(other.done).toBe(true)
      }),
      { numRuns: 50 },
    )
  })

  it('may be loaded over a machine that is somewhere else altogether', () => {
    fc.assert(
      fc.property(steps, steps, fc.nat(20), (script, elsewhere, turns) => {
        const program = scriptMachine(profile, script)
        for (let turn = 0; turn < turns && program.machine.clock.step(); turn++);
        const state = moved(program.machine.save())
        const log = finish(program)
        const other = scriptMachine(profile, script)
        // Same program, another history: what it did with another script's lines and vectors is forgotten.
        const stranger = scriptMachine(profile, elsewhere)
        finish(stranger)
        expect(other.machine.load(moved(stranger.machine.save()))).toBeNull()
        expect(other.machine.load(state)).toBeNull()
        expect(finish(other)).toEqual(log)
      }),
      { numRuns: 30 },
    )
  })
})

const SCRIPT: readonly Step[] = [
  { kind: 'route', line: 1, vector: 0x51, trigger: 'level' },
  { kind: 'raise', line: 1 },
  { kind: 'yield' },
  { kind: 'sti' },
]

describe('memory as data', () => {
  it('leaves out pages of zeros, and no other: not one of negative zeros or denormal numbers', () => {
    const bytes = new Uint8Array(5 * 4096)
    bytes[4096 + 7] = 0x80
    bytes[2 * 4096] = 1
    bytes[4 * 4096 + 4095] = 0xff
    const state = savePages(bytes) as { readonly pages: Record<string, string> }
    expect(Object.keys(state.pages)).toEqual(['1', '2', '4'])
    const other = new Uint8Array(bytes.length).fill(3)
    expect(pagesInvalid(other, state)).toBeNull()
    loadPages(other, state)
    expect(other).toEqual(bytes)
  })
})

describe('a state that is refused', () => {
  /** Every place in a state, down to the members of each part. */
  function places(state: Plain, path: readonly string[] = []): readonly (readonly string[])[] {
    if (typeof state !== 'object' || state === null || Array.isArray(state) || path.length === 2)
      return [path]
    return Object.entries(state).flatMap(([name, value]) => places(value ?? null, [...path, name]))
  }

  it('leaves the machine as it was, whichever part is damaged', () => {
    const program = scriptMachine(APICV, SCRIPT)
    program.machine.clock.step()
    const good = moved(program.machine.save())
    const other = scriptMachine(APICV, SCRIPT)
    const before = moved(other.machine.save())
    // What a program keeps is its own to check, and VMX state is the processor's.
    const damaged = places(good).filter(([part, member]) => part !== 'program' && member !== 'vmx')
    expect(damaged.length).toBeGreaterThan(30)
    for (const path of damaged) {
      const bad = moved(good) as Record<string, Plain>
      let parent = bad
      for (const name of path.slice(0, -1)) parent = parent[name] as Record<string, Plain>
      parent[path.at(-1) as string] = { strange: true }
      expect(other.machine.load(bad), path.join('.')).toEqual(expect.any(String))
      expect(moved(other.machine.save())).toEqual(before)
    }
  })

  it('is one of another profile, another memory, or nothing at all', () => {
    const { machine } = scriptMachine(APICV, SCRIPT)
    const state = machine.save()
    expect(scriptMachine(APIC_2010, SCRIPT).machine.load(state)).toMatch(/"apicv", not "2010"/)
    expect(new Machine({ ram: GuestMemory.ofBytes(2 ** 19) }).load(state)).toMatch(/bytes/)
    for (const nothing of [null, 1, 'state', []]) expect(machine.load(nothing)).toEqual(expect.any(String))
  })
})

describe('a machine that cannot be saved', () => {
  it('says why: a program without save, a timer without a name, something held outside', () => {
    const machine = new Machine({ ram: GuestMemory.ofBytes(2 ** 16) })
    expect(machine.unsaved).toBeNull()
    const timer = machine.clock.after(1, () => {})
    expect(machine.unsaved).toMatch(/1 timers without a name/)
    timer.cancel()
    const release = machine.clock.external('a read')
    expect(machine.unsaved).toMatch(/"a read"/)
    expect(machine.load({})).toMatch(/in use/)
    release()
    machine.clock.defer(() => {})
    expect(() => machine.save()).toThrow(/1 turns without a name/)
    machine.drain()
    machine.start({ run: (guest) => guest.halt() })
    expect(machine.unsaved).toMatch(/program cannot be saved/)
  })
})
