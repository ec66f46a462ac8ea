import { describe, expect, it } from 'vitest'
import { HASWELL } from '../../../hypervisor/vtx/capability.ts'
import { CASES } from './cases.ts'
import { DIFFERENCES } from './differences.ts'
import { recordedRun } from './fixture.ts'
import { runModel } from './model.ts'

const recorded = recordedRun()
const differs = new Set(DIFFERENCES.map((one) => one.name))

describe('our model answers as Bochs does', () => {
  it('with the same capabilities', () => {
    expect(HASWELL.msrs).toEqual(recorded.capabilities)
  })

  it('but for differences that name a case each', () => {
    const names = new Set(CASES.map((one) => one.name))
    expect(DIFFERENCES.filter((one) => !names.has(one.name))).toEqual([])
    expect(differs.size).toBe(DIFFERENCES.length)
  })

  it.each(CASES.map((one, index) => ({ name: one.name, one, index })))('$name', ({ name, one, index }) => {
    const ours = runModel(one)
    if (differs.has(name)) expect(ours).not.toEqual(recorded.cases[index])
    else expect(ours).toEqual(recorded.cases[index])
  })
})
