import { deviceCases } from './conformance/device-cases.ts'
import { driverCases } from './conformance/driver-cases.ts'
import { coverageTable } from './conformance/requirement-case.ts'

/** The text of `test/conformance/COVERAGE.md`. */
export function coverage(): string {
  return `# Clauses under test

Written by \`npx tsx test/write-coverage.ts\`; a test compares. A clause's name says who is bound, where it stands and
which it is there; the sections are those of VIRTIO 1.2 unless a case says 1.3.

## Devices: ${deviceCases.length} clauses

${coverageTable(deviceCases)}

## Drivers: ${driverCases.length} clauses

${coverageTable(driverCases)}
`
}
