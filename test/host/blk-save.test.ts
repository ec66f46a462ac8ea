import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { seededRandom } from '../../bench/random.ts'
import { DelayDisk } from '../../host/disk/delay.ts'
import { MemoryDisk } from '../../host/disk/memory.ts'
import { Mmio } from '../../protocol/virtio/mmio.ts'
import { noise, TestIo } from '../conformance/disk-backend.ts'
import type { AskPlan } from './blk-asks.ts'
import { askOf, askPlan, layOut } from './blk-asks.ts'
import { IN } from './blk-model.ts'
import { BlkRig, placeAt, placeEnd } from './blk-rig.ts'
import { HeldDisk } from './held-disk.ts'
import { indirectBytes, RawQueue } from './raw-queue.ts'
import { SteppedClock } from './stepped-clock.ts'

const QUEUE_SIZE = 64
const DISK_BYTES = 64 * 512
const ALL_OPS = ['read', 'write', 'flush', 'discard', 'zero', 'erase'] as const

type Step =
  | { readonly kind: 'ask'; readonly plan: AskPlan; readonly turns: number }
  | { readonly kind: 'reap'; readonly turns: number }
  | { readonly kind: 'writeback'; readonly value: number; readonly turns: number }
  | { readonly kind: 'reset'; readonly turns: number }
  | { readonly kind: 'queue-reset'; readonly turns: number }
  | { readonly kind: 'resize'; readonly sectors: number; readonly turns: number }

const turns = fc.nat(3)
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('ask' as const), plan: askPlan, turns }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('reap' as const), turns }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('writeback' as const), value: fc.nat(1), turns }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('reset' as const), turns }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('queue-reset' as const), turns }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('resize' as const), sectors: fc.nat(70), turns }) },
)

/** One run of a script by a driver that knows nothing of what happens to its device. */
class Run {
  readonly #disk: MemoryDisk
  readonly #moveAt: number
  readonly #outcomes: string[]
  readonly #out: Map<number, { readonly index: number; readonly writable: readonly number[] }>
  #clock: SteppedClock
  #rig: BlkRig
  #queue: RawQueue
  #asked: number
  #at: number
  turns: number
  moves: number

  /** @param moveAt the turn after which the device is saved and loaded elsewhere; negative: never. */
  constructor(moveAt: number) {
    this.#disk = new MemoryDisk(DISK_BYTES, {
      blockBytes: 512,
      physicalBlockBytes: 512,
      readOnly: false,
      serial: 'MOVED',
    })
    this.#disk.submit(new TestIo('write', 0, DISK_BYTES, [noise(DISK_BYTES, 3)]))
    this.#moveAt = moveAt
    this.#outcomes = []
    this.#out = new Map()
    this.turns = 0
    this.moves = 0
    this.#clock = new SteppedClock()
    this.#rig = this.#makeRig(undefined)
    this.#queue = this.#rig.bringUp(this.#rig.device.offered, QUEUE_SIZE)
    this.#asked = 0
    this.#at = placeEnd(this.#queue.place)
  }

  /** What came of it: every answer, the content of the disk, and the state the device ends in. */
  of(steps: readonly Step[]): unknown {
    this.#moveIfDue()
    for (const step of steps) {
      this.#take(step)
      for (let i = 0; i < step.turns; i++) this.#turn()
    }
    this.#drain()
    this.#reap()
    const content = new Uint8Array(this.#disk.facts.lengthBytes)
    this.#disk.submit(new TestIo('read', 0, content.length, [content]))
    return {
      outcomes: [...this.#outcomes],
      content: Buffer.from(content).toString('latin1'),
      state: this.#rig.transport.save(),
    }
  }

  #makeRig(memory: BlkRig['memory'] | undefined): BlkRig {
    const plan = { delayUs: 10, jitterUs: 0, ops: ALL_OPS }
    const slow = new DelayDisk(this.#disk, plan, this.#clock, seededRandom(1))
    return new BlkRig({
      backend: slow,
      clock: this.#clock,
      limits: { queueSize: QUEUE_SIZE },
      ...(memory === undefined ? {} : { memory }),
    })
  }

  #turn(): boolean {
    if (!this.#clock.step()) return false
    this.turns++
    this.#moveIfDue()
    return true
  }

  #drain(): void {
    for (let left = 10_000; this.#turn(); left--) if (left === 0) throw new Error('a run that does not end')
  }

  /** Saves, and goes on with another device, transport and clock over the same memory and disk. */
  #moveIfDue(): void {
    if (this.turns !== this.#moveAt || this.moves > 0) return
    this.moves++
    const before = this.#rig
    const saved = before.transport.save()
    this.#clock = new SteppedClock()
    this.#rig = this.#makeRig(before.memory)
    expect(this.#rig.transport.load(JSON.parse(JSON.stringify(saved)))).toBe(null)
    expect(this.#rig.transport.save()).toEqual(saved)
    expect(this.#rig.line.level).toBe(before.line.level)
    expect(this.#rig.device.configGeneration).toBe(before.device.configGeneration)
  }

  #take(step: Step): void {
    switch (step.kind) {
      case 'ask':
        this.#ask(step.plan)
        return
      case 'reap':
        this.#reap()
        return
      case 'writeback':
        this.#rig.write(0x120, step.value, 1)
        return
      case 'reset':
        // What is in flight may or may not be answered first: a run that counts answers lets it end.
        this.#settle()
        this.#rig.write(Mmio.Status, 0)
        for (let left = 1000; this.#rig.status !== 0; left--) {
          if (left === 0) throw new Error('a reset that does not end')
          this.#turn()
        }
        this.#again()
        this.#queue = this.#rig.bringUp(this.#rig.device.offered, QUEUE_SIZE)
        return
      case 'queue-reset':
        this.#settle()
        this.#rig.write(Mmio.QueueSel, 0)
        this.#rig.write(Mmio.QueueReset, 1)
        for (let left = 1000; this.#rig.read(Mmio.QueueReset) !== 0; left--) {
          if (left === 0) throw new Error('a queue reset that does not end')
          this.#turn()
        }
        this.#again()
        this.#queue = new RawQueue(this.#rig.memory, this.#queue.place)
        this.#rig.startQueue(0, this.#queue.place)
        return
      case 'resize': {
        this.#settle()
        this.#disk.submit(new TestIo('resize', 0, step.sectors * 512, []))
        return
      }
    }
  }

  #settle(): void {
    this.#drain()
    this.#reap()
  }

  /** Forgets what was out: a reset took it back. */
  #again(): void {
    for (const { index } of this.#out.values()) this.#outcomes[index] = 'taken back'
    this.#out.clear()
  }

  #ask(plan: AskPlan): void {
    const ask = askOf(plan, BigInt(this.#disk.facts.lengthBytes / 512))
    const { bytes } = this.#rig
    const laid = layOut(bytes, ask, plan, this.#at)
    const table = Math.ceil(laid.end / 16) * 16
    if (this.#queue.freeCount < laid.segments.length) return
    this.#at = table + indirectBytes(laid.segments)
    const head = plan.indirect
      ? this.#queue.offerIndirect(laid.segments, table)
      : this.#queue.offer(laid.segments)
    this.#out.set(head, { index: this.#asked++, writable: laid.writable })
    this.#queue.publish()
    this.#rig.kick()
  }

  #reap(): void {
    for (let used = this.#queue.reap(); used !== null; used = this.#queue.reap()) {
      const one = this.#out.get(used.head)
      if (one === undefined) throw new Error(`head ${used.head} was not out`)
      this.#out.delete(used.head)
      const found = one.writable.map((at) => this.#rig.bytes[at]).join(' ')
      this.#outcomes[one.index] = `${used.lengthBytes}: ${found}`
    }
    this.#queue.wantEvent(this.#queue.usedIndex)
    this.#rig.write(Mmio.InterruptACK, this.#rig.read(Mmio.InterruptStatus))
  }
}

describe('saving and loading', () => {
  test('after any turn of a run, the outcome is that of a run without', () => {
    let moved = 0
    fc.assert(
      fc.property(fc.array(step, { minLength: 2, maxLength: 14 }), (steps) => {
        const whole = new Run(-1)
        const expected = whole.of(steps)
        for (let at = 0; at <= whole.turns; at++) {
          const run = new Run(at)
          expect(run.of(steps)).toEqual(expected)
          moved += run.moves
        }
      }),
      { numRuns: 100 },
    )
    expect(moved).toBeGreaterThan(500)
  })

  test('in the middle of a reset, the device that is loaded has finished it', () => {
    const disk = new HeldDisk()
    disk.obedient = false
    const rig = new BlkRig({ backend: disk })
    const queue = rig.bringUp(rig.device.offered, 16)
    askForSector(rig, queue)
    rig.drain()
    rig.write(Mmio.Status, 0)
    expect(rig.status).not.toBe(0)
    const other = new BlkRig({ backend: new HeldDisk(), memory: rig.memory })
    expect(other.transport.load(rig.transport.save())).toBe(null)
    expect(other.status).toBe(0)
    expect(other.transport.save()).toEqual(new BlkRig({ backend: disk }).transport.save())
  })

  test('in the middle of a queue reset, the queue that is loaded is reset', () => {
    const disk = new HeldDisk()
    const rig = new BlkRig({ backend: disk })
    const queue = rig.bringUp(rig.device.offered, 16)
    askForSector(rig, queue)
    rig.drain()
    rig.write(Mmio.QueueReset, 1)
    const other = new BlkRig({ backend: new HeldDisk(), memory: rig.memory })
    expect(other.transport.load(rig.transport.save())).toBe(null)
    expect([other.read(Mmio.QueueReset), other.read(Mmio.QueueReady), other.status]).toEqual([0, 0, 15])
    const never = new BlkRig({ backend: new HeldDisk() }).transport.save()
    expect(other.transport.save().queues).toEqual(never.queues)
  })

  test('a broken ring is still broken: nothing is taken until a reset', () => {
    const rig = new BlkRig({ backend: new HeldDisk() })
    const queue = rig.bringUp(rig.device.offered, 16)
    askForSector(rig, queue)
    queue.offerAnything(16)
    queue.publish()
    rig.drain()
    expect(rig.status & 64).toBe(64)
    const disk = new HeldDisk()
    const other = new BlkRig({ backend: disk, memory: rig.memory })
    expect(other.transport.load(JSON.parse(JSON.stringify(rig.transport.save())))).toBe(null)
    expect(other.transport.save()).toEqual(rig.transport.save())
    other.kick()
    other.drain()
    expect(disk.held.length).toBe(0)
    expect(other.rules).toEqual([])
    expect(queue.reap()).toBe(null)
  })
})

function askForSector(rig: BlkRig, queue: RawQueue): number {
  const at = placeEnd(placeAt(0, 16))
  rig.bytes.fill(0, at, at + 16)
  rig.bytes[at] = IN
  const head = queue.offer([
    { at, lengthBytes: 16, write: false },
    { at: at + 16, lengthBytes: 513, write: true },
  ])
  queue.publish()
  rig.kick()
  return head
}
