import type { DeviceCase } from './device-subject.ts'
import { deviceCase } from './device-subject.ts'
import { pattern, sameBytes, segmentBytes } from './literal-blk-driver.ts'
import {
  S_IOERR,
  S_OK,
  S_UNSUPP,
  SECTOR,
  T_DISCARD,
  T_IN,
  T_OUT,
  T_WRITE_ZEROES,
} from './literal-registers.ts'
import { hold, holdSame } from './requirement-case.ts'

const OFFER = 'VIRTIO 1.2 section 5.2.5.2'
const OPERATION = 'VIRTIO 1.2 section 5.2.6.2'
/** APPEND, REPORT, OPEN, CLOSE, FINISH, RESET and RESET_ALL of zones, VIRTIO 1.3 section 5.2.6. */
const ZONE_TYPES = [15, 16, 18, 20, 22, 24, 26]

/** The block device: what it offers, and how requests end. */
export const deviceBlockCases: readonly DeviceCase[] = [
  deviceCase({
    clause: 'blk.device.init.1',
    section: OFFER,
    level: 'should',
    text: 'FLUSH is always offered',
    observed: 'reads the offer',
    body: (driver) => hold(driver.offers('FLUSH'), 'FLUSH is not offered'),
  }),
  deviceCase({
    clause: 'blk.device.init.2',
    section: OFFER,
    text: 'CONFIG_WCE is offered with FLUSH only',
    observed: 'reads the offer',
    rule: 'device.features-prerequisite',
    body: (driver) =>
      hold(!driver.offers('CONFIG_WCE') || driver.offers('FLUSH'), 'CONFIG_WCE is offered without FLUSH'),
  }),
  deviceCase({
    clause: 'blk.device.init.3',
    section: OFFER,
    gate: ['CONFIG_WCE', '!FLUSH'],
    text: 'writeback reads 0 for a driver that cannot flush',
    observed: 'accepts CONFIG_WCE without FLUSH and reads it',
    deviations: { 'QEMU 7.2': 'QEMU 7.2: writeback without FLUSH' },
    body(driver) {
      driver.reset()
      if (!driver.negotiate()) return
      holdSame(driver.config(32, 1), 0, 'writeback')
    },
  }),
  deviceCase({
    clause: 'blk.device.init.4',
    section: OFFER,
    text: 'unused0 and unused1 read as zero',
    deviations: { 'QEMU 7.2': 'QEMU 7.2: a configuration that ends with its last field' },
    observed: 'reads the four bytes of configuration space',
    body(driver) {
      driver.bringUp()
      for (const offset of [33, 57, 58, 59])
        holdSame(driver.config(offset, 1), 0, `byte ${offset} of configuration`)
    },
  }),
  deviceCase({
    clause: 'blk.device.operation.3',
    section: OPERATION,
    gate: ['RO'],
    disk: 'read-only',
    text: 'A write to a read-only device ends in IOERR',
    observed: 'writes a sector',
    body(driver) {
      driver.bringUp()
      holdSame(driver.ask(T_OUT, 3, pattern(1)).status, S_IOERR, 'status of a write to a read-only device')
    },
  }),
  deviceCase({
    clause: 'blk.device.operation.4',
    section: OPERATION,
    gate: ['RO'],
    disk: 'read-only',
    text: 'A write to a read-only device changes nothing',
    observed: 'reads the sector before and after',
    body(driver) {
      driver.bringUp()
      const before = driver.ask(T_IN, 3, SECTOR).data
      const other = before.map((byte) => byte ^ 0x5a)
      driver.ask(T_OUT, 3, other)
      hold(sameBytes(before, driver.ask(T_IN, 3, SECTOR).data), 'the sector of a read-only device changed')
    },
  }),
  deviceCase({
    clause: 'blk.device.operation.5',
    section: OPERATION,
    gate: ['WRITE_ZEROES'],
    text: 'Unknown flags of a segment end in UNSUPP',
    observed: 'writes zeroes with each flag above unmap, and looks that nothing was zeroed',
    body(driver) {
      driver.bringUp()
      const bytes = pattern(2)
      holdSame(driver.ask(T_OUT, 3, bytes).status, S_OK, 'status of a write')
      for (const flags of [2, 4, 0x8000_0000, 3]) {
        const { status } = driver.ask(T_WRITE_ZEROES, 0, segmentBytes(3, 1, flags))
        holdSame(status, S_UNSUPP, `status of write zeroes with flags ${flags}`)
      }
      hold(sameBytes(driver.ask(T_IN, 3, SECTOR).data, bytes), 'a sector was zeroed all the same')
    },
  }),
  deviceCase({
    clause: 'blk.device.operation.6',
    section: OPERATION,
    gate: ['DISCARD'],
    text: 'A discard with unmap set ends in UNSUPP',
    observed: 'discards a sector with the flag, then without',
    body(driver) {
      driver.bringUp()
      const flagged = driver.ask(T_DISCARD, 0, segmentBytes(0, 8, 1))
      holdSame(flagged.status, S_UNSUPP, 'status of a discard with unmap')
      holdSame(driver.ask(T_DISCARD, 0, segmentBytes(0, 8, 0)).status, S_OK, 'status of a discard')
    },
  }),
  deviceCase({
    clause: 'blk.device.operation.9',
    section: OPERATION,
    gate: ['WRITE_ZEROES'],
    text: 'What was zeroed reads as zero, and nothing else changes',
    observed: 'writes zeroes over the second of three sectors, with leave to unmap and without',
    body(driver) {
      driver.bringUp()
      for (const flags of [0, 1]) {
        const three = pattern(4, 3 * SECTOR)
        holdSame(driver.ask(T_OUT, 8, three).status, S_OK, 'status of a write')
        const zeroed = driver.ask(T_WRITE_ZEROES, 0, segmentBytes(9, 1, flags))
        holdSame(zeroed.status, S_OK, `status of write zeroes with flags ${flags}`)
        three.fill(0, SECTOR, 2 * SECTOR)
        hold(
          sameBytes(driver.ask(T_IN, 8, 3 * SECTOR).data, three),
          `three sectors after flags ${flags} are others`,
        )
      }
    },
  }),
  deviceCase({
    clause: 'blk.device.operation.18',
    section: 'VIRTIO 1.3 section 5.2.6.2',
    gate: ['!ZONED'],
    text: 'Without ZONED, every zone command ends in UNSUPP',
    observed: 'sends all seven',
    body(driver) {
      driver.bringUp()
      for (const type of ZONE_TYPES) {
        holdSame(driver.ask(type, 0).status, S_UNSUPP, `status of zone command ${type}`)
      }
    },
  }),
]
