import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { controlCode, Method } from '../../guest/kernel/io-control.ts'
import { DeviceFlag, IrpFlag, Major } from '../../guest/kernel/io-layout.ts'
import type { Irp } from '../../guest/kernel/irp.ts'
import { MdlFlag } from '../../guest/kernel/mdl.ts'
import { type NtStatus, NtStatus as Status } from '../../guest/kernel/nt-status.ts'
import { finish, Rig, STATUS_CLASSES } from './kernel-rig.ts'

const STATUSES = [...Object.values(STATUS_CLASSES), Status.VERIFY_REQUIRED]

interface Scene {
  readonly method: Method
  readonly inputBytes: number
  readonly outputBytes: number
  readonly status: NtStatus
  readonly information: number
  readonly offsetBytes: number
  readonly late: boolean
}

const INPUT = 0x11
const OUTPUT = 0x22
const DRIVER = 0x33

const bytes = (count: number, value: number): number[] => new Array<number>(count).fill(value)

/** Section 1.9: what the caller's two buffers hold afterwards. */
function predict(scene: Scene): number[] {
  const { outputBytes, information, status, method } = scene
  const written = bytes(outputBytes, DRIVER)
  if (method === Method.BUFFERED) {
    const copied = status >= 0xc000_0000 || status === Status.VERIFY_REQUIRED ? 0 : information
    return [...bytes(copied, DRIVER), ...bytes(outputBytes - copied, OUTPUT)]
  }
  // The device wrote in place, whatever the status; in-direct means that it read.
  return method === Method.IN_DIRECT ? bytes(outputBytes, OUTPUT) : written
}

function play(scene: Scene, rig: Rig): number[] {
  const { kernel } = rig
  const { space } = kernel.parts
  const room = rig.room(128)
  const timer = kernel.keInitializeTimer(room)
  let held: Irp | null = null
  const dpc = kernel.keInitializeDpc(
    room + 64,
    kernel.routine(() => {
      if (held !== null) finish(kernel, held, scene.status, scene.information)
    }),
  )
  rig.layer({
    name: '\\Device\\Buffers',
    dispatch: {
      [Major.DEVICE_CONTROL]: (_device, irp) => {
        held = irp
        inspect(scene, irp, rig)
        if (!scene.late) return finish(kernel, irp, scene.status, scene.information)
        kernel.ioMarkIrpPending(irp)
        kernel.keSetTimer(timer, 5, 0, dpc)
        return Status.PENDING
      },
    },
  })
  const iosb = rig.iosb()
  const input = space.allocateUser(8192, { offsetBytes: scene.offsetBytes })
  const output = space.allocateUser(8192, { offsetBytes: scene.offsetBytes })
  space.copyIn(input, new Uint8Array(scene.inputBytes).fill(INPUT))
  space.copyIn(output, new Uint8Array(scene.outputBytes).fill(OUTPUT))
  rig.machine.run(function* () {
    const { handle } = yield* kernel.nt.createFile('\\Device\\Buffers', { synchronous: true })
    const status = yield* kernel.nt.deviceIoControlFile(handle, {
      iosb,
      code: controlCode(0x22, 3, scene.method, 0),
      input,
      inputBytes: scene.inputBytes,
      output,
      outputBytes: scene.outputBytes,
    })
    expect(status).toBe(scene.status)
    yield* kernel.nt.close(handle)
  })
  const after = new Uint8Array(scene.outputBytes)
  space.copyOut(output, after)
  const untouched = new Uint8Array(scene.inputBytes)
  space.copyOut(input, untouched)
  expect([...untouched]).toEqual(bytes(scene.inputBytes, INPUT))
  space.freeUser(input)
  space.freeUser(output)
  rig.end()
  return [...after]
}

/** The driver's view of the buffers; writes its answer where the method says. */
function inspect(scene: Scene, irp: Irp, rig: Rig): void {
  const { kernel } = rig
  const { memory, space } = kernel.parts
  const { method, inputBytes, outputBytes } = scene
  const { current } = irp
  expect(current.inputBufferLengthBytes).toBe(inputBytes)
  expect(current.outputBufferLengthBytes).toBe(outputBytes)
  expect(current.ioControlCode % 4).toBe(method)
  if (method === Method.NEITHER) {
    expect(irp.systemBuffer).toBe(0)
    expect(irp.mdlAddress).toBe(0)
    space.copyIn(irp.userBuffer, new Uint8Array(outputBytes).fill(DRIVER))
    const raw = new Uint8Array(inputBytes)
    space.copyOut(current.type3InputBuffer, raw)
    expect([...raw]).toEqual(bytes(inputBytes, INPUT))
    return
  }
  const systemBytes = method === Method.BUFFERED ? Math.max(inputBytes, outputBytes) : inputBytes
  expect(irp.systemBuffer !== 0).toBe(systemBytes > 0)
  expect([...memory.bytes.subarray(irp.systemBuffer, irp.systemBuffer + inputBytes)]).toEqual(
    bytes(inputBytes, INPUT),
  )
  if (method === Method.BUFFERED) {
    memory.bytes.fill(DRIVER, irp.systemBuffer, irp.systemBuffer + systemBytes)
    return
  }
  expect(irp.mdlAddress !== 0).toBe(outputBytes > 0)
  if (outputBytes === 0) return
  const mdl = kernel.mdlAt(irp.mdlAddress)
  expect(mdl.byteCount).toBe(outputBytes)
  const window = kernel.mmWindow(kernel.mmGetSystemAddressForMdlSafe(mdl), outputBytes)
  if (method === Method.OUT_DIRECT) window?.fill(DRIVER, 0, outputBytes)
  else {
    const given = new Uint8Array(outputBytes)
    window?.copyOut(0, given)
    expect([...given]).toEqual(bytes(outputBytes, OUTPUT))
  }
}

describe('device control buffers', () => {
  it('reach the driver and come back as the method says, for every status class', () => {
    const rig = new Rig()
    for (const method of Object.values(Method)) {
      for (const status of STATUSES) {
        for (const [inputBytes, outputBytes] of [
          [0, 0],
          [0, 40],
          [40, 0],
          [16, 40],
          [40, 16],
        ] as const) {
          for (const information of [0, 7, outputBytes].filter((count) => count <= outputBytes)) {
            for (const late of [false, true]) {
              const scene = { method, status, inputBytes, outputBytes, information, late, offsetBytes: 0 }
              expect({ scene, after: play(scene, rig) }).toEqual({ scene, after: predict(scene) })
            }
          }
        }
      }
    }
  })

  it('may begin anywhere and cross pages that lie apart', () => {
    fc.assert(
      fc.property(
        fc.record({
          method: fc.constantFrom(...Object.values(Method)),
          status: fc.constantFrom(...STATUSES),
          inputBytes: fc.nat(5000),
          outputBytes: fc.nat(5000),
          share: fc.double({ min: 0, max: 1, noNaN: true }),
          offsetBytes: fc.nat(4095),
          late: fc.boolean(),
          seed: fc.nat(100),
        }),
        ({ share, seed, ...rest }) => {
          const scene = { ...rest, information: Math.floor(share * rest.outputBytes) }
          expect(play(scene, new Rig({ seed }))).toEqual(predict(scene))
        },
      ),
      { numRuns: 60 },
    )
  })

  it('lets the pointer alone decide whether an answer is copied back, not its length', () => {
    const rig = new Rig()
    const { kernel } = rig
    const flags: number[] = []
    rig.layer({
      name: '\\Device\\Buffers',
      dispatch: {
        [Major.DEVICE_CONTROL]: (_device, irp) => {
          flags.push(irp.flags & IrpFlag.INPUT_OPERATION)
          return finish(kernel, irp, Status.SUCCESS)
        },
      },
    })
    const iosb = rig.iosb()
    rig.machine.run(function* () {
      const { handle } = yield* kernel.nt.createFile('\\Device\\Buffers', { synchronous: true })
      const code = controlCode(0x22, 3, Method.BUFFERED, 0)
      for (const output of [iosb, 0]) {
        yield* kernel.nt.deviceIoControlFile(handle, {
          iosb,
          code,
          input: iosb,
          inputBytes: 4,
          output,
          outputBytes: 0,
        })
      }
      yield* kernel.nt.close(handle)
    })
    expect(flags).toEqual([IrpFlag.INPUT_OPERATION, 0])
    rig.end()
  })

  it('lets a driver that says it returned more than it wrote leak pool memory, as Windows does', () => {
    const rig = new Rig()
    const { kernel } = rig
    const { space } = kernel.parts
    rig.layer({
      name: '\\Device\\Buffers',
      dispatch: { [Major.DEVICE_CONTROL]: (_device, irp) => finish(kernel, irp, Status.SUCCESS, 8) },
    })
    const output = space.allocateUser(8)
    const iosb = rig.iosb()
    rig.machine.run(function* () {
      const { handle } = yield* kernel.nt.createFile('\\Device\\Buffers', { synchronous: true })
      yield* kernel.nt.deviceIoControlFile(handle, {
        iosb,
        code: controlCode(0x22, 3, Method.BUFFERED, 0),
        output,
        outputBytes: 8,
      })
      yield* kernel.nt.close(handle)
    })
    const after = new Uint8Array(8)
    space.copyOut(output, after)
    expect([...after]).not.toEqual(bytes(8, 0))
    space.freeUser(output)
    rig.end()
  })
})

describe('transfer buffers', () => {
  it.each([
    ['buffered', DeviceFlag.BUFFERED_IO],
    ['direct', DeviceFlag.DIRECT_IO],
    ['neither', 0],
  ] as const)('of a %s device carry a read and a write of any length', (kind, flags) => {
    for (const write of [false, true]) {
      for (const lengthBytes of [0, 1, 512, 5000]) {
        for (const status of STATUSES) {
          const rig = new Rig()
          const { kernel } = rig
          const { space, memory } = kernel.parts
          const serve = (_device: unknown, irp: Irp): NtStatus => {
            expect(irp.current.lengthBytes).toBe(lengthBytes)
            expect(irp.current.byteOffset).toBe(2 ** 40)
            expect(irp.systemBuffer !== 0).toBe(kind === 'buffered' && lengthBytes > 0)
            expect(irp.mdlAddress !== 0).toBe(kind === 'direct' && lengthBytes > 0)
            const at =
              kind === 'buffered'
                ? irp.systemBuffer
                : kind === 'neither'
                  ? irp.userBuffer
                  : lengthBytes === 0
                    ? 0
                    : kernel.mmGetSystemAddressForMdlSafe(kernel.mdlAt(irp.mdlAddress))
            if (kind === 'direct' && lengthBytes > 0) {
              // Locked for what will be done to the pages.
              expect(kernel.mdlAt(irp.mdlAddress).has(MdlFlag.WRITE_OPERATION)).toBe(!write)
            }
            if (lengthBytes > 0) {
              const given = new Uint8Array(lengthBytes)
              space.copyOut(at, given)
              if (write) expect([...given]).toEqual(bytes(lengthBytes, OUTPUT))
              else space.copyIn(at, new Uint8Array(lengthBytes).fill(DRIVER))
            }
            return finish(kernel, irp, status, lengthBytes)
          }
          rig.layer({ name: '\\Device\\B', flags, dispatch: { [Major.READ]: serve, [Major.WRITE]: serve } })
          const buffer = space.allocateUser(lengthBytes, { offsetBytes: 100 })
          space.copyIn(buffer, new Uint8Array(lengthBytes).fill(OUTPUT))
          const iosb = rig.iosb()
          rig.machine.run(function* () {
            const { handle } = yield* kernel.nt.createFile('\\Device\\B', { synchronous: true })
            const request = { iosb, buffer, lengthBytes, byteOffset: 2 ** 40 }
            const call = write ? kernel.nt.writeFile(handle, request) : kernel.nt.readFile(handle, request)
            expect(yield* call).toBe(status)
            yield* kernel.nt.close(handle)
          })
          const after = new Uint8Array(lengthBytes)
          space.copyOut(buffer, after)
          const copied = kind !== 'buffered' || (status < 0xc000_0000 && status !== Status.VERIFY_REQUIRED)
          expect([...after]).toEqual(bytes(lengthBytes, !write && copied ? DRIVER : OUTPUT))
          space.freeUser(buffer)
          rig.end()
          expect(memory.bytes.length).toBeGreaterThan(0)
        }
      }
    }
  })

  it('are refused where the application may not read or write', () => {
    const rig = new Rig()
    const { kernel } = rig
    const { space } = kernel.parts
    rig.layer({
      name: '\\Device\\B',
      flags: DeviceFlag.DIRECT_IO,
      dispatch: { [Major.READ]: (_d, irp) => finish(kernel, irp, Status.SUCCESS) },
    })
    const readOnly = space.allocateUser(4096, { readOnly: true })
    const iosb = rig.iosb()
    rig.machine.run(function* () {
      const { handle } = yield* kernel.nt.createFile('\\Device\\B')
      const read = (buffer: number, at = iosb) =>
        kernel.nt.readFile(handle, { iosb: at, buffer, lengthBytes: 16, byteOffset: 0 })
      expect(yield* read(readOnly)).toBe(Status.ACCESS_VIOLATION)
      expect(yield* read(readOnly + 4090)).toBe(Status.ACCESS_VIOLATION)
      expect(yield* read(2 ** 40 + 2 ** 30)).toBe(Status.ACCESS_VIOLATION)
      expect(yield* read(Number.NaN)).toBe(Status.ACCESS_VIOLATION)
      expect(yield* read(-16)).toBe(Status.ACCESS_VIOLATION)
      expect(yield* read(0)).toBe(Status.ACCESS_VIOLATION)
      expect(yield* read(iosb, readOnly)).toBe(Status.ACCESS_VIOLATION)
      expect(
        yield* kernel.nt.deviceIoControlFile(handle, {
          iosb,
          code: controlCode(0x22, 1, Method.OUT_DIRECT, 0),
          input: iosb,
          inputBytes: 8,
          output: readOnly,
          outputBytes: 4,
        }),
      ).toBe(Status.ACCESS_VIOLATION)
      yield* kernel.nt.close(handle)
    })
    space.freeUser(readOnly)
    rig.end()
  })

  it('need the access that a handle has, and that a control code asks for', () => {
    const rig = new Rig()
    const { kernel } = rig
    const ok = (_d: unknown, irp: Irp): NtStatus => finish(kernel, irp, Status.SUCCESS)
    rig.layer({
      name: '\\Device\\B',
      dispatch: { [Major.READ]: ok, [Major.WRITE]: ok, [Major.DEVICE_CONTROL]: ok },
    })
    const iosb = rig.iosb()
    rig.machine.run(function* () {
      for (const [read, write] of [
        [true, false],
        [false, true],
        [true, true],
        [false, false],
      ] as const) {
        const { handle } = yield* kernel.nt.createFile('\\Device\\B', { read, write })
        const request = { iosb, buffer: iosb, lengthBytes: 8, byteOffset: 0 }
        const allowed = (may: boolean): NtStatus => (may ? Status.SUCCESS : Status.ACCESS_DENIED)
        expect(yield* kernel.nt.readFile(handle, request)).toBe(allowed(read))
        expect(yield* kernel.nt.writeFile(handle, request)).toBe(allowed(write))
        for (let access = 0; access < 4; access++) {
          const code = controlCode(0x22, 1, Method.NEITHER, access)
          expect(yield* kernel.nt.deviceIoControlFile(handle, { iosb, code })).toBe(
            allowed(((access & 1) === 0 || read) && ((access & 2) === 0 || write)),
          )
        }
        yield* kernel.nt.close(handle)
      }
    })
    rig.end()
  })
})
