/**
 * Feature sets are 128 bits wide (VIRTIO 1.4 uses bits to 70) and BigInt: they are touched at negotiation
 * only, and turned into plain booleans before the first request.
 */
export type FeatureSet = bigint

export const FEATURE_SET_BITS = 128

/** A negotiation's outcome is a value kept in the ready state, never a pair of half-set fields. */
export interface ProtocolVersion {
  readonly family: string
  readonly name: string
  readonly features: FeatureSet
}

/** Bit numbers by name. */
export interface FeatureBit {
  readonly bit: number
  /** The version that introduced it, in families that have versions. */
  readonly since?: string
  readonly meaning: string
  /** Features that have to be offered and accepted along with this one. */
  readonly needs?: readonly string[]
}
export type FeatureTable = { readonly [name: string]: FeatureBit }

export function featureMask(bit: number): FeatureSet {
  return 1n << BigInt(bit)
}

export function hasFeature(features: FeatureSet, bit: number): boolean {
  return ((features >> BigInt(bit)) & 1n) === 1n
}

export function featureSet(bits: Iterable<number>): FeatureSet {
  let set = 0n
  for (const bit of bits) set |= featureMask(bit)
  return set
}

/** 32 bits of the set, as a selector register shows them; 0 past the end. */
export function featureWord(features: FeatureSet, selector: number): number {
  if (!(selector < FEATURE_SET_BITS / 32)) return 0
  return Number((features >> BigInt(selector * 32)) & 0xffff_ffffn)
}

/** The set with one 32-bit word replaced; a selector past the end changes nothing. */
export function withFeatureWord(features: FeatureSet, selector: number, word: number): FeatureSet {
  if (!(selector < FEATURE_SET_BITS / 32)) return features
  const shift = BigInt(selector * 32)
  return (features & ~(0xffff_ffffn << shift)) | (BigInt(word) << shift)
}

/** Names of the bits that are set, by the tables given; unnamed bits as numbers. */
export function featureNames(features: FeatureSet, ...tables: readonly FeatureTable[]): string[] {
  const names: string[] = []
  for (let bit = 0; bit < FEATURE_SET_BITS; bit++) {
    if (!hasFeature(features, bit)) continue
    const entry = tables.flatMap((table) => Object.entries(table)).find(([, feature]) => feature.bit === bit)
    names.push(entry?.[0] ?? String(bit))
  }
  return names
}

/** The first feature of the set whose prerequisite is missing, or null. */
export function missingPrerequisite(
  features: FeatureSet,
  table: FeatureTable,
): { readonly feature: string; readonly needs: string } | null {
  for (const [feature, { bit, needs }] of Object.entries(table)) {
    if (!hasFeature(features, bit)) continue
    for (const need of needs ?? []) {
      const other = table[need]
      if (other !== undefined && !hasFeature(features, other.bit)) return { feature, needs: need }
    }
  }
  return null
}
