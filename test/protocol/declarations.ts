import {
  array,
  be16,
  be32,
  be64,
  bytes,
  le16,
  le32,
  le64,
  nested,
  struct,
  tail,
  u8,
} from '../../protocol/layout.ts'

/** Declarations with everything the engine can do and VIRTIO's structures do not use. */
export const TestPoint = struct('test_point', 'none', 4, {
  x: le16('across'),
  y: be16('down, the other way round'),
})

export const TestShape = struct('test_shape', 'none', 40, {
  kind: u8('what', { names: { LINE: 1, PLANE: 2 } }),
  marks: u8('how', { bits: { CLOSED: 1, FILLED: 4 } }),
  gap: bytes(2, 'zero', { reserved: true }),
  corners: array(TestPoint, 3, 'corner points'),
  origin: nested(TestPoint, 'where it starts'),
  weights: array(be32('weight'), 3, 'three'),
  id: be64('opaque'),
})

export const TestPacked = struct(
  'test_packed',
  'none',
  26,
  {
    tag: u8('one'),
    wide: le64('unaligned'),
    middle: be32('unaligned'),
    short: le16('unaligned'),
    where: nested(TestPoint, 'unaligned'),
    list: array(le16('word'), 3, 'words'),
    end: u8('last'),
  },
  { packed: true },
)

export const TestGrown = struct(
  'test_grown',
  'none',
  { '1.0': 4, '2.0': 8, '2.1': 8, '3.0': 24 },
  {
    first: le32('always'),
    second: le16('later', { since: '2.0' }),
    third: le16('later', { since: '2.0' }),
    fourth: le64('last', { since: '3.0' }),
    fifth: bytes(8, 'last', { since: '3.0' }),
  },
)

export const TestMap = struct('test_map', 'none', 0x20, {
  low: le32('register', { at: 0x4, access: 'R' }),
  high: le32('register', { at: 0x10, access: 'W' }),
  last: le32('register', { at: 0x1c, access: 'RW' }),
})

export const TestList = struct('test_list', 'none', 8, {
  count: le64('how many'),
  shapes: tail(TestShape, 'that many'),
})

export const TestWords = struct('test_words', 'none', 8, {
  stamp: le64('when'),
  words: tail(be64('word', { bits: { TOP: 2 ** 31 } }), 'the rest'),
})
