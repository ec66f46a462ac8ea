import type { RequirementId } from '../../protocol/requirement.ts'
import type { FeatureSet } from '../../protocol/version.ts'
import { hasVhostUserFeature } from '../../protocol/vhost-user/feature.ts'
import type { Frame } from '../../protocol/vhost-user/frame.ts'
import { FrameReader, frameBytes, judgeReply, u64Of } from '../../protocol/vhost-user/frame.ts'
import type { FrontEndMessageName, MessageRule } from '../../protocol/vhost-user/message.ts'
import { FrontEndMessage, repliesByItself } from '../../protocol/vhost-user/message.ts'
import { VhostUserFlag } from '../../protocol/vhost-user/payload.ts'
import type { Violation } from '../../protocol/violation.ts'
import type { PeerConnection, PeerDescriptor } from './edge.ts'

/** Reads of one turn: a daemon that sends as fast as it is read cannot keep the others waiting. */
const READS_A_TURN = 64

/** One message of a procedure. */
export interface Ask {
  readonly name: FrontEndMessageName
  readonly payload?: Uint8Array<ArrayBuffer>
  /** Stay whose they are. */
  readonly descriptors?: readonly PeerDescriptor[]
  /** A daemon that says no is no reason to give it up. */
  readonly mayRefuse?: boolean
}

/** What came back: nothing, an acknowledgement, or a reply of the message's own. */
export interface Answer {
  readonly payload: Uint8Array<ArrayBuffer>
  /** Whoever gets the answer owns them. */
  readonly descriptors: readonly PeerDescriptor[]
  readonly refused: boolean
}

/** Messages in their order, each after the answer to the one before. Ended early, it closes what it holds. */
export type Procedure<T = void> = Generator<Ask, T, Answer>

export interface ExchangeListener {
  /** The connection is of no use any more, and closed; why is one line. */
  broken(why: string, violation: Violation | null): void
}

const SILENT: Answer = { payload: new Uint8Array(0), descriptors: [], refused: false }

/**
 * Messages to a daemon and its answers: one procedure after the other, one message at a time.
 *
 * The daemon is not trusted: an answer that was not asked for, to something else, of another size or with other
 * descriptors than its message has ends the connection, and so does a daemon that does not read.
 */
export class Exchange {
  readonly #connection: PeerConnection
  readonly #listener: ExchangeListener
  readonly #reader: FrameReader<PeerDescriptor>
  readonly #waiting: Procedure[]
  #current: Procedure | null
  #awaited: { readonly rule: MessageRule; readonly ask: Ask } | null
  /** A procedure runs right now. */
  #stepping: boolean
  #closed: boolean
  /** Features that decide about replies; what procedures have settled. */
  offered: FeatureSet
  accepted: FeatureSet
  protocol: FeatureSet
  /** Answers so far: whether a daemon moves shows here. */
  answers: number

  constructor(connection: PeerConnection, listener: ExchangeListener) {
    this.#connection = connection
    this.#listener = listener
    this.#reader = new FrameReader('back-end')
    this.#waiting = []
    this.#current = null
    this.#awaited = null
    this.#stepping = false
    this.#closed = false
    this.offered = 0n
    this.accepted = 0n
    this.protocol = 0n
    this.answers = 0
  }

  /** An answer is due, or a message is still to be sent. */
  get busy(): boolean {
    return this.#current !== null || this.#waiting.length > 0
  }

  get closed(): boolean {
    return this.#closed
  }

  /** What the daemon has not answered; null when it owes nothing. */
  get owed(): FrontEndMessageName | null {
    return this.#awaited?.ask.name ?? null
  }

  /** Takes a procedure behind those that were taken before. */
  run(procedure: Procedure): void {
    if (this.#closed) return
    this.#waiting.push(procedure)
    if (this.#current === null && !this.#stepping) this.#next()
  }

  /** The connection has something to read. */
  readable(): void {
    for (let left = READS_A_TURN; left > 0 && !this.#closed; left--) {
      const came: PeerDescriptor[] = []
      const count = this.#connection.receive(this.#reader.room, came)
      if (count === null || count === 0) {
        for (const one of came) one.close()
        if (count === 0) this.#ended()
        return
      }
      const frame = this.#reader.took(count, came)
      if (frame === null) continue
      if ('rule' in frame) {
        this.fail('sends what is no message', frame)
        return
      }
      this.#answered(frame)
    }
  }

  /** Gives the daemon up: closes the connection, ends every procedure, and tells the listener. */
  fail(why: string, violation: Violation | null = null): void {
    if (this.#closed) return
    this.close()
    this.#listener.broken(why, violation)
  }

  /** What a daemon broke, for `fail`. */
  violation(rule: RequirementId, seen: number, expected: number, at: number | null = null): Violation {
    return { rule, side: 'back-end', queue: null, at, seen, expected }
  }

  /** Closes without telling anybody. Twice is once. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#awaited = null
    for (const one of this.#reader.abandon()) one.close()
    this.#connection.close()
    const unfinished = this.#current
    this.#current = null
    // One that runs right now is ended where it asks next.
    if (unfinished !== null && !this.#stepping) unfinished.return(undefined)
    // Those hold nothing: they have not begun.
    this.#waiting.length = 0
  }

  #ended(): void {
    if (this.#reader.idle) this.fail('closed the connection')
    else {
      const violation = this.violation('vhost.stream-end', 0, 1)
      this.fail('closed the connection in the middle of a message', violation)
    }
  }

  #answered(frame: Frame<PeerDescriptor>): void {
    const awaited = this.#awaited
    const violation =
      awaited === null
        ? this.violation('vhost.reply-unasked', frame.code, 0, frame.code)
        : judgeReply(awaited.rule, frame, 'back-end')
    if (awaited === null || violation !== null) {
      for (const one of frame.descriptors) one.close()
      const what = awaited === null ? 'answers what was not asked' : `answers ${awaited.ask.name} wrongly`
      this.fail(what, violation)
      return
    }
    this.#awaited = null
    this.answers++
    const acknowledged = !repliesByItself(awaited.rule.reply, this)
    const refused = acknowledged && u64Of(frame.payload) !== 0n
    if (refused && awaited.ask.mayRefuse !== true) {
      this.fail(`refuses ${awaited.ask.name}`, this.violation('vhost.refused', 1, 0, awaited.rule.code))
      return
    }
    const { payload, descriptors } = frame
    this.#step({ payload, descriptors, refused })
  }

  #next(): void {
    const procedure = this.#waiting.shift() ?? null
    this.#current = procedure
    if (procedure !== null) this.#step(SILENT)
  }

  /** Goes on until an answer is due or nothing is left. */
  #step(first: Answer): void {
    for (let answer = first; ; ) {
      const procedure = this.#current
      if (procedure === null) return
      this.#stepping = true
      const { done, value } = procedure.next(answer)
      this.#stepping = false
      if (this.#closed) {
        procedure.return(undefined)
        return
      }
      if (done === true) {
        this.#current = this.#waiting.shift() ?? null
        answer = SILENT
      } else if (!this.#send(value)) return
      else answer = SILENT
    }
  }

  /** True when nothing is to be waited for. */
  #send(ask: Ask): boolean {
    const rule = { name: ask.name, ...FrontEndMessage[ask.name] }
    const replies = repliesByItself(rule.reply, this)
    const acknowledges = !replies && hasVhostUserFeature(this.protocol, 'REPLY_ACK')
    const flags = acknowledges ? VhostUserFlag.NEED_REPLY : 0
    if (!this.#connection.send(frameBytes(rule.code, flags, ask.payload), ask.descriptors ?? [])) {
      this.fail(`does not take ${ask.name}`)
      return false
    }
    if (!replies && !acknowledges) return true
    this.#awaited = { rule, ask }
    return false
  }
}
