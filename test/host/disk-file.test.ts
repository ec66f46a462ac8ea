import fs from 'node:fs'
import path from 'node:path'
import { afterAll, afterEach, describe, expect, test, vi } from 'vitest'
import type { DiskChange, DiskOutcome } from '../../host/disk/backend.ts'
import { meaningOf, outcomeOf } from '../../host/disk/errno.ts'
import { probeLength } from '../../host/disk/image.ts'
import { openDisk } from '../../host/disk/registry.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import { assertBytes, noise, TestIo } from '../conformance/disk-backend.ts'
import { escapePath, imageMaker, opened, platformAt, scratch } from './disk-subjects.ts'

const { directory, remove } = scratch()
afterAll(remove)
afterEach(() => vi.restoreAllMocks())

const small = imageMaker(directory, 'small', 2 ** 20)
const KINDS = ['file', 'file-async'] as const

/** An opened file, and its requests. */
async function openFile(kind: string, file: string, options = '') {
  const clock = new VirtualClock({ turnsMax: 100_000 })
  const disk = await opened(`${kind}:${escapePath(file)}${options}`, clock)
  return {
    clock,
    disk,
    async ask(...request: ConstructorParameters<typeof TestIo>): Promise<TestIo> {
      const io = new TestIo(...request)
      disk.submit(io)
      await clock.run()
      return io
    },
    async close() {
      disk.close(() => {})
      await clock.run()
    },
  }
}

function fault(code: string): NodeJS.ErrnoException {
  return Object.assign(new Error(code), { code })
}

describe.each(KINDS)('%s', (kind) => {
  test('reads data past 4 GiB as the file has it', async () => {
    const file = path.join(directory, `${kind}-sparse.img`)
    const places = [0, 2 ** 31 - 512, 2 ** 32 - 512, 2 ** 32 + 512, 5 * 2 ** 30 - 4096]
    const fd = fs.openSync(file, 'w')
    fs.ftruncateSync(fd, 5 * 2 ** 30)
    for (const [index, place] of places.entries()) fs.writeSync(fd, noise(1024, index), 0, 1024, place)
    fs.closeSync(fd)
    const { ask, close } = await openFile(kind, file, ',readonly')
    for (const [index, place] of places.entries()) {
      const views = [new Uint8Array(100), new Uint8Array(924)]
      const io = await ask('read', place, 1024, views)
      expect(io.outcome).toBe('ok')
      assertBytes(Buffer.concat(views), noise(1024, index), `at ${place}`)
    }
    await close()
  })

  test('presents an odd-sized end padded with zeroes, and leaves the file as it is', async () => {
    const file = path.join(directory, `${kind}-odd.img`)
    const content = noise(1300, 1)
    fs.writeFileSync(file, content)
    const { disk, ask, close } = await openFile(kind, file)
    expect(disk.facts.lengthBytes).toBe(1536)
    const read = new Uint8Array(1536).fill(0xee)
    expect((await ask('read', 0, 1536, [read])).outcome).toBe('ok')
    assertBytes(read.subarray(0, 1300), content, 'data')
    assertBytes(read.subarray(1300), new Uint8Array(236), 'padding')
    expect((await ask('zero', 1024, 512, [])).outcome).toBe('ok')
    await close()
    expect(fs.statSync(file).size).toBe(1300)
  })

  test('makes the padding real when its block is written', async () => {
    const file = path.join(directory, `${kind}-padded.img`)
    fs.writeFileSync(file, noise(1300, 1))
    const { ask, close } = await openFile(kind, file)
    expect((await ask('write', 1024, 512, [noise(512, 2)])).outcome).toBe('ok')
    const read = new Uint8Array(512)
    await ask('read', 1024, 512, [read])
    assertBytes(read, noise(512, 2), 'read back')
    await close()
    expect(fs.statSync(file).size).toBe(1536)
  })

  test('a file cut inside its last block reads zeroes there; one cut to nothing is an empty disk', async () => {
    const file = small()
    const { disk, ask, close } = await openFile(kind, file)
    fs.truncateSync(file, 1000)
    const read = new Uint8Array(1024).fill(0xee)
    expect((await ask('read', 0, 1024, [read])).outcome).toBe('ok')
    assertBytes(read.subarray(1000), new Uint8Array(24), 'padding')
    expect(disk.facts.lengthBytes).toBe(1024)
    fs.truncateSync(file, 0)
    const lost = await ask('read', 0, 1024, [read])
    expect([lost.outcome, lost.bytesDone, lost.badOffset]).toEqual(['out-of-range', 0, 0])
    expect(disk.facts.lengthBytes).toBe(0)
    await close()
  })

  test('is read-only where the file cannot be opened for writing', async () => {
    const file = small()
    const openSync = fs.openSync
    vi.spyOn(fs, 'openSync').mockImplementation((name, flags, mode) => {
      if (flags === 'r+') throw fault('EACCES')
      return openSync(name, flags, mode)
    })
    const { disk, ask, close } = await openFile(kind, file)
    expect(disk.facts).toMatchObject({ readOnly: true, volatileCache: false })
    expect((await ask('write', 0, 512, [noise(512, 1)])).outcome).toBe('read-only')
    expect((await ask('flush', 0, 0, [])).outcome).toBe('ok')
    await close()
  })

  test('says in one line why it cannot be opened', async () => {
    const errors: string[] = []
    for (const file of ['missing.img', '.', '/dev/null', 'a\0b', path.join(small(), 'below')]) {
      const target = file.startsWith('/') ? file : path.join(directory, file)
      const result = await openDisk(`${kind}:${escapePath(target)}`, platformAt(new VirtualClock()))
      errors.push(result.ok ? 'opened' : result.error.replace(/".*"/, 'it'))
    }
    expect(errors).toEqual([
      `${kind}: cannot open it: no such file`,
      `${kind}: cannot open it: it is a directory`,
      `${kind}: cannot open it: neither a file nor a block device`,
      `${kind}: cannot open it: not a usable path`,
      `${kind}: cannot open it: a part of its path is not a directory`,
    ])
  })

  test('leaves no descriptor open', async () => {
    const before = fs.readdirSync('/proc/self/fd').length
    const { disk, ask, close } = await openFile(kind, small())
    await ask('read', 0, 512, [new Uint8Array(512)])
    expect(fs.readdirSync('/proc/self/fd').length).toBe(before + 1)
    await close()
    disk.close(() => {})
    expect(fs.readdirSync('/proc/self/fd').length).toBe(before)
  })
})

describe('file', () => {
  test('goes on after short reads and writes', async () => {
    const file = small()
    const { readSync, readvSync, writeSync, writevSync } = fs
    vi.spyOn(fs, 'readSync').mockImplementation(((
      fd: number,
      view: Uint8Array,
      from: number,
      _: number,
      at: number,
    ) => readSync(fd, view, from, 7, at)) as typeof fs.readSync)
    vi.spyOn(fs, 'writeSync').mockImplementation(((
      fd: number,
      view: Uint8Array,
      from: number,
      _: number,
      at: number,
    ) => writeSync(fd, view, from, 5, at)) as typeof fs.writeSync)
    vi.spyOn(fs, 'readvSync').mockImplementation((fd, views, at) =>
      readvSync(fd, [(views[0] as Uint8Array).subarray(0, 11)], at),
    )
    vi.spyOn(fs, 'writevSync').mockImplementation((fd, views, at) =>
      writevSync(fd, [(views[0] as Uint8Array).subarray(0, 13)], at),
    )
    const { ask, close } = await openFile('file', file)
    const bytes = noise(1024, 3)
    for (const cut of [1024, 1, 600]) {
      expect((await ask('write', 512, 1024, [bytes.subarray(0, cut), bytes.subarray(cut)])).outcome).toBe(
        'ok',
      )
      const read = new Uint8Array(1024)
      expect((await ask('read', 512, 1024, [read.subarray(0, cut), read.subarray(cut)])).outcome).toBe('ok')
      assertBytes(read, bytes, `cut at ${cut}`)
      await ask('zero', 512, 1024, [])
      await ask('read', 512, 1024, [read])
      assertBytes(read, new Uint8Array(1024), 'zeroed')
    }
    await close()
  })

  test('syncs once for a flush and once after a write through the cache, and else never', async () => {
    const file = small()
    const calls: string[] = []
    const { fdatasyncSync, writeSync } = fs
    vi.spyOn(fs, 'fdatasyncSync').mockImplementation((fd) => {
      calls.push('sync')
      fdatasyncSync(fd)
    })
    vi.spyOn(fs, 'writeSync').mockImplementation(((...given: Parameters<typeof fs.writeSync>) => {
      calls.push('write')
      return writeSync(...given)
    }) as typeof fs.writeSync)
    const { ask, close } = await openFile('file', file)
    await ask('write', 0, 512, [noise(512, 1)])
    await ask('flush', 0, 0, [])
    await ask('write', 0, 512, [noise(512, 2)], { fua: true })
    await ask('zero', 0, 512, [], { fua: true })
    await ask('read', 0, 512, [new Uint8Array(512)])
    expect(calls).toEqual(['write', 'sync', 'write', 'sync', 'write', 'sync'])
    await close()
  })

  test('reads and writes straight through the lent views, without a copy', async () => {
    const { ask, close } = await openFile('file', small())
    const copies = [
      vi.spyOn(Uint8Array.prototype, 'set'),
      vi.spyOn(Uint8Array.prototype, 'slice'),
      vi.spyOn(Uint8Array.prototype, 'copyWithin'),
      vi.spyOn(Buffer.prototype, 'copy'),
      vi.spyOn(Buffer, 'from'),
      vi.spyOn(Buffer, 'concat'),
    ]
    const view = new Uint8Array(8192)
    for (const lent of [[view], [view.subarray(0, 100), view.subarray(100)]]) {
      await ask('write', 0, 8192, lent)
      await ask('read', 0, 8192, lent)
    }
    for (const copy of copies) expect(copy).not.toHaveBeenCalled()
    await close()
  })

  test.each([
    ['ENOSPC', 'no-space'],
    ['EIO', 'medium-error'],
    ['EROFS', 'read-only'],
    ['EOPNOTSUPP', 'unsupported'],
    ['ESOMETHING', 'medium-error'],
  ] as const)('answers %s with %s, the bytes done and where it failed', async (code, outcome) => {
    const file = small()
    let calls = 0
    const { writeSync } = fs
    vi.spyOn(fs, 'writeSync').mockImplementation(((
      fd: number,
      view: Uint8Array,
      from: number,
      _: number,
      at: number,
    ) => writeSync(fd, view, from, 512, at)) as typeof fs.writeSync)
    vi.spyOn(fs, 'writevSync').mockImplementation(() => {
      calls += 1
      throw fault(code)
    })
    const { disk, ask, close } = await openFile('file', file)
    const io = await ask('write', 1024, 2048, [noise(2048, 1)])
    expect([io.outcome, io.bytesDone, io.badOffset, calls]).toEqual([outcome, 512, 1536, 1])
    expect((await ask('read', 0, 512, [new Uint8Array(512)])).outcome).toBe('ok')
    expect(disk.facts.lengthBytes).toBe(2 ** 20)
    await close()
  })

  test('is gone for good, and says so once, when its device has left', async () => {
    const { disk, ask, close } = await openFile('file', small())
    const heard: DiskChange[] = []
    disk.watch((change) => heard.push(change))
    vi.spyOn(fs, 'readSync').mockImplementationOnce(() => {
      throw fault('ENODEV')
    })
    const outcomes: (DiskOutcome | null)[] = []
    for (const op of ['read', 'read', 'flush'] as const) {
      const bytes = op === 'read' ? 512 : 0
      outcomes.push((await ask(op, 0, bytes, [new Uint8Array(bytes)])).outcome)
    }
    expect(outcomes).toEqual(['gone', 'gone', 'gone'])
    expect(heard).toEqual(['gone'])
    await close()
  })

  test('finds the length of what stat does not measure', () => {
    for (const sectors of [0, 1, 2, 3, 4, 5, 63, 64, 65, 1000, 2 ** 23 + 7]) {
      const file = path.join(directory, 'probe.img')
      fs.writeFileSync(file, '')
      fs.truncateSync(file, sectors * 512)
      const fd = fs.openSync(file, 'r')
      expect(probeLength(fd)).toBe(sectors * 512)
      fs.closeSync(fd)
    }
  })

  test('knows no errno by an empty name', () => {
    expect(outcomeOf('')).toBe('medium-error')
    expect(meaningOf(new Error('x'))).not.toBe('')
  })
})
