import fs from 'node:fs'
import path from 'node:path'
import { describe, expect, test } from 'vitest'
import { noise } from '../conformance/disk-backend.ts'
import { workplace } from './built.ts'

const place = workplace()
const { directory } = place

const paravane = (...args: readonly string[]) => place.built.run(args, directory)
const at = (name: string) => path.join(directory, name)
const RUN = ['run', '--operations', '100', '--seed', '3', '--trace', 'run.jsonl', '--disk'] as const

describe('paravane replay', () => {
  test('says that a run is identical, and shows the first difference once its image has changed', async () => {
    fs.writeFileSync(at('disk.img'), noise(1 << 20, 1))
    expect((await paravane(...RUN, 'file-async:disk.img')).code).toBe(0)
    const same = await paravane('replay', 'run.jsonl')
    expect([same.code, same.stdout]).toEqual([
      0,
      expect.stringMatching(
        /^identical: [\d,]+ lines, \d+ of them from outside; the run is verified\nseed 3, Windows 7, file-async:disk\.img\n$/,
      ),
    ])
    const json = JSON.parse((await paravane('replay', 'run.jsonl', '--json')).stdout) as object
    expect(json).toMatchObject({ schema: 1, seed: 3, identical: true, difference: null, verified: true })

    fs.writeFileSync(at('disk.img'), noise(1 << 20, 2))
    const changed = await paravane('replay', 'run.jsonl')
    expect(changed.code).toBe(1)
    expect(changed.stdout).toMatch(
      /^different from line \d+ on\n {2}then {2}\{.*\}\n {2}now {3}\{.*\}\n {2}disk0 has changed since: .*\nseed 3,/,
    )
    const told = JSON.parse((await paravane('replay', 'run.jsonl', '--json')).stdout) as object
    expect(told).toMatchObject({ identical: false, verified: null, difference: { line: expect.any(Number) } })
  })

  test('refuses in one line what it cannot replay', async () => {
    await paravane(...RUN, 'memory:size=1M')
    fs.writeFileSync(at('cut.jsonl'), fs.readFileSync(at('run.jsonl')).subarray(0, -100))
    fs.writeFileSync(
      at('gone.jsonl'),
      fs.readFileSync(at('run.jsonl'), 'utf8').replace('memory:size=1M', 'file:x'),
    )
    for (const [name, why] of [
      ['cut.jsonl', /^paravane: trace "cut\.jsonl": it is cut.*\n$/],
      ['gone.jsonl', /^paravane: trace "gone\.jsonl": disk0: file: cannot open "x".*\n$/],
      ['missing', /^paravane: trace "missing": there is no such file\n$/],
    ] as const) {
      const { code, stdout, stderr } = await paravane('replay', name)
      expect([code, stdout]).toEqual([2, ''])
      expect(stderr).toMatch(why)
    }
  })
})
