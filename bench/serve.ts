import type { DiskBackend, DiskOutcome } from '../host/disk/backend.ts'
import { DiskIo } from '../host/disk/backend.ts'
import { openDisk } from '../host/disk/registry.ts'
import { NativeConnection, NativeEdge } from '../host/vhost-user/native-edge.ts'
import type { SessionEnd } from '../host/vhost-user/session.ts'
import { VhostUserSession } from '../host/vhost-user/session.ts'
import { BlkDevice } from '../host/virtio/blk.ts'
import { VirtualClock } from '../hypervisor/clock.ts'
import type { Pace } from '../hypervisor/pace.ts'
import type { EdgeLoop, Watch } from '../native/edge-loop.ts'
import { inheritedSocket } from '../native/inherited-socket.ts'
import { NativeError } from '../native/native-error.ts'
import { nativeAbsent } from '../native/platform.ts'
import { PollLoop } from '../native/poll-loop.ts'
import { UnixListener } from '../native/unix-listener.ts'
import { UnixSocket } from '../native/unix-socket.ts'
import { UvLoop } from '../native/uv-loop.ts'
import { DmaSpace } from '../protocol/dma.ts'
import { GuestMemory } from '../protocol/memory.ts'
import type { HostPlatform } from '../protocol/platform.ts'
import { NO_TRACE } from '../protocol/trace.ts'
import { hostByteOrderRefused } from '../protocol/vhost-user/payload.ts'
import type { Violation } from '../protocol/violation.ts'
import { ViolationLog } from '../protocol/violation.ts'
import { isQueueSize } from '../protocol/virtio/ring.ts'
import { BadDescription } from './description.ts'
import { seededRandom } from './random.ts'
import type { TraceLines } from './trace-lines.ts'

/** A disk offered to front-ends of other programs. */
export interface ServeDescription {
  /** What stands behind it; writes go there. */
  readonly spec: string
  /** The socket file, made here; or the number of a socket that was left open for us, listening or connected. */
  readonly socket: string | number
  /** Request queues, 1 to 64. Default 1. */
  readonly queues?: number
  /** Largest queue: a power of two from 4 to 1024. Default 256. */
  readonly queueSize?: number
  /** Looks at the rings all the time instead of waiting for a kick. */
  readonly polling?: boolean
  /** Refuses memory that its owner could make shorter. */
  readonly requireSeals?: boolean
}

/** What a server tells whoever started it. */
export interface ServeListener {
  connected?(): void
  disconnected?(end: SessionEnd): void
  /** Requests that were out when whoever served before ended, and are done again. */
  recovered?(queue: number, requests: number): void
  /** The first violation of each rule in a session. */
  violated?(violation: Violation): void
}

export interface ServeOptions {
  readonly listener?: ServeListener
  readonly trace?: TraceLines
  /** The trace has its first line already: whoever served before was ended, and this server takes its place. */
  readonly again?: boolean
}

export const SERVE_QUEUES_MAX = 64
const QUEUE_SIZE = 256
/** Turns before descriptors are looked at again: a driver that never stops keeps its own ring busy, not us. */
const TURNS_AT_ONCE = 256

/** Real time. */
const REAL_TIME: Pace = {
  nowUs: () => performance.now() * 1000,
  sleep(us, wake) {
    const timer = setTimeout(wake, Math.max(0, us) / 1000)
    return () => clearTimeout(timer)
  },
}

interface Parts {
  readonly description: Required<ServeDescription>
  readonly platform: HostPlatform
  readonly clock: VirtualClock
  readonly loop: EdgeLoop
  readonly why: string
  readonly backend: DiskBackend
  /** Where front-ends come from; a connected socket is the only one of its kind. */
  readonly source: UnixListener | UnixSocket
  readonly listener: ServeListener
}

/**
 * A disk behind a socket that vhost-user front-ends connect to, one at a time: the next is let in when everything
 * that the last one shared has been given back.
 */
export class DiskServer {
  readonly #parts: Parts
  readonly #device: BlkDevice
  readonly #dma: DmaSpace
  readonly #edge: NativeEdge
  #session: VhostUserSession | null
  /** Null while somebody is served: who comes then waits in the kernel's queue. */
  #listening: Watch | null
  /** Everything since the server was made. */
  readonly violations: ViolationLog
  #sessions: number
  #stopping: boolean

  constructor(parts: Parts) {
    const { platform, backend, description, loop } = parts
    this.#parts = parts
    this.#dma = new DmaSpace(GuestMemory.nothing())
    this.#device = new BlkDevice({
      platform,
      dma: this.#dma,
      backend,
      version: '1.3',
      limits: { queues: description.queues, queueSize: description.queueSize },
    })
    this.#edge = new NativeEdge(loop, description.polling)
    this.#session = null
    this.#listening = null
    this.violations = new ViolationLog()
    this.#sessions = 0
    this.#stopping = false
  }

  /** Which loop waits for the front-end, and why that one. */
  get loop(): string {
    return `${this.#parts.loop.description}: ${this.#parts.why}`
  }

  get facts(): DiskBackend['facts'] {
    return this.#parts.backend.facts
  }

  /** Front-ends that connected so far. */
  get sessions(): number {
    return this.#sessions
  }

  /**
   * Serves until `stop`, then gives everything back: session, image, socket file.
   *
   * @returns what became of the last flush, so that nobody takes for safe what is not.
   */
  async run(): Promise<DiskOutcome> {
    const { clock, loop, source } = this.#parts
    if (source instanceof UnixSocket) this.#open(source)
    else this.#listen(source)
    try {
      const look = (): boolean | null => this.#session?.backEnd.look() ?? null
      await loop.run({
        turn: () => {
          // A loop that sleeps between turns does not while there is somewhere to look.
          const looks = look() !== null
          for (let left = TURNS_AT_ONCE; left > 0; left--) {
            if (!clock.step()) return looks ? 0 : clock.untilDueUs
          }
          return 0
        },
        look,
      })
    } finally {
      this.#listening?.close()
    }
    return this.close()
  }

  /** Ends `run`. */
  stop(): void {
    if (this.#stopping) return
    this.#stopping = true
    if (this.#session === null) this.#parts.loop.stop()
    else this.#session.close()
    this.#parts.loop.wakeUp()
  }

  #listen(listening: UnixListener): void {
    const { loop } = this.#parts
    this.#listening = loop.watch(listening.descriptor, () => {
      const socket = listening.accept()
      if (socket === null) return
      if (socket instanceof NativeError) throw socket
      this.#listening?.close()
      this.#listening = null
      this.#open(socket)
    })
  }

  #open(socket: UnixSocket): void {
    const { platform, loop, description, listener, source } = this.#parts
    const seen = new ViolationLog()
    this.#sessions++
    listener.connected?.()
    this.#session = new VhostUserSession({
      platform,
      device: this.#device,
      dma: this.#dma,
      edge: this.#edge,
      connection: new NativeConnection(socket, loop),
      requireSeals: description.requireSeals,
      polling: description.polling,
      recovered: (queue, requests) => listener.recovered?.(queue, requests),
      violated: (violation) => {
        this.violations.record(violation)
        seen.record(violation)
        if (seen.count(violation.rule) === 1) listener.violated?.(violation)
      },
      ended: (end) => {
        this.#session = null
        listener.disconnected?.(end)
        if (this.#stopping || source instanceof UnixSocket) loop.stop()
        else this.#listen(source)
      },
    })
  }

  /**
   * Gives up the socket file and the disk of a server that does not run. What a guest believes to be on the disk is
   * there then, whatever it asked for.
   */
  async close(): Promise<DiskOutcome> {
    const { backend, loop, clock, source } = this.#parts
    // A connected socket is its session's, once there was one.
    if (source instanceof UnixListener || this.#sessions === 0) source.close()
    let flushed: DiskOutcome | null = null
    backend.submit(
      new LastFlush((outcome) => {
        flushed = outcome
      }),
    )
    await clock.run()
    let closed = false
    backend.close(() => {
      closed = true
    })
    await clock.run()
    if (!closed) throw new Error('the disk never says that it is closed')
    loop[Symbol.dispose]()
    return flushed ?? 'gone'
  }
}

class LastFlush extends DiskIo {
  readonly #flushed: (outcome: DiskOutcome) => void

  constructor(flushed: (outcome: DiskOutcome) => void) {
    super('flush', 0, 0, [])
    this.#flushed = flushed
  }

  protected finished(outcome: DiskOutcome): void {
    this.#flushed(outcome)
  }
}

function checked(description: ServeDescription): Required<ServeDescription> {
  const { spec, socket, queues = 1, queueSize = QUEUE_SIZE } = description
  if (!(Number.isInteger(queues) && queues >= 1 && queues <= SERVE_QUEUES_MAX)) {
    throw new BadDescription(`queues is ${queues}; it takes a whole number from 1 to ${SERVE_QUEUES_MAX}`)
  }
  if (!(isQueueSize(queueSize) && queueSize >= 4 && queueSize <= 1024)) {
    throw new BadDescription(`queueSize is ${queueSize}; it takes a power of two from 4 to 1024`)
  }
  const { polling = false, requireSeals = false } = description
  return { spec, socket, queues, queueSize, polling, requireSeals }
}

/**
 * Opens a disk and listens. What cannot be had leaves nothing behind: no socket file, no open image.
 *
 * @throws BadDescription one line that says what cannot be.
 */
export async function createServer(
  written: ServeDescription,
  options: ServeOptions = {},
): Promise<DiskServer> {
  const description = checked(written)
  const absent = nativeAbsent() ?? hostByteOrderRefused()
  if (absent !== null) throw new BadDescription(absent)
  const { trace, listener = {}, again = false } = options
  let loop: EdgeLoop | null = null
  const clock = new VirtualClock({
    trace: trace ?? NO_TRACE,
    pace: REAL_TIME,
    woken: () => loop?.wakeUp(),
  })
  const platform = { clock, random: seededRandom(1).stream('disk0'), trace: trace ?? NO_TRACE, path: 'disk0' }
  const opened = await openDisk(description.spec, platform)
  if (!opened.ok) throw new BadDescription(opened.error)
  const backend = opened.value
  try {
    if (again) trace?.goOn(() => clock.now())
    else trace?.begin({ seed: 1, disks: [{ spec: description.spec, write: true }] }, () => clock.now())
    const chosen = chooseLoop(backend)
    loop = chosen.loop
    const source = sourceOf(description.socket)
    return new DiskServer({ description, platform, clock, ...chosen, backend, source, listener })
  } catch (error) {
    await new Promise<void>((resolve) => backend.close(resolve))
    throw error
  }
}

function sourceOf(socket: string | number): UnixListener | UnixSocket {
  if (typeof socket === 'number') {
    const inherited = inheritedSocket(socket)
    if (inherited !== null) return inherited
    throw new BadDescription(`--fd: there is no socket at descriptor ${socket}`)
  }
  try {
    return UnixListener.listen(socket)
  } catch (problem) {
    if (!(problem instanceof NativeError)) throw problem
    throw new BadDescription(`--socket: ${problem.message}`)
  }
}

/** Node's loop serves any stack; where nothing is ever answered later, the thread may sleep closer to the kick. */
function chooseLoop({ facts }: DiskBackend): { readonly loop: EdgeLoop; readonly why: string } {
  return facts.synchronous
    ? { loop: new PollLoop(), why: 'every layer of this disk answers at once' }
    : { loop: new UvLoop(), why: 'a layer of this disk answers later' }
}
