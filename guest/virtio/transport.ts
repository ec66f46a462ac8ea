import type { AccessWidth } from '../../protocol/platform.ts'
import type { FeatureSet } from '../../protocol/version.ts'
import type { QueuePlace } from '../../protocol/virtio/ring.ts'

/** A driver's way to its device, whatever carries it. The device may answer nonsense; callers check. */
export interface DriverTransport {
  /** Device type, 0 for a place kept free, or null when nothing that speaks this transport is there. */
  identify(): number | null
  status(): number
  setStatus(status: number): void
  offered(): FeatureSet
  accept(features: FeatureSet): void
  /** Largest size of a queue; 0 when there is none. */
  queueSizeMax(queue: number): number
  /** Hands a queue's areas to the device. */
  startQueue(queue: number, place: QueuePlace): void
  notify(queue: number): void
  /** Little-endian value of a configuration field of 1, 2 or 4 bytes. */
  readConfig(offset: number, width: AccessWidth): number
  writeConfig(offset: number, width: AccessWidth, value: number): void
  configGeneration(): number
  /** Causes of an interrupt, acknowledged: used buffers, configuration. */
  takeInterrupt(): { readonly used: boolean; readonly config: boolean }
}
