import { encode } from '../../protocol/derive/codec.ts'
import { inflightSplitBytes } from '../../protocol/vhost-user/inflight.ts'
import { VhostUserInflight } from '../../protocol/vhost-user/payload.ts'
import { isQueueSize } from '../../protocol/virtio/ring.ts'
import type { Window } from '../../protocol/window.ts'
import type { PeerDescriptor, PeerEdge, PeerMemory } from './edge.ts'
import { InflightJournal } from './inflight-journal.ts'
import type { Broken } from './memory-table.ts'

/** What a front-end asks to be tracked. */
export interface AskedInflight {
  readonly sizeBytes: number
  readonly offset: number
  readonly queues: number
  readonly queueSize: number
}

export function readInflight(payload: Window): AskedInflight {
  return {
    sizeBytes: payload.le64(VhostUserInflight.size),
    offset: payload.le64(VhostUserInflight.offset),
    queues: payload.le16(VhostUserInflight.queues),
    queueSize: payload.le16(VhostUserInflight.queueSize),
  }
}

/** Why no buffer has this shape, or null. */
export function shapeBroken(
  { queues, queueSize }: AskedInflight,
  queueSizes: readonly number[],
): Broken | null {
  const broken = (seen: number, expected: number): Broken => ({
    rule: 'vhost.inflight-shape',
    seen,
    expected,
  })
  if (!(queues >= 1 && queues <= queueSizes.length)) return broken(queues, queueSizes.length)
  const sizeMax = Math.max(...queueSizes)
  if (!(isQueueSize(queueSize) && queueSize <= sizeMax)) return broken(queueSize, sizeMax)
  return null
}

/** Memory for a buffer of this shape, to be handed to the front-end; null when there is none to be had. */
export function newBuffer(
  { queues, queueSize }: AskedInflight,
  edge: PeerEdge,
): { readonly payload: Uint8Array; readonly descriptor: PeerDescriptor } | null {
  const sizeBytes = queues * inflightSplitBytes(queueSize)
  const descriptor = edge.allocate('paravane-inflight', sizeBytes)
  if (descriptor === null) return null
  return { payload: encode(VhostUserInflight, { size: BigInt(sizeBytes), queues, queueSize }), descriptor }
}

/** The tracking buffer a front-end handed us: each ring's part of it. */
export class InflightBuffer {
  readonly #memory: PeerMemory
  readonly #queueSize: number
  readonly #journals: readonly InflightJournal[]

  private constructor(memory: PeerMemory, { queues, queueSize }: AskedInflight) {
    this.#memory = memory
    this.#queueSize = queueSize
    const partBytes = inflightSplitBytes(queueSize)
    this.#journals = Array.from(
      { length: queues },
      (_, index) =>
        new InflightJournal(memory.bytes.subarray(index * partBytes, (index + 1) * partBytes), queueSize),
    )
  }

  static of(
    asked: AskedInflight,
    queueSizes: readonly number[],
    descriptor: PeerDescriptor,
    edge: PeerEdge,
  ): InflightBuffer | Broken {
    const shape = shapeBroken(asked, queueSizes)
    if (shape !== null) return shape
    if (descriptor.kind !== 'file') return { rule: 'vhost.descriptor-kind', seen: 0, expected: 0 }
    const neededBytes = asked.queues * inflightSplitBytes(asked.queueSize)
    const backed = Number.isSafeInteger(asked.offset + asked.sizeBytes)
    if (!(asked.sizeBytes >= neededBytes && backed && asked.offset % 8 === 0)) {
      return { rule: 'vhost.inflight-shape', seen: asked.sizeBytes, expected: neededBytes }
    }
    if (!(asked.offset + neededBytes <= descriptor.lengthBytes)) {
      return {
        rule: 'vhost.region-backed',
        seen: asked.offset + neededBytes,
        expected: descriptor.lengthBytes,
      }
    }
    const memory = edge.map(descriptor, asked.offset, neededBytes)
    if (memory === null) return { rule: 'vhost.region-backed', seen: neededBytes, expected: 0 }
    return new InflightBuffer(memory, asked)
  }

  /** A ring's journal; what is wrong when the buffer was not made for such a ring. */
  journal(index: number, size: number): InflightJournal | Broken {
    const journal = this.#journals[index]
    if (journal === undefined) {
      return { rule: 'vhost.inflight-shape', seen: index, expected: this.#journals.length - 1 }
    }
    if (!(size <= this.#queueSize)) {
      return { rule: 'vhost.inflight-shape', seen: size, expected: this.#queueSize }
    }
    return journal
  }

  close(): void {
    this.#memory.revoke()
  }
}
