import { isPowerOfTwo, serialInvalid } from './facts.ts'
import type { OptionReader } from './option.ts'

/** What every source of data lets its user say about the disk it presents. */
export interface Geometry {
  readonly blockBytes: number
  readonly physicalBlockBytes: number
  readonly readOnly: boolean
  readonly serial: string
}

/** The help of these options, for a source kind's `options`. */
export const GEOMETRY_OPTIONS = {
  block: 'bytes of a logical block: 512 (default) to 64K, a power of two',
  physical: 'bytes of a physical block: a power of two from the logical block (default) to 64K',
  readonly: 'refuse every change',
  serial: 'at most 20 ASCII characters',
} as const

const LARGEST_BLOCK_BYTES = 65_536

export function readGeometry(reader: OptionReader): Geometry {
  const blockBytes = reader.size('block', 512, 512)
  const physicalBlockBytes = reader.size('physical', blockBytes, 512)
  const readOnly = reader.flag('readonly')
  const serial = reader.text('serial', '', serialInvalid)
  for (const [key, bytes] of [
    ['block', blockBytes],
    ['physical', physicalBlockBytes],
  ] as const) {
    if (!isPowerOfTwo(bytes) || bytes > LARGEST_BLOCK_BYTES) {
      reader.wrong(`option ${key} is ${bytes}; it takes a power of two from 512 to 64K`)
    }
  }
  if (physicalBlockBytes < blockBytes) {
    reader.wrong(`option physical is ${physicalBlockBytes}, less than block (${blockBytes})`)
  }
  return { blockBytes, physicalBlockBytes, readOnly, serial }
}
