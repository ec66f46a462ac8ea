import type { Window } from '../../../protocol/window.ts'
import { NtStatus } from '../../kernel/nt-status.ts'
import type { Disk } from './disk.ts'
import { answered, type Control, type ControlAnswer } from './disk-control.ts'
import {
  DISK_DETECTION_INFO,
  DISK_GEOMETRY,
  DISK_GEOMETRY_EX,
  DISK_PARTITION_INFO,
  DRIVE_LAYOUT_INFORMATION_EX,
  GEOMETRY_EX_FIXED_BYTES,
  MediaType,
  PARTITION_INFORMATION,
  PARTITION_INFORMATION_EX,
  PARTITION_INFORMATION_GPT,
  PARTITION_INFORMATION_MBR,
  PartitionStyleCode,
} from './ioctl.ts'
import type { Partition, PartitionTable } from './partition-table.ts'

/** The geometry every disk without one is given. */
const TRACKS_PER_CYLINDER = 255
const SECTORS_PER_TRACK = 63
/** Entries of a master boot record: an MBR layout has a multiple of them. */
const MBR_ENTRIES = 4
const NAME_UNITS = 36

/** DISK_GEOMETRY at the start of the buffer; its bytes. */
export function geometry({ disk, window, at }: Control): number {
  const { sectors, sectorBytes, removable } = disk.facts
  window.fill(0, at, DISK_GEOMETRY.$size)
  const cylinders = Math.floor(sectors / (TRACKS_PER_CYLINDER * SECTORS_PER_TRACK))
  window.putLe64(DISK_GEOMETRY.cylinders, cylinders, at)
  window.putLe32(DISK_GEOMETRY.mediaType, removable ? MediaType.REMOVABLE : MediaType.FIXED, at)
  window.putLe32(DISK_GEOMETRY.tracksPerCylinder, TRACKS_PER_CYLINDER, at)
  window.putLe32(DISK_GEOMETRY.sectorsPerTrack, SECTORS_PER_TRACK, at)
  window.putLe32(DISK_GEOMETRY.bytesPerSector, sectorBytes, at)
  return DISK_GEOMETRY.$size
}

/** DISK_GEOMETRY_EX, with as many of its two optional parts as there is room for. */
export function geometryEx(control: Control): number {
  const { disk, window, at, outputBytes } = control
  geometry(control)
  window.putLe64(DISK_GEOMETRY_EX.diskSize, disk.lengthBytes, at)
  const withPartition = GEOMETRY_EX_FIXED_BYTES + DISK_PARTITION_INFO.$size
  if (outputBytes < withPartition) return GEOMETRY_EX_FIXED_BYTES
  const partition = at + GEOMETRY_EX_FIXED_BYTES
  window.fill(0, partition, DISK_PARTITION_INFO.$size)
  window.putLe32(DISK_PARTITION_INFO.sizeOfPartitionInfo, DISK_PARTITION_INFO.$size, partition)
  window.putLe32(DISK_PARTITION_INFO.partitionStyle, styleOf(disk.table), partition)
  putDiskId(window, disk.table, partition + (DISK_PARTITION_INFO.diskId as number))
  if (outputBytes < DISK_GEOMETRY_EX.$size) return withPartition
  const detection = at + withPartition
  window.fill(0, detection, DISK_DETECTION_INFO.$size)
  window.putLe32(DISK_DETECTION_INFO.sizeOfDetectInfo, DISK_DETECTION_INFO.$size, detection)
  return DISK_GEOMETRY_EX.$size
}

/** DRIVE_LAYOUT_INFORMATION_EX: BUFFER_TOO_SMALL without room for every entry. */
export function layoutEx({ disk, window, at, outputBytes }: Control): ControlAnswer {
  const { table } = disk
  const { partitions, style } = table
  const count = style === 'mbr' ? Math.ceil(partitions.length / MBR_ENTRIES) * MBR_ENTRIES : partitions.length
  const total = DRIVE_LAYOUT_INFORMATION_EX.$size + count * PARTITION_INFORMATION_EX.$size
  if (outputBytes < total) return answered(NtStatus.BUFFER_TOO_SMALL)
  window.fill(0, at, total)
  window.putLe32(DRIVE_LAYOUT_INFORMATION_EX.partitionStyle, styleOf(table), at)
  window.putLe32(DRIVE_LAYOUT_INFORMATION_EX.partitionCount, count, at)
  putDiskId(window, table, at + (DRIVE_LAYOUT_INFORMATION_EX.diskId as number))
  if (table.gpt !== null) {
    const { firstUsableBytes, usableBytes, entryCount } = table.gpt
    window.putLe64(DRIVE_LAYOUT_INFORMATION_EX.startingUsableOffset, firstUsableBytes, at)
    window.putLe64(DRIVE_LAYOUT_INFORMATION_EX.usableLength, usableBytes, at)
    window.putLe32(DRIVE_LAYOUT_INFORMATION_EX.maxPartitionCount, entryCount, at)
  }
  for (let index = 0; index < count; index++) {
    const entry = at + DRIVE_LAYOUT_INFORMATION_EX.$size + index * PARTITION_INFORMATION_EX.$size
    putPartitionEx(window, disk, partitions[index] ?? null, entry)
  }
  return answered(NtStatus.SUCCESS, total)
}

/** PARTITION_INFORMATION, of a partition or (null) the disk; an error on a GPT disk, which it cannot describe. */
export function partitionInfo({ disk, window, at }: Control, partition: Partition | null): number | NtStatus {
  if (disk.table.style === 'gpt' && partition !== null) return NtStatus.INVALID_DEVICE_REQUEST
  window.fill(0, at, PARTITION_INFORMATION.$size)
  const start = partition?.startBytes ?? 0
  window.putLe64(PARTITION_INFORMATION.startingOffset, start, at)
  window.putLe64(PARTITION_INFORMATION.partitionLength, partition?.lengthBytes ?? disk.lengthBytes, at)
  window.putLe32(PARTITION_INFORMATION.hiddenSectors, start / disk.facts.sectorBytes, at)
  window.putLe32(PARTITION_INFORMATION.partitionNumber, partition?.number ?? 0, at)
  if (partition !== null) {
    window.putU8(PARTITION_INFORMATION.partitionType, Number.parseInt(partition.type, 16), at)
    window.putU8(PARTITION_INFORMATION.bootIndicator, partition.active ? 1 : 0, at)
    window.putU8(PARTITION_INFORMATION.recognizedPartition, isRecognized(partition.type) ? 1 : 0, at)
  }
  return PARTITION_INFORMATION.$size
}

/** PARTITION_INFORMATION_EX, of a partition or (null) the disk. */
export function partitionInfoEx({ disk, window, at }: Control, partition: Partition | null): number {
  window.fill(0, at, PARTITION_INFORMATION_EX.$size)
  if (partition !== null) putPartitionEx(window, disk, partition, at)
  else {
    window.putLe32(PARTITION_INFORMATION_EX.partitionStyle, styleOf(disk.table), at)
    window.putLe64(PARTITION_INFORMATION_EX.partitionLength, disk.lengthBytes, at)
  }
  return PARTITION_INFORMATION_EX.$size
}

/** Into a zeroed record. */
function putPartitionEx(window: Window, disk: Disk, partition: Partition | null, at: number): void {
  window.putLe32(PARTITION_INFORMATION_EX.partitionStyle, styleOf(disk.table), at)
  if (partition === null) return
  window.putLe64(PARTITION_INFORMATION_EX.startingOffset, partition.startBytes, at)
  window.putLe64(PARTITION_INFORMATION_EX.partitionLength, partition.lengthBytes, at)
  window.putLe32(PARTITION_INFORMATION_EX.partitionNumber, partition.number, at)
  const base = at + (PARTITION_INFORMATION_EX.information as number)
  if (disk.table.style === 'gpt') {
    putGuid(window, partition.type, base + (PARTITION_INFORMATION_GPT.partitionType as number))
    if (partition.guid !== null) {
      putGuid(window, partition.guid, base + (PARTITION_INFORMATION_GPT.partitionId as number))
    }
    window.view.setBigUint64(base + PARTITION_INFORMATION_GPT.attributes, partition.attributes, true)
    for (let unit = 0; unit < Math.min(partition.name.length, NAME_UNITS); unit++) {
      const place = base + (PARTITION_INFORMATION_GPT.name as number) + unit * 2
      window.view.setUint16(place, partition.name.charCodeAt(unit), true)
    }
    return
  }
  window.putU8(PARTITION_INFORMATION_MBR.partitionType, Number.parseInt(partition.type, 16), base)
  window.putU8(PARTITION_INFORMATION_MBR.bootIndicator, partition.active ? 1 : 0, base)
  window.putU8(PARTITION_INFORMATION_MBR.recognizedPartition, isRecognized(partition.type) ? 1 : 0, base)
  const hidden = partition.startBytes / disk.facts.sectorBytes
  window.putLe32(PARTITION_INFORMATION_MBR.hiddenSectors, hidden, base)
}

function styleOf(table: PartitionTable): number {
  if (table.style === 'none') return PartitionStyleCode.RAW
  return table.style === 'mbr' ? PartitionStyleCode.MBR : PartitionStyleCode.GPT
}

function putDiskId(window: Window, { style, diskId }: PartitionTable, at: number): void {
  if (diskId === null) return
  if (style === 'gpt') putGuid(window, diskId, at)
  else window.view.setUint32(at, Number.parseInt(diskId, 16), true)
}

/** The first three groups little-endian, the rest as it is written. */
function putGuid(window: Window, guid: string, at: number): void {
  const [first = '', second = '', third = '', ...rest] = guid.split('-')
  window.view.setUint32(at, Number.parseInt(first, 16), true)
  window.view.setUint16(at + 4, Number.parseInt(second, 16), true)
  window.view.setUint16(at + 6, Number.parseInt(third, 16), true)
  const tail = rest.join('')
  for (let byte = 0; byte < 8; byte++) {
    window.view.setUint8(at + 8 + byte, Number.parseInt(tail.slice(byte * 2, byte * 2 + 2), 16))
  }
}

/** IsRecognizedPartition: file systems that Windows knows. */
function isRecognized(type: string): boolean {
  return RECOGNIZED.has(Number.parseInt(type, 16))
}
const RECOGNIZED: ReadonlySet<number> = new Set([0x01, 0x04, 0x06, 0x07, 0x0b, 0x0c, 0x0e])
