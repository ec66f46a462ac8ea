import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { MemoryDisk } from '../../host/disk/memory.ts'
import type { SavedMmio } from '../../host/virtio/mmio-state.ts'
import { Mmio } from '../../protocol/virtio/mmio.ts'
import { BlkRig, placeAt, placeEnd } from './blk-rig.ts'

const GEOMETRY = { blockBytes: 512, physicalBlockBytes: 512, readOnly: false, serial: '' }

function rigOf(memory?: BlkRig['memory']): BlkRig {
  return new BlkRig({
    backend: new MemoryDisk(32_768, GEOMETRY),
    limits: { queues: 2, queueSize: 16 },
    ...(memory === undefined ? {} : { memory }),
  })
}

/** A device in use, and its snapshot as plain JSON. */
function used(): { readonly rig: BlkRig; readonly saved: SavedMmio } {
  const rig = rigOf()
  const queue = rig.bringUp(rig.device.offered, 16)
  rig.startQueue(1, placeAt(placeEnd(queue.place), 8))
  rig.write(0x120, 0, 1)
  const at = 0x1000
  rig.bytes.fill(0, at, at + 16)
  queue.offer([
    { at, lengthBytes: 16, write: false },
    { at: at + 16, lengthBytes: 513, write: true },
  ])
  queue.publish()
  rig.kick()
  rig.drain()
  return { rig, saved: JSON.parse(JSON.stringify(rig.transport.save())) as SavedMmio }
}

type Json = null | boolean | number | string | Json[] | { [name: string]: Json }

/** Where each value of a JSON tree is, leaves twice: they are what a slight change changes. */
function pathsOf(value: Json, path: readonly (string | number)[] = []): (readonly (string | number)[])[] {
  if (typeof value !== 'object' || value === null) return [path, path]
  return [path, ...Object.entries(value).flatMap(([key, inner]) => pathsOf(inner, [...path, key]))]
}

function replaced(value: Json, path: readonly (string | number)[], by: Json | undefined): Json {
  const [key, ...rest] = path
  if (key === undefined) return by ?? null
  const copy = (Array.isArray(value) ? [...value] : { ...(value as object) }) as { [name: string]: Json }
  if (by === undefined && rest.length === 0) delete copy[key]
  else copy[key] = replaced(copy[key] ?? null, rest, by)
  return copy
}

const strange: fc.Arbitrary<Json | undefined> = fc.oneof(
  { weight: 6, arbitrary: fc.nat(20) as fc.Arbitrary<Json> },
  fc.constantFrom<Json | undefined>(
    undefined,
    null,
    true,
    -1,
    -0,
    0,
    1,
    2,
    15,
    16,
    64,
    79,
    128,
    255,
    256,
    0.5,
  ),
  fc.constantFrom<Json>(0xffff, 0x1_0000, 0xffff_ffff, 2 ** 32, 2 ** 53, 1e300, '', 'f', '1g', '100000000'),
  fc.constantFrom<Json>([], {}, [0], [0, 0], [16], { position: { available: 1, used: 0 }, heads: [0] }),
  fc.integer(),
  fc.string(),
  fc.jsonValue() as fc.Arbitrary<Json>,
)

/** The second queue with heads that its position accounts for. */
function withHeads(saved: Json, heads: number[]): Json {
  const running = { position: { available: heads.length, used: 0 }, heads }
  return replaced(saved, ['queues', 1, 'running'], running)
}

/** Loads, and insists on all or nothing. */
function expectAllOrNothing(rig: BlkRig, value: unknown): string | null {
  const before = rig.transport.save()
  const generation = rig.device.configGeneration
  const error = rig.transport.load(value)
  if (error !== null) {
    expect(error).not.toBe('')
    expect(rig.transport.save()).toEqual(before)
    expect(rig.device.configGeneration).toBe(generation)
    expect([rig.line.level, rig.line.rises]).toEqual([false, 0])
    rig.drain()
    expect(rig.bringUp(rig.device.offered, 16).reap()).toBe(null)
    expect(rig.status).toBe(15)
    return error
  }
  const again = rig.transport.save()
  const other = rigOf(rig.memory)
  expect(other.transport.load(JSON.parse(JSON.stringify(again)))).toBe(null)
  expect(other.transport.save()).toEqual(again)
  return null
}

describe('a snapshot is input like any other', () => {
  test('arbitrary JSON is refused with a reason, or nothing happens', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const error = expectAllOrNothing(rigOf(), value)
        expect(error).not.toBe(null)
      }),
    )
  })

  test('a snapshot with a few values replaced is refused whole or taken whole, and never throws later', () => {
    const counts = { taken: 0, refused: 0 }
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(1000), strange), { minLength: 1, maxLength: 2 }), (changes) => {
        const { rig: source, saved } = used()
        let value = saved as unknown as Json
        for (const [pick, by] of changes) {
          const paths = pathsOf(value)
          value = replaced(value, paths[pick % paths.length] ?? [], by)
        }
        const rig = rigOf(source.memory)
        const error = expectAllOrNothing(rig, value)
        if (error === null) counts.taken++
        else counts.refused++
        // Whatever was taken is a state that the device can live with.
        for (const queue of [0, 1, 2]) rig.kick(queue)
        rig.drain()
        rig.write(Mmio.Status, 0)
        rig.drain()
        expect(rig.status).toBe(0)
        expect(rig.transport.save().queues).toEqual(rigOf().transport.save().queues)
      }),
      { numRuns: 600 },
    )
    expect(counts.taken).toBeGreaterThan(10)
    expect(counts.refused).toBeGreaterThan(200)
  })

  const refusals: readonly (readonly [string, (saved: Json) => Json])[] = [
    ['a version of another meaning', (saved) => replaced(saved, ['version'], 2)],
    ['DRIVER_OK without FEATURES_OK', (saved) => replaced(saved, ['status'], 7)],
    ['a status bit nobody defines', (saved) => replaced(saved, ['status'], 47)],
    ['features that were not offered', (saved) => replaced(saved, ['driverFeatures'], '100000001')],
    ['features without VERSION_1', (saved) => replaced(saved, ['driverFeatures'], '0')],
    ['a queue that runs before FEATURES_OK', (saved) => replaced(saved, ['status'], 3)],
    ['a queue too few', (saved) => replaced(saved, ['queues'], [])],
    ['a queue larger than offered', (saved) => replaced(saved, ['queues', 1, 'registers', 'size'], 32)],
    ['areas outside memory', (saved) => replaced(saved, ['queues', 1, 'registers', 'descHigh'], 1)],
    ['a head out of its queue', (saved) => withHeads(saved, [8])],
    ['a head that is out twice', (saved) => withHeads(saved, [3, 3])],
    ['heads that the position denies', (saved) => replaced(saved, ['queues', 1, 'running', 'heads'], [3])],
    [
      'an interrupt before DRIVER_OK',
      (saved) => replaced(replaced(saved, ['status'], 11), ['interruptStatus'], 1),
    ],
    ['a generation of half', (saved) => replaced(saved, ['device', 'generation'], 0.5)],
    ['a cache mode that is none', (saved) => replaced(saved, ['device', 'writeback'], 1)],
    [
      'a cache mode that nobody could switch',
      (saved) => {
        const features = BigInt(`0x${(saved as unknown as SavedMmio).driverFeatures}`) & ~(1n << 11n)
        return replaced(saved, ['driverFeatures'], features.toString(16))
      },
    ],
  ]
  for (const [what, change] of refusals) {
    test(`refuses ${what}`, () => {
      const { rig: source, saved } = used()
      const rig = rigOf(source.memory)
      expect(expectAllOrNothing(rig, change(saved as unknown as Json))).not.toBe(null)
    })
  }

  test('takes heads that are right: they are what a driver waits for', () => {
    const { rig: source, saved } = used()
    expect(rigOf(source.memory).transport.load(withHeads(saved as unknown as Json, [7, 3]))).toBe(null)
  })

  test('a device in use takes none', () => {
    const { rig, saved } = used()
    const before = rig.transport.save()
    expect(rig.transport.load(saved)).not.toBe(null)
    expect(rig.transport.save()).toEqual(before)
  })
})
