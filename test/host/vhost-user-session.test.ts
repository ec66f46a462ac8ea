import { describe, expect, it } from 'vitest'
import { MemoryDisk } from '../../host/disk/memory.ts'
import { encode } from '../../protocol/derive/codec.ts'
import { gpa } from '../../protocol/memory.ts'
import { frameBytes, u64Payload } from '../../protocol/vhost-user/frame.ts'
import { VhostUserConfig, VhostUserSlot } from '../../protocol/vhost-user/payload.ts'
import { HeldDisk } from './held-disk.ts'
import type { RawQueue } from './raw-queue.ts'
import { FakeObject } from './vhost-peer.ts'
import { LOG_ALL_BIT, PLACE, PROTOCOL_BIT, placeOf, USER_BASE, VhostRig } from './vhost-rig.ts'

const IN = 0
const OUT = 1
const HEADER = 0x2_0000
const DATA = 0x2_1000
const STATUS = 0x2_2000
const WCE = 32

function memoryDisk(): MemoryDisk {
  return new MemoryDisk(1 << 20, {
    blockBytes: 512,
    physicalBlockBytes: 512,
    readOnly: false,
    serial: 'SESSION',
  })
}

function header(rig: VhostRig, at: number, type: number, sector: number): void {
  const view = new DataView(rig.bytes.buffer, rig.bytes.byteOffset)
  view.setUint32(at, type, true)
  view.setUint32(at + 4, 0, true)
  view.setBigUint64(at + 8, BigInt(sector), true)
}

/** Offers one request of a sector; its status byte is 0xff until it is answered. */
function offer(rig: VhostRig, queue: RawQueue, type: number, sector: number, apart = 0): number {
  header(rig, HEADER + apart, type, sector)
  rig.bytes[STATUS + apart] = 0xff
  const head = queue.offer([
    { at: HEADER + apart, lengthBytes: 16, write: false },
    { at: DATA + apart, lengthBytes: 512, write: type === IN },
    { at: STATUS + apart, lengthBytes: 1, write: true },
  ])
  queue.publish()
  return head
}

function slot(guest: number, sizeBytes: number, user = USER_BASE + guest, offset = guest): Uint8Array {
  const region = {
    guest: BigInt(guest),
    size: BigInt(sizeBytes),
    user: BigInt(user),
    offset: BigInt(offset),
  }
  return encode(VhostUserSlot, { region })
}

function everythingGivenBack(rig: VhostRig): void {
  expect([rig.world.open, rig.world.mappings]).toEqual([0, 0])
}

describe('block requests through a session', () => {
  it('write and read back through shared memory, with calls where the driver wants them', () => {
    const rig = new VhostRig({ backend: memoryDisk() })
    const queue = rig.start()
    rig.bytes.fill(0xab, DATA, DATA + 512)
    const wrote = offer(rig, queue, OUT, 7)
    rig.kick(0)
    expect(queue.reap()).toEqual({ head: wrote, lengthBytes: 1 })
    expect(rig.bytes[STATUS]).toBe(0)
    rig.bytes.fill(0, DATA, DATA + 512)
    rig.calls[0]?.take()
    queue.wantEvent(queue.usedIndex)
    const read = offer(rig, queue, IN, 7)
    rig.kick(0)
    expect(queue.reap()).toEqual({ head: read, lengthBytes: 513 })
    expect(rig.bytes.subarray(DATA, DATA + 512).every((byte) => byte === 0xab)).toBe(true)
    expect(rig.calls[0]?.take()).toBe(1)
    expect(rig.rules).toEqual([])
  })

  it('are looked for when the ring is started: a kick may have come before', () => {
    const rig = new VhostRig({ backend: memoryDisk() })
    rig.negotiate()
    rig.shareMemory()
    const queue = newQueue(rig)
    const head = offer(rig, queue, IN, 0)
    rig.startRing(0, PLACE)
    expect(queue.reap()?.head).toBe(head)
  })

  it('wait while the ring is disabled, and go on when it is enabled', () => {
    const rig = new VhostRig({ backend: memoryDisk() })
    const queue = rig.start()
    expect(rig.carriesOut('SET_VRING_ENABLE', rig.state(0, 0))).toBe(true)
    const head = offer(rig, queue, IN, 0)
    rig.kick(0)
    expect(queue.reap()).toBe(null)
    expect(rig.carriesOut('SET_VRING_ENABLE', rig.state(0, 1))).toBe(true)
    expect(queue.reap()?.head).toBe(head)
  })

  it('run without a message that enables rings when protocol features were not accepted', () => {
    const rig = new VhostRig({ backend: memoryDisk() })
    const offered = rig.askU64('GET_FEATURES')
    rig.send('SET_FEATURES', u64Payload(offered & ~PROTOCOL_BIT & ~LOG_ALL_BIT))
    rig.shareMemory()
    const queue = newQueue(rig)
    rig.send('SET_VRING_NUM', rig.state(0, PLACE.size))
    rig.send('SET_VRING_ADDR', rig.addresses(0, PLACE))
    rig.send('SET_VRING_KICK', u64Payload(0n), [rig.kicks[0] as FakeObject])
    const head = offer(rig, queue, IN, 0)
    rig.kick(0)
    expect(queue.reap()?.head).toBe(head)
  })

  it('go through several queues at once, each with its own kick and call', () => {
    const rig = new VhostRig({ backend: memoryDisk(), queues: 3 })
    rig.negotiate()
    expect(rig.askU64('GET_QUEUE_NUM')).toBe(3n)
    rig.shareMemory()
    const queues = [0, 1, 2].map((index) => {
      rig.startRing(index, placeOf(index))
      return newQueue(rig, index)
    })
    const heads = queues.map((queue, index) => offer(rig, queue, IN, index, index * 0x4000))
    rig.kick(1)
    expect(queues.map((queue) => queue.reap()?.head)).toEqual([undefined, heads[1], undefined])
    rig.kick(0)
    rig.kick(2)
    expect([queues[0]?.reap()?.head, queues[2]?.reap()?.head]).toEqual([heads[0], heads[2]])
    expect(rig.calls.map((call) => call.take() > 0)).toEqual([true, true, true])
  })

  it('are found by looking where the front-end gives no descriptor to wait for', () => {
    const rig = new VhostRig({ backend: memoryDisk() })
    rig.negotiate()
    rig.shareMemory()
    const queue = newQueue(rig)
    rig.startRing(0, PLACE)
    expect(rig.session.backEnd.look()).toBe(null)
    rig.send('GET_VRING_BASE', rig.state(0, 0))
    rig.send('SET_VRING_KICK', u64Payload(0x100n))
    // The driver is asked not to ring: with EVENT_IDX, for an entry that lies behind it.
    expect(rig.bytes[PLACE.device + 4 + 8 * PLACE.size]).toBe(0xff)
    expect(rig.session.backEnd.look()).toBe(false)
    const head = offer(rig, queue, IN, 0)
    expect(rig.session.backEnd.look()).toBe(true)
    rig.clock.drain()
    expect(queue.reap()?.head).toBe(head)
    expect(rig.session.backEnd.look()).toBe(false)
  })
})

function same(one: Uint8Array, other: Uint8Array): boolean {
  return Buffer.compare(one, other) === 0
}

function newQueue(rig: VhostRig, index = 0): RawQueue {
  return rig.queue(placeOf(index))
}

describe('a ring that is stopped', () => {
  it('answers where it stands once what is in flight is done, and writes nothing afterwards', () => {
    const disk = new HeldDisk({ privateLoans: false })
    const rig = new VhostRig({ backend: disk })
    const queue = rig.start()
    offer(rig, queue, IN, 0)
    rig.kick(0)
    expect(disk.held).toHaveLength(1)
    expect(rig.ask('GET_VRING_BASE', rig.state(0, 0))).toBe(null)
    expect(rig.connection.paused).toBe(true)
    disk.end()
    rig.settle()
    expect(rig.answers().map(({ code, payload }) => [code, ...payload])).toEqual([
      [11, 0, 0, 0, 0, 1, 0, 0, 0],
    ])
    expect(queue.reap()?.lengthBytes).toBe(513)
    offer(rig, queue, IN, 1)
    const after = rig.bytes.slice()
    rig.kicks[0]?.ring()
    rig.settle()
    expect(same(rig.bytes, after)).toBe(true)
    expect(rig.kicks[0]?.watchers.size).toBe(0)
  })

  it('goes on where it stood', () => {
    const rig = new VhostRig({ backend: memoryDisk() })
    const queue = rig.start()
    for (let i = 0; i < 5; i++) {
      offer(rig, queue, IN, i)
      rig.kick(0)
      queue.reap()
    }
    const answer = rig.ask('GET_VRING_BASE', rig.state(0, 0))
    expect(answer?.payload[4]).toBe(5)
    rig.startRing(0, PLACE, 5)
    const head = offer(rig, queue, IN, 9)
    rig.kick(0)
    expect(queue.reap()?.head).toBe(head)
    expect(rig.rules).toEqual([])
  })
})

describe('memory', () => {
  it('is replaced under a running ring only when nothing of it is on loan, and the ring goes on', () => {
    const disk = new HeldDisk({ privateLoans: false })
    const rig = new VhostRig({ backend: disk })
    const queue = rig.start()
    offer(rig, queue, IN, 0)
    rig.kick(0)
    const table = rig.table([{ guest: 0, sizeBytes: rig.bytes.length }])
    rig.send('SET_MEM_TABLE', table, [rig.machine.file], 8)
    // Both are mapped until the loan ends.
    expect(rig.world.mappings).toBe(2)
    expect(rig.answers()).toEqual([])
    disk.end()
    rig.settle()
    expect(rig.world.mappings).toBe(1)
    expect(rig.answers().map(({ code }) => code)).toEqual([5])
    expect(queue.reap()?.lengthBytes).toBe(513)
    const head = offer(rig, queue, IN, 1)
    rig.kick(0)
    disk.end()
    rig.settle()
    expect(queue.reap()?.head).toBe(head)
    expect(rig.rules).toEqual([])
  })

  it('that vanishes under a ring stops it, with a word at its error descriptor, and nothing is written there', () => {
    const rig = new VhostRig({ backend: memoryDisk() })
    rig.start()
    rig.errors[0]?.take()
    const elsewhere = rig.table([{ guest: 0x2_0000, sizeBytes: 0x1000 }])
    expect(rig.carriesOut('SET_MEM_TABLE', elsewhere, [rig.machine.file])).toBe(true)
    expect(rig.rules).toEqual(['vhost.ring-address'])
    expect(rig.errors[0]?.take()).toBe(1)
    const before = rig.bytes.slice()
    rig.kick(0)
    expect(same(rig.bytes, before)).toBe(true)
  })

  it.each([
    [
      'regions that overlap for the guest',
      [
        { guest: 0, sizeBytes: 0x2000 },
        { guest: 0x1000, sizeBytes: 0x1000, user: 0x10_0000 },
      ],
      'vhost.region-overlap',
    ],
    [
      'regions that overlap for the front-end',
      [
        { guest: 0, sizeBytes: 0x2000 },
        { guest: 0x4000, sizeBytes: 0x1000, user: USER_BASE + 0x1000 },
      ],
      'vhost.region-overlap',
    ],
    ['a region that wraps', [{ guest: 2 ** 53 - 4096, sizeBytes: 0x2000 }], 'vhost.region-range'],
    ['a region longer than its file', [{ guest: 0, sizeBytes: 0x10_0000 }], 'vhost.region-backed'],
    ['an empty region', [{ guest: 0, sizeBytes: 0 }], 'vhost.region-range'],
    ['half a page', [{ guest: 0, sizeBytes: 0x800 }], 'vhost.region-range'],
  ])('of %s is refused, and the table that was there stays', (_what, regions, rule) => {
    const rig = new VhostRig({ backend: memoryDisk() })
    const queue = rig.start()
    const files = regions.map(() => rig.machine.file)
    expect(rig.carriesOut('SET_MEM_TABLE', rig.table(regions), files)).toBe(false)
    expect(rig.rules).toEqual([rule])
    expect(rig.world.mappings).toBe(1)
    const head = offer(rig, queue, IN, 1)
    rig.kick(0)
    expect(queue.reap()?.head).toBe(head)
  })

  it.each(['event', 'socket', 'pipe', 'other'] as const)(
    'is not taken from a descriptor that is a %s',
    (kind) => {
      const rig = new VhostRig({ backend: memoryDisk() })
      rig.negotiate()
      const table = rig.table([{ guest: 0, sizeBytes: 0x1000 }])
      expect(rig.carriesOut('SET_MEM_TABLE', table, [new FakeObject(kind)])).toBe(false)
      expect(rig.rules).toEqual(['vhost.descriptor-kind'])
      expect(rig.world.mappings).toBe(0)
    },
  )

  it('longer than one array is mapped in pieces, and all of them are given back when one cannot be', () => {
    const rig = new VhostRig({ backend: memoryDisk() })
    rig.negotiate()
    const sizeBytes = 0x4000_0000 + 0x1000
    // Nothing of it is ever touched.
    const file = new FakeObject('file', new Uint8Array(sizeBytes))
    expect(rig.carriesOut('ADD_MEM_REG', slot(0, sizeBytes), [file])).toBe(true)
    expect(rig.world.mappings).toBe(2)
    expect(rig.session.backEnd.table.memory().backed(gpa(0x3fff_ffff), 0x1001)).toBe(true)
    expect(rig.carriesOut('REM_MEM_REG', slot(0, sizeBytes))).toBe(true)
    rig.world.room = 1
    expect(rig.carriesOut('ADD_MEM_REG', slot(0, sizeBytes), [file])).toBe(false)
    expect([rig.world.open, rig.world.mappings]).toEqual([0, 0])
  })

  it('that only the guest sees in one piece holds no ring: the front-end has something else behind it', () => {
    const rig = new VhostRig({ backend: memoryDisk() })
    rig.negotiate()
    const edge = PLACE.device + 8
    const cut = Math.ceil(edge / 0x1000) * 0x1000
    expect(rig.carriesOut('ADD_MEM_REG', slot(0, cut), [rig.machine.file])).toBe(true)
    const elsewhere = slot(cut, 0x1_0000, USER_BASE + 0x100_0000)
    expect(rig.carriesOut('ADD_MEM_REG', elsewhere, [rig.machine.file])).toBe(true)
    const across = { ...PLACE, device: cut - 8 }
    rig.queue(across)
    rig.describeRing(0, across)
    expect(rig.carriesOut('SET_VRING_ENABLE', rig.state(0, 1))).toBe(false)
    expect(rig.rules).toEqual(['vhost.ring-address'])
  })

  it('comes and goes slot by slot while requests run', () => {
    const disk = new HeldDisk({ privateLoans: false })
    const rig = new VhostRig({ backend: disk })
    rig.negotiate()
    expect(rig.askU64('GET_MAX_MEM_SLOTS')).toBe(32n)
    const half = 0x2_0000
    expect(rig.carriesOut('ADD_MEM_REG', slot(0, half), [rig.machine.file])).toBe(true)
    expect(rig.carriesOut('ADD_MEM_REG', slot(half, half), [rig.machine.file])).toBe(true)
    const queue = newQueue(rig)
    rig.startRing(0, PLACE)
    offer(rig, queue, IN, 0)
    rig.kick(0)
    expect(disk.held).toHaveLength(1)
    // The data lies in the second half: it goes when the loan has ended.
    rig.send('REM_MEM_REG', slot(half, half), [], 8)
    expect(rig.world.mappings).toBe(2)
    disk.end()
    rig.settle()
    expect(rig.world.mappings).toBe(1)
    expect(queue.reap()?.lengthBytes).toBe(513)
    expect(rig.rules).toEqual([])
    offer(rig, queue, IN, 0)
    rig.kick(0)
    expect(rig.rules).toEqual(['split.buffer-backed'])
  })

  it('is refused a slot that overlaps, that is not there, or that is one too many', () => {
    const rig = new VhostRig({ backend: memoryDisk() })
    rig.negotiate()
    expect(rig.carriesOut('ADD_MEM_REG', slot(0, 0x1000), [rig.machine.file])).toBe(true)
    expect(rig.carriesOut('ADD_MEM_REG', slot(0, 0x1000, 0x9000), [rig.machine.file])).toBe(false)
    expect(rig.carriesOut('REM_MEM_REG', slot(0x1000, 0x1000))).toBe(false)
    for (let at = 1; at < 32; at++) {
      expect(rig.carriesOut('ADD_MEM_REG', slot(at * 0x1000, 0x1000), [rig.machine.file])).toBe(true)
    }
    expect(rig.carriesOut('ADD_MEM_REG', slot(32 * 0x1000, 0x1000), [rig.machine.file])).toBe(false)
    expect(rig.rules).toEqual(['vhost.region-overlap', 'vhost.region-unknown', 'vhost.region-slots'])
    // A descriptor with a removal is no reason to refuse it, and is closed.
    expect(rig.carriesOut('REM_MEM_REG', slot(0, 0x1000), [rig.machine.file])).toBe(true)
    expect(rig.rules.at(-1)).toBe('vhost.region-stray')
    expect([rig.world.open, rig.world.mappings]).toEqual([0, 31])
  })

  it('that its owner could make shorter is named once, or refused where seals are asked for', () => {
    const rig = new VhostRig({ backend: memoryDisk() })
    rig.negotiate()
    const file = new FakeObject('file', rig.bytes, false)
    const table = rig.table([{ guest: 0, sizeBytes: rig.bytes.length }])
    expect(rig.carriesOut('SET_MEM_TABLE', table, [file])).toBe(true)
    expect(rig.carriesOut('SET_MEM_TABLE', table, [file])).toBe(true)
    expect(rig.rules).toEqual(['vhost.memory-unsealed'])
    const strict = new VhostRig({ backend: memoryDisk(), requireSeals: true })
    strict.negotiate()
    expect(strict.carriesOut('SET_MEM_TABLE', table, [file])).toBe(false)
    expect(strict.world.mappings).toBe(0)
  })
})

describe('configuration', () => {
  const config = (offset: number, bytes: readonly number[], flags = 0) =>
    encode(VhostUserConfig, { offset, size: bytes.length, flags, bytes })

  it('is read as it lies in the device, and zero behind its end', () => {
    const rig = new VhostRig({ backend: memoryDisk(), queues: 3 })
    rig.negotiate()
    const answer = rig.ask(
      'GET_CONFIG',
      config(
        0,
        Array.from({ length: 256 }, () => 0x55),
      ),
    )
    const bytes = answer?.payload.subarray(12) ?? new Uint8Array()
    expect(new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true)).toBe(2048)
    expect(bytes[34]).toBe(3)
    expect(bytes.subarray(96).every((byte) => byte === 0)).toBe(true)
    expect(
      rig.ask(
        'GET_CONFIG',
        config(
          200,
          Array.from({ length: 57 }, () => 0),
        ),
      )?.payload,
    ).toHaveLength(0)
    expect(rig.rules).toEqual(['vhost.config-range'])
  })

  it('is written where it may be', () => {
    const rig = new VhostRig({ backend: memoryDisk() })
    rig.negotiate()
    expect(rig.carriesOut('SET_CONFIG', config(WCE, [0]))).toBe(true)
    expect(rig.ask('GET_CONFIG', config(WCE, [1]))?.payload[12]).toBe(0)
    expect(rig.carriesOut('SET_CONFIG', config(0, [1]))).toBe(false)
    expect(rig.carriesOut('SET_CONFIG', config(WCE, [1], 2))).toBe(false)
    expect(rig.rules).toEqual(['mmio.config-read-only', 'vhost.config-range', 'vhost.config-flags'])
  })

  it('that changes is told on the back-end channel, while a ring runs', () => {
    const disk = new HeldDisk()
    const rig = new VhostRig({ backend: disk })
    rig.negotiate()
    const socket = new FakeObject('socket')
    expect(rig.carriesOut('SET_BACKEND_REQ_FD', undefined, [socket])).toBe(true)
    disk.change({ lengthBytes: 128 * 512 })
    expect(socket.sent).toEqual([])
    rig.shareMemory()
    newQueue(rig)
    rig.startRing(0, PLACE)
    expect(socket.sent).toEqual([frameBytes(2, 0)])
    disk.change({ lengthBytes: 256 * 512 })
    expect(socket.sent).toHaveLength(2)
    rig.send('GET_VRING_BASE', rig.state(0, 0))
    disk.change({ lengthBytes: 64 * 512 })
    expect(socket.sent).toHaveLength(2)
  })
})

describe('the end of a session', () => {
  it.each([
    ['hangs up', (rig: VhostRig) => rig.connection.hangUp(), 'hung-up'],
    [
      'stops reading',
      (rig: VhostRig) => {
        rig.connection.deaf = true
        rig.send('GET_FEATURES')
      },
      'deaf',
    ],
    [
      'breaks what cannot be answered',
      (rig: VhostRig) => rig.send('SET_VRING_NUM', rig.state(9, 4)),
      'violation',
    ],
    ['is closed from here', (rig: VhostRig) => rig.session.close(), 'closed'],
  ])('gives everything back once loans have ended, when the front-end %s', (_what, end, kind) => {
    const disk = new HeldDisk({ privateLoans: false })
    disk.obedient = false
    const rig = new VhostRig({ backend: disk })
    const queue = rig.start()
    offer(rig, queue, IN, 0)
    rig.kick(0)
    end(rig)
    rig.settle()
    expect(rig.connection.closed).toBe(true)
    expect(rig.ends).toEqual([])
    expect(rig.world.mappings).toBe(1)
    disk.end()
    rig.clock.drain()
    expect(rig.ends.map((one) => one.kind)).toEqual([kind])
    expect(queue.reap()).toBe(null)
    everythingGivenBack(rig)
  })

  it('comes while a table waits for loans: its descriptors are closed, and both tables given back', () => {
    const disk = new HeldDisk({ privateLoans: false })
    disk.obedient = false
    const rig = new VhostRig({ backend: disk })
    const queue = rig.start()
    offer(rig, queue, IN, 0)
    rig.kick(0)
    const table = rig.table([{ guest: 0, sizeBytes: rig.bytes.length }])
    rig.send('SET_MEM_TABLE', table, [rig.machine.file])
    expect(rig.world.mappings).toBe(2)
    rig.session.close()
    disk.end()
    rig.clock.drain()
    expect(rig.ends).toHaveLength(1)
    everythingGivenBack(rig)
  })

  it('leaves a device that serves the next front-end', () => {
    const rig = new VhostRig({ backend: memoryDisk() })
    const first = rig.start()
    offer(rig, first, IN, 0)
    rig.kick(0)
    rig.connection.hangUp()
    rig.settle()
    rig.reconnect()
    const second = rig.start()
    const head = offer(rig, second, IN, 0)
    rig.kick(0)
    expect(second.reap()?.head).toBe(head)
    expect(rig.rules).toEqual([])
  })

  it('comes in the middle of a message as a broken rule', () => {
    const rig = new VhostRig({ backend: memoryDisk() })
    rig.connection.feed(new Uint8Array([1, 0, 0]), [rig.world.pass(new FakeObject('event'))])
    rig.connection.hangUp()
    rig.settle()
    expect(rig.rules).toEqual(['vhost.stream-end'])
    everythingGivenBack(rig)
  })
})

describe('a reset of the device', () => {
  it('stops and disables its rings, and keeps what the connection settled', () => {
    const rig = new VhostRig({ backend: memoryDisk() })
    const queue = rig.start()
    expect(rig.carriesOut('SET_STATUS', u64Payload(15n))).toBe(true)
    expect(rig.askU64('GET_STATUS')).toBe(15n)
    expect(rig.carriesOut('RESET_DEVICE')).toBe(true)
    expect(rig.askU64('GET_STATUS')).toBe(0n)
    offer(rig, queue, IN, 0)
    rig.kick(0)
    expect(queue.reap()).toBe(null)
    const again = queue.again(rig.machine.memory)
    rig.startRing(0, PLACE)
    const head = offer(rig, again, IN, 0)
    rig.kick(0)
    expect(again.reap()?.head).toBe(head)
  })
})
