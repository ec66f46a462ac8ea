import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Ioctl } from '../../guest/class/disk/ioctl.ts'
import { NtStatus, ntStatusName } from '../../guest/kernel/nt-status.ts'
import type { Waiting } from '../../guest/kernel/thread.ts'
import { UserFile } from '../../guest/user.ts'
import type { DiskBackend } from '../../host/disk/backend.ts'
import { TestIo } from '../conformance/disk-subject.ts'
import { opened } from '../host/disk-subjects.ts'
import { blkOn } from './blk-on-machine.ts'
import { BootedGuest, NOTHING_LEFT } from './booted-guest.ts'
import { CLEAN, WholeStack } from './whole-stack.ts'

const SECTOR = 512
/** By then a guest knows of a new size, whatever was under way: nothing here takes so long. */
const SETTLED_US = 300_000
const DISK = '\\\\.\\PhysicalDrive0'
/** First sector and count of each. */
const PARTITIONS = [
  [8, 24],
  [40, 30],
] as const
/** Errors of a transfer that is not on the disk any more. */
const BEYOND = ['INVALID_PARAMETER', 'NONEXISTENT_SECTOR', 'DEVICE_DATA_ERROR', 'NO_SUCH_DEVICE']

function masterBootRecord(): Uint8Array {
  const sector = new Uint8Array(SECTOR)
  const view = new DataView(sector.buffer)
  for (const [index, [first, count]] of PARTITIONS.entries()) {
    sector[446 + 16 * index + 4] = 7
    view.setUint32(446 + 16 * index + 8, first, true)
    view.setUint32(446 + 16 * index + 12, count, true)
  }
  view.setUint16(510, 0xaa55, true)
  return sector
}

interface Resize {
  readonly atUs: number
  readonly sectors: number
}

/** A guest whose disk changes its size under it, and what the size was when. */
class ResizedGuest extends BootedGuest {
  #backend: DiskBackend | null = null
  readonly #history: Resize[] = []

  override attach(backend: DiskBackend): void {
    super.attach(backend)
    this.#backend = backend
    this.#history.push({ atUs: 0, sectors: backend.facts.lengthBytes / SECTOR })
    backend.submit(new TestIo('write', 0, SECTOR, [masterBootRecord()]))
  }

  get nowUs(): number {
    return this.machine.clock.now()
  }
  get sectors(): number {
    return this.#history.at(-1)?.sectors ?? 0
  }

  resize(sectors: number): void {
    this.#history.push({ atUs: this.nowUs, sectors })
    this.#backend?.submit(new TestIo('resize', 0, sectors * SECTOR, []))
  }

  /** Sizes a guest may have thought of at some time since then. */
  since(us: number): { readonly least: number; readonly most: number } {
    const last = this.#history.findLastIndex(({ atUs }) => atUs <= us - SETTLED_US)
    const sizes = this.#history.slice(Math.max(0, last)).map(({ sectors }) => sectors)
    return { least: Math.min(...sizes), most: Math.max(...sizes) }
  }

  *open(path: string): Waiting<UserFile | null> {
    const file = yield* this.user.open(path, { overlapped: true })
    return file instanceof UserFile ? file : null
  }

  *length(file: UserFile): Waiting<number | string> {
    const { status, bytes } = yield* file.control(Ioctl.DISK_GET_LENGTH_INFO, new Uint8Array(0), 8)
    if (status !== NtStatus.SUCCESS) return ntStatusName(status)
    return new DataView(bytes.buffer).getUint32(0, true) / SECTOR
  }
}

const operation = fc.record({
  first: fc.nat(140),
  count: fc.integer({ min: 1, max: 40 }),
  what: fc.constantFrom('read', 'read', 'write', 'length', 'update'),
  pauseUs: fc.constantFrom(0, 0, 100, 2000),
})
const story = fc.record({
  applications: fc.array(fc.array(operation, { minLength: 4, maxLength: 24 }), {
    minLength: 1,
    maxLength: 5,
  }),
  resizes: fc.array(fc.record({ afterUs: fc.nat(20_000), sectors: fc.integer({ min: 8, max: 128 }) }), {
    minLength: 1,
    maxLength: 8,
  }),
  seed: fc.option(fc.nat(10_000), { nil: undefined }),
})

/** One application, on the disk or on one of its partitions; what it saw that cannot be. */
function* application(
  guest: ResizedGuest,
  partition: number,
  operations: readonly (typeof operation extends fc.Arbitrary<infer T> ? T : never)[],
  wrong: string[],
): Waiting<void> {
  const { user } = guest
  const [start, length] = PARTITIONS[partition - 1] ?? [0, Number.POSITIVE_INFINITY]
  const path = partition === 0 ? DISK : `\\\\.\\Harddisk0Partition${partition}`
  let file: UserFile | null = null
  let openedUs = 0
  for (const { first, count, what, pauseUs } of operations) {
    yield* guest.kernel.keDelayExecutionThread(pauseUs)
    const openingUs = guest.nowUs
    if (file === null) {
      file = yield* guest.open(path)
      openedUs = openingUs
    }
    const present = (): boolean => start + Math.min(length, 1) <= guest.since(openedUs).least && fits()
    const fits = (): boolean => partition === 0 || start + length <= guest.since(openedUs).least
    if (file === null) {
      if (fits()) wrong.push(`no ${path}`)
      continue
    }
    const beganUs = guest.nowUs
    if (what === 'length' || what === 'update') {
      const answer =
        what === 'length'
          ? yield* guest.length(file)
          : ntStatusName((yield* file.control(Ioctl.DISK_UPDATE_PROPERTIES, new Uint8Array(0), 0)).status)
      const { least, most } = guest.since(beganUs)
      const right =
        typeof answer === 'number'
          ? partition === 0
            ? answer >= least && answer <= most
            : answer === length
          : (what === 'update' && answer === 'SUCCESS') || (!present() && answer === 'NO_SUCH_DEVICE')
      if (!right) wrong.push(`${what}: ${answer} of ${least}…${most}`)
      continue
    }
    const bytes = count * SECTOR
    const buffer = user.allocate(bytes)
    user.put(buffer, new Uint8Array(bytes).fill(0xa0 + partition))
    const { status, information } = yield* what === 'write' && first > 0
      ? file.write(buffer, bytes, first * SECTOR)
      : file.read(buffer, bytes, first * SECTOR)
    user.free(buffer)
    const name = ntStatusName(status)
    const { least, most } = guest.since(beganUs)
    const end = start + first + count
    const where = `${what} ${path} ${first}+${count} of ${least}…${most}: ${name} ${information}`
    if (name === 'SUCCESS') {
      if (end > most || first + count > length || information !== bytes) wrong.push(where)
    } else {
      if (!BEYOND.includes(name) || information !== 0) wrong.push(where)
      if (present() && end <= least && first + count <= length) wrong.push(where)
    }
    if (name === 'NO_SUCH_DEVICE') {
      yield* file.close()
      file = null
    }
  }
  if (file !== null) yield* file.close()
}

/** What is true once nothing has changed for a while, before anything asks for the size. */
function* settled(guest: ResizedGuest, wrong: string[]): Waiting<void> {
  const { user, sectors } = guest
  yield* guest.kernel.keDelayExecutionThread(SETTLED_US)
  const file = yield* guest.open(DISK)
  if (file === null) throw new Error('no disk')
  const buffer = user.allocate(SECTOR)
  const last = yield* file.read(buffer, SECTOR, (sectors - 1) * SECTOR)
  const beyond = yield* file.read(buffer, SECTOR, sectors * SECTOR)
  user.free(buffer)
  const told = [ntStatusName(last.status), ntStatusName(beyond.status), yield* guest.length(file)]
  if (told.join() !== `SUCCESS,INVALID_PARAMETER,${sectors}`) wrong.push(`${told.join()} of ${sectors}`)
  yield* file.close()
  for (const [index, [start, count]] of PARTITIONS.entries()) {
    const partition = yield* guest.open(`\\\\.\\Harddisk0Partition${index + 1}`)
    if ((partition !== null) !== start + count <= sectors) wrong.push(`partition ${index + 1} of ${sectors}`)
    if (partition !== null) yield* partition.close()
  }
}

describe.each([
  ['memory', (bytes: number) => `memory:size=${bytes}`],
  ['delay', (bytes: number) => `memory:size=${bytes} | delay:ms=2`],
])('a disk over %s that changes its size under load', (_name, spec) => {
  it('is as long as it is: the application learns it by itself, and nothing beyond the end succeeds', async () => {
    await fc.assert(
      fc.asyncProperty(story, async ({ applications, resizes, seed }) => {
        const guest = new ResizedGuest(seed === undefined ? {} : { seed })
        guest.attach(await opened(spec(100 * SECTOR), guest.machine.clock))
        const wrong: string[] = []
        guest.run(function* () {
          const { kernel } = guest
          yield* guest.boot()
          let running = applications.length
          for (const [index, operations] of applications.entries()) {
            kernel.psCreateSystemThread(function* () {
              yield* application(guest, index % 3, operations, wrong)
              running--
            })
          }
          for (const { afterUs, sectors } of resizes) {
            yield* kernel.keDelayExecutionThread(afterUs)
            guest.resize(sectors)
          }
          while (running > 0) yield* kernel.keDelayExecutionThread(1000)
          yield* settled(guest, wrong)
        })
        expect(wrong).toEqual([])
        expect(guest.violations).toEqual([])
        expect(guest.finish()).toEqual(NOTHING_LEFT)
      }),
      { numRuns: 40 },
    )
  })
})

describe('a disk whose port has no way to tell', () => {
  it('hears of its new size with its next command, which succeeds all the same', async () => {
    const stack = new WholeStack(undefined)
    const { user, rig } = stack
    const backend = await opened(`memory:size=${100 * SECTOR}`)
    blkOn(rig.machine, backend)
    const seen: string[] = []
    await stack.run(function* () {
      yield* stack.start()
      const file = yield* stack.open()
      const buffer = user.allocate(SECTOR)
      const read = function* (sector: number): Waiting<void> {
        seen.push(ntStatusName((yield* file.read(buffer, SECTOR, sector * SECTOR)).status))
        yield* rig.kernel.keDelayExecutionThread(10_000)
      }
      for (const sectors of [120, 90]) {
        backend.submit(new TestIo('resize', 0, sectors * SECTOR, []))
        yield* rig.kernel.keDelayExecutionThread(10_000)
        // What is known is old: the one is refused here, and the other at the target.
        yield* read(sectors === 120 ? 119 : 95)
        yield* read(0)
        yield* read(sectors - 1)
        yield* read(sectors)
      }
      user.free(buffer)
      yield* file.close()
      yield* stack.pnp(2)
    })
    expect(seen).toEqual([
      ...['INVALID_PARAMETER', 'SUCCESS', 'SUCCESS', 'INVALID_PARAMETER'],
      ...['NONEXISTENT_SECTOR', 'SUCCESS', 'SUCCESS', 'INVALID_PARAMETER'],
    ])
    expect(stack.finish()).toEqual(CLEAN)
  })
})

it('a partition that a shrinking disk lost is another one when it comes back: what was open stays gone', async () => {
  const guest = new ResizedGuest()
  guest.attach(await opened(`memory:size=${100 * SECTOR}`))
  const seen: string[] = []
  guest.run(function* () {
    const { kernel, user } = guest
    yield* guest.boot()
    const buffer = user.allocate(SECTOR)
    const read = function* (file: UserFile | null): Waiting<void> {
      seen.push(file === null ? 'none' : ntStatusName((yield* file.read(buffer, SECTOR, 0)).status))
    }
    const [first, second] = [
      yield* guest.open('\\\\.\\Harddisk0Partition1'),
      yield* guest.open('\\\\.\\Harddisk0Partition2'),
    ]
    for (const sectors of [60, 100]) {
      guest.resize(sectors)
      yield* kernel.keDelayExecutionThread(SETTLED_US)
      yield* read(first)
      yield* read(second)
      const again = yield* guest.open('\\\\.\\Harddisk0Partition2')
      yield* read(again)
      if (again !== null) yield* again.close()
    }
    for (const file of [first, second]) if (file !== null) yield* file.close()
    user.free(buffer)
  })
  expect(seen).toEqual(['SUCCESS', 'NO_SUCH_DEVICE', 'none', 'SUCCESS', 'NO_SUCH_DEVICE', 'SUCCESS'])
  expect(guest.finish()).toEqual(NOTHING_LEFT)
})
