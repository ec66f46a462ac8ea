import type { DeviceObject } from '../device-object.ts'
import type { KernelParts } from '../kernel-parts.ts'
import { PoolType, poolTag } from '../pool.ts'
import { DEVICE_RELATIONS } from './pnp-layout.ts'

const RELATIONS_TAG = poolTag('PpDR')
const POINTER_BYTES = 8
/** Devices in one list: what a bus may have. */
export const RELATIONS_MAX = 1024

type RelationParts = Pick<KernelParts, 'pool' | 'hal' | 'memory' | 'devices'>

/**
 * A DEVICE_RELATIONS in paged pool with `devices` behind those of `before` (an earlier list, which is freed; 0:
 * none), and one reference taken for each of `devices`. Its address, or 0 with `before` as it was.
 */
export function allocateRelations(
  parts: RelationParts,
  devices: readonly DeviceObject[],
  before = 0,
): number {
  const { pool, hal, memory } = parts
  const { window, bytes } = memory
  const kept = before === 0 ? 0 : window.le32(DEVICE_RELATIONS.count, before)
  const lengthBytes = DEVICE_RELATIONS.$size + (kept + devices.length) * POINTER_BYTES
  const at = pool.allocate(PoolType.PAGED, lengthBytes, RELATIONS_TAG, hal.irql)
  if (at === 0) return 0
  window.putLe32(DEVICE_RELATIONS.count, kept + devices.length, at)
  const objects = at + DEVICE_RELATIONS.objects
  if (before !== 0) {
    const from = before + DEVICE_RELATIONS.objects
    bytes.copyWithin(objects, from, from + kept * POINTER_BYTES)
    pool.free(before, hal.irql)
  }
  devices.forEach((device, index) => {
    parts.devices.reference(device)
    memory.putPointer(objects + (kept + index) * POINTER_BYTES, device.at)
  })
  return at
}

/** Addresses in the list at `at` (0: none); null when it is longer than its pool block, or than any bus is. */
export function readRelations(parts: RelationParts, at: number): number[] | null {
  if (at === 0) return []
  const { pool, memory } = parts
  const lengthBytes = pool.lengthOf(at)
  if (!(lengthBytes >= DEVICE_RELATIONS.$size)) return null
  const count = memory.window.le32(DEVICE_RELATIONS.count, at)
  if (!(count <= RELATIONS_MAX && DEVICE_RELATIONS.$size + count * POINTER_BYTES <= lengthBytes)) return null
  return Array.from({ length: count }, (_, index) =>
    memory.pointer(at + DEVICE_RELATIONS.objects + index * POINTER_BYTES),
  )
}
