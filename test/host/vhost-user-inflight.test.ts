import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { DiskIo } from '../../host/disk/backend.ts'
import { InflightJournal } from '../../host/vhost-user/inflight-journal.ts'
import { encode } from '../../protocol/derive/codec.ts'
import { inflightSplitBytes } from '../../protocol/vhost-user/inflight.ts'
import { VhostUserInflight, VhostUserVringState } from '../../protocol/vhost-user/payload.ts'
import { HeldDisk } from './held-disk.ts'
import type { RawQueue } from './raw-queue.ts'
import { FakeObject } from './vhost-peer.ts'
import type { Machine } from './vhost-rig.ts'
import { PLACE, VhostRig } from './vhost-rig.ts'

const OUT = 1

class Killed extends Error {}

/**
 * Runs `work` and ends it, as a signal would, before the store after the next `stores`. True when it was ended.
 * What `work` does by way of `spared` does not count: those are stores of somebody who is not killed.
 */
function killedAfter(stores: number, work: (spared: (other: () => void) => void) => void): boolean {
  let left = stores
  let counting = true
  const count = (): void => {
    if (counting && left-- === 0) throw new Killed()
  }
  const spared = (other: () => void): void => {
    counting = false
    other()
    counting = true
  }
  const restore: (() => void)[] = []
  const wrap = (owner: object, names: readonly string[]): void => {
    for (const name of names) {
      const own = Object.getOwnPropertyDescriptor(owner, name) as PropertyDescriptor
      const original = own.value as (...given: unknown[]) => unknown
      const counted = function (this: unknown, ...given: unknown[]): unknown {
        count()
        return original.apply(this, given)
      }
      Object.defineProperty(owner, name, { ...own, value: counted })
      restore.push(() => Object.defineProperty(owner, name, own))
    }
  }
  wrap(DataView.prototype, ['setUint8', 'setUint16', 'setUint32', 'setBigUint64'])
  wrap(Atomics, ['store', 'or'])
  wrap(Object.getPrototypeOf(Uint8Array.prototype) as object, ['set', 'fill'])
  try {
    work(spared)
    return false
  } catch (problem) {
    if (problem instanceof Killed) return true
    throw problem
  } finally {
    for (const one of restore) one()
  }
}

/** Where the used index of the ring stands, as the driver sees it. */
function usedIndex(machine: Machine): number {
  const { bytes } = machine.file
  return (bytes[PLACE.device + 2] ?? 0) + 256 * (bytes[PLACE.device + 3] ?? 0)
}

/** Made beforehand: its stores are the front-end's. */
const ENABLE = encode(VhostUserVringState, { index: 0, num: 1 })

const ask = encode(VhostUserInflight, { queues: 1, queueSize: PLACE.size })

const LENDING = { privateLoans: false } as const

/** Which request a write is. */
function numberOf(io: DiskIo): number {
  const [bytes] = io.lent
  return new DataView(bytes?.buffer ?? new ArrayBuffer(4), bytes?.byteOffset).getUint32(0, true)
}

/** Answers at once, and says what it carried out. */
class PromptDisk extends HeldDisk {
  readonly #carriedOut: (number: number) => void

  constructor(carriedOut: (number: number) => void) {
    super(LENDING)
    this.#carriedOut = carriedOut
  }

  override submit(io: DiskIo): void {
    this.#carriedOut(numberOf(io))
    io.answer('ok')
  }
}

/** A machine, its front-end and one back-end after the other. */
class Lives {
  readonly disk: HeldDisk
  /** By request: how often the disk carried it out, and how often the driver was answered. */
  readonly done = new Map<number, number>()
  readonly answered = new Map<number, number>()
  rig: VhostRig
  queue: RawQueue
  #offered = 0
  readonly #byHead = new Map<number, number>()

  /** @param atOnce the disk answers before `submit` returns: several requests become visible together. */
  constructor(atOnce: boolean) {
    this.disk = atOnce ? new PromptDisk((number) => this.#carriedOut(number)) : new HeldDisk(LENDING)
    this.rig = new VhostRig({ backend: this.disk, queueSize: PLACE.size })
    this.rig.negotiate()
    this.rig.machine.inflight = this.rig.ask('GET_INFLIGHT_FD', ask)?.objects[0] ?? null
    this.queue = this.rig.queue(PLACE)
    this.#prepare(0)
    this.#enable()
  }

  /** The process is gone, and with it all it knew; the machine and the disk go on. */
  revive(spared: (other: () => void) => void = (other) => other()): void {
    spared(() => {
      this.disk.held.splice(0)
      this.rig = new VhostRig({ backend: this.disk, machine: this.rig.machine, queueSize: PLACE.size })
      this.rig.negotiate()
      this.#prepare(usedIndex(this.rig.machine))
    })
    this.#enable()
  }

  /** Offers a write whose first bytes say which request it is. */
  offer(): void {
    if (this.queue.freeCount < 3) return
    const number = this.#offered++
    const at = 0x1_0000 + (number % 16) * 0x1000
    const view = new DataView(this.rig.bytes.buffer, this.rig.bytes.byteOffset)
    view.setUint32(at, OUT, true)
    view.setUint32(at + 4, 0, true)
    view.setBigUint64(at + 8, 0n, true)
    view.setUint32(at + 512, number, true)
    const head = this.queue.offer([
      { at, lengthBytes: 16, write: false },
      { at: at + 512, lengthBytes: 512, write: false },
      { at: at + 0x800, lengthBytes: 1, write: true },
    ])
    this.queue.publish()
    this.#byHead.set(head, number)
  }

  kick(): void {
    this.rig.kick(0)
  }

  /** The disk carries out one of those it holds; the power of the host, not of the disk, may fail afterwards. */
  complete(which: number): void {
    const io = this.disk.held[which % Math.max(1, this.disk.held.length)]
    if (io === undefined) return
    this.#carriedOut(numberOf(io))
    this.disk.end(this.disk.held.indexOf(io))
  }

  reap(): void {
    for (let used = this.queue.reap(); used !== null; used = this.queue.reap()) {
      const number = this.#byHead.get(used.head)
      if (number === undefined) throw new Error(`head ${used.head} is answered, and nothing is out there`)
      this.#byHead.delete(used.head)
      this.answered.set(number, (this.answered.get(number) ?? 0) + 1)
    }
  }

  /** Everything that was offered is done and answered exactly once, without further accidents. */
  finish(): void {
    for (let rounds = 0; rounds < 100; rounds++) {
      this.kick()
      while (this.disk.held.length > 0) this.complete(0)
      this.reap()
    }
    expect([...this.answered.values()].every((times) => times === 1)).toBe(true)
    expect(this.answered.size).toBe(this.#offered)
    for (const number of this.answered.keys()) expect(this.done.get(number) ?? 0).toBeGreaterThan(0)
  }

  #carriedOut(number: number): void {
    if ((this.answered.get(number) ?? 0) > 0)
      throw new Error(`write ${number} was answered, and is done again`)
    this.done.set(number, (this.done.get(number) ?? 0) + 1)
  }

  #prepare(base: number): void {
    const { rig } = this
    if (rig.machine.inflight === null) throw new Error('there is no tracking buffer')
    const sizeBytes = BigInt(inflightSplitBytes(PLACE.size))
    const set = encode(VhostUserInflight, { size: sizeBytes, queues: 1, queueSize: PLACE.size })
    expect(rig.carriesOut('SET_INFLIGHT_FD', set, [rig.machine.inflight])).toBe(true)
    rig.shareMemory()
    rig.describeRing(0, PLACE, base)
    expect(rig.rules).toEqual([])
  }

  #enable(): void {
    this.rig.send('SET_VRING_ENABLE', ENABLE)
  }
}

type Step =
  | { readonly kind: 'offer' | 'kick' | 'reap' }
  | { readonly kind: 'complete'; readonly which: number }

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    { weight: 4, arbitrary: fc.record({ kind: fc.constant('offer' as const) }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom('kick' as const, 'reap' as const) }) },
    { weight: 4, arbitrary: fc.record({ kind: fc.constant('complete' as const), which: fc.nat(7) }) },
  ),
  { minLength: 3, maxLength: 30 },
)

function run(lives: Lives, step: Step): void {
  if (step.kind === 'complete') lives.complete(step.which)
  else lives[step.kind]()
}

describe('what is in flight when a back-end is killed', () => {
  it('is neither lost nor done again once it was answered, whatever store was the last, life after life', () => {
    let kills = 0
    fc.assert(
      fc.property(
        fc.boolean(),
        fc.array(fc.tuple(steps, fc.nat(60)), { minLength: 1, maxLength: 8 }),
        (atOnce, each) => {
          const lives = new Lives(atOnce)
          for (const [life, stores] of each) {
            const killed = killedAfter(stores, (spared) => {
              for (const step of life) {
                // The driver is not killed.
                if (step.kind === 'offer') spared(() => lives.offer())
                else run(lives, step)
              }
            })
            if (!killed) continue
            kills++
            // Answers that were visible count as given.
            lives.reap()
            lives.revive()
          }
          lives.finish()
        },
      ),
      { numRuns: 400 },
    )
    expect(kills).toBeGreaterThan(400)
  })

  it('is taken up again at every single store of a batch, in the order it was taken', () => {
    for (let stores = 0; ; stores++) {
      const lives = new Lives(false)
      // Heads come back in another order than they are numbered.
      for (let i = 0; i < 5; i++) lives.offer()
      lives.kick()
      for (const which of [2, 0, 2, 1, 0]) lives.complete(which)
      lives.reap()
      for (let i = 0; i < 5; i++) lives.offer()
      const killed = killedAfter(stores, () => {
        lives.kick()
        lives.complete(3)
        lives.complete(0)
      })
      lives.reap()
      if (!killed) {
        expect(stores).toBeGreaterThan(20)
        return
      }
      lives.revive()
      lives.kick()
      const numbers = lives.disk.held.map(numberOf)
      expect(numbers).toEqual([...numbers].sort((a, b) => a - b))
      lives.finish()
    }
  })
})

describe('who takes the place of a killed back-end', () => {
  it('says how many requests are done again, once, and nothing where there are none', () => {
    const lives = new Lives(false)
    expect(lives.rig.recovered).toEqual([])
    for (let i = 0; i < 5; i++) lives.offer()
    lives.kick()
    lives.complete(1)
    lives.complete(2)
    lives.revive()
    expect(lives.rig.recovered).toEqual([[0, 3]])
    // Stopped and started by its own front-end, it forgets nothing and recovers nothing.
    lives.rig.send('SET_VRING_ENABLE', encode(VhostUserVringState, { index: 0, num: 0 }))
    while (lives.disk.held.length > 0) lives.complete(0)
    lives.rig.clock.drain()
    lives.rig.send('SET_VRING_ENABLE', ENABLE)
    expect(lives.rig.recovered).toEqual([[0, 3]])
    lives.finish()
    lives.revive()
    expect(lives.rig.recovered).toEqual([])
  })
})

describe('a driver that sleeps until it is called', () => {
  it('is called for what a killed back-end made visible, whatever store was its last', () => {
    let untold = 0
    for (let stores = 0; ; stores++) {
      const lives = new Lives(false)
      for (let i = 0; i < 3; i++) lives.offer()
      lives.queue.wantEvent(lives.queue.usedIndex)
      lives.rig.calls[0]?.take()
      const killed = killedAfter(stores, () => {
        lives.kick()
        lives.complete(0)
      })
      const told = (lives.rig.calls[0]?.take() ?? 0) > 0
      if (!told && usedIndex(lives.rig.machine) > 0) untold++
      if (!killed) {
        expect([told, untold > 0]).toEqual([true, true])
        return
      }
      if (told) {
        lives.reap()
        lives.queue.wantEvent(lives.queue.usedIndex)
      }
      lives.revive()
      while (lives.disk.held.length > 0) lives.complete(0)
      expect(lives.rig.calls[0]?.take(), `killed after ${stores} stores`).toBeGreaterThan(0)
      lives.finish()
    }
  })
})

describe('a back-end that is killed while it takes up what another left', () => {
  it('leaves the same to the third, whatever stores were the last of both', () => {
    let both = 0
    for (let first = 0; first < 28; first++) {
      for (let second = 0; second < 36; second++) {
        const lives = new Lives(true)
        for (let i = 0; i < 3; i++) lives.offer()
        if (!killedAfter(first, () => lives.kick())) continue
        lives.reap()
        // More than before: heads of the last batch, and others.
        for (let i = 0; i < 5; i++) lives.offer()
        if (killedAfter(second, (spared) => lives.revive(spared))) {
          both++
          lives.reap()
          lives.revive()
        }
        lives.finish()
      }
    }
    expect(both).toBeGreaterThan(500)
  })
})

describe('a tracking buffer', () => {
  it('may hold anything: recovery takes only heads of the ring, each once', () => {
    const size = 16
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: inflightSplitBytes(size), maxLength: inflightSplitBytes(size) }),
        fc.nat(0xffff),
        fc.nat(0xffff),
        fc.boolean(),
        (garbage, used, available, valid) => {
          const bytes = new Uint8Array(garbage)
          if (valid) bytes.set([1, 0], 8)
          const { heads, position } = new InflightJournal(bytes, size).recover(used, available)
          expect(new Set(heads).size).toBe(heads.length)
          expect(heads.every((head) => head < size)).toBe(true)
          expect(position.used).toBe(used)
          // Whoever recovers again without having served finds the same.
          const again = new InflightJournal(bytes, size).recover(used, available)
          expect(again.heads).toEqual(heads)
        },
      ),
      { numRuns: 500 },
    )
  })

  it('strikes a batch off once: heads of it that are out again stay out', () => {
    const bytes = new Uint8Array(inflightSplitBytes(16))
    const first = new InflightJournal(bytes, 16)
    first.recover(0, 0)
    for (const head of [1, 2]) first.took(head)
    for (const head of [1, 2]) first.used(head)
    first.publishing()
    // Killed when the driver saw both, before they were struck off.
    const second = new InflightJournal(bytes, 16)
    expect(second.recover(2, 0).heads).toEqual([])
    for (const head of [2, 5]) second.took(head)
    const third = new InflightJournal(bytes, 16).recover(2, 0)
    expect(third).toEqual({ heads: [2, 5], position: { available: 4, used: 2 } })
  })

  it('is refused in another shape, from another thing than memory, and while a ring runs', () => {
    const rig = new VhostRig({ backend: new HeldDisk(), queueSize: 16 })
    rig.negotiate()
    const file = new FakeObject('file', new Uint8Array(4096))
    const set = (value: Parameters<typeof encode<typeof VhostUserInflight>>[1], object: FakeObject) =>
      rig.carriesOut('SET_INFLIGHT_FD', encode(VhostUserInflight, value), [object])
    const good = { size: 320n, queues: 1, queueSize: 16 }
    expect(set({ ...good, queues: 2 }, file)).toBe(false)
    expect(set({ ...good, queues: 0 }, file)).toBe(false)
    expect(set({ ...good, queueSize: 15 }, file)).toBe(false)
    expect(set({ ...good, queueSize: 32 }, file)).toBe(false)
    expect(set({ ...good, size: 319n }, file)).toBe(false)
    expect(set({ ...good, size: 2n ** 64n - 1n }, file)).toBe(false)
    expect(set({ ...good, offset: 4096n }, file)).toBe(false)
    // Its words are 64 bits wide: a place for half a one is none.
    expect(set({ ...good, offset: 4n }, file)).toBe(false)
    expect(set(good, new FakeObject('event'))).toBe(false)
    expect(rig.world.mappings).toBe(0)
    expect(set(good, file)).toBe(true)
    expect(set(good, file)).toBe(true)
    expect([rig.world.open, rig.world.mappings]).toEqual([0, 1])
    rig.shareMemory()
    rig.queue(PLACE)
    rig.startRing(0, PLACE)
    expect(set(good, file)).toBe(false)
    expect(rig.rules.at(-1)).toBe('vhost.ring-live')
    rig.connection.hangUp()
    rig.settle()
    expect([rig.world.open, rig.world.mappings]).toEqual([0, 0])
  })

  it('that cannot be had is answered with none, each time, and leaks nothing', () => {
    const rig = new VhostRig({ backend: new HeldDisk() })
    rig.negotiate()
    for (const value of [
      { queues: 2, queueSize: 16 },
      { queues: 1, queueSize: 3 },
    ]) {
      const answer = rig.ask('GET_INFLIGHT_FD', encode(VhostUserInflight, value))
      expect([answer?.payload.every((byte) => byte === 0), answer?.objects]).toEqual([true, []])
    }
    for (let i = 0; i < 10; i++) rig.ask('GET_INFLIGHT_FD', ask)
    expect([rig.world.open, rig.world.mappings]).toEqual([0, 0])
  })
})
