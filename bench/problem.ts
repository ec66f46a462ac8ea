import { type NtStatus, ntStatusName } from '../guest/kernel/nt-status.ts'
import { BlkType, SECTOR_BYTES } from '../protocol/virtio/blk.ts'

/** Why a run is not verified, apart from violations. */
export interface Problem {
  readonly disk: string
  readonly kind:
    | 'not-started'
    | 'daemon'
    | 'request-failed'
    | 'wrong-data'
    | 'never-answered'
    | 'module-threw'
  /** First sector concerned; null when it is about no place. */
  readonly sector: number | null
  /** One line for a person. */
  readonly text: string
}

const KEPT = 16

/** A disk's problems: all are counted, the first sixteen kept. */
export class ProblemList {
  readonly #disk: string
  readonly #first: Problem[]
  #total: number

  constructor(disk: string) {
    this.#disk = disk
    this.#first = []
    this.#total = 0
  }

  get total(): number {
    return this.#total
  }

  get first(): readonly Problem[] {
    return this.#first
  }

  add(kind: Problem['kind'], sector: number | null, text: string): void {
    this.#total++
    if (this.#first.length < KEPT) this.#first.push({ disk: this.#disk, kind, sector, text })
  }

  /** The same before all others: what explains them. */
  addFirst(kind: Problem['kind'], text: string): void {
    this.#total++
    this.#first.unshift({ disk: this.#disk, kind, sector: null, text })
    this.#first.splice(KEPT)
  }

  /** A request of the application failed; `offset` null: it has no place. */
  failed(what: string, offset: number | null, status: NtStatus): void {
    const sector = offset === null ? null : offset / SECTOR_BYTES
    const place = sector === null ? '' : ` at sector ${sector}`
    this.add('request-failed', sector, `${what}${place} ended in ${ntStatusName(status)}`)
  }

  short(what: string, offset: number, movedBytes: number, asked: number): void {
    const sector = offset / SECTOR_BYTES
    this.add('request-failed', sector, `${what} at sector ${sector} moved ${movedBytes} bytes of ${asked}`)
  }

  /** Compares, and says where the first difference is. True when there is none. */
  same(seen: Uint8Array, expected: Uint8Array, offset: number, witness: string): boolean {
    if (Buffer.compare(seen, expected) === 0) return true
    const at = seen.findIndex((byte, index) => byte !== expected[index])
    const sector = Math.floor((offset + at) / SECTOR_BYTES)
    const place = `sector ${sector}, byte ${(offset + at) % SECTOR_BYTES}`
    this.add(
      'wrong-data',
      sector,
      `${place}: the guest read ${hex(seen[at])}, ${witness} ${hex(expected[at])}`,
    )
    return false
  }
}

/** A request type of the device by the specification's name. */
export function typeName(type: number): string {
  return Object.entries(BlkType).find(([, value]) => value === type)?.[0] ?? `type ${type}`
}

function hex(byte: number | undefined): string {
  return `0x${(byte ?? 0).toString(16).padStart(2, '0')}`
}
