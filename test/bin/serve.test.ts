import { type ChildProcess, spawn } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { describe, expect, test } from 'vitest'
import { nativeAbsent } from '../../native/platform.ts'
import { UnixListener } from '../../native/unix-listener.ts'
import { UnixSocket } from '../../native/unix-socket.ts'
import { noise } from '../conformance/disk-backend.ts'
import { type Ended, ended, workplace } from './built.ts'
import { PlainFrontEnd } from './plain-front-end.ts'

const absent = nativeAbsent()
if (absent !== null) process.stdout.write(`paravane serve is not tested: ${absent}\n`)

const place = workplace()
const { directory } = place

let sockets = 0

/** A server that listens, and what becomes of it. */
class Served {
  readonly socket: string
  readonly child: ChildProcess
  readonly ended: Promise<Ended>
  #said = ''
  #heard: (() => void)[] = []

  constructor(spec: string, options: readonly string[] = []) {
    this.socket = path.join(directory, `s${sockets++}`)
    this.child = place.built.start(['serve', spec, '--socket', this.socket, ...options], directory)
    this.ended = ended(this.child)
    this.child.stdout?.on('data', (text: string) => {
      this.#said += text
      for (const heard of this.#heard.splice(0)) heard()
    })
    this.child.on('close', () => {
      for (const heard of this.#heard.splice(0)) heard()
    })
  }

  /** Waits until it says this. */
  async says(what: RegExp): Promise<string> {
    while (!what.test(this.#said)) {
      if (this.child.exitCode !== null) throw new Error(`it ended, and said ${this.#said}`)
      await new Promise<void>((resolve) => this.#heard.push(resolve))
    }
    return this.#said
  }

  async listens(): Promise<string> {
    return this.says(/Ctrl-C\n/)
  }

  async stop(signal: NodeJS.Signals = 'SIGINT'): Promise<Ended> {
    this.child.kill(signal)
    return this.ended
  }
}

fs.writeFileSync(path.join(directory, 'shared.img'), new Uint8Array(1 << 20))
const image = (name: string) => path.join(directory, name)

describe.skipIf(absent !== null)('paravane serve', () => {
  test('offers a disk to one front-end after the other, and leaves a flushed image and no socket', async () => {
    fs.writeFileSync(image('disk.img'), noise(1 << 20, 1))
    const served = new Served('file:disk.img', ['--queues', '2'])
    const banner = await served.listens()
    expect(banner).toMatch(/^disk {6}file:disk\.img, 1\.00 MiB, writes go to it/)
    expect(banner).toMatch(/^loop {6}\S/m)
    expect(banner).toContain(`path=${served.socket},reconnect=1`)
    expect(banner).toContain('vhost-user-blk-pci,chardev=paravane,num-queues=2')
    const first = new PlainFrontEnd(served.socket)
    expect(first.start()).toBe(true)
    expect(Buffer.compare(first.read(8, 4096), noise(1 << 20, 1).subarray(4096, 8192))).toBe(0)
    const sent = noise(4096, 2)
    expect(first.write(16, sent)).toBe(0)
    expect(first.stop()).toBe(2)
    first.close()
    const second = new PlainFrontEnd(served.socket)
    expect(second.start()).toBe(true)
    expect(Buffer.compare(second.read(16, 4096), sent)).toBe(0)
    const { code, stdout, stderr } = await served.stop()
    expect([code, stderr]).toEqual([0, ''])
    expect(stdout.match(/front-end connected/g)).toHaveLength(2)
    expect(stdout).toMatch(
      /front-end gone: it closed the connection\nfront-end connected\nfront-end gone: closed from here\n$/,
    )
    expect(second.closedByPeer()).toBe(true)
    second.close()
    expect(fs.existsSync(served.socket)).toBe(false)
    expect(Buffer.compare(fs.readFileSync(image('disk.img')).subarray(8192, 12288), sent)).toBe(0)
  })

  test.each([
    ['a disk that answers at once', 'memory:size=1M', [], /^loop.*poll\(2\).*at once$/m],
    ['a disk that answers later', 'memory:size=1M | delay:us=300', [], /^loop.*Node.*later$/m],
    ['callbacks', 'file-async:later.img', [], /^loop.*Node.*later$/m],
    ['a disk that answers at once, polling', 'memory:size=1M', ['--polling'], /^loop.*poll\(2\)/m],
    ['callbacks, polling', 'file-async:later.img', ['--polling'], /^loop.*Node/m],
  ])('serves %s', async (_what, spec, options, loop) => {
    fs.writeFileSync(image('later.img'), new Uint8Array(1 << 20))
    const served = new Served(spec, options)
    expect(await served.listens()).toMatch(loop)
    const frontEnd = new PlainFrontEnd(served.socket)
    expect(frontEnd.start()).toBe(true)
    for (let round = 0; round < 20; round++) {
      const bytes = noise(4096, round)
      expect(frontEnd.write(round * 8, bytes)).toBe(0)
      expect(Buffer.compare(frontEnd.read(round * 8, 4096), bytes)).toBe(0)
    }
    const { code } = await served.stop('SIGTERM')
    expect(code).toBe(0)
    frontEnd.close()
  })

  test('goes on for front-ends when nobody reads what it says any more', async () => {
    const served = new Served('memory:size=1M')
    await served.listens()
    served.child.stdout?.destroy()
    const sent = noise(4096, 5)
    const first = new PlainFrontEnd(served.socket)
    expect(first.start()).toBe(true)
    expect(first.write(0, sent)).toBe(0)
    first.close()
    const second = new PlainFrontEnd(served.socket)
    expect(second.start()).toBe(true)
    expect(Buffer.compare(second.read(0, 4096), sent)).toBe(0)
    const { code, stderr } = await served.stop()
    second.close()
    expect([code, stderr]).toEqual([0, ''])
    expect(fs.existsSync(served.socket)).toBe(false)
  })

  test('names memory that can be made shorter once, and refuses it where seals are asked for', async () => {
    const tolerant = new Served('memory:size=1M')
    await tolerant.listens()
    const one = new PlainFrontEnd(tolerant.socket, { sealed: false })
    expect(one.start()).toBe(true)
    const { stdout, code } = await tolerant.stop()
    expect(stdout.match(/vhost\.memory-unsealed/g)).toHaveLength(1)
    expect(code).toBe(0)
    one.close()
    const strict = new Served('memory:size=1M', ['--require-seals'])
    await strict.listens()
    const other = new PlainFrontEnd(strict.socket, { sealed: false })
    expect(other.start()).toBe(false)
    expect((await strict.stop()).stdout.match(/vhost\.memory-unsealed/g)).toHaveLength(1)
    other.close()
  })

  test('outlives a front-end that makes its memory shorter, says so once, and serves the next', async () => {
    const served = new Served('file:shared.img')
    await served.listens()
    const rude = new PlainFrontEnd(served.socket, { sealed: false })
    expect(rude.start()).toBe(true)
    expect(rude.write(8, noise(4096, 3))).toBe(0)
    rude.shrink()
    expect(rude.closedByPeer()).toBe(true)
    rude.close()
    await served.says(/front-end broke vhost\.memory-shrunk/)
    await served.says(/listening again\n/)
    const polite = new PlainFrontEnd(served.socket)
    expect(polite.start()).toBe(true)
    expect(Buffer.compare(polite.read(8, 4096), noise(4096, 3))).toBe(0)
    const { code, stdout, stderr } = await served.stop()
    expect([code, stderr]).toEqual([1, ''])
    expect(stdout.match(/memory-shrunk/g)).toHaveLength(1)
    expect(stdout.match(/Ctrl-C/g)).toHaveLength(1)
    expect(fs.existsSync(served.socket)).toBe(false)
    polite.close()
  })

  test('has one first line in its trace, and all that came before a front-end ended its child', async () => {
    const served = new Served('memory:size=1M', ['--trace', 'lives.jsonl'])
    await served.listens()
    const rude = new PlainFrontEnd(served.socket, { sealed: false })
    rude.start()
    expect(rude.write(8, noise(4096, 3))).toBe(0)
    rude.shrink()
    expect(rude.closedByPeer()).toBe(true)
    rude.close()
    await served.says(/listening again\n/)
    const polite = new PlainFrontEnd(served.socket)
    polite.start()
    polite.read(0, 512)
    await served.stop()
    polite.close()
    const lines = fs.readFileSync(image('lives.jsonl'), 'utf8').trimEnd().split('\n')
    const [header, ...events] = lines.map((line) => JSON.parse(line))
    expect(header.schema).toBe(1)
    expect(events.filter(({ schema }) => schema !== undefined)).toEqual([])
    const ops = events.filter(({ name }) => name === 'disk').map(({ op }) => op)
    expect(ops.filter((op) => op === 'read' || op === 'write')).toEqual(['write', 'read'])
  })

  test.for([
    { what: 'connected', sealed: true },
    { what: 'connected, whose memory gets shorter', sealed: false },
  ])('serves a socket that was left open for it: $what', async ({ sealed }) => {
    const [ours, theirs] = UnixSocket.pair()
    const { number } = theirs.descriptor
    const args = [place.built.program, 'serve', 'memory:size=1M', '--fd', '7']
    const ignored = Array.from({ length: 4 }, () => 'ignore' as const)
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe', ...ignored, number] })
    const end = ended(child)
    theirs.close()
    const frontEnd = new PlainFrontEnd(ours, { sealed })
    expect(frontEnd.start()).toBe(true)
    expect(frontEnd.write(8, noise(4096, 3))).toBe(0)
    expect(Buffer.compare(frontEnd.read(8, 4096), noise(4096, 3))).toBe(0)
    if (!sealed) {
      frontEnd.shrink()
      expect(frontEnd.closedByPeer()).toBe(true)
    }
    frontEnd.close()
    const { code, stdout, stderr } = await end
    expect([code, stderr]).toEqual([sealed ? 0 : 1, ''])
    expect(stdout).toContain('descriptor 7, 1 queue\n')
    expect(stdout.match(/front-end connected/g)).toHaveLength(1)
  })

  test('serves one front-end after the other at a listening socket that was left open for it', async () => {
    const listener = UnixListener.listen(image('left'))
    const { number } = listener.descriptor
    const args = [place.built.program, 'serve', 'memory:size=1M', '--fd', '3']
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe', number] })
    const end = ended(child)
    for (let turn = 0; turn < 2; turn++) {
      const frontEnd = new PlainFrontEnd(image('left'))
      expect(frontEnd.start()).toBe(true)
      expect(frontEnd.write(turn, noise(512, turn))).toBe(0)
      frontEnd.close()
    }
    child.kill('SIGTERM')
    expect(await end).toMatchObject({ code: 0, stderr: '' })
    // The file is ours to take away.
    expect(fs.existsSync(image('left'))).toBe(true)
    listener.close()
  })

  test('says what it is, as management programs ask back-end programs, and serves nothing', async () => {
    const { code, stdout, stderr } = await place.built.run(['serve', '--print-capabilities'], directory)
    expect([code, stderr]).toEqual([0, ''])
    expect(JSON.parse(stdout)).toEqual({ type: 'block', features: [] })
  })

  test('leaves nobody behind when it is killed', async () => {
    const served = new Served('memory:size=1M')
    await served.listens()
    const frontEnd = new PlainFrontEnd(served.socket)
    expect(frontEnd.start()).toBe(true)
    await served.stop('SIGKILL')
    expect(frontEnd.closedByPeer()).toBe(true)
    frontEnd.close()
    expect(UnixSocket.connect(served.socket)).toMatchObject({ errno: 'ECONNREFUSED' })
  })

  test('survives a front-end that talks nonsense, says which rule it broke, and serves the next', async () => {
    const served = new Served('memory:size=1M')
    await served.listens()
    const rude = new PlainFrontEnd(served.socket)
    rude.raw(new Uint8Array(64).fill(0xff))
    expect(rude.closedByPeer()).toBe(true)
    rude.close()
    const polite = new PlainFrontEnd(served.socket)
    expect(polite.start()).toBe(true)
    polite.close()
    await served.says(/front-end gone: it closed/)
    const { code, stdout } = await served.stop()
    expect(code).toBe(1)
    expect(stdout).toMatch(/front-end broke vhost\.version/)
  })

  test('writes a trace whose first line has the disk', async () => {
    const served = new Served('memory:size=1M', ['--trace', 'serve.jsonl'])
    await served.listens()
    const frontEnd = new PlainFrontEnd(served.socket)
    frontEnd.start()
    frontEnd.read(0, 512)
    await served.stop()
    frontEnd.close()
    const lines = fs.readFileSync(image('serve.jsonl'), 'utf8').trimEnd().split('\n')
    const [header, ...events] = lines.map((line) => JSON.parse(line))
    expect(header.description.disks).toEqual([{ spec: 'memory:size=1M', write: true }])
    expect(events.filter(({ name }) => name === 'message').map(({ code }) => code)).toEqual([
      1, 15, 16, 3, 2, 5, 8, 10, 9, 13, 12, 18,
    ])
    expect(events.some(({ name, op }) => name === 'disk' && op === 'read')).toBe(true)
  })
})

describe.skipIf(absent !== null)('paravane serve refuses in one line', () => {
  const refused = async (...args: string[]) => {
    const { code, stdout, stderr } = await place.built.run(['serve', ...args], directory)
    expect([code, stdout]).toEqual([2, ''])
    expect(stderr).toMatch(/^paravane: [^\n]+\n$/)
    return stderr
  }

  test('what cannot be served', async () => {
    fs.writeFileSync(image('kept.img'), new Uint8Array(1024))
    fs.writeFileSync(image('plain'), 'not a socket')
    const somebody = UnixListener.listen(image('taken'))
    expect(await refused('memory')).toContain('--socket')
    expect(await refused('--socket', 's')).toContain('disk')
    expect(await refused('memory', '--socket', 's', '--fd', '3')).toContain('--fd')
    expect(await refused('memory', '--fd', '9')).toContain('no socket')
    expect(await refused('memory', '--fd', '1')).toContain('--fd')
    expect(await refused('file:none.img', '--socket', 's')).toContain('none.img')
    expect(await refused('memry', '--socket', 's')).toContain('memry')
    expect(await refused('memory', '--socket', 'none/s')).toContain('none/s')
    expect(await refused('memory', '--socket', 'plain')).toContain('plain')
    expect(await refused('memory', '--socket', 'taken')).toContain('taken')
    expect(await refused('memory', '--socket', 'x'.repeat(200))).toContain('ENAMETOOLONG')
    for (const queues of ['0', '65', 'two']) {
      expect(await refused('memory', '--socket', 's', '--queues', queues)).toContain('queues')
    }
    expect(await refused('file:kept.img', '--socket', 's', '--trace', 'kept.img')).toContain(
      'image of the disk',
    )
    expect(await refused('memory', '--socket', 's', '--trace', 'none/t')).toContain('--trace')
    expect(fs.existsSync(image('s'))).toBe(false)
    expect(fs.readFileSync(image('plain'), 'utf8')).toBe('not a socket')
    expect(fs.statSync(image('kept.img')).size).toBe(1024)
    somebody.close()
  }, 60_000)

  test('nothing when it is asked for help', async () => {
    const { code, stdout } = await place.built.run(['serve', '--help'], directory)
    expect(code).toBe(0)
    expect(stdout).toContain('paravane serve file:disk.img --socket /tmp/pv.sock')
  })
})
