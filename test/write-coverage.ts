import fs from 'node:fs'
import { coverage } from './coverage.ts'

fs.writeFileSync(new URL('./conformance/COVERAGE.md', import.meta.url), coverage())
