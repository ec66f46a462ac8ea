import { encode } from '../../protocol/derive/codec.ts'
import type { FrontEndMessageName } from '../../protocol/vhost-user/message.ts'
import { FrontEndMessage } from '../../protocol/vhost-user/message.ts'
import {
  VhostUserRing,
  VhostUserU64,
  VhostUserVringAddress,
  VhostUserVringState,
} from '../../protocol/vhost-user/payload.ts'
import { isQueueSize } from '../../protocol/virtio/ring.ts'
import type { VhostBackEnd } from './back-end.ts'
import type { PeerEvent } from './edge.ts'
import type { Outcome, Request } from './outcome.ts'
import { DONE, refused, reply } from './outcome.ts'
import type { VhostRing } from './ring.ts'

type Carry = (end: VhostBackEnd, request: Request) => Outcome

/** Finds the ring a payload names in its first 32 bits, and what follows. */
function withRing(
  body: (end: VhostBackEnd, ring: VhostRing, request: Request, num: number) => Outcome,
): Carry {
  return (end, request) => {
    const index = request.payload.le32(VhostUserVringState.index)
    const ring = end.rings[index]
    if (ring === undefined) return refused('vhost.ring-index', index, end.rings.length - 1)
    return body(end, ring, request, request.payload.le32(VhostUserVringState.num))
  }
}

/** The same for messages that hand a descriptor over: the index has 8 bits, and a bit says that none is there. */
function withEvent(body: (end: VhostBackEnd, ring: VhostRing, event: PeerEvent | null) => Outcome): Carry {
  return (end, request) => {
    const value = request.payload.le64(VhostUserU64.value)
    const index = value & VhostUserRing.INDEX_MASK
    const ring = end.rings[index]
    if (ring === undefined || !(value <= (VhostUserRing.INDEX_MASK | VhostUserRing.NO_DESCRIPTOR))) {
      return refused('vhost.ring-index', value, end.rings.length - 1)
    }
    const without = (value & VhostUserRing.NO_DESCRIPTOR) !== 0
    const count = request.riding.all.length
    if (without !== (count === 0)) return refused('vhost.descriptor-count', count, without ? 0 : 1, index)
    if (without) return body(end, ring, null)
    const event = request.riding.give((descriptor) => end.edge.event(descriptor))
    if (event === null) return refused('vhost.descriptor-kind', 0, 0, index)
    return body(end, ring, event)
  }
}

/** Size and position are those of a ring that stands still. */
function stopped(body: (end: VhostBackEnd, ring: VhostRing, num: number) => Outcome): Carry {
  return withRing((end, ring, _request, num) =>
    ring.started ? refused('vhost.ring-live', num, 0, ring.index) : body(end, ring, num),
  )
}

/** Messages about one ring, vhost-user, Front-end message types. */
export const RING_REQUESTS: { readonly [N in FrontEndMessageName]?: Carry } = {
  SET_VRING_NUM: stopped((end, ring, num) => {
    const sizeMax = end.device.queueSizes[ring.index] ?? 0
    if (!(isQueueSize(num) && num <= sizeMax)) return refused('vhost.ring-size', num, sizeMax, ring.index)
    ring.size = num
    return DONE
  }),

  SET_VRING_BASE: stopped((_end, ring, num) => {
    if (!(num <= 0xffff)) return refused('vhost.ring-base', num, 0xffff, ring.index)
    ring.base = num
    return DONE
  }),

  SET_VRING_ADDR: withRing((_end, ring, { payload }) => {
    const addresses = {
      descriptors: payload.le64(VhostUserVringAddress.descriptor),
      used: payload.le64(VhostUserVringAddress.used),
      available: payload.le64(VhostUserVringAddress.available),
    }
    const before = ring.addresses
    // A front-end repeats the addresses of a running ring with another LOG flag. All writes are logged anyway.
    const same =
      before?.descriptors === addresses.descriptors &&
      before.used === addresses.used &&
      before.available === addresses.available
    if (ring.live && !same) return refused('vhost.ring-live', addresses.descriptors, 0, ring.index)
    ring.addresses = addresses
    return DONE
  }),

  GET_VRING_BASE: withRing((end, ring, _request, num) => {
    if (num !== 0) {
      const { index: queue } = ring
      const at = FrontEndMessage.GET_VRING_BASE.code
      end.violated({ rule: 'vhost.ring-zero', side: 'front-end', queue, at, seen: num, expected: 0 })
    }
    return {
      kind: 'later',
      begin(finish) {
        ring.stop((available) => {
          finish(reply(encode(VhostUserVringState, { index: ring.index, num: available })))
        })
      },
    }
  }),

  SET_VRING_KICK: withEvent((end, ring, event) => {
    const broken = ring.start(event)
    if (broken !== null) return { kind: 'refused', queue: ring.index, ...broken }
    end.tellConfig()
    return DONE
  }),

  SET_VRING_CALL: withEvent((_end, ring, event) => {
    ring.call?.close()
    ring.call = event
    // What was used while nobody could be told is told now; one too many is harmless.
    if (ring.live) event?.signal()
    return DONE
  }),

  SET_VRING_ERR: withEvent((_end, ring, event) => {
    ring.error?.close()
    ring.error = event
    return DONE
  }),

  SET_VRING_ENABLE: withRing((end, ring, _request, num) => {
    if (num !== 0 && num !== 1) return refused('vhost.ring-switch', num, 1, ring.index)
    ring.enabled = num === 1
    if (num === 0) {
      return { kind: 'later', begin: (finish) => ring.quiesce(() => finish(DONE)) }
    }
    const broken = ring.goLive()
    if (broken !== null) return { kind: 'refused', queue: ring.index, ...broken }
    ring.ring()
    end.tellConfig()
    return DONE
  }),
}
