import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Built } from './bin/built.ts'
import { scratch } from './host/disk-subjects.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const { directory, remove } = scratch()
const home = path.join(directory, 'consumer')
const installed = path.join(home, 'node_modules/paravane')
const manifest = JSON.parse(fs.readFileSync(path.join(ROOT, 'package.json'), 'utf8'))

/** Ten lines of somebody else's, one per room. */
const CONSUMERS: { readonly [room: string]: string } = {
  protocol: `
import { type Gpa, GuestMemory, gpa, struct, le32, BlkRequest } from 'paravane/protocol'
const Mine = struct('mine', 'my specification', 8, { first: le32('one'), second: le32('two') })
const memory = GuestMemory.ofBytes(65536)
const at: Gpa = gpa(4096)
const window = memory.window(at, Mine.$size, 8)
window?.putLe32(Mine.second, 7)
const value: number | undefined = window?.le32(Mine.second)
// @ts-expect-error a 16-bit access to a 32-bit field
window?.le16(Mine.second)
console.log(value, BlkRequest.$size)`,
  guest: `
import { BlkCommand, type BlkEnd, Segments } from 'paravane/guest'
class Read extends BlkCommand {
  end: BlkEnd | null = null
  ended(end: BlkEnd): void {
    this.end = end
  }
}
const command = new Read(0, 8)
const segments: Segments = command.data
console.log(command.sector, segments.count, command.end)`,
  host: `
import { type DiskBackend, DiskIo, type DiskOutcome, MemoryDisk } from 'paravane/host'
class Flush extends DiskIo {
  outcome: DiskOutcome | null = null
  protected finished(outcome: DiskOutcome): void {
    this.outcome = outcome
  }
}
const disk: DiskBackend = new MemoryDisk(512, { blockBytes: 512, physicalBlockBytes: 512, readOnly: false, serial: '' })
const flush = new Flush('flush', 0, 0, [])
disk.submit(flush)
console.log(flush.outcome)`,
  hypervisor: `
import { VirtualClock } from 'paravane/hypervisor'
const clock = new VirtualClock()
let ran = 0
clock.after(5, () => {
  ran = clock.now()
})
clock.drain()
console.log(ran)`,
  bench: `
import { type BenchReport, createBench, TraceLines } from 'paravane/bench'
const lines: string[] = []
const trace = new TraceLines((line) => lines.push(line))
const bench = await createBench({ seed: 7, disks: ['memory:size=1M | delay:ms=2'] }, { trace })
await bench.disks[0]?.write(4096, new Uint8Array(512).fill(7))
const bytes: Uint8Array | undefined = await bench.disks[0]?.read(4096, 512)
const report: BenchReport = await bench.run()
await bench.close()
console.log(bytes?.[0], report.verified, lines.length > 100)`,
  conformance: `
import { runDiskBackendCases, specSubject } from 'paravane/conformance'
const results = await runDiskBackendCases(specSubject('memory:size=1M'))
const failed = results.filter((result) => result.verdict === 'failed')
console.log(failed.length, results.length > 10)`,
  fuzz: `
import { DmaSpace } from 'paravane/protocol'
import { HOSTILE_CHAINS, HostileScene, hostileGround, Journal, JournalMemory, LiteralRing } from 'paravane/fuzz'
const ground = hostileGround()
const ring = new LiteralRing(ground.memory, { size: 8, descriptors: 0x1000, driver: 0x3000, device: 0x5000 })
const chain = HOSTILE_CHAINS.find(({ rule }) => rule === 'split.next-range')
chain?.plant(new HostileScene(ring, ground, 0))
const journal = new Journal()
const dma = new DmaSpace(new JournalMemory(ground.memory, journal))
const index = dma.window(ground.memory.regions[0]!.base, 0x4000, 4)?.loadIndex(0x3002 as never)
console.log(index, chain?.outcome, journal.reads(0x3002, 2))`,
}

const PRINTED: { readonly [room: string]: string } = {
  protocol: '7 16',
  guest: '8 0 null',
  host: 'ok',
  hypervisor: '5',
  bench: '7 true true',
  conformance: '0 true',
  fuzz: '1 drop 1',
}

function node(args: readonly string[], cwd = home) {
  return spawnSync(process.execPath, args, { cwd, encoding: 'utf8' })
}

/** Packs a fresh build as npm would, and unpacks it where npm would put it; dependencies stand beside it. */
function install(): void {
  const built = new Built()
  fs.rmSync(path.join(built.directory, 'node_modules'))
  for (const name of [...manifest.files, 'README.md', 'LICENSE']) {
    if (name !== 'dist')
      fs.cpSync(path.join(ROOT, name), path.join(built.directory, name), { recursive: true })
  }
  const packed = spawnSync('npm', ['pack', '--ignore-scripts', '--json', '--offline'], {
    cwd: built.directory,
    encoding: 'utf8',
    shell: process.platform === 'win32',
  })
  if (packed.status !== 0) throw new Error(`npm pack fails: ${packed.stderr}`)
  const tarball = path.join(built.directory, JSON.parse(packed.stdout)[0].filename)
  fs.mkdirSync(installed, { recursive: true })
  const unpacked = spawnSync('tar', ['-xzf', tarball, '--strip-components=1', '-C', installed], {
    encoding: 'utf8',
  })
  if (unpacked.status !== 0) throw new Error(`the tarball cannot be unpacked: ${unpacked.stderr}`)
  built.remove()
  // What npm would fetch is what this repository's lock file fetched already: no network here.
  for (const name of ['@types', ...Object.keys(manifest.dependencies)]) {
    fs.symlinkSync(path.join(ROOT, 'node_modules', name), path.join(home, 'node_modules', name))
  }
  fs.writeFileSync(path.join(home, 'package.json'), '{ "type": "module", "private": true }')
}

beforeAll(install)
afterAll(remove)

describe('the packed package', () => {
  test('holds what runs and what is read, and no test and no source', () => {
    const files = fs.readdirSync(installed, { recursive: true, encoding: 'utf8' })
    for (const name of [
      'README.md',
      'LICENSE',
      'CHANGELOG.md',
      'ARCHITECTURE.md',
      'examples/pattern-disk.ts',
    ]) {
      expect(files).toContain(name)
    }
    expect(files.filter((file) => /\.test\.|node_modules|\.tgz$|^test\//.test(file))).toEqual([])
    expect(files.filter((file) => file.endsWith('.ts') && !file.endsWith('.d.ts'))).toEqual(
      files.filter((file) => file.startsWith('examples/') && file.endsWith('.ts')),
    )
  })

  test('has a command that runs', () => {
    const program = path.join(installed, manifest.bin.paravane)
    expect(node([program, '--version'])).toMatchObject({
      status: 0,
      stdout: `${manifest.version}\n`,
      stderr: '',
    })
    expect(fs.readFileSync(program, 'utf8')).toMatch(/^#!\/usr\/bin\/env node\n/)
    const { status, stdout } = node([program, 'run', '--seed', '1', '--json'])
    expect(status).toBe(0)
    expect(JSON.parse(stdout)).toMatchObject({ schema: 1, verified: true, disks: [{ sectors: 131_072 }] })
    const example = path.join('node_modules/paravane/examples/pattern-disk.ts')
    fs.copyFileSync(path.join(home, example), path.join(home, 'mine.ts'))
    expect(node([program, 'run', '--disk', 'module:./mine.ts,sectors=64'])).toMatchObject({ status: 0 })
  })

  test('exports a room for each consumer here, and nothing else', () => {
    const rooms = Object.keys(manifest.exports).filter((name) => name !== './package.json')
    expect(rooms.map((name) => name.slice(2)).sort()).toEqual(Object.keys(CONSUMERS).sort())
  })

  test('type-checks for a consumer of each room under nodenext, strictly', () => {
    for (const [room, text] of Object.entries(CONSUMERS))
      fs.writeFileSync(path.join(home, `${room}.ts`), text)
    const options = { module: 'nodenext', target: 'es2022', strict: true, noEmit: true, types: ['node'] }
    const compilerOptions = {
      ...options,
      lib: ['es2023', 'esnext.disposable'],
      exactOptionalPropertyTypes: true,
    }
    const files = Object.keys(CONSUMERS).map((room) => `${room}.ts`)
    fs.writeFileSync(path.join(home, 'tsconfig.json'), JSON.stringify({ compilerOptions, files }))
    const checked = node([path.join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', 'tsconfig.json'])
    expect(checked.stdout + checked.stderr).toBe('')
    expect(checked.status).toBe(0)
  })

  test.each(Object.keys(CONSUMERS))('does for the consumer of %s what its types say', (room) => {
    const script = (CONSUMERS[room] ?? '')
      .replace(/import \{([^}]*)\}/g, (_all, names: string) => `import {${names.replace(/type \w+,?/g, '')}}`)
      .replace(/^class (\w+) extends/gm, 'class $1 extends')
    fs.writeFileSync(path.join(home, `run-${room}.ts`), script)
    const tsx = fileURLToPath(import.meta.resolve('tsx'))
    const { stdout, stderr } = node(['--import', `file://${tsx}`, `run-${room}.ts`])
    expect([stdout.trim(), stderr]).toEqual([PRINTED[room], ''])
  })
})
