import fs from 'node:fs'
import path from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { createBench } from '../../bench/bench.ts'
import type { BenchReport } from '../../bench/report.ts'
import { escapePath, scratch } from '../host/disk-subjects.ts'

const { directory, remove } = scratch()
afterAll(remove)

/** A disk of 1 MiB in an array, with `fault` run on each request before it is served; true when it served it. */
function diskWith(fault: string): string {
  const file = path.join(directory, `disk-${files++}.mjs`)
  fs.writeFileSync(
    file,
    `
const bytes = new Uint8Array(1 << 20)
const can = { fua: true, zero: true, discard: true, erase: true, resize: false, extents: false }
const facts = { lengthBytes: 1 << 20, blockBytes: 512, physicalBlockBytes: 512, readOnly: false, medium: true,
  volatileCache: true, serial: 'FAULTY', can, synchronous: true, privateLoans: true }
function each(io, move) {
  let at = io.offset
  for (const view of io.lent) { move(view, at); at += view.length }
}
let count = 0
function fault(io) { count++; ${fault} }
function submit(io) {
  if (fault(io) === true) return
  if (io.op === 'read') each(io, (view, at) => view.set(bytes.subarray(at, at + view.length)))
  else if (io.op === 'write') each(io, (view, at) => bytes.set(view, at))
  else if (io.op !== 'flush') bytes.fill(0, io.offset, io.offset + io.lengthBytes)
  io.answer('ok')
}
export default { role: 'source', kind: 'faulty', summary: '', example: '', options: {},
  async open() { return { ok: true, value: { facts, submit, watch: () => () => {}, close: (done) => done() } } } }
`,
  )
  return `module:${escapePath(file)}`
}
let files = 0

async function runOn(spec: string, write = true): Promise<BenchReport> {
  const bench = await createBench({ seed: 1, disks: [{ spec, write }, 'memory:size=64K'], operations: 600 })
  const report = await bench.run()
  await bench.close()
  return report
}

test('a disk of a module that does what it should is verified, written to directly', async () => {
  expect(await runOn(diskWith(''))).toMatchObject({ verified: true, problems: [] })
})

/** Each is one way to lose or bend data; `kind` is what the report calls it. */
const FAULTS: readonly (readonly [string, string, string])[] = [
  [
    'forgets some writes',
    `if (io.op === 'write' && count % 10 === 0) { io.answer('ok'); return true }`,
    'wrong-data',
  ],
  [
    'puts some writes one block too far',
    `if (io.op === 'write' && count % 10 === 0) { each(io, (view, at) => bytes.set(view, at + 512 < bytes.length - view.length ? at + 512 : at - 512)); io.answer('ok'); return true }`,
    'wrong-data',
  ],
  [
    'loses the last byte of writes',
    `if (io.op === 'write') { each(io, (view, at) => bytes.set(view.subarray(0, view.length - 1), at)); io.answer('ok'); return true }`,
    'wrong-data',
  ],
  [
    'ignores the second piece of a read',
    `if (io.op === 'read' && io.lent.length > 1) { const view = io.lent[0]; view.set(bytes.subarray(io.offset, io.offset + view.length)); io.answer('ok'); return true }`,
    'wrong-data',
  ],
  [
    'discards a block too many',
    `if (io.op === 'discard') bytes.fill(0, io.offset, io.offset + io.lengthBytes + 512)`,
    'wrong-data',
  ],
  [
    'cannot read one place',
    `if (io.op === 'read' && io.offset <= 700000 && io.offset + io.lengthBytes > 700000) { io.answer('medium-error'); return true }`,
    'request-failed',
  ],
  ['cannot flush', `if (io.op === 'flush') { io.answer('medium-error'); return true }`, 'request-failed'],
  [
    'reads less than it was asked',
    `if (io.op === 'read') { io.answer('ok', io.lengthBytes - 512); return true }`,
    'request-failed',
  ],
  ['never answers one request', `if (count === 300) return true`, 'never-answered'],
  ['throws', `if (count === 300) throw new Error('I am\\nbroken')`, 'module-threw'],
  ['answers twice', `if (count === 300) io.answer('ok')`, 'module-threw'],
]

test('every disk is lent pieces of odd lengths, and the large ones of a whole read', async () => {
  const lent: number[] = []
  Object.assign(globalThis, { lent })
  await runOn(diskWith(`for (const view of io.lent) globalThis.lent.push(view.length)`))
  expect(lent.some((length) => length % 512 !== 0)).toBe(true)
  expect(Math.max(...lent)).toBe(2 ** 19)
})

test('a disk that keeps what it was lent through every reset is given up, once', async () => {
  const report = await runOn(
    diskWith(`if (count === 1) facts.privateLoans = false; if (count === 300) return true`),
  )
  expect(report.verified).toBe(false)
  expect(report.disks[0]?.problems).toBeLessThan(100)
  expect(report.problems.map(({ text }) => text).join()).toMatch(/ended in NO_SUCH_DEVICE/)
  expect(report.disks[1]).toMatchObject({ problems: 0, sha256: expect.any(String) })
})

describe('a disk that', () => {
  test.each(FAULTS)('%s is not verified, and the disk beside it is', async (_name, fault, kind) => {
    const report = await runOn(diskWith(fault))
    expect(report.verified).toBe(false)
    expect(report.problems.map((problem) => problem.kind)).toContain(kind)
    expect(report.problems.every(({ disk, text }) => disk === 'disk0' && !text.includes('\n'))).toBe(true)
    expect(report.violations).toEqual([])
    expect(report.disks[0]?.problems).toBeGreaterThan(0)
    expect(report.disks[1]).toMatchObject({ problems: 0, sha256: expect.any(String) })
  })

  test('says it read less has no digest either', async () => {
    const report = await runOn(
      diskWith(`if (io.op === 'read') { io.answer('ok', io.lengthBytes - 512); return true }`),
    )
    expect(report.disks[0]).toMatchObject({ sha256: null, readBytes: 0 })
    expect(report.problems[0]?.text).toBe('a read at sector 0 ended in DATA_OVERRUN')
  })

  test('cannot be read has no digest, and says where', async () => {
    const report = await runOn(
      diskWith(`if (io.op === 'read' && io.offset === 524288) { io.answer('gone'); return true }`),
    )
    expect(report.disks[0]).toMatchObject({ sha256: null, readBytes: 524_288 })
    expect(report.problems[0]).toEqual({
      disk: 'disk0',
      kind: 'request-failed',
      sector: 1024,
      text: 'a read at sector 1024 ended in DEVICE_DATA_ERROR',
    })
  })

  test('shows every reader something else is caught', async () => {
    const report = await runOn(
      diskWith(
        `if (io.op === 'read') { each(io, (view) => view.fill(count)); io.answer('ok'); return true }`,
      ),
      false,
    )
    expect(report.problems[0]).toMatchObject({ kind: 'wrong-data', sector: 0 })
    expect(report.problems[0]?.text).toMatch(
      /^sector 0, byte 0: the guest read 0x[0-9a-f]{2}, the backend holds 0x/,
    )
  })

  test.each([
    ['serial', `facts.serial = 'LATER'`, 'the guest reads serial "FAULTY", the backend has "LATER"'],
    ['length', `facts.lengthBytes = 1 << 19`, 'the guest sees 1048576 bytes, the backend has 524288'],
  ])('changes its %s and tells nobody is found out', async (_what, fault, text) => {
    const report = await runOn(diskWith(fault))
    expect(report.verified).toBe(false)
    expect(report.problems[0]).toEqual({ disk: 'disk0', kind: 'wrong-data', sector: null, text })
  })

  test('lies under an overlay is never written to', async () => {
    const report = await runOn(diskWith(`if (io.op !== 'read') throw new Error('written to')`), false)
    expect(report).toMatchObject({ verified: true, problems: [] })
  })
})
