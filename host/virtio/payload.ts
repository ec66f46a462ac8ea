import type { DmaSpace } from '../../protocol/dma.ts'
import { gpa } from '../../protocol/memory.ts'
import type { Chain } from './chain.ts'

/** Where views are gathered. It keeps its room, which a fresh list would ask for each time. */
const gathered: Uint8Array<ArrayBuffer>[] = []

/**
 * Lends `lengthBytes` of one side of a chain, from `skipBytes` on: how requests see their data whatever the
 * driver's segmentation was. Segments that follow each other in memory are lent as one view, so that pages
 * in a row cost a backend one buffer.
 *
 * @param from first segment of the side, @param to one past its last.
 * @throws when the side is shorter: callers compare with the chain's totals first.
 */
export function lendPayload(
  dma: DmaSpace,
  chain: Chain,
  from: number,
  to: number,
  skipBytes: number,
  lengthBytes: number,
): Uint8Array<ArrayBuffer>[] {
  const { addresses, lengths } = chain
  if (gathered.length > 0) gathered.length = 0
  let skip = skipBytes
  let left = lengthBytes
  let runAt = 0
  let runBytes = 0
  for (let i = from; i < to && left > 0; i++) {
    const length = lengths[i] as number
    if (skip >= length) {
      skip -= length
      continue
    }
    const at = (addresses[i] as number) + skip
    const here = Math.min(length - skip, left)
    skip = 0
    left -= here
    if (runBytes > 0 && at === runAt + runBytes) {
      runBytes += here
      continue
    }
    if (runBytes > 0) lend(dma, runAt, runBytes)
    runAt = at
    runBytes = here
  }
  if (runBytes > 0) lend(dma, runAt, runBytes)
  if (left > 0) throw new Error(`a chain is ${left} bytes short of its own totals`)
  return takeGathered()
}

/** A list of exactly what was gathered. */
function takeGathered(): Uint8Array<ArrayBuffer>[] {
  if (gathered.length !== 1) return gathered.splice(0)
  return [gathered.pop() as Uint8Array<ArrayBuffer>]
}

function lend(dma: DmaSpace, at: number, lengthBytes: number): void {
  if (!dma.lend(gpa(at), lengthBytes, gathered)) throw new Error('a checked buffer cannot be had')
}

/** Copies a few bytes out of one side of a chain, each read once: headers and small tables. */
export function copyPayload(
  dma: DmaSpace,
  chain: Chain,
  from: number,
  to: number,
  skipBytes: number,
  into: Uint8Array,
): void {
  let done = 0
  for (const view of lendPayload(dma, chain, from, to, skipBytes, into.length)) {
    into.set(view, done)
    done += view.length
  }
}

/** Copies bytes into the writable side of a chain, from its start. */
export function fillPayload(dma: DmaSpace, chain: Chain, bytes: Uint8Array): void {
  let done = 0
  for (const view of lendPayload(dma, chain, chain.readableCount, chain.count, 0, bytes.length)) {
    view.set(bytes.subarray(done, done + view.length))
    done += view.length
  }
}
