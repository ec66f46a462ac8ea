import { spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { describe, expect, test } from 'vitest'
import { ended, plainEnvironment, workplace } from './built.ts'

const place = workplace()
const { directory } = place

const required = process.env['PARAVANE_REQUIRE_PEERS'] === '1'
const hasScript =
  spawnSync('script', ['--version'], { encoding: 'utf8' }).stdout?.includes('util-linux') === true

const ESCAPE = '\u001b'
/** Long enough for progress to show: a delay in real time, whatever the machine. */
const SLOW = `
const facts = { lengthBytes: 1 << 20, blockBytes: 512, physicalBlockBytes: 512, readOnly: true, medium: true,
  volatileCache: false, serial: '', synchronous: true, privateLoans: true,
  can: { fua: true, zero: false, discard: false, erase: false, resize: false, extents: false } }
let waited = false
export default { role: 'source', kind: 'slow', summary: '', example: '', options: {}, async open() {
  return { ok: true, value: { facts, watch: () => () => {}, close: (done) => done(), submit(io) {
    if (!waited) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1100)
    waited = true
    for (const view of io.lent) if (io.op === 'read') view.fill(0)
    io.answer('ok')
  } } } } }`

/** What a person at a terminal sees, escape sequences included. */
async function seen(args: readonly string[], env: { readonly [name: string]: string } = {}): Promise<string> {
  const command = [process.execPath, place.built.program, ...args].map((word) => `'${word}'`).join(' ')
  const child = spawn('script', ['-qec', `stty cols 120; ${command}`, path.join(directory, 'typescript')], {
    cwd: directory,
    env: { ...plainEnvironment(), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  return (await ended(child)).stdout
}

fs.writeFileSync(path.join(directory, 'slow.mjs'), SLOW)
const RUN = ['run', '--seed', '1', '--disk', 'module:slow.mjs', '--operations', '100']

describe('on a terminal', () => {
  test('`script` is there, or its absence is said', ({ skip }) => {
    if (hasScript) return
    if (required) expect.fail('script is missing and PARAVANE_REQUIRE_PEERS is 1')
    console.warn('terminal: not tried, script (bsdutils) is missing')
    skip('script is missing')
  })

  test.skipIf(!hasScript)('a long run shows a bar, takes it away, and gives the cursor back', async () => {
    const text = await seen(RUN)
    expect(text).toContain('█')
    expect(text).toContain('read 1.00 MiB of 1.00 MiB')
    expect(text.lastIndexOf(`${ESCAPE}[?25h`)).toBeGreaterThan(text.lastIndexOf(`${ESCAPE}[?25l`))
    expect(text.slice(text.indexOf('disk0  '))).not.toContain('█')
  })

  test.skipIf(!hasScript)('colours are shown, and not when NO_COLOR is set', async () => {
    const colour = new RegExp(`${ESCAPE}\\[\\d+m`)
    const [colourful, plain] = await Promise.all([seen(['run']), seen(['run'], { NO_COLOR: '1' })])
    expect(colourful).toMatch(colour)
    expect(plain).toContain('verified')
    expect(plain).not.toMatch(colour)
  })
})

describe('in a pipe', () => {
  test('a long run says where it is in plain lines on standard error', async () => {
    const { code, stdout, stderr } = await place.built.run(RUN, directory)
    expect(code).toBe(0)
    expect(stderr).toMatch(/^(disk0: [^\n]+\n)+$/)
    expect(stderr).toMatch(/^disk0: read 1\.00 MiB of 1\.00 MiB\n/)
    expect(stdout + stderr).not.toContain(ESCAPE)
  })

  test('a short one says nothing but its result', async () => {
    const { stdout, stderr } = await place.built.run(['run', '--disk', 'memory:size=1M'], directory)
    // On a machine so slow that this takes over a second, lines of progress are right.
    expect(stderr).toMatch(/^(disk0: (read )?[^\n]+ of [^\n]+\n)*$/)
    expect(stdout).not.toContain(ESCAPE)
  })
})
