import type { DmaSpace } from '../../protocol/dma.ts'
import { gpa } from '../../protocol/memory.ts'
import type { RequirementId } from '../../protocol/requirement.ts'
import type { Violation } from '../../protocol/violation.ts'
import type { QueuePlace } from '../../protocol/virtio/ring.ts'
import {
  AVAIL_ALIGN,
  availRingBytes,
  DESC_ALIGN,
  descTableBytes,
  isQueueSize,
  USED_ALIGN,
  usedRingBytes,
} from '../../protocol/virtio/ring.ts'

/** Where a driver wants a queue, before anything of it is believed. */
export interface AskedPlace {
  readonly dma: DmaSpace
  readonly queue: number
  readonly place: QueuePlace
  /** The largest size this queue offered. */
  readonly sizeMax: number
}

/** Why the areas of a queue cannot be used, or null, VIRTIO 1.2 section 2.7. */
export function placeInvalid({ place, queue, sizeMax, dma }: AskedPlace): Violation | null {
  const refuse = (rule: RequirementId, at: number, seen: number, expected: number): Violation => ({
    rule,
    side: 'driver',
    queue,
    at,
    seen,
    expected,
  })
  const { size } = place
  if (!(isQueueSize(size) && size <= sizeMax)) return refuse('split.queue-size', 0, size, sizeMax)
  const areas = [
    { at: place.descriptors, bytes: descTableBytes(size), align: DESC_ALIGN },
    { at: place.driver, bytes: availRingBytes(size), align: AVAIL_ALIGN },
    { at: place.device, bytes: usedRingBytes(size), align: USED_ALIGN },
  ]
  for (const { at, bytes, align } of areas) {
    if (at % align !== 0) return refuse('split.area-backed', at, at % align, 0)
    if (!dma.reaches(gpa(at), bytes)) return refuse('split.area-backed', at, at + bytes, dma.memory.end)
  }
  const sorted = areas.sort((a, b) => a.at - b.at)
  let end = 0
  for (const { at, bytes } of sorted) {
    if (!(at >= end)) return refuse('split.area-backed', at, at, end)
    end = at + bytes
  }
  return null
}
