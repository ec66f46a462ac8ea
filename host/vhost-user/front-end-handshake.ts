import { encode } from '../../protocol/derive/codec.ts'
import type { FeatureSet } from '../../protocol/version.ts'
import { featureSet, hasFeature, missingPrerequisite } from '../../protocol/version.ts'
import {
  hasVhostUserFeature,
  VhostUserVirtioFeature,
  vhostUserFeatures,
} from '../../protocol/vhost-user/feature.ts'
import { u64Of, u64Payload } from '../../protocol/vhost-user/frame.ts'
import { FrontEndMessage } from '../../protocol/vhost-user/message.ts'
import { VhostUserConfig } from '../../protocol/vhost-user/payload.ts'
import { BlkConfig, BlkFeature } from '../../protocol/virtio/blk.ts'
import type { VirtioVersion } from '../../protocol/virtio/features.ts'
import { CommonFeature, featuresOfVersion } from '../../protocol/virtio/features.ts'
import { Window } from '../../protocol/window.ts'
import type { Exchange, Procedure } from './front-end-exchange.ts'

/** What this front-end can do with a daemon. */
const PROTOCOL = vhostUserFeatures(
  'MQ',
  'REPLY_ACK',
  'BACKEND_REQ',
  'CONFIG',
  'INFLIGHT_SHMFD',
  'RESET_DEVICE',
  'STATUS',
)
const BIT_30 = VhostUserVirtioFeature.PROTOCOL_FEATURES.bit
/** A ring's index is eight bits on the wire. */
const QUEUES_MAX = 256

/** What a guest's driver may be offered of a daemon's features: rings are split, and addresses the guest's. */
const PASSED = featureSet([
  CommonFeature.INDIRECT_DESC.bit,
  CommonFeature.EVENT_IDX.bit,
  CommonFeature.VERSION_1.bit,
  CommonFeature.RING_RESET.bit,
  ...Object.values(BlkFeature)
    .map(({ bit }) => bit)
    .filter((bit) => bit !== BlkFeature.ZONED.bit),
])

/** A daemon after the handshake. */
export interface DaemonFacts {
  /** VIRTIO features, those of the transport among them. */
  readonly offered: FeatureSet
  /** Protocol features that both ends use. */
  readonly protocol: FeatureSet
  readonly queues: number
  /** Configuration space; what the daemon has none of is zero. */
  readonly config: Uint8Array<ArrayBuffer>
}

/** Learns what a daemon is. It ends with null when the daemon was given up on the way. */
export function* handshake(exchange: Exchange): Procedure<DaemonFacts | null> {
  const offered = u64Of((yield { name: 'GET_FEATURES' }).payload)
  exchange.offered = offered
  if (!hasFeature(offered, BIT_30)) return refused(exchange, 'has no protocol features, so no configuration')
  if (!hasFeature(offered, CommonFeature.VERSION_1.bit)) return refused(exchange, 'is a legacy device')
  const protocol = u64Of((yield { name: 'GET_PROTOCOL_FEATURES' }).payload) & PROTOCOL
  if (!hasVhostUserFeature(protocol, 'CONFIG')) return refused(exchange, 'has no configuration')
  // Before its answer nothing can be acknowledged: this very message settles that.
  yield { name: 'SET_PROTOCOL_FEATURES', payload: u64Payload(protocol) }
  exchange.protocol = protocol
  yield { name: 'SET_OWNER' }
  const queues = yield* queuesOf(exchange)
  if (queues === null) return null
  const config = yield* configOf(exchange)
  return config === null ? null : { offered, protocol, queues, config }
}

/** Configuration space as it is now; null when the daemon was given up over it. */
export function* configOf(exchange: Exchange): Procedure<Uint8Array<ArrayBuffer> | null> {
  const size = configBytes(exchange.offered & PASSED)
  const payload = new Uint8Array(VhostUserConfig.$size + size)
  payload.set(encode(VhostUserConfig, { size }))
  const { payload: answer } = yield { name: 'GET_CONFIG', payload }
  if (answer.length === 0) return refused(exchange, 'refuses GET_CONFIG')
  const window = new Window(answer)
  const seen = answer.length - VhostUserConfig.$size
  if (seen !== size || window.le32(VhostUserConfig.offset) !== 0) {
    exchange.fail(
      'answers GET_CONFIG with another part of it',
      exchange.violation('vhost.reply-config', seen, size, FrontEndMessage.GET_CONFIG.code),
    )
    return null
  }
  const config = new Uint8Array(BlkConfig.$size)
  config.set(answer.subarray(VhostUserConfig.$size))
  return config
}

/** What of a daemon's features a guest's driver may have, by the version it speaks. */
export function guestFeatures(offered: FeatureSet, version: VirtioVersion, write: boolean): FeatureSet {
  let features = offered & PASSED & featuresOfVersion(version, BlkFeature)
  // Without leave to write, the guest is told of a disk that cannot be written.
  if (!write) features |= 1n << BigInt(BlkFeature.RO.bit)
  for (;;) {
    const missing = missingPrerequisite(features, { ...CommonFeature, ...BlkFeature })
    const bit = Object.entries({ ...CommonFeature, ...BlkFeature }).find(
      ([name]) => name === missing?.feature,
    )?.[1].bit
    if (bit === undefined) return features
    features &= ~(1n << BigInt(bit))
  }
}

function* queuesOf(exchange: Exchange): Procedure<number | null> {
  if (!hasVhostUserFeature(exchange.protocol, 'MQ')) return 1
  const queues = u64Of((yield { name: 'GET_QUEUE_NUM' }).payload)
  if (queues >= 1n && queues <= BigInt(QUEUES_MAX)) return Number(queues)
  exchange.fail(
    `has ${queues} queues`,
    exchange.violation('vhost.reply-queues', Number(queues), QUEUES_MAX, FrontEndMessage.GET_QUEUE_NUM.code),
  )
  return null
}

/** As far as the fields of these features reach: a daemon may know no more, and refuse. */
function configBytes(features: FeatureSet): number {
  let end = 0
  for (const { offset, lengthBytes, spec } of BlkConfig.$fields) {
    const when = Object.entries(BlkFeature).find(([name]) => name === spec.when)?.[1]
    const there = spec.when === undefined || (when !== undefined && hasFeature(features, when.bit))
    if (there && spec.reserved !== true) end = Math.max(end, offset + lengthBytes)
  }
  return end
}

function refused(exchange: Exchange, why: string): null {
  exchange.fail(why)
  return null
}
