import type { DiskFacts } from './backend.ts'
import { MAX_DISK_BYTES } from './judge.ts'

/** Bytes a serial may have: what the narrowest protocol (VIRTIO's GET_ID) can carry. */
export const SERIAL_BYTES = 20

/**
 * Why `facts` cannot be a disk's, or null. Asked once when a backend opens, so that whatever reads them later
 * need not doubt them: a user's module may say anything.
 */
export function factsInvalid(facts: DiskFacts): string | null {
  const { lengthBytes, blockBytes, physicalBlockBytes, serial } = facts
  if (!isPowerOfTwo(blockBytes)) return `blockBytes is ${blockBytes}, not a power of two`
  if (!isPowerOfTwo(physicalBlockBytes) || physicalBlockBytes < blockBytes) {
    return `physicalBlockBytes is ${physicalBlockBytes}, not a power of two from blockBytes (${blockBytes}) up`
  }
  if (!(lengthBytes >= 0 && lengthBytes <= MAX_DISK_BYTES && lengthBytes % blockBytes === 0)) {
    return `lengthBytes is ${lengthBytes}, not a multiple of blockBytes (${blockBytes}) from 0 to 2^53`
  }
  const serialWrong = serialInvalid(serial)
  if (serialWrong !== null) return `serial ${serialWrong}`
  for (const name of ['readOnly', 'medium', 'volatileCache', 'synchronous', 'privateLoans'] as const) {
    if (typeof facts[name] !== 'boolean') return `${name} is not a boolean`
  }
  if (typeof facts.can !== 'object' || facts.can === null) return '"can" is missing'
  for (const name of ['fua', 'zero', 'discard', 'erase', 'resize', 'extents'] as const) {
    if (typeof facts.can[name] !== 'boolean') return `can.${name} is not a boolean`
  }
  return null
}

/** Why a text cannot be a serial, or null. */
export function serialInvalid(serial: string): string | null {
  if (typeof serial !== 'string') return 'is not a text'
  if (serial.length > SERIAL_BYTES) return `has ${serial.length} characters, more than ${SERIAL_BYTES}`
  return /^[\x20-\x7e]*$/.test(serial) ? null : 'has a character that is not printable ASCII'
}

export function isPowerOfTwo(value: number): boolean {
  return Number.isInteger(value) && value > 0 && Number.isInteger(Math.log2(value))
}
