import fc from 'fast-check'
import { afterAll, describe, expect, test } from 'vitest'
import { DISK_KINDS } from '../../host/disk/registry.ts'
import { VirtualClock } from '../../hypervisor/clock.ts'
import { Mmio } from '../../protocol/virtio/mmio.ts'
import { assertBytes, TestIo } from '../conformance/disk-backend.ts'
import type { AskPlan } from './blk-asks.ts'
import { askOf, askPlan, layOut } from './blk-asks.ts'
import type { Ask, Verdict } from './blk-model.ts'
import { BlkModel } from './blk-model.ts'
import { BlkRig, placeEnd } from './blk-rig.ts'
import type { BlkSubject } from './blk-subjects.ts'
import { blkSubjects } from './blk-subjects.ts'
import { scratch } from './disk-subjects.ts'
import type { RawQueue } from './raw-queue.ts'
import { indirectBytes } from './raw-queue.ts'

const { directory, remove } = scratch()
afterAll(remove)

const CANARY = 0xa5
const QUEUE_SIZE = 64
const LIMITS = { rangeSectors: 20, rangeSegments: 4 }
const VERSION_1 = 1n << 32n
const INDIRECT = 1n << 28n
const EVENT_IDX = 1n << 29n

type Step =
  | { readonly kind: 'ask'; readonly plans: readonly AskPlan[] }
  | { readonly kind: 'reset'; readonly without: bigint }
  | { readonly kind: 'queue-reset' }
  | { readonly kind: 'resize'; readonly blocks: number }

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 10,
    arbitrary: fc.record({
      kind: fc.constant('ask' as const),
      plans: fc.array(askPlan, { minLength: 1, maxLength: 4 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('reset' as const), without: fc.bigInt(0n, 2n ** 41n) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('queue-reset' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('resize' as const), blocks: fc.nat(80) }) },
)

interface Placed {
  readonly ask: Ask
  readonly head: number
  readonly writable: readonly number[]
  readonly verdict: Verdict
}

/** One device and the model it is held to. */
class Comparison {
  readonly rig: BlkRig
  readonly model: BlkModel
  #queue: RawQueue
  #features: bigint

  constructor(rig: BlkRig, model: BlkModel) {
    this.rig = rig
    this.model = model
    this.#features = rig.device.offered
    model.features = this.#features
    this.#queue = rig.bringUp(this.#features, QUEUE_SIZE)
  }

  async take(step: Step): Promise<void> {
    switch (step.kind) {
      case 'ask':
        return this.#ask(step.plans)
      case 'reset': {
        const { rig } = this
        rig.write(Mmio.Status, 0)
        await rig.run()
        expect(rig.status).toBe(0)
        // VERSION_1 stays: without it nothing is negotiated at all.
        this.#features = rig.device.offered & (~step.without | VERSION_1)
        this.model.features = this.#features
        this.#queue = rig.bringUp(this.#features, QUEUE_SIZE)
        expect(rig.status).toBe(15)
        return
      }
      case 'queue-reset':
        return this.#resetQueue()
      case 'resize':
        return this.#resize(step.blocks)
    }
  }

  async #resetQueue(): Promise<void> {
    const { rig } = this
    if (((this.#features >> 40n) & 1n) === 0n) return
    rig.write(Mmio.QueueSel, 0)
    rig.write(Mmio.QueueReset, 1)
    await rig.run()
    expect([rig.read(Mmio.QueueReset), rig.read(Mmio.QueueReady)]).toEqual([0, 0])
    this.#queue = this.#queue.again(rig.memory)
    rig.startQueue(0, this.#queue.place)
  }

  async #resize(blocks: number): Promise<void> {
    const { rig, model } = this
    const { facts } = rig.backend
    if (!facts.can.resize || facts.readOnly) return
    const lengthBytes = blocks * facts.blockBytes
    const before = rig.read(Mmio.ConfigGeneration)
    const changes = lengthBytes !== facts.lengthBytes
    const io = new TestIo('resize', 0, lengthBytes, [])
    rig.backend.submit(io)
    await rig.run()
    expect(io.outcome).toBe('ok')
    model.resize(lengthBytes)
    expect(rig.read(Mmio.ConfigGeneration)).toBe(before + (changes ? 1 : 0))
    expect(rig.read(Mmio.InterruptStatus)).toBe(changes ? 2 : 0)
    rig.write(Mmio.InterruptACK, 2)
    const capacity = BigInt(rig.read(0x100)) + (BigInt(rig.read(0x104)) << 32n)
    expect(capacity).toBe(model.capacity)
  }

  async #ask(plans: readonly AskPlan[]): Promise<void> {
    const { rig, model } = this
    const queue = this.#queue
    const arena = placeEnd(queue.place)
    rig.bytes.fill(CANARY, arena)
    rig.violations.length = 0
    const placed: Placed[] = []
    let at = arena
    for (const plan of plans) {
      const ask = askOf(plan, model.capacity)
      const laid = layOut(rig.bytes, ask, plan, at)
      at = laid.end
      const indirect = plan.indirect && (this.#features & INDIRECT) !== 0n
      let head: number
      if (indirect) {
        at = Math.ceil(at / 16) * 16
        head = queue.offerIndirect(laid.segments, at)
        at += indirectBytes(laid.segments)
      } else {
        head = queue.offer(laid.segments)
      }
      // Requests run in any order: the model takes them one by one, so those that change anything go alone.
      placed.push({ ask, head, writable: laid.writable, verdict: model.answer(ask) })
      if (!rig.backend.facts.synchronous) await this.#serve(placed.splice(0), rig.bytes.slice(arena), arena)
    }
    if (placed.length > 0) await this.#serve(placed, rig.bytes.slice(arena), arena)
  }

  async #serve(placed: readonly Placed[], before: Uint8Array, arena: number): Promise<void> {
    const { rig } = this
    const queue = this.#queue
    if ((this.#features & EVENT_IDX) !== 0n) queue.wantEvent(queue.usedIndex)
    queue.publish()
    rig.kick()
    await rig.run()
    expect(rig.line.level).toBe(true)
    expect(rig.read(Mmio.InterruptStatus)).toBe(1)
    rig.write(Mmio.InterruptACK, 1)
    expect(rig.line.level).toBe(false)
    const byHead = new Map(placed.map((one) => [one.head, one]))
    for (let used = queue.reap(); used !== null; used = queue.reap()) {
      const one = byHead.get(used.head)
      if (one === undefined) throw new Error(`head ${used.head} was not out`)
      byHead.delete(used.head)
      expect(used.lengthBytes).toBe(one.verdict.usedBytes)
      this.#expectWritten(one, before, arena)
    }
    expect(byHead.size).toBe(0)
    assertBytes(rig.bytes.subarray(arena), before, 'memory')
    this.#expectRules(placed)
  }

  /** Judges the status byte, and puts what may stand in memory into `before`. */
  #expectWritten({ verdict, writable }: Placed, before: Uint8Array, arena: number): void {
    const { bytes } = this.rig
    for (const [i, where] of writable.entries()) {
      if (i === writable.length - 1) {
        expect([...verdict.statuses]).toContain(bytes[where])
        before[where - arena] = bytes[where] ?? 0
      } else if (i < verdict.data.length) {
        before[where - arena] = (verdict.certain[i] === 1 ? verdict.data[i] : bytes[where]) ?? 0
      }
    }
  }

  #expectRules(placed: readonly Placed[]): void {
    const reported = [...this.rig.rules]
    for (const { verdict } of placed) {
      if (verdict.rules.size === 0) continue
      const found = reported.findIndex((rule) => verdict.rules.has(rule))
      expect(found, `one of ${[...verdict.rules]} among ${reported}`).not.toBe(-1)
      reported.splice(found, 1)
    }
    expect(reported).toEqual([])
    this.rig.violations.length = 0
  }

  /** What the disk holds in the end, read beneath the device. */
  async expectContent(): Promise<void> {
    const { rig, model } = this
    const lengthBytes = rig.backend.facts.lengthBytes
    const found = new Uint8Array(lengthBytes)
    rig.backend.submit(new TestIo('read', 0, lengthBytes, [found]))
    await rig.run()
    const expected = model.content.map((byte, at) => (model.certain[at] === 1 ? byte : (found[at] ?? 0)))
    assertBytes(found, expected, 'content')
  }
}

async function compare(subject: BlkSubject, steps: readonly Step[]): Promise<void> {
  const clock = new VirtualClock({ turnsMax: 100_000 })
  const backend = await subject.open(clock)
  const rig = new BlkRig({ backend, clock, limits: { ...LIMITS, queueSize: QUEUE_SIZE } })
  const comparison = new Comparison(rig, new BlkModel(subject.model, LIMITS))
  for (const step of steps) await comparison.take(step)
  await comparison.expectContent()
  backend.close(() => {})
  await rig.run()
}

describe('the block device answers as its specification says', () => {
  const subjects = blkSubjects(directory)

  test('over every kind of disk there is', () => {
    const covered = new Set(subjects.flatMap(({ kinds }) => kinds))
    expect([...covered].sort()).toEqual(
      DISK_KINDS.filter(({ role }) => role !== 'device')
        .map(({ kind }) => kind)
        .sort(),
    )
  })

  for (const subject of subjects) {
    test(subject.name, async () => {
      await fc.assert(
        fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 12 }), (steps) => compare(subject, steps)),
        { numRuns: 60 },
      )
    })
  }
})
