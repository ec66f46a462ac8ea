import { afterEach, beforeEach, expect } from 'vitest'
import { openDescriptors } from '../../native/descriptor.ts'
import { nativeAbsent } from '../../native/platform.ts'
import { mappedBytes } from '../../native/shared-memory.ts'
import { peerOrSkip } from '../peers/peer.ts'

/** Every test of the file: skipped aloud where there is no FFI, and held to leave nothing open or mapped. */
export function nativeOrSkip(): void {
  let descriptors = 0
  let bytes = 0
  beforeEach((test) => {
    peerOrSkip(test, 'the operating system', nativeAbsent())
    descriptors = openDescriptors()
    bytes = mappedBytes()
  })
  afterEach(() => {
    expect({ descriptors: openDescriptors(), bytes: mappedBytes() }).toEqual({ descriptors, bytes })
  })
}
