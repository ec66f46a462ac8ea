import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { APIC_2006, APIC_2010, APICV, type ApicProfile } from '../../hypervisor/apic-profile.ts'
import { HASWELL } from '../../hypervisor/vtx/capability.ts'
import { ExitReason } from '../../hypervisor/vtx/control.ts'
import { EventModel } from './event-model.ts'
import { finish, type Step, scriptMachine, steps } from './event-script.ts'

/** Every mixture of virtualization there is a control for, besides the three that have names. */
const PROFILES: readonly ApicProfile[] = [
  APIC_2006,
  APIC_2010,
  { ...APIC_2010, name: '2010 with registers', apicRegisters: true },
  { ...APICV, name: 'apicv without posting', capability: HASWELL, postedInterrupts: false },
  { ...APICV, name: 'apicv without registers', apicRegisters: false },
  APICV,
]

describe.each(PROFILES)('events on a processor of profile $name', (profile) => {
  it('are delivered as the model says, in any order of whatever guest and devices do', () => {
    fc.assert(
      fc.property(steps, (script) => {
        const program = scriptMachine(profile, script)
        expect(finish(program)).toEqual(new EventModel().run(script))
      }),
      { numRuns: 120 },
    )
  })
})

const EDGE: readonly Step[] = [
  { kind: 'route', line: 1, vector: 0x51, trigger: 'edge' },
  { kind: 'sti' },
  { kind: 'raise', line: 1 },
]
const LEVEL: readonly Step[] = [{ kind: 'route', line: 1, vector: 0x51, trigger: 'level' }, ...EDGE.slice(1)]

/** Exits of a run, without those of the routing and the final HLT. */
function exitsOf(profile: ApicProfile, script: readonly Step[]): Record<number, number> {
  const program = scriptMachine(profile, script)
  finish(program)
  const { counters } = program.machine
  const counted = counters.exits().map(({ reason, count }) => [reason, count] as const)
  return Object.fromEntries(
    counted.filter(([reason]) => reason !== ExitReason.HLT && reason !== ExitReason.EPT_VIOLATION),
  )
}

describe('what an interrupt to a running guest costs', () => {
  it('is an exit to inject it and one for its EOI in 2010', () => {
    expect(exitsOf(APIC_2010, EDGE)).toEqual({
      [ExitReason.EXTERNAL_INTERRUPT]: 1,
      [ExitReason.APIC_ACCESS]: 1,
    })
  })

  it('is nothing with virtual-interrupt delivery and posted interrupts', () => {
    expect(exitsOf(APICV, EDGE)).toEqual({})
  })

  it('is the EOI alone when the line is level-triggered, as the I/O APIC waits for it', () => {
    // Served twice: the device lowers its line at the second service.
    expect(exitsOf(APICV, LEVEL)).toEqual({ [ExitReason.VIRTUALIZED_EOI]: 2 })
  })

  it('is a window exit besides, in 2010, when RFLAGS.IF is clear as it comes', () => {
    const script: readonly Step[] = [EDGE[0] as Step, EDGE[2] as Step, { kind: 'sti' }]
    expect(exitsOf(APIC_2010, script)).toEqual({
      [ExitReason.EXTERNAL_INTERRUPT]: 1,
      [ExitReason.INTERRUPT_WINDOW]: 1,
      [ExitReason.APIC_ACCESS]: 1,
    })
  })

  it('is an exit when the task priority falls below what waits, with a TPR shadow, and none at other changes', () => {
    const script: readonly Step[] = [
      { kind: 'priority', priority: 6 },
      ...EDGE,
      { kind: 'priority', priority: 9 },
      { kind: 'priority', priority: 5 },
      { kind: 'priority', priority: 4 },
      { kind: 'priority', priority: 0 },
    ]
    expect(exitsOf(APIC_2010, script)).toEqual({
      [ExitReason.EXTERNAL_INTERRUPT]: 1,
      [ExitReason.TPR_BELOW_THRESHOLD]: 1,
      [ExitReason.APIC_ACCESS]: 1,
    })
    expect(exitsOf(APIC_2006, script)).toEqual({
      [ExitReason.EXTERNAL_INTERRUPT]: 1,
      [ExitReason.CONTROL_REGISTER]: 5,
      [ExitReason.APIC_ACCESS]: 1,
    })
    expect(exitsOf(APICV, script)).toEqual({})
  })
})
