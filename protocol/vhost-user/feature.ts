import type { FeatureSet, FeatureTable } from '../version.ts'
import { hasFeature } from '../version.ts'

/** Bits of GET_FEATURES that are the transport's own and never shown to a driver. */
export const VhostUserVirtioFeature = {
  LOG_ALL: { bit: 26, meaning: 'every write to guest memory goes into the dirty log' },
  PROTOCOL_FEATURES: { bit: 30, meaning: 'protocol features exist' },
} as const satisfies FeatureTable

/**
 * Protocol features by name, with the bits that are settled: released documents agree on them. Names above
 * `SETTLED_FEATURE_BITS` changed their numbers while they were developed, so a number there names nothing: a
 * set carries it along, and nobody offers or accepts it for what it might mean.
 */
export const VhostUserFeature = {
  MQ: { bit: 0, meaning: 'the back-end says how many queues it has' },
  LOG_SHMFD: { bit: 1, meaning: 'the dirty log is shared memory' },
  RARP: { bit: 2, meaning: 'the back-end announces a migrated network card' },
  REPLY_ACK: { bit: 3, meaning: 'any message can ask for an acknowledgement' },
  MTU: { bit: 4, meaning: 'the front-end tells the MTU' },
  BACKEND_REQ: { bit: 5, meaning: 'the back-end sends messages too, on a socket of its own' },
  CROSS_ENDIAN: { bit: 6, meaning: 'rings of legacy devices may be of the other byte order' },
  CRYPTO_SESSION: { bit: 7, meaning: 'sessions of a crypto device' },
  PAGEFAULT: { bit: 8, meaning: 'migration with postcopy' },
  CONFIG: { bit: 9, meaning: 'configuration space goes through messages' },
  BACKEND_SEND_FD: { bit: 10, meaning: 'the back-end sends descriptors' },
  HOST_NOTIFIER: { bit: 11, meaning: 'doorbells of real hardware are mapped' },
  INFLIGHT_SHMFD: { bit: 12, meaning: 'what is in flight outlives the back-end' },
  RESET_DEVICE: { bit: 13, meaning: 'the device can be reset as a whole' },
  INBAND_NOTIFICATIONS: {
    bit: 14,
    meaning: 'kicks and calls as messages',
    needs: ['BACKEND_REQ', 'REPLY_ACK'],
  },
  CONFIGURE_MEM_SLOTS: { bit: 15, meaning: 'memory regions come and go one by one' },
  STATUS: { bit: 16, meaning: 'device status is forwarded' },
  XEN_MMAP: { bit: 17, meaning: 'regions are mapped the Xen way' },
  SHARED_OBJECT: { bit: 18, meaning: 'buffers are shared by UUID' },
  DEVICE_STATE: { bit: 19, meaning: 'the state of the device can be moved' },
} as const satisfies FeatureTable

export type VhostUserFeatureName = keyof typeof VhostUserFeature

/** Bits from here on are opaque. */
export const SETTLED_FEATURE_BITS = 20

/** What came after, by name only; messages that need one of them are known, and refused. */
export const UNSETTLED_FEATURES = [
  'GET_VRING_BASE_INFLIGHT',
  'GPA_ADDRESSES',
  'SHMEM',
  'GET_VRING_BASE_SKIP_DRAIN',
] as const

export type UnsettledFeatureName = (typeof UNSETTLED_FEATURES)[number]

/** Whether a set has a settled feature. */
export function hasVhostUserFeature(features: FeatureSet, name: VhostUserFeatureName): boolean {
  return hasFeature(features, VhostUserFeature[name].bit)
}

/** The set of these features. */
export function vhostUserFeatures(...names: readonly VhostUserFeatureName[]): FeatureSet {
  return names.reduce((set, name) => set | (1n << BigInt(VhostUserFeature[name].bit)), 0n)
}
