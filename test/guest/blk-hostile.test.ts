import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { BlkDriverState } from '../../guest/virtio/blk.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import { GuestMemory } from '../../protocol/memory.ts'
import { featureNames } from '../../protocol/version.ts'
import { BlkFeature, BlkType } from '../../protocol/virtio/blk.ts'
import { CommonFeature } from '../../protocol/virtio/features.ts'
import { Window } from '../../protocol/window.ts'
import { driverRig, TestCommand } from './driver-rig.ts'
import type { HostileAct } from './hostile-device.ts'
import { HostileDevice } from './hostile-device.ts'

const MEMORY_BYTES = 0x1_0000
const FROM = 0x1000
const CANARY = 0x3c
/** What the driver may take to give up on a reset, in virtual time. */
const PATIENCE_US = 10_000_000

function setUp() {
  const memory = GuestMemory.ofBytes(MEMORY_BYTES)
  const bytes = memory.regions[0]?.bytes ?? new Uint8Array(0)
  const clock = new VirtualClock({ turnsMax: 200_000 })
  const device = new HostileDevice(memory)
  const ends = driverRig(memory, clock, device, { from: FROM })
  const { guest, driver, violations } = ends
  device.onInterrupt = () => guest.interrupt(() => device.level)
  // Fresh memory is zero to its owner; all that nobody was given must stay as it is.
  const owned = (at: number) => guest.owned.some(({ from, to }) => at >= from && at < to)
  bytes.fill(CANARY)
  const allocate = guest.allocate.bind(guest)
  guest.allocate = (lengthBytes, alignment) => {
    const at = allocate(lengthBytes, alignment)
    bytes.fill(0, at, at + lengthBytes)
    return at
  }
  return {
    ...ends,
    device,
    clock,
    rules: () => violations.map(({ rule }) => rule),
    start(): BlkDriverState {
      let state: BlkDriverState | null = null
      driver.start((now) => {
        state = now
      })
      clock.drain()
      if (state === null) throw new Error('start was never answered')
      return state
    },
    ask(sector = 0): TestCommand {
      const command = new TestCommand(BlkType.IN, sector)
      command.data.writable(guest.allocate(512, 1), 512)
      driver.submit(command)
      driver.kick()
      return command
    },
    act(...acts: HostileAct[]): void {
      for (const act of acts) device.act(act)
      clock.drain()
    },
    expectOthersUntouched(): void {
      const strayed = bytes.findIndex((byte, at) => byte !== CANARY && !owned(at))
      expect(strayed).toBe(-1)
    },
  }
}

const INTERRUPT: HostileAct = { kind: 'interrupt', causes: 1 }
const SERVE: HostileAct = { kind: 'serve', status: 0, extraBytes: 0 }

describe('a device that cannot be driven is left alone', () => {
  const strangers: readonly (readonly [string, number, number, readonly string[]])[] = [
    ['of another magic', 0x000, 0x74726977, ['mmio.identity']],
    ['of version 1', 0x004, 1, ['mmio.identity']],
    ['that is none: all ones', 0x000, 0xffff_ffff, ['mmio.identity']],
    ['of another type', 0x008, 1, []],
    ['whose place is kept free', 0x008, 0, []],
  ]
  for (const [what, register, value, rules] of strangers) {
    test(what, () => {
      const { device, guest, start, rules: broken } = setUp()
      device.lies.set(register, () => value)
      expect(start().kind).toBe('failed')
      expect([guest.writes, broken()]).toEqual([[], rules])
    })
  }

  const unusable: readonly (readonly [string, string, (device: HostileDevice) => void])[] = [
    ['without VERSION_1', 'device.version-1', (device) => (device.offered &= ~(1n << 32n))],
    [
      'that refuses a subset',
      'device.features-refused',
      (device) => device.lies.set(0x070, (honest) => honest & ~8),
    ],
    [
      'whose configuration never holds still',
      'device.config-stable',
      (device) => device.lies.set(0x0fc, (_, n) => n),
    ],
    ['with blocks of no bytes', 'block.capacity', (device) => device.lies.set(0x114, () => 0)],
    ['with blocks of 513 bytes', 'block.capacity', (device) => device.lies.set(0x114, () => 513)],
    ['with blocks of 2 GiB', 'block.capacity', (device) => device.lies.set(0x114, () => 2 ** 31)],
    ['with no segments', 'block.capacity', (device) => device.lies.set(0x10c, () => 0)],
    [
      'with a capacity past counting',
      'block.capacity',
      (device) => device.lies.set(0x104, () => 0xffff_ffff),
    ],
    ['without a queue', 'mmio.queue-absent', (device) => device.lies.set(0x034, () => 0)],
    ['whose queue is taken', 'mmio.queue-absent', (device) => device.lies.set(0x044, () => 1)],
    [
      'that needs a reset at once',
      'device.needs-reset',
      (device) => device.lies.set(0x070, (s) => (s & 4 ? s | 64 : s)),
    ],
  ]
  for (const [what, rule, spoil] of unusable) {
    test(`${what}, with FAILED set and nothing asked of it`, () => {
      const { device, driver, start, rules } = setUp()
      spoil(device)
      expect(start().kind).toBe('failed')
      expect(rules()).toEqual([rule])
      expect(device.status & 128).toBe(128)
      expect(driver.submit(new TestCommand(BlkType.FLUSH, 0))).toBe(false)
    })
  }

  test('that never finishes a reset is given up in virtual time', () => {
    const { device, clock, start, rules } = setUp()
    device.lies.set(0x070, () => 15)
    expect(start().kind).toBe('failed')
    expect(rules()).toEqual(['device.reset-answer'])
    expect(clock.now()).toBeLessThan(PATIENCE_US)
  })
})

describe('a device that says odd things is driven with what can be believed', () => {
  test('features nobody knows are not accepted', () => {
    const { device, start } = setUp()
    device.offered = (1n << 128n) - 1n
    const state = start()
    expect(state.kind).toBe('ready')
    // Bits 0 to 17 of the type, ring features from 28 on: the packed ring, zones and all that is reserved stay out.
    const names = featureNames(device.accepted, CommonFeature, BlkFeature)
    expect(names).not.toContain('RING_PACKED')
    expect(names).not.toContain('ZONED')
    expect(names).not.toContain('NOTIFICATION_DATA')
    expect(names.filter((name) => /^[0-9]/.test(name))).toEqual([])
    expect(names).toContain('VERSION_1')
  })

  test('more segments than a ring holds are not promised to anybody', () => {
    const { device, start } = setUp()
    device.lies.set(0x10c, () => 0xffff_ffff)
    const state = start()
    expect(state.kind === 'ready' && state.geometry.segmentsMax).toBe(14)
  })

  test('a queue of no power of two is used as far as one reaches', () => {
    const { device, guest, start } = setUp()
    device.queueMax = 13
    expect(start().kind).toBe('ready')
    expect(guest.writes).toContainEqual([0x038, 8])
  })

  test('a configuration that changed between two reads is read again', () => {
    const { device, start } = setUp()
    device.lies.set(0x0fc, (_, times) => Math.min(times, 3))
    device.lies.set(0x104, (_, times) => (times < 2 ? 77 : 0))
    const state = start()
    expect(state.kind === 'ready' && state.geometry.capacitySectors).toBe(128)
  })
})

describe('a device that breaks the rules of the ring', () => {
  const forgeries: readonly (readonly [string, string, readonly HostileAct[]])[] = [
    ['an id out of range', 'split.used-id', [{ kind: 'use', head: 16, lengthBytes: 0 }]],
    ['an id of 32 bits', 'split.used-id', [{ kind: 'use', head: 0xffff_ffff, lengthBytes: 0 }]],
    ['an id that was never issued', 'split.used-id', [{ kind: 'use', head: 9, lengthBytes: 0 }]],
    ['an id twice', 'split.used-id', [SERVE, { kind: 'use', head: 0, lengthBytes: 0 }]],
    ['more than is out', 'split.used-leap', [{ kind: 'leap', by: 3 }]],
    ['an index that runs backwards', 'split.used-leap', [{ kind: 'leap', by: -1 }]],
  ]
  for (const [what, rule, acts] of forgeries) {
    test(`by using ${what} is reset, and every command ends once`, () => {
      const { driver, start, ask, act, rules, expectOthersUntouched } = setUp()
      expect(start().kind).toBe('ready')
      const commands = [ask(0), ask(1)]
      act(...acts, INTERRUPT)
      expect(rules()).toEqual([rule])
      expect(commands.map(({ ends }) => ends)).toEqual([1, 1])
      expect(commands[1]?.end).toEqual({ kind: 'gone' })
      expect([driver.state.kind, driver.outstanding]).toEqual(['failed', 0])
      expectOthersUntouched()
      // And it may be tried again.
      expect(start().kind).toBe('ready')
      const command = ask(2)
      act(SERVE, INTERRUPT)
      expect(command.end).toEqual({ kind: 'status', status: 0 })
    })
  }

  test('by a length longer than was writable: what a command hears is cut to that', () => {
    const { start, ask, act, rules } = setUp()
    start()
    const command = ask()
    act({ kind: 'serve', status: 0, extraBytes: 100_000 }, INTERRUPT)
    expect([command.writtenBytes, rules()]).toEqual([513, ['split.used-length']])
  })

  test('by a status that is none, or none at all', () => {
    for (const [status, rule] of [
      [null, 'block.status-written'],
      [7, 'block.status-value'],
      [3, 'block.status-value'],
    ] as const) {
      const { driver, start, ask, act, rules } = setUp()
      start()
      const command = ask()
      act({ kind: 'serve', status, extraBytes: 0 }, INTERRUPT)
      expect([command.end, rules(), driver.state.kind]).toEqual([
        { kind: 'status', status: status ?? 0xff },
        [rule],
        'ready',
      ])
    }
  })

  test('by rewriting what was published: nothing is read back', () => {
    const { driver, start, ask, act, rules } = setUp()
    start()
    for (let round = 0; round < 40; round++) {
      const command = ask(round)
      act(SERVE, { kind: 'scribble', seed: round * 7 }, INTERRUPT)
      expect(command.end).toEqual({ kind: 'status', status: 0 })
    }
    expect([rules(), driver.outstanding]).toEqual([[], 0])
  })
})

describe('a device that fails in operation', () => {
  test('and never finishes its reset keeps the memory it was lent, and the driver does not wait for ever', () => {
    const { device, driver, clock, start, ask, act, rules } = setUp()
    start()
    const command = ask()
    device.lies.set(0x070, (honest) => (honest === 0 ? 79 : honest))
    act({ kind: 'needs-reset' })
    expect([driver.state.kind, command.ends, rules()]).toEqual(['failed', 0, ['device.reset-answer']])
    expect(clock.now()).toBeLessThan(PATIENCE_US)
    let clean: boolean | null = null
    driver.stop((now) => {
      clean = now
    })
    clock.drain()
    expect([clean, command.ends, driver.state.kind]).toEqual([false, 0, 'failed'])
  })

  test('by leaving the bus: all ones from every register', () => {
    const { device, driver, start, ask, act } = setUp()
    start()
    const command = ask()
    for (let at = 0; at < 0x200; at += 4) device.lies.set(at, () => 0xffff_ffff)
    act(INTERRUPT)
    expect([driver.state.kind, command.ends]).toEqual(['failed', 0])
    expect(start().kind).toBe('failed')
  })

  test('by a configuration that becomes unusable', () => {
    const { device, driver, start, ask, act, rules } = setUp()
    start()
    const command = ask()
    device.config.fill(0)
    act({ kind: 'interrupt', causes: 2 })
    expect([driver.state.kind, command.end, rules()]).toEqual([
      'failed',
      { kind: 'gone' },
      ['block.capacity'],
    ])
  })

  test('by interrupting without end, cause or work: each costs a look and no more', () => {
    const { device, driver, guest, start, act } = setUp()
    start()
    const before = guest.accesses
    for (let i = 0; i < 100; i++) act({ kind: 'interrupt', causes: [0, 1, 4, 0xfffc][i % 4] ?? 0 })
    expect(driver.state.kind).toBe('ready')
    expect(device.status).toBe(15)
    // Only causes somebody knows are acknowledged.
    const acknowledged = guest.writes.filter(([register]) => register === 0x064)
    expect(acknowledged.length).toBeGreaterThan(0)
    expect(acknowledged.every(([, causes]) => causes === 1)).toBe(true)
    // A cause that is never acknowledged keeps the line up: the rig stops delivering it after a thousand.
    expect(guest.accesses - before).toBeLessThan(200_000)
  })

  test('by moving the used index between two looks: the driver does not follow for ever', () => {
    const { driver, guest, start, ask, act, rules } = setUp()
    start()
    const command = ask()
    const window = guest.memory.window(guest.owned[2]?.from as never, 6, 2)
    if (window === null) throw new Error('no used ring')
    // Other processors are fast: the index differs at every second look, and there is nothing behind it.
    let looks = 0
    const { loadIndex } = Window.prototype
    Window.prototype.loadIndex = function (this: Window, field, base = 0) {
      const isIndex = this.view.byteOffset === guest.owned[2]?.from && field + base === 2
      return isIndex && looks < 100_000 ? (++looks % 2) ^ 1 : loadIndex.call(this, field, base)
    }
    try {
      act(INTERRUPT)
    } finally {
      Window.prototype.loadIndex = loadIndex
    }
    expect(looks).toBeLessThan(100)
    expect([driver.state.kind, command.end?.kind, rules().length > 0 || command.ends === 1]).toEqual([
      'failed',
      'gone',
      true,
    ])
  })
})

const hostileAct: fc.Arbitrary<HostileAct> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('serve' as const),
      status: fc.option(fc.nat(255)),
      extraBytes: fc.integer({ min: -513, max: 4 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('use' as const),
      head: fc.nat(20),
      lengthBytes: fc.nat(0xffff_ffff),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('leap' as const), by: fc.integer({ min: -2, max: 4 }) }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('scribble' as const), seed: fc.nat(255) }) },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('interrupt' as const), causes: fc.nat(7) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('needs-reset' as const) }) },
)

type Call = 'ask' | 'start' | 'stop' | 'turns'
type Move = HostileAct | Call
const move: fc.Arbitrary<Move> = fc.oneof(
  { weight: 6, arbitrary: hostileAct },
  { weight: 4, arbitrary: fc.constantFrom<Call>('ask', 'ask', 'turns', 'turns') },
  { weight: 1, arbitrary: fc.constantFrom<Call>('start', 'stop') },
)
/** Registers that lie now and then, and with what. */
const lie = fc.record({
  register: fc.constantFrom(0x010, 0x034, 0x044, 0x060, 0x070, 0x0fc, 0x100, 0x104, 0x10c, 0x114),
  every: fc.integer({ min: 1, max: 5 }),
  value: fc.oneof(fc.nat(255), fc.nat(0xffff_ffff), fc.constant(0xffff_ffff)),
})

describe('whatever a device does', () => {
  test('the driver ends its waits, ends a command at most once, and writes to no memory but its own', () => {
    const seen = { ready: 0, failed: 0, gone: 0, ended: 0 }
    fc.assert(
      fc.property(
        fc.array(move, { minLength: 10, maxLength: 80 }),
        fc.oneof(fc.constant([]), fc.array(lie, { maxLength: 2 })),
        (moves, lies) => {
          const { device, driver, clock, start, ask, rules, violations, expectOthersUntouched } = setUp()
          for (const { register, every, value } of lies) {
            device.lies.set(register, (honest, times) => (times % every === every - 1 ? value : honest))
          }
          let calls = 0
          let answers = 0
          const answered = () => {
            answers++
          }
          start()
          const commands: TestCommand[] = []
          for (const one of moves) {
            if (one === 'ask') commands.push(ask(commands.length))
            else if (one === 'turns') clock.drain()
            else if (one === 'start' || one === 'stop') {
              calls++
              driver[one](answered)
            } else device.act(one)
            if (driver.state.kind === 'ready') seen.ready++
          }
          clock.drain()
          expect(answers).toBe(calls)
          for (const { ends, end, writtenBytes } of commands) {
            expect(ends).toBeLessThanOrEqual(1)
            expect(writtenBytes).toBeLessThanOrEqual(513)
            if (end?.kind === 'gone') seen.gone++
            if (end?.kind === 'status') seen.ended++
          }
          expect(['ready', 'failed', 'stopped']).toContain(driver.state.kind)
          if (driver.state.kind === 'failed') seen.failed++
          expect(violations.every(({ side }) => side === 'device')).toBe(true)
          expect(rules().length).toBeLessThan(1000)
          expectOthersUntouched()
          // An honest device in its place is driven as if nothing had been.
          device.lies.clear()
          expect(start().kind).toBe('ready')
          expect(commands.every(({ ends, end }) => ends === 1 || end === null)).toBe(true)
          const command = ask()
          device.act(SERVE)
          device.act(INTERRUPT)
          clock.drain()
          expect(command.end).toEqual({ kind: 'status', status: 0 })
        },
      ),
      { numRuns: 400 },
    )
    expect(Object.entries(seen).filter(([, count]) => count < 20)).toEqual([])
  })
})
