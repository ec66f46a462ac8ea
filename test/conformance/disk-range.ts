import assert from 'node:assert/strict'
import fc from 'fast-check'
import type { DiskOp } from '../../host/disk/backend.ts'
import { factsInvalid } from '../../host/disk/facts.ts'
import { assertBytes, type DiskCase, noise, OpenSubject } from './disk-subject.ts'

/** Views this long are lent at most: the length asked for may be anything. */
const LENT_MAX = 65_536
const CHANGES: readonly DiskOp[] = ['write', 'discard', 'zero', 'erase', 'resize']

/** What a request must come to, in arithmetic that cannot round. Null where the numbers are no byte counts. */
function inRange(offset: number, lengthBytes: number, limit: number): boolean | null {
  if (!Number.isInteger(offset) || !Number.isInteger(lengthBytes)) return null
  if (offset < 0 || lengthBytes < 0) return false
  return BigInt(offset) + BigInt(lengthBytes) <= BigInt(limit)
}

function edges(block: number, limit: number): number[] {
  const around = [0, block, limit, limit / 2, 2 ** 31, 2 ** 32, 2 ** 53, 2 ** 63, 2 ** 64]
  const found = new Set<number>()
  for (const edge of around) {
    const whole = Math.floor(edge / block) * block
    for (const offset of [whole - block, whole, whole + block]) if (offset >= 0) found.add(offset)
  }
  return [...found]
}

async function judgeOne(open: OpenSubject, op: DiskOp, offset: number, lengthBytes: number): Promise<void> {
  const expected = inRange(offset, lengthBytes, open.lengthBytes)
  if (expected === true && lengthBytes > LENT_MAX) return
  const bytes = new Uint8Array(Math.max(0, Math.min(lengthBytes, LENT_MAX) || 0)).fill(0xee)
  const io = await open.ask(op, offset, lengthBytes, op === 'read' || op === 'write' ? [bytes] : [])
  const what = `${op} of ${lengthBytes} at ${offset} of ${open.lengthBytes}`
  if (expected === true) {
    assert.equal(io.outcome, 'ok', what)
    return
  }
  if (expected === false) assert.equal(io.outcome, 'out-of-range', what)
  else assert.ok(io.outcome === 'out-of-range' || io.outcome === 'misaligned', `${what}: ${io.outcome}`)
  assert.equal(io.bytesDone, 0, `${what}: bytes done`)
  assert.ok(
    bytes.every((byte) => byte === 0xee),
    `${what}: refused, yet it touched the lent view`,
  )
}

/** What may be asked of a range without changing what it holds. */
function harmless(open: OpenSubject): DiskOp[] {
  return open.facts.can.extents ? ['read', 'extents'] : ['read']
}

/** The ops that change a range and that this disk offers. */
function changes(open: OpenSubject): DiskOp[] {
  if (open.facts.readOnly) return []
  const { zero, discard, erase } = open.facts.can
  const offered: DiskOp[] = ['write']
  if (zero) offered.push('zero')
  if (discard) offered.push('discard')
  if (erase) offered.push('erase')
  return offered
}

export const diskRangeCases: readonly DiskCase[] = [
  {
    name: 'facts are sound',
    needs: [],
    run: (subject) =>
      OpenSubject.with(subject, async (open) => {
        assert.equal(factsInvalid(open.facts), null)
        assert.ok(open.lengthBytes >= 131_072, 'a disk under test is at least 128 KiB long')
      }),
  },
  {
    name: 'a range is judged without overflow at 0, at the end, at 2^31, 2^32, 2^53, 2^63 and 2^64',
    needs: [],
    run: (subject) =>
      OpenSubject.with(subject, async (open) => {
        const lengths = [0, open.block, 2 ** 32, open.lengthBytes, 2 ** 53, 2 ** 64 - 2 ** 12, 2 ** 64]
        for (const offset of edges(open.block, open.lengthBytes)) {
          for (const lengthBytes of lengths) {
            for (const op of harmless(open)) await judgeOne(open, op, offset, lengthBytes)
          }
        }
      }),
  },
  {
    name: 'any range near an edge is judged as big integers judge it',
    needs: [],
    run: (subject) =>
      OpenSubject.with(subject, async (open) => {
        const near = fc
          .tuple(fc.constantFrom(...edges(open.block, open.lengthBytes)), fc.integer({ min: -8, max: 8 }))
          .map(([edge, blocks]) => edge + blocks * open.block)
        await fc.assert(
          fc.asyncProperty(near, fc.oneof(near, fc.nat(8)), async (offset, length) => {
            await judgeOne(open, 'read', offset, Math.floor(length / open.block) * open.block)
          }),
          { numRuns: 200 },
        )
      }),
  },
  {
    name: 'a change out of range is refused and changes nothing',
    needs: ['writable'],
    run: (subject) =>
      OpenSubject.with(subject, async (open) => {
        const { block, lengthBytes: limit } = open
        await open.write(0, noise(block, 1))
        await open.write(limit - block, noise(block, 2))
        for (const op of changes(open)) {
          for (const [offset, length] of [
            [limit - block, 2 * block],
            [limit, block],
            [limit + block, block],
            [block, limit],
            [2 ** 63, block],
            [2 ** 64 - block, 2 * block],
            [block, 2 ** 64 - block],
            [-block, 2 * block],
          ] as const) {
            await judgeOne(open, op, offset, length)
          }
        }
        assertBytes(await open.read(0, block), noise(block, 1), 'first block')
        assertBytes(await open.read(limit - block, block), noise(block, 2), 'last block')
        assert.equal(open.lengthBytes, limit)
      }),
  },
  {
    name: 'not-a-number, infinities, negative numbers and fractions are refused',
    needs: [],
    run: (subject) =>
      OpenSubject.with(subject, async (open) => {
        const { NaN: nan, POSITIVE_INFINITY: inf, NEGATIVE_INFINITY: minus } = Number
        const odd = [nan, inf, minus, -1, -open.block, -(2 ** 53), 0.5, open.block + 0.5]
        for (const op of [...harmless(open), ...changes(open)]) {
          for (const wrong of odd) {
            await judgeOne(open, op, wrong, open.block)
            await judgeOne(open, op, 0, wrong)
          }
          await judgeOne(open, op, nan, nan)
        }
      }),
  },
  {
    name: 'offsets and lengths that are not whole blocks are misaligned',
    needs: ['blocks of more than a byte'],
    run: (subject) =>
      OpenSubject.with(subject, async (open) => {
        const { block } = open
        for (const op of [...harmless(open), ...changes(open)]) {
          for (const [offset, length] of [
            [1, block],
            [0, 1],
            [0, block + 1],
            [block / 2, block],
            [block - 1, 1],
            [block, block / 2],
          ] as const) {
            const lent = op === 'read' || op === 'write' ? [new Uint8Array(length)] : []
            const io = await open.ask(op, offset, length, lent)
            assert.equal(io.outcome, 'misaligned', `${op} of ${length} at ${offset}`)
            assert.equal(io.bytesDone, 0)
          }
        }
      }),
  },
  {
    name: 'requests for no bytes are answered ok, up to the very end',
    needs: [],
    run: (subject) =>
      OpenSubject.with(subject, async (open) => {
        for (const op of [...harmless(open), ...changes(open)]) {
          for (const offset of [0, open.block, open.lengthBytes]) {
            await open.must(op, offset, 0)
            if (op === 'read') await open.must(op, offset, 0, [new Uint8Array(0)])
          }
        }
      }),
  },
  {
    name: 'a read-only disk refuses every change and stays as it is',
    needs: ['read-only'],
    run: (subject) =>
      OpenSubject.with(subject, async (open) => {
        const { block, lengthBytes } = open
        const before = await open.read(0, 4 * block)
        const refusal = await open.ask('write', 0, block, [noise(block, 3)])
        assert.equal(refusal.outcome, 'read-only')
        for (const op of CHANGES) {
          const lent = op === 'write' ? [noise(block, 3)] : []
          for (const fua of [false, true]) {
            const io = await open.ask(op, 0, block, lent, { fua })
            assert.ok(io.outcome === 'read-only' || io.outcome === 'unsupported', `${op}: ${io.outcome}`)
            assert.equal(io.bytesDone, 0, op)
          }
        }
        assertBytes(await open.read(0, 4 * block), before, 'content')
        assert.equal(open.lengthBytes, lengthBytes)
        await open.must('flush', 0, 0)
      }),
  },
  {
    name: 'what a disk cannot do it answers with unsupported',
    needs: ['something unsupported'],
    run: (subject) =>
      OpenSubject.with(subject, async (open) => {
        const { can, readOnly } = open.facts
        const before = await open.read(0, 2 * open.block)
        for (const op of ['zero', 'discard', 'erase', 'resize', 'extents'] as const) {
          if (can[op]) continue
          const io = await open.ask(op, 0, open.block)
          const refused = io.outcome === 'unsupported' || (readOnly && io.outcome === 'read-only')
          assert.ok(refused, `${op}: ${io.outcome}`)
        }
        if (!can.fua) {
          const io = await open.ask('write', 0, open.block, [noise(open.block, 4)], { fua: true })
          assert.ok(io.outcome === 'unsupported' || (readOnly && io.outcome === 'read-only'), 'fua')
        }
        assertBytes(await open.read(0, 2 * open.block), before, 'content')
      }),
  },
]
