import { describe, expect, it } from 'vitest'
import { controlCode, Method } from '../../guest/kernel/io-control.ts'
import { Major } from '../../guest/kernel/io-layout.ts'
import type { Irp } from '../../guest/kernel/irp.ts'
import { type NtStatus, NtStatus as Status } from '../../guest/kernel/nt-status.ts'
import { WINDOWS_VERSIONS } from '../../guest/kernel/version.ts'
import { Rig, STATUS_CLASSES, UNTOUCHED } from './kernel-rig.ts'

interface Scene {
  readonly operation: 'read' | 'control'
  readonly synchronous: boolean
  readonly port: boolean
  readonly event: boolean
  readonly apc: boolean
  readonly context: number
  readonly status: NtStatus
  /** Not at all; marked and completed before the answer; completed by a DPC. */
  readonly pending: 'no' | 'at once' | 'late'
  readonly skipPort: boolean
  readonly skipEvent: boolean
}

interface Seen {
  readonly answer: NtStatus
  readonly iosb: { readonly status: number; readonly information: number }
  readonly event: boolean
  readonly fileEvent: boolean
  readonly apcs: readonly number[]
  readonly packets: readonly (readonly [number, number, number, number])[]
}

const KEY = 77
const MOVED = 12

/** Section 1.7, steps 6 and 7. */
function predict(scene: Scene): Seen {
  const pended = scene.pending !== 'no'
  const error = scene.status >= 0xc000_0000
  const told = !error || (pended && !scene.synchronous)
  const waited = error && pended && scene.synchronous
  const quiet = !pended
  return {
    answer: scene.synchronous || !pended ? scene.status : Status.PENDING,
    iosb: told ? { status: scene.status, information: MOVED } : { status: UNTOUCHED, information: UNTOUCHED },
    event: scene.event && told,
    fileEvent: (told && (scene.event ? scene.synchronous : !(scene.skipEvent && quiet))) || waited,
    apcs: told && scene.apc ? [scene.context] : [],
    packets:
      told && scene.port && !scene.apc && scene.context !== 0 && !(scene.skipPort && quiet)
        ? [[KEY, scene.context, scene.status, MOVED]]
        : [],
  }
}

function play(scene: Scene, rig: Rig): Seen {
  const { kernel } = rig
  const { nt } = kernel
  const room = rig.room(128)
  const timer = kernel.keInitializeTimer(room)
  let held: Irp | null = null
  const complete = (): void => {
    if (held === null) throw new Error('nothing is held')
    held.status = scene.status
    held.information = MOVED
    kernel.ioCompleteRequest(held)
  }
  const dpc = kernel.keInitializeDpc(room + 64, kernel.routine(complete))
  const serve = (_device: unknown, irp: Irp): NtStatus => {
    held = irp
    if (scene.pending === 'no') {
      complete()
      return scene.status
    }
    kernel.ioMarkIrpPending(irp)
    if (scene.pending === 'late') kernel.keSetTimer(timer, 50, 0, dpc)
    else complete()
    return Status.PENDING
  }
  rig.layer({ name: '\\Device\\Final', dispatch: { [Major.READ]: serve, [Major.DEVICE_CONTROL]: serve } })
  const iosb = rig.iosb()
  const buffer = rig.room(64)
  const apcs: number[] = []
  const seen = rig.machine.run(function* () {
    const { handle } = yield* nt.createFile('\\Device\\Final', { synchronous: scene.synchronous })
    const port = nt.createIoCompletion().handle
    if (scene.port) expect(nt.associatePort(handle, port, KEY)).toBe(Status.SUCCESS)
    if (scene.skipPort || scene.skipEvent) {
      expect(nt.setSkipFlags(handle, scene.skipPort, scene.skipEvent)).toBe(Status.SUCCESS)
    }
    const event = nt.createEvent(true, true).handle
    const answering = {
      iosb,
      event: scene.event ? event : 0,
      apcContext: scene.context,
      ...(scene.apc
        ? {
            apcRoutine: kernel.routine((context: number, block: number) => {
              expect(block).toBe(iosb)
              apcs.push(context)
            }),
          }
        : {}),
    }
    const answer =
      scene.operation === 'read'
        ? yield* nt.readFile(handle, { ...answering, buffer, lengthBytes: 64, byteOffset: 0 })
        : yield* nt.deviceIoControlFile(handle, {
            ...answering,
            code: controlCode(0x22, 1, Method.NEITHER, 0),
            output: buffer,
            outputBytes: 64,
          })
    expect(apcs).toEqual([])
    yield* nt.delayExecution(100, true)
    yield* nt.delayExecution(100, true)
    const packets: Seen['packets'][number][] = []
    for (;;) {
      const packet = yield* nt.removeIoCompletion(port, 0)
      if (typeof packet === 'number') break
      packets.push([packet.key, packet.apcContext, packet.status, packet.information])
    }
    const eventSet = (yield* nt.waitForSingleObject(event, false, 0)) === Status.SUCCESS
    const fileEvent = (yield* nt.waitForSingleObject(handle, false, 0)) === Status.SUCCESS
    for (const open of [handle, port, event]) expect(yield* nt.close(open)).toBe(Status.SUCCESS)
    return { answer, event: scene.event && eventSet, fileEvent, packets }
  })
  const result: Seen = { ...seen, iosb: rig.answer(iosb), apcs }
  rig.end()
  return result
}

function* scenes(): Generator<Scene> {
  for (let bits = 0; bits < 256; bits++) {
    const has = (bit: number): boolean => (bits & (1 << bit)) !== 0
    const synchronous = has(0)
    const port = has(1)
    const apc = has(2)
    // A port is not for synchronous handles, and an APC not for a handle with a port.
    if ((port && (synchronous || apc)) || ((has(6) || has(7)) && (synchronous || apc))) continue
    for (const status of Object.values(STATUS_CLASSES)) {
      for (const pending of ['no', 'at once', 'late'] as const) {
        yield {
          operation: has(3) ? 'read' : 'control',
          synchronous,
          port,
          apc,
          event: has(4),
          context: has(5) ? 0x1234 : 0,
          status,
          pending,
          skipPort: has(6),
          skipEvent: has(7),
        }
      }
    }
  }
}

describe('who is told that a request is finished', () => {
  it('is decided by status class, pending mark and kind of handle alone', () => {
    const rig = new Rig()
    let count = 0
    for (const scene of scenes()) {
      expect({ scene, seen: play(scene, rig) }).toEqual({ scene, seen: predict(scene) })
      count++
    }
    expect(count).toBe(1056)
  })

  it('does not depend on when threads and interrupts come', () => {
    let at = 0
    for (const scene of scenes()) {
      if (at++ % 13 !== 0) continue
      expect({ scene, seen: play(scene, new Rig({ seed: at })) }).toEqual({ scene, seen: predict(scene) })
    }
  })

  it('refuses an APC together with a port, a port on a synchronous handle, a second port', () => {
    const rig = new Rig()
    const { nt } = rig.kernel
    rig.layer({ name: '\\Device\\Final' })
    const iosb = rig.iosb()
    rig.machine.run(function* () {
      const port = nt.createIoCompletion().handle
      const { handle } = yield* nt.createFile('\\Device\\Final')
      const slow = (yield* nt.createFile('\\Device\\Final', { synchronous: true })).handle
      expect(nt.associatePort(slow, port, 1)).toBe(Status.INVALID_PARAMETER)
      expect(nt.associatePort(handle, handle, 1)).toBe(Status.OBJECT_TYPE_MISMATCH)
      expect(nt.associatePort(handle, 4000, 1)).toBe(Status.INVALID_HANDLE)
      expect(nt.associatePort(handle, port, 1)).toBe(Status.SUCCESS)
      expect(nt.associatePort(handle, port, 1)).toBe(Status.INVALID_PARAMETER)
      const apcRoutine = rig.kernel.routine(() => undefined)
      expect(
        yield* nt.readFile(handle, { iosb, buffer: iosb, lengthBytes: 1, byteOffset: 0, apcRoutine }),
      ).toBe(Status.INVALID_PARAMETER)
      for (const open of [handle, slow, port]) yield* nt.close(open)
    })
    rig.end()
  })

  it('hands packets out in the order they came, to whoever waits', () => {
    const rig = new Rig()
    const { nt } = rig.kernel
    const taken: number[] = []
    rig.machine.run(function* () {
      const port = nt.createIoCompletion().handle
      for (const key of [1, 2, 3]) {
        const packet = { key, apcContext: 0, status: Status.SUCCESS, information: key }
        expect(nt.setIoCompletion(port, packet)).toBe(Status.SUCCESS)
      }
      for (let count = 0; count < 3; count++) {
        const packet = yield* nt.removeIoCompletion(port, 0)
        if (typeof packet !== 'number') taken.push(packet.key)
      }
      expect(yield* nt.removeIoCompletion(port, 10)).toBe(Status.TIMEOUT)
      expect(
        nt.setIoCompletion(4000, { key: 1, apcContext: 0, status: Status.SUCCESS, information: 0 }),
      ).toBe(Status.INVALID_HANDLE)
      yield* nt.close(port)
    })
    expect(taken).toEqual([1, 2, 3])
    rig.end()
  })

  it('reaches a thread that another one was put on top of, before it waits', () => {
    for (let seed = 0; seed < 80; seed++) {
      const rig = new Rig({ seed })
      const { kernel } = rig
      const { nt } = kernel
      let held: Irp | null = null
      rig.layer({
        name: '\\Device\\Final',
        dispatch: {
          [Major.READ]: (_device, irp) => {
            kernel.ioMarkIrpPending(irp)
            held = irp
            return Status.PENDING
          },
        },
      })
      const iosb = rig.iosb()
      rig.machine.run(function* () {
        const { handle } = yield* nt.createFile('\\Device\\Final')
        const event = nt.createEvent(false, false).handle
        kernel.psCreateSystemThread(function* () {
          while (held === null) yield
          held.status = Status.SUCCESS
          kernel.ioCompleteRequest(held)
        })
        yield* nt.readFile(handle, { iosb, event, buffer: iosb, lengthBytes: 8, byteOffset: 0 })
        for (let count = 0; count < 10; count++) kernel.keLowerIrql(kernel.keRaiseIrql(0))
        expect(yield* nt.waitForSingleObject(event)).toBe(Status.SUCCESS)
        yield* nt.close(event)
        yield* nt.close(handle)
      })
      rig.end()
    }
  })

  it('has skip flags from Vista on', () => {
    for (const version of Object.values(WINDOWS_VERSIONS)) {
      const rig = new Rig({ version })
      const { nt } = rig.kernel
      rig.layer({ name: '\\Device\\Final' })
      rig.machine.run(function* () {
        const { handle } = yield* nt.createFile('\\Device\\Final')
        expect(nt.setSkipFlags(handle, true, true) === Status.SUCCESS).toBe(version.major >= 6)
        yield* nt.close(handle)
      })
      rig.end()
    }
  })
})
