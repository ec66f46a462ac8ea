import { describe, expect, it } from 'vitest'
import type { DeviceObject } from '../../guest/kernel/device-object.ts'
import type { DriverObject } from '../../guest/kernel/driver-object.ts'
import { DeviceFlag } from '../../guest/kernel/io-layout.ts'
import { KAPC, KEVENT, KMUTANT, WORK_QUEUE_ITEM } from '../../guest/kernel/layout.ts'
import {
  NtStatus,
  ntError,
  ntInformation,
  ntStatusName,
  ntSuccess,
  ntWarning,
} from '../../guest/kernel/nt-status.ts'
import { Mode } from '../../guest/kernel/thread.ts'
import { WINDOWS_VERSIONS, windowsVersion } from '../../guest/kernel/version.ts'
import { Rig } from './kernel-rig.ts'

describe('APCs', () => {
  it('special ones go before normal ones; a critical region and a mutex keep the normal ones away', () => {
    const rig = new Rig()
    const { kernel } = rig
    const { apcs } = kernel.parts
    const log: string[] = []
    rig.machine.run(function* () {
      const event = kernel.keInitializeEvent(rig.room(KEVENT.$size), true, false)
      const mutex = kernel.keInitializeMutex(rig.room(KMUTANT.$size))
      const room = rig.room(4 * KAPC.$size)
      const thread = kernel.psCreateSystemThread(function* () {
        kernel.keEnterCriticalRegion()
        yield* kernel.keWaitForSingleObject(event)
        log.push('woken')
        yield* kernel.keWaitForSingleObject(mutex)
        kernel.keLeaveCriticalRegion()
        log.push('left the region')
        kernel.keReleaseMutex(mutex)
        log.push('released the mutex')
      })
      yield* kernel.keDelayExecutionThread(5)
      const note = (text: string) => kernel.routine(() => log.push(`${text} at ${kernel.keGetCurrentIrql()}`))
      const normal = (at: number, name: string): void =>
        apcs.initialize(at, thread, { kernel: note(`${name} kernel`) as never, normal: note(name) as never })
      normal(room, 'normal 1')
      normal(room + KAPC.$size, 'normal 2')
      apcs.initialize(room + 2 * KAPC.$size, thread, { kernel: note('special 1') as never })
      apcs.initialize(room + 3 * KAPC.$size, thread, { kernel: note('special 2') as never })
      for (const index of [0, 2, 1, 3]) expect(apcs.insert(room + index * KAPC.$size, thread)).toBe(true)
      expect(apcs.insert(room, thread)).toBe(false)
      yield* kernel.keDelayExecutionThread(5)
      kernel.keSetEvent(event)
      yield* kernel.keDelayExecutionThread(5)
      expect(apcs.insert(room, thread)).toBe(false)
    })
    expect(log).toEqual([
      'special 1 at 1',
      'special 2 at 1',
      'woken',
      'left the region',
      'normal 1 kernel at 1',
      'normal 1 at 0',
      'normal 2 kernel at 1',
      'normal 2 at 0',
      'released the mutex',
    ])
    rig.end()
  })

  it('do not reach a thread at APC level until it lowers', () => {
    const rig = new Rig()
    const { kernel } = rig
    const log: string[] = []
    rig.machine.run(function* () {
      const apc = rig.room(KAPC.$size)
      const thread = kernel.keGetCurrentThread()
      if (thread === null) throw new Error('no thread')
      kernel.parts.apcs.initialize(apc, thread, { kernel: kernel.routine(() => log.push('apc')) as never })
      const before = kernel.keRaiseIrql(1)
      kernel.parts.apcs.insert(apc, thread)
      yield* kernel.keDelayExecutionThread(5)
      log.push('still raised')
      kernel.keLowerIrql(before)
    })
    expect(log).toEqual(['still raised', 'apc'])
    rig.end()
  })

  it('of users wait for an alertable wait; those of a thread that ends are run down', () => {
    const rig = new Rig()
    const { kernel } = rig
    const { apcs } = kernel.parts
    const log: string[] = []
    const note = (text: string) => kernel.routine(() => log.push(text)) as never
    rig.machine.run(function* () {
      const room = rig.room(3 * KAPC.$size)
      const thread = kernel.psCreateSystemThread(function* () {
        yield* kernel.nt.delayExecution(50)
        log.push('slept')
        log.push(ntStatusName(yield* kernel.nt.delayExecution(1000, true)))
        yield* kernel.nt.delayExecution(1000)
      })
      yield* kernel.keDelayExecutionThread(5)
      for (const [index, name] of ['a', 'b', 'c'].entries()) {
        const at = room + index * KAPC.$size
        apcs.initialize(at, thread, {
          kernel: note(`${name} kernel`),
          normal: note(name),
          rundown: note(`${name} rundown`),
          mode: Mode.USER,
        })
        if (index < 2) apcs.insert(at, thread)
      }
      yield* kernel.keDelayExecutionThread(500)
      apcs.insert(room + 2 * KAPC.$size, thread)
    })
    expect(log).toEqual(['slept', 'a kernel', 'a', 'b kernel', 'b', 'USER_APC', 'c rundown'])
    rig.end()
  })
})

describe('work items', () => {
  it('run at PASSIVE level in a system thread, and may wait', () => {
    const rig = new Rig()
    const { kernel } = rig
    const device = rig.layer()
    const log: string[] = []
    rig.machine.run(function* () {
      const item = rig.room(WORK_QUEUE_ITEM.$size)
      const io = kernel.ioAllocateWorkItem(device)
      kernel.keRaiseIrql(2)
      kernel.exQueueWorkItem(
        item,
        kernel.routine(function* (parameter: number) {
          yield* kernel.keDelayExecutionThread(100)
          log.push(`work ${parameter} at ${kernel.keQueryTimeUs()}`)
        }),
        5,
      )
      kernel.ioQueueWorkItem(
        io,
        kernel.routine((self: DeviceObject, context: number) => {
          expect(self).toBe(device)
          expect(self.referenceCount).toBe(1)
          expect(kernel.keGetCurrentIrql()).toBe(0)
          log.push(`io work ${context}`)
          kernel.ioFreeWorkItem(io)
        }),
        6,
      )
      expect(log).toEqual([])
      kernel.keLowerIrql(0)
      yield* kernel.keDelayExecutionThread(200)
    })
    expect(log).toEqual(['io work 6', 'work 5 at 100'])
    expect(device.referenceCount).toBe(0)
    rig.end()
  })

  it('freed while queued stop the system', () => {
    const rig = new Rig()
    const { kernel } = rig
    const device = rig.layer()
    expect(
      rig.machine.crash(function* () {
        const io = kernel.ioAllocateWorkItem(device)
        kernel.ioQueueWorkItem(
          io,
          kernel.routine(() => undefined),
        )
        kernel.ioFreeWorkItem(io)
        yield
      })[0],
    ).toBe(0xc4)
  })
})

describe('a driver', () => {
  it('is loaded once, its devices are ready afterwards, and it unloads when they are gone', () => {
    const rig = new Rig()
    const { kernel } = rig
    rig.machine.run(function* () {
      let device: DeviceObject | NtStatus = NtStatus.UNSUCCESSFUL
      const entry = (driver: DriverObject, registry: string): NtStatus => {
        expect(registry.endsWith('\\Services\\Sample')).toBe(true)
        device = kernel.ioCreateDevice(driver, { extensionBytes: 100, name: '\\Device\\Sample' })
        if (typeof device === 'number') return device
        expect(device.isInitializing).toBe(true)
        const bytes = kernel.parts.memory.bytes.subarray(device.deviceExtension, device.deviceExtension + 100)
        expect(bytes.every((byte) => byte === 0)).toBe(true)
        return NtStatus.SUCCESS
      }
      const driver = yield* kernel.ioLoadDriver('Sample', entry)
      if (typeof driver === 'number') throw new Error('not loaded')
      const made = device as unknown as DeviceObject
      expect(made.flags & DeviceFlag.DEVICE_HAS_NAME).not.toBe(0)
      expect(made.isInitializing).toBe(false)
      expect(driver.name).toBe('\\Driver\\Sample')
      expect(yield* kernel.ioLoadDriver('sample', entry)).toBe(NtStatus.IMAGE_ALREADY_LOADED)
      expect(yield* kernel.ioUnloadDriver(driver)).toBe(NtStatus.INVALID_DEVICE_REQUEST)
      driver.unload = kernel.routine(() => kernel.ioDeleteDevice(made))
      expect(yield* kernel.ioUnloadDriver(driver)).toBe(NtStatus.SUCCESS)
      expect(kernel.parts.names.find('\\Device\\Sample')).toBeNull()
    })
    rig.end()
  })

  it('whose DriverEntry fails leaves nothing behind, nor does a name that is taken', () => {
    const rig = new Rig()
    const { kernel } = rig
    rig.layer({ name: '\\Device\\Taken' })
    rig.machine.run(function* () {
      const entry = (driver: DriverObject): NtStatus => {
        kernel.ioCreateDevice(driver, { name: '\\Device\\Mine' })
        const taken = kernel.ioCreateDevice(driver, { name: '\\device\\taken' })
        return typeof taken === 'number' ? taken : NtStatus.SUCCESS
      }
      expect(yield* kernel.ioLoadDriver('Sample', entry)).toBe(NtStatus.OBJECT_NAME_COLLISION)
      expect(kernel.parts.names.find('\\Device\\Mine')).toBeNull()
    })
    rig.end()
  })
})

describe('memory that never moves', () => {
  it('is contiguous, aligned and zeroed', () => {
    const rig = new Rig()
    const { kernel } = rig
    for (const alignment of [1, 4096, 16384, 65536]) {
      const at = kernel.mmAllocateContiguousMemory(10_000, alignment)
      expect(at % Math.max(4096, alignment)).toBe(0)
      expect(kernel.parts.memory.bytes.subarray(at, at + 10_000).every((byte) => byte === 0)).toBe(true)
      expect(kernel.mmGetPhysicalAddress(at + 5)).toBe(at + 5)
      kernel.mmFreeContiguousMemory(at, 10_000)
    }
    expect(kernel.mmAllocateContiguousMemory(2 ** 30)).toBe(0)
    rig.end()
  })
})

describe('the version table', () => {
  it('holds XP, Vista and 7; anything else is refused in one line', () => {
    expect(Object.values(WINDOWS_VERSIONS).map((one) => [one.name, one.major, one.minor])).toEqual(
      expect.arrayContaining([
        ['xp', 5, 1],
        ['vista', 6, 0],
        ['7', 6, 1],
      ]),
    )
    for (const name of ['xp', 'vista', '7']) expect(windowsVersion(name)).toMatchObject({ name })
    for (const name of ['10', '', 'toString', '__proto__', 'XP']) {
      expect(windowsVersion(name)).toBe(`Windows "${name}" is not served: xp, vista, 7 are`)
    }
  })
})

describe('status classes', () => {
  it('are the two highest bits', () => {
    const classes = [
      NtStatus.PENDING,
      0x40000000 as NtStatus,
      NtStatus.BUFFER_OVERFLOW,
      NtStatus.UNSUCCESSFUL,
    ].map((status) => [ntSuccess(status), ntInformation(status), ntWarning(status), ntError(status)])
    expect(classes).toEqual([
      [true, false, false, false],
      [true, true, false, false],
      [false, false, true, false],
      [false, false, false, true],
    ])
    expect(ntStatusName(0xc0000185 as NtStatus)).toBe('IO_DEVICE_ERROR')
    expect(ntStatusName(0xc0001234 as NtStatus)).toBe('0xC0001234')
  })
})

describe('contexts', () => {
  it('are numbers for objects, until they are released', () => {
    const rig = new Rig()
    const { contexts } = rig.kernel.parts
    const held = contexts.hold({ name: 'x' })
    expect(contexts.get(held)).toEqual({ name: 'x' })
    expect(contexts.count).toBe(1)
    expect(contexts.release(held)).toEqual({ name: 'x' })
    expect(
      rig.machine.crash(function* () {
        contexts.get(held)
        yield
      })[0],
    ).toBe(0x50)
  })
})

describe('a thread', () => {
  it('stays while somebody refers to it, and is signalled when it has ended', () => {
    const rig = new Rig()
    const { kernel } = rig
    rig.machine.run(function* () {
      const thread = kernel.psCreateSystemThread(function* () {
        yield* kernel.keDelayExecutionThread(10)
      })
      kernel.obReferenceThread(thread)
      expect(yield* kernel.keWaitForSingleObject(thread, { timeoutUs: 1 })).toBe(NtStatus.TIMEOUT)
      expect(yield* kernel.keWaitForSingleObject(thread)).toBe(NtStatus.SUCCESS)
      expect(thread.state).toBe('ended')
      expect(kernel.parts.pool.owns(thread.at)).toBe(true)
      kernel.obDereferenceThread(thread)
      expect(kernel.parts.pool.owns(thread.at)).toBe(false)
      yield
    })
    rig.end()
  })
})
