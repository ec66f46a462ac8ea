import { Ioctl } from '../../guest/class/disk/ioctl.ts'
import type { DeviceObject } from '../../guest/kernel/device-object.ts'
import { NtStatus, ntStatusName } from '../../guest/kernel/nt-status.ts'
import type { Waiting } from '../../guest/kernel/thread.ts'
import { WINDOWS_VERSIONS, type WindowsVersionName } from '../../guest/kernel/version.ts'
import { SrbFlag, SrbFunction } from '../../guest/port/srb.ts'
import { Overlapped, UserFile } from '../../guest/user.ts'
import type { Random } from '../../protocol/platform.ts'
import { opened } from '../host/disk-subjects.ts'
import { BootedGuest } from './booted-guest.ts'
import { sendSrb } from './srb-sender.ts'
import { StubbornDisk } from './stubborn-disk.ts'

const SECTOR = 512
const SLOT_SECTORS = 48
const SLOTS = 6
const APPLICATIONS = 4
const DISK_BYTES = APPLICATIONS * SLOTS * SLOT_SECTORS * SECTOR
/** Disks that may be there at once: one that is gone keeps its number until its last handle is closed. */
const DISKS_MAX = 8
const RESETS = [SrbFunction.RESET_LOGICAL_UNIT, SrbFunction.RESET_DEVICE, SrbFunction.RESET_BUS]
/** At most. */
const ANSWER_US = 4_000
/** No request takes longer: what does was lost, and found again by a timeout. */
const PROMPT_US = 3_000_000
/** A device that was pulled out stays out at least so long: what it had under way has ended by then. */
const OUT_US = 50_000

export interface StormOptions {
  readonly seed: number
  /** Virtual time. */
  readonly seconds: number
  readonly windows: WindowsVersionName
}

/** What happened, for people, and what must not have. */
export class StormReport {
  requests = 0
  succeeded = 0
  cancelled = 0
  resets = 0
  locks = 0
  surprises = 0
  removals = 0
  rebalances = 0
  readonly wrong: string[] = []
}

/** One request of a burst. */
interface Asked {
  readonly write: boolean
  readonly first: number
  readonly count: number
  readonly value: number
  readonly buffer: number
  readonly beganUs: number
  request: Overlapped | NtStatus
  cancelled: boolean
}

/**
 * Applications over a whole guest whose disk is reset, stopped, removed and pulled out under them, with a seed
 * for everything. Each knows what every sector of its part may hold: what it wrote last, and what requests that
 * failed may have written until they ended, but not later.
 */
export class WholeStorm {
  readonly guest: BootedGuest
  readonly report: StormReport
  readonly #random: Random
  readonly #untilUs: number
  /** When the disk was pulled out. */
  readonly #surprisesUs: number[]
  #running: number

  private constructor(guest: BootedGuest, seconds: number) {
    this.guest = guest
    this.report = new StormReport()
    this.#random = guest.machine.random.stream('storm')
    this.#untilUs = seconds * 1_000_000
    this.#surprisesUs = []
    this.#running = 0
  }

  /** Plays it to its end; the report, and what is left behind. */
  static async play({
    seed,
    seconds,
    windows,
  }: StormOptions): Promise<[StormReport, Record<string, number>]> {
    const turnsMax = 1_000_000 + seconds * 1_000_000
    const guest = new BootedGuest({ seed, version: WINDOWS_VERSIONS[windows], turnsMax })
    const { clock, random } = guest.machine
    const memory = await opened(`memory:size=${DISK_BYTES}`)
    guest.attach(new StubbornDisk(memory, clock, random.stream('disk'), ANSWER_US))
    const storm = new WholeStorm(guest, seconds)
    guest.run(() => storm.#play())
    const { report } = storm
    report.wrong.push(...guest.violations.map(({ rule }) => rule))
    return [report, guest.finish()]
  }

  get nowUs(): number {
    return this.guest.machine.clock.now()
  }

  *#play(): Waiting<void> {
    const { kernel } = this.guest
    yield* this.guest.boot()
    this.#running = APPLICATIONS + 2
    for (let index = 0; index < APPLICATIONS; index++) {
      kernel.psCreateSystemThread(() => this.#ending(new Application(this, index).run()))
    }
    kernel.psCreateSystemThread(() => this.#ending(this.#reset()))
    kernel.psCreateSystemThread(() => this.#ending(this.#remove()))
    while (this.#running > 0) yield* kernel.keDelayExecutionThread(100_000)
  }

  *#ending(work: Waiting<void>): Waiting<void> {
    yield* work
    this.#running--
  }

  /** Whether there is time left, after a pause of up to `us`. */
  *more(random: Random, us: number): Waiting<boolean> {
    yield* this.guest.kernel.keDelayExecutionThread(1 + random.below(us))
    return this.nowUs < this.#untilUs
  }

  /** Whether the disk was pulled out since then. */
  surprisedSince(us: number): boolean {
    return (this.#surprisesUs.at(-1) ?? Number.NEGATIVE_INFINITY) >= us
  }

  /** The first disk that opens; null when there is none just now. */
  *open(overlapped: boolean): Waiting<UserFile | null> {
    for (let number = 0; number < DISKS_MAX; number++) {
      const file = yield* this.guest.user.open(`\\\\.\\PhysicalDrive${number}`, { overlapped })
      if (file instanceof UserFile) return file
    }
    return null
  }

  /** Resets of the unit, its target and its bus, and queues that are held while requests come and are called back. */
  *#reset(): Waiting<void> {
    const { kernel } = this.guest
    const random = this.#random.stream('resets')
    while (yield* this.more(random, 300_000)) {
      // The handle keeps the stack.
      const file = yield* this.open(true)
      if (file === null) continue
      for (let burst = 1 + random.below(4); burst > 0; burst--) {
        if (random.below(3) === 0) {
          yield* this.#send(SrbFunction.LOCK_QUEUE)
          yield* kernel.keDelayExecutionThread(random.below(20_000))
          yield* this.#send(SrbFunction.UNLOCK_QUEUE)
          this.report.locks++
        } else {
          yield* this.#send(RESETS[random.below(RESETS.length)] ?? 0)
          this.report.resets++
        }
        yield* kernel.keDelayExecutionThread(random.below(5_000))
      }
      yield* file.close()
    }
  }

  /** To the top of every disk's stack that is open. */
  *#send(what: number): Waiting<void> {
    const { kernel } = this.guest
    const tops = new Set<DeviceObject>()
    for (const { device } of kernel.parts.files.all) tops.add(kernel.ioGetAttachedDevice(device))
    for (const top of tops) {
      const beganUs = this.nowUs
      yield* sendSrb(kernel, top, what, SrbFlag.NO_QUEUE_FREEZE)
      this.prompt(`SRB function ${what}`, beganUs)
    }
  }

  prompt(what: string, beganUs: number): void {
    const us = this.nowUs - beganUs
    if (us > PROMPT_US) this.report.wrong.push(`${what} took ${us} us`)
  }

  /** A reset that is under way while the caller does something else. */
  *#resetMeanwhile(random: Random): Waiting<void> {
    const file = yield* this.open(true)
    if (file === null) return
    const storm = this
    this.#running++
    this.report.resets++
    this.guest.kernel.psCreateSystemThread(function* () {
      yield* storm.#ending(storm.#send(RESETS[random.below(RESETS.length)] ?? 0))
      yield* file.close()
    })
    yield* this.guest.kernel.keDelayExecutionThread(random.below(1_000))
  }

  *#remove(): Waiting<void> {
    const { guest, report } = this
    const { kernel } = guest
    const { pnp } = kernel
    const random = this.#random.stream('removals')
    while (yield* this.more(random, 600_000)) {
      const path = guest.path(random.below(2) === 0 ? 'ACPI\\' : 'SCSI\\')
      switch (random.below(6)) {
        case 0:
          report.surprises++
          if (random.below(2) === 0) yield* this.#resetMeanwhile(random)
          this.#surprisesUs.push(this.nowUs)
          guest.unplug()
          yield* kernel.keDelayExecutionThread(OUT_US + random.below(300_000))
          if (guest.deviceStatus !== 0) report.wrong.push('a device runs that nobody drives')
          guest.plug()
          // Requests of before end with it; those that come later find the successor.
          this.#surprisesUs.push(this.nowUs)
          break
        case 1:
          if (path !== null && (yield* pnp.removeDevice(path)) === null) report.removals++
          yield* pnp.rescan()
          break
        case 2:
          if (path !== null && (yield* pnp.disableDevice(path)) === null) report.removals++
          yield* kernel.keDelayExecutionThread(random.below(100_000))
          if (path !== null) yield* pnp.enableDevice(path)
          yield* pnp.rescan()
          break
        case 3:
          yield* pnp.rescan()
          break
        default:
          if (random.below(2) === 0) yield* this.#resetMeanwhile(random)
          if (path !== null && (yield* pnp.rebalance(path)) === null) report.rebalances++
      }
    }
  }
}

class Application {
  readonly #storm: WholeStorm
  readonly #random: Random
  readonly #first: number
  /** What each sector may hold. */
  readonly #may: Set<number>[]
  #value: number
  /** Of the handle in use: it leads to the disk that was there then. */
  #openedUs: number

  constructor(storm: WholeStorm, index: number) {
    this.#storm = storm
    this.#random = storm.guest.machine.random.stream(`application${index}`)
    this.#first = index * SLOTS * SLOT_SECTORS
    this.#may = Array.from({ length: SLOTS * SLOT_SECTORS }, () => new Set([0]))
    this.#value = 0
    this.#openedUs = 0
  }

  *run(): Waiting<void> {
    const random = this.#random
    while (yield* this.#storm.more(random, 250_000)) {
      this.#openedUs = this.#storm.nowUs
      const file = yield* this.#storm.open(random.below(4) > 0)
      if (file === null) continue
      for (let bursts = 1 + random.below(4); bursts > 0; bursts--) yield* this.#burst(file)
      // What was pulled out meanwhile waits for it, while a successor works.
      if (random.below(4) === 0) yield* this.#storm.more(random, 500_000)
      yield* file.close()
    }
  }

  *#burst(file: UserFile): Waiting<void> {
    const random = this.#random
    const { kernel } = this.#storm.guest
    if (random.below(8) === 0) yield* this.#control(file)
    const asked: Asked[] = []
    const slots = new Set(Array.from({ length: 1 + random.below(SLOTS) }, () => random.below(SLOTS)))
    for (const slot of slots) asked.push(yield* this.#begin(file, slot))
    if (random.below(3) === 0) {
      if (random.below(2) === 0) yield* kernel.keDelayExecutionThread(random.below(6_000))
      yield* this.#cancel(file, asked)
    }
    for (const one of asked) yield* this.#end(file, one)
  }

  /** A flush or a control: it ends, and well unless the disk was pulled out. */
  *#control(file: UserFile): Waiting<void> {
    const status =
      this.#random.below(2) === 0
        ? yield* file.flush()
        : (yield* file.control(Ioctl.DISK_GET_LENGTH_INFO, new Uint8Array(0), 8)).status
    this.#note(`control ${ntStatusName(status)}`, status, false)
  }

  *#begin(file: UserFile, slot: number): Waiting<Asked> {
    const random = this.#random
    const { user } = this.#storm.guest
    const first = slot * SLOT_SECTORS + random.below(SLOT_SECTORS)
    const count = 1 + random.below((slot + 1) * SLOT_SECTORS - first)
    const write = random.below(2) === 0
    const value = write ? 1 + (this.#value++ % 250) : 0xff
    const bytes = count * SECTOR
    const buffer = user.allocate(bytes, SECTOR * random.below(8))
    user.put(buffer, new Uint8Array(bytes).fill(value))
    this.#storm.report.requests++
    const beganUs = this.#storm.nowUs
    const request = yield* file.begin(write, buffer, bytes, (this.#first + first) * SECTOR)
    return { write, first, count, value, buffer, beganUs, request, cancelled: false }
  }

  /** One of them where the version can, or all. */
  *#cancel(file: UserFile, asked: readonly Asked[]): Waiting<void> {
    const { kernel } = this.#storm.guest
    const one = asked[this.#random.below(asked.length)]
    if (kernel.version.cancelsByIosb && this.#random.below(2) === 0 && one?.request instanceof Overlapped) {
      one.cancelled = true
      file.cancelEx(one.request)
      return
    }
    for (const each of asked) each.cancelled = true
    yield* file.cancel()
  }

  *#end(file: UserFile, one: Asked): Waiting<void> {
    const { user } = this.#storm.guest
    const { request, buffer, count, beganUs } = one
    const result =
      request instanceof Overlapped ? yield* file.result(request) : { status: request, information: 0 }
    this.#storm.prompt(one.write ? 'a write' : 'a read', beganUs)
    const bytes = count * SECTOR
    const good = result.status === NtStatus.SUCCESS
    const what = `${one.write ? 'write' : 'read'} ${ntStatusName(result.status)} ${result.information}`
    if (result.information !== (good ? bytes : 0)) this.#storm.report.wrong.push(what)
    this.#note(what, result.status, one.cancelled)
    if (one.write) this.#written(one, good)
    else if (good) this.#check(one, user.get(buffer, bytes) ?? new Uint8Array(0))
    user.free(buffer)
  }

  #note(what: string, status: NtStatus, cancelled: boolean): void {
    const { report } = this.#storm
    if (status === NtStatus.SUCCESS) report.succeeded++
    else if (cancelled && status === NtStatus.CANCELLED) report.cancelled++
    else if (!this.#storm.surprisedSince(this.#openedUs))
      report.wrong.push(`${what}, and nobody pulled the disk out`)
  }

  #written({ first, count, value }: Asked, good: boolean): void {
    for (let sector = first; sector < first + count; sector++) {
      if (good) this.#may[sector] = new Set([value])
      else this.#may[sector]?.add(value)
    }
  }

  #check({ first, count }: Asked, bytes: Uint8Array): void {
    for (let index = 0; index < count; index++) {
      const sector = bytes.subarray(index * SECTOR, (index + 1) * SECTOR)
      const value = sector[0] ?? -1
      const may = this.#may[first + index]
      const whole = sector.length === SECTOR && sector.every((byte) => byte === value)
      if (!whole || may?.has(value) !== true) {
        this.#storm.report.wrong.push(
          `sector ${this.#first + first + index} holds ${value} of ${[...(may ?? [])]}`,
        )
      }
      // From here on it holds what was seen: a request that ended writes no more.
      this.#may[first + index] = new Set([value])
    }
  }
}
