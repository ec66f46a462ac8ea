import { describe, expect, it } from 'vitest'
import { Segments } from '../../guest/virtio/segments.ts'
import { DriverRing } from '../../guest/virtio/split-ring.ts'
import type { Chain } from '../../host/virtio/chain.ts'
import type { Field } from '../../protocol/layout.ts'
import { gpa } from '../../protocol/memory.ts'
import { RevocableWindow } from '../../protocol/revocable-window.ts'
import { SeamWindow } from '../../protocol/seam-window.ts'
import { Window } from '../../protocol/window.ts'
import { HOSTILE_CHAINS } from '../fuzz/hostile-chain.ts'
import type { HostileChain } from '../fuzz/hostile-scene.ts'
import { hostileGround } from '../fuzz/hostile-scene.ts'
import { JournalMemory } from '../fuzz/journal.ts'
import { LiteralDevice } from '../fuzz/literal-device.ts'
import { L_INDIRECT, L_NEXT, L_WRITE, LiteralRing } from '../fuzz/literal-ring.ts'
import { buffersOf, unexpected } from './ends.ts'
import { Scene } from './hostile-stage.ts'

/** Everything a device makes of one chain. */
function judged(chain: HostileChain, start: number, plain: boolean) {
  const scene = new Scene({ size: chain.size ?? 8, indirect: chain.indirect ?? true, start, plain })
  chain.plant(scene.hostile)
  const { ring, literal, violations } = scene
  const taken = ring.next()
  if (taken !== null) ring.complete(taken, Math.min(taken.writableBytes, 1))
  const told = ring.publish()
  const buffers = taken === null ? null : buffersOf(taken)
  const { broken } = ring
  const used = [literal.used.index, literal.usedEntry(start)]
  return { buffers, violations: [...violations], told, broken, used, position: ring.position() }
}

describe('a ring that is met by words', () => {
  it.each(HOSTILE_CHAINS.map((chain) => [`${chain.kind}: ${chain.what}`, chain] as const))(
    '%s, judged as field by field',
    (_, chain) => {
      for (const start of [0, 65_535]) expect(judged(chain, start, true)).toEqual(judged(chain, start, false))
    },
  )

  it('follows an indirect table wherever it lies, aligned or not', () => {
    for (const plain of [true, false]) {
      for (let shift = 0; shift < 16; shift++) {
        const scene = new Scene({ plain })
        const { ground, hostile, ring } = scene
        const [high = 0, low] = [ground.vast, ground.data]
        const at = hostile.table(
          [
            { addr: low, len: 16, flags: L_NEXT, next: 1 },
            { addr: high + 8, len: 24, flags: L_WRITE },
          ],
          ground.table + shift,
        )
        hostile.chain([{ addr: at, len: 32, flags: L_INDIRECT }])
        expect(buffersOf(ring.next() as Chain)).toEqual([
          { at: low, lengthBytes: 16, write: false },
          { at: high + 8, lengthBytes: 24, write: true },
        ])
        expect(scene.violations).toEqual([])
      }
    }
  })
})

describe('a driver that writes by words', () => {
  it('names addresses beyond 4 GiB whole, as it does field by field', () => {
    const posted = (plain: boolean, indirectSegments: number) => {
      const { memory, data } = hostileGround()
      const addresses = [data, 2 ** 32, 2 ** 32 + 0x1_2340, data + 1]
      let top = 0x1000
      const ring = new DriverRing<object>({
        platform: {
          memory: plain ? memory : new JournalMemory(memory),
          allocate(lengthBytes, alignment) {
            const at = Math.ceil(top / alignment) * alignment
            top = at + lengthBytes
            return gpa(at)
          },
        },
        queue: 0,
        size: 8,
        indirectSegments,
        eventIdx: true,
        violated: unexpected,
      })
      const segments = new Segments()
      for (const at of addresses) segments.writable(gpa(at), 16)
      expect(ring.post(segments, {})).toBe(true)
      ring.publish()
      const taken = new LiteralDevice(new LiteralRing(memory, ring.place), { eventIdx: true }).next()
      expect(taken?.buffers.map(({ at }) => at)).toEqual(addresses)
      return memory.regions.map(({ bytes }) => bytes)
    }
    for (const table of [0, 8]) expect(posted(true, table)).toEqual(posted(false, table))
  })
})

describe('the words of a window', () => {
  const at = (offset: number) => offset as Field<'le16'> & Field<'le32'>

  it('are its bytes, where they can be had', () => {
    const room = new Uint8Array(64)
    const window = new Window(room.subarray(8, 28))
    window.putLe32(at(4), 0x8765_4321)
    expect([window.words.length, window.words[1], window.halves[2]]).toEqual([5, 0x8765_4321, 0x4321])
    window.halves[9] = 0xabcd
    expect([window.le16(at(18)), window.loadIndex(at(18))]).toEqual([0xabcd, 0xabcd])
    window.storeIndex(at(16), 0x1234)
    expect([window.le32(at(16)), room.subarray(0, 8), room.subarray(28)]).toEqual([
      0xabcd_1234,
      new Uint8Array(8),
      new Uint8Array(36),
    ])
  })

  it('are none where they would be wrong', () => {
    const room = new Uint8Array(64)
    const lengths = ({ halves, words }: Window) => [halves.length, words.length]
    expect(lengths(new Window(room.subarray(2, 22)))).toEqual([10, 0])
    expect(lengths(new Window(room.subarray(1, 21)))).toEqual([0, 0])
    expect(lengths(new Window(room.subarray(0, 20), true))).toEqual([0, 5])
    expect(lengths(new SeamWindow([room.subarray(0, 8), room.subarray(32, 40)]))).toEqual([0, 0])
    expect(lengths(new Window())).toEqual([0, 0])
  })

  it('go and come back with the bytes of a window that is revoked', () => {
    const bytes = new Uint8Array(16)
    const window = new RevocableWindow()
    window.aim(bytes)
    window.storeIndex(at(2), 7)
    expect([window.halves.length, window.words.length, bytes[2]]).toEqual([8, 4, 7])
    const met: string[] = []
    window.detach({
      lengthBytes: 16,
      load: (from, into) => met.push(`load ${from} ${into.length}`),
      store: (to, from) => met.push(`store ${to} ${from.length}`),
    })
    window.storeIndex(at(2), 9)
    window.loadIndex(at(4))
    expect([window.halves.length, window.words.length, window.indices.length, bytes[2]]).toEqual([0, 0, 0, 7])
    expect(met).toEqual(['store 2 2', 'load 4 2'])
    window.aim(bytes)
    expect(window.loadIndex(at(2))).toBe(7)
    expect([window.halves.length, window.words.length]).toEqual([8, 4])
  })
})
