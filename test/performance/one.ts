/** Runs one candidate of one measurement in this process: `node dist/test/performance/one.js ring ours 500`. */
import type { Measurement } from './measure.ts'

const [name, candidate, ms] = process.argv.slice(2)
const { measurement } = (await import(new URL(`./${name}.js`, import.meta.url).href)) as {
  measurement: Measurement
}
console.log(JSON.stringify(await measurement.run(candidate ?? '', Number(ms ?? 500))))
