import { BlkCommand, type BlkEnd } from '../guest/virtio/blk-command.ts'
import type { DiskFacts } from '../host/disk/backend.ts'
import type { VirtualClock } from '../hypervisor/clock.ts'
import type { Violation } from '../protocol/violation.ts'
import { BlkStatus, BlkType, SECTOR_BYTES } from '../protocol/virtio/blk.ts'
import type { BenchDisk } from './bench-disk.ts'
import type { GuestBuffer } from './buffers.ts'
import { typeName } from './problem.ts'

/** The device answered a request with something else than OK, or not at all. */
export class DiskRequestFailed extends Error {
  override readonly name = 'DiskRequestFailed'
  /** The device's status byte (VIRTIO 1.2 section 5.2.6); null when there was no answer. */
  readonly status: number | null

  constructor(what: string, status: number | null) {
    super(status === null ? `${what} is never answered` : `${what} ended in status ${status}`)
    this.status = status
  }
}

export interface DiskAccessSetup {
  readonly disk: BenchDisk
  readonly clock: VirtualClock
  readonly buffer: GuestBuffer
  readonly exclusively: <T>(work: () => Promise<T>) => Promise<T>
}

class One extends BlkCommand {
  end: BlkEnd | null = null

  ended(end: BlkEnd): void {
    this.end = end
  }
}

/**
 * A disk of a bench, for tests that ask it something themselves. Every call goes through driver, ring, device
 * model and backend; calls run one after another, in the order made.
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

  /** What stands behind the device right now. */
  get facts(): DiskFacts {
    return this.#setup.disk.backend.facts
  }

  /** Requests that reached the device so far, by type. */
  get requests(): { readonly [type: string]: number } {
    return this.#setup.disk.requests
  }

  get doorbells(): number {
    return this.#setup.disk.registers.counts.doorbells
  }

  get interrupts(): number {
    return this.#setup.disk.line.delivered
  }

  /** The first sixteen of each rule broken so far. */
  get violations(): readonly Violation[] {
    return this.#setup.disk.violations.entries().flatMap(({ first }) => first)
  }

  /** @throws DiskRequestFailed @throws RangeError when the range is not whole sectors. */
  async read(offset: number, lengthBytes: number): Promise<Uint8Array<ArrayBuffer>> {
    wholeSectors(offset, lengthBytes)
    const bytes = new Uint8Array(lengthBytes)
    await this.#inPieces(lengthBytes, async (buffer, at, length) => {
      await this.#one(BlkType.IN, offset + at, buffer, length)
      bytes.set(buffer.bytes.subarray(0, length), at)
    })
    return bytes
  }

  /** @throws DiskRequestFailed @throws RangeError when the range is not whole sectors. */
  async write(offset: number, bytes: Uint8Array): Promise<void> {
    wholeSectors(offset, bytes.length)
    await this.#inPieces(bytes.length, async (buffer, at, length) => {
      const piece = bytes.subarray(at, at + length)
      const { model } = this.#setup.disk
      const first = Math.floor((offset + at) / model.blockBytes)
      buffer.bytes.set(piece)
      // Known again once it succeeds: what a write that failed left is for nobody to say.
      const end = Math.min(offset + at + length, this.facts.lengthBytes)
      model.forgot(first, Math.ceil(end / model.blockBytes) - first)
      await this.#one(BlkType.OUT, offset + at, buffer, length)
      model.wrote(first, piece)
    })
  }

  /** @throws DiskRequestFailed */
  async flush(): Promise<void> {
    await this.#setup.exclusively(() => this.#one(BlkType.FLUSH, 0, null, 0))
  }

  #inPieces(
    lengthBytes: number,
    move: (buffer: GuestBuffer, at: number, length: number) => Promise<void>,
  ): Promise<void> {
    const { buffer } = this.#setup
    return this.#setup.exclusively(async () => {
      for (let at = 0; at < lengthBytes; at += buffer.bytes.length) {
        await move(buffer, at, Math.min(buffer.bytes.length, lengthBytes - at))
      }
    })
  }

  async #one(type: number, offset: number, buffer: GuestBuffer | null, lengthBytes: number): Promise<void> {
    const { disk, clock } = this.#setup
    const command = new One(type, offset / SECTOR_BYTES)
    if (buffer !== null && type === BlkType.OUT) command.data.readable(buffer.at, lengthBytes)
    else if (buffer !== null) command.data.writable(buffer.at, lengthBytes)
    const what = `${typeName(type)} at sector ${command.sector} of ${disk.name}`
    // A request that was never answered still has its buffer on loan.
    if (disk.driver.outstanding > 0 || !disk.driver.submit(command)) throw new DiskRequestFailed(what, null)
    disk.driver.kick()
    await clock.run()
    if (command.end?.kind !== 'status') throw new DiskRequestFailed(what, null)
    if (command.end.status !== BlkStatus.OK) throw new DiskRequestFailed(what, command.end.status)
  }
}

function wholeSectors(offset: number, lengthBytes: number): void {
  if (Number.isInteger(offset / SECTOR_BYTES) && offset >= 0 && Number.isInteger(lengthBytes / SECTOR_BYTES))
    return
  throw new RangeError(`${lengthBytes} bytes at ${offset} are not whole sectors of ${SECTOR_BYTES}`)
}
