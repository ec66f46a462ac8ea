import type { FeatureBit, FeatureSet } from '../version.ts'
import { featureSet } from '../version.ts'

/** Published versions, oldest first. */
export const VIRTIO_VERSIONS = ['1.0', '1.1', '1.2', '1.3'] as const
export type VirtioVersion = (typeof VIRTIO_VERSIONS)[number]

export function isVirtioVersion(name: string): name is VirtioVersion {
  return VIRTIO_VERSIONS.some((version) => version === name)
}

/** Features of which each has the version that introduced it. */
export type VirtioFeatureTable = {
  readonly [name: string]: FeatureBit & { readonly since: VirtioVersion }
}

/** Device-independent features, VIRTIO 1.3 section 6. */
export const CommonFeature = {
  INDIRECT_DESC: { bit: 28, since: '1.0', meaning: 'descriptors may point at tables' },
  EVENT_IDX: { bit: 29, since: '1.0', meaning: 'notifications are suppressed by index' },
  VERSION_1: { bit: 32, since: '1.0', meaning: 'not a legacy device or driver' },
  ACCESS_PLATFORM: { bit: 33, since: '1.1', meaning: 'addresses go through the platform (IOMMU)' },
  RING_PACKED: { bit: 34, since: '1.1', meaning: 'packed virtqueue' },
  IN_ORDER: { bit: 35, since: '1.1', meaning: 'buffers are used in the order they were made available' },
  ORDER_PLATFORM: { bit: 36, since: '1.1', meaning: 'memory accesses are ordered as the platform says' },
  SR_IOV: { bit: 37, since: '1.1', meaning: 'single root I/O virtualization' },
  NOTIFICATION_DATA: { bit: 38, since: '1.1', meaning: 'notifications carry the available position' },
  NOTIF_CONFIG_DATA: {
    bit: 39,
    since: '1.2',
    meaning: 'notifications carry data the device gave',
    needs: [],
  },
  RING_RESET: { bit: 40, since: '1.2', meaning: 'one queue can be reset' },
  ADMIN_VQ: { bit: 41, since: '1.3', meaning: 'administration virtqueues' },
} as const satisfies VirtioFeatureTable

/** Everything a version's text defines, for one device type's table. */
export function featuresOfVersion(version: VirtioVersion, table: VirtioFeatureTable): FeatureSet {
  const newest = VIRTIO_VERSIONS.indexOf(version)
  return featureSet(
    Object.values({ ...CommonFeature, ...table })
      .filter(({ since }) => VIRTIO_VERSIONS.indexOf(since) <= newest)
      .map(({ bit }) => bit),
  )
}
