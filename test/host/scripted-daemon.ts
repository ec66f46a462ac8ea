/** A vhost-user daemon in process, and the operating system around it: every descriptor is counted. */
import type { PeerConnection, PeerDescriptor, PeerEvent } from '../../host/vhost-user/edge.ts'
import type { FrontEndEdge, OwnEvent } from '../../host/vhost-user/front-end-edge.ts'
import { encode } from '../../protocol/derive/codec.ts'
import type { Frame } from '../../protocol/vhost-user/frame.ts'
import { FrameReader, frameBytes, needsReply, u64Of, u64Payload } from '../../protocol/vhost-user/frame.ts'
import { FRONT_END_MESSAGES, type FrontEndMessageName } from '../../protocol/vhost-user/message.ts'
import {
  VhostUserConfig,
  VhostUserFlag,
  VhostUserInflight,
  VhostUserVringState,
} from '../../protocol/vhost-user/payload.ts'
import { BlkConfig } from '../../protocol/virtio/blk.ts'
import { Window } from '../../protocol/window.ts'

export class CountedDescriptor implements PeerDescriptor {
  readonly kind: PeerDescriptor['kind']
  readonly lengthBytes: number
  readonly keepsLength = true
  readonly #open: Set<CountedDescriptor>

  constructor(open: Set<CountedDescriptor>, kind: PeerDescriptor['kind'], lengthBytes = 0) {
    this.kind = kind
    this.lengthBytes = lengthBytes
    this.#open = open
    open.add(this)
  }

  close(): void {
    if (!this.#open.delete(this)) throw new Error('a descriptor is closed twice')
  }
}

/** What a daemon sends back: bytes as they come, and what rides on the first. */
export interface Sent {
  readonly bytes: Uint8Array<ArrayBuffer>
  readonly descriptors: readonly CountedDescriptor[]
}

/** What becomes of an answer on its way: other pieces, the end of the connection, or nothing for ever. */
export type Meddling = (
  answer: Sent,
  step: number,
  daemon: ScriptedDaemon,
) => readonly Sent[] | 'close' | 'stall'

interface Ring {
  kick: ScriptedEvent | null
  call: ScriptedEvent | null
  base: number
  enabled: boolean
}

class ScriptedEvent implements PeerEvent {
  readonly descriptor: CountedDescriptor
  rung: (() => void) | null
  signals: number

  constructor(open: Set<CountedDescriptor>) {
    this.descriptor = new CountedDescriptor(open, 'event')
    this.rung = null
    this.signals = 0
  }

  signal(): void {
    this.signals++
  }

  watch(rung: () => void): void {
    this.rung = rung
  }

  close(): void {
    this.rung = null
    this.descriptor.close()
  }
}

/** One end of a socket: what is sent goes to `taken`, what is put into `inbox` is received. */
class ScriptedConnection implements PeerConnection {
  readonly #socket: CountedDescriptor
  readonly #taken: (bytes: Uint8Array, descriptors: readonly PeerDescriptor[]) => boolean
  readonly #inbox: Sent[]
  #ended: boolean
  #ready: (() => void) | null

  constructor(
    open: Set<CountedDescriptor>,
    taken: (bytes: Uint8Array, descriptors: readonly PeerDescriptor[]) => boolean,
  ) {
    this.#socket = new CountedDescriptor(open, 'socket')
    this.#taken = taken
    this.#inbox = []
    this.#ended = false
    this.#ready = null
  }

  send(bytes: Uint8Array, descriptors: readonly PeerDescriptor[]): boolean {
    return !this.#ended && this.#taken(bytes, descriptors)
  }

  receive(into: Uint8Array, descriptors: PeerDescriptor[]): number | null {
    const [first] = this.#inbox
    if (first === undefined) return this.#ended ? 0 : null
    const count = Math.min(into.length, first.bytes.length)
    into.set(first.bytes.subarray(0, count))
    descriptors.push(...first.descriptors)
    if (count === first.bytes.length) this.#inbox.shift()
    else this.#inbox[0] = { bytes: first.bytes.subarray(count), descriptors: [] }
    return count
  }

  watch(ready: () => void): void {
    this.#ready = ready
    if (this.#inbox.length > 0 || this.#ended) ready()
  }

  pause(): void {}

  close(): void {
    this.#ready = null
    // What nobody received the system closes.
    for (const { descriptors } of this.#inbox.splice(0)) for (const one of descriptors) one.close()
    this.#socket.close()
  }

  // The other side.

  put(sent: readonly Sent[]): void {
    this.#inbox.push(...sent.filter(({ bytes }) => bytes.length > 0))
    this.#ready?.()
  }

  end(): void {
    this.#ended = true
    this.#ready?.()
  }
}

export interface ScriptedDaemonSetup {
  readonly offered: bigint
  readonly protocol: bigint
  readonly queues?: number
  readonly sectors?: number
  readonly meddle?: Meddling
}

/** Honest unless its answers are meddled with. */
export class ScriptedDaemon implements FrontEndEdge {
  readonly open = new Set<CountedDescriptor>()
  readonly asked: FrontEndMessageName[] = []
  readonly rings = new Map<number, Ring>()
  readonly #setup: ScriptedDaemonSetup
  readonly #events = new Map<PeerDescriptor, ScriptedEvent>()
  #connection: ScriptedConnection | null = null
  channel: ScriptedConnection | null = null
  #reader = new FrameReader<PeerDescriptor>('front-end')
  #protocol = 0n
  #ticks: (() => void)[] = []
  #stalled = false
  /** What memory it was given holds, for the position of a ring that stops. */
  usedIndexOf: (ring: number) => number = () => 0
  listening = true
  /** Bytes of configuration that were asked for last. */
  configAsked = 0
  config: Uint8Array<ArrayBuffer>
  connections = 0
  answers = 0

  constructor(setup: ScriptedDaemonSetup) {
    this.#setup = setup
    this.config = new Uint8Array(BlkConfig.$size)
    const window = new Window(this.config)
    window.putLe64(BlkConfig.capacity, setup.sectors ?? 2048)
    window.putLe32(BlkConfig.seg_max, 126)
    window.putLe32(BlkConfig.blk_size, 512)
    window.putLe16(BlkConfig.num_queues, setup.queues ?? 1)
  }

  // The operating system.

  connect(path: string): PeerConnection | string {
    if (!this.listening) return `nobody listens at ${path}`
    this.connections++
    this.#reader = new FrameReader<PeerDescriptor>('front-end')
    this.#protocol = 0n
    this.rings.clear()
    this.#connection = new ScriptedConnection(this.open, (bytes, descriptors) => {
      for (const one of descriptors) {
        if (one instanceof CountedDescriptor && !this.open.has(one))
          throw new Error('a closed descriptor is sent')
      }
      return this.#take(bytes, descriptors)
    })
    return this.#connection
  }

  pair(): { readonly ours: PeerConnection; readonly theirs: PeerDescriptor } {
    this.channel = new ScriptedConnection(this.open, () => true)
    return { ours: this.channel, theirs: new CountedDescriptor(this.open, 'socket') }
  }

  event(): OwnEvent {
    const event = new ScriptedEvent(this.open)
    this.#events.set(event.descriptor, event)
    return { event, descriptor: event.descriptor }
  }

  every(_ms: number, tick: () => void): () => void {
    this.#ticks.push(tick)
    return () => {
      this.#ticks = this.#ticks.filter((one) => one !== tick)
    }
  }

  get ticking(): boolean {
    return this.#ticks.length > 0
  }

  /** So much real time passes. */
  pass(ticks: number): void {
    for (let i = 0; i < ticks; i++) for (const tick of this.#ticks) tick()
  }

  // The daemon.

  call(ring: number): void {
    this.rings.get(ring)?.call?.rung?.()
  }

  die(): void {
    this.#connection?.end()
    this.channel?.end()
  }

  /** A message of its own, on the channel. */
  say(code: number, flags: number, payload?: Uint8Array): void {
    this.channel?.put([{ bytes: frameBytes(code, flags, payload), descriptors: [] }])
  }

  #take(bytes: Uint8Array, descriptors: readonly PeerDescriptor[]): boolean {
    let at = 0
    while (at < bytes.length) {
      const { room } = this.#reader
      const count = Math.min(room.length, bytes.length - at)
      room.set(bytes.subarray(at, at + count))
      const frame = this.#reader.took(count, at === 0 ? descriptors : [])
      at += count
      if (frame === null) continue
      if ('rule' in frame) throw new Error(`the front-end sends what is no message: ${frame.rule}`)
      this.#answer(frame)
    }
    return true
  }

  #answer(frame: Frame<PeerDescriptor>): void {
    const rule = FRONT_END_MESSAGES.get(frame.code)
    if (rule === undefined) throw new Error(`the front-end sends message ${frame.code}`)
    this.asked.push(rule.name)
    const reply = this.#carryOut(rule.name, frame)
    if (this.#stalled || (reply === null && !needsReply(frame))) return
    const { payload, descriptors = [] } = reply ?? { payload: u64Payload(0n) }
    const whole: Sent = { bytes: frameBytes(frame.code, VhostUserFlag.REPLY, payload), descriptors }
    const step = this.answers++
    const sent = this.#setup.meddle?.(whole, step, this) ?? [whole]
    // What was to ride on an answer that does not go is the daemon's own.
    const rides = sent === 'close' || sent === 'stall' ? [] : sent.flatMap((one) => one.descriptors)
    for (const one of descriptors) if (!rides.includes(one)) one.close()
    if (sent === 'stall') this.#stalled = true
    else if (sent === 'close') this.die()
    else this.#connection?.put(sent)
  }

  #carryOut(
    name: FrontEndMessageName,
    frame: Frame<PeerDescriptor>,
  ): { payload: Uint8Array; descriptors?: readonly CountedDescriptor[] } | null {
    const { payload } = frame
    const { offered, protocol, queues = 1, meddle } = this.#setup
    const honest = meddle === undefined
    const window = new Window(payload)
    switch (name) {
      case 'GET_FEATURES':
        return { payload: u64Payload(offered) }
      case 'GET_PROTOCOL_FEATURES':
        return { payload: u64Payload(protocol) }
      case 'SET_PROTOCOL_FEATURES':
        this.#protocol = u64Of(payload)
        if (honest && (this.#protocol & ~protocol) !== 0n)
          throw new Error('a protocol feature that was not offered')
        return null
      case 'SET_FEATURES':
        if (honest && (u64Of(payload) & ~offered) !== 0n) throw new Error('a feature that was not offered')
        return null
      case 'GET_QUEUE_NUM':
        return { payload: u64Payload(BigInt(queues)) }
      case 'GET_STATUS':
        return { payload: u64Payload(11n) }
      case 'GET_CONFIG': {
        const size = window.le32(VhostUserConfig.size)
        this.configAsked = size
        const answer = new Uint8Array(VhostUserConfig.$size + size)
        answer.set(encode(VhostUserConfig, { size }))
        answer.set(this.config.subarray(0, size), VhostUserConfig.$size)
        return { payload: answer }
      }
      case 'GET_INFLIGHT_FD':
        return {
          payload: encode(VhostUserInflight, { size: 4096n }),
          descriptors: [new CountedDescriptor(this.open, 'file', 4096)],
        }
      case 'SET_VRING_KICK':
        for (const one of frame.descriptors) {
          this.#ring(Number(u64Of(payload))).kick = this.#events.get(one) ?? null
        }
        return null
      case 'SET_VRING_CALL': {
        const [descriptor] = frame.descriptors
        const call = descriptor === undefined ? null : (this.#events.get(descriptor) ?? null)
        this.#ring(Number(u64Of(payload))).call = call
        return null
      }
      case 'SET_VRING_BASE':
        this.#ring(window.le32(VhostUserVringState.index)).base = window.le32(VhostUserVringState.num)
        return null
      case 'SET_VRING_ENABLE':
        this.#ring(window.le32(VhostUserVringState.index)).enabled =
          window.le32(VhostUserVringState.num) === 1
        return null
      case 'GET_VRING_BASE': {
        const index = window.le32(VhostUserVringState.index)
        const num = this.usedIndexOf(index)
        return { payload: encode(VhostUserVringState, { index, num }) }
      }
      default:
        return null
    }
  }

  #ring(index: number): Ring {
    let ring = this.rings.get(index)
    if (ring === undefined) {
      ring = { kick: null, call: null, base: -1, enabled: false }
      this.rings.set(index, ring)
    }
    return ring
  }
}
