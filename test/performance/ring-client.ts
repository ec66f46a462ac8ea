import { DriverRing } from '../../guest/virtio/split-ring.ts'
import type { Descriptor } from '../../native/descriptor.ts'
import { EventDescriptor } from '../../native/event-descriptor.ts'
import { NativeError } from '../../native/native-error.ts'
import { waitFor } from '../../native/poll-set.ts'
import { SharedMemory } from '../../native/shared-memory.ts'
import { UnixSocket, WOULD_BLOCK } from '../../native/unix-socket.ts'
import { encode } from '../../protocol/derive/codec.ts'
import { type Gpa, GuestMemory, gpa } from '../../protocol/memory.ts'
import { featureSet } from '../../protocol/version.ts'
import { VhostUserVirtioFeature, vhostUserFeatures } from '../../protocol/vhost-user/feature.ts'
import { FrameReader, frameBytes, u64Of, u64Payload } from '../../protocol/vhost-user/frame.ts'
import { FrontEndMessage, type FrontEndMessageName } from '../../protocol/vhost-user/message.ts'
import {
  VhostUserFlag,
  VhostUserMemory,
  VhostUserVringAddress,
  VhostUserVringState,
} from '../../protocol/vhost-user/payload.ts'
import { BlkFeature } from '../../protocol/virtio/blk.ts'
import { CommonFeature } from '../../protocol/virtio/features.ts'

const PATIENCE_MS = 10_000
const QUEUE_SIZE = 128
/** Without FLUSH a device has to keep every write at once, and ours does. */
const ACCEPTED = featureSet([
  BlkFeature.FLUSH.bit,
  CommonFeature.VERSION_1.bit,
  CommonFeature.EVENT_IDX.bit,
  VhostUserVirtioFeature.PROTOCOL_FEATURES.bit,
])

/**
 * The least that drives a vhost-user daemon: one ring in shared memory, blocking waits, no error that is not the
 * end. What it costs is the same for every daemon.
 */
export class RingClient<T extends object> {
  readonly memory: GuestMemory
  readonly ring: DriverRing<T>
  readonly #socket: UnixSocket
  readonly #reader: FrameReader<Descriptor>
  readonly #shared: SharedMemory
  readonly #kick: EventDescriptor
  readonly #call: EventDescriptor
  readonly #polling: boolean
  #top: number

  /** @param polling looks at the ring all the time instead of waiting to be called. */
  constructor(path: string, memoryBytes: number, polling: boolean) {
    const socket = UnixSocket.connect(path)
    if (socket instanceof NativeError) throw socket
    this.#socket = socket
    this.#reader = new FrameReader('back-end')
    this.#shared = SharedMemory.create('peers', memoryBytes)
    this.memory = new GuestMemory([{ base: gpa(0), bytes: this.#shared.map().bytes, shared: true }])
    this.#kick = EventDescriptor.create()
    this.#call = EventDescriptor.create()
    this.#polling = polling
    this.#top = 0
    this.ring = new DriverRing<T>({
      platform: { memory: this.memory, allocate: (bytes, alignment) => this.allocate(bytes, alignment) },
      ...{ queue: 0, size: QUEUE_SIZE, indirectSegments: 0, eventIdx: true },
      violated: ({ rule }) => {
        throw new Error(`the daemon breaks ${rule}`)
      },
    })
    this.#open(memoryBytes)
  }

  allocate(lengthBytes: number, alignment: number): Gpa {
    const at = Math.ceil(this.#top / alignment) * alignment
    this.#top = at + lengthBytes
    return gpa(at)
  }

  /** Shows what was posted. */
  publish(): void {
    if (this.ring.publish()) this.#kick.signal()
  }

  /** Returns when there is something to reap. */
  wait(): void {
    if (this.#polling || this.ring.rearm()) return
    if (!waitFor(this.#call.descriptor, 'readable', PATIENCE_MS)) throw new Error('the daemon never answers')
    this.#call.drain()
  }

  #open(memoryBytes: number): void {
    const offered = this.#asked('GET_FEATURES')
    if ((offered & ACCEPTED) !== ACCEPTED) throw new Error(`the daemon offers ${offered.toString(16)} only`)
    this.#asked('GET_PROTOCOL_FEATURES')
    this.#send('SET_PROTOCOL_FEATURES', u64Payload(vhostUserFeatures('REPLY_ACK')))
    this.#send('SET_OWNER')
    this.#tell('SET_FEATURES', u64Payload(ACCEPTED))
    const region = { guest: 0n, size: BigInt(memoryBytes), user: 0n, offset: 0n }
    const table = encode(VhostUserMemory, { count: 1, regions: [region] })
    this.#tell('SET_MEM_TABLE', table, [this.#shared.descriptor])
    const { descriptors, driver, device, size } = this.ring.place
    const addresses = { descriptor: BigInt(descriptors), used: BigInt(device), available: BigInt(driver) }
    this.#tell('SET_VRING_NUM', encode(VhostUserVringState, { index: 0, num: size }))
    this.#tell('SET_VRING_BASE', encode(VhostUserVringState, { index: 0, num: 0 }))
    this.#tell('SET_VRING_ADDR', encode(VhostUserVringAddress, { index: 0, ...addresses }))
    this.#tell('SET_VRING_CALL', u64Payload(0n), [this.#call.descriptor])
    this.#tell('SET_VRING_KICK', u64Payload(0n), [this.#kick.descriptor])
    this.#tell('SET_VRING_ENABLE', encode(VhostUserVringState, { index: 0, num: 1 }))
  }

  #asked(name: FrontEndMessageName): bigint {
    this.#send(name)
    return this.#answer()
  }

  /** Until the daemon says that it did it. */
  #tell(name: FrontEndMessageName, payload: Uint8Array, descriptors: readonly Descriptor[] = []): void {
    this.#send(name, payload, descriptors, VhostUserFlag.NEED_REPLY)
    const refused = this.#answer()
    if (refused !== 0n) throw new Error(`the daemon refuses ${name}: ${refused}`)
  }

  #send(
    name: FrontEndMessageName,
    payload?: Uint8Array,
    descriptors: readonly Descriptor[] = [],
    flags = 0,
  ): void {
    const bytes = frameBytes(FrontEndMessage[name].code, flags, payload)
    if (this.#socket.send(bytes, descriptors) !== bytes.length) throw new Error(`${name} cannot be sent`)
  }

  #answer(): bigint {
    for (;;) {
      const came: Descriptor[] = []
      const received = this.#socket.receive(this.#reader.room, came)
      if (received === WOULD_BLOCK) {
        if (waitFor(this.#socket.descriptor, 'readable', PATIENCE_MS)) continue
        throw new Error('the daemon does not answer')
      }
      if (typeof received !== 'number' || received === 0) throw new Error('the daemon has gone')
      const frame = this.#reader.took(received, came)
      if (frame === null) continue
      if ('rule' in frame) throw new Error(`the daemon breaks ${frame.rule}`)
      return u64Of(frame.payload)
    }
  }
}
