import { first, isWrite, lastStart } from './access-log.ts'
import type { DriverCase } from './driver-subject.ts'
import { driverCase } from './driver-subject.ts'
import { ACK, DRIVER_OK, DRV, FAILED, FEATURES_OK, R } from './literal-registers.ts'
import { hold, holdSame } from './requirement-case.ts'

const STATUS = 'VIRTIO 1.2 section 2.1.1'
const FEATURES = 'VIRTIO 1.2 section 2.2.1'
const INIT = 'VIRTIO 1.2 section 3.1.1'

/** What a block driver may know of: everything of VIRTIO 1.3 that is defined for it, and nothing else. */
const DEFINED = [1, 2, 4, 5, 6, 9, 10, 11, 12, 13, 14, 15, 16, 17, 28, 29, 32, 33, 34, 35, 36, 37, 38, 40, 41]

/** Initialization and the choice of features. */
export const driverFeatureCases: readonly DriverCase[] = [
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
