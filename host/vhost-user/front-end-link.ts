import type { ArrivalSource, HostPlatform, Plain, Release } from '../../protocol/platform.ts'
import { hasVhostUserFeature } from '../../protocol/vhost-user/feature.ts'
import type { Violation } from '../../protocol/violation.ts'
import type { PeerConnection } from './edge.ts'
import { type ChannelListener, DaemonChannel } from './front-end-channel.ts'
import type { FrontEndEdge } from './front-end-edge.ts'
import { Exchange, type ExchangeListener, type Procedure } from './front-end-exchange.ts'
import { type DaemonFacts, handshake } from './front-end-handshake.ts'

const TICK_MS = 100

export interface DaemonLinkSetup {
  readonly platform: HostPlatform
  readonly edge: FrontEndEdge
  /** The daemon's socket. */
  readonly path: string
  /** Real time a daemon may owe us something without moving before virtual time goes on without it. */
  readonly patienceMs: number
  /** Real time in which one that went away may come back; 0: it may not. */
  readonly reconnectMs: number
  /** Hears, in one line each, what a person should know of the daemon. */
  readonly troubled: (line: string) => void
}

/** The device in front. */
export interface LinkListener {
  /** A daemon answers again, after another was lost. */
  returned(facts: DaemonFacts): void
  /** The connection is gone; `final`: for good. */
  lost(final: boolean): void
  configChanged(): void
  violated(violation: Violation): void
  /** The daemon owes something for too long. */
  stalled(): void
  /** Requests are out. */
  readonly waits: boolean
  /** Changes with every request that ends. */
  readonly progress: number
}

type Phase = 'opening' | 'up' | 'lost' | 'returning' | 'dead'

/**
 * The connection to a daemon and whoever is behind it: opens it, watches over it, and opens it again.
 *
 * While the daemon owes something, virtual time is held, so that a slow one meets no timeout; one that does not
 * move for `patienceMs` of real time holds it no longer, and then the guest's own timeouts decide.
 */
export class DaemonLink implements ArrivalSource, ExchangeListener, ChannelListener {
  readonly path: string
  readonly edge: FrontEndEdge
  readonly #setup: DaemonLinkSetup
  readonly #patienceTicks: number
  readonly #release: Release
  readonly #stopTicking: () => void
  readonly #due: Set<string>
  #phase: Phase
  #exchange: Exchange | null
  #channel: DaemonChannel | null
  #listener: LinkListener | null
  #opened: ((facts: DaemonFacts | string) => void) | null
  #stalled: boolean
  #idleTicks: number
  #lastStamp: number
  #lostTicks: number
  /** How far requests were when the daemon was lost last. */
  #lostAt: number
  #closed: boolean
  /** Connections made so far. */
  connections: number

  constructor(setup: DaemonLinkSetup) {
    const { platform, edge, patienceMs } = setup
    this.path = `${platform.path}/daemon`
    this.edge = edge
    this.#setup = setup
    this.#patienceTicks = Math.max(2, Math.ceil(patienceMs / TICK_MS))
    this.#due = new Set()
    this.#phase = 'opening'
    this.#exchange = null
    this.#channel = null
    this.#listener = null
    this.#opened = null
    this.#stalled = false
    this.#idleTicks = 0
    this.#lastStamp = 0
    this.#lostTicks = 0
    this.#lostAt = -1
    this.#closed = false
    this.connections = 0
    this.#release = platform.clock.external(`the daemon at ${setup.path}`, () => !this.#stalled && this.#owes)
    this.#stopTicking = edge.every(TICK_MS, () => this.#tick())
  }

  /** Connects, and says what is there; the caller runs the clock meanwhile. A failed link is closed. */
  open(opened: (facts: DaemonFacts | string) => void): void {
    const connection = this.edge.connect(this.#setup.path)
    if (typeof connection === 'string') {
      this.close()
      opened(connection)
      return
    }
    this.#opened = opened
    this.#begin(connection)
  }

  listen(listener: LinkListener): void {
    this.#listener = listener
  }

  /** Where messages go; null while there is no daemon, or it has not said what it is. */
  get exchange(): Exchange | null {
    return this.#phase === 'up' ? this.#exchange : null
  }

  /** No daemon will come any more. */
  get dead(): boolean {
    return this.#phase === 'dead'
  }

  /** The daemon owed something for too long. */
  get stalled(): boolean {
    return this.#stalled
  }

  /** Something new is asked of the daemon, and it gets the whole patience for it. */
  bearWith(): void {
    this.#stalled = false
    this.#idleTicks = 0
  }

  /** No use of this daemon, nor of another that came in its place. */
  giveUp(why: string): void {
    if (this.dead) return
    this.#setup.troubled(`the daemon at ${this.#setup.path} ${why}`)
    this.#disconnect()
    this.#phase = 'dead'
    this.#listener?.lost(true)
  }

  /** Lets go of everything. Twice is once. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#phase = 'dead'
    this.#stopTicking()
    this.#disconnect()
    this.#release()
  }

  // What comes from outside, as turns of the clock.

  arrived(value: Plain): void {
    this.#due.delete(String(value))
    if (this.#closed) return
    if (value === 'socket') this.#exchange?.readable()
    else if (value === 'channel') this.#channel?.readable()
    else if (value === 'stalled') this.#tellStalled()
    else if (value === 'retry') this.#retry()
  }

  broken(why: string, violation: Violation | null): void {
    if (violation !== null) this.#listener?.violated(violation)
    this.#disconnect()
    if (this.#phase === 'opening') {
      const opened = this.#opened
      this.#opened = null
      this.close()
      opened?.(`the daemon at ${this.#setup.path} ${why}`)
      return
    }
    // One that broke a rule is not asked again.
    const final = this.#setup.reconnectMs === 0 || violation !== null
    // That one went away is no trouble where another may come.
    if (final) this.#setup.troubled(`the daemon at ${this.#setup.path} ${why}`)
    // Time runs on for daemons that die of what they are given, one after the other.
    const progress = this.#listener?.progress ?? 0
    if (progress !== this.#lostAt) this.#lostTicks = 0
    this.#lostAt = progress
    this.#phase = final ? 'dead' : 'lost'
    this.#stalled = false
    this.#listener?.lost(final)
  }

  configChanged(): void {
    this.#listener?.configChanged()
  }

  violated(violation: Violation): void {
    this.#listener?.violated(violation)
  }

  channelEnded(): void {
    this.#channel = null
  }

  // Opening.

  #begin(connection: PeerConnection): void {
    this.connections++
    const exchange = new Exchange(connection, this)
    this.#exchange = exchange
    connection.watch(() => this.#arrive('socket'))
    exchange.run(this.#shakeHands(exchange))
  }

  *#shakeHands(exchange: Exchange): Procedure {
    const facts = yield* handshake(exchange)
    if (facts === null || exchange.closed) return
    if (hasVhostUserFeature(facts.protocol, 'BACKEND_REQ')) yield* this.#openChannel(exchange)
    if (exchange.closed) return
    const again = this.#phase === 'returning'
    this.#phase = 'up'
    this.bearWith()
    if (again) this.#listener?.returned(facts)
    else {
      const opened = this.#opened
      this.#opened = null
      opened?.(facts)
    }
  }

  *#openChannel(exchange: Exchange): Procedure {
    const pair = this.edge.pair()
    if (pair === null) return
    const { ours, theirs } = pair
    this.#channel = new DaemonChannel(ours, exchange, this)
    ours.watch(() => this.#arrive('channel'))
    try {
      yield { name: 'SET_BACKEND_REQ_FD', descriptors: [theirs] }
    } finally {
      theirs.close()
    }
  }

  #retry(): void {
    if (this.#phase !== 'lost') return
    const { path, reconnectMs } = this.#setup
    if (this.#lostTicks * TICK_MS > reconnectMs) {
      this.#setup.troubled(`no daemon came back to ${path} within ${reconnectMs} ms`)
      this.#phase = 'dead'
      this.#listener?.lost(true)
      return
    }
    const connection = this.edge.connect(path)
    if (typeof connection === 'string') return
    this.#phase = 'returning'
    this.#begin(connection)
  }

  #disconnect(): void {
    this.#exchange?.close()
    this.#exchange = null
    this.#channel?.close()
    this.#channel = null
  }

  // Watching over it. What follows runs outside of the clock's turns.

  get #owes(): boolean {
    if (this.#phase === 'dead') return false
    if (this.#phase !== 'up') return true
    return this.#exchange?.busy === true || this.#listener?.waits === true
  }

  #tick(): void {
    if (this.#phase === 'lost') {
      this.#lostTicks++
      this.#arrive('retry')
      return
    }
    if (this.#phase === 'returning') this.#lostTicks++
    const stamp = (this.#exchange?.answers ?? 0) + (this.#listener?.progress ?? 0)
    if (!this.#owes || stamp !== this.#lastStamp) {
      this.#lastStamp = stamp
      this.bearWith()
      return
    }
    this.#idleTicks++
    if (this.#idleTicks < this.#patienceTicks || this.#stalled) return
    this.#stalled = true
    this.#arrive('stalled')
  }

  #tellStalled(): void {
    if (!this.#stalled) return
    const owed = this.#exchange?.owed ?? null
    const what = owed === null ? 'requests' : owed
    const why = `has not answered ${what} for ${this.#setup.patienceMs} ms`
    // Before there is a device nobody else would ever give up.
    if (this.#phase === 'opening' || this.#phase === 'returning') this.#exchange?.fail(why)
    else {
      this.#setup.troubled(`the daemon at ${this.#setup.path} ${why}: the guest's own timeouts decide now`)
      this.#listener?.stalled()
    }
  }

  #arrive(what: string): void {
    if (this.#closed || this.#due.has(what)) return
    this.#due.add(what)
    this.#setup.platform.clock.arrive(this, what)
  }
}
