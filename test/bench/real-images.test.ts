import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { createBench } from '../../bench/bench.ts'
import type { DiskReport } from '../../bench/report.ts'
import { noise } from '../conformance/disk-backend.ts'
import { escapePath, scratch } from '../host/disk-subjects.ts'
import { peerOrSkip } from '../peers/peer.ts'

const { directory, remove } = scratch()
afterAll(remove)

const MIB = 2 ** 20
/** Where Debian keeps them, also for who is not root. */
const env = { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin:/sbin` }

function missing(tool: string): string | null {
  return spawnSync(tool, ['-V'], { env }).error === undefined ? null : tool
}

function made(name: string, lengthBytes: number): string {
  const file = path.join(directory, name)
  fs.writeFileSync(file, '')
  fs.truncateSync(file, lengthBytes)
  return file
}

function tool(name: string, args: readonly string[], input = ''): string {
  const { status, stdout, stderr } = spawnSync(name, args, { env, input, encoding: 'utf8' })
  if (status !== 0) throw new Error(`${name} ${args.join(' ')}: ${stderr}`)
  return stdout
}

/** What `sfdisk` itself says lies on an image, extended partitions apart: they hold others. */
function oracle(file: string) {
  const { partitiontable: table } = JSON.parse(tool('sfdisk', ['--json', file]))
  const partitions = (table.partitions ?? []) as {
    start: number
    size: number
    type: string
    name?: string
  }[]
  const isGpt = table.label === 'gpt'
  return {
    style: isGpt ? 'gpt' : 'mbr',
    id: String(table.id).toLowerCase().replace(/^0x/, ''),
    partitions: partitions
      .filter(({ type }) => isGpt || !['5', 'f', '85'].includes(type))
      .map(({ start, size, type, name = '' }) => ({
        start,
        sectors: size,
        type: isGpt ? type.toLowerCase() : type.padStart(2, '0'),
        name,
      })),
  }
}

async function ran(file: string): Promise<DiskReport> {
  const before = { bytes: fs.readFileSync(file), time: fs.statSync(file).mtimeMs }
  const bench = await createBench({ disks: [`file:${escapePath(file)}`], operations: 300 })
  const report = await bench.run()
  await bench.close()
  expect(report).toMatchObject({ verified: true, problems: [], violations: [] })
  const [disk] = report.disks
  if (disk === undefined) throw new Error('a run without its disk')
  expect(disk.sha256).toBe(createHash('sha256').update(before.bytes).digest('hex'))
  expect(Buffer.compare(fs.readFileSync(file), before.bytes)).toBe(0)
  expect(fs.statSync(file).mtimeMs).toBe(before.time)
  return disk
}

function seen(disk: DiskReport) {
  return {
    style: disk.partitionStyle,
    id: disk.diskId,
    partitions: disk.partitions.map(({ start, sectors, type, name }) => ({ start, sectors, type, name })),
  }
}

describe('an image of real tools is read as they made it, and left so', () => {
  const SCRIPTS: { readonly [name: string]: string } = {
    'an empty MBR': 'label: dos\n',
    'an MBR': 'label: dos\nstart=2048,size=8192,type=c,bootable\nstart=10240,type=83\n',
    'an MBR with logical partitions':
      'label: dos\nstart=2048,size=8192,type=7\nstart=10240,type=5\nstart=12288,size=4096,type=83\nstart=18432,size=2048,type=82\n',
    'an empty GPT': 'label: gpt\n',
    'a GPT': `label: gpt\nstart=2048,size=8192,type=uefi,name="EFI Δ"\nstart=40000,size=24,name="a short one"\nstart=12288,size=4096,type=swap\n`,
    'a GPT of 160 partitions': `label: gpt\ntable-length: 160\n${'size=8\n'.repeat(160)}`,
  }

  test.for(Object.entries(SCRIPTS))('%s, by sfdisk', async ([name, script], context) => {
    peerOrSkip(context, name, missing('sfdisk'))
    const file = made(`${name.replaceAll(' ', '-')}.img`, 40 * MIB)
    tool('sfdisk', ['--quiet', file], script)
    const disk = await ran(file)
    expect(seen(disk)).toEqual(oracle(file))
    expect(disk.partitions.map(({ number }) => number)).toEqual(disk.partitions.map((_, at) => at + 1))
  })

  test('what a GPT entry says besides, by sgdisk', async (context) => {
    peerOrSkip(context, 'a GPT', missing('sgdisk') ?? missing('sfdisk'))
    const file = made('sgdisk.img', 16 * MIB)
    const first = ['-n', '1:2048:+2M', '-t', '1:ef00', '-c', '1:boot', '-A', '1:set:2']
    tool('sgdisk', [...first, '-n', '2:0:+4M', '-t', '2:8e00', '-c', '2:πλάνη', file])
    const disk = await ran(file)
    expect(seen(disk)).toEqual(oracle(file))
    expect(disk.partitions.map(({ typeName }) => typeName)).toEqual(['EFI system', 'Linux LVM'])
    const [guid] =
      /GUID: ([0-9A-F-]{36})/.exec(tool('sgdisk', ['-i', '1', file]).split('unique ')[1] ?? '') ?? []
    expect(guid?.slice(6).toLowerCase()).toBe(disk.partitions[0]?.guid)
  })

  test('a GPT whose first header is damaged, from its second', async (context) => {
    peerOrSkip(context, 'a GPT', missing('sfdisk'))
    const file = made('damaged.img', 16 * MIB)
    tool('sfdisk', ['--quiet', file], 'label: gpt\nstart=2048,size=8192,name="one"\nstart=20000,size=24\n')
    const whole = oracle(file)
    const fd = fs.openSync(file, 'r+')
    fs.writeSync(fd, noise(64, 1), 0, 64, 512)
    fs.closeSync(fd)
    expect(seen(await ran(file))).toEqual(whole)
  })

  test('a file system without partitions, by mkfs.ext4', async (context) => {
    peerOrSkip(context, 'a file system', missing('mkfs.ext4'))
    const file = made('ext4.img', 16 * MIB)
    tool('mkfs.ext4', ['-q', '-F', file])
    expect(seen(await ran(file))).toEqual({ style: 'none', id: null, partitions: [] })
  })

  test('a file system whose boot sector looks like an MBR, by mkfs.vfat', async (context) => {
    peerOrSkip(context, 'a file system', missing('mkfs.vfat') ?? missing('sfdisk'))
    const file = made('vfat.img', 16 * MIB)
    tool('mkfs.vfat', [file])
    expect(seen(await ran(file))).toEqual(oracle(file))
  })

  test('a partition past 4 GiB, and what lies in it', async (context) => {
    peerOrSkip(context, 'a GPT', missing('sfdisk'))
    const file = made('large.img', 5 * 1024 * MIB)
    tool('sfdisk', ['--quiet', file], 'label: gpt\nstart=2048,size=2048\nstart=8400896,size=2048\n')
    const data = noise(4096, 3)
    const fd = fs.openSync(file, 'r+')
    fs.writeSync(fd, data, 0, data.length, 8_400_896 * 512)
    fs.closeSync(fd)
    const bench = await createBench({ disks: [`file:${escapePath(file)}`] })
    const disk = bench.disk(0)
    const second = disk.layout?.partitions[1]
    expect(second).toMatchObject({ start: 8_400_896, sectors: 2048 })
    expect(await disk.read((second?.start ?? 0) * 512, 4096)).toEqual(data)
    await bench.close()
  })
})
