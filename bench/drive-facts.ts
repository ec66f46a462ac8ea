import { guid } from '../guest/class/disk/gpt.ts'
import {
  DISK_GEOMETRY,
  DRIVE_LAYOUT_INFORMATION_EX,
  GET_LENGTH_INFORMATION,
  Ioctl,
  PARTITION_INFORMATION_EX,
  PARTITION_INFORMATION_GPT,
  PARTITION_INFORMATION_MBR,
  PartitionStyleCode,
} from '../guest/class/disk/ioctl.ts'
import { NtStatus, ntStatusName, ntSuccess } from '../guest/kernel/nt-status.ts'
import type { Waiting } from '../guest/kernel/thread.ts'
import {
  DEVICE_BOOLEAN_DESCRIPTOR,
  STORAGE_DEVICE_DESCRIPTOR,
  STORAGE_PROPERTY_QUERY,
  StorageProperty,
} from '../guest/port/storage-property.ts'
import { type User, UserFile } from '../guest/user.ts'
import { Window } from '../protocol/window.ts'
import { partitionTypeName } from './partition-type.ts'

/** A partition as the guest's class driver tells of it. */
export interface PartitionReport {
  /** From 1. */
  readonly number: number
  /** First sector of the disk's own size, and how many. */
  readonly start: number
  readonly sectors: number
  readonly lengthBytes: number
  /** `83`, or a GUID. */
  readonly type: string
  /** What is usually there; null for a type that few have heard of. */
  readonly typeName: string | null
  /** GPT only: what the table calls it, and which it is. */
  readonly name: string
  readonly guid: string | null
  /** MBR: marked to boot from. */
  readonly active: boolean
}

/** A partition table as the guest's class driver tells of it (DRIVE_LAYOUT_INFORMATION_EX). */
export interface LayoutReport {
  readonly style: 'mbr' | 'gpt' | 'none'
  /** MBR: 8 hexadecimal digits; GPT: a GUID; null without a table. */
  readonly diskId: string | null
  readonly partitions: readonly PartitionReport[]
}

/** A drive as an application learns of it. */
export interface DriveFacts {
  readonly lengthBytes: number
  readonly sectorBytes: number
  readonly serial: string
  readonly readOnly: boolean
  /** Windows 7, and a disk that can. */
  readonly trims: boolean
  readonly layout: LayoutReport
}

const NOTHING = new Uint8Array(0)
const LAYOUT_BYTES = 16_384
const LAYOUT_BYTES_MAX = 4 * 1024 * 1024
const DEVICE_BYTES = 1024
const NAME_UNITS = 36

/** Asks drive `number` what it is. A text: one line that says what it would not tell. */
export function* driveFacts(user: User, number: number): Waiting<DriveFacts | string> {
  const file = yield* user.open(`\\\\.\\PhysicalDrive${number}`, { write: false })
  if (!(file instanceof UserFile)) return `it cannot be opened: ${ntStatusName(file)}`
  const facts = yield* ask(file)
  yield* file.close()
  return facts
}

function* ask(file: UserFile): Waiting<DriveFacts | string> {
  const length = yield* file.control(Ioctl.DISK_GET_LENGTH_INFO, NOTHING, GET_LENGTH_INFORMATION.$size)
  if (!ntSuccess(length.status)) return `its length is not known: ${ntStatusName(length.status)}`
  const geometry = yield* file.control(Ioctl.DISK_GET_DRIVE_GEOMETRY, NOTHING, DISK_GEOMETRY.$size)
  if (!ntSuccess(geometry.status)) return `its geometry is not known: ${ntStatusName(geometry.status)}`
  const sectorBytes = new Window(geometry.bytes).le32(DISK_GEOMETRY.bytesPerSector)
  const layout = yield* readLayout(file, sectorBytes)
  if (typeof layout === 'string') return layout
  const writable = yield* file.control(Ioctl.DISK_IS_WRITABLE, NOTHING, 0)
  return {
    lengthBytes: new Window(length.bytes).le64(GET_LENGTH_INFORMATION.length),
    sectorBytes,
    serial: yield* readSerial(file),
    readOnly: writable.status === NtStatus.MEDIA_WRITE_PROTECTED,
    trims: yield* readTrims(file),
    layout,
  }
}

/** Asked again with more room while there is too little, as applications do. */
function* readLayout(file: UserFile, sectorBytes: number): Waiting<LayoutReport | string> {
  let room = LAYOUT_BYTES
  let answer = yield* file.control(Ioctl.DISK_GET_DRIVE_LAYOUT_EX, NOTHING, room)
  while (answer.status === NtStatus.BUFFER_TOO_SMALL && room < LAYOUT_BYTES_MAX) {
    room *= 4
    answer = yield* file.control(Ioctl.DISK_GET_DRIVE_LAYOUT_EX, NOTHING, room)
  }
  if (!ntSuccess(answer.status)) return `its partitions are not known: ${ntStatusName(answer.status)}`
  return layoutOf(answer.bytes, sectorBytes)
}

/** @param bytes a DRIVE_LAYOUT_INFORMATION_EX with its entries. */
export function layoutOf(bytes: Uint8Array<ArrayBuffer>, sectorBytes: number): LayoutReport {
  const layout = new Window(bytes)
  const style = layout.le32(DRIVE_LAYOUT_INFORMATION_EX.partitionStyle)
  if (style === PartitionStyleCode.RAW) return { style: 'none', diskId: null, partitions: [] }
  const isGpt = style === PartitionStyleCode.GPT
  const idAt = DRIVE_LAYOUT_INFORMATION_EX.diskId as number
  const partitions: PartitionReport[] = []
  const count = layout.le32(DRIVE_LAYOUT_INFORMATION_EX.partitionCount)
  for (let index = 0; index < count; index++) {
    const at = DRIVE_LAYOUT_INFORMATION_EX.$size + index * PARTITION_INFORMATION_EX.$size
    const lengthBytes = layout.le64(PARTITION_INFORMATION_EX.partitionLength, at)
    // An MBR has four entries, used or not.
    if (lengthBytes === 0) continue
    const base = at + (PARTITION_INFORMATION_EX.information as number)
    const kind = isGpt ? gptEntry(bytes, layout, base) : mbrEntry(layout, base)
    partitions.push({
      number: layout.le32(PARTITION_INFORMATION_EX.partitionNumber, at),
      start: layout.le64(PARTITION_INFORMATION_EX.startingOffset, at) / sectorBytes,
      sectors: lengthBytes / sectorBytes,
      lengthBytes,
      ...kind,
      typeName: partitionTypeName(kind.type),
    })
  }
  const diskId = isGpt ? guid(bytes, idAt) : hex(layout.view.getUint32(idAt, true), 8)
  return { style: isGpt ? 'gpt' : 'mbr', diskId, partitions }
}

function gptEntry(bytes: Uint8Array, layout: Window, base: number) {
  let name = ''
  for (let unit = 0; unit < NAME_UNITS; unit++) {
    const code = layout.view.getUint16(base + (PARTITION_INFORMATION_GPT.name as number) + unit * 2, true)
    if (code === 0) break
    name += String.fromCharCode(code)
  }
  const type = guid(bytes, base + (PARTITION_INFORMATION_GPT.partitionType as number))
  const own = guid(bytes, base + (PARTITION_INFORMATION_GPT.partitionId as number))
  return { type, name, guid: own, active: false }
}

function mbrEntry(layout: Window, base: number) {
  const type = hex(layout.u8(PARTITION_INFORMATION_MBR.partitionType, base), 2)
  const active = layout.u8(PARTITION_INFORMATION_MBR.bootIndicator, base) !== 0
  return { type, name: '', guid: null, active }
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0')
}

function* readSerial(file: UserFile): Waiting<string> {
  const { status, bytes } = yield* query(file, StorageProperty.DEVICE, DEVICE_BYTES)
  if (!ntSuccess(status) || bytes.length < STORAGE_DEVICE_DESCRIPTOR.$size) return ''
  const at = new Window(bytes).le32(STORAGE_DEVICE_DESCRIPTOR.serialNumberOffset)
  if (at === 0 || !(at < bytes.length)) return ''
  const end = bytes.indexOf(0, at)
  return String.fromCharCode(...bytes.subarray(at, end < 0 ? bytes.length : end)).trim()
}

function* readTrims(file: UserFile): Waiting<boolean> {
  const { status, bytes } = yield* query(file, StorageProperty.TRIM, DEVICE_BOOLEAN_DESCRIPTOR.$size)
  if (!ntSuccess(status) || bytes.length < DEVICE_BOOLEAN_DESCRIPTOR.$size) return false
  return new Window(bytes).u8(DEVICE_BOOLEAN_DESCRIPTOR.value) !== 0
}

function* query(file: UserFile, property: number, outputBytes: number) {
  const asked = new Uint8Array(STORAGE_PROPERTY_QUERY.$size)
  new Window(asked).putLe32(STORAGE_PROPERTY_QUERY.propertyId, property)
  return yield* file.control(Ioctl.STORAGE_QUERY_PROPERTY, asked, outputBytes)
}
