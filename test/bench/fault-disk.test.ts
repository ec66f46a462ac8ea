import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { createBench } from '../../bench/bench.ts'
import { type DiskFault, FaultDisk } from '../../bench/fault-disk.ts'
import { TraceLines } from '../../bench/trace-lines.ts'
import { DiskIo, type DiskOp, type DiskOutcome } from '../../host/disk/backend.ts'
import { NO_TRACE } from '../../protocol/trace.ts'
import { opened } from '../host/disk-subjects.ts'

class Asked extends DiskIo {
  outcome: DiskOutcome | null = null
  protected finished(outcome: DiskOutcome): void {
    this.outcome = outcome
  }
}

const OUTCOMES = ['medium-error', 'no-space', 'gone', 'read-only', 'unsupported'] as const
const op = fc.constantFrom<DiskOp[]>('read', 'write', 'flush')
const request = fc.record({ op, block: fc.nat(15), count: fc.integer({ min: 1, max: 4 }) })
const fault = fc.record({
  effect: fc.constantFrom<DiskFault['effect'][]>(...OUTCOMES, 'lose', 'corrupt', 'silent'),
  op: fc.option(op, { nil: undefined }),
  at: fc.option(
    fc.oneof(
      fc.nat(16 * 512 - 1),
      fc.nat(15).map((block) => block * 512),
    ),
    { nil: undefined },
  ),
  times: fc.integer({ min: 1, max: 3 }),
})

describe('a disk with faults on demand', () => {
  test('meets each fault as often as was asked, the first that fits, and is else the disk beneath', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fault, { maxLength: 4 }),
        fc.array(request, { minLength: 1, maxLength: 12 }),
        async (faults, requests) => {
          const under = await opened('memory:size=8K')
          const disk = new FaultDisk(under, NO_TRACE, 'disk0')
          const left = faults.map((one) => {
            const { op: only, at, ...rest } = one
            disk.inject({
              ...rest,
              ...(only === undefined ? {} : { op: only }),
              ...(at === undefined ? {} : { at }),
            })
            return { ...one }
          })
          const model = new Uint8Array(8192)
          const silent: Asked[] = []
          for (const [index, { op: what, block, count: wanted }] of requests.entries()) {
            const offset = what === 'flush' ? 0 : block * 512
            const lengthBytes = what === 'flush' ? 0 : Math.min(wanted, 16 - block) * 512
            const bytes = new Uint8Array(lengthBytes).fill(index + 1)
            const io = new Asked(what, offset, lengthBytes, lengthBytes === 0 ? [] : [bytes])
            disk.submit(io)
            const met = left.find(
              (one) =>
                one.times > 0 &&
                (one.effect !== 'corrupt' || what === 'read') &&
                (one.op === undefined || one.op === what) &&
                (one.at === undefined || (one.at >= offset && one.at < offset + lengthBytes)),
            )
            if (met !== undefined) met.times--
            const effect = met?.effect ?? 'ok'
            if (effect === 'silent') silent.push(io)
            const done = effect === 'lose' || effect === 'corrupt' || effect === 'ok'
            expect(io.outcome).toBe(effect === 'silent' ? null : done ? 'ok' : effect)
            const held = model.slice(offset, offset + lengthBytes)
            if (effect === 'corrupt' && held.length > 0) held[0] = (held[0] ?? 0) ^ 1
            if (what === 'read' && (effect === 'ok' || effect === 'corrupt')) expect(bytes).toEqual(held)
            if (what === 'write' && effect === 'ok') model.set(bytes, offset)
          }
          silent.pop()?.cancel()
          await new Promise<void>((resolve) => disk.close(resolve))
          expect(silent.every(({ outcome }) => outcome === 'cancelled')).toBe(true)
        },
      ),
      { numRuns: 200 },
    )
  })

  test('lets a bench see what the guest makes of it', async () => {
    const lines: string[] = []
    const trace = new TraceLines((line) => lines.push(line))
    const bench = await createBench({ disks: ['memory:size=1M'] }, { trace })
    const disk = bench.disk(0)
    const heard = () => lines.splice(0).filter((line) => line.includes('"fault"')).length
    await disk.write(0, new Uint8Array(4096).fill(5))

    disk.inject({ effect: 'medium-error', op: 'read', times: 9 })
    await expect(disk.read(0, 4096)).rejects.toMatchObject({ statusName: 'DEVICE_DATA_ERROR' })
    expect(heard()).toBe(9)
    disk.inject({ effect: 'medium-error', op: 'read', times: 8 })
    expect((await disk.read(0, 4096))[0]).toBe(5)
    disk.inject({ effect: 'corrupt' })
    expect((await disk.read(0, 4096))[0]).toBe(4)
    disk.inject({ effect: 'lose', op: 'write' })
    await disk.write(0, new Uint8Array(512).fill(6))
    expect((await disk.read(0, 512))[0]).toBe(5)
    // The port's timeout resets the device, and the class driver tries again.
    disk.inject({ effect: 'silent', op: 'read' })
    expect((await disk.read(0, 512))[0]).toBe(5)
    expect(bench.machine.machine.clock.now()).toBeGreaterThan(10_000_000)

    const { problems } = await bench.run()
    expect(problems.map(({ kind }) => kind)).toEqual(['never-answered', 'wrong-data', 'wrong-data'])
    await bench.close()
  })
})
