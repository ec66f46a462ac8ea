import type { DriverCase } from './driver-subject.ts'
import { driverCase } from './driver-subject.ts'
import type { LiteralBlkDevice, LoggedAccess } from './literal-blk-device.ts'
import { ACK, DRIVER_OK, DRV, FAILED, FEATURES_OK, R } from './literal-registers.ts'
import { FEATURE_BITS, hold, holdSame } from './requirement-case.ts'

const STATUS = 'VIRTIO 1.2 section 2.1.1'
const FEATURES = 'VIRTIO 1.2 section 2.2.1'
const CONFIG = 'VIRTIO 1.2 section 2.5.1'
const INIT = 'VIRTIO 1.2 section 3.1.1'
const MMIO = 'VIRTIO 1.2 section 4.2.2.2'
const MMIO_INIT = 'VIRTIO 1.2 section 4.2.3.1.1'
const DISCOVERY: readonly number[] = [R.magic, R.version, R.deviceId, R.vendorId]

/** What a block driver may know of: everything of VIRTIO 1.3 that is defined for it, and nothing else. */
const DEFINED = [1, 2, 4, 5, 6, 9, 10, 11, 12, 13, 14, 15, 16, 17, 28, 29, 32, 33, 34, 35, 36, 37, 38, 40, 41]

/** Accesses since the last reset began: those of the initialization that counts. */
function lastStart(device: LiteralBlkDevice): readonly LoggedAccess[] {
  const from = device.log.findLastIndex(
    ({ kind, offset, value }) => isWrite(kind, offset, R.status) && value === 0,
  )
  return device.log.slice(from + 1)
}

function isWrite(kind: string, offset: number, register: number): boolean {
  return kind === 'write' && offset === register
}

/** Index of the first such access, or -1. */
function first(log: readonly LoggedAccess[], kind: 'read' | 'write', offset: number, bits = 0): number {
  return log.findIndex((one) => one.kind === kind && one.offset === offset && (one.value & bits) === bits)
}

const NEGOTIATION: readonly DriverCase[] = [
  driverCase({
    clause: 'core.driver.init.1',
    section: INIT,
    text: 'Initialization goes step by step',
    observed:
      'orders the log: ACKNOWLEDGE, DRIVER, features, FEATURES_OK, status read back, queue, DRIVER_OK',
    rule: 'status.order',
    body(scene) {
      const log = lastStart(scene().start().device)
      const featuresOk = first(log, 'write', R.status, FEATURES_OK)
      const steps = [
        ['ACKNOWLEDGE', first(log, 'write', R.status, ACK)],
        ['DRIVER', first(log, 'write', R.status, ACK | DRV)],
        ['the offer read', first(log, 'read', R.deviceFeatures)],
        ['the choice written', first(log, 'write', R.driverFeatures)],
        ['FEATURES_OK', featuresOk],
        ['status read back', featuresOk + 1 + first(log.slice(featuresOk + 1), 'read', R.status)],
        ['a queue made ready', first(log, 'write', R.queueReady, 1)],
        ['DRIVER_OK', first(log, 'write', R.status, DRIVER_OK)],
      ] as const
      for (const [index, [step, at]] of steps.entries()) {
        hold(
          at >= 0 && (index === 0 || at >= (steps[index - 1]?.[1] ?? 0)),
          `out of order or missing: ${step}`,
        )
      }
      holdSame(log[featuresOk + 1]?.offset ?? -1, R.status, 'register accessed behind FEATURES_OK')
    },
  }),
  driverCase({
    clause: 'core.driver.status.2',
    section: STATUS,
    text: 'A status bit is not cleared one by one',
    observed:
      'compares each write of status with the one before it, with a device that works and one that refuses',
    rule: 'status.bit-cleared',
    body(scene) {
      const refusing = scene({ refuses: true })
      refusing.driver.start()
      // A bit that the device took back is not the driver's to keep.
      for (const [{ device }, takenBack] of [
        [scene().start().work(), 0],
        [refusing, FEATURES_OK],
      ] as const) {
        let before = 0
        for (const value of device.writes(R.status)) {
          hold(
            value === 0 || (before & ~takenBack & ~value) === 0,
            `status ${before} is followed by ${value}`,
          )
          before = value
        }
      }
    },
  }),
  driverCase({
    clause: 'core.driver.feature-bits.1',
    section: FEATURES,
    text: 'Only offered features are accepted',
    observed: 'offers nothing but VERSION_1, then two more',
    rule: 'features.not-offered',
    body(scene) {
      for (const features of [[], ['FLUSH', 'SEG_MAX']] as const) {
        const { device } = scene({ features }).start()
        holdSame(`${device.accepted & ~device.offered}`, '0', 'accepted and not offered')
      }
    },
  }),
  driverCase({
    clause: 'core.driver.feature-bits.5',
    section: FEATURES,
    text: 'Reserved bits, and those of other devices, are never accepted',
    observed: 'offers every undefined bit from 0 to 127',
    body(scene) {
      const strange = ((1n << 128n) - 1n) & ~DEFINED.reduce((all, bit) => all | (1n << BigInt(bit)), 0n)
      const { device } = scene({ strange }).start()
      holdSame(`0x${(device.accepted & strange).toString(16)}`, '0x0', 'undefined bits accepted')
    },
  }),
  driverCase({
    clause: 'core.driver.feature-bits.8',
    section: FEATURES,
    text: 'Unknown features on offer do not keep a driver from working',
    observed: 'offers four unknown bits, and has it work',
    body(scene) {
      const strange = (1n << 24n) | (1n << 27n) | (1n << 62n) | (1n << 100n)
      const one = scene({ strange }).start().work()
      hold(one.driver.ended > 0, 'no request ended')
    },
  }),
  driverCase({
    clause: 'core.driver.feature-bits.7',
    section: FEATURES,
    text: 'A driver that cannot do without a feature sets FAILED and stops',
    observed: 'offers no VERSION_1; a driver may work all the same, as a legacy one',
    body(scene) {
      const { driver, device } = scene({ versionOne: false, features: ['SEG_MAX'] })
      driver.start()
      if (device.running) return
      hold((device.status & FAILED) !== 0, `status ${device.status} has no FAILED`)
    },
  }),
  driverCase({
    clause: 'core.driver.reserved-features.1',
    section: 'VIRTIO 1.2 section 6.1',
    text: 'VERSION_1 is accepted when it is offered',
    observed: 'reads the choice',
    rule: 'features.version-1',
    body: (scene) => hold(scene().start().device.took('VERSION_1'), 'VERSION_1 is not accepted'),
  }),
  driverCase({
    clause: 'blk.driver.operation.3',
    section: 'VIRTIO 1.2 section 5.2.6.1',
    level: 'should',
    text: 'RO is accepted when it is offered',
    observed: 'reads the choice',
    body: (scene) =>
      hold(
        scene({ features: ['RO', 'SEG_MAX'] })
          .start()
          .device.took('RO'),
        'RO is not accepted',
      ),
  }),
  driverCase({
    clause: 'core.driver.init.4',
    section: INIT,
    text: 'The choice of features is not written after FEATURES_OK',
    observed: 'looks through the log behind FEATURES_OK',
    rule: 'features.frozen',
    body(scene) {
      const log = lastStart(scene().start().work().device)
      const late = log.slice(first(log, 'write', R.status, FEATURES_OK) + 1)
      holdSame(first(late, 'write', R.driverFeatures), -1, 'place of a late write of DriverFeatures')
    },
  }),
  driverCase({
    clause: 'core.driver.init.3',
    section: INIT,
    text: 'Configuration is not written while features are chosen',
    observed: 'looks through the log up to FEATURES_OK',
    body(scene) {
      const { device } = scene({ features: ['CONFIG_WCE', 'FLUSH', 'SEG_MAX'] }).start()
      let chosen = false
      for (const { kind, offset, value } of device.log) {
        if (isWrite(kind, offset, R.status)) chosen = (value & FEATURES_OK) !== 0
        hold(
          chosen || kind === 'read' || offset < R.config,
          `configuration is written at ${offset - R.config}`,
        )
      }
    },
  }),
  driverCase({
    clause: 'core.driver.init.5',
    section: INIT,
    level: 'should',
    text: 'A driver that cannot go on sets FAILED',
    observed: 'refuses FEATURES_OK',
    body(scene) {
      const { driver, device } = scene({ refuses: true })
      driver.start()
      hold((device.status & FAILED) !== 0, `status ${device.status} has no FAILED`)
    },
  }),
  driverCase({
    clause: 'core.driver.init.6',
    section: INIT,
    text: 'A driver that cannot go on does not go on',
    observed: 'refuses FEATURES_OK, and looks for queues and DRIVER_OK',
    body(scene) {
      const { driver, device } = scene({ refuses: true })
      driver.start()
      holdSame(first(device.log, 'write', R.queueReady, 1), -1, 'place of a queue made ready')
      holdSame(first(device.log, 'write', R.status, DRIVER_OK), -1, 'place of DRIVER_OK')
    },
  }),
  driverCase({
    clause: 'core.driver.init.7',
    section: INIT,
    text: 'Nothing is rung for before DRIVER_OK',
    observed: 'looks through the log up to DRIVER_OK',
    rule: 'queue.before-driver-ok',
    body(scene) {
      const log = lastStart(scene().start().work().device)
      const notified = first(log, 'write', R.queueNotify)
      hold(notified > first(log, 'write', R.status, DRIVER_OK), `access ${notified} rings before DRIVER_OK`)
    },
  }),
]

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
    rule: 'device.config-stable',
    body(scene) {
      const one = scene()
      const { device } = one
      let changed = false
      device.after = ({ kind, offset }) => {
        if (changed || kind !== 'read' || offset !== R.config) return
        changed = true
        device.sectors = 2 ** 33
        device.generation++
      }
      one.start()
      const { log } = device
      const lastRead = log.findLastIndex(({ offset }) => offset >= R.config)
      const after = first(log.slice(lastRead), 'read', R.generation)
      hold(after > 0, 'the generation is not read behind the configuration')
      const halves = log.filter(({ offset }) => offset === R.config).length
      hold(halves >= 2, 'the capacity is not read again when the generation has changed')
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

/** Initialization, features, configuration and registers. */
export const driverStatusCases: readonly DriverCase[] = [...NEGOTIATION, ...RESET_AND_CONFIG, ...REGISTERS]
