import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { DiskBackend, DiskChange, DiskFacts, DiskIo, DiskListener } from '../../host/disk/backend.ts'
import { Coverage } from '../../host/disk/coverage.ts'
import { OverlayDisk } from '../../host/disk/overlay.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import { assertBytes, noise, TestIo } from '../conformance/disk-backend.ts'
import { opened } from './disk-subjects.ts'

/** A disk that shows what reaches it, and can be told to fail. */
class Below implements DiskBackend {
  readonly disk: DiskBackend
  readonly seen: DiskIo[]
  failFrom: number
  /** Keeps requests for the test to answer, when there is such a list. */
  held: DiskIo[] | null

  constructor(disk: DiskBackend) {
    this.disk = disk
    this.seen = []
    this.failFrom = Number.POSITIVE_INFINITY
    this.held = null
  }

  get facts(): DiskFacts {
    return this.disk.facts
  }

  submit(io: DiskIo): void {
    this.seen.push(io)
    const end = io.offset + io.lengthBytes
    if (this.held !== null) this.held.push(io)
    else if (end > this.failFrom)
      io.answer('medium-error', Math.max(0, this.failFrom - io.offset), this.failFrom)
    else this.disk.submit(io)
  }

  watch(listener: DiskListener): () => void {
    return this.disk.watch(listener)
  }

  close(finished: () => void): void {
    this.disk.close(finished)
  }
}

async function stacked(spec = 'memory:size=1M', limitBytes?: number) {
  const clock = new VirtualClock({ turnsMax: 10_000 })
  const below = new Below(await opened(spec, clock))
  for (let at = 0; at < below.facts.lengthBytes && at < 2 ** 20; at += 65_536) {
    below.disk.submit(new TestIo('write', at, 65_536, [noise(65_536, at)]))
  }
  clock.drain()
  const overlay = new OverlayDisk(below, limitBytes)
  const ask = (disk: DiskBackend, ...request: ConstructorParameters<typeof TestIo>) => {
    const io = new TestIo(...request)
    disk.submit(io)
    clock.drain()
    return io
  }
  const read = (disk: DiskBackend, at: number, bytes: number) => {
    const view = new Uint8Array(bytes)
    expect(ask(disk, 'read', at, bytes, [view]).outcome).toBe('ok')
    return view
  }
  return { clock, below, overlay, ask, read }
}

describe('an overlay', () => {
  test('never changes what is below, whatever is asked of it', async () => {
    const { below, overlay, ask, read } = await stacked()
    const before = read(below.disk, 0, 2 ** 20)
    ask(overlay, 'write', 0, 4096, [noise(4096, 1)], { fua: true })
    ask(overlay, 'discard', 8192, 4096, [])
    ask(overlay, 'zero', 65_536, 4096, [])
    ask(overlay, 'erase', 131_072, 4096, [])
    ask(overlay, 'flush', 0, 0, [])
    ask(overlay, 'resize', 0, 2 ** 19, [])
    ask(overlay, 'extents', 0, 2 ** 19, [])
    read(overlay, 0, 2 ** 19)
    expect(new Set(below.seen.map((io) => io.op))).toEqual(new Set(['read', 'extents']))
    assertBytes(read(below.disk, 0, 2 ** 20), before, 'below')
  })

  test('hands a read of untouched blocks down as it is, loans and all', async () => {
    const { below, overlay, ask } = await stacked()
    ask(overlay, 'write', 0, 512, [noise(512, 1)])
    const io = ask(overlay, 'read', 512, 65_536, [new Uint8Array(65_536)])
    expect(below.seen.at(-1)).toBe(io)
  })

  test('a read of touched blocks alone does not go below', async () => {
    const { below, overlay, read, ask } = await stacked()
    ask(overlay, 'write', 1024, 1024, [noise(1024, 2)])
    assertBytes(read(overlay, 1024, 1024), noise(1024, 2), 'written')
    expect(below.seen).toEqual([])
  })

  test('a read across both asks below for the rest alone, straight into the lent views', async () => {
    const { below, overlay, ask } = await stacked()
    ask(overlay, 'write', 1024, 512, [noise(512, 3)])
    const memory = new Uint8Array(4096)
    const io = ask(overlay, 'read', 0, 4096, [memory.subarray(0, 700), memory.subarray(700)])
    expect(io.outcome).toBe('ok')
    const expected = noise(65_536, 0).slice(0, 4096)
    expected.set(noise(512, 3), 1024)
    assertBytes(memory, expected, 'merged')
    expect(below.seen.map(({ offset, lengthBytes }) => [offset, lengthBytes])).toEqual([
      [0, 1024],
      [1536, 2560],
    ])
    for (const part of below.seen) for (const view of part.lent) expect(view.buffer).toBe(memory.buffer)
  })

  test('fails a read where the disk below fails first', async () => {
    const { below, overlay, ask } = await stacked()
    ask(overlay, 'write', 1024, 512, [noise(512, 3)])
    ask(overlay, 'write', 3072, 512, [noise(512, 3)])
    below.failFrom = 2048
    const io = ask(overlay, 'read', 0, 8192, [new Uint8Array(8192)])
    expect([io.outcome, io.bytesDone, io.badOffset]).toEqual(['medium-error', 2048, 2048])
  })

  test('fails it there too when a later part fails before', async () => {
    const { below, overlay, ask } = await stacked()
    ask(overlay, 'write', 1024, 512, [noise(512, 3)])
    below.held = []
    const io = new TestIo('read', 0, 8192, [new Uint8Array(8192)])
    overlay.submit(io)
    const [first, second] = below.held
    second?.answer('no-space', 100, 1636)
    first?.answer('medium-error', 512, 512)
    expect([io.outcome, io.bytesDone, io.badOffset]).toEqual(['medium-error', 512, 512])
  })

  test('gives up a merged read by giving up its parts', async () => {
    const { clock, overlay, ask } = await stacked('memory:size=1M | delay:ms=5')
    ask(overlay, 'write', 1024, 512, [noise(512, 3)])
    const io = new TestIo('read', 0, 4096, [new Uint8Array(4096)])
    overlay.submit(io)
    expect(io.outcome).toBe(null)
    io.cancel()
    expect([io.outcome, io.bytesDone]).toEqual(['cancelled', 0])
    clock.drain()
  })

  test('a read under way below sees old or new blocks, and writes answered before it was asked', async () => {
    const { clock, overlay, ask } = await stacked('memory:size=1M | delay:ms=5')
    ask(overlay, 'write', 512, 512, [noise(512, 4)])
    const view = new Uint8Array(2048)
    const io = new TestIo('read', 0, 2048, [view])
    overlay.submit(io)
    overlay.submit(new TestIo('write', 0, 512, [noise(512, 5)]))
    clock.drain()
    expect(io.outcome).toBe('ok')
    assertBytes(view.subarray(512, 1024), noise(512, 4), 'written before')
    assertBytes(view.subarray(1024), noise(65_536, 0).subarray(1024, 2048), 'from below')
  })

  test('follows the length of the disk below, and keeps nothing beyond its end', async () => {
    const { below, overlay, ask, read } = await stacked()
    const heard: DiskChange[] = []
    overlay.watch((change) => heard.push(change))
    ask(overlay, 'write', 2 ** 20 - 1024, 1024, [noise(1024, 6)])
    ask(below.disk, 'resize', 0, 2 ** 20 - 512, [])
    expect(overlay.facts.lengthBytes).toBe(2 ** 20 - 512)
    assertBytes(read(overlay, 2 ** 20 - 1024, 512), noise(1024, 6).subarray(0, 512), 'kept')
    ask(below.disk, 'resize', 0, 2 ** 20 + 512, [])
    ask(below.disk, 'write', 2 ** 20 - 512, 1024, [noise(1024, 7)])
    assertBytes(read(overlay, 2 ** 20 - 512, 1024), noise(1024, 7), 'shows from below')
    expect(heard).toEqual(['size', 'size'])
  })

  test('made shorter and longer again, it is zero there, whatever is below', async () => {
    const { overlay, ask, read } = await stacked()
    ask(overlay, 'resize', 0, 2 ** 19, [])
    ask(overlay, 'resize', 0, 2 ** 20, [])
    assertBytes(read(overlay, 2 ** 19, 4096), new Uint8Array(4096), 'grown again')
    const { extents } = ask(overlay, 'extents', 2 ** 19, 2 ** 19, [])
    expect(extents).toEqual([{ offset: 2 ** 19, lengthBytes: 2 ** 19, kind: 'hole' }])
  })

  test('keeps a length of its own once it was given one', async () => {
    const { below, overlay, ask, read } = await stacked()
    ask(overlay, 'resize', 0, 2 ** 20 + 4096, [])
    ask(below.disk, 'resize', 0, 2 ** 19, [])
    expect(overlay.facts.lengthBytes).toBe(2 ** 20 + 4096)
    assertBytes(
      read(overlay, 2 ** 19 - 512, 1024).subarray(512),
      new Uint8Array(512),
      'beyond the disk below',
    )
    ask(below.disk, 'resize', 0, 2 ** 20, [])
    ask(below.disk, 'write', 2 ** 19, 512, [noise(512, 8)])
    assertBytes(read(overlay, 2 ** 19, 512), new Uint8Array(512), 'what was cut off stays hidden')
  })

  test('takes whole blocks until its limit, then has no space; what it has it can change', async () => {
    const { overlay, ask, read, below } = await stacked('memory:size=1M', 8192)
    const io = ask(overlay, 'write', 2048, 16_384, [noise(100, 9), noise(16_284, 9)])
    expect([io.outcome, io.bytesDone, io.badOffset]).toEqual(['no-space', 6144, 8192])
    const expected = read(below.disk, 0, 20_480)
    expected.set(noise(100, 9), 2048)
    expected.set(noise(16_284, 9).subarray(0, 6044), 2148)
    assertBytes(read(overlay, 0, 20_480), expected, 'content')
    expect(ask(overlay, 'write', 4096, 512, [noise(512, 1)]).outcome).toBe('ok')
    expect(ask(overlay, 'discard', 0, 8192, []).outcome).toBe('ok')
    expect(ask(overlay, 'write', 65_536, 8192, [noise(8192, 1)]).outcome).toBe('ok')
    expect(overlay.heldBytes).toBe(8192)
  })

  test('may be written over a disk that may not', async () => {
    const { overlay, ask, read } = await stacked('memory:size=1M,readonly')
    expect(overlay.facts.readOnly).toBe(false)
    expect(ask(overlay, 'write', 0, 512, [noise(512, 1)]).outcome).toBe('ok')
    assertBytes(read(overlay, 0, 512), noise(512, 1), 'written')
  })

  test('tells data, zeroes and what is below apart', async () => {
    const { overlay, ask } = await stacked('memory:size=2M')
    ask(overlay, 'write', 4096, 4096, [noise(4096, 1)])
    ask(overlay, 'zero', 2 ** 20 + 4096, 4096, [])
    const { extents } = ask(overlay, 'extents', 0, 2 ** 21, [])
    expect(extents).toEqual([
      { offset: 0, lengthBytes: 2 ** 20, kind: 'data' },
      { offset: 2 ** 20, lengthBytes: 4096, kind: 'hole' },
      { offset: 2 ** 20 + 4096, lengthBytes: 4096, kind: 'zero' },
      { offset: 2 ** 20 + 8192, lengthBytes: 2 ** 20 - 8192, kind: 'hole' },
    ])
  })
})

describe('coverage', () => {
  const LIMIT = 300
  const range = fc
    .tuple(fc.nat(LIMIT), fc.nat(LIMIT))
    .map(([a, b]) => [Math.min(a, b), Math.max(a, b)] as const)
  const change = fc.tuple(fc.boolean(), range)

  test.each([0, 64 ** 2 - 150, 64 ** 3 - 150, 2 ** 44 - 150])(
    'is a set of blocks, from block %d on',
    (base) => {
      fc.assert(
        fc.property(fc.array(change, { maxLength: 12 }), (changes) => {
          const coverage = new Coverage()
          const model = new Array<boolean>(LIMIT + 1).fill(false)
          for (const [add, [from, to]] of changes) {
            if (add) coverage.add(base + from, base + to)
            else coverage.remove(base + from, base + to)
            model.fill(add, from, to)
          }
          for (let at = 0; at < LIMIT; at++) {
            expect(coverage.has(base + at)).toBe(model[at])
            const other = model.indexOf(!model[at], at)
            const end = other < 0 || other > LIMIT ? LIMIT : other
            expect(coverage.endOf(base + at, base + LIMIT, model[at] === true)).toBe(base + end)
            expect(coverage.endOf(base + at, base + LIMIT, model[at] !== true)).toBe(base + at)
          }
        }),
        { numRuns: 60 },
      )
    },
  )
})
