import type { KSemaphore } from './dispatcher-object.ts'
import type { CompletionPortLike } from './file-object.ts'
import type { Hal } from './hal.ts'
import { KSEMAPHORE } from './layout.ts'
import { NtStatus } from './nt-status.ts'
import { type Pool, PoolType, poolTag } from './pool.ts'
import type { Synchronization } from './synchronization.ts'
import type { Waiting } from './thread.ts'
import type { Waits } from './wait.ts'

const PORT_TAG = poolTag('IoCo')

/** What a port hands out for each finished request. */
export interface CompletionPacket {
  readonly key: number
  readonly apcContext: number
  readonly status: NtStatus
  readonly information: number
}

/** An I/O completion port: packets, first in, first out. */
export class CompletionPort implements CompletionPortLike {
  readonly #pool: Pool
  readonly #hal: Hal
  readonly #synchronization: Synchronization
  readonly #waits: Waits
  readonly #filled: KSemaphore
  readonly #packets: CompletionPacket[]
  #references: number

  constructor(pool: Pool, hal: Hal, synchronization: Synchronization, waits: Waits, room: number) {
    this.#pool = pool
    this.#hal = hal
    this.#synchronization = synchronization
    this.#waits = waits
    this.#filled = synchronization.initializeSemaphore(room, 0, 0x7fff_ffff)
    this.#packets = []
    this.#references = 1
  }

  /** NtCreateIoCompletion; null when memory is short. */
  static create(pool: Pool, hal: Hal, synchronization: Synchronization, waits: Waits): CompletionPort | null {
    const room = pool.allocate(PoolType.NON_PAGED, KSEMAPHORE.$size, PORT_TAG, hal.irql)
    return room === 0 ? null : new CompletionPort(pool, hal, synchronization, waits, room)
  }

  /** Packets nobody has taken. */
  get depth(): number {
    return this.#packets.length
  }

  /** Also NtSetIoCompletion: a packet of one's own. */
  post(key: number, apcContext: number, status: NtStatus, information: number): void {
    this.#packets.push({ key, apcContext, status, information })
    this.#synchronization.releaseSemaphore(this.#filled, 1)
  }

  /** NtRemoveIoCompletion: the next packet, or TIMEOUT. */
  *remove(timeoutUs: number | null = null): Waiting<CompletionPacket | NtStatus> {
    const status = yield* this.#waits.wait([this.#filled.at], true, { timeoutUs })
    if (status !== NtStatus.WAIT_0) return status
    return this.#packets.shift() ?? NtStatus.TIMEOUT
  }

  /** A handle, each file that was associated, and who waits keep it. */
  reference(): void {
    this.#references++
  }

  release(): void {
    this.#references--
    if (this.#references > 0) return
    this.#packets.length = 0
    this.#pool.free(this.#filled.at, this.#hal.irql)
  }
}
