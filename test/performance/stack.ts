import fs from 'node:fs'
import { Drive } from '../../bench/drive.ts'
import { seededRandom } from '../../bench/random.ts'
import { WindowsMachine } from '../../bench/windows-machine.ts'
import { NtStatus } from '../../guest/kernel/nt-status.ts'
import type { Waiting } from '../../guest/kernel/thread.ts'
import { WINDOWS_VERSIONS } from '../../guest/kernel/version.ts'
import { APICV } from '../../hypervisor/apic-profile.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import { NO_TRACE } from '../../protocol/trace.ts'
import {
  CONTIGUOUS,
  fileSpec,
  pagesOf,
  plain,
  type ReadTogether,
  SCATTERED,
  type Shape,
  through,
} from './disk.ts'
import { type Measurement, nsPerOperation, type Place } from './measure.ts'
import { PAGE_BYTES, readThrough } from './numbered-file.ts'

const MEMORY_BYTES = 64 << 20
/**
 * Of the time that other measurements take, for all candidates alike: a whole guest is compiled after some 12,000
 * requests, and what comes before is the compiler's figure.
 */
const LONGER = 3

const SHAPES: readonly Shape[] = [
  {
    name: 'stack-depth-1',
    what: '4 KiB random reads by an application of the guest, one at a time',
    layout: [[0]],
    random: true,
    goal: null,
  },
  {
    name: 'stack-depth-32',
    what: '4 KiB random reads by an application of the guest, 32 under way',
    layout: Array.from({ length: 32 }, (_, i) => [i]),
    random: true,
    goal: { atLeast: 0.5 },
  },
  {
    name: 'stack-contiguous',
    what: '1 MiB sequential reads by an application of the guest into large pages',
    layout: [CONTIGUOUS],
    random: false,
    goal: { atLeast: 0.9 },
  },
  {
    name: 'stack-scattered',
    what: '1 MiB sequential reads by an application of the guest into 256 scattered pages',
    layout: [SCATTERED],
    random: false,
    goal: { atLeast: 0.75 },
  },
]

interface Buffer {
  readonly address: number
  /** Its first page, as it lies in RAM. */
  readonly view: DataView
  page: number
}

/**
 * An application of the Windows-shaped guest that reads a drive through everything there is: I/O manager, disk
 * class, port, miniport, ring, VM exits, device, file.
 */
class StackReader {
  readonly #windows: WindowsMachine
  readonly #drive: Drive
  readonly #buffers: readonly Buffer[]
  readonly #requestBytes: number

  constructor(windows: WindowsMachine, drive: Drive, buffers: readonly Buffer[], requestBytes: number) {
    this.#windows = windows
    this.#drive = drive
    this.#buffers = buffers
    this.#requestBytes = requestBytes
  }

  static async boot(file: string, shape: Shape): Promise<StackReader> {
    const clock = new VirtualClock()
    const windows = new WindowsMachine({
      clock,
      trace: NO_TRACE,
      random: seededRandom(1),
      windows: WINDOWS_VERSIONS[7],
      profile: APICV,
      virtio: '1.3',
      memoryBytes: MEMORY_BYTES,
      preemption: false,
    })
    windows.addDisk(await through(fileSpec(file)))
    const drive = windows.runNow(function* () {
      yield* windows.boot()
      return yield* Drive.open(windows.user, 0)
    })
    if (!(drive instanceof Drive)) throw new Error(`the drive cannot be opened: ${drive}`)
    const requestBytes = (shape.layout[0]?.length ?? 1) * PAGE_BYTES
    const buffers = shape.layout.map((pages) => bufferOf(windows, requestBytes, pages !== SCATTERED))
    return new StackReader(windows, drive, buffers, requestBytes)
  }

  /** Reads from the next `count` pages, as many at once as there are buffers, each begun as soon as one ended. */
  read(pages: readonly number[], from: number, count: number): void {
    this.#windows.runNow(() => this.#body(pages, from, count))
  }

  *#body(pages: readonly number[], from: number, count: number): Waiting<boolean> {
    const drive = this.#drive
    const depth = this.#buffers.length
    let begun = 0
    for (; begun < depth && begun < count; begun++) yield* this.#begin(begun, pages[from + begun] as number)
    for (let ended = 0; ended < count; ended++) {
      const { slot, status, information } = yield* drive.next()
      this.#check(slot, status, information)
      if (begun < count) yield* this.#begin(slot, pages[from + begun++] as number)
    }
    return true
  }

  *#begin(slot: number, page: number): Waiting<void> {
    const buffer = this.#buffers[slot] as Buffer
    buffer.page = page
    const refused = yield* this.#drive.begin(
      slot,
      false,
      buffer.address,
      this.#requestBytes,
      page * PAGE_BYTES,
    )
    if (refused !== null) throw new Error(`a read was refused: ${refused}`)
  }

  #check(slot: number, status: NtStatus, information: number): void {
    if (status !== NtStatus.SUCCESS || information !== this.#requestBytes) throw new Error('a read failed')
    const { view, page } = this.#buffers[slot] as Buffer
    if (view.getUint32(0, true) !== page) throw new Error('the wrong page was read')
  }
}

function bufferOf({ user }: WindowsMachine, lengthBytes: number, sideBySide: boolean): Buffer {
  const address = sideBySide ? user.allocateLarge(lengthBytes) : user.allocate(lengthBytes)
  const views = address === 0 ? null : user.views(address, lengthBytes)
  const [first] = views ?? []
  if (views === null || first === undefined) throw new Error('the guest has no memory for an application')
  if ((views.length === 1) !== (sideBySide || lengthBytes === PAGE_BYTES)) {
    throw new Error(`the buffer lies in ${views.length} pieces`)
  }
  return { address, view: new DataView(first.buffer, first.byteOffset, first.length), page: 0 }
}

async function reader(
  shape: Shape,
  candidate: string,
  file: string,
): Promise<(pages: readonly number[], from: number, count: number) => void> {
  if (candidate === 'paravane') {
    const stack = await StackReader.boot(file, shape)
    return (pages, from, count) => stack.read(pages, from, count)
  }
  const together: ReadTogether = plain(shape, file)
  const depth = shape.layout.length
  return (pages, from, count) => {
    for (let done = 0; done < count; done += depth) together(pages, from + done)
  }
}

function measurementOf(shape: Shape): Measurement {
  const requestBytes = (shape.layout[0]?.length ?? 1) * PAGE_BYTES
  return {
    name: shape.name,
    what: shape.what,
    candidates: [shape.layout[0] === SCATTERED ? 'readvSync' : 'readSync', 'paravane'],
    goals: shape.goal === null ? {} : { paravane: shape.goal },
    unit: 'per second',
    operationBytes: requestBytes,
    profiled: 'paravane',
    async run(candidate: string, ms: number, { file }: Place): Promise<number> {
      readThrough(file)
      const read = await reader(shape, candidate, file)
      const pages = pagesOf(shape, fs.statSync(file).size)
      // A batch has a thread of the guest, made anew, which is no part of a request: one or two milliseconds.
      const batch = requestBytes > PAGE_BYTES ? 8 : 128
      let from = 0
      const ns = nsPerOperation(batch, ms * LONGER, () => {
        read(pages, from, batch)
        from = (from + batch) % pages.length
      })
      return 1e9 / ns
    },
  }
}

export const STACK_MEASUREMENTS: readonly Measurement[] = SHAPES.map(measurementOf)
