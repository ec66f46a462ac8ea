import { bytes, le16, le64, struct, tail, u8 } from '../layout.ts'

const SECTION = 'vhost-user, Inflight I/O tracking'

/** What the tracking buffer keeps of each descriptor of a split ring. */
export const InflightSplitState = struct('vhost_user_inflight_split_state', SECTION, 16, {
  inflight: u8('1 while the chain it is the head of is out'),
  padding: bytes(5, 'nothing'),
  next: le16('head that was used before it in the same batch'),
  counter: le64('when it was taken: they are done again in this order'),
})

/** The tracking buffer of one split ring; the next one follows, aligned. */
export const InflightSplitRegion = struct('vhost_user_inflight_split_region', SECTION, 16, {
  features: le64('none are defined'),
  version: le16('1'),
  descriptors: le16('entries of the ring'),
  lastBatchHead: le16('head that was used last'),
  usedIndex: le16('used index when the last batch was complete'),
  states: tail(InflightSplitState, 'an entry each'),
})

export const INFLIGHT_VERSION = 1
/** Where each ring's part begins is a multiple of this. */
export const INFLIGHT_ALIGN = 64

/** Bytes of one ring's part of the buffer, its gap included. */
export function inflightSplitBytes(queueSize: number): number {
  const bytes = InflightSplitRegion.$size + queueSize * InflightSplitState.$size
  return Math.ceil(bytes / INFLIGHT_ALIGN) * INFLIGHT_ALIGN
}
