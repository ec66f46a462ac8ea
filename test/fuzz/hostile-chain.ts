import type { HostileChain, HostileGround, HostileScene } from './hostile-scene.ts'
import type { LiteralDescriptor } from './literal-ring.ts'
import { L_INDIRECT, L_NEXT, L_WRITE } from './literal-ring.ts'

const bad = (
  kind: string,
  what: string,
  rule: NonNullable<HostileChain['rule']>,
  plant: HostileChain['plant'],
  more: Partial<HostileChain> = {},
): HostileChain => ({ kind, what, rule, outcome: 'drop', plant, ...more })

const twin = (
  kind: string,
  what: string,
  plant: HostileChain['plant'],
  more: Partial<HostileChain> = {},
): HostileChain => ({ kind, what, rule: null, outcome: 'ok', plant, ...more })

const fault = { outcome: 'fault' } as const
const loops = { loops: true } as const

const CHAINS: readonly HostileChain[] = [
  bad(
    'H01',
    'a descriptor whose next is itself',
    'split.chain-length',
    (s) => {
      s.chain([{ addr: s.ground.data, len: 16, flags: L_NEXT, next: 0 }])
    },
    loops,
  ),
  bad(
    'H01',
    'two writable descriptors that follow each other',
    'split.chain-length',
    (s) => {
      s.chain([
        { addr: s.ground.data, len: 16, flags: L_NEXT | L_WRITE, next: 1 },
        { addr: s.ground.data, len: 16, flags: L_NEXT | L_WRITE, next: 0 },
      ])
    },
    loops,
  ),
  bad(
    'H01',
    'a loop of empty buffers',
    'split.chain-length',
    (s) => {
      s.chain([{ addr: s.ground.data, len: 0, flags: L_NEXT, next: 0 }])
    },
    loops,
  ),
  bad(
    'H01',
    'a whole table whose last descriptor leads back',
    'split.chain-length',
    (s) => {
      s.chain(
        Array.from({ length: s.size }, (_, i) => ({
          addr: s.ground.data + i,
          len: 1,
          flags: L_NEXT,
          next: (i + 1) % s.size,
        })),
      )
    },
    loops,
  ),
  bad('H01', 'next just outside the table', 'split.next-range', (s) => {
    s.chain([{ addr: s.ground.data, len: 16, flags: L_NEXT, next: s.size }])
  }),
  bad('H01', 'next far outside the table', 'split.next-range', (s) => {
    s.chain([{ addr: s.ground.data, len: 16, flags: L_NEXT, next: 0xffff }])
  }),
  bad('H01', 'a head just outside the table', 'split.head-range', (s) => s.offer(s.size), fault),
  bad('H01', 'a head far outside the table', 'split.head-range', (s) => s.offer(0xffff), fault),
  twin('H01', 'a chain of every descriptor there is', (s) => {
    for (let i = 0; i < s.size; i++) {
      s.ring.describe(s.size - 1 - i, {
        addr: s.ground.data + i,
        len: 1,
        flags: i === s.size - 1 ? 0 : L_NEXT,
        next: s.size - 2 - i,
      })
      s.expect(s.ground.data + i, 1, false)
    }
    s.offer(s.size - 1)
  }),
  twin('H01', 'a last descriptor with a stale next', (s) => {
    s.chain([{ addr: s.ground.data, len: 16, next: 0xffff }])
    s.expect(s.ground.data, 16, false)
  }),
  twin('H01', 'flags the specification does not define', (s) => {
    s.chain([{ addr: s.ground.data, len: 16, flags: 0xfff8 }])
    s.expect(s.ground.data, 16, false)
  }),
]

const TABLES: readonly HostileChain[] = [
  bad(
    'H02',
    'a table without the feature',
    'split.indirect-not-negotiated',
    (s) => {
      const at = s.table([{ addr: s.ground.data, len: 16 }])
      s.chain([{ addr: at, len: 16, flags: L_INDIRECT }])
    },
    { indirect: false },
  ),
  ...[0, 8, 24, 15, 17, 0xffff_ffff, 0xffff_fff0].map((len) =>
    bad('H02', `a table of ${len} bytes`, 'split.indirect-length', (s) => {
      s.chain([{ addr: s.table([{ addr: s.ground.data, len: 16 }]), len, flags: L_INDIRECT }])
    }),
  ),
  bad('H02', 'a table one longer than the queue', 'split.indirect-length', (s) => {
    const at = s.table(Array.from({ length: s.size + 1 }, () => ({ addr: s.ground.data, len: 1 })))
    s.chain([{ addr: at, len: 16 * (s.size + 1), flags: L_INDIRECT }])
  }),
  bad('H02', 'a table in a gap', 'split.indirect-backed', (s) => {
    s.chain([{ addr: s.ground.gap, len: 16, flags: L_INDIRECT }])
  }),
  bad('H02', 'a table that ends in a gap', 'split.indirect-backed', (s) => {
    s.chain([{ addr: s.ground.gap - 16, len: 32, flags: L_INDIRECT }])
  }),
  bad('H02', 'a table that wraps the address space', 'split.indirect-backed', (s) => {
    s.chain([{ addr: -16n, len: 32, flags: L_INDIRECT }])
  }),
  bad('H02', 'a table in a table', 'split.indirect-nested', (s) => {
    const inner = s.table([{ addr: s.ground.data, len: 16 }])
    const outer = s.table([{ addr: inner, len: 16, flags: L_INDIRECT }], inner + 64)
    s.chain([{ addr: outer, len: 16, flags: L_INDIRECT }])
  }),
  bad('H02', 'a table that is its own entry', 'split.indirect-nested', (s) => {
    const at = s.table([{ addr: s.ground.table, len: 16, flags: L_INDIRECT }])
    s.chain([{ addr: at, len: 16, flags: L_INDIRECT }])
  }),
  bad('H02', 'a table with a successor', 'split.indirect-with-next', (s) => {
    const at = s.table([{ addr: s.ground.data, len: 16 }])
    s.chain([
      { addr: at, len: 16, flags: L_INDIRECT | L_NEXT, next: 1 },
      { addr: s.ground.data, len: 16 },
    ])
  }),
  bad('H02', 'next outside its table and inside the queue', 'split.next-range', (s) => {
    const at = s.table([
      { addr: s.ground.data, len: 16, flags: L_NEXT, next: 2 },
      { addr: s.ground.data, len: 1 },
    ])
    s.chain([{ addr: at, len: 32, flags: L_INDIRECT }])
  }),
  bad(
    'H02',
    'a table that loops',
    'split.chain-length',
    (s) => {
      const at = s.table([{ addr: s.ground.data, len: 16, flags: L_NEXT, next: 0 }])
      s.chain([{ addr: at, len: 16, flags: L_INDIRECT }])
    },
    loops,
  ),
  bad(
    'H02',
    'direct descriptors and a table that exceed the queue together by one',
    'split.chain-length',
    (s) => {
      const direct = s.size >> 1
      const at = s.table(s.row(s.size - direct + 1))
      s.chain([...s.row(direct, direct), { addr: at, len: 16 * (s.size - direct + 1), flags: L_INDIRECT }])
    },
  ),
  bad(
    'H02',
    'direct descriptors and a table that loops',
    'split.chain-length',
    (s) => {
      const at = s.table([{ addr: s.ground.data, len: 0, flags: L_NEXT, next: 0 }])
      s.chain([...s.row(s.size - 1, s.size - 1), { addr: at, len: 16, flags: L_INDIRECT }])
    },
    loops,
  ),
  twin('H02', 'direct descriptors and a table that are a queue size together', (s) => {
    const direct = s.size >> 1
    const at = s.table(s.row(s.size - direct))
    s.chain([...s.row(direct, direct), { addr: at, len: 16 * (s.size - direct), flags: L_INDIRECT }])
    for (let i = 0; i < direct; i++) s.expect(s.ground.data + i, 1, false)
    for (let i = 0; i < s.size - direct; i++) s.expect(s.ground.data + i, 1, false)
  }),
  twin('H02', 'a table as long as the queue', (s) => {
    s.chain([{ addr: s.table(s.row(s.size)), len: 16 * s.size, flags: L_INDIRECT }])
    for (let i = 0; i < s.size; i++) s.expect(s.ground.data + i, 1, false)
  }),
  twin('H02', 'WRITE on the descriptor of a table', (s) => {
    const at = s.table([{ addr: s.ground.data, len: 16 }])
    s.chain([{ addr: at, len: 16, flags: L_INDIRECT | L_WRITE }])
    s.expect(s.ground.data, 16, false)
  }),
  twin('H02', 'a table at an odd address', (s) => {
    const at = s.table([{ addr: s.ground.data, len: 16, flags: L_WRITE }], s.ground.table + 3)
    s.chain([{ addr: at, len: 16, flags: L_INDIRECT }])
    s.expect(s.ground.data, 16, true)
  }),
  twin('H02', 'stale descriptors behind the end of a table', (s) => {
    const at = s.table([
      { addr: s.ground.data, len: 16 },
      { addr: -1n, len: 0xffff_ffff, flags: 7, next: 9 },
    ])
    s.chain([{ addr: at, len: 32, flags: L_INDIRECT }])
    s.expect(s.ground.data, 16, false)
  }),
]

const EMPTY: readonly HostileChain[] = [
  twin('H03', 'a chain that carries nothing', (s) => s.chain([{ addr: s.ground.data, len: 0 }])),
  twin('H03', 'an empty buffer at no address between others', (s) => {
    s.chain([
      { addr: s.ground.data, len: 4, flags: L_NEXT, next: 1 },
      { addr: -1n, len: 0, flags: L_NEXT, next: 2 },
      { addr: s.ground.data + 4, len: 4, flags: L_WRITE | L_NEXT, next: 3 },
      { addr: s.ground.end, len: 0, flags: L_WRITE },
    ])
    s.expect(s.ground.data, 4, false)
    s.expect(s.ground.data + 4, 4, true)
  }),
]

const INDICES: readonly HostileChain[] = [
  bad(
    'H04',
    'an index one more than a queue size ahead',
    'split.available-leap',
    (s) => {
      s.ring.availableIndex(s.entry + s.size + 1)
    },
    fault,
  ),
  bad(
    'H04',
    'an index half the numbers ahead',
    'split.available-leap',
    (s) => {
      s.ring.availableIndex(s.entry + 32_769)
    },
    fault,
  ),
  bad(
    'H04',
    'an index that goes back by one',
    'split.available-leap',
    (s) => {
      s.ring.availableIndex(s.entry + 65_535)
    },
    fault,
  ),
]

const lengthOf = (length: number | ((g: HostileGround) => number), scene: HostileScene): number =>
  typeof length === 'number' ? length : length(scene.ground)

const ADDRESSES: readonly HostileChain[] = [
  ...(
    [
      ['one byte past the end of memory', (g) => g.end, 1],
      ['ends one byte past the end of memory', (g) => g.end - 16, 17],
      ['begins in a gap and ends in memory', (g) => g.afterGap - 1, 2],
      ['begins in memory and ends in a gap', (g) => g.gap - 1, 2],
      ['spans a gap', (g) => g.gap - 16, (g) => g.afterGap - g.gap + 32],
      ['is as long as 32 bits can say', (g) => g.data, 0xffff_ffff],
      ['wraps the address space', () => -8n, 16],
      ['is the last byte of the address space', () => -1n, 1],
      ['has a negative address', () => 1n << 63n, 16],
      ['differs from memory in its high half alone', (g) => BigInt(g.data) + (1n << 52n), 16],
      ['has an address that no double holds', (g) => BigInt(g.data) + (1n << 53n) + 1n, 16],
    ] as readonly (readonly [
      string,
      (g: HostileGround) => number | bigint,
      number | ((g: HostileGround) => number),
    ])[]
  ).flatMap(([what, at, length]) => [
    bad('H07', `a buffer that ${what}`, 'split.buffer-backed', (s) =>
      s.chain([{ addr: at(s.ground), len: lengthOf(length, s) }]),
    ),
    bad('H07', `in a table, a writable buffer that ${what}`, 'split.buffer-backed', (s) => {
      const table = s.table([{ addr: at(s.ground), len: lengthOf(length, s), flags: L_WRITE }])
      s.chain([{ addr: table, len: 16, flags: L_INDIRECT }])
    }),
  ]),
  twin('H07', 'a buffer that ends with memory', (s) => {
    s.chain([{ addr: s.ground.end - 16, len: 16, flags: L_WRITE }])
    s.expect(s.ground.end - 16, 16, true)
  }),
  twin('H07', 'a buffer across adjacent regions', (s) => {
    s.chain([{ addr: s.ground.seam - 8, len: 16, flags: L_WRITE }])
    s.expect(s.ground.seam - 8, 16, true)
  }),
  twin('H07', 'a table across adjacent regions', (s) => {
    const at = s.tableAcross({ addr: s.ground.data, len: 16, flags: L_WRITE })
    s.chain([{ addr: at, len: 16, flags: L_INDIRECT }])
    s.expect(s.ground.data, 16, true)
  }),
  twin('H07', 'buffers that overlap', (s) => {
    s.chain([
      { addr: s.ground.data, len: 16, flags: L_NEXT, next: 1 },
      { addr: s.ground.data + 8, len: 16, flags: L_NEXT, next: 2 },
      { addr: s.ground.data, len: 24, flags: L_WRITE },
    ])
    s.expect(s.ground.data, 16, false)
    s.expect(s.ground.data + 8, 16, false)
    s.expect(s.ground.data, 24, true)
  }),
  twin('H07', 'a buffer that is the ring itself', (s) => {
    s.chain([{ addr: s.ring.place.device, len: 4, flags: L_WRITE }])
    s.expect(s.ring.place.device, 4, true)
  }),
]

const ORDER: readonly HostileChain[] = [
  bad('H08', 'a readable buffer behind a writable one', 'split.readable-after-writable', (s) => {
    s.chain([
      { addr: s.ground.data, len: 16, flags: L_WRITE | L_NEXT, next: 1 },
      { addr: s.ground.data + 16, len: 16 },
    ])
  }),
  bad(
    'H08',
    'in a table, a readable buffer behind a direct writable one',
    'split.readable-after-writable',
    (s) => {
      const at = s.table([{ addr: s.ground.data, len: 16 }])
      s.chain([
        { addr: s.ground.data, len: 16, flags: L_WRITE | L_NEXT, next: 1 },
        { addr: at, len: 16, flags: L_INDIRECT },
      ])
    },
  ),
  bad('H08', 'a readable buffer between writable ones', 'split.readable-after-writable', (s) => {
    s.chain([
      { addr: s.ground.data, len: 16, flags: L_NEXT, next: 1 },
      { addr: s.ground.data, len: 1, flags: L_WRITE | L_NEXT, next: 2 },
      { addr: s.ground.data, len: 1, flags: L_NEXT, next: 3 },
      { addr: s.ground.data, len: 1, flags: L_WRITE },
    ])
  }),
  twin('H08', 'one byte a buffer', (s) => {
    s.chain([
      ...s.row(4, 4),
      { addr: s.ground.data + 9, len: 1, flags: L_WRITE | L_NEXT, next: 5 },
      { addr: s.ground.data + 8, len: 1, flags: L_WRITE },
    ])
    for (let i = 0; i < 4; i++) s.expect(s.ground.data + i, 1, false)
    s.expect(s.ground.data + 9, 1, true)
    s.expect(s.ground.data + 8, 1, true)
  }),
]

const SUMS: readonly HostileChain[] = [
  bad(
    'H10',
    'a chain of one byte more than 2^32',
    'split.chain-bytes',
    (s) => {
      s.chain(vast(s, 2 ** 24, (i) => (i === 255 ? 1 : 0)))
    },
    { size: 256 },
  ),
  bad(
    'H10',
    'in a table, buffers that add up to twice 2^32',
    'split.chain-bytes',
    (s) => {
      const at = s.table(vast(s, 2 ** 25))
      s.chain([{ addr: at, len: 16 * 256, flags: L_INDIRECT }])
    },
    { size: 256 },
  ),
  twin(
    'H10',
    'a chain of exactly 2^32 bytes',
    (s) => {
      s.chain(vast(s, 2 ** 24))
      for (let i = 0; i < 256; i++) s.expect(s.ground.vast, 2 ** 24, true)
    },
    { size: 256 },
  ),
]

function vast(scene: HostileScene, len: number, more: (i: number) => number = () => 0): LiteralDescriptor[] {
  return Array.from({ length: 256 }, (_, i) => ({
    addr: scene.ground.vast,
    len: len + more(i),
    flags: L_WRITE | (i === 255 ? 0 : L_NEXT),
    next: i === 255 ? 0 : i + 1,
  }))
}

/** Every chain a ring has to refuse, and beside each kind the ones it has to take. */
export const HOSTILE_CHAINS: readonly HostileChain[] = [
  ...CHAINS,
  ...TABLES,
  ...EMPTY,
  ...INDICES,
  ...ADDRESSES,
  ...ORDER,
  ...SUMS,
]
