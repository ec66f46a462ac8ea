import type { PeerConnection, PeerDescriptor } from '../host/vhost-user/edge.ts'
import type { FrontEndEdge, OwnEvent, SharedRegion } from '../host/vhost-user/front-end-edge.ts'
import { NativeConnection, NativeDescriptor, NativeEvent } from '../host/vhost-user/native-edge.ts'
import { EventDescriptor } from '../native/event-descriptor.ts'
import { NativeError } from '../native/native-error.ts'
import { SharedMemory } from '../native/shared-memory.ts'
import { UnixSocket } from '../native/unix-socket.ts'
import { UvLoop } from '../native/uv-loop.ts'
import { GuestMemory, gpa } from '../protocol/memory.ts'

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
    return socket instanceof NativeError ? refusal(path, socket) : new NativeConnection(socket, this.#loop)
  }

  pair(): { readonly ours: PeerConnection; readonly theirs: PeerDescriptor } | null {
    const ends = tried(() => UnixSocket.pair())
    if (ends === null) return null
    const [ours, theirs] = ends
    return { ours: new NativeConnection(ours, this.#loop), theirs: new NativeDescriptor(theirs.descriptor) }
  }

  event(): OwnEvent | null {
    const event = tried(() => EventDescriptor.create())
    if (event === null) return null
    return { event: new NativeEvent(event, this.#loop), descriptor: new NativeDescriptor(event.descriptor) }
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
  const regions = [{ base: 0, lengthBytes, descriptor: new NativeDescriptor(shared.descriptor), offset: 0 }]
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
