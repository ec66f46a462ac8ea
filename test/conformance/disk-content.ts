import assert from 'node:assert/strict'
import fc from 'fast-check'
import type { DiskOp } from '../../host/disk/backend.ts'
import { assertBytes, type DiskCase, isZero, noise, OpenSubject } from './disk-subject.ts'

/** Blocks of a window that the random model watches; there is one at each end of the disk. */
const WINDOW_BLOCKS = 32

/** Cuts `bytes` into views: the cuts may coincide, so that some are empty. */
function cutUp(bytes: Uint8Array, cuts: readonly number[]): Uint8Array[] {
  const places = [...cuts.map((cut) => cut % (bytes.length + 1)), 0, bytes.length].sort((a, b) => a - b)
  return places.slice(1).map((end, index) => bytes.subarray(places[index], end))
}

/** A flat array beside the disk. Bytes are -1 where the contract leaves open what is read. */
class Model {
  readonly open: OpenSubject
  readonly start: number
  readonly bytes: Int16Array

  constructor(open: OpenSubject, start: number, content: Uint8Array) {
    this.open = open
    this.start = start
    this.bytes = Int16Array.from(content)
  }

  check(offset: number, read: Uint8Array, what: string): void {
    for (let index = 0; index < read.length; index++) {
      const expected = this.bytes[offset - this.start + index]
      if (expected !== -1 && read[index] !== expected) {
        assert.fail(`${what}: byte ${offset + index} is ${read[index]}, expected ${expected}`)
      }
    }
  }

  set(offset: number, values: Uint8Array | number, lengthBytes: number): void {
    const from = offset - this.start
    if (typeof values === 'number') this.bytes.fill(values, from, from + lengthBytes)
    else this.bytes.set(values, from)
  }
}

interface Step {
  readonly op: DiskOp
  readonly last: boolean
  readonly block: number
  readonly count: number
  readonly seed: number
  readonly cuts: readonly number[]
  readonly fua: boolean
}

function stepsFor(ops: readonly DiskOp[]): fc.Arbitrary<Step[]> {
  const step = fc.record({
    op: fc.constantFrom(...ops),
    last: fc.boolean(),
    block: fc.nat(WINDOW_BLOCKS - 1),
    count: fc.oneof(fc.integer({ min: 0, max: 3 }), fc.nat(WINDOW_BLOCKS)),
    seed: fc.nat(1_000_000),
    cuts: fc.array(fc.nat(1_000_000), { maxLength: 3 }),
    fua: fc.boolean(),
  })
  return fc.array(step, { maxLength: 25 })
}

async function play(
  open: OpenSubject,
  models: readonly [Model, Model],
  steps: readonly Step[],
): Promise<void> {
  for (const step of steps) {
    const model = step.last ? models[1] : models[0]
    const offset = model.start + step.block * open.block
    const lengthBytes = Math.min(step.count, WINDOW_BLOCKS - step.block) * open.block
    if (step.op === 'flush') {
      await open.must('flush', 0, 0)
    } else if (step.op === 'read') {
      const bytes = new Uint8Array(lengthBytes).fill(0xee)
      await open.must('read', offset, lengthBytes, cutUp(bytes, step.cuts))
      model.check(offset, bytes, 'read')
    } else if (step.op === 'write') {
      const bytes = noise(lengthBytes, step.seed)
      const kept = bytes.slice()
      await open.must('write', offset, lengthBytes, cutUp(bytes, step.cuts), {
        fua: step.fua && open.facts.can.fua,
      })
      assertBytes(bytes, kept, 'what was lent to a write')
      model.set(offset, kept, lengthBytes)
    } else {
      await open.must(step.op, offset, lengthBytes)
      model.set(offset, step.op === 'zero' ? 0 : -1, lengthBytes)
    }
  }
  for (const model of models) {
    model.check(model.start, await open.read(model.start, model.bytes.length), 'the whole window')
  }
}

export const diskContentCases: readonly DiskCase[] = [
  {
    name: 'whatever is written, zeroed, discarded and erased, reads agree with a flat array',
    needs: ['writable'],
    run: async (subject) => {
      let ops: DiskOp[] = []
      await OpenSubject.with(subject, async ({ facts }) => {
        const offered = (['zero', 'discard', 'erase'] as const).filter((op) => facts.can[op])
        ops = ['read', 'read', 'write', 'write', 'flush', ...offered]
      })
      await fc.assert(
        fc.asyncProperty(stepsFor(ops), (steps) =>
          OpenSubject.with(subject, async (open) => {
            const window = WINDOW_BLOCKS * open.block
            const starts = [0, open.lengthBytes - window] as const
            const first = new Model(open, starts[0], await open.read(starts[0], window))
            const last = new Model(open, starts[1], await open.read(starts[1], window))
            await play(open, [first, last], steps)
          }),
        ),
        { numRuns: 40 },
      )
    },
  },
  {
    name: 'the same place reads the same, whole or in pieces, however the views are cut',
    needs: [],
    run: (subject) =>
      OpenSubject.with(subject, async (open) => {
        const { block } = open
        for (const start of [0, open.lengthBytes - 16 * block]) {
          const whole = await open.read(start, 16 * block)
          for (let index = 0; index < 16; index++) {
            const one = await open.read(start + index * block, block)
            assertBytes(one, whole.subarray(index * block, (index + 1) * block), `block ${index}`)
          }
          const pieces = new Uint8Array(16 * block + 64).fill(0x5a)
          const inside = pieces.subarray(31, 31 + 16 * block)
          await open.must('read', start, 16 * block, cutUp(inside, [1, 1, 513, 514, 4095, 7001]))
          assertBytes(inside, whole, 'read in pieces')
          const outside = [...pieces.subarray(0, 31), ...pieces.subarray(31 + 16 * block)]
          assert.ok(
            outside.every((byte) => byte === 0x5a),
            'a read wrote beside the lent views',
          )
        }
      }),
  },
  {
    name: 'more than a thousand views are filled and taken in order',
    needs: ['writable'],
    run: (subject) =>
      OpenSubject.with(subject, async (open) => {
        const lengthBytes = Math.ceil(40_000 / open.block) * open.block
        const cuts = Array.from({ length: 2500 }, (_, index) => index * 13)
        const bytes = noise(lengthBytes, 5)
        await open.must('write', open.block, lengthBytes, cutUp(bytes, cuts))
        const read = new Uint8Array(lengthBytes)
        await open.must('read', open.block, lengthBytes, cutUp(read, cuts))
        assertBytes(read, bytes, 'read back')
      }),
  },
  {
    name: 'data on both sides of 4 GiB is kept apart from the start of the disk',
    needs: ['writable', 'more than 4 GiB'],
    run: (subject) =>
      OpenSubject.with(subject, async (open) => {
        const lengthBytes = 65_536
        const places = [0, 2 ** 31 - 32_768, 2 ** 32 - 32_768, open.lengthBytes - lengthBytes]
        for (const [index, place] of places.entries()) await open.write(place, noise(lengthBytes, index))
        for (const [index, place] of places.entries()) {
          assertBytes(await open.read(place, lengthBytes), noise(lengthBytes, index), `at ${place}`)
        }
        if (open.facts.can.zero) {
          await open.must('zero', 2 ** 32, 32_768)
          const half = await open.read(2 ** 32 - 32_768, lengthBytes)
          assertBytes(half.subarray(0, 32_768), noise(lengthBytes, 2).subarray(0, 32_768), 'below 4 GiB')
          assert.ok(isZero(half.subarray(32_768)), 'zeroed above 4 GiB')
          assertBytes(await open.read(0, lengthBytes), noise(lengthBytes, 0), 'the start')
        }
      }),
  },
  {
    name: 'a zero makes exactly its range zero, whether or not it may unmap',
    needs: ['zero'],
    run: (subject) =>
      OpenSubject.with(subject, async (open) => {
        const { block } = open
        const total = 131_072
        for (const mayUnmap of [false, true]) {
          const bytes = noise(total, 6)
          await open.write(0, bytes)
          await open.must('zero', block, total - 2 * block, [], { mayUnmap, fua: open.facts.can.fua })
          const read = await open.read(0, total)
          assert.ok(isZero(read.subarray(block, total - block)), 'inside')
          assertBytes(read.subarray(0, block), bytes.subarray(0, block), 'before')
          assertBytes(read.subarray(total - block), bytes.subarray(total - block), 'after')
        }
      }),
  },
  {
    name: 'a discard leaves its neighbours alone',
    needs: ['discard'],
    run: (subject) => leavesNeighbours(subject, 'discard'),
  },
  {
    name: 'an erase leaves its neighbours alone and nothing of the old content',
    needs: ['erase'],
    run: (subject) => leavesNeighbours(subject, 'erase'),
  },
  {
    name: 'the whole disk can be zeroed, discarded and erased at once',
    needs: ['zero', 'discard', 'erase'],
    run: (subject) =>
      OpenSubject.with(subject, async (open) => {
        for (const op of ['zero', 'discard', 'erase'] as const) {
          await open.write(0, noise(open.block, 8))
          await open.write(open.lengthBytes - open.block, noise(open.block, 9))
          await open.must(op, 0, open.lengthBytes)
          if (op !== 'zero') continue
          assert.ok(isZero(await open.read(0, open.block)), 'first block')
          assert.ok(isZero(await open.read(open.lengthBytes - open.block, open.block)), 'last block')
        }
      }),
  },
  {
    name: 'a write through the cache is read back',
    needs: ['fua'],
    run: (subject) =>
      OpenSubject.with(subject, async (open) => {
        const bytes = noise(4 * open.block, 10)
        await open.write(open.block, bytes, { fua: true })
        assertBytes(await open.read(open.block, bytes.length), bytes, 'read back')
      }),
  },
  {
    name: 'extents cover exactly what was asked, in order, and tell the truth about zeroes',
    needs: ['extents'],
    run: (subject) =>
      OpenSubject.with(subject, async (open) => {
        const { block } = open
        if (!open.facts.readOnly) {
          // The end first: extents come in the order of the disk, not of the writes.
          await open.write(open.lengthBytes - block, noise(block, 13))
          await open.write(65_536 + 3 * block, noise(5 * block, 12))
          await open.write(block, noise(block, 11))
          if (open.facts.can.discard) await open.must('discard', 65_536 + 4 * block, 2 * block)
          if (open.facts.can.zero) await open.must('zero', 8 * block, 4 * block)
        }
        const asked = [
          [0, open.lengthBytes],
          [0, 131_072],
          [block, 131_072 - block],
          [65_536 - block, 8 * block],
          [open.lengthBytes - block, block],
        ] as const
        for (const [offset, lengthBytes] of asked) await checkExtents(open, offset, lengthBytes)
      }),
  },
]

async function leavesNeighbours(subject: Parameters<DiskCase['run']>[0], op: DiskOp): Promise<void> {
  await OpenSubject.with(subject, async (open) => {
    const { block } = open
    const total = 131_072
    const bytes = noise(total, 7)
    await open.write(0, bytes)
    await open.must(op, block, total - 2 * block)
    const read = await open.read(0, total)
    assertBytes(read.subarray(0, block), bytes.subarray(0, block), 'before')
    assertBytes(read.subarray(total - block), bytes.subarray(total - block), 'after')
    if (op !== 'erase') return
    for (let at = block; at < total - block; at += 16) {
      const same = read.subarray(at, at + 16).every((byte, index) => byte === bytes[at + index])
      assert.ok(!same, `16 bytes at ${at} are still what they were`)
    }
  })
}

async function checkExtents(open: OpenSubject, offset: number, lengthBytes: number): Promise<void> {
  const { extents } = await open.must('extents', offset, lengthBytes)
  let at = offset
  for (const extent of extents) {
    assert.equal(extent.offset, at, 'an extent begins where the last one ended')
    assert.ok(extent.lengthBytes > 0, 'an extent has bytes')
    assert.ok(['data', 'zero', 'hole'].includes(extent.kind), `kind ${extent.kind}`)
    at += extent.lengthBytes
    const looked = Math.min(extent.lengthBytes, 262_144)
    if (extent.kind !== 'data' && looked % open.block === 0) {
      assert.ok(
        isZero(await open.read(extent.offset, looked)),
        `a ${extent.kind} at ${extent.offset} reads zero`,
      )
    }
  }
  assert.equal(at, offset + lengthBytes, 'extents end where the range ends')
}
