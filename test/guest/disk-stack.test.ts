import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { diskDriver } from '../../guest/class/disk/disk-driver.ts'
import type { DriverObject } from '../../guest/kernel/driver-object.ts'
import { Major } from '../../guest/kernel/io-layout.ts'
import { ntStatusName } from '../../guest/kernel/nt-status.ts'
import { settled, type Waiting } from '../../guest/kernel/thread.ts'
import { User, UserFile } from '../../guest/user.ts'
import { blkMiniport } from '../../guest/virtio/blk-miniport.ts'
import type { DiskBackend, DiskIo } from '../../host/disk/backend.ts'
import { opened } from '../host/disk-subjects.ts'
import { HeldDisk } from '../host/held-disk.ts'
import { blkOn } from './blk-on-machine.ts'
import { StorportRig } from './storport-rig.ts'

const SECTORS = 512
const BYTES = SECTORS * 512

let directory = ''
let files = 0
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'paravane-disk-'))
})
afterAll(() => rmSync(directory, { recursive: true }))

function image(): string {
  const path = join(directory, `${files++}.img`)
  writeFileSync(path, '')
  truncateSync(path, BYTES)
  return path
}

/** The whole stack: application, class driver, port, miniport, ring, device, backend. */
class Stack {
  readonly rig: StorportRig
  readonly user: User

  constructor(seed: number | undefined) {
    this.rig = new StorportRig(seed === undefined ? {} : { seed })
    this.user = new User(this.rig.kernel)
  }

  *start(): Waiting<void> {
    const { rig } = this
    const { kernel } = rig
    yield* rig.start(blkMiniport('1.3'))
    const driver = yield* kernel.ioLoadDriver('disk', diskDriver(kernel))
    if (typeof driver === 'number') throw new Error('not loaded')
    yield* settled(kernel.call(driver.addDevice)(driver as DriverObject, rig.pdo))
    const status = yield* this.pnp(0)
    if (status !== 'SUCCESS') throw new Error(`START: ${status}`)
  }

  *pnp(minor: number): Waiting<string> {
    const { kernel, pdo } = this.rig
    const top = kernel.ioGetAttachedDevice(pdo)
    const irp = kernel.ioAllocateIrp(top.stackSize)
    if (irp === null) throw new Error('no request')
    irp.next.major = Major.PNP
    irp.next.minor = minor
    let ended = false
    kernel.ioSetCompletionRoutine(
      irp,
      kernel.routine(() => {
        ended = true
        return 0xc0000016 as never
      }),
    )
    yield* settled(kernel.ioCallDriver(top, irp))
    while (!ended) yield* kernel.keDelayExecutionThread(1000)
    const { status } = irp
    kernel.ioFreeIrp(irp)
    return ntStatusName(status)
  }

  *open(overlapped = false, writeThrough = false): Waiting<UserFile> {
    const file = yield* this.user.open('\\\\.\\PhysicalDrive0', { overlapped, writeThrough })
    if (!(file instanceof UserFile)) throw new Error(ntStatusName(file))
    return file
  }

  /** Runs a body to its end, also over backends whose answers come from outside. */
  async run(body: () => Waiting<unknown>): Promise<void> {
    const { machine, kernel } = this.rig
    let done = false
    kernel.psCreateSystemThread(function* () {
      yield* body()
      done = true
    })
    machine.wake()
    while (!done) {
      machine.drain()
      if (kernel.bugCheck !== null) throw kernel.bugCheck
      if (!done) await new Promise((resolve) => setImmediate(resolve))
    }
  }

  finish(): Record<string, number> {
    const { parts } = this.rig.kernel
    this.user.release()
    parts.irps.trim()
    return {
      locked: parts.frames.lockedCount,
      irps: parts.irps.liveCount,
      files: parts.files.count,
      handles: this.rig.kernel.nt.handles.count,
      buffers: parts.space.userBufferCount,
    }
  }
}

const CLEAN = { locked: 0, irps: 0, files: 0, handles: 0, buffers: 0 }

const operation = fc.record({
  lba: fc.nat(SECTORS + 4),
  blocks: fc.integer({ min: 1, max: 300 }),
  write: fc.boolean(),
  offset: fc.constantFrom(0, 0, 512, 3584),
  value: fc.integer({ min: 1, max: 255 }),
  flush: fc.boolean(),
})

describe('an application’s disk', () => {
  const specs: readonly (readonly [string, () => string, number])[] = [
    ['memory', () => `memory:size=${BYTES}`, 12],
    ['file', () => `file:${image()}`, 10],
    ['file-async', () => `file-async:${image()}`, 6],
    ['delay', () => `memory:size=${BYTES} | delay:ms=3`, 6],
  ]
  for (const [name, spec, numRuns] of specs) {
    it(`is an array through the whole stack over ${name}, with preemption anywhere`, async () => {
      await fc.assert(
        fc.asyncProperty(
          fc.array(operation, { minLength: 1, maxLength: 16 }),
          fc.option(fc.nat(1000), { nil: undefined }),
          fc.boolean(),
          async (operations, seed, overlapped) => {
            const stack = new Stack(seed)
            const { rig, user } = stack
            const backend = await opened(spec(), rig.machine.clock)
            const { violations } = blkOn(rig.machine, backend)
            const model = new Uint8Array(BYTES)
            const wrong: string[] = []
            await stack.run(function* () {
              yield* stack.start()
              const file = yield* stack.open(overlapped)
              for (const { lba, blocks, write, offset, value, flush } of operations) {
                const bytes = blocks * 512
                const buffer = user.allocate(bytes, offset)
                user.put(buffer, new Uint8Array(bytes).fill(write ? value : 0xee))
                const from = lba * 512
                const result = yield* write ? file.write(buffer, bytes, from) : file.read(buffer, bytes, from)
                const inside = lba + blocks <= SECTORS
                const status = ntStatusName(result.status)
                if (status !== (inside ? 'SUCCESS' : 'INVALID_PARAMETER')) wrong.push(`${status} at ${lba}`)
                if (result.information !== (inside ? bytes : 0)) wrong.push(`${result.information} bytes`)
                if (inside && write) model.fill(value, from, from + bytes)
                const came = user.get(buffer, bytes)
                if (
                  inside &&
                  !write &&
                  Buffer.compare(came ?? model, model.subarray(from, from + bytes)) !== 0
                ) {
                  wrong.push(`data at ${lba}`)
                }
                if (flush && ntStatusName(yield* file.flush()) !== 'SUCCESS') wrong.push('flush')
                user.free(buffer)
              }
              const length = yield* file.control(0x7405c, new Uint8Array(0), 8)
              if (new DataView(length.bytes.buffer).getUint32(0, true) !== BYTES) wrong.push('length')
              yield* file.close()
              if ((yield* stack.pnp(2)) !== 'SUCCESS') wrong.push('REMOVE')
            })
            expect(wrong).toEqual([])
            expect(violations).toEqual([])
            expect(rig.adapter.violations).toEqual([])
            expect(stack.finish()).toEqual(CLEAN)
          },
        ),
        { numRuns },
      )
    })
  }
})

/** Answers at once, until it is told to hold. */
class SometimesHeldDisk extends HeldDisk {
  holding = false

  override submit(io: DiskIo): void {
    super.submit(io)
    if (!this.holding) this.end(this.held.length - 1)
  }
}

describe('a disk whose device does not answer', () => {
  const over = async (
    backend: DiskBackend,
    body: (stack: Stack, file: UserFile, buffer: number) => Waiting<unknown>,
  ): Promise<Stack> => {
    const stack = new Stack(undefined)
    blkOn(stack.rig.machine, backend)
    await stack.run(function* () {
      yield* stack.start()
      const file = yield* stack.open(true)
      const buffer = stack.user.allocate(1024)
      yield* body(stack, file, buffer)
      stack.user.free(buffer)
      yield* file.close()
      yield* stack.pnp(2)
    })
    return stack
  }

  it('answers IO_DEVICE_ERROR after its timeouts, resets and retries, in finite virtual time', async () => {
    const backend = new SometimesHeldDisk()
    let status = ''
    const stack = await over(backend, function* (_stack, file, buffer) {
      backend.holding = true
      status = ntStatusName((yield* file.read(buffer, 512, 0)).status)
      backend.holding = false
    })
    expect(['IO_DEVICE_ERROR', 'IO_TIMEOUT']).toContain(status)
    expect(stack.rig.adapter.counts.timeouts).toBe(9)
    expect(stack.rig.machine.clock.now()).toBeLessThan(200_000_000)
    expect(stack.finish()).toEqual(CLEAN)
  })
})
