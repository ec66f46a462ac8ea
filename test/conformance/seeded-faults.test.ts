import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import type { Fault } from '../faults/fault.ts'
import { patched } from '../faults/fault.ts'
import { FAULTS, under } from '../faults/seeded-faults.ts'
import { deviceCases } from './device-cases.ts'
import type { DeviceSubject } from './device-subject.ts'
import { resultLine, runRequirement } from './requirement-case.ts'

const faultyDevice = async (fault: Fault) =>
  (await import(/* @vite-ignore */ `../host/blk-device-subject.ts${under(fault)}`)) as {
    ourDevice: DeviceSubject
  }

describe('a seeded fault', () => {
  it('has an id of its own and a case to be seen by', () => {
    expect(new Set(FAULTS.map(({ id }) => id)).size).toBe(FAULTS.length)
    const clauses = new Set(deviceCases.map(({ clause }) => clause))
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
