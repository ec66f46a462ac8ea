import type { DeviceCase } from './device-subject.ts'
import { deviceCase } from './device-subject.ts'
import type { LiteralBlkDriver } from './literal-blk-driver.ts'
import { ACK, DRIVER_OK, DRV, FEATURES_OK, R, S_OK, SECTOR, T_IN } from './literal-registers.ts'
import { FEATURE_BITS, hold, holdSame, Inapplicable } from './requirement-case.ts'

const MAGIC = 0x7472_6976
const USED_BUFFER = 1
const CONFIGURATION = 2

const has = (features: bigint, bit: number) => ((features >> BigInt(bit)) & 1n) === 1n

/** Reads sector 0: the device is at work. */
function holdWorks(driver: LiteralBlkDriver, when: string): void {
  const { status, len } = driver.ask(T_IN, 0, SECTOR)
  holdSame(status, S_OK, `status of a read ${when}`)
  holdSame(len, SECTOR + 1, `used length of a read ${when}`)
}

/** A request is in the ring and was rung for; nothing may come of it. */
function holdUntouched(driver: LiteralBlkDriver, when: string): void {
  const posted = driver.submit(T_IN, 0, SECTOR)
  driver.kick()
  driver.idle()
  holdSame(driver.usedIndex, 0, `used index ${when}`)
  holdSame(driver.statusOf(posted), 0xee, `status byte ${when}`)
  hold(!driver.device.line(), `the interrupt line rises ${when}`)
  holdSame(driver.get(R.interruptStatus) & USED_BUFFER, 0, `used-buffer cause ${when}`)
}

const INITIALIZATION: readonly DeviceCase[] = [
  deviceCase({
    clause: 'mmio.device.registers.1',
    section: 'VIRTIO 1.2 section 4.2.2.1',
    text: 'MagicValue reads 0x74726976',
    observed: 'reads it before and after initialization',
    rule: 'mmio.identity',
    body(driver) {
      holdSame(driver.get(R.magic), MAGIC, 'MagicValue')
      driver.bringUp()
      holdSame(driver.get(R.magic), MAGIC, 'MagicValue of a running device')
    },
  }),
  deviceCase({
    clause: 'mmio.device.registers.2',
    section: 'VIRTIO 1.2 section 4.2.2.1',
    text: 'Version reads 2',
    observed: 'reads it',
    rule: 'mmio.identity',
    body: (driver) => holdSame(driver.get(R.version), 2, 'Version'),
  }),
  deviceCase({
    clause: 'core.device.reserved-features.1',
    section: 'VIRTIO 1.2 section 6.2',
    text: 'VERSION_1 is always offered',
    observed: 'reads the offer',
    rule: 'device.version-1',
    body: (driver) => hold(driver.offers('VERSION_1'), 'VERSION_1 is not offered'),
  }),
  deviceCase({
    clause: 'core.device.feature-bits.2',
    section: 'VIRTIO 1.2 section 2.2.2',
    level: 'should',
    text: 'Any valid subset of the offer is accepted',
    observed:
      'accepts VERSION_1 alone, then everything offered but the packed ring, and reads a sector with each',
    rule: 'device.features-refused',
    body(driver) {
      driver.bringUp(1n << BigInt(FEATURE_BITS.VERSION_1))
      holdWorks(driver, 'with VERSION_1 alone')
      driver.reset()
      // The packed ring is another layout, event index asks for interrupts by position: neither is read here.
      driver.bringUp(driver.offered() & ~(1n << 34n) & ~(1n << 29n))
      holdWorks(driver, 'with everything offered')
    },
  }),
  deviceCase({
    clause: 'core.device.feature-bits.3',
    section: 'VIRTIO 1.2 section 2.2.2',
    text: 'A choice that is not accepted shows as FEATURES_OK staying clear',
    observed: 'accepts a bit that was not offered and reads status back',
    deviations: { 'QEMU 7.2': 'QEMU 7.2: a feature that was not offered' },
    body(driver) {
      driver.reset()
      const offered = driver.offered()
      let bit = 0
      while (has(offered, bit)) bit++
      hold(
        !driver.negotiate(driver.wanted() | (1n << BigInt(bit))),
        `FEATURES_OK stays with unoffered bit ${bit}`,
      )
    },
  }),
  deviceCase({
    clause: 'core.device.feature-bits.5',
    section: 'VIRTIO 1.2 section 2.2.2',
    level: 'should',
    text: 'A set that was accepted once is accepted after a reset',
    observed: 'negotiates the same set three times',
    body(driver) {
      for (const time of ['first', 'second', 'third']) {
        driver.reset()
        hold(driver.negotiate(), `FEATURES_OK does not stay the ${time} time`)
      }
    },
  }),
  deviceCase({
    clause: 'core.device.config.1',
    section: 'VIRTIO 1.2 section 2.5.2',
    text: 'Configuration can be read before FEATURES_OK',
    observed: 'reads the capacity before and after FEATURES_OK',
    body(driver) {
      driver.reset()
      driver.put(R.status, ACK)
      driver.put(R.status, ACK | DRV)
      const early = driver.capacity
      hold(early >= 64, `capacity before FEATURES_OK: ${early} sectors`)
      hold(driver.negotiate(), 'FEATURES_OK does not stay')
      holdSame(early, driver.capacity, 'capacity before FEATURES_OK')
    },
  }),
  deviceCase({
    clause: 'core.device.status.1',
    section: 'VIRTIO 1.2 section 2.1.2',
    text: 'No buffer is taken and no used-buffer notification sent before DRIVER_OK',
    observed: 'makes a queue ready, offers a read, rings; then sets DRIVER_OK and rings again',
    deviations: { 'QEMU 7.2': 'QEMU 7.2: buffers before DRIVER_OK' },
    body(driver) {
      driver.reset()
      hold(driver.negotiate(), 'FEATURES_OK does not stay')
      driver.setQueue()
      holdUntouched(driver, 'before DRIVER_OK')
      driver.driverOk()
      driver.kick()
      driver.reap()
    },
  }),
  deviceCase({
    clause: 'mmio.device.registers.7',
    section: 'VIRTIO 1.2 section 4.2.2.1',
    text: 'The memory of a queue is not accessed while QueueReady is 0',
    observed: 'places a queue without making it ready, sets DRIVER_OK, offers a read, rings',
    body(driver) {
      driver.reset()
      hold(driver.negotiate(), 'FEATURES_OK does not stay')
      driver.setQueue(false)
      driver.driverOk()
      holdUntouched(driver, 'while QueueReady is 0')
    },
  }),
]

const RESETTING: readonly DeviceCase[] = [
  deviceCase({
    clause: 'core.device.reset.1',
    section: 'VIRTIO 1.2 section 2.4.1',
    text: 'Status reads 0 once a reset is done',
    observed: 'resets a device at work and one with reads under way',
    rule: 'device.reset-answer',
    body(driver) {
      driver.bringUp()
      holdWorks(driver, 'before the reset')
      driver.reset()
      holdSame(driver.get(R.status), 0, 'status after a reset')
      driver.bringUp()
      for (let i = 0; i < 2; i++) driver.submit(T_IN, i, SECTOR)
      driver.kick()
      driver.reset()
      holdSame(driver.get(R.status), 0, 'status after a reset with reads under way')
      driver.bringUp()
      holdWorks(driver, 'after the resets')
    },
  }),
  deviceCase({
    clause: 'core.device.reset.2',
    section: 'VIRTIO 1.2 section 2.4.1',
    text: 'After a reset no queue is accessed and no notification sent',
    observed: 'resets a device at work, offers another read where its queue was, rings',
    body(driver) {
      driver.bringUp()
      holdWorks(driver, 'before the reset')
      driver.reset()
      const before = driver.usedIndex
      const posted = driver.submit(T_IN, 0, SECTOR)
      driver.submit(T_IN, 0, SECTOR)
      driver.kick()
      driver.idle()
      holdSame(driver.usedIndex, before, 'used index after a reset')
      holdSame(driver.statusOf(posted), 0xee, 'status byte after a reset')
      hold(!driver.device.line(), 'the interrupt line rises after a reset')
    },
  }),
  deviceCase({
    clause: 'mmio.device.registers.5',
    section: 'VIRTIO 1.2 section 4.2.2.1',
    text: 'A reset clears InterruptStatus and every QueueReady',
    observed: 'resets with a cause unacknowledged and a queue ready',
    body(driver) {
      driver.bringUp()
      holdWorks(driver, 'before the reset')
      holdSame(driver.get(R.interruptStatus) & USED_BUFFER, USED_BUFFER, 'InterruptStatus before the reset')
      holdSame(driver.get(R.queueReady), 1, 'QueueReady before the reset')
      driver.reset()
      driver.put(R.queueSel, 0)
      holdSame(driver.get(R.interruptStatus), 0, 'InterruptStatus after a reset')
      holdSame(driver.get(R.queueReady), 0, 'QueueReady after a reset')
      hold(!driver.device.line(), 'the interrupt line stays up after a reset')
    },
  }),
]

const INTERRUPTS: readonly DeviceCase[] = [
  deviceCase({
    clause: 'mmio.device.registers.3',
    section: 'VIRTIO 1.2 section 4.2.2.1',
    text: 'The bit of an event stays in InterruptStatus until it is acknowledged',
    observed: 'reads it twice, acknowledges the other bit, then its own, and watches the line',
    body(driver) {
      driver.bringUp()
      holdWorks(driver, 'to cause an interrupt')
      for (const when of ['once', 'again']) {
        holdSame(driver.get(R.interruptStatus), USED_BUFFER, `InterruptStatus read ${when}`)
      }
      driver.put(R.interruptAck, CONFIGURATION)
      holdSame(
        driver.get(R.interruptStatus),
        USED_BUFFER,
        'InterruptStatus after acknowledging the other bit',
      )
      hold(driver.device.line(), 'the line falls before its cause is acknowledged')
      driver.put(R.interruptAck, USED_BUFFER)
      holdSame(driver.get(R.interruptStatus), 0, 'InterruptStatus after acknowledging it')
      hold(!driver.device.line(), 'the line stays up when every cause is acknowledged')
    },
  }),
  deviceCase({
    clause: 'mmio.device.registers.4',
    section: 'VIRTIO 1.2 section 4.2.2.1',
    text: 'InterruptStatus has no bit of an event that never happened',
    observed:
      'reads it when nothing happened, after a used buffer, and after a new capacity where there can be one',
    deviations: { 'QEMU 7.2': 'QEMU 7.2: both causes for a change of configuration' },
    body(driver) {
      driver.bringUp()
      driver.idle()
      holdSame(driver.get(R.interruptStatus), 0, 'InterruptStatus when nothing happened')
      holdWorks(driver, 'to cause one interrupt')
      holdSame(driver.get(R.interruptStatus), USED_BUFFER, 'InterruptStatus after a used buffer')
      driver.put(R.interruptAck, USED_BUFFER)
      if (driver.device.resize === undefined) return
      driver.device.resize(driver.capacity + 64)
      driver.device.run(() => driver.device.line())
      holdSame(driver.get(R.interruptStatus), CONFIGURATION, 'InterruptStatus after a new capacity')
    },
  }),
  deviceCase({
    clause: 'mmio.device.registers.6',
    section: 'VIRTIO 1.2 section 4.2.2.1',
    text: 'ConfigGeneration changes when the configuration does',
    observed: 'makes the disk longer and shorter behind a running device, and reads it without a change',
    rule: 'device.config-stable',
    body(driver) {
      const { resize } = driver.device
      if (resize === undefined) throw new Inapplicable('the disk of this subject cannot change its size')
      driver.bringUp()
      const sectors = driver.capacity
      let generation = driver.get(R.generation)
      holdSame(driver.get(R.generation), generation, 'ConfigGeneration with nothing changed')
      for (const changed of [sectors + 64, sectors]) {
        driver.device.resize?.(changed)
        driver.device.run(() => driver.capacity === changed)
        holdSame(driver.capacity, changed, 'capacity')
        const now = driver.get(R.generation)
        hold(now !== generation, `the capacity is ${changed} now and ConfigGeneration still ${now}`)
        generation = now
      }
    },
  }),
  deviceCase({
    clause: 'blk.device.operation.2',
    section: 'VIRTIO 1.3 section 5.2.6.2',
    level: 'should',
    text: 'A change of the capacity is announced by a configuration-change notification',
    observed: 'makes the disk longer behind a running device',
    body(driver) {
      const { resize } = driver.device
      if (resize === undefined) throw new Inapplicable('the disk of this subject cannot change its size')
      driver.bringUp()
      const sectors = driver.capacity
      driver.device.resize?.(sectors + 64)
      driver.device.run(() => driver.device.line())
      hold(driver.device.line(), 'the line stays down when the capacity changes')
      const causes = driver.get(R.interruptStatus)
      holdSame(causes & CONFIGURATION, CONFIGURATION, 'configuration cause in InterruptStatus')
      driver.put(R.interruptAck, causes)
      hold(!driver.device.line(), 'the line stays up when the change is acknowledged')
    },
  }),
]

const QUEUE_RESET: readonly DeviceCase[] = [
  deviceCase({
    clause: 'mmio.device.registers.12',
    section: 'VIRTIO 1.2 section 4.2.2.1',
    gate: ['RING_RESET'],
    text: 'QueueReset and QueueReady read 0 when the reset of a queue is done',
    observed: 'resets a queue that served a read',
    deviations: { 'QEMU 7.2': 'QEMU 7.2: RING_RESET over MMIO' },
    body(driver) {
      driver.bringUp()
      holdWorks(driver, 'before the queue is reset')
      driver.put(R.queueReset, 1)
      driver.device.run(() => driver.get(R.queueReset) === 0)
      holdSame(driver.get(R.queueReset), 0, 'QueueReset after the reset of the queue')
      holdSame(driver.get(R.queueReady), 0, 'QueueReady after the reset of the queue')
      holdSame(driver.get(R.status), ACK | DRV | DRIVER_OK | FEATURES_OK, 'status after the reset of a queue')
    },
  }),
  deviceCase({
    clause: 'core.device.vq-reset.2',
    section: 'VIRTIO 1.2 section 2.6.1.1',
    gate: ['RING_RESET'],
    text: 'The reset of a queue returns both its sides to where they start',
    observed: 'serves reads, resets the queue, and serves reads in the same memory from index 0',
    deviations: { 'QEMU 7.2': 'QEMU 7.2: RING_RESET over MMIO' },
    body(driver) {
      driver.bringUp()
      holdWorks(driver, 'before the queue is reset')
      driver.resetQueue()
      driver.setQueue()
      holdWorks(driver, 'after the queue was reset')
      holdSame(driver.usedIndex, 1, 'used index after one read on a queue that was reset')
    },
  }),
  deviceCase({
    clause: 'core.device.vq-reenable.1',
    section: 'VIRTIO 1.2 section 2.6.1.2.1',
    gate: ['RING_RESET'],
    text: 'What the driver changed of a queue that was reset holds, its size included',
    observed: 'enables the queue with half its size, and wraps around that',
    deviations: { 'QEMU 7.2': 'QEMU 7.2: RING_RESET over MMIO' },
    body(driver) {
      driver.bringUp()
      holdWorks(driver, 'before the queue is reset')
      driver.resetQueue()
      driver.setQueue(true, driver.size / 2)
      for (let i = 0; i < driver.size; i++) holdWorks(driver, `${i + 1} of a queue half the size`)
    },
  }),
]

/** Device status, negotiation, reset, interrupts and configuration. */
export const deviceStatusCases: readonly DeviceCase[] = [
  ...INITIALIZATION,
  ...RESETTING,
  ...INTERRUPTS,
  ...QUEUE_RESET,
]
