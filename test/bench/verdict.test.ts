import fs from 'node:fs'
import path from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { type Bench, createBench } from '../../bench/bench.ts'
import { problemOf, works } from '../../bench/device-health.ts'
import type { DeviceView } from '../../guest/kernel/pnp/device-view.ts'
import { Mmio } from '../../protocol/virtio/mmio.ts'
import { escapePath, scratch } from '../host/disk-subjects.ts'

const { directory, remove } = scratch()
afterAll(remove)

const SMALL = { disks: ['memory:size=64K', 'memory:size=64K'], operations: 50 }

async function verdict(bench: Bench) {
  const report = await bench.run()
  await bench.close()
  return report
}

describe('a run is not verified when', () => {
  test('the device saw the driver break a rule', async () => {
    const bench = await createBench(SMALL)
    bench.machine.disks[1]?.transport.write(Mmio.MagicValue, 4, 7)
    const report = await verdict(bench)
    expect(report).toMatchObject({
      verified: false,
      problems: [],
      violations: [{ disk: 'disk1', side: 'driver', rule: 'mmio.register-unknown', count: 1 }],
    })
    expect(report.violations[0]?.because).toMatch(/\w+ \w+/)
    expect(report.violations[0]?.first).toMatch(/^driver broke mmio.register-unknown/)
  })

  test('the driver saw the device break one, at every count', async () => {
    const bench = await createBench(SMALL)
    const [disk] = bench.machine.disks
    const broken = {
      rule: 'block.status-written',
      side: 'device',
      queue: 0,
      at: null,
      seen: 9,
      expected: 4,
    } as const
    for (let i = 0; i < 20; i++) disk?.adapter?.violations.record(broken)
    expect(bench.disk(0).violations).toHaveLength(16)
    expect(bench.disk(1).violations).toHaveLength(0)
    expect(await verdict(bench)).toMatchObject({
      verified: false,
      violations: [{ disk: 'disk0', side: 'device', count: 20 }],
    })
  })

  test('the guest touched registers that are not there', async () => {
    const bench = await createBench(SMALL)
    bench.machine.machine.bus.read(0xfee1_0000, 4)
    expect(await verdict(bench)).toMatchObject({ verified: false, unclaimedAccesses: 1, problems: [] })
  })

  test('a device of the tree does not work, though every disk does', async () => {
    const bench = await createBench(SMALL)
    bench.machine.namespace.add({ hid: 'PVNE0001', uid: '0', description: 'a stranger' })
    const report = await verdict(bench)
    expect(report).toMatchObject({ verified: false, problems: [], violations: [] })
    const stranger = report.devices[0]?.children.find(({ name }) => name === 'a stranger')
    expect(stranger).toMatchObject({ status: 'problem', problem: { code: 28 } })
  })

  test('a driver does not start: the tree gives its problem, and the disk beside it is verified', async () => {
    // Of so many bytes the last offset is no exact number, which the driver sees.
    const disks = ['memory:size=8P', 'memory:size=64K']
    const report = await verdict(await createBench({ ...SMALL, disks }))
    expect(report.verified).toBe(false)
    const text = 'the guest cannot use it: Paravane VirtIO block adapter: code 10, cannot start'
    expect(report.problems).toEqual([{ disk: 'disk0', kind: 'not-started', sector: null, text }])
    expect(report.devices[0]?.children).toMatchObject([
      { status: 'problem', problem: { code: 10 }, children: [] },
      { status: 'working', children: [{ status: 'working' }] },
    ])
    // The first drive is the second disk's.
    expect(report.disks).toMatchObject([
      { path: null, sha256: null, requests: {}, price: { total: 0 } },
      { path: '\\\\.\\PhysicalDrive0', sha256: expect.any(String), problems: 0 },
    ])
  })

  test('a disk cannot be asked how long it is: the disk beside it is verified', async () => {
    // Blocks larger than any driver takes.
    const file = path.join(directory, 'huge-blocks.mjs')
    fs.writeFileSync(
      file,
      `const can = { fua: true, zero: true, discard: true, erase: true, resize: false, extents: false }
const facts = { lengthBytes: 1 << 24, blockBytes: 1 << 20, physicalBlockBytes: 1 << 20, readOnly: false,
  medium: true, volatileCache: true, serial: '', can, synchronous: true, privateLoans: true }
export default { role: 'source', kind: 'huge', summary: '', example: '', options: {}, async open() {
  return { ok: true, value: { facts, submit: (io) => io.answer('ok'), watch: () => () => {}, close: (done) => done() } }
} }`,
    )
    const disks = [`module:${escapePath(file)}`, 'memory:size=64K']
    const report = await verdict(await createBench({ ...SMALL, disks }))
    expect(report.verified).toBe(false)
    expect(report.problems).toEqual([
      {
        disk: 'disk0',
        kind: 'not-started',
        sector: null,
        text: 'its length is not known: UNRECOGNIZED_MEDIA',
      },
    ])
    expect(report.disks).toMatchObject([
      { sha256: null, readBytes: 0, workload: { requests: 0 }, partitions: [] },
      { sha256: expect.any(String), problems: 0 },
    ])
  })

  test('the guest has no memory for the workload, of which nothing was done then', async () => {
    const file = path.join(directory, 'large-blocks.mjs')
    fs.writeFileSync(
      file,
      `const can = { fua: true, zero: false, discard: false, erase: false, resize: false, extents: false }
const facts = { lengthBytes: 1 << 20, blockBytes: 65536, physicalBlockBytes: 65536, readOnly: true, medium: true,
  volatileCache: false, serial: '', can, synchronous: true, privateLoans: true }
export default { role: 'source', kind: 'large', summary: '', example: '', options: {}, async open() {
  return { ok: true, value: { facts, watch: () => () => {}, close: (done) => done(), submit(io) {
    for (const view of io.lent) view.fill(0)
    io.answer('ok')
  } } } } }`,
    )
    const large = { disks: [`module:${escapePath(file)}`], memoryBytes: 4 * 1024 * 1024, operations: 50 }
    expect(await verdict(await createBench({ ...large, depth: 8 }))).toMatchObject({ verified: true })
    const report = await verdict(await createBench({ ...large, depth: 64 }))
    expect(report).toMatchObject({ verified: false, disks: [{ workload: { requests: 0 } }] })
    expect(report.problems.map(({ text }) => text)).toEqual([
      "the guest has no memory for the workload's 64 buffers of 65536 bytes",
    ])
  })
})

function device(name: string, rest: Partial<DeviceView> = {}): DeviceView {
  const nothing = { location: null, busType: null, className: null, driver: null, problem: null }
  const lists = { hardwareIds: [], stack: [], resources: [], children: [] }
  return { name, instancePath: name, status: 'working', hidden: false, ...nothing, ...lists, ...rest }
}

describe('the health of a tree', () => {
  const cannotStart = { code: 10, text: 'cannot start' } as const
  const disk = device('disk', { status: 'problem', problem: cannotStart })
  const tree = device('root', {
    children: [device('bus', { children: [device('adapter', { children: [disk] }), device('other')] })],
  })

  test('is that of every device that is not hidden', () => {
    expect([works(tree), works(device('one')), works(disk)]).toEqual([false, true, false])
    expect(works(device('root', { children: [{ ...disk, hidden: true }] }))).toBe(true)
    expect(works(device('one', { status: 'not started' }))).toBe(false)
  })

  test('is told by the first device of a branch that does not work', () => {
    expect(problemOf(tree, 'adapter')).toBe('disk: code 10, cannot start')
    expect(problemOf(tree, 'disk')).toBe('disk: code 10, cannot start')
    expect(problemOf(tree, 'other')).toBe(null)
    expect(problemOf(tree, 'nowhere')).toBe(null)
    expect(problemOf(device('one', { status: 'not started' }), 'one')).toBe('one: not started')
    expect(problemOf(null, 'one')).toBe(null)
  })
})
