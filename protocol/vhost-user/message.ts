import type { AnyLayout } from '../layout.ts'
import type { FeatureSet } from '../version.ts'
import { hasFeature } from '../version.ts'
import { CommonFeature } from '../virtio/features.ts'
import type { UnsettledFeatureName, VhostUserFeatureName } from './feature.ts'
import { hasVhostUserFeature, VhostUserVirtioFeature } from './feature.ts'
import {
  VHOST_USER_CONFIG_BYTES_MAX,
  VHOST_USER_REGIONS_MAX,
  VHOST_USER_SHARED_REGIONS,
  VhostUserConfig,
  VhostUserDeviceState,
  VhostUserInflight,
  VhostUserIotlb,
  VhostUserLog,
  VhostUserMap,
  VhostUserMemory,
  VhostUserRegion,
  VhostUserSharedRegions,
  VhostUserSlot,
  VhostUserU64,
  VhostUserUuid,
  VhostUserVringAddress,
  VhostUserVringArea,
  VhostUserVringState,
} from './payload.ts'

/** What a message carries: at least `bytesMin`, at most `bytesMax`, and what lies there. */
export interface PayloadRule {
  readonly layout: AnyLayout | null
  readonly bytesMin: number
  readonly bytesMax: number
}

/** How many descriptors ride along. */
export interface DescriptorRule {
  readonly min: number
  readonly max: number
}

/** When a message may be sent: everything that is named has been negotiated. */
export interface GateRule {
  readonly protocol: readonly VhostUserFeatureName[]
  /** A protocol feature whose number is not settled: never negotiated here. */
  readonly unsettled: readonly UnsettledFeatureName[]
  /** VIRTIO feature bits that the back-end offers. */
  readonly offered: readonly number[]
  /** VIRTIO feature bits that the front-end accepted. */
  readonly accepted: readonly number[]
}

/**
 * What comes back. `always`: a reply of its own. `log-shmfd`: only with that feature. `never`: nothing, unless
 * NEED_REPLY asks for an acknowledgement.
 */
export interface ReplyRule {
  readonly when: 'always' | 'log-shmfd' | 'never'
  readonly payload: PayloadRule
  readonly descriptors: DescriptorRule
}

export interface MessageRule {
  readonly name: string
  readonly code: number
  readonly payload: PayloadRule
  readonly descriptors: DescriptorRule
  readonly gate: GateRule
  readonly reply: ReplyRule
}

const NO_PAYLOAD: PayloadRule = { layout: null, bytesMin: 0, bytesMax: 0 }
const fixed = (layout: AnyLayout, bytesMin = layout.$size): PayloadRule => ({
  layout,
  bytesMin,
  bytesMax: layout.$size,
})
const withTail = (layout: AnyLayout, bytesMin: number, bytesMax: number): PayloadRule => ({
  layout,
  bytesMin,
  bytesMax,
})

const U64 = fixed(VhostUserU64)
const VRING_STATE = fixed(VhostUserVringState)
const SLOT = fixed(VhostUserSlot)
/** Some peers leave the padding of the C structure out. */
const IOTLB = fixed(VhostUserIotlb, VhostUserIotlb.padding)
const INFLIGHT = fixed(VhostUserInflight, VhostUserInflight.padding)
const REGIONS = withTail(
  VhostUserMemory,
  VhostUserMemory.$size,
  VhostUserMemory.$size + VHOST_USER_REGIONS_MAX * VhostUserRegion.$size,
)
const CONFIG = withTail(
  VhostUserConfig,
  VhostUserConfig.$size,
  VhostUserConfig.$size + VHOST_USER_CONFIG_BYTES_MAX,
)
/** An error is a reply without payload. */
const CONFIG_OR_NOTHING = { ...CONFIG, bytesMin: 0 }
const SHARED_REGIONS = withTail(
  VhostUserSharedRegions,
  VhostUserSharedRegions.$size,
  VhostUserSharedRegions.$size + 8 * VHOST_USER_SHARED_REGIONS,
)
/** Sessions of a crypto device differ from peer to peer; nothing here looks inside. */
const CRYPTO = { layout: null, bytesMin: 0, bytesMax: 4096 }

const NO_DESCRIPTOR: DescriptorRule = { min: 0, max: 0 }
const ONE: DescriptorRule = { min: 1, max: 1 }
const PERHAPS: DescriptorRule = { min: 0, max: 1 }
const PER_REGION: DescriptorRule = { min: 0, max: VHOST_USER_REGIONS_MAX }

const NEVER: ReplyRule = { when: 'never', payload: NO_PAYLOAD, descriptors: NO_DESCRIPTOR }
const answers = (payload: PayloadRule, descriptors = NO_DESCRIPTOR): ReplyRule => ({
  when: 'always',
  payload,
  descriptors,
})

const OPEN: GateRule = { protocol: [], unsettled: [], offered: [], accepted: [] }
const needs = (...protocol: readonly VhostUserFeatureName[]): GateRule => ({ ...OPEN, protocol })
const unsettled = (...names: readonly UnsettledFeatureName[]): GateRule => ({ ...OPEN, unsettled: names })
const BIT_30 = VhostUserVirtioFeature.PROTOCOL_FEATURES.bit
const OFFERED: GateRule = { ...OPEN, offered: [BIT_30] }
const ACCEPTED: GateRule = { ...OPEN, accepted: [BIT_30] }
const IOMMU: GateRule = { ...OPEN, accepted: [CommonFeature.ACCESS_PLATFORM.bit] }

interface Parts {
  readonly payload?: PayloadRule
  readonly descriptors?: DescriptorRule
  readonly gate?: GateRule
  readonly reply?: ReplyRule
}

function message(code: number, parts: Parts = {}): Omit<MessageRule, 'name'> {
  return { code, payload: NO_PAYLOAD, descriptors: NO_DESCRIPTOR, gate: OPEN, reply: NEVER, ...parts }
}

/** What a front-end sends, vhost-user, Front-end message types. */
export const FrontEndMessage = {
  GET_FEATURES: message(1, { reply: answers(U64) }),
  SET_FEATURES: message(2, { payload: U64 }),
  SET_OWNER: message(3),
  RESET_OWNER: message(4),
  SET_MEM_TABLE: message(5, { payload: REGIONS, descriptors: PER_REGION }),
  SET_LOG_BASE: message(6, {
    payload: withTail(VhostUserLog, VhostUserU64.$size, VhostUserLog.$size),
    descriptors: PERHAPS,
    reply: { when: 'log-shmfd', payload: { ...U64, bytesMin: 0 }, descriptors: NO_DESCRIPTOR },
  }),
  SET_LOG_FD: message(7, { descriptors: ONE }),
  SET_VRING_NUM: message(8, { payload: VRING_STATE }),
  SET_VRING_ADDR: message(9, { payload: fixed(VhostUserVringAddress) }),
  SET_VRING_BASE: message(10, { payload: VRING_STATE }),
  GET_VRING_BASE: message(11, { payload: VRING_STATE, reply: answers(VRING_STATE) }),
  SET_VRING_KICK: message(12, { payload: U64, descriptors: PERHAPS }),
  SET_VRING_CALL: message(13, { payload: U64, descriptors: PERHAPS }),
  SET_VRING_ERR: message(14, { payload: U64, descriptors: PERHAPS }),
  GET_PROTOCOL_FEATURES: message(15, { gate: OFFERED, reply: answers(U64) }),
  SET_PROTOCOL_FEATURES: message(16, { gate: OFFERED, payload: U64 }),
  GET_QUEUE_NUM: message(17, { gate: needs('MQ'), reply: answers(U64) }),
  SET_VRING_ENABLE: message(18, { gate: ACCEPTED, payload: VRING_STATE }),
  SEND_RARP: message(19, { gate: needs('RARP'), payload: U64 }),
  NET_SET_MTU: message(20, { gate: needs('MTU'), payload: U64 }),
  SET_BACKEND_REQ_FD: message(21, { gate: needs('BACKEND_REQ'), descriptors: ONE }),
  IOTLB_MSG: message(22, { gate: IOMMU, payload: IOTLB, reply: answers(U64) }),
  SET_VRING_ENDIAN: message(23, { gate: needs('CROSS_ENDIAN'), payload: VRING_STATE }),
  GET_CONFIG: message(24, { gate: needs('CONFIG'), payload: CONFIG, reply: answers(CONFIG_OR_NOTHING) }),
  SET_CONFIG: message(25, { gate: needs('CONFIG'), payload: CONFIG }),
  CREATE_CRYPTO_SESSION: message(26, {
    gate: needs('CRYPTO_SESSION'),
    payload: CRYPTO,
    reply: answers(CRYPTO),
  }),
  CLOSE_CRYPTO_SESSION: message(27, { gate: needs('CRYPTO_SESSION'), payload: U64 }),
  POSTCOPY_ADVISE: message(28, { gate: needs('PAGEFAULT'), reply: answers(NO_PAYLOAD, ONE) }),
  POSTCOPY_LISTEN: message(29, { gate: needs('PAGEFAULT') }),
  POSTCOPY_END: message(30, { gate: needs('PAGEFAULT'), reply: answers(U64) }),
  GET_INFLIGHT_FD: message(31, {
    gate: needs('INFLIGHT_SHMFD'),
    payload: INFLIGHT,
    reply: answers(INFLIGHT, PERHAPS),
  }),
  SET_INFLIGHT_FD: message(32, { gate: needs('INFLIGHT_SHMFD'), payload: INFLIGHT, descriptors: ONE }),
  GPU_SET_SOCKET: message(33, { descriptors: ONE }),
  RESET_DEVICE: message(34, { gate: needs('RESET_DEVICE') }),
  VRING_KICK: message(35, { gate: needs('INBAND_NOTIFICATIONS'), payload: VRING_STATE }),
  GET_MAX_MEM_SLOTS: message(36, { gate: needs('CONFIGURE_MEM_SLOTS'), reply: answers(U64) }),
  ADD_MEM_REG: message(37, { gate: needs('CONFIGURE_MEM_SLOTS'), payload: SLOT, descriptors: ONE }),
  /** A descriptor is not asked for, tolerated and closed unused. */
  REM_MEM_REG: message(38, { gate: needs('CONFIGURE_MEM_SLOTS'), payload: SLOT, descriptors: PERHAPS }),
  SET_STATUS: message(39, { gate: needs('STATUS'), payload: U64 }),
  GET_STATUS: message(40, { gate: needs('STATUS'), reply: answers(U64) }),
  GET_SHARED_OBJECT: message(41, {
    gate: needs('SHARED_OBJECT'),
    payload: fixed(VhostUserUuid),
    reply: answers(NO_PAYLOAD, PERHAPS),
  }),
  SET_DEVICE_STATE_FD: message(42, {
    gate: needs('DEVICE_STATE'),
    payload: fixed(VhostUserDeviceState),
    descriptors: ONE,
    reply: answers(U64, PERHAPS),
  }),
  CHECK_DEVICE_STATE: message(43, { gate: needs('DEVICE_STATE'), reply: answers(U64) }),
  GET_SHMEM_CONFIG: message(44, { gate: unsettled('SHMEM'), reply: answers(SHARED_REGIONS) }),
  GET_VRING_BASE_SKIP_DRAIN: message(45, {
    gate: unsettled('GET_VRING_BASE_SKIP_DRAIN'),
    payload: VRING_STATE,
    reply: answers(VRING_STATE),
  }),
} as const satisfies { readonly [name: string]: Omit<MessageRule, 'name'> }

/** What a back-end sends on the socket of SET_BACKEND_REQ_FD, vhost-user, Back-end message types. */
export const BackEndMessage = {
  IOTLB_MSG: message(1, { gate: { ...IOMMU, protocol: ['BACKEND_REQ'] }, payload: IOTLB }),
  CONFIG_CHANGE_MSG: message(2, { gate: needs('BACKEND_REQ', 'CONFIG') }),
  VRING_HOST_NOTIFIER_MSG: message(3, {
    gate: needs('BACKEND_REQ', 'HOST_NOTIFIER'),
    payload: fixed(VhostUserVringArea),
    descriptors: PERHAPS,
  }),
  VRING_CALL: message(4, { gate: needs('BACKEND_REQ', 'INBAND_NOTIFICATIONS'), payload: VRING_STATE }),
  VRING_ERR: message(5, { gate: needs('BACKEND_REQ', 'INBAND_NOTIFICATIONS'), payload: VRING_STATE }),
  SHARED_OBJECT_ADD: message(6, {
    gate: needs('BACKEND_REQ', 'SHARED_OBJECT'),
    payload: fixed(VhostUserUuid),
  }),
  SHARED_OBJECT_REMOVE: message(7, {
    gate: needs('BACKEND_REQ', 'SHARED_OBJECT'),
    payload: fixed(VhostUserUuid),
  }),
  SHARED_OBJECT_LOOKUP: message(8, {
    gate: needs('BACKEND_REQ', 'SHARED_OBJECT'),
    payload: fixed(VhostUserUuid),
    reply: answers(U64, PERHAPS),
  }),
  SHMEM_MAP: message(9, {
    gate: { ...unsettled('SHMEM'), protocol: ['BACKEND_REQ'] },
    payload: fixed(VhostUserMap),
    descriptors: ONE,
  }),
  SHMEM_UNMAP: message(10, {
    gate: { ...unsettled('SHMEM'), protocol: ['BACKEND_REQ'] },
    payload: fixed(VhostUserMap),
  }),
} as const satisfies { readonly [name: string]: Omit<MessageRule, 'name'> }

export type FrontEndMessageName = keyof typeof FrontEndMessage
export type BackEndMessageName = keyof typeof BackEndMessage

export interface MessageRuleOf<Name extends string> extends MessageRule {
  readonly name: Name
}

/** Messages of one direction by their code. */
export type MessageTable<Name extends string> = ReadonlyMap<number, MessageRuleOf<Name>>

function byCode<Name extends string>(
  messages: {
    readonly [N in Name]: Omit<MessageRule, 'name'>
  },
): MessageTable<Name> {
  const entries = Object.entries(messages) as [Name, Omit<MessageRule, 'name'>][]
  return new Map(entries.map(([name, rule]) => [rule.code, { name, ...rule }]))
}

export const FRONT_END_MESSAGES: MessageTable<FrontEndMessageName> = byCode(FrontEndMessage)
export const BACK_END_MESSAGES: MessageTable<BackEndMessageName> = byCode(BackEndMessage)

/** Most bytes that follow a header, and most descriptors that ride along, in either direction. */
export const VHOST_USER_PAYLOAD_BYTES_MAX = [...FRONT_END_MESSAGES.values(), ...BACK_END_MESSAGES.values()]
  .flatMap(({ payload, reply }) => [payload.bytesMax, reply.payload.bytesMax])
  .reduce((most, bytes) => Math.max(most, bytes), 0)

/** What two ends have settled. */
export interface VhostUserNegotiated {
  /** VIRTIO features the back-end offers, bits of the transport among them. */
  readonly offered: FeatureSet
  /** What the front-end took of them. */
  readonly accepted: FeatureSet
  /** Protocol features the front-end took. */
  readonly protocol: FeatureSet
}

/** The name of what a message lacks to be sent, or null when its gate is open. */
export function gateClosed(gate: GateRule, negotiated: VhostUserNegotiated): string | null {
  for (const name of gate.protocol) if (!hasVhostUserFeature(negotiated.protocol, name)) return name
  for (const bit of gate.offered) if (!hasFeature(negotiated.offered, bit)) return `VIRTIO bit ${bit} offered`
  for (const bit of gate.accepted)
    if (!hasFeature(negotiated.accepted, bit)) return `VIRTIO bit ${bit} accepted`
  return gate.unsettled[0] ?? null
}

/** Whether a message has a reply of its own, whatever its flags ask for. */
export function repliesByItself(reply: ReplyRule, negotiated: VhostUserNegotiated): boolean {
  if (reply.when === 'log-shmfd') return hasVhostUserFeature(negotiated.protocol, 'LOG_SHMFD')
  return reply.when === 'always'
}
