import { beforeAll, describe, expect, it } from 'vitest'
import { missingTool, runBochs, type WitnessRun } from './bochs.ts'
import { CASES } from './cases.ts'
import { CAPABILITIES } from './defaults.ts'
import { recordedRun } from './fixture.ts'

const missing = missingTool()
const required = process.env['PARAVANE_REQUIRE_PEERS'] === '1'

describe('the recorded witness', () => {
  it('answers every step of every case, and nothing else', () => {
    const steps = CASES.map((one) => ({ name: one.name, steps: one.steps.length }))
    const answers = recordedRun().cases.map((one) => ({ name: one.name, steps: one.outcomes.length }))
    expect(answers).toEqual(steps)
    expect(new Set(steps.map((one) => one.name)).size).toBe(steps.length)
  })

  it('has the capabilities that the cases were written for', () => {
    expect(recordedRun().capabilities).toEqual(CAPABILITIES)
  })
})

describe('Bochs answers today as it was recorded', () => {
  it('is present, or its absence is said', ({ skip }) => {
    if (missing === null) return
    if (required) expect.fail(`${missing} is missing and PARAVANE_REQUIRE_PEERS is 1`)
    console.warn(`witness: Bochs is not asked, ${missing} is missing`)
    skip(`${missing} is missing`)
  })

  describe.runIf(missing === null)('case by case', () => {
    let run: WitnessRun = { capabilities: {}, cases: [] }
    beforeAll(() => {
      run = runBochs(CASES)
    })

    it('with the same capabilities', () => {
      expect(run.capabilities).toEqual(CAPABILITIES)
    })

    const recorded = recordedRun()
    it.each(recorded.cases.map((one, index) => ({ name: one.name, index })))('$name', ({ index }) => {
      expect(run.cases[index]).toEqual(recorded.cases[index])
    })
  })
})
