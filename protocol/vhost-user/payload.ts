import { bytes, le16, le32, le64, nested, struct, tail, u8 } from '../layout.ts'

/**
 * Payloads of vhost-user messages. Integers are in the byte order of the host (vhost-user, Message
 * Specification): declared little-endian here, which is the byte order of every host Paravane runs on.
 * `hostByteOrderRefused` says so on another.
 */
const MESSAGE = 'vhost-user, Message Specification'

/** One line that says why this host cannot speak, or null. */
export function hostByteOrderRefused(): string | null {
  const [first] = new Uint8Array(new Uint16Array([1]).buffer)
  return first === 1 ? null : 'vhost-user speaks in the byte order of the host; this host is big-endian'
}

/** The only version there is, in the low two bits of the flags. */
export const VHOST_USER_VERSION = 1
export const VHOST_USER_VERSION_MASK = 3

export const VhostUserFlag = { VERSION: VHOST_USER_VERSION, REPLY: 4, NEED_REPLY: 8 } as const

export const VhostUserHeader = struct('vhost_user_header', `${MESSAGE}, Header`, 12, {
  request: le32('what the message is; front-end and back-end count for themselves'),
  flags: le32('version in bits 0-1', { bits: VhostUserFlag }),
  size: le32('bytes of the payload'),
})

export const VhostUserU64 = struct('vhost_user_u64', `${MESSAGE}, A single 64-bit integer`, 8, {
  value: le64('features, a count, a status, or a ring with VhostUserRing bits'),
})

/** In the integer of SET_VRING_KICK, CALL and ERR. */
export const VhostUserRing = { INDEX_MASK: 0xff, NO_DESCRIPTOR: 0x100 } as const

export const VhostUserVringState = struct(
  'vhost_user_vring_state',
  `${MESSAGE}, A vring state description`,
  8,
  {
    index: le32('ring'),
    num: le32('size, position, or 1 to enable'),
  },
)

/** The ring asks for its used ring to be in the dirty log. */
export const VhostUserVringFlag = { LOG: 1 } as const

export const VhostUserVringAddress = struct(
  'vhost_user_vring_address',
  `${MESSAGE}, A vring address description`,
  40,
  {
    index: le32('ring'),
    flags: le32('how it is used', { bits: VhostUserVringFlag }),
    descriptor: le64('user address of the descriptor table'),
    used: le64('user address of the used ring'),
    available: le64('user address of the available ring'),
    log: le64('guest address of the used ring, for the dirty log', { when: 'LOG' }),
  },
)

export const VhostUserRegion = struct('vhost_user_region', `${MESSAGE}, Memory region description`, 32, {
  guest: le64('guest-physical address'),
  size: le64('bytes'),
  user: le64('address in the front-end'),
  offset: le64('where the region begins in what its descriptor names'),
})

export const VhostUserMemory = struct('vhost_user_memory', `${MESSAGE}, Multiple memory regions`, 8, {
  count: le32('regions, one descriptor each'),
  padding: le32('nothing'),
  regions: tail(VhostUserRegion, 'that many'),
})

/** Regions of one SET_MEM_TABLE, and descriptors of any message. */
export const VHOST_USER_REGIONS_MAX = 8

export const VhostUserSlot = struct('vhost_user_slot', `${MESSAGE}, Single memory region`, 40, {
  padding: le64('nothing'),
  region: nested(VhostUserRegion, 'added or removed'),
})

export const VhostUserLog = struct('vhost_user_log', `${MESSAGE}, Log description`, 16, {
  size: le64('bytes of the log, a bit a page of 4096'),
  offset: le64('where it begins in what its descriptor names'),
})

/** Each 4 KiB page is a bit of the dirty log. */
export const VHOST_LOG_PAGE_BYTES = 4096

export const VhostUserIotlbType = { MISS: 1, UPDATE: 2, INVALIDATE: 3, ACCESS_FAIL: 4 } as const
export const VhostUserAccess = { READ: 1, WRITE: 2 } as const

export const VhostUserIotlb = struct('vhost_user_iotlb', `${MESSAGE}, An IOTLB message`, 32, {
  iova: le64('address as the device says it'),
  size: le64('bytes'),
  user: le64('address in the front-end'),
  permission: u8('what may be done there', { bits: VhostUserAccess }),
  type: u8('what to do', { names: VhostUserIotlbType }),
  padding: bytes(6, 'nothing; some peers leave it out'),
})

/** Who writes configuration space. */
export const VhostUserConfigFlag = { DRIVER: 0, MIGRATION: 1 } as const

export const VhostUserConfig = struct('vhost_user_config', `${MESSAGE}, Virtio device config space`, 12, {
  offset: le32('first byte in configuration space'),
  size: le32('bytes; at most 256'),
  flags: le32('who writes', { names: VhostUserConfigFlag }),
  bytes: tail(u8('content'), 'that many'),
})

export const VHOST_USER_CONFIG_BYTES_MAX = 256

export const VhostUserVringArea = struct('vhost_user_vring_area', `${MESSAGE}, Vring area description`, 24, {
  ring: le64('ring, with VhostUserRing bits'),
  size: le64('bytes'),
  offset: le64('where the area begins in what its descriptor names'),
})

export const VhostUserInflight = struct('vhost_user_inflight', `${MESSAGE}, Inflight description`, 24, {
  size: le64('bytes of the shared buffer'),
  offset: le64('where it begins in what its descriptor names'),
  queues: le16('queues tracked'),
  queueSize: le16('entries of each'),
  padding: bytes(4, 'nothing; some peers leave it out'),
})

export const VhostUserUuid = struct('vhost_user_uuid', `${MESSAGE}, VhostUserShared`, 16, {
  uuid: bytes(16, 'of the shared object; its first three parts are big-endian'),
})

export const VhostUserDeviceState = struct(
  'vhost_user_device_state',
  `${MESSAGE}, Device state transfer parameters`,
  8,
  {
    direction: le32('which way', { names: { SAVE: 0, LOAD: 1 } }),
    phase: le32('when', { names: { STOPPED: 0 } }),
  },
)

export const VhostUserMapFlag = { WRITE: 1 } as const

export const VhostUserMap = struct('vhost_user_map', `${MESSAGE}, VIRTIO Shared Memory Region`, 40, {
  region: u8('shared memory region'),
  padding: bytes(7, 'nothing'),
  fileOffset: le64('in what the descriptor names'),
  regionOffset: le64('in the region'),
  size: le64('bytes'),
  flags: le64('how it is mapped', { bits: VhostUserMapFlag }),
})

export const VhostUserSharedRegions = struct(
  'vhost_user_shared_regions',
  `${MESSAGE}, VIRTIO Shared Memory Region Configuration`,
  8,
  {
    count: le32('regions there are'),
    padding: le32('nothing'),
    sizes: tail(le64('bytes of one region'), '256, by region'),
  },
)

export const VHOST_USER_SHARED_REGIONS = 256
