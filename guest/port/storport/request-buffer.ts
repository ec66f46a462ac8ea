import type { Gpa } from '../../../protocol/memory.ts'
import { gpa } from '../../../protocol/memory.ts'
import type { Kernel } from '../../kernel/kernel.ts'
import type { Mdl } from '../../kernel/mdl.ts'
import { PoolType, poolTag } from '../../kernel/pool.ts'
import { SrbFlag } from '../srb.ts'
import type { PortCounts } from './port-counts.ts'
import type { PortRequest } from './port-request.ts'

const TAG = poolTag('StPb')
const PAGE_BYTES = 4096

/** A request's data as a miniport needs it: physical pieces, or bytes in a row. */
export class RequestBuffer {
  readonly #kernel: Kernel
  readonly #counts: PortCounts

  constructor(kernel: Kernel, counts: PortCounts) {
    this.#kernel = kernel
    this.#counts = counts
  }

  /** Physical pieces of the buffer, in the request's own list. False: part of it is not there. */
  pieces(request: PortRequest): boolean {
    if (request.listMade) return true
    const { list } = request
    list.count = 0
    const total = request.dataTransferLength
    const mdl = this.#mdlOf(request)
    // Kernel memory is one piece: its addresses are physical ones.
    if (mdl === null) {
      if (!this.#kernel.parts.memory.guest.backed(request.dataBuffer, total)) return false
      this.#append(request, request.dataBuffer, total)
    } else if (!this.#ofMdl(request, mdl, total)) return false
    request.listMade = true
    return true
  }

  #ofMdl(request: PortRequest, mdl: Mdl, total: number): boolean {
    let offset = request.dataBuffer - mdl.virtualAddress
    if (!(offset >= 0 && total <= mdl.byteCount - offset)) return false
    for (let left = total; left > 0; ) {
      const run = mdl.runBytes(offset, left)
      this.#append(request, mdl.physical(offset), run)
      offset += run
      left -= run
    }
    return true
  }

  #append(request: PortRequest, at: Gpa, lengthBytes: number): void {
    const { list } = request
    list.addresses[list.count] = at
    list.lengths[list.count] = lengthBytes
    list.count++
  }

  /** Where the data lies in a row, copied there if it does not; null when there is no room. */
  inRow(request: PortRequest): Gpa | null {
    if (request.bounce !== 0) return gpa(request.bounce)
    if (!this.pieces(request)) return null
    const { list } = request
    if (list.count === 1) return list.addresses[0] ?? null
    const total = request.dataTransferLength
    request.bounce = this.#kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, total, TAG)
    if (request.bounce === 0) {
      request.memoryShort = true
      return null
    }
    this.#copy(request, (request.srbFlags & SrbFlag.DATA_OUT) !== 0, total)
    return gpa(request.bounce)
  }

  /** Lets go of the copy, once it holds what the device said. */
  release(request: PortRequest): void {
    if (request.bounce === 0) return
    if (request.onLoan) {
      request.bounce = 0
      return
    }
    if ((request.srbFlags & SrbFlag.DATA_IN) !== 0) this.#copy(request, false, request.dataTransferLength)
    this.#kernel.exFreePool(request.bounce)
    request.bounce = 0
  }

  /** Between the pieces and the copy: into the copy for a request that sends, out of it else. */
  #copy(request: PortRequest, sending: boolean, total: number): void {
    const { bytes } = this.#kernel.parts.memory
    const { list } = request
    let done = 0
    for (let i = 0; i < list.count && done < total; i++) {
      const at = list.addresses[i] ?? 0
      const here = Math.min(list.lengths[i] ?? 0, total - done)
      if (sending) bytes.copyWithin(request.bounce + done, at, at + here)
      else bytes.copyWithin(at, request.bounce + done, request.bounce + done + here)
      done += here
    }
    this.#counts.bytesCopied += done
  }

  /** Keeps the pages for ever: the device may still write them. How many there are. */
  leave(request: PortRequest): number {
    request.onLoan = true
    if (!this.pieces(request)) return 0
    const { list } = request
    const pages = new Set<number>()
    for (let i = 0; i < list.count; i++) {
      const at = list.addresses[i] ?? 0
      for (let page = Math.floor(at / PAGE_BYTES); page * PAGE_BYTES < at + (list.lengths[i] ?? 0); page++) {
        pages.add(page)
      }
    }
    for (const page of pages) this.#kernel.parts.frames.retain(page)
    return pages.size
  }

  #mdlOf(request: PortRequest): Mdl | null {
    const at = request.irp?.mdlAddress ?? 0
    if (at === 0) return null
    if (request.mdl?.at !== at) request.mdl = this.#kernel.mdlAt(at)
    return request.mdl
  }
}
