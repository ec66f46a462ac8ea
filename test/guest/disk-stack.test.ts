import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ntStatusName } from '../../guest/kernel/nt-status.ts'
import type { Waiting } from '../../guest/kernel/thread.ts'
import { Overlapped, type UserFile } from '../../guest/user.ts'
import type { DiskBackend, DiskIo } from '../../host/disk/backend.ts'
import { opened } from '../host/disk-subjects.ts'
import { HeldDisk } from '../host/held-disk.ts'
import { blkOn } from './blk-on-machine.ts'
import { CLEAN, WholeStack } from './whole-stack.ts'

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
            const stack = new WholeStack(seed)
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
            expect(rig.adapter.violations.entries()).toEqual([])
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
    body: (stack: WholeStack, file: UserFile, buffer: number) => Waiting<unknown>,
  ): Promise<WholeStack> => {
    const stack = new WholeStack(undefined)
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

  it('has as many requests out as its ring has room for', async () => {
    const backend = new SometimesHeldDisk()
    let held = 0
    const stack = await over(backend, function* (stack, file, buffer) {
      backend.holding = true
      const begun: Overlapped[] = []
      for (let index = 0; index < 60; index++) {
        const request = yield* file.begin(false, buffer, 512, 0)
        if (request instanceof Overlapped) begun.push(request)
      }
      yield* stack.rig.kernel.keDelayExecutionThread(1000)
      held = backend.held.length
      backend.holding = false
      while (backend.held.length > 0) backend.end()
      for (const request of begun) yield* file.result(request)
    })
    expect(held).toBe(60)
    expect(stack.finish()).toEqual(CLEAN)
  })
})
