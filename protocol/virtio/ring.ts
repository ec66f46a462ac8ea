import { le16, le32, le64, struct, tail } from '../layout.ts'

/** Descriptor flags, VIRTIO 1.2 section 2.7.5. */
export const DescFlag = { NEXT: 1, WRITE: 2, INDIRECT: 4 } as const
/** In the available ring's flags, without EVENT_IDX: the driver wants no interrupts. */
export const AvailFlag = { NO_INTERRUPT: 1 } as const
/** In the used ring's flags, without EVENT_IDX: the device wants no notifications. */
export const UsedFlag = { NO_NOTIFY: 1 } as const

export const SPLIT_QUEUE_SIZE_MAX = 32768

export const VirtqDesc = struct('virtq_desc', 'VIRTIO 1.2 section 2.7.5', 16, {
  addr: le64('guest-physical address of the buffer or indirect table'),
  len: le32('bytes'),
  flags: le16('what the buffer is', { bits: DescFlag }),
  next: le16('next descriptor of the chain', { when: 'NEXT' }),
})

export const VirtqAvail = struct('virtq_avail', 'VIRTIO 1.2 section 2.7.6', 4, {
  flags: le16('interrupt suppression', { bits: AvailFlag }),
  idx: le16('where the driver puts the next entry, modulo 65536'),
  ring: tail(le16('head of a chain'), 'queue size heads; used_event follows'),
})

export const VirtqUsedElem = struct('virtq_used_elem', 'VIRTIO 1.2 section 2.7.8', 8, {
  id: le32('head of the chain that was used'),
  len: le32('bytes written into its writable part'),
})

export const VirtqUsed = struct('virtq_used', 'VIRTIO 1.2 section 2.7.8', 4, {
  flags: le16('notification suppression', { bits: UsedFlag }),
  idx: le16('where the device puts the next entry, modulo 65536'),
  ring: tail(VirtqUsedElem, 'queue size entries; avail_event follows'),
})

/** The trailing event word of either ring; its place depends on the queue size. */
export const VirtqEvent = struct('virtq_event', 'VIRTIO 1.2 section 2.7.7 and 2.7.10', 2, {
  event: le16('used_event or avail_event', { when: 'EVENT_IDX' }),
})

export const DESC_ALIGN = 16
export const AVAIL_ALIGN = 2
export const USED_ALIGN = 4

/** Bytes of each area for a queue of `size` entries; the event word counts even without EVENT_IDX. */
export function descTableBytes(size: number): number {
  return VirtqDesc.$size * size
}
export function availRingBytes(size: number): number {
  return VirtqAvail.$size + 2 * size + 2
}
export function usedRingBytes(size: number): number {
  return VirtqUsed.$size + VirtqUsedElem.$size * size + 2
}
/** Where `used_event` lies in the available ring: the base to add to `VirtqEvent.event`. */
export function usedEventBase(size: number): number {
  return VirtqAvail.ring + 2 * size
}
/** Where `avail_event` lies in the used ring: the base to add to `VirtqEvent.event`. */
export function availEventBase(size: number): number {
  return VirtqUsed.ring + VirtqUsedElem.$size * size
}

export function isQueueSize(size: number): boolean {
  return Number.isInteger(size) && size >= 1 && size <= SPLIT_QUEUE_SIZE_MAX && (size & (size - 1)) === 0
}

/**
 * Whether moving a published index from `before` to `now` passed `event`, VIRTIO 1.2 section 2.7.7.2. All
 * three are modulo 65536, and so is every difference: comparing the values themselves fails on a batch that
 * crosses 65,535.
 */
export function needEvent(event: number, now: number, before: number): boolean {
  return ((now - event - 1) & 0xffff) < ((now - before) & 0xffff)
}

/** Where a stopped ring goes on: both indices modulo 65536. */
export interface RingPosition {
  /** Next available entry the device will take. */
  readonly available: number
  /** Next used entry the device will write. */
  readonly used: number
}

export const RING_START: RingPosition = { available: 0, used: 0 }

/** Guest-physical addresses of a split queue's areas, not yet checked. */
export interface QueuePlace {
  readonly size: number
  readonly descriptors: number
  readonly driver: number
  readonly device: number
}
