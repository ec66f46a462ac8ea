import { describe, expect, it } from 'vitest'
import { Major } from '../../guest/kernel/io-layout.ts'
import { ntStatusName } from '../../guest/kernel/nt-status.ts'
import { DiskRig, NO_LEAKS } from './disk-rig.ts'

describe('the disk driver over a unit', () => {
  it('starts, reads, writes, flushes, closes and goes without a trace', () => {
    for (const seed of [undefined, 1, 2, 3]) {
      const rig = new DiskRig({}, seed === undefined ? {} : { seed })
      const { machine, kernel, unit } = rig
      machine.run(function* () {
        expect(ntStatusName(yield* rig.start())).toBe('SUCCESS')
        const device = rig.named('\\??\\PhysicalDrive0')
        expect(ntStatusName(yield* rig.send(device, Major.CREATE))).toBe('SUCCESS')
        const buffer = kernel.parts.space.allocateUser(3072, { offsetBytes: 512 })
        kernel.mmWindow(buffer, 3072)?.fill(7, 0, 3072)
        const written = yield* rig.ended(rig.transfer(device, true, buffer, 3072, 1024))
        expect(written).toMatchObject({ ends: 1, status: 'SUCCESS', information: 3072 })
        kernel.mmWindow(buffer, 3072)?.fill(0, 0, 3072)
        const read = yield* rig.ended(rig.transfer(device, false, buffer, 3072, 512))
        expect(read).toMatchObject({ ends: 1, status: 'SUCCESS', information: 3072 })
        const came = new Uint8Array(3072)
        kernel.mmWindow(buffer, 3072)?.copyOut(0, came)
        expect([...came.subarray(0, 512)]).toEqual(Array(512).fill(0))
        expect(came.subarray(512).every((byte) => byte === 7)).toBe(true)
        expect(ntStatusName(yield* rig.send(device, Major.FLUSH_BUFFERS))).toBe('SUCCESS')
        expect(unit.flushes).toBe(1)
        yield* rig.send(device, Major.CLEANUP)
        yield* rig.send(device, Major.CLOSE)
        kernel.parts.space.freeUser(buffer)
        yield* rig.remove()
      })
      expect(unit.wrong).toEqual([])
      expect(unit.minors).toEqual([0, 2])
      expect(rig.leaks()).toEqual(NO_LEAKS)
    }
  })
})
