import type { RequirementId } from '../../protocol/requirement.ts'
import { u64Payload } from '../../protocol/vhost-user/frame.ts'
import type { FrontEndMessageName } from '../../protocol/vhost-user/message.ts'
import type { Window } from '../../protocol/window.ts'
import type { PeerDescriptor } from './edge.ts'
import type { Broken } from './memory-table.ts'

/** What came with a message. Whoever keeps one takes it out; the rest is closed when the message is done. */
export class Riding {
  #descriptors: (PeerDescriptor | null)[]

  constructor(descriptors: readonly PeerDescriptor[]) {
    this.#descriptors = [...descriptors]
  }

  get all(): readonly PeerDescriptor[] {
    return this.#descriptors.filter((one) => one !== null)
  }

  get first(): PeerDescriptor | null {
    return this.#descriptors[0] ?? null
  }

  /** Hands the first one to `taker`; it stays here when that answers null. */
  give<T>(taker: (descriptor: PeerDescriptor) => T | null): T | null {
    const { first } = this
    const taken = first === null ? null : taker(first)
    if (taken !== null) this.#descriptors[0] = null
    return taken
  }

  /** Closes what nobody took. Twice is once. */
  close(): void {
    const left = this.all
    this.#descriptors = []
    for (const descriptor of left) descriptor.close()
  }
}

/** A message that passed its syntax check and whose gate is open. */
export interface Request {
  readonly name: FrontEndMessageName
  readonly payload: Window
  readonly bytes: Uint8Array<ArrayBuffer>
  readonly riding: Riding
}

/** What became of a message. */
export type Outcome =
  | { readonly kind: 'done' }
  | {
      readonly kind: 'reply'
      readonly payload: Uint8Array
      /** Sent along, and closed here once it is. */
      readonly descriptor: PeerDescriptor | null
    }
  | ({ readonly kind: 'refused'; readonly queue: number | null } & Broken)
  /** Something has to end first. `begin` calls `finish` once, now or later; no message is read meanwhile. */
  | { readonly kind: 'later'; readonly begin: (finish: (outcome: Outcome) => void) => void }

export const DONE: Outcome = { kind: 'done' }

export function refused(
  rule: RequirementId,
  seen: number,
  expected: number,
  queue: number | null = null,
): Outcome {
  return { kind: 'refused', rule, seen, expected, queue }
}

export function reply(payload: Uint8Array, descriptor: PeerDescriptor | null = null): Outcome {
  return { kind: 'reply', payload, descriptor }
}

export function replyU64(value: bigint | number): Outcome {
  return reply(u64Payload(BigInt(value)))
}
