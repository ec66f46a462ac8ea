import fc from 'fast-check'
import { expect, it } from 'vitest'
import { NtStatus, ntStatusName } from '../../guest/kernel/nt-status.ts'
import type { Waiting } from '../../guest/kernel/thread.ts'
import { blkMiniport } from '../../guest/virtio/blk-miniport.ts'
import { ScribblingDevice } from './scribbling-device.ts'
import { CLEAN, WholeStack } from './whole-stack.ts'

const SECTOR = 512
const SECTORS = 128
const SERVE_US = 50

const operation = fc.record({
  first: fc.nat(SECTORS - 20),
  count: fc.integer({ min: 1, max: 19 }),
  write: fc.boolean(),
  flush: fc.boolean(),
})

it('an application’s disk is an array over a device that spoils all that was published, between any two steps', () => {
  fc.assert(
    fc.property(
      fc.array(fc.array(operation, { minLength: 1, maxLength: 6 }), { minLength: 1, maxLength: 6 }),
      fc.option(fc.nat(1000), { nil: undefined }),
      fc.integer({ min: 1, max: 0x7fff_ffff }),
      fc.boolean(),
      (applications, seed, order, indirect) => {
        const stack = new WholeStack(seed)
        const { rig, user } = stack
        const { machine, kernel } = rig
        const { processor, clock } = machine
        const device = new ScribblingDevice(processor.memory, indirect)
        rig.plug(device)
        processor.meanwhile = () => device.scribble()
        let serving = true
        let draw = order
        const serve = (): void => {
          draw = (Math.imul(draw, 48_271) % 0x7fff_ffff) >>> 0
          device.serve(draw)
          if (serving) clock.after(SERVE_US, serve)
        }
        const wrong: string[] = []
        const application = function* (
          index: number,
          operations: (typeof applications)[number],
        ): Waiting<void> {
          const model = new Uint8Array(SECTORS * SECTOR)
          const file = yield* stack.open(true)
          for (const [round, { first, count, write, flush }] of operations.entries()) {
            // Sectors are dealt out: nobody writes what another reads.
            const mine =
              Math.floor(first / applications.length) + index * Math.floor(SECTORS / applications.length)
            const sectors = Math.min(
              count,
              Math.floor(SECTORS / applications.length) - (mine % Math.floor(SECTORS / applications.length)),
            )
            const bytes = sectors * SECTOR
            const buffer = user.allocate(bytes, SECTOR)
            user.put(buffer, new Uint8Array(bytes).fill(write ? 16 * index + round + 1 : 0xee))
            const { status } = yield* write
              ? file.write(buffer, bytes, mine * SECTOR)
              : file.read(buffer, bytes, mine * SECTOR)
            if (status !== NtStatus.SUCCESS) wrong.push(ntStatusName(status))
            if (write) model.fill(16 * index + round + 1, mine * SECTOR, mine * SECTOR + bytes)
            const came = user.get(buffer, bytes) ?? new Uint8Array(0)
            if (Buffer.compare(came, model.subarray(mine * SECTOR, mine * SECTOR + bytes)) !== 0)
              wrong.push('data')
            if (flush && (yield* file.flush()) !== NtStatus.SUCCESS) wrong.push('flush')
            user.free(buffer)
          }
          yield* file.close()
        }
        clock.after(SERVE_US, serve)
        machine.start(() => {
          kernel.psCreateSystemThread(function* () {
            yield* stack.start()
            let running = applications.length
            for (const [index, operations] of applications.entries()) {
              kernel.psCreateSystemThread(function* () {
                yield* application(index, operations)
                running--
              })
            }
            while (running > 0) yield* kernel.keDelayExecutionThread(1000)
            yield* stack.pnp(2)
            serving = false
          })
        })
        expect(serving).toBe(false)
        expect(wrong).toEqual([])
        expect(device.served).toBeGreaterThan(applications.flat().length)
        // Nothing of it was even noticed.
        expect(rig.adapter.violations.entries()).toEqual([])
        expect(rig.adapter.counts).toMatchObject({ timeouts: 0, resets: 0, orphans: 0, strayCompletions: 0 })
        kernel.parts.pool.check()
        expect(stack.finish()).toEqual(CLEAN)
      },
    ),
    { numRuns: 40 },
  )
})

/** As the port's scan does: a unit's depth is told then. */
function* sendInquiry({ rig, user }: WholeStack): Waiting<void> {
  const buffer = user.allocate(36)
  const sent = rig.send({ cdb: [0x12, 0, 0, 0, 36, 0], buffer, lengthBytes: 36 })
  while (sent.ends === 0) yield* rig.kernel.keDelayExecutionThread(1000)
  user.free(buffer)
}

/** Puts a device on the stack's machine and has it serve, while `on`. */
function plugIn(stack: WholeStack, device: ScribblingDevice): { on: boolean } {
  const { clock } = stack.rig.machine
  stack.rig.plug(device)
  const serving = { on: true }
  const serve = (): void => {
    device.serve(0)
    if (serving.on) clock.after(SERVE_US, serve)
  }
  clock.after(SERVE_US, serve)
  return serving
}

it('a device without a cache is sent no flush, whatever a write asks for', () => {
  const stack = new WholeStack(undefined)
  const { rig, user } = stack
  const { machine, kernel } = rig
  const device = new ScribblingDevice(machine.processor.memory, false)
  // FLUSH.
  device.offered &= ~(1n << 9n)
  const serving = plugIn(stack, device)
  const statuses: string[] = []
  machine.start(() => {
    kernel.psCreateSystemThread(function* () {
      yield* stack.start()
      const file = yield* stack.open(false, true)
      const buffer = user.allocate(SECTOR)
      statuses.push(
        ntStatusName((yield* file.write(buffer, SECTOR, 0)).status),
        ntStatusName(yield* file.flush()),
      )
      // WRITE (10) with FUA, as an application passes it through.
      const command = new Uint8Array(96 + SECTOR)
      const view = new DataView(command.buffer)
      view.setUint16(0, 56, true)
      command[6] = 10
      view.setUint32(12, SECTOR, true)
      view.setUint32(16, 10, true)
      view.setBigUint64(24, 96n, true)
      command.set([0x2a, 8, 0, 0, 0, 1, 0, 0, 1, 0], 36)
      statuses.push(ntStatusName((yield* file.control(0x4d004, command, 96)).status))
      user.free(buffer)
      yield* file.close()
      yield* stack.pnp(2)
      serving.on = false
    })
  })
  expect(statuses).toEqual(['SUCCESS', 'SUCCESS', 'SUCCESS'])
  expect(device.types.filter((type) => type === 1)).toHaveLength(2)
  expect(device.types).not.toContain(4)
  expect(rig.adapter.violations.entries()).toEqual([])
})

it('whatever a device says of its queue, the driver takes one it can use, and no more at once than fits', () => {
  for (const [queueMax, indirect, size, depth] of [
    [1, false, null, 0],
    [2, true, null, 0],
    [3, false, null, 0],
    [4, false, 4, 1],
    [7, false, 4, 1],
    [7, true, 4, 4],
    [12, false, 8, 2],
    [16, true, 16, 16],
    [33, false, 32, 8],
  ] as const) {
    const stack = new WholeStack(undefined)
    const { rig, user } = stack
    const { machine, kernel } = rig
    const device = new ScribblingDevice(machine.processor.memory, indirect)
    device.queueMax = queueMax
    const serving = plugIn(stack, device)
    let status = ''
    machine.start(() => {
      kernel.psCreateSystemThread(function* () {
        status = ntStatusName(yield* rig.start(blkMiniport('1.3')))
        if (status === 'SUCCESS') yield* sendInquiry(stack)
        serving.on = false
      })
    })
    if (size === null) {
      expect([queueMax, status]).toEqual([queueMax, 'DEVICE_CONFIGURATION_ERROR'])
      continue
    }
    expect([queueMax, status, device.queue?.size, rig.unit.depth]).toEqual([queueMax, 'SUCCESS', size, depth])
    user.release()
  }
})
