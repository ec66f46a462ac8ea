import { expect } from 'vitest'
import type { Chain } from '../../host/virtio/chain.ts'
import { SplitRing } from '../../host/virtio/split-ring.ts'
import { DmaSpace } from '../../protocol/dma.ts'
import type { Violation } from '../../protocol/violation.ts'
import { explain } from '../../protocol/violation.ts'
import type { QueuePlace } from '../../protocol/virtio/ring.ts'
import { HostileScene, hostileGround } from '../fuzz/hostile-scene.ts'
import type { Access } from '../fuzz/journal.ts'
import { Journal, JournalMemory } from '../fuzz/journal.ts'
import { L_WRITE, LiteralRing } from '../fuzz/literal-ring.ts'

export const DESCRIPTORS = 0x1000
export const DRIVER = 0x3000
export const DEVICE = 0x5000

export function within(
  at: number,
  areas: readonly { readonly at: number; readonly lengthBytes: number }[],
): boolean {
  return areas.some((area) => at >= area.at && at < area.at + area.lengthBytes)
}

/** A device's end under a journal, on the memory a hostile driver writes to. */
export class Scene {
  readonly ground
  readonly place: QueuePlace
  readonly literal: LiteralRing
  readonly journal = new Journal()
  readonly violations: Violation[] = []
  readonly dma: DmaSpace
  readonly hostile: HostileScene
  readonly ring: SplitRing

  constructor(options: {
    size?: number
    eventIdx?: boolean
    indirect?: boolean
    start?: number
    retake?: readonly number[]
    /** The device meets the memory itself: what it does is not noted, and it reads by words where it can. */
    plain?: boolean
  }) {
    const { size = 8, start = 0, plain = false } = options
    this.ground = hostileGround(size === 256 ? 2 ** 25 : undefined)
    this.place = { size, descriptors: DESCRIPTORS, driver: DRIVER, device: DEVICE }
    this.literal = new LiteralRing(this.ground.memory, this.place)
    this.literal.availableIndex(start)
    this.literal.usedIndex(start)
    const { memory } = this.ground
    this.dma = new DmaSpace(plain ? memory : new JournalMemory(memory, this.journal))
    this.hostile = new HostileScene(this.literal, this.ground, start)
    this.ring = this.#start(options)
  }

  get usedArea() {
    return { at: DEVICE, lengthBytes: 6 + 8 * this.place.size }
  }

  /** Where the device may look: its ring and the tables it was pointed at. */
  get readable() {
    return [
      { at: DESCRIPTORS, lengthBytes: 16 * this.place.size },
      { at: DRIVER, lengthBytes: 6 + 2 * this.place.size },
      this.usedArea,
      ...this.hostile.tables,
    ]
  }

  /** From now on whatever the device reads of the driver's is another value once it has been read. */
  scribble(): void {
    this.journal.after = ({ kind, at, lengthBytes }: Access) => {
      if (kind !== 'read' && kind !== 'load') return
      if (at < DRIVER + 6 + 2 * this.place.size && at >= DRIVER && kind === 'load') return
      for (const { base, bytes } of this.ground.memory.regions) {
        for (let i = 0; i < lengthBytes; i++) {
          const where = at + i - base
          if (where >= 0 && where < bytes.length) bytes[where] = (bytes[where] as number) ^ 0xff
        }
      }
    }
  }

  /** A plain request that any sound ring serves: the device lives. */
  serveGood(ring = this.ring, entry = this.hostile.entry): void {
    this.journal.after = null
    this.literal.describe(this.place.size - 1, { addr: this.ground.data, len: 8, flags: L_WRITE })
    this.literal.offer(entry, this.place.size - 1)
    this.literal.availableIndex(entry + 1)
    const chain = ring.next()
    expect(chain?.head).toBe(this.place.size - 1)
    ring.complete(chain as Chain, 8)
    ring.publish()
    const used = ring.position().used
    expect(this.literal.usedEntry(used + 65_535)).toEqual({ id: this.place.size - 1, len: 8 })
    expect(this.literal.used.index).toBe(used)
    expect(ring.inFlight).toBe(0)
  }

  #start(options: { eventIdx?: boolean; indirect?: boolean; start?: number; retake?: readonly number[] }) {
    const { eventIdx = true, indirect = true, start = 0, retake = [] } = options
    const ring = SplitRing.start({
      dma: this.dma,
      queue: 3,
      place: this.place,
      sizeMax: 256,
      indirect,
      eventIdx,
      position: { available: start, used: start },
      retake,
      listener: { violated: (violation) => this.violations.push(violation) },
    })
    if (!(ring instanceof SplitRing)) throw new Error(explain(ring))
    return ring
  }

  /** What the driver does after a reset: everything zero, from the beginning. */
  restart(): SplitRing {
    const [low] = this.ground.memory.regions
    low?.bytes.fill(0, DRIVER, DEVICE + this.usedArea.lengthBytes)
    this.journal.clear()
    return this.#start({})
  }
}

/** Descriptors the device looked at, each by the one 8-byte field it has. */
export function walked(journal: Journal): number {
  return journal.accesses.filter(({ kind, lengthBytes }) => kind === 'read' && lengthBytes === 8).length
}
