import { be16, be32, be64, bytes, struct, tail, u8 } from './layout.ts'

/** Command codes a disk target serves, SPC-4 and SBC-3. */
export const ScsiOp = {
  TEST_UNIT_READY: 0x00,
  REQUEST_SENSE: 0x03,
  INQUIRY: 0x12,
  MODE_SELECT_6: 0x15,
  RESERVE_6: 0x16,
  RELEASE_6: 0x17,
  MODE_SENSE_6: 0x1a,
  START_STOP_UNIT: 0x1b,
  PREVENT_ALLOW_MEDIUM_REMOVAL: 0x1e,
  READ_CAPACITY_10: 0x25,
  READ_10: 0x28,
  WRITE_10: 0x2a,
  VERIFY_10: 0x2f,
  SYNCHRONIZE_CACHE_10: 0x35,
  UNMAP: 0x42,
  MODE_SELECT_10: 0x55,
  RESERVE_10: 0x56,
  RELEASE_10: 0x57,
  MODE_SENSE_10: 0x5a,
  READ_16: 0x88,
  WRITE_16: 0x8a,
  VERIFY_16: 0x8f,
  SYNCHRONIZE_CACHE_16: 0x91,
  WRITE_SAME_16: 0x93,
  SERVICE_ACTION_IN_16: 0x9e,
  REPORT_LUNS: 0xa0,
} as const

/** Service actions of SERVICE ACTION IN (16), SBC-3. */
export const ServiceAction = { READ_CAPACITY_16: 0x10 } as const

/** SAM-5 status codes. */
export const ScsiStatus = {
  GOOD: 0x00,
  CHECK_CONDITION: 0x02,
  CONDITION_MET: 0x04,
  BUSY: 0x08,
  RESERVATION_CONFLICT: 0x18,
  TASK_SET_FULL: 0x28,
} as const

export const SenseKey = {
  NO_SENSE: 0x0,
  RECOVERED_ERROR: 0x1,
  NOT_READY: 0x2,
  MEDIUM_ERROR: 0x3,
  HARDWARE_ERROR: 0x4,
  ILLEGAL_REQUEST: 0x5,
  UNIT_ATTENTION: 0x6,
  DATA_PROTECT: 0x7,
  BLANK_CHECK: 0x8,
  ABORTED_COMMAND: 0xb,
} as const

/** Additional sense codes, the qualifier in the low byte. */
export const Asc = {
  NONE: 0x0000,
  NOT_READY: 0x0400,
  WRITE_ERROR: 0x0c00,
  UNRECOVERED_READ_ERROR: 0x1100,
  INVALID_OPERATION_CODE: 0x2000,
  LBA_OUT_OF_RANGE: 0x2100,
  INVALID_FIELD_IN_CDB: 0x2400,
  LOGICAL_UNIT_NOT_SUPPORTED: 0x2500,
  INVALID_FIELD_IN_PARAMETER_LIST: 0x2600,
  WRITE_PROTECTED: 0x2700,
  MEDIUM_CHANGED: 0x2800,
  POWER_ON_OR_RESET: 0x2900,
  CAPACITY_CHANGED: 0x2a09,
  MEDIUM_NOT_PRESENT: 0x3a00,
  INTERNAL_TARGET_FAILURE: 0x4400,
} as const

const PACKED = { packed: true } as const

/** Bit 3 of READ's and WRITE's second byte: to or from the medium itself. */
export const RwFlag = { FUA: 8, DPO: 16 } as const

export const Cdb6 = struct(
  'scsi_cdb_6',
  'SPC-4, six-byte commands',
  6,
  {
    opcode: u8('command', { names: ScsiOp }),
    flags: u8('per command'),
    page: u8('INQUIRY and MODE SENSE: page; else reserved'),
    subpage: u8('MODE SENSE: subpage; INQUIRY: high half of the allocation length'),
    allocation: u8('bytes the initiator has room for, or sends'),
    control: u8('zero'),
  },
  PACKED,
)

export const InquiryCdb = struct(
  'scsi_inquiry_cdb',
  'SPC-4, INQUIRY command',
  6,
  {
    opcode: u8('0x12'),
    flags: u8('bit 0 asks for vital product data', { bits: { EVPD: 1 } }),
    page: u8('vital product data page'),
    allocation: be16('bytes the initiator has room for'),
    control: u8('zero'),
  },
  PACKED,
)

export const Cdb10 = struct(
  'scsi_cdb_10',
  'SBC-3, ten-byte commands',
  10,
  {
    opcode: u8('command', { names: ScsiOp }),
    flags: u8('per command; FUA and DPO of READ and WRITE'),
    lba: be32('first logical block'),
    group: u8('group number'),
    length: be16('logical blocks, or bytes of a parameter list'),
    control: u8('zero'),
  },
  PACKED,
)

export const ModeCdb10 = struct(
  'scsi_mode_cdb_10',
  'SPC-4, MODE SENSE (10) and MODE SELECT (10) commands',
  10,
  {
    opcode: u8('0x5a or 0x55'),
    flags: u8('MODE SENSE: no block descriptors; MODE SELECT: page format, save pages'),
    page: u8('page in bits 5:0, which values in bits 7:6'),
    subpage: u8('subpage'),
    reserved: bytes(3, 'zero', { reserved: true }),
    allocation: be16('bytes the initiator has room for, or sends'),
    control: u8('zero'),
  },
  PACKED,
)

export const Cdb16 = struct(
  'scsi_cdb_16',
  'SBC-3, sixteen-byte commands',
  16,
  {
    opcode: u8('command', { names: ScsiOp }),
    flags: u8('per command; the service action of SERVICE ACTION IN'),
    lba: be64('first logical block'),
    length: be32('logical blocks, or bytes the initiator has room for'),
    group: u8('group number'),
    control: u8('zero'),
  },
  PACKED,
)

export const ReportLunsCdb = struct(
  'scsi_report_luns_cdb',
  'SPC-4, REPORT LUNS command',
  12,
  {
    opcode: u8('0xa0'),
    reserved0: u8('zero', { reserved: true }),
    select: u8('which logical units'),
    reserved1: bytes(3, 'zero', { reserved: true }),
    allocation: be32('bytes the initiator has room for'),
    reserved2: u8('zero', { reserved: true }),
    control: u8('zero'),
  },
  PACKED,
)

export const ReportLunsData = struct(
  'scsi_report_luns_data',
  'SPC-4, REPORT LUNS parameter data',
  8,
  {
    lengthBytes: be32('bytes of the list'),
    reserved: be32('zero', { reserved: true }),
    luns: tail(be64('logical unit number'), 'eight bytes each'),
  },
  PACKED,
)

export const InquiryData = struct(
  'scsi_inquiry_data',
  'SPC-4, standard INQUIRY data',
  36,
  {
    peripheral: u8('qualifier in bits 7:5, device type in bits 4:0'),
    removable: u8('bit 7', { bits: { RMB: 0x80 } }),
    version: u8('5 for SPC-3, 6 for SPC-4'),
    format: u8('2 in bits 3:0, HISUP in bit 4'),
    additionalLength: u8('bytes after this one'),
    flags0: u8('protection, third-party copy'),
    flags1: u8('enclosure, multi-port'),
    flags2: u8('command queuing', { bits: { CMDQUE: 2, SYNC: 0x10 } }),
    vendor: bytes(8, 'ASCII, padded with spaces'),
    product: bytes(16, 'ASCII, padded with spaces'),
    revision: bytes(4, 'ASCII, padded with spaces'),
  },
  PACKED,
)

/** Vital product data pages. */
export const Vpd = {
  SUPPORTED: 0x00,
  SERIAL: 0x80,
  IDENTIFICATION: 0x83,
  BLOCK_LIMITS: 0xb0,
  CHARACTERISTICS: 0xb1,
  PROVISIONING: 0xb2,
} as const

export const VpdHeader = struct(
  'scsi_vpd_header',
  'SPC-4, vital product data',
  4,
  {
    peripheral: u8('as in the standard INQUIRY data'),
    page: u8('page', { names: Vpd }),
    lengthBytes: be16('bytes after this header'),
    content: tail(u8('byte'), 'page content'),
  },
  PACKED,
)

export const VpdBlockLimits = struct(
  'scsi_vpd_block_limits',
  'SBC-3, Block Limits VPD page',
  64,
  {
    peripheral: u8('as in the standard INQUIRY data'),
    page: u8('0xb0'),
    lengthBytes: be16('60'),
    flags: u8('bit 0: WRITE SAME of zero blocks is refused'),
    compareAndWriteBlocks: u8('largest COMPARE AND WRITE'),
    optimalGranularity: be16('blocks'),
    transferBlocksMax: be32('largest transfer, 0 if not limited'),
    transferBlocksOptimal: be32('blocks'),
    prefetchBlocksMax: be32('blocks'),
    unmapBlocksMax: be32('blocks of one UNMAP'),
    unmapDescriptorsMax: be32('descriptors of one UNMAP'),
    unmapGranularity: be32('blocks'),
    unmapAlignment: be32('first aligned block; bit 31 says it is valid'),
    writeSameBlocksMax: be64('largest WRITE SAME, 0 if not limited'),
    reserved: bytes(20, 'zero', { reserved: true }),
  },
  PACKED,
)

export const VpdCharacteristics = struct(
  'scsi_vpd_characteristics',
  'SBC-3, Block Device Characteristics VPD page',
  64,
  {
    peripheral: u8('as in the standard INQUIRY data'),
    page: u8('0xb1'),
    lengthBytes: be16('60'),
    rotationRate: be16('rotations a minute, 1 for a medium that does not rotate'),
    productType: u8('zero'),
    formFactor: u8('zero if not reported'),
    reserved: bytes(56, 'zero', { reserved: true }),
  },
  PACKED,
)

export const VpdProvisioning = struct(
  'scsi_vpd_provisioning',
  'SBC-3, Logical Block Provisioning VPD page',
  8,
  {
    peripheral: u8('as in the standard INQUIRY data'),
    page: u8('0xb2'),
    lengthBytes: be16('4'),
    thresholdExponent: u8('zero'),
    flags: u8('what unmaps, and how unmapped blocks read', {
      bits: { LBPU: 0x80, LBPWS: 0x40, LBPWS10: 0x20, LBPRZ: 4, ANC_SUP: 2, DP: 1 },
    }),
    type: u8('2 for thin provisioning'),
    thresholdPercent: u8('zero'),
  },
  PACKED,
)

export const ReadCapacity10 = struct(
  'scsi_read_capacity_10',
  'SBC-3, READ CAPACITY (10) parameter data',
  8,
  {
    lastLba: be32('last logical block; all ones when it does not fit'),
    blockBytes: be32('bytes a logical block'),
  },
  PACKED,
)

export const ReadCapacity16 = struct(
  'scsi_read_capacity_16',
  'SBC-3, READ CAPACITY (16) parameter data',
  32,
  {
    lastLba: be64('last logical block'),
    blockBytes: be32('bytes a logical block'),
    protection: u8('zero'),
    exponents: u8('bits 3:0: logical blocks a physical one, as a power of two'),
    alignment: be16('bit 15 LBPME, bit 14 LBPRZ, bits 13:0 lowest aligned block'),
    reserved: bytes(16, 'zero', { reserved: true }),
  },
  PACKED,
)

export const FixedSense = struct(
  'scsi_fixed_sense',
  'SPC-4, fixed format sense data',
  18,
  {
    response: u8('0x70 current; bit 7: information is valid'),
    segment: u8('obsolete'),
    key: u8('sense key in bits 3:0'),
    information: be32('the block in question'),
    additionalLength: u8('bytes after this one'),
    commandSpecific: be32('per command'),
    asc: u8('additional sense code'),
    ascq: u8('its qualifier'),
    fru: u8('field replaceable unit'),
    keySpecific: bytes(3, 'per sense key'),
  },
  PACKED,
)

/** Mode pages. */
export const ModePage = { CACHING: 0x08, EXCEPTIONS: 0x1c, ALL: 0x3f } as const
/** In a mode parameter header's device-specific byte. */
export const ModeFlag = { WRITE_PROTECT: 0x80, DPOFUA: 0x10 } as const

export const ModeHeader6 = struct(
  'scsi_mode_header_6',
  'SPC-4, mode parameter header (6)',
  4,
  {
    lengthBytes: u8('bytes after this one'),
    mediumType: u8('zero'),
    deviceSpecific: u8('write protection, DPO and FUA', { bits: ModeFlag }),
    descriptorBytes: u8('bytes of block descriptors'),
  },
  PACKED,
)

export const ModeHeader10 = struct(
  'scsi_mode_header_10',
  'SPC-4, mode parameter header (10)',
  8,
  {
    lengthBytes: be16('bytes after this field'),
    mediumType: u8('zero'),
    deviceSpecific: u8('write protection, DPO and FUA', { bits: ModeFlag }),
    longLba: u8('bit 0'),
    reserved: u8('zero', { reserved: true }),
    descriptorBytes: be16('bytes of block descriptors'),
  },
  PACKED,
)

export const CachingPage = struct(
  'scsi_caching_page',
  'SBC-3, Caching mode page',
  20,
  {
    page: u8('0x08'),
    lengthBytes: u8('18'),
    flags: u8('caches', { bits: { WCE: 4, RCD: 1 } }),
    retention: u8('zero'),
    prefetchDisable: be16('blocks'),
    prefetchMin: be16('blocks'),
    prefetchMax: be16('blocks'),
    prefetchCeiling: be16('blocks'),
    flags1: u8('zero'),
    segments: u8('cache segments'),
    segmentBytes: be16('bytes'),
    reserved: u8('zero', { reserved: true }),
    obsolete: bytes(3, 'zero'),
  },
  PACKED,
)

export const ExceptionsPage = struct(
  'scsi_exceptions_page',
  'SPC-4, Informational Exceptions Control mode page',
  12,
  {
    page: u8('0x1c'),
    lengthBytes: u8('10'),
    flags: u8('zero'),
    method: u8('how exceptions are reported'),
    interval: be32('tenths of a second'),
    count: be32('reports'),
  },
  PACKED,
)

export const UnmapHeader = struct(
  'scsi_unmap_header',
  'SBC-3, UNMAP parameter list',
  8,
  {
    lengthBytes: be16('bytes after this field'),
    descriptorBytes: be16('bytes of descriptors'),
    reserved: be32('zero', { reserved: true }),
  },
  PACKED,
)

export const UnmapDescriptor = struct(
  'scsi_unmap_descriptor',
  'SBC-3, UNMAP block descriptor',
  16,
  {
    lba: be64('first logical block'),
    blocks: be32('logical blocks'),
    reserved: be32('zero', { reserved: true }),
  },
  PACKED,
)
