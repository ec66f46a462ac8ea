/**
 * A block device as VIRTIO 1.3 section 5.2 describes it, over an array. Written from the text and in its own
 * arithmetic (BigInt), so that it shares no mistake with the device it judges.
 */

export const IN = 0
export const OUT = 1
export const FLUSH = 4
export const GET_ID = 8
export const GET_LIFETIME = 10
export const DISCARD = 11
export const WRITE_ZEROES = 13
export const SECURE_ERASE = 14
export const TYPES = [IN, OUT, FLUSH, GET_ID, GET_LIFETIME, DISCARD, WRITE_ZEROES, SECURE_ERASE] as const

const OK = 0
const IOERR = 1
const UNSUPP = 2
const SECTOR = 512n
/** The bit that makes a type usable. */
const NEEDS: ReadonlyMap<number, bigint> = new Map([
  [FLUSH, 9n],
  [DISCARD, 13n],
  [WRITE_ZEROES, 14n],
  [GET_LIFETIME, 15n],
  [SECURE_ERASE, 16n],
])

export interface Ask {
  readonly type: number
  readonly sector: bigint
  /** Bytes of the header that are there: 16 in a lawful request. */
  readonly headerBytes: number
  /** Readable bytes after the header. */
  readonly out: Uint8Array
  /** Writable bytes before the status byte; -1 when nothing is writable at all. */
  readonly inBytes: number
}

export interface Verdict {
  /** Status bytes that may come back; empty when there is nowhere to put one. */
  readonly statuses: ReadonlySet<number>
  /** Rules that were broken: one of them is reported, or none when none was. */
  readonly rules: ReadonlySet<string>
  readonly usedBytes: number
  /** What the writable side begins with afterwards. */
  readonly data: Uint8Array
  /** By byte of `data`: 0 where anything may be found. */
  readonly certain: Uint8Array
}

export interface ModelDisk {
  readonly content: Uint8Array
  readonly readOnly: boolean
  readonly blockBytes: number
  readonly serial: string
  readonly lifetime: readonly [number, number, number] | null
}

export interface ModelLimits {
  readonly rangeSectors: number
  readonly rangeSegments: number
}

interface Range {
  readonly sector: bigint
  readonly sectors: bigint
  readonly flags: number
}

const NOTHING = new Uint8Array(0)

export class BlkModel {
  content: Uint8Array
  /** By byte of `content`: 0 where a discard or an erase left anything at all. */
  certain: Uint8Array
  features: bigint
  readonly #disk: ModelDisk
  readonly #limits: ModelLimits

  constructor(disk: ModelDisk, limits: ModelLimits) {
    this.content = Uint8Array.from(disk.content)
    this.certain = new Uint8Array(disk.content.length).fill(1)
    this.features = 0n
    this.#disk = disk
    this.#limits = limits
  }

  /** Whole sectors: a rest cannot be addressed. */
  get capacity(): bigint {
    return BigInt(this.content.length) / SECTOR
  }

  resize(lengthBytes: number): void {
    const resized = (from: Uint8Array, fill: number) => {
      const into = new Uint8Array(lengthBytes).fill(fill)
      into.set(from.subarray(0, lengthBytes))
      return into
    }
    this.content = resized(this.content, 0)
    this.certain = resized(this.certain, 1)
  }

  answer(ask: Ask): Verdict {
    if (ask.inBytes < 0) return verdict(ask, [], ['block.status-absent'])
    if (ask.headerBytes < 16) return verdict(ask, [IOERR], ['block.header-short'])
    const needs = NEEDS.get(ask.type)
    if (needs !== undefined && ((this.features >> needs) & 1n) === 0n) {
      return verdict(ask, [UNSUPP], ['block.not-negotiated'])
    }
    if (ask.type === IN || ask.type === OUT) return this.#transfer(ask)
    if (ask.type === FLUSH) {
      const odd = ask.sector !== 0n || ask.out.length > 0 || ask.inBytes > 0
      return verdict(ask, [OK], odd ? ['block.flush-sector'] : [])
    }
    if (ask.type === GET_ID) {
      const id = new Uint8Array(20)
      id.set(new TextEncoder().encode(this.#disk.serial).subarray(0, 20))
      return replied(ask, id, ask.inBytes === 20 ? [] : ['block.id-length'])
    }
    if (ask.type === GET_LIFETIME) return this.#lifetime(ask)
    if (ask.type === DISCARD || ask.type === WRITE_ZEROES || ask.type === SECURE_ERASE) {
      return this.#ranges(ask)
    }
    return verdict(ask, [UNSUPP], [])
  }

  #transfer(ask: Ask): Verdict {
    const reading = ask.type === IN
    const lengthBytes = reading ? ask.inBytes : ask.out.length
    const broken: string[] = []
    if ((reading ? ask.out.length : ask.inBytes) !== 0) broken.push('block.data-direction')
    if (lengthBytes % 512 !== 0) broken.push('block.data-length')
    if (!reading && this.#disk.readOnly) broken.push('block.read-only')
    if (ask.sector * SECTOR + BigInt(lengthBytes) > this.capacity * SECTOR) broken.push('block.range')
    if (broken.length > 0) return verdict(ask, [IOERR], broken)
    const offset = Number(ask.sector * SECTOR)
    const block = this.#disk.blockBytes
    // Not the text's, but the disk's: less than a block cannot be had.
    if (offset % block !== 0 || lengthBytes % block !== 0) return verdict(ask, [IOERR], [])
    if (reading) {
      const data = this.content.slice(offset, offset + lengthBytes)
      const certain = this.certain.slice(offset, offset + lengthBytes)
      return { ...replied(ask, data, []), certain }
    }
    this.content.set(ask.out, offset)
    this.certain.fill(1, offset, offset + lengthBytes)
    return verdict(ask, [OK], [])
  }

  #lifetime(ask: Ask): Verdict {
    if (ask.inBytes < 6) return verdict(ask, [IOERR], ['block.data-length'])
    const bytes = new Uint8Array(6)
    const view = new DataView(bytes.buffer)
    for (const [i, value] of (this.#disk.lifetime ?? [0, 0, 0]).entries()) view.setUint16(2 * i, value, true)
    return replied(ask, bytes, [])
  }

  #ranges(ask: Ask): Verdict {
    const broken: string[] = []
    const statuses = new Set<number>()
    const breaks = (rule: string, status = IOERR) => {
      broken.push(rule)
      statuses.add(status)
    }
    if (ask.inBytes !== 0) breaks('block.data-direction')
    const whole = ask.out.length > 0 && ask.out.length % 16 === 0
    if (!whole) breaks('block.data-length')
    if (this.#disk.readOnly) breaks('block.read-only')
    const ranges = whole ? rangesOf(ask.out) : []
    if (ranges.length > this.#limits.rangeSegments) breaks('block.segment-count')
    for (const { sector, sectors, flags } of ranges) {
      if ((flags & ~(ask.type === WRITE_ZEROES ? 1 : 0)) !== 0) breaks('block.segment-flags', UNSUPP)
      if (sectors > BigInt(this.#limits.rangeSectors)) breaks('block.segment-sectors')
      if (sector + sectors > this.capacity) breaks('block.range')
    }
    if (broken.length > 0) return verdict(ask, [...statuses], broken)
    const block = BigInt(this.#disk.blockBytes)
    const misaligned = ranges.some(
      ({ sector, sectors }) => (sector * SECTOR) % block !== 0n || (sectors * SECTOR) % block !== 0n,
    )
    for (const { sector, sectors } of ranges) {
      const [from, to] = [Number(sector * SECTOR), Number((sector + sectors) * SECTOR)]
      if (ask.type === WRITE_ZEROES && !misaligned) {
        this.content.fill(0, from, to)
        this.certain.fill(1, from, to)
      } else {
        // Discarded, erased, or done in part: the text leaves open what is found there.
        this.certain.fill(0, from, to)
      }
    }
    return verdict(ask, [misaligned ? IOERR : OK], [])
  }
}

function rangesOf(out: Uint8Array): Range[] {
  const view = new DataView(out.buffer, out.byteOffset, out.length)
  return Array.from({ length: out.length / 16 }, (_, i) => ({
    sector: view.getBigUint64(16 * i, true),
    sectors: BigInt(view.getUint32(16 * i + 8, true)),
    flags: view.getUint32(16 * i + 12, true),
  }))
}

/** An answer without data. The status byte counts when nothing before it was left out. */
function verdict(ask: Ask, statuses: readonly number[], rules: readonly string[]): Verdict {
  return {
    statuses: new Set(statuses),
    rules: new Set(rules),
    usedBytes: ask.inBytes === 0 ? 1 : 0,
    data: NOTHING,
    certain: NOTHING,
  }
}

/** An answer that fills the writable side from its start, as far as both reach. */
function replied(ask: Ask, bytes: Uint8Array, rules: readonly string[]): Verdict {
  const data = bytes.slice(0, ask.inBytes)
  return {
    statuses: new Set([OK]),
    rules: new Set(rules),
    usedBytes: data.length === ask.inBytes ? data.length + 1 : data.length,
    data,
    certain: new Uint8Array(data.length).fill(1),
  }
}
