import { describe, expect, it } from 'vitest'
import { REQUIREMENTS } from '../../protocol/requirement.ts'
import { coverage } from '../coverage.ts'
import { importsOf, readText, sourceFiles } from '../source-text.ts'
import { deviceCases } from './device-cases.ts'
import { driverCases } from './driver-cases.ts'
import type { RequirementCase } from './requirement-case.ts'
import { Broken, Inapplicable, resultLine, runRequirement, verdictOf } from './requirement-case.ts'

const CASES = [...deviceCases, ...driverCases]

describe('the clauses under test', () => {
  it('are those of COVERAGE.md', () => {
    expect(readText('test/conformance/COVERAGE.md')).toBe(coverage())
  })

  it('are each there once, and name the party they bind', () => {
    expect(new Set(CASES.map(({ clause }) => clause)).size).toBe(CASES.length)
    const other = CASES.filter(({ clause, party }) => clause.split('.')[1] !== party)
    expect(other.map(({ clause }) => clause)).toEqual([])
  })

  it('name rules that bind the same party', () => {
    const other = CASES.filter(({ rule, party }) => rule !== undefined && REQUIREMENTS[rule].party !== party)
    expect(other.map(({ clause, rule }) => `${clause}: ${rule}`)).toEqual([])
  })
})

describe('the literal opposites', () => {
  it('import protocol/ and themselves, nothing of the rooms under test', () => {
    const suites = sourceFiles('test/conformance').filter(
      ({ path }) => !path.endsWith('.test.ts') && !/\/(disk-|spec-|index)/.test(path),
    )
    expect(suites.length).toBeGreaterThan(12)
    const foreign = suites.flatMap((file) =>
      importsOf(file)
        .filter(({ target }) => target === null || !/^(?:protocol|test\/conformance)\//.test(target))
        .map(({ name }) => `${file.path}: ${name}`),
    )
    expect(foreign).toEqual([])
  })
})

describe('a verdict', () => {
  it('is made of what a case throws', async () => {
    const verdicts = [
      await verdictOf(async () => {}),
      await verdictOf(() => Promise.reject(new Broken('saw 1'))),
      await verdictOf(() => Promise.reject(new Inapplicable('no FLUSH'))),
      await verdictOf(() => Promise.reject(new Error('gone'))),
    ]
    expect(verdicts.map(({ kind }) => kind)).toEqual(['pass', 'fail', 'inapplicable', 'error'])
  })

  it.each([
    ['pass', undefined, true],
    ['fail', undefined, false],
    ['inapplicable', undefined, true],
    ['error', undefined, false],
    ['pass', 'QEMU 1', false],
    ['fail', 'QEMU 1', true],
    ['inapplicable', 'QEMU 1', false],
    ['error', 'QEMU 1', false],
    ['fail', 'QEMU 2', false],
  ] as const)('%s over %s: expected is %s', async (kind, implementation, expected) => {
    const one: RequirementCase<null> = {
      clause: 'core.device.example.1',
      section: 'VIRTIO 1.2 section 0',
      party: 'device',
      level: 'must',
      text: 'Something holds',
      gate: [],
      observed: 'looks',
      deviations: { 'QEMU 1': 'a heading' },
      run: async () =>
        ({
          pass: { kind: 'pass' },
          fail: { kind: 'fail', seen: 'saw 1' },
          inapplicable: { kind: 'inapplicable', because: 'no' },
          error: { kind: 'error', error: new Error('gone') },
        })[kind] as Awaited<ReturnType<RequirementCase<null>['run']>>,
    }
    const result = await runRequirement(one, null, implementation)
    expect(result.expected).toBe(expected)
    expect(resultLine(result)).toContain(
      'core.device.example.1 (must, VIRTIO 1.2 section 0): Something holds',
    )
  })
})
