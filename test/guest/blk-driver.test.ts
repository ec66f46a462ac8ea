import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { BlkDriverState } from '../../guest/virtio/blk.ts'
import { MemoryDisk } from '../../host/disk/memory.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import { hasFeature } from '../../protocol/version.ts'
import { BlkFeature, BlkType } from '../../protocol/virtio/blk.ts'
import type { VirtioVersion } from '../../protocol/virtio/features.ts'
import { CommonFeature, featuresOfVersion, VIRTIO_VERSIONS } from '../../protocol/virtio/features.ts'
import { noise } from '../conformance/disk-backend.ts'
import { BlkRig } from '../host/blk-rig.ts'
import { HeldDisk } from '../host/held-disk.ts'
import type { DriverRig } from './driver-rig.ts'
import { driverRig, TestCommand } from './driver-rig.ts'

const GEOMETRY = { blockBytes: 512, physicalBlockBytes: 512, readOnly: false, serial: 'BOTH ENDS' }

interface BothEnds extends DriverRig {
  readonly rig: BlkRig
  started(): BlkDriverState
}

/** The bare driver before the real device: every part is the one that ships. */
function bothEnds(
  backend: MemoryDisk | HeldDisk,
  options: { version?: VirtioVersion; features?: bigint; queueSize?: number; deviceQueue?: number } = {},
): BothEnds {
  const clock = new VirtualClock({ turnsMax: 200_000 })
  const rig = new BlkRig({
    backend,
    clock,
    version: options.version ?? '1.3',
    limits: { queueSize: options.deviceQueue ?? 64 },
  })
  const guest = driverRig(rig.memory, clock, rig.transport, options)
  rig.line.onRise = () => guest.guest.interrupt(() => rig.line.level)
  return {
    ...guest,
    rig,
    started() {
      let state: BlkDriverState | null = null
      guest.driver.start((now) => {
        state = now
      })
      clock.drain()
      if (state === null) throw new Error('start was never answered')
      return state
    },
  }
}

/** A transfer whose data lies in pieces somewhere in the guest's memory. */
function transfer(ends: BothEnds, type: number, sector: number, pieces: readonly number[]): TestCommand {
  const command = new TestCommand(type, sector)
  for (const lengthBytes of pieces) {
    const at = ends.guest.allocate(lengthBytes, 1)
    if (type === BlkType.IN) command.data.writable(at, lengthBytes)
    else command.data.readable(at, lengthBytes)
  }
  return command
}

function bytesOf(ends: BothEnds, command: TestCommand): Uint8Array {
  const parts: number[] = []
  for (let i = 0; i < command.data.count; i++) {
    const at = command.data.addresses[i] as number
    parts.push(...ends.rig.bytes.subarray(at, at + (command.data.lengths[i] as number)))
  }
  return Uint8Array.from(parts)
}

function fill(ends: BothEnds, command: TestCommand, bytes: Uint8Array): void {
  let done = 0
  for (let i = 0; i < command.data.count; i++) {
    const length = command.data.lengths[i] as number
    ends.rig.bytes.set(bytes.subarray(done, done + length), command.data.addresses[i] as number)
    done += length
  }
}

function perform(ends: BothEnds, ...commands: TestCommand[]): void {
  for (const command of commands) expect(ends.driver.submit(command)).toBe(true)
  ends.driver.kick()
  ends.rig.drain()
}

describe('the bare driver and the device', () => {
  for (const driverVersion of VIRTIO_VERSIONS) {
    for (const deviceVersion of VIRTIO_VERSIONS) {
      test(`a driver of ${driverVersion} works with a device of ${deviceVersion}`, () => {
        const known = featuresOfVersion(driverVersion, BlkFeature)
        const ends = bothEnds(new MemoryDisk(65_536, GEOMETRY), { version: deviceVersion, features: known })
        const state = ends.started()
        if (state.kind !== 'ready') throw new Error(JSON.stringify(state))
        // Nothing that either side's version does not define, and everything both do.
        expect(state.features).toBe(ends.rig.device.offered & known)
        expect(state.features & ~featuresOfVersion(deviceVersion, BlkFeature)).toBe(0n)
        expect(hasFeature(state.features, CommonFeature.VERSION_1.bit)).toBe(true)
        expect(state.geometry.capacitySectors).toBe(128)
        const discards = hasFeature(state.features, BlkFeature.DISCARD.bit)
        expect(state.geometry.discardSegmentsMax > 0).toBe(discards)
        const bytes = noise(1536, 7)
        const write = transfer(ends, BlkType.OUT, 3, [512, 1024])
        fill(ends, write, bytes)
        perform(ends, write)
        const read = transfer(ends, BlkType.IN, 3, [100, 1400, 36])
        perform(ends, read)
        expect([write.end, read.end]).toEqual([
          { kind: 'status', status: 0 },
          { kind: 'status', status: 0 },
        ])
        expect([write.writtenBytes, read.writtenBytes]).toEqual([1, 1537])
        expect(bytesOf(ends, read)).toEqual(bytes)
        expect([ends.violations, ends.rig.violations]).toEqual([[], []])
      })
    }
  }

  test('carry any mix of requests in any batches, at any queue size, with and without each ring feature', () => {
    const request = fc.record({
      type: fc.constantFrom(BlkType.IN, BlkType.OUT, BlkType.FLUSH),
      sector: fc.nat(20),
      sectors: fc.integer({ min: 1, max: 3 }),
    })
    fc.assert(
      fc.property(
        fc.array(fc.array(request, { minLength: 1, maxLength: 6 }), { minLength: 1, maxLength: 8 }),
        fc.constantFrom(4, 8, 64),
        fc.boolean(),
        fc.boolean(),
        (batches, queueSize, indirect, eventIdx) => {
          const features = (1n << 128n) - 1n - (indirect ? 0n : 1n << 28n) - (eventIdx ? 0n : 1n << 29n)
          const disk = new MemoryDisk(32 * 512, GEOMETRY)
          const ends = bothEnds(disk, { features, queueSize, deviceQueue: 64 })
          expect(ends.started().kind).toBe('ready')
          const expected = new Uint8Array(32 * 512)
          for (const batch of batches) {
            const commands = batch.map(({ type, sector, sectors }, i) => {
              const command = transfer(
                ends,
                type,
                type === BlkType.FLUSH ? 0 : sector,
                type === BlkType.FLUSH ? [] : [sectors * 512],
              )
              if (type === BlkType.OUT) fill(ends, command, noise(sectors * 512, sector + i))
              return command
            })
            for (const command of commands) {
              while (!ends.driver.submit(command)) {
                ends.driver.kick()
                ends.rig.drain()
              }
            }
            ends.driver.kick()
            ends.rig.drain()
            for (const [i, command] of commands.entries()) {
              expect([command.ends, command.end]).toEqual([1, { kind: 'status', status: 0 }])
              const { type, sector, sectors } = batch[i] as (typeof batch)[number]
              const range = expected.subarray(sector * 512, (sector + sectors) * 512)
              if (type === BlkType.OUT) range.set(bytesOf(ends, command))
              if (type === BlkType.IN) expect(Buffer.compare(bytesOf(ends, command), range)).toBe(0)
            }
          }
          expect(ends.driver.outstanding).toBe(0)
          expect([ends.violations, ends.rig.violations, ends.rig.line.level]).toEqual([[], [], false])
        },
      ),
      { numRuns: 150 },
    )
  })

  test('follow the disk when its length changes', () => {
    const disk = new HeldDisk()
    const ends = bothEnds(disk)
    expect(ends.started().kind).toBe('ready')
    disk.change({ lengthBytes: 17 * 512 })
    ends.rig.drain()
    const { state } = ends.driver
    expect(state.kind === 'ready' && state.geometry.capacitySectors).toBe(17)
    expect(ends.violations).toEqual([])
  })
})

describe('stopping and starting the driver', () => {
  test('commands that are out end once as gone, when the device cannot touch their memory any more', () => {
    const disk = new HeldDisk()
    disk.obedient = false
    const ends = bothEnds(disk)
    ends.started()
    const commands = [0, 1, 2].map((sector) => transfer(ends, BlkType.IN, sector, [512]))
    perform(ends, ...commands)
    disk.end(1)
    ends.rig.drain()
    expect(commands.map(({ ends: times }) => times)).toEqual([0, 1, 0])
    let stopped: boolean | null = null
    ends.driver.stop((clean) => {
      stopped = clean
    })
    expect([stopped, ends.driver.state.kind, ends.driver.submit(new TestCommand(BlkType.FLUSH, 0))]).toEqual([
      null,
      'stopping',
      false,
    ])
    disk.end()
    expect(commands.map(({ ends: times }) => times)).toEqual([0, 1, 0])
    disk.end()
    ends.rig.drain()
    expect([stopped, ends.driver.state.kind]).toEqual([true, 'stopped'])
    expect(commands.map(({ end }) => end?.kind)).toEqual(['gone', 'status', 'gone'])
    expect(ends.started().kind).toBe('ready')
    const flush = new TestCommand(BlkType.FLUSH, 0)
    perform(ends, flush)
    disk.end()
    ends.rig.drain()
    expect(flush.end).toEqual({ kind: 'status', status: 0 })
    expect([ends.violations, ends.rig.violations]).toEqual([[], []])
  })

  test('in any order and overlapping, every call is answered once and the last one decides', () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom('start', 'stop', 'turns', 'end', 'ask'), { maxLength: 12 }),
        (calls) => {
          const disk = new HeldDisk()
          disk.obedient = false
          const ends = bothEnds(disk)
          const answers: number[] = []
          let asked = 0
          let last = 'stop'
          const commands: TestCommand[] = []
          for (const call of calls) {
            if (call === 'turns') {
              // Time moves: a device that still waits for its disk would be given up.
              const waits = ['starting', 'stopping', 'failed'].includes(ends.driver.state.kind)
              while (waits && disk.held.length > 0) disk.end()
              ends.rig.drain()
            } else if (call === 'end') disk.end()
            else if (call === 'ask') {
              const command = new TestCommand(BlkType.FLUSH, 0)
              if (ends.driver.submit(command)) commands.push(command)
              ends.driver.kick()
            } else {
              const index = asked++
              answers.push(0)
              last = call
              const answered = () => {
                answers[index] = (answers[index] ?? 0) + 1
              }
              if (call === 'start') ends.driver.start(answered)
              else ends.driver.stop(answered)
            }
          }
          for (let left = 20; left > 0; left--) {
            while (disk.held.length > 0) disk.end()
            ends.rig.drain()
          }
          expect(answers.every((times) => times === 1)).toBe(true)
          expect(commands.every(({ ends: times }) => times === 1)).toBe(true)
          expect(ends.driver.state.kind).toBe(last === 'start' ? 'ready' : 'stopped')
          expect([ends.violations, ends.rig.rules]).toEqual([[], []])
        },
      ),
      { numRuns: 300 },
    )
  })

  test('a callback may stop the driver in the middle of a reap', () => {
    const ends = bothEnds(new MemoryDisk(65_536, GEOMETRY))
    ends.started()
    const commands = [0, 1, 2].map((sector) => transfer(ends, BlkType.IN, sector, [512]))
    const first = commands[0] as TestCommand
    first.onEnd = () => ends.driver.stop(() => {})
    perform(ends, ...commands)
    expect(commands.map(({ ends: times, end }) => [times, end?.kind])).toEqual([
      [1, 'status'],
      [1, 'gone'],
      [1, 'gone'],
    ])
    expect([ends.driver.state.kind, ends.violations]).toEqual(['stopped', []])
  })

  test('a callback may restart the driver in the middle of a reap, and what was reaped before harms nothing', () => {
    const ends = bothEnds(new MemoryDisk(65_536, GEOMETRY))
    ends.started()
    const commands = [0, 1, 2].map((sector) => transfer(ends, BlkType.IN, sector, [512]))
    const first = commands[0] as TestCommand
    first.onEnd = () => {
      first.onEnd = null
      ends.driver.stop(() => ends.driver.start(() => {}))
    }
    perform(ends, ...commands)
    expect(commands.map(({ ends: times }) => times)).toEqual([1, 1, 1])
    expect([ends.driver.state.kind, ends.violations]).toEqual(['ready', []])
    const again = transfer(ends, BlkType.IN, 5, [512])
    perform(ends, again)
    expect(again.end).toEqual({ kind: 'status', status: 0 })
  })

  test('a device that needs a reset gets one, and what was out ends as gone', () => {
    const disk = new HeldDisk()
    const ends = bothEnds(disk)
    ends.started()
    const command = transfer(ends, BlkType.IN, 0, [512])
    perform(ends, command)
    ends.rig.transport.needsReset()
    ends.rig.drain()
    expect([command.end?.kind, ends.driver.state.kind, ends.rig.status]).toEqual(['gone', 'failed', 0])
    expect(ends.started().kind).toBe('ready')
  })

  test('a driver that fails says so without taking back a status bit', () => {
    const ends = bothEnds(new HeldDisk(), { deviceQueue: 2, queueSize: 2 })
    expect(ends.started().kind).toBe('failed')
    expect([ends.rig.status & 128, ends.rig.rules]).toEqual([128, []])
  })

  test('a queue outside memory is noticed before the first command', () => {
    const ends = bothEnds(new HeldDisk())
    const { guest } = ends
    const write = guest.write.bind(guest)
    guest.write = (at, width, value) => write(at, width, at % 0x1000 === 0x0a4 ? 1 : value)
    expect(ends.started()).toMatchObject({ kind: 'failed' })
    expect(ends.violations.map(({ rule }) => rule)).toEqual(['device.needs-reset'])
  })
})
