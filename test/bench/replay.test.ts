import fs from 'node:fs'
import path from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { createBench } from '../../bench/bench.ts'
import type { BenchDescription } from '../../bench/description.ts'
import { BadTrace, readTrace } from '../../bench/recorded-trace.ts'
import { replayTrace } from '../../bench/replay.ts'
import { TraceLines } from '../../bench/trace-lines.ts'
import { noise } from '../conformance/disk-backend.ts'
import { escapePath, scratch } from '../host/disk-subjects.ts'

const { directory, remove } = scratch()
afterAll(remove)
const TRACE = path.join(directory, 'run.jsonl')
const IMAGE = path.join(directory, 'disk.img')
const FILE = escapePath(IMAGE)

/** Runs a bench over a fresh image and keeps its trace. */
async function record(description: BenchDescription): Promise<string[]> {
  fs.writeFileSync(IMAGE, noise(1 << 20, 1))
  const lines: string[] = []
  const trace = new TraceLines((line) => lines.push(line))
  const bench = await createBench({ operations: 200, ...description }, { trace })
  await bench.run()
  await bench.close()
  trace.end()
  keep(lines)
  return lines
}

function keep(lines: readonly string[]): void {
  fs.writeFileSync(TRACE, lines.map((line) => `${line}\n`).join(''))
}

const replay = () => replayTrace(readTrace(TRACE))
const nameOf = (line: string) => (JSON.parse(line) as { name?: string }).name

describe('a replay', () => {
  test.each([
    { seed: 1, disks: ['memory:size=1M'] },
    { seed: 2, disks: [`file:${FILE}`], preemption: true, windows: 'xp', profile: '2010' },
    { seed: 3, disks: [`file-async:${FILE}`], preemption: true },
    { seed: 4, disks: [`file-async:${FILE} | delay:us=50,jitter=400`, `file-async:${FILE},depth=2`] },
    { seed: 5, disks: [{ spec: 'memory:size=1M', write: true }] },
  ] satisfies BenchDescription[])('of seed $seed is identical to the last line', async (description) => {
    const lines = await record(description)
    const asynchronous = JSON.stringify(description.disks).includes('async')
    expect(lines.some((line) => nameOf(line) === 'arrival')).toBe(asynchronous)
    const { difference, report, ...rest } = await replay()
    expect(difference).toBeNull()
    expect(rest.lines).toBe(lines.length)
    expect(report?.verified).toBe(true)
  })

  test('sees the first line that is another, a line too few and a line too many', async () => {
    const lines = await record({ disks: ['memory:size=1M'] })
    const at = lines.findIndex((line) => nameOf(line) === 'doorbell')
    const other = lines[at]?.replace('"queue":0', '"queue":1') ?? ''
    keep(lines.with(at, other))
    expect((await replay()).difference).toEqual({
      line: at + 1,
      expected: other,
      seen: lines[at],
      because: null,
    })
    const shorter = lines.toSpliced(at, 1)
    keep(shorter.with(-1, shorter.at(-1)?.replace(String(lines.length - 1), String(lines.length - 2)) ?? ''))
    expect((await replay()).difference).toMatchObject({ line: at + 1, seen: lines[at] })
    const one = '{"us":0,"name":"wake"}'
    const longer = lines.toSpliced(-1, 1, one, lines.at(-1)?.replace(/\d+}$/, `${lines.length}}`) ?? '')
    keep(longer)
    expect((await replay()).difference).toMatchObject({
      line: lines.length,
      expected: one,
      seen: lines.at(-1),
    })
  })

  test('that the run does not reach ends before the trace does', async () => {
    const lines = await record({ disks: ['memory:size=1M'] })
    // As of a longer run, which is given away by its last lines alone.
    const end = lines.at(-1) ?? ''
    keep([...lines.slice(0, -1), end.replace('"end"', '"wake"'), end.replace(/\d+}$/, `${lines.length}}`)])
    expect((await replay()).difference?.line).toBe(lines.length)
  })

  test.each(['file', 'file-async'])('over %s sees that the image has changed since', async (kind) => {
    await record({ disks: [`${kind}:${FILE}`], seed: 8 })
    expect((await replay()).difference).toBeNull()
    const bytes = fs.readFileSync(IMAGE)
    bytes[700_000] = (bytes[700_000] ?? 0) ^ 1
    fs.writeFileSync(IMAGE, bytes)
    expect((await replay()).difference?.because).toMatch(/^disk0 has changed since: other bytes between /)
    fs.truncateSync(IMAGE, 1_000_000)
    expect((await replay()).difference).not.toBeNull()
  })

  test('sees arrivals of another order, another value, and one that never comes', async () => {
    const lines = await record({ disks: [`file-async:${FILE}`], seed: 9 })
    const at = lines.findIndex((line) => nameOf(line) === 'arrival')
    keep(lines.with(at, lines[at]?.replace(/"bytes":\d+/, '"bytes":77') ?? ''))
    expect((await replay()).difference?.because).toMatch(/arrival 0 of disk0.* is .* and was .*77/)
    keep(lines.with(at, lines[at]?.replace(/"source":"[^"]*"/, '"source":"tap"') ?? ''))
    expect((await replay()).difference?.because).toMatch(/nobody asks for arrival 0 of tap/)
  })
})

describe('a trace is refused', () => {
  test('when it is cut, malformed, of another version, or of a run that wrote to its image', async () => {
    const lines = await record({ disks: ['memory:size=1M'], operations: 20 })
    const [header = '', ...rest] = lines
    const refused = (why: RegExp, ...kept: readonly string[]) => {
      keep(kept)
      expect(() => readTrace(TRACE)).toThrow(BadTrace)
      expect(() => readTrace(TRACE)).toThrow(why)
    }
    refused(/it is empty/)
    refused(/cut: its last line does not say/, ...lines.slice(0, -1))
    refused(/had \d+ lines before its end, and has \d+/, header, ...rest.slice(1))
    refused(/line 2 is no event/, header, 'not JSON', ...rest.slice(1))
    refused(/line 2 is no event/, header, '{"name":"wake"}', ...rest.slice(1))
    refused(/line \d+ comes after the end/, ...lines, '{"us":0,"name":"wake"}')
    refused(/line 2 is no arrival/, header, '{"us":0,"name":"arrival","number":-1}', ...rest.slice(1))
    const early = { us: 0, name: 'arrival', number: 1, turn: 0, source: 'a', value: null }
    refused(/arrival 0 of the trace is out of order/, header, JSON.stringify(early), ...rest.slice(1))
    refused(/first line is not that of a trace/, ...rest)
    refused(/is of paravane "9\.9"/, header.replace(/"paravane":"[^"]*"/, '"paravane":"9.9"'), ...rest)
    refused(/its schema is 2/, header.replace('"schema":1', '"schema":2'), ...rest)
    refused(/says seed 7 and describes 1/, header.replace('"seed":1', '"seed":7'), ...rest)
    refused(/its first line: windows is "95"/, header.replace('"windows":"7"', '"windows":"95"'), ...rest)
    const written = header.replace(/"spec":"[^"]*","write":false/, '"spec":"file:x.img","write":true')
    refused(/wrote to disk0 itself/, written, ...rest)
    const daemons = header.replace(/"spec":"[^"]*"/, '"spec":"vhost-user:x.sock"')
    refused(/a daemon had disk0/, daemons, ...rest)
    refused(/longer than any event/, header, 'x'.repeat(2 ** 21))
    fs.writeFileSync(TRACE, `${header}\n{"us":0`)
    expect(() => readTrace(TRACE)).toThrow(/cut within line 2/)
    expect(() => readTrace(directory)).toThrow(/it is not a file/)
    expect(() => readTrace(path.join(directory, 'missing'))).toThrow(/there is no such file/)
  })
})
