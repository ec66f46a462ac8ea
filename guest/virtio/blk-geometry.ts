import type { FeatureSet } from '../../protocol/version.ts'
import { hasFeature } from '../../protocol/version.ts'
import { BlkConfig, BlkFeature } from '../../protocol/virtio/blk.ts'
import type { DriverTransport } from './transport.ts'

/** What a block driver learns from configuration space, checked. */
export interface BlkGeometry {
  readonly capacitySectors: number
  readonly blockBytes: number
  /** Logical blocks a physical one, as a power of two. */
  readonly physicalExponent: number
  /** Data segments a request may have. */
  readonly segmentsMax: number
  readonly discardSectorsMax: number
  readonly discardSegmentsMax: number
  readonly zeroSectorsMax: number
  readonly zeroSegmentsMax: number
  readonly eraseSectorsMax: number
  readonly eraseSegmentsMax: number
}

const TWO_32 = 0x1_0000_0000
/** READ CAPACITY (16) has four bits for it. */
const PHYSICAL_EXPONENT_MAX = 15
/** Reads of a changing configuration before the device is called broken. */
const GENERATION_TRIES = 16

/**
 * Reads the configuration whole: again whenever its generation changed meanwhile, VIRTIO 1.2 section 2.5.1,
 * but not for ever. Otherwise the rule the device broke: it never held still, or cannot be.
 */
export function readGeometry(
  transport: DriverTransport,
  features: FeatureSet,
): BlkGeometry | 'device.config-stable' | 'block.capacity' {
  for (let left = GENERATION_TRIES; left > 0; left--) {
    const before = transport.configGeneration()
    const geometry = readOnce(transport, features)
    if (transport.configGeneration() === before) return usable(geometry) ? geometry : 'block.capacity'
  }
  return 'device.config-stable'
}

function readOnce(transport: DriverTransport, features: FeatureSet): BlkGeometry {
  const le32 = (offset: number) => transport.readConfig(offset, 4)
  const when = (feature: { readonly bit: number }, offset: number, otherwise: number) =>
    hasFeature(features, feature.bit) ? le32(offset) : otherwise
  const topology = hasFeature(features, BlkFeature.TOPOLOGY.bit)
  const exponent = topology ? transport.readConfig(BlkConfig.physical_block_exp, 1) : 0
  return {
    capacitySectors: le32(BlkConfig.capacity) + le32(BlkConfig.capacity + 4) * TWO_32,
    blockBytes: when(BlkFeature.BLK_SIZE, BlkConfig.blk_size, 512),
    // A hint: one that makes no sense is none.
    physicalExponent: exponent <= PHYSICAL_EXPONENT_MAX ? exponent : 0,
    segmentsMax: when(BlkFeature.SEG_MAX, BlkConfig.seg_max, 1),
    discardSectorsMax: when(BlkFeature.DISCARD, BlkConfig.max_discard_sectors, 0),
    discardSegmentsMax: when(BlkFeature.DISCARD, BlkConfig.max_discard_seg, 0),
    zeroSectorsMax: when(BlkFeature.WRITE_ZEROES, BlkConfig.max_write_zeroes_sectors, 0),
    zeroSegmentsMax: when(BlkFeature.WRITE_ZEROES, BlkConfig.max_write_zeroes_seg, 0),
    eraseSectorsMax: when(BlkFeature.SECURE_ERASE, BlkConfig.max_secure_erase_sectors, 0),
    eraseSegmentsMax: when(BlkFeature.SECURE_ERASE, BlkConfig.max_secure_erase_seg, 0),
  }
}

/** A block size that cannot divide, or a capacity no offset can reach, would only fail later. */
function usable({ capacitySectors, blockBytes, segmentsMax }: BlkGeometry): boolean {
  const power = Number.isInteger(Math.log2(blockBytes))
  return (
    power && blockBytes >= 512 && blockBytes <= 0x10_0000 && segmentsMax >= 1 && capacitySectors < 2 ** 44
  )
}
