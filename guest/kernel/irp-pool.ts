import { BugCode, keBugCheckEx } from './bug-check.ts'
import type { Hal } from './hal.ts'
import { IoType, IrpAllocation } from './io-layout.ts'
import { Irp, irpBytes } from './irp.ts'
import type { IrpObserver } from './irp-observer.ts'
import type { KernelMemory } from './kernel-memory.ts'
import { POISON, type Pool, PoolType, poolTag } from './pool.ts'

const IRP_TAG = poolTag('Irp ')
/** Requests of more locations come from the pool, each for itself. */
const LOOKASIDE_LOCATIONS = 8
/** Freed requests of one size that are kept. */
const LOOKASIDE_DEPTH = 64
/** CCHAR: a location's number is a signed byte. */
const STACK_COUNT_MAX = 126

/** Allocates requests, and knows every one that is alive. */
export class IrpPool {
  readonly #memory: KernelMemory
  readonly #hal: Hal
  readonly #pool: Pool
  /** Freed views by their number of locations. */
  readonly #lookaside: Irp[][]
  readonly #byAddress: Map<number, Irp>
  readonly #checked: boolean
  #live: number
  observer: IrpObserver | null

  /** @param checked a freed request is poisoned whole. */
  constructor(memory: KernelMemory, hal: Hal, pool: Pool, checked: boolean) {
    this.#memory = memory
    this.#hal = hal
    this.#pool = pool
    this.#lookaside = Array.from({ length: LOOKASIDE_LOCATIONS + 1 }, () => [])
    this.#byAddress = new Map()
    this.#checked = checked
    this.#live = 0
    this.observer = null
  }

  /** Requests allocated and not freed. */
  get liveCount(): number {
    return this.#live
  }

  /** The ones that are alive, for a report. */
  live(): Irp[] {
    return [...this.#byAddress.values()].filter((irp) => irp.holder !== 'freed')
  }

  /** The request whose record is at `at`: a list holds addresses. A wild one is a page fault. */
  irpAt(at: number): Irp {
    return this.#byAddress.get(at) ?? keBugCheckEx(BugCode.PAGE_FAULT_IN_NONPAGED_AREA, at)
  }

  /** IoAllocateIrp: null when memory is short or the stack is too deep. */
  allocate(stackCount: number, chargeQuota = false): Irp | null {
    const fixed = stackCount <= LOOKASIDE_LOCATIONS
    const kept = fixed ? this.#lookaside[stackCount] : undefined
    const irp = kept !== undefined && kept.length > 0 ? (kept.pop() as Irp) : this.#make(stackCount)
    if (irp === null) return null
    irp.initialize(
      (fixed ? IrpAllocation.FIXED_SIZE : 0) |
        (chargeQuota ? IrpAllocation.QUOTA_CHARGED | (fixed ? IrpAllocation.LOOKASIDE : 0) : 0),
    )
    this.#live++
    if (this.observer !== null) this.observer.allocated(irp)
    return irp
  }

  #make(stackCount: number): Irp | null {
    if (!(stackCount >= 1 && stackCount <= STACK_COUNT_MAX)) return null
    const at = this.#pool.allocate(PoolType.NON_PAGED, irpBytes(stackCount), IRP_TAG, this.#hal.irql)
    if (at === 0) return null
    const irp = new Irp(this.#memory, at, stackCount)
    this.#byAddress.set(at, irp)
    return irp
  }

  /** IoFreeIrp. */
  free(irp: Irp): void {
    // A request still in a thread's list would leave that list pointing into freed memory.
    if (irp.type !== IoType.IRP) keBugCheckEx(BugCode.BAD_POOL_CALLER, 7, irp.at)
    if (irp.isThreaded) keBugCheckEx(BugCode.INCONSISTENT_IRP, irp.at)
    if (this.observer !== null) this.observer.freeing(irp)
    irp.holder = 'freed'
    this.#live--
    const { at, locations } = irp
    const kept = irp.isFixedSize ? this.#lookaside[locations.length] : undefined
    if (kept !== undefined && kept.length < LOOKASIDE_DEPTH) {
      // Whole, unless every nanosecond counts: then its type and size alone, which most mistakes meet.
      if (this.#checked) this.#memory.bytes.fill(POISON, at, at + irpBytes(locations.length))
      else this.#memory.words[at >>> 2] = POISON * 0x101_0101
      kept.push(irp)
    } else this.#release(irp)
  }

  #release(irp: Irp): void {
    this.#byAddress.delete(irp.at)
    this.#pool.free(irp.at, this.#hal.irql)
  }

  /** IoReuseIrp: as fresh, but for where its memory came from. Only for requests of IoAllocateIrp. */
  reuse(irp: Irp, status: Irp['status']): void {
    if (irp.isThreaded) keBugCheckEx(BugCode.INCONSISTENT_IRP, irp.at)
    irp.initialize(irp.allocationFlags)
    irp.status = status
  }

  /** Gives kept memory back to the pool. */
  trim(): void {
    for (const kept of this.#lookaside) {
      for (const irp of kept) this.#release(irp)
      kept.length = 0
    }
  }
}
