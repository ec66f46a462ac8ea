import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { BugCheck } from '../../guest/kernel/bug-check.ts'
import {
  firstEntry,
  initializeList,
  insertBefore,
  insertHead,
  insertTail,
  lastEntry,
  listIsEmpty,
  nextEntry,
  previousEntry,
  removeEntry,
  removeHead,
} from '../../guest/kernel/list.ts'
import { Rig } from './kernel-rig.ts'

const ENTRIES = 6
const step = fc.record({
  do: fc.constantFrom('tail', 'head', 'before', 'remove', 'take'),
  entry: fc.nat(ENTRIES - 1),
  next: fc.nat(ENTRIES),
})

describe('a list', () => {
  it('holds what an array would, either way round', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const rig = new Rig()
        const { memory } = rig.kernel.parts
        const room = rig.room(16 * (ENTRIES + 1))
        const head = room + 16 * ENTRIES
        for (let at = room; at <= head; at += 16) initializeList(memory, at)
        const model: number[] = []
        for (const one of steps) {
          const entry = room + one.entry * 16
          const inside = model.indexOf(entry)
          if (one.do === 'take') expect(removeHead(memory, head)).toBe(model.shift() ?? 0)
          else if (one.do === 'remove') {
            removeEntry(memory, entry)
            if (inside >= 0) model.splice(inside, 1)
          } else if (inside < 0) insert(one.do, entry, one.next)
          expect(walk(firstEntry, nextEntry)).toEqual(model)
          expect(walk(lastEntry, previousEntry)).toEqual([...model].reverse())
          expect(listIsEmpty(memory, head)).toBe(model.length === 0)
        }
        for (const entry of model.splice(0)) removeEntry(memory, entry)

        function insert(how: string, entry: number, nextIndex: number): void {
          const next = model[nextIndex] ?? head
          if (how === 'tail') insertTail(memory, head, entry)
          else if (how === 'head') insertHead(memory, head, entry)
          else insertBefore(memory, next, entry)
          model.splice(how === 'tail' ? model.length : how === 'head' ? 0 : at(next), 0, entry)
        }
        function at(next: number): number {
          return next === head ? model.length : model.indexOf(next)
        }
        function walk(first: typeof firstEntry, next: typeof nextEntry): number[] {
          const found: number[] = []
          for (let entry = first(memory, head); entry !== 0; entry = next(memory, head, entry))
            found.push(entry)
          return found
        }
      }),
      { numRuns: 100 },
    )
  })

  it.each([
    ['above 4 GiB', 0, 1],
    ['behind the end of RAM', 0xffff_fff0, 0],
  ])('stops the system at a link that leads %s', (_what, low, high) => {
    const rig = new Rig()
    const { memory } = rig.kernel.parts
    const head = rig.room(32)
    const entry = head + 16
    for (const [word, walk] of [
      [head >>> 2, () => firstEntry(memory, head)],
      [head >>> 2, () => removeHead(memory, head)],
      [head >>> 2, () => insertHead(memory, head, entry)],
      [(head >>> 2) + 2, () => insertTail(memory, head, entry)],
      [(head >>> 2) + 2, () => lastEntry(memory, head)],
      [(entry >>> 2) + 2, () => removeEntry(memory, entry)],
    ] as const) {
      initializeList(memory, head)
      initializeList(memory, entry)
      memory.words[word] = low
      memory.words[word + 1] = high
      const before = memory.bytes.slice(head, head + 32)
      expect(walk).toThrow(BugCheck)
      expect(memory.bytes.slice(head, head + 32)).toEqual(before)
    }
  })

  // The third would be the list's own place if only its lower 32 bits counted.
  it.each(['behind RAM', 'of an application', 'whose lower half is RAM', 'below zero'])(
    'stops the system at a head or an entry %s, and nothing is written',
    (what) => {
      const rig = new Rig()
      const { memory } = rig.kernel.parts
      const head = rig.room(32)
      const entry = head + 16
      const wild = {
        'behind RAM': memory.lengthBytes,
        'of an application': 2 ** 40,
        'whose lower half is RAM': 2 ** 32 + entry,
        'below zero': -16,
      }[what] as number
      initializeList(memory, head)
      initializeList(memory, entry)
      const before = memory.bytes.slice(head, head + 32)
      for (const use of [
        () => initializeList(memory, wild),
        () => listIsEmpty(memory, wild),
        () => insertTail(memory, head, wild),
        () => insertHead(memory, head, wild),
        () => insertBefore(memory, head, wild),
        () => insertTail(memory, wild, entry),
        () => insertHead(memory, wild, entry),
        () => insertBefore(memory, wild, entry),
        () => removeEntry(memory, wild),
        () => removeHead(memory, wild),
        () => firstEntry(memory, wild),
        () => lastEntry(memory, wild),
        () => nextEntry(memory, head, wild),
        () => previousEntry(memory, head, wild),
      ]) {
        expect(use).toThrow(BugCheck)
        expect(memory.bytes.slice(head, head + 32)).toEqual(before)
      }
    },
  )
})
