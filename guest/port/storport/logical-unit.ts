import type { DeviceObject } from '../../kernel/device-object.ts'
import type { PortRequest } from './port-request.ts'

/** Storport's default where a miniport sets none. */
export const DEFAULT_QUEUE_DEPTH = 20

/** What INQUIRY told of a unit. */
export interface UnitIdentity {
  readonly deviceType: number
  readonly removable: boolean
  readonly vendor: string
  readonly product: string
  readonly revision: string
  readonly serial: string
}

/** A logical unit: its requests in order, and how many of them the miniport may have at once. */
export class LogicalUnit {
  readonly path: number
  readonly target: number
  readonly lun: number
  identity: UnitIdentity | null
  /** Its PDO, once it was reported. */
  device: DeviceObject | null
  depth: number
  /** Requests the miniport has. */
  readonly out: Set<PortRequest>
  /** A request failed, and nothing but what bypasses goes out until RELEASE_QUEUE. */
  frozen: boolean
  /** LOCK_QUEUE. */
  locked: boolean
  /** A class driver has it to itself. */
  claimed: boolean
  /** Requests are not let out before: the miniport was busy. */
  heldUntilUs: number
  /** Still there at the last scan. */
  present: boolean
  readonly #waiting: PortRequest[]

  constructor(path: number, target: number, lun: number) {
    this.path = path
    this.target = target
    this.lun = lun
    this.identity = null
    this.device = null
    this.depth = DEFAULT_QUEUE_DEPTH
    this.out = new Set()
    this.frozen = false
    this.locked = false
    this.claimed = false
    this.heldUntilUs = 0
    this.present = true
    this.#waiting = []
  }

  get waitingCount(): number {
    return this.#waiting.length
  }

  append(request: PortRequest): void {
    this.#waiting.push(request)
  }

  /** Back to where it was: it goes out next. */
  prepend(request: PortRequest): void {
    this.#waiting.unshift(request)
  }

  /** Takes out the first that may go; null when none may. */
  next(may: (request: PortRequest) => boolean): PortRequest | null {
    const at = this.#waiting.findIndex(may)
    return at < 0 ? null : (this.#waiting.splice(at, 1)[0] ?? null)
  }

  /** Takes one out of its place; false when it is not waiting. */
  remove(request: PortRequest): boolean {
    const at = this.#waiting.indexOf(request)
    if (at < 0) return false
    this.#waiting.splice(at, 1)
    return true
  }

  /** Takes out all. */
  drain(): PortRequest[] {
    return this.#waiting.splice(0)
  }
}
