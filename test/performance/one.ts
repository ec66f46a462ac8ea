/**
 * Runs one candidate of one measurement in this process: `node dist/test/performance/one.js ring ours 500 FILE`.
 * With `profile` after it, what is printed is where its time went.
 */
import '../../bin/engine.ts'
import { ALL_MEASUREMENTS } from './catalogue.ts'
import { profiled } from './profile.ts'

const [name, candidate = '', ms, file = '', how = ''] = process.argv.slice(2)
const measurement = ALL_MEASUREMENTS.find((one) => one.name === name)
if (measurement === undefined || !measurement.candidates.includes(candidate)) {
  throw new Error(`no candidate ${candidate} of a measurement ${name}`)
}
const run = () => measurement.run(candidate, Number(ms), { file })
console.log(JSON.stringify(how === 'profile' ? await profiled(run) : await run()))
