import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ntStatusName } from '../../guest/kernel/nt-status.ts'
import type { Waiting } from '../../guest/kernel/thread.ts'
import { type OpenOptions, Overlapped, UserFile } from '../../guest/user.ts'
import type { DiskBackend, DiskIo } from '../../host/disk/backend.ts'
import { opened } from '../host/disk-subjects.ts'
import { HeldDisk } from '../host/held-disk.ts'
import { BootedGuest, NOTHING_LEFT } from './booted-guest.ts'

/** As ntddscsi.h has them, for 64-bit callers. */
const PASS_THROUGH = 0x4d004
const PASS_THROUGH_DIRECT = 0x4d014
const HEADER = 56
const OUT = 0
const IN = 1
const UNSPECIFIED = 2

interface Wanted {
  readonly cdb: readonly number[]
  readonly dataIn: number
  readonly dataBytes: number
  readonly senseBytes: number
  readonly seconds?: number
  /** What differs from a request as it should be. */
  readonly length?: number
  readonly cdbLength?: number
  readonly senseAt?: number
  readonly dataAt?: number
}

const SENSE_AT = HEADER
const DATA_AT = 96
const READ = (lba: number, blocks: number): number[] => [0x28, 0, 0, 0, lba >>> 8, lba & 255, 0, 0, blocks, 0]
const WRITE = (lba: number, blocks: number): number[] => [0x2a, ...READ(lba, blocks).slice(1)]
const TEST_UNIT_READY = [0, 0, 0, 0, 0, 0]
const INQUIRY = (bytes: number): number[] => [0x12, 0, 0, 0, bytes, 0]

function structure(wanted: Wanted, data: number): Uint8Array {
  const bytes = new Uint8Array(HEADER)
  const view = new DataView(bytes.buffer)
  view.setUint16(0, wanted.length ?? HEADER, true)
  bytes[6] = wanted.cdbLength ?? wanted.cdb.length
  bytes[7] = wanted.senseBytes
  bytes[8] = wanted.dataIn
  view.setUint32(12, wanted.dataBytes, true)
  view.setUint32(16, wanted.seconds ?? 10, true)
  view.setBigUint64(24, BigInt(wanted.dataAt ?? data), true)
  view.setUint32(32, wanted.senseAt ?? SENSE_AT, true)
  bytes.set(wanted.cdb.slice(0, 16), 36)
  return bytes
}

interface Answer {
  readonly status: string
  readonly information: number
  /** The whole output buffer, which held 0xee at first. */
  readonly output: Uint8Array
  /** The caller's data buffer. */
  readonly data: Uint8Array
}

class Caller extends BootedGuest {
  *file(options: OpenOptions = {}): Waiting<UserFile> {
    const file = yield* this.user.open('\\\\.\\PhysicalDrive0', options)
    if (!(file instanceof UserFile)) throw new Error(ntStatusName(file))
    return file
  }

  /** One request with a buffer of each kind; `sent` is what lies where the data is. */
  *pass(
    file: UserFile,
    direct: boolean,
    wanted: Wanted,
    sent: Uint8Array,
    outputBytes?: number,
  ): Waiting<Answer> {
    const { user } = this
    const room = outputBytes ?? DATA_AT + wanted.dataBytes
    const input = user.allocate(DATA_AT + sent.length)
    const output = user.allocate(room + 16)
    // Across pages that do not lie side by side.
    const data = user.allocate(Math.max(1, sent.length), 3584)
    user.put(data, sent)
    user.put(input, structure(wanted, direct ? data : DATA_AT))
    if (!direct) user.put(input + DATA_AT, sent)
    user.put(output, new Uint8Array(room + 16).fill(0xee))
    const inputBytes = direct ? HEADER : DATA_AT + (wanted.dataIn === OUT ? sent.length : 0)
    const code = direct ? PASS_THROUGH_DIRECT : PASS_THROUGH
    const begun = yield* file.beginControl(code, input, inputBytes, output, room)
    const result = begun instanceof Overlapped ? yield* file.result(begun) : { status: begun, information: 0 }
    const answer = {
      status: ntStatusName(result.status),
      information: result.information,
      output: user.get(output, room + 16) ?? new Uint8Array(0),
      data: user.get(data, sent.length) ?? new Uint8Array(0),
    }
    for (const buffer of [input, output, data]) user.free(buffer)
    return answer
  }
}

async function called<T>(body: (caller: Caller) => Waiting<T>, backend?: DiskBackend): Promise<T> {
  const caller = new Caller()
  caller.attach(backend ?? (await opened('memory:size=1M')))
  const result = caller.run(function* () {
    yield* caller.boot()
    return yield* body(caller)
  })
  expect(caller.finish()).toEqual(NOTHING_LEFT)
  return result
}

const field32 = (bytes: Uint8Array, at: number): number =>
  new DataView(bytes.buffer, bytes.byteOffset).getUint32(at, true)

describe.each([
  ['in one buffer', false],
  ['with a pointer', true],
])('a command of an application’s own, %s', (_name, direct) => {
  it('moves data in every direction, and tells how much', async () => {
    const noise = Uint8Array.from({ length: 3 * 512 }, (_, at) => (at * 7) & 255)
    await called(function* (caller) {
      const file = yield* caller.file()
      const basic = { dataBytes: noise.length, senseBytes: 18 }
      const written = yield* caller.pass(file, direct, { cdb: WRITE(5, 3), dataIn: OUT, ...basic }, noise)
      expect([written.status, written.output[2], field32(written.output, 12)]).toEqual(['SUCCESS', 0, 1536])
      expect(written.information).toBe(SENSE_AT + 18)
      const read = yield* caller.pass(
        file,
        direct,
        { cdb: READ(5, 3), dataIn: IN, ...basic },
        new Uint8Array(noise.length),
      )
      expect([read.status, read.output[2], read.output[7], field32(read.output, 12)]).toEqual([
        'SUCCESS',
        0,
        0,
        1536,
      ])
      const came = direct ? read.data : read.output.subarray(DATA_AT, DATA_AT + noise.length)
      expect(Buffer.compare(came, noise)).toBe(0)
      for (const dataIn of [IN, OUT, UNSPECIFIED]) {
        const none = { cdb: TEST_UNIT_READY, dataIn, dataBytes: 0, senseBytes: 0 }
        const ready = yield* caller.pass(file, direct, none, new Uint8Array(0))
        expect([ready.status, ready.output[2], ready.information]).toEqual(['SUCCESS', 0, HEADER])
      }
      yield* file.close()
    })
  })

  it('brings the sense data of a command that fails, as far as there is room, and no data', async () => {
    await called(function* (caller) {
      const file = yield* caller.file()
      for (const senseBytes of [0, 1, 8, 18, 32]) {
        const wanted = { cdb: READ(0xffff, 1), dataIn: IN, dataBytes: 512, senseBytes }
        const answer = yield* caller.pass(file, direct, wanted, new Uint8Array(512).fill(0x11))
        expect([answer.status, answer.output[2], field32(answer.output, 12)]).toEqual(['SUCCESS', 2, 0])
        const told = Math.min(senseBytes, 18)
        expect(answer.output[7]).toBe(told)
        const sense = answer.output.subarray(SENSE_AT, SENSE_AT + told)
        const expected = [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x21, 0, 0, 0, 0, 0]
        expect([...sense]).toEqual(expected.slice(0, told))
        if (direct) expect(answer.data.every((byte) => byte === 0x11)).toBe(true)
      }
      yield* file.close()
    })
  })

  it('tells of less data than there was room for, and leaves the rest of the room alone', async () => {
    await called(function* (caller) {
      const file = yield* caller.file()
      const wanted = { cdb: INQUIRY(200), dataIn: IN, dataBytes: 200, senseBytes: 18 }
      const answer = yield* caller.pass(file, direct, wanted, new Uint8Array(200).fill(0x22))
      expect([answer.status, answer.output[2], field32(answer.output, 12)]).toEqual(['SUCCESS', 0, 36])
      const came = direct ? answer.data : answer.output.subarray(DATA_AT)
      expect(String.fromCharCode(...came.subarray(8, 16))).toBe('Paravane')
      expect(came.subarray(36, 200).every((byte) => byte === (direct ? 0x22 : 0xee))).toBe(true)
      expect(answer.information).toBe(direct ? SENSE_AT + 18 : DATA_AT + 36)
      yield* file.close()
    })
  })

  it('is refused for any length, offset, direction or time that is none, and writes nowhere', async () => {
    const wrong: readonly (readonly [Partial<Wanted>, string, number?])[] = [
      [{ length: 44 }, 'REVISION_MISMATCH'],
      [{ length: 0 }, 'REVISION_MISMATCH'],
      [{ cdbLength: 0 }, 'INVALID_PARAMETER'],
      [{ cdbLength: 17 }, 'INVALID_PARAMETER'],
      [{ cdbLength: 255 }, 'INVALID_PARAMETER'],
      [{ dataIn: UNSPECIFIED }, 'INVALID_PARAMETER'],
      [{ dataIn: 3 }, 'INVALID_PARAMETER'],
      [{ seconds: 0 }, 'INVALID_PARAMETER'],
      [{ seconds: 108_001 }, 'INVALID_PARAMETER'],
      [{ seconds: 0xffff_ffff }, 'INVALID_PARAMETER'],
      [{ senseAt: 55 }, 'INVALID_PARAMETER'],
      [{ senseAt: 0xffff_ffff }, 'INVALID_PARAMETER'],
      [{ senseAt: DATA_AT + 512 - 17 }, 'INVALID_PARAMETER'],
      [{ dataBytes: 0xffff_ffff }, 'INVALID_PARAMETER'],
      ...(direct
        ? ([
            [{ dataAt: 0 }, 'ACCESS_VIOLATION'],
            [{ dataAt: 0x7fff_0000 }, 'ACCESS_VIOLATION'],
            [{ dataAt: Number.MAX_SAFE_INTEGER }, 'ACCESS_VIOLATION'],
          ] as const)
        : ([
            [{ dataAt: 0 }, 'INVALID_PARAMETER'],
            [{ dataAt: HEADER }, 'INVALID_PARAMETER'],
            [{ dataAt: DATA_AT + 1 }, 'INVALID_PARAMETER'],
            [{ dataAt: 0xffff_ffff }, 'INVALID_PARAMETER'],
            [{ dataAt: 0x1_0000_0060 }, 'INVALID_PARAMETER'],
            [{ senseAt: DATA_AT - 17 }, 'INVALID_PARAMETER'],
            // The output ends before the data does.
            [{}, 'INVALID_PARAMETER', DATA_AT + 511],
          ] as const)),
    ]
    await called(function* (caller) {
      const file = yield* caller.file()
      const good = { cdb: READ(0, 1), dataIn: IN, dataBytes: 512, senseBytes: 18 }
      for (const [change, status, outputBytes] of wrong) {
        const wanted = { ...good, ...change }
        const answer = yield* caller.pass(
          file,
          direct,
          wanted,
          new Uint8Array(512),
          outputBytes ?? DATA_AT + 512,
        )
        expect([change, answer.status, answer.information]).toEqual([change, status, 0])
        expect(answer.output.every((byte) => byte === 0xee)).toBe(true)
      }
      if (!direct) {
        // More to send than there is, though the answer has room for it.
        const writing = { ...good, cdb: WRITE(0, 1), dataIn: OUT }
        const answer = yield* caller.pass(file, direct, writing, new Uint8Array(511), DATA_AT + 512)
        expect([answer.status, answer.information]).toEqual(['INVALID_PARAMETER', 0])
      }
      const code = direct ? PASS_THROUGH_DIRECT : PASS_THROUGH
      for (const inputBytes of [0, 1, HEADER - 1]) {
        const { status } = yield* file.control(code, structure(good, DATA_AT).subarray(0, inputBytes), 1024)
        expect(ntStatusName(status)).toBe('BUFFER_TOO_SMALL')
      }
      yield* file.close()
    })
  })

  it('never writes outside of what came, whatever its fields say', async () => {
    await called(function* (caller) {
      const file = yield* caller.file()
      const arbitrary = fc.record({
        cdb: fc.constantFrom(READ(0, 1), READ(3, 2), INQUIRY(96), TEST_UNIT_READY, [0xff, 0, 0, 0, 0, 0]),
        dataIn: fc.constantFrom(IN, IN, OUT, UNSPECIFIED),
        dataBytes: fc.constantFrom(0, 1, 36, 512, 513, 1024),
        senseBytes: fc.nat(40),
        senseAt: fc.integer({ min: 50, max: 120 }),
        outputBytes: fc.integer({ min: 0, max: 1200 }),
      })
      for (const { outputBytes, ...wanted } of fc.sample(arbitrary, 150)) {
        const sent = new Uint8Array(wanted.dataBytes)
        const { status, information, output } = yield* caller.pass(file, direct, wanted, sent, outputBytes)
        expect(information).toBeLessThanOrEqual(outputBytes)
        expect(output.subarray(information).every((byte) => byte === 0xee)).toBe(true)
        if (status !== 'SUCCESS') expect(information).toBe(0)
      }
      yield* file.close()
    })
  })

  it('needs a handle that may read and write, and no partition’s', async () => {
    const statuses = await called(function* (caller) {
      const found: string[] = []
      const wanted = { cdb: TEST_UNIT_READY, dataIn: IN, dataBytes: 0, senseBytes: 0 }
      for (const [read, write] of [
        [true, false],
        [false, true],
        [true, true],
      ] as const) {
        const file = yield* caller.file({ read, write })
        found.push((yield* caller.pass(file, direct, wanted, new Uint8Array(0))).status)
        yield* file.close()
      }
      return found
    })
    expect(statuses).toEqual(['ACCESS_DENIED', 'ACCESS_DENIED', 'SUCCESS'])
  })

  if (direct) {
    it('reads no page that may not be written, and writes from one', async () => {
      const found = await called(function* (caller) {
        const file = yield* caller.file()
        const page = caller.kernel.parts.space.allocateUser(512, { readOnly: true })
        const statuses: string[] = []
        for (const [cdb, dataIn] of [
          [READ(0, 1), IN],
          [WRITE(0, 1), OUT],
        ] as const) {
          const wanted = { cdb, dataIn, dataBytes: 512, senseBytes: 18, dataAt: page }
          statuses.push((yield* caller.pass(file, true, wanted, new Uint8Array(0))).status)
        }
        caller.user.free(page)
        yield* file.close()
        return statuses
      })
      expect(found).toEqual(['ACCESS_VIOLATION', 'SUCCESS'])
    })
  }

  it('ends when its time is over, is not tried again, and the disk serves on', async () => {
    class Sometimes extends HeldDisk {
      holding = false
      override submit(io: DiskIo): void {
        super.submit(io)
        if (!this.holding) this.end(this.held.length - 1)
      }
    }
    const backend = new Sometimes()
    await called(function* (caller) {
      const file = yield* caller.file()
      const wanted = { cdb: READ(0, 1), dataIn: IN, dataBytes: 512, senseBytes: 18, seconds: 3 }
      const reads = (): number => backend.log.filter((line) => line === 'read').length
      const before = reads()
      const beganUs = caller.machine.clock.now()
      backend.holding = true
      const late = yield* caller.pass(file, direct, wanted, new Uint8Array(512))
      const tookUs = caller.machine.clock.now() - beganUs
      backend.holding = false
      // A reset of the unit ended it.
      expect([late.status, late.information]).toEqual(['IO_DEVICE_ERROR', 0])
      expect(tookUs).toBeGreaterThanOrEqual(3_000_000)
      expect(tookUs).toBeLessThan(5_000_000)
      expect(reads() - before).toBe(1)
      const again = yield* caller.pass(file, direct, wanted, new Uint8Array(512))
      expect(again.status).toBe('SUCCESS')
      yield* file.close()
    }, backend)
  })
})
