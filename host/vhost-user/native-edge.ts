import { type Descriptor, lengthOf } from '../../native/descriptor.ts'
import type { EdgeLoop, Watch } from '../../native/edge-loop.ts'
import { EventDescriptor } from '../../native/event-descriptor.ts'
import { NativeError } from '../../native/native-error.ts'
import { map, SharedMemory, seals } from '../../native/shared-memory.ts'
import { UnixSocket, WOULD_BLOCK } from '../../native/unix-socket.ts'
import type { PeerChannel, PeerConnection, PeerDescriptor, PeerEdge, PeerEvent, PeerMemory } from './edge.ts'

/** A descriptor of this process, as a session sees it. */
export class NativeDescriptor implements PeerDescriptor {
  readonly descriptor: Descriptor
  readonly kind: PeerDescriptor['kind']

  constructor(descriptor: Descriptor) {
    this.descriptor = descriptor
    this.kind = descriptor.kind
  }

  get lengthBytes(): number {
    const length = lengthOf(this.descriptor)
    return length instanceof NativeError ? 0 : length
  }

  get keepsLength(): boolean {
    const set = seals(this.descriptor)
    return !(set instanceof NativeError) && set.shrink
  }

  close(): void {
    this.descriptor.close()
  }
}

function own(descriptor: PeerDescriptor): Descriptor {
  if (!(descriptor instanceof NativeDescriptor)) throw new Error('a descriptor of another edge')
  return descriptor.descriptor
}

export class NativeEvent implements PeerEvent {
  readonly #event: EventDescriptor
  readonly #loop: EdgeLoop | null
  #watch: Watch | null

  /** @param loop null where nobody waits: rings are looked at instead. */
  constructor(event: EventDescriptor, loop: EdgeLoop | null) {
    this.#event = event
    this.#loop = loop
    this.#watch = null
  }

  signal(): void {
    this.#event.signal()
  }

  watch(rung: () => void): void {
    if (this.#loop === null) return
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

/** Sends all of it or says that it cannot: messages are small, and a peer with no room for one does not read. */
function sendWhole(socket: UnixSocket, bytes: Uint8Array, descriptors: readonly PeerDescriptor[]): boolean {
  return socket.send(bytes, descriptors.map(own)) === bytes.length
}

class NativeChannel implements PeerChannel {
  readonly #socket: UnixSocket

  constructor(socket: UnixSocket) {
    this.#socket = socket
  }

  send(bytes: Uint8Array, descriptors: readonly PeerDescriptor[]): boolean {
    return sendWhole(this.#socket, bytes, descriptors)
  }

  close(): void {
    this.#socket.close()
  }
}

/** A front-end that connected, or a back-end that was connected to. */
export class NativeConnection implements PeerConnection {
  readonly #socket: UnixSocket
  readonly #loop: EdgeLoop
  #ready: (() => void) | null
  #watch: Watch | null

  constructor(socket: UnixSocket, loop: EdgeLoop) {
    this.#socket = socket
    this.#loop = loop
    this.#ready = null
    this.#watch = null
  }

  receive(into: Uint8Array, descriptors: PeerDescriptor[]): number | null {
    const arrived: Descriptor[] = []
    const received = this.#socket.receive(into, arrived)
    for (const one of arrived) descriptors.push(new NativeDescriptor(one))
    if (received === WOULD_BLOCK) return null
    // Reset by the peer, or no room for its descriptors: nothing that could follow makes sense.
    return received instanceof NativeError ? 0 : received
  }

  send(bytes: Uint8Array, descriptors: readonly PeerDescriptor[]): boolean {
    return sendWhole(this.#socket, bytes, descriptors)
  }

  watch(ready: () => void): void {
    this.#ready = ready
    this.#watch = this.#loop.watch(this.#socket.descriptor, ready)
  }

  pause(paused: boolean): void {
    if (paused) {
      this.#watch?.close()
      this.#watch = null
    } else if (this.#watch === null && this.#ready !== null) {
      this.#watch = this.#loop.watch(this.#socket.descriptor, this.#ready)
    }
  }

  close(): void {
    this.#watch?.close()
    this.#watch = null
    this.#ready = null
    this.#socket.close()
  }
}

/** The operating system, for a session with a real front-end. */
export class NativeEdge implements PeerEdge {
  readonly #loop: EdgeLoop
  readonly #polling: boolean

  /** @param polling rings are looked at all the time, so that nobody waits for a kick. */
  constructor(loop: EdgeLoop, polling: boolean) {
    this.#loop = loop
    this.#polling = polling
  }

  map(descriptor: PeerDescriptor, offset: number, lengthBytes: number): PeerMemory | null {
    const mapping = map(own(descriptor), offset, lengthBytes, { write: true })
    return mapping instanceof NativeError ? null : mapping
  }

  event(descriptor: PeerDescriptor): PeerEvent | null {
    const event = EventDescriptor.of(own(descriptor))
    return event === null ? null : new NativeEvent(event, this.#polling ? null : this.#loop)
  }

  channel(descriptor: PeerDescriptor): PeerChannel | null {
    if (descriptor.kind !== 'socket') return null
    return new NativeChannel(new UnixSocket(own(descriptor)))
  }

  allocate(name: string, lengthBytes: number): PeerDescriptor | null {
    try {
      return new NativeDescriptor(SharedMemory.create(name, lengthBytes).descriptor)
    } catch (problem) {
      if (problem instanceof NativeError) return null
      throw problem
    }
  }
}
