/** Records Bochs's answers to all cases: `npx tsx test/hypervisor/witness/record.ts`. */
import { writeFileSync } from 'node:fs'
import { runBochs } from './bochs.ts'
import { CASES } from './cases.ts'
import { FIXTURE, fixtureText } from './fixture.ts'

writeFileSync(FIXTURE, fixtureText(runBochs(CASES)))
