import type { DeviceObject } from '../../guest/kernel/device-object.ts'
import { Major } from '../../guest/kernel/io-layout.ts'
import type { Irp } from '../../guest/kernel/irp.ts'
import { Kernel } from '../../guest/kernel/kernel.ts'
import { NtStatus } from '../../guest/kernel/nt-status.ts'
import type { Routine } from '../../guest/kernel/routine.ts'
import type { CompletionRoutine } from '../../guest/kernel/stack-location.ts'
import { WINDOWS_VERSIONS } from '../../guest/kernel/version.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import { PlainProcessor } from '../guest/plain-processor.ts'
import { type Measurement, nsPerOperation } from './measure.ts'

const BATCH = 500
const LAYERS = 4

/**
 * One read through four drivers: a request is made, each driver but the lowest copies its location and sets a
 * completion routine, the lowest answers, the routines run, the originator frees it.
 */
function ours(): () => void {
  const kernel = new Kernel({
    processor: new PlainProcessor(new VirtualClock(), 4 * 1024 * 1024),
    version: WINDOWS_VERSIONS[7],
    checked: false,
  })
  let sum = 0
  const passed = kernel.routine((_device: DeviceObject | null, irp: Irp) => {
    if (irp.pendingReturned) kernel.ioMarkIrpPending(irp)
    return NtStatus.SUCCESS
  })
  const pass = kernel.routine((device: DeviceObject, irp: Irp) => {
    kernel.ioCopyCurrentIrpStackLocationToNext(irp)
    kernel.ioSetCompletionRoutine(irp, passed)
    return kernel.ioCallDriver(device.extension as DeviceObject, irp)
  })
  const answer = kernel.routine((_device: DeviceObject, irp: Irp) => {
    irp.status = NtStatus.SUCCESS
    irp.information = irp.current.lengthBytes
    kernel.ioCompleteRequest(irp)
    return NtStatus.SUCCESS
  })
  let top: DeviceObject | null = null
  for (let layer = 0; layer < LAYERS; layer++) {
    const driver = kernel.parts.devices.createDriver(`\\Driver\\${layer}`)
    if (driver === null) throw new Error('no memory')
    const device = kernel.ioCreateDevice(driver)
    if (typeof device === 'number') throw new Error('no memory')
    driver.setMajorFunction(Major.READ, top === null ? answer : pass)
    device.flags = 0
    if (top !== null) device.extension = kernel.ioAttachDeviceToDeviceStack(device, top)
    top = device
  }
  const done: Routine<CompletionRoutine> = kernel.routine((_device: DeviceObject | null, irp: Irp) => {
    sum += irp.information
    kernel.ioFreeIrp(irp)
    return NtStatus.MORE_PROCESSING_REQUIRED
  })
  return () => {
    if (top === null) return
    sum = 0
    for (let i = 0; i < BATCH; i++) {
      const irp = kernel.ioAllocateIrp(LAYERS)
      if (irp === null) throw new Error('no memory')
      const { next } = irp
      next.major = Major.READ
      next.lengthBytes = 512
      next.byteOffset = i
      kernel.ioSetCompletionRoutine(irp, done)
      if (kernel.ioCallDriver(top, irp) !== NtStatus.SUCCESS) throw new Error('status')
    }
    if (sum !== 512 * BATCH) throw new Error('information')
  }
}

type PlainRoutine = (device: PlainDevice | null, irp: PlainIrp, context: number) => number
type PlainDispatch = (device: PlainDevice, irp: PlainIrp) => number

interface PlainDevice {
  readonly major: PlainDispatch[]
  readonly lower: PlainDevice | null
}

class PlainLocation {
  major = 0
  minor = 0
  flags = 0
  control = 0
  argument1 = 0
  argument2 = 0
  argument3 = 0
  argument4 = 0
  device: PlainDevice | null = null
  file: object | null = null
  routine: PlainRoutine | null = null
  context = 0
}

class PlainIrp {
  type = 6
  stackCount = LAYERS
  current = LAYERS + 1
  status = 0
  information = 0
  flags = 0
  mdl: object | null = null
  systemBuffer = 0
  cancel = false
  cancelRoutine: PlainRoutine | null = null
  pendingReturned = false
  thread: object | null = null
  userIosb = 0
  userEvent = 0
  userBuffer = 0
  file: object | null = null
  readonly locations: readonly PlainLocation[] = Array.from({ length: LAYERS }, () => new PlainLocation())
}

/**
 * The same walk over JavaScript objects, written by hand: the same fields, the same rules, no guest memory. Made
 * anew for each request, as a program without records would, or kept and cleared, as only one that counts every
 * nanosecond would.
 */
function handWritten(pooled: boolean): () => void {
  const free: PlainIrp[] = []
  let sum = 0

  const clear = (irp: PlainIrp): void => {
    irp.type = 6
    irp.current = LAYERS + 1
    irp.status = 0
    irp.information = 0
    irp.flags = 0
    irp.mdl = null
    irp.systemBuffer = 0
    irp.cancel = false
    irp.cancelRoutine = null
    irp.pendingReturned = false
    irp.thread = null
    irp.userIosb = 0
    irp.userEvent = 0
    irp.userBuffer = 0
    irp.file = null
    for (const location of irp.locations) {
      location.major = 0
      location.minor = 0
      location.flags = 0
      location.control = 0
      location.argument1 = 0
      location.argument2 = 0
      location.argument3 = 0
      location.argument4 = 0
      location.device = null
      location.file = null
      location.routine = null
      location.context = 0
    }
  }
  const make = (): PlainIrp => {
    const kept = free.pop()
    if (kept === undefined) return new PlainIrp()
    clear(kept)
    return kept
  }
  const at = (irp: PlainIrp, number: number): PlainLocation => {
    const location = irp.locations[number - 1]
    if (location === undefined) throw new Error('no location')
    return location
  }
  const call = (device: PlainDevice, irp: PlainIrp): number => {
    const number = irp.current - 1
    if (number <= 0) throw new Error('no location')
    irp.current = number
    const location = at(irp, number)
    location.device = device
    const dispatch = device.major[location.major]
    if (dispatch === undefined) throw new Error('major')
    return dispatch(device, irp)
  }
  const setRoutine = (irp: PlainIrp, routine: PlainRoutine, context: number): void => {
    const next = at(irp, irp.current - 1)
    next.routine = routine
    next.context = context
    next.control = 0xe0
  }
  const complete = (irp: PlainIrp): void => {
    let number = irp.current
    if (irp.type !== 6 || number > irp.stackCount + 1) throw new Error('completed twice')
    while (++number <= irp.stackCount + 1) {
      irp.current = number
      const left = at(irp, number - 1)
      const { control } = left
      const pending = (control & 1) !== 0
      irp.pendingReturned = pending
      const success = irp.status < 0x8000_0000
      const invoked = (control & (success ? 0x40 : 0x80)) !== 0 || ((control & 0x20) !== 0 && irp.cancel)
      const { routine, context } = left
      left.minor = 0
      left.flags = 0
      left.control = 0
      left.argument1 = 0
      left.argument2 = 0
      left.argument3 = 0
      left.file = null
      if (!invoked || routine === null) {
        if (pending && number <= irp.stackCount) at(irp, number).control |= 1
        continue
      }
      const device = number > irp.stackCount ? null : at(irp, number).device
      if (routine(device, irp, context) === 0xc0000016) return
    }
    throw new Error('nobody took it')
  }

  const passed: PlainRoutine = (_device, irp) => {
    if (irp.pendingReturned) at(irp, irp.current).control |= 1
    return 0
  }
  const pass: PlainDispatch = (device, irp) => {
    const from = at(irp, irp.current)
    const to = at(irp, irp.current - 1)
    to.major = from.major
    to.minor = from.minor
    to.flags = from.flags
    to.control = 0
    to.argument1 = from.argument1
    to.argument2 = from.argument2
    to.argument3 = from.argument3
    to.argument4 = from.argument4
    to.device = from.device
    to.file = from.file
    setRoutine(irp, passed, 0)
    if (device.lower === null) throw new Error('no lower device')
    return call(device.lower, irp)
  }
  const answer: PlainDispatch = (_device, irp) => {
    irp.status = 0
    irp.information = at(irp, irp.current).argument1
    complete(irp)
    return 0
  }
  let top: PlainDevice | null = null
  for (let layer = 0; layer < LAYERS; layer++) {
    const major: PlainDispatch[] = new Array(28).fill(top === null ? answer : pass)
    top = { major, lower: top }
  }
  const done: PlainRoutine = (_device, irp) => {
    sum += irp.information
    irp.type = 0
    if (pooled) free.push(irp)
    return 0xc0000016
  }
  return () => {
    if (top === null) return
    sum = 0
    for (let i = 0; i < BATCH; i++) {
      const irp = make()
      const next = at(irp, irp.current - 1)
      next.major = 3
      next.argument1 = 512
      next.argument3 = i
      setRoutine(irp, done, 0)
      if (call(top, irp) !== 0) throw new Error('status')
    }
    if (sum !== 512 * BATCH) throw new Error('information')
  }
}

export const IRP: Measurement = {
  name: 'irp',
  what: 'a request through four drivers, made, sent, unwound and freed',
  candidates: ['objects', 'pooled objects', 'ours'],
  goals: { ours: { atMost: 1.5 } },
  unit: 'ns',
  run: (candidate, ms) =>
    nsPerOperation(BATCH, ms, candidate === 'ours' ? ours() : handWritten(candidate === 'pooled objects')),
}
