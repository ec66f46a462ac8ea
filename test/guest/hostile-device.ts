import type { GuestMemory } from '../../protocol/memory.ts'
import type { AccessWidth, RegisterDevice } from '../../protocol/platform.ts'

const MAGIC = 0x74726976
/** VERSION_1, SEG_MAX, BLK_SIZE, FLUSH; and EVENT_IDX where a case wants it. */
const HOSTILE_FEATURES = (1n << 32n) | (1n << 2n) | (1n << 6n) | (1n << 9n)

/** One thing the device does to the ring when it is told to, lawful or not. */
export type HostileAct =
  | { readonly kind: 'serve'; readonly status: number | null; readonly extraBytes: number }
  | { readonly kind: 'use'; readonly head: number; readonly lengthBytes: number }
  | { readonly kind: 'leap'; readonly by: number }
  | { readonly kind: 'scribble'; readonly seed: number }
  | { readonly kind: 'interrupt'; readonly causes: number }
  | { readonly kind: 'needs-reset' }
  /** Configuration becomes something else, and the driver is told or not. */
  | { readonly kind: 'configure'; readonly offset: number; readonly value: number; readonly told: boolean }
  /** Configuration changes under the next reads of it: a value in two halves is never one of any time. */
  | { readonly kind: 'tear'; readonly reads: number }
  /** A register reads as something else, so many times. */
  | { readonly kind: 'lie'; readonly register: number; readonly value: number; readonly times: number }
  /** Nothing is there any more: reads are all ones, writes go nowhere, and no interrupt comes. */
  | { readonly kind: 'vanish' }
  /** A reset never ends. */
  | { readonly kind: 'stick' }

/**
 * A virtio-mmio block device that lies where it is told to. Honest where it is not: registers remember what is
 * written, and `serve` answers the next request in order.
 *
 * It writes nowhere but into the queue's own areas and the status byte of a request it serves.
 */
export class HostileDevice implements RegisterDevice {
  /** By register offset: what it reads instead, given what an honest device would say and how often it was asked. */
  readonly lies: Map<number, (honest: number, times: number) => number>
  readonly config: Uint8Array
  onInterrupt: (() => void) | null
  offered: bigint
  queueMax: number
  level: boolean
  #generation: number
  /** Reads of configuration under which it changes. */
  #tearing: number
  #gone: boolean
  #stuck: boolean
  readonly #memory: Uint8Array
  readonly #view: DataView
  readonly #asked: Map<number, number>
  readonly #written: Map<number, number>
  #status: number
  #causes: number
  #next: number
  #used: number

  constructor(memory: GuestMemory) {
    const region = memory.regions[0]
    if (region === undefined) throw new Error('no memory')
    this.#memory = region.bytes
    this.#view = new DataView(region.bytes.buffer, region.bytes.byteOffset, region.bytes.length)
    this.lies = new Map()
    this.config = new Uint8Array(256)
    this.#configureAll()
    this.onInterrupt = null
    this.offered = HOSTILE_FEATURES
    this.queueMax = 16
    this.level = false
    this.#generation = 0
    this.#tearing = 0
    this.#gone = false
    this.#stuck = false
    this.#asked = new Map()
    this.#written = new Map()
    this.#status = 0
    this.#causes = 0
    this.#next = 0
    this.#used = 0
  }

  get status(): number {
    return this.#status
  }
  get memory(): Uint8Array {
    return this.#memory
  }
  /** Where the queue lies, as the driver said; null before there is one. */
  get queue(): {
    readonly size: number
    readonly descriptors: number
    readonly driver: number
    readonly device: number
  } | null {
    if (!this.#live) return null
    const [descriptors, driver, device] = [0x080, 0x090, 0x0a0].map((low) => this.#area(low))
    return { size: this.#size, descriptors: descriptors ?? 0, driver: driver ?? 0, device: device ?? 0 }
  }

  /** From now on as it should be, with the configuration it had at first; the driver is told. */
  reform(): void {
    this.lies.clear()
    this.#tearing = 0
    this.#gone = false
    this.#stuck = false
    this.#configureAll()
    this.#generation++
    if (this.#status !== 0) this.interrupt(3)
  }

  /** What the driver accepted. */
  get accepted(): bigint {
    return [0, 1, 2, 3].reduce(
      (all, word) => all | (BigInt(this.#written.get(0x1000 + word) ?? 0) << BigInt(32 * word)),
      0n,
    )
  }

  #configureAll(): void {
    this.config.fill(0)
    const config = new DataView(this.config.buffer)
    config.setUint32(0, 128, true)
    config.setUint32(12, 8, true)
    config.setUint32(20, 512, true)
  }

  read(offset: number, width: AccessWidth): number {
    if (this.#gone) return 2 ** (8 * width) - 1
    if (offset >= 0x100 && this.#tearing > 0) this.#tear()
    const times = this.#asked.get(offset) ?? 0
    this.#asked.set(offset, times + 1)
    const honest = this.#honest(offset, width)
    return (this.lies.get(offset)?.(honest, times) ?? honest) >>> 0
  }

  /** Another capacity, in both halves. */
  #tear(): void {
    this.#tearing--
    this.#generation++
    const config = new DataView(this.config.buffer)
    config.setUint32(0, (this.#tearing * 0x1357) >>> 0, true)
    config.setUint32(4, this.#tearing & 3, true)
  }

  write(offset: number, _width: AccessWidth, value: number): void {
    if (this.#gone) return
    this.#written.set(offset, value)
    if (offset === 0x020) this.#written.set(0x1000 + (this.#written.get(0x024) ?? 0), value)
    if (offset === 0x064) {
      this.#causes &= ~value
      this.level = this.#causes !== 0
    }
    if (offset !== 0x070) return
    if (value === 0 && this.#stuck) return
    this.#status = value
    if (value !== 0) return
    this.#next = 0
    this.#used = 0
    this.#causes = 0
    this.level = false
    this.#written.set(0x044, 0)
  }

  act(act: HostileAct): void {
    switch (act.kind) {
      case 'serve':
        this.#serve(act.status, act.extraBytes)
        return
      case 'use':
        this.#use(act.head, act.lengthBytes)
        return
      case 'leap':
        this.#publish(this.#used + act.by)
        return
      case 'scribble':
        this.#scribble(act.seed)
        return
      case 'interrupt':
        this.interrupt(act.causes)
        return
      case 'needs-reset':
        this.#status |= 64
        this.interrupt(2)
        return
      case 'configure':
        new DataView(this.config.buffer).setUint32(act.offset, act.value, true)
        this.#generation++
        if (act.told) this.interrupt(2)
        return
      case 'tear':
        this.#tearing = act.reads
        this.interrupt(2)
        return
      case 'lie': {
        let left = act.times
        this.lies.set(act.register, (honest) => (left-- > 0 ? act.value : honest))
        return
      }
      case 'vanish':
        this.#gone = true
        return
      case 'stick':
        this.#stuck = true
        return
    }
  }

  interrupt(causes: number): void {
    if (this.#gone) return
    this.#causes |= causes
    this.level = true
    this.onInterrupt?.()
  }

  #honest(offset: number, width: AccessWidth): number {
    if (offset >= 0x100) {
      let value = 0
      for (let i = width - 1; i >= 0; i--) value = value * 256 + (this.config[offset - 0x100 + i] ?? 0)
      return value
    }
    const word = this.#written.get(0x014) ?? 0
    if (offset === 0x000) return MAGIC
    if (offset === 0x004 || offset === 0x008) return 2
    if (offset === 0x010) return Number((this.offered >> BigInt(32 * word)) & 0xffff_ffffn)
    if (offset === 0x034) return this.queueMax
    if (offset === 0x044) return this.#written.get(0x044) ?? 0
    if (offset === 0x060) return this.#causes
    if (offset === 0x070) return this.#status
    if (offset === 0x0fc) return this.#generation
    return 0
  }

  #area(low: number): number {
    return (this.#written.get(low) ?? 0) + (this.#written.get(low + 4) ?? 0) * 2 ** 32
  }

  get #size(): number {
    return this.#written.get(0x038) ?? 0
  }

  /** Nothing to act on before there is a queue. */
  get #live(): boolean {
    return this.#written.get(0x044) === 1 && this.#size > 0
  }

  #serve(status: number | null, extraBytes: number): void {
    if (!this.#live) return
    const driver = this.#area(0x090)
    if (this.#view.getUint16(driver + 2, true) === this.#next) return
    const head = this.#view.getUint16(driver + 4 + 2 * (this.#next % this.#size), true)
    this.#next = (this.#next + 1) & 0xffff
    let index = head % this.#size
    let writable = 0
    let last = 0
    for (let left = this.#size; left > 0; left--) {
      const at = this.#area(0x080) + 16 * index
      const flags = this.#view.getUint16(at + 12, true)
      if ((flags & 2) !== 0) writable += this.#view.getUint32(at + 8, true)
      last = Number(this.#view.getBigUint64(at, true)) + this.#view.getUint32(at + 8, true) - 1
      if ((flags & 1) === 0) break
      index = this.#view.getUint16(at + 14, true) % this.#size
    }
    if (status !== null && last < this.#memory.length) this.#memory[last] = status
    this.#use(head, writable + extraBytes)
  }

  #use(head: number, lengthBytes: number): void {
    if (!this.#live) return
    const at = this.#area(0x0a0) + 4 + 8 * (this.#used % this.#size)
    this.#view.setUint32(at, head, true)
    this.#view.setUint32(at + 4, lengthBytes, true)
    this.#publish(this.#used + 1)
  }

  #publish(index: number): void {
    if (!this.#live) return
    this.#used = index & 0xffff
    this.#view.setUint16(this.#area(0x0a0) + 2, this.#used, true)
  }

  /** Writes nonsense over everything a driver has published: descriptors, available ring, used flags. */
  #scribble(seed: number): void {
    if (!this.#live) return
    const size = this.#size
    for (let i = 0; i < 16 * size; i++) this.#memory[this.#area(0x080) + i] = (seed + i * 31) & 0xff
    for (let i = 0; i < 6 + 2 * size; i++) this.#memory[this.#area(0x090) + i] = (seed + i * 17) & 0xff
  }
}
