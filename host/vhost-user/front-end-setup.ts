import { encode } from '../../protocol/derive/codec.ts'
import type { FeatureSet } from '../../protocol/version.ts'
import { hasVhostUserFeature, VhostUserVirtioFeature } from '../../protocol/vhost-user/feature.ts'
import { u64Of, u64Payload } from '../../protocol/vhost-user/frame.ts'
import { FrontEndMessage } from '../../protocol/vhost-user/message.ts'
import {
  VhostUserInflight,
  VhostUserMemory,
  VhostUserVringAddress,
  VhostUserVringState,
} from '../../protocol/vhost-user/payload.ts'
import { Status } from '../../protocol/virtio/status.ts'
import { Window } from '../../protocol/window.ts'
import type { QueueState } from '../virtio/device.ts'
import type { PeerDescriptor } from './edge.ts'
import type { SharedRegion } from './front-end-edge.ts'
import type { Exchange, Procedure } from './front-end-exchange.ts'
import type { FrontEndQueue } from './front-end-queue.ts'

/**
 * User addresses are guest-physical ones plus this: the daemon only ever compares them, and one taken for the
 * other shows.
 */
const USER_AT = 0x6000_0000_0000
const BIT_30 = 1n << BigInt(VhostUserVirtioFeature.PROTOCOL_FEATURES.bit)
const DRIVER = Status.ACKNOWLEDGE | Status.DRIVER

/** Shared memory in which a daemon keeps what it has taken, so that the next one can do it again. */
export interface InflightBuffer {
  readonly descriptor: PeerDescriptor
  readonly size: bigint
  readonly offset: bigint
  readonly queues: number
  readonly queueSize: number
}

/** Tells the daemon what the driver accepted. */
export function* settleFeatures(exchange: Exchange, features: FeatureSet): Procedure {
  const status = hasVhostUserFeature(exchange.protocol, 'STATUS')
  if (status) yield { name: 'SET_STATUS', payload: u64Payload(BigInt(DRIVER)) }
  exchange.accepted = features | BIT_30
  yield { name: 'SET_FEATURES', payload: u64Payload(exchange.accepted) }
  if (!status) return
  yield { name: 'SET_STATUS', payload: u64Payload(BigInt(DRIVER | Status.FEATURES_OK)) }
  const seen = Number(u64Of((yield { name: 'GET_STATUS' }).payload) & 0xffn)
  if ((seen & Status.FEATURES_OK) !== 0) return
  const violation = exchange.violation('device.features-refused', seen, Status.FEATURES_OK)
  exchange.fail('refuses a subset of the features it offers', violation)
}

/** Gives the daemon the guest's memory, all of it at once. */
export function* shareMemory(regions: readonly SharedRegion[]): Procedure {
  const payload = encode(VhostUserMemory, {
    count: regions.length,
    regions: regions.map(({ base, lengthBytes, offset }) => ({
      guest: BigInt(base),
      size: BigInt(lengthBytes),
      user: BigInt(base + USER_AT),
      offset: BigInt(offset),
    })),
  })
  yield { name: 'SET_MEM_TABLE', payload, descriptors: regions.map(({ descriptor }) => descriptor) }
}

/** A fresh tracking buffer; null when the daemon has none to give, or was given up over it. */
export function* askInflight(
  exchange: Exchange,
  queues: number,
  queueSize: number,
): Procedure<InflightBuffer | null> {
  const asked = encode(VhostUserInflight, { queues, queueSize })
  const { payload, descriptors } = yield { name: 'GET_INFLIGHT_FD', payload: asked }
  const [descriptor] = descriptors
  const view = new DataView(payload.buffer, payload.byteOffset)
  const size = view.getBigUint64(VhostUserInflight.size, true)
  const offset = view.getBigUint64(VhostUserInflight.offset, true)
  const fits = descriptor !== undefined && size + offset <= BigInt(descriptor.lengthBytes)
  if (descriptor !== undefined && fits && size > 0n) return { descriptor, size, offset, queues, queueSize }
  descriptor?.close()
  if (size === 0n) return null
  const { code } = FrontEndMessage.GET_INFLIGHT_FD
  const seen = descriptor?.lengthBytes ?? 0
  exchange.fail(
    'has no memory behind its tracking buffer',
    exchange.violation('vhost.reply-inflight', seen, Number(size + offset), code),
  )
  return null
}

export function* giveInflight(buffer: InflightBuffer): Procedure {
  const { size, offset, queues, queueSize } = buffer
  const payload = encode(VhostUserInflight, { size, offset, queues, queueSize })
  yield { name: 'SET_INFLIGHT_FD', payload, descriptors: [buffer.descriptor] }
}

/** Says where a ring lies and where it goes on; the daemon does not serve it yet. */
export function* placeQueue(queue: FrontEndQueue, base: number): Procedure {
  const { index, place } = queue
  if (place === null) return
  yield { name: 'SET_VRING_NUM', payload: encode(VhostUserVringState, { index, num: place.size }) }
  yield { name: 'SET_VRING_BASE', payload: encode(VhostUserVringState, { index, num: base }) }
  const payload = encode(VhostUserVringAddress, {
    index,
    descriptor: BigInt(place.descriptors + USER_AT),
    used: BigInt(place.device + USER_AT),
    available: BigInt(place.driver + USER_AT),
  })
  yield { name: 'SET_VRING_ADDR', payload }
  // Read only now: a queue that was never rung may be stopped meanwhile, and its events are closed then.
  const { events } = queue
  if (events === null) return
  yield {
    name: 'SET_VRING_CALL',
    payload: u64Payload(BigInt(index)),
    descriptors: [events.call.descriptor],
  }
}

/** Starts a ring. Daemons of before 2023 wait for a kick even then, so one is given. */
export function* serveQueue(exchange: Exchange, queue: FrontEndQueue): Procedure {
  const { index, events } = queue
  if (events === null) return
  const payload = u64Payload(BigInt(index))
  yield { name: 'SET_VRING_KICK', payload, descriptors: [events.kick.descriptor] }
  yield { name: 'SET_VRING_ENABLE', payload: encode(VhostUserVringState, { index, num: 1 }) }
  // Without acknowledgements, any answer says that what came before it was read.
  if (!hasVhostUserFeature(exchange.protocol, 'REPLY_ACK')) yield { name: 'GET_FEATURES' }
  queue.ring()
}

export function* tellDriverOk(exchange: Exchange): Procedure {
  if (!hasVhostUserFeature(exchange.protocol, 'STATUS')) return
  const status = DRIVER | Status.FEATURES_OK | Status.DRIVER_OK
  yield { name: 'SET_STATUS', payload: u64Payload(BigInt(status)) }
}

/**
 * Stops a ring: once the answer is there, the daemon has none of its requests any more.
 *
 * The ring is stopped before it is disabled: what comes to a ring that is disabled and not stopped is thrown away.
 */
export function* stopQueue(exchange: Exchange, queue: FrontEndQueue): Procedure<QueueState> {
  const { index } = queue
  const { code } = FrontEndMessage.GET_VRING_BASE
  const { payload } = yield { name: 'GET_VRING_BASE', payload: encode(VhostUserVringState, { index }) }
  const answer = new Window(payload)
  const base = answer.le32(VhostUserVringState.num)
  const used = queue.usedIndex
  const state = { position: { available: base & 0xffff, used }, heads: [] }
  if (answer.le32(VhostUserVringState.index) !== index || base !== used) {
    const violation = exchange.violation('vhost.reply-base', base, used, code)
    exchange.fail('stops a ring with requests out', violation)
    return state
  }
  yield { name: 'SET_VRING_ENABLE', payload: encode(VhostUserVringState, { index, num: 0 }) }
  return state
}

/** Whatever else a guest's reset means to this daemon; its rings are stopped. */
export function* resetDaemon(exchange: Exchange): Procedure {
  if (hasVhostUserFeature(exchange.protocol, 'STATUS')) {
    yield { name: 'SET_STATUS', payload: u64Payload(0n) }
  } else if (hasVhostUserFeature(exchange.protocol, 'RESET_DEVICE')) {
    yield { name: 'RESET_DEVICE' }
  }
}
