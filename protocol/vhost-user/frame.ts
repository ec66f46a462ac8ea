import { encode } from '../derive/codec.ts'
import type { RequirementId } from '../requirement.ts'
import type { Violation } from '../violation.ts'
import { Window } from '../window.ts'
import type { MessageRule, MessageRuleOf, MessageTable, PayloadRule } from './message.ts'
import { VHOST_USER_PAYLOAD_BYTES_MAX } from './message.ts'
import {
  VHOST_USER_REGIONS_MAX,
  VHOST_USER_VERSION,
  VHOST_USER_VERSION_MASK,
  VhostUserConfig,
  VhostUserFlag,
  VhostUserHeader,
  VhostUserLog,
  VhostUserMemory,
  VhostUserRegion,
  VhostUserSharedRegions,
  VhostUserU64,
} from './payload.ts'

const KNOWN_FLAGS = VHOST_USER_VERSION_MASK | VhostUserFlag.REPLY | VhostUserFlag.NEED_REPLY

/** One message as it came: nothing of it is checked but what reading it took. */
export interface Frame<D> {
  readonly code: number
  readonly flags: number
  readonly payload: Uint8Array<ArrayBuffer>
  /** Whoever takes the frame owns them, and closes each once. */
  readonly descriptors: readonly D[]
}

/**
 * Puts frames together from what a stream socket gives, piece by piece.
 *
 * It says where the next bytes go and never takes more than one message: descriptors ride with the first byte
 * of theirs, and a read past its end would mix them up. What cannot be framed any more is a violation, after
 * which the stream is of no use. `D` is a descriptor, about which nothing is known here.
 */
export class FrameReader<D> {
  readonly #side: Violation['side']
  readonly #header: Uint8Array<ArrayBuffer>
  readonly #window: Window
  #payload: Uint8Array<ArrayBuffer> | null
  #filled: number
  #descriptors: D[]

  /** @param side who sends, to be named in violations. */
  constructor(side: Violation['side']) {
    this.#side = side
    this.#header = new Uint8Array(VhostUserHeader.$size)
    this.#window = new Window(this.#header)
    this.#payload = null
    this.#filled = 0
    this.#descriptors = []
  }

  /** Where the next bytes go; never empty. */
  get room(): Uint8Array<ArrayBuffer> {
    return (this.#payload ?? this.#header).subarray(this.#filled)
  }

  /** True between two messages: a stream that ends elsewhere ends in the middle of one. */
  get idle(): boolean {
    return this.#payload === null && this.#filled === 0 && this.#descriptors.length === 0
  }

  /** The first `count` bytes of `room` are there, and these descriptors came with them. */
  took(count: number, descriptors: readonly D[]): Frame<D> | Violation | null {
    if (!(count >= 0 && count <= this.room.length)) throw new RangeError(`${count} bytes were not asked for`)
    this.#descriptors.push(...descriptors)
    this.#filled += count
    if (this.#descriptors.length > VHOST_USER_REGIONS_MAX) {
      return this.#refuse('vhost.descriptor-count', this.#descriptors.length, VHOST_USER_REGIONS_MAX)
    }
    if (this.#payload === null) {
      if (this.#filled < this.#header.length) return null
      const broken = this.#beginPayload()
      if (broken !== null) return broken
    }
    const payload = this.#payload ?? NOTHING
    if (this.#filled < payload.length) return null
    return this.#end(payload)
  }

  /** Descriptors of a message that never became whole: the caller's to close. Nothing is read any more. */
  abandon(): readonly D[] {
    const descriptors = this.#descriptors
    this.#descriptors = []
    return descriptors
  }

  #beginPayload(): Violation | null {
    const version = this.#window.le32(VhostUserHeader.flags) & VHOST_USER_VERSION_MASK
    if (version !== VHOST_USER_VERSION) return this.#refuse('vhost.version', version, VHOST_USER_VERSION)
    const size = this.#window.le32(VhostUserHeader.size)
    if (!(size <= VHOST_USER_PAYLOAD_BYTES_MAX)) {
      return this.#refuse('vhost.payload-size', size, VHOST_USER_PAYLOAD_BYTES_MAX)
    }
    this.#payload = new Uint8Array(size)
    this.#filled = 0
    return null
  }

  #end(payload: Uint8Array<ArrayBuffer>): Frame<D> {
    const frame: Frame<D> = {
      code: this.#window.le32(VhostUserHeader.request),
      flags: this.#window.le32(VhostUserHeader.flags),
      payload,
      descriptors: this.#descriptors,
    }
    this.#payload = null
    this.#filled = 0
    this.#descriptors = []
    return frame
  }

  #refuse(rule: RequirementId, seen: number, expected: number): Violation {
    const at = this.#filled < 4 && this.#payload === null ? null : this.#window.le32(VhostUserHeader.request)
    return { rule, side: this.#side, queue: null, at, seen, expected }
  }
}

const NOTHING = new Uint8Array(0)

/** The bytes of a message. What we send is ours to get right. */
export function frameBytes(
  code: number,
  flags: number,
  payload: Uint8Array = NOTHING,
): Uint8Array<ArrayBuffer> {
  const header = encode(VhostUserHeader, {
    request: code,
    flags: flags | VHOST_USER_VERSION,
    size: payload.length,
  })
  const bytes = new Uint8Array(header.length + payload.length)
  bytes.set(header)
  bytes.set(payload, header.length)
  return bytes
}

/** A payload that is one integer. */
export function u64Payload(value: bigint): Uint8Array<ArrayBuffer> {
  return encode(VhostUserU64, { value })
}

/** The integer of such a payload, whole; its size was checked before. */
export function u64Of(payload: Uint8Array<ArrayBuffer>): bigint {
  return new DataView(payload.buffer, payload.byteOffset).getBigUint64(VhostUserU64.value, true)
}

export function needsReply(frame: { readonly flags: number }): boolean {
  return (frame.flags & VhostUserFlag.NEED_REPLY) !== 0
}

/** What a request turned out to be: its rule where the code is known, and what its syntax breaks. */
export interface JudgedRequest<Name extends string> {
  readonly rule: MessageRuleOf<Name> | null
  readonly broken: Violation | null
}

/**
 * The first of two steps: whether the frame is a well-formed request of that direction. Whether it may be sent
 * now (its gate, its order, its ring) is for whoever knows the session.
 */
export function judgeRequest<Name extends string>(
  messages: MessageTable<Name>,
  frame: Frame<unknown>,
  side: Violation['side'],
): JudgedRequest<Name> {
  const refuse = (rule: RequirementId, seen: number, expected: number): Violation => ({
    rule,
    side,
    queue: null,
    at: frame.code,
    seen,
    expected,
  })
  const rule = messages.get(frame.code) ?? null
  if (rule === null) return { rule, broken: refuse('vhost.request-unknown', frame.code, messages.size) }
  const odd = (frame.flags & ~(KNOWN_FLAGS & ~VhostUserFlag.REPLY)) >>> 0
  if (odd !== 0) return { rule, broken: refuse('vhost.flags', odd, KNOWN_FLAGS & ~VhostUserFlag.REPLY) }
  return { rule, broken: bodyBroken(rule, frame, side) }
}

/** The same for a reply to a request of `rule`: the flag, the code, the size, the descriptors. */
export function judgeReply(
  rule: MessageRule,
  frame: Frame<unknown>,
  side: Violation['side'],
): Violation | null {
  const refuse = (id: RequirementId, seen: number, expected: number): Violation => ({
    rule: id,
    side,
    queue: null,
    at: frame.code,
    seen,
    expected,
  })
  if ((frame.flags & VhostUserFlag.REPLY) === 0) {
    return refuse('vhost.reply-flag', frame.flags, VhostUserFlag.REPLY)
  }
  if (frame.code !== rule.code) return refuse('vhost.reply-request', frame.code, rule.code)
  // A message without a reply of its own is acknowledged with an integer.
  const { payload, descriptors } = rule.reply.when === 'never' ? ACKNOWLEDGEMENT : rule.reply
  return bodyBroken({ code: rule.code, payload, descriptors }, frame, side)
}

const ACKNOWLEDGEMENT = {
  payload: { layout: VhostUserU64, bytesMin: VhostUserU64.$size, bytesMax: VhostUserU64.$size },
  descriptors: { min: 0, max: 0 },
}

function bodyBroken(
  rule: Pick<MessageRule, 'code' | 'payload' | 'descriptors'>,
  frame: Frame<unknown>,
  side: Violation['side'],
): Violation | null {
  const expectedBytes = payloadBytes(rule.payload, frame.payload)
  const broken = (id: RequirementId, seen: number, expected: number): Violation => ({
    rule: id,
    side,
    queue: null,
    at: rule.code,
    seen,
    expected,
  })
  if (frame.payload.length !== expectedBytes) {
    return broken('vhost.payload-size', frame.payload.length, expectedBytes)
  }
  const count = frame.descriptors.length
  const perRegion = rule.payload.layout === VhostUserMemory ? regionsOf(frame.payload) : null
  const { min, max } = perRegion === null ? rule.descriptors : { min: perRegion, max: perRegion }
  if (count < min || count > max) {
    return broken('vhost.descriptor-count', count, count < min ? min : max)
  }
  return null
}

function regionsOf(payload: Uint8Array<ArrayBuffer>): number {
  return new Window(payload).le32(VhostUserMemory.count)
}

/** Bytes the payload has to have; what it has, where that is right. A count inside decides about a tail. */
function payloadBytes(rule: PayloadRule, payload: Uint8Array<ArrayBuffer>): number {
  const { layout, bytesMin, bytesMax } = rule
  if (payload.length < bytesMin) return bytesMin
  if (payload.length > bytesMax) return bytesMax
  if (layout === VhostUserLog) {
    return payload.length === VhostUserU64.$size ? payload.length : VhostUserLog.$size
  }
  if (layout === null) return payload.length
  // Padding at the end may be left out, and an error may be a reply without payload; nothing lies between.
  if (payload.length < layout.$size) return bytesMin === 0 ? 0 : payload.length
  const window = new Window(payload)
  if (layout === VhostUserMemory) {
    const regions = Math.min(regionsOf(payload), VHOST_USER_REGIONS_MAX)
    return VhostUserMemory.$size + regions * VhostUserRegion.$size
  }
  if (layout === VhostUserConfig) {
    return VhostUserConfig.$size + Math.min(window.le32(VhostUserConfig.size), bytesMax)
  }
  if (layout === VhostUserSharedRegions) return bytesMax
  return payload.length
}
