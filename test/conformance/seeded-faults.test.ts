import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import type { Fault } from '../faults/fault.ts'
import { patched } from '../faults/fault.ts'
import { FAULTS, under } from '../faults/seeded-faults.ts'
import type * as OurDrivers from '../guest/blk-driver-subjects.ts'
import { ourBareDriver, ourMiniport } from '../guest/blk-driver-subjects.ts'
import type * as OurDevice from '../host/blk-device-subject.ts'
import { deviceCases } from './device-cases.ts'
import { driverCases } from './driver-cases.ts'
import { resultLine, runRequirement } from './requirement-case.ts'

const faultyDevice = async (fault: Fault) =>
  (await import(/* @vite-ignore */ `../host/blk-device-subject.ts${under(fault)}`)) as typeof OurDevice

const faultyDrivers = async (fault: Fault) =>
  (await import(/* @vite-ignore */ `../guest/blk-driver-subjects.ts${under(fault)}`)) as typeof OurDrivers

describe('a seeded fault', () => {
  it('has an id of its own and a case to be seen by', () => {
    expect(new Set(FAULTS.map(({ id }) => id)).size).toBe(FAULTS.length)
    const clauses = new Set([...deviceCases, ...driverCases].map(({ clause }) => clause))
    expect(FAULTS.filter(({ clause }) => !clauses.has(clause)).map(({ id }) => id)).toEqual([])
  })

  it('that finds its place not at all, or twice, is refused', () => {
    const patch = { file: 'a.ts', find: 'x', replace: 'y' }
    expect(patched('axb', patch)).toBe('ayb')
    expect(() => patched('ab', patch)).toThrow('0 times in a.ts')
    expect(() => patched('xax', patch)).toThrow('2 times in a.ts')
  })

  it.each(FAULTS)('applies to the sources as they are: $id', ({ patches }) => {
    for (const patch of patches) {
      patched(readFileSync(new URL(`../../${patch.file}`, import.meta.url), 'utf8'), patch)
    }
  })
})

describe('a case over the device, with the fault seeded for it', () => {
  it.each(deviceCases.map((one) => ({ one, clause: one.clause })))('fails: $clause', async ({ one }) => {
    const faults = FAULTS.filter(({ clause }) => clause === one.clause)
    expect(faults.length).toBeGreaterThan(0)
    for (const fault of faults) {
      const { ourDevice } = await faultyDevice(fault)
      const result = await runRequirement(one, ourDevice)
      expect(result.verdict.kind, resultLine(result)).toBe('fail')
    }
  })
})

describe('a case over each driver it binds, with the fault seeded for it', () => {
  it.each(driverCases.map((one) => ({ one, clause: one.clause })))('fails: $clause', async ({ one }) => {
    const faults = FAULTS.filter(({ clause }) => clause === one.clause)
    expect(faults.length).toBeGreaterThan(0)
    for (const fault of faults) {
      const faulty = await faultyDrivers(fault)
      let bound = 0
      for (const [sound, subject] of [
        [ourBareDriver, faulty.ourBareDriver],
        [ourMiniport, faulty.ourMiniport],
      ] as const) {
        if ((await one.run(sound)).kind === 'inapplicable') continue
        bound++
        const result = await runRequirement(one, subject)
        expect(result.verdict.kind, `${subject.name}: ${resultLine(result)}`).toBe('fail')
      }
      expect(bound).toBeGreaterThan(0)
    }
  })
})
