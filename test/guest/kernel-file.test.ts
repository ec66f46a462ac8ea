import { describe, expect, it } from 'vitest'
import { DeviceFlag, Major } from '../../guest/kernel/io-layout.ts'
import type { Irp } from '../../guest/kernel/irp.ts'
import { NtStatus } from '../../guest/kernel/nt-status.ts'
import { finish, Rig } from './kernel-rig.ts'

describe('a file', () => {
  it('is cleaned up when its last handle closes, and closed when its last request is done', () => {
    for (const seed of [undefined, 1, 2, 3, 4, 5, 6, 7]) {
      const rig = new Rig(seed === undefined ? {} : { seed })
      const { kernel } = rig
      const seen: string[] = []
      let held: Irp | null = null
      rig.layer({
        name: '\\Device\\Test',
        flags: DeviceFlag.BUFFERED_IO,
        dispatch: {
          [Major.CLEANUP]: (_device, irp) => {
            seen.push('cleanup')
            if (held !== null) finish(kernel, held, NtStatus.CANCELLED)
            return finish(kernel, irp, NtStatus.SUCCESS)
          },
          [Major.CLOSE]: (_device, irp) => {
            seen.push('close')
            return finish(kernel, irp, NtStatus.SUCCESS)
          },
          [Major.READ]: (_device, irp) => {
            seen.push('read')
            kernel.ioMarkIrpPending(irp)
            held = irp
            return NtStatus.PENDING
          },
        },
      })
      const iosb = rig.iosb()
      const buffer = rig.room(64)
      rig.machine.run(function* () {
        const { status, handle } = yield* kernel.nt.createFile('\\Device\\Test')
        expect(status).toBe(NtStatus.SUCCESS)
        expect(yield* kernel.nt.readFile(handle, { iosb, buffer, lengthBytes: 64, byteOffset: 0 })).toBe(
          NtStatus.PENDING,
        )
        expect(yield* kernel.nt.close(handle)).toBe(NtStatus.SUCCESS)
      })
      expect(seen).toEqual(['read', 'cleanup', 'close'])
      expect(rig.answer(iosb)).toEqual({ status: NtStatus.CANCELLED, information: 0 })
      rig.end()
    }
  })
})
