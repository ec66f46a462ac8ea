import type { PeerConnection, PeerDescriptor, PeerEvent } from '../host/vhost-user/edge.ts'
import type { FrontEndEdge, OwnEvent, SharedRegion } from '../host/vhost-user/front-end-edge.ts'
import { Descriptor, lengthOf } from '../native/descriptor.ts'
import type { EdgeLoop, Watch } from '../native/edge-loop.ts'
import { EventDescriptor } from '../native/event-descriptor.ts'
import { NativeError } from '../native/native-error.ts'
import { SharedMemory } from '../native/shared-memory.ts'
import { UnixSocket, WOULD_BLOCK } from '../native/unix-socket.ts'
import { UvLoop } from '../native/uv-loop.ts'
import { GuestMemory, gpa } from '../protocol/memory.ts'

/** A descriptor as the pure part of a front-end knows it. */
class EdgeDescriptor implements PeerDescriptor {
  readonly native: Descriptor

  constructor(native: Descriptor) {
    this.native = native
  }

  get kind(): PeerDescriptor['kind'] {
    return this.native.kind
  }

  get lengthBytes(): number {
    const length = lengthOf(this.native)
    return length instanceof NativeError ? 0 : length
  }

  /** Nobody asks it of what a daemon sends: nothing of that is mapped here. */
  get keepsLength(): boolean {
    return false
  }

  close(): void {
    this.native[Symbol.dispose]()
  }
}

function nativeOf(descriptors: readonly PeerDescriptor[]): Descriptor[] {
  return descriptors.map((one) => {
    if (one instanceof EdgeDescriptor) return one.native
    throw new Error('a descriptor of another edge')
  })
}

class EdgeConnection implements PeerConnection {
  readonly #loop: EdgeLoop
  readonly #socket: UnixSocket
  #watch: Watch | null

  constructor(loop: EdgeLoop, socket: UnixSocket) {
    this.#loop = loop
    this.#socket = socket
    this.#watch = null
  }

  send(bytes: Uint8Array, descriptors: readonly PeerDescriptor[]): boolean {
    return this.#socket.send(bytes, nativeOf(descriptors)) === bytes.length
  }

  receive(into: Uint8Array, descriptors: PeerDescriptor[]): number | null {
    const came: Descriptor[] = []
    const count = this.#socket.receive(into, came)
    descriptors.push(...came.map((one) => new EdgeDescriptor(one)))
    if (count instanceof NativeError) return 0
    return count === WOULD_BLOCK ? null : count
  }

  watch(ready: () => void): void {
    this.#watch = this.#loop.watch(this.#socket.descriptor, ready)
  }

  /** Everything that comes is read in the next turn: there is nothing to hold back. */
  pause(_paused: boolean): void {}

  close(): void {
    this.#watch?.close()
    this.#watch = null
    this.#socket.close()
  }
}

class EdgeEvent implements PeerEvent {
  readonly #loop: EdgeLoop
  readonly #event: EventDescriptor
  #watch: Watch | null

  constructor(loop: EdgeLoop, event: EventDescriptor) {
    this.#loop = loop
    this.#event = event
    this.#watch = null
  }

  signal(): void {
    this.#event.signal()
  }

  watch(rung: () => void): void {
    this.#watch = this.#loop.watch(this.#event.descriptor, () => {
      if (this.#event.drain()) rung()
    })
  }

  close(): void {
    this.#watch?.close()
    this.#watch = null
    this.#event.close()
  }
}

/** Sockets, events and timers of this process, for front-ends of daemons. Whoever makes one closes it. */
export class NativeFrontEndEdge implements FrontEndEdge {
  readonly #loop: UvLoop

  /** @throws when `uvAbsent` says why not */
  constructor() {
    this.#loop = new UvLoop()
    // The machine has a loop of its own around its clock; this one only passes on what happens.
    void this.#loop.run({ turn: () => null })
  }

  connect(path: string): PeerConnection | string {
    const socket = UnixSocket.connect(path)
    return socket instanceof NativeError ? refusal(path, socket) : new EdgeConnection(this.#loop, socket)
  }

  pair(): { readonly ours: PeerConnection; readonly theirs: PeerDescriptor } | null {
    const ends = tried(() => UnixSocket.pair())
    if (ends === null) return null
    const [ours, theirs] = ends
    return { ours: new EdgeConnection(this.#loop, ours), theirs: new EdgeDescriptor(theirs.descriptor) }
  }

  event(): OwnEvent | null {
    const event = tried(() => EventDescriptor.create())
    if (event === null) return null
    return { event: new EdgeEvent(this.#loop, event), descriptor: new EdgeDescriptor(event.descriptor) }
  }

  every(ms: number, tick: () => void): () => void {
    const timer = setInterval(tick, ms)
    return () => clearInterval(timer)
  }

  close(): void {
    this.#loop.stop()
  }
}

/** Guest memory that a daemon can map. */
export interface SharedGuestMemory {
  readonly memory: GuestMemory
  readonly regions: readonly SharedRegion[]
  close(): void
}

/** One region of zeroed memory from address 0, of a length that nobody can change. @throws NativeError */
export function sharedGuestMemory(lengthBytes: number): SharedGuestMemory {
  const shared = SharedMemory.create('paravane-guest', lengthBytes)
  const mapping = shared.map()
  const memory = new GuestMemory([{ base: gpa(0), bytes: mapping.bytes, shared: true }])
  const regions = [{ base: 0, lengthBytes, descriptor: new EdgeDescriptor(shared.descriptor), offset: 0 }]
  return {
    memory,
    regions,
    close() {
      mapping.close()
      shared.close()
    },
  }
}

function tried<T>(make: () => T): T | null {
  try {
    return make()
  } catch (problem) {
    if (problem instanceof NativeError) return null
    throw problem
  }
}

function refusal(path: string, { errno }: NativeError): string {
  if (errno === 'ENOENT') return `there is no socket at ${path}`
  if (errno === 'ECONNREFUSED') return `nobody listens at ${path}`
  return `${path} cannot be connected to: ${errno}`
}
