import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ntStatusName } from '../../guest/kernel/nt-status.ts'
import type { Fault, Seen } from './array-unit.ts'
import { DiskRig, NO_LEAKS, type Transfer } from './disk-rig.ts'

const SECTORS = 96

/** Faults a disk gets over with retries, and what its application sees of those that it does not. */
const PASSING: readonly Fault[] = [
  { srbStatus: 0x0e },
  { srbStatus: 0x05 },
  { srbStatus: 0x02 },
  { srbStatus: 0x0b },
  { srbStatus: 4, scsiStatus: 2, sense: [2, 4, 1] },
  { srbStatus: 4, scsiStatus: 2, sense: [6, 0x29, 0] },
  { srbStatus: 4, scsiStatus: 2, sense: [0xb, 0, 0] },
  { srbStatus: 1, moved: 0 },
  { srbStatus: 1, moved: 7 },
  { srbStatus: 1, moved: 0xffff_ffff },
  { delayUs: 700 },
  { delayUs: 20 },
]

const operation = fc.record({
  lba: fc.nat(SECTORS + 2),
  blocks: fc.integer({ min: 0, max: 40 }),
  odd: fc.constantFrom(0, 0, 0, 0, 1, 256),
  write: fc.boolean(),
  through: fc.boolean(),
  offset: fc.constantFrom(0, 0, 512, 100, 3584),
  value: fc.integer({ min: 1, max: 255 }),
  waits: fc.boolean(),
})

const unit = fc.record({
  maximumTransferLength: fc.constantFrom(512, 4096, 5000, 8192, 65536),
  maximumPhysicalPages: fc.constantFrom(1, 2, 3, 17),
  dpofua: fc.boolean(),
  writeCache: fc.boolean(),
})

describe('a disk through the class driver', () => {
  it('is an array, whatever fails and is tried again below, with preemption anywhere', () => {
    fc.assert(
      fc.property(
        unit,
        fc.array(operation, { minLength: 1, maxLength: 14 }),
        fc.infiniteStream(fc.option(fc.constantFrom(...PASSING), { freq: 2 })),
        fc.option(fc.nat(10_000), { nil: undefined }),
        (options, operations, faults, seed) => {
          const rig = new DiskRig({ sectors: SECTORS, ...options }, seed === undefined ? {} : { seed })
          const { machine, kernel, unit: below } = rig
          const model = new Uint8Array(SECTORS * 512)
          const wrong: string[] = []
          machine.run(function* () {
            const started = yield* rig.start()
            if (started !== 0) throw new Error(ntStatusName(started))
            // No command fails more often than it is tried, so that all of them pass. Counted for each command by
            // itself: the pieces of one transfer are under way together.
            const streaks = new Map<string, number>()
            below.fault = (seen: Seen) => {
              const operation = seen.cdb[0] ?? 0
              const command = seen.cdb.join()
              const streak = streaks.get(command) ?? 0
              let next = [0x28, 0x2a, 0x35].includes(operation) ? (faults.next().value ?? null) : null
              const short = next?.moved !== undefined && operation === 0x35
              if (streak === 7 || short) next = null
              streaks.set(command, next === null || next.delayUs !== undefined ? 0 : streak + 1)
              return next
            }
            const device = rig.named('\\??\\PhysicalDrive0')
            for (const op of operations) {
              const bytes = op.blocks * 512 + op.odd
              const buffer = kernel.parts.space.allocateUser(bytes, { offsetBytes: op.offset })
              if (bytes > 0) kernel.mmWindow(buffer, bytes)?.fill(op.write ? op.value : 0xee, 0, bytes)
              const before = below.seen.length
              const flushes = below.flushes
              const sent = rig.transfer(device, op.write, buffer, bytes, op.lba * 512, op.through ? 4 : 0)
              yield* rig.ended(sent)
              const inside = op.odd === 0 && (op.lba + op.blocks) * 512 <= model.length
              const expected = inside ? 'SUCCESS' : 'INVALID_PARAMETER'
              if (sent.status !== expected) wrong.push(`${sent.status} of ${JSON.stringify(op)}`)
              if (sent.information !== (inside ? bytes : 0)) wrong.push(`information ${sent.information}`)
              if (sent.ends !== 1) wrong.push(`${sent.ends} ends`)
              if (inside && op.write) model.fill(op.value, op.lba * 512, op.lba * 512 + bytes)
              const came = new Uint8Array(bytes)
              if (bytes > 0) kernel.mmWindow(buffer, bytes)?.copyOut(0, came)
              if (inside && !op.write && !same(came, model.subarray(op.lba * 512, op.lba * 512 + bytes))) {
                wrong.push(`data of ${JSON.stringify(op)}`)
              }
              const cdbs = below.seen.slice(before)
              if (!inside && cdbs.length > 0) wrong.push('a refused transfer reached the unit')
              for (const { cdb, lengthBytes, pages, timeoutSeconds } of cdbs) {
                const flush = cdb[0] === 0x35
                if (timeoutSeconds !== (flush ? 40 : 10)) wrong.push('timeout')
                if (lengthBytes > Math.max(512, options.maximumTransferLength)) wrong.push('too long a piece')
                if (pages > Math.max(2, options.maximumPhysicalPages)) wrong.push(`${pages} pages`)
                const forced = ((cdb[1] ?? 0) & 8) !== 0
                const shouldForce = op.write && op.through && options.writeCache && options.dpofua
                if (!flush && forced !== shouldForce) wrong.push('force unit access')
              }
              const flushed = op.write && op.through && options.writeCache && !options.dpofua && inside
              if (below.flushes - flushes !== (flushed && bytes > 0 ? 1 : 0)) wrong.push('flushes')
              kernel.parts.space.freeUser(buffer)
            }
            if (!same(below.bytes, model)) wrong.push('the medium differs')
            yield* rig.remove()
          })
          expect(wrong).toEqual([])
          expect(below.wrong).toEqual([])
          expect(rig.leaks()).toEqual(NO_LEAKS)
        },
      ),
      { numRuns: 80 },
    )
  })

  it('keeps requests apart when many are under way, each in as many pieces as the adapter wants', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 2, maxLength: 24 }),
        fc.infiniteStream(fc.integer({ min: 1, max: 5000 })),
        fc.nat(10_000),
        (lengths, delays, seed) => {
          const rig = new DiskRig({ sectors: 2048, maximumTransferLength: 1024 }, { seed })
          const { machine, kernel, unit: below } = rig
          machine.run(function* () {
            yield* rig.start()
            below.fault = () => ({ delayUs: delays.next().value })
            let lba = 0
            const buffers: number[] = []
            for (const [index, blocks] of lengths.entries()) {
              const buffer = kernel.parts.space.allocateUser(blocks * 512)
              kernel.mmWindow(buffer, blocks * 512)?.fill(index + 1, 0, blocks * 512)
              buffers.push(buffer)
              rig.transfer(rig.fdo, true, buffer, blocks * 512, lba * 512)
              lba += blocks
            }
            for (const sent of rig.transfers) yield* rig.ended(sent)
            for (const buffer of buffers) kernel.parts.space.freeUser(buffer)
            yield* rig.remove()
          })
          expect(rig.transfers.map((one) => [one.ends, one.status])).toEqual(
            lengths.map(() => [1, 'SUCCESS']),
          )
          const model = lengths.flatMap((blocks, index) => Array(blocks * 512).fill(index + 1))
          expect(same(below.bytes.subarray(0, model.length), Uint8Array.from(model))).toBe(true)
          expect(below.heldMost).toBeLessThanOrEqual(64)
          expect(rig.leaks()).toEqual(NO_LEAKS)
        },
      ),
      { numRuns: 25 },
    )
  })
})

describe('a request that does not succeed', () => {
  const once = (fault: Fault, unitOptions = {}) => {
    const rig = new DiskRig({ sectors: 64, ...unitOptions })
    let tries = 0
    let result: Transfer | null = null
    rig.machine.run(function* () {
      yield* rig.start()
      rig.unit.fault = () => {
        tries++
        return fault
      }
      const buffer = rig.kernel.parts.space.allocateUser(512)
      result = yield* rig.ended(rig.transfer(rig.fdo, false, buffer, 512, 0))
      rig.unit.fault = () => null
      rig.kernel.parts.space.freeUser(buffer)
      yield* rig.remove()
    })
    expect(rig.leaks()).toEqual(NO_LEAKS)
    const { status, information } = result as unknown as Transfer
    return { status, information, tries, us: rig.machine.clock.now() }
  }

  it('is tried eight times more, at once or after a second, and then fails as its last try did', () => {
    expect(once({ srbStatus: 0x0e })).toMatchObject({ status: 'IO_DEVICE_ERROR', tries: 9, information: 0 })
    expect(once({ srbStatus: 0x0b })).toMatchObject({ status: 'IO_TIMEOUT', tries: 9 })
    expect(once({ srbStatus: 1, moved: 100 })).toMatchObject({ status: 'IO_DEVICE_ERROR', tries: 9 })
    const busy = once({ srbStatus: 5 })
    expect(busy).toMatchObject({ status: 'DEVICE_BUSY', tries: 9 })
    expect(busy.us).toBeGreaterThanOrEqual(8_000_000)
    expect(busy.us).toBeLessThan(8_100_000)
  })

  it('is not tried again when that cannot help', () => {
    const illegal = (asc: number): Fault => ({ srbStatus: 4, scsiStatus: 2, sense: [5, asc, 0] })
    expect(once(illegal(0x21))).toMatchObject({ status: 'NONEXISTENT_SECTOR', tries: 1 })
    expect(once(illegal(0x20))).toMatchObject({ status: 'INVALID_DEVICE_REQUEST', tries: 1 })
    expect(once({ srbStatus: 8 })).toMatchObject({ status: 'NO_SUCH_DEVICE', tries: 1 })
    expect(once({ srbStatus: 0x12 })).toMatchObject({ status: 'DATA_OVERRUN', tries: 1 })
    const write = { srbStatus: 4, scsiStatus: 2, sense: [7, 0x27, 0] as const }
    expect(once(write)).toMatchObject({ status: 'MEDIA_WRITE_PROTECTED', tries: 1 })
  })

  it('has a medium looked at again before anything else is read from it', () => {
    const rig = new DiskRig({ sectors: 64, removable: true })
    const statuses: string[] = []
    rig.machine.run(function* () {
      yield* rig.start()
      const buffer = rig.kernel.parts.space.allocateUser(512)
      const read = function* (flags = 0) {
        statuses.push((yield* rig.ended(rig.transfer(rig.fdo, false, buffer, 512, 0, flags))).status)
      }
      rig.unit.fault = firstOnly({ srbStatus: 4, scsiStatus: 2, sense: [6, 0x28, 0] })
      yield* read()
      yield* read()
      yield* read(2)
      rig.unit.bytes = new Uint8Array(128 * 512)
      const checked = yield* rig.control(rig.fdo, 0x2d4800, [], 4)
      statuses.push(checked.status, `${checked.bytes[0]} of ${checked.information}`)
      yield* read()
      rig.kernel.parts.space.freeUser(buffer)
      expect(rig.disk.facts.sectors).toBe(128)
      yield* rig.remove()
    })
    expect(statuses).toEqual([
      'VERIFY_REQUIRED',
      'VERIFY_REQUIRED',
      'SUCCESS',
      'SUCCESS',
      '1 of 4',
      'SUCCESS',
    ])
    expect(rig.leaks()).toEqual(NO_LEAKS)
  })

  it('makes the size be read again when the unit says that it changed', () => {
    const rig = new DiskRig({ sectors: 64 })
    rig.machine.run(function* () {
      yield* rig.start()
      const buffer = rig.kernel.parts.space.allocateUser(512)
      rig.unit.bytes = new Uint8Array(512 * 512)
      rig.unit.fault = firstOnly({ srbStatus: 4, scsiStatus: 2, sense: [6, 0x2a, 9] })
      expect((yield* rig.ended(rig.transfer(rig.fdo, false, buffer, 512, 0))).status).toBe('SUCCESS')
      yield* rig.kernel.keDelayExecutionThread(10_000)
      expect((yield* rig.ended(rig.transfer(rig.fdo, false, buffer, 512, 511 * 512))).status).toBe('SUCCESS')
      rig.kernel.parts.space.freeUser(buffer)
      yield* rig.remove()
    })
    expect(rig.leaks()).toEqual(NO_LEAKS)
  })
})

/** The first command fails, and no other. */
function firstOnly(fault: Fault): () => Fault | null {
  let first: Fault | null = fault
  return () => {
    const now = first
    first = null
    return now
  }
}

function same(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, at) => byte === other[at])
}
