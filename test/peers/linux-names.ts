/** What Linux calls the things that protocol/virtio declares, as C that a compiler can be asked about. */

/** A structure or register map: C name, and fields whose name differs (a register's is an offset macro). */
export interface CStruct {
  readonly c: string
  readonly fields: { readonly [ours: string]: string }
}

/** Structures by export name. A field that is not renamed bears our name there too. */
export const C_STRUCTS: { readonly [ours: string]: CStruct } = {
  BlkRequest: { c: 'struct virtio_blk_outhdr', fields: { reserved: 'ioprio' } },
  BlkSegment: { c: 'struct virtio_blk_discard_write_zeroes', fields: {} },
  BlkConfig: {
    c: 'struct virtio_blk_config',
    fields: {
      cylinders: 'geometry.cylinders',
      heads: 'geometry.heads',
      sectors: 'geometry.sectors',
      writeback: 'wce',
      unused0: 'unused',
    },
  },
  VirtqDesc: { c: 'struct vring_desc', fields: {} },
  VirtqAvail: { c: 'struct vring_avail', fields: {} },
  VirtqUsedElem: { c: 'struct vring_used_elem', fields: {} },
  VirtqUsed: { c: 'struct vring_used', fields: {} },
}

/** Exported tables of numbers or features, by the prefix of their macros; renamed entries after it. */
export const C_TABLES: {
  readonly [ours: string]: { readonly prefix: string; readonly names?: { readonly [ours: string]: string } }
} = {
  BlkFeature: { prefix: 'VIRTIO_BLK_F_' },
  BlkType: { prefix: 'VIRTIO_BLK_T_' },
  BlkStatus: { prefix: 'VIRTIO_BLK_S_' },
  BlkSegmentFlag: { prefix: 'VIRTIO_BLK_WRITE_ZEROES_FLAG_' },
  CommonFeature: {
    prefix: 'VIRTIO_F_',
    names: { INDIRECT_DESC: 'VIRTIO_RING_F_INDIRECT_DESC', EVENT_IDX: 'VIRTIO_RING_F_EVENT_IDX' },
  },
  MmioInterrupt: {
    prefix: 'VIRTIO_MMIO_INT_',
    names: { USED_BUFFER: 'VIRTIO_MMIO_INT_VRING', CONFIGURATION: 'VIRTIO_MMIO_INT_CONFIG' },
  },
  DescFlag: { prefix: 'VRING_DESC_F_' },
  AvailFlag: { prefix: 'VRING_AVAIL_F_' },
  UsedFlag: { prefix: 'VRING_USED_F_' },
  Status: {
    prefix: 'VIRTIO_CONFIG_S_',
    names: { DEVICE_NEEDS_RESET: 'VIRTIO_CONFIG_S_NEEDS_RESET' },
  },
  DeviceId: { prefix: 'VIRTIO_ID_' },
}

/** Registers: an offset macro each, 32 bits wide by definition. */
export const C_REGISTERS: { readonly [ours: string]: { readonly [register: string]: string } } = {
  Mmio: {
    MagicValue: 'VIRTIO_MMIO_MAGIC_VALUE',
    Version: 'VIRTIO_MMIO_VERSION',
    DeviceID: 'VIRTIO_MMIO_DEVICE_ID',
    VendorID: 'VIRTIO_MMIO_VENDOR_ID',
    DeviceFeatures: 'VIRTIO_MMIO_DEVICE_FEATURES',
    DeviceFeaturesSel: 'VIRTIO_MMIO_DEVICE_FEATURES_SEL',
    DriverFeatures: 'VIRTIO_MMIO_DRIVER_FEATURES',
    DriverFeaturesSel: 'VIRTIO_MMIO_DRIVER_FEATURES_SEL',
    QueueSel: 'VIRTIO_MMIO_QUEUE_SEL',
    QueueSizeMax: 'VIRTIO_MMIO_QUEUE_NUM_MAX',
    QueueSize: 'VIRTIO_MMIO_QUEUE_NUM',
    QueueReady: 'VIRTIO_MMIO_QUEUE_READY',
    QueueNotify: 'VIRTIO_MMIO_QUEUE_NOTIFY',
    InterruptStatus: 'VIRTIO_MMIO_INTERRUPT_STATUS',
    InterruptACK: 'VIRTIO_MMIO_INTERRUPT_ACK',
    Status: 'VIRTIO_MMIO_STATUS',
    QueueDescLow: 'VIRTIO_MMIO_QUEUE_DESC_LOW',
    QueueDescHigh: 'VIRTIO_MMIO_QUEUE_DESC_HIGH',
    QueueDriverLow: 'VIRTIO_MMIO_QUEUE_AVAIL_LOW',
    QueueDriverHigh: 'VIRTIO_MMIO_QUEUE_AVAIL_HIGH',
    QueueDeviceLow: 'VIRTIO_MMIO_QUEUE_USED_LOW',
    QueueDeviceHigh: 'VIRTIO_MMIO_QUEUE_USED_HIGH',
    SHMSel: 'VIRTIO_MMIO_SHM_SEL',
    SHMLenLow: 'VIRTIO_MMIO_SHM_LEN_LOW',
    SHMLenHigh: 'VIRTIO_MMIO_SHM_LEN_HIGH',
    SHMBaseLow: 'VIRTIO_MMIO_SHM_BASE_LOW',
    SHMBaseHigh: 'VIRTIO_MMIO_SHM_BASE_HIGH',
    QueueReset: 'VIRTIO_MMIO_QUEUE_RESET',
    ConfigGeneration: 'VIRTIO_MMIO_CONFIG_GENERATION',
  },
}

/** Single numbers. */
export const C_NUMBERS: { readonly [ours: string]: string } = {
  BLK_ID_BYTES: 'VIRTIO_BLK_ID_BYTES',
  MMIO_CONFIG: 'VIRTIO_MMIO_CONFIG',
  DESC_ALIGN: 'VRING_DESC_ALIGN_SIZE',
  AVAIL_ALIGN: 'VRING_AVAIL_ALIGN_SIZE',
  USED_ALIGN: 'VRING_USED_ALIGN_SIZE',
}

/** Declarations that Linux 6.1's headers do not have, and why. A struct's name stands for all its fields. */
export const NOT_IN_LINUX: { readonly [ours: string]: string } = {
  SECTOR_BYTES: 'the headers say it in a comment only',
  BlkStatusByte: 'the headers define its values; it is a plain byte in no structure',
  BlkLifetime: 'VIRTIO 1.2; Linux has no driver for it',
  'BlkType.GET_LIFETIME': 'VIRTIO 1.2; Linux has no driver for it',
  'BlkFeature.LIFETIME': 'VIRTIO 1.2; Linux has no driver for it',
  'BlkFeature.ZONED': 'zoned storage came with Linux 6.3',
  'BlkConfig.zone_sectors': 'zoned storage came with Linux 6.3',
  'BlkConfig.max_open_zones': 'zoned storage came with Linux 6.3',
  'BlkConfig.max_active_zones': 'zoned storage came with Linux 6.3',
  'BlkConfig.max_append_sectors': 'zoned storage came with Linux 6.3',
  'BlkConfig.write_granularity': 'zoned storage came with Linux 6.3',
  'BlkConfig.model': 'zoned storage came with Linux 6.3',
  'BlkConfig.unused2': 'zoned storage came with Linux 6.3',
  'CommonFeature.NOTIFICATION_DATA': 'came with Linux 6.4',
  'CommonFeature.NOTIF_CONFIG_DATA': 'came with Linux 6.4',
  'CommonFeature.ADMIN_VQ': 'came with Linux 6.8',
  'Status.SUSPEND': 'VIRTIO 1.4',
  'Mmio.QueueReset': 'Linux resets single queues over PCI only',
  MMIO_MAGIC: 'the headers name the register, not its value',
  MMIO_VERSION: 'the headers name the register, not its value',
  MMIO_RANGE_BYTES: 'a resource decides it',
  SPLIT_QUEUE_SIZE_MAX: 'the headers name no limit',
}

/** Exports that declare no wire value of their own: derived from those that do, or data about them. */
export const NO_WIRE_VALUE: { readonly [ours: string]: string } = {
  VIRTIO_VERSIONS: 'names of published versions',
  STATUS_NEEDS: 'an order of status bits',
  RING_START: 'two zeroes',
  VirtqEvent: 'compared through availRingBytes and usedRingBytes below, by the macros for its place',
}
