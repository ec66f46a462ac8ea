import type { Irp } from '../../kernel/irp.ts'
import type { Kernel } from '../../kernel/kernel.ts'
import { NtStatus } from '../../kernel/nt-status.ts'
import type { PortConfiguration } from '../miniport.ts'
import {
  BusType,
  QUERY_PROPERTY,
  STORAGE_ADAPTER_DESCRIPTOR,
  STORAGE_DEVICE_DESCRIPTOR,
  STORAGE_PROPERTY_QUERY,
  StorageProperty,
  StorageQuery,
} from '../storage-property.ts'
import type { LogicalUnit } from './logical-unit.ts'

/** IRP_MJ_DEVICE_CONTROL at a unit's PDO: the two descriptors that only the port can give. */
export function controlUnit(
  kernel: Kernel,
  configuration: PortConfiguration,
  unit: LogicalUnit,
  irp: Irp,
): NtStatus {
  const { ioControlCode, inputBufferLengthBytes, outputBufferLengthBytes } = irp.current
  if (ioControlCode !== QUERY_PROPERTY) return complete(kernel, irp, NtStatus.INVALID_DEVICE_REQUEST)
  if (inputBufferLengthBytes < STORAGE_PROPERTY_QUERY.$size) {
    return complete(kernel, irp, NtStatus.INVALID_PARAMETER)
  }
  const { window, bytes } = kernel.parts.memory
  const property = window.le32(STORAGE_PROPERTY_QUERY.propertyId, irp.systemBuffer)
  const query = window.le32(STORAGE_PROPERTY_QUERY.queryType, irp.systemBuffer)
  const known = property === StorageProperty.DEVICE || property === StorageProperty.ADAPTER
  if (!known || (query !== StorageQuery.STANDARD && query !== StorageQuery.EXISTS)) {
    return complete(kernel, irp, NtStatus.NOT_SUPPORTED)
  }
  if (query === StorageQuery.EXISTS) return complete(kernel, irp, NtStatus.SUCCESS)
  const answer =
    property === StorageProperty.DEVICE ? deviceDescriptor(unit) : adapterDescriptor(configuration)
  const here = answer.subarray(0, outputBufferLengthBytes)
  bytes.set(here, irp.systemBuffer)
  return complete(kernel, irp, NtStatus.SUCCESS, here.length)
}

function complete(kernel: Kernel, irp: Irp, status: NtStatus, information = 0): NtStatus {
  irp.status = status
  irp.information = information
  kernel.ioCompleteRequest(irp)
  return status
}

/** STORAGE_DEVICE_DESCRIPTOR with the strings of INQUIRY behind it, each ended by a zero. */
export function deviceDescriptor(unit: LogicalUnit): Uint8Array {
  const { identity } = unit
  const fields = STORAGE_DEVICE_DESCRIPTOR
  const strings = [
    [fields.vendorIdOffset, identity?.vendor ?? ''],
    [fields.productIdOffset, identity?.product ?? ''],
    [fields.productRevisionOffset, identity?.revision ?? ''],
    [fields.serialNumberOffset, identity?.serial ?? ''],
  ] as const
  // They begin where the declared structure's one raw byte stands.
  const first = fields.rawDeviceProperties as number
  const rawBytes = strings.reduce((sum, [, text]) => sum + (text === '' ? 0 : text.length + 1), 0)
  const answer = new Uint8Array(Math.max(fields.$size, first + rawBytes))
  const view = new DataView(answer.buffer)
  view.setUint32(fields.version, fields.$size, true)
  view.setUint32(fields.size, answer.length, true)
  view.setUint8(fields.deviceType, identity?.deviceType ?? 0)
  view.setUint8(fields.removableMedia, identity?.removable === true ? 1 : 0)
  view.setUint8(fields.commandQueueing, 1)
  view.setUint32(fields.busType, BusType.SCSI, true)
  view.setUint32(fields.rawPropertiesLength, rawBytes, true)
  let at = first
  for (const [field, text] of strings) {
    if (text === '') continue
    view.setUint32(field, at, true)
    for (const letter of text) view.setUint8(at++, letter.charCodeAt(0))
    at++
  }
  return answer
}

/** STORAGE_ADAPTER_DESCRIPTOR: what FindAdapter settled. */
export function adapterDescriptor(configuration: PortConfiguration): Uint8Array {
  const fields = STORAGE_ADAPTER_DESCRIPTOR
  const answer = new Uint8Array(fields.$size)
  const view = new DataView(answer.buffer)
  view.setUint32(fields.version, fields.$size, true)
  view.setUint32(fields.size, fields.$size, true)
  view.setUint32(fields.maximumTransferLength, configuration.maximumTransferLength, true)
  view.setUint32(fields.maximumPhysicalPages, configuration.numberOfPhysicalBreaks, true)
  view.setUint32(fields.alignmentMask, configuration.alignmentMask, true)
  view.setUint8(fields.commandQueueing, 1)
  view.setUint8(fields.acceleratedTransfer, 1)
  view.setUint8(fields.busType, BusType.SCSI)
  return answer
}
