import { describe, expect, it } from 'vitest'
import type { KDpc } from '../../guest/kernel/dpc.ts'
import { Irql } from '../../guest/kernel/irql.ts'
import { KDPC, KTIMER } from '../../guest/kernel/layout.ts'
import { PoolType } from '../../guest/kernel/pool.ts'
import { Rig, TAG } from './kernel-rig.ts'
import { Machine } from './machine.ts'

describe('a DPC', () => {
  it('runs at DISPATCH level once the level falls below, and is queued at most once', () => {
    const rig = new Rig()
    const { kernel } = rig
    const seen: number[][] = []
    rig.machine.run(function* () {
      const dpc = kernel.keInitializeDpc(
        rig.room(KDPC.$size),
        kernel.routine((_dpc: KDpc, context: number, first: number, second: number) => {
          seen.push([context, first, second, kernel.keGetCurrentIrql()])
        }),
        7,
      )
      expect(kernel.keInsertQueueDpc(dpc, 1, 2)).toBe(true)
      expect(seen).toEqual([[7, 1, 2, 2]])
      const before = kernel.keRaiseIrql(Irql.DISPATCH)
      expect(kernel.keInsertQueueDpc(dpc, 3, 4)).toBe(true)
      expect(kernel.keInsertQueueDpc(dpc, 5, 6)).toBe(false)
      expect(seen).toHaveLength(1)
      kernel.keLowerIrql(before)
      expect(seen.at(-1)).toEqual([7, 3, 4, 2])
      kernel.keRaiseIrql(5)
      kernel.keInsertQueueDpc(dpc, 8, 9)
      expect(kernel.keRemoveQueueDpc(dpc)).toBe(true)
      expect(kernel.keRemoveQueueDpc(dpc)).toBe(false)
      kernel.keLowerIrql(0)
      expect(seen).toHaveLength(2)
      yield
    })
    rig.end()
  })

  it('of high importance goes first', () => {
    const rig = new Rig()
    const { kernel } = rig
    const order: number[] = []
    rig.machine.run(function* () {
      const routine = kernel.routine((_dpc: KDpc, context: number) => {
        order.push(context)
      })
      const dpcs = [1, 2, 3].map((context) => kernel.keInitializeDpc(rig.room(KDPC.$size), routine, context))
      const [a, b, c] = dpcs as [KDpc, KDpc, KDpc]
      c.importance = 2
      kernel.keRaiseIrql(2)
      for (const dpc of [a, b, c]) kernel.keInsertQueueDpc(dpc)
      kernel.keLowerIrql(0)
      yield
    })
    expect(order).toEqual([3, 1, 2])
    rig.end()
  })

  it('whose memory is not a DPC, or that changes the level, stops the system', () => {
    const wild = new Machine({ ramBytes: 2 ** 21 })
    expect(
      wild.crash(function* () {
        wild.kernel.parts.dpcs.insert(wild.kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, 64, TAG), 0, 0)
        yield
      })[0],
    ).toBe(0xc7)
    const rig = new Rig()
    const { kernel } = rig
    expect(
      rig.machine.crash(function* () {
        const dpc = kernel.keInitializeDpc(
          rig.room(64),
          kernel.routine(() => {
            kernel.keRaiseIrql(5)
          }),
        )
        kernel.keInsertQueueDpc(dpc)
        yield
      })[0],
    ).toBe(0xc8)
  })
})

describe('a timer', () => {
  it('signals, queues its DPC and repeats at its times', () => {
    for (const seed of [undefined, 1, 2, 3]) {
      const rig = new Rig(seed === undefined ? {} : { seed })
      const { kernel } = rig
      const times: number[] = []
      rig.machine.run(function* () {
        const timer = kernel.keInitializeTimer(rig.room(KTIMER.$size), false)
        const dpc = kernel.keInitializeDpc(
          rig.room(KDPC.$size),
          kernel.routine(() => {
            times.push(kernel.keQueryTimeUs())
          }),
        )
        expect(kernel.keSetTimer(timer, 500, 1, dpc)).toBe(false)
        yield* kernel.keWaitForSingleObject(timer)
        expect(kernel.keQueryTimeUs()).toBe(500)
        yield* kernel.keWaitForSingleObject(timer)
        expect(kernel.keQueryTimeUs()).toBe(1500)
        expect(kernel.keSetTimer(timer, 100, 0, null)).toBe(true)
        yield* kernel.keWaitForSingleObject(timer)
        expect(kernel.keQueryTimeUs()).toBe(1600)
        expect(kernel.keCancelTimer(timer)).toBe(false)
        kernel.keSetTimer(timer, 100, 0, dpc)
        expect(kernel.keCancelTimer(timer)).toBe(true)
        yield* kernel.keDelayExecutionThread(1000)
        expect(timer.signalState).toBe(0)
      })
      expect(times).toEqual([500, 1500])
      rig.end()
    }
  })

  it('whose memory was freed while it was set stops the system', () => {
    const machine = new Machine({ ramBytes: 2 ** 21 })
    const { kernel } = machine
    expect(
      machine.crash(function* () {
        const at = kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, KTIMER.$size, TAG)
        kernel.keSetTimer(kernel.keInitializeTimer(at), 10)
        kernel.exFreePool(at)
        yield* kernel.keDelayExecutionThread(20)
      }),
    ).toEqual([0xc7, 0])
  })
})
