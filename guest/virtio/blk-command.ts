import type { Gpa } from '../../protocol/memory.ts'
import { Segments } from './segments.ts'

/**
 * How a command ended: a status byte of the device's; no device any more; or a device that is given up and
 * may still write the command's memory, which nobody may reuse then.
 */
export type BlkEnd =
  | { readonly kind: 'status'; readonly status: number }
  | { readonly kind: 'gone' }
  | { readonly kind: 'lost' }

/** A page or more of guest memory that a command reads or writes. */
export interface GuestPiece {
  readonly at: Gpa
  readonly lengthBytes: number
}

/**
 * One request as the bare driver's user sees it. May be submitted again once it has ended; a kept command
 * costs no allocation.
 */
export abstract class BlkCommand {
  type: number
  sector: number
  /** Data after the header (readable) or before the status (writable), by the request type. */
  readonly data: Segments

  constructor(type: number, sector: number) {
    this.type = type
    this.sector = sector
    this.data = new Segments()
  }

  /** @param writtenBytes as the device said, at most what was writable, the status byte included. */
  abstract ended(end: BlkEnd, writtenBytes: number): void
}
