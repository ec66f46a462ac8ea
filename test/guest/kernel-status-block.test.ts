import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { IO_STATUS_BLOCK } from '../../guest/kernel/layout.ts'
import { NtStatus } from '../../guest/kernel/nt-status.ts'
import {
  blockInformation,
  blockStatus,
  putBlockStatus,
  putStatusBlock,
} from '../../guest/kernel/status-block.ts'
import { Rig } from './kernel-rig.ts'

const PAGE = 4096

describe('an I/O status block', () => {
  it('is written and read where the application has it, at any address, across pages that lie apart', () => {
    const rig = new Rig()
    const { space } = rig.kernel.parts
    const buffer = space.allocateUser(2 * PAGE)
    fc.assert(
      fc.property(
        fc.oneof(fc.nat(2 * PAGE - 16), fc.integer({ min: PAGE - 20, max: PAGE + 4 })),
        fc.constantFrom(NtStatus.SUCCESS, NtStatus.PENDING, NtStatus.IO_DEVICE_ERROR),
        fc.oneof(fc.nat(2 ** 20), fc.maxSafeNat()),
        (offset, status, information) => {
          const before = bytesOf()
          putStatusBlock(space, buffer + offset, status, information)
          expect(blockStatus(space, buffer + offset)).toBe(status)
          expect(blockInformation(space, buffer + offset)).toBe(information)
          // Through the copying way, which knows nothing of words: these bytes, and no others.
          const expected = before.slice()
          const view = new DataView(expected.buffer)
          view.setUint32(offset, status, true)
          view.setBigUint64(offset + IO_STATUS_BLOCK.information, BigInt(information), true)
          expect(Buffer.compare(bytesOf(), expected)).toBe(0)
          putBlockStatus(space, buffer + offset, NtStatus.PENDING)
          view.setUint32(offset, NtStatus.PENDING, true)
          expect(Buffer.compare(bytesOf(), expected)).toBe(0)
        },
      ),
    )
    space.freeUser(buffer)
    rig.end()

    function bytesOf(): Uint8Array<ArrayBuffer> {
      const bytes = new Uint8Array(2 * PAGE)
      expect(space.copyOut(buffer, bytes)).toBe(true)
      return bytes
    }
  })

  it('is nowhere when a byte of it is missing or read-only, and nothing is written then', () => {
    const rig = new Rig()
    const { space } = rig.kernel.parts
    const buffer = space.allocateUser(PAGE)
    const readOnly = space.allocateUser(PAGE, { readOnly: true })
    for (const at of [0, 8, buffer + PAGE, buffer + PAGE - 8, buffer - 8, readOnly + 16, 2 ** 52]) {
      putStatusBlock(space, at, NtStatus.SUCCESS, 7)
      putBlockStatus(space, at, NtStatus.PENDING)
      expect(blockStatus(space, at)).toBe(null)
      expect(blockInformation(space, at)).toBe(null)
    }
    const bytes = new Uint8Array(PAGE)
    for (const page of [buffer, readOnly]) {
      expect(space.copyOut(page, bytes)).toBe(true)
      expect(bytes.every((byte) => byte === 0)).toBe(true)
      space.freeUser(page)
    }
    rig.end()
  })
})
