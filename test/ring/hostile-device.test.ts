import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Segments } from '../../guest/virtio/segments.ts'
import { DriverRing } from '../../guest/virtio/split-ring.ts'
import { GuestMemory, gpa } from '../../protocol/memory.ts'
import type { RequirementId } from '../../protocol/requirement.ts'
import type { Violation } from '../../protocol/violation.ts'
import { Journal, JournalMemory } from '../fuzz/journal.ts'
import { LiteralRing } from '../fuzz/literal-ring.ts'

const DATA_AT = 0x8_0000
const ROOM_BYTES = 64

interface Owner {
  readonly name: number
}

/** A driver's end under a journal, whose device does as it likes with the memory they share. */
class Scene {
  readonly memory = GuestMemory.ofBytes(1 << 20)
  readonly journal = new Journal()
  readonly violations: Violation[] = []
  readonly ring: DriverRing<Owner>
  readonly literal: LiteralRing
  readonly areas: { readonly at: number; readonly lengthBytes: number }[] = []
  readonly #segments = new Segments()
  #posted = 0

  constructor(options: { size?: number; eventIdx?: boolean; indirect?: boolean } = {}) {
    const { size = 8, eventIdx = true, indirect = false } = options
    let top = 4096
    this.ring = new DriverRing<Owner>({
      platform: {
        memory: new JournalMemory(this.memory, this.journal),
        allocate: (lengthBytes, alignment) => {
          const at = Math.ceil(top / alignment) * alignment
          top = at + lengthBytes
          this.areas.push({ at, lengthBytes })
          return gpa(at)
        },
      },
      queue: 5,
      size,
      indirectSegments: indirect ? size : 0,
      eventIdx,
      violated: (violation) => this.violations.push(violation),
    })
    this.literal = new LiteralRing(this.memory, this.ring.place)
  }

  get usedArea() {
    return { at: this.ring.place.device, lengthBytes: 6 + 8 * this.ring.size }
  }

  /** Posts a request of `count` buffers whose last has 64 bytes of room; its head, or null when it is full. */
  post(count = 1): number | null {
    this.#segments.clear()
    for (let i = 1; i < count; i++) this.#segments.readable(gpa(DATA_AT + i), 1)
    this.#segments.writable(gpa(DATA_AT), ROOM_BYTES)
    if (!this.ring.post(this.#segments, { name: this.#posted })) return null
    this.#posted++
    return this.literal.offered(this.#posted - 1)
  }

  get rules(): RequirementId[] {
    return this.violations.map(({ rule, side, queue }) => {
      expect([side, queue]).toEqual(['device', 5])
      return rule
    })
  }

  /** The ring is broken, says so once, touches nothing any more, and every owner is there to be ended. */
  broken(rule: RequirementId, owners: readonly number[]): void {
    expect(this.rules).toEqual([rule])
    expect(this.ring.broken).toBe(true)
    this.journal.clear()
    expect([this.ring.reap(), this.ring.rearm(), this.ring.publish(), this.post()]).toEqual([
      null,
      false,
      false,
      null,
    ])
    expect(this.journal.accesses).toEqual([])
    expect(this.violations).toHaveLength(1)
    expect(
      this.ring
        .drain()
        .map(({ name }) => name)
        .sort((a, b) => a - b),
    ).toEqual(owners)
    expect([this.ring.outstanding, this.ring.drain()]).toEqual([0, []])
  }
}

/** Two requests are out, heads in `heads`, and a third is posted and not published. */
interface Forgery {
  readonly what: string
  readonly rule: RequirementId
  readonly forge: (literal: LiteralRing, heads: readonly [number, number, number]) => void
}

const FORGERIES: readonly Forgery[] = [
  ...[3, 4, 8, 9, 32_768, 65_535].map(
    (ahead): Forgery => ({
      what: `a used index ${ahead} ahead of two that are out`,
      rule: 'split.used-leap',
      forge: (literal, heads) => {
        for (let i = 0; i < 3; i++) literal.use(i, heads[i] ?? 0, 0)
        literal.usedIndex(ahead)
      },
    }),
  ),
  ...[8, 9, 0xffff, 0x1_0000, 0xffff_ffff].map(
    (id): Forgery => ({
      what: `the id ${id}, which is no descriptor`,
      rule: 'split.used-id',
      forge: (literal) => {
        literal.use(0, id, 0)
        literal.usedIndex(1)
      },
    }),
  ),
  {
    what: 'the id of a free descriptor',
    rule: 'split.used-id',
    forge: (literal, heads) => {
      const free = [0, 1, 2, 3, 4, 5, 6, 7].find(
        (id) => !heads.includes(id) && id !== literal.descriptor(heads[0]).next,
      )
      literal.use(0, free ?? 0, 0)
      literal.usedIndex(1)
    },
  },
  {
    what: 'the id of a descriptor inside a chain',
    rule: 'split.used-id',
    forge: (literal, heads) => {
      literal.use(0, literal.descriptor(heads[0]).next, 0)
      literal.usedIndex(1)
    },
  },
  {
    what: 'the id of a request that was never published',
    rule: 'split.used-id',
    forge: (literal, heads) => {
      literal.use(0, heads[2], 0)
      literal.usedIndex(1)
    },
  },
]

describe('a hostile device', () => {
  it.each(FORGERIES.map((forgery) => [forgery.what, forgery] as const))('uses %s', (_, { rule, forge }) => {
    const scene = new Scene()
    const heads = [scene.post(3), scene.post(2)] as [number, number]
    scene.ring.publish()
    forge(scene.literal, [...heads, scene.post(1) as number])
    scene.journal.clear()
    expect(scene.ring.reap()).toBeNull()
    const { at, lengthBytes } = scene.usedArea
    expect(scene.journal.reads(at, lengthBytes), 'each field is read once').toBe(1)
    scene.broken(rule, [0, 1, 2])
  })

  it('uses one chain twice, at once or later', () => {
    for (const later of [false, true]) {
      const scene = new Scene()
      const head = scene.post() as number
      scene.post()
      scene.ring.publish()
      scene.literal.use(0, head, 1)
      scene.literal.use(1, head, 2)
      scene.literal.usedIndex(later ? 1 : 2)
      expect(scene.ring.reap()?.owner).toEqual({ name: 0 })
      if (later) scene.literal.usedIndex(2)
      expect(scene.ring.reap()).toBeNull()
      scene.broken('split.used-id', [1])
    }
  })

  it('uses something when nothing is out', () => {
    const scene = new Scene()
    scene.literal.usedIndex(1)
    expect(scene.ring.reap()).toBeNull()
    scene.broken('split.used-leap', [])
  })

  it('uses a head again that came back before and is posted anew, but not published', () => {
    const scene = new Scene()
    const first = scene.post() as number
    scene.post()
    scene.ring.publish()
    scene.literal.use(0, first, 0)
    scene.literal.usedIndex(1)
    expect(scene.ring.reap()?.owner).toEqual({ name: 0 })
    expect(scene.post(), 'the descriptor that came back is taken first').toBe(first)
    scene.literal.use(1, first, 0)
    scene.literal.usedIndex(2)
    expect(scene.ring.reap()).toBeNull()
    scene.broken('split.used-id', [1, 2])
  })

  it('moves its index back, or past the end of 16 bits, wherever the ring stands', () => {
    for (const [start, index] of [
      [6, 5],
      [6, 0],
      [6, 65_535],
      [65_535, 1],
    ] as const) {
      const scene = new Scene()
      for (let entry = 0; entry < start; entry++) {
        const head = scene.post() as number
        scene.ring.publish()
        scene.literal.use(entry, head, 0)
        scene.literal.usedIndex(entry + 1)
        scene.journal.clear()
        expect(scene.ring.reap() === null).toBe(false)
      }
      scene.post()
      scene.ring.publish()
      scene.literal.usedIndex(index)
      expect([start, scene.ring.reap(), scene.rules]).toEqual([start, null, ['split.used-leap']])
      expect(scene.violations[0]?.seen).toBe((index - start + 65_536) % 65_536)
    }
  })

  it('claims to have written more than there was room for, and is believed up to the room', () => {
    const claims = [0, 1, ROOM_BYTES, ROOM_BYTES + 1, 2 ** 31, 0xffff_ffff]
    for (const claim of claims) {
      const scene = new Scene()
      const head = scene.post(2) as number
      scene.ring.publish()
      scene.literal.use(0, head, claim)
      scene.literal.usedIndex(1)
      expect(scene.ring.reap()).toEqual({ owner: { name: 0 }, writtenBytes: Math.min(claim, ROOM_BYTES) })
      expect(scene.ring.broken).toBe(false)
      expect(scene.rules).toEqual(claim > ROOM_BYTES ? ['split.used-length'] : [])
      expect(scene.post()).not.toBeNull()
    }
  })

  it('is told where: a violation names the address of the offending word', () => {
    const device = new Scene().ring.place.device
    const at = (forge: (scene: Scene, head: number) => void) => {
      const scene = new Scene()
      const head = scene.post() as number
      scene.ring.publish()
      forge(scene, head)
      scene.ring.reap()
      return scene.violations.map((violation) => [violation.rule, violation.at])
    }
    expect(at(({ literal }) => literal.usedIndex(2))).toEqual([['split.used-leap', device + 2]])
    expect(
      at(({ literal }, head) => {
        literal.use(0, head + 1, 0)
        literal.usedIndex(1)
      }),
    ).toEqual([['split.used-id', device + 4]])
    expect(
      at(({ literal }, head) => {
        literal.use(0, head, 65)
        literal.usedIndex(1)
      }),
    ).toEqual([['split.used-length', device + 8]])
  })

  it('cannot be asked for what no ring takes', () => {
    const setup = (size: number, indirectSegments: number) => () =>
      new DriverRing({
        platform: { memory: GuestMemory.ofBytes(1 << 16), allocate: () => gpa(0) },
        queue: 0,
        size,
        indirectSegments,
        eventIdx: false,
        violated() {},
      })
    for (const size of [0, 3, 65_536, -8, 1.5, Number.NaN]) expect(setup(size, 0)).toThrow()
    for (const table of [9, Number.NaN]) expect(setup(8, table)).toThrow()
    const scene = new Scene()
    const none = new Segments()
    expect(() => scene.ring.post(none, { name: 0 })).toThrow()
    expect(() => scene.post(9)).toThrow()
    expect(scene.post(8)).not.toBeNull()
  })

  it('rewrites everything the driver wrote, at any time, and changes nothing', () => {
    fc.assert(
      fc.property(
        fc.record({
          size: fc.constantFrom(1, 2, 4, 8, 16),
          eventIdx: fc.boolean(),
          indirect: fc.boolean(),
          noise: fc.integer({ min: 1, max: 255 }),
          steps: fc.array(
            fc.tuple(fc.constantFrom('post', 'post', 'show', 'use', 'use', 'reap'), fc.nat(15)),
            {
              maxLength: 80,
              size: 'max',
            },
          ),
        }),
        (shape) => rewrite(shape),
      ),
      { numRuns: 150 },
    )
  })

  it('writes anything anywhere in the used ring, and no owner is lost or comes back twice', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(1, 2, 4, 8),
        fc.boolean(),
        fc.array(
          fc.record({
            posts: fc.nat(3),
            index: fc.oneof({ weight: 9, arbitrary: fc.nat(3) }, fc.nat(0xffff)),
            id: fc.oneof({ weight: 9, arbitrary: fc.nat(8) }, fc.nat(0xffff_ffff)),
            len: fc.oneof(fc.nat(70), fc.nat(0xffff_ffff)),
            event: fc.nat(0xffff),
            flags: fc.nat(0xffff),
          }),
          { maxLength: 30 },
        ),
        (size, eventIdx, turns) => {
          const scene = new Scene({ size, eventIdx })
          const back: number[] = []
          let posted = 0
          let index = 0
          for (const turn of turns) {
            for (let i = 0; i < turn.posts; i++) if (scene.post() !== null) posted++
            scene.literal.availableEvent(turn.event)
            scene.literal.usedFlags(turn.flags)
            scene.ring.publish()
            index += turn.index
            for (let entry = 0; entry < size; entry++)
              scene.literal.use(entry, (turn.id + entry * 3) % 2 ** 32, turn.len)
            scene.literal.usedIndex(index)
            let looks = 0
            for (let one = scene.ring.reap(); one !== null; one = scene.ring.reap()) {
              expect(one.writtenBytes).toBe(Math.min(turn.len, ROOM_BYTES))
              back.push(one.owner.name)
              expect(++looks).toBeLessThanOrEqual(size)
            }
            scene.ring.rearm()
            expect(scene.ring.outstanding).toBe(posted - back.length)
          }
          const left = scene.ring.drain().map(({ name }) => name)
          const all = [...back, ...left].sort((a, b) => a - b)
          expect(all).toEqual(Array.from({ length: posted }, (_, i) => i))
        },
      ),
      { numRuns: 300 },
    )
  })
})

interface RewriteShape {
  readonly size: number
  readonly eventIdx: boolean
  readonly indirect: boolean
  readonly noise: number
  readonly steps: readonly (readonly ['post' | 'show' | 'use' | 'reap', number])[]
}

/**
 * The device keeps its own account of what was offered, scrambles all the driver wrote after every step, and
 * scrambles each of its own words as soon as the driver has read it. The driver has to notice nothing.
 */
function rewrite({ size, eventIdx, indirect, noise, steps }: RewriteShape): void {
  const scene = new Scene({ size, eventIdx, indirect })
  const { ring, literal, journal, usedArea } = scene
  const bytes = scene.memory.regions[0]?.bytes as Uint8Array
  const scramble = () => {
    for (const { at, lengthBytes } of scene.areas) {
      if (at === usedArea.at) continue
      for (let i = 0; i < lengthBytes; i++) bytes[at + i] = (bytes[at + i] as number) ^ noise
    }
  }
  const expected: { name: number; needs: number }[] = []
  const unshown: { name: number; head: number; needs: number }[] = []
  const out: { name: number; head: number; needs: number }[] = []
  let free = size
  let posted = 0
  let used = 0
  for (const [step, choice] of steps) {
    journal.clear()
    if (step === 'post') {
      const count = 1 + (choice % Math.min(size, 4))
      const needs = indirect && count > 1 ? 1 : count
      const head = scene.post(count)
      expect(head !== null).toBe(needs <= free)
      if (head === null) continue
      free -= needs
      unshown.push({ name: posted, head, needs })
      posted++
    } else if (step === 'show') {
      ring.publish()
      out.push(...unshown.splice(0))
    } else if (step === 'use') {
      const [one] = out.splice(choice % Math.max(1, out.length), 1)
      if (one === undefined) continue
      literal.use(used, one.head, choice)
      used++
      literal.usedIndex(used)
      expected.push(one)
    } else {
      // An entry is scrambled once it was read: nobody looks at it twice.
      journal.after = ({ kind, at, lengthBytes }) => {
        if (kind !== 'read') return
        for (let i = 0; i < lengthBytes; i++) bytes[at + i] = (bytes[at + i] as number) ^ noise
      }
      const one = ring.reap()
      journal.after = null
      const next = expected.shift()
      expect(one?.owner.name).toBe(next?.name)
      free += next?.needs ?? 0
      expect(journal.reads(usedArea.at, usedArea.lengthBytes)).toBeLessThanOrEqual(1)
    }
    for (const { at, lengthBytes } of scene.areas) {
      if (at !== usedArea.at)
        expect(journal.bytesRead(at, lengthBytes), 'what it wrote it never reads').toBe(0)
    }
    expect(
      journal.written().filter((at) => at >= usedArea.at && at < usedArea.at + usedArea.lengthBytes),
    ).toEqual([])
    scramble()
  }
  expect(scene.violations).toEqual([])
  expect(ring.outstanding).toBe(unshown.length + out.length + expected.length)
}
