import type { DeviceObject } from '../device-object.ts'
import type { Irp } from '../irp.ts'
import type { KernelParts } from '../kernel-parts.ts'
import { NtStatus } from '../nt-status.ts'
import { PoolType } from '../pool.ts'
import { allocateRelations } from './device-relations.ts'
import { DEVICE_CAPABILITIES, PNP_BUS_INFORMATION } from './pnp-layout.ts'
import { BusQueryId, DeviceRelation, DeviceText, PnpMinor } from './pnp-minor.ts'
import { allocateText, allocateTextList } from './pool-text.ts'
import { allocateResourceList, RESOURCE_TAG, type Resource } from './resource-list.ts'
import { allocateRequirements, type RequirementLists } from './resource-requirements.ts'

/** What a bus driver knows of a device on its bus, as plain data. */
export interface PdoDescription {
  /** Without the instance: `ACPI\LNRO0005`. */
  readonly deviceId: string
  /** Unique among those with the same device ID on the bus; on the whole machine with UNIQUE_ID. */
  readonly instanceId: string
  /** Most specific first. */
  readonly hardwareIds: readonly string[]
  readonly compatibleIds?: readonly string[]
  readonly containerId?: string
  readonly description?: string
  readonly location?: string
  readonly capabilities?: {
    /** CapabilityFlag bits. */
    readonly flags?: number
    readonly address?: number
    readonly uiNumber?: number
  }
  /** What the device decodes already: its boot configuration. Raw. */
  readonly resources?: readonly Resource[]
  readonly requirements?: RequirementLists
  readonly bus?: { readonly guid: Uint8Array; readonly legacyBusType: number; readonly busNumber: number }
}

type AnswerParts = Pick<KernelParts, 'pool' | 'hal' | 'memory' | 'devices'>

/**
 * The queries of IRP_MJ_PNP that a PDO answers from what its bus knows: sets status and Information and says
 * true. False: not one of these, or nothing to tell; the bus driver completes it with the status it came with.
 */
export function answerPdoQuery(
  parts: AnswerParts,
  device: DeviceObject,
  description: PdoDescription,
  irp: Irp,
): boolean {
  const { minor, argument1 } = irp.current
  switch (minor) {
    case PnpMinor.QUERY_ID:
      return answerId(parts, description, argument1, irp)
    case PnpMinor.QUERY_DEVICE_TEXT: {
      const text = argument1 === DeviceText.DESCRIPTION ? description.description : description.location
      return (
        text !== undefined &&
        argument1 <= DeviceText.LOCATION_INFORMATION &&
        give(irp, allocateText(parts, text))
      )
    }
    case PnpMinor.QUERY_CAPABILITIES:
      return fillCapabilities(parts, description, irp)
    case PnpMinor.QUERY_RESOURCES:
      return (
        description.resources !== undefined && give(irp, allocateResourceList(parts, description.resources))
      )
    case PnpMinor.QUERY_RESOURCE_REQUIREMENTS:
      return (
        description.requirements !== undefined &&
        give(irp, allocateRequirements(parts, description.requirements))
      )
    case PnpMinor.QUERY_BUS_INFORMATION:
      return description.bus !== undefined && give(irp, allocateBusInformation(parts, description.bus))
    case PnpMinor.QUERY_DEVICE_RELATIONS:
      return argument1 === DeviceRelation.TARGET_DEVICE && give(irp, allocateRelations(parts, [device]))
    default:
      return false
  }
}

/** A pool block as the answer; 0 is one that could not be allocated. */
function give(irp: Irp, at: number): true {
  irp.status = at === 0 ? NtStatus.INSUFFICIENT_RESOURCES : NtStatus.SUCCESS
  irp.information = at
  return true
}

function answerId(parts: AnswerParts, description: PdoDescription, type: number, irp: Irp): boolean {
  switch (type) {
    case BusQueryId.DEVICE_ID:
      return give(irp, allocateText(parts, description.deviceId))
    case BusQueryId.INSTANCE_ID:
      return give(irp, allocateText(parts, description.instanceId))
    case BusQueryId.HARDWARE_IDS:
      return give(irp, allocateTextList(parts, description.hardwareIds))
    case BusQueryId.COMPATIBLE_IDS:
      return (
        description.compatibleIds !== undefined &&
        give(irp, allocateTextList(parts, description.compatibleIds))
      )
    case BusQueryId.CONTAINER_ID:
      return description.containerId !== undefined && give(irp, allocateText(parts, description.containerId))
    default:
      return false
  }
}

function fillCapabilities(parts: AnswerParts, description: PdoDescription, irp: Irp): boolean {
  const { window } = parts.memory
  const at = irp.current.argument1
  if (window.le16(DEVICE_CAPABILITIES.version, at) !== 1) return false
  const { flags = 0, address, uiNumber } = description.capabilities ?? {}
  window.putLe32(DEVICE_CAPABILITIES.flags, flags, at)
  if (address !== undefined) window.putLe32(DEVICE_CAPABILITIES.address, address, at)
  if (uiNumber !== undefined) window.putLe32(DEVICE_CAPABILITIES.uiNumber, uiNumber, at)
  irp.status = NtStatus.SUCCESS
  return true
}

function allocateBusInformation(parts: AnswerParts, bus: NonNullable<PdoDescription['bus']>): number {
  const at = parts.pool.allocate(PoolType.PAGED, PNP_BUS_INFORMATION.$size, RESOURCE_TAG, parts.hal.irql)
  if (at === 0) return 0
  const { window } = parts.memory
  window.copyIn(at + PNP_BUS_INFORMATION.busTypeGuid, bus.guid)
  window.putLe32(PNP_BUS_INFORMATION.legacyBusType, bus.legacyBusType, at)
  window.putLe32(PNP_BUS_INFORMATION.busNumber, bus.busNumber, at)
  return at
}
