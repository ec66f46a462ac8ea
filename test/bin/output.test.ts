import { spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { describe, expect, test } from 'vitest'
import { ended, plainEnvironment, workplace } from './built.ts'

const place = workplace()
const { directory } = place

/** Reads fail: a run on it is not verified. */
const FAILING = `
const facts = { lengthBytes: 1 << 20, blockBytes: 512, physicalBlockBytes: 512, readOnly: true, medium: true,
  volatileCache: false, serial: '', synchronous: true, privateLoans: true,
  can: { fua: true, zero: false, discard: false, erase: false, resize: false, extents: false } }
export default { role: 'source', kind: 'failing', summary: '', example: '', options: {}, async open() {
  return { ok: true, value: { facts, watch: () => () => {}, close: (done) => done(),
    submit(io) { io.answer('medium-error') } } } } }`
fs.writeFileSync(path.join(directory, 'failing.mjs'), FAILING)

const VERIFIED = ['run', '--seed', '1', '--disk', 'memory:size=1M', '--operations', '50']
const FAILED = ['run', '--seed', '1', '--disk', 'module:failing.mjs', '--operations', '50']

describe('standard output', () => {
  test.each([
    ['a run that is verified', VERIFIED, 0],
    ['one that is not', FAILED, 1],
    ['one that is not, for programs', [...FAILED, '--json'], 1],
    ['a list', ['backends'], 0],
  ])('that nobody reads changes nothing of what %s ends with', async (_what, args, code) => {
    const child = place.built.start(args, directory)
    child.stdout?.destroy()
    expect(await ended(child)).toMatchObject({ code, signal: null })
  })

  test('and standard error that nobody reads do not end a run before it knows', async () => {
    const child = place.built.start(FAILED, directory)
    child.stdout?.destroy()
    child.stderr?.destroy()
    expect(await ended(child)).toMatchObject({ code: 1, signal: null })
  })

  test.skipIf(!fs.existsSync('/dev/full'))(
    'on a full disk is one line on standard error and no mistake of ours',
    async () => {
      const full = fs.openSync('/dev/full', 'w')
      const stdio = ['ignore', full, 'pipe'] as const
      const env = plainEnvironment()
      const child = spawn(process.execPath, [place.built.program, 'backends'], { env, stdio: [...stdio] })
      fs.closeSync(full)
      expect(await ended(child)).toMatchObject({
        code: 1,
        stderr: 'paravane: standard output cannot be written: no space left\n',
      })
    },
  )
})

test.skipIf(process.platform === 'win32')('a trace into a pipe that nobody reads is bad input', async () => {
  spawnSync('mkfifo', [path.join(directory, 'pipe')])
  const { code, stdout, stderr } = await place.built.run([...VERIFIED, '--trace', 'pipe'], directory)
  expect([code, stdout, stderr]).toEqual([2, '', 'paravane: --trace: cannot write "pipe": nobody reads it\n'])
})
