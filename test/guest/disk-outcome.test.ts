import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Cdb } from '../../guest/class/disk/cdb.ts'
import type { Returned } from '../../guest/class/disk/outcome.ts'
import { outcomeOf, RETRIES } from '../../guest/class/disk/outcome.ts'
import { NtStatus, ntStatusName } from '../../guest/kernel/nt-status.ts'
import { SrbStatus } from '../../guest/port/srb.ts'
import { ScsiTarget, senseBytes } from '../../guest/virtio/scsi-target.ts'
import { Window } from '../../protocol/window.ts'

const READ = 0x28
const INQUIRY = 0x12
const PLAIN: Returned = {
  srbStatus: SrbStatus.SUCCESS,
  internalStatus: NtStatus.IO_DEVICE_ERROR,
  scsiStatus: 0,
  opcode: READ,
  askedBytes: 4096,
  movedBytes: 4096,
  sense: null,
  senseBase: 0,
  removable: false,
  verifying: false,
  tries: 0,
}

function judged(change: Partial<Returned>): string {
  const { status, retry } = outcomeOf({ ...PLAIN, ...change })
  return `${ntStatusName(status)}${retry ? ', retried' : ''}`
}

const ofSense = (key: number, asc: number, change: Partial<Returned> = {}) =>
  judged({ srbStatus: 0x84, scsiStatus: 2, sense: new Window(senseBytes(key, asc)), ...change })

/** From the rules of the class driver, numbers as srb.h has them. */
const BY_SRB: readonly (readonly [number, string])[] = [
  [0x01, 'SUCCESS'],
  [0x02, 'IO_TIMEOUT, retried'],
  [0x04, 'IO_DEVICE_ERROR, retried'],
  [0x05, 'DEVICE_BUSY, retried'],
  [0x06, 'INVALID_DEVICE_REQUEST'],
  [0x07, 'NO_SUCH_DEVICE'],
  [0x08, 'NO_SUCH_DEVICE'],
  [0x09, 'IO_TIMEOUT, retried'],
  [0x0a, 'DEVICE_NOT_CONNECTED'],
  [0x0b, 'IO_TIMEOUT, retried'],
  [0x0e, 'IO_DEVICE_ERROR, retried'],
  [0x0f, 'IO_DEVICE_ERROR, retried'],
  [0x11, 'NO_SUCH_DEVICE'],
  [0x12, 'DATA_OVERRUN'],
  [0x13, 'IO_DEVICE_ERROR, retried'],
  [0x14, 'IO_DEVICE_ERROR, retried'],
  [0x16, 'IO_DEVICE_ERROR, retried'],
  [0x20, 'NO_SUCH_DEVICE'],
  [0x21, 'NO_SUCH_DEVICE'],
  [0x30, 'IO_DEVICE_ERROR, retried'],
  [0x3f, 'IO_DEVICE_ERROR, retried'],
]

const BY_SENSE: readonly (readonly [number, number, string])[] = [
  [0x0, 0x0000, 'SUCCESS'],
  [0x1, 0x0000, 'SUCCESS'],
  [0x2, 0x0400, 'DEVICE_NOT_READY, retried'],
  [0x2, 0x3a00, 'NO_MEDIA_IN_DEVICE'],
  [0x3, 0x1100, 'DEVICE_DATA_ERROR, retried'],
  [0x4, 0x4400, 'IO_DEVICE_ERROR, retried'],
  [0x5, 0x2000, 'INVALID_DEVICE_REQUEST'],
  [0x5, 0x2100, 'NONEXISTENT_SECTOR'],
  [0x5, 0x2400, 'INVALID_DEVICE_REQUEST'],
  [0x5, 0x2500, 'NO_SUCH_DEVICE'],
  [0x6, 0x2900, 'IO_DEVICE_ERROR, retried'],
  [0x7, 0x2700, 'MEDIA_WRITE_PROTECTED'],
  [0x8, 0x0000, 'NO_DATA_DETECTED'],
  [0xb, 0x0000, 'IO_DEVICE_ERROR, retried'],
  [0xf, 0x0000, 'IO_DEVICE_ERROR, retried'],
]

describe('what a class driver makes of a request that came back', () => {
  it.each(BY_SRB)('SRB status 0x%s: %s', (srbStatus, expected) => {
    expect(judged({ srbStatus })).toBe(expected)
    // A frozen queue changes nothing of the status.
    expect(judged({ srbStatus: srbStatus | 0x40 })).toBe(expected)
  })

  it.each(BY_SENSE)('sense key %s, code %s: %s', (key, asc, expected) => {
    expect(ofSense(key, asc)).toBe(expected)
  })

  it('depends on the SCSI status where the SRB says only that it failed', () => {
    expect(judged({ srbStatus: 4, scsiStatus: 0x18 })).toBe('DEVICE_BUSY')
    expect(judged({ srbStatus: 4, scsiStatus: 0x08 })).toBe('DEVICE_NOT_READY, retried')
  })

  it('says that memory was short below, and waits for it', () => {
    const short = { ...PLAIN, srbStatus: 0x30, internalStatus: NtStatus.INSUFFICIENT_RESOURCES }
    expect(outcomeOf(short)).toEqual({
      status: NtStatus.INSUFFICIENT_RESOURCES,
      retry: true,
      delaySeconds: 1,
    })
  })

  it('reads no sense that is not said to be valid, and none past its end', () => {
    const sense = new Window(senseBytes(7, 0x2700))
    expect(judged({ srbStatus: 4, sense })).toBe('IO_DEVICE_ERROR, retried')
    expect(judged({ srbStatus: 0x84, sense: null })).toBe('IO_DEVICE_ERROR, retried')
    expect(ofSense(5, 0x2100, { sense: new Window(senseBytes(5, 0x2100).slice(0, 8)) })).toBe(
      'INVALID_DEVICE_REQUEST',
    )
  })

  it('takes less data for success only where a command asks what the device is', () => {
    const short = { srbStatus: 0x12, askedBytes: 255, movedBytes: 36 }
    for (const opcode of [INQUIRY, 0x1a, 0x5a]) expect(judged({ ...short, opcode })).toBe('SUCCESS')
    expect(judged({ ...short, opcode: READ })).toBe('DATA_OVERRUN')
    expect(judged({ ...short, opcode: INQUIRY, movedBytes: 256 })).toBe('DATA_OVERRUN')
  })

  it('asks for the medium to be looked at again where it may have changed', () => {
    expect(ofSense(6, 0x2800, { removable: true })).toBe('VERIFY_REQUIRED')
    expect(judged({ srbStatus: 0x16, verifying: true })).toBe('VERIFY_REQUIRED')
  })

  it('ends after so many tries, whatever came back', () => {
    fc.assert(
      fc.property(fc.nat(255), fc.nat(255), fc.nat(15), fc.nat(0xffff), (srbStatus, scsiStatus, key, asc) => {
        const sense = new Window(senseBytes(key, asc))
        const returned = { ...PLAIN, srbStatus, scsiStatus, sense }
        const last = outcomeOf({ ...returned, tries: RETRIES })
        expect(last.retry).toBe(false)
        expect(last.status).toBe(outcomeOf({ ...returned, tries: RETRIES - 1 }).status)
      }),
    )
    expect(judged({ srbStatus: 0x14, tries: 2 })).toBe('IO_DEVICE_ERROR')
  })
})

describe('commands a class driver builds', () => {
  it('reach the blocks that were meant, as a target reads them', () => {
    const edge = fc.constantFrom(0, 1, 0xffff, 2 ** 32 - 1, 2 ** 32, 2 ** 40)
    fc.assert(
      fc.property(
        fc.tuple(edge, fc.nat(3)).map(([base, more]) => base + more),
        fc.oneof(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 0xfff0, max: 0x10010 })),
        fc.boolean(),
        fc.boolean(),
        (lba, blocks, write, fua) => {
          const cdb = new Window(new Uint8Array(20))
          const length = Cdb.transfer(cdb, 4, write, lba, blocks, fua)
          const target = new ScsiTarget({
            blocks: 2 ** 41,
            blockBytes: 512,
            physicalExponent: 0,
            readOnly: false,
            writeCache: true,
            serial: '',
            unmapBlocksMax: 0,
            unmapRangesMax: 0,
          })
          expect(target.plan(cdb, 4, length)).toEqual({ kind: 'transfer', write, lba, blocks, fua })
          expect(length).toBe(lba + blocks <= 2 ** 32 && blocks <= 0xffff ? 10 : 16)
        },
      ),
    )
  })
})
