import fs from 'node:fs'
import { seededRandom } from '../../bench/random.ts'
import type { DiskBackend } from '../../host/disk/backend.ts'
import { DiskIo } from '../../host/disk/backend.ts'
import { openDisk } from '../../host/disk/registry.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import { NO_TRACE } from '../../protocol/trace.ts'
import { DiskDriver } from './disk-driver.ts'
import type { Goal, Measurement, Place } from './measure.ts'
import { nsPerOperation } from './measure.ts'
import { numberPages, PAGE_BYTES, readThrough } from './numbered-file.ts'

export const LONG_PAGES = 256
/** Offsets drawn beforehand, and read over and over. */
const OFFSETS = 4096

/** One way of reading. */
export interface Shape {
  readonly name: string
  readonly what: string
  /** For each request of the depth, the pages of memory it is read into. */
  readonly layout: readonly (readonly number[])[]
  readonly random: boolean
  readonly goal: Goal | null
}

export const CONTIGUOUS = Array.from({ length: LONG_PAGES }, (_, i) => i)
/** Every second page, in an order that puts no two in a row. */
export const SCATTERED = Array.from({ length: LONG_PAGES }, (_, i) => 2 * ((i * 101) % LONG_PAGES))

const SHAPES: readonly Shape[] = [
  {
    name: 'disk-depth-1',
    what: '4 KiB random reads of a file, one at a time',
    layout: [[0]],
    random: true,
    goal: null,
  },
  {
    name: 'disk-depth-32',
    what: '4 KiB random reads of a file, 32 in the ring',
    layout: Array.from({ length: 32 }, (_, i) => [i]),
    random: true,
    goal: { atLeast: 0.7 },
  },
  {
    name: 'disk-contiguous',
    what: '1 MiB sequential reads of a file into 256 pages in a row',
    layout: [CONTIGUOUS],
    random: false,
    goal: { atLeast: 0.9 },
  },
  {
    name: 'disk-scattered',
    what: '1 MiB sequential reads of a file into 256 scattered pages',
    layout: [SCATTERED],
    random: false,
    goal: null,
  },
]

/** Reads once for each request of the depth, from the pages at `pages[from]` on. */
export type ReadTogether = (pages: readonly number[], from: number) => void

export function pagesOf(shape: Shape, fileBytes: number): number[] {
  const requestPages = shape.layout[0]?.length ?? 1
  const places = Math.floor(fileBytes / PAGE_BYTES / requestPages)
  const random = seededRandom(1).stream(shape.name)
  return Array.from({ length: OFFSETS }, (_, i) =>
    shape.random ? random.below(places) * requestPages : (i % places) * requestPages,
  )
}

/** The yardstick: the same calls on the same file at the same offsets, buffers made beforehand. */
export function plain(shape: Shape, file: string): ReadTogether {
  const fd = fs.openSync(file, 'r')
  const memory = new ArrayBuffer((1 + Math.max(...shape.layout.flat())) * PAGE_BYTES)
  const view = new DataView(memory)
  const inOneRow = (pages: readonly number[]) => pages.every((page, i) => page === (pages[0] as number) + i)
  const reads = shape.layout.map((pages) => {
    const first = (pages[0] as number) * PAGE_BYTES
    const lengthBytes = pages.length * PAGE_BYTES
    const buffers = inOneRow(pages)
      ? [new Uint8Array(memory, first, lengthBytes)]
      : pages.map((page) => new Uint8Array(memory, page * PAGE_BYTES, PAGE_BYTES))
    return { first, lengthBytes, buffers, only: buffers.length === 1 ? (buffers[0] as Uint8Array) : null }
  })
  return (pages, from) => {
    for (let i = 0; i < reads.length; i++) {
      const { first, lengthBytes, buffers, only } = reads[i] as (typeof reads)[number]
      const page = pages[from + i] as number
      const done =
        only === null
          ? fs.readvSync(fd, buffers, page * PAGE_BYTES)
          : fs.readSync(fd, only, 0, lengthBytes, page * PAGE_BYTES)
      if (done !== lengthBytes) throw new Error('a read was short')
      if (view.getUint32(first, true) !== page) throw new Error('the wrong page was read')
    }
  }
}

export async function through(spec: string): Promise<DiskBackend> {
  const opened = await openDisk(spec, {
    clock: new VirtualClock(),
    random: seededRandom(1),
    trace: NO_TRACE,
    path: 'disk0',
  })
  if (!opened.ok) throw new Error(opened.error)
  return opened.value
}

class Fill extends DiskIo {
  protected finished(outcome: string): void {
    if (outcome !== 'ok') throw new Error(`filling the memory disk: ${outcome}`)
  }
}

/** A memory disk with the content of the file. */
async function memoryDisk(lengthBytes: number): Promise<DiskBackend> {
  const backend = await through(`memory:size=${lengthBytes}`)
  const chunk = new Uint8Array(LONG_PAGES * PAGE_BYTES)
  for (let offset = 0; offset < lengthBytes; offset += chunk.length) {
    numberPages(chunk, offset / PAGE_BYTES)
    backend.submit(new Fill('write', offset, chunk.length, [chunk]))
  }
  return backend
}

/** A backslash keeps the spec's own signs in a path from being read as such. */
export function fileSpec(file: string): string {
  return `file:${file.replace(/[\\,|=]/g, '\\$&')},readonly`
}

async function reader(shape: Shape, candidate: string, file: string): Promise<ReadTogether> {
  if (candidate.startsWith('read')) return plain(shape, file)
  const backend =
    candidate === 'memory' ? await memoryDisk(fs.statSync(file).size) : await through(fileSpec(file))
  const driver = new DiskDriver(backend, shape.layout)
  return (pages, from) => driver.readTogether(pages, from)
}

function measurementOf(shape: Shape): Measurement {
  const requestBytes = (shape.layout[0]?.length ?? 1) * PAGE_BYTES
  return {
    name: shape.name,
    what: shape.what,
    candidates: [shape.layout[0] === SCATTERED ? 'readvSync' : 'readSync', 'file', 'memory'],
    goals: shape.goal === null ? {} : { file: shape.goal },
    unit: 'per second',
    operationBytes: requestBytes,
    async run(candidate: string, ms: number, { file }: Place): Promise<number> {
      readThrough(file)
      const read = await reader(shape, candidate, file)
      const pages = pagesOf(shape, fs.statSync(file).size)
      const depth = shape.layout.length
      // A tenth of a millisecond or two: long against the clock, short against a turn of the scheduler.
      const batch = requestBytes > PAGE_BYTES ? 2 : 128
      let from = 0
      const ns = nsPerOperation(batch, ms, () => {
        for (let done = 0; done < batch; done += depth) {
          read(pages, from)
          from = (from + depth) % pages.length
        }
      })
      return 1e9 / ns
    },
  }
}

export const DISK_MEASUREMENTS: readonly Measurement[] = SHAPES.map(measurementOf)
