import type { RequirementId } from '../../protocol/requirement.ts'
import type { FeatureSet, FeatureTable } from '../../protocol/version.ts'
import { hasFeature, missingPrerequisite } from '../../protocol/version.ts'
import { CommonFeature } from '../../protocol/virtio/features.ts'
import { STATUS_NEEDS, Status } from '../../protocol/virtio/status.ts'

export interface Refusal {
  readonly rule: RequirementId
  readonly seen: number
  readonly expected: number
}

/** Why a driver's choice of features is refused, or null, VIRTIO 1.2 section 2.2.2. */
export function featuresRefused(
  accepted: FeatureSet,
  offered: FeatureSet,
  table: FeatureTable,
): Refusal | null {
  const extra = accepted & ~offered
  if (extra !== 0n) {
    const bit = extra.toString(2).length - 1
    return { rule: 'features.not-offered', seen: bit, expected: 0 }
  }
  const { bit } = CommonFeature.VERSION_1
  if (!hasFeature(accepted, bit)) return { rule: 'features.version-1', seen: 0, expected: bit }
  const missing = missingPrerequisite(accepted, table)
  if (missing === null) return null
  return {
    rule: 'features.prerequisite',
    seen: table[missing.feature]?.bit ?? 0,
    expected: table[missing.needs]?.bit ?? 0,
  }
}

const DRIVER_BITS = Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK | Status.DRIVER_OK | Status.FAILED

/** What a write to device status asks for, once what it may not ask for is taken out. */
export interface StatusStep {
  /** Bits to add to the status. */
  readonly added: number
  readonly refusals: readonly Refusal[]
}

/**
 * Judges a nonzero write to device status, VIRTIO 1.2 section 2.1 and 3.1.1. Bits only ever come on; several
 * may come on at once when each finds the ones it needs. DEVICE_NEEDS_RESET is the device's own and ignored:
 * a driver writes back what it read.
 */
export function statusStep(status: number, written: number): StatusStep {
  const refusals: Refusal[] = []
  const asked = written & DRIVER_BITS
  const unknown = (written & ~(DRIVER_BITS | Status.DEVICE_NEEDS_RESET)) >>> 0
  if (unknown !== 0) refusals.push({ rule: 'status.unknown-bit', seen: unknown, expected: DRIVER_BITS })
  const cleared = status & DRIVER_BITS & ~asked
  if (cleared !== 0) refusals.push({ rule: 'status.bit-cleared', seen: written, expected: status })
  let added = asked & ~status
  for (const [bit, needs] of Object.entries(STATUS_NEEDS)) {
    if ((added & Number(bit)) === 0 || ((status | added) & needs) === needs) continue
    refusals.push({ rule: 'status.order', seen: written, expected: needs })
    added &= ~Number(bit)
  }
  return { added, refusals }
}
