import { describe, expect, test } from 'vitest'
import { seededRandom } from '../../bench/random.ts'
import type { DiskOp } from '../../host/disk/backend.ts'
import { openDisk } from '../../host/disk/registry.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import { NO_TRACE } from '../../protocol/trace.ts'
import { noise, TestIo } from '../conformance/disk-backend.ts'

async function delayed(options: string, seed = 1) {
  const clock = new VirtualClock({ turnsMax: 100_000 })
  const random = seededRandom(seed).stream('disk0')
  const platform = { clock, random, trace: NO_TRACE, path: 'disk0' }
  const result = await openDisk(`memory:size=1M | delay:${options}`, platform)
  if (!result.ok) throw new Error(result.error)
  const disk = result.value
  const submit = (op: DiskOp, bytes = 512) => {
    const lent = op === 'read' || op === 'write' ? [new Uint8Array(bytes)] : []
    const io = new TestIo(op, 0, op === 'flush' ? 0 : bytes, lent)
    disk.submit(io)
    return io
  }
  /** Virtual time at which each request is answered. */
  const times = (ops: readonly DiskOp[]) => {
    const found: number[] = []
    for (const [index, op] of ops.entries()) {
      const io = submit(op)
      if (io.answered) found[index] = clock.now()
      io.onAnswer = () => {
        found[index] = clock.now()
      }
    }
    clock.drain()
    return found
  }
  return { clock, disk, submit, times }
}

const reads = (count: number) => new Array<DiskOp>(count).fill('read')

describe('delay', () => {
  test('answers exactly so much later, in virtual time', async () => {
    expect((await delayed('ms=5')).times(['read', 'write', 'flush'])).toEqual([5000, 5000, 5000])
    expect((await delayed('us=7')).times(['read'])).toEqual([7])
    expect((await delayed('ms=0')).times(['read'])).toEqual([0])
  })

  test('delays only what it was told to', async () => {
    const { times } = await delayed('ms=5,op=read+flush')
    expect(times(['read', 'write', 'flush', 'zero'])).toEqual([5000, 0, 5000, 0])
  })

  test('draws its jitter between none and all of it, the same for the same seed', async () => {
    const first = (await delayed('us=100,jitter=50')).times(reads(500))
    expect(Math.min(...first)).toBe(100)
    expect(Math.max(...first)).toBe(150)
    expect((await delayed('us=100,jitter=50')).times(reads(500))).toEqual(first)
    expect((await delayed('us=100,jitter=50', 2)).times(reads(500))).not.toEqual(first)
  })

  test('counts jitter in the unit of the delay', async () => {
    const times = (await delayed('ms=1,jitter=2')).times(reads(200))
    expect(Math.max(...times)).toBeGreaterThan(2000)
    expect(Math.max(...times)).toBeLessThanOrEqual(3000)
  })

  test('judges a request when it goes below, against the disk as it is then', async () => {
    const { clock, disk, submit } = await delayed('ms=5,op=write')
    const late = new TestIo('write', 2 ** 20 - 512, 512, [noise(512, 1)])
    disk.submit(late)
    submit('resize', 2 ** 19)
    clock.drain()
    expect(late.outcome).toBe('out-of-range')
  })

  test('answers cancelled at once while a request waits, and not any more afterwards', async () => {
    const { clock, submit } = await delayed('ms=5')
    const [first, second] = [submit('read'), submit('write')]
    first.cancel()
    expect(first.outcome).toBe('cancelled')
    clock.drain()
    second.cancel()
    expect([first.outcome, second.outcome]).toEqual(['cancelled', 'ok'])
    expect(submit('read').outcome).toBe(null)
    clock.drain()
    expect(clock.now()).toBe(10_000)
  })

  test('closing answers what waits before it finishes, and leaves no timer that does anything', async () => {
    const { clock, disk, submit } = await delayed('ms=5')
    const ios = [submit('read'), submit('write'), submit('flush')]
    let outcomes: (string | null)[] = []
    disk.close(() => {
      outcomes = ios.map((io) => io.outcome)
    })
    expect(outcomes).toEqual(['cancelled', 'cancelled', 'cancelled'])
    clock.drain()
    expect(submit('read').outcome).toBe('gone')
  })

  test('lends on terms of its own: a loan waits with its request', async () => {
    const { disk } = await delayed('ms=5')
    expect(disk.facts).toMatchObject({ synchronous: false, privateLoans: false, lengthBytes: 2 ** 20 })
  })

  test.each([
    ['', 'delay: needs one of its options ms and us, such as ms=5'],
    ['ms=1,us=2', 'delay: needs one of its options ms and us, such as ms=5'],
    ['ms=1.5', 'delay: option ms is "1.5"; it takes a whole number from 0 to 86400000'],
    [
      'ms=5,op=red',
      'delay: option op is "red"; it takes some of read, write, flush, discard, zero, erase, extents, resize joined by +',
    ],
    [
      'ms=5,op=read+read',
      'delay: option op is "read+read"; it takes some of read, write, flush, discard, zero, erase, extents, resize joined by +',
    ],
  ])('%j is refused in one line', async (options, message) => {
    await expect(delayed(options)).rejects.toThrow(message)
  })
})
