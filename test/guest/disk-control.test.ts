import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { WindowsVersionName } from '../../guest/kernel/version.ts'
import { WINDOWS_VERSIONS } from '../../guest/kernel/version.ts'
import type { UnitOptions } from './array-unit.ts'
import { DiskRig, NO_LEAKS } from './disk-rig.ts'

const le = (value: number, bytes: number): number[] =>
  Array.from({ length: bytes }, (_, at) => Math.floor(value / 256 ** at) % 256)
const zeros = (count: number): number[] => Array(count).fill(0)

interface Asked {
  readonly status: string
  readonly information: number
  readonly bytes: readonly number[]
}

/** A started disk with two MBR partitions; each question is a name, a code, input bytes and room. */
function ask(
  questions: readonly (readonly [string, number, readonly number[], number])[],
  unit: UnitOptions = {},
  version: WindowsVersionName = 7,
  prepare: (rig: DiskRig) => void = twoPartitions,
): Asked[] {
  const rig = new DiskRig({ sectors: 20000, ...unit }, { version: WINDOWS_VERSIONS[version] })
  prepare(rig)
  const answers: Asked[] = []
  rig.machine.run(function* () {
    expect(yield* rig.start()).toBe(0)
    for (const [name, code, input, room] of questions) {
      const device = rig.named(`\\??\\${name}`)
      const { status, information, bytes } = yield* rig.control(device, code, input, room)
      answers.push({ status, information, bytes: [...bytes.subarray(0, information)] })
      // Behind what it says it wrote, nothing is written.
      expect([...bytes.subarray(information)].every((byte) => byte === 0xee)).toBe(true)
    }
    yield* rig.remove()
  })
  expect(rig.leaks()).toEqual(NO_LEAKS)
  expect(rig.unit.wrong).toEqual([])
  return answers
}

/** Partition 1: type 07, active, sectors 2048…6143; partition 2: type 0c, sectors 8192…10239. */
function twoPartitions(rig: DiskRig): void {
  const entry = (status: number, type: number, first: number, count: number) => [
    status,
    ...zeros(3),
    type,
    ...zeros(3),
    ...le(first, 4),
    ...le(count, 4),
  ]
  rig.unit.bytes.set([0x78, 0x56, 0x34, 0x12], 440)
  rig.unit.bytes.set(
    [...entry(0x80, 7, 2048, 4096), ...entry(0, 0x0c, 8192, 2048), ...zeros(32), 0x55, 0xaa],
    446,
  )
}

const DISK = 'PhysicalDrive0'
const ONE = 'Harddisk0Partition1'
const TWO = 'Harddisk0Partition2'
const GEOMETRY = [...le(1, 8), ...le(12, 4), ...le(255, 4), ...le(63, 4), ...le(512, 4)]
const ENTRY_1 = [...le(0, 8), ...le(2048 * 512, 8), ...le(4096 * 512, 8), ...le(1, 4), ...zeros(4)]
const ENTRY_2 = [...le(0, 8), ...le(8192 * 512, 8), ...le(2048 * 512, 8), ...le(2, 4), ...zeros(4)]
const EX_1 = [...ENTRY_1, 7, 1, 1, 0, ...le(2048, 4), ...zeros(104)]
const EX_2 = [...ENTRY_2, 0x0c, 0, 1, 0, ...le(8192, 4), ...zeros(104)]

/** Code, the least room, and the bytes of the answer. */
const TABLE: readonly (readonly [string, string, number, number, readonly number[]])[] = [
  ['GET_DRIVE_GEOMETRY', DISK, 0x70000, 24, GEOMETRY],
  ['GET_DRIVE_GEOMETRY of a partition', ONE, 0x70000, 24, GEOMETRY],
  ['GET_DRIVE_GEOMETRY_EX', DISK, 0x700a0, 32, [...GEOMETRY, ...le(20000 * 512, 8)]],
  ['GET_LENGTH_INFO', DISK, 0x7405c, 8, le(20000 * 512, 8)],
  ['GET_LENGTH_INFO of a partition', TWO, 0x7405c, 8, le(2048 * 512, 8)],
  [
    'GET_PARTITION_INFO',
    ONE,
    0x74004,
    32,
    [...le(2048 * 512, 8), ...le(4096 * 512, 8), ...le(2048, 4), ...le(1, 4), 7, 1, 1, 0, ...zeros(4)],
  ],
  ['GET_PARTITION_INFO of the disk', DISK, 0x74004, 32, [...zeros(8), ...le(20000 * 512, 8), ...zeros(16)]],
  ['GET_PARTITION_INFO_EX', ONE, 0x70048, 144, EX_1],
  ['GET_PARTITION_INFO_EX of the second', TWO, 0x70048, 144, EX_2],
  [
    'GET_PARTITION_INFO_EX of the disk',
    DISK,
    0x70048,
    144,
    [...zeros(16), ...le(20000 * 512, 8), ...zeros(120)],
  ],
  [
    'GET_DRIVE_LAYOUT_EX',
    DISK,
    0x70050,
    48 + 4 * 144,
    [...le(0, 4), ...le(4, 4), 0x78, 0x56, 0x34, 0x12, ...zeros(36), ...EX_1, ...EX_2, ...zeros(288)],
  ],
  ['GET_DEVICE_NUMBER', DISK, 0x2d1080, 12, [...le(7, 4), ...le(0, 4), ...le(0, 4)]],
  ['GET_DEVICE_NUMBER of a partition', TWO, 0x2d1080, 12, [...le(7, 4), ...le(0, 4), ...le(2, 4)]],
]

describe('a device control of the disk', () => {
  for (const [what, device, code, least, bytes] of TABLE) {
    it(`answers ${what} byte for byte, and says BUFFER_TOO_SMALL with one byte less`, () => {
      const answers = ask([
        [device, code, [], least],
        [device, code, [], least - 1],
        [device, code, [], 0],
      ])
      expect(answers[0]).toEqual({ status: 'SUCCESS', information: bytes.length, bytes })
      expect(answers[1]).toEqual({ status: 'BUFFER_TOO_SMALL', information: 0, bytes: [] })
      expect(answers[2]).toEqual({ status: 'BUFFER_TOO_SMALL', information: 0, bytes: [] })
    })
  }

  it('adds the optional parts of DISK_GEOMETRY_EX as there is room', () => {
    const fixed = [...GEOMETRY, ...le(20000 * 512, 8)]
    const partition = [...le(24, 4), ...le(0, 4), 0x78, 0x56, 0x34, 0x12, ...zeros(12)]
    const answers = ask([
      [DISK, 0x700a0, [], 55],
      [DISK, 0x700a0, [], 56],
      [DISK, 0x700a0, [], 111],
      [DISK, 0x700a0, [], 112],
    ])
    expect(answers[0]?.bytes).toEqual(fixed)
    expect(answers[1]?.bytes).toEqual([...fixed, ...partition])
    expect(answers[2]?.bytes).toEqual([...fixed, ...partition])
    expect(answers[3]?.bytes).toEqual([...fixed, ...partition, ...le(56, 4), ...zeros(52)])
  })

  it('says of a blank disk that it is raw', () => {
    const [layout] = ask([[DISK, 0x70050, [], 48]], {}, 7, () => undefined)
    expect(layout).toEqual({ status: 'SUCCESS', information: 48, bytes: [...le(2, 4), ...zeros(44)] })
  })

  it('serves IS_WRITABLE, CHECK_VERIFY and VERIFY, with the checks of ranges', () => {
    const verify = (offset: number, length: number) => [...le(offset, 8), ...le(length, 4), ...zeros(4)]
    const statuses = (unit: UnitOptions) =>
      ask(
        [
          [DISK, 0x70024, [], 0],
          [DISK, 0x2d4800, [], 0],
          [DISK, 0x74800, [], 4],
          [DISK, 0x2d0800, [], 3],
          [DISK, 0x70014, verify(0, 20000 * 512), 0],
          [DISK, 0x70014, verify(512, 20000 * 512), 0],
          [DISK, 0x70014, verify(100, 512), 0],
          [DISK, 0x70014, verify(0, 512).slice(1), 0],
          [TWO, 0x70014, verify(2047 * 512, 512), 0],
          [TWO, 0x70014, verify(2047 * 512, 1024), 0],
        ],
        unit,
      ).map((one) => one.status)
    const rest = [
      'SUCCESS',
      'SUCCESS',
      'BUFFER_TOO_SMALL',
      'SUCCESS',
      'INVALID_PARAMETER',
      'INVALID_PARAMETER',
      'INFO_LENGTH_MISMATCH',
      'SUCCESS',
      'INVALID_PARAMETER',
    ]
    expect(statuses({})).toEqual(['SUCCESS', ...rest])
    expect(statuses({ readOnly: true })).toEqual(['MEDIA_WRITE_PROTECTED', ...rest])
  })

  it('answers properties as its version knows them, and leaves the others to the port', () => {
    const query = (property: number, type = 0) => [...le(property, 4), ...le(type, 4), ...zeros(4)]
    const questions = [
      [DISK, 0x2d1400, query(6), 28],
      [DISK, 0x2d1400, query(6), 8],
      [DISK, 0x2d1400, query(8), 12],
      [DISK, 0x2d1400, query(8, 1), 0],
      [DISK, 0x2d1400, query(1), 32],
      [DISK, 0x2d1400, query(0).slice(1), 40],
    ] as const
    const unit = { physicalExponent: 3, unmaps: true }
    const alignment = [...le(28, 4), ...le(28, 4), ...zeros(8), ...le(512, 4), ...le(4096, 4), ...zeros(4)]
    const seven = ask(questions, unit, 7)
    expect(seven[0]?.bytes).toEqual(alignment)
    expect(seven[1]).toEqual({ status: 'SUCCESS', information: 8, bytes: alignment.slice(0, 8) })
    expect(seven[2]?.bytes).toEqual([...le(12, 4), ...le(12, 4), 1, 0, 0, 0])
    expect(seven[3]).toEqual({ status: 'SUCCESS', information: 0, bytes: [] })
    expect(seven[4]?.bytes.slice(0, 16)).toEqual([
      ...le(32, 4),
      ...le(32, 4),
      ...le(0x10000, 4),
      ...le(17, 4),
    ])
    expect(seven[5]?.status).toBe('INVALID_PARAMETER')
    const vista = ask(questions, unit, 'vista')
    expect(vista[0]?.bytes).toEqual(alignment)
    expect(vista[2]?.bytes.slice(0, 8)).toEqual([...le(40, 4), ...le(44, 4)])
    const [plain] = ask([[DISK, 0x2d1400, query(8), 12]], {}, 7)
    expect(plain?.bytes).toEqual([...le(12, 4), ...le(12, 4), 0, 0, 0, 0])
  })

  it('trims whole sectors of what it is given, on 7 and where the disk unmaps', () => {
    const dsm = (ranges: readonly (readonly [number, number])[], flags = 0) => [
      ...[28, 1, flags, 0, 0, 32, ranges.length * 16].flatMap((value) => le(value, 4)),
      ...zeros(4),
      ...ranges.flatMap(([start, length]) => [...le(start, 8), ...le(length, 8)]),
    ]
    const run = (version: WindowsVersionName, unmaps: boolean, input: readonly number[]) => {
      let left: number[] = []
      const [answer] = ask([[DISK, 0x2d9404, input, 0]], { unmaps, sectors: 64 }, version, (rig) => {
        rig.unit.bytes.fill(1)
        left = rig.unit.bytes as unknown as number[]
      })
      return { status: answer?.status, cleared: Array.from({ length: 64 }, (_, at) => left[at * 512] === 0) }
    }
    const range = (from: number, to: number) => Array.from({ length: 64 }, (_, at) => at >= from && at < to)
    expect(run(7, true, dsm([[100, 20 * 512]]))).toEqual({ status: 'SUCCESS', cleared: range(1, 20) })
    expect(run(7, true, dsm([], 1))).toEqual({ status: 'SUCCESS', cleared: range(0, 64) })
    expect(run(7, true, dsm([[0, 65 * 512]])).status).toBe('INVALID_PARAMETER')
    expect(run(7, true, dsm([[0, 512]]).slice(0, 40)).status).toBe('INVALID_PARAMETER')
    expect(run(7, false, dsm([[0, 512]]))).toEqual({ status: 'NOT_SUPPORTED', cleared: range(0, 0) })
    expect(run('vista', true, dsm([[0, 512]]))).toEqual({
      status: 'INVALID_DEVICE_REQUEST',
      cleared: range(0, 0),
    })
  })

  it('passes an application’s command through, sense data and short data included', () => {
    const header = (cdb: readonly number[], fields: Partial<Record<string, number>> = {}) => {
      const { dataIn = 1, length = 36, data = 80, sense = 18, senseAt = 56, seconds = 5 } = fields
      return [
        ...le(56, 2),
        0,
        0,
        0,
        0,
        cdb.length,
        sense,
        dataIn,
        ...zeros(3),
        ...le(length, 4),
        ...le(seconds, 4),
        ...zeros(4),
        ...le(data, 8),
        ...le(senseAt, 4),
        ...cdb,
        ...zeros(16 - cdb.length),
        ...zeros(4),
      ]
    }
    const inquiry = [0x12, 0, 0, 0, 36, 0]
    const answers = ask([
      [DISK, 0x4d004, header(inquiry), 116],
      [DISK, 0x4d004, header([0x12, 1, 0x99, 0, 36, 0]), 116],
      [DISK, 0x4d004, header(inquiry), 115],
      [DISK, 0x4d004, header(inquiry, { data: 73 }), 116],
      [DISK, 0x4d004, header(inquiry, { senseAt: 55 }), 116],
      [DISK, 0x4d004, header(inquiry, { seconds: 0 }), 116],
      [DISK, 0x4d004, header(inquiry).slice(0, 55), 116],
      [DISK, 0x4d004, header(inquiry, { length: 0x10001, data: 80 }), 116],
      [ONE, 0x4d004, header(inquiry), 116],
    ])
    expect(answers[0]).toMatchObject({ status: 'SUCCESS', information: 116 })
    expect(answers[0]?.bytes.slice(88, 93)).toEqual([0x41, 0x72, 0x72, 0x61, 0x79])
    expect(answers[1]).toMatchObject({ status: 'SUCCESS', information: 74 })
    expect(answers[1]?.bytes[2]).toBe(2)
    expect(answers[1]?.bytes.slice(56, 70)).toEqual([0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0])
    expect(answers.slice(2).map((one) => one.status)).toEqual([
      'INVALID_PARAMETER',
      'INVALID_PARAMETER',
      'INVALID_PARAMETER',
      'INVALID_PARAMETER',
      'BUFFER_TOO_SMALL',
      'INVALID_PARAMETER',
      'INVALID_DEVICE_REQUEST',
    ])
  })

  it('refuses what nobody knows', () => {
    expect(ask([[DISK, 0x70ffc, [], 8]])[0]?.status).toBe('INVALID_DEVICE_REQUEST')
    expect(ask([[ONE, 0x70ffc, [], 8]])[0]?.status).toBe('INVALID_DEVICE_REQUEST')
  })

  it('never fails on any bytes, and never writes behind its room', () => {
    const codes = [
      ...TABLE.map(([, , code]) => code),
      0x2d1400,
      0x2d9404,
      0x4d004,
      0x4d014,
      0x70014,
      0x2d4800,
    ]
    const input = fc.uint8Array({ maxLength: 120 }).map((bytes) => [...bytes])
    const question = fc.tuple(
      fc.constantFrom(DISK, ONE, TWO),
      fc.constantFrom(...codes),
      fc.oneof(
        input,
        fc.tuple(fc.constant([56, 0, 0, 0, 0, 0, 6, 18, 1, 0, 0, 0]), input).map((two) => two.flat()),
      ),
      fc.nat(200),
    )
    fc.assert(
      fc.property(fc.array(question, { maxLength: 10 }), (questions) => {
        ask(questions, { unmaps: true })
      }),
      { numRuns: 40 },
    )
  })
})

describe('a partition', () => {
  it('is its part of the disk, and not a byte more', () => {
    const transfer = fc.record({
      second: fc.boolean(),
      sector: fc.oneof(
        fc.nat(20),
        fc.integer({ min: 2040, max: 2060 }),
        fc.integer({ min: 4090, max: 4100 }),
      ),
      blocks: fc.integer({ min: 1, max: 12 }),
      odd: fc.constantFrom(0, 0, 1),
    })
    fc.assert(
      fc.property(fc.array(transfer, { maxLength: 8 }), (transfers) => {
        const rig = new DiskRig({ sectors: 20000 })
        twoPartitions(rig)
        const before = rig.unit.bytes.slice()
        const wrong: string[] = []
        rig.machine.run(function* () {
          yield* rig.start()
          for (const [index, { second, sector, blocks, odd }] of transfers.entries()) {
            const device = rig.named(`\\Device\\Harddisk0\\Partition${second ? 2 : 1}`)
            const bytes = blocks * 512
            const buffer = rig.kernel.parts.space.allocateUser(bytes)
            rig.kernel.mmWindow(buffer, bytes)?.fill(index + 1, 0, bytes)
            const sent = yield* rig.ended(rig.transfer(device, true, buffer, bytes, sector * 512 + odd))
            const size = second ? 2048 : 4096
            const inside = odd === 0 && sector + blocks <= size
            if (sent.status !== (inside ? 'SUCCESS' : 'INVALID_PARAMETER')) wrong.push(sent.status)
            const from = ((second ? 8192 : 2048) + sector) * 512
            if (inside) before.fill(index + 1, from, from + bytes)
            rig.kernel.parts.space.freeUser(buffer)
          }
          yield* rig.remove()
        })
        expect(wrong).toEqual([])
        expect(Buffer.compare(before, rig.unit.bytes)).toBe(0)
        expect(rig.leaks()).toEqual(NO_LEAKS)
      }),
      { numRuns: 40 },
    )
  })

  it('stays open across UPDATE_PROPERTIES where it did not move, and goes where it did', () => {
    const rig = new DiskRig({ sectors: 20000 })
    twoPartitions(rig)
    rig.machine.run(function* () {
      yield* rig.start()
      const one = rig.named(`\\??\\${ONE}`)
      const two = rig.named(`\\??\\${TWO}`)
      // The second entry begins a sector later.
      rig.unit.bytes.set(le(8193, 4), 446 + 16 + 8)
      rig.unit.bytes.set([0, 0, 0, 0, 6, 0, 0, 0, ...le(12000, 4), ...le(100, 4)], 446 + 32)
      expect((yield* rig.control(rig.fdo, 0x70140, [], 0)).status).toBe('SUCCESS')
      expect(rig.named(`\\??\\${ONE}`)).toBe(one)
      expect(rig.named(`\\??\\${TWO}`)).not.toBe(two)
      const third = yield* rig.control(rig.named('\\??\\Harddisk0Partition3'), 0x7405c, [], 8)
      expect([...third.bytes]).toEqual(le(51200, 8))
      yield* rig.remove()
    })
    expect(rig.leaks()).toEqual(NO_LEAKS)
  })
})
