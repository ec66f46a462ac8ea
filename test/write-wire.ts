import { writeFileSync } from 'node:fs'
import * as protocol from '../protocol/index.ts'

/** Writes `protocol/WIRE.md` afresh. The rooms touch no file, so this stands here. */
writeFileSync(new URL('../protocol/WIRE.md', import.meta.url), protocol.wire(protocol, protocol.REQUIREMENTS))
