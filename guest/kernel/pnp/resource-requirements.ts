import type { Trigger } from '../../../protocol/processor.ts'
import { within } from '../kernel-memory.ts'
import type { KernelParts } from '../kernel-parts.ts'
import { PoolType } from '../pool.ts'
import {
  InterfaceType,
  IO_INTERRUPT_DATA,
  IO_RANGE_DATA,
  IO_RESOURCE_DESCRIPTOR,
  IO_RESOURCE_LIST,
  IO_RESOURCE_REQUIREMENTS_LIST,
  ResourceOption,
  ResourceType,
  ShareDisposition,
} from './pnp-layout.ts'
import { dispositionOf, flagsOf, RESOURCE_TAG, triggerOf } from './resource-list.ts'

interface RequirementOption {
  /** Taken instead of the one before it in the list. */
  readonly alternative?: boolean
  /** Tried before the others of its group. */
  readonly preferred?: boolean
}
export interface RangeRequirement extends RequirementOption {
  readonly kind: 'memory' | 'port'
  readonly lengthBytes: number
  /** Of its start, in bytes. */
  readonly alignment: number
  /** Lowest start. */
  readonly minimum: number
  /** Highest last address. */
  readonly maximum: number
}
export interface InterruptRequirement extends RequirementOption {
  readonly kind: 'interrupt'
  /** Lines, first and last. */
  readonly minimum: number
  readonly maximum: number
  readonly trigger: Trigger
  readonly shared: boolean
}
/** An IO_RESOURCE_DESCRIPTOR as plain data. */
export type Requirement = RangeRequirement | InterruptRequirement

/** Lists of which one has to be met whole, the best first: an IO_RESOURCE_REQUIREMENTS_LIST as plain data. */
export type RequirementLists = readonly (readonly Requirement[])[]

const DATA = IO_RESOURCE_DESCRIPTOR.data
const DESCRIPTOR_BYTES = IO_RESOURCE_DESCRIPTOR.$size

type ListParts = Pick<KernelParts, 'pool' | 'hal' | 'memory'>

/** An IO_RESOURCE_REQUIREMENTS_LIST in paged pool: its address; 0 when memory is short. */
export function allocateRequirements(parts: ListParts, lists: RequirementLists): number {
  const { pool, hal, memory } = parts
  const lengthBytes = lists.reduce(
    (sum, list) => sum + IO_RESOURCE_LIST.$size + list.length * DESCRIPTOR_BYTES,
    IO_RESOURCE_REQUIREMENTS_LIST.$size,
  )
  const start = pool.allocate(PoolType.PAGED, lengthBytes, RESOURCE_TAG, hal.irql)
  if (start === 0) return 0
  const { window } = memory
  memory.zero(start, lengthBytes)
  window.putLe32(IO_RESOURCE_REQUIREMENTS_LIST.listSize, lengthBytes, start)
  window.putLe32(IO_RESOURCE_REQUIREMENTS_LIST.interfaceType, InterfaceType.INTERNAL, start)
  window.putLe32(IO_RESOURCE_REQUIREMENTS_LIST.alternativeLists, lists.length, start)
  let at = start + IO_RESOURCE_REQUIREMENTS_LIST.$size
  for (const list of lists) {
    window.putLe16(IO_RESOURCE_LIST.version, 1, at)
    window.putLe16(IO_RESOURCE_LIST.revision, 1, at)
    window.putLe32(IO_RESOURCE_LIST.count, list.length, at)
    at += IO_RESOURCE_LIST.$size
    for (const requirement of list) {
      putRequirement(parts, requirement, at)
      at += DESCRIPTOR_BYTES
    }
  }
  return start
}

function putRequirement({ memory: { window } }: ListParts, requirement: Requirement, at: number): void {
  const option =
    (requirement.preferred === true ? ResourceOption.PREFERRED : 0) |
    (requirement.alternative === true ? ResourceOption.ALTERNATIVE : 0)
  window.putU8(IO_RESOURCE_DESCRIPTOR.option, option, at)
  if (requirement.kind === 'interrupt') {
    window.putU8(IO_RESOURCE_DESCRIPTOR.type, ResourceType.INTERRUPT, at)
    window.putU8(IO_RESOURCE_DESCRIPTOR.shareDisposition, dispositionOf(requirement.shared), at)
    window.putLe16(IO_RESOURCE_DESCRIPTOR.flags, flagsOf(requirement.trigger), at)
    window.putLe32(within(DATA, IO_INTERRUPT_DATA.minimum), requirement.minimum, at)
    window.putLe32(within(DATA, IO_INTERRUPT_DATA.maximum), requirement.maximum, at)
    return
  }
  const type = requirement.kind === 'memory' ? ResourceType.MEMORY : ResourceType.PORT
  window.putU8(IO_RESOURCE_DESCRIPTOR.type, type, at)
  window.putU8(IO_RESOURCE_DESCRIPTOR.shareDisposition, ShareDisposition.DEVICE_EXCLUSIVE, at)
  window.putLe32(within(DATA, IO_RANGE_DATA.lengthBytes), requirement.lengthBytes, at)
  window.putLe32(within(DATA, IO_RANGE_DATA.alignment), requirement.alignment, at)
  window.putLe64(within(DATA, IO_RANGE_DATA.minimum), requirement.minimum, at)
  window.putLe64(within(DATA, IO_RANGE_DATA.maximum), requirement.maximum, at)
}

/** The lists at `at` (0: none); null when they reach past their pool block or hold a type that is not served. */
export function readRequirements(parts: ListParts, at: number): RequirementLists | null {
  if (at === 0) return []
  const { pool, memory } = parts
  const end = at + pool.lengthOf(at)
  if (!(at + IO_RESOURCE_REQUIREMENTS_LIST.$size <= end)) return null
  const lists: Requirement[][] = []
  const count = memory.window.le32(IO_RESOURCE_REQUIREMENTS_LIST.alternativeLists, at)
  let next = at + IO_RESOURCE_REQUIREMENTS_LIST.$size
  for (let index = 0; index < count; index++) {
    if (!(next + IO_RESOURCE_LIST.$size <= end)) return null
    const descriptors = memory.window.le32(IO_RESOURCE_LIST.count, next)
    next += IO_RESOURCE_LIST.$size
    if (!(next + descriptors * DESCRIPTOR_BYTES <= end)) return null
    const list: Requirement[] = []
    for (let each = 0; each < descriptors; each++) {
      const requirement = readRequirement(parts, next)
      if (requirement === null) return null
      list.push(requirement)
      next += DESCRIPTOR_BYTES
    }
    lists.push(list)
  }
  return lists
}

function readRequirement({ memory: { window } }: ListParts, at: number): Requirement | null {
  const option = window.u8(IO_RESOURCE_DESCRIPTOR.option, at)
  const alternative = (option & ResourceOption.ALTERNATIVE) !== 0
  const preferred = (option & ResourceOption.PREFERRED) !== 0
  const type = window.u8(IO_RESOURCE_DESCRIPTOR.type, at)
  if (type === ResourceType.INTERRUPT) {
    return {
      kind: 'interrupt',
      alternative,
      preferred,
      minimum: window.le32(within(DATA, IO_INTERRUPT_DATA.minimum), at),
      maximum: window.le32(within(DATA, IO_INTERRUPT_DATA.maximum), at),
      trigger: triggerOf(window.le16(IO_RESOURCE_DESCRIPTOR.flags, at)),
      shared: window.u8(IO_RESOURCE_DESCRIPTOR.shareDisposition, at) === ShareDisposition.SHARED,
    }
  }
  if (type !== ResourceType.MEMORY && type !== ResourceType.PORT) return null
  return {
    kind: type === ResourceType.MEMORY ? 'memory' : 'port',
    alternative,
    preferred,
    lengthBytes: window.le32(within(DATA, IO_RANGE_DATA.lengthBytes), at),
    alignment: window.le32(within(DATA, IO_RANGE_DATA.alignment), at),
    minimum: window.le64(within(DATA, IO_RANGE_DATA.minimum), at),
    maximum: window.le64(within(DATA, IO_RANGE_DATA.maximum), at),
  }
}
