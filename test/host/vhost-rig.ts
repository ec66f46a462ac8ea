import { seededRandom } from '../../bench/random.ts'
import type { DiskBackend } from '../../host/disk/backend.ts'
import type { SessionEnd } from '../../host/vhost-user/session.ts'
import { VhostUserSession } from '../../host/vhost-user/session.ts'
import { BlkDevice } from '../../host/virtio/blk.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import { encode } from '../../protocol/derive/codec.ts'
import { DmaSpace } from '../../protocol/dma.ts'
import { GuestMemory } from '../../protocol/memory.ts'
import { NO_TRACE } from '../../protocol/trace.ts'
import { frameBytes, u64Payload } from '../../protocol/vhost-user/frame.ts'
import type { FrontEndMessageName } from '../../protocol/vhost-user/message.ts'
import { FrontEndMessage } from '../../protocol/vhost-user/message.ts'
import {
  VhostUserMemory,
  VhostUserVringAddress,
  VhostUserVringState,
} from '../../protocol/vhost-user/payload.ts'
import type { Violation } from '../../protocol/violation.ts'
import type { RawPlace } from './raw-queue.ts'
import { RawQueue } from './raw-queue.ts'
import { FakeConnection, FakeObject, FakeWorld } from './vhost-peer.ts'

export interface VhostRigSetup {
  readonly backend: DiskBackend
  readonly queues?: number
  readonly queueSize?: number
  readonly memoryBytes?: number
  readonly requireSeals?: boolean
  /** A machine that was there before: its memory goes on, its back-end is another. */
  readonly machine?: Machine
}

/** What outlives a back-end: the guest's memory, and the tracking buffer the front-end keeps. */
export interface Machine {
  readonly memory: GuestMemory
  readonly file: FakeObject
  inflight: FakeObject | null
}

/** Where the front-end has guest memory among its own addresses. */
export const USER_BASE = 0x7f00_0000_0000

export const PROTOCOL_BIT = 1n << 30n
export const LOG_ALL_BIT = 1n << 26n
const NEED_REPLY = 8

export interface Answer {
  readonly code: number
  readonly flags: number
  readonly payload: Uint8Array<ArrayBuffer>
  readonly objects: readonly FakeObject[]
}

/** A front-end that does what it is told, with its back-end beside it on a machine of counted descriptors. */
export class VhostRig {
  readonly world: FakeWorld
  readonly clock: VirtualClock
  readonly machine: Machine
  readonly device: BlkDevice
  readonly dma: DmaSpace
  readonly violations: Violation[]
  readonly ends: SessionEnd[]
  /** Queue, and requests of it that were done again. */
  readonly recovered: (readonly [queue: number, requests: number])[]
  readonly #setup: VhostRigSetup
  session: VhostUserSession
  connection: FakeConnection
  readonly kicks: FakeObject[]
  readonly calls: FakeObject[]
  readonly errors: FakeObject[]

  constructor(setup: VhostRigSetup) {
    const memory = setup.machine?.memory ?? GuestMemory.ofBytes(setup.memoryBytes ?? 0x4_0000)
    const [region] = memory.regions
    if (region === undefined) throw new Error('no memory')
    this.#setup = setup
    this.machine = setup.machine ?? { memory, file: new FakeObject('file', region.bytes), inflight: null }
    this.world = new FakeWorld()
    this.clock = new VirtualClock({ turnsMax: 1_000_000 })
    this.dma = new DmaSpace(GuestMemory.nothing())
    this.violations = []
    this.ends = []
    this.recovered = []
    const queues = setup.queues ?? 1
    this.device = new BlkDevice({
      platform: this.platform,
      dma: this.dma,
      backend: setup.backend,
      version: '1.3',
      limits: { queues, queueSize: setup.queueSize ?? 64 },
    })
    const events = () => Array.from({ length: queues }, () => new FakeObject('event'))
    this.kicks = events()
    this.calls = events()
    this.errors = events()
    this.connection = new FakeConnection()
    this.session = this.#open()
  }

  get platform() {
    return { clock: this.clock, random: seededRandom(1).stream('blk0'), trace: NO_TRACE, path: 'blk0' }
  }

  get rules(): string[] {
    return this.violations.map(({ rule }) => rule)
  }

  get bytes(): Uint8Array<ArrayBuffer> {
    return this.machine.file.bytes
  }

  /** The next front-end connects. */
  reconnect(): void {
    this.connection = new FakeConnection()
    this.session = this.#open()
  }

  #open(): VhostUserSession {
    return new VhostUserSession({
      platform: this.platform,
      device: this.device,
      dma: this.dma,
      edge: this.world,
      connection: this.connection,
      requireSeals: this.#setup.requireSeals ?? false,
      violated: (violation) => this.violations.push(violation),
      recovered: (queue, requests) => this.recovered.push([queue, requests]),
      ended: (end) => this.ends.push(end),
    })
  }

  /** Sends one message and runs what can run. */
  send(
    name: FrontEndMessageName,
    payload: Uint8Array = new Uint8Array(0),
    objects: readonly FakeObject[] = [],
    flags = 0,
  ): void {
    const descriptors = objects.map((object) => this.world.pass(object))
    this.connection.feed(frameBytes(FrontEndMessage[name].code, flags, payload), descriptors)
    this.settle()
  }

  /** Runs messages and turns until neither has anything to do. */
  settle(): void {
    for (let before = -1; before !== this.clock.turns; ) {
      before = this.clock.turns
      this.connection.deliver()
      this.clock.drain()
    }
    if (this.connection.closed) this.connection.dropRest()
  }

  /** The answers since last asked. */
  answers(): Answer[] {
    return this.connection.sent.splice(0).map(({ bytes, objects }) => {
      const view = new DataView(bytes.buffer)
      const payload = new Uint8Array(bytes.subarray(12))
      return { code: view.getUint32(0, true), flags: view.getUint32(4, true), payload, objects }
    })
  }

  /** Sends and returns the one answer. */
  ask(
    name: FrontEndMessageName,
    payload?: Uint8Array,
    objects?: readonly FakeObject[],
    flags = 0,
  ): Answer | null {
    this.answers()
    this.send(name, payload, objects, flags)
    const answers = this.answers()
    if (answers.length > 1) throw new Error(`${name} was answered ${answers.length} times`)
    return answers[0] ?? null
  }

  /** The integer of the answer. */
  askU64(
    name: FrontEndMessageName,
    payload?: Uint8Array,
    objects?: readonly FakeObject[],
    flags = 0,
  ): bigint {
    const answer = this.ask(name, payload, objects, flags)
    if (answer?.payload.length !== 8) throw new Error(`${name} was not answered with an integer`)
    return new DataView(answer.payload.buffer).getBigUint64(0, true)
  }

  /** Whether a message is acknowledged as carried out. */
  carriesOut(name: FrontEndMessageName, payload?: Uint8Array, objects?: readonly FakeObject[]): boolean {
    return this.askU64(name, payload, objects, NEED_REPLY) === 0n
  }

  negotiate(features?: bigint, protocol?: bigint): void {
    const offered = this.askU64('GET_FEATURES')
    const protocolOffered = this.askU64('GET_PROTOCOL_FEATURES')
    this.send('SET_PROTOCOL_FEATURES', u64Payload(protocol ?? protocolOffered))
    this.send('SET_OWNER')
    this.send('SET_FEATURES', u64Payload((features ?? offered) & ~LOG_ALL_BIT))
  }

  shareMemory(): void {
    this.send('SET_MEM_TABLE', this.table([{ guest: 0, sizeBytes: this.bytes.length }]), [this.machine.file])
  }

  /** A memory table of regions of the one file, at the same offsets. */
  table(regions: readonly { readonly guest: number; readonly sizeBytes: number; readonly user?: number }[]) {
    return encode(VhostUserMemory, {
      count: regions.length,
      regions: regions.map(({ guest, sizeBytes, user }) => ({
        guest: BigInt(guest),
        size: BigInt(sizeBytes),
        user: BigInt(user ?? USER_BASE + guest),
        offset: BigInt(guest),
      })),
    })
  }

  state(index: number, num: number): Uint8Array {
    return encode(VhostUserVringState, { index, num })
  }

  addresses(index: number, place: RawPlace): Uint8Array {
    return encode(VhostUserVringAddress, {
      index,
      descriptor: BigInt(USER_BASE + place.descriptors),
      used: BigInt(USER_BASE + place.device),
      available: BigInt(USER_BASE + place.driver),
    })
  }

  /** Describes a ring and starts it. */
  startRing(index: number, place: RawPlace, base = 0): void {
    this.describeRing(index, place, base)
    this.send('SET_VRING_ENABLE', this.state(index, 1))
  }

  /** All but the last word. */
  describeRing(index: number, place: RawPlace, base = 0): void {
    this.send('SET_VRING_NUM', this.state(index, place.size))
    this.send('SET_VRING_BASE', this.state(index, base))
    this.send('SET_VRING_ADDR', this.addresses(index, place))
    this.send('SET_VRING_CALL', u64Payload(BigInt(index)), [this.calls[index] as FakeObject])
    this.send('SET_VRING_ERR', u64Payload(BigInt(index)), [this.errors[index] as FakeObject])
    this.send('SET_VRING_KICK', u64Payload(BigInt(index)), [this.kicks[index] as FakeObject])
  }

  queue(place: RawPlace): RawQueue {
    return new RawQueue(this.machine.memory, place)
  }

  kick(index: number): void {
    this.kicks[index]?.ring()
    this.settle()
  }

  /** From nothing to a queue that runs. */
  start(place: RawPlace = PLACE, features?: bigint): RawQueue {
    this.negotiate(features)
    this.shareMemory()
    const queue = new RawQueue(this.machine.memory, place)
    this.startRing(0, place)
    return queue
  }
}

/** Areas of the first queue, of 16 entries. */
export const PLACE: RawPlace = { size: 16, descriptors: 0x1000, driver: 0x2000, device: 0x3000 }

/** The same for another queue. */
export function placeOf(index: number, size = 16): RawPlace {
  const at = 0x1000 + index * 0x4000
  return { size, descriptors: at, driver: at + 0x1000, device: at + 0x2000 }
}
