import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { DeviceObject } from '../../guest/kernel/device-object.ts'
import { Major, StackControl } from '../../guest/kernel/io-layout.ts'
import type { Irp } from '../../guest/kernel/irp.ts'
import type { Kernel } from '../../guest/kernel/kernel.ts'
import { type NtStatus, NtStatus as Status } from '../../guest/kernel/nt-status.ts'
import type { CompletionRoutine } from '../../guest/kernel/stack-location.ts'
import { settled } from '../../guest/kernel/thread.ts'
import { Rig, STATUS_CLASSES } from './kernel-rig.ts'

interface Routine {
  readonly invoke: number
  /** Marks its own location when the lower one was marked. */
  readonly propagates: boolean
  /** Answers MORE_PROCESSING_REQUIRED and completes the request again later. */
  readonly takes: boolean
}

type Layer =
  | { readonly kind: 'skip' }
  | { readonly kind: 'copy'; readonly marks: boolean; readonly routine: Routine | null }

interface Scene {
  readonly layers: readonly Layer[]
  /** The originator has a location, and so a device, of its own. */
  readonly own: boolean
  readonly bottomMarks: boolean
  readonly status: NtStatus
  readonly cancel: boolean
  /** A DPC completes it, after the dispatch routines have answered. */
  readonly late: boolean
}

interface Call {
  readonly who: number | 'originator'
  readonly device: number | 'originator' | null
  readonly pending: boolean
}

const ORIGINATOR: Routine = { invoke: 0xe0, propagates: false, takes: true }

/** The rules of section 1.7, on plain objects: who is called, with which device, and what PendingReturned says. */
function predict(scene: Scene): Call[] {
  interface Frame {
    device: Call['device']
    marked: boolean
    readonly who: Call['who']
    readonly routine: Routine | null
  }
  const frames: Frame[] = [{ device: null, marked: false, who: 'originator', routine: ORIGINATOR }]
  const last = (): Frame => frames.at(-1) as Frame
  for (const [index, layer] of scene.layers.entries()) {
    last().device = index
    if (layer.kind === 'skip') continue
    last().marked ||= layer.marks
    frames.push({ device: null, marked: false, who: index, routine: layer.routine })
  }
  last().device = scene.layers.length
  last().marked ||= scene.bottomMarks
  const success = scene.status < 0x8000_0000
  const calls: Call[] = []
  for (let at = frames.length - 1; at >= 0; at--) {
    const { marked: pending, routine, who } = frames[at] as Frame
    const above = frames[at - 1]
    const device = above?.device ?? (scene.own ? 'originator' : null)
    const invoked =
      routine !== null &&
      (((routine.invoke & StackControl.INVOKE_ON_SUCCESS) !== 0 && success) ||
        ((routine.invoke & StackControl.INVOKE_ON_ERROR) !== 0 && !success) ||
        ((routine.invoke & StackControl.INVOKE_ON_CANCEL) !== 0 && scene.cancel))
    if (invoked) calls.push({ who, device, pending })
    const spreads = invoked ? routine.propagates && pending : pending
    if (spreads && above !== undefined) above.marked = true
  }
  return calls
}

/** What ioCallDriver on the top device answers, by the rule for dispatch routines. */
function answered(scene: Scene): NtStatus {
  const marks = scene.layers.some((layer) => layer.kind === 'copy' && layer.marks)
  return marks || scene.bottomMarks || scene.late ? Status.PENDING : scene.status
}

class Play {
  readonly rig: Rig
  readonly kernel: Kernel
  readonly scene: Scene
  readonly calls: Call[]
  readonly devices: DeviceObject[]
  own: DeviceObject | null
  held: Irp | null

  constructor(scene: Scene, rig: Rig) {
    this.rig = rig
    this.kernel = this.rig.kernel
    this.scene = scene
    this.calls = []
    this.devices = []
    this.own = null
    this.held = null
  }

  run(): NtStatus {
    const { kernel, scene, rig } = this
    const room = rig.room(256)
    const timer = kernel.keInitializeTimer(room)
    const dpc = kernel.keInitializeDpc(
      room + 64,
      kernel.routine(() => this.complete(this.held)),
    )
    let below: DeviceObject | null = null
    const made: DeviceObject[] = []
    for (let index = scene.layers.length; index >= 0; index--) {
      const layer = scene.layers[index]
      const dispatch =
        layer === undefined
          ? (_device: DeviceObject, irp: Irp) => this.bottom(irp, () => kernel.keSetTimer(timer, 10, 0, dpc))
          : (device: DeviceObject, irp: Irp) => this.pass(layer, index, device, irp)
      below = rig.layer({ dispatch: { [Major.READ]: dispatch } }, below)
      made.unshift(below)
    }
    this.devices.push(...made)
    const top = made[0] as DeviceObject
    if (scene.own) this.own = rig.layer()
    let status: NtStatus = Status.UNSUCCESSFUL
    const done = kernel.keInitializeEvent(room + 128, true, false)
    rig.machine.run(
      function* (this: Play) {
        const irp = kernel.ioAllocateIrp(top.stackSize + (scene.own ? 1 : 0))
        if (irp === null) throw new Error('no memory')
        if (this.own !== null) {
          kernel.ioSetNextIrpStackLocation(irp)
          irp.current.deviceObject = this.own.at
        }
        irp.next.major = Major.READ
        irp.cancel = scene.cancel
        kernel.ioSetCompletionRoutine(
          irp,
          kernel.routine(
            this.recorder('originator', ORIGINATOR, () => {
              kernel.ioFreeIrp(irp)
              kernel.keSetEvent(done)
            }),
          ),
        )
        status = yield* settled(kernel.ioCallDriver(top, irp))
        yield* kernel.keWaitForSingleObject(done)
      }.bind(this),
    )
    rig.end()
    return status
  }

  bottom(irp: Irp, later: () => void): NtStatus {
    const { kernel, scene } = this
    expect(irp.current.lengthBytes).toBe(0)
    if (scene.bottomMarks || scene.late) kernel.ioMarkIrpPending(irp)
    this.held = irp
    if (scene.late) {
      later()
      return Status.PENDING
    }
    this.complete(irp)
    return scene.bottomMarks ? Status.PENDING : scene.status
  }

  complete(irp: Irp | null): void {
    if (irp === null) throw new Error('nothing is held')
    irp.status = this.scene.status
    this.kernel.ioCompleteRequest(irp)
  }

  pass(layer: Layer, index: number, device: DeviceObject, irp: Irp) {
    const { kernel } = this
    const lower = device.extension as DeviceObject
    if (layer.kind === 'skip') {
      kernel.ioSkipCurrentIrpStackLocation(irp)
      return kernel.ioCallDriver(lower, irp)
    }
    if (layer.marks) kernel.ioMarkIrpPending(irp)
    kernel.ioCopyCurrentIrpStackLocationToNext(irp)
    expect(irp.next.control).toBe(0)
    if (layer.routine !== null) {
      const { routine } = layer
      const restart = (): void => kernel.ioCompleteRequest(irp)
      kernel.ioSetCompletionRoutine(
        irp,
        kernel.routine(this.recorder(index, routine, restart)),
        0,
        routine.invoke,
      )
    }
    const status = kernel.ioCallDriver(lower, irp)
    return layer.marks ? Status.PENDING : status
  }

  /** A completion routine that writes down what it sees; `after` is what one that takes the request does. */
  recorder(who: Call['who'], routine: Routine, after: () => void): CompletionRoutine {
    const { kernel } = this
    return (device, irp) => {
      const pending = irp.pendingReturned
      this.calls.push({ who, device: this.name(device), pending })
      const left = irp.locations[irp.currentLocation - 2]
      expect(left).toMatchObject({ major: Major.READ, minor: 0, flags: 0, control: 0, fileObject: 0 })
      expect([left?.argument1, left?.argument2, left?.argument3]).toEqual([0, 0, 0])
      if (routine.propagates && pending) kernel.ioMarkIrpPending(irp)
      if (!routine.takes) return Status.SUCCESS
      after()
      return Status.MORE_PROCESSING_REQUIRED
    }
  }

  name(device: DeviceObject | null): Call['device'] {
    if (device === null) return null
    return device === this.own ? 'originator' : this.devices.indexOf(device)
  }
}

function check(scene: Scene, rig: Rig): void {
  const play = new Play(scene, rig)
  const status = play.run()
  expect(play.calls).toEqual(predict({ ...scene, bottomMarks: scene.bottomMarks || scene.late }))
  expect(status).toBe(answered(scene))
}

const INVOKES = [0x20, 0x40, 0x80, 0xc0, 0xe0]
const STATUSES = [...Object.values(STATUS_CLASSES), Status.CANCELLED, Status.VERIFY_REQUIRED]

const arbitraryRoutine = fc.record({
  invoke: fc.constantFrom(...INVOKES, 0, 0x60, 0xa0),
  propagates: fc.boolean(),
  takes: fc.boolean(),
})
const arbitraryLayer: fc.Arbitrary<Layer> = fc.oneof(
  fc.constant<Layer>({ kind: 'skip' }),
  fc.record({
    kind: fc.constant('copy' as const),
    marks: fc.boolean(),
    routine: fc.option(arbitraryRoutine, { nil: null }),
  }),
)
const arbitraryScene: fc.Arbitrary<Scene> = fc.record({
  layers: fc.array(arbitraryLayer, { maxLength: 5 }),
  own: fc.boolean(),
  bottomMarks: fc.boolean(),
  status: fc.constantFrom(...STATUSES),
  cancel: fc.boolean(),
  late: fc.boolean(),
})

describe('unwinding follows the rules', () => {
  it('for every return value, mark, invoke mask, routine result, status class and cancel', () => {
    const rig = new Rig()
    for (const status of Object.values(STATUS_CLASSES)) {
      for (const invoke of INVOKES) {
        for (let bits = 0; bits < 64; bits++) {
          const routine = { invoke, propagates: (bits & 2) !== 0, takes: (bits & 4) !== 0 }
          const scene: Scene = {
            layers: [{ kind: 'copy', marks: (bits & 1) !== 0, routine }],
            own: false,
            bottomMarks: (bits & 8) !== 0,
            status,
            cancel: (bits & 16) !== 0,
            late: (bits & 32) !== 0,
          }
          check(scene, rig)
        }
      }
    }
  })

  it('on stacks of any shape, with preemption everywhere', () => {
    fc.assert(
      fc.property(arbitraryScene, fc.nat(1000), (scene, seed) => check(scene, new Rig({ seed }))),
      {
        numRuns: 400,
      },
    )
  })
})
