import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { diskDriver } from '../../guest/class/disk/disk-driver.ts'
import { NtStatus, ntStatusName } from '../../guest/kernel/nt-status.ts'
import { PnpMinor } from '../../guest/kernel/pnp/pnp-minor.ts'
import { settled, type Waiting } from '../../guest/kernel/thread.ts'
import { SrbFunction } from '../../guest/port/srb.ts'
import { User, UserFile } from '../../guest/user.ts'
import { escapePath, imageMaker, opened, scratch } from '../host/disk-subjects.ts'
import { blkOn } from './blk-on-machine.ts'
import { ByHand } from './by-hand.ts'
import { Machine } from './machine.ts'
import { CLEAN, runOutside, WholeStack } from './whole-stack.ts'

const BYTES = 256 * 1024
const PIECE = 4096
const images = scratch()
afterAll(() => images.remove())
const image = imageMaker(images.directory, 'storm', BYTES)

const BACKENDS: readonly (readonly [string, () => string])[] = [
  ['memory', () => `memory:size=${BYTES}`],
  ['file', () => `file:${escapePath(image())}`],
  ['file-async', () => `file-async:${escapePath(image())}`],
  ['delay', () => `memory:size=${BYTES} | delay:ms=3`],
]

/** An application that writes a piece of its own over and over and reads it back. */
class Application {
  readonly #user: User
  readonly #index: number
  /** Each request's end. */
  readonly statuses: string[] = []
  wrong = 0
  done = false

  constructor(user: User, index: number) {
    this.#user = user
    this.#index = index
  }

  *run(rounds: number): Waiting<void> {
    const user = this.#user
    const file = yield* user.open('\\\\.\\PhysicalDrive0', { overlapped: this.#index % 2 === 0 })
    if (!(file instanceof UserFile)) {
      // Pulled out before it came to it.
      this.statuses.push(...Array<string>(2 * rounds).fill(ntStatusName(file)))
      this.done = true
      return
    }
    const buffer = user.allocate(PIECE, 512)
    const at = this.#index * PIECE
    for (let round = 0; round < rounds; round++) {
      const value = this.#index * 16 + round + 1
      user.put(buffer, new Uint8Array(PIECE).fill(value))
      const written = yield* file.write(buffer, PIECE, at)
      this.#note(written)
      user.put(buffer, new Uint8Array(PIECE).fill(0xee))
      const read = yield* file.read(buffer, PIECE, at)
      this.#note(read)
      const both = written.status === NtStatus.SUCCESS && read.status === NtStatus.SUCCESS
      if (both && user.get(buffer, PIECE)?.every((byte) => byte === value) !== true) this.wrong++
    }
    user.free(buffer)
    yield* file.close()
    this.done = true
  }

  #note({ status, information }: { readonly status: NtStatus; readonly information: number }): void {
    this.statuses.push(ntStatusName(status))
    if (information !== (status === NtStatus.SUCCESS ? PIECE : 0)) this.wrong++
  }
}

const storm = fc.record({
  moments: fc.array(fc.nat(12_000), { minLength: 1, maxLength: 6 }),
  applications: fc.integer({ min: 1, max: 6 }),
  seed: fc.option(fc.nat(1000), { nil: undefined }),
})

describe.each(BACKENDS)('applications over %s', (_name, spec) => {
  it('see nothing of units, targets and buses that are reset under them', async () => {
    const kinds = [SrbFunction.RESET_LOGICAL_UNIT, SrbFunction.RESET_DEVICE, SrbFunction.RESET_BUS]
    await fc.assert(
      fc.asyncProperty(storm, async ({ moments, applications, seed }) => {
        const stack = new WholeStack(seed)
        const { rig, user } = stack
        const { kernel } = rig
        const { violations } = blkOn(rig.machine, await opened(spec(), rig.machine.clock))
        const apps = Array.from({ length: applications }, (_, index) => new Application(user, index))
        await stack.run(function* () {
          yield* stack.start()
          for (const app of apps) kernel.psCreateSystemThread(() => app.run(3))
          const began = rig.machine.clock.now()
          for (const [index, moment] of [...moments].sort((a, b) => a - b).entries()) {
            const wait = began + moment - rig.machine.clock.now()
            if (wait > 0) yield* kernel.keDelayExecutionThread(wait)
            rig.send({ function: kinds[index % kinds.length] ?? 0 })
          }
          while (apps.some((app) => !app.done)) yield* kernel.keDelayExecutionThread(1000)
          yield* stack.pnp(PnpMinor.REMOVE_DEVICE)
        })
        expect(apps.map(({ statuses, wrong }) => [new Set(statuses), statuses.length, wrong])).toEqual(
          apps.map(() => [new Set(['SUCCESS']), 6, 0]),
        )
        expect(rig.sent.map(({ ends, status }) => [ends, status])).toEqual(moments.map(() => [1, 'SUCCESS']))
        expect(rig.adapter.counts).toMatchObject({ strayCompletions: 0, orphans: 0, timeouts: 0 })
        expect([violations, rig.adapter.violations.entries()]).toEqual([[], []])
        expect(stack.finish()).toEqual(CLEAN)
      }),
      { numRuns: 10 },
    )
  })

  it('have each request end once when the device is pulled out, and nothing stays', async () => {
    await fc.assert(
      fc.asyncProperty(storm, async ({ moments, applications, seed }) => {
        const machine = new Machine(seed === undefined ? {} : { seed })
        const { kernel } = machine
        const { violations } = blkOn(machine, await opened(spec(), machine.clock))
        const hand = new ByHand(kernel)
        const user = new User(kernel)
        const apps = Array.from({ length: applications }, (_, index) => new Application(user, index))
        const removed: string[] = []
        await runOutside(machine, function* () {
          yield* hand.load()
          if ((yield* hand.start()) !== 'SUCCESS') throw new Error('not started')
          const [unit] = yield* hand.children()
          const disk = yield* kernel.ioLoadDriver('disk', diskDriver(kernel))
          if (typeof disk === 'number' || unit === undefined || hand.pdo === null) throw new Error('no disk')
          yield* settled(kernel.call(disk.addDevice)(disk, unit))
          if ((yield* hand.send(unit, PnpMinor.START_DEVICE)).status !== 'SUCCESS') throw new Error('no disk')
          for (const app of apps) kernel.psCreateSystemThread(() => app.run(3))
          yield* kernel.keDelayExecutionThread(1 + (moments[0] ?? 0))
          for (const minor of [PnpMinor.SURPRISE_REMOVAL, PnpMinor.REMOVE_DEVICE]) {
            // The last handle is closed before REMOVE, as the PnP manager sees to.
            while (minor === PnpMinor.REMOVE_DEVICE && apps.some((app) => !app.done)) {
              yield* kernel.keDelayExecutionThread(1000)
            }
            for (const device of [unit, hand.pdo]) removed.push((yield* hand.send(device, minor)).status)
          }
        })
        hand.forget()
        user.release()
        kernel.parts.irps.trim()
        expect(removed).toEqual(Array(4).fill('SUCCESS'))
        for (const { statuses, wrong } of apps) {
          expect([statuses.length, wrong]).toEqual([6, 0])
          // Gone is gone: nothing succeeds behind the first error.
          const first = statuses.findIndex((status) => status !== 'SUCCESS')
          if (first >= 0) expect(statuses.slice(first)).not.toContain('SUCCESS')
        }
        const { parts, nt } = kernel
        expect({
          locked: parts.frames.lockedCount,
          retained: parts.frames.retainedCount,
          irps: parts.irps.liveCount,
          files: parts.files.count,
          handles: nt.handles.count,
          interrupts: parts.interrupts.connectedCount,
          // The bus' own.
          devices: parts.devices.deviceCount,
        }).toEqual({ locked: 0, retained: 0, irps: 0, files: 0, handles: 0, interrupts: 0, devices: 1 })
        expect(violations).toEqual([])
      }),
      { numRuns: 10 },
    )
  })
})
