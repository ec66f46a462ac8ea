import type { DriverCase, DriverScene } from './driver-subject.ts'
import { driverCase } from './driver-subject.ts'
import type { LiteralBlkDevice } from './literal-blk-device.ts'
import { R } from './literal-registers.ts'
import { hold, holdSame, Inapplicable } from './requirement-case.ts'

const USED_NOTIFICATION = 'VIRTIO 1.2 section 2.7.7.1'
const AVAILABLE_NOTIFICATION = 'VIRTIO 1.2 section 2.7.10.1'
const MMIO = 'VIRTIO 1.2 section 4.2.2.2'
const USED_BUFFER = 1
/** A whole request with data, in descriptors of the ring. */
const REQUEST_DESCRIPTORS = 3

/** Notifications since `from`, an index into the log. */
function rings(device: LiteralBlkDevice, from: number): number {
  return device.log.slice(from).filter(({ kind, offset }) => kind === 'write' && offset === R.queueNotify)
    .length
}

/** Asks for a read; how often that rang. */
function ringsFor(one: DriverScene): number {
  const from = one.device.log.length
  hold(one.driver.ask('read', 0, 1), 'an empty ring has no room')
  return rings(one.device, from)
}

/** A driver that took EVENT_IDX, at work before. @throws Inapplicable when it does not take it. */
function eventScene(
  scene: (personality: { features: readonly ['EVENT_IDX', 'SEG_MAX'] }) => DriverScene,
): DriverScene {
  const one = scene({ features: ['EVENT_IDX', 'SEG_MAX'] }).start()
  if (!one.device.took('EVENT_IDX')) throw new Inapplicable('the driver does not take EVENT_IDX')
  hold(
    one.device.size >= 4 * REQUEST_DESCRIPTORS,
    `four requests do not fit into a queue of ${one.device.size}`,
  )
  return one.work()
}

/** Notifications, both ways. */
export const driverNotificationCases: readonly DriverCase[] = [
  driverCase({
    clause: 'split.driver.used-notify-suppress.1',
    section: USED_NOTIFICATION,
    gate: ['!EVENT_IDX'],
    text: 'Without EVENT_IDX, available flags are 0 or 1',
    observed: 'reads them at every register access of a driver at work',
    body(scene) {
      const one = scene().start()
      one.device.after = () =>
        hold(one.device.available.flags <= 1, `flags are ${one.device.available.flags}`)
      one.work()
    },
  }),
  driverCase({
    clause: 'split.driver.used-notify-suppress.3',
    section: USED_NOTIFICATION,
    gate: ['EVENT_IDX'],
    text: 'With EVENT_IDX, available flags stay 0',
    observed: 'reads them at every register access of a driver at work',
    body(scene) {
      const one = scene({ features: ['EVENT_IDX', 'SEG_MAX'] }).start()
      if (!one.device.took('EVENT_IDX')) throw new Inapplicable('the driver does not take EVENT_IDX')
      one.device.after = () => holdSame(one.device.available.flags, 0, 'available flags')
      one.work()
    },
  }),
  driverCase({
    clause: 'split.driver.used-notify-suppress.5',
    section: USED_NOTIFICATION,
    text: 'A notification that brings no used buffer does no harm',
    observed: 'interrupts with nothing used, with requests out and without, and has the driver work on',
    body(scene) {
      const one = scene().start()
      for (let i = 0; i < 3; i++) {
        one.device.interrupt(USED_BUFFER)
        one.deliver()
        const before = one.driver.ended
        hold(one.driver.ask('read', i, 1), 'an empty ring has no room')
        one.device.interrupt(USED_BUFFER)
        one.deliver()
        holdSame(one.driver.ended, before, 'requests over before they were answered')
        one.settle()
        holdSame(one.driver.ended, before + 1, 'requests over once one was answered')
      }
    },
  }),
  driverCase({
    clause: 'split.driver.avail-notify-suppress.1',
    section: AVAILABLE_NOTIFICATION,
    text: 'Used flags begin as 0',
    observed: 'reads them when the queue is made ready',
    body(scene) {
      const one = scene()
      let flags = -1
      one.device.after = ({ kind, offset, value }) => {
        if (kind === 'write' && offset === R.queueReady && value === 1) flags = one.device.usedFlags
      }
      one.start()
      holdSame(flags, 0, 'used flags when the queue is made ready')
    },
  }),
  driverCase({
    clause: 'split.driver.avail-notify-suppress.2',
    section: AVAILABLE_NOTIFICATION,
    gate: ['!EVENT_IDX'],
    text: 'Without EVENT_IDX, avail_event has no effect',
    observed: 'puts avail_event far away and asks for a read',
    body(scene) {
      const one = scene().start()
      one.device.setAvailableEvent(0x7fff)
      holdSame(ringsFor(one), 1, 'notifications with avail_event far away')
    },
  }),
  driverCase({
    clause: 'split.driver.avail-notify-suppress.3',
    section: AVAILABLE_NOTIFICATION,
    level: 'should',
    gate: ['!EVENT_IDX'],
    text: 'With used flags 1, a new buffer rings for nobody',
    observed: 'sets flags and asks for a read',
    body(scene) {
      const one = scene().start()
      one.device.setUsedFlags(1)
      holdSame(ringsFor(one), 0, 'notifications with used flags 1')
    },
  }),
  driverCase({
    clause: 'split.driver.avail-notify-suppress.4',
    section: AVAILABLE_NOTIFICATION,
    gate: ['!EVENT_IDX'],
    text: 'With used flags 0, a new buffer rings',
    observed: 'asks for a read, also after flags were 1',
    body(scene) {
      const one = scene().start()
      holdSame(ringsFor(one), 1, 'notifications with used flags 0')
      one.device.setUsedFlags(1)
      ringsFor(one)
      one.device.setUsedFlags(0)
      holdSame(ringsFor(one), 1, 'notifications with used flags 0 again')
    },
  }),
  driverCase({
    clause: 'split.driver.avail-notify-suppress.5',
    section: AVAILABLE_NOTIFICATION,
    gate: ['EVENT_IDX'],
    text: 'With EVENT_IDX, the low bit of used flags has no effect',
    observed: 'sets flags, puts avail_event at the next entry, and asks for a read',
    body(scene) {
      const one = eventScene(scene)
      one.device.setUsedFlags(1)
      one.device.setAvailableEvent(one.device.available.index)
      holdSame(ringsFor(one), 1, 'notifications with used flags 1')
    },
  }),
  driverCase({
    clause: 'split.driver.avail-notify-suppress.6',
    section: AVAILABLE_NOTIFICATION,
    gate: ['EVENT_IDX'],
    text: 'The entry at avail_event rings',
    observed: 'puts avail_event two entries ahead and asks for three reads',
    body(scene) {
      const one = eventScene(scene)
      one.device.setAvailableEvent(one.device.available.index + 2)
      const rang = [ringsFor(one), ringsFor(one), ringsFor(one)]
      holdSame(rang[2] ?? -1, 1, 'notifications at avail_event')
    },
  }),
  driverCase({
    clause: 'split.driver.avail-notify-suppress.7',
    section: AVAILABLE_NOTIFICATION,
    level: 'should',
    gate: ['EVENT_IDX'],
    text: 'Other entries ring for nobody',
    observed: 'puts avail_event two entries ahead and asks for four reads',
    body(scene) {
      const one = eventScene(scene)
      one.device.setAvailableEvent(one.device.available.index + 2)
      const rang = [ringsFor(one), ringsFor(one), ringsFor(one), ringsFor(one)]
      holdSame(`${[rang[0], rang[1], rang[3]]}`, '0,0,0', 'notifications elsewhere')
    },
  }),
  driverCase({
    clause: 'mmio.driver.interrupt.1',
    section: 'VIRTIO 1.2 section 4.2.3.4.1',
    text: 'An interrupt has InterruptStatus read, and what was handled acknowledged',
    observed: 'answers a read, interrupts, and reads what was written to InterruptACK',
    body(scene) {
      const one = scene().start()
      hold(one.driver.ask('read', 0, 1), 'an empty ring has no room')
      const chain = one.device.take()
      hold(chain !== null, 'the read is not made available')
      one.device.use(chain)
      one.device.interrupt(USED_BUFFER)
      const from = one.device.log.length
      one.driver.interrupt()
      const log = one.device.log.slice(from)
      hold(
        log[0]?.kind === 'read' && log[0].offset === R.interruptStatus,
        'InterruptStatus is not read first',
      )
      hold(!one.device.level(), 'the used-buffer cause is not acknowledged')
    },
  }),
  driverCase({
    clause: 'mmio.driver.registers.20',
    section: MMIO,
    text: 'InterruptACK is written no undefined bits, and those of InterruptStatus have no effect',
    observed: 'raises every bit of InterruptStatus, then only undefined ones',
    rule: 'mmio.interrupt-ack',
    body(scene) {
      const one = scene().start()
      for (const causes of [0xffff_ffff, 0xffff_fffc]) {
        one.device.interrupt(causes)
        one.driver.interrupt()
      }
      for (const value of one.device.writes(R.interruptAck)) {
        holdSame(`0x${((value & ~3) >>> 0).toString(16)}`, '0x0', 'undefined bits acknowledged')
      }
      hold(one.device.running, 'the driver gave up on undefined bits')
    },
  }),
]
