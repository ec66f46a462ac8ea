import { NtStatus, ntStatusName, ntSuccess } from '../guest/kernel/nt-status.ts'
import type { Waiting } from '../guest/kernel/thread.ts'
import { UserFile } from '../guest/user.ts'
import type { DiskFacts } from '../host/disk/backend.ts'
import { explain, type Violation } from '../protocol/violation.ts'
import { SECTOR_BYTES } from '../protocol/virtio/blk.ts'
import type { BenchDisk } from './bench-disk.ts'
import type { LayoutReport } from './drive-facts.ts'
import type { DiskFault } from './fault-disk.ts'
import { requestCounts, violationsBy } from './report.ts'
import type { WindowsMachine } from './windows-machine.ts'

/** Windows answered a request with an error. */
export class DiskRequestFailed extends Error {
  override readonly name = 'DiskRequestFailed'
  readonly status: NtStatus
  /** The status by Windows' name: `INVALID_PARAMETER`. */
  readonly statusName: string

  constructor(what: string, status: NtStatus) {
    super(`${what} ended in ${ntStatusName(status)}`)
    this.status = status
    this.statusName = ntStatusName(status)
  }
}

export interface DiskAccessSetup {
  readonly disk: BenchDisk
  readonly windows: WindowsMachine
  readonly exclusively: <T>(work: () => Promise<T>) => Promise<T>
}

/** What one request of a test's own moves at most. */
const PIECE_BYTES = 64 * 1024

/**
 * A disk of a bench, for tests that ask it something themselves. Every call is an application's in the guest,
 * and goes through all of it; calls run one after another, in the order made.
 */
export class DiskAccess {
  readonly #setup: DiskAccessSetup

  constructor(setup: DiskAccessSetup) {
    this.#setup = setup
  }

  /** `disk0`, as in traces and reports. */
  get name(): string {
    return this.#setup.disk.name
  }

  /** `\\.\PhysicalDrive0`, as the guest's applications open it; null while no driver has started. */
  get path(): string | null {
    const { drive } = this.#setup.disk
    return drive === null ? null : `\\\\.\\PhysicalDrive${drive}`
  }

  /** What stands behind the device right now. */
  get facts(): DiskFacts {
    return this.#setup.disk.backend.facts
  }

  /** The partition table as the guest's class driver read it; null without a drive. */
  get layout(): LayoutReport | null {
    return this.#setup.disk.facts?.layout ?? null
  }

  /** Requests that reached the device so far, by type. */
  get requests(): { readonly [type: string]: number } {
    return requestCounts(this.#setup.disk)
  }

  get doorbells(): number {
    return this.#setup.disk.machine.registers.counts.doorbells
  }

  /** Times that the adapter's service routine ran. */
  get interrupts(): number {
    return this.#setup.disk.machine.adapter?.counts.interrupts ?? 0
  }

  /** The first sixteen of each rule broken so far, by the guest's driver and by the device. */
  get violations(): readonly Violation[] {
    return violationsBy(this.#setup.disk).flatMap(({ first }) => first)
  }

  /** The same, a line each. */
  get violationLines(): readonly string[] {
    return this.violations.map(explain)
  }

  /**
   * Puts a fault before the device's next requests; at most one is met by each.
   *
   * @throws RangeError for a daemon's disk: its requests do not come by here.
   */
  inject(fault: DiskFault): void {
    const { daemon, backend } = this.#setup.disk
    if (daemon !== null) throw new RangeError('no fault can be put before a disk that a daemon has')
    backend.inject(fault)
  }

  /** ReadFile. @throws DiskRequestFailed @throws RangeError when the range is not whole sectors. */
  async read(offset: number, lengthBytes: number): Promise<Uint8Array<ArrayBuffer>> {
    wholeSectors(offset, lengthBytes)
    const bytes = new Uint8Array(lengthBytes)
    const { user } = this.#setup.windows
    await this.#withFile(function* (file, buffer, what) {
      for (let at = 0; at < lengthBytes; at += PIECE_BYTES) {
        const here = Math.min(PIECE_BYTES, lengthBytes - at)
        const { status, information } = yield* file.read(buffer, here, offset + at)
        if (!ntSuccess(status)) return what(`a read of ${here} bytes at ${offset + at}`, status)
        bytes.set(user.get(buffer, information) ?? [], at)
      }
      return null
    })
    return bytes
  }

  /** WriteFile. @throws DiskRequestFailed @throws RangeError when the range is not whole sectors. */
  async write(offset: number, bytes: Uint8Array): Promise<void> {
    wholeSectors(offset, bytes.length)
    const { disk, windows } = this.#setup
    const { model } = disk
    await this.#withFile(function* (file, buffer, what) {
      for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
        const piece = bytes.subarray(at, at + PIECE_BYTES)
        const first = Math.floor((offset + at) / model.blockBytes)
        // Known again once it succeeds: what a write that failed left is for nobody to say.
        const end = Math.min(offset + at + piece.length, disk.backend.facts.lengthBytes)
        model.forgot(first, Math.max(0, Math.ceil(end / model.blockBytes) - first))
        windows.user.put(buffer, piece)
        const { status } = yield* file.write(buffer, piece.length, offset + at)
        if (!ntSuccess(status)) return what(`a write of ${piece.length} bytes at ${offset + at}`, status)
        model.wrote(first, piece)
      }
      return null
    })
  }

  /** FlushFileBuffers. @throws DiskRequestFailed */
  async flush(): Promise<void> {
    await this.#withFile(function* (file, _buffer, what) {
      const status = yield* file.flush()
      return ntSuccess(status) ? null : what('a flush', status)
    })
  }

  /** Opens the drive, does something with it in a thread of the guest, and closes it again. */
  async #withFile(
    body: (
      file: UserFile,
      buffer: number,
      failed: (what: string, status: NtStatus) => DiskRequestFailed,
    ) => Waiting<DiskRequestFailed | null>,
  ): Promise<void> {
    const { exclusively, windows } = this.#setup
    const { user } = windows
    const failed = (what: string, status: NtStatus) =>
      new DiskRequestFailed(`${what} of ${this.name}`, status)
    const { path } = this
    const failure = await exclusively(() =>
      windows.run(function* () {
        const file = path === null ? NtStatus.NO_SUCH_DEVICE : yield* user.open(path)
        if (!(file instanceof UserFile)) return { error: failed('the opening', file) }
        const buffer = user.allocate(PIECE_BYTES)
        const error = buffer === 0 ? failed('memory', NtStatus.NO_MEMORY) : yield* body(file, buffer, failed)
        if (buffer !== 0) user.free(buffer)
        yield* file.close()
        return { error }
      }),
    )
    if (failure.error !== null) throw failure.error
  }
}

function wholeSectors(offset: number, lengthBytes: number): void {
  if (Number.isInteger(offset / SECTOR_BYTES) && offset >= 0 && Number.isInteger(lengthBytes / SECTOR_BYTES))
    return
  throw new RangeError(`${lengthBytes} bytes at ${offset} are not whole sectors of ${SECTOR_BYTES}`)
}
