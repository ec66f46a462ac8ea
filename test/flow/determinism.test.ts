import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { seededRandom } from '../../bench/random.ts'
import { ntStatusName } from '../../guest/kernel/nt-status.ts'
import { UserFile } from '../../guest/user.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import type { TraceEvent } from '../../protocol/trace.ts'
import { opened } from '../host/disk-subjects.ts'
import { WholeStack } from './whole-stack.ts'

const SECTORS = 512

/** Reads and writes of two threads on one disk, under preemption; everything the run says of itself. */
async function traced(seed: number, spec: string): Promise<{ lines: string[]; wrong: string[] }> {
  const lines: string[] = []
  const trace = { on: true, emit: (event: TraceEvent) => lines.push(JSON.stringify(event)) }
  const clock = new VirtualClock({ trace })
  const stack = new WholeStack(await opened(spec, clock), { clock, seed, trace })
  const { user, kernel } = stack
  const model = new Uint8Array(SECTORS * 512)
  const wrong: string[] = []
  stack.run(function* () {
    yield* stack.boot()
    // Each thread has half of the disk, so that what a read finds is known whatever their order.
    for (const half of [0, 1]) {
      const random = seededRandom(seed).stream(`thread${half}`)
      kernel.psCreateSystemThread(function* () {
        const file = yield* user.open('\\\\.\\PhysicalDrive0')
        if (!(file instanceof UserFile)) throw new Error('not opened')
        const buffer = user.allocate(8192)
        for (let i = 0; i < 8; i++) {
          const count = 1 + random.below(16)
          const at = (half * (SECTORS / 2) + random.below(SECTORS / 2 - 16)) * 512
          const value = 1 + random.below(255)
          if (random.below(2) === 1) {
            user.put(buffer, new Uint8Array(count * 512).fill(value))
            const { status } = yield* file.write(buffer, count * 512, at)
            if (ntStatusName(status) !== 'SUCCESS') wrong.push(`write ${ntStatusName(status)}`)
            model.fill(value, at, at + count * 512)
          } else {
            const { information } = yield* file.read(buffer, count * 512, at)
            const seen = user.get(buffer, information)
            const right = seen?.every((byte, index) => byte === model[at + index]) === true
            if (!right || information !== count * 512) wrong.push(`read at ${at}`)
          }
        }
        yield* file.close()
      })
    }
  })
  lines.push(`end at ${stack.machine.clock.now()}`)
  expect(stack.disk.violations.entries()).toEqual([])
  return { lines, wrong }
}

describe('a run of the whole stack', () => {
  it('is the same from the same seed, to the last line of its trace, and right from any', async () => {
    const spec = fc.constantFrom(
      `memory:size=${SECTORS * 512}`,
      `memory:size=${SECTORS * 512} | delay:us=40,jitter=300`,
      `memory:size=${SECTORS * 512} | overlay | delay:ms=2`,
    )
    await fc.assert(
      fc.asyncProperty(fc.nat(100_000), spec, async (seed, disk) => {
        const one = await traced(seed, disk)
        const other = await traced(seed, disk)
        expect(one.wrong).toEqual([])
        expect(one.lines.length).toBeGreaterThan(100)
        expect(other.lines).toEqual(one.lines)
      }),
      { numRuns: 25 },
    )
  })

  it('differs from one seed to another', async () => {
    const disk = `memory:size=${SECTORS * 512}`
    const [one, other] = [await traced(1, disk), await traced(2, disk)]
    expect(one.lines).not.toEqual(other.lines)
  })
})
