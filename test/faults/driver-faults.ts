import type { Fault } from './fault.ts'
import { another, fault } from './fault.ts'

const BLK = 'guest/virtio/blk.ts'
const GEOMETRY = 'guest/virtio/blk-geometry.ts'
const MINIPORT = 'guest/virtio/blk-miniport.ts'
const MMIO = 'guest/virtio/mmio.ts'
const RING = 'guest/virtio/split-ring.ts'
const TARGET = 'guest/virtio/scsi-target.ts'

const CHOICE = 'offered & DRIVEN & (this.#setup.features | featureMask(CommonFeature.VERSION_1.bit))'
const IS_LEGACY = 'if (!hasFeature(offered, CommonFeature.VERSION_1.bit)) {'
const READS_OFFER = 'const offered = transport.offered()\n'
const SETS_FAILED = 'transport.setStatus((transport.status() & 0xff) | Status.FAILED)'
const IDENTIFIES = 'this.#get(Mmio.MagicValue) !== MMIO_MAGIC || this.#get(Mmio.Version) !== MMIO_VERSION'
const KNOWN_CAUSES = 'const known = causes & (MmioInterrupt.USED_BUFFER | MmioInterrupt.CONFIGURATION)'
const NOTIFIES_BY_FLAGS = 'if (!this.eventIdx) return (this.used.loadIndex(USED_FLAGS) & NO_NOTIFY) === 0'
const NOTIFIES_BY_EVENT = 'return needEvent(this.used.loadIndex(EVENT, this.availEvent), now, before)'
const STATUS_ROOM = 'all.writable(gpa(this.#slotsAt + base + STATUS_AT), 1)'

/** One defect of our block drivers for each clause. */
export const driverFaults: readonly Fault[] = [
  // Initialization and features.
  fault(
    'core.driver.init.1',
    BLK,
    'if ((transport.status() & Status.FEATURES_OK) === 0) {',
    'if (features < 0n) {',
  ),
  fault(
    'core.driver.status.2',
    BLK,
    'transport.setStatus(Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK | Status.DRIVER_OK)',
    'transport.setStatus(Status.DRIVER_OK)',
  ),
  fault(
    'core.driver.feature-bits.1',
    BLK,
    'const features = offered & DRIVEN &',
    'const features = DRIVEN &',
  ),
  fault('core.driver.feature-bits.5', BLK, CHOICE, `(${CHOICE}) | (offered & (1n << 24n))`),
  fault(
    'core.driver.feature-bits.8',
    BLK,
    IS_LEGACY,
    'if (!hasFeature(offered, CommonFeature.VERSION_1.bit) || hasFeature(offered, 24)) {',
  ),
  fault('core.driver.feature-bits.7', BLK, SETS_FAILED, ''),
  fault(
    'core.driver.reserved-features.1',
    BLK,
    CHOICE,
    `${CHOICE} & ~featureMask(CommonFeature.VERSION_1.bit)`,
  ),
  fault('blk.driver.operation.3', BLK, '    BlkFeature.RO,\n', ''),
  fault(
    'core.driver.init.4',
    BLK,
    'transport.accept(features)\n    transport.setStatus(Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK)',
    'transport.setStatus(Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK)\n    transport.accept(features)',
  ),
  fault('core.driver.init.3', BLK, READS_OFFER, `${READS_OFFER}    transport.writeConfig(32, 1, 1)\n`),
  fault('core.driver.init.5', BLK, SETS_FAILED, ''),
  fault(
    'core.driver.init.6',
    BLK,
    "'device.features-refused', started)\n      return",
    "'device.features-refused', started)",
  ),
  fault(
    'core.driver.init.7',
    BLK,
    'transport.startQueue(0, ring.place)',
    'transport.startQueue(0, ring.place)\n    transport.notify(0)',
  ),
  // Reset and configuration.
  fault(
    'core.driver.reset.1',
    BLK,
    'const reset = transport.status() === 0',
    'const reset = transport.status() < 256',
  ),
  fault('core.driver.config.2', GEOMETRY, 'if (transport.configGeneration() === before)', 'if (before >= 0)'),
  fault(
    'core.driver.config.3',
    GEOMETRY,
    'hasFeature(features, feature.bit) ? le32(offset) : otherwise',
    'le32(offset) || otherwise',
  ),
  fault('blk.driver.init.4', BLK, READS_OFFER, `${READS_OFFER}    transport.readConfig(32, 1)\n`),
  fault('blk.driver.operation.1', BLK, 'if (config) this.#configChanged()', ''),
  // Registers.
  fault('mmio.driver.init.1', MMIO, IDENTIFIES, `this.#get(Mmio.DeviceID) > 99 || ${IDENTIFIES}`),
  fault(
    'mmio.driver.registers.6',
    MMIO,
    IDENTIFIES,
    'this.#get(Mmio.MagicValue) !== MMIO_MAGIC || this.#get(Mmio.Version) === 0',
  ),
  fault(
    'mmio.driver.init.4',
    MMIO,
    'return this.#get(Mmio.DeviceID)',
    'if (this.#get(Mmio.DeviceID) === 0) this.setStatus(0)\n    return this.#get(Mmio.DeviceID)',
  ),
  fault(
    'mmio.driver.registers.4',
    MMIO,
    'return this.#platform.read(gpa(this.#base + register), 4)',
    'return this.#platform.read(gpa(this.#base + register), 1)',
  ),
  fault(
    'mmio.driver.registers.5',
    MMIO,
    'return this.#platform.read(gpa(this.#base + MMIO_CONFIG + offset), width)',
    'return this.#platform.read(gpa(this.#base + MMIO_CONFIG + offset), offset === 0 ? 8 : width)',
  ),
  fault(
    'mmio.driver.registers.2',
    MMIO,
    'this.#put(Mmio.QueueNotify, queue)',
    'this.#get(Mmio.QueueNotify)\n    this.#put(Mmio.QueueNotify, queue)',
  ),
  fault(
    'mmio.driver.registers.12',
    MMIO,
    'this.#put(Mmio.DeviceFeaturesSel, word)',
    'if (word > 0) this.#put(Mmio.DeviceFeaturesSel, word)',
  ),
  fault(
    'mmio.driver.registers.13',
    MMIO,
    'this.#put(Mmio.DriverFeaturesSel, word)',
    'if (word < 3) this.#put(Mmio.DriverFeaturesSel, word)',
  ),
  fault(
    'mmio.driver.registers.14',
    MMIO,
    'this.#put(Mmio.QueueSize, place.size)',
    'this.#put(Mmio.QueueSize, 64)',
  ),
  fault(
    'mmio.driver.registers.15',
    MMIO,
    'this.#put(Mmio.QueueReady, 1)',
    'this.#put(Mmio.QueueReady, 1)\n    this.#put(Mmio.QueueSize, place.size)',
  ),
  // Chains.
  fault(
    'split.driver.layout.1',
    MMIO,
    'this.#putAddress(Mmio.QueueDeviceLow, Mmio.QueueDeviceHigh, place.device)',
    'this.#putAddress(Mmio.QueueDeviceLow, Mmio.QueueDeviceHigh, place.device + 2)',
  ),
  fault(
    'split.driver.framing.1',
    RING,
    'let flagsAndNext = i < readableCount ? 0 : WRITE\n      if (i < count - 1) flagsAndNext |= NEXT | (next',
    'let flagsAndNext = i === 0 ? WRITE : 0\n      if (i < count - 1) flagsAndNext |= NEXT | (next',
  ),
  fault(
    'split.driver.desc-table.1',
    RING,
    'describe(descriptors, words, at, addresses[i] as number, lengths[i] as number, flagsAndNext)',
    'describe(descriptors, words, at, addresses[i] as number, 0xffff_ffff, flagsAndNext)',
  ),
  fault(
    'split.driver.indirect.1',
    BLK,
    'indirectSegments: indirect ? Math.min(size, geometry.segmentsMax + 2) : 0',
    'indirectSegments: Math.min(size, geometry.segmentsMax + 2)',
  ),
  fault(
    'split.driver.indirect.2',
    RING,
    'describe(tables, words, at, addresses[i] as number, lengths[i] as number, flagsAndNext)',
    'describe(tables, words, at, addresses[i] as number, lengths[i] as number, i === 0 ? INDIRECT : flagsAndNext)',
  ),
  fault(
    'split.driver.indirect.3',
    RING,
    'describe(descriptors, words, at, addresses[i] as number, lengths[i] as number, flagsAndNext)',
    'describe(descriptors, words, at, addresses[i] as number, lengths[i] as number, flagsAndNext | NEXT)',
  ),
  fault(
    'split.driver.indirect.4',
    RING,
    'head * DESC_WORDS, address, count * DESC_BYTES, INDIRECT)',
    'head * DESC_WORDS, address, count * DESC_BYTES, INDIRECT | NEXT)',
  ),
  fault(
    'split.driver.avail-ring.1',
    RING,
    'this.available.storeIndex(AVAIL_IDX, now & 0xffff)',
    'this.available.storeIndex(AVAIL_IDX, now === 20 ? 3 : now)',
  ),
  fault('core.driver.cleanup.1', RING, 'this.freeCount -= needs', 'this.freeCount -= needs - 1'),
  fault(
    'core.driver.cleanup.2',
    BLK,
    'transport.setStatus(0)\n    let waitedUs',
    'this.#abandonAll()\n    transport.setStatus(0)\n    let waitedUs',
  ),
  // Notifications.
  fault(
    'split.driver.used-notify-suppress.1',
    RING,
    'else this.available.storeIndex(AVAIL_FLAGS, 0)',
    'else this.available.storeIndex(AVAIL_FLAGS, 2)',
  ),
  fault(
    'split.driver.used-notify-suppress.3',
    RING,
    'if (this.eventIdx) this.available.storeIndex(EVENT, this.nextUsed, this.usedEvent)',
    'if (this.eventIdx) this.available.storeIndex(AVAIL_FLAGS, NO_INTERRUPT)',
  ),
  fault(
    'split.driver.used-notify-suppress.5',
    BLK,
    'if (ring.broken || looks === 0) this.#broke()',
    'if (ring.broken || looks === 0 || ring.outstanding > 0) this.#broke()',
  ),
  fault(
    'split.driver.avail-notify-suppress.1',
    RING,
    'this.postOf = new Float64Array(size)',
    'this.postOf = new Float64Array(size)\n    this.used.putLe16(USED_FLAGS, NO_NOTIFY)',
  ),
  fault('split.driver.avail-notify-suppress.2', RING, NOTIFIES_BY_FLAGS, ''),
  fault('split.driver.avail-notify-suppress.3', RING, NOTIFIES_BY_FLAGS, 'if (!this.eventIdx) return true'),
  fault(
    'split.driver.avail-notify-suppress.4',
    RING,
    NOTIFIES_BY_FLAGS,
    'if (!this.eventIdx) return (this.used.loadIndex(USED_FLAGS) & NO_NOTIFY) !== 0',
  ),
  fault(
    'split.driver.avail-notify-suppress.5',
    RING,
    NOTIFIES_BY_EVENT,
    `if ((this.used.loadIndex(USED_FLAGS) & NO_NOTIFY) !== 0) return false\n    ${NOTIFIES_BY_EVENT}`,
  ),
  fault(
    'split.driver.avail-notify-suppress.6',
    RING,
    NOTIFIES_BY_EVENT,
    'return needEvent(this.used.loadIndex(EVENT, this.availEvent) + 1, now, before)',
  ),
  fault('split.driver.avail-notify-suppress.7', RING, NOTIFIES_BY_EVENT, 'return true'),
  fault('mmio.driver.interrupt.1', MMIO, 'if (known !== 0) this.#put(Mmio.InterruptACK, known)', ''),
  fault('mmio.driver.registers.20', MMIO, KNOWN_CAUSES, 'const known = causes'),
  // Block requests.
  fault(
    'blk.driver.operation.2',
    TARGET,
    'if (!(lba <= this.facts.blocks && blocks <= this.facts.blocks - lba)) return OUT_OF_RANGE',
    '',
  ),
  fault(
    'blk.driver.operation.4',
    BLK,
    'window.putLe64(BlkRequest.sector, command.sector, base)',
    'window.putLe64(BlkRequest.sector, command.type === 4 ? 1 : command.sector, base)',
  ),
  fault('blk.driver.operation.5', BLK, STATUS_ROOM, STATUS_ROOM.replace('1)', 'data.count === 0 ? 2 : 1)')),
  fault('blk.driver.operation.6', BLK, 'else all.writable(at, length)', 'else all.writable(at, length - 1)'),
  fault(
    'blk.driver.operation.8',
    MINIPORT,
    'command.data.writable(gpa(this.#serialAt), BLK_ID_BYTES)',
    'command.data.writable(gpa(this.#serialAt), BLK_ID_BYTES + 4)',
  ),
  // Clauses that say more than one thing.
  {
    id: 'core.driver.init.1-queue-last',
    clause: 'core.driver.init.1',
    patches: [
      { file: BLK, find: '    this.#makeRing(size, features, geometry)\n', replace: '' },
      {
        file: BLK,
        find: `    this.#enter({ kind: 'ready', features, geometry: within(geometry, size) })\n    started`,
        replace: `    this.#makeRing(size, features, geometry)\n    this.#enter({ kind: 'ready', features, geometry: within(geometry, size) })\n    started`,
      },
    ],
  },
  another(
    'once',
    fault(
      'core.driver.config.2',
      GEOMETRY,
      'if (transport.configGeneration() === before)',
      'if (transport.configGeneration() >= before)',
    ),
  ),
  another(
    'unknown-cause',
    fault(
      'mmio.driver.registers.20',
      MMIO,
      KNOWN_CAUSES,
      `${KNOWN_CAUSES}\n    if (causes > 3) this.setStatus(0)`,
    ),
  ),
  another(
    'magic',
    fault(
      'mmio.driver.registers.6',
      MMIO,
      IDENTIFIES,
      'this.#get(Mmio.MagicValue) === 0 || this.#get(Mmio.Version) !== MMIO_VERSION',
    ),
  ),
]
