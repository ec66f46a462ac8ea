import { describe, expect, it } from 'vitest'
import { Disk } from '../../guest/class/disk/disk.ts'
import { Ioctl } from '../../guest/class/disk/ioctl.ts'
import { ntStatusName } from '../../guest/kernel/nt-status.ts'
import { poolTagText } from '../../guest/kernel/pool.ts'
import { UserFile } from '../../guest/user.ts'
import type { DiskBackend } from '../../host/disk/backend.ts'
import { opened } from '../host/disk-subjects.ts'
import { BootedGuest, NOTHING_LEFT } from './booted-guest.ts'

const DISK = 'SCSI\\Disk'
/** Long enough for every retry of a single shortage. */
const SETTLED_US = 20_000_000
/** Requests that Plug and Play cannot do without are tried for ten seconds: a longer drought stops the machine. */
const DROUGHT_US = 5_000_000

interface Outcome {
  /** Allocations that were refused, by tag. */
  readonly refused: readonly string[]
  readonly shown: readonly string[]
}

/** Plugs a disk in while allocations from the n-th on are refused: that one alone, or all for a while. */
function plugIn(guest: BootedGuest, n: number, only: boolean): Outcome {
  const { kernel } = guest
  const { pool } = kernel.parts
  const refused: string[] = []
  let count = 0
  guest.run(function* () {
    yield* guest.boot(false)
    pool.refuse = (tag) => {
      const now = count++
      if (only ? now !== n : now < n) return false
      refused.push(poolTagText(tag))
      return true
    }
    guest.plug()
    yield* kernel.keDelayExecutionThread(only ? SETTLED_US : DROUGHT_US)
    pool.refuse = null
    yield* kernel.keDelayExecutionThread(SETTLED_US)
    yield* kernel.pnp.settle()
  })
  return { refused, shown: guest.shown() }
}

/** What a person does then: scans for hardware, and enables what shows a problem. */
function recover(guest: BootedGuest): void {
  const { pnp } = guest.kernel
  guest.run(function* () {
    for (let round = 0; round < 3; round++) {
      for (const line of guest.shown()) {
        if (line.includes(' problem ')) yield* pnp.enableDevice(line.slice(0, line.indexOf(' ')))
      }
      yield* pnp.rescan()
    }
  })
}

/** What the class driver knows of its disk: a shortage must not pass for an answer. */
function known(guest: BootedGuest): unknown {
  const disk = guest.kernel.parts.names.find('\\??\\PhysicalDrive0')?.device.extension
  if (!(disk instanceof Disk)) return null
  const { facts, readyStatus, maximumTransferLength, maximumPhysicalPages, table, state } = disk
  return { facts, readyStatus, maximumTransferLength, maximumPhysicalPages, table, state }
}

/** DEVICE_MANAGE_DATA_SET_ATTRIBUTES: trim of the first 64 KiB. */
function trimming(): Uint8Array {
  const bytes = new Uint8Array(48)
  const view = new DataView(bytes.buffer)
  for (const [at, value] of [
    [0, 28],
    [4, 1],
    [20, 32],
    [24, 16],
    [40, 65_536],
  ] as const) {
    view.setUint32(at, value, true)
  }
  return bytes
}

/** Reads, writes, trims and flushes at the disk, as its user. */
function use(guest: BootedGuest): readonly string[] {
  const { user } = guest
  return guest.run(function* () {
    const file = yield* user.open('\\\\.\\PhysicalDrive0')
    if (!(file instanceof UserFile)) return [ntStatusName(file)]
    const buffer = user.allocate(8192, 512)
    const told = []
    for (const write of [true, false]) {
      const { status } = yield* write ? file.write(buffer, 8192, 4096) : file.read(buffer, 8192, 4096)
      told.push(ntStatusName(status))
    }
    const trimmed = yield* file.control(Ioctl.STORAGE_MANAGE_DATA_SET_ATTRIBUTES, trimming(), 0)
    told.push(ntStatusName(trimmed.status), ntStatusName(yield* file.flush()))
    user.free(buffer)
    yield* file.close()
    return told
  })
}

describe.each([
  ['one allocation', true],
  ['every allocation for a while', false],
] as const)('a disk that is plugged in while %s fails', (_name, only) => {
  it('has a problem or works, leaves nothing, and works once there is memory: at each of them', async () => {
    const backend: DiskBackend = await opened('memory:size=1M')
    const plenty = new BootedGuest()
    plenty.attach(backend)
    plenty.run(() => plenty.boot())
    for (let n = 0; ; n++) {
      const guest = new BootedGuest(n % 2 === 0 ? {} : { seed: n })
      guest.attach(backend)
      const { refused, shown } = plugIn(guest, n, only)
      const disk = shown.find((line) => line.startsWith(DISK))
      if (refused.length === 0) {
        expect(disk).toMatch(/ working$/)
        expect(n).toBeGreaterThan(100)
        break
      }
      const where = `${n}: ${refused[0]} ${shown.join(' | ')}`
      const problem = shown.some((line) => line.includes(' problem '))
      expect([where, problem || disk?.endsWith(' working') === true]).toEqual([where, true])
      if (disk?.endsWith(' working') === true) expect([where, known(guest)]).toEqual([where, known(plenty)])
      recover(guest)
      expect([where, guest.shown().find((line) => line.startsWith(DISK))]).toEqual([
        where,
        expect.stringMatching(/ working$/),
      ])
      expect([where, use(guest)]).toEqual([where, ['SUCCESS', 'SUCCESS', 'SUCCESS', 'SUCCESS']])
      // Nobody took 0 for an address.
      expect([where, guest.kernel.parts.memory.bytes.subarray(0, 512).every((byte) => byte === 0)]).toEqual([
        where,
        true,
      ])
      expect([where, guest.finish()]).toEqual([where, NOTHING_LEFT])
    }
  })
})
