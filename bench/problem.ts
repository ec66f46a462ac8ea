import type { BlkEnd } from '../guest/virtio/blk-command.ts'
import { BlkStatus, BlkType, SECTOR_BYTES } from '../protocol/virtio/blk.ts'

/** Why a run is not verified, apart from violations. */
export interface Problem {
  readonly disk: string
  readonly kind: 'not-started' | 'request-failed' | 'wrong-data' | 'never-answered' | 'module-threw'
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
  /** A request ended whose memory the device may still write: nobody may use it again. */
  loansLost: boolean

  constructor(disk: string) {
    this.#disk = disk
    this.#first = []
    this.#total = 0
    this.loansLost = false
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

  failed(type: number, offset: number, end: BlkEnd): void {
    if (end.kind === 'lost') this.loansLost = true
    const sector = offset / SECTOR_BYTES
    this.add('request-failed', sector, `${typeName(type)} at sector ${sector} ended in ${endName(end)}`)
  }

  short(type: number, offset: number, writtenBytes: number, asked: number): void {
    const sector = offset / SECTOR_BYTES
    const text = `${typeName(type)} at sector ${sector} says it wrote ${writtenBytes} bytes of ${asked}`
    this.add('request-failed', sector, text)
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
      `${place}: the driver read ${hex(seen[at])}, ${witness} ${hex(expected[at])}`,
    )
    return false
  }
}

/** A request type by the specification's name. */
export function typeName(type: number): string {
  return Object.entries(BlkType).find(([, value]) => value === type)?.[0] ?? `type ${type}`
}

function endName(end: BlkEnd): string {
  if (end.kind === 'gone') return 'a reset'
  if (end.kind === 'lost') return 'a reset that the device does not finish'
  return Object.entries(BlkStatus).find(([, value]) => value === end.status)?.[0] ?? `status ${end.status}`
}

function hex(byte: number | undefined): string {
  return `0x${(byte ?? 0).toString(16).padStart(2, '0')}`
}
