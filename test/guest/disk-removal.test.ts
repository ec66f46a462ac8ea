import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Fault } from './array-unit.ts'
import { DiskRig, NO_LEAKS } from './disk-rig.ts'

const LENGTHS = fc.array(
  fc.record({ blocks: fc.integer({ min: 1, max: 30 }), write: fc.boolean(), gapUs: fc.nat(1500) }),
  { minLength: 1, maxLength: 12 },
)
const FAULTS: readonly Fault[] = [
  { delayUs: 300 },
  { delayUs: 2000 },
  { srbStatus: 5 },
  { srbStatus: 0x0e },
  { srbStatus: 4, scsiStatus: 2, sense: [2, 4, 1] },
]

describe('a request that is called back', () => {
  it('ends once, at every moment, and the disk serves on', () => {
    fc.assert(
      fc.property(
        LENGTHS,
        fc.infiniteStream(fc.option(fc.constantFrom<Fault>(...FAULTS, { never: true }), { freq: 4 })),
        fc.infiniteStream(fc.nat(3000)),
        fc.nat(10_000),
        (lengths, faults, moments, seed) => {
          const rig = new DiskRig({ sectors: 2048, maximumTransferLength: 2048 }, { seed })
          const { machine, kernel, unit } = rig
          machine.run(function* () {
            yield* rig.start()
            unit.fault = () => faults.next().value
            const buffers: number[] = []
            for (const { blocks, write, gapUs } of lengths) {
              const buffer = kernel.parts.space.allocateUser(blocks * 512)
              buffers.push(buffer)
              const sent = rig.transfer(rig.fdo, write, buffer, blocks * 512, 0)
              const moment = moments.next().value
              kernel.psCreateSystemThread(function* () {
                yield* kernel.keDelayExecutionThread(moment)
                if (sent.irp !== null) kernel.ioCancelIrp(sent.irp)
              })
              yield* kernel.keDelayExecutionThread(gapUs)
            }
            // Called back once more: the ones that nothing else would end.
            yield* kernel.keDelayExecutionThread(5000)
            for (const sent of rig.transfers) if (sent.irp !== null) kernel.ioCancelIrp(sent.irp)
            for (const sent of rig.transfers) yield* rig.ended(sent)
            unit.fault = () => null
            const last = yield* rig.ended(rig.transfer(rig.fdo, true, buffers[0] ?? 0, 512, 512))
            expect(last.status).toBe('SUCCESS')
            for (const buffer of buffers) kernel.parts.space.freeUser(buffer)
            yield* rig.remove()
          })
          for (const { ends, status, information } of rig.transfers) {
            expect(ends).toBe(1)
            if (status !== 'SUCCESS') expect(information).toBe(0)
          }
          expect(machine.clock.now()).toBeLessThan(40_000_000)
          expect(rig.leaks()).toEqual(NO_LEAKS)
        },
      ),
      { numRuns: 60 },
    )
  })

  it('is CANCELLED while its command is below, before it was sent, and while it waits for another try', () => {
    const statuses: string[] = []
    for (const fault of [{ never: true }, { srbStatus: 5 }] as const) {
      const rig = new DiskRig({ sectors: 64 })
      const { machine, kernel } = rig
      machine.run(function* () {
        yield* rig.start()
        rig.unit.fault = () => fault
        const buffer = kernel.parts.space.allocateUser(512)
        const sent = rig.transfer(rig.fdo, false, buffer, 512, 0)
        yield* kernel.keDelayExecutionThread(1000)
        expect(sent.ends).toBe(0)
        if (sent.irp !== null) kernel.ioCancelIrp(sent.irp)
        yield* rig.ended(sent)
        statuses.push(sent.status)
        rig.unit.fault = () => null
        kernel.parts.space.freeUser(buffer)
        yield* rig.remove()
      })
      expect(machine.clock.now()).toBeLessThan(10_000)
      expect(rig.leaks()).toEqual(NO_LEAKS)
    }
    expect(statuses).toEqual(['CANCELLED', 'CANCELLED'])
  })
})

describe('a request that was called back before the disk had it', () => {
  it('is CANCELLED, and sends nothing', () => {
    const rig = new DiskRig({ sectors: 64 })
    rig.machine.run(function* () {
      yield* rig.start()
      const before = rig.unit.seen.length
      const buffer = rig.kernel.parts.space.allocateUser(512)
      const sent = yield* rig.ended(rig.transfer(rig.fdo, true, buffer, 512, 0, 0, true))
      expect([sent.ends, sent.status, rig.unit.seen.length - before]).toEqual([1, 'CANCELLED', 0])
      rig.kernel.parts.space.freeUser(buffer)
      yield* rig.remove()
    })
    expect(rig.leaks()).toEqual(NO_LEAKS)
  })

  it('sends no further piece once it was called back, though those below succeed', () => {
    const rig = new DiskRig({ sectors: 1024, maximumTransferLength: 512 })
    rig.machine.run(function* () {
      yield* rig.start()
      const before = rig.unit.seen.length
      // What is below ends well, and too late to be called back.
      rig.unit.deaf = true
      rig.unit.fault = () => ({ delayUs: 1000 })
      const buffer = rig.kernel.parts.space.allocateUser(200 * 512)
      const sent = rig.transfer(rig.fdo, true, buffer, 200 * 512, 0)
      if (sent.irp !== null) rig.kernel.ioCancelIrp(sent.irp)
      yield* rig.ended(sent)
      expect([sent.status, rig.unit.seen.length - before]).toEqual(['CANCELLED', 64])
      rig.kernel.parts.space.freeUser(buffer)
      yield* rig.remove()
    })
    expect(rig.leaks()).toEqual(NO_LEAKS)
  })
})

describe('a disk that goes away', () => {
  it('ends every request once, hangs nowhere and leaves nothing, pulled out or removed under load', () => {
    fc.assert(
      fc.property(
        LENGTHS,
        fc.infiniteStream(fc.option(fc.constantFrom<Fault>(...FAULTS, { never: true }), { freq: 4 })),
        fc.nat(4000),
        fc.boolean(),
        fc.nat(10_000),
        (lengths, faults, moment, surprise, seed) => {
          const rig = new DiskRig({ sectors: 2048, maximumTransferLength: 2048 }, { seed })
          const { machine, kernel, unit } = rig
          machine.run(function* () {
            yield* rig.start()
            const { fdo } = rig
            unit.fault = () => {
              const fault = faults.next().value
              // What is never answered ends only when the unit is pulled out.
              if (fault?.never === true && !surprise) return { delayUs: 100 }
              return fault
            }
            const buffers: number[] = []
            kernel.psCreateSystemThread(function* () {
              for (const { blocks, write, gapUs } of lengths) {
                if (rig.disk.gone) break
                const buffer = kernel.parts.space.allocateUser(blocks * 512)
                buffers.push(buffer)
                rig.transfer(fdo, write, buffer, blocks * 512, 0)
                yield* kernel.keDelayExecutionThread(gapUs)
              }
            })
            yield* kernel.keDelayExecutionThread(moment)
            if (surprise) {
              const gone = rig.pnp(0x17)
              unit.vanish()
              yield* gone
              const late = rig.transfer(
                fdo,
                false,
                buffers[0] ?? kernel.parts.space.allocateUser(512),
                512,
                0,
              )
              expect(late).toMatchObject({ ends: 1, status: 'NO_SUCH_DEVICE' })
              // No request waits for another try of a disk that is gone.
              yield* kernel.keDelayExecutionThread(2000)
              expect(rig.transfers.every((one) => one.ends === 1)).toBe(true)
            } else {
              // Removal waits for what is under way: the PnP manager lets nothing new in.
              while (rig.transfers.length < lengths.length) yield* kernel.keDelayExecutionThread(1000)
            }
            yield* rig.remove()
          })
          expect(rig.transfers.every((one) => one.ends === 1)).toBe(true)
          const { pool, devices, irps, locked } = rig.leaks()
          expect({ pool, devices, irps, locked }).toEqual({ pool: 0, devices: 0, irps: 0, locked: 0 })
        },
      ),
      { numRuns: 60 },
    )
  })

  it('fails START when the drivers below do, the unit is taken, or there is no disk', () => {
    const start = (prepare: (rig: DiskRig) => void) => {
      const rig = new DiskRig({ sectors: 64 })
      let status = 0
      rig.machine.run(function* () {
        prepare(rig)
        status = yield* rig.start()
        yield* rig.remove()
      })
      expect(rig.leaks()).toEqual(NO_LEAKS)
      return status >>> 0
    }
    expect(start((rig) => Object.assign(rig.unit, { startStatus: 0xc0000001 }))).toBe(0xc0000001)
    expect(start((rig) => Object.assign(rig.unit, { claimed: true }))).toBe(0x80000011)
    expect(start((rig) => Object.assign(rig.unit, { gone: true }))).toBe(0xc000000e)
  })

  it('starts without a capacity when the medium is not there, and says so to whoever reads', () => {
    const rig = new DiskRig({ sectors: 64, removable: true })
    rig.machine.run(function* () {
      rig.unit.fault = ({ cdb }) =>
        cdb[0] === 0x12 || cdb.length === 0 ? null : { srbStatus: 4, scsiStatus: 2, sense: [2, 0x3a, 0] }
      expect(yield* rig.start()).toBe(0)
      const buffer = rig.kernel.parts.space.allocateUser(512)
      expect((yield* rig.ended(rig.transfer(rig.fdo, false, buffer, 512, 0))).status).toBe(
        'NO_MEDIA_IN_DEVICE',
      )
      rig.kernel.parts.space.freeUser(buffer)
      yield* rig.remove()
    })
    expect(rig.leaks()).toEqual(NO_LEAKS)
  })

  it('takes no size from it that it cannot count in', () => {
    const facts = (capacity10: readonly number[], capacity16: readonly number[] | null) => {
      const rig = new DiskRig({ sectors: 64, capacity10, capacity16 })
      let seen: readonly number[] = []
      rig.machine.run(function* () {
        yield* rig.start()
        const { facts: found, readyStatus } = rig.disk
        seen = [found.sectors, found.sectorBytes, readyStatus >>> 0]
        yield* rig.remove()
      })
      return seen
    }
    const sixteen = (lba: readonly number[], tail = 24) => [...lba, 0, 0, 2, 0, ...Array(tail - 4).fill(0)]
    const ff = [0xff, 0xff, 0xff, 0xff]
    expect(facts([0, 0, 0, 63, 0, 0, 2, 0], null)).toEqual([64, 512, 0])
    expect(facts([...ff, 0, 0, 2, 0], sixteen([0, 0, 0, 1, 0, 0, 0, 0]))).toEqual([2 ** 32 + 1, 512, 0])
    expect(facts([...ff, 0, 0, 2, 0], null)).toEqual([0, 512, 0xc0000010])
    expect(facts([...ff, 0, 0, 2, 0], sixteen([...ff, ...ff]))).toEqual([0, 512, 0xc0000014])
    for (const blockBytes of [0, 1, 256, 513, 3 * 512, 0x20000]) {
      const bytes = [0, (blockBytes >>> 16) & 255, (blockBytes >>> 8) & 255, blockBytes & 255]
      expect(facts([0, 0, 0, 63, ...bytes], null)).toEqual([0, 512, 0xc0000014])
    }
  })
})
