import { createHash } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import fc from 'fast-check'
import { afterAll, describe, expect, test } from 'vitest'
import { type Bench, createBench } from '../../bench/bench.ts'
import { type BenchDescription, PROFILE_NAMES } from '../../bench/description.ts'
import { DiskRequestFailed } from '../../bench/disk-access.ts'
import type { BenchReport } from '../../bench/report.ts'
import { TraceLines } from '../../bench/trace-lines.ts'
import { VIRTIO_VERSIONS } from '../../protocol/virtio/features.ts'
import { noise } from '../conformance/disk-backend.ts'
import { escapePath, scratch } from '../host/disk-subjects.ts'

const { directory, remove } = scratch()
afterAll(remove)

let made = 0
function image(content: Uint8Array, lengthBytes = content.length): string {
  const file = path.join(directory, `image-${made++}`)
  fs.writeFileSync(file, content)
  fs.truncateSync(file, lengthBytes)
  return file
}

function fail(): never {
  throw new Error('there is no report of a disk')
}

/** Counts bytes that anybody copies from one array to another while `work` is under way, from outside. */
async function copiesDuring<T>(work: () => Promise<T>): Promise<{ bytes: number; value: T }> {
  const { set, copyWithin, slice } = Uint8Array.prototype
  let bytes = 0
  Object.assign(Uint8Array.prototype, {
    set(this: Uint8Array, from: ArrayLike<number>, at?: number) {
      bytes += from.length
      set.call(this, from, at)
    },
    copyWithin(this: Uint8Array, to: number, from: number, end = this.length) {
      bytes += end - from
      return copyWithin.call(this, to, from, end)
    },
    slice(this: Uint8Array, from = 0, to = this.length) {
      bytes += to - from
      return slice.call(this, from, to)
    },
  })
  try {
    const value = await work()
    return { value, bytes }
  } finally {
    Object.assign(Uint8Array.prototype, { set, copyWithin, slice })
  }
}

const fileSpec = (file: string, rest = '') => `file:${escapePath(file)}${rest}`
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

async function using<T>(description: BenchDescription, use: (bench: Bench) => Promise<T>): Promise<T> {
  const bench = await createBench(description)
  try {
    return await use(bench)
  } finally {
    await bench.close()
  }
}

const reportOf = (description: BenchDescription) => using(description, (bench) => bench.run())

/** All that is not of this machine and moment. */
function lasting({ timing: _, ...report }: BenchReport) {
  return report
}

async function traced(description: BenchDescription): Promise<{ lines: string[]; report: BenchReport }> {
  const lines: string[] = []
  const bench = await createBench(description, { trace: new TraceLines((line) => lines.push(line)) })
  const report = await bench.run()
  await bench.close()
  return { lines, report }
}

describe('the digest', () => {
  test('is that of the file, whatever its length, how its disk answers, and how much memory the guest has', async () => {
    const spec = fc.constantFrom(
      (file: string) => fileSpec(file),
      (file: string) => fileSpec(file, ' | delay:us=50,jitter=5000'),
      (file: string) => `file-async:${escapePath(file)}`,
      (file: string) => fileSpec(file, ',block=4096,physical=8192'),
    )
    await fc.assert(
      fc.asyncProperty(
        spec,
        fc.integer({ min: 1, max: 3_000_000 }),
        fc.constantFrom(4, 16, 64),
        fc.constantFrom(4, 16, 256),
        fc.nat(),
        async (specOf, lengthBytes, mebibytes, queueSize, seed) => {
          const file = image(noise(Math.min(lengthBytes, 1_500_000), seed), lengthBytes)
          const disks = [specOf(file)]
          const report = await reportOf({
            seed,
            disks,
            queueSize,
            memoryBytes: mebibytes * 2 ** 20,
            operations: 50,
          })
          expect(report).toMatchObject({ verified: true, problems: [], violations: [], unclaimedAccesses: 0 })
          const [disk] = report.disks
          const padded = new Uint8Array((disk?.sectors ?? 0) * 512)
          padded.set(fs.readFileSync(file))
          expect(disk?.sha256).toBe(sha256(padded))
          expect(disk?.paddedBytes).toBe(padded.length - lengthBytes)
          expect(padded.length - lengthBytes).toBeLessThan(disk?.blockBytes ?? 0)
          fs.rmSync(file)
        },
      ),
      { numRuns: 15 },
    )
  })

  test('is none when the disk is sampled or not read', async () => {
    const sampled = await reportOf({ disks: ['memory:size=2T'] })
    expect(sampled.verified).toBe(true)
    expect(sampled.disks[0]).toMatchObject({ verify: 'sample', sha256: null, sectors: 2 ** 32 })
    expect(sampled.disks[0]?.readBytes).toBe(256 * 524_288)
    const none = await reportOf({ disks: ['memory:size=1M'], verify: 'none' })
    expect(none.disks[0]).toMatchObject({ verify: 'none', sha256: null, readBytes: 0 })
  })
})

describe('a sample', () => {
  test.each([
    ['first', 0],
    ['last', 2 ** 41 - 1],
  ])('reads the %s byte of a disk that is too large to be read whole', async (_which, at) => {
    await using({ disks: ['memory:size=2T'], operations: 0 }, async (bench) => {
      bench.disks[0]?.inject({ effect: 'corrupt', op: 'read', at })
      const report = await bench.run()
      expect(report.disks[0]?.verify).toBe('sample')
      expect(report.verified).toBe(false)
      expect(report.problems).toMatchObject([{ kind: 'wrong-data' }])
    })
  })
})

describe('data past 4 GiB of a sparse file', () => {
  test('is where it was put, by name and in the sample that ends with the last piece', async () => {
    const file = image(new Uint8Array(0), 5 * 2 ** 30 + 512)
    const data = noise(4096, 4)
    const places = [2 ** 32 - 2048, 2 ** 32 + 3 * 2 ** 20, 5 * 2 ** 30 + 512 - 4096]
    const fd = fs.openSync(file, 'r+')
    for (const place of places) fs.writeSync(fd, data, 0, data.length, place)
    fs.closeSync(fd)
    await using({ disks: [fileSpec(file)], verify: 'sample', operations: 200 }, async (bench) => {
      for (const place of places) expect(await bench.disks[0]?.read(place, 4096)).toEqual(data)
      expect((await bench.run()).verified).toBe(true)
    })
    fs.rmSync(file)
  })
})

describe('an image', () => {
  test('keeps every byte and its time, whatever the workload and the tests write', async () => {
    const file = image(noise(1_000_000, 9))
    fs.utimesSync(file, 1000, 1000)
    const before = sha256(fs.readFileSync(file))
    await using({ disks: [fileSpec(file)] }, async (bench) => {
      await bench.disks[0]?.write(512, new Uint8Array(1024).fill(1))
      const report = await bench.run()
      expect(report.disks[0]?.requests).toMatchObject({ OUT: expect.any(Number), FLUSH: expect.any(Number) })
    })
    expect(sha256(fs.readFileSync(file))).toBe(before)
    expect(fs.statSync(file).mtimeMs).toBe(1_000_000)
  })

  test('is written when that is asked for, and then belongs to one disk', async () => {
    const file = image(noise(262_144, 9))
    const before = sha256(fs.readFileSync(file))
    const spec = fileSpec(file)
    const other = path.join(directory, 'other-name')
    fs.symlinkSync(file, other)
    const both = { disks: [{ spec, write: true }, fileSpec(other)] }
    await expect(createBench(both)).rejects.toThrow(/^disk1: ".*other-name" is disk0's image too/)
    expect((await reportOf({ disks: [spec, fileSpec(other)], operations: 100 })).verified).toBe(true)
    expect(sha256(fs.readFileSync(file))).toBe(before)
    expect((await reportOf({ disks: [{ spec, write: true }] })).verified).toBe(true)
    expect(sha256(fs.readFileSync(file))).not.toBe(before)
  })

  test('that may only be read is only read', async () => {
    const file = image(noise(262_144, 9))
    const spec = fileSpec(file, ',readonly')
    const report = await reportOf({ disks: [{ spec, write: true }] })
    expect(report.verified).toBe(true)
    expect(Object.keys(report.disks[0]?.requests ?? {})).toEqual(['IN', 'FLUSH', 'GET_ID'])
  })
})

describe('one seed', () => {
  const disks = ['memory:size=1M | delay:us=10,jitter=500', 'memory:size=600K,serial=SN-1']

  test('gives one trace and one report, byte for byte; another seed gives another', async () => {
    const [one, again, other] = [
      await traced({ seed: 11, disks }),
      await traced({ seed: 11, disks }),
      await traced({ seed: 12, disks }),
    ]
    expect(again.lines.join('\n') === one.lines.join('\n')).toBe(true)
    expect(lasting(again.report)).toEqual(lasting(one.report))
    expect(other.lines.slice(1).join('\n') === one.lines.slice(1).join('\n')).toBe(false)
  })

  test('replays from the first line of its trace alone', async () => {
    const one = await traced({ seed: 5, disks, operations: 300, virtio: '1.1' })
    const header = JSON.parse(one.lines[0] ?? '')
    expect(header).toMatchObject({ schema: 1, paravane: expect.stringMatching(/^\d+\.\d+\.\d+/), seed: 5 })
    const again = await traced(header.description)
    expect(again.lines.join('\n') === one.lines.join('\n')).toBe(true)
  })

  test('is not moved by looking: the report is the same with and without a trace', async () => {
    const description = { seed: 3, disks, operations: 300 }
    expect(lasting((await traced(description)).report)).toEqual(lasting(await reportOf(description)))
  })

  test('may let something else go first anywhere: another way to the same digest, the same each time', async () => {
    const description = { seed: 3, disks, operations: 100, preemption: true }
    const [one, again, quiet] = [
      await traced(description),
      await traced(description),
      await traced({ ...description, preemption: false }),
    ]
    expect(one.report).toMatchObject({ verified: true, problems: [], violations: [] })
    expect(again.lines.join('\n') === one.lines.join('\n')).toBe(true)
    expect(quiet.lines.slice(1).join('\n') === one.lines.slice(1).join('\n')).toBe(false)
    expect(quiet.report.disks.map(({ sha256 }) => sha256)).toEqual(
      one.report.disks.map(({ sha256 }) => sha256),
    )
  })

  test('gives each disk choices of its own', async () => {
    const { disks } = await reportOf({ seed: 3, disks: ['memory:size=1M', 'memory:size=1M'] })
    expect(disks[1]?.requests).not.toEqual(disks[0]?.requests)
  })

  test('shifts nothing on a disk when another one is put beside it', async () => {
    const alone = await reportOf({ seed: 3, disks: disks.slice(0, 1) })
    const beside = await reportOf({ seed: 3, disks })
    expect(beside.disks[0]).toEqual(alone.disks[0])
  })
})

describe('the counts', () => {
  test('are those of the trace', async () => {
    const { lines, report } = await traced({ seed: 2, disks: ['memory:size=2M'], operations: 400 })
    const events = lines.slice(1).map((line) => JSON.parse(line))
    const count = (name: string) => events.filter((event) => event.name === name).length
    const [disk] = report.disks
    const requests = Object.values(disk?.requests ?? {}).reduce((sum, one) => sum + one, 0)
    expect(disk?.doorbells).toBe(count('doorbell'))
    expect(disk?.interrupts).toBeLessThanOrEqual(count('signal'))
    expect(requests).toBe(count('block'))
    // What the application asked for, the read in pieces of 512 KiB, and what the guest asked on its own.
    expect(requests).toBeGreaterThan((disk?.workload.requests ?? 0) + 4)
    expect(disk?.interruptStatus).toBe(2 * (disk?.interrupts ?? 0))
    const exits = events.filter((event) => event.name === 'exit')
    for (const { reason, count } of disk?.exits ?? []) {
      // Those of the boot are in the trace, too.
      expect(count).toBeLessThanOrEqual(exits.filter((exit) => exit.reason === reason).length)
    }
    const { total, requests: counted, ...price } = disk?.price ?? fail()
    const sum = Object.values(price).reduce((all, one) => all + one, 0)
    const all = disk?.exits.reduce((some, { count }) => some + count, 0) ?? Number.NaN
    expect(total * counted).toBeCloseTo(all, 6)
    expect(sum).toBeCloseTo(total, 9)
    expect(price.doorbell * counted).toBeLessThanOrEqual(disk?.doorbells ?? 0)
    for (const part of Object.values(price)) expect(part).toBeGreaterThanOrEqual(0)
  })

  test('of a request are told of it: one id from the ring down to the disk', async () => {
    const spec = fileSpec(image(noise(300_032, 5)), ' | delay:us=5,jitter=200')
    const { lines } = await traced({ seed: 2, disks: [spec], operations: 200 })
    const blocks = new Map<number, { sector: number; type: number }>()
    const asked = new Set<number>()
    for (const event of lines.slice(1).map((line) => JSON.parse(line))) {
      if (event.name === 'block') blocks.set(event.id, event)
      if (event.name !== 'disk' || event.path !== 'disk0/changes') continue
      asked.add(event.id)
      const block = blocks.get(event.id)
      if (event.op === 'read' || event.op === 'write') {
        expect([block?.type, (block?.sector ?? 0) * 512]).toEqual([event.op === 'read' ? 0 : 1, event.offset])
      } else expect(block?.type).toBe(event.op === 'flush' ? 4 : 11)
    }
    // All but the question for the serial number.
    expect(asked.size).toBe(blocks.size - 1)
  })

  test.each(PROFILE_NAMES)('tell what ends an interrupt on profile %s', async (profile) => {
    const report = await reportOf({ profile, disks: ['memory:size=1M'], operations: 300 })
    const { price, exits, interrupts, injections, deliveries } = report.disks[0] ?? fail()
    const count = (name: string) => exits.find((one) => one.name === name)?.count ?? 0
    const ended = Math.round(price.endOfInterrupt * price.requests)
    expect(Math.round(price.halt * price.requests)).toBe(count('HLT'))
    // Each of the disk's interrupts is ended once, and some of the boot's are in its count.
    expect(ended).toBeGreaterThan(interrupts / 2)
    expect(ended).toBeLessThanOrEqual(injections + deliveries)
    if (profile === 'apicv') {
      // A level-triggered vector's alone exits, and nothing is injected.
      expect([ended, injections]).toEqual([count('virtualized EOI'), 0])
      expect(deliveries).toBeGreaterThanOrEqual(ended)
    } else {
      expect([count('virtualized EOI'), deliveries]).toEqual([0, 0])
      expect(ended).toBeLessThanOrEqual(count('APIC access'))
    }
  })

  test('hold no copied payload, and nobody copies any between application and file', async () => {
    const lengthBytes = 2 ** 20
    const spec = fileSpec(image(noise(lengthBytes, 5)))
    const copiedBy = async (disk: string) => {
      const bench = await createBench({ disks: [disk], operations: 0 })
      const counted = await copiesDuring(() => bench.run())
      await bench.close()
      expect(counted.value.disks[0]).toMatchObject({ bytesCopied: 0, readBytes: lengthBytes })
      return counted.bytes
    }
    expect(await copiedBy(spec)).toBeLessThan(65_536)
    // What the count is worth: a disk in memory is read by copying.
    const memory = await createBench({ disks: ['memory:size=1M'], operations: 0 })
    await memory.disk(0).write(0, noise(lengthBytes, 5))
    expect((await copiesDuring(() => memory.disk(0).read(0, lengthBytes))).bytes).toBeGreaterThan(lengthBytes)
    await memory.close()
  })

  test.each(VIRTIO_VERSIONS)('hold no request that VIRTIO %s does not have', async (virtio) => {
    const report = await reportOf({ virtio, disks: ['memory:size=1M'] })
    expect(report.verified).toBe(true)
    const kinds = ['IN', 'OUT', 'FLUSH', 'GET_ID']
    if (virtio !== '1.0') kinds.push('DISCARD')
    expect(Object.keys(report.disks[0]?.requests ?? {})).toEqual(kinds)
  })
})

describe('a disk of a bench', () => {
  test('reads what was written through the driver, and nothing else changed', async () => {
    const content = noise(300_000 - (300_000 % 512), 1)
    await using({ disks: [fileSpec(image(content))] }, async (bench) => {
      const [disk] = bench.disks
      const model = content.slice()
      const write = fc.tuple(fc.nat(content.length / 512 - 1), fc.integer({ min: 1, max: 200 }), fc.nat(255))
      await fc.assert(
        fc.asyncProperty(write, async ([sector, count, byte]) => {
          const lengthBytes = Math.min(count * 512, content.length - sector * 512)
          const bytes = new Uint8Array(lengthBytes).fill(byte)
          model.set(bytes, sector * 512)
          const all = Promise.all([
            disk?.write(sector * 512, bytes),
            disk?.flush(),
            disk?.read(0, model.length),
          ])
          expect(Buffer.compare((await all)[2] ?? new Uint8Array(0), model)).toBe(0)
        }),
        { numRuns: 30 },
      )
      expect(disk?.violations).toEqual([])
    })
  })

  test('may be written and run again and again: the run knows what was written', async () => {
    await using(
      { disks: [fileSpec(image(noise(262_144, 2))), { spec: 'memory:size=64K', write: true }] },
      async (bench) => {
        const digests = new Set()
        for (let byte = 1; byte <= 3; byte++) {
          for (const disk of bench.disks) await disk.write(4096, new Uint8Array(1024).fill(byte))
          const report = await bench.run()
          expect(report.problems).toEqual([])
          digests.add(report.disks[0]?.sha256)
        }
        expect(digests.size).toBe(3)
      },
    )
  })

  test('says how a request failed, and goes on', async () => {
    await using({ disks: ['memory:size=1M'] }, async (bench) => {
      const [disk] = bench.disks
      await expect(disk?.write(2 ** 20 - 512, new Uint8Array(1024))).rejects.toThrow(
        'a write of 1024 bytes at 1048064',
      )
      const past = disk?.read(2 ** 20, 512)
      const why = 'a read of 512 bytes at 1048576 of disk0 ended in INVALID_PARAMETER'
      await expect(past).rejects.toThrow(why)
      await expect(past).rejects.toBeInstanceOf(DiskRequestFailed)
      await expect(past).rejects.toMatchObject({ statusName: 'INVALID_PARAMETER' })
      // The class driver refuses them: nothing of it reaches the device.
      expect(disk?.violations).toEqual([])
      await expect(disk?.read(1, 512)).rejects.toThrow(/not whole sectors/)
      expect(await disk?.read(0, 512)).toHaveLength(512)
      expect(await bench.run()).toMatchObject({ verified: true, violations: [], problems: [] })
    })
  })

  test('is closed once, and answers nobody afterwards', async () => {
    const bench = await createBench()
    await Promise.all([bench.close(), bench.close()])
    await expect(bench.run()).rejects.toThrow('the bench is closed')
  })
})

describe('a description that cannot be', () => {
  test.each([
    ['file:nowhere', /^disk0: file: cannot open "nowhere": no such file$/],
    ['memory:size=0', /^disk0: "memory:size=0" is empty/],
    ['module:nowhere.ts', /^disk0: module: cannot load "nowhere.ts"/],
  ])('such as %s is refused in one line', async (spec, line) => {
    await expect(createBench({ disks: [spec] })).rejects.toThrow(line)
  })

  test('leaves no file open', async () => {
    const file = image(noise(4096, 1))
    const open = () => fs.readdirSync('/proc/self/fd').length
    if (!fs.existsSync('/proc/self/fd')) return
    const before = open()
    await expect(createBench({ disks: [fileSpec(file), 'file:nowhere'] })).rejects.toThrow(/^disk1/)
    expect(open()).toBe(before)
  })

  test('is too little memory for its queues', async () => {
    const disks = Array.from({ length: 8 }, () => 'memory')
    await expect(createBench({ disks, memoryBytes: 4 * 2 ** 20 })).rejects.toThrow(
      /^memoryBytes is 4194304, too little/,
    )
  })
})
