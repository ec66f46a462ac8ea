/**
 * The registers of virtio-mmio version 2 as VIRTIO 1.3 section 4.2.2 lists them, with literal offsets and its
 * own arithmetic, so that it shares no mistake with the transport it judges.
 */

const VERSION_1 = 1n << 32n
const RING_RESET = 1n << 40n
const ACKNOWLEDGE = 1
const DRIVER = 2
const DRIVER_OK = 4
const FEATURES_OK = 8
const NEEDS_RESET = 64
const DRIVER_BITS = 143
/** In the order of initialization. */
const STEPS: readonly (readonly [bit: number, needs: number])[] = [
  [ACKNOWLEDGE, 0],
  [128, 0],
  [DRIVER, ACKNOWLEDGE],
  [FEATURES_OK, ACKNOWLEDGE | DRIVER],
  [DRIVER_OK, ACKNOWLEDGE | DRIVER | FEATURES_OK],
]

const QUEUE_WORDS = [0x038, 0x080, 0x084, 0x090, 0x094, 0x0a0, 0x0a4] as const

export interface ModelDevice {
  readonly id: number
  readonly vendor: number
  readonly offered: bigint
  readonly queueSizes: readonly number[]
  /** Feature bits that need another. */
  readonly needs: ReadonlyMap<bigint, bigint>
  /** Rule a device would refuse a queue of this size by, or null. */
  refusesQueue(index: number, size: number): string | null
}

interface ModelQueue {
  words: Map<number, number>
  ready: boolean
  stopping: boolean
  resetting: boolean
}

function noQueue(): ModelQueue {
  return { words: new Map(), ready: false, stopping: false, resetting: false }
}

/** What is asked of the device behind the registers, in words. */
export type ModelCall = string

export class MmioModel {
  readonly #device: ModelDevice
  status = 0
  interruptStatus = 0
  resetting = false
  /** Rules broken by the last access. */
  rules: string[] = []
  calls: ModelCall[] = []
  #deviceSel = 0
  #driverSel = 0
  #queueSel = 0
  #features: bigint[] = [0n, 0n, 0n, 0n]
  #queues: ModelQueue[]

  constructor(device: ModelDevice) {
    this.#device = device
    this.#queues = device.queueSizes.map(noQueue)
  }

  get line(): boolean {
    return this.interruptStatus !== 0
  }

  get driverFeatures(): bigint {
    return this.#features.reduce((all, word, i) => all | (word << BigInt(32 * i)), 0n)
  }

  isStopping(index: number): boolean {
    return this.#queues[index]?.stopping === true
  }

  /** The value of a control register; configuration space is the device's. */
  read(offset: number, width: number): number {
    this.rules = []
    if (width !== 4 || offset % 4 !== 0) return this.#refuse('mmio.register-width')
    const queue = this.#queues[this.#queueSel]
    switch (offset) {
      case 0x000:
        return 0x74726976
      case 0x004:
        return 2
      case 0x008:
        return this.#device.id
      case 0x00c:
        return this.#device.vendor
      case 0x010:
        if (this.#deviceSel > 3) return 0
        return Number((this.#device.offered >> BigInt(32 * this.#deviceSel)) & 0xffff_ffffn)
      case 0x034:
        return this.#device.queueSizes[this.#queueSel] ?? 0
      case 0x044:
        return queue?.ready === true ? 1 : 0
      case 0x060:
        return this.interruptStatus
      case 0x070:
        return this.status
      case 0x0b0:
      case 0x0b4:
      case 0x0b8:
      case 0x0bc:
        return 0xffff_ffff
      case 0x0c0:
        return queue?.resetting === true ? 1 : 0
      default:
        return this.#refuse('mmio.register-unknown')
    }
  }

  write(offset: number, width: number, value: number): void {
    this.rules = []
    if (width !== 4 || offset % 4 !== 0) {
      this.#refuse('mmio.register-width')
      return
    }
    if (this.resetting) return
    switch (offset) {
      case 0x014:
        this.#deviceSel = value
        return
      case 0x020:
        if ((this.status & FEATURES_OK) !== 0) this.#refuse('features.frozen')
        else if (this.#driverSel <= 3) this.#features[this.#driverSel] = BigInt(value)
        return
      case 0x024:
        this.#driverSel = value
        return
      case 0x030:
        this.#queueSel = value
        return
      case 0x0ac:
        return
      case 0x050:
        this.#notify(value)
        return
      case 0x064:
        if ((BigInt(value) & ~3n) !== 0n) this.#refuse('mmio.interrupt-ack')
        this.interruptStatus &= ~value & 3
        return
      case 0x070:
        this.#writeStatus(value)
        return
      case 0x044:
      case 0x0c0:
        this.#startOrStop(offset, value)
        return
      default:
        this.#writeWord(offset, value)
    }
  }

  signal(): void {
    if (!this.resetting) this.interruptStatus |= 1
  }

  configChanged(): void {
    if (!this.resetting && (this.status & DRIVER_OK) !== 0) this.interruptStatus |= 2
  }

  needsReset(): void {
    if (this.resetting || (this.status & NEEDS_RESET) !== 0) return
    this.status |= NEEDS_RESET
    this.configChanged()
  }

  /** The device has given back the last buffer of a queue that stops. */
  stopped(index: number): void {
    this.#queues[index] = noQueue()
  }

  resetDone(): void {
    this.status = 0
    this.interruptStatus = 0
    this.resetting = false
    this.#deviceSel = 0
    this.#driverSel = 0
    this.#queueSel = 0
    this.#features = [0n, 0n, 0n, 0n]
    this.#queues = this.#device.queueSizes.map(noQueue)
  }

  #refuse(rule: string): number {
    this.rules.push(rule)
    return 0
  }

  #writeStatus(value: number): void {
    if (value === 0) {
      this.resetting = true
      this.interruptStatus = 0
      this.calls.push('reset')
      return
    }
    if ((BigInt(value) & ~BigInt(DRIVER_BITS | NEEDS_RESET)) !== 0n) this.#refuse('status.unknown-bit')
    if ((this.status & DRIVER_BITS & ~value) !== 0) this.#refuse('status.bit-cleared')
    const before = this.status
    let reached = before
    for (const [bit, needs] of STEPS) {
      if ((value & bit) === 0 || (before & bit) !== 0) continue
      if ((reached & needs) === needs) reached |= bit
      else this.#refuse('status.order')
    }
    if ((reached & ~before & FEATURES_OK) !== 0) {
      const broken = this.#featuresBroken()
      if (broken === null) this.calls.push(`accept ${this.driverFeatures}`)
      else {
        this.#refuse(broken)
        reached &= ~(FEATURES_OK | DRIVER_OK)
      }
    }
    this.status = reached
    if ((reached & ~before & DRIVER_OK) !== 0) {
      for (const [index, queue] of this.#queues.entries()) {
        if (queue.ready && !queue.stopping) this.calls.push(`kick ${index}`)
      }
    }
  }

  #featuresBroken(): string | null {
    const features = this.driverFeatures
    if ((features & ~this.#device.offered) !== 0n) return 'features.not-offered'
    if ((features & VERSION_1) === 0n) return 'features.version-1'
    for (const [bit, needed] of this.#device.needs) {
      if ((features & bit) !== 0n && (features & needed) === 0n) return 'features.prerequisite'
    }
    return null
  }

  #notify(index: number): void {
    const queue = this.#queues[index]
    if (queue === undefined) this.#refuse('mmio.queue-range')
    else if ((this.status & DRIVER_OK) === 0 || !queue.ready) this.#refuse('queue.before-driver-ok')
    else if (!queue.stopping) this.calls.push(`kick ${index}`)
  }

  #startOrStop(offset: number, value: number): void {
    const index = this.#queueSel
    const queue = this.#queues[index]
    if (queue === undefined) {
      this.#refuse('mmio.queue-range')
      return
    }
    if (offset === 0x0c0) {
      const negotiated = (this.status & FEATURES_OK) !== 0 && (this.driverFeatures & RING_RESET) !== 0n
      if (!negotiated || value !== 1) this.#refuse('mmio.register-unknown')
      else if (!queue.ready) this.#queues[index] = noQueue()
      else {
        queue.resetting = true
        this.#stop(index, queue)
      }
      return
    }
    if (value === 0) {
      if (queue.ready) this.#stop(index, queue)
      return
    }
    if (queue.ready) this.#refuse('mmio.queue-live')
    else if ((this.status & FEATURES_OK) === 0) this.#refuse('status.order')
    else this.#start(index, queue)
  }

  #start(index: number, queue: ModelQueue): void {
    const words = QUEUE_WORDS.map((offset) => queue.words.get(offset) ?? 0)
    this.calls.push(`start ${index} ${words.join(' ')}`)
    const refused = this.#device.refusesQueue(index, words[0] ?? 0)
    if (refused !== null) {
      this.#refuse(refused)
      this.needsReset()
      return
    }
    queue.ready = true
    if ((this.status & DRIVER_OK) !== 0) this.calls.push(`kick ${index}`)
  }

  #stop(index: number, queue: ModelQueue): void {
    if (queue.stopping) return
    queue.stopping = true
    this.calls.push(`stop ${index}`)
  }

  #writeWord(offset: number, value: number): void {
    if (!QUEUE_WORDS.some((known) => known === offset)) {
      this.#refuse('mmio.register-unknown')
      return
    }
    const queue = this.#queues[this.#queueSel]
    if (queue === undefined) this.#refuse('mmio.queue-range')
    else if (queue.ready) this.#refuse('mmio.queue-live')
    else queue.words.set(offset, value)
  }
}
