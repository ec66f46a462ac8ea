/** Writes fixtures/linux-uapi.json anew from the headers installed here: `npx tsx test/peers/record-linux-uapi.ts`. */
import { writeFileSync } from 'node:fs'
import { NOT_IN_LINUX } from './linux-names.ts'
import { askLinux, declarations, FIXTURE, fixtureText, virtioExports } from './linux-uapi.ts'

const names = [...declarations(await virtioExports()).keys()].filter((name) => !(name in NOT_IN_LINUX))
writeFileSync(FIXTURE, fixtureText(askLinux(names)))
