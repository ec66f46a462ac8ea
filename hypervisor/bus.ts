import type { AccessWidth, RegisterDevice } from '../protocol/platform.ts'

/** A device's range on a bus, and how often it was reached. */
export class BusRange {
  /** `disk0`: the device, as counters and logs name it. */
  readonly name: string
  readonly base: number
  readonly end: number
  readonly device: RegisterDevice
  reads: number
  writes: number

  constructor(name: string, base: number, lengthBytes: number, device: RegisterDevice) {
    this.name = name
    this.base = base
    this.end = base + lengthBytes
    this.device = device
    this.reads = 0
    this.writes = 0
  }
}

/**
 * One address space of registers: memory-mapped ones by guest-physical address, or I/O ports.
 *
 * An access belongs to a device only when it lies wholly within its range. What nobody claims, and what
 * straddles the end of a range, floats: reads give all ones, writes vanish, and both are counted, since a
 * driver that touches them is lost.
 */
export class Bus {
  /** First address that does not exist. */
  readonly end: number
  /** By address. */
  #ranges: readonly BusRange[]
  /** The range of the last hit: a driver's accesses come together. */
  #last: BusRange | null
  #unclaimed: number

  constructor(end: number) {
    this.end = end
    this.#ranges = []
    this.#last = null
    this.#unclaimed = 0
  }

  /** Accesses that met no device. */
  get unclaimed(): number {
    return this.#unclaimed
  }

  get ranges(): readonly BusRange[] {
    return this.#ranges
  }

  /**
   * Puts a device's registers at an address.
   *
   * @throws RangeError when the range is empty, leaves the space or meets another: a mistake of who lays it out.
   */
  map(name: string, base: number, lengthBytes: number, device: RegisterDevice): BusRange {
    if (!(base >= 0 && lengthBytes > 0 && base + lengthBytes <= this.end)) {
      throw new RangeError(
        `${name}: ${lengthBytes} bytes of registers at 0x${base.toString(16)} leave the bus`,
      )
    }
    const range = new BusRange(name, base, lengthBytes, device)
    const other = this.#ranges.find((one) => range.base < one.end && one.base < range.end)
    if (other !== undefined) {
      throw new RangeError(
        `${name}: registers at 0x${base.toString(16)} are claimed by ${other.name} already`,
      )
    }
    this.#ranges = [...this.#ranges, range].sort((a, b) => a.base - b.base)
    return range
  }

  /** Takes a range away; false when it is not there. A device may do so in the middle of an access. */
  unmap(range: BusRange): boolean {
    if (!this.#ranges.includes(range)) return false
    this.#ranges = this.#ranges.filter((one) => one !== range)
    if (this.#last === range) this.#last = null
    return true
  }

  /** The range that an access of `width` bytes lies in wholly, or null. */
  find(at: number, width: number): BusRange | null {
    const last = this.#last
    if (last !== null && at >= last.base && at + width <= last.end) return last
    let low = 0
    let high = this.#ranges.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#ranges[middle] as BusRange).end <= at) low = middle + 1
      else high = middle
    }
    const found = this.#ranges[low]
    if (found === undefined || !(at >= found.base && at + width <= found.end)) return null
    this.#last = found
    return found
  }

  /** All ones where nothing answers; for 8 bytes as near as a Number comes (2^53 - 1, `floating`). */
  read(at: number, width: AccessWidth): number {
    const range = this.find(at, width)
    if (range === null) {
      this.#unclaimed++
      return floating(width)
    }
    range.reads++
    return range.device.read(at - range.base, width)
  }

  write(at: number, width: AccessWidth, value: number): void {
    const range = this.find(at, width)
    if (range === null) {
      this.#unclaimed++
      return
    }
    range.writes++
    range.device.write(at - range.base, width, value)
  }
}

/** All ones. Registers are exact up to 2^53 - 1, so eight bytes of ones are that. */
export function floating(width: AccessWidth): number {
  return width === 8 ? Number.MAX_SAFE_INTEGER : 2 ** (8 * width) - 1
}
