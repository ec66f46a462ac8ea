import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { scanAdapter } from '../../guest/port/storport/scan.ts'
import { blkMiniport } from '../../guest/virtio/blk-miniport.ts'
import { opened } from '../host/disk-subjects.ts'
import { HeldDisk } from '../host/held-disk.ts'
import { blkOn } from './blk-on-machine.ts'
import { type Sent, StorportRig } from './storport-rig.ts'

const SECTORS = 512

const cdb10 = (op: number, lba: number, blocks: number) => [
  op,
  0,
  0,
  0,
  lba >>> 8,
  lba & 0xff,
  0,
  blocks >>> 8,
  blocks & 0xff,
  0,
]
const READ = 0x28
const WRITE = 0x2a

describe('the port over the real miniport and device', () => {
  it('carries reads and writes of scattered pages like an array, with preemption anywhere', async () => {
    const operation = fc.record({
      lba: fc.nat(SECTORS),
      blocks: fc.integer({ min: 1, max: 40 }),
      write: fc.boolean(),
      offset: fc.constantFrom(0, 0, 512, 3584),
      value: fc.integer({ min: 1, max: 255 }),
    })
    await fc.assert(
      fc.asyncProperty(
        fc.array(operation, { minLength: 1, maxLength: 30 }),
        fc.option(fc.nat(1000), { nil: undefined }),
        async (operations, seed) => {
          const rig = new StorportRig(seed === undefined ? {} : { seed })
          const { machine, kernel } = rig
          const backend = await opened(`memory:size=${SECTORS * 512}`)
          const { violations } = blkOn(machine, backend)
          const pools = kernel.parts.pool.count
          const model = new Uint8Array(SECTORS * 512)
          const wrong: string[] = []
          machine.run(function* () {
            yield* rig.start(blkMiniport('1.3'))
            yield* scanAdapter(rig.adapter, rig.started?.configuration as never)
          })
          expect(rig.unit.identity).toMatchObject({ vendor: 'Paravane', product: 'VirtIO Disk' })
          for (const { lba, blocks, write, offset, value } of operations) {
            const bytes = blocks * 512
            let buffer = 0
            let sent: Sent | null = null
            machine.run(function* () {
              buffer = kernel.parts.space.allocateUser(bytes, { offsetBytes: offset })
              kernel.mmWindow(buffer, bytes)?.fill(write ? value : 0xee, 0, bytes)
              sent = rig.send({
                cdb: cdb10(write ? WRITE : READ, lba, blocks),
                buffer,
                lengthBytes: bytes,
                write,
              })
              while (sent.ends === 0) yield* kernel.keDelayExecutionThread(1000)
            })
            const ended = sent as Sent | null
            if (ended === null) throw new Error('not sent')
            const inside = lba + blocks <= SECTORS
            if (ended.status !== (inside ? 'SUCCESS' : 'IO_DEVICE_ERROR'))
              wrong.push(`${ended.status} at ${lba}`)
            if (inside && write) model.fill(value, lba * 512, lba * 512 + bytes)
            const seen = new Uint8Array(bytes)
            kernel.mmWindow(buffer, bytes)?.copyOut(0, seen)
            if (inside && !write && !same(seen, model.subarray(lba * 512, lba * 512 + bytes))) {
              wrong.push(`data at ${lba}`)
            }
            kernel.parts.space.freeUser(buffer)
          }
          expect(wrong).toEqual([])
          expect(violations).toEqual([])
          rig.release()
          kernel.parts.irps.trim()
          expect(rig.sent.every((one) => one.ends === 1)).toBe(true)
          expect(kernel.parts.frames.lockedCount).toBe(0)
          expect(kernel.parts.irps.liveCount).toBe(0)
          // The driver and its device stay: one block each.
          expect(kernel.parts.pool.count - pools).toBeLessThanOrEqual(3)
        },
      ),
      { numRuns: 30 },
    )
  })
})

function same(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, at) => byte === other[at])
}

describe('a request out of time', () => {
  it('has its unit reset, and ends once, when the device lets go of it', () => {
    const rig = new StorportRig()
    const { machine, kernel } = rig
    const backend = new HeldDisk()
    blkOn(machine, backend)
    let sent: Sent | null = null
    machine.run(function* () {
      yield* rig.start(blkMiniport('1.3'))
      const buffer = kernel.parts.space.allocateUser(512)
      yield* kernel.keDelayExecutionThread(1000)
      sent = rig.send({ cdb: cdb10(READ, 0, 1), buffer, lengthBytes: 512 })
    })
    machine.drain()
    const ended = sent as Sent | null
    expect(ended?.ends).toBe(1)
    expect(ended?.status).toBe('IO_DEVICE_ERROR')
    expect(ended?.srbStatus).toBe(0x0e)
    expect(rig.adapter.counts).toMatchObject({ timeouts: 1, resets: 1, orphans: 0, pagesOnLoan: 0 })
    expect(machine.clock.now()).toBeLessThan(13_000_000)
  })

  it('is given up with its pages left on loan, when the device never lets go', () => {
    const rig = new StorportRig()
    const { machine, kernel } = rig
    const backend = new HeldDisk()
    backend.obedient = false
    blkOn(machine, backend)
    let sent: Sent | null = null
    let buffer = 0
    machine.run(function* () {
      yield* rig.start(blkMiniport('1.3'))
      buffer = kernel.parts.space.allocateUser(512)
      yield* kernel.keDelayExecutionThread(1000)
      sent = rig.send({ cdb: cdb10(READ, 0, 1), buffer, lengthBytes: 512 })
    })
    machine.drain()
    const ended = sent as Sent | null
    expect(ended?.ends).toBe(1)
    expect(ended?.status).toBe('DEVICE_DOES_NOT_EXIST')
    expect(rig.adapter.counts.pagesOnLoan).toBe(1)
    const frame = kernel.parts.space.frameOf(buffer, false)
    kernel.parts.space.freeUser(buffer)
    expect(kernel.parts.frames.isRetained(frame)).toBe(true)
    backend.end()
    machine.drain()
    expect(ended?.ends).toBe(1)
    expect(kernel.bugCheck).toBe(null)
  })
})
