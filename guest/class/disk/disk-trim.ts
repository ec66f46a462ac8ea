import { UnmapDescriptor, UnmapHeader } from '../../../protocol/scsi.ts'
import { Window } from '../../../protocol/window.ts'
import { NtStatus, ntSuccess } from '../../kernel/nt-status.ts'
import type { Waiting } from '../../kernel/thread.ts'
import { Cdb, unmapListBytes } from './cdb.ts'
import { answered, type Control, type ControlAnswer } from './disk-control.ts'
import { DEVICE_DATA_SET_RANGE, DEVICE_MANAGE_DATA_SET_ATTRIBUTES, DsmAction } from './ioctl.ts'

const DSM = DEVICE_MANAGE_DATA_SET_ATTRIBUTES
const RANGE_BYTES = DEVICE_DATA_SET_RANGE.$size
const WHOLE_DISK = 1
/** Bytes of a list are a 16-bit number. */
const RANGES_MAX = Math.floor((0xffff - unmapListBytes(0)) / (unmapListBytes(1) - unmapListBytes(0)))

interface Extent {
  readonly lba: number
  readonly blocks: number
}

/** IOCTL_STORAGE_MANAGE_DATA_SET_ATTRIBUTES with the trim action, from Windows 7: SCSI UNMAP. */
export function* trim(control: Control): Waiting<ControlAnswer> {
  const { disk } = control
  if (!disk.kernel.version.trimIoctl) return answered(NtStatus.INVALID_DEVICE_REQUEST)
  const extents = extentsOf(control)
  if (!Array.isArray(extents)) return answered(extents as NtStatus)
  const { unmapBlocksMax, unmapRangesMax } = disk.facts
  if (!(unmapBlocksMax > 0 && unmapRangesMax > 0)) return answered(NtStatus.NOT_SUPPORTED)
  const most = Math.min(unmapRangesMax, RANGES_MAX)
  let list: Extent[] = []
  for (const extent of extents as Extent[]) {
    for (let done = 0; done < extent.blocks; ) {
      const blocks = Math.min(unmapBlocksMax, extent.blocks - done)
      list.push({ lba: extent.lba + done, blocks })
      done += blocks
      if (list.length < most) continue
      const status = yield* unmap(control, list)
      if (!ntSuccess(status)) return answered(status)
      list = []
    }
  }
  return answered(list.length === 0 ? NtStatus.SUCCESS : yield* unmap(control, list))
}

/** Whole sectors inside the ranges asked for: part of a sector still holds data. */
function extentsOf({ disk, window, at, inputBytes }: Control): readonly Extent[] | NtStatus {
  if (inputBytes < DSM.$size) return NtStatus.INVALID_PARAMETER
  if (window.le32(DSM.size, at) < DSM.$size) return NtStatus.INVALID_PARAMETER
  if (window.le32(DSM.action, at) !== DsmAction.TRIM) return NtStatus.NOT_SUPPORTED
  const { sectors, sectorBytes } = disk.facts
  if ((window.le32(DSM.flags, at) & WHOLE_DISK) !== 0) return [{ lba: 0, blocks: sectors }]
  const offset = window.le32(DSM.dataSetRangesOffset, at)
  const lengthBytes = window.le32(DSM.dataSetRangesLength, at)
  const described = offset >= DSM.$size && offset <= inputBytes && lengthBytes <= inputBytes - offset
  if (!described || lengthBytes === 0 || lengthBytes % RANGE_BYTES !== 0) return NtStatus.INVALID_PARAMETER
  const extents: Extent[] = []
  for (let range = at + offset; range < at + offset + lengthBytes; range += RANGE_BYTES) {
    const start = window.le64(DEVICE_DATA_SET_RANGE.startingOffset, range)
    const length = window.le64(DEVICE_DATA_SET_RANGE.lengthInBytes, range)
    if (!(start <= disk.lengthBytes && length <= disk.lengthBytes - start)) return NtStatus.INVALID_PARAMETER
    const first = Math.ceil(start / sectorBytes)
    const end = Math.floor((start + length) / sectorBytes)
    if (end > first) extents.push({ lba: first, blocks: end - first })
  }
  return extents
}

function* unmap({ disk }: Control, extents: readonly Extent[]): Waiting {
  const bytes = new Uint8Array(unmapListBytes(extents.length))
  const list = new Window(bytes)
  list.putBe16(UnmapHeader.lengthBytes, bytes.length - 2)
  list.putBe16(UnmapHeader.descriptorBytes, bytes.length - UnmapHeader.$size)
  for (const [index, { lba, blocks }] of extents.entries()) {
    const base = UnmapHeader.$size + index * UnmapDescriptor.$size
    list.putBe64(UnmapDescriptor.lba, lba, base)
    list.putBe32(UnmapDescriptor.blocks, blocks, base)
  }
  const { status } = yield* disk.command({
    cdb: (cdb, base) => Cdb.unmap(cdb, base, bytes.length),
    data: bytes,
    write: true,
  })
  return status
}
