import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { seededRandom } from '../../bench/random.ts'
import type { DeviceSignals, QueueState, VirtioDevice } from '../../host/virtio/device.ts'
import { MmioTransport } from '../../host/virtio/mmio.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import type { AccessWidth, Plain } from '../../protocol/platform.ts'
import { NO_TRACE } from '../../protocol/trace.ts'
import type { Violation } from '../../protocol/violation.ts'
import type { QueuePlace } from '../../protocol/virtio/ring.ts'
import { TestLine } from './blk-rig.ts'
import type { ModelDevice } from './mmio-model.ts'
import { MmioModel } from './mmio-model.ts'

const TABLE = {
  FIRST: { bit: 3, since: '1.0', meaning: 'needs the second', needs: ['SECOND'] },
  SECOND: { bit: 60, since: '1.0', meaning: 'nothing' },
  FAR: { bit: 100, since: '1.0', meaning: 'nothing' },
}
const VERSION_1 = 1n << 32n
const RING_RESET = 1n << 40n
const OFFERED = VERSION_1 | RING_RESET | (1n << 3n) | (1n << 60n) | (1n << 100n) | (1n << 28n)
const QUEUE_SIZES = [8, 4]

/** What stands behind the registers: notes what it is told, and finishes what it is asked to when told. */
class NotingDevice implements VirtioDevice {
  readonly deviceId = 2
  readonly queueSizes = QUEUE_SIZES
  readonly offered: bigint
  readonly featureTable = TABLE
  configGeneration = 7
  readonly calls: string[] = []
  readonly config = Uint8Array.from({ length: 16 }, (_, i) => 17 * i)
  signals: DeviceSignals | null = null
  readonly stopping = new Map<number, (state: QueueState) => void>()
  resetting: (() => void) | null = null

  constructor(offered: bigint) {
    this.offered = offered
  }

  attach(signals: DeviceSignals): void {
    this.signals = signals
  }
  accept(features: bigint): void {
    this.calls.push(`accept ${features}`)
  }
  readConfig(offset: number, width: AccessWidth): number {
    return offset * 1000 + width
  }
  writeConfig(offset: number, width: AccessWidth, value: number): void {
    this.calls.push(`config ${offset} ${width} ${value}`)
  }
  start(queue: number, place: QueuePlace): Violation | null {
    const half = (address: number) => `${address % 2 ** 32} ${Math.floor(address / 2 ** 32)}`
    const { size, descriptors, driver, device } = place
    this.calls.push(`start ${queue} ${size} ${half(descriptors)} ${half(driver)} ${half(device)}`)
    const rule = refusesQueue(queue, size)
    return rule === null ? null : { rule, side: 'driver', queue, at: 0, seen: size, expected: 0 }
  }
  kick(queue: number): void {
    this.calls.push(`kick ${queue}`)
  }
  stop(queue: number, stopped: (state: QueueState) => void): void {
    this.calls.push(`stop ${queue}`)
    this.stopping.set(queue, stopped)
  }
  reset(done: () => void): void {
    this.calls.push('reset')
    this.resetting = () => {
      this.stopping.clear()
      this.resetting = null
      done()
    }
  }
  queueState(): QueueState {
    return { position: { available: 0, used: 0 }, heads: [] }
  }
  save(): Plain {
    return null
  }
  load(): string | null {
    return null
  }
}

function refusesQueue(index: number, size: number): 'split.queue-size' | null {
  const max = QUEUE_SIZES[index] ?? 0
  return size > 0 && size <= max && (size & (size - 1)) === 0 ? null : 'split.queue-size'
}

const VENDOR = 0x454e5650

type Op =
  | { readonly kind: 'read'; readonly offset: number; readonly width: AccessWidth }
  | { readonly kind: 'write'; readonly offset: number; readonly width: AccessWidth; readonly value: number }
  | { readonly kind: 'signal' | 'config' | 'needs-reset' | 'finish-reset' }
  | { readonly kind: 'finish-stop'; readonly queue: number }

const REGISTERS = [
  0x000, 0x004, 0x008, 0x00c, 0x010, 0x014, 0x020, 0x024, 0x030, 0x034, 0x038, 0x044, 0x050, 0x060, 0x064,
  0x070, 0x080, 0x084, 0x090, 0x094, 0x0a0, 0x0a4, 0x0ac, 0x0b0, 0x0b4, 0x0b8, 0x0bc, 0x0c0, 0x0fc, 0x028,
  0x03c, 0x040,
]
const offset = fc.oneof(
  { weight: 8, arbitrary: fc.constantFrom(...REGISTERS) },
  { weight: 1, arbitrary: fc.nat(0x1ff) },
)
const width: fc.Arbitrary<AccessWidth> = fc.oneof(
  { weight: 12, arbitrary: fc.constant(4 as const) },
  { weight: 1, arbitrary: fc.constantFrom<AccessWidth>(1, 2, 4, 8) },
)
const value = fc.oneof(
  { weight: 4, arbitrary: fc.nat(4) },
  { weight: 3, arbitrary: fc.constantFrom(0, 1, 3, 7, 8, 11, 15, 64, 79, 128, 143, 16, 0x100, 0x8000_0000) },
  { weight: 1, arbitrary: fc.nat(0xffff_ffff) },
  { weight: 1, arbitrary: fc.constant(0xffff_ffff) },
)
const write = (at: number, what: number): Op => ({ kind: 'write', offset: at, width: 4, value: what })

/** What a driver does in one go, so that walks get past the door. */
const BLOCKS: readonly (readonly Op[])[] = [
  [write(0x70, 1), write(0x70, 3), write(0x24, 1), write(0x20, 0x101), write(0x70, 11)],
  [
    write(0x70, 3),
    write(0x24, 0),
    write(0x20, 8),
    write(0x24, 1),
    write(0x20, 1 | (1 << 28)),
    write(0x70, 15),
  ],
  // A feature without the one it needs.
  [write(0x70, 3), write(0x24, 0), write(0x20, 8), write(0x24, 1), write(0x20, 1), write(0x70, 11)],
  [write(0x30, 0), write(0x38, 8), write(0x80, 0x1000), write(0x94, 1), write(0x44, 1)],
  [write(0x30, 1), write(0x38, 4), write(0xa4, 5), write(0x44, 1)],
  [write(0x70, 15), write(0x50, 0), write(0x50, 1)],
  [write(0x30, 0), write(0xc0, 1)],
  [write(0x30, 1), write(0x44, 0)],
  [write(0x70, 0), { kind: 'finish-reset' }],
]

const op: fc.Arbitrary<readonly Op[]> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant('read' as const), offset, width }).map((one) => [one]),
  },
  {
    weight: 6,
    arbitrary: fc.record({ kind: fc.constant('write' as const), offset, width, value }).map((one) => [one]),
  },
  { weight: 6, arbitrary: fc.constantFrom(...BLOCKS) },
  {
    weight: 3,
    arbitrary: fc
      .constantFrom('signal' as const, 'config' as const, 'needs-reset' as const, 'finish-reset' as const)
      .map((kind) => [{ kind }]),
  },
  { weight: 1, arbitrary: fc.nat(1).map((queue) => [{ kind: 'finish-stop' as const, queue }]) },
)

/** Where a walk begins: nowhere, or with a device in use. */
const beginning = fc.constantFrom<readonly Op[]>(
  [],
  [0, 3, 5].flatMap((block) => BLOCKS[block] ?? []),
  [1, 3, 4, 5].flatMap((block) => BLOCKS[block] ?? []),
)

class Pair {
  readonly device: NotingDevice
  readonly transport: MmioTransport
  readonly line: TestLine
  readonly model: MmioModel
  readonly rules: string[]

  constructor(offered: bigint) {
    this.device = new NotingDevice(offered)
    this.line = new TestLine()
    this.rules = []
    const clock = new VirtualClock()
    this.transport = new MmioTransport({
      platform: { clock, random: seededRandom(1), trace: NO_TRACE, path: 'noting0' },
      device: this.device,
      line: this.line,
      violated: ({ rule, side }) => {
        expect(side).toBe('driver')
        this.rules.push(rule)
      },
    })
    const needs = new Map([[1n << 3n, 1n << 60n]])
    const modelDevice: ModelDevice = {
      id: 2,
      vendor: VENDOR,
      offered,
      queueSizes: QUEUE_SIZES,
      needs,
      refusesQueue,
    }
    this.model = new MmioModel(modelDevice)
  }

  take(one: Op): void {
    this.rules.length = 0
    this.device.calls.length = 0
    this.model.calls = []
    this.model.rules = []
    this.#perform(one)
    expect(this.rules.sort()).toEqual(this.model.rules.sort())
    expect(this.device.calls).toEqual(this.model.calls)
    expect(this.line.level).toBe(this.model.line)
    expect(this.transport.read(0x70, 4)).toBe(this.model.status)
    expect(this.transport.read(0x60, 4)).toBe(this.model.interruptStatus)
  }

  #perform(one: Op): void {
    const { device, model, transport } = this
    switch (one.kind) {
      case 'read':
        if (one.offset === 0xfc && one.width === 4) expect(transport.read(0xfc, 4)).toBe(7)
        else if (one.offset < 0x100) {
          expect(transport.read(one.offset, one.width)).toBe(model.read(one.offset, one.width))
        } else {
          this.#judgeConfig(one.offset, one.width)
          expect(transport.read(one.offset, one.width)).toBe((one.offset - 0x100) * 1000 + one.width)
        }
        return
      case 'write':
        transport.write(one.offset, one.width, one.value)
        if (one.offset < 0x100) model.write(one.offset, one.width, one.value)
        else {
          this.#judgeConfig(one.offset, one.width)
          if (!model.resetting) model.calls.push(`config ${one.offset - 0x100} ${one.width} ${one.value}`)
        }
        return
      case 'signal':
        device.signals?.signal(0)
        model.signal()
        return
      case 'config':
        device.signals?.configChanged()
        model.configChanged()
        return
      case 'needs-reset':
        device.signals?.needsReset()
        model.needsReset()
        return
      case 'finish-reset':
        if (device.resetting === null) return
        device.resetting()
        model.resetDone()
        return
      case 'finish-stop': {
        const stopped = device.stopping.get(one.queue)
        // A reset takes a stop over: whoever waited for it hears nothing.
        expect(stopped !== undefined).toBe(model.isStopping(one.queue))
        if (stopped === undefined || model.resetting) return
        device.stopping.delete(one.queue)
        stopped({ position: { available: 0, used: 0 }, heads: [] })
        model.stopped(one.queue)
      }
    }
  }

  #judgeConfig(at: number, wide: AccessWidth): void {
    this.model.rules = wide === 8 || at % wide !== 0 ? ['mmio.config-width'] : []
  }
}

describe('the registers of virtio-mmio', () => {
  test('answer as the specification says, whatever is read and written in whatever order', () => {
    const reached = { ready: 0, stopping: 0, resetting: 0, needsReset: 0 }
    fc.assert(
      fc.property(fc.boolean(), beginning, fc.array(op, { maxLength: 40 }), (resets, begun, blocks) => {
        const pair = new Pair(resets ? OFFERED : OFFERED & ~RING_RESET)
        for (const one of [...begun, ...blocks.flat()]) {
          pair.take(one)
          if (pair.model.calls.some((call) => call.startsWith('start'))) reached.ready++
          if (pair.model.isStopping(0)) reached.stopping++
          if (pair.model.resetting) reached.resetting++
          if ((pair.model.status & 64) !== 0) reached.needsReset++
        }
      }),
      { numRuns: 1500 },
    )
    for (const count of Object.values(reached)) expect(count).toBeGreaterThan(100)
  })

  test('a choice of features without what one of them needs leaves FEATURES_OK clear', () => {
    const pair = new Pair(OFFERED)
    for (const one of BLOCKS[2] ?? []) pair.take(one)
    expect([pair.transport.read(0x70, 4), pair.rules]).toEqual([3, ['features.prerequisite']])
  })

  test('every offset and width can be read and written in every state', () => {
    for (const bringUp of [[], BLOCKS[0], [...(BLOCKS[1] ?? []), ...(BLOCKS[3] ?? [])], [write(0x70, 0)]]) {
      const pair = new Pair(OFFERED)
      for (const one of bringUp ?? []) pair.take(one)
      for (let at = 0; at < 0x200; at++) {
        for (const wide of [1, 2, 4, 8] as const) {
          pair.take({ kind: 'read', offset: at, width: wide })
          if (at !== 0x70) pair.take({ kind: 'write', offset: at, width: wide, value: 1 })
        }
      }
    }
  })

  test('an interrupt stays until it is acknowledged, bit by bit, and a reset lowers the line', () => {
    const pair = new Pair(OFFERED)
    for (const one of BLOCKS[1] ?? []) pair.take(one)
    pair.take({ kind: 'signal' })
    pair.take({ kind: 'config' })
    expect(pair.transport.read(0x60, 4)).toBe(3)
    pair.take(write(0x64, 1))
    expect([pair.transport.read(0x60, 4), pair.line.level]).toEqual([2, true])
    pair.take({ kind: 'signal' })
    pair.take(write(0x64, 2))
    expect([pair.transport.read(0x60, 4), pair.line.level]).toEqual([1, true])
    pair.take(write(0x70, 0))
    expect([pair.transport.read(0x60, 4), pair.line.level]).toEqual([0, false])
    pair.take({ kind: 'signal' })
    pair.take({ kind: 'finish-reset' })
    expect([pair.transport.read(0x60, 4), pair.line.level]).toEqual([0, false])
  })
})
