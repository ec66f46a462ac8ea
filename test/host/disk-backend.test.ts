import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, test } from 'vitest'
import { DISK_KINDS } from '../../host/disk/registry.ts'
import { type DiskSubject, diskBackendCases, unmetNeeds } from '../conformance/disk-backend.ts'
import { escapePath, imageMaker, scratch, subjectOf } from './disk-subjects.ts'

const { directory, remove } = scratch()
afterAll(remove)

const EXAMPLE = escapePath(fileURLToPath(new URL('../../examples/pattern-disk.ts', import.meta.url)))
const MiB = 2 ** 20
const GiB = 2 ** 30
const small = imageMaker(directory, 'small', MiB)
const odd = imageMaker(directory, 'odd', MiB + 100)
const big = imageMaker(directory, 'big', 5 * GiB)

/** What the suite runs over, by kind: name, spec with IMAGE for a file, and how to make that. */
const SPECS: { readonly [kind: string]: readonly (readonly [string, string, () => string])[] } = {
  memory: [
    ['memory', 'memory:size=1M', small],
    ['memory, 4 KiB blocks', 'memory:size=1M,block=4K', small],
    ['memory, read-only', 'memory:size=1M,readonly', small],
    ['memory, 5 GiB', 'memory:size=5G', small],
    ['memory, 2^53 bytes', 'memory:size=8P', small],
  ],
  file: [
    ['file', 'file:IMAGE', small],
    ['file, odd-sized end', 'file:IMAGE,block=4K', odd],
    ['file, read-only', 'file:IMAGE,readonly', small],
    ['file, sparse, 5 GiB', 'file:IMAGE', big],
  ],
  'file-async': [
    ['file-async', 'file-async:IMAGE', small],
    ['file-async, one at a time', 'file-async:IMAGE,depth=1', small],
    ['file-async, odd-sized end', 'file-async:IMAGE,depth=3', odd],
    ['file-async, read-only', 'file-async:IMAGE,readonly', small],
    ['file-async, sparse, 5 GiB', 'file-async:IMAGE', big],
  ],
  overlay: [
    ['overlay over memory', 'memory:size=1M | overlay', small],
    ['overlay over a read-only file', 'file:IMAGE,readonly | overlay', small],
    ['overlay over an asynchronous file', 'file-async:IMAGE,depth=4 | overlay', big],
    ['overlay over 2^53 bytes', 'memory:size=8P,block=4K | overlay', small],
    ['overlay over overlay over an odd-sized file', 'file:IMAGE | overlay | overlay', odd],
  ],
  delay: [
    ['delay over memory', 'memory:size=1M | delay:ms=5', small],
    ['delay with jitter', 'memory:size=1M | delay:us=10,jitter=100', small],
    ['delay of reads', 'file:IMAGE | delay:ms=5,op=read', small],
    [
      'delay over overlay over delay',
      'file-async:IMAGE | delay:us=3,jitter=9 | overlay | delay:us=2,jitter=7',
      big,
    ],
  ],
  module: [['module, the example', `module:${EXAMPLE},sectors=2048`, small]],
}

const subjects: DiskSubject[] = []
for (const kind of DISK_KINDS) {
  for (const [name, spec, image] of SPECS[kind.kind] ?? []) subjects.push(subjectOf(name, spec, image))
}

/** Cases that apply, subject by subject; the rest are counted below. */
const plan = await Promise.all(
  subjects.map(async (subject) => {
    const disk = await subject.open()
    const cases = diskBackendCases.filter((one) => unmetNeeds(one, disk.facts, subject).length === 0)
    disk.close(() => {})
    await subject.settle()
    return { subject, cases }
  }),
)

describe.each(plan)('$subject.name', ({ subject, cases }) => {
  test.each(cases)('$name', (one) => one.run(subject))
})

describe('the suite', () => {
  // A device is no backend.
  test.each(DISK_KINDS.filter(({ role }) => role !== 'device').map((kind) => kind.kind))(
    'has a subject for %s',
    (kind) => {
      expect(SPECS[kind]?.length ?? 0).toBeGreaterThan(0)
    },
  )

  test.each(diskBackendCases.map((one) => one.name))('has a disk to which this applies: %s', (name) => {
    const applied = plan.filter(({ cases }) => cases.some((one) => one.name === name))
    expect(applied.length).toBeGreaterThan(0)
  })
})
