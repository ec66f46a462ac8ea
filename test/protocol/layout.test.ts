import { describe, expect, it } from 'vitest'
import { BlkConfig, Mmio, VirtqAvail, VirtqDesc, VirtqUsedElem } from '../../protocol/index.ts'
import {
  array,
  be16,
  be64,
  bytes,
  elementBytes,
  isLayout,
  le16,
  le32,
  le64,
  nested,
  struct,
  tail,
  u8,
} from '../../protocol/layout.ts'
import { TestList, TestMap, TestPacked, TestPoint, TestShape } from './declarations.ts'

describe('struct', () => {
  it('puts each field after the one before', () => {
    expect({ ...VirtqDesc }).toMatchObject({ addr: 0, len: 8, flags: 12, next: 14, $size: 16 })
    expect({ ...TestShape }).toMatchObject({
      kind: 0,
      marks: 1,
      gap: 2,
      corners: 4,
      origin: 16,
      weights: 20,
      id: 32,
    })
  })

  it('packs without alignment, and keeps registers at their own places', () => {
    expect({ ...TestPacked }).toMatchObject({
      tag: 0,
      wide: 1,
      middle: 9,
      short: 13,
      where: 15,
      list: 19,
      end: 25,
    })
    expect({ ...TestMap }).toMatchObject({ low: 4, high: 0x10, last: 0x1c, $size: 0x20 })
    expect(Mmio.QueueNotify).toBe(0x50)
  })

  it('adds nothing for a tail', () => {
    expect([VirtqAvail.ring, VirtqAvail.$size]).toEqual([4, 4])
    expect(elementBytes(VirtqUsedElem)).toBe(8)
    expect(elementBytes(le16('x'))).toBe(2)
  })

  it('has the size of its newest version', () => {
    expect(BlkConfig.$size).toBe(96)
    expect(BlkConfig.$sizes).toEqual({ '1.0': 33, '1.1': 60, '1.2': 72, '1.3': 96 })
  })

  it('cannot be changed', () => {
    expect(Object.isFrozen(VirtqDesc)).toBe(true)
    expect(isLayout(VirtqDesc)).toBe(true)
    expect([null, 1, {}, { $name: 'x' }, []].some(isLayout)).toBe(false)
  })

  const ok = { a: le16('a'), b: le16('b') }
  it.each<[string, () => unknown, string]>([
    ['a size that is too large', () => struct('s', 'r', 8, ok), 's only.version: fields end at 4'],
    ['a size that is too small', () => struct('s', 'r', 2, ok), 's only.version: fields end at 4'],
    [
      'a wrong size for one of its versions',
      () => struct('s', 'r', { '1.0': 4, '1.1': 8 }, { ...ok, c: le16('c', { since: '1.1' }) }),
      's 1.1: fields end at 6, the specification says 8',
    ],
    [
      'a field of a version that has no size',
      () => struct('s', 'r', { '1.0': 2 }, { a: le16('a'), b: le16('b', { since: '1.1' }) }),
      's.b: since 1.1, which has no size',
    ],
    [
      'since without sizes',
      () => struct('s', 'r', 4, { a: le16('a'), b: le16('b', { since: '1.1' }) }),
      's.b: since 1.1',
    ],
    [
      'overlap',
      () => struct('s', 'r', 4, { a: le32('a'), b: le16('b', { at: 2 }) }),
      's.b: offset 2 overlaps',
    ],
    [
      'a misaligned field',
      () => struct('s', 'r', 5, { a: u8('a'), b: le32('b') }),
      's.b: offset 1 is not a multiple of 4',
    ],
    ['a misaligned be16', () => struct('s', 'r', 3, { a: u8('a'), b: be16('b') }), 'not a multiple of 2'],
    ['a misaligned place', () => struct('s', 'r', 8, { a: le64('a', { at: 4 }) }), 'not a multiple of 8'],
    [
      'a misaligned array',
      () => struct('s', 'r', 12, { a: le32('a'), b: array(be64('b'), 1, 'b') }),
      'not a multiple of 8',
    ],
    [
      'a misaligned tail',
      () => struct('s', 'r', 2, { a: le16('a'), b: tail(le32('b'), 'b') }),
      'not a multiple of 4',
    ],
    [
      'a misaligned structure',
      () => struct('s', 'r', 5, { a: u8('a'), b: nested(TestPoint, 'b') }),
      'not a multiple of 2',
    ],
    ['a name with $', () => struct('s', 'r', 1, { $size: u8('a') }), 's.$size: names with $'],
    [
      'a field after a tail',
      () => struct('s', 'r', 1, { a: tail(u8('a'), 'a'), b: u8('b') }),
      's.b: nothing follows a tail',
    ],
    [
      'a nested tail',
      () => struct('s', 'r', 8, { a: nested(TestList, 'a') }),
      's.a: a structure with a tail',
    ],
    [
      'an array of tails',
      () => struct('s', 'r', 16, { a: array(TestList, 2, 'a') }),
      's.a: a structure with a tail',
    ],
    [
      'a tail of tails',
      () => struct('s', 'r', 0, { a: tail(TestList, 'a') }),
      's.a: a structure with a tail',
    ],
  ])('refuses %s', (_what, declare, message) => {
    expect(declare).toThrow(message)
  })

  it('takes a packed structure at any offset', () => {
    const packed = struct('p', 'r', 4, { x: le32('x') }, { packed: true })
    expect(struct('s', 'r', 5, { a: u8('a'), b: nested(packed, 'b') }).b).toBe(1)
    expect(struct('s', 'r', 4, { a: u8('a'), b: bytes(3, 'b') }).b).toBe(1)
  })
})
