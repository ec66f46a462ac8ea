import { execFileSync, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { crc32 as zlibCrc32 } from 'node:zlib'
import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { crc32 } from '../../guest/class/disk/crc32.ts'
import type { BlocksWanted, PartitionTable } from '../../guest/class/disk/partition-table.ts'
import { readPartitionTable } from '../../guest/class/disk/partition-table.ts'

type ReadBlocks = (wanted: BlocksWanted) => Uint8Array<ArrayBuffer> | null

function readWith(blockBytes: number, blocks: number, read: ReadBlocks) {
  const reader = readPartitionTable({ blockBytes, blocks })
  const asked: BlocksWanted[] = []
  for (let step = reader.next(); ; ) {
    if (step.done === true) return { table: step.value, asked }
    asked.push(step.value)
    if (asked.length > 1000) throw new Error('reads without an end')
    step = reader.next(read(step.value))
  }
}

function readImage(image: Uint8Array<ArrayBuffer>, blockBytes = 512) {
  const blocks = Math.floor(image.length / blockBytes)
  return readWith(blockBytes, blocks, ({ lba, count }) => {
    expect(lba >= 0 && count >= 1 && lba + count <= blocks).toBe(true)
    return image.slice(lba * blockBytes, (lba + count) * blockBytes)
  })
}

// A literal writer: offsets from the specification, nothing of the declarations.

interface Wanted {
  readonly first: number
  readonly count: number
  readonly type: number
}

function putMbrEntry(view: DataView, index: number, one: Wanted, origin: number): void {
  const at = 446 + index * 16
  view.setUint8(at + 4, one.type)
  view.setUint32(at + 8, one.first - origin, true)
  view.setUint32(at + 12, one.count, true)
}

function mbrImage(blocks: number, primary: readonly Wanted[], logical: readonly Wanted[]) {
  const image = new Uint8Array(blocks * 512)
  const sector = (lba: number) => {
    const view = new DataView(image.buffer, lba * 512, 512)
    view.setUint16(510, 0xaa55, true)
    return view
  }
  const top = sector(0)
  top.setUint32(440, 0x1234_abcd, true)
  for (const [index, one] of primary.entries()) putMbrEntry(top, index, one, 0)
  const start = logical[0] === undefined ? 0 : logical[0].first - 1
  if (start > 0) putMbrEntry(top, primary.length, { first: start, count: blocks - start, type: 0x0f }, 0)
  for (const [index, one] of logical.entries()) {
    const record = sector(one.first - 1)
    putMbrEntry(record, 0, one, one.first - 1)
    const next = logical[index + 1]
    if (next !== undefined)
      putMbrEntry(record, 1, { first: next.first - 1, count: next.count + 1, type: 0x05 }, start)
  }
  return image
}

/** Partitions in a row, each after a gap of at least one block. */
const layoutOf = (most: number) =>
  fc.array(fc.record({ gap: fc.integer({ min: 1, max: 9 }), count: fc.integer({ min: 1, max: 30 }) }), {
    maxLength: most,
  })

function placed(shape: readonly { gap: number; count: number }[], from: number): Wanted[] {
  let at = from
  return shape.map(({ gap, count }) => {
    const one = { first: at + gap + 1, count, type: 0x83 }
    at = one.first + count
    return one
  })
}

describe('a partition table', () => {
  it('has the checksum that others compute', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => crc32(bytes) === zlibCrc32(bytes)))
  })

  it('is absent from a blank disk, and from one of no blocks', () => {
    expect(readImage(new Uint8Array(64 * 512)).table).toEqual({
      style: 'none',
      diskId: null,
      gpt: null,
      partitions: [],
      troubles: [],
    })
    expect(readWith(512, 0, () => null).asked).toEqual([])
  })

  it('says so when its first block cannot be read', () => {
    expect(readWith(512, 100, () => null).table.troubles).toEqual(['block 0 cannot be read'])
  })

  it('lists primary and logical partitions of an MBR in order', () => {
    fc.assert(
      fc.property(layoutOf(3), layoutOf(6), (primaryShape, logicalShape) => {
        const primary = placed(primaryShape, 0)
        const end = primary.at(-1)
        const logical = placed(logicalShape, end === undefined ? 2 : end.first + end.count + 2)
        const { table } = readImage(mbrImage(700, primary, logical))
        expect(table.style).toBe('mbr')
        expect(table.diskId).toBe('1234abcd')
        expect(table.troubles).toEqual([])
        expect(
          table.partitions.map((one) => [one.number, one.startBytes / 512, one.lengthBytes / 512]),
        ).toEqual([...primary, ...logical].map((one, index) => [index + 1, one.first, one.count]))
      }),
    )
  })

  it('ends on logical partitions that lead back, or off the disk', () => {
    const image = mbrImage(
      200,
      [],
      [
        { first: 10, count: 5, type: 7 },
        { first: 30, count: 5, type: 7 },
      ],
    )
    const second = new DataView(image.buffer, 29 * 512, 512)
    putMbrEntry(second, 1, { first: 9, count: 6, type: 5 }, 9)
    const back = readImage(image)
    expect(back.table.partitions.length).toBe(2)
    expect(back.table.troubles).toEqual(['the boot record at block 29 leads back'])
    expect(back.asked.length).toBe(3)
    putMbrEntry(second, 1, { first: 5000, count: 6, type: 5 }, 9)
    expect(readImage(image).table.troubles).toEqual(['the boot record at block 29 leads off the disk'])
  })

  it('takes no file system boot sector for a table', () => {
    const image = new Uint8Array(100 * 512).fill(0x41, 446, 510)
    image.set([0x55, 0xaa], 510)
    expect(readImage(image).table.style).toBe('none')
  })

  it('never fails and never asks past the disk, whatever the disk holds', () => {
    const valid = mbrImage(64, [{ first: 2, count: 3, type: 0x07 }], [{ first: 10, count: 5, type: 7 }])
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 440, max: 2 * 512 }), fc.integer({ min: 0, max: 255 })), {
          maxLength: 40,
        }),
        (changes) => {
          const image = valid.slice()
          for (const [at, value] of changes) image[at] = value
          const { table, asked } = readImage(image)
          expect(asked.length).toBeLessThan(140)
          for (const one of table.partitions) {
            expect(one.startBytes + one.lengthBytes).toBeLessThanOrEqual(image.length)
          }
        },
      ),
    )
  })
})

const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'paravane-partitions-'))
afterAll(() => fs.rmSync(scratch, { recursive: true, force: true }))
const present = (tool: string) => spawnSync(tool, ['--version']).status === 0
const required = process.env['PARAVANE_REQUIRE_PEERS'] === '1'

/** Asks for a tool, or says why its test does not run. */
function needs(tool: string, skip: (why: string) => void): void {
  if (present(tool)) return
  if (required) expect.fail(`${tool} is missing and PARAVANE_REQUIRE_PEERS is 1`)
  console.warn(`partition table: ${tool} is not here`)
  skip(`${tool} is not here`)
}

function image(name: string, megabytes: number): string {
  const file = path.join(scratch, name)
  fs.writeFileSync(file, '')
  fs.truncateSync(file, megabytes * 2 ** 20)
  return file
}

function readFile(file: string, blockBytes = 512): PartitionTable {
  const descriptor = fs.openSync(file, 'r')
  const blocks = Math.floor(fs.fstatSync(descriptor).size / blockBytes)
  try {
    return readWith(blockBytes, blocks, ({ lba, count }) => {
      const bytes = new Uint8Array(count * blockBytes)
      fs.readSync(descriptor, bytes, 0, bytes.length, lba * blockBytes)
      return bytes
    }).table
  } finally {
    fs.closeSync(descriptor)
  }
}

describe('tables made by others', () => {
  it('are read as sfdisk wrote them, logical partitions included', ({ skip }) => {
    needs('sfdisk', skip)
    const file = image('dos.img', 64)
    const script =
      'label: dos\nlabel-id: 0xdeadbeef\nstart=2048,size=4096,type=7,bootable\nstart=8192,size=40960,type=5\nstart=10240,size=2048,type=83\nstart=16384,size=4096,type=c\n'
    execFileSync('sfdisk', ['--quiet', file], { input: script })
    const dump = JSON.parse(execFileSync('sfdisk', ['--json', file], { encoding: 'utf8' })) as {
      partitiontable: { id: string; partitions: { start: number; size: number; type: string }[] }
    }
    const expected = dump.partitiontable.partitions.filter((one) => one.type !== '5')
    const table = readFile(file)
    expect(`0x${table.diskId}`).toBe(dump.partitiontable.id)
    expect(table.partitions.map((one) => [one.startBytes / 512, one.lengthBytes / 512, one.active])).toEqual(
      expected.map((one, index) => [one.start, one.size, index === 0]),
    )
    expect(table.troubles).toEqual([])
  })

  it('are read as sgdisk wrote them, and from the second copy when the first is damaged', ({ skip }) => {
    needs('sgdisk', skip)
    const file = image('gpt.img', 64)
    const type = 'ebd0a0a2-b9e5-4433-87c0-68b6b72699c7'
    const guid = '00112233-4455-6677-8899-aabbccddeeff'
    execFileSync('sgdisk', ['-n', '1:2048:+4M', '-t', '1:0700', '-u', `1:${guid}`, '-c', '1:Daten ä', file])
    execFileSync('sgdisk', ['-n', '2:20480:+8M', '-t', '2:8300', '-A', '2:set:2', '-A', '2:set:63', file])
    const table = readFile(file)
    expect(table.style).toBe('gpt')
    expect(table.troubles).toEqual([])
    expect(table.partitions).toMatchObject([
      { number: 1, startBytes: 2048 * 512, lengthBytes: 4 << 20, type, guid, name: 'Daten ä', active: false },
      { number: 2, startBytes: 20480 * 512, lengthBytes: 8 << 20, active: true },
    ])
    const damaged = fs.openSync(file, 'r+')
    fs.writeSync(damaged, new Uint8Array([1]), 0, 1, 2 * 512)
    fs.closeSync(damaged)
    const backup = readFile(file)
    expect(backup.partitions).toEqual(table.partitions)
    expect(backup.troubles).toEqual(['the first table is not valid: the checksum of its entries is wrong'])
    const both = fs.openSync(file, 'r+')
    fs.writeSync(both, new Uint8Array(512), 0, 512, (64 << 20) - 512)
    fs.closeSync(both)
    expect(readFile(file)).toMatchObject({ style: 'none', partitions: [] })
  })

  it('never fail, whichever bytes of a GPT are changed', ({ skip }) => {
    needs('sgdisk', skip)
    const file = image('fuzz.img', 2)
    execFileSync('sgdisk', ['-a', '1', '-n', '1:40:+64K', file])
    const bytes = new Uint8Array(fs.readFileSync(file))
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.constantFrom(512, 1024, 1536, bytes.length - 512), fc.nat(127), fc.nat(255)), {
          minLength: 1,
          maxLength: 4,
        }),
        (changes) => {
          const changed = bytes.slice()
          for (const [base, at, value] of changes) changed[base + at] = value
          const { table } = readImage(changed)
          for (const one of table.partitions) {
            expect(one.startBytes + one.lengthBytes).toBeLessThanOrEqual(changed.length)
          }
        },
      ),
    )
  })
})
