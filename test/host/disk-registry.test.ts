import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, describe, expect, test, vi } from 'vitest'
import { openDisk } from '../../host/disk/registry.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import type { HostPlatform } from '../../protocol/platform.ts'
import type { TraceEvent } from '../../protocol/trace.ts'
import { isZero, noise, TestIo } from '../conformance/disk-backend.ts'
import { escapePath, imageMaker, platformAt, scratch } from './disk-subjects.ts'

const { directory, remove } = scratch()
afterAll(remove)
afterEach(() => vi.restoreAllMocks())

const small = imageMaker(directory, 'small', 2 ** 20)
const EXAMPLE = fileURLToPath(new URL('../../examples/pattern-disk.ts', import.meta.url))

async function open(
  spec: Parameters<typeof openDisk>[0],
  platform: HostPlatform = platformAt(new VirtualClock()),
) {
  return openDisk(spec, platform)
}

async function errorOf(spec: string): Promise<string> {
  const result = await open(spec)
  if (result.ok) result.value.close(() => {})
  return result.ok ? 'opened' : result.error.replaceAll(directory, '')
}

/** A module file; its spec. */
function module(name: string, text: string): string {
  const file = path.join(directory, name)
  fs.writeFileSync(file, text)
  return `module:${escapePath(file)}`
}

const WRAPPER = `
  export default {
    role: 'wrapper', kind: 'shift', summary: '', example: '', options: { refuse: 'fail to open', facts: 'lie', lacks: 'a part' },
    async open({ values }, platform, over) {
      if (values.get('refuse') === 'throw') throw new Error('a\\nb')
      if (values.has('refuse')) return { ok: false, error: 'shift: refused' }
      if (values.has('facts')) return { ok: true, value: Object.create(over, { facts: { value: { ...over.facts, blockBytes: 3 } } }) }
      if (values.has('lacks')) return { ok: true, value: { submit() {}, watch() {}, close() {}, [values.get('lacks')]: 5 } }
      return { ok: true, value: over }
    },
  }`

describe('openDisk', () => {
  test('closes what is open again when a layer above it cannot be opened', async () => {
    const wrapper = module('wrapper.mjs', WRAPPER)
    const image = escapePath(small())
    for (const options of ['refuse', 'refuse=throw', 'facts']) {
      for (const source of ['file', 'file-async']) {
        const before = fs.readdirSync('/proc/self/fd').length
        expect((await open(`${source}:${image} | overlay | ${wrapper},${options}`)).ok).toBe(false)
        expect(fs.readdirSync('/proc/self/fd').length).toBe(before)
      }
    }
  })

  test('opens nothing when a spec is wrong anywhere', async () => {
    const opens = vi.spyOn(fs, 'openSync')
    expect(await errorOf(`file:${escapePath(EXAMPLE)} | delay:mss=5`)).toBe(
      'delay: no option "mss" (did you mean "ms"?); its options are ms, us, jitter, op',
    )
    expect(opens).not.toHaveBeenCalled()
  })

  test('opens no device in a disk’s place, and says what to name instead', async () => {
    expect(await errorOf('vhost-user:disk.sock')).toBe(
      'vhost-user: is a device for a guest to drive, not a disk to open; name the disk its daemon serves',
    )
  })

  test('gives each layer a path and a random stream of its own', async () => {
    const events: TraceEvent[] = []
    const trace = { on: true, emit: (event: TraceEvent) => events.push(event) }
    const clock = new VirtualClock()
    const result = await open('memory:size=1M | delay:us=5 | delay:us=7', { ...platformAt(clock), trace })
    if (!result.ok) throw new Error(result.error)
    const io = new TestIo('read', 512, 512, [new Uint8Array(512)], { id: 42 })
    result.value.submit(io)
    clock.drain()
    expect(io.outcome).toBe('ok')
    expect(
      events.map((event) =>
        'path' in event && 'id' in event ? `${event.name} ${event.path} ${event.id}` : '',
      ),
    ).toEqual([
      'disk disk0/delay2 42',
      'disk disk0/delay 42',
      'disk disk0/memory 42',
      'answer disk0/memory 42',
      'answer disk0/delay 42',
      'answer disk0/delay2 42',
    ])
  })

  test('a trace changes nothing: extents, cancelling and changes come through', async () => {
    const trace = { on: true, emit() {} }
    const clock = new VirtualClock()
    const result = await open('memory:size=1M | delay:ms=5,op=read', { ...platformAt(clock), trace })
    if (!result.ok) throw new Error(result.error)
    const disk = result.value
    const heard: string[] = []
    disk.watch((change) => heard.push(change))
    disk.submit(new TestIo('write', 0, 65_536, [noise(65_536, 1)]))
    const extents = new TestIo('extents', 0, 131_072, [])
    disk.submit(extents)
    expect(extents.extents.map((extent) => extent.kind)).toEqual(['data', 'hole'])
    const read = new TestIo('read', 0, 512, [new Uint8Array(512)])
    disk.submit(read)
    read.cancel()
    expect(read.outcome).toBe('cancelled')
    disk.submit(new TestIo('resize', 0, 2 ** 19, []))
    expect(heard).toEqual(['size'])
    clock.drain()
  })

  test('takes a spec as plain data', async () => {
    const result = await open({ kind: 'overlay', over: { kind: 'memory', size: '1M', serial: 'A B' } })
    expect(result.ok && result.value.facts).toMatchObject({ lengthBytes: 2 ** 20, serial: 'A B' })
  })

  test.each([
    ['memory:size=1000', 'memory: option size is 1000, not a multiple of the block (512)'],
    ['memory:size=1MB', 'memory: option size is "1MB"; it takes a size such as 512, 64M or 5G'],
    ['memory:block=500', 'memory: option block is "500"; it takes a size of at least 512, such as 64M'],
    ['memory:block=768', 'memory: option block is 768; it takes a power of two from 512 to 64K'],
    ['memory:block=4K,physical=512', 'memory: option physical is 512, less than block (4096)'],
    ['memory:readonly=maybe', 'memory: option readonly is "maybe"; it takes yes or no'],
    [
      'memory:serial=123456789012345678901',
      'memory: option serial: "123456789012345678901" has 21 characters, more than 20',
    ],
    ['memory:serial=é', 'memory: option serial: "é" has a character that is not printable ASCII'],
    ['file-async:x,depth=0', 'file-async: option depth is "0"; it takes a whole number from 1 to 1024'],
    ['overlay', 'overlay: a wrapper needs a disk beneath it, such as "memory | overlay"'],
  ])('%s is refused in one line', async (spec, message) => {
    expect(await errorOf(spec)).toBe(message)
  })
})

describe('module', () => {
  test('loads TypeScript, and JavaScript of both kinds', async () => {
    const source = `role: 'source', kind: 'empty', summary: '', example: '', options: {}, open: async () => ({ ok: false, error: 'empty: as asked' })`
    for (const spec of [
      module('typed.ts', `interface Unused { a: string }\nexport default { ${source} } as const`),
      module('typed.mts', `enum Kept { A }\nexport default { ${source}, kept: Kept.A as Kept }`),
      module('plain.mjs', `export default { ${source} }`),
      module('plain.cjs', `module.exports = { ${source} }`),
    ]) {
      expect(await errorOf(spec)).toBe('empty: as asked')
    }
  })

  test('the example reads its pattern, and says what is wrong with its options', async () => {
    const result = await open(`module:${escapePath(EXAMPLE)},sectors=70000`)
    if (!result.ok) throw new Error(result.error)
    const view = new Uint8Array(512)
    result.value.submit(new TestIo('read', 65_793 * 512, 512, [view]))
    expect([...view.subarray(0, 8)]).toEqual([1, 1, 1, 0, 1, 1, 1, 0])
    expect(await errorOf(`module:${escapePath(EXAMPLE)},sectors=few`)).toBe(
      'pattern: few is no count of sectors',
    )
    expect(await errorOf(`module:${escapePath(EXAMPLE)},sector=5`)).toBe(
      'pattern: no option "sector" (did you mean "sectors"?); its options are sectors',
    )
  })

  test('may be a wrapper, which needs a disk beneath it; a source must stand first', async () => {
    const wrapper = module('wrapper.mjs', WRAPPER)
    expect(await errorOf(`memory | ${wrapper}`)).toBe('opened')
    expect(await errorOf(wrapper)).toBe('shift: a wrapper needs a disk beneath it, such as "memory | shift"')
    expect(await errorOf(`memory | module:${escapePath(EXAMPLE)}`)).toBe(
      'pattern: a source of data stands first; it cannot be piped after memory',
    )
    expect(await errorOf(`memory | ${wrapper},refuse=throw`)).toBe('shift: a b')
    expect(await errorOf(`memory | ${wrapper},facts`)).toBe('shift: blockBytes is 3, not a power of two')
    expect(await errorOf(`memory | ${wrapper},lacks=watch`)).toBe(
      'shift: what it opened has no function watch',
    )
    expect(await errorOf(`memory | ${wrapper},lacks=facts`)).toBe('shift: what it opened has no object facts')
  })

  test.each([
    ['missing.ts', null, 'no such file'],
    ['disk.json', '{}', 'its name ends in none of .ts .mts .cts .js .mjs .cjs'],
    ['none.mjs', 'export const x = 1', 'it has no default export'],
    ['number.mjs', 'export default 5', 'its default export is not an object'],
    [
      'role.mjs',
      'export default { kind: "a" }',
      'its default export\'s role is neither "source" nor "wrapper"',
    ],
    [
      'kind.mjs',
      'export default { role: "source", kind: "A" }',
      'its default export\'s kind is not a name such as "my-disk"',
    ],
    ['open.mjs', 'export default { role: "source", kind: "a" }', 'its default export has no function open'],
    [
      'options.mjs',
      'export default { role: "source", kind: "a", open() {} }',
      'its default export has no object options',
    ],
    ['throws.mjs', 'throw new Error("first\\nsecond")', 'first second'],
  ])('%s cannot be loaded: one line says why', async (name, text, why) => {
    const spec = text === null ? `module:${escapePath(path.join(directory, name))}` : module(name, text)
    expect(await errorOf(spec)).toBe(`module: cannot load "/${name}": ${why}`)
  })

  test('one that does not parse is one line too', async () => {
    for (const name of ['broken.mjs', 'broken.ts']) {
      const message = await errorOf(module(name, 'export default {{'))
      expect(message).toMatch(/^module: cannot load "\/broken\.m?[jt]s": [^\n]+$/)
    }
  })
})

describe('memory', () => {
  test('holds only what was written, and lets go of what is discarded', async () => {
    const { MemoryDisk } = await import('../../host/disk/memory.ts')
    const geometry = { blockBytes: 512, physicalBlockBytes: 512, readOnly: false, serial: '' }
    const disk = new MemoryDisk(2 ** 53, geometry, 131_072)
    const ask = (...request: ConstructorParameters<typeof TestIo>) => {
      const io = new TestIo(...request)
      disk.submit(io)
      return io
    }
    ask('write', 2 ** 53 - 512, 512, [noise(512, 1)])
    ask('write', 0, 512, [noise(512, 2)])
    expect(disk.heldBytes).toBe(131_072)
    const full = ask('write', 65_536 - 1024, 2048, [noise(700, 3), noise(1348, 4)])
    expect([full.outcome, full.bytesDone, full.badOffset]).toEqual(['no-space', 1024, 65_536])
    ask('discard', 0, 65_536, [])
    expect(disk.heldBytes).toBe(65_536)
    expect(ask('write', 65_536, 512, [noise(512, 5)]).outcome).toBe('ok')
    ask('discard', 65_536, 512, [])
    const view = noise(512, 6)
    ask('read', 65_536, 512, [view])
    expect(isZero(view)).toBe(true)
  })
})
