import { createHash } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { describe, expect, test } from 'vitest'
import { DISK_KINDS } from '../../host/disk/registry.ts'
import { noise } from '../conformance/disk-backend.ts'
import { type Ended, ended, workplace } from './built.ts'

const place = workplace()
const { directory } = place

const paravane = (args: readonly string[], env = {}): Promise<Ended> => place.built.run(args, directory, env)
/** What was said beside the lines of progress, which only a machine slow enough prints. */
const said = (stderr: string) =>
  stderr.replace(/^\w+: (?:read [^\n]+ of [^\n]+|[\d,]+ of [\d,]+ requests)\n/gm, '')
const sha256 = (file: string) =>
  createHash('sha256')
    .update(fs.readFileSync(path.join(directory, file)))
    .digest('hex')

function put(name: string, content: Uint8Array | string): string {
  fs.writeFileSync(path.join(directory, name), content)
  return name
}

const IMAGE = put('disk.img', noise(2_000_384, 1))
const ODD = put('odd.img', noise(1000, 1))

describe('paravane run', () => {
  test('needs nothing, and prints what it found and how to have it again', async () => {
    const { code, stdout, stderr } = await paravane(['run', '--seed', '4'])
    expect([code, said(stderr)]).toEqual([0, ''])
    for (const what of [
      /^Windows 7 {2}processor apicv, 64\.00 MiB, virtio-blk 1\.3\n {2}Microsoft ACPI/,
      /\n {6}Paravane VirtIO Disk SCSI Disk Device {2}disk\n/,
      /\ndisk0 {2}memory {2}\\\\\.\\PhysicalDrive0\n/,
      /capacity {4}64\.00 MiB, 131,072 sectors/,
      /sha256 {6}3b6a07d0d404fab4e23b6d34bc6696a6a312dd92821332385e5af7c01c421351/,
      /requests {4}IN [\d,]+, OUT \d+, FLUSH \d+/,
      /partitions {2}none\n/,
      /exits {7}HLT [\d,]+, /,
      / {14}\d\.\d\d a request = \d\.\d\d doorbell \+ \d\.\d\d interrupt status \+ \d\.\d\d EOI \+ \d\.\d\d HLT/,
      /interrupts {2}[1-9]\d* of this disk; /,
      /copied {6}0 bytes/,
      /violations {3}none/,
      /speed {7}[\d,]+ MB\/s whole disk, [\d,]+ IOPS/,
      /verified {2}seed 4,/,
      /again: paravane run --seed 4\n$/,
    ]) {
      expect(stdout).toMatch(what)
    }
  })

  test('chooses a seed when none is given, and the command it prints gives the same run', async () => {
    const args = ['run', '--disk', 'memory:size=1M | delay:us=5', '--json']
    const first = JSON.parse((await paravane(args)).stdout)
    const again = JSON.parse((await paravane([...args, '--seed', String(first.seed)])).stdout)
    const { timing: _first, ...one } = first
    const { timing: _again, ...other } = again
    expect(other).toEqual(one)
    const guest = ['--windows', 'xp', '--profile', '2010', '--preemption']
    const text = (await paravane([...args.slice(0, -1), ...guest])).stdout
    expect(text).toMatch(/^Windows XP {2}processor 2010, /)
    const command = /again: paravane run --disk 'memory:size=1M \| delay:us=5' (.*) --seed \d+\n$/
    expect(command.exec(text)?.[1]).toBe('--windows xp --profile 2010 --preemption')
  })

  test("prints one JSON document: the file's digest, what it cost, and clocks under timing only", async () => {
    const disks = ['--disk', `file:${IMAGE}`, '--disk', 'memory:size=1M']
    const { code, stdout, stderr } = await paravane(['run', ...disks, '--seed', '7', '--json'])
    expect([code, said(stderr)]).toEqual([0, ''])
    const report = JSON.parse(stdout)
    const number = expect.any(Number)
    expect(report).toEqual({
      schema: 1,
      verified: true,
      seed: 7,
      guest: { windows: '7', profile: 'apicv', memoryBytes: 64 * 2 ** 20, preemption: false },
      virtio: '1.3',
      devices: [
        expect.objectContaining({
          name: 'Microsoft ACPI-Compliant System',
          hardwareIds: expect.any(Array),
          driver: 'ACPI',
          status: 'working',
          children: Array(2).fill(expect.objectContaining({ driver: 'pvblk', status: 'working' })),
        }),
      ],
      disks: [
        {
          name: 'disk0',
          spec: `file:${IMAGE}`,
          path: '\\\\.\\PhysicalDrive0',
          serial: expect.any(String),
          sectors: 3907,
          blockBytes: 512,
          daemon: null,
          paddedBytes: 0,
          partitionStyle: 'none',
          diskId: null,
          partitions: [],
          verify: 'full',
          sha256: sha256(IMAGE),
          readBytes: 2_000_384,
          requests: {
            IN: number,
            OUT: number,
            FLUSH: number,
            GET_ID: 1,
            DISCARD: number,
          },
          doorbells: number,
          interrupts: number,
          interruptStatus: number,
          exits: expect.arrayContaining([{ reason: 12, name: 'HLT', count: number }]),
          price: {
            requests: number,
            doorbell: number,
            interruptStatus: number,
            endOfInterrupt: number,
            halt: number,
            other: number,
            total: number,
          },
          injections: number,
          deliveries: number,
          bytesCopied: 0,
          workload: { requests: number, comparedBytes: number },
          problems: 0,
        },
        expect.objectContaining({ name: 'disk1', spec: 'memory:size=1M', sectors: 2048 }),
      ],
      violations: [],
      problems: [],
      unclaimedAccesses: 0,
      virtualUs: number,
      timing: {
        seconds: number,
        bootSeconds: number,
        disks: Array(2).fill({
          readSeconds: number,
          verifySeconds: number,
          readMegabytesPerSecond: number,
          workloadSeconds: number,
          iops: number,
        }),
      },
    })
  })

  test('leaves an image as it was, byte and time', async () => {
    const file = path.join(directory, IMAGE)
    fs.utimesSync(file, 1000, 1000)
    const before = sha256(IMAGE)
    expect((await paravane(['run', '--disk', `file:${IMAGE}`])).code).toBe(0)
    expect([sha256(IMAGE), fs.statSync(file).mtimeMs]).toEqual([before, 1_000_000])
  })

  test('says that an image of odd size is read to the end of its last block', async () => {
    const { stdout } = await paravane(['run', '--disk', `file:${ODD}`])
    expect(stdout).toContain('the image ends 24 bytes short of a block; the guest reads zeroes there')
    const padded = Buffer.concat([fs.readFileSync(path.join(directory, ODD)), Buffer.alloc(24)])
    expect(stdout).toContain(createHash('sha256').update(padded).digest('hex'))
  })

  test('writes a trace that is the same for the same seed', async () => {
    const args = ['run', '--disk', 'memory:size=1M', '--seed', '3', '--trace']
    const [one, two] = await Promise.all([paravane([...args, 'one.jsonl']), paravane([...args, 'two.jsonl'])])
    expect([one.code, two.code]).toEqual([0, 0])
    expect(sha256('two.jsonl')).toBe(sha256('one.jsonl'))
    const lines = fs.readFileSync(path.join(directory, 'one.jsonl'), 'utf8').trimEnd().split('\n')
    expect(JSON.parse(lines[0] ?? '')).toMatchObject({ schema: 1, seed: 3, description: { virtio: '1.3' } })
    expect(lines.every((line) => typeof JSON.parse(line) === 'object')).toBe(true)
    expect(lines.length).toBeGreaterThan(1000)
  })
})

describe('bad input', () => {
  put('empty.img', '')
  put('thrower.mjs', `throw new Error('boom\\nat import')`)
  put('nothing.mjs', 'export const x = 1')
  fs.mkdirSync(path.join(directory, 'folder'))
  fs.linkSync(path.join(directory, IMAGE), path.join(directory, 'linked.img'))

  test.concurrent.each([
    [['--disk', 'file:missing.img'], /file: cannot open "missing.img": no such file/],
    [['--disk', 'file:folder'], /it is a directory/],
    [['--disk', 'file:empty.img'], /"file:empty.img" is empty/],
    [['--disk', 'file:'], /file/],
    [['--disk', 'memory:size'], /option size is "yes"/],
    [['--disk', 'memory | '], /no kind at position/],
    [['--disk', ''], /spec/],
    [['--disk', 'mamory'], /no kind "mamory" \(did you mean "memory"\?\)/],
    [['--disk', 'memory:sise=1M'], /no option "sise"/],
    [['--disk', 'delay:ms=1'], /needs a disk beneath it/],
    [['--disk', 'module:thrower.mjs'], /cannot load "thrower.mjs": boom at import/],
    [['--disk', 'module:nothing.mjs'], /no default export/],
    [['--disk'], /argument missing/],
    [['--seed', 'x'], /--seed is "x"; it takes a whole number/],
    [['--seed', '-1'], /--seed is "-1"/],
    [['--seed', '1.5'], /--seed is "1.5"/],
    [['--seed', '9007199254740992'], /--seed is/],
    [['--operations', 'many'], /--operations is "many"/],
    [['--virtio', '0.9'], /virtio is "0.9"; it takes one of/],
    [['--windows', '95'], /windows is "95"; it takes one of xp, vista, 7/],
    [['--windows', ''], /windows is ""/],
    [['--profile', 'z80'], /profile is "z80"; it takes one of 2006, 2010, apicv/],
    [['--verify', 'all'], /verify is "all"/],
    [['--sead', '1'], /unknown option '--sead'/],
    [['extra'], /too many arguments/],
    [
      ['--trace', 'nowhere/run.jsonl'],
      /--trace: cannot write "nowhere\/run.jsonl": its folder does not exist/,
    ],
    [['--trace', 'folder'], /it is a directory/],
    [['--disk', `file:${IMAGE}`, '--trace', IMAGE], /is the image of a disk/],
    [['--disk', `file-async:${IMAGE}`, '--trace', 'linked.img'], /is the image of a disk/],
    [['--write', '--disk', `file:${IMAGE}`, '--disk', 'file:linked.img'], /is disk0's image too/],
    [['--trace', 'bad.jsonl', '--disk', 'memory', '--disk', 'file:missing.img'], /^paravane: disk1: file/],
  ])('run %j ends in one line, code 2, and nothing written', async (args, line) => {
    const before = fs.readdirSync(directory).sort()
    const image = sha256(IMAGE)
    const { code, stdout, stderr } = await paravane(['run', '--json', ...args])
    expect([code, stdout]).toEqual([2, ''])
    expect(said(stderr)).toMatch(/^paravane: [^\n]+\n$/)
    expect(stderr).toMatch(line)
    expect(fs.readdirSync(directory).sort()).toEqual(before)
    expect(sha256(IMAGE)).toBe(image)
  })

  test('an image that may not be read is refused', async ({ skip }) => {
    if (process.getuid?.() === 0) {
      console.warn('unreadable image: not tried, root may read everything')
      skip('root may read everything')
    }
    fs.chmodSync(path.join(directory, put('secret.img', noise(512, 1))), 0)
    const { code, stderr } = await paravane(['run', '--disk', 'file:secret.img'])
    expect([code, stderr]).toEqual([2, expect.stringMatching(/permission denied\n$/)])
  })

  test('a command that is none ends the same way', async () => {
    const { code, stdout, stderr } = await paravane(['ran'])
    expect([code, stdout]).toEqual([2, ''])
    expect(stderr).toMatch(/^paravane: unknown command 'ran' .*run.*\n$/)
  })
})

const BROKEN = `
const facts = { lengthBytes: 1 << 20, blockBytes: 512, physicalBlockBytes: 512, readOnly: false, medium: true,
  volatileCache: false, serial: '', synchronous: true, privateLoans: true,
  can: { fua: true, zero: false, discard: false, erase: false, resize: false, extents: false } }
export default { role: 'source', kind: 'broken', summary: '', example: '', options: { how: '' },
  async open({ values }, platform) {
    if (values.get('how') === 'later') setTimeout(() => { throw new Error('out of nowhere') }, 0)
    return { ok: true, value: { facts, watch: () => () => {}, close: (done) => done(), submit(io) {
      if (values.get('how') === 'hang') {
        platform.clock.external('for ever')
        setTimeout(() => process.stderr.write('hanging'), 0)
        setInterval(() => {}, 1000)
        return
      }
      for (const view of io.lent) if (io.op === 'read') view.fill(0)
      if (io.offset >= 524288 && values.get('how') === 'fail') io.answer('medium-error')
      else io.answer('ok')
    } } }
  } }`

describe('how it ends', () => {
  put('broken.mjs', BROKEN)

  test('a disk that fails in the middle: code 1, and where', async () => {
    const disk = ['run', '--disk', 'module:broken.mjs,how=fail', '--seed', '1']
    const { code, stdout, stderr } = await paravane(disk)
    expect([code, said(stderr)]).toEqual([1, ''])
    expect(stdout).toMatch(/sha256 {6}none: only 512\.00 KiB could be read/)
    expect(stdout).toMatch(/\ndisk0: a read at sector 1024 ended in DEVICE_DATA_ERROR\n/)
    expect(stdout).toMatch(/\nand [\d,]+ more\n/)
    expect(stdout).toMatch(/\nNOT VERIFIED {2}seed 1/)
    const json = await paravane([...disk, '--json'])
    expect(json.code).toBe(1)
    expect(JSON.parse(json.stdout)).toMatchObject({ verified: false, disks: [{ sha256: null }] })
  })

  test('a disk that the guest cannot start: code 1, and the code of its problem in the tree', async () => {
    const { code, stdout } = await paravane(['run', '--disk', 'memory:size=8P', '--verify', 'none'])
    expect(code).toBe(1)
    expect(stdout).toContain('Paravane VirtIO block adapter  pvblk  code 10: cannot start\n')
    expect(stdout).toMatch(
      /\ndisk0 {2}memory:size=8P {2}no drive in the guest\n {2}capacity {4}8\.00 PiB[^\n]*\n\n/,
    )
    expect(stdout).toMatch(/\ndisk0: the guest cannot use it: [^\n]*code 10, cannot start\n/)
  })

  test('an exception nobody expected: code 70, and the command that shows it again', async () => {
    const { code, stdout, stderr } = await paravane([
      'run',
      '--disk',
      'module:broken.mjs,how=later',
      '--seed',
      '6',
    ])
    expect([code, stdout]).toEqual([70, ''])
    expect(said(stderr)).toMatch(/^paravane: a mistake of Paravane's own: Error: out of nowhere/)
    expect(stderr).toMatch(
      /\nparavane: to see it again: paravane run --disk module:broken.mjs,how=later --seed 6\n$/,
    )
  })

  test.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('%s: code %i at once, nothing printed, a trace of whole lines', async (signal, code) => {
    const args = ['run', '--disk', 'module:broken.mjs,how=hang', '--json', '--trace', `${signal}.jsonl`]
    const child = place.built.start(args, directory)
    const end = ended(child)
    child.stderr?.once('data', () => child.kill(signal))
    const { code: seen, stdout } = await end
    expect([seen, stdout]).toEqual([code, ''])
    const text = fs.readFileSync(path.join(directory, `${signal}.jsonl`), 'utf8')
    expect(text.endsWith('\n')).toBe(true)
    for (const line of text.trimEnd().split('\n')) JSON.parse(line)
  })

  test('a reader that has enough: no stack trace, no noise', async () => {
    const child = place.built.start(['run', '--disk', 'memory:size=1M', '--json'], directory)
    const end = ended(child)
    child.stdout?.destroy()
    const { code, stderr } = await end
    expect([code, said(stderr)]).toEqual([0, ''])
  })
})

describe('help', () => {
  test('is one screen with examples, and says what the exit codes are', async () => {
    const [top, run] = await Promise.all([paravane(['--help']), paravane(['run', '--help'])])
    for (const { code, stdout, stderr } of [top, run]) {
      expect([code, stderr]).toEqual([0, ''])
      expect(stdout).toMatch(/Examples:\n {2}paravane run/)
      expect(stdout).toMatch(/Exit codes: 0 verified, 1/)
      expect(stdout.split('\n').length).toBeLessThan(40)
      expect(stdout.split('\n').every((line) => line.length <= 100)).toBe(true)
    }
    for (const option of [
      '--disk',
      '--seed',
      '--json',
      '--trace',
      '--verify',
      '--write',
      '--virtio',
      '--windows',
      '--profile',
      '--preemption',
    ]) {
      expect(run.stdout).toContain(option)
    }
  })

  test('goes to standard error, with code 2, when nothing is asked for', async () => {
    const { code, stdout, stderr } = await paravane([])
    expect([code, stdout]).toEqual([2, ''])
    expect(stderr).toMatch(/^Usage: paravane/)
  })

  test('has the version of the package', async () => {
    const { version } = JSON.parse(fs.readFileSync(path.join(place.built.directory, 'package.json'), 'utf8'))
    expect(await paravane(['--version'])).toMatchObject({ code: 0, stdout: `${version}\n`, stderr: '' })
  })
})

describe('paravane backends', () => {
  test('lists the registry, each kind with a spec to paste', async () => {
    const [text, json] = await Promise.all([paravane(['backends']), paravane(['backends', '--json'])])
    expect([text.code, json.code]).toEqual([0, 0])
    for (const { kind, example } of DISK_KINDS) {
      expect(text.stdout).toMatch(new RegExp(`^${kind} `, 'm'))
      expect(text.stdout).toContain(example)
    }
    const disks = JSON.parse(json.stdout).disks
    expect(disks.map(({ kind }: { kind: string }) => kind)).toEqual(DISK_KINDS.map(({ kind }) => kind))
  })

  test('tells what one takes, and which there are when there is none of that name', async () => {
    const { stdout } = await paravane(['backends', 'memory'])
    const memory = DISK_KINDS.find(({ kind }) => kind === 'memory')
    for (const key of Object.keys(memory?.options ?? {}))
      expect(stdout).toMatch(new RegExp(`^ {2}${key} `, 'm'))
    const none = await paravane(['backends', 'tape'])
    expect([none.code, none.stdout]).toEqual([2, ''])
    expect(none.stderr).toMatch(/^paravane: no backend "tape"; backends are memory, file[^\n]+\n$/)
  })
})
