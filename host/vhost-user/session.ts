import { hasVhostUserFeature } from '../../protocol/vhost-user/feature.ts'
import {
  type Frame,
  FrameReader,
  frameBytes,
  judgeRequest,
  needsReply,
  u64Payload,
} from '../../protocol/vhost-user/frame.ts'
import type { FrontEndMessageName, MessageRuleOf } from '../../protocol/vhost-user/message.ts'
import { FRONT_END_MESSAGES, gateClosed, repliesByItself } from '../../protocol/vhost-user/message.ts'
import { VhostUserFlag } from '../../protocol/vhost-user/payload.ts'
import type { Violation } from '../../protocol/violation.ts'
import { Window } from '../../protocol/window.ts'
import type { BackEndSetup } from './back-end.ts'
import { VhostBackEnd } from './back-end.ts'
import type { PeerConnection, PeerDescriptor } from './edge.ts'
import type { Outcome } from './outcome.ts'
import { Riding } from './outcome.ts'
import { carryOut, failure } from './requests.ts'

/** Messages read in one go: who writes without end has its device only, not the loop. */
const FRAMES_AT_ONCE = 64

/** Why a session ended. */
export type SessionEnd =
  | { readonly kind: 'hung-up' }
  /** The front-end broke a rule and cannot be told otherwise. */
  | { readonly kind: 'violation'; readonly violation: Violation }
  /** It does not read what it is sent. */
  | { readonly kind: 'deaf' }
  | { readonly kind: 'closed' }

export interface SessionSetup extends BackEndSetup {
  readonly connection: PeerConnection
  /** Everything is given back, and the device may serve the next front-end. */
  readonly ended: (end: SessionEnd) => void
}

/**
 * One front-end's connection: reads its messages, judges each in two steps (syntax; then gate, order and ring),
 * has the back-end carry it out and answers.
 *
 * A front-end whose message is refused is told, where the message has a way to be answered. Where it has none, the
 * connection ends: whoever goes on in the belief that a memory table was taken would fail later, and strangely.
 */
export class VhostUserSession {
  readonly backEnd: VhostBackEnd
  readonly #setup: SessionSetup
  readonly #connection: PeerConnection
  readonly #reader: FrameReader<PeerDescriptor>
  /** What rides with the message that waits for something to end; null when none does. */
  #waiting: Riding | null
  #end: SessionEnd | null

  constructor(setup: SessionSetup) {
    this.#setup = setup
    this.#connection = setup.connection
    this.#reader = new FrameReader('front-end')
    this.#waiting = null
    this.#end = null
    this.backEnd = new VhostBackEnd(setup)
    setup.connection.watch(() => this.#arrived())
  }

  /** Ends the session from our side. */
  close(): void {
    this.#finish({ kind: 'closed' })
  }

  #arrived(): void {
    for (let left = FRAMES_AT_ONCE; left > 0 && this.#end === null && this.#waiting === null; left--) {
      if (!this.#readFrame()) return
    }
  }

  /** Reads on until one message is whole and dealt with. False when there is nothing more to read at present. */
  #readFrame(): boolean {
    const reader = this.#reader
    for (;;) {
      const { room } = reader
      const descriptors: PeerDescriptor[] = []
      const count = this.#connection.receive(room, descriptors)
      if (count === null) return false
      const got = reader.took(count, descriptors)
      if (count === 0) {
        this.#hungUp()
        return false
      }
      if (got === null) continue
      if ('rule' in got) {
        this.#setup.violated(got)
        this.#finish({ kind: 'violation', violation: got })
        return false
      }
      this.#handle(got)
      return true
    }
  }

  #hungUp(): void {
    if (!this.#reader.idle) this.#violated('vhost.stream-end', null, null, 0, 0)
    this.#finish({ kind: 'hung-up' })
  }

  #handle(frame: Frame<PeerDescriptor>): void {
    const { platform } = this.#setup
    if (platform.trace.on) {
      const { code, flags, payload, descriptors } = frame
      platform.trace.emit({
        name: 'message',
        device: platform.path,
        code,
        flags,
        bytes: payload.length,
        descriptors: descriptors.length,
      })
    }
    const riding = new Riding(frame.descriptors)
    const { rule, broken } = judgeRequest(FRONT_END_MESSAGES, frame, 'front-end')
    if (broken !== null || rule === null) {
      const { seen, expected } = broken ?? { seen: frame.code, expected: 0 }
      this.#answer(frame, rule, riding, {
        kind: 'refused',
        rule: broken?.rule ?? 'vhost.request-unknown',
        queue: null,
        seen,
        expected,
      })
      return
    }
    if (gateClosed(rule.gate, this.backEnd.negotiated) !== null) {
      this.#answer(frame, rule, riding, {
        kind: 'refused',
        rule: 'vhost.gate',
        queue: null,
        seen: rule.code,
        expected: 0,
      })
      return
    }
    const request = { name: rule.name, payload: new Window(frame.payload), bytes: frame.payload, riding }
    const outcome = carryOut(this.backEnd, request)
    if (outcome.kind === 'later') this.#wait(frame, rule, riding, outcome)
    else this.#answer(frame, rule, riding, outcome)
  }

  #wait(
    frame: Frame<PeerDescriptor>,
    rule: MessageRuleOf<FrontEndMessageName>,
    riding: Riding,
    { begin }: Extract<Outcome, { kind: 'later' }>,
  ): void {
    this.#waiting = riding
    let atOnce = true
    begin((outcome) => {
      // The session ended meanwhile, and with it what this was about.
      if (this.#waiting !== riding) return
      this.#waiting = null
      if (!atOnce) this.#connection.pause(false)
      this.#answer(frame, rule, riding, outcome)
    })
    atOnce = false
    if (this.#waiting !== null) this.#connection.pause(true)
  }

  #answer(
    frame: Frame<PeerDescriptor>,
    rule: MessageRuleOf<FrontEndMessageName> | null,
    riding: Riding,
    outcome: Outcome,
  ): void {
    riding.close()
    switch (outcome.kind) {
      case 'done':
        if (this.#ownReply(rule) || this.#acknowledges(frame)) this.#send(frame, u64Payload(0n), null)
        return
      case 'reply':
        this.#send(frame, outcome.payload, outcome.descriptor)
        return
      case 'refused': {
        const violation = this.#violated(
          outcome.rule,
          outcome.queue,
          frame.code,
          outcome.seen,
          outcome.expected,
        )
        this.#refuse(frame, rule, violation)
        return
      }
      case 'later':
        throw new Error('a message that waited waits again')
      default:
        outcome satisfies never
    }
  }

  #refuse(
    frame: Frame<PeerDescriptor>,
    rule: MessageRuleOf<FrontEndMessageName> | null,
    violation: Violation,
  ): void {
    const own = this.#ownReply(rule)
    const failed = rule !== null && own ? failure(rule.name) : null
    if (failed !== null) this.#send(frame, failed, null)
    else if (!own && this.#acknowledges(frame)) this.#send(frame, u64Payload(1n), null)
    else this.#finish({ kind: 'violation', violation })
  }

  #ownReply(rule: MessageRuleOf<FrontEndMessageName> | null): boolean {
    return rule !== null && repliesByItself(rule.reply, this.backEnd.negotiated)
  }

  #acknowledges(frame: Frame<PeerDescriptor>): boolean {
    return needsReply(frame) && hasVhostUserFeature(this.backEnd.negotiated.protocol, 'REPLY_ACK')
  }

  #send(frame: Frame<PeerDescriptor>, payload: Uint8Array, descriptor: PeerDescriptor | null): void {
    const bytes = frameBytes(frame.code, VhostUserFlag.REPLY, payload)
    const sent = this.#connection.send(bytes, descriptor === null ? [] : [descriptor])
    descriptor?.close()
    if (!sent) this.#finish({ kind: 'deaf' })
  }

  #violated(
    rule: Violation['rule'],
    queue: number | null,
    at: number | null,
    seen: number,
    expected: number,
  ): Violation {
    const violation: Violation = { rule, side: 'front-end', queue, at, seen, expected }
    this.backEnd.violated(violation)
    return violation
  }

  #finish(end: SessionEnd): void {
    if (this.#end !== null) return
    this.#end = end
    for (const descriptor of this.#reader.abandon()) descriptor.close()
    this.#waiting?.close()
    this.#waiting = null
    this.#connection.close()
    this.backEnd.close(() => this.#setup.ended(end))
  }
}
