import fs from 'node:fs'
import path from 'node:path'
import { Segments } from '../../guest/virtio/segments.ts'
import { type Gpa, gpa } from '../../protocol/memory.ts'
import { BlkRequest, BlkStatusByte, BlkType } from '../../protocol/virtio/blk.ts'
import { Window } from '../../protocol/window.ts'
import type { Measurement, Place } from './measure.ts'
import { PAGE_BYTES } from './numbered-file.ts'
import { OURS, OURS_POLLING, PeerDaemon, THEIRS } from './peer-daemon.ts'
import { RingClient } from './ring-client.ts'
import { type MeasurementSummary, togetherText } from './summary.ts'

const LIFETIME_SECONDS = 60
const MEMORY_BYTES = 16 * 2 ** 20
const WARM_UP = 0.3
const KIBIBYTE = 1024
const SECTOR_BYTES = 512

/** A request that is made again and again. */
class Slot {
  readonly header: Window
  readonly data: Window
  readonly status: Window
  readonly segments: Segments
  page: number

  constructor(client: RingClient<Slot>, lengthBytes: number, write: boolean) {
    const at = client.allocate(lengthBytes + PAGE_BYTES, PAGE_BYTES)
    const window = (from: Gpa, bytes: number): Window => client.memory.window(from, bytes, 1) ?? new Window()
    const header = gpa(at + lengthBytes)
    const status = gpa(header + BlkRequest.$size)
    this.header = window(header, BlkRequest.$size)
    this.data = window(at, lengthBytes)
    this.status = window(status, BlkStatusByte.$size)
    this.segments = new Segments()
    this.segments.readable(header, BlkRequest.$size)
    if (write) this.segments.readable(at, lengthBytes)
    else this.segments.writable(at, lengthBytes)
    this.segments.writable(status, BlkStatusByte.$size)
    this.header.putLe32(BlkRequest.type, write ? BlkType.OUT : BlkType.IN)
    this.page = 0
  }
}

interface Row {
  readonly lengthBytes: number
  readonly depth: number
  readonly write: boolean
  readonly polling: boolean
}

/** Keeps a daemon busy with one kind of request. */
class Load {
  readonly #client: RingClient<Slot>
  readonly #row: Row
  readonly #pages: number
  readonly #slots: Slot[]
  #chance: number

  constructor(row: Row, socket: string, fileBytes: number) {
    this.#row = row
    this.#client = new RingClient<Slot>(socket, MEMORY_BYTES, row.polling)
    this.#pages = Math.floor(fileBytes / row.lengthBytes) * (row.lengthBytes / PAGE_BYTES)
    this.#slots = Array.from({ length: row.depth }, () => new Slot(this.#client, row.lengthBytes, row.write))
    this.#chance = 1
  }

  /** Requests a second. */
  run(ms: number): number {
    for (const slot of this.#slots) this.#post(slot)
    this.#client.publish()
    this.#keepBusy(ms * WARM_UP)
    const from = process.hrtime.bigint()
    const count = this.#keepBusy(ms)
    return (count * 1e9) / Number(process.hrtime.bigint() - from)
  }

  #keepBusy(ms: number): number {
    const client = this.#client
    const { ring } = client
    const until = performance.now() + ms
    let done = 0
    // However busy the machine is, a figure needs one request.
    while (performance.now() < until || done === 0) {
      let reaped = ring.reap()
      if (reaped === null) {
        client.wait()
        continue
      }
      for (; reaped !== null; reaped = ring.reap()) {
        const { owner } = reaped
        this.#check(owner)
        this.#post(owner)
        done++
      }
      client.publish()
    }
    return done
  }

  #post(slot: Slot): void {
    const perRequest = this.#row.lengthBytes / PAGE_BYTES
    // Numerical Recipes' generator: places only have to be all over the file.
    this.#chance = (Math.imul(this.#chance, 1_664_525) + 1_013_904_223) >>> 0
    slot.page = Math.floor((this.#chance / 2 ** 32) * (this.#pages / perRequest)) * perRequest
    slot.header.putLe64(BlkRequest.sector, slot.page * (PAGE_BYTES / SECTOR_BYTES))
    slot.status.putU8(BlkStatusByte.status, 0xff)
    const view = slot.data.view
    // What is written is what was there: pages go on carrying their numbers.
    if (this.#row.write) {
      for (let i = 0; i < perRequest; i++) view.setUint32(i * PAGE_BYTES, slot.page + i, true)
    }
    if (!this.#client.ring.post(slot.segments, slot)) throw new Error('the ring is full')
  }

  #check(slot: Slot): void {
    const status = slot.status.u8(BlkStatusByte.status)
    if (status !== 0) throw new Error(`a request ends with status ${status}`)
    const page = slot.data.view.getUint32(0, true)
    if (page !== slot.page) throw new Error(`page ${slot.page} reads as page ${page}`)
  }
}

async function measure(row: Row, candidate: string, ms: number, { file }: Place): Promise<number> {
  const folder = fs.mkdtempSync(path.join(path.dirname(file), 'daemon-'))
  try {
    await using daemon = await PeerDaemon.start({
      candidate,
      file,
      folder,
      lifetimeSeconds: LIFETIME_SECONDS,
    })
    return new Load(row, daemon.socket, fs.statSync(file).size).run(ms)
  } finally {
    fs.rmSync(folder, { recursive: true, force: true })
  }
}

function rowOf(row: Row): Measurement {
  const kibibytes = row.lengthBytes / KIBIBYTE
  const what = `${kibibytes} KiB ${row.write ? 'writes' : 'reads'} all over the file, ${row.depth} at a time`
  const goal = row.lengthBytes > PAGE_BYTES ? { atLeast: 0.75 } : { atLeast: 2 }
  return {
    name: `${row.write ? 'write' : 'read'}-${kibibytes}k-${row.depth}${row.polling ? '-polling' : ''}`,
    what: `${what}; the front-end ${row.polling ? 'polls' : 'waits for calls'}`,
    candidates: [THEIRS, OURS, OURS_POLLING],
    goals: row.depth === 1 ? {} : { [OURS]: goal },
    unit: 'per second',
    operationBytes: row.lengthBytes,
    run: (candidate, ms, place) => measure(row, candidate, ms, place),
  }
}

/** How the rows of large requests stand together, for people; null where there are not two of them. */
export function largeRequestsText(summaries: readonly MeasurementSummary[]): string | null {
  const large = summaries.filter(({ operationBytes }) => (operationBytes ?? 0) > PAGE_BYTES)
  return togetherText('large requests', OURS, large)
}

/** Disks served to another process: ours and QEMU's storage daemon behind the same front-end. */
export const PEER_MEASUREMENTS: readonly Measurement[] = [false, true].flatMap((polling) =>
  [
    { lengthBytes: 4 * KIBIBYTE, depth: 1 },
    { lengthBytes: 4 * KIBIBYTE, depth: 32 },
    { lengthBytes: 256 * KIBIBYTE, depth: 8 },
  ].flatMap((size) => [false, true].map((write) => rowOf({ ...size, write, polling }))),
)
