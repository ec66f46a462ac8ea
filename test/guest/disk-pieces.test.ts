import { describe, expect, it } from 'vitest'
import type { Waiting } from '../../guest/kernel/thread.ts'
import type { Fault } from './array-unit.ts'
import { DiskRig, NO_LEAKS, type Transfer } from './disk-rig.ts'

/** READ or WRITE of whole sectors by a user, from sector 0. */
function send(rig: DiskRig, write: boolean, blocks: number, buffer: number): Transfer {
  return rig.transfer(rig.fdo, write, buffer, blocks * 512, 0)
}

function rigged(
  options: ConstructorParameters<typeof DiskRig>[0],
  body: (rig: DiskRig) => Waiting<void>,
): void {
  const rig = new DiskRig(options)
  rig.machine.run(function* () {
    yield* body(rig)
    yield* rig.remove()
  })
  expect(rig.leaks()).toEqual(NO_LEAKS)
}

describe('a request of several pieces', () => {
  it('ends with the error that came first, once the last piece is back', () => {
    rigged({ sectors: 256, maximumTransferLength: 512 }, function* (rig) {
      yield* rig.start()
      const { unit, kernel } = rig
      // Pieces 1 and 3 fail, the later one sooner, each with an error that is not tried again.
      const faults: (Fault | null)[] = [
        null,
        { delayUs: 900, srbStatus: 0x84, scsiStatus: 2, sense: [7, 0x27, 0] },
        null,
        { delayUs: 300, srbStatus: 0x84, scsiStatus: 2, sense: [5, 0x21, 0] },
        { delayUs: 1500 },
      ]
      unit.fault = () => faults.shift() ?? null
      const buffer = kernel.parts.space.allocateUser(5 * 512)
      const sent = send(rig, true, 5, buffer)
      yield* kernel.keDelayExecutionThread(1200)
      expect(sent.ends).toBe(0)
      yield* rig.ended(sent)
      expect([sent.status, sent.information]).toEqual(['NONEXISTENT_SECTOR', 0])
      kernel.parts.space.freeUser(buffer)
    })
  })

  it('succeeds though it was called back, where every piece had succeeded by then', () => {
    rigged({ sectors: 256, maximumTransferLength: 512 }, function* (rig) {
      yield* rig.start()
      const { unit, kernel } = rig
      unit.deaf = true
      unit.fault = () => ({ delayUs: 500 })
      const buffer = kernel.parts.space.allocateUser(3 * 512)
      const sent = send(rig, true, 3, buffer)
      yield* kernel.keDelayExecutionThread(100)
      if (sent.irp !== null) kernel.ioCancelIrp(sent.irp)
      yield* rig.ended(sent)
      expect([sent.status, sent.information]).toEqual(['SUCCESS', 1536])
      // Recovered by the target, which is a success as well.
      unit.fault = () => ({ delayUs: 500, done: true, srbStatus: 0x84, scsiStatus: 2, sense: [1, 0x17, 0] })
      const recovered = send(rig, true, 3, buffer)
      yield* kernel.keDelayExecutionThread(100)
      if (recovered.irp !== null) kernel.ioCancelIrp(recovered.irp)
      yield* rig.ended(recovered)
      expect([recovered.status, recovered.information]).toEqual(['SUCCESS', 1536])
      kernel.parts.space.freeUser(buffer)
    })
  })
})

describe('a disk that was never started', () => {
  it('is not ready, for transfers and controls', () => {
    const rig = new DiskRig({ sectors: 64 })
    rig.unit.startStatus = 0xc0000001 as typeof rig.unit.startStatus
    rig.machine.run(function* () {
      yield* rig.start()
      const buffer = rig.kernel.parts.space.allocateUser(512)
      const sent = yield* rig.ended(send(rig, false, 1, buffer))
      expect(sent.status).toBe('DEVICE_NOT_READY')
      expect((yield* rig.control(rig.fdo, 0x7405c, [], 8)).status).toBe('DEVICE_NOT_READY')
      rig.kernel.parts.space.freeUser(buffer)
      yield* rig.remove()
    })
    expect(rig.unit.seen).toEqual([])
    expect(rig.leaks()).toEqual(NO_LEAKS)
  })
})

describe('a disk that is removed', () => {
  it('gives its unit back to who asks for it next', () => {
    const rig = new DiskRig({ sectors: 64 })
    rig.machine.run(function* () {
      yield* rig.start()
      expect(rig.unit.claimed).toBe(true)
      yield* rig.pnp(2)
      expect(rig.unit.claimed).toBe(false)
      if (rig.driver !== null) yield* rig.kernel.ioUnloadDriver(rig.driver)
      yield* rig.unit.unload()
    })
    expect(rig.leaks()).toEqual(NO_LEAKS)
  })
})

describe('a partition', () => {
  it('has its own sectors verified, not those of the disk', () => {
    rigged({ sectors: 256 }, function* (rig) {
      const entry = [0, 0, 0, 0, 7, 0, 0, 0, 40, 0, 0, 0, 100, 0, 0, 0]
      rig.unit.bytes.set(entry, 446)
      rig.unit.bytes.set([0x55, 0xaa], 510)
      yield* rig.start()
      const partition = rig.named('\\Device\\Harddisk0\\Partition1')
      const verify = [...[0, 6, 0, 0, 0, 0, 0, 0], ...[0, 4, 0, 0], 0, 0, 0, 0]
      expect((yield* rig.control(partition, 0x70014, verify, 0)).status).toBe('SUCCESS')
      // VERIFY (10): sector 3 of the partition is sector 43, and two of them.
      expect(rig.unit.seen.at(-1)?.cdb.slice(0, 10)).toEqual([0x2f, 0, 0, 0, 0, 43, 0, 0, 2, 0])
    })
  })
})
