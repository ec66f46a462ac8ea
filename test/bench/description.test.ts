import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  BadDescription,
  type BenchDescription,
  checkDescription,
  PROFILE_NAMES,
  WINDOWS_NAMES,
} from '../../bench/description.ts'
import { VIRTIO_VERSIONS } from '../../protocol/virtio/features.ts'

const disk = fc.constantFrom(
  'memory',
  'memory:size=1M | delay:ms=2',
  { kind: 'overlay', over: { kind: 'memory', size: '2M' } },
  { spec: 'memory:size=4M', write: true },
  { spec: { kind: 'memory', size: 65536 } },
)

const description = fc.record(
  {
    seed: fc.maxSafeNat(),
    disks: fc.array(disk, { maxLength: 16 }),
    windows: fc.constantFrom(...WINDOWS_NAMES),
    profile: fc.constantFrom(...PROFILE_NAMES),
    preemption: fc.boolean(),
    virtio: fc.constantFrom(...VIRTIO_VERSIONS),
    memoryBytes: fc.integer({ min: 6144, max: 524_288 }).map((pages) => pages * 4096),
    queueSize: fc.integer({ min: 2, max: 10 }).map((power) => 2 ** power),
    verify: fc.constantFrom('auto', 'full', 'sample', 'none'),
    operations: fc.nat(),
    depth: fc.integer({ min: 1, max: 64 }),
  },
  { requiredKeys: [] },
)

/** The line a description is refused with. */
function refusal(written: unknown): string {
  try {
    checkDescription(written as BenchDescription)
  } catch (error) {
    if (error instanceof BadDescription) return error.message
    throw error
  }
  return 'accepted'
}

describe('a bench description', () => {
  test('keeps what it says, leaves nothing to a default, and checks to itself again', () => {
    fc.assert(
      fc.property(description, (written) => {
        const checked = checkDescription(written as BenchDescription)
        const { disks, ...rest } = written
        expect(checked).toMatchObject(rest)
        expect(checked.disks).toHaveLength((disks ?? ['memory']).length)
        expect(Object.values(checked).every((value) => value !== undefined)).toBe(true)
        expect(checkDescription(JSON.parse(JSON.stringify(checked)))).toEqual(checked)
      }),
    )
  })

  test('is refused in one line, whatever it is, and never with another exception', () => {
    fc.assert(
      fc.property(
        fc.oneof(fc.anything(), fc.record({ disks: fc.anything(), seed: fc.anything() })),
        (written) => {
          const line = refusal(written)
          expect(line).not.toContain('\n')
          expect(line.length).toBeLessThan(500)
        },
      ),
    )
  })

  test.each([
    [{ sead: 1 }, /no part "sead"; parts are seed, disks/],
    [{ seed: -1 }, /^seed is -1; it takes a whole number from 0/],
    [{ seed: 2 ** 53 }, /^seed is/],
    [{ seed: '7' }, /^seed is "7"/],
    [{ disks: 'memory' }, /^disks is "memory"; it takes a list/],
    [{ disks: Array(17).fill('memory') }, /17 disks; a bench has at most 16/],
    [{ disks: ['memory', 'memory:nope=1'] }, /^disk1: memory: no option "nope"/],
    [{ disks: [{ spec: 'memory', writes: true }] }, /^disk0: no part "writes"/],
    [{ disks: [{ spec: 'memory', write: 'yes' }] }, /^disk0: write is "yes"/],
    [{ disks: [7] }, /^disk0 is 7; it takes an object/],
    [{ windows: '95' }, /^windows is "95"; it takes one of xp, vista, 7/],
    [{ profile: '2011' }, /^profile is "2011"; it takes one of 2006, 2010, apicv/],
    [{ preemption: 1 }, /^preemption is 1; it takes true or false/],
    [{ virtio: '0.9' }, /^virtio is "0.9"; it takes one of 1.0, 1.1/],
    [{ memoryBytes: 4 * 1024 * 1024 + 1 }, /not whole pages/],
    [{ memoryBytes: 4096 }, /^memoryBytes is 4096; it takes/],
    [
      { memoryBytes: 2 ** 22, disks: ['memory', 'memory'] },
      /^memoryBytes is 4194304, too little for these disks/,
    ],
    [{ queueSize: 48 }, /power of two/],
    [{ queueSize: Number.NaN }, /^queueSize is NaN/],
    [{ depth: 0 }, /^depth is 0/],
    [{ verify: 'all' }, /one of auto, full, sample, none/],
  ])('says what is wrong with %j', (written, line) => {
    expect(refusal(written)).toMatch(line)
  })
})
