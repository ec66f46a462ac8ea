import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { SplitRing } from '../../host/virtio/split-ring.ts'
import { DmaSpace } from '../../protocol/dma.ts'
import type { Gpa } from '../../protocol/memory.ts'
import type { Cursor, Window } from '../../protocol/window.ts'
import { HOSTILE_CHAINS } from '../fuzz/hostile-chain.ts'
import { HostileScene, hostileGround } from '../fuzz/hostile-scene.ts'
import type { LiteralDescriptor } from '../fuzz/literal-ring.ts'
import { L_INDIRECT, L_NEXT, L_WRITE, LiteralRing } from '../fuzz/literal-ring.ts'
import { buffersOf } from './ends.ts'
import { DESCRIPTORS, DEVICE, DRIVER, Scene } from './hostile-stage.ts'

/**
 * How a chain is walked: by the short walk as far as it goes; by it above a gap only, since plain memory begins
 * there; by the whole one from the first buffer on, since no memory is plain; by that one, field by field.
 */
const WALKS = ['short', 'short above', 'whole', 'apart'] as const

interface Setting {
  readonly size: number
  readonly indirect: boolean
  readonly start: number
  /** Heads offered, one after the other. */
  readonly heads: readonly number[]
  readonly plant: (scene: HostileScene) => void
}

/** Everything a device makes of the chains offered, and where it leaves the ring. */
function judged({ size, indirect, start, heads, plant }: Setting, walk: (typeof WALKS)[number]) {
  const scene = new Scene({ size, indirect, start, plain: walk !== 'apart' })
  const { dma, ground, hostile, literal, ring, violations } = scene
  if (walk === 'whole' || walk === 'short above') {
    dma.plainBase = ground.vast
    dma.plainEnd = walk === 'whole' ? ground.vast : ground.end
  }
  plant(hostile)
  for (const head of heads) hostile.offer(head)
  const taken = []
  for (let chain = ring.next(); chain !== null; chain = ring.next()) {
    const { head, id, count, readableCount, readableBytes, writableBytes } = chain
    taken.push({ head, id, count, readableCount, readableBytes, writableBytes, buffers: buffersOf(chain) })
  }
  const told = ring.publish()
  const used = Array.from({ length: size }, (_, i) => literal.usedEntry(start + i))
  const { broken, inFlight } = ring
  const out = ring.headsOut()
  return { taken, violations: [...violations], told, used, broken, inFlight, out, at: ring.position() }
}

function expectAgreed(setting: Setting): void {
  const [short, ...others] = WALKS.map((walk) => judged(setting, walk))
  for (const other of others) expect(short).toEqual(other)
}

const GROUND = hostileGround()
const SIZE = 8

const address = fc.oneof(
  { arbitrary: fc.integer({ min: 0, max: 0x2000 }).map((by) => GROUND.data + by), weight: 6 },
  fc.integer({ min: -20, max: 20 }).chain((by) => {
    const edges = [
      GROUND.seam,
      GROUND.gap,
      GROUND.afterGap,
      GROUND.end,
      GROUND.vast,
      2 ** 31,
      2 ** 32,
      2 ** 53,
    ]
    return fc.constantFrom(...edges).map((edge) => edge + by)
  }),
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
)
const length = fc.oneof(
  { arbitrary: fc.integer({ min: 1, max: 64 }), weight: 6 },
  fc.constantFrom(0, 16, 128, 4096, 0x2_0000, 0x2_0001, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff),
)
const flags = fc.oneof(
  { arbitrary: fc.constantFrom(0, L_NEXT, L_NEXT, L_NEXT, L_WRITE, L_NEXT | L_WRITE), weight: 8 },
  fc.constantFrom(L_INDIRECT, L_INDIRECT | L_NEXT, L_INDIRECT | L_WRITE, 0xfff8, 0xfff9, 0xffff),
)
const link = fc.oneof({ arbitrary: fc.nat(SIZE - 1), weight: 12 }, fc.constantFrom(SIZE, 0x7fff, 0xffff))
const descriptor: fc.Arbitrary<LiteralDescriptor> = fc.record({
  addr: address,
  len: length,
  flags,
  next: link,
})

describe('the short walk of a chain', () => {
  it.each(HOSTILE_CHAINS.map((chain) => [`${chain.kind}: ${chain.what}`, chain] as const))(
    'judges %s as the whole one does',
    (_, { size = SIZE, indirect = true, plant }) => {
      for (const start of [0, 65_535]) expectAgreed({ size, indirect, start, heads: [], plant })
    },
  )

  it('agrees with the whole one about any descriptors, offered in any order', () => {
    fc.assert(
      fc.property(
        fc.array(descriptor, { minLength: SIZE, maxLength: SIZE }),
        fc.array(descriptor, { minLength: 1, maxLength: SIZE }),
        fc.array(fc.oneof({ arbitrary: fc.nat(SIZE - 1), weight: 12 }, fc.constantFrom(SIZE, 0xffff)), {
          minLength: 1,
          maxLength: SIZE,
        }),
        fc.record({ indirect: fc.boolean(), start: fc.constantFrom(0, 7, 65_533), pointed: fc.nat(SIZE) }),
        (descriptors, table, heads, { indirect, start, pointed }) => {
          expectAgreed({
            ...{ size: SIZE, indirect, start, heads },
            plant(scene) {
              const at = scene.table(table)
              for (const [index, one] of descriptors.entries()) scene.ring.describe(index, one)
              const whole = { addr: at, len: 16 * table.length, flags: L_INDIRECT }
              if (pointed < SIZE) scene.ring.describe(pointed, whole)
            },
          })
        },
      ),
      { numRuns: 1500 },
    )
  })

  it('agrees about rows of every length, to the end of the budget and round it', () => {
    for (const size of [1, 2, 4, 8]) {
      for (let count = 1; count <= size; count++) {
        for (const next of [undefined, 0, count - 1, count % size]) {
          for (const writableFrom of [0, 1, count - 1, count]) {
            const plant = (scene: HostileScene) => {
              const row = scene.row(count, next).map((one, i) => ({
                ...one,
                flags: (one.flags ?? 0) | (i >= writableFrom ? L_WRITE : 0),
              }))
              scene.chain(row)
            }
            expectAgreed({ size, indirect: true, start: 0, heads: [], plant })
          }
        }
      }
    }
  })

  it('says of a chain of too many bytes where its table lies, the one of the ring or its own', () => {
    for (const walk of WALKS) {
      for (const isNested of [false, true]) {
        let table = DESCRIPTORS
        const plant = (scene: HostileScene) => {
          const row = scene.row(129).map((one) => ({ ...one, addr: scene.ground.vast, len: 2 ** 25 }))
          if (isNested) table = scene.table(row)
          scene.chain(isNested ? [{ addr: table, len: 16 * row.length, flags: L_INDIRECT }] : row)
        }
        const { violations } = judged({ size: 256, indirect: true, start: 0, heads: [], plant }, walk)
        const bytes = 129 * 2 ** 25
        expect(violations).toMatchObject([
          { rule: 'split.chain-bytes', at: table, seen: bytes, expected: 2 ** 32 },
        ])
      }
    }
  })

  it('reads each word of a descriptor once, and leaves none of them to be read again', () => {
    const rows: readonly (readonly LiteralDescriptor[])[] = [
      [
        { addr: GROUND.data, len: 16, flags: L_NEXT, next: 1 },
        { addr: GROUND.data + 64, len: 64, flags: L_NEXT | L_WRITE, next: 2 },
        { addr: GROUND.data + 256, len: 1, flags: L_WRITE },
      ],
      // Left to the whole walk in the middle: an empty buffer, one in the lower region, one out of order.
      [
        { addr: GROUND.data, len: 16, flags: L_NEXT, next: 1 },
        { addr: GROUND.data, len: 0, flags: L_NEXT, next: 2 },
        { addr: GROUND.seam - 8, len: 16, flags: L_WRITE },
      ],
      [
        { addr: GROUND.data, len: 16, flags: L_NEXT | L_WRITE, next: 1 },
        { addr: GROUND.data, len: 16, flags: 0 },
      ],
      // At once: a table, and one behind a buffer.
      [{ addr: GROUND.table, len: 64, flags: L_INDIRECT }],
      [
        { addr: GROUND.data, len: 16, flags: L_NEXT, next: 1 },
        { addr: GROUND.table, len: 64, flags: L_INDIRECT },
      ],
    ]
    const table: readonly LiteralDescriptor[] = [
      { addr: GROUND.data, len: 8, flags: L_NEXT, next: 2 },
      { addr: GROUND.gap, len: 8, flags: L_WRITE },
      { addr: GROUND.data + 64, len: 0, flags: L_NEXT, next: 3 },
      { addr: GROUND.data + 64, len: 8, flags: L_WRITE },
    ]
    for (const row of rows) {
      const { memory } = hostileGround()
      const reads: number[] = []
      const place = { size: SIZE, descriptors: DESCRIPTORS, driver: DRIVER, device: DEVICE }
      const ring = SplitRing.start({
        ...{ dma: new WatchedTable(memory, reads), queue: 0, place, sizeMax: SIZE, indirect: true },
        ...{ eventIdx: true, position: { available: 0, used: 0 }, retake: [], listener: { violated() {} } },
      })
      if (!(ring instanceof SplitRing)) throw new Error('the ring does not start')
      const literal = new LiteralRing(memory, place)
      literal.table(GROUND.table, table)
      new HostileScene(literal, hostileGround(), 0).chain(row)
      ring.next()
      const wordsOf = (at: number) => [0, 4, 8, 12].map((word) => at + word)
      const expected = row.flatMap((_, index) => wordsOf(DESCRIPTORS + 16 * index))
      const isTable = row.some(({ flags = 0 }) => (flags & L_INDIRECT) !== 0)
      if (isTable) expected.push(...[0, 2, 3].flatMap((index) => wordsOf(GROUND.table + 16 * index)))
      expect([...reads].sort((a, b) => a - b)).toEqual(expected)
    }
  })
})

/** Memory that notes which words of descriptor tables are read, by their addresses. */
class WatchedTable extends DmaSpace {
  readonly #reads: number[]

  constructor(memory: DmaSpace['memory'], reads: number[]) {
    super(memory)
    this.#reads = reads
  }

  override window(at: Gpa, lengthBytes: number, alignment: number): Window | null {
    const window = super.window(at, lengthBytes, alignment)
    if (window === null || at !== DESCRIPTORS) return window
    return this.#watched(window, at)
  }

  override point(cursor: Cursor, at: Gpa, lengthBytes: number): boolean {
    const window = super.window(at, lengthBytes, 4)
    if (window === null) return false
    cursor.window = this.#watched(window, at)
    cursor.base = 0
    return true
  }

  #watched(window: Window, at: number): Window {
    const reads = this.#reads
    window.words = new Proxy(window.words, {
      get(words, key) {
        const index = typeof key === 'string' ? Number(key) : Number.NaN
        if (Number.isInteger(index)) reads.push(at + 4 * index)
        return Reflect.get(words, key, words)
      },
    })
    return window
  }
}
