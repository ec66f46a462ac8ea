import type { Gpa } from '../../protocol/memory.ts'
import { gpa } from '../../protocol/memory.ts'
import type { Clock, GuestPlatform } from '../../protocol/platform.ts'
import type { RequirementId } from '../../protocol/requirement.ts'
import type { FeatureSet } from '../../protocol/version.ts'
import { featureMask, featureSet, hasFeature, missingPrerequisite } from '../../protocol/version.ts'
import type { Violation } from '../../protocol/violation.ts'
import { BlkFeature, BlkRequest, BlkStatus, BlkStatusByte } from '../../protocol/virtio/blk.ts'
import { CommonFeature } from '../../protocol/virtio/features.ts'
import { DeviceId, Status } from '../../protocol/virtio/status.ts'
import type { Window } from '../../protocol/window.ts'
import type { BlkCommand, BlkEnd } from './blk-command.ts'
import type { BlkGeometry } from './blk-geometry.ts'
import { readGeometry } from './blk-geometry.ts'
import { Segments } from './segments.ts'
import { DriverRing } from './split-ring.ts'
import type { DriverTransport } from './transport.ts'

/** A header, a status byte and room for nothing else, each slot on its own 32 bytes. */
const SLOT_BYTES = 32
const STATUS_AT = BlkRequest.$size
/** No device writes this; the slot's status byte holds it until one does. */
const NO_STATUS = 0xff
const GONE: BlkEnd = { kind: 'gone' }
const LOST: BlkEnd = { kind: 'lost' }
/** Virtual time a device has to finish a reset; the driver looks after the first pause, and ever less often. */
const RESET_US = 5_000_000
const RESET_POLL_US = 100
const RESET_POLL_MOST_US = 10_000
/**
 * What this driver can live with. A bit that nobody here knows could change the ring or the requests, so it is
 * never accepted, VIRTIO 1.3 section 2.2.1; SIZE_MAX and ZONED are known and not kept to.
 */
const DRIVEN = featureSet(
  [
    CommonFeature.INDIRECT_DESC,
    CommonFeature.EVENT_IDX,
    CommonFeature.VERSION_1,
    CommonFeature.ACCESS_PLATFORM,
    CommonFeature.ORDER_PLATFORM,
    CommonFeature.RING_RESET,
    BlkFeature.SEG_MAX,
    BlkFeature.GEOMETRY,
    BlkFeature.RO,
    BlkFeature.BLK_SIZE,
    BlkFeature.FLUSH,
    BlkFeature.TOPOLOGY,
    BlkFeature.CONFIG_WCE,
    BlkFeature.MQ,
    BlkFeature.DISCARD,
    BlkFeature.WRITE_ZEROES,
    BlkFeature.LIFETIME,
    BlkFeature.SECURE_ERASE,
  ].map(({ bit }) => bit),
)
/** Header and status byte: what a request needs besides its data. */
const FRAME_SEGMENTS = 2

/**
 * What the driver needs of whoever it runs under: a bare machine, or a port driver. Memory is asked for at every
 * start, once the device has let go of what an earlier one had: whoever allocates may give the same again, zeroed.
 */
export type BlkDriverHost = Pick<GuestPlatform, 'memory' | 'allocate'> & {
  readonly clock: Pick<Clock, 'after'>
  /** Absent where a port driver owns the interrupt, and calls `acknowledge` and `serve`. */
  readonly connect?: GuestPlatform['connect']
}

export interface BlkDriverSetup {
  readonly platform: BlkDriverHost
  readonly transport: DriverTransport
  /** The interrupt line of the device, where the driver connects it itself. */
  readonly line?: number
  /** What this driver may use: it accepts what of it is offered and it can drive. */
  readonly features: FeatureSet
  /** Largest queue it wants. */
  readonly queueSize: number
  readonly violated: (violation: Violation) => void
  /** Hears every change of state, of geometry too. */
  readonly changed?: (state: BlkDriverState) => void
}

export type BlkDriverState =
  | { readonly kind: 'stopped' }
  | { readonly kind: 'starting' }
  | { readonly kind: 'stopping' }
  | { readonly kind: 'ready'; readonly features: FeatureSet; readonly geometry: BlkGeometry }
  | { readonly kind: 'failed'; readonly why: string }

interface Slot {
  readonly base: number
  command: BlkCommand | null
}

/**
 * A block driver with no operating system above it: negotiates, fills the ring, reaps. What the Windows guest's
 * miniport stands on, and what meets other people's devices by itself.
 *
 * The device is not trusted: nothing it writes is believed beyond the ring's checks, and every wait ends.
 */
export class BlkDriver {
  readonly #setup: BlkDriverSetup
  readonly #all: Segments
  #ring: DriverRing<Slot> | null
  #slots: Slot[]
  #window: Window | null
  #slotsAt: Gpa
  #state: BlkDriverState
  /** Causes acknowledged and not served yet. */
  #usedPending: boolean
  #configPending: boolean
  /** Who waits for the reset that is under way, in the order they asked; null when none is. */
  #resetting: ((reset: boolean) => void)[] | null

  constructor(setup: BlkDriverSetup) {
    this.#setup = setup
    this.#all = new Segments()
    this.#ring = null
    this.#slots = []
    this.#window = null
    this.#slotsAt = gpa(0)
    this.#state = { kind: 'stopped' }
    this.#usedPending = false
    this.#configPending = false
    this.#resetting = null
    if (setup.line !== undefined) setup.platform.connect?.(setup.line, () => this.interrupt())
  }

  get state(): BlkDriverState {
    return this.#state
  }

  get outstanding(): number {
    return this.#ring?.outstanding ?? 0
  }

  /**
   * Resets and initializes, VIRTIO 1.2 section 3.1.1; `started` hears the state, `ready` or `failed`, or what
   * a `stop` in the meantime made of it. Commands of an earlier start end as `gone`.
   */
  start(started: (state: BlkDriverState) => void): void {
    this.#enter({ kind: 'starting' })
    const id = this.#setup.transport.identify()
    if (id !== DeviceId.BLOCK) {
      // Not ours: no register of it may be touched, and an empty place is no mistake of anybody's.
      if (id === null) this.#violated('mmio.identity', 0, 0)
      this.#enter({ kind: 'failed', why: 'no block device answers' })
      started(this.#state)
      return
    }
    this.#resetDevice((reset) => {
      if (reset) this.#abandonAll()
      if (this.#state.kind !== 'starting') started(this.#state)
      else if (reset) this.#initialize(started)
      else this.#fail('the device does not finish its reset', 'device.reset-answer', started)
    })
  }

  /**
   * Resets the device. Commands that are out end as `gone`, once the device cannot touch their memory any
   * more; `stopped` hears whether it got there.
   */
  stop(stopped: (clean: boolean) => void): void {
    this.#enter({ kind: 'stopping' })
    this.#resetDevice((reset) => {
      // Memory still on loan is never given back: a device that does not reset keeps it.
      if (reset) this.#abandonAll()
      else this.#violated('device.reset-answer', 0, 0)
      if (this.#state.kind === 'stopping') {
        this.#enter(
          reset ? { kind: 'stopped' } : { kind: 'failed', why: 'the device does not finish its reset' },
        )
      }
      stopped(reset)
    })
  }

  /** Takes a command; false when the queue is full. Call `kick` after the last of a batch. */
  submit(command: BlkCommand): boolean {
    const ring = this.#ring
    const window = this.#window
    if (this.#state.kind !== 'ready' || ring === null || window === null) return false
    const slot = this.#slots.pop()
    if (slot === undefined) return false
    const { base } = slot
    window.putLe32(BlkRequest.type, command.type, base)
    window.putLe32(BlkRequest.reserved, 0, base)
    window.putLe64(BlkRequest.sector, command.sector, base)
    window.putU8(BlkStatusByte.status, NO_STATUS, base + STATUS_AT)
    this.#gather(command.data, base)
    if (!ring.post(this.#all, slot)) {
      this.#slots.push(slot)
      return false
    }
    slot.command = command
    return true
  }

  /** Shows the device what was submitted, and rings when it wants to hear. */
  kick(): void {
    if (this.#ring?.publish() === true) this.#setup.transport.notify(0)
  }

  /** The service routine. */
  interrupt(): void {
    if (this.acknowledge()) this.serve()
  }

  /** The part of a service routine that has to be done at once; true when the device had a cause. */
  acknowledge(): boolean {
    const { used, config } = this.#setup.transport.takeInterrupt()
    this.#usedPending ||= used
    this.#configPending ||= config
    return used || config
  }

  /** The rest of it: what the causes acknowledged so far ask for. */
  serve(): void {
    const used = this.#usedPending
    const config = this.#configPending
    this.#usedPending = false
    this.#configPending = false
    if (config) this.#configChanged()
    if (used) this.#reap()
  }

  /**
   * Ends what is out as `lost`, with a device that did not finish its reset: its users are told, and never
   * reuse memory that it may still write.
   */
  forsake(): void {
    if (this.#state.kind === 'ready') throw new Error('a device that works is not forsaken')
    this.#endAll(LOST)
  }

  #reap(): void {
    const ring = this.#ring
    const window = this.#window
    if (ring === null || window === null) return
    // A device that moves its index back and forth could keep this going: a ring's worth of looks is enough.
    let looks = ring.size + 1
    do {
      for (let back = ring.reap(); back !== null; back = ring.reap()) {
        const slot = back.owner
        const { writtenBytes } = back
        const command = slot.command
        const status = window.u8(BlkStatusByte.status, slot.base + STATUS_AT)
        slot.command = null
        this.#slots.push(slot)
        if (command === null) continue
        if (status === NO_STATUS) this.#violated('block.status-written', status, BlkStatus.UNSUPP)
        else if (!(status <= BlkStatus.UNSUPP)) {
          this.#violated('block.status-value', status, BlkStatus.UNSUPP)
        }
        command.ended({ kind: 'status', status }, writtenBytes)
        // Whoever heard it may have stopped the device: the rest has been ended by that.
        if (this.#ring !== ring) return
      }
      looks--
    } while (ring.rearm() && looks > 0)
    if (ring.broken || looks === 0) this.#broke()
  }

  #gather(data: Segments, base: number): void {
    const all = this.#all
    all.clear()
    all.readable(gpa(this.#slotsAt + base), BlkRequest.$size)
    for (let i = 0; i < data.count; i++) {
      const at = gpa(data.addresses[i] as number)
      const length = data.lengths[i] as number
      if (i < data.readableCount) all.readable(at, length)
      else all.writable(at, length)
    }
    all.writable(gpa(this.#slotsAt + base + STATUS_AT), 1)
  }

  #initialize(started: (state: BlkDriverState) => void): void {
    const { transport } = this.#setup
    transport.setStatus(Status.ACKNOWLEDGE)
    transport.setStatus(Status.ACKNOWLEDGE | Status.DRIVER)
    const offered = transport.offered()
    if (!hasFeature(offered, CommonFeature.VERSION_1.bit)) {
      this.#fail('the device is a legacy one', 'device.version-1', started)
      return
    }
    const features = offered & DRIVEN & (this.#setup.features | featureMask(CommonFeature.VERSION_1.bit))
    if (missingPrerequisite(offered, BlkFeature) !== null) {
      this.#violated('device.features-prerequisite', 0, 0)
    }
    transport.accept(features)
    transport.setStatus(Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK)
    if ((transport.status() & Status.FEATURES_OK) === 0) {
      this.#fail('the device refuses a subset of what it offers', 'device.features-refused', started)
      return
    }
    const geometry = readGeometry(transport, features)
    if (typeof geometry === 'string') {
      this.#fail('the configuration is not usable', geometry, started)
      return
    }
    const size = queueSize(transport.queueSizeMax(0), this.#setup.queueSize)
    if (size === 0) {
      this.#fail('the device has no request queue', 'mmio.queue-absent', started)
      return
    }
    if (size <= FRAME_SEGMENTS) {
      this.#fail('a queue of this size holds no request with data', null, started)
      return
    }
    this.#makeRing(size, features, geometry)
    transport.setStatus(Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK | Status.DRIVER_OK)
    // Before DRIVER_OK a device has no way to tell that it could not take the queue.
    if ((transport.status() & Status.DEVICE_NEEDS_RESET) !== 0) {
      this.#ring = null
      this.#fail('the device needs a reset', 'device.needs-reset', started)
      return
    }
    this.#enter({ kind: 'ready', features, geometry: within(geometry, size) })
    started(this.#state)
  }

  #makeRing(size: number, features: FeatureSet, geometry: BlkGeometry): void {
    const { platform, transport, violated } = this.#setup
    const indirect = hasFeature(features, CommonFeature.INDIRECT_DESC.bit)
    const ring = new DriverRing<Slot>({
      platform,
      queue: 0,
      size,
      indirectSegments: indirect ? Math.min(size, geometry.segmentsMax + 2) : 0,
      eventIdx: hasFeature(features, CommonFeature.EVENT_IDX.bit),
      violated,
    })
    this.#slotsAt = platform.allocate(size * SLOT_BYTES, SLOT_BYTES)
    this.#window = platform.memory.window(this.#slotsAt, size * SLOT_BYTES, SLOT_BYTES)
    this.#slots = Array.from({ length: size }, (_, i) => ({ base: i * SLOT_BYTES, command: null }))
    this.#ring = ring
    transport.startQueue(0, ring.place)
  }

  #configChanged(): void {
    if (this.#state.kind !== 'ready') return
    const { transport } = this.#setup
    if ((transport.status() & Status.DEVICE_NEEDS_RESET) !== 0) {
      this.#broke()
      return
    }
    const geometry = readGeometry(transport, this.#state.features)
    if (typeof geometry !== 'string') {
      this.#enter({ ...this.#state, geometry: within(geometry, this.#ring?.size ?? 0) })
      return
    }
    this.#violated(geometry, 0, 0)
    this.#broke()
  }

  /** The device cannot go on, or cannot be believed: reset it, and end what was out. */
  #broke(): void {
    if (this.#state.kind !== 'ready') return
    const failed: BlkDriverState = { kind: 'failed', why: 'the device needs a reset' }
    this.#state = failed
    this.#resetDevice((reset) => {
      if (reset) this.#abandonAll()
      else this.#violated('device.reset-answer', 0, 0)
    })
    // Told last: who hears it may start the device again, and that waits behind this reset.
    if (this.#state === failed) this.#setup.changed?.(failed)
  }

  #abandonAll(): void {
    this.#endAll(GONE)
  }

  #endAll(end: BlkEnd): void {
    const owners = this.#ring?.drain() ?? []
    this.#ring = null
    for (const slot of owners) {
      const { command } = slot
      slot.command = null
      command?.ended(end, 0)
    }
  }

  /** Writes 0 to status and waits, in virtual time and not for ever, until it reads 0. */
  #resetDevice(finished: (reset: boolean) => void): void {
    const { transport, platform } = this.#setup
    if (this.#resetting !== null) {
      this.#resetting.push(finished)
      return
    }
    this.#resetting = [finished]
    transport.setStatus(0)
    let waitedUs = 0
    let pauseUs = RESET_POLL_US
    const poll = () => {
      const reset = transport.status() === 0
      if (reset || waitedUs >= RESET_US) {
        this.#resetEnded(reset)
        return
      }
      platform.clock.after(pauseUs, poll)
      waitedUs += pauseUs
      pauseUs = Math.min(pauseUs * 2, RESET_POLL_MOST_US)
    }
    poll()
  }

  #resetEnded(reset: boolean): void {
    const waiting = this.#resetting ?? []
    this.#resetting = null
    for (const finished of waiting) finished(reset)
  }

  #enter(state: BlkDriverState): void {
    this.#state = state
    this.#setup.changed?.(state)
  }

  #fail(why: string, rule: RequirementId | null, started: (state: BlkDriverState) => void): void {
    if (rule !== null) this.#violated(rule, 0, 0)
    const { transport } = this.#setup
    // Bits are never taken back one by one, not even by giving up.
    transport.setStatus((transport.status() & 0xff) | Status.FAILED)
    this.#enter({ kind: 'failed', why })
    started(this.#state)
  }

  #violated(rule: RequirementId, seen: number, expected: number): void {
    this.#setup.violated({ rule, side: 'device', queue: null, at: null, seen, expected })
  }
}

/** A request is one chain, and a chain is no longer than its ring, whatever the device says. */
function within(geometry: BlkGeometry, ringSize: number): BlkGeometry {
  return { ...geometry, segmentsMax: Math.min(geometry.segmentsMax, ringSize - FRAME_SEGMENTS) }
}

/** The largest power of two both ends can do; 0 when the device has no such queue. */
function queueSize(offeredMax: number, wanted: number): number {
  const most = Math.min(offeredMax, wanted)
  return most >= 1 ? 2 ** Math.floor(Math.log2(most)) : 0
}
