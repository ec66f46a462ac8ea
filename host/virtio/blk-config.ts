import type { FeatureSet } from '../../protocol/version.ts'
import { featureSet, hasFeature } from '../../protocol/version.ts'
import { BlkConfig, BlkFeature, SECTOR_BYTES } from '../../protocol/virtio/blk.ts'
import type { VirtioVersion } from '../../protocol/virtio/features.ts'
import { CommonFeature, featuresOfVersion } from '../../protocol/virtio/features.ts'
import { Window } from '../../protocol/window.ts'
import type { DiskFacts } from '../disk/backend.ts'

/** What a block device lets a request be. Configuration space is made from this table, and so are checks. */
export interface BlkLimits {
  readonly queues: number
  readonly queueSize: number
  /** Sectors of one discard, zeroes or erase segment. */
  readonly rangeSectors: number
  /** Segments of one such request. */
  readonly rangeSegments: number
}

export const BLK_LIMITS: BlkLimits = { queues: 1, queueSize: 256, rangeSectors: 0x40_0000, rangeSegments: 16 }

/** Data segments of a request: what a chain holds besides header and status. */
export function segmentsMax(limits: BlkLimits): number {
  return Math.max(1, limits.queueSize - 2)
}

/** What the backend cannot do is not offered; neither is what the version does not define. */
export function blkOffer(facts: DiskFacts, limits: BlkLimits, version: VirtioVersion): FeatureSet {
  const bits: number[] = [
    CommonFeature.VERSION_1.bit,
    CommonFeature.INDIRECT_DESC.bit,
    CommonFeature.EVENT_IDX.bit,
    CommonFeature.RING_RESET.bit,
    BlkFeature.SEG_MAX.bit,
    BlkFeature.BLK_SIZE.bit,
    BlkFeature.TOPOLOGY.bit,
    // Every disk answers a flush, and a driver without FLUSH must guess, VIRTIO 1.3 section 5.2.5.2.
    BlkFeature.FLUSH.bit,
  ]
  if (facts.readOnly) bits.push(BlkFeature.RO.bit)
  if (facts.volatileCache) bits.push(BlkFeature.CONFIG_WCE.bit)
  if (limits.queues > 1) bits.push(BlkFeature.MQ.bit)
  if (facts.can.discard) bits.push(BlkFeature.DISCARD.bit)
  if (facts.can.zero) bits.push(BlkFeature.WRITE_ZEROES.bit)
  if (facts.can.erase) bits.push(BlkFeature.SECURE_ERASE.bit)
  if (facts.lifetime !== undefined) bits.push(BlkFeature.LIFETIME.bit)
  return featureSet(bits) & featuresOfVersion(version, BlkFeature)
}

/** Sectors a driver may address. */
export function capacitySectors(facts: DiskFacts): number {
  return facts.medium ? Math.floor(facts.lengthBytes / SECTOR_BYTES) : 0
}

/** Configuration space as the facts make it; fields whose feature is not offered are zero. */
export function blkConfigBytes(
  facts: DiskFacts,
  limits: BlkLimits,
  offered: FeatureSet,
  writeback: boolean,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(BlkConfig.$size)
  const config = new Window(bytes)
  const offers = (feature: { readonly bit: number }) => hasFeature(offered, feature.bit)
  // A disk of smaller blocks is a disk of sectors to a driver.
  const blockBytes = Math.max(facts.blockBytes, SECTOR_BYTES)
  const physicalBlocks = Math.max(1, facts.physicalBlockBytes / blockBytes)
  const blockSectors = blockBytes / SECTOR_BYTES
  config.putLe64(BlkConfig.capacity, capacitySectors(facts))
  config.putLe32(BlkConfig.seg_max, segmentsMax(limits))
  config.putLe32(BlkConfig.blk_size, blockBytes)
  config.putU8(BlkConfig.physical_block_exp, Math.round(Math.log2(physicalBlocks)))
  config.putLe16(BlkConfig.min_io_size, Math.min(0xffff, physicalBlocks))
  if (offers(BlkFeature.CONFIG_WCE)) config.putU8(BlkConfig.writeback, writeback ? 1 : 0)
  if (offers(BlkFeature.MQ)) config.putLe16(BlkConfig.num_queues, limits.queues)
  if (offers(BlkFeature.DISCARD)) {
    config.putLe32(BlkConfig.max_discard_sectors, limits.rangeSectors)
    config.putLe32(BlkConfig.max_discard_seg, limits.rangeSegments)
    config.putLe32(BlkConfig.discard_sector_alignment, blockSectors)
  }
  if (offers(BlkFeature.WRITE_ZEROES)) {
    config.putLe32(BlkConfig.max_write_zeroes_sectors, limits.rangeSectors)
    config.putLe32(BlkConfig.max_write_zeroes_seg, limits.rangeSegments)
    config.putU8(BlkConfig.write_zeroes_may_unmap, facts.can.discard ? 1 : 0)
  }
  if (offers(BlkFeature.SECURE_ERASE)) {
    config.putLe32(BlkConfig.max_secure_erase_sectors, limits.rangeSectors)
    config.putLe32(BlkConfig.max_secure_erase_seg, limits.rangeSegments)
    config.putLe32(BlkConfig.secure_erase_sector_alignment, blockSectors)
  }
  return bytes
}
