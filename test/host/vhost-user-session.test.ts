import { describe, expect, it } from 'vitest'
import { encode } from '../../protocol/derive/codec.ts'
import { frameBytes, u64Payload } from '../../protocol/vhost-user/frame.ts'
import { VhostUserConfig } from '../../protocol/vhost-user/payload.ts'
import { HeldDisk } from './held-disk.ts'
import {
  DATA,
  IN,
  memoryDisk,
  newQueue,
  OUT,
  offer,
  readOnLoan,
  readsBack,
  STATUS,
  sameBytes,
} from './vhost-block-requests.ts'
import { FakeObject } from './vhost-peer.ts'
import { LOG_ALL_BIT, PLACE, PROTOCOL_BIT, placeOf, VhostRig } from './vhost-rig.ts'

const WCE = 32

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
    readsBack(rig, queue, 0)
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

describe('a ring that is stopped', () => {
  it('answers where it stands once what is in flight is done, and writes nothing afterwards', () => {
    const { disk, rig, queue } = readOnLoan()
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
    expect(sameBytes(rig.bytes, after)).toBe(true)
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
    readsBack(rig, queue, 9)
    expect(rig.rules).toEqual([])
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
    const { disk, rig, queue } = readOnLoan()
    disk.obedient = false
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
    const { disk, rig } = readOnLoan()
    disk.obedient = false
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
    readsBack(rig, second, 0)
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
    readsBack(rig, again, 0)
  })
})
