import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { KEvent } from '../../guest/kernel/dispatcher-object.ts'
import { KEVENT, KMUTANT, KSEMAPHORE } from '../../guest/kernel/layout.ts'
import { type NtStatus, NtStatus as Status } from '../../guest/kernel/nt-status.ts'
import { arbitraryScripts, Model, play, unhang } from './dispatcher-model.ts'
import { Rig } from './kernel-rig.ts'

describe('the dispatcher', () => {
  it('does what a model of it does: order, results and times', () => {
    fc.assert(
      fc.property(arbitraryScripts, (scripts) => {
        const rig = new Rig()
        const finite = unhang(scripts)
        const model = new Model(finite)
        model.run()
        expect(play(finite, rig)).toEqual(model.log)
        rig.end()
      }),
      { numRuns: 300 },
    )
  })

  it('with preemption everywhere, loses no wake-up and grants no object twice', () => {
    fc.assert(
      fc.property(fc.nat(), fc.integer({ min: 2, max: 5 }), (seed, count) => {
        const rig = new Rig({ seed })
        const { kernel } = rig
        const mutex = kernel.keInitializeMutex(rig.room(KMUTANT.$size))
        const full = kernel.keInitializeSemaphore(rig.room(KSEMAPHORE.$size), 0, 1000)
        let inside = 0
        let taken = 0
        rig.machine.start(() => {
          for (let id = 0; id < count; id++) {
            kernel.psCreateSystemThread(function* () {
              for (let turn = 0; turn < 5; turn++) {
                yield* kernel.keWaitForSingleObject(mutex)
                expect(++inside).toBe(1)
                kernel.keReleaseSemaphore(full, 1)
                inside--
                kernel.keReleaseMutex(mutex)
              }
            })
            kernel.psCreateSystemThread(function* () {
              for (let turn = 0; turn < 5; turn++) {
                expect(yield* kernel.keWaitForSingleObject(full)).toBe(Status.SUCCESS)
                taken++
              }
            })
          }
        })
        expect(taken).toBe(count * 5)
        expect(full.signalState).toBe(0)
        rig.end()
      }),
      { numRuns: 60 },
    )
  })

  it('lets two threads that wait for each other both finish, in either order', () => {
    for (let seed = 0; seed < 40; seed++) {
      for (const first of [0, 1]) {
        const rig = new Rig(seed === 0 ? {} : { seed })
        const { kernel } = rig
        const events = [0, 1].map(() => kernel.keInitializeEvent(rig.room(KEVENT.$size), false, false)) as [
          KEvent,
          KEvent,
        ]
        const done: number[] = []
        rig.machine.start(() => {
          for (const mine of [first, 1 - first]) {
            kernel.psCreateSystemThread(function* () {
              kernel.keSetEvent(events[mine] as KEvent)
              yield* kernel.keWaitForSingleObject(events[1 - mine] as KEvent)
              done.push(mine)
            })
          }
        })
        expect(done.sort()).toEqual([0, 1])
        rig.end()
      }
    }
  })

  it('runs higher priorities first, and equals in turn', () => {
    const rig = new Rig()
    const { kernel } = rig
    const order: string[] = []
    rig.machine.start(() => {
      for (const [name, priority] of [
        ['low', 4],
        ['a', 8],
        ['high', 16],
        ['b', 8],
      ] as const) {
        kernel.psCreateSystemThread(
          function* () {
            for (let turn = 0; turn < 2; turn++) {
              order.push(name)
              yield
            }
          },
          { name, priority },
        )
      }
    })
    expect(order).toEqual(['high', 'high', 'a', 'b', 'a', 'b', 'low', 'low'])
    rig.end()
  })

  it('ends an alertable wait by an alert, also one that came before', () => {
    const rig = new Rig()
    const { kernel } = rig
    const results: NtStatus[] = []
    rig.machine.run(function* () {
      const event = kernel.keInitializeEvent(rig.room(KEVENT.$size), true, false)
      const sleeper = kernel.psCreateSystemThread(function* () {
        results.push(yield* kernel.keWaitForSingleObject(event, { alertable: true }))
        results.push(yield* kernel.keWaitForSingleObject(event, { alertable: true, timeoutUs: 5 }))
        yield* kernel.keDelayExecutionThread(10)
        results.push(yield* kernel.keWaitForSingleObject(event, { alertable: true }))
      })
      kernel.obReferenceThread(sleeper)
      yield* kernel.keDelayExecutionThread(1)
      kernel.keAlertThread(sleeper)
      yield* kernel.keDelayExecutionThread(10)
      kernel.keAlertThread(sleeper)
      yield* kernel.keWaitForSingleObject(sleeper)
      kernel.obDereferenceThread(sleeper)
    })
    expect(results).toEqual([Status.ALERTED, Status.TIMEOUT, Status.ALERTED])
    rig.end()
  })

  it('hands a mutex of a thread that ended to the next one, and says so', () => {
    const rig = new Rig()
    const { kernel } = rig
    rig.machine.run(function* () {
      const mutex = kernel.keInitializeMutex(rig.room(KMUTANT.$size))
      kernel.psCreateSystemThread(function* () {
        yield* kernel.keWaitForSingleObject(mutex)
        yield* kernel.keWaitForSingleObject(mutex)
      })
      yield* kernel.keDelayExecutionThread(1)
      expect(yield* kernel.keWaitForSingleObject(mutex)).toBe(Status.ABANDONED)
      expect(yield* kernel.keWaitForSingleObject(mutex)).toBe(Status.SUCCESS)
      expect(kernel.keReleaseMutex(mutex)).toBe(-1)
      expect(kernel.keReleaseMutex(mutex)).toBe(0)
    })
    rig.end()
  })

  it('wakes everybody of an event, also behind a thread that waits for it twice', () => {
    const rig = new Rig()
    const { kernel } = rig
    const woken: number[] = []
    rig.machine.run(function* () {
      const event = kernel.keInitializeEvent(rig.room(KEVENT.$size), true, false)
      for (const id of [0, 1, 2]) {
        kernel.psCreateSystemThread(function* () {
          expect(yield* kernel.keWaitForMultipleObjects([event, event], true)).toBe(Status.SUCCESS)
          woken.push(id)
        })
      }
      yield* kernel.keDelayExecutionThread(5)
      kernel.keSetEvent(event)
      yield* kernel.keDelayExecutionThread(5)
    })
    expect(woken).toEqual([0, 1, 2])
    rig.end()
  })

  it('waits for up to 64 objects', () => {
    const rig = new Rig()
    const { kernel } = rig
    rig.machine.run(function* () {
      const events = Array.from({ length: 64 }, () =>
        kernel.keInitializeEvent(rig.room(KEVENT.$size), false, false),
      )
      kernel.psCreateSystemThread(function* () {
        yield* kernel.keDelayExecutionThread(5)
        kernel.keSetEvent(events[63] as KEvent)
      })
      expect(yield* kernel.keWaitForMultipleObjects(events, true)).toBe(Status.WAIT_63)
      expect(yield* kernel.keWaitForMultipleObjects(events, true, { timeoutUs: 5 })).toBe(Status.TIMEOUT)
    })
    rig.end()
  })
})
