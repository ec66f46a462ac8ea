import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type NtStatus, ntStatusName } from '../../guest/kernel/nt-status.ts'
import type { Waiting } from '../../guest/kernel/thread.ts'
import type { WindowsVersionName } from '../../guest/kernel/version.ts'
import { UserFile } from '../../guest/user.ts'
import { opened } from '../host/disk-subjects.ts'
import { BootedGuest, NOTHING_LEFT } from './booted-guest.ts'
import { WholeStorm } from './whole-storm.ts'

/** About 24 ms of real time for each; PARAVANE_SEED draws another storm. */
const TEN_MINUTES = 600
const RUNAWAY_MS = 600_000

async function play(windows: WindowsVersionName, seconds: number, seed: number) {
  const [report, left] = await WholeStorm.play({ seed, seconds, windows })
  expect({ seed, wrong: report.wrong.slice(0, 10) }).toEqual({ seed, wrong: [] })
  expect({ seed, left }).toEqual({ seed, left: NOTHING_LEFT })
  return report
}

const drawn = (count: number): number[] => fc.sample(fc.nat(1_000_000), count)

describe('applications over a whole guest whose disk is reset, held, stopped, removed and pulled out', () => {
  it.each([
    ['xp', 10],
    ['vista', 10],
    [7, 10],
  ] as const)(
    'lose nothing, hear nothing twice and leave nothing, on %s from any seed',
    async (windows, seconds) => {
      for (const seed of drawn(3)) await play(windows, seconds, seed)
    },
  )

  it('lose nothing, hear nothing twice and leave nothing in ten minutes', {
    timeout: RUNAWAY_MS,
  }, async () => {
    const [seed = 0] = drawn(1)
    const report = await play(7, TEN_MINUTES, seed)
    // A storm that did not happen proves nothing.
    const { requests, succeeded, cancelled, resets, locks, surprises, removals, rebalances } = report
    expect(Math.min(requests / 50_000, succeeded / 50_000, cancelled / 200)).toBeGreaterThan(1)
    expect(Math.min(resets / 1000, locks / 500, surprises / 100)).toBeGreaterThan(1)
    expect(Math.min(removals / 40, rebalances / 100)).toBeGreaterThan(1)
  })
})

it('a successor works while the one that was pulled out waits for its last handle, and is not disturbed by its end', async () => {
  const guest = new BootedGuest()
  guest.attach(await opened('memory:size=1M'))
  const { user, kernel, machine } = guest
  const seen: unknown[] = []
  guest.run(function* () {
    yield* guest.boot()
    const buffer = user.allocate(512)
    const read = function* (file: UserFile | NtStatus): Waiting<string> {
      if (!(file instanceof UserFile)) return ntStatusName(file)
      const beganUs = machine.clock.now()
      const { status } = yield* file.read(buffer, 512, 0)
      return `${ntStatusName(status)} ${machine.clock.now() - beganUs < 1000 ? 'at once' : 'late'}`
    }
    const before = yield* user.open('\\\\.\\PhysicalDrive0')
    guest.unplug()
    yield* kernel.keDelayExecutionThread(100_000)
    guest.plug()
    yield* kernel.keDelayExecutionThread(100_000)
    const after = yield* user.open('\\\\.\\PhysicalDrive1')
    seen.push(yield* read(before), yield* read(after), guest.shown().length)
    if (before instanceof UserFile) yield* before.close()
    yield* kernel.keDelayExecutionThread(100_000)
    seen.push(yield* read(after), guest.shown().length)
    if (after instanceof UserFile) yield* after.close()
    user.free(buffer)
  })
  expect(seen).toEqual(['NO_SUCH_DEVICE at once', 'SUCCESS at once', 5, 'SUCCESS at once', 3])
  expect(guest.finish()).toEqual(NOTHING_LEFT)
})
