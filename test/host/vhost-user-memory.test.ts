import { describe, expect, it } from 'vitest'
import { encode } from '../../protocol/derive/codec.ts'
import { gpa } from '../../protocol/memory.ts'
import { VhostUserSlot } from '../../protocol/vhost-user/payload.ts'
import { HeldDisk } from './held-disk.ts'
import { IN, memoryDisk, newQueue, offer, readOnLoan, readsBack, sameBytes } from './vhost-block-requests.ts'
import { FakeObject } from './vhost-peer.ts'
import { PLACE, USER_BASE, VhostRig } from './vhost-rig.ts'

function slot(guest: number, sizeBytes: number, user = USER_BASE + guest, offset = guest): Uint8Array {
  const region = {
    guest: BigInt(guest),
    size: BigInt(sizeBytes),
    user: BigInt(user),
    offset: BigInt(offset),
  }
  return encode(VhostUserSlot, { region })
}

describe('memory that a front-end shares', () => {
  it('is replaced under a running ring only when nothing of it is on loan, and the ring goes on', () => {
    const { disk, rig, queue } = readOnLoan()
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
    expect(sameBytes(rig.bytes, before)).toBe(true)
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
    readsBack(rig, queue, 1)
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

  it('is refused when all of it would be more than 256 GiB, before a byte is mapped', () => {
    const rig = new VhostRig({ backend: memoryDisk() })
    rig.negotiate()
    const piece = 2 ** 30
    const most = 256 * piece
    const sparse = new FakeObject('file', new Uint8Array(4096))
    expect(rig.carriesOut('ADD_MEM_REG', slot(0, most + 0x1000), [sparse])).toBe(false)
    expect(rig.carriesOut('SET_MEM_TABLE', rig.table([{ guest: 0, sizeBytes: 2 ** 52 }]), [sparse])).toBe(
      false,
    )
    expect(rig.world.mappings).toBe(0)
    // Both count: what is there, and every begun gibibyte of what comes.
    expect(rig.carriesOut('ADD_MEM_REG', slot(0, 0x1000), [rig.machine.file])).toBe(true)
    expect(rig.carriesOut('ADD_MEM_REG', slot(piece, most), [sparse])).toBe(false)
    // That much may be, and is then asked of the file, which is shorter here.
    expect(rig.carriesOut('ADD_MEM_REG', slot(piece, most - piece), [sparse])).toBe(false)
    const size = 'vhost.memory-size'
    expect(rig.rules).toEqual([size, size, size, 'vhost.region-backed'])
    expect(rig.world.mappings).toBe(1)
    expect(rig.carriesOut('ADD_MEM_REG', slot(0x1000, 0x1000), [rig.machine.file])).toBe(true)
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
