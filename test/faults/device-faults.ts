import type { Fault } from './fault.ts'
import { another, fault } from './fault.ts'

const MMIO = 'host/virtio/mmio.ts'
const STATE = 'host/virtio/mmio-state.ts'
const NEGOTIATE = 'host/virtio/negotiate.ts'
const CONFIG = 'host/virtio/blk-config.ts'
const BLK = 'host/virtio/blk.ts'
const REQUEST = 'host/virtio/blk-request.ts'
const QUEUE = 'host/virtio/queue.ts'
const RING = 'host/virtio/split-ring.ts'
const WALK = 'host/virtio/chain-walk.ts'

const FRESH = 'this.#state = fresh(this.#device.queueSizes.length)\n      this.#traceStatus()'
const NOT_OFFERED = 'if (extra !== 0n) {'
const PUBLISHED_BY_FLAGS =
  'if (!this.eventIdx) return (this.available.loadIndex(AVAIL_FLAGS) & NO_INTERRUPT) === 0'
const PUBLISHED_BY_EVENT = 'return needEvent(this.available.loadIndex(EVENT, this.usedEvent), now, before)'
const READ_ONLY = "if (!reading && rules.facts.readOnly) return refused('block.read-only', this.type, 0)"
const OFFERS_FLUSH = '    BlkFeature.FLUSH.bit,\n'

/** One defect of our block device for each clause. */
export const deviceFaults: readonly Fault[] = [
  // Initialization.
  fault('mmio.device.registers.1', MMIO, 'return MMIO_MAGIC', 'return MMIO_MAGIC + 1'),
  fault('mmio.device.registers.2', MMIO, 'return MMIO_VERSION', 'return 1'),
  fault('core.device.reserved-features.1', CONFIG, '    CommonFeature.VERSION_1.bit,\n', ''),
  fault(
    'core.device.feature-bits.2',
    NEGOTIATE,
    NOT_OFFERED,
    'if (extra !== 0n || (accepted & 64n) === 0n) {',
  ),
  fault('core.device.feature-bits.3', NEGOTIATE, NOT_OFFERED, 'if (extra < 0n) {'),
  fault(
    'core.device.feature-bits.5',
    MMIO,
    'this.#device.accept(driverFeatures)\n    return true',
    'this.#device.accept(driverFeatures)\n    return (this.times = (this.times ?? 0) + 1) < 2',
  ),
  fault(
    'core.device.config.1',
    BLK,
    'readConfig(offset: number, width: AccessWidth): number {',
    'readConfig(offset: number, width: AccessWidth): number {\n    if (this.#rules.features === 0n) return 0',
  ),
  fault(
    'core.device.status.1',
    MMIO,
    'if ((status & Status.DRIVER_OK) === 0 || !queue.ready) {',
    'if (!queue.ready) {',
  ),
  fault(
    'mmio.device.registers.7',
    MMIO,
    'queue[name] = value\n',
    "queue[name] = value\n      if (name === 'deviceHigh') this.#writeReady(queue, 1)\n",
  ),
  // Reset.
  fault('core.device.reset.1', MMIO, FRESH, `${FRESH}\n      this.#state.status = Status.ACKNOWLEDGE`),
  fault(
    'core.device.reset.2',
    QUEUE,
    '    this.#ring = null\n    this.#stopped = null\n    this.#pending = false\n  }\n\n  state()',
    '    this.#stopped = null\n    this.#pending = false\n    this.kick()\n  }\n\n  state()',
  ),
  fault('mmio.device.registers.5', MMIO, FRESH, `${FRESH}\n      this.#state.interruptStatus = 1`),
  // Interrupts and configuration.
  fault(
    'mmio.device.registers.3',
    MMIO,
    'this.#state.interruptStatus &= ~value',
    'this.#state.interruptStatus = 0',
  ),
  fault(
    'mmio.device.registers.4',
    MMIO,
    'this.#interrupt(MmioInterrupt.CONFIGURATION)',
    'this.#interrupt(MmioInterrupt.CONFIGURATION | MmioInterrupt.USED_BUFFER)',
  ),
  fault(
    'mmio.device.registers.6',
    BLK,
    'this.configGeneration = (this.configGeneration + 1) % 0x1_0000_0000',
    '',
  ),
  fault('blk.device.operation.2', BLK, 'this.#signals?.configChanged()', ''),
  // The reset of a queue.
  fault(
    'mmio.device.registers.12',
    MMIO,
    'queue.resetting = true\n    this.#stopQueue(queue)',
    'queue.resetting = true',
  ),
  fault(
    'core.device.vq-reset.2',
    QUEUE,
    'position: from.position,',
    'position: (this.starts = (this.starts ?? 0) + 1) > 1 ? { available: 1, used: 1 } : from.position,',
  ),
  fault(
    'core.device.vq-reenable.1',
    STATE,
    '    size: queue.size,\n    descriptors',
    '    size: 8,\n    descriptors',
  ),
  // Chains.
  fault(
    'split.device.framing.1',
    REQUEST,
    'if (!(chain.readableBytes >= HEADER_BYTES)) {',
    'if (chain.lengths[0] !== HEADER_BYTES) {',
  ),
  fault(
    'split.device.desc-table.1',
    BLK,
    'queue.complete(chain, writtenBytes)',
    'this.#dma.window(gpa(chain.addresses[0] as number), 1, 1)?.fill(0x55, 0, 1)\n    queue.complete(chain, writtenBytes)',
  ),
  fault(
    'split.device.desc-table.4',
    WALK,
    'if (isLeft) return this.goOn(chain, index, nested)',
    'this.descriptors.fill(0xff, chain.head * 16 + 8, 4)\n    if (isLeft) return this.goOn(chain, index, nested)',
  ),
  fault(
    'split.device.indirect.1',
    WALK,
    "if ((flags & NEXT) !== 0) return this.refuse('split.indirect-with-next'",
    "if ((flags & (NEXT | WRITE)) !== 0) return this.refuse('split.indirect-with-next'",
  ),
  fault(
    'split.device.indirect.2',
    WALK,
    'if (!this.enter(indirect, addr, len, flagsAndNext & 0xffff)) return false',
    'if (count > 0 || !this.enter(indirect, addr, len, flagsAndNext & 0xffff)) return false',
  ),
  fault(
    'split.device.used-ring.2',
    BLK,
    'this.#give(queue, chain, statusAddress(chain), status, chain.writableBytes === 1 ? 1 : 0)',
    'this.#give(queue, chain, statusAddress(chain), status, chain.writableBytes)',
  ),
  fault(
    'split.device.used-ring.1',
    RING,
    'const base = (this.filled & (this.size - 1)) * ELEM_BYTES + USED_RING',
    'const base = ((this.filled + 1) & (this.size - 1)) * ELEM_BYTES + USED_RING',
  ),
  // Notifications.
  fault('split.device.used-notify-suppress.1', RING, PUBLISHED_BY_FLAGS, ''),
  fault('split.device.used-notify-suppress.2', RING, PUBLISHED_BY_FLAGS, 'if (!this.eventIdx) return true'),
  fault(
    'split.device.used-notify-suppress.3',
    RING,
    PUBLISHED_BY_FLAGS,
    'if (!this.eventIdx) return (this.available.loadIndex(AVAIL_FLAGS) & NO_INTERRUPT) !== 0',
  ),
  fault(
    'split.device.used-notify-suppress.4',
    RING,
    PUBLISHED_BY_EVENT,
    `if ((this.available.loadIndex(AVAIL_FLAGS) & NO_INTERRUPT) !== 0) return false\n    ${PUBLISHED_BY_EVENT}`,
  ),
  fault(
    'split.device.used-notify-suppress.5',
    RING,
    PUBLISHED_BY_EVENT,
    'return needEvent(this.available.loadIndex(EVENT, this.usedEvent) + 1, now, before)',
  ),
  fault('split.device.used-notify-suppress.6', RING, PUBLISHED_BY_EVENT, 'return true'),
  fault(
    'split.device.avail-notify-suppress.1',
    RING,
    'this.used.storeIndex(USED_FLAGS, 0)',
    'this.used.storeIndex(USED_FLAGS, 2)',
  ),
  fault(
    'split.device.avail-notify-suppress.3',
    RING,
    'this.used.storeIndex(EVENT, this.nextAvail, this.availEvent)',
    'this.used.storeIndex(USED_FLAGS, NO_NOTIFY)\n      this.used.storeIndex(EVENT, this.nextAvail, this.availEvent)',
  ),
  fault(
    'split.device.avail-notify-suppress.5',
    RING,
    'if (ahead === 0) return false',
    'if (ahead === 0) {\n      this.isBroken = true\n      return false\n    }',
  ),
  // The block device.
  fault('blk.device.init.1', CONFIG, OFFERS_FLUSH, ''),
  fault('blk.device.init.2', CONFIG, OFFERS_FLUSH, ''),
  fault(
    'blk.device.init.3',
    BLK,
    'this.#writeback = hasFeature(features, BlkFeature.FLUSH.bit)',
    'this.#writeback = true',
  ),
  fault(
    'blk.device.init.4',
    CONFIG,
    'config.putLe64(BlkConfig.capacity, capacitySectors(facts))',
    'bytes.fill(0xff)\n  config.putLe64(BlkConfig.capacity, capacitySectors(facts))',
  ),
  fault(
    'blk.device.operation.3',
    REQUEST,
    READ_ONLY,
    'if (!reading && rules.facts.readOnly) return UNSUPPORTED',
  ),
  {
    id: 'blk.device.operation.4',
    clause: 'blk.device.operation.4',
    patches: [
      { file: REQUEST, find: READ_ONLY, replace: '' },
      { file: 'host/disk/judge.ts', find: 'facts.readOnly', replace: 'false' },
    ],
  },
  fault('blk.device.operation.5', REQUEST, 'if (flags !== 0 && flags !== allowed) {', 'if (flags < 0) {'),
  fault(
    'blk.device.operation.6',
    REQUEST,
    "const allowed = op === 'zero' ? BlkSegmentFlag.UNMAP : 0",
    'const allowed = BlkSegmentFlag.UNMAP',
  ),
  fault('blk.device.operation.9', REQUEST, 'lengthBytes: sectors * SECTOR_BYTES,', 'lengthBytes: 0,'),
  fault(
    'blk.device.operation.18',
    REQUEST,
    '      default:\n        return UNSUPPORTED',
    "      default:\n        return refused('block.not-negotiated', 0, 0)",
  ),
  // Clauses that say more than one thing.
  another(
    'queue-ready',
    fault(
      'mmio.device.registers.5',
      MMIO,
      FRESH,
      `${FRESH}\n      for (const queue of this.#state.queues) queue.ready = true`,
    ),
  ),
  another(
    'line',
    fault('mmio.device.registers.3', MMIO, 'if (this.#state.interruptStatus === 0) this.#line.lower()', ''),
  ),
  another(
    'queue-ready',
    fault(
      'mmio.device.registers.12',
      MMIO,
      'Object.assign(queue, freshMmioQueue())\n    })',
      'Object.assign(queue, { ...freshMmioQueue(), ready: true })\n    })',
    ),
  ),
  another(
    'used-id',
    fault(
      'split.device.used-ring.1',
      RING,
      'words[(base + ELEM_ID) >>> 2] = head',
      'words[(base + ELEM_ID) >>> 2] = head & 4',
    ),
  ),
  another(
    'neighbours',
    fault(
      'blk.device.operation.9',
      REQUEST,
      'lengthBytes: sectors * SECTOR_BYTES,',
      'lengthBytes: (sectors + 1) * SECTOR_BYTES,',
    ),
  ),
]
