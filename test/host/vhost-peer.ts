import type {
  PeerChannel,
  PeerConnection,
  PeerDescriptor,
  PeerEdge,
  PeerEvent,
  PeerMemory,
} from '../../host/vhost-user/edge.ts'

export type FakeKind = PeerDescriptor['kind']

/** What a descriptor is of: shared by all descriptors of it. */
export class FakeObject {
  readonly kind: FakeKind
  readonly bytes: Uint8Array<ArrayBuffer>
  readonly keepsLength: boolean
  /** An event: how often it was signalled and not yet taken. */
  signals = 0
  readonly watchers = new Set<() => void>()
  /** A socket: what was sent on it. */
  readonly sent: Uint8Array[] = []

  constructor(kind: FakeKind, bytes: Uint8Array<ArrayBuffer> = new Uint8Array(0), keepsLength = true) {
    this.kind = kind
    this.bytes = bytes
    this.keepsLength = keepsLength
  }

  /** The driver's side of an event. */
  ring(): void {
    this.signals++
    for (const rung of this.watchers) {
      this.signals = 0
      rung()
    }
  }

  take(): number {
    const { signals } = this
    this.signals = 0
    return signals
  }
}

/** Everything the back-end holds of its peer, counted: what is closed twice or used afterwards throws. */
export class FakeWorld implements PeerEdge {
  open = 0
  mappings = 0
  /** Mappings that are refused from now on: there is no more room. */
  full = false
  /** How many more may be mapped before that. */
  room = Number.POSITIVE_INFINITY

  /** A descriptor on its way to the back-end, which owns it from then on. */
  pass(object: FakeObject): FakeDescriptor {
    return new FakeDescriptor(this, object)
  }

  map(descriptor: PeerDescriptor, offset: number, lengthBytes: number): PeerMemory | null {
    const { object } = own(descriptor)
    if (this.full || object.kind !== 'file' || this.room === 0) return null
    this.room--
    if (!(offset + lengthBytes <= object.bytes.length)) throw new Error('a mapping past the end of its file')
    this.mappings++
    let revoked = false
    return {
      bytes: new Uint8Array(object.bytes.buffer, object.bytes.byteOffset + offset, lengthBytes),
      revoke: () => {
        if (revoked) throw new Error('a mapping is revoked twice')
        revoked = true
        this.mappings--
      },
    }
  }

  event(descriptor: PeerDescriptor): PeerEvent | null {
    const { object } = own(descriptor)
    if (object.kind !== 'event') return null
    const watching: (() => void)[] = []
    return {
      signal: () => {
        own(descriptor)
        object.signals++
      },
      watch: (rung) => {
        own(descriptor)
        watching.push(rung)
        object.watchers.add(rung)
        if (object.signals > 0) object.ring()
      },
      close: () => {
        for (const rung of watching) object.watchers.delete(rung)
        descriptor.close()
      },
    }
  }

  channel(descriptor: PeerDescriptor): PeerChannel | null {
    const { object } = own(descriptor)
    if (object.kind !== 'socket') return null
    return {
      send: (bytes) => {
        own(descriptor)
        object.sent.push(bytes.slice())
        return true
      },
      close: () => descriptor.close(),
    }
  }

  allocate(_name: string, lengthBytes: number): PeerDescriptor | null {
    if (this.full) return null
    return this.pass(new FakeObject('file', new Uint8Array(Math.ceil(lengthBytes / 4096) * 4096)))
  }
}

export class FakeDescriptor implements PeerDescriptor {
  readonly #world: FakeWorld
  readonly #object: FakeObject
  #closed = false

  constructor(world: FakeWorld, object: FakeObject) {
    this.#world = world
    this.#object = object
    world.open++
  }

  get object(): FakeObject {
    if (this.#closed) throw new Error('a closed descriptor is used')
    return this.#object
  }

  get kind(): FakeKind {
    return this.object.kind
  }

  get lengthBytes(): number {
    return this.object.bytes.length
  }

  get keepsLength(): boolean {
    return this.object.keepsLength
  }

  close(): void {
    if (this.#closed) throw new Error('a descriptor is closed twice')
    this.#closed = true
    this.#world.open--
  }
}

function own(descriptor: PeerDescriptor): FakeDescriptor {
  if (!(descriptor instanceof FakeDescriptor)) throw new Error('a descriptor of another world')
  if (descriptor.object === undefined) throw new Error('unreachable')
  return descriptor
}

interface Chunk {
  bytes: Uint8Array
  descriptors: readonly FakeDescriptor[]
}

export interface Sent {
  readonly bytes: Uint8Array
  readonly objects: readonly FakeObject[]
}

/** A stream socket with the rules Linux has: a read never goes on past a byte that carries descriptors. */
export class FakeConnection implements PeerConnection {
  readonly sent: Sent[] = []
  /** What is written is refused: the peer does not read. */
  deaf = false
  closed = false
  paused = false
  readonly #inbox: Chunk[] = []
  #ready: (() => void) | null = null
  #hungUp = false

  /** Puts bytes into the stream; descriptors ride with the first. */
  feed(bytes: Uint8Array, descriptors: readonly FakeDescriptor[] = []): void {
    this.#inbox.push({ bytes, descriptors })
  }

  hangUp(): void {
    this.#hungUp = true
  }

  /** Tells the back-end, as long as there is something to tell. */
  deliver(): void {
    for (let left = 10_000; left > 0; left--) {
      if (this.closed || this.paused || this.#ready === null) return
      if (this.#inbox.length === 0 && !this.#hungUp) return
      this.#ready()
    }
    throw new Error('the back-end never reads all of it')
  }

  /** Descriptors that never reached the back-end: the kernel closes them. */
  dropRest(): void {
    for (const { descriptors } of this.#inbox.splice(0)) for (const one of descriptors) one.close()
  }

  receive(into: Uint8Array, descriptors: PeerDescriptor[]): number | null {
    if (this.closed) throw new Error('a closed connection is read')
    if (into.length === 0) throw new Error('a read into no room')
    const chunk = this.#inbox[0]
    if (chunk === undefined) return this.#hungUp ? 0 : null
    const here = chunk.bytes.subarray(0, into.length)
    into.set(here)
    descriptors.push(...chunk.descriptors)
    if (here.length === chunk.bytes.length) this.#inbox.shift()
    else this.#inbox[0] = { bytes: chunk.bytes.subarray(here.length), descriptors: [] }
    return here.length
  }

  watch(ready: () => void): void {
    this.#ready = ready
  }

  pause(paused: boolean): void {
    this.paused = paused
  }

  send(bytes: Uint8Array, descriptors: readonly PeerDescriptor[]): boolean {
    if (this.closed) throw new Error('a closed connection is written')
    if (this.deaf) return false
    this.sent.push({ bytes: bytes.slice(), objects: descriptors.map((one) => own(one).object) })
    return true
  }

  close(): void {
    if (this.closed) throw new Error('a connection is closed twice')
    this.closed = true
    this.#ready = null
    this.dropRest()
  }
}
