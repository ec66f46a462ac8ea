import { bytes, le16, le32, le64, struct, u8 } from '../layout.ts'
import type { VirtioFeatureTable } from './features.ts'

/** Everything on the wire counts in these, whatever the block size. */
export const SECTOR_BYTES = 512

/** Block device features, VIRTIO 1.3 section 5.2.3. */
export const BlkFeature = {
  SIZE_MAX: { bit: 1, since: '1.0', meaning: 'largest segment is size_max bytes' },
  SEG_MAX: { bit: 2, since: '1.0', meaning: 'at most seg_max data segments a request' },
  GEOMETRY: { bit: 4, since: '1.0', meaning: 'legacy-style geometry' },
  RO: { bit: 5, since: '1.0', meaning: 'read-only' },
  BLK_SIZE: { bit: 6, since: '1.0', meaning: 'block size is blk_size bytes' },
  FLUSH: { bit: 9, since: '1.0', meaning: 'flush command' },
  TOPOLOGY: { bit: 10, since: '1.0', meaning: 'physical block size and I/O hints' },
  CONFIG_WCE: { bit: 11, since: '1.0', meaning: 'driver may switch the write cache' },
  MQ: { bit: 12, since: '1.2', meaning: 'more than one request queue' },
  DISCARD: { bit: 13, since: '1.1', meaning: 'discard command' },
  WRITE_ZEROES: { bit: 14, since: '1.1', meaning: 'write zeroes command' },
  LIFETIME: { bit: 15, since: '1.2', meaning: 'get lifetime command' },
  SECURE_ERASE: { bit: 16, since: '1.2', meaning: 'secure erase command' },
  ZONED: { bit: 17, since: '1.3', meaning: 'zoned storage' },
} as const satisfies VirtioFeatureTable

/** Request types, VIRTIO 1.3 section 5.2.6. */
export const BlkType = {
  IN: 0,
  OUT: 1,
  FLUSH: 4,
  GET_ID: 8,
  GET_LIFETIME: 10,
  DISCARD: 11,
  WRITE_ZEROES: 13,
  SECURE_ERASE: 14,
} as const

export const BlkStatus = { OK: 0, IOERR: 1, UNSUPP: 2 } as const

export const BlkRequest = struct('virtio_blk_req', 'VIRTIO 1.2 section 5.2.6', 16, {
  type: le32('what is asked', { names: BlkType }),
  reserved: le32('always zero', { reserved: true }),
  sector: le64('first 512-byte sector'),
})

/** The last writable byte of a request. */
export const BlkStatusByte = struct('virtio_blk_status', 'VIRTIO 1.2 section 5.2.6', 1, {
  status: u8('how it went', { names: BlkStatus }),
})

export const BlkSegmentFlag = { UNMAP: 1 } as const

/** One range of a discard, write zeroes or secure erase. */
export const BlkSegment = struct('virtio_blk_discard_write_zeroes', 'VIRTIO 1.2 section 5.2.6', 16, {
  sector: le64('first 512-byte sector'),
  num_sectors: le32('512-byte sectors'),
  flags: le32('unmap is defined for write zeroes only', { bits: BlkSegmentFlag }),
})

export const BlkLifetime = struct('virtio_blk_lifetime', 'VIRTIO 1.2 section 5.2.6', 6, {
  pre_eol_info: le16('0 undefined, 1 normal, 2 warning (80 %), 3 urgent (90 %)'),
  device_lifetime_est_typ_a: le16('0 undefined, else tenths used, 11 exceeded'),
  device_lifetime_est_typ_b: le16('0 undefined, else tenths used, 11 exceeded'),
})

/** Bytes of a GET_ID answer, padded with NUL, perhaps without one. */
export const BLK_ID_BYTES = 20

export const BlkConfig = struct(
  'virtio_blk_config',
  'VIRTIO 1.3 section 5.2.4',
  { '1.0': 33, '1.1': 60, '1.2': 72, '1.3': 96 },
  {
    capacity: le64('512-byte sectors'),
    size_max: le32('bytes of the largest segment', { when: 'SIZE_MAX' }),
    seg_max: le32('data segments a request', { when: 'SEG_MAX' }),
    cylinders: le16('geometry', { when: 'GEOMETRY' }),
    heads: u8('geometry', { when: 'GEOMETRY' }),
    sectors: u8('geometry', { when: 'GEOMETRY' }),
    blk_size: le32('bytes a block', { when: 'BLK_SIZE' }),
    physical_block_exp: u8('logical blocks a physical one, as a power of two', { when: 'TOPOLOGY' }),
    alignment_offset: u8('first aligned logical block', { when: 'TOPOLOGY' }),
    min_io_size: le16('suggested least I/O, in blocks', { when: 'TOPOLOGY' }),
    opt_io_size: le32('suggested largest I/O, in blocks', { when: 'TOPOLOGY' }),
    writeback: u8('1 write-back, 0 write-through; driver-writable', { when: 'CONFIG_WCE', access: 'RW' }),
    unused0: u8('zero', { reserved: true, since: '1.1' }),
    num_queues: le16('request queues', { when: 'MQ', since: '1.2' }),
    max_discard_sectors: le32('sectors a discard segment', { when: 'DISCARD', since: '1.1' }),
    max_discard_seg: le32('segments a discard', { when: 'DISCARD', since: '1.1' }),
    discard_sector_alignment: le32('sectors', { when: 'DISCARD', since: '1.1' }),
    max_write_zeroes_sectors: le32('sectors a write zeroes segment', { when: 'WRITE_ZEROES', since: '1.1' }),
    max_write_zeroes_seg: le32('segments a write zeroes', { when: 'WRITE_ZEROES', since: '1.1' }),
    write_zeroes_may_unmap: u8('1 if unmap may be honoured', { when: 'WRITE_ZEROES', since: '1.1' }),
    unused1: bytes(3, 'zero', { reserved: true, since: '1.1' }),
    max_secure_erase_sectors: le32('sectors an erase segment', { when: 'SECURE_ERASE', since: '1.2' }),
    max_secure_erase_seg: le32('segments an erase', { when: 'SECURE_ERASE', since: '1.2' }),
    secure_erase_sector_alignment: le32('sectors', { when: 'SECURE_ERASE', since: '1.2' }),
    zone_sectors: le32('sectors a zone', { when: 'ZONED', since: '1.3' }),
    max_open_zones: le32('zones', { when: 'ZONED', since: '1.3' }),
    max_active_zones: le32('zones', { when: 'ZONED', since: '1.3' }),
    max_append_sectors: le32('sectors', { when: 'ZONED', since: '1.3' }),
    write_granularity: le32('bytes', { when: 'ZONED', since: '1.3' }),
    model: u8('zone model', { when: 'ZONED', since: '1.3', names: { NONE: 0, HM: 1, HA: 2 } }),
    unused2: bytes(3, 'zero', { reserved: true, since: '1.3' }),
  },
)
