import type { Srb } from '../port/srb.ts'
import type { BlkEnd } from './blk-command.ts'
import { BlkCommand } from './blk-command.ts'

/** What a command on the ring is for. */
export type SrbPurpose = 'read' | 'write' | 'flush' | 'unmap' | 'identify'

export interface CommandOwner {
  ended(command: SrbCommand, end: BlkEnd, writtenBytes: number): void
}

/** A block command on behalf of an SRB. Pooled: a request allocates none. */
export class SrbCommand extends BlkCommand {
  readonly #owner: CommandOwner
  srb: Srb | null
  purpose: SrbPurpose
  /** A flush follows before the request is answered: the write has to be durable. */
  flushAfter: boolean

  constructor(owner: CommandOwner) {
    super(0, 0)
    this.#owner = owner
    this.srb = null
    this.purpose = 'flush'
    this.flushAfter = false
  }

  ended(end: BlkEnd, writtenBytes: number): void {
    this.#owner.ended(this, end, writtenBytes)
  }
}
