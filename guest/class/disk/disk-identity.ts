import {
  CachingPage,
  InquiryData,
  ModeFlag,
  ModeHeader6,
  ModePage,
  ReadCapacity10,
  ReadCapacity16,
  Vpd,
  VpdBlockLimits,
  VpdProvisioning,
} from '../../../protocol/scsi.ts'
import { Window } from '../../../protocol/window.ts'
import { NtStatus, ntSuccess } from '../../kernel/nt-status.ts'
import type { Waiting } from '../../kernel/thread.ts'
import { Cdb } from './cdb.ts'
import type { Disk } from './disk.ts'

/** What a disk said of itself, checked. */
export interface DiskCapacity {
  readonly sectors: number
  readonly sectorBytes: number
  readonly physicalSectorBytes: number
  readonly alignmentOffsetBytes: number
}

export interface DiskFacts extends DiskCapacity {
  readonly removable: boolean
  readonly readOnly: boolean
  readonly writeCache: boolean
  /** A write may pass the cache by (FUA). */
  readonly forcesUnitAccess: boolean
  /** Blocks and ranges of one UNMAP; 0: the disk cannot. */
  readonly unmapBlocksMax: number
  readonly unmapRangesMax: number
}

export const UNKNOWN_DISK: DiskFacts = {
  sectors: 0,
  sectorBytes: 512,
  physicalSectorBytes: 512,
  alignmentOffsetBytes: 0,
  removable: false,
  readOnly: false,
  writeCache: false,
  forcesUnitAccess: false,
  unmapBlocksMax: 0,
  unmapRangesMax: 0,
}

const MODE_BYTES = 192
const WRITE_CACHE = 4
const REMOVABLE = 0x80
const UNMAPS = 0x80
const CAPACITY_10_FULL = 0xffff_ffff
const SECTOR_BYTES_MAX = 0x1_0000

/** INQUIRY: whether there is a disk, and whether its medium can be taken out. */
export function* inquire(disk: Disk): Waiting<NtStatus | { readonly removable: boolean }> {
  const { status, data } = yield* disk.command({
    cdb: (cdb, base) => Cdb.inquiry(cdb, base, null, InquiryData.$size),
    data: InquiryData.$size,
  })
  if (!ntSuccess(status)) return status
  if (data.length < InquiryData.$size || (data[0] ?? 0xff) !== 0) return NtStatus.NO_SUCH_DEVICE
  return { removable: ((data[1] ?? 0) & REMOVABLE) !== 0 }
}

/** READ CAPACITY (10), then (16), which an old disk need not know unless its size does not fit in (10). */
export function* readCapacity(disk: Disk): Waiting<NtStatus | DiskCapacity> {
  const short = yield* disk.command({ cdb: Cdb.readCapacity10, data: ReadCapacity10.$size })
  if (!ntSuccess(short.status)) return short.status
  if (short.data.length < ReadCapacity10.$size) return NtStatus.UNRECOGNIZED_MEDIA
  const ten = new Window(short.data)
  const lastLba = ten.be32(ReadCapacity10.lastLba)
  const long = yield* disk.command({
    cdb: (cdb, base) => Cdb.readCapacity16(cdb, base, ReadCapacity16.$size),
    data: ReadCapacity16.$size,
  })
  if (long.status === NtStatus.INSUFFICIENT_RESOURCES) return long.status
  const known = ntSuccess(long.status) && long.data.length === ReadCapacity16.$size
  if (!known) {
    if (lastLba === CAPACITY_10_FULL) {
      return ntSuccess(long.status) ? NtStatus.UNRECOGNIZED_MEDIA : long.status
    }
    return checked(lastLba, ten.be32(ReadCapacity10.blockBytes), 0, 0)
  }
  const sixteen = new Window(long.data)
  return checked(
    lastLba === CAPACITY_10_FULL ? sixteen.be64(ReadCapacity16.lastLba) : lastLba,
    ten.be32(ReadCapacity10.blockBytes),
    sixteen.u8(ReadCapacity16.exponents) & 0xf,
    sixteen.be16(ReadCapacity16.alignment) & 0x3fff,
  )
}

/** A size is a stranger's: blocks of a power of two, and a length whose bytes can be counted. */
function checked(
  lastLba: number,
  sectorBytes: number,
  exponent: number,
  alignedLba: number,
): DiskCapacity | NtStatus {
  const isSize =
    sectorBytes >= 512 && sectorBytes <= SECTOR_BYTES_MAX && (sectorBytes & (sectorBytes - 1)) === 0
  if (!isSize) return NtStatus.UNRECOGNIZED_MEDIA
  const sectors = lastLba + 1
  if (!(sectors * sectorBytes <= Number.MAX_SAFE_INTEGER)) return NtStatus.UNRECOGNIZED_MEDIA
  return {
    sectors,
    sectorBytes,
    physicalSectorBytes: sectorBytes * 2 ** exponent,
    alignmentOffsetBytes: alignedLba * sectorBytes,
  }
}

/**
 * MODE SENSE (6): write protection, the cache, and whether writes can pass it. A disk without it has none; a
 * status when memory is short, which says nothing of the disk.
 */
export function* readModes(
  disk: Disk,
): Waiting<NtStatus | Pick<DiskFacts, 'readOnly' | 'writeCache' | 'forcesUnitAccess'>> {
  const { status, data } = yield* disk.command({
    cdb: (cdb, base) => Cdb.modeSense(cdb, base, MODE_BYTES),
    data: MODE_BYTES,
  })
  if (status === NtStatus.INSUFFICIENT_RESOURCES) return status
  const none = { readOnly: false, writeCache: false, forcesUnitAccess: false }
  if (!ntSuccess(status) || data.length < ModeHeader6.$size) return none
  const header = new Window(data)
  const specific = header.u8(ModeHeader6.deviceSpecific)
  const page = ModeHeader6.$size + header.u8(ModeHeader6.descriptorBytes)
  const told = page + (CachingPage.flags as number) < data.length
  const caching = told && (header.u8(CachingPage.page, page) & 0x3f) === ModePage.CACHING
  return {
    readOnly: (specific & ModeFlag.WRITE_PROTECT) !== 0,
    writeCache: caching && (header.u8(CachingPage.flags, page) & WRITE_CACHE) !== 0,
    forcesUnitAccess: (specific & ModeFlag.DPOFUA) !== 0,
  }
}

/** Whether the disk unmaps, and how much at once: pages B2 and B0. A status when memory is short. */
export function* readProvisioning(
  disk: Disk,
): Waiting<NtStatus | Pick<DiskFacts, 'unmapBlocksMax' | 'unmapRangesMax'>> {
  const none = { unmapBlocksMax: 0, unmapRangesMax: 0 }
  const provisioning = yield* page(disk, Vpd.PROVISIONING, VpdProvisioning.$size)
  if (typeof provisioning === 'number') return provisioning
  if (provisioning === null || (provisioning.u8(VpdProvisioning.flags) & UNMAPS) === 0) return none
  const limits = yield* page(disk, Vpd.BLOCK_LIMITS, VpdBlockLimits.$size)
  if (typeof limits === 'number') return limits
  if (limits === null) return none
  return {
    unmapBlocksMax: limits.be32(VpdBlockLimits.unmapBlocksMax),
    unmapRangesMax: limits.be32(VpdBlockLimits.unmapDescriptorsMax),
  }
}

/** A vital product data page of at least so many bytes, or null. */
function* page(disk: Disk, which: number, lengthBytes: number): Waiting<Window | NtStatus | null> {
  const { status, data } = yield* disk.command({
    cdb: (cdb, base) => Cdb.inquiry(cdb, base, which, lengthBytes),
    data: lengthBytes,
  })
  if (status === NtStatus.INSUFFICIENT_RESOURCES) return status
  return ntSuccess(status) && data.length === lengthBytes && data[1] === which ? new Window(data) : null
}
