import fs from 'node:fs'
import path from 'node:path'
import { Segments } from '../../guest/virtio/segments.ts'
import { type Gpa, gpa } from '../../protocol/memory.ts'
import { BlkRequest, BlkStatusByte, BlkType } from '../../protocol/virtio/blk.ts'
import { Window } from '../../protocol/window.ts'
import type { Measurement, Place } from './measure.ts'
import { PAGE_BYTES, writeNumberedFile } from './numbered-file.ts'
import { OURS, OURS_POLLING, PeerDaemon, THEIRS } from './peer-daemon.ts'
import { RingClient } from './ring-client.ts'
import { type MeasurementSummary, togetherText } from './summary.ts'

const LIFETIME_SECONDS = 60
const MEMORY_BYTES = 16 * 2 ** 20
const WARM_UP = 0.3
const PLAIN = 'calls, no daemon'
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
  /** Of the writes that the file was made with. */
  readonly laidBytes: number
  readonly depth: number
  readonly write: boolean
  readonly polling: boolean
}

/** Where the requests of a row go. */
class Places {
  readonly #requests: number
  readonly #perRequest: number
  #chance: number

  constructor({ lengthBytes }: Row, fileBytes: number) {
    this.#requests = Math.floor(fileBytes / lengthBytes)
    this.#perRequest = lengthBytes / PAGE_BYTES
    this.#chance = 1
  }

  /** The first page of the next one. */
  next(): number {
    // Numerical Recipes' generator: places only have to be all over the file.
    this.#chance = (Math.imul(this.#chance, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((this.#chance / 2 ** 32) * this.#requests) * this.#perRequest
  }

  /** Makes what is written to `page` begin with the numbers of its pages. */
  number(view: DataView, page: number): void {
    for (let i = 0; i < this.#perRequest; i++) view.setUint32(i * PAGE_BYTES, page + i, true)
  }
}

/** Keeps a daemon busy with one kind of request. */
class Load {
  readonly #client: RingClient<Slot>
  readonly #row: Row
  readonly #places: Places
  readonly #slots: Slot[]

  constructor(row: Row, socket: string, fileBytes: number) {
    this.#row = row
    this.#client = new RingClient<Slot>(socket, MEMORY_BYTES, row.polling)
    this.#places = new Places(row, fileBytes)
    this.#slots = Array.from({ length: row.depth }, () => new Slot(this.#client, row.lengthBytes, row.write))
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
    slot.page = this.#places.next()
    slot.header.putLe64(BlkRequest.sector, slot.page * (PAGE_BYTES / SECTOR_BYTES))
    slot.status.putU8(BlkStatusByte.status, 0xff)
    // What is written is what was there: pages go on carrying their numbers.
    if (this.#row.write) this.#places.number(slot.data.view, slot.page)
    if (!this.#client.ring.post(slot.segments, slot)) throw new Error('the ring is full')
  }

  #check(slot: Slot): void {
    const status = slot.status.u8(BlkStatusByte.status)
    if (status !== 0) throw new Error(`a request ends with status ${status}`)
    const page = slot.data.view.getUint32(0, true)
    if (page !== slot.page) throw new Error(`page ${slot.page} reads as page ${page}`)
  }
}

/** The same requests without a daemon, a call of the system each: what one that makes such calls can reach. */
function plainCalls(row: Row, ms: number, file: string): number {
  const { lengthBytes, write } = row
  const fd = fs.openSync(file, 'r+')
  try {
    const places = new Places(row, fs.fstatSync(fd).size)
    const data = new Uint8Array(lengthBytes).fill(0x5a)
    const view = new DataView(data.buffer)
    let done = 0
    const from = process.hrtime.bigint()
    for (const until = performance.now() + ms; performance.now() < until; ) {
      for (let left = row.depth; left > 0; left--, done++) {
        const page = places.next()
        if (write) {
          places.number(view, page)
          fs.writeSync(fd, data, 0, lengthBytes, page * PAGE_BYTES)
          continue
        }
        fs.readSync(fd, data, 0, lengthBytes, page * PAGE_BYTES)
        if (view.getUint32(0, true) !== page) throw new Error(`page ${page} reads as another`)
      }
    }
    return (done * 1e9) / Number(process.hrtime.bigint() - from)
  } finally {
    fs.closeSync(fd)
  }
}

/** The file of a row, made by whoever needs it first. */
function fileOf({ laidBytes }: Row, place: Place): string {
  const file = `${place.file}-${laidBytes}`
  if (!fs.existsSync(file)) writeNumberedFile(file, fs.statSync(place.file).size, laidBytes)
  return file
}

async function measure(row: Row, candidate: string, ms: number, place: Place): Promise<number> {
  const file = fileOf(row, place)
  if (candidate === PLAIN) return plainCalls(row, ms, file)
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
  const { lengthBytes, laidBytes, depth, write, polling } = row
  const kibibytes = lengthBytes / KIBIBYTE
  const what = `${kibibytes} KiB ${write ? 'writes' : 'reads'} all over the file, ${depth} at a time`
  const goal = lengthBytes > PAGE_BYTES ? { atLeast: 0.75 } : { atLeast: 2 }
  const laid =
    laidBytes === lengthBytes ? '' : `; the page cache has it in pieces of ${laidBytes / KIBIBYTE} KiB`
  const suffix = laid === '' ? '' : `-laid-${laidBytes / KIBIBYTE}k`
  return {
    name: `${write ? 'write' : 'read'}-${kibibytes}k-${depth}${polling ? '-polling' : ''}${suffix}`,
    what: `${what}; the front-end ${polling ? 'polls' : 'waits for calls'}${laid}`,
    candidates: [THEIRS, OURS, OURS_POLLING, ...(depth === 1 || polling ? [] : [PLAIN])],
    goals: depth === 1 || laid !== '' ? {} : { [OURS]: goal },
    unit: 'per second',
    operationBytes: lengthBytes,
    run: (candidate, ms, place) => measure(row, candidate, ms, place),
  }
}

/** How the rows of large requests stand together, for people; null where there are not two of them. */
export function largeRequestsText(summaries: readonly MeasurementSummary[]): string | null {
  const large = summaries.filter(({ operationBytes }) => (operationBytes ?? 0) > PAGE_BYTES)
  return togetherText('large requests', OURS, large)
}

const SIZES = [
  { lengthBytes: 4 * KIBIBYTE, depth: 1 },
  { lengthBytes: 4 * KIBIBYTE, depth: 32 },
  { lengthBytes: 256 * KIBIBYTE, depth: 8 },
]
const ROWS: readonly Row[] = [
  ...[false, true].flatMap((polling) =>
    SIZES.flatMap((size) =>
      [false, true].map((write) => ({ ...size, laidBytes: size.lengthBytes, write, polling })),
    ),
  ),
  // Small writes into large pieces cost ext4 more than a daemon costs: shown, and held to no goal.
  { lengthBytes: 4 * KIBIBYTE, laidBytes: 1024 * KIBIBYTE, depth: 32, write: true, polling: false },
]

/** Disks served to another process: ours and QEMU's storage daemon behind the same front-end. */
export const PEER_MEASUREMENTS: readonly Measurement[] = ROWS.map(rowOf)
