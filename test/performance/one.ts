/** Runs one candidate of one measurement in this process: `node dist/test/performance/one.js ring ours 500 FILE`. */
import '../../bin/engine.ts'
import { ALL_MEASUREMENTS } from './catalogue.ts'

const [name, candidate = '', ms, file = ''] = process.argv.slice(2)
const measurement = ALL_MEASUREMENTS.find((one) => one.name === name)
if (measurement === undefined || !measurement.candidates.includes(candidate)) {
  throw new Error(`no candidate ${candidate} of a measurement ${name}`)
}
console.log(JSON.stringify(await measurement.run(candidate, Number(ms), { file })))
