import type { Trigger } from '../../../protocol/processor.ts'
import { within } from '../kernel-memory.ts'
import type { KernelParts } from '../kernel-parts.ts'
import { PoolType, poolTag } from '../pool.ts'
import {
  CM_INTERRUPT_DATA,
  CM_PARTIAL_RESOURCE_DESCRIPTOR,
  CM_RANGE_DATA,
  CM_RESOURCE_LIST,
  InterfaceType,
  InterruptFlag,
  ResourceType,
  ShareDisposition,
} from './pnp-layout.ts'

export interface RangeResource {
  readonly kind: 'memory' | 'port'
  readonly start: number
  readonly lengthBytes: number
}
export interface InterruptResource {
  readonly kind: 'interrupt'
  /** Raw: the controller's line. Translated: IRQL. */
  readonly level: number
  /** Raw: the controller's line. Translated: the processor's vector. */
  readonly vector: number
  readonly trigger: Trigger
  readonly shared: boolean
}
/** One assigned resource: a CM_PARTIAL_RESOURCE_DESCRIPTOR as plain data. */
export type Resource = RangeResource | InterruptResource

export const RESOURCE_TAG = poolTag('PpRe')
const DATA = CM_PARTIAL_RESOURCE_DESCRIPTOR.data
const DESCRIPTOR_BYTES = CM_PARTIAL_RESOURCE_DESCRIPTOR.$size

type ListParts = Pick<KernelParts, 'pool' | 'hal' | 'memory'>

/** A CM_RESOURCE_LIST in paged pool: its address; 0 when memory is short. */
export function allocateResourceList(parts: ListParts, resources: readonly Resource[]): number {
  const { pool, hal, memory } = parts
  const lengthBytes = CM_RESOURCE_LIST.$size + resources.length * DESCRIPTOR_BYTES
  const at = pool.allocate(PoolType.PAGED, lengthBytes, RESOURCE_TAG, hal.irql)
  if (at === 0) return 0
  const { window } = memory
  memory.zero(at, lengthBytes)
  window.putLe32(CM_RESOURCE_LIST.count, 1, at)
  window.putLe32(CM_RESOURCE_LIST.interfaceType, InterfaceType.INTERNAL, at)
  window.putLe16(CM_RESOURCE_LIST.version, 1, at)
  window.putLe16(CM_RESOURCE_LIST.revision, 1, at)
  window.putLe32(CM_RESOURCE_LIST.partialCount, resources.length, at)
  resources.forEach((resource, index) => {
    putResource(parts, resource, at + CM_RESOURCE_LIST.$size + index * DESCRIPTOR_BYTES)
  })
  return at
}

function putResource({ memory: { window } }: ListParts, resource: Resource, at: number): void {
  if (resource.kind === 'interrupt') {
    window.putU8(CM_PARTIAL_RESOURCE_DESCRIPTOR.type, ResourceType.INTERRUPT, at)
    window.putU8(CM_PARTIAL_RESOURCE_DESCRIPTOR.shareDisposition, dispositionOf(resource.shared), at)
    window.putLe16(CM_PARTIAL_RESOURCE_DESCRIPTOR.flags, flagsOf(resource.trigger), at)
    window.putLe32(within(DATA, CM_INTERRUPT_DATA.level), resource.level, at)
    window.putLe32(within(DATA, CM_INTERRUPT_DATA.vector), resource.vector, at)
    window.putLe64(within(DATA, CM_INTERRUPT_DATA.affinity), 1, at)
    return
  }
  const type = resource.kind === 'memory' ? ResourceType.MEMORY : ResourceType.PORT
  window.putU8(CM_PARTIAL_RESOURCE_DESCRIPTOR.type, type, at)
  window.putU8(CM_PARTIAL_RESOURCE_DESCRIPTOR.shareDisposition, ShareDisposition.DEVICE_EXCLUSIVE, at)
  window.putLe64(within(DATA, CM_RANGE_DATA.start), resource.start, at)
  window.putLe32(within(DATA, CM_RANGE_DATA.lengthBytes), resource.lengthBytes, at)
}

/**
 * What a driver finds in START's list (`readResourceList(kernel.parts, irp.current.argument2)`); address 0 is an
 * empty one. Types that are not served are passed over. Null when the list reaches past its pool block or holds
 * more than one bus.
 */
export function readResourceList(parts: ListParts, at: number): readonly Resource[] | null {
  if (at === 0) return []
  const { pool, memory } = parts
  const lengthBytes = pool.lengthOf(at)
  if (!(lengthBytes >= CM_RESOURCE_LIST.$size)) return null
  const { window } = memory
  const full = window.le32(CM_RESOURCE_LIST.count, at)
  if (full === 0) return []
  const count = window.le32(CM_RESOURCE_LIST.partialCount, at)
  if (full !== 1 || !(CM_RESOURCE_LIST.$size + count * DESCRIPTOR_BYTES <= lengthBytes)) return null
  const resources: Resource[] = []
  for (let index = 0; index < count; index++) {
    const one = readResource(parts, at + CM_RESOURCE_LIST.$size + index * DESCRIPTOR_BYTES)
    if (one !== null) resources.push(one)
  }
  return resources
}

function readResource({ memory: { window } }: ListParts, at: number): Resource | null {
  const type = window.u8(CM_PARTIAL_RESOURCE_DESCRIPTOR.type, at)
  if (type === ResourceType.INTERRUPT) {
    return {
      kind: 'interrupt',
      level: window.le32(within(DATA, CM_INTERRUPT_DATA.level), at),
      vector: window.le32(within(DATA, CM_INTERRUPT_DATA.vector), at),
      trigger: triggerOf(window.le16(CM_PARTIAL_RESOURCE_DESCRIPTOR.flags, at)),
      shared: window.u8(CM_PARTIAL_RESOURCE_DESCRIPTOR.shareDisposition, at) === ShareDisposition.SHARED,
    }
  }
  if (type !== ResourceType.MEMORY && type !== ResourceType.PORT) return null
  return {
    kind: type === ResourceType.MEMORY ? 'memory' : 'port',
    start: window.le64(within(DATA, CM_RANGE_DATA.start), at),
    lengthBytes: window.le32(within(DATA, CM_RANGE_DATA.lengthBytes), at),
  }
}

export function dispositionOf(shared: boolean): number {
  return shared ? ShareDisposition.SHARED : ShareDisposition.DEVICE_EXCLUSIVE
}

export function flagsOf(trigger: Trigger): number {
  return trigger === 'edge' ? InterruptFlag.LATCHED : 0
}

export function triggerOf(flags: number): Trigger {
  return (flags & InterruptFlag.LATCHED) !== 0 ? 'edge' : 'level'
}
