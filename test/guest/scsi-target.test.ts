import { execFileSync, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import type { TargetFacts, TargetPlan } from '../../guest/virtio/scsi-target.ts'
import { lengthOf, ScsiTarget, senseBytes } from '../../guest/virtio/scsi-target.ts'
import { Window } from '../../protocol/window.ts'

const FACTS: TargetFacts = {
  blocks: 1000,
  blockBytes: 512,
  physicalExponent: 3,
  readOnly: false,
  writeCache: true,
  serial: 'SERIAL-0001',
  unmapBlocksMax: 128,
  unmapRangesMax: 4,
}

function plan(cdb: readonly number[], facts: Partial<TargetFacts> = {}, cdbBytes = cdb.length): TargetPlan {
  const bytes = new Uint8Array(16)
  bytes.set(cdb)
  return new ScsiTarget({ ...FACTS, ...facts }).plan(new Window(bytes), 0, cdbBytes)
}

function data(cdb: readonly number[], facts: Partial<TargetFacts> = {}): Uint8Array {
  const answer = plan(cdb, facts)
  if (answer.kind !== 'data') throw new Error(`${cdb} is answered with ${JSON.stringify(answer)}`)
  return answer.bytes
}

const be32 = (value: number) => [value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff]
const be64 = (value: number) => [...be32(Math.floor(value / 2 ** 32)), ...be32(value % 2 ** 32)]
const rw10 = (op: number, lba: number, count: number, flags = 0) => [
  op,
  flags,
  ...be32(lba),
  0,
  count >>> 8,
  count & 0xff,
  0,
]
const rw16 = (op: number, lba: number, count: number, flags = 0) => [
  op,
  flags,
  ...be64(lba),
  ...be32(count),
  0,
  0,
]
const sense = (key: number, asc: number) => ({ kind: 'sense', key, asc })
const OUT_OF_RANGE = sense(5, 0x2100)

describe('a unit attention', () => {
  const CDBS: readonly (readonly number[])[] = [
    [0x00, 0, 0, 0, 0, 0],
    [0x03, 0, 0, 0, 18, 0],
    [0x12, 0, 0, 0, 36, 0],
    [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0],
    rw10(0x28, 0, 1),
    rw10(0x28, 5000, 1),
    [0xff, 0, 0, 0, 0, 0],
  ]

  it('is told once, before anything else, but not to who only asks what there is', () => {
    const step = fc.oneof(fc.constant<'resize'>('resize'), fc.constantFrom(...CDBS))
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const target = new ScsiTarget(FACTS)
        let waits = false
        for (const one of steps) {
          if (one === 'resize') {
            target.capacityChanged()
            waits = true
            continue
          }
          const bytes = new Uint8Array(16)
          bytes.set(one)
          const answer = structuredClone(target.plan(new Window(bytes), 0, one.length))
          const opcode = one[0] ?? 0
          if (opcode === 0x03) {
            expect(answer).toEqual({ kind: 'data', bytes: senseBytes(waits ? 6 : 0, waits ? 0x2a09 : 0) })
            waits = false
          } else if (waits && opcode !== 0x12 && opcode !== 0xa0) {
            expect(answer).toEqual(sense(6, 0x2a09))
            waits = false
          } else expect(answer).toEqual(plan(one))
        }
      }),
    )
  })
})

describe('reads and writes', () => {
  it('are ranges of the disk, whatever the command and the size of the disk', () => {
    const sizes = fc.oneof(
      fc.integer({ min: 0, max: 3000 }),
      fc.integer({ min: 2 ** 32 - 5, max: 2 ** 32 + 5 }),
    )
    fc.assert(
      fc.property(
        sizes,
        sizes,
        fc.integer({ min: 0, max: 0xffff }),
        fc.constantFrom(0x28, 0x2a, 0x88, 0x8a),
        fc.boolean(),
        fc.boolean(),
        (blocks, at, count, op, fua, readOnly) => {
          const ten = op < 0x80
          const lba = ten ? at % 2 ** 32 : at
          const write = (op & 0x0f) === 0x0a
          const answer = plan((ten ? rw10 : rw16)(op, lba, count, fua ? 8 : 0), { blocks, readOnly })
          if (write && readOnly) expect(answer).toEqual(sense(7, 0x2700))
          else if (lba + count > blocks) expect(answer).toEqual(OUT_OF_RANGE)
          else if (count === 0) expect(answer).toEqual({ kind: 'ready' })
          else expect(answer).toEqual({ kind: 'transfer', write, lba, blocks: count, fua })
        },
      ),
    )
  })

  it('are refused past 2^53 blocks, and from a command cut short', () => {
    expect(plan(rw16(0x88, 2 ** 53, 1))).toEqual(OUT_OF_RANGE)
    expect(plan([0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0])).toEqual(
      OUT_OF_RANGE,
    )
    expect(plan(rw10(0x28, 0, 1), {}, 9)).toEqual(sense(5, 0x2400))
  })
})

describe('what the disk is', () => {
  it('is told by both forms of READ CAPACITY, and the short one sends to the long one', () => {
    expect([...data([0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0])]).toEqual([...be32(999), ...be32(512)])
    const big = { blocks: 2 ** 33, blockBytes: 4096 }
    expect([...data([0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], big)]).toEqual([...be32(0xffffffff), ...be32(4096)])
    expect([...data([0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], { blocks: 2 ** 32 })].slice(0, 4)).toEqual(
      be32(0xffffffff),
    )
    expect([...data(rw16(0x9e, 0, 32, 0x10), big)]).toEqual([
      ...be64(2 ** 33 - 1),
      ...be32(4096),
      0,
      3,
      0x80,
      0,
      ...new Array(16).fill(0),
    ])
    expect(plan(rw16(0x9e, 0, 32, 0x11))).toEqual(sense(5, 0x2400))
  })

  it('is cut to the room the initiator has', () => {
    for (const room of [0, 1, 5, 35, 36, 37, 255]) {
      expect(data([0x12, 0, 0, 0, room, 0]).length).toBe(Math.min(36, room))
      expect(data([0x12, 1, 0, 0, room, 0]).length).toBe(Math.min(10, room))
      expect(data([0x1a, 0, 0x3f, 0, room, 0]).length).toBe(Math.min(36, room))
    }
    expect(data([0xa0, 0, 0, 0, 0, 0, ...be32(8), 0, 0]).length).toBe(8)
  })

  it('has the cache and the write protection it was given', () => {
    const six = data([0x1a, 0, 8, 0, 255, 0])
    expect([...six.subarray(0, 7)]).toEqual([23, 0, 0x10, 0, 8, 18, 4])
    const protectedDisk = data([0x5a, 0, 8, 0, 0, 0, 0, 0, 255, 0], { readOnly: true, writeCache: false })
    expect([...protectedDisk.subarray(0, 11)]).toEqual([0, 26, 0, 0x90, 0, 0, 0, 0, 8, 18, 0])
    expect(plan([0x1a, 0, 0x0a, 0, 255, 0])).toEqual(sense(5, 0x2400))
    expect(plan([0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0])).toEqual({ kind: 'flush' })
    expect(plan([0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], { writeCache: false })).toEqual({ kind: 'ready' })
  })

  it('offers no UNMAP where the disk cannot', () => {
    const unmap = [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0]
    expect(plan(unmap)).toEqual({ kind: 'unmap' })
    expect(plan(unmap, { unmapRangesMax: 0 })).toEqual(sense(5, 0x2000))
    expect(plan(unmap, { readOnly: true })).toEqual(sense(7, 0x2700))
    expect(plan([0x12, 1, 0xb2, 0, 255, 0], { unmapRangesMax: 0 })).toEqual(sense(5, 0x2400))
  })
})

describe('an UNMAP list', () => {
  const list = (ranges: readonly (readonly [number, number])[], said = ranges.length * 16) => {
    const bytes = [0, 6 + said, said >>> 8, said & 0xff, 0, 0, 0, 0]
    for (const [lba, count] of ranges) bytes.push(...be64(lba), ...be32(count), 0, 0, 0, 0)
    return new Window(Uint8Array.from(bytes))
  }

  it('is the ranges in it, and refused as a whole when one is too far, too long or one too many', () => {
    const target = new ScsiTarget(FACTS)
    const pair = fc.tuple(fc.integer({ min: 0, max: 1100 }), fc.integer({ min: 0, max: 200 }))
    fc.assert(
      fc.property(fc.array(pair, { maxLength: 6 }), (ranges) => {
        const answer = target.unmapRanges(list(ranges))
        if (ranges.length > 4) expect(answer).toEqual(sense(5, 0x2400))
        else {
          const bad = ranges.find(([lba, count]) => lba + count > 1000 || count > 128)
          if (bad === undefined)
            expect(answer).toEqual(ranges.filter(([, n]) => n > 0).map(([lba, blocks]) => ({ lba, blocks })))
          else expect(answer).toEqual(bad[0] + bad[1] > 1000 ? OUT_OF_RANGE : sense(5, 0x2400))
        }
      }),
    )
  })

  it('is read no further than it goes, whatever it says of itself', () => {
    const target = new ScsiTarget(FACTS)
    expect(target.unmapRanges(list([[1, 2]], 64))).toEqual([{ lba: 1, blocks: 2 }])
    expect(target.unmapRanges(new Window(new Uint8Array(7)))).toEqual([])
  })
})

it('answers any command without failing', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), fc.nat(20), (bytes, cdbBytes) => {
      const window = new Window(Uint8Array.from(bytes))
      const answer = new ScsiTarget(FACTS).plan(window, 0, cdbBytes)
      if (cdbBytes < lengthOf(bytes[0] ?? 0)) expect(answer.kind).toBe('sense')
      if (answer.kind === 'transfer') expect(answer.lba + answer.blocks).toBeLessThanOrEqual(FACTS.blocks)
    }),
    { numRuns: 2000 },
  )
})

describe('sg3-utils', () => {
  const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'paravane-scsi-'))
  afterAll(() => fs.rmSync(scratch, { recursive: true, force: true }))
  const absent = spawnSync('sg_vpd', ['--version']).error !== undefined

  function decoded(tool: string, bytes: Uint8Array, ...options: string[]): string {
    const file = path.join(scratch, 'bytes.txt')
    fs.writeFileSync(file, [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(' '))
    return execFileSync(tool, [...options, `--inhex=${file}`], { encoding: 'utf8' })
  }

  it('reads our data as we meant it', ({ skip }) => {
    if (absent) {
      if (process.env['PARAVANE_REQUIRE_PEERS'] === '1') expect.fail('sg_vpd is missing')
      console.warn('scsi target: sg3-utils is not here')
      skip('sg3-utils is not here')
    }
    const vpd = (page: number) => data([0x12, 1, page, 0, 255, 0])
    expect(decoded('sg_inq', data([0x12, 0, 0, 0, 36, 0]))).toMatch(
      /Vendor identification: Paravane[\s\S]*Product identification: VirtIO Disk/,
    )
    expect(decoded('sg_vpd', vpd(0x80))).toMatch(/Unit serial number: SERIAL-0001/)
    expect(decoded('sg_vpd', vpd(0x83))).toMatch(/vendor id: Paravane[\s\S]*vendor specific: SERIAL-0001/)
    const limits = decoded('sg_vpd', vpd(0xb0))
    expect(limits).toMatch(/Maximum unmap LBA count: 128/)
    expect(limits).toMatch(/Maximum unmap block descriptor count: 4/)
    expect(decoded('sg_vpd', vpd(0xb1))).toMatch(/Non-rotating medium/)
    expect(decoded('sg_vpd', vpd(0xb2))).toMatch(/Unmap command supported \(LBPU\): 1[\s\S]*thin/i)
    const text = execFileSync(
      'sg_decode_sense',
      [...senseBytes(5, 0x2100)].map((byte) => byte.toString(16)),
      { encoding: 'utf8' },
    )
    expect(text).toMatch(/Illegal Request[\s\S]*Logical block address out of range/)
  })
})
