import type { DeviceCase } from './device-subject.ts'
import { deviceCase } from './device-subject.ts'
import type { LiteralBlkDriver, Posted } from './literal-blk-driver.ts'
import { pattern, sameBytes } from './literal-blk-driver.ts'
import type { Piece } from './literal-registers.ts'
import { INDIRECT, R, S_OK, SECTOR, T_IN, T_OUT, WRITE } from './literal-registers.ts'
import { hold, holdSame } from './requirement-case.ts'

const FRAMING = 'VIRTIO 1.2 section 2.7.4.1'
const INDIRECT_TABLES = 'VIRTIO 1.2 section 2.7.5.3.2'
const USED_NOTIFICATION = 'VIRTIO 1.2 section 2.7.7.2'
const AVAILABLE_NOTIFICATION = 'VIRTIO 1.2 section 2.7.10.2'

/** Sector 3 holds `pattern(3)` from here on. */
function plant(driver: LiteralBlkDriver): Uint8Array {
  const bytes = pattern(3)
  holdSame(driver.ask(T_OUT, 3, bytes).status, S_OK, 'status of a write')
  acknowledge(driver)
  return bytes
}

function acknowledge(driver: LiteralBlkDriver): void {
  driver.put(R.interruptAck, driver.get(R.interruptStatus))
}

/** The slot's header, data and status byte, cut where `cuts` says: bytes into the chain. */
function cut(slot: Posted, cuts: readonly number[]): Piece[] {
  const areas = [
    { at: slot.headerAt, lengthBytes: 16, flags: 0 },
    { at: slot.dataAt, lengthBytes: slot.dataBytes + 1, flags: WRITE },
  ]
  const pieces: Piece[] = []
  let start = 0
  for (const { at, lengthBytes, flags } of areas) {
    const inside = cuts.filter((one) => one > start && one < start + lengthBytes).map((one) => one - start)
    const edges = [0, ...inside, lengthBytes]
    for (const [index, edge] of edges.slice(0, -1).entries()) {
      pieces.push({ at: at + edge, lengthBytes: (edges[index + 1] ?? 0) - edge, flags })
    }
    start += lengthBytes
  }
  return pieces
}

/** Offers a read of sector 3 as `post` does it, and holds that it brings `bytes`. */
function holdRead(
  driver: LiteralBlkDriver,
  bytes: Uint8Array,
  what: string,
  post: (slot: Posted) => number,
): void {
  const slot = driver.slot(T_IN, 3, SECTOR)
  const head = post(slot)
  driver.kick()
  const used = driver.reap()
  holdSame(used.id, head, `used id of a read ${what}`)
  holdSame(driver.statusOf(slot), S_OK, `status of a read ${what}`)
  hold(sameBytes(driver.device.peek(slot.dataAt, SECTOR), bytes), `a read ${what} brings other bytes`)
  acknowledge(driver)
}

const CHAINS: readonly DeviceCase[] = [
  deviceCase({
    clause: 'split.device.framing.1',
    section: FRAMING,
    text: 'A request works however it is cut into descriptors',
    observed: 'reads with the header cut, the data cut, the status byte with the data, and all at once',
    body(driver) {
      driver.bringUp()
      const bytes = plant(driver)
      const ways = [[1], [8, 15], [16 + 1], [16 + SECTOR], [16 + 100, 16 + SECTOR], [4, 16 + 3, 16 + 300], []]
      for (const cuts of ways) {
        holdRead(driver, bytes, `cut at [${cuts}]`, (slot) => driver.post(cut(slot, cuts)))
      }
    },
  }),
  deviceCase({
    clause: 'split.device.desc-table.1',
    section: 'VIRTIO 1.2 section 2.7.5.1',
    text: 'Memory that is for the device to read is never written by it',
    observed: 'compares header and data of a write before and after',
    body(driver) {
      driver.bringUp()
      const slot = driver.submit(T_OUT, 3, pattern(5))
      const before = driver.device.peek(slot.headerAt, 16 + SECTOR)
      driver.kick()
      driver.reap()
      holdSame(driver.statusOf(slot), S_OK, 'status of a write')
      hold(
        sameBytes(before, driver.device.peek(slot.headerAt, 16 + SECTOR)),
        'the device wrote readable memory',
      )
    },
  }),
  deviceCase({
    clause: 'split.device.desc-table.4',
    section: 'VIRTIO 1.2 section 2.7.5.1',
    text: 'Descriptors are never written by the device',
    observed: 'compares table and available ring before and after a read',
    body(driver) {
      driver.bringUp()
      driver.submit(T_IN, 3, SECTOR)
      const before = driver.driverArea()
      driver.kick()
      driver.reap()
      hold(sameBytes(before, driver.driverArea()), 'the device wrote the table or the available ring')
    },
  }),
  deviceCase({
    clause: 'split.device.indirect.1',
    section: INDIRECT_TABLES,
    gate: ['INDIRECT_DESC'],
    text: 'WRITE on a descriptor that names a table has no effect',
    observed: 'reads by way of a table, with the flag and without',
    body(driver) {
      driver.bringUp()
      const bytes = plant(driver)
      for (const flags of [INDIRECT, INDIRECT | WRITE]) {
        holdRead(driver, bytes, `through a descriptor with flags ${flags}`, (slot) => {
          const pieces = cut(slot, [16 + SECTOR])
          const at = driver.table(pieces)
          return driver.post([{ at, lengthBytes: 16 * pieces.length, flags }])
        })
      }
    },
  }),
  deviceCase({
    clause: 'split.device.indirect.2',
    section: INDIRECT_TABLES,
    gate: ['INDIRECT_DESC'],
    text: 'Direct descriptors may come before one that names a table',
    deviations: { 'QEMU 7.2': 'QEMU 7.2: a table behind direct descriptors' },
    observed: 'reads with the header direct and the rest in a table',
    body(driver) {
      driver.bringUp()
      const bytes = plant(driver)
      holdRead(driver, bytes, 'half direct, half in a table', (slot) => {
        const [header, ...rest] = cut(slot, [16 + SECTOR])
        const at = driver.table(rest)
        return driver.post([header as Piece, { at, lengthBytes: 16 * rest.length, flags: INDIRECT }])
      })
    },
  }),
  deviceCase({
    clause: 'split.device.used-ring.2',
    section: 'VIRTIO 1.2 section 2.7.8.2',
    text: 'At least the used length was written, from the first writable byte on',
    deviations: { 'QEMU 7.2': 'QEMU 7.2: the used length of a read that failed' },
    observed: 'fills writable memory, reads, writes and asks too much, and counts what changed',
    rule: 'split.used-length',
    body(driver) {
      driver.bringUp()
      const bytes = plant(driver)
      for (const [type, sector, data] of [
        [T_IN, 3, SECTOR],
        [T_OUT, 4, pattern(9)],
        [T_IN, driver.capacity, SECTOR],
        [99, 0, 0],
      ] as const) {
        const { len, data: after, status } = driver.ask(type, sector, data)
        const writable = typeof data === 'number' ? data : 0
        const what = `used length of type ${type} at sector ${sector}`
        hold(len <= writable + 1, `${what}: ${len} of ${writable + 1} writable bytes`)
        if (status === S_OK && type === T_IN) {
          hold(sameBytes(after.subarray(0, len), bytes.subarray(0, len)), `${what} counts bytes not written`)
        }
        const untouched = writable > 0 && after.every((byte) => byte === 0xcc)
        hold(!untouched || len === 0, `${what}: ${len}, and nothing of the data was written`)
      }
    },
  }),
  deviceCase({
    clause: 'split.device.used-ring.1',
    section: 'VIRTIO 1.2 section 2.7.8.2',
    text: 'The used element is in place before the used index moves',
    observed:
      'fills the ring twice around, and checks id and length of each element as soon as the index is seen',
    rule: 'split.used-id',
    body(driver) {
      driver.bringUp()
      for (let i = 0; i < 2 * driver.size; i++) {
        const posted = driver.submit(T_IN, i % 8, SECTOR)
        driver.kick()
        const used = driver.reap()
        holdSame(used.id, posted.head, `used id of request ${i}`)
        holdSame(used.len, SECTOR + 1, `used length of request ${i}`)
      }
    },
  }),
]

/** One read, with the line down before it; whether the line rose once it was used. */
function rises(driver: LiteralBlkDriver): boolean {
  acknowledge(driver)
  driver.submit(T_IN, 0, SECTOR)
  driver.kick()
  driver.reap()
  driver.idle()
  return driver.device.line()
}

const NOTIFICATIONS: readonly DeviceCase[] = [
  deviceCase({
    clause: 'split.device.used-notify-suppress.1',
    section: USED_NOTIFICATION,
    gate: ['!EVENT_IDX'],
    text: 'Without EVENT_IDX, used_event has no effect',
    observed: 'reads with used_event far away',
    body(driver) {
      driver.bringUp()
      driver.usedEvent(0x7fff)
      hold(rises(driver), 'the line stays down because of used_event')
    },
  }),
  deviceCase({
    clause: 'split.device.used-notify-suppress.2',
    section: USED_NOTIFICATION,
    level: 'should',
    gate: ['!EVENT_IDX'],
    text: 'With flags 1, a used buffer makes no notification',
    observed: 'reads with flags 1',
    body(driver) {
      driver.bringUp()
      driver.availableFlags(1)
      hold(!rises(driver), 'the line rises with flags 1')
    },
  }),
  deviceCase({
    clause: 'split.device.used-notify-suppress.3',
    section: USED_NOTIFICATION,
    gate: ['!EVENT_IDX'],
    text: 'With flags 0, a used buffer makes a notification',
    observed: 'reads with flags 0, also after flags were 1',
    body(driver) {
      driver.bringUp()
      hold(rises(driver), 'the line stays down with flags 0')
      driver.availableFlags(1)
      rises(driver)
      driver.availableFlags(0)
      hold(rises(driver), 'the line stays down with flags 0 again')
    },
  }),
  deviceCase({
    clause: 'split.device.used-notify-suppress.4',
    section: USED_NOTIFICATION,
    gate: ['EVENT_IDX'],
    text: 'With EVENT_IDX, the low bit of flags has no effect',
    observed: 'reads with flags 1 and used_event at the next element',
    body(driver) {
      driver.bringUp()
      driver.availableFlags(1)
      hold(rises(driver), 'the line stays down because of flags')
    },
  }),
  deviceCase({
    clause: 'split.device.used-notify-suppress.5',
    section: USED_NOTIFICATION,
    gate: ['EVENT_IDX'],
    text: 'The element at used_event makes a notification',
    observed: 'puts used_event on the third of four reads',
    body(driver) {
      driver.bringUp()
      driver.usedEvent(2)
      const rose = [0, 1, 2].map(() => rises(driver))
      hold(rose[2] === true, 'the line stays down at used_event')
    },
  }),
  deviceCase({
    clause: 'split.device.used-notify-suppress.6',
    section: USED_NOTIFICATION,
    level: 'should',
    gate: ['EVENT_IDX'],
    text: 'No other element makes one',
    deviations: { 'QEMU 7.2': 'QEMU 7.2: an interrupt for the first used buffer' },
    observed: 'puts used_event on the third of four reads',
    body(driver) {
      driver.bringUp()
      driver.usedEvent(2)
      const rose = [0, 1, 2, 3].map(() => rises(driver))
      holdSame(
        `${[rose[0], rose[1], rose[3]]}`,
        'false,false,false',
        'the line at the first, second and fourth',
      )
    },
  }),
  deviceCase({
    clause: 'split.device.avail-notify-suppress.1',
    section: AVAILABLE_NOTIFICATION,
    gate: ['!EVENT_IDX'],
    text: 'Without EVENT_IDX, used flags are 0 or 1',
    observed: 'reads them between requests',
    body(driver) {
      driver.bringUp()
      for (let i = 0; i < 3; i++) {
        hold(driver.usedFlags <= 1, `used flags are ${driver.usedFlags}`)
        driver.ask(T_IN, 0, SECTOR)
      }
      hold(driver.usedFlags <= 1, `used flags are ${driver.usedFlags}`)
    },
  }),
  deviceCase({
    clause: 'split.device.avail-notify-suppress.3',
    section: AVAILABLE_NOTIFICATION,
    gate: ['EVENT_IDX'],
    text: 'With EVENT_IDX, used flags stay 0',
    observed: 'reads them between requests',
    body(driver) {
      driver.bringUp()
      for (let i = 0; i < 3; i++) {
        driver.ask(T_IN, 0, SECTOR)
        holdSame(driver.usedFlags, 0, 'used flags')
      }
    },
  }),
  deviceCase({
    clause: 'split.device.avail-notify-suppress.5',
    section: AVAILABLE_NOTIFICATION,
    text: 'A notification that brings no buffer does no harm',
    observed: 'rings with nothing new, before and between reads',
    body(driver) {
      driver.bringUp()
      for (let i = 0; i < 3; i++) {
        driver.kick()
        driver.idle()
        holdSame(driver.usedIndex, i, 'used index after ringing for nothing')
        holdSame(driver.ask(T_IN, 0, SECTOR).status, S_OK, 'status of a read after ringing for nothing')
      }
    },
  }),
]

/** The split ring. */
export const deviceRingCases: readonly DeviceCase[] = [...CHAINS, ...NOTIFICATIONS]
