import type { Gpa } from '../protocol/memory.ts'
import type { AccessWidth, RegisterDevice } from '../protocol/platform.ts'

interface Claim {
  readonly base: number
  readonly end: number
  readonly device: RegisterDevice
}

/**
 * Registers by address. What nobody claims floats: reads give all ones, writes vanish, and both are counted,
 * since a driver that touches them is lost.
 */
export class RegisterBus {
  readonly #claims: Claim[]
  #unclaimed: number

  constructor() {
    this.#claims = []
    this.#unclaimed = 0
  }

  /** Accesses that met no device. */
  get unclaimed(): number {
    return this.#unclaimed
  }

  /** @throws when the range meets another's: whoever lays out the bench made a mistake. */
  claim(base: Gpa, lengthBytes: number, device: RegisterDevice): void {
    const end = base + lengthBytes
    if (this.#claims.some((other) => base < other.end && other.base < end)) {
      throw new Error(`registers at 0x${base.toString(16)} are claimed twice`)
    }
    this.#claims.push({ base, end, device })
  }

  read(at: Gpa, width: AccessWidth): number {
    const claim = this.#find(at, width)
    if (claim !== null) return claim.device.read(at - claim.base, width)
    this.#unclaimed++
    return 2 ** (8 * width) - 1
  }

  write(at: Gpa, width: AccessWidth, value: number): void {
    const claim = this.#find(at, width)
    if (claim !== null) claim.device.write(at - claim.base, width, value)
    else this.#unclaimed++
  }

  /** An access belongs to a device only when it lies wholly within its range. */
  #find(at: number, width: number): Claim | null {
    for (const claim of this.#claims) {
      if (at >= claim.base && at + width <= claim.end) return claim
    }
    return null
  }
}
