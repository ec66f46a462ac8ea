import { gpa } from '../../../protocol/memory.ts'
import type { Irp } from '../../kernel/irp.ts'
import type { Kernel } from '../../kernel/kernel.ts'
import { PoolType, poolTag } from '../../kernel/pool.ts'
import type { LogicalUnit } from './logical-unit.ts'
import { PortRequest } from './port-request.ts'

const TAG = poolTag('Stor')

/** The requests of an adapter: made when there is none to use again, each with its miniport's extension. */
export class RequestPool {
  readonly #kernel: Kernel
  readonly #idle: PortRequest[]
  readonly #all: PortRequest[]
  /** Bytes a miniport wants with every request. */
  extensionBytes: number

  constructor(kernel: Kernel) {
    this.#kernel = kernel
    this.#idle = []
    this.#all = []
    this.extensionBytes = 0
  }

  /** Null when memory is short. */
  take(unit: LogicalUnit, irp: Irp | null): PortRequest | null {
    const request = this.#idle.pop() ?? this.#make()
    if (request === null) return null
    request.irp = irp
    request.unit = unit
    request.ended = null
    request.busyUntilUs = 0
    request.listMade = false
    request.onLoan = false
    request.memoryShort = false
    return request
  }

  #make(): PortRequest | null {
    const { extensionBytes } = this
    const at =
      extensionBytes === 0 ? 0 : this.#kernel.exAllocatePoolWithTag(PoolType.NON_PAGED, extensionBytes, TAG)
    if (at === 0 && extensionBytes > 0) return null
    const request = new PortRequest(gpa(at))
    this.#all.push(request)
    return request
  }

  /** The request of an IRP that waits for its turn. */
  queuedOf(irp: Irp): PortRequest | undefined {
    return this.#all.find((one) => one.irp === irp && one.state === 'queued')
  }

  /** An extension the device may still write goes with the request that had it. */
  give(request: PortRequest): void {
    request.irp = null
    request.unit = null
    request.ended = null
    request.state = 'free'
    if (!request.onLoan) this.#idle.push(request)
  }

  /** Gives the extensions back. */
  release(): void {
    for (const request of this.#all) {
      if (request.extension !== 0 && !request.onLoan) this.#kernel.exFreePool(request.extension)
    }
    this.#all.length = 0
  }
}
