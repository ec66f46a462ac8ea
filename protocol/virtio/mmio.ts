import { le32, struct } from '../layout.ts'

export const MMIO_MAGIC = 0x7472_6976
export const MMIO_VERSION = 2
/** Bytes a device takes on the bus: control registers and 256 bytes of configuration. */
export const MMIO_RANGE_BYTES = 0x200
/** Where the configuration space begins. */
export const MMIO_CONFIG = 0x100

export const MmioInterrupt = { USED_BUFFER: 1, CONFIGURATION: 2 } as const

/** Control registers of version 2, VIRTIO 1.2 section 4.2.2. All are accessed as aligned 32 bits. */
export const Mmio = struct('virtio_mmio', 'VIRTIO 1.2 section 4.2.2', 0x100, {
  MagicValue: le32('0x74726976, "virt"', { at: 0x000, access: 'R' }),
  Version: le32('2', { at: 0x004, access: 'R' }),
  DeviceID: le32('device type, 0 for a placeholder', { at: 0x008, access: 'R' }),
  VendorID: le32('subsystem vendor', { at: 0x00c, access: 'R' }),
  DeviceFeatures: le32('32 offered features', { at: 0x010, access: 'R' }),
  DeviceFeaturesSel: le32('which 32', { at: 0x014, access: 'W' }),
  DriverFeatures: le32('32 accepted features', { at: 0x020, access: 'W' }),
  DriverFeaturesSel: le32('which 32', { at: 0x024, access: 'W' }),
  QueueSel: le32('queue the queue registers mean', { at: 0x030, access: 'W' }),
  QueueSizeMax: le32('largest size, 0 if there is no such queue', { at: 0x034, access: 'R' }),
  QueueSize: le32('size in use', { at: 0x038, access: 'W' }),
  QueueReady: le32('1 while the queue is live', { at: 0x044, access: 'RW' }),
  QueueNotify: le32('queue with new buffers', { at: 0x050, access: 'W' }),
  InterruptStatus: le32('why the line is raised', { at: 0x060, access: 'R', bits: MmioInterrupt }),
  InterruptACK: le32('causes handled', { at: 0x064, access: 'W', bits: MmioInterrupt }),
  Status: le32('device status; writing 0 resets', { at: 0x070, access: 'RW' }),
  QueueDescLow: le32('descriptor area', { at: 0x080, access: 'W' }),
  QueueDescHigh: le32('descriptor area', { at: 0x084, access: 'W' }),
  QueueDriverLow: le32('driver area', { at: 0x090, access: 'W' }),
  QueueDriverHigh: le32('driver area', { at: 0x094, access: 'W' }),
  QueueDeviceLow: le32('device area', { at: 0x0a0, access: 'W' }),
  QueueDeviceHigh: le32('device area', { at: 0x0a4, access: 'W' }),
  SHMSel: le32('shared memory region', { at: 0x0ac, access: 'W' }),
  SHMLenLow: le32('its length, all ones if absent', { at: 0x0b0, access: 'R' }),
  SHMLenHigh: le32('its length, all ones if absent', { at: 0x0b4, access: 'R' }),
  SHMBaseLow: le32('its address, all ones if absent', { at: 0x0b8, access: 'R' }),
  SHMBaseHigh: le32('its address, all ones if absent', { at: 0x0bc, access: 'R' }),
  QueueReset: le32('1 resets the selected queue', { at: 0x0c0, access: 'RW', when: 'RING_RESET' }),
  ConfigGeneration: le32('changes with the configuration', { at: 0x0fc, access: 'R' }),
})
