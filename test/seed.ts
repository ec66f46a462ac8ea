import fc from 'fast-check'

/**
 * Properties draw the same cases in every run, so that a change is judged by what it changes. PARAVANE_SEED draws
 * others; `random` draws new ones in each run, which is how new cases are looked for.
 */
const asked = process.env.PARAVANE_SEED ?? '1'
if (asked !== 'random') {
  const seed = Number(asked)
  if (!Number.isInteger(seed)) throw new Error(`PARAVANE_SEED is a whole number or "random", not "${asked}"`)
  fc.configureGlobal({ ...fc.readConfigureGlobal(), seed })
}
