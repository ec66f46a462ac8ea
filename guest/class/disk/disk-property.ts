import { NtStatus } from '../../kernel/nt-status.ts'
import {
  DEVICE_BOOLEAN_DESCRIPTOR,
  STORAGE_ACCESS_ALIGNMENT_DESCRIPTOR,
  STORAGE_PROPERTY_QUERY,
  StorageProperty,
  StorageQuery,
} from '../../port/storage-property.ts'
import { answered, type Control, type ControlAnswer } from './disk-control.ts'

/**
 * IOCTL_STORAGE_QUERY_PROPERTY: what the class driver itself knows. The device's and the adapter's descriptor
 * are the port's: null sends the request on.
 */
export function queryProperty(control: Control): ControlAnswer | null {
  const { disk, window, at, inputBytes } = control
  if (inputBytes < STORAGE_PROPERTY_QUERY.$size) return answered(NtStatus.INVALID_PARAMETER)
  const property = window.le32(STORAGE_PROPERTY_QUERY.propertyId, at)
  const query = window.le32(STORAGE_PROPERTY_QUERY.queryType, at)
  // Version 6.0 knows the alignment, 6.1 trim; earlier ones leave both to the port, which does not.
  const { major, trimIoctl } = disk.kernel.version
  const own =
    (property === StorageProperty.ACCESS_ALIGNMENT && major >= 6) ||
    (property === StorageProperty.TRIM && trimIoctl)
  if (!own) return null
  if (query === StorageQuery.EXISTS) return answered(NtStatus.SUCCESS)
  if (query !== StorageQuery.STANDARD) return answered(NtStatus.NOT_SUPPORTED)
  const { facts } = disk
  if (property === StorageProperty.TRIM) {
    const bytes = new Uint8Array(DEVICE_BOOLEAN_DESCRIPTOR.$size)
    const view = descriptor(bytes)
    view.setUint8(DEVICE_BOOLEAN_DESCRIPTOR.value, facts.unmapRangesMax > 0 ? 1 : 0)
    return cut(control, bytes)
  }
  const bytes = new Uint8Array(STORAGE_ACCESS_ALIGNMENT_DESCRIPTOR.$size)
  const view = descriptor(bytes)
  const { bytesPerLogicalSector, bytesPerPhysicalSector, bytesOffsetForSectorAlignment } =
    STORAGE_ACCESS_ALIGNMENT_DESCRIPTOR
  view.setUint32(bytesPerLogicalSector, facts.sectorBytes, true)
  view.setUint32(bytesPerPhysicalSector, facts.physicalSectorBytes, true)
  view.setUint32(bytesOffsetForSectorAlignment, facts.alignmentOffsetBytes, true)
  return cut(control, bytes)
}

/** Version and size, the first two fields of them all. */
function descriptor(bytes: Uint8Array<ArrayBuffer>): DataView {
  const view = new DataView(bytes.buffer)
  view.setUint32(0, bytes.length, true)
  view.setUint32(4, bytes.length, true)
  return view
}

/** As much of it as there is room for: an application asks for the header first. */
function cut({ disk, at, outputBytes }: Control, bytes: Uint8Array): ControlAnswer {
  const here = bytes.subarray(0, outputBytes)
  disk.kernel.parts.memory.bytes.set(here, at)
  return answered(NtStatus.SUCCESS, here.length)
}
