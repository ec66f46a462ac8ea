import fs from 'node:fs'
import { afterAll, afterEach, describe, expect, test, vi } from 'vitest'
import { openDisk } from '../../host/disk/registry.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import type { Plain } from '../../protocol/platform.ts'
import type { TraceEvent } from '../../protocol/trace.ts'
import { assertBytes, noise, TestIo } from '../conformance/disk-backend.ts'
import { escapePath, imageMaker, opened, platformAt, scratch } from './disk-subjects.ts'
import { threadPool } from './thread-pool.ts'

const { directory, remove } = scratch()
afterAll(remove)
afterEach(() => vi.restoreAllMocks())

const small = imageMaker(directory, 'small', 2 ** 20)

type Callback = (error: NodeJS.ErrnoException | null, bytes: number) => void

function read(at: number, bytes = 512): TestIo {
  return new TestIo('read', at, bytes, [new Uint8Array(bytes)])
}

function write(at: number, fua = false): TestIo {
  return new TestIo('write', at, 512, [noise(512, at)], { fua })
}

async function openAsync(options: string) {
  const clock = new VirtualClock({ turnsMax: 10_000 })
  const disk = await opened(`file-async:${escapePath(small())}${options}`, clock)
  const submit = (...ios: TestIo[]) => {
    for (const io of ios) disk.submit(io)
  }
  return { clock, disk, submit }
}

describe('file-async', () => {
  test('has at most depth requests with the operating system, and starts the others in order', async () => {
    const calls = threadPool()
    const { clock, submit } = await openAsync(',depth=2')
    const ios = [0, 512, 1024, 1536].map((at) => read(at))
    submit(...ios)
    expect(calls.map((call) => call.at)).toEqual([0, 512])
    calls[1]?.end(null, 512)
    clock.drain()
    expect(ios.map((io) => io.outcome)).toEqual([null, 'ok', null, null])
    expect(calls.map((call) => call.at)).toEqual([0, 512, 1024])
    for (const index of [2, 0, 3]) {
      calls[index]?.end(null, 512)
      clock.drain()
    }
    expect(ios.map((io) => io.outcome)).toEqual(['ok', 'ok', 'ok', 'ok'])
  })

  test('answers in a turn of the run queue, never in the callback', async () => {
    const calls = threadPool()
    const { clock, submit } = await openAsync('')
    const io = read(0)
    submit(io)
    calls[0]?.end(null, 512)
    expect(io.outcome).toBe(null)
    clock.drain()
    expect(io.outcome).toBe('ok')
  })

  test('holds virtual time until its results are in', async () => {
    const calls = threadPool()
    const { clock, submit } = await openAsync('')
    const order: string[] = []
    clock.after(1, () => order.push('timeout'))
    const io = read(0)
    io.onAnswer = () => order.push('answer')
    submit(io)
    clock.drain()
    expect(order).toEqual([])
    expect(clock.held).toEqual(['disk0/file-async: read at 0'])
    calls[0]?.end(null, 512)
    clock.drain()
    expect(order).toEqual(['answer', 'timeout'])
    expect(clock.held).toEqual([])
  })

  test('lets results in as plain data: a number and bytes, or a number and the name of an error', async () => {
    const events: TraceEvent[] = []
    const trace = { on: true, emit: (event: TraceEvent) => events.push(event) }
    const clock = new VirtualClock({ trace })
    const result = await openDisk(`file-async:${escapePath(small())}`, { ...platformAt(clock), trace })
    if (!result.ok) throw new Error(result.error)
    const calls = threadPool()
    result.value.submit(read(0))
    result.value.submit(read(512))
    calls[1]?.end(Object.assign(new Error('EIO'), { code: 'EIO' }), 0)
    calls[0]?.end(null, 512)
    clock.drain()
    const values: Plain[] = []
    for (const event of events) if (event.name === 'arrival') values.push(event.value)
    expect(values).toEqual([
      { request: 2, errno: 'EIO' },
      { request: 1, bytes: 512 },
    ])
    const answers = events.filter((event) => event.name === 'answer')
    expect(answers.map((event) => event.outcome)).toEqual(['medium-error', 'ok'])
  })

  test('gives up what has not started, at once, and nothing else', async () => {
    const calls = threadPool()
    const { clock, submit } = await openAsync(',depth=1')
    const ios = [read(0), read(512), read(1024)]
    submit(...ios)
    ios[0]?.cancel()
    ios[1]?.cancel()
    expect(ios.map((io) => io.outcome)).toEqual([null, 'cancelled', null])
    calls[0]?.end(null, 512)
    clock.drain()
    expect(calls.map((call) => call.at)).toEqual([0, 1024])
    calls[1]?.end(null, 512)
    clock.drain()
    expect(ios.map((io) => io.outcome)).toEqual(['ok', 'cancelled', 'ok'])
  })

  test('gives up a long zero between two pieces', async () => {
    const calls = threadPool()
    const { clock, submit, disk } = await openAsync('')
    disk.submit(new TestIo('resize', 0, 4 * 2 ** 20, []))
    calls[0]?.end(null, 0)
    clock.drain()
    const io = new TestIo('zero', 0, 4 * 2 ** 20, [])
    submit(io)
    calls[1]?.end(null, 2 ** 20)
    clock.drain()
    expect(calls[2]).toMatchObject({ name: 'write', at: 2 ** 20 })
    io.cancel()
    expect(io.outcome).toBe(null)
    calls[2]?.end(null, 2 ** 20)
    clock.drain()
    expect([io.outcome, io.bytesDone, calls.length]).toEqual(['cancelled', 2 * 2 ** 20, 3])
  })

  test('closing gives up what waits, answers what is under way, then finishes', async () => {
    const calls = threadPool()
    const { clock, disk, submit } = await openAsync(',depth=1')
    const closed = vi.spyOn(fs, 'closeSync')
    const order: string[] = []
    const ios = [read(0), read(512)]
    for (const [index, io] of ios.entries()) io.onAnswer = () => order.push(`${index} ${io.outcome}`)
    submit(...ios)
    disk.close(() => order.push('finished'))
    expect(order).toEqual(['1 cancelled'])
    expect(closed).not.toHaveBeenCalled()
    calls[0]?.end(null, 512)
    clock.drain()
    expect(order).toEqual(['1 cancelled', '0 ok', 'finished'])
    expect(closed).toHaveBeenCalledTimes(1)
  })

  test('syncs for a flush without waiting for writes that are under way', async () => {
    const calls = threadPool()
    const { clock, submit } = await openAsync('')
    const [first, flush, second] = [write(0), new TestIo('flush', 0, 0, []), write(512, true)]
    submit(first)
    calls[0]?.end(null, 512)
    clock.drain()
    submit(second, flush)
    expect(calls.map((call) => call.name)).toEqual(['write', 'write', 'sync'])
    calls[2]?.end(null, 0)
    clock.drain()
    expect([first.outcome, flush.outcome, second.outcome]).toEqual(['ok', 'ok', null])
    calls[1]?.end(null, 512)
    clock.drain()
    expect(second.outcome).toBe(null)
    expect(calls[3]?.name).toBe('sync')
    calls[3]?.end(null, 0)
    clock.drain()
    expect(second.outcome).toBe('ok')
  })

  test('resizes alone: after what is under way, before what comes later', async () => {
    const calls = threadPool()
    const { clock, disk, submit } = await openAsync('')
    const resize = new TestIo('resize', 0, 4096, [])
    const [before, after, beyond] = [write(8192), read(0), read(8192)]
    submit(before, resize, after, beyond)
    expect(calls.map((call) => call.name)).toEqual(['write'])
    calls[0]?.end(null, 512)
    clock.drain()
    expect(calls.map((call) => call.name)).toEqual(['write', 'truncate'])
    calls[1]?.end(null, 0)
    clock.drain()
    expect(disk.facts.lengthBytes).toBe(4096)
    expect([before.outcome, resize.outcome, after.outcome, beyond.outcome]).toEqual([
      'ok',
      'ok',
      null,
      'out-of-range',
    ])
    expect(calls[2]).toMatchObject({ name: 'read', at: 0 })
  })

  test('a resize that is given up lets the others go on', async () => {
    const calls = threadPool()
    const { submit } = await openAsync('')
    const resize = new TestIo('resize', 0, 4096, [])
    submit(write(0), resize, read(512))
    expect(calls.length).toBe(1)
    resize.cancel()
    expect(resize.outcome).toBe('cancelled')
    expect(calls.map((call) => call.name)).toEqual(['write', 'read'])
  })

  test('goes on after short reads and writes, and fails a write that goes nowhere', async () => {
    const calls = threadPool()
    vi.spyOn(fs, 'writev').mockImplementation(((
      _fd: number,
      views: Uint8Array[],
      at: number,
      end: Callback,
    ) => {
      calls.push({ name: 'writev', at, bytes: views[0]?.length ?? 0, view: new Uint8Array(0), end })
    }) as unknown as typeof fs.writev)
    const { clock, submit } = await openAsync('')
    const io = write(1024)
    submit(io)
    calls[0]?.end(null, 100)
    clock.drain()
    expect(calls[1]).toMatchObject({ name: 'writev', at: 1124, bytes: 412 })
    calls[1]?.end(null, 0)
    clock.drain()
    expect([io.outcome, io.bytesDone, io.badOffset]).toEqual(['medium-error', 100, 1124])
  })

  test('many requests at once over the real thread pool leave the file right', async () => {
    const file = small()
    const clock = new VirtualClock({ turnsMax: 100_000 })
    const disk = await opened(`file-async:${escapePath(file)},depth=8`, clock)
    const ios = Array.from({ length: 256 }, (_, index) => write(((index * 37) % 256) * 512, index % 8 === 0))
    for (const io of ios) disk.submit(io)
    await clock.run()
    for (const io of ios) expect(io.outcome).toBe('ok')
    const content = fs.readFileSync(file)
    for (const io of ios)
      assertBytes(content.subarray(io.offset, io.offset + 512), noise(512, io.offset), 'block')
    disk.close(() => {})
    await clock.run()
  })
})
