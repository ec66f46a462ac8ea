import { first, isWrite } from './access-log.ts'
import type { DriverCase } from './driver-subject.ts'
import { driverCase } from './driver-subject.ts'
import type { LoggedAccess } from './literal-blk-device.ts'
import { FEATURES_OK, R } from './literal-registers.ts'
import { FEATURE_BITS, hold, holdSame } from './requirement-case.ts'

const CONFIG = 'VIRTIO 1.2 section 2.5.1'
const MMIO = 'VIRTIO 1.2 section 4.2.2.2'
const MMIO_INIT = 'VIRTIO 1.2 section 4.2.3.1.1'
const DISCOVERY: readonly number[] = [R.magic, R.version, R.deviceId, R.vendorId]

const READABLE: readonly number[] = [
  ...DISCOVERY,
  R.deviceFeatures,
  R.queueSizeMax,
  R.interruptStatus,
  R.generation,
]
const WRITABLE: readonly number[] = [
  ...[R.deviceFeaturesSel, R.driverFeatures, R.driverFeaturesSel, R.queueSel, R.queueSize],
  ...[R.queueNotify, R.interruptAck, R.shmSel, R.queueDesc, R.queueDesc + 4],
  ...[R.queueDriver, R.queueDriver + 4, R.queueDevice, R.queueDevice + 4],
]

/** Each access of `register` has a selection of its own in front of it. */
function holdSelected(
  log: readonly LoggedAccess[],
  kind: 'read' | 'write',
  register: number,
  selector: number,
): void {
  let selected = false
  for (const one of log) {
    if (isWrite(one.kind, one.offset, selector)) selected = true
    if (one.kind !== kind || one.offset !== register) continue
    hold(selected, `register 0x${register.toString(16)} is accessed with no word selected`)
    selected = false
  }
}

const RESET_AND_CONFIG: readonly DriverCase[] = [
  driverCase({
    clause: 'core.driver.reset.1',
    section: 'VIRTIO 1.2 section 2.4.2',
    level: 'should',
    text: 'A reset is over when status reads 0',
    observed: 'takes five reads of status to reset a running device, and looks what is written meanwhile',
    body(scene) {
      const one = scene({ resetLooks: 5 }).start()
      const from = one.device.log.length
      one.driver.stop()
      one.driver.start()
      const log = one.device.log.slice(from)
      const asked = first(log, 'write', R.status)
      const done = log.findIndex(
        ({ kind, offset, value }, index) =>
          index > asked && kind === 'read' && offset === R.status && value === 0,
      )
      hold(done > asked, 'status is never read as 0')
      const early = log.slice(asked + 1, done).filter(({ kind }) => kind === 'write')
      holdSame(early.length, 0, 'writes while the reset was under way')
    },
  }),
  driverCase({
    clause: 'core.driver.config.2',
    section: CONFIG,
    level: 'should',
    text: 'Configuration is read between two equal generations, and again otherwise',
    observed:
      'changes capacity and generation between the halves of the capacity, and looks for another reading',
    body(scene) {
      const one = scene()
      const { device } = one
      let changedAt = -1
      device.after = ({ kind, offset }) => {
        if (changedAt >= 0 || kind !== 'read' || offset !== R.config) return
        changedAt = device.log.length
        device.sectors = 2 ** 33
        device.generation++
      }
      one.start()
      const { log } = device
      const lastRead = log.findLastIndex(({ offset }) => offset >= R.config)
      const after = first(log.slice(lastRead), 'read', R.generation)
      hold(after > 0, 'the generation is not read behind the configuration')
      const since = log.slice(changedAt)
      const again = first(since, 'read', R.config)
      const goesOn = since.findIndex(({ kind }) => kind === 'write')
      hold(again >= 0 && again < goesOn, 'the driver goes on with what it read across a change')
      const before = log.slice(
        0,
        log.findLastIndex(({ offset }) => offset === R.config),
      )
      const opening = before.findLast(({ offset }) => offset === R.generation)
      holdSame(opening?.value ?? -1, device.generation, 'generation in front of the last reading')
    },
  }),
  driverCase({
    clause: 'core.driver.config.3',
    section: CONFIG,
    text: 'A field that belongs to a feature is read only when that is offered',
    observed: 'offers VERSION_1 alone, and looks which bytes of configuration are read',
    body(scene) {
      const { device } = scene({ features: [] }).start()
      for (const { offset } of device.log)
        hold(offset < R.config + 8, `byte ${offset - R.config} is accessed`)
    },
  }),
  driverCase({
    clause: 'blk.driver.init.4',
    section: 'VIRTIO 1.2 section 5.2.5.1',
    gate: ['CONFIG_WCE'],
    text: 'writeback is not read before FEATURES_OK',
    observed: 'offers CONFIG_WCE and FLUSH',
    body(scene) {
      const { device } = scene({ features: ['CONFIG_WCE', 'FLUSH', 'SEG_MAX'] }).start()
      let chosen = false
      for (const { kind, offset, value } of device.log) {
        if (isWrite(kind, offset, R.status)) chosen = (value & FEATURES_OK) !== 0
        hold(chosen || offset !== R.config + 32, 'writeback is accessed before FEATURES_OK')
      }
    },
  }),
  driverCase({
    clause: 'blk.driver.operation.1',
    section: 'VIRTIO 1.3 section 5.2.6.1',
    level: 'should',
    text: 'A configuration-change notification has the capacity read again',
    observed: 'changes the capacity under a running driver',
    body(scene) {
      const one = scene().start()
      const from = one.device.log.length
      one.device.resize(512)
      one.deliver()
      hold(first(one.device.log.slice(from), 'read', R.config) >= 0, 'the capacity is not read again')
    },
  }),
]

const REGISTERS: readonly DriverCase[] = [
  driverCase({
    clause: 'mmio.driver.init.1',
    section: MMIO_INIT,
    text: 'The first things read are MagicValue and Version, then DeviceID',
    observed: 'reads the beginning of the log',
    body(scene) {
      const opening = scene()
        .start()
        .device.log.slice(0, 3)
        .map(({ offset }) => offset)
      holdSame(`${opening}`, `${[R.magic, R.version, R.deviceId]}`, 'registers accessed first')
    },
  }),
  driverCase({
    clause: 'mmio.driver.registers.6',
    section: MMIO,
    text: 'A device with another magic value or version is left alone',
    observed: 'is not a virtio device, then one of another version',
    body(scene) {
      for (const personality of [{ magic: 0x1234_5678 }, { version: 1 }, { version: 3 }]) {
        const { driver, device } = scene(personality)
        driver.start()
        const touched = device.log.filter(
          ({ kind, offset }) => kind === 'write' || !DISCOVERY.includes(offset),
        )
        holdSame(touched.length, 0, `accesses to a device with ${JSON.stringify(personality)}`)
      }
    },
  }),
  driverCase({
    clause: 'mmio.driver.init.4',
    section: MMIO_INIT,
    text: 'Of a device with ID 0 nothing else is touched',
    observed: 'is a placeholder',
    body(scene) {
      const { driver, device } = scene({ deviceId: 0 })
      driver.start()
      const touched = device.log.filter(({ kind, offset }) => kind === 'write' || !DISCOVERY.includes(offset))
      holdSame(touched.length, 0, 'accesses to a placeholder')
    },
  }),
  driverCase({
    clause: 'mmio.driver.registers.4',
    section: MMIO,
    text: 'Control registers are accessed as aligned 32 bits',
    observed: 'looks through the log of a working driver',
    rule: 'mmio.register-width',
    body(scene) {
      for (const { offset, width } of scene().start().work().device.log) {
        if (offset < R.config) hold(width === 4 && offset % 4 === 0, `${width} bytes at register ${offset}`)
      }
    },
  }),
  driverCase({
    clause: 'mmio.driver.registers.5',
    section: MMIO,
    text: 'Configuration is accessed by the width of its fields, aligned, and 64 bits as two halves',
    observed: 'looks through the log of a driver offered everything',
    rule: 'mmio.config-width',
    body(scene) {
      const features = Object.keys(FEATURE_BITS).filter(
        (name) => name !== 'ZONED',
      ) as (keyof typeof FEATURE_BITS)[]
      for (const { offset, width } of scene({ features }).start().work().device.log) {
        if (offset < R.config) continue
        const at = offset - R.config
        // 24 to 31 are TOPOLOGY's bytes and halves, 32 and 33 writeback and padding, 34 num_queues.
        const natural = at === 24 || at === 25 || at === 32 || at === 56 ? 1 : at === 26 || at === 34 ? 2 : 4
        holdSame(width, natural, `width of an access to byte ${at} of configuration`)
      }
    },
  }),
  driverCase({
    clause: 'mmio.driver.registers.2',
    section: MMIO,
    text: 'Registers are accessed in their direction only, and only those there are',
    observed: 'looks through the log of a working driver',
    rule: 'mmio.register-unknown',
    body(scene) {
      for (const { kind, offset } of scene().start().work().device.log) {
        if (offset >= R.config) continue
        const both = offset === R.queueReady || offset === R.status || offset === R.queueReset
        const fine = both || (kind === 'read' ? READABLE : WRITABLE).includes(offset)
        hold(fine, `a ${kind} of register 0x${offset.toString(16)}`)
      }
    },
  }),
  driverCase({
    clause: 'mmio.driver.registers.12',
    section: MMIO,
    text: 'The word of the offer is selected before it is read',
    observed: 'looks for a selection in front of each read',
    body: (scene) => holdSelected(scene().start().device.log, 'read', R.deviceFeatures, R.deviceFeaturesSel),
  }),
  driverCase({
    clause: 'mmio.driver.registers.13',
    section: MMIO,
    text: 'The word of the choice is selected before it is written',
    observed: 'looks for a selection in front of each write',
    body: (scene) => holdSelected(scene().start().device.log, 'write', R.driverFeatures, R.driverFeaturesSel),
  }),
  driverCase({
    clause: 'mmio.driver.registers.14',
    section: MMIO,
    text: 'QueueSize is at most QueueSizeMax',
    observed: 'offers queues of 4, 8 and 32',
    rule: 'split.queue-size',
    body(scene) {
      for (const queueMax of [4, 8, 32]) {
        const { size } = scene({ queueMax }).start().device
        hold(size >= 1 && size <= queueMax, `a queue of ${size} where ${queueMax} is the most`)
      }
    },
  }),
  driverCase({
    clause: 'mmio.driver.registers.15',
    section: MMIO,
    text: 'Size and addresses of a queue are not written while it is ready',
    observed: 'looks through the log of a driver that is started twice',
    rule: 'mmio.queue-live',
    body(scene) {
      const one = scene().start().work()
      one.driver.stop()
      one.start()
      let ready = false
      for (const { kind, offset, value } of one.device.log) {
        if (kind === 'read') continue
        if (offset === R.queueReady) ready = value === 1
        if (offset === R.status && value === 0) ready = false
        const frozen = offset === R.queueSize || (offset >= R.queueDesc && offset <= R.queueDevice + 4)
        hold(
          !(ready && frozen && offset !== R.shmSel),
          `register 0x${offset.toString(16)} of a ready queue is written`,
        )
      }
    },
  }),
]

/** Reset, configuration and registers. */
export const driverRegisterCases: readonly DriverCase[] = [...RESET_AND_CONFIG, ...REGISTERS]
