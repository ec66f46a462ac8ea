import { describe, expect, it } from 'vitest'
import type { Interrupt } from '../../guest/kernel/interrupt.ts'
import { Irql } from '../../guest/kernel/irql.ts'
import { KEVENT, KMUTANT } from '../../guest/kernel/layout.ts'
import { NtStatus } from '../../guest/kernel/nt-status.ts'
import { PoolType } from '../../guest/kernel/pool.ts'
import { gpa } from '../../protocol/memory.ts'
import { Rig, TAG } from './kernel-rig.ts'
import { Machine } from './machine.ts'

describe('IRQL', () => {
  it('is the task priority of the processor', () => {
    const rig = new Rig()
    const { kernel } = rig
    rig.machine.run(function* () {
      for (const level of [1, 2, 5, 13, 15]) {
        const before = kernel.keRaiseIrql(level)
        expect(before).toBe(0)
        expect(rig.machine.processor.taskPriority).toBe(level)
        kernel.keLowerIrql(before)
        expect(rig.machine.processor.taskPriority).toBe(0)
      }
      yield
    })
    rig.end()
  })

  it.each([
    [
      'raising to a lower level',
      (rig: Rig) => {
        rig.kernel.keRaiseIrql(3)
        rig.kernel.keRaiseIrql(2)
      },
    ],
    ['lowering to a higher level', (rig: Rig) => rig.kernel.keLowerIrql(2)],
    [
      'setting an event above DISPATCH level',
      (rig: Rig) => {
        const event = rig.kernel.keInitializeEvent(rig.room(24), true, false)
        rig.kernel.keRaiseIrql(3)
        rig.kernel.keSetEvent(event)
      },
    ],
  ] as const)('%s stops the system', (_what, act) => {
    const rig = new Rig()
    expect(
      rig.machine.crash(function* () {
        act(rig)
        yield
      })[0],
    ).toBe(0x0a)
  })

  it('at DISPATCH level allows a look at an object, and a wait stops the system', () => {
    for (const timeoutUs of [0, null, 10]) {
      const machine = new Machine({ ramBytes: 2 ** 21 })
      const { kernel } = machine
      let looked: NtStatus | null = null
      kernel.psCreateSystemThread(function* () {
        const at = kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, KEVENT.$size, TAG)
        const event = kernel.keInitializeEvent(at, true, false)
        const before = kernel.keRaiseIrql(Irql.DISPATCH)
        looked = yield* kernel.keWaitForSingleObject(event, { timeoutUs })
        kernel.keLowerIrql(before)
      })
      machine.drain()
      expect(looked).toBe(timeoutUs === 0 ? NtStatus.TIMEOUT : null)
      expect(kernel.bugCheck?.code ?? null).toBe(timeoutUs === 0 ? null : 0x0a)
    }
  })

  it('in a DPC a wait stops the system, though its object is signalled', () => {
    const machine = new Machine({ ramBytes: 2 ** 21 })
    const { kernel } = machine
    const [code] = machine.crash(function* () {
      const at = kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, 256, TAG)
      const event = kernel.keInitializeEvent(at + 64, true, true)
      const dpc = kernel.keInitializeDpc(
        at,
        kernel.routine(() => {
          kernel.keWaitForSingleObject(event).next()
        }),
      )
      kernel.keInsertQueueDpc(dpc)
      yield
    })
    expect(code).toBe(0xb8)
  })

  it('at DISPATCH level a thread may not give the processor away either', () => {
    const machine = new Machine({ ramBytes: 2 ** 21 })
    expect(
      machine.crash(function* () {
        machine.kernel.keRaiseIrql(2)
        yield
      })[0],
    ).toBe(0x0a)
  })

  it('that a thread or a worker leaves raised stops the system', () => {
    const machine = new Machine({ ramBytes: 2 ** 21 })
    expect(
      machine.crash(function* () {
        machine.kernel.keRaiseIrql(1)
        yield
      })[0],
    ).toBe(0xc8)
  })
})

describe('a spin lock', () => {
  it('raises to DISPATCH level; taken twice, or given back unheld, it stops the system', () => {
    const rig = new Rig()
    const { kernel } = rig
    rig.machine.run(function* () {
      const lock = rig.room(8)
      const before = kernel.keAcquireSpinLock(lock)
      expect([before, kernel.keGetCurrentIrql()]).toEqual([0, 2])
      kernel.keReleaseSpinLock(lock, before)
      expect(kernel.keGetCurrentIrql()).toBe(0)
      yield
    })
    expect(
      rig.machine.crash(function* () {
        const lock = rig.room(8)
        kernel.keAcquireSpinLock(lock)
        kernel.keAcquireSpinLock(lock)
        yield
      })[0],
    ).toBe(0x0f)
    const other = new Rig()
    expect(
      other.machine.crash(function* () {
        other.kernel.keRaiseIrql(2)
        other.kernel.keReleaseSpinLock(other.room(8), 0)
        yield
      })[0],
    ).toBe(0x10)
  })

  it('keeps DPCs away, but not a device’s interrupt', () => {
    const rig = new Rig()
    const { kernel, machine } = rig
    const log: string[] = []
    const line = machine.processor.line(4)
    machine.run(function* () {
      const dpc = kernel.keInitializeDpc(
        rig.room(64),
        kernel.routine(() => {
          log.push(`dpc at ${kernel.keGetCurrentIrql()}`)
        }),
      )
      const interrupt = kernel.ioConnectInterrupt(
        () => {
          line.lower()
          log.push(`isr at ${kernel.keGetCurrentIrql()}`)
          kernel.keInsertQueueDpc(dpc)
          return true
        },
        { line: 4, trigger: 'level', irql: 6 },
      ) as Interrupt
      const lock = rig.room(8)
      const before = kernel.keAcquireSpinLock(lock)
      line.raise()
      machine.processor.boundary()
      log.push('still locked')
      kernel.keReleaseSpinLock(lock, before)
      log.push('released')
      kernel.keSynchronizeExecution(interrupt, () => {
        line.raise()
        machine.processor.boundary()
        log.push(`synchronized at ${kernel.keGetCurrentIrql()}`)
      })
      kernel.ioDisconnectInterrupt(interrupt)
      line.raise()
      machine.processor.boundary()
      line.lower()
      yield
    })
    expect(log).toEqual([
      'isr at 6',
      'still locked',
      'dpc at 2',
      'released',
      'synchronized at 6',
      'isr at 6',
      'dpc at 2',
    ])
    rig.end()
  })
})

describe('an interrupt line', () => {
  it('is shared by level-triggered devices of one level: each asks until one owns it', () => {
    const rig = new Rig()
    const { kernel, machine } = rig
    const line = machine.processor.line(9)
    const log: string[] = []
    machine.run(function* () {
      let pending = ''
      const connect = (name: string) =>
        kernel.ioConnectInterrupt(
          () => {
            log.push(name)
            if (pending !== name) return false
            pending = ''
            line.lower()
            return true
          },
          { line: 9, trigger: 'level' },
        )
      const first = connect('a') as Interrupt
      const second = connect('b') as Interrupt
      expect(kernel.ioConnectInterrupt(() => true, { line: 9, trigger: 'edge' })).toBe(
        NtStatus.INVALID_PARAMETER,
      )
      expect(kernel.ioConnectInterrupt(() => true, { line: 9, trigger: 'level', irql: 7 })).toBe(
        NtStatus.INVALID_PARAMETER,
      )
      expect(kernel.ioConnectInterrupt(() => true, { line: 10, trigger: 'edge', irql: 2 })).toBe(
        NtStatus.INVALID_PARAMETER,
      )
      machine.processor.boundary()
      pending = 'b'
      line.raise()
      machine.processor.boundary()
      pending = 'a'
      line.raise()
      machine.processor.boundary()
      kernel.ioDisconnectInterrupt(first)
      pending = 'b'
      line.raise()
      machine.processor.boundary()
      kernel.ioDisconnectInterrupt(second)
      expect(kernel.parts.interrupts.connectedCount).toBe(0)
      yield
    })
    expect(log).toEqual(['a', 'b', 'a', 'b'])
    rig.end()
  })

  it('of a higher level interrupts a service routine of a lower one', () => {
    const rig = new Rig()
    const { kernel, machine } = rig
    const log: string[] = []
    const low = machine.processor.line(1)
    const high = machine.processor.line(2)
    machine.run(function* () {
      const connected = [
        kernel.ioConnectInterrupt(
          () => {
            low.lower()
            log.push('low begins')
            if (log.length > 1) return true
            high.raise()
            machine.processor.boundary()
            machine.processor.boundary()
            log.push('low ends')
            return true
          },
          { line: 1, trigger: 'level', irql: 4 },
        ),
        kernel.ioConnectInterrupt(
          () => {
            high.lower()
            log.push(`high at ${kernel.keGetCurrentIrql()}`)
            low.raise()
            machine.processor.boundary()
            low.lower()
            return true
          },
          { line: 2, trigger: 'level', irql: 8 },
        ),
      ]
      machine.processor.boundary()
      low.raise()
      machine.processor.boundary()
      for (const interrupt of connected) kernel.ioDisconnectInterrupt(interrupt as Interrupt)
      yield
    })
    // What the line of the lower level asked meanwhile is served afterwards.
    expect(log).toEqual(['low begins', 'high at 8', 'low ends', 'low begins'])
    rig.end()
  })
})

describe('a mistake', () => {
  it.each([
    ['raised its level', (rig: Rig) => rig.kernel.keRaiseIrql(1)],
    ['read a register', (rig: Rig) => rig.kernel.readRegister(gpa(0xd0000000), 4)],
    ['wrote a register', (rig: Rig) => rig.kernel.writeRegister(gpa(0xd0000000), 4, 0)],
  ] as const)('in an ISR stops the system, and code that just %s goes no further', (_what, act) => {
    const rig = new Rig()
    const { kernel, machine } = rig
    let further = false
    const [code] = machine.crash(function* () {
      const line = machine.processor.line(3)
      kernel.ioConnectInterrupt(
        () => {
          throw new TypeError('a mistake')
        },
        { line: 3, trigger: 'level' },
      )
      machine.processor.map(gpa(0xd0000000), 16, { read: () => 0, write: () => undefined })
      machine.processor.boundary()
      line.raise()
      act(rig)
      further = true
      yield
    })
    expect(code).toBe(0x1e)
    expect(further).toBe(false)
    expect(kernel.bugCheck?.cause).toBeInstanceOf(TypeError)
  })

  it('of a driver is a bug check, never an exception: outside memory, or a call of no routine', () => {
    const far = new Rig()
    expect(
      far.machine.crash(function* () {
        far.kernel.parts.memory.pointer(2 ** 45)
        yield
      })[0],
    ).toBe(0x50)
    const wild = new Rig()
    expect(
      wild.machine.crash(function* () {
        wild.kernel.call(0x1234 as never)
        yield
      })[0],
    ).toBe(0x50)
    const mutex = new Rig()
    expect(
      mutex.machine.crash(function* () {
        mutex.kernel.keReleaseMutex(mutex.kernel.keInitializeMutex(mutex.room(KMUTANT.$size)))
        yield
      })[0],
    ).toBe(0x11)
    const own = new Rig()
    expect(
      own.machine.crash(function* () {
        own.kernel.keBugCheckEx(0xdead, 1, 2, 3, 4)
        yield
      }),
    ).toEqual([0xdead, 1])
    expect(own.kernel.bugCheck?.parameters).toEqual([1, 2, 3, 4])
  })
})
