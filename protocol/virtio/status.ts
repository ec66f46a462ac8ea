/** Device status bits, VIRTIO 1.2 section 2.1 and 1.4 (SUSPEND). */
export const Status = {
  ACKNOWLEDGE: 1,
  DRIVER: 2,
  DRIVER_OK: 4,
  FEATURES_OK: 8,
  SUSPEND: 16,
  DEVICE_NEEDS_RESET: 64,
  FAILED: 128,
} as const

/** Names for people: `ACKNOWLEDGE|DRIVER`. */
export function statusNames(status: number): string {
  const names = Object.entries(Status)
    .filter(([, bit]) => (status & bit) !== 0)
    .map(([name]) => name)
  return names.length === 0 ? 'RESET' : names.join('|')
}

/** What must be set before a bit may be, VIRTIO 1.2 section 3.1.1. */
export const STATUS_NEEDS: { readonly [bit: number]: number } = {
  [Status.DRIVER]: Status.ACKNOWLEDGE,
  [Status.FEATURES_OK]: Status.ACKNOWLEDGE | Status.DRIVER,
  [Status.DRIVER_OK]: Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK,
}

/** Device types, VIRTIO 1.2 section 5. */
export const DeviceId = { NET: 1, BLOCK: 2, INPUT: 18 } as const
