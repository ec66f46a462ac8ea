import assert from 'node:assert/strict'
import type { DiskChange, DiskOp } from '../../host/disk/backend.ts'
import { assertBytes, type DiskCase, isZero, noise, OpenSubject, type TestIo } from './disk-subject.ts'

const OPS: readonly DiskOp[] = ['read', 'write', 'flush', 'discard', 'zero', 'erase', 'extents', 'resize']

/** Many reads, and writes where they are allowed, submitted without waiting; each to blocks of its own. */
function burst(open: OpenSubject, count: number): TestIo[] {
  const { block } = open
  const size = Math.max(block, 1024)
  const ios: TestIo[] = []
  for (let index = 0; index < count; index++) {
    const write = index % 2 === 0 && !open.facts.readOnly
    const bytes = write ? noise(size, index) : new Uint8Array(size)
    ios.push(open.start(write ? 'write' : 'read', (index % 64) * size, size, [bytes]))
    if (index % 10 === 9) ios.push(open.start('flush', 0, 0))
  }
  return ios
}

export const diskLifeCases: readonly DiskCase[] = [
  {
    name: 'every request of a burst is answered, exactly once',
    needs: [],
    run: (subject) =>
      OpenSubject.with(subject, async (open) => {
        const ios = burst(open, 64)
        await open.settle()
        for (const io of ios) assert.equal(io.outcome, 'ok', `${io.op} at ${io.offset}`)
      }),
  },
  {
    name: 'writes in flight at once to one place leave whole blocks of one or the other',
    needs: ['writable'],
    run: (subject) =>
      OpenSubject.with(subject, async (open) => {
        const { block } = open
        const writers = [noise(4 * block, 20), noise(4 * block, 21), noise(4 * block, 22)]
        const ios = writers.map((bytes, index) => open.start('write', index * block, 4 * block, [bytes]))
        await open.settle()
        for (const io of ios) assert.equal(io.outcome, 'ok')
        const read = await open.read(0, 6 * block)
        for (let index = 0; index < 6; index++) {
          const found = read.subarray(index * block, (index + 1) * block)
          const candidates = writers.map((bytes, writer) =>
            bytes.subarray((index - writer) * block, (index - writer + 1) * block),
          )
          const known = candidates.some(
            (bytes, writer) =>
              index >= writer && index < writer + 4 && bytes.every((byte, place) => byte === found[place]),
          )
          assert.ok(known, `block ${index} is none of the writes'`)
        }
      }),
  },
  {
    name: 'a flush is answered after the writes before it were, and while others are in flight',
    needs: ['writable'],
    run: (subject) =>
      OpenSubject.with(subject, async (open) => {
        const { block } = open
        await open.write(0, noise(block, 30))
        await open.must('flush', 0, 0)
        assertBytes(await open.read(0, block), noise(block, 30), 'after the flush')
        const before = open.start('write', block, block, [noise(block, 31)])
        const flushes = [open.start('flush', 0, 0), open.start('flush', 0, 0)]
        const after = open.start('write', 2 * block, block, [noise(block, 32)])
        await open.settle()
        for (const io of [before, ...flushes, after]) assert.equal(io.outcome, 'ok', io.op)
        assertBytes(await open.read(block, block), noise(block, 31), 'written before')
        assertBytes(await open.read(2 * block, block), noise(block, 32), 'written after')
      }),
  },
  {
    name: 'a request may be submitted from inside the answer of another',
    needs: [],
    run: (subject) =>
      OpenSubject.with(subject, async (open) => {
        const ios: TestIo[] = []
        const next = () => {
          if (ios.length >= 100) return
          const io = open.start('flush', 0, 0)
          ios.push(io)
          if (io.answered) next()
          else io.onAnswer = next
        }
        const first = open.start('read', 0, open.block, [new Uint8Array(open.block)])
        if (first.answered) next()
        else first.onAnswer = next
        await open.settle()
        assert.equal(ios.length, 100)
        for (const io of ios) assert.equal(io.outcome, 'ok')
      }),
  },
  {
    name: 'a request that is given up is still answered once: cancelled or done, never half a block',
    needs: [],
    run: (subject) =>
      OpenSubject.with(subject, async (open) => {
        const { block } = open
        const old = await open.read(0, 128 * block)
        const ios: TestIo[] = []
        for (let index = 0; index < 64; index++) {
          const write = index % 2 === 0 && !open.facts.readOnly
          const bytes = write ? noise(2 * block, index) : new Uint8Array(2 * block)
          ios.push(open.start(write ? 'write' : 'read', 2 * index * block, 2 * block, [bytes]))
        }
        for (const io of ios) io.cancel()
        await open.settle()
        for (const [index, io] of ios.entries()) {
          assert.ok(io.outcome === 'ok' || io.outcome === 'cancelled', `${io.op}: ${io.outcome}`)
          io.cancel()
          if (io.op !== 'write' || io.outcome !== 'ok') continue
          assertBytes(await open.read(io.offset, 2 * block), noise(2 * block, index), 'a write that was done')
        }
        await open.settle()
        const now = await open.read(0, 128 * block)
        for (let at = 0; at < 128; at++) {
          const found = now.subarray(at * block, (at + 1) * block)
          const unchanged = found.every((byte, place) => byte === old[at * block + place])
          const written = noise(2 * block, Math.floor(at / 2)).subarray((at % 2) * block)
          assert.ok(unchanged || found.every((byte, place) => byte === written[place]), `block ${at}`)
        }
        await open.must('flush', 0, 0)
      }),
  },
  {
    name: 'closing answers what is in flight, then finishes, once',
    needs: [],
    run: async (subject) => {
      const open = await subject.open()
      let ends = 0
      let lateAnswers = 0
      await OpenSubject.with({ ...subject, open: async () => open }, async (held) => {
        const ios = burst(held, 40)
        for (const io of ios) {
          io.onAnswer = () => {
            if (ends > 0) lateAnswers += 1
          }
        }
        open.close(() => {
          ends += 1
        })
        const late = new Uint8Array(held.block)
        const refused = held.start('read', 0, held.block, [late])
        await subject.settle()
        assert.equal(ends, 1, 'times finished')
        for (const io of ios) {
          assert.ok(io.outcome === 'ok' || io.outcome === 'cancelled', `${io.op}: ${io.outcome}`)
        }
        assert.equal(lateAnswers, 0, 'answers after it finished')
        assert.equal(refused.outcome, 'gone', 'a request after close')
      })
    },
  },
  {
    name: 'after it has closed every request is answered gone',
    needs: [],
    run: (subject) =>
      OpenSubject.with(subject, async (open) => {
        const { block } = open
        open.disk.close(() => {})
        await subject.settle()
        for (const op of OPS) {
          const bytes = new Uint8Array(block).fill(0xee)
          const io = await open.ask(op, 0, block, op === 'read' || op === 'write' ? [bytes] : [])
          assert.equal(io.outcome, 'gone', op)
          assert.ok(
            bytes.every((byte) => byte === 0xee),
            `${op} touched the lent view`,
          )
        }
      }),
  },
  {
    name: 'a new length is announced once it holds; what is cut off does not come back',
    needs: ['resize'],
    run: (subject) =>
      OpenSubject.with(subject, async (open) => {
        const { block } = open
        const length = open.lengthBytes
        const short = length - 4 * block
        const heard: [DiskChange, number][] = []
        const deaf: DiskChange[] = []
        open.disk.watch((change) => heard.push([change, open.disk.facts.lengthBytes]))
        const unwatch = open.disk.watch((change) => deaf.push(change))
        unwatch()
        await open.write(length - 4 * block, noise(4 * block, 40))
        await open.must('resize', 0, short)
        assert.equal(open.lengthBytes, short)
        const beyond = await open.ask('read', short, block, [new Uint8Array(block)])
        assert.equal(beyond.outcome, 'out-of-range')
        await open.must('resize', 0, length)
        assert.ok(isZero(await open.read(length - 4 * block, 4 * block)), 'grown again, it is zero')
        if (length + 4 * block <= 2 ** 53) {
          await open.must('resize', 0, length + 4 * block)
          assert.ok(isZero(await open.read(length, 4 * block)), 'what is new is zero')
          await open.write(length, noise(4 * block, 41))
          assertBytes(await open.read(length, 4 * block), noise(4 * block, 41), 'what is new can be written')
          await open.must('resize', 0, length)
          assert.equal(heard.length, 4)
        }
        await open.must('resize', 0, length)
        assert.deepEqual(heard.slice(0, 2), [
          ['size', short],
          ['size', length],
        ])
        assert.equal(heard.length, length + 4 * block <= 2 ** 53 ? 4 : 2, 'no news for the same length')
        assert.deepEqual(deaf, [], 'told after it stopped watching')
      }),
  },
  {
    name: 'a resize among other requests leaves them answered and the length as asked',
    needs: ['resize'],
    run: (subject) =>
      OpenSubject.with(subject, async (open) => {
        const { block } = open
        const length = open.lengthBytes
        const bytes = noise(block, 42)
        const ios: TestIo[] = []
        for (let index = 0; index < 20; index++) {
          ios.push(open.start('write', length - block, block, [bytes]))
          if (index === 9) ios.push(open.start('resize', 0, length - 8 * block))
        }
        await open.settle()
        for (const io of ios) assert.ok(io.outcome === 'ok' || io.outcome === 'out-of-range', `${io.outcome}`)
        assert.equal(open.lengthBytes, length - 8 * block)
        await open.must('resize', 0, length)
        assert.ok(isZero(await open.read(length - 8 * block, 8 * block)), 'nothing came back')
      }),
  },
  {
    name: 'a length that no disk can have is refused and changes nothing',
    needs: ['resize'],
    run: (subject) =>
      OpenSubject.with(subject, async (open) => {
        const length = open.lengthBytes
        const wrong = [Number.NaN, Number.POSITIVE_INFINITY, -1, -open.block, 2 ** 54, 2 ** 64, 0.5]
        if (open.block > 1) wrong.push(1, length - 1)
        let changes = 0
        open.disk.watch(() => {
          changes += 1
        })
        for (const lengthBytes of wrong) {
          const io = await open.ask('resize', 0, lengthBytes)
          assert.ok(
            io.outcome === 'out-of-range' || io.outcome === 'misaligned',
            `${lengthBytes}: ${io.outcome}`,
          )
          assert.equal(open.lengthBytes, length)
        }
        assert.equal(changes, 0)
      }),
  },
  {
    name: 'cut short from outside, it fails what is lost, says its new size and serves the rest',
    needs: ['cut'],
    run: (subject) =>
      OpenSubject.with(subject, async (open) => {
        const { block } = open
        const length = open.lengthBytes
        const left = Math.floor(length / 2 / block) * block
        const heard: DiskChange[] = []
        open.disk.watch((change) => heard.push(change))
        const first = await open.read(0, block)
        subject.cut?.(left)
        const lost = await open.ask('read', length - block, block, [new Uint8Array(block)])
        assert.ok(lost.outcome === 'out-of-range' || lost.outcome === 'medium-error', `${lost.outcome}`)
        const half = new Uint8Array(4 * block).fill(0xee)
        const across = await open.ask('read', left - block, 4 * block, [half])
        assert.ok(across.outcome === 'out-of-range' || across.outcome === 'medium-error', `${across.outcome}`)
        assert.deepEqual(heard, ['size'])
        assert.equal(open.lengthBytes, left)
        assertBytes(await open.read(0, block), first, 'what is left')
      }),
  },
]
