import { describe, expect, it } from 'vitest'
import { NtStatus } from '../../guest/kernel/nt-status.ts'
import { PoolType, poolTag } from '../../guest/kernel/pool.ts'
import { Machine } from './machine.ts'

describe('threads', () => {
  it('that wait for each other, in either order, both finish', () => {
    for (const seed of [undefined, 1, 2, 3, 4, 5]) {
      for (const first of [0, 1]) {
        const machine = new Machine(seed === undefined ? {} : { seed })
        const { kernel } = machine
        const at = kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, 48, poolTag('Test'))
        const events = [
          kernel.keInitializeEvent(at, false, false),
          kernel.keInitializeEvent(at + 24, false, false),
        ]
        const done: number[] = []
        const body = (mine: number) =>
          function* () {
            kernel.keSetEvent(events[mine] as never)
            expect(yield* kernel.keWaitForSingleObject(events[1 - mine] as never)).toBe(NtStatus.SUCCESS)
            done.push(mine)
          }
        kernel.psCreateSystemThread(body(first))
        kernel.psCreateSystemThread(body(1 - first))
        machine.drain()
        expect(kernel.bugCheck).toBeNull()
        expect([...done].sort()).toEqual([0, 1])
      }
    }
  })

  it('that wait with a timeout go on at that time', () => {
    const machine = new Machine()
    const { kernel } = machine
    const times = machine.run(function* () {
      const at = kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, 24, poolTag('Test'))
      const event = kernel.keInitializeEvent(at, true, false)
      const status = yield* kernel.keWaitForSingleObject(event, { timeoutUs: 1500 })
      return [status, kernel.keQueryTimeUs()]
    })
    expect(times).toEqual([NtStatus.TIMEOUT, 1500])
  })
})
