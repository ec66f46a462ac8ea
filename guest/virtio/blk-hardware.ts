import type { Gpa } from '../../protocol/memory.ts'
import { gpa } from '../../protocol/memory.ts'
import type { FeatureSet } from '../../protocol/version.ts'
import { hasFeature } from '../../protocol/version.ts'
import { BlkFeature } from '../../protocol/virtio/blk.ts'
import { CommonFeature } from '../../protocol/virtio/features.ts'
import { availRingBytes, descTableBytes, usedRingBytes } from '../../protocol/virtio/ring.ts'
import { DeviceId, Status } from '../../protocol/virtio/status.ts'
import type { FindAdapterResult, PortConfiguration, PortServices } from '../port/miniport.ts'
import type { BlkDriverState } from './blk.ts'
import { BlkDriver } from './blk.ts'
import type { BlkCommand } from './blk-command.ts'
import { readGeometry } from './blk-geometry.ts'
import { MmioDriverTransport } from './mmio.ts'

/** Largest queue the driver uses. */
export const QUEUE_SIZE = 256
const SLOT_BYTES = 32
const PAGE = 4096
/** Header and status byte. */
const FRAME_SEGMENTS = 2
const DISCARD_RANGES_MAX = 256
/** Starts in a row without one request served before the device is given up. */
const RESTARTS = 4
const STOPPED: BlkDriverState = { kind: 'stopped' }

/**
 * The device as the miniport sees it: found once, started as often as needed, in memory the port gave. A
 * device that breaks is started again a few times; one that does not finish its reset is given up.
 */
export class BlkHardware {
  readonly #services: PortServices
  readonly #features: FeatureSet
  readonly #changed: (state: BlkDriverState) => void
  #driver: BlkDriver | null
  #queueSize: number
  #memoryAt: number
  #memoryTop: number
  #restarts: number
  /** Nobody wants it to run: a reset that is under way does not end in a start. */
  #stopped: boolean
  /** What `find` learned; the configuration of the port was made from it. */
  segmentsMax: number
  discardRanges: number
  writeCache: boolean
  depth: number

  constructor(services: PortServices, features: FeatureSet, changed: (state: BlkDriverState) => void) {
    this.#services = services
    this.#features = features
    this.#changed = changed
    this.#driver = null
    this.#queueSize = 0
    this.#memoryAt = 0
    this.#memoryTop = 0
    this.#restarts = RESTARTS
    this.#stopped = true
    this.segmentsMax = 0
    this.discardRanges = 0
    this.writeCache = false
    this.depth = 1
  }

  get state(): BlkDriverState {
    return this.#driver?.state ?? STOPPED
  }

  /** Bytes of rings, indirect tables and request frames, whatever the device says later. */
  get memoryBytes(): number {
    const size = this.#queueSize
    const areas = descTableBytes(size) + availRingBytes(size) + usedRingBytes(size) + size * SLOT_BYTES
    return areas + size * descTableBytes(size) + 5 * PAGE
  }

  /** Looks whether the resources hold a block device this driver can drive, and what it can do. */
  find(configuration: PortConfiguration): FindAdapterResult {
    const range = configuration.resources.find((one) => one.kind === 'memory')
    if (range === undefined) return 'bad-config'
    const base = this.#services.getDeviceBase(range.start as Gpa, range.lengthBytes)
    if (base === null) return 'bad-config'
    const services = this.#services
    const transport = new MmioDriverTransport(
      {
        read: (at, width) => services.readRegister(at, width),
        write: (at, width, value) => services.writeRegister(at, width, value),
      },
      base,
    )
    if (transport.identify() !== DeviceId.BLOCK) return 'not-found'
    transport.setStatus(0)
    transport.setStatus(Status.ACKNOWLEDGE)
    transport.setStatus(Status.ACKNOWLEDGE | Status.DRIVER)
    const features = transport.offered() & this.#features
    const geometry = readGeometry(transport, features)
    const sizeMax = Math.min(QUEUE_SIZE, transport.queueSizeMax(0))
    const size = sizeMax >= 1 ? 2 ** Math.floor(Math.log2(sizeMax)) : 0
    transport.setStatus(0)
    if (typeof geometry === 'string' || !(size > FRAME_SEGMENTS)) return 'error'
    this.#queueSize = size
    this.segmentsMax = Math.min(geometry.segmentsMax, this.#queueSize - FRAME_SEGMENTS)
    this.writeCache = hasFeature(features, BlkFeature.FLUSH.bit)
    if (hasFeature(features, BlkFeature.DISCARD.bit)) {
      this.discardRanges = Math.min(geometry.discardSegmentsMax, DISCARD_RANGES_MAX)
    }
    // Without tables a request takes a descriptor a segment; what does not fit is tried again.
    const indirect = hasFeature(features, CommonFeature.INDIRECT_DESC.bit)
    this.depth = indirect ? this.#queueSize : Math.max(1, this.#queueSize / 4)
    this.#driver = this.#makeDriver(transport)
    return 'found'
  }

  useMemory(at: Gpa): void {
    this.#memoryAt = at
  }

  start(): void {
    this.#restarts = RESTARTS
    this.#stopped = false
    this.#start()
  }

  submit(command: BlkCommand): boolean {
    if (this.#driver === null || !this.#driver.submit(command)) return false
    this.#driver.kick()
    return true
  }

  acknowledge(): boolean {
    return this.#driver?.acknowledge() ?? false
  }

  /** A request was served: the device works. */
  worked(): void {
    this.#restarts = RESTARTS
  }

  serve(): void {
    this.#driver?.serve()
  }

  /** Ends everything that is out and starts again; while that is under way, nothing more to do. */
  reset(): void {
    const { kind } = this.state
    if (kind !== 'ready') return
    this.#driver?.stop((clean) => {
      if (clean && !this.#stopped) this.#start()
    })
  }

  stop(): void {
    this.#restarts = 0
    this.#stopped = true
    if (this.state.kind !== 'failed') this.#driver?.stop(() => {})
  }

  #start(): void {
    // The rings of an earlier start are the device's no more: a start begins with a finished reset.
    this.#memoryTop = this.#memoryAt
    this.#driver?.start(() => {})
  }

  #makeDriver(transport: MmioDriverTransport): BlkDriver {
    const services = this.#services
    return new BlkDriver({
      platform: {
        memory: services.memory,
        allocate: (lengthBytes, alignment) => this.#allocate(lengthBytes, alignment),
        clock: {
          after(us, work) {
            services.requestTimer(us, work)
            return { cancel: () => services.requestTimer(0, work) }
          },
        },
      },
      transport,
      features: this.#features,
      queueSize: this.#queueSize,
      violated: (violation) => services.violated(violation),
      changed: (state) => this.#stateChanged(state),
    })
  }

  #stateChanged(state: BlkDriverState): void {
    if (state.kind === 'failed') {
      if (this.#restarts > 0) {
        this.#restarts--
        this.#services.logError(`the device is started again: ${state.why}`)
        this.#start()
        return
      }
      this.#services.logError(`the device is given up: ${state.why}`)
      this.#driver?.forsake()
    }
    this.#changed(state)
  }

  #allocate(lengthBytes: number, alignment: number): Gpa {
    const at = Math.ceil(this.#memoryTop / alignment) * alignment
    this.#memoryTop = at + lengthBytes
    if (!(this.#memoryTop <= this.#memoryAt + this.memoryBytes)) {
      throw new Error('the rings do not fit in the memory reserved for them')
    }
    const window = this.#services.memory.window(gpa(at), lengthBytes, 1)
    window?.fill(0, 0, lengthBytes)
    return gpa(at)
  }
}
