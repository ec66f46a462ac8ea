/**
 * What a back-end makes of a message, written down a second time and as plainly as can be: which are carried out,
 * which are refused, and where rings stand. It knows nothing of how.
 */
export type Verdict = 'carried out' | 'refused'

interface ModelRing {
  size: number
  addressed: boolean
  base: number
  started: boolean
  enabled: boolean
}

export const MODEL_PROTOCOL_BITS = [0, 1, 3, 5, 9, 12, 13, 15, 16]
const SIZES = [1, 2, 4, 8, 16, 32, 64]

export interface ModelMessage {
  readonly name: string
  readonly ring: number
  readonly num: number
  /** SET_VRING_KICK, CALL and ERR: whether the payload says that there is no descriptor. */
  readonly without: boolean
  readonly riding: readonly string[]
  /** Bytes more or fewer than the message has. */
  readonly off: number
}

/** Messages about rings alone; memory is there, and features are what `features` says. */
export class VhostModel {
  readonly rings: ModelRing[]

  constructor(queues: number) {
    this.rings = Array.from({ length: queues }, () => ({
      size: 0,
      addressed: false,
      base: 0,
      started: false,
      enabled: false,
    }))
  }

  judge(message: ModelMessage): Verdict {
    const { name, ring: index, num, off } = message
    if (off !== 0) return 'refused'
    const events = ['SET_VRING_KICK', 'SET_VRING_CALL', 'SET_VRING_ERR'].includes(name)
    if (events ? message.riding.length > 1 : message.riding.length > 0) return 'refused'
    const ring = this.rings[index]
    if (ring === undefined) return 'refused'
    if (events) {
      if (message.riding.length !== (message.without ? 0 : 1)) return 'refused'
      if (!message.without && message.riding[0] !== 'event') return 'refused'
      return name === 'SET_VRING_KICK' ? this.#start(ring) : 'carried out'
    }
    switch (name) {
      case 'SET_VRING_NUM':
        if (ring.started || !SIZES.includes(num)) return 'refused'
        ring.size = num
        return 'carried out'
      case 'SET_VRING_BASE':
        if (ring.started || num > 0xffff) return 'refused'
        ring.base = num
        return 'carried out'
      case 'SET_VRING_ADDR':
        ring.addressed = true
        return 'carried out'
      case 'SET_VRING_ENABLE':
        if (num > 1) return 'refused'
        ring.enabled = num === 1
        return ring.enabled && ring.started && !this.#complete(ring) ? 'refused' : 'carried out'
      case 'GET_VRING_BASE':
        ring.started = false
        return 'carried out'
      default:
        throw new Error(`the model does not know ${name}`)
    }
  }

  /** A ring that cannot run is not started; a disabled one is looked at when it is enabled. */
  #start(ring: ModelRing): Verdict {
    ring.started = !ring.enabled || this.#complete(ring)
    return ring.started ? 'carried out' : 'refused'
  }

  #complete(ring: ModelRing): boolean {
    return ring.size > 0 && ring.addressed
  }
}
