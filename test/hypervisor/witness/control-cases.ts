/** VM-execution, exit and entry control fields that VM entry refuses: VMfail with error 7. */
import type { WitnessCase } from './cases.ts'
import { bit, check, clear, set } from './steps.ts'

const EXECUTION = '27.2.1.1'

export const CONTROL_CASES: readonly WitnessCase[] = [
  check(EXECUTION, 'the default state enters and halts'),
  check(EXECUTION, 'a reserved pin-based control is clear', clear('pinControls', bit(1))),
  check(EXECUTION, 'a pin-based control that is not supported is set', set('pinControls', bit(31))),
]
