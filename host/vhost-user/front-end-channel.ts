import { hasVhostUserFeature } from '../../protocol/vhost-user/feature.ts'
import type { Frame } from '../../protocol/vhost-user/frame.ts'
import {
  FrameReader,
  frameBytes,
  judgeRequest,
  needsReply,
  u64Payload,
} from '../../protocol/vhost-user/frame.ts'
import { BACK_END_MESSAGES, gateClosed, type VhostUserNegotiated } from '../../protocol/vhost-user/message.ts'
import { VhostUserFlag } from '../../protocol/vhost-user/payload.ts'
import type { Violation } from '../../protocol/violation.ts'
import type { PeerConnection, PeerDescriptor } from './edge.ts'

const READS_A_TURN = 64

export interface ChannelListener {
  configChanged(): void
  violated(violation: Violation): void
  /** The daemon closed it, or sends what is no message. It is closed. */
  channelEnded(): void
}

/** What a daemon says unasked, on a socket of its own. */
export class DaemonChannel {
  readonly #connection: PeerConnection
  readonly #negotiated: VhostUserNegotiated
  readonly #listener: ChannelListener
  readonly #reader: FrameReader<PeerDescriptor>
  #closed: boolean

  constructor(connection: PeerConnection, negotiated: VhostUserNegotiated, listener: ChannelListener) {
    this.#connection = connection
    this.#negotiated = negotiated
    this.#listener = listener
    this.#reader = new FrameReader('back-end')
    this.#closed = false
  }

  readable(): void {
    for (let left = READS_A_TURN; left > 0 && !this.#closed; left--) {
      const came: PeerDescriptor[] = []
      const count = this.#connection.receive(this.#reader.room, came)
      if (count === null || count === 0) {
        for (const one of came) one.close()
        if (count === 0) this.#end(null)
        return
      }
      const frame = this.#reader.took(count, came)
      if (frame === null) continue
      if ('rule' in frame) this.#end(frame)
      else this.#take(frame)
    }
  }

  /** Twice is once. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    for (const one of this.#reader.abandon()) one.close()
    this.#connection.close()
  }

  #take(frame: Frame<PeerDescriptor>): void {
    // Nothing that may come here takes a descriptor.
    for (const one of frame.descriptors) one.close()
    const { rule, broken } = judgeRequest(BACK_END_MESSAGES, frame, 'back-end')
    const closed = rule === null ? null : gateClosed(rule.gate, this.#negotiated)
    let wrong = broken
    if (broken === null && closed !== null) {
      wrong = { rule: 'vhost.gate', side: 'back-end', queue: null, at: frame.code, seen: 1, expected: 0 }
    }
    if (needsReply(frame) && hasVhostUserFeature(this.#negotiated.protocol, 'REPLY_ACK')) {
      const reply = frameBytes(frame.code, VhostUserFlag.REPLY, u64Payload(wrong === null ? 0n : 1n))
      if (!this.#connection.send(reply, [])) {
        this.#end(null)
        return
      }
    }
    if (wrong !== null) this.#listener.violated(wrong)
    else if (rule?.name === 'CONFIG_CHANGE_MSG') this.#listener.configChanged()
  }

  #end(violation: Violation | null): void {
    if (this.#closed) return
    this.close()
    if (violation !== null) this.#listener.violated(violation)
    this.#listener.channelEnded()
  }
}
