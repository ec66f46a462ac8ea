import fc from 'fast-check'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { GuestMemory, gpa } from '../../protocol/memory.ts'
import type { TraceEvent } from '../../protocol/trace.ts'
import { Mmio } from '../../protocol/virtio/mmio.ts'
import { Window } from '../../protocol/window.ts'
import { HOSTILE_CASES } from './blk-hostile-cases.ts'
import { DISCARD, FLUSH, GET_ID, IN, OUT, WRITE_ZEROES } from './blk-model.ts'
import type { BlkRig } from './blk-rig.ts'
import { AT, CONTENT, MEMORY_BYTES, readable, Scene, SIZE, STATUS, STATUS_AT, writable } from './blk-scene.ts'
import { RawQueue } from './raw-queue.ts'

afterEach(() => vi.restoreAllMocks())

describe('a hostile driver leaves a violation, a spent token and a living device', () => {
  for (const { behaviour, rules, used, status, act } of HOSTILE_CASES) {
    test(behaviour, () => {
      const scene = new Scene()
      scene.rig.bytes[STATUS_AT] = 0xff
      act(scene)
      expect(scene.rig.rules).toEqual(rules)
      const lengths: number[] = []
      for (let one = scene.queue.reap(); one !== null; one = scene.queue.reap()) lengths.push(one.lengthBytes)
      expect(lengths).toEqual(used)
      if (status !== undefined) expect(scene.rig.bytes[STATUS_AT]).toBe(status)
      expect(Buffer.compare(scene.content(), CONTENT)).toBe(0)
      scene.expectAlive()
    })
  }

  test('H14 and H15: bad requests between good ones, by the thousand: every head comes back once', () => {
    const scene = new Scene()
    const { rig, queue } = scene
    for (let round = 0; round < 1500; round++) {
      const kind = round % 5
      scene.header(kind === 0 ? IN : kind === 1 ? 99 : OUT, BigInt(round % 3 === 0 ? 1000 : 1))
      const head = scene.serve(
        kind === 2
          ? [readable(AT, 9), STATUS]
          : kind === 3
            ? [readable(AT, 528)]
            : [readable(AT, 17), STATUS],
      )
      expect(queue.reap()?.head).toBe(head)
      expect(queue.reap()).toBe(null)
      if (round % 100 === 0) scene.expectGood(queue, 0)
      rig.violations.length = 0
    }
    scene.expectAlive()
  })

  test('H16: memory and counts do not grow with what a driver says', () => {
    const scene = new Scene()
    const { rig } = scene
    // Overlapping buffers that add up to megabytes of ranges: refused by their count, before a byte is copied.
    scene.header(DISCARD, 0n)
    const whole = Array.from({ length: SIZE - 2 }, () => readable(0, MEMORY_BYTES))
    const lent = vi.spyOn(rig.memory, 'lend')
    scene.serve([readable(AT, 16), ...whole, STATUS])
    expect([rig.rules, lent.mock.calls.length]).toEqual([['block.segment-count'], 0])
    scene.queue.reap()
    // And of data: refused by the capacity.
    rig.violations.length = 0
    scene.header(IN, 0n)
    scene.serve([readable(AT, 16), ...whole.map(({ at, lengthBytes }) => writable(at, lengthBytes)), STATUS])
    expect([rig.rules, lent.mock.calls.length]).toEqual([['block.range'], 0])
    scene.queue.reap()
    for (let type = 100; type < 1100; type++) {
      scene.header(type, 0n)
      scene.serve([readable(AT, 16), STATUS])
      scene.queue.reap()
    }
    expect(rig.device.counts.size).toBeLessThan(10)
    expect(rig.device.counts.get(-1)).toBe(1000)
    expect(rig.device.counts.get(DISCARD)).toBe(1)
    scene.expectAlive()
  })

  test('H09: a header too short has no type, not that of the request before', () => {
    const events: TraceEvent[] = []
    const trace = { on: true, emit: (event: TraceEvent) => events.push(event) }
    const scene = new Scene(undefined, trace)
    scene.header(FLUSH, 0n)
    scene.serve([readable(AT, 16), STATUS])
    scene.header(IN, 7n)
    scene.serve([readable(AT, 15), STATUS])
    expect(scene.rig.device.counts).toEqual(
      new Map([
        [FLUSH, 1],
        [-1, 1],
      ]),
    )
    const blocks = events.filter(({ name }) => name === 'block')
    expect(blocks).toMatchObject([
      { id: 1, type: FLUSH, sector: 0 },
      { id: 2, type: -1, sector: 0 },
    ])
  })

  test('H17: a storm of notifications costs one turn and no interrupt', () => {
    const scene = new Scene()
    const { rig } = scene
    rig.drain()
    const turns = vi.spyOn(rig.clock, 'defer')
    for (let i = 0; i < 1000; i++) rig.kick()
    rig.drain()
    expect([turns.mock.calls.length, rig.line.rises, rig.rules]).toEqual([1, 0, []])
    scene.expectAlive()
  })

  test('H17: what is offered while the device goes to sleep is served without another notification', () => {
    const scene = new Scene()
    const { rig, queue } = scene
    rig.drain()
    scene.header(GET_ID, 0n, AT)
    const room = [readable(AT, 16), writable(AT + 32, 20), STATUS]
    queue.offer(room)
    queue.publish()
    rig.kick()
    // The driver publishes just before the device says where it wants to be told: nobody rings for that.
    const event = 4 + 8 * SIZE
    const storeIndex = Window.prototype.storeIndex
    let late = 0
    vi.spyOn(Window.prototype, 'storeIndex').mockImplementation(function (
      this: Window,
      field,
      value,
      base = 0,
    ) {
      if (field + base === event && this.lengthBytes === event + 2 && late++ === 0) {
        queue.offer(room)
        queue.publish()
      }
      storeIndex.call(this, field, value, base)
    })
    rig.drain()
    expect(late).toBeGreaterThan(0)
    expect([queue.reap()?.lengthBytes, queue.reap()?.lengthBytes]).toEqual([21, 21])
  })

  test('H12: a device is not kept from others: a queue that never began is none to be told of', () => {
    const scene = new Scene()
    const { rig } = scene
    rig.write(Mmio.Status, 0)
    rig.negotiate()
    rig.kick(0)
    rig.driverOk()
    rig.kick(0)
    rig.drain()
    expect(rig.rules).toEqual(['queue.before-driver-ok', 'queue.before-driver-ok'])
    scene.queue = new RawQueue(rig.memory, scene.queue.place)
    rig.startQueue(0, scene.queue.place)
    scene.expectGood(scene.queue, 0)
  })
})

describe('twins that have to be accepted', () => {
  test('H07: data that ends with the last byte of memory, and data across two regions', () => {
    const half = MEMORY_BYTES / 2
    const bytes = new Uint8Array(MEMORY_BYTES)
    const memory = new GuestMemory([
      { base: gpa(0), bytes: bytes.subarray(0, half) },
      { base: gpa(half), bytes: bytes.subarray(half) },
    ])
    const scene = new Scene(memory)
    scene.header(IN, 0n)
    scene.serve([readable(AT, 16), writable(half - 100, 512), writable(MEMORY_BYTES - 513, 513)])
    expect(scene.queue.reap()?.lengthBytes).toBe(1025)
    expect(Buffer.compare(bytes.subarray(half - 100, half + 412), CONTENT.subarray(0, 512))).toBe(0)
    expect(
      Buffer.compare(bytes.subarray(MEMORY_BYTES - 513, MEMORY_BYTES - 1), CONTENT.subarray(512, 1024)),
    ).toBe(0)
    expect([bytes[MEMORY_BYTES - 1], scene.rig.rules]).toEqual([0, []])
  })

  test('H27: the last sector, exactly the most ranges of exactly the most sectors, and no data at all', () => {
    const scene = new Scene()
    scene.header(IN, 63n)
    scene.serve([readable(AT, 16), writable(AT + 16, 512), STATUS])
    expect([scene.queue.reap()?.lengthBytes, scene.rig.bytes[STATUS_AT]]).toEqual([513, 0])
    scene.header(IN, 64n)
    scene.serve([readable(AT, 16), STATUS])
    expect([scene.queue.reap()?.lengthBytes, scene.rig.bytes[STATUS_AT]]).toEqual([1, 0])
    scene.header(WRITE_ZEROES, 0n)
    const view = new DataView(scene.rig.bytes.buffer, AT + 16, 32)
    for (const [i, sector] of [0n, 56n].entries()) {
      view.setBigUint64(16 * i, sector, true)
      view.setUint32(16 * i + 8, 8, true)
      view.setUint32(16 * i + 12, 1, true)
    }
    scene.serve([readable(AT, 48), STATUS])
    expect([scene.queue.reap()?.lengthBytes, scene.rig.bytes[STATUS_AT], scene.rig.rules]).toEqual([1, 0, []])
    const content = scene.content()
    expect(content.subarray(0, 8 * 512).every((byte) => byte === 0)).toBe(true)
    expect(content.subarray(56 * 512).every((byte) => byte === 0)).toBe(true)
    expect(Buffer.compare(content.subarray(8 * 512, 56 * 512), CONTENT.subarray(8 * 512, 56 * 512))).toBe(0)
  })

  test('H09: a GET_ID into room for less is answered with its beginning', () => {
    const scene = new Scene()
    scene.header(GET_ID, 0n)
    scene.serve([readable(AT, 16), writable(AT + 32, 4), STATUS])
    expect([scene.queue.reap()?.lengthBytes, scene.rig.bytes[STATUS_AT]]).toEqual([5, 0])
    expect(Buffer.from(scene.rig.bytes.subarray(AT + 32, AT + 36)).toString()).toBe('HOST')
    expect(scene.rig.rules).toEqual(['block.id-length'])
  })
})

describe('H06: what changes after it was read', () => {
  /** Counts the reads of each byte of a range, and changes what has been read. */
  function fickle(rig: BlkRig, from: number, lengthBytes: number): Map<number, number> {
    const counts = new Map<number, number>()
    const note = (view: DataView, at: number, width: number) => {
      if (view.buffer !== rig.bytes.buffer) return
      for (let i = 0; i < width; i++) {
        const where = view.byteOffset + at + i
        if (where < from || where >= from + lengthBytes) continue
        counts.set(where, (counts.get(where) ?? 0) + 1)
        rig.bytes[where] = (rig.bytes[where] ?? 0) ^ 0xff
      }
    }
    for (const [name, width] of [
      ['getUint8', 1],
      ['getUint16', 2],
      ['getUint32', 4],
    ] as const) {
      const real = DataView.prototype[name]
      vi.spyOn(DataView.prototype, name).mockImplementation(function (
        this: DataView,
        at: number,
        little?: boolean,
      ) {
        const value = real.call(this, at, little)
        note(this, at, width)
        return value
      })
    }
    return counts
  }

  test('each field of a header is read once, and what was read is what is done', () => {
    fc.assert(
      fc.property(fc.constantFrom(IN, OUT, FLUSH, GET_ID, 77), fc.nat(60), (type, sector) => {
        const scene = new Scene()
        scene.header(type, BigInt(type === FLUSH ? 0 : sector))
        const data = type === IN ? [writable(AT + 512, 512)] : type === OUT ? [readable(AT + 512, 512)] : []
        const room = type === GET_ID ? [writable(AT + 512, 20)] : []
        const counts = fickle(scene.rig, AT, 16)
        scene.serve([readable(AT, 16), ...data, ...room, STATUS])
        vi.restoreAllMocks()
        for (const [, times] of counts) expect(times).toBe(1)
        // Type and sector; the reserved word is nobody's business.
        expect(counts.size).toBe(12)
        expect([scene.rig.bytes[STATUS_AT], scene.rig.rules]).toEqual([type === 77 ? 2 : 0, []])
        if (type === IN) {
          const expected = CONTENT.subarray(sector * 512, sector * 512 + 512)
          expect(Buffer.compare(scene.rig.bytes.subarray(AT + 512, AT + 1024), expected)).toBe(0)
        }
      }),
      { numRuns: 50 },
    )
  })

  test('a range table is copied once, and what was checked is what is done', () => {
    const scene = new Scene()
    scene.header(WRITE_ZEROES, 0n)
    const view = new DataView(scene.rig.bytes.buffer, AT + 16, 16)
    view.setBigUint64(0, 5n, true)
    view.setUint32(8, 1, true)
    view.setUint32(12, 0, true)
    const lend = scene.rig.memory.lend.bind(scene.rig.memory)
    const copies: number[] = []
    vi.spyOn(scene.rig.memory, 'lend').mockImplementation((at, lengthBytes, into) => {
      copies.push(at)
      return lend(at, lengthBytes, into)
    })
    const counts = fickle(scene.rig, AT + 16, 16)
    scene.serve([readable(AT, 32), STATUS])
    vi.restoreAllMocks()
    expect([copies, counts.size]).toEqual([[AT + 16], 0])
    const content = scene.content()
    expect(content.subarray(5 * 512, 6 * 512).every((byte) => byte === 0)).toBe(true)
    expect(Buffer.compare(content.subarray(6 * 512), CONTENT.subarray(6 * 512))).toBe(0)
  })
})
