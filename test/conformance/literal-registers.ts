/** Registers, VIRTIO 1.2 section 4.2.2, written down again: a mistake in `protocol/` must not hide in both ends. */
export const R = {
  magic: 0x000,
  version: 0x004,
  deviceId: 0x008,
  vendorId: 0x00c,
  deviceFeatures: 0x010,
  deviceFeaturesSel: 0x014,
  driverFeatures: 0x020,
  driverFeaturesSel: 0x024,
  queueSel: 0x030,
  queueSizeMax: 0x034,
  queueSize: 0x038,
  queueReady: 0x044,
  queueNotify: 0x050,
  interruptStatus: 0x060,
  interruptAck: 0x064,
  status: 0x070,
  queueDesc: 0x080,
  queueDriver: 0x090,
  queueDevice: 0x0a0,
  shmSel: 0x0ac,
  queueReset: 0x0c0,
  generation: 0x0fc,
  config: 0x100,
} as const

/** ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, FAILED. */
export const ACK = 1
export const DRV = 2
export const DRIVER_OK = 4
export const FEATURES_OK = 8
export const FAILED = 128

export const NEXT = 1
export const WRITE = 2
export const INDIRECT = 4

export const T_IN = 0
export const T_OUT = 1
export const T_FLUSH = 4
export const T_GET_ID = 8
export const T_DISCARD = 11
export const T_WRITE_ZEROES = 13

export const S_OK = 0
export const S_IOERR = 1
export const S_UNSUPP = 2
/** What a status byte holds before the device writes one. */
export const S_NONE = 0xee

export const SECTOR = 512

/** A piece of a request: an address, a length, and WRITE when it is the device's to write. */
export interface Piece {
  readonly at: number
  readonly lengthBytes: number
  readonly flags: number
}
