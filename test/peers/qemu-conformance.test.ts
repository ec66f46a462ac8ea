import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { deviceCases } from '../conformance/device-cases.ts'
import { noise } from '../conformance/disk-subject.ts'
import { resultLine, runRequirement } from '../conformance/requirement-case.ts'
import { peerOrSkip } from './peer.ts'
import { qemuDevice } from './qemu-device-subject.ts'
import { missingQemu, qemuVersion } from './qtest.ts'

const IMAGE_BYTES = 2 ** 16
const missing = missingQemu()
let folder = ''
let image = ''

beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'paravane-qemu-conformance-'))
  image = path.join(folder, 'image')
  writeFileSync(image, noise(IMAGE_BYTES, 5))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** "QEMU 7.2": the key of its known deviations. */
function implementation(): string {
  return `QEMU ${/version (\d+\.\d+)/.exec(qemuVersion())?.[1] ?? ''}`
}

describe('a known deviation', () => {
  it('is a heading of docs/disagreements.md', () => {
    const headings = readFileSync(new URL('../../docs/disagreements.md', import.meta.url), 'utf8').split('\n')
    const named = deviceCases.flatMap(({ deviations }) => Object.values(deviations ?? {}))
    expect(named.length).toBeGreaterThan(0)
    expect(named.filter((heading) => !headings.includes(`## ${heading}`))).toEqual([])
  })
})

describe("QEMU's block device, clause by clause", () => {
  it('is tried, or why not is said', (test) => {
    peerOrSkip(test, 'QEMU over qtest', missing)
  })

  it.runIf(missing === null).each(deviceCases.map((one) => ({ one, title: `${one.clause}: ${one.text}` })))(
    '$title',
    async ({ one }) => {
      const result = await runRequirement(one, qemuDevice(image), implementation())
      expect(result.expected, resultLine(result)).toBe(true)
    },
  )
})
