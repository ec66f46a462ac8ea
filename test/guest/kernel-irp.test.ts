import { describe, expect, it } from 'vitest'
import type { DeviceObject } from '../../guest/kernel/device-object.ts'
import { Major, StackControl } from '../../guest/kernel/io-layout.ts'
import { type Irp, irpBytes } from '../../guest/kernel/irp.ts'
import type { IrpObserver } from '../../guest/kernel/irp-observer.ts'
import { NtStatus } from '../../guest/kernel/nt-status.ts'
import { finish, Rig } from './kernel-rig.ts'

describe('a fresh request', () => {
  it('has the fields IoAllocateIrp gives it, and is the same after IoReuseIrp', () => {
    const rig = new Rig()
    const { kernel } = rig
    for (const count of [1, 4, 8, 9, 30]) {
      const irp = kernel.ioAllocateIrp(count) as Irp
      const check = (status: NtStatus): void => {
        expect(irp).toMatchObject({
          type: 6,
          sizeBytes: irpBytes(count),
          stackCount: count,
          currentLocation: count + 1,
          allocationFlags: count <= 8 ? 4 : 0,
          status,
          information: 0,
          cancel: false,
          cancelRoutine: 0,
          mdlAddress: 0,
          flags: 0,
          isThreaded: false,
        })
        const from = irp.at + irpBytes(0)
        expect(
          kernel.parts.memory.bytes.subarray(from, irp.at + irpBytes(count)).every((byte) => byte === 0),
        ).toBe(true)
      }
      check(NtStatus.SUCCESS)
      kernel.parts.memory.bytes.fill(0xee, irp.at + irpBytes(0), irp.at + irpBytes(count))
      irp.flags = 0x3f
      irp.cancel = true
      kernel.ioReuseIrp(irp, NtStatus.NOT_SUPPORTED)
      check(NtStatus.NOT_SUPPORTED)
      kernel.ioFreeIrp(irp)
    }
    expect(kernel.ioAllocateIrp(0)).toBeNull()
    expect(kernel.ioAllocateIrp(127)).toBeNull()
    expect((kernel.ioAllocateIrp(2, true) as Irp).allocationFlags).toBe(1 | 4 | 8)
    expect((kernel.ioAllocateIrp(9, true) as Irp).allocationFlags).toBe(1)
    for (const irp of kernel.parts.irps.live()) kernel.ioFreeIrp(irp)
    rig.end()
  })

  it('is poisoned when it is freed, and used again', () => {
    const rig = new Rig()
    const { kernel } = rig
    const irp = kernel.ioAllocateIrp(3) as Irp
    kernel.ioFreeIrp(irp)
    expect(irp.type).toBe(0x6b6b)
    expect(kernel.ioAllocateIrp(3)).toBe(irp)
    expect(irp.type).toBe(6)
    kernel.ioFreeIrp(irp)
    rig.end()
  })
})

describe('a stack location', () => {
  it('is copied without its routine, context and control; skipped; and set aside', () => {
    const rig = new Rig()
    const { kernel } = rig
    const irp = kernel.ioAllocateIrp(3) as Irp
    kernel.ioSetNextIrpStackLocation(irp)
    const { current } = irp
    expect(irp.currentLocation).toBe(3)
    expect(kernel.parts.memory.pointer(irp.at + 0xb8)).toBe(current.at)
    Object.assign(current, {
      major: 3,
      minor: 4,
      flags: 5,
      control: 0xe1,
      argument1: 6,
      argument2: 7,
      argument3: 8,
      argument4: 9,
      deviceObject: 10,
      fileObject: 11,
      completionRoutine: 12,
      context: 13,
    })
    irp.next.completionRoutine = 20 as never
    irp.next.context = 21
    irp.next.control = 0xff
    kernel.ioCopyCurrentIrpStackLocationToNext(irp)
    expect(irp.next).toMatchObject({
      major: 3,
      minor: 4,
      flags: 5,
      control: 0,
      argument1: 6,
      argument2: 7,
      argument3: 8,
      argument4: 9,
      deviceObject: 10,
      fileObject: 11,
      completionRoutine: 20,
      context: 21,
    })
    kernel.ioSkipCurrentIrpStackLocation(irp)
    expect(irp.currentLocation).toBe(4)
    expect(irp.next).toBe(current)
    irp.next.control = StackControl.PENDING_RETURNED
    kernel.ioSetCompletionRoutine(irp, 99 as never, 5, StackControl.INVOKE_ON_ERROR)
    expect(irp.next).toMatchObject({
      completionRoutine: 99,
      context: 5,
      control: StackControl.INVOKE_ON_ERROR,
    })
    kernel.ioFreeIrp(irp)
    rig.end()
  })

  it('is copied bit by bit, whatever the bits mean as a number', () => {
    const rig = new Rig()
    const { kernel } = rig
    const irp = kernel.ioAllocateIrp(2) as Irp
    kernel.ioSetNextIrpStackLocation(irp)
    const { bytes } = kernel.parts.memory
    const from = irp.current.at
    const to = irp.next.at
    for (let round = 0; round < 20_000; round++) {
      // All ones, quiet and signalling NaNs with payloads, denormals, ordinary numbers.
      for (let at = 8; at < 0x38; at++)
        bytes[from + at] = at % 8 > 5 ? ([0xff, 0x7f, 0xf0, 0][round % 4] as number) : round * at
      kernel.ioCopyCurrentIrpStackLocationToNext(irp)
      if (Buffer.compare(bytes.subarray(from, from + 0x38), bytes.subarray(to, to + 0x38)) !== 0) {
        expect([...bytes.subarray(to, to + 0x38)]).toEqual([...bytes.subarray(from, from + 0x38)])
      }
    }
    kernel.ioFreeIrp(irp)
    rig.end()
  })

  it('reads the arguments as 32 bits where they are', () => {
    const rig = new Rig()
    const irp = rig.kernel.ioAllocateIrp(1) as Irp
    rig.kernel.parts.memory.bytes.fill(0xff, irp.next.at, irp.next.at + 72)
    irp.next.lengthBytes = 512
    expect(irp.next.lengthBytes).toBe(512)
    irp.next.byteOffset = 2 ** 45
    expect(irp.next.byteOffset).toBe(2 ** 45)
    irp.next.ioControlCode = 0x80002000
    expect(irp.next.ioControlCode).toBe(0x80002000)
    rig.kernel.ioFreeIrp(irp)
    rig.end()
  })
})

describe('the system stops', () => {
  it.each([
    [
      'when no location is left',
      0x35,
      (rig: Rig, irp: Irp, device: DeviceObject) => {
        irp.currentLocation = 1
        rig.kernel.ioCallDriver(device, irp)
      },
    ],
    [
      'when a request is completed twice',
      0x44,
      (rig: Rig, irp: Irp) => {
        rig.kernel.ioSetNextIrpStackLocation(irp)
        irp.thread = rig.kernel.keGetCurrentThread()?.at ?? 0
        rig.kernel.keRaiseIrql(1)
        rig.kernel.ioCompleteRequest(irp)
        rig.kernel.ioCompleteRequest(irp)
      },
    ],
    [
      'when a freed request is completed',
      0x44,
      (rig: Rig, irp: Irp) => {
        rig.kernel.ioFreeIrp(irp)
        rig.kernel.ioCompleteRequest(irp)
      },
    ],
    [
      'when a request is freed twice',
      0xc2,
      (rig: Rig, irp: Irp) => {
        rig.kernel.ioFreeIrp(irp)
        rig.kernel.ioFreeIrp(irp)
      },
    ],
    [
      'when a request in a thread’s list is freed',
      0x2a,
      (rig: Rig, irp: Irp) => {
        rig.kernel.parts.builder.queueToThread(irp)
        rig.kernel.ioFreeIrp(irp)
      },
    ],
    ['when an originator looks at a location it does not have', 0x50, (_rig: Rig, irp: Irp) => irp.current],
    [
      'when a deleted device is called',
      0x50,
      (rig: Rig, irp: Irp, device: DeviceObject) => {
        rig.kernel.ioDeleteDevice(device)
        rig.kernel.ioCallDriver(device, irp)
      },
    ],
    [
      'when a request is completed above DISPATCH level',
      0x0a,
      (rig: Rig, irp: Irp) => {
        rig.kernel.ioSetNextIrpStackLocation(irp)
        rig.kernel.keRaiseIrql(4)
        rig.kernel.ioCompleteRequest(irp)
      },
    ],
  ] as const)('%s', (_what, code, act) => {
    const rig = new Rig()
    const device = rig.layer()
    expect(
      rig.machine.crash(function* () {
        act(rig, rig.kernel.ioAllocateIrp(2) as Irp, device)
        yield
      })[0],
    ).toBe(code)
  })
})

describe('IoCompleteRequest above DISPATCH level', () => {
  it('stops the system at the request itself', () => {
    const rig = new Rig()
    const { kernel } = rig
    let at = 0
    expect(
      rig.machine.crash(function* () {
        const irp = kernel.ioAllocateIrp(1) as Irp
        at = irp.at
        kernel.ioSetNextIrpStackLocation(irp)
        kernel.keRaiseIrql(3)
        kernel.ioCompleteRequest(irp)
        yield
      }),
    ).toEqual([0x0a, at])
  })
})

describe('the device a completion routine is given', () => {
  it('is the one the location names, whoever used the request or the address before', () => {
    const rig = new Rig()
    const { kernel } = rig
    const seen: (DeviceObject | null)[] = []
    const routine = kernel.routine((device: DeviceObject | null) => {
      seen.push(device)
      return NtStatus.MORE_PROCESSING_REQUIRED
    })
    const bottom = rig.layer({
      dispatch: { [Major.READ]: (_self, irp) => finish(kernel, irp, NtStatus.SUCCESS) },
    })
    const send = (own: DeviceObject): void => {
      const irp = kernel.ioAllocateIrp(2) as Irp
      kernel.ioSetNextIrpStackLocation(irp)
      irp.current.deviceObject = own.at
      irp.next.major = Major.READ
      kernel.ioSetCompletionRoutine(irp, routine)
      kernel.ioCallDriver(bottom, irp)
      kernel.ioFreeIrp(irp)
    }
    const first = rig.layer({
      dispatch: {
        [Major.READ]: (_self, irp) => {
          kernel.ioCopyCurrentIrpStackLocationToNext(irp)
          kernel.ioSetCompletionRoutine(irp, routine)
          return kernel.ioCallDriver(bottom, irp)
        },
      },
    })
    const own = rig.layer()
    // The request's memory remembers `first` from here on.
    const irp = kernel.ioAllocateIrp(2) as Irp
    irp.next.major = Major.READ
    kernel.ioCallDriver(first, irp)
    kernel.ioFreeIrp(irp)
    send(own)
    send(first)
    expect(seen).toEqual([first, own, first])
    // Another device at the same address.
    const driver = kernel.parts.devices.createDriver('\\Driver\\Again')
    if (driver === null) throw new Error('no memory')
    const make = (): DeviceObject => kernel.ioCreateDevice(driver, { extensionBytes: 600 }) as DeviceObject
    const old = make()
    driver.setMajorFunction(Major.READ, first.driver.majorFunction(Major.READ))
    const again = kernel.ioAllocateIrp(2) as Irp
    again.next.major = Major.READ
    kernel.ioCallDriver(old, again)
    kernel.ioFreeIrp(again)
    let fresh = make()
    const others: DeviceObject[] = []
    kernel.ioDeleteDevice(old)
    while (fresh.at !== old.at) {
      others.push(fresh)
      fresh = make()
    }
    send(fresh)
    expect(seen.at(-1)).toBe(fresh)
    for (const device of [...others, fresh]) kernel.ioDeleteDevice(device)
    kernel.parts.devices.deleteDriver(driver)
    rig.end()
  })
})

describe('an observer', () => {
  it('sees every step of a request', () => {
    const rig = new Rig()
    const { kernel } = rig
    const steps: string[] = []
    const observer: IrpObserver = {
      allocated: () => steps.push('allocated'),
      freeing: () => steps.push('freeing'),
      sent: (irp) => steps.push(`sent ${irp.currentLocation}`),
      answered: (_irp, _device, status) => steps.push(`answered ${status}`),
      marked: () => steps.push('marked'),
      completing: () => steps.push('completing'),
      unwound: (_irp, _device, status) => steps.push(`unwound ${status.toString(16)}`),
      completed: () => steps.push('completed'),
      cancelling: () => steps.push('cancelling'),
    }
    const lower = rig.layer({
      dispatch: {
        [Major.READ]: (_self, irp) => {
          kernel.ioMarkIrpPending(irp)
          kernel.ioCancelIrp(irp)
          finish(kernel, irp, NtStatus.SUCCESS)
          return NtStatus.PENDING
        },
      },
    })
    kernel.parts.irps.observer = observer
    const irp = kernel.ioAllocateIrp(1) as Irp
    irp.next.major = Major.READ
    kernel.ioSetCompletionRoutine(
      irp,
      kernel.routine(() => NtStatus.MORE_PROCESSING_REQUIRED),
    )
    kernel.ioCallDriver(lower, irp)
    expect(irp.holder).toBe('driver')
    kernel.ioFreeIrp(irp)
    kernel.parts.irps.observer = null
    expect(steps).toEqual([
      'allocated',
      'sent 1',
      'marked',
      'cancelling',
      'completing',
      'unwound c0000016',
      'answered 259',
      'freeing',
    ])
    rig.end()
  })
})
